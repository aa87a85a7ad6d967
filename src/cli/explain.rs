//! `claviger explain`: the reference graph. Which object uses which reference, through which
//! manager, what state it is in, and what refuses without it. Asks the managers, reads no value
//! where they can answer without, prints none.

mod certificates;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::ConfigArgs;
use super::check::{Asking, Checked, Compiled};
use super::run::load;
use crate::secrets::{Presumed, ProbeReport};
use crate::snapshot::CertificateReport;
use crate::snapshot::graph::{self, Use, manager_of};

/// Arguments of `claviger explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Resource file or folder.
    #[arg(short, long, value_name = "PATH")]
    resources: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Only this object (`routes/1`), this manager (`secrets/vault/main`) or this reference.
    #[arg(value_name = "ID or $REFERENCE")]
    about: Option<String>,
}

/// Prints the graph, or the part of it that was asked for.
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
    let compiled = match Checked::new(&bootstrap, &resources, Asking::Presence)? {
        Checked::Unparsable(diagnostic) => {
            writeln!(out, "{diagnostic}")?;
            return Ok(ExitCode::FAILURE);
        }
        Checked::Compiled(compiled) => compiled,
    };
    let explained = Explained::of(&compiled, args.about.as_deref());
    if args.json {
        writeln!(out, "{:#}", explained.json())?;
    } else {
        explained.write(&mut out)?;
    }
    let known = args.about.is_none() || !explained.is_empty();
    Ok(if known {
        ExitCode::SUCCESS
    } else {
        writeln!(
            std::io::stderr(),
            "claviger: nothing of that name uses, keeps or is a reference"
        )?;
        ExitCode::FAILURE
    })
}

/// The part of the graph that is told.
struct Explained<'a> {
    compiled: &'a Compiled,
    managers: Vec<Manager<'a>>,
    references: Vec<(&'a ProbeReport, Vec<&'a Use>)>,
    /// References of which there is one for each name that clients ask for.
    on_demand: Vec<Use>,
    certificates: Vec<&'a CertificateReport>,
    /// Everything was asked for.
    whole: bool,
}

/// A manager, declared or merely named.
struct Manager<'a> {
    id: &'a str,
    declared: bool,
    /// Why it is refused.
    problem: Option<&'a str>,
    uses: Vec<&'a Use>,
    documents: usize,
    /// References among its own fields.
    refers: Vec<&'a Use>,
}

impl<'a> Explained<'a> {
    fn of(compiled: &'a Compiled, about: Option<&str>) -> Self {
        let by_reference = compiled.graph.by_reference();
        let wanted = |reference: &str, uses: &[&Use]| match about {
            None => true,
            Some(about) => {
                let manager = manager_of(reference);
                let of_manager = manager == Some(about.strip_prefix("secrets/").unwrap_or(about));
                about == reference || of_manager || uses.iter().any(|one| *one.object == *about)
            }
        };
        let references: Vec<_> = by_reference
            .into_iter()
            .filter(|(reference, uses)| wanted(reference, uses))
            .filter_map(|(reference, uses)| Some((compiled.probe(reference)?, uses)))
            .collect();
        let named = references
            .iter()
            .filter_map(|(report, _)| manager_of(&report.reference));
        let mut on_demand = graph::on_demand(&compiled.documents);
        on_demand.retain(|one| wanted(&one.reference, &[one]));
        let mut named: BTreeSet<&str> = named.filter(|id| *id != "env").collect();
        let declared = compiled.documents.secrets.iter().map(|item| &*item.id);
        named.extend(declared.filter(|id| {
            about.is_none_or(|about| about == *id || about.strip_prefix("secrets/") == Some(*id))
        }));
        let by_manager = compiled.graph.by_manager();
        let manager = |id| Manager::of(id, compiled, &by_manager);
        Self {
            compiled,
            managers: named.into_iter().map(manager).collect(),
            references,
            on_demand,
            certificates: certificates::told(&compiled.snapshot, about),
            whole: about.is_none(),
        }
    }

