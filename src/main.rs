//! The `claviger` program: hands its arguments to [`claviger::cli`].

use std::process::ExitCode;

use claviger::wipe::Wiping;
use mimalloc::MiMalloc;

/// Pingora's cost is one sixth allocator; mimalloc was the cheapest of those measured.
#[global_allocator]
static ALLOCATOR: Wiping<MiMalloc> = Wiping(MiMalloc);

fn main() -> ExitCode {
    claviger::wipe::cover_openssl();
    claviger::cli::main(std::env::args_os())
}
