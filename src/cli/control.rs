//! `claviger reload`, `stop`, `quit`: signals to the running process, found by its pid file.

use std::process::ExitCode;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::ConfigArgs;
use crate::config::bootstrap::Bootstrap;
use crate::server;

/// What the running process is asked to do.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Read the resources again.
    Reload,
    /// End at once.
    Stop,
    /// End once the last request has.
    Quit,
}

/// Sends the order's signal.
///
/// # Errors
/// There is no running process, or it is not ours to signal.
pub fn signal(args: &ConfigArgs, order: Order) -> anyhow::Result<ExitCode> {
    let (bootstrap, _) = Bootstrap::load(&args.config)?;
    let path = &bootstrap.claviger.pid_file;
    let pid = server::pid_of(path).with_context(|| {
        format!(
            "no running gateway: the pid file {} cannot be read",
            path.display()
        )
    })?;
    let pid = Pid::from_raw(pid).context("the pid file holds no pid")?;
    let signal = match order {
        Order::Reload => Signal::HUP,
        Order::Stop => Signal::INT,
        Order::Quit => Signal::TERM,
    };
    kill_process(pid, signal).with_context(|| format!("process {pid:?} cannot be signalled"))?;
    Ok(ExitCode::SUCCESS)
}
