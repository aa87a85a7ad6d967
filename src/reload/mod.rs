//! The one road to production: documents → references → values → `snapshot::compile` → publish.
//! A changed file, a signal and a changed secret are three triggers of it (`design.md` §2).

mod inventory;
mod publish;
mod status;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::config::Documents;
use crate::config::resource::{Item, SecretConfig};
use crate::config::source::{LoadError, Source};
use crate::diagnostic::{Diagnostic, Severity};
use crate::secrets::{ManagerProblem, ManagerSpec, Secrets, View};
use crate::snapshot::Snapshot;
use crate::snapshot::compile::{self, CompileEnv};
use crate::snapshot::graph::{self, Graph};
use crate::snapshot::references;
use crate::tls::TicketKeys;

use inventory::Inventory;
pub use publish::SnapshotCell;
pub use status::{Missing, Status, StatusReport};

/// Why a new snapshot is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The resource file or folder changed, or somebody asked to look again (SIGHUP).
    Source,
    /// The secrets in use changed value or state.
    Secrets,
    /// Time alone: a certificate is close to its end, or past it.
    Time,
}

/// The loop and all it needs.
pub struct Reload {
    source: Arc<Mutex<Source>>,
    secrets: Arc<Secrets>,
    env: Arc<CompileEnv>,
    cell: Arc<SnapshotCell>,
    status: Arc<Status>,
    clock: Arc<dyn Clock>,
    load_wait: Duration,
    documents: Arc<Documents>,
    /// The values the published snapshot was made of.
    view: View,
    /// When other reasons of missing values are to be told.
    reasons_due: Option<Instant>,
    inventory: Inventory,
    tickets: Option<Arc<TicketKeys>>,
}

impl Reload {
    /// A loop that has read `documents` from `source` and published nothing yet.
    #[must_use]
    pub fn new(
        source: Source,
        documents: Documents,
        secrets: Arc<Secrets>,
        env: Arc<CompileEnv>,
        cell: Arc<SnapshotCell>,
        status: Arc<Status>,
        load_wait: Duration,
    ) -> Self {
        let clock = Arc::clone(&env.clock);
        Self {
            source: Arc::new(Mutex::new(source)),
            secrets,
            env,
            cell,
            status,
            clock,
            load_wait,
            documents: Arc::new(documents),
            view: View::default(),
            reasons_due: None,
            inventory: Inventory::default(),
            tickets: None,
        }
    }

    /// The same that hands over the keys of session tickets with each snapshot.
    #[must_use]
    pub fn with_tickets(mut self, tickets: Option<Arc<TicketKeys>>) -> Self {
        self.tickets = tickets;
        self
    }

    /// Publishes the first snapshot. Waits for secrets at most `claviger.secrets.load_wait`.
    pub async fn first(&mut self) {
        let view = self.ensure(None).await;
        let began = self.clock.now();
        self.publish(view, Trigger::Source, began).await;
    }

    /// Serves triggers until shutdown. `look_again` carries file events and SIGHUP.
    pub async fn run(
        &mut self,
        mut look_again: mpsc::Receiver<()>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let mut secrets = self.secrets.changed();
        // Something may have changed between the first snapshot and this receiver's first look.
        secrets.mark_changed();
        let mut clock = tokio::time::interval(LOOK_AT_CLOCK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = self.clock.now();
            let due = self.reasons_due.map(|at| at.saturating_duration_since(now));
            tokio::select! {
                biased;
                _ = shutdown.changed() => return,
                event = look_again.recv() => match event {
                    Some(()) => self.read_source().await,
                    None => return,
                },
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {
                    self.recompile(true).await;
                }
                _ = clock.tick() => self.look_at_clock().await,
                changed = secrets.changed() => match changed {
                    Ok(()) => self.recompile(false).await,
                    Err(_) => return,
                },
            }
        }
    }

    async fn read_source(&mut self) {
        let source = Arc::clone(&self.source);
        let load = move || source.lock().unwrap_or_else(PoisonError::into_inner).load();
        match blocking(load).await {
            Ok(documents) if documents.content == self.documents.content => self.keep(),
            Ok(documents) => {
                let before = std::mem::replace(&mut self.documents, Arc::new(documents));
                let view = self.ensure(Some(before)).await;
                let began = self.clock.now();
                self.publish(view, Trigger::Source, began).await;
            }
            Err(error) => self.reject(&error),
        }
    }

