//! `claviger check`: what `run` would refuse or warn about, all at once, by the same compilation.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::ConfigArgs;
use crate::clock::{Clock, SystemClock};
use crate::config::Documents;
use crate::config::bootstrap::{Bootstrap, BootstrapError};
use crate::config::source::{Source, SourceOptions};
use crate::diagnostic::{Diagnostic, Severity};
use crate::reload;
use crate::secrets::{Secrets, View};
use crate::server;
use crate::snapshot::{Snapshot, compile, references};
use crate::telemetry::Metrics;

/// Arguments of `claviger check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Resource file or folder.
    #[arg(short, long, value_name = "PATH")]
    resources: Option<PathBuf>,
    /// Also ask the managers whether every reference has a value. Prints no value.
    #[arg(long)]
    resolve: bool,
}

/// Prints the findings. 0: none that refuses; 1: some; 2 (an error): could not run.
///
/// # Errors
/// A file cannot be read, or output cannot be written.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (bootstrap, mut findings) = match Bootstrap::load(&args.config.config) {
        Ok(loaded) => loaded,
        Err(BootstrapError::Refused { path, diagnostics }) => {
            return report(&with_shapes(path, args.resources.as_deref(), diagnostics));
        }
        Err(unreadable) => return Err(unreadable.into()),
    };
    let resources = args
        .resources
        .clone()
        .unwrap_or_else(|| bootstrap.resources_path());
    match Checked::new(&bootstrap, &resources, args.resolve)? {
        Checked::Unparsable(diagnostic) => findings.push(diagnostic),
        Checked::Compiled(compiled) => findings.extend(compiled.diagnostics()),
    }
    report(&findings)
}

/// Where `config.yaml` is refused nothing can be compiled, but the resources' own mistakes are
/// told all the same.
fn with_shapes(
    config: PathBuf,
    resources: Option<&Path>,
    mut findings: Vec<Diagnostic>,
) -> Vec<Diagnostic> {
    let defaults = Bootstrap {
        path: config,
        ..Bootstrap::default()
    };
    let path = resources.map_or_else(|| defaults.resources_path(), Path::to_owned);
    match Source::new(path, SourceOptions::default()).load() {
        Ok(documents) => findings.extend(documents.diagnostics),
        Err(error) if resources.is_some() => findings.push(error.diagnostic),
        // They may stand where only the refused file says.
        Err(_) => {}
    }
    findings
}

/// A configuration as far as it could be taken without serving it.
pub(super) enum Checked {
    /// The text is no document.
    Unparsable(Diagnostic),
    /// It was compiled.
    Compiled(Box<Compiled>),
}

/// A compiled configuration that serves nothing.
pub(super) struct Compiled {
    pub(super) snapshot: Snapshot,
    pub(super) secrets: Arc<Secrets>,
    pub(super) users: HashMap<Arc<str>, Vec<Arc<str>>>,
    managers: Vec<Diagnostic>,
    resolved: bool,
}

impl Compiled {
    /// All findings. Where values were not asked for, their absence is none.
    pub(super) fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut all = self.managers.clone();
        for diagnostic in &self.snapshot.diagnostics {
            let about_value = diagnostic.code == references::UNRESOLVED;
            match (about_value, self.resolved) {
                (true, false) => {}
                (true, true) => all.push(Diagnostic {
                    severity: Severity::Error,
                    ..diagnostic.clone()
                }),
                (false, _) => all.push(diagnostic.clone()),
            }
        }
        all
    }
}

impl Checked {
    /// Reads, compiles and, when asked to, resolves.
    pub(super) fn new(
        bootstrap: &Bootstrap,
        resources: &Path,
        resolve: bool,
    ) -> anyhow::Result<Self> {
        let options = SourceOptions {
            max_bytes: bootstrap.claviger.max_resource_bytes,
            declared: Arc::new(bootstrap.declared()),
            ..SourceOptions::default()
        };
        let documents = match Source::new(resources, options).load() {
            Ok(documents) => documents,
            Err(error) => return Ok(Self::Unparsable(error.diagnostic)),
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new("apisix_"));
        let env = server::compile_env(bootstrap, &metrics, &clock)?;
        let settings = server::secrets_settings(bootstrap)?;
        let secrets = Secrets::new(settings, Arc::clone(&clock), Arc::new(()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.context("cannot start a runtime")?;
        let users = references::users(&documents);
        let (view, managers) = runtime.block_on(view(
            &documents,
            &secrets,
            &users,
            resolve,
            bootstrap.claviger.secrets.load_wait,
        ));
        let snapshot = compile::compile(&documents, &view, None, &env, clock.wall());
        Ok(Self::Compiled(Box::new(Compiled {
            snapshot,
            secrets,
            users,
            managers,
            resolved: resolve,
        })))
    }
}

async fn view(
    documents: &Documents,
    secrets: &Arc<Secrets>,
    users: &HashMap<Arc<str>, Vec<Arc<str>>>,
    resolve: bool,
    wait: Duration,
) -> (View, Vec<Diagnostic>) {
    let problems = reload::configure(documents, secrets);
    if !resolve {
        return (View::default(), problems);
    }
    let references = users.keys().cloned().collect();
    (secrets.ensure(&references, wait).await, problems)
}

fn report(findings: &[Diagnostic]) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for finding in findings {
        writeln!(out, "{finding}")?;
    }
    let errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    let warnings = findings.len() - errors;
    writeln!(out, "{errors} error(s), {warnings} warning(s)")?;
    Ok(if errors > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
