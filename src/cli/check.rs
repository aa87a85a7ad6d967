//! `claviger check`: what `run` would refuse or warn about, all at once, by the same compilation.

use std::collections::BTreeSet;
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
use crate::secrets::{ProbeFault, ProbeReport, Secrets, View};
use crate::server;
use crate::snapshot::graph::{self, Graph};
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
    /// Also ask the managers whether every reference would resolve. Reads no value where a manager
    /// can answer without; a token that may not read values is enough.
    #[arg(long)]
    resolve: bool,
    /// Also read the values, and tell those that cannot be used where they stand: a key that does
    /// not fit its certificate, a text where an address should be. Asks as `--resolve` does about
    /// what cannot be read; needs a token that may read values, and prints none.
    #[arg(long)]
    values: bool,
}

/// What managers are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// Nothing.
    Nobody,
    /// Whether references would resolve.
    Presence,
    /// The values.
    Values,
}

impl CheckArgs {
    fn asking(&self) -> Asking {
        match (self.values, self.resolve) {
            (true, _) => Asking::Values,
            (false, true) => Asking::Presence,
            (false, false) => Asking::Nobody,
        }
    }
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
    match Checked::new(&bootstrap, &resources, args.asking())? {
        Checked::Unparsable(diagnostic) => findings.push(diagnostic),
        Checked::Compiled(compiled) => {
            compiled.tell_unasked()?;
            findings.extend(compiled.diagnostics());
        }
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
    pub(super) documents: Documents,
    pub(super) snapshot: Snapshot,
    pub(super) graph: Graph,
    /// What the managers said, where they were asked; where values were read, of the references
    /// without. Sorted by reference.
    pub(super) probes: Option<Vec<ProbeReport>>,
    /// Findings about managers.
    pub(super) managers: Vec<Diagnostic>,
}

impl Compiled {
    /// All findings. Where managers were not asked, references without value are none.
    pub(super) fn diagnostics(&self) -> Vec<Diagnostic> {
        let asked = self.probes.is_some();
        let of_compile = self.snapshot.diagnostics.iter().filter(|found| {
            // What was asked is told below, for every place a reference stands in.
            let about_value = if asked {
                references::is_about_value(found.code)
            } else {
                found.code == references::UNRESOLVED
            };
            !about_value
        });
        let mut all: Vec<_> = of_compile.cloned().collect();
        all.extend(self.unresolved());
        all.sort_by(|a, b| {
            let place = |d: &Diagnostic| (d.place.line, d.place.column);
            let files = a.place.file.cmp(&b.place.file);
            files.then_with(|| place(a).cmp(&place(b)))
        });
        self.managers.iter().cloned().chain(all).collect()
    }

    /// Which references were not asked about though all should be.
    fn tell_unasked(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        let unasked = graph::on_demand(&self.documents).into_iter();
        for one in unasked.filter(|_| self.probes.is_some()) {
            let (object, field) = (&one.object, &one.field);
            writeln!(
                out,
                "{object} {field}: {}: on demand: not asked",
                one.reference
            )?;
        }
        Ok(())
    }

    /// What the managers said no to. Managers' own fields are told where they are declared.
    fn unresolved(&self) -> impl Iterator<Item = Diagnostic> {
        let uses = self.graph.uses.iter();
        let uses = uses.filter(|one| !one.object.starts_with("secrets/"));
        uses.filter_map(|one| {
            let fault = self.probe(&one.reference)?.result.as_ref().err()?;
            Some(one.finding(&fault.to_string(), &self.documents))
        })
    }

    /// What its manager said of a reference.
    pub(super) fn probe(&self, reference: &str) -> Option<&ProbeReport> {
        let probes = self.probes.as_ref()?;
        let at = probes.binary_search_by(|report| (*report.reference).cmp(reference));
        probes.get(at.ok()?)
    }
}

impl Checked {
    /// Reads, asks the managers as far as it is to, and compiles.
    ///
    /// # Errors
    /// Nothing could be begun: settings of `config.yaml` cannot be used, or there is no runtime.
    pub(super) fn new(
        bootstrap: &Bootstrap,
        resources: &Path,
        asking: Asking,
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
        let graph = Graph::of(&documents);
        let managers = reload::configure(&documents, &secrets, None);
        let wait = bootstrap.claviger.secrets.load_wait;
        let (view, probes) = match asking {
            Asking::Nobody => (View::default(), None),
            Asking::Presence => {
                let (view, probes) = runtime.block_on(ask(&secrets, &graph, wait));
                (view, Some(probes))
            }
            Asking::Values => {
                let (view, probes) = runtime.block_on(read(&secrets, &graph));
                (view, Some(probes))
            }
        };
        let snapshot = compile::compile(&documents, &view, None, &env, clock.wall());
        Ok(Self::Compiled(Box::new(Compiled {
            documents,
            snapshot,
            graph,
            probes,
            managers,
        })))
    }
}

/// Asks the managers about every reference. Values come from the environment alone: it is at hand,
/// so that what it holds is checked by the rules of literals too. (And from managers that keep the
/// credentials of others, which are waited for.)
async fn ask(secrets: &Arc<Secrets>, graph: &Graph, wait: Duration) -> (View, Vec<ProbeReport>) {
    let references = all_references(graph);
    let of_env = |reference: &&Arc<str>| graph::manager_of(reference) == Some("env");
    let env = references.iter().filter(of_env).cloned().collect();
    let view = secrets.ensure(&env, wait).await;
    (view, secrets.probe(&references).await)
}

/// Reads the values, and asks about those that could not be read, so that the step which failed is
/// told. A manager that is down is given up on after a few tries.
async fn read(secrets: &Arc<Secrets>, graph: &Graph) -> (View, Vec<ProbeReport>) {
    let mut references = all_references(graph);
    let view = secrets.ensure(&references, LONGEST_READ).await;
    references.retain(|reference| view.resolve(reference).is_err());
    let mut probes = secrets.probe(&references).await;
    for probe in probes.iter_mut().filter(|probe| probe.result.is_ok()) {
        if let Err(unresolved) = view.resolve(&probe.reference) {
            let why = format!("is there, and cannot be read: {unresolved}").into();
            probe.result = Err(ProbeFault { step: None, why });
        }
    }
    (view, probes)
}

fn all_references(graph: &Graph) -> BTreeSet<Arc<str>> {
    graph.by_reference().into_keys().cloned().collect()
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

/// Each read has its manager's time limit; this bounds their number.
const LONGEST_READ: Duration = Duration::from_secs(600);