    fn is_empty(&self) -> bool {
        self.managers.is_empty()
            && self.references.is_empty()
            && self.on_demand.is_empty()
            && self.certificates.is_empty()
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        for manager in &self.managers {
            manager.write(out)?;
        }
        for (report, uses) in &self.references {
            writeln!(out, "{}", report.reference)?;
            writeln!(out, "  {}", place_and_state(report))?;
            for one in uses {
                let required = if one.required { "" } else { "not in use; " };
                writeln!(
                    out,
                    "  used by {} {} ({required}without it: {})",
                    one.object, one.field, one.consequence
                )?;
            }
        }
        for one in &self.on_demand {
            writeln!(out, "{}", one.reference)?;
            writeln!(out, "  on demand: not asked")?;
            let consequence = one.consequence;
            let (object, field) = (&one.object, &one.field);
            writeln!(
                out,
                "  used by {object} {field} (without it: {consequence})"
            )?;
        }
        for item in &self.certificates {
            certificates::write(item, out)?;
        }
        if !self.whole {
            return Ok(());
        }
        for (kind, count) in self.counts() {
            writeln!(out, "{kind}: {count} declared")?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let references = self.references.iter();
        let mut json = json!({
            "managers": self.managers.iter().map(Manager::json).collect::<Vec<_>>(),
            "references": references.map(|(report, uses)| reference_json(report, uses))
                .collect::<Vec<_>>(),
            "on_demand": self.on_demand.iter().map(|one| json!({
                "reference": &*one.reference,
                "object": &*one.object,
                "field": one.field,
                "without": one.consequence,
            })).collect::<Vec<_>>(),
            "certificates": self.certificates.iter().map(|item| certificates::json(item))
                .collect::<Vec<_>>(),
        });
        if self.whole {
            json["objects"] = json!(self.counts());
        }
        json
    }

    /// Declared objects, by kind.
    fn counts(&self) -> BTreeMap<&str, usize> {
        let counts = self.compiled.snapshot.counts.iter();
        counts.map(|(kind, count)| (*kind, count.items)).collect()
    }
}

impl<'a> Manager<'a> {
    fn of(id: &'a str, compiled: &'a Compiled, users: &BTreeMap<&str, Vec<&'a Use>>) -> Self {
        let object = format!("secrets/{id}");
        let uses = users.get(id).cloned().unwrap_or_default();
        let documents: BTreeSet<&Arc<str>> = uses
            .iter()
            .filter_map(|one| Some(&compiled.probe(&one.reference)?.path))
            .collect();
        let refused = |found: &&crate::diagnostic::Diagnostic| found.object == object;
        let own = compiled.graph.uses.iter();
        Self {
            id,
            declared: compiled
                .documents
                .secrets
                .iter()
                .any(|item| *item.id == *id),
            problem: compiled
                .managers
                .iter()
                .find(refused)
                .map(|found| &*found.message),
            documents: documents.len(),
            refers: own.filter(|one| *one.object == *object).collect(),
            uses,
        }
    }

    fn references(&self) -> usize {
        let references: BTreeSet<_> = self.uses.iter().map(|one| &one.reference).collect();
        references.len()
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let (references, documents) = (self.references(), self.documents);
        write!(
            out,
            "secrets/{}: {references} references into {documents} documents",
            self.id
        )?;
        if !self.uses.is_empty() {
            write!(out, ", used by {}", graph::users(&self.uses))?;
        }
        writeln!(out)?;
        if !self.declared {
            writeln!(out, "  is not declared")?;
        } else if let Some(problem) = self.problem {
            writeln!(out, "  is refused: {problem}")?;
        }
        for one in &self.refers {
            writeln!(out, "  its field {} is {}", one.field, one.reference)?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let objects: BTreeSet<&str> = self.uses.iter().map(|one| &*one.object).collect();
        let refers = self.refers.iter();
        json!({
            "id": self.id,
            "declared": self.declared,
            "problem": self.problem,
            "references": self.references(),
            "documents": self.documents,
            "users": objects,
            "refers_to": refers
                .map(|one| json!({"field": one.field, "reference": &*one.reference}))
                .collect::<Vec<_>>(),
        })
    }
}

fn place_and_state(report: &ProbeReport) -> String {
    let mut text = String::new();
    if !report.manager.is_empty() {
        text = format!("manager {}", report.manager);
    }
    for (word, part) in [("path", &report.path), ("field", &report.field)] {
        if !part.is_empty() {
            text.push_str(&format!(", {word} {part}"));
        }
    }
    if let Some(version) = &report.version {
        text.push_str(&format!(", version {version}"));
    }
    let state = match &report.result {
        Ok(Presumed::Value) => ": present".to_owned(),
        Ok(Presumed::Document) => {
            ": the document is present; its fields cannot be told without reading the value"
                .to_owned()
        }
        Err(fault) => format!(": refused: {fault}"),
    };
    text.push_str(&state);
    text.trim_start_matches([':', ' ', ',']).to_owned()
}

fn reference_json(report: &ProbeReport, uses: &[&Use]) -> Value {
    let (state, step, reason) = match &report.result {
        Ok(Presumed::Value) => ("present", None, None),
        Ok(Presumed::Document) => ("document_present", None, None),
        Err(fault) => (
            "refused",
            fault.step.map(|step| step.as_str()),
            Some(&*fault.why),
        ),
    };
    json!({
        "reference": &*report.reference,
        "manager": &*report.manager,
        "path": &*report.path,
        "field": &*report.field,
        "version": report.version.as_deref(),
        "state": state,
        "step": step,
        "reason": reason,
        "users": uses.iter().map(|one| json!({
            "object": &*one.object,
            "field": one.field,
            "required": one.required,
            "without": one.consequence,
        })).collect::<Vec<_>>(),
    })
}
