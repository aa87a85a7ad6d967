//! What was ever written into the managers, when, and what the gateway was seen to use: every
//! observation is checked against it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One version of a document.
struct Written {
    fields: HashMap<&'static str, String>,
    /// When the manager was told, and when it had agreed.
    begun: Instant,
    done: Option<Instant>,
}

struct Document {
    written: Vec<Written>,
    /// The newest version seen in use: nothing older may be seen from then on.
    floor: usize,
    /// How long a version may be used after the manager gave it last.
    limit: Duration,
}

/// Everything written and everything found wrong.
#[derive(Default)]
pub struct History {
    documents: Mutex<HashMap<String, Document>>,
    findings: Mutex<Vec<String>>,
}

impl History {
    /// The manager is about to be told a new version. Gives its number.
    pub fn begin(
        &self,
        name: &str,
        limit: Duration,
        fields: HashMap<&'static str, String>,
    ) -> usize {
        let mut documents = lock(&self.documents);
        let document = documents
            .entry(name.to_owned())
            .or_insert_with(|| Document {
                written: Vec::new(),
                floor: 0,
                limit,
            });
        document.written.push(Written {
            fields,
            begun: Instant::now(),
            done: None,
        });
        document.written.len() - 1
    }

    /// The manager has agreed.
    pub fn done(&self, name: &str, number: usize) {
        let mut documents = lock(&self.documents);
        if let Some(document) = documents.get_mut(name) {
            document.written[number].done = Some(Instant::now());
        }
    }

    /// The newest version the manager was told of.
    pub fn newest(&self, name: &str) -> usize {
        self.read(name, |document| document.written.len() - 1)
    }

    /// The newest version seen in use.
    pub fn floor(&self, name: &str) -> usize {
        self.read(name, |document| document.floor)
    }

    /// A field of a version.
    pub fn text(&self, name: &str, number: usize, field: &str) -> String {
        self.read(name, |document| {
            document.written[number].fields[field].clone()
        })
    }

    /// Which version has this text in this field.
    pub fn number_of(&self, name: &str, field: &str, text: &str) -> Option<usize> {
        self.read(name, |document| {
            let written = &document.written;
            written
                .iter()
                .rposition(|version| version.fields[field] == text)
        })
    }

    /// The gateway used this version of the document for something that began at `started`, when
    /// the newest version seen was `floor`.
    pub fn observe(&self, name: &str, number: usize, floor: usize, started: Instant) {
        let wrong = {
            let mut documents = lock(&self.documents);
            let document = documents.get_mut(name).expect("only written ones are seen");
            document.floor = document.floor.max(number);
            let next = document.written.get(number + 1);
            let ended = next.and_then(|next| next.done);
            let late = ended.map(|ended| started.saturating_duration_since(ended));
            let begun = document.written[number].begun;
            if number < floor {
                Some(format!("version {number} after {floor}"))
            } else if begun > Instant::now() {
                Some(format!("version {number} before it was written"))
            } else {
                late.filter(|late| *late > document.limit)
                    .map(|late| format!("version {number}, {late:?} after it was replaced"))
            }
        };
        if let Some(wrong) = wrong {
            self.find(format!("{name}: {wrong} was used"));
        }
    }

    /// Something is not as it must be.
    pub fn find(&self, what: String) {
        lock(&self.findings).push(what);
    }

    /// What was not as it must be.
    pub fn findings(&self) -> Vec<String> {
        lock(&self.findings).clone()
    }

    fn read<T>(&self, name: &str, look: impl FnOnce(&Document) -> T) -> T {
        let documents = lock(&self.documents);
        look(documents.get(name).expect("the document was written"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let history = History::default();
        for text in ["zero", "one", "two"] {
            let limit = Duration::from_secs(5);
            let number = history.begin("d", limit, [("key", text.to_owned())].into());
            history.done("d", number);
        }
        history
    }

    #[test]
    fn what_goes_forward_in_time_is_in_order() {
        let history = history();
        for number in [0, 0, 1, 2, 2] {
            history.observe("d", number, history.floor("d"), Instant::now());
        }
        assert_eq!(history.findings(), [""; 0]);
    }

    #[test]
    fn an_older_version_after_a_newer_one_is_found() {
        let history = history();
        history.observe("d", 2, 0, Instant::now());
        history.observe("d", 1, history.floor("d"), Instant::now());
        assert_eq!(history.findings().len(), 1, "{:?}", history.findings());
    }

    #[test]
    fn a_version_that_was_replaced_long_ago_is_found() {
        let history = history();
        let later = Instant::now() + Duration::from_secs(6);
        history.observe("d", 2, 0, later);
        assert_eq!(history.findings(), [""; 0], "nothing replaced it");
        history.observe("d", 1, 0, later);
        assert_eq!(history.findings().len(), 1);
    }

    #[test]
    fn a_text_that_was_never_written_has_no_number() {
        let history = history();
        assert_eq!(history.number_of("d", "key", "one"), Some(1));
        assert_eq!(history.number_of("d", "key", "$secret://vault/d/key"), None);
    }
}
