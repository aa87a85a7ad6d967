//! The managers of a configuration: which run, which wait for values of their fields, which are
//! refused. Knows no reference but those in managers' fields.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::cache::UNREAD;
use super::fetch::Runner;
use super::install::{Digest, Template, Workshop, fingerprint};
use super::manager::MANAGERS;
use super::settings::{Event, ManagerProblem, ManagerSpec};
use super::view::{Outcome, Unresolved};
use super::wiring;

/// A declared manager.
#[derive(Clone)]
pub(super) struct Installed {
    /// Digest of kind and fields: the fields themselves may hold a token.
    fingerprint: Digest,
    /// `None` where not even its fields could be read.
    template: Option<Arc<Template>>,
    /// Versions of the values in its fields.
    versions: Vec<u64>,
    pub(super) standing: Standing,
}

/// What became of a declaration.
#[derive(Clone)]
pub(super) enum Standing {
    /// It is asked.
    Running(Arc<Runner>),
    /// A field's reference has no value yet; the words say which and why.
    Waiting(Arc<str>),
    /// Its fields cannot be used.
    Refused(ManagerProblem),
}

/// All managers, by id.
pub(super) type Managers = HashMap<Arc<str>, Installed>;

impl Installed {
    pub(super) fn runner(&self) -> Option<&Arc<Runner>> {
        match &self.standing {
            Standing::Running(runner) => Some(runner),
            _ => None,
        }
    }

    /// Why nothing can be read from it, if so.
    pub(super) fn obstacle(&self) -> Option<Arc<str>> {
        match &self.standing {
            Standing::Running(_) => None,
            Standing::Waiting(why) => Some(Arc::clone(why)),
            Standing::Refused(problem) => {
                Some(format!("{}: {}", problem.field, problem.message).into())
            }
        }
    }

    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        match (&self.template, &other.template) {
            (Some(ours), Some(others)) => ours.is_same_place(others),
            _ => false,
        }
    }

    /// Whether a value of this reference stands in one of its fields.
    pub(super) fn needs(&self, reference: &str) -> bool {
        self.references().any(|need| &**need == reference)
    }

    /// References in its fields, into other managers.
    pub(super) fn references(&self) -> impl Iterator<Item = &Arc<str>> {
        let needs = self.template.iter().flat_map(|template| &template.needs);
        needs.map(|need| &need.reference)
    }

    /// Brings the manager into line with the values of its fields. A manager that runs keeps the
    /// last values that could be used: whether they still open anything, the manager that they
    /// are for decides. Says what happened, if anything did.
    pub(super) fn settle(
        &mut self,
        outcome_of: &dyn Fn(&str) -> Outcome,
        shop: Workshop<'_>,
    ) -> Option<Turn> {
        let template = Arc::clone(self.template.as_ref()?);
        let mut values = HashMap::new();
        let mut versions = Vec::new();
        for need in &template.needs {
            match outcome_of(&need.reference) {
                Ok(resolved) => {
                    versions.push(resolved.version);
                    values.insert(Arc::clone(&need.reference), resolved.value);
                }
                Err(why) => {
                    let Standing::Waiting(said) = &mut self.standing else {
                        return None;
                    };
                    let now = waiting(&template.id, &need.field, &need.reference, &why);
                    let changed = *said != now;
                    *said = now;
                    return changed.then_some(Turn::WaitsOn);
                }
            }
        }
        let runs = matches!(self.standing, Standing::Running(_));
        if self.versions == versions && !matches!(self.standing, Standing::Waiting(_)) {
            return None;
        }
        self.versions = versions;
        let value_of = |reference: &str| values.get(reference).cloned();
        match template.build(&value_of, shop) {
            Ok(runner) => {
                self.standing = Standing::Running(Arc::new(runner));
                Some(Turn::Runs)
            }
            Err(problem) => {
                if !runs {
                    self.standing = Standing::Refused(problem.clone());
                }
                Some(Turn::Refused(problem))
            }
        }
    }
}

/// What came of new values in a manager's fields.
pub(super) enum Turn {
    /// It waits for another reason.
    WaitsOn,
    /// A new runner is there.
    Runs,
    /// The values cannot be used; a manager that ran goes on as it was.
    Refused(ManagerProblem),
}

/// Reads declarations. What did not change is as in `current`; the values of fields are looked at
/// later, by [`Installed::settle`].
pub(super) fn read(specs: &[ManagerSpec], current: &Managers, shop: Workshop<'_>) -> Managers {
    let mut templates = HashMap::new();
    let mut staged = Managers::new();
    for spec in specs {
        let fingerprint = fingerprint(spec);
        let same = current
            .get(&spec.id)
            .filter(|same| same.fingerprint == fingerprint && same.template.is_some());
        let installed = match same {
            Some(same) => same.clone(),
            None => Installed::declared(spec, fingerprint, shop),
        };
        if let Some(template) = &installed.template {
            templates.insert(Arc::clone(&spec.id), Arc::clone(template));
        } else {
            templates.remove(&spec.id);
        }
        staged.insert(Arc::clone(&spec.id), installed);
    }
    let declared = |id: &str| staged.contains_key(id);
    let impossible = wiring::impossible(&templates, &declared);
    for (id, installed) in &mut staged {
        match impossible.iter().find(|problem| problem.id == *id) {
            Some(problem) => installed.standing = Standing::Refused(problem.clone()),
            // Mended elsewhere, or a file that a field names may be there now.
            None => installed.retry(shop),
        }
    }
    staged
}

