//! Whether references would resolve, asked of the managers without reading a value where they can
//! answer that: for `check --resolve` and `explain`. Nothing found here comes into use.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;

use super::Secrets;
use super::fetch::Runner;
use super::manager::{FetchError, Location, Presence, Read, Step};
use super::reference::{Key, Reference, Target};

/// What is known of one reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// As written.
    pub reference: Arc<str>,
    /// Id of the manager, `env` for `$env://`, empty where the reference is malformed.
    pub manager: Arc<str>,
    /// Path of the document inside its manager; the variable's name for `$env://`.
    pub path: Arc<str>,
    /// Field inside the document; empty where the document itself is the value.
    pub field: Arc<str>,
    /// The manager's name for the document's version, where it has one.
    pub version: Option<Arc<str>>,
    /// Whether it would resolve.
    pub result: Result<Presumed, ProbeFault>,
}

/// How sure it is that a value is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presumed {
    /// The manager says so.
    Value,
    /// The document is there; its fields cannot be told without reading the value.
    Document,
}

/// Why a reference would not resolve. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeFault {
    /// How far it got; `None` where no manager was asked, since none could be.
    pub step: Option<Step>,
    /// The reason.
    pub why: Arc<str>,
}

impl std::fmt::Display for ProbeFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.step {
            Some(step) => write!(f, "{}: {}", step.as_str(), self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// A document to be probed: where, and as which version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Asked {
    manager: Arc<str>,
    path: Arc<str>,
    version: Option<Arc<str>>,
}

/// A reference on its way.
struct Pending {
    reference: Arc<str>,
    runner: Arc<Runner>,
    key: Key,
    location: Location,
    /// The most telling refusal on the way, and where it was met.
    worst: Option<(FetchError, Location)>,
}

/// How often a manager failed as a whole since it last answered, and how.
#[derive(Default)]
struct Failing(Mutex<(u32, Option<FetchError>)>);

impl Failing {
    /// Why it need not be asked any further.
    fn given_up(&self) -> Option<FetchError> {
        let failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failing.1.clone().filter(|_| failing.0 >= TRIES)
    }

    fn learn(&self, answer: &Result<Presence, FetchError>) {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Err(error) if error.blames_manager() => {
                *failing = (failing.0 + 1, Some(error.clone()));
            }
            _ => *failing = (0, None),
        }
    }
}

impl Secrets {
    /// Asks the managers in force about these references: one question per document, as many at a
    /// time as reads may be made of each manager. Values are read only where a manager knows no
    /// other way, and are forgotten at once. A manager that fails several times in a row is not
    /// asked about the rest. Sorted by reference.
    ///
    /// # Cancel safety
    /// May be dropped at any await.
    pub async fn probe(&self, references: &BTreeSet<Arc<str>>) -> Vec<ProbeReport> {
        let mut reports = Vec::with_capacity(references.len());
        let mut pending = Vec::new();
        for reference in references {
            match self.find_place(reference) {
                Ok(found) => pending.push(found),
                Err(report) => reports.push(*report),
            }
        }
        probe_all(pending, &mut reports).await;
        reports.sort_by(|a, b| a.reference.cmp(&b.reference));
        reports
    }

    /// Where to ask about a reference, or what is known without asking.
    fn find_place(&self, text: &Arc<str>) -> Result<Pending, Box<ProbeReport>> {
        let mut report = ProbeReport {
            reference: Arc::clone(text),
            manager: Arc::default(),
            path: Arc::default(),
            field: Arc::default(),
            version: None,
            result: Ok(Presumed::Value),
        };
        let fault = |step, why: String| {
            let why = why.into();
            Err(ProbeFault { step, why })
        };
        let reference = match Reference::parse_shared(text) {
            Ok(reference) => reference,
            Err(error) => {
                report.result = fault(None, error.to_string());
                return Err(Box::new(report));
            }
        };
        match reference.target() {
            Target::Env { name, json_key } => {
                report.manager = "env".into();
                report.path = (&**name).into();
                report.field = json_key.as_deref().unwrap_or_default().into();
                if let Err(why) = self.state().env().resolve(name, json_key.as_deref()) {
                    report.result = fault(Some(env_step(why)), why.to_owned());
                }
                Err(Box::new(report))
            }
            Target::Managed(key) => {
                report.manager = Arc::clone(&key.manager);
                let runner = self.state().runner_of(key, text);
                let located = runner.map_err(|unresolved| (None, unresolved.to_string()));
                let located = located.and_then(|runner| {
                    let location = runner.manager.locate(key);
                    let location =
                        location.map_err(|error| (Some(Step::Path), error.to_string()))?;
                    Ok((runner, location))
                });
                match located {
                    Ok((runner, location)) => Ok(Pending {
                        reference: Arc::clone(text),
                        runner,
                        key: key.clone(),
                        location,
                        worst: None,
                    }),
                    Err((step, why)) => {
                        report.result = fault(step, why);
                        Err(Box::new(report))
                    }
                }
            }
        }
    }
}

async fn probe_all(mut pending: Vec<Pending>, reports: &mut Vec<ProbeReport>) {
    let mut failing: HashMap<Arc<str>, Failing> = HashMap::new();
    // Each round looks in one further place for what was not in the one before.
    for _ in 0..MOST_PLACES {
        if pending.is_empty() {
            return;
        }
        let found = ask_all(&pending, &mut failing).await;
        pending = pending
            .into_iter()
            .filter_map(|one| settle(one, &found, reports))
            .collect();
    }
    let nowhere = pending
        .into_iter()
        .map(|one| one.refused(&FetchError::NotFound));
    reports.extend(nowhere);
}