    /// Makes the documents' references the ones in use and waits for their values.
    async fn ensure(&self, before: Option<Arc<Documents>>) -> View {
        let (documents, secrets) = (Arc::clone(&self.documents), Arc::clone(&self.secrets));
        // Managers read files that their fields name, and parse what is trusted.
        let references = blocking(move || {
            for finding in configure(&documents, &secrets, before.as_deref()) {
                log::error!("{finding}");
            }
            references::references(&documents)
        });
        self.secrets.ensure(&references.await, self.load_wait).await
    }

    /// The files say what is in force already: nothing is made anew.
    fn keep(&self) {
        self.status.unchanged();
        let revision = self.cell.current().map_or(0, |snapshot| snapshot.revision);
        log::info!("configuration unchanged, it stays in force: revision={revision}");
    }

    /// A manager that is away gives its documents other reasons one by one, and a snapshot of other
    /// reasons refuses the same: it waits for all of them, unless it is `ripe`.
    async fn recompile(&mut self, ripe: bool) {
        let began = self.clock.now();
        let view = self.secrets.view();
        if !ripe && graph::differ_in_reasons(&view, &self.view) {
            self.reasons_due.get_or_insert(began + REASONS_WAIT);
            return;
        }
        self.reasons_due = None;
        if !view.changed_since(&self.view).is_empty() {
            self.publish(view, Trigger::Secrets, began).await;
        }
    }

    /// Certificates begin and end by the wall clock, which may be set, so it is asked every
    /// second and no alarm set at it. Costs two comparisons.
    async fn look_at_clock(&mut self) {
        let now = self.clock.wall();
        if self
            .cell
            .current()
            .is_some_and(|snapshot| snapshot.is_due(now))
        {
            let began = self.clock.now();
            self.publish(self.view.clone(), Trigger::Time, began).await;
        }
    }

    fn reject(&self, error: &LoadError) {
        log::error!("configuration rejected, the previous one serves on: {error}");
        self.status.rejected(error.to_string());
    }

    /// Compiles and publishes what was begun then.
    async fn publish(&mut self, view: View, trigger: Trigger, began: Instant) {
        let previous = self.cell.current();
        let snapshot = {
            let (documents, view) = (Arc::clone(&self.documents), view.clone());
            let (env, now, previous) = (
                Arc::clone(&self.env),
                self.clock.wall(),
                previous.as_ref().map(Arc::clone),
            );
            blocking(move || {
                let previous = previous.as_deref();
                let snapshot = compile::compile(&documents, &view, previous, &env, now);
                documents.places.release();
                report(&snapshot, previous);
                snapshot
            })
            .await
        };
        let seeks = trigger == Trigger::Source || graph::moved(&view, &self.view);
        self.view = view;
        self.env.resolver.settle(self.load_wait).await;
        let (revision, consumers) = (snapshot.revision, snapshot.consumers_built);
        let others = snapshot.others_built;
        if let Some(tickets) = &self.tickets {
            tickets.adopt(snapshot.ticket_keys());
        }
        self.cell.publish(Arc::new(snapshot));
        let took = self.clock.now().saturating_duration_since(began);
        // Freeing tens of thousands of pieces takes a while, too.
        blocking(move || drop(previous)).await;
        self.env.kept.sweep();
        if seeks {
            let (documents, view) = (Arc::clone(&self.documents), self.view.clone());
            let missing = move || Missing::of(&Graph::unresolved(&documents, &view));
            self.status.missing(blocking(missing).await);
        }
        self.status.accepted(self.clock.wall(), revision, trigger);
        if let (Trigger::Source, Some(audit)) = (trigger, self.status.audit()) {
            self.inventory.tell(audit, &self.secrets);
        }
        let took = took.as_secs_f64() * 1e3;
        log::info!(
            "configuration in force: revision={revision} trigger={trigger:?} \
             consumers_built={consumers} others_built={others} took={took:.1} ms"
        );
    }
}

