//! `claviger audit verify`: whether audit logs are as they were written.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::ConfigArgs;
use super::run::load;
use crate::clock::{Clock, SystemClock};
use crate::config::bootstrap::Bootstrap;
use crate::server;
use crate::telemetry::audit::{Seal, Verdict, verify};

/// Arguments of `claviger audit`.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum AuditCommand {
    /// Check the chain of one log, or of several rotated files, oldest first. 0: it holds; 1: it
    /// was tampered with or is damaged; 2: it cannot be read.
    Verify(VerifyArgs),
}

#[derive(Debug, Clone, Args)]
struct VerifyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A hash read from the log earlier, which must still be in it: without one, lines cut off at
    /// the end may go unnoticed.
    #[arg(long, value_name = "HASH")]
    head: Option<String>,
    /// Reference to the key lines are sealed with, such as $env://CLAVIGER_AUDIT_KEY. Default:
    /// claviger.audit.key of the configuration, where that can be read.
    #[arg(long, value_name = "$REFERENCE")]
    key: Option<String>,
    /// Files, oldest first. Default: claviger.audit.path of the configuration.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Prints the verdict.
///
/// # Errors
/// Something cannot be read, or output cannot be written.
pub fn run(args: &AuditArgs) -> anyhow::Result<ExitCode> {
    let AuditCommand::Verify(args) = &args.command;
    let (seal, files) = what(args)?;
    let verdict = verify(&files, &seal, args.head.as_deref())?;
    tell(&verdict)?;
    Ok(if verdict.wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The key and the files. The configuration is needed only for what the arguments do not say.
fn what(args: &VerifyArgs) -> anyhow::Result<(Seal, Vec<PathBuf>)> {
    let mut bootstrap = if args.config.config.exists() || args.files.is_empty() {
        load(&args.config)?.0
    } else {
        Bootstrap::default()
    };
    if args.key.is_some() {
        bootstrap.claviger.audit.key.clone_from(&args.key);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // Nothing was taken out of the environment here: references read the process's own.
    let environment = server::Environment::default();
    let seal = server::audit_seal(&bootstrap, &bootstrap.declared(), &clock, &environment)?;
    if !args.files.is_empty() {
        return Ok((seal, args.files.clone()));
    }
    let path = bootstrap.claviger.audit.path;
    let path = path.context("no FILE given, and the configuration sets no claviger.audit.path")?;
    Ok((seal, vec![path]))
}

fn tell(verdict: &Verdict) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for file in &verdict.files {
        write!(out, "{}: {} lines", file.path.display(), file.lines)?;
        if let (Some(first), Some(last)) = (file.first, file.last) {
            write!(out, ", {first} to {last}")?;
        }
        writeln!(out)?;
    }
    let notes = verdict.notes.iter().map(|note| ("note", note));
    let findings = verdict.findings.iter().map(|finding| ("error", finding));
    for (word, found) in notes.chain(findings) {
        writeln!(
            out,
            "{}:{}: {word}: {}",
            found.path.display(),
            found.line,
            found.what
        )?;
    }
    if let (Some(first), Some(last)) = (&verdict.first_time, &verdict.last_time) {
        writeln!(out, "from {first} to {last}")?;
    }
    writeln!(out, "head {} {}", verdict.head.seq, verdict.head.hash())?;
    let shown = verdict.findings.len();
    match verdict.wrong {
        0 => writeln!(out, "the chain holds")?,
        wrong if wrong > shown => writeln!(out, "{wrong} errors, the first {shown} are shown")?,
        wrong => writeln!(out, "{wrong} error(s)")?,
    }
    Ok(())
}
