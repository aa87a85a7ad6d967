//! Field shapes that several kinds share (`spec/00` §1.4). Each reads one value and reports
//! what it expected.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::SecretConfig;
use super::upstream::TimeoutConfig;
use crate::config::check::Check;
use crate::config::node::{At, Entry, Node, Tree};

/// Labels by name. Shared with whoever runs on them; most objects have none.
pub type Labels = Option<Arc<HashMap<String, String>>>;

/// What every resource object may carry besides its own fields.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// The id, a number already made text.
    pub(super) id: Option<String>,
    /// Name shown to people.
    pub(super) name: Option<String>,
    /// Free text.
    pub(super) desc: Option<String>,
    /// Labels.
    pub(super) labels: Labels,
    /// A secret manager that one of the fields is short for.
    pub(super) manager: Option<Arc<SecretConfig>>,
}

/// Which of the shared fields a kind has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    /// All of them.
    All,
    /// No `name`.
    NoName,
    /// Only id and times.
    IdOnly,
}

impl Head {
    /// Takes one shared field; false where it is none.
    pub(super) fn take(
        &mut self,
        check: &mut Check,
        shared: Shared,
        key: &str,
        node: &mut Node,
    ) -> bool {
        let own = |node: &mut Node| {
            std::mem::replace(
                node,
                Node {
                    tree: Tree::Null,
                    at: node.at,
                },
            )
        };
        match key {
            "id" => self.id = id(check, own(node)),
            "create_time" | "update_time" | "modifiedIndex" => {
                check.int(node, 0..=i64::MAX);
            }
            "name" if shared == Shared::All => self.name = check.text_of(own(node), 1..=256),
            "desc" if shared != Shared::IdOnly => self.desc = check.text_of(own(node), 0..=256),
            "labels" if shared != Shared::IdOnly => self.labels = labels(check, own(node)),
            _ => return false,
        }
        true
    }
}

/// Decodes the pairs of a resource object. `decode` says whether it knows the key; an unknown one
/// refuses the object (`spec/00` §1.3).
pub(super) fn fields(
    check: &mut Check,
    entries: Vec<Entry>,
    mut decode: impl FnMut(&mut Check, &str, Node) -> bool,
) {
    for entry in entries {
        let (key, at) = (entry.key, entry.at);
        check.within(&key, |check| {
            if !decode(check, &key, entry.node) {
                let message = format!("additional properties forbidden, found {key}");
                check.error(at, "unknown-field", message);
            }
        });
    }
}

/// As [`fields`], for objects inside a resource: APISIX tolerates unknown keys there.
pub(super) fn inner_fields(
    check: &mut Check,
    node: Node,
    mut decode: impl FnMut(&mut Check, &str, Node) -> bool,
) {
    for entry in check.map(node).into_iter().flatten() {
        let (key, at) = (entry.key, entry.at);
        check.within(&key, |check| {
            if !decode(check, &key, entry.node) {
                check.warn(at, "unknown-field", "no such field; it has no effect");
            }
        });
    }
}

/// An id: 1–64 of `a-z A-Z 0-9 - _ .`, or a whole number from 1.
pub(super) fn id(check: &mut Check, node: Node) -> Option<String> {
    let at = node.at;
    let text = match node.tree {
        Tree::Int(number) if number >= 1 => return Some(number.to_string()),
        Tree::Text(text) => text,
        Tree::Int(_) => String::new(),
        _ => return check.wrong(&node, "a string or an integer"),
    };
    if !is_id(&text) {
        check.error(
            at,
            "invalid-id",
            "expected 1 to 64 letters, digits, '-', '_' or '.', or an integer of at least 1",
        );
        return None;
    }
    Some(text)
}

/// Whether the text has the shape of an id.
pub(super) fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn labels(check: &mut Check, node: Node) -> Labels {
    let mut labels = HashMap::new();
    for entry in check.map(node).into_iter().flatten() {
        let value = check.within(&entry.key, |check| {
            let at = entry.node.at;
            let text = check.text(entry.node)?;
            let length = text.chars().count();
            if !(1..=256).contains(&length) || text.contains(char::is_whitespace) {
                check.error(
                    at,
                    "invalid-value",
                    "expected 1 to 256 characters without white space",
                );
                return None;
            }
            Some(text)
        });
        if let Some(value) = value {
            labels.insert(entry.key.into_string(), value);
        }
    }
    (!labels.is_empty()).then(|| Arc::new(labels))
}

/// A list of at least `min` different texts. What could be read is returned in any case, also of a
/// text that stands where the list should: what refuses keeps to what it was written for.
pub(super) fn unique(
    check: &mut Check,
    node: Node,
    min: usize,
    decode: impl FnMut(&mut Check, Node) -> Option<String>,
) -> Vec<String> {
    let at = node.at;
    let nodes = match node.tree {
        Tree::List(nodes) => nodes,
        Tree::Text(_) => {
            check.wrong::<()>(&node, "a list");
            vec![node]
        }
        _ => {
            check.wrong::<()>(&node, "a list");
            return Vec::new();
        }
    };
    let places: Vec<At> = nodes.iter().map(|node| node.at).collect();
    let values = check.each(nodes, decode);
    if places.len() < min {
        check.error(
            at,
            "invalid-value",
            format!("expected at least {min} entry"),
        );
    }
    let mut seen = HashSet::new();
    if let Some(index) = values.iter().position(|value| !seen.insert(value)) {
        let at = places.get(index).copied().unwrap_or(at);
        check.error(
            at,
            "invalid-value",
            "expected entries that differ from each other",
        );
    }
    values
}

