//! The threads that load: configuration is read and compiled on them, secrets are fetched. What
//! they free is wiped.

use std::io;

use tokio::runtime::{Builder, Runtime};

use crate::wipe;

/// A runtime whose threads, those for blocking work too, wipe what they free. One worker: what is
/// long goes to blocking threads.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("configuration")
        .on_thread_start(wipe::on_this_thread)
        .enable_all()
        .build()
}