type Answers = HashMap<Asked, Result<Presence, FetchError>>;

/// Asks once about each document the pending references stand in.
async fn ask_all(pending: &[Pending], failing: &mut HashMap<Arc<str>, Failing>) -> Answers {
    let mut questions: BTreeMap<Asked, (&Arc<Runner>, BTreeSet<Arc<str>>)> = BTreeMap::new();
    for one in pending {
        let (_, fields) = questions
            .entry(one.asked())
            .or_insert_with(|| (&one.runner, BTreeSet::new()));
        fields.insert(Arc::clone(&one.location.field));
        failing.entry(Arc::clone(&one.key.manager)).or_default();
    }
    let failing = &*failing;
    let answers = questions
        .into_iter()
        .map(|(asked, (runner, fields))| async move {
            let fields: Vec<_> = fields.into_iter().collect();
            let answer = ask(&asked, runner, &fields, failing.get(&asked.manager)).await;
            (asked, answer)
        });
    let answers: Vec<_> = answers.collect();
    futures::stream::iter(answers)
        .buffer_unordered(MOST_AT_ONCE)
        .collect()
        .await
}

async fn ask(
    asked: &Asked,
    runner: &Runner,
    fields: &[Arc<str>],
    failing: Option<&Failing>,
) -> Result<Presence, FetchError> {
    let Ok(_permit) = runner.permits.acquire().await else {
        return Err(FetchError::TimedOut);
    };
    if let Some(error) = failing.and_then(Failing::given_up) {
        return Err(error);
    }
    let read = Read {
        path: &asked.path,
        version: asked.version.as_deref(),
        fields,
    };
    let limit = runner.manager.time_limit();
    let answer = tokio::time::timeout(limit, runner.manager.probe(read)).await;
    let answer = answer.unwrap_or(Err(FetchError::TimedOut));
    if let Some(failing) = failing {
        failing.learn(&answer);
    }
    answer
}

/// Reports on a reference, or gives it back where its manager knows a further place for it.
fn settle(mut one: Pending, found: &Answers, reports: &mut Vec<ProbeReport>) -> Option<Pending> {
    match found.get(&one.asked())? {
        Ok(presence) => {
            let result = presumed(presence, &one.location.field);
            reports.push(report(&one, presence.version.clone(), result));
            None
        }
        Err(error) => {
            if !Reference::is_exact(&one.reference)
                && let Some(elsewhere) = one.runner.manager.elsewhere(&one.location, error)
            {
                one.note(error);
                one.location = elsewhere;
                return Some(one);
            }
            reports.push(one.refused(error));
            None
        }
    }
}

fn presumed(presence: &Presence, field: &str) -> Result<Presumed, ProbeFault> {
    let Some(fields) = &presence.fields else {
        return Ok(if field.is_empty() {
            Presumed::Value
        } else {
            Presumed::Document
        });
    };
    let fault = |step, why: &'static str| {
        let (step, why) = (Some(step), why.into());
        Err(ProbeFault { step, why })
    };
    match fields.get(field) {
        Some(None) => Ok(Presumed::Value),
        Some(Some(why)) => fault(Step::Shape, why),
        None => fault(Step::Field, "field not found"),
    }
}

fn fault_of(error: &FetchError) -> ProbeFault {
    ProbeFault {
        step: Some(error.step()),
        why: error.to_string().into(),
    }
}

fn report(
    one: &Pending,
    version: Option<Arc<str>>,
    result: Result<Presumed, ProbeFault>,
) -> ProbeReport {
    ProbeReport {
        reference: Arc::clone(&one.reference),
        manager: Arc::clone(&one.key.manager),
        path: Arc::clone(&one.location.path),
        field: Arc::clone(&one.location.field),
        version,
        result,
    }
}

impl Pending {
    fn note(&mut self, error: &FetchError) {
        let worst = self.worst.as_ref();
        if worst.is_none_or(|(worst, _)| error.tells_more_than(worst)) {
            self.worst = Some((error.clone(), self.location.clone()));
        }
    }

    /// There is no further place. What is no answer says only that nothing is known, and stands.
    fn refused(mut self, last: &FetchError) -> ProbeReport {
        if !last.is_authoritative() {
            return report(&self, None, Err(fault_of(last)));
        }
        self.note(last);
        match self.worst.take() {
            Some((error, place)) => {
                self.location = place;
                report(&self, None, Err(fault_of(&error)))
            }
            None => report(&self, None, Err(fault_of(last))),
        }
    }

    fn asked(&self) -> Asked {
        Asked {
            manager: Arc::clone(&self.key.manager),
            path: Arc::clone(&self.location.path),
            version: self.key.version.clone(),
        }
    }
}

/// Which step a reason of [`Env::resolve`](super::manager::env::Env::resolve) stands for.
fn env_step(why: &str) -> Step {
    match why {
        "environment variable is not set" => Step::Path,
        "field not found" => Step::Field,
        _ => Step::Shape,
    }
}

/// As many questions at a time, over all managers; each manager has a bound of its own besides.
const MOST_AT_ONCE: usize = 64;
/// A manager that failed so often in a row is not asked further.
const TRIES: u32 = 5;
/// A reference is looked for in no more places. AWS has one per slash of the name.
const MOST_PLACES: usize = 64;

#[cfg(test)]
mod tests;
