//! `claviger explain`: which object uses which reference, and what state it is in. Asks the
//! managers, prints no value.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::ConfigArgs;
use super::check::Checked;
use super::run::load;

/// Arguments of `claviger explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Resource file or folder.
    #[arg(short, long, value_name = "PATH")]
    resources: Option<PathBuf>,
    /// Only this object (`routes/1`) or this reference.
    #[arg(value_name = "ID or $REFERENCE")]
    about: Option<String>,
}

/// Prints the references in use with their users.
///
/// # Errors
/// The configuration cannot be read, or output cannot be written.
pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let (bootstrap, _) = load(&args.config)?;
    let resources = args
        .resources
        .clone()
        .unwrap_or_else(|| bootstrap.resources_path());
    let mut out = std::io::stdout().lock();
    let compiled = match Checked::new(&bootstrap, &resources, true)? {
        Checked::Unparsable(diagnostic) => {
            writeln!(out, "{diagnostic}")?;
            return Ok(ExitCode::FAILURE);
        }
        Checked::Compiled(compiled) => compiled,
    };
    let wanted = |about: &str, users: &[std::sync::Arc<str>]| match args.about.as_deref() {
        None => true,
        Some(asked) => asked == about || users.iter().any(|user| **user == *asked),
    };
    for reference in compiled.secrets.report() {
        let users = compiled
            .users
            .get(&reference.reference)
            .map_or(&[][..], Vec::as_slice);
        if !wanted(&reference.reference, users) {
            continue;
        }
        writeln!(out, "{}", reference.reference)?;
        write!(
            out,
            "  manager {}, path {}, {:?}",
            reference.manager, reference.path, reference.state
        )?;
        if let Some(version) = &reference.manager_version {
            write!(out, ", version {version}")?;
        }
        if let Some(age) = reference.age {
            write!(out, ", {} s old", age.as_secs())?;
        }
        if let Some(reason) = &reference.reason {
            write!(out, ": {reason}")?;
        }
        writeln!(out)?;
        for user in users {
            writeln!(out, "  used by {user}")?;
        }
    }
    let mut kinds: Vec<_> = compiled.snapshot.counts.iter().collect();
    kinds.sort_unstable_by_key(|(kind, _)| **kind);
    for (kind, count) in kinds {
        writeln!(
            out,
            "{kind}: {} declared, {} refusing",
            count.items, count.refused
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
