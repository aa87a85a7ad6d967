//! `claviger run`: serve.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::ConfigArgs;
use crate::clock::SystemClock;
use crate::config::bootstrap::{Bootstrap, BootstrapError};
use crate::diagnostic::{Diagnostic, Severity};
use crate::{server, wipe};

/// Arguments of `claviger run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Resource file, or a folder whose `*.yaml` are read in name order as one document.
    #[arg(short, long, value_name = "PATH")]
    pub resources: Option<PathBuf>,
    /// Take the listening sockets over from a running process that gets SIGQUIT.
    #[arg(long)]
    pub upgrade: bool,
}

/// Serves until a signal says stop.
///
/// # Errors
/// The gateway cannot start.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    // This thread reads `config.yaml` and the resources, and serves nobody.
    wipe::on_this_thread();
    let (bootstrap, findings) = load(&args.config)?;
    let logger = server::logger(&bootstrap, Arc::new(SystemClock))?;
    logger.install()?;
    let environment = server::harden(&bootstrap);
    for finding in &findings {
        log_finding(finding);
    }
    let resources = args
        .resources
        .clone()
        .unwrap_or_else(|| bootstrap.resources_path());
    let served = server::run(&bootstrap, &resources, args.upgrade, &logger, &environment);
    if let Err(error) = &served {
        log::error!("cannot start: {error}");
    }
    let _ = logger.flush_within(server::LAST_WORDS);
    served?;
    Ok(ExitCode::SUCCESS)
}

fn log_finding(finding: &Diagnostic) {
    match finding.severity {
        Severity::Error => log::error!("{finding}"),
        Severity::Warning => log::warn!("{finding}"),
    }
}

/// Loads the bootstrap configuration; every finding is told where it is refused.
///
/// # Errors
/// It cannot be read or is refused.
pub(super) fn load(args: &ConfigArgs) -> anyhow::Result<(Bootstrap, Vec<Diagnostic>)> {
    Bootstrap::load(&args.config).map_err(|error| {
        if let BootstrapError::Refused { diagnostics, .. } = &error {
            for diagnostic in diagnostics {
                drop(writeln!(std::io::stderr(), "{diagnostic}"));
            }
        }
        error.into()
    })
}