/// Runs what takes a core for a while where it holds up neither the loop nor the secrets.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The runtime cancels no blocking task that has begun, so it panicked: go on panicking.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Declares the documents' managers to the secrets. Returns those that cannot be used, and those
/// that are used and not declared (any more than in the configuration `before`).
#[must_use]
pub fn configure(
    documents: &Documents,
    secrets: &Secrets,
    before: Option<&Documents>,
) -> Vec<Diagnostic> {
    let located = |problem: ManagerProblem| {
        let item = documents.secrets.iter().find(|item| item.id == problem.id);
        Diagnostic {
            severity: Severity::Error,
            code: "secret-manager",
            place: item
                .map(|item| documents.places.locate(&item.place, &problem.field))
                .unwrap_or_default(),
            object: format!("secrets/{}", problem.id),
            field: problem.field,
            message: problem.message,
        }
    };
    let problems = secrets.configure(&managers(&documents.secrets));
    let problems = problems.into_iter().map(located);
    problems
        .chain(graph::undeclared_managers(documents, before))
        .collect()
}

/// Managers as the secrets room takes them.
#[must_use]
pub fn managers(items: &[Item<SecretConfig>]) -> Vec<ManagerSpec> {
    let spec = |item: &Item<SecretConfig>| ManagerSpec {
        id: Arc::clone(&item.id),
        kind: item.value.manager.clone(),
        fields: item.value.fields.clone(),
    };
    items.iter().map(spec).collect()
}

/// Logs what is new; a finding that stood in the previous snapshot was logged then. A manager that
/// is down has thousands of references without value: they are one line per manager and reason.
fn report(snapshot: &Snapshot, previous: Option<&Snapshot>) {
    let known = previous.map_or(&[][..], |previous| &previous.diagnostics);
    let known: HashSet<(&str, &str, &str)> = known.iter().map(key).collect();
    let new = snapshot
        .diagnostics
        .iter()
        .filter(|diagnostic| !known.contains(&key(diagnostic)))
        // Told once per manager, with its users.
        .filter(|diagnostic| diagnostic.code != references::MISSING_MANAGER);
    // A manager that is away leaves a finding per reference; one line says it for all.
    let mut unresolved: BTreeMap<_, (&Diagnostic, usize)> = BTreeMap::new();
    let mut others = Vec::new();
    for diagnostic in new {
        if diagnostic.code == references::UNRESOLVED {
            let alike = unresolved.entry(manager_and_reason(&diagnostic.message));
            alike.or_insert((diagnostic, 0)).1 += 1;
        } else {
            others.push(diagnostic);
        }
    }
    for diagnostic in others.iter().take(MOST_LOGGED) {
        match diagnostic.severity {
            Severity::Error => log::error!("{diagnostic}"),
            Severity::Warning => log::warn!("{diagnostic}"),
        }
    }
    for (first, count) in unresolved.into_values() {
        match count - 1 {
            0 => log::warn!("{first}"),
            more => log::warn!("{first} (and {more} more references, for the same reason)"),
        }
    }
    if others.len() > MOST_LOGGED {
        let more = others.len() - MOST_LOGGED;
        log::error!("{more} more findings; `claviger check --resolve` tells all");
    }
}

/// What references have in common that fail alike: `$secret://vault/main` and the reason. Those to
/// the environment have nothing in common.
fn manager_and_reason(message: &str) -> (&str, &str) {
    let reference = message.find('$').map_or("", |start| &message[start..]);
    let Some((reference, reason)) = reference.split_once(" has no value: ") else {
        return (message, "");
    };
    match reference.match_indices('/').nth(3) {
        Some((end, _)) if reference.starts_with("$secret:") => (&reference[..end], reason),
        _ => (reference, reason),
    }
}

fn key(diagnostic: &Diagnostic) -> (&str, &str, &str) {
    (&diagnostic.object, &diagnostic.field, &diagnostic.message)
}

/// Handshakes look at the clock themselves; this is for what is said, and for what serves upstreams.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(1);
/// From the first other reason of a missing value to a snapshot that tells it.
const REASONS_WAIT: Duration = Duration::from_secs(1);
/// So many lines say nothing more.
const MOST_LOGGED: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_fail_alike_by_manager_and_reason() {
        let of = |reference: &str, why: &str| format!("reference {reference} has no value: {why}");
        for (message, expected) in [
            (
                of("$secret://vault/main/a/k", "down"),
                ("$secret://vault/main", "down"),
            ),
            (
                of("$secret://vault/main/b/k", "gone"),
                ("$secret://vault/main", "gone"),
            ),
            (of("$secret://vault", "no id"), ("$secret://vault", "no id")),
            (of("$env://A/b", "not set"), ("$env://A/b", "not set")),
            ("other".to_owned(), ("other", "")),
        ] {
            assert_eq!(manager_and_reason(&message), expected);
        }
    }
}