/// Declarations that were refused, in their order.
pub(super) fn problems(specs: &[ManagerSpec], managers: &Managers) -> Vec<ManagerProblem> {
    let problem = |spec: &ManagerSpec| match &managers.get(&spec.id)?.standing {
        Standing::Refused(problem) => Some(problem.clone()),
        _ => None,
    };
    specs.iter().filter_map(problem).collect()
}

impl Installed {
    fn declared(spec: &ManagerSpec, fingerprint: Digest, shop: Workshop<'_>) -> Self {
        let template = Template::of(spec, shop);
        let (template, standing) = match template {
            Err(problem) => (None, Standing::Refused(problem)),
            Ok(template) => (
                Some(Arc::new(template)),
                Standing::Waiting("not built yet".into()),
            ),
        };
        Self {
            fingerprint,
            template,
            versions: Vec::new(),
            standing,
        }
    }

    /// Builds what is not running and needs no value to be built.
    fn retry(&mut self, shop: Workshop<'_>) {
        let Some(template) = &self.template else {
            return;
        };
        if matches!(self.standing, Standing::Running(_)) {
            return;
        }
        self.standing = match template.needs.first() {
            Some(need) => {
                let unread = Unresolved::because(UNREAD);
                let why = waiting(&template.id, &need.field, &need.reference, &unread);
                Standing::Waiting(why)
            }
            None => match template.build(&|_| None, shop) {
                Ok(runner) => Standing::Running(Arc::new(runner)),
                Err(problem) => Standing::Refused(problem),
            },
        };
    }
}

fn waiting(id: &str, field: &str, reference: &str, why: &Unresolved) -> Arc<str> {
    format!("secret manager {id} waits for {field}, {reference}: {why}").into()
}

/// The runner of a manager, or why there is none for this reference.
pub(super) fn runner_of<'a>(
    managers: &'a Managers,
    manager: &str,
    reference: &str,
) -> Result<&'a Arc<Runner>, Unresolved> {
    let because = |why: String| Err(Unresolved::because(why));
    let Some(installed) = managers.get(manager) else {
        let kind = manager.split('/').next().unwrap_or_default();
        return because(if MANAGERS.iter().any(|def| def.name == kind) {
            format!("no secret conf, secret_uri: {reference}")
        } else {
            format!("no secret manager: {kind}")
        });
    };
    match &installed.standing {
        Standing::Running(runner) => Ok(runner),
        Standing::Waiting(why) => Err(Unresolved::because(Arc::clone(why))),
        Standing::Refused(problem) => because(format!(
            "secret manager {manager} refused: {}: {}",
            problem.field, problem.message
        )),
    }
}

/// What an auditor has to be told of managers, over all configurations.
#[derive(Default)]
pub(super) struct Announced(HashMap<Arc<str>, Last>);

/// What was said of a manager last.
enum Last {
    /// In force, as this runner.
    InForce(Arc<Runner>),
    /// In force once, or never; refused for this.
    Refused(ManagerProblem, bool),
}

impl Announced {
    /// Compares the managers with what was said of them last.
    pub(super) fn news(&mut self, managers: &Managers) -> Vec<(Arc<str>, Event)> {
        let mut news = Vec::new();
        let known = self.0.keys().cloned();
        let ids: BTreeSet<Arc<str>> = known.chain(managers.keys().cloned()).collect();
        for id in ids {
            let was = self.0.get(&id);
            let was_in_force = match was {
                Some(Last::InForce(_) | Last::Refused(_, true)) => true,
                Some(Last::Refused(_, false)) | None => false,
            };
            let event = match (managers.get(&id).map(|now| &now.standing), was) {
                (None, _) => {
                    self.0.remove(&id);
                    was_in_force.then_some(Event::ManagerRemoved)
                }
                // What it was before stays said until it is something.
                (Some(Standing::Waiting(_)), _) => None,
                (Some(Standing::Running(now)), Some(Last::InForce(was)))
                    if Arc::ptr_eq(now, was) =>
                {
                    None
                }
                (Some(Standing::Running(now)), _) => {
                    self.0
                        .insert(Arc::clone(&id), Last::InForce(Arc::clone(now)));
                    Some(if was_in_force {
                        Event::ManagerChanged
                    } else {
                        Event::ManagerAdded
                    })
                }
                (Some(Standing::Refused(now)), Some(Last::Refused(was, _))) if now == was => None,
                (Some(Standing::Refused(now)), _) => {
                    let last = Last::Refused(now.clone(), was_in_force);
                    self.0.insert(Arc::clone(&id), last);
                    Some(refused(now))
                }
            };
            news.extend(event.map(|event| (id, event)));
        }
        news
    }
}

pub(super) fn refused(problem: &ManagerProblem) -> Event {
    Event::ManagerRefused {
        field: problem.field.clone(),
        why: problem.message.clone(),
    }
}