/// Reads a single value; where a list stands instead, reports it and still reads its entries, so
/// that what refuses keeps to what it was written for.
pub(super) fn one_or_many(
    check: &mut Check,
    node: Node,
    mut decode: impl FnMut(&mut Check, Node) -> Option<String>,
) -> Vec<String> {
    match node.tree {
        Tree::List(nodes) => {
            check.error(node.at, "wrong-type", "expected a string, found a list");
            check.each(nodes, decode)
        }
        _ => decode(check, node).into_iter().collect(),
    }
}

/// `*`, or an optional leading `*` and a name. Lower-cased.
pub(super) fn host(check: &mut Check, node: Node) -> Option<String> {
    let at = node.at;
    let text = check.text(node)?;
    if !is_host_pattern(&text) {
        check.error(
            at,
            "invalid-value",
            "expected a host name, with or without a leading *",
        );
        return None;
    }
    Some(text.to_ascii_lowercase())
}

fn is_host_pattern(text: &str) -> bool {
    let name = text.strip_prefix('*').unwrap_or(text);
    let character =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'[' | b']' | b':');
    text == "*" || !name.is_empty() && name.bytes().all(character)
}

/// An address or a CIDR block, as it is written.
pub(super) fn ip(check: &mut Check, node: Node) -> Option<String> {
    let at = node.at;
    let text = check.text(node)?;
    if text.parse::<IpAddr>().is_err() && text.parse::<IpNet>().is_err() {
        check.error(at, "invalid-value", "expected an IP address or CIDR block");
        return None;
    }
    Some(text)
}

/// `{connect, send, read}`, seconds above 0, all three.
pub(super) fn timeout(check: &mut Check, node: Node) -> Option<TimeoutConfig> {
    let at = node.at;
    let (mut connect, mut send, mut read) = (None, None, None);
    let before = check.findings.len();
    inner_fields(check, node, |check, key, node| {
        let slot = match key {
            "connect" => &mut connect,
            "send" => &mut send,
            "read" => &mut read,
            _ => return false,
        };
        *slot = seconds(check, &node, false);
        true
    });
    if let (Some(connect), Some(send), Some(read)) = (connect, send, read) {
        return Some(TimeoutConfig {
            connect,
            send,
            read,
        });
    }
    if check.findings.len() == before {
        check.error(
            at,
            "missing-field",
            "expected connect, send and read, all three",
        );
    }
    None
}

/// A number of seconds; zero only where it has a meaning.
pub(super) fn seconds(check: &mut Check, node: &Node, zero: bool) -> Option<Duration> {
    let number = check.number(node)?;
    let in_range = number > 0.0 || zero && number == 0.0;
    let duration = Duration::try_from_secs_f64(number)
        .ok()
        .filter(|_| in_range);
    if duration.is_none() {
        let message = if zero {
            "expected seconds, at least 0"
        } else {
            "expected seconds above 0"
        };
        check.error(node.at, "invalid-value", message);
    }
    duration
}

/// What a PEM text is for, which bounds its length.
#[derive(Debug, Clone, Copy)]
pub enum Pem {
    /// A certificate or a bundle: 128–65536 characters.
    Certificate,
    /// A private key: 64–65536 characters.
    Key,
    /// Revocation lists, which grow with what was revoked: 128 characters to 4 MiB.
    Revocations,
}

impl Pem {
    /// Whether a text of this length can be one.
    ///
    /// # Errors
    /// What was expected.
    pub fn check(self, text: &[u8]) -> Result<(), String> {
        let (min, max) = match self {
            Self::Certificate => (128, 65536),
            Self::Key => (64, 65536),
            Self::Revocations => (128, 4 << 20),
        };
        if (min..=max).contains(&text.len()) {
            return Ok(());
        }
        Err(format!("expected PEM of {min} to {max} characters"))
    }
}

/// PEM text, or a reference of any length.
pub(super) fn pem(check: &mut Check, node: Node, pem: Pem) -> Option<String> {
    let at = node.at;
    let text = check.text(node)?;
    if !is_reference(&text)
        && let Err(message) = pem.check(text.as_bytes())
    {
        check.error(at, "invalid-value", format!("{message}, or a reference"));
        return None;
    }
    Some(text)
}

/// Whether the text claims to be a secret reference (`spec/01` §1). References stay plain strings
/// in this room; only length checks must know them.
pub(in crate::config) fn is_reference(text: &str) -> bool {
    let begins = |prefix: &str| {
        text.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    begins("$env://") || begins("$secret://")
}
