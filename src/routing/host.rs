//! Host patterns and the tables under them (`spec/00` §9.3).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::path::UriPattern;
use super::table::{self, PathTable};
use super::trie::{Found, Trie};
use crate::http::host::without_port;

/// A text that is no host pattern (`spec/00` §1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `*`, or a name of letters, digits and - . _ [ ] : with at most one `*` in front")]
pub struct HostPatternError;

/// One host pattern, lower-cased: a name, `*.name` (any depth below it, not the name itself),
/// `*name` (any ending, the name included) or `*` (every host). Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(Arc<str>);

impl HostPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        let name = text.strip_prefix('*').unwrap_or(text);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        if text.is_empty() || !name.bytes().all(allowed) {
            return Err(HostPatternError);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The pattern, lower-cased.
    #[must_use]
    pub const fn text(&self) -> &Arc<str> {
        &self.0
    }

    /// What hosts must end with, for a pattern that starts with an asterisk.
    fn suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }

    /// Whether the host fits. A pattern that names a port is compared with the host and its port.
    pub(super) fn matches(&self, host: &HostName<'_>) -> bool {
        let pattern = self.suffix().unwrap_or(&self.0);
        let names_port = without_port(pattern).len() < pattern.len();
        let host = if names_port { host.full() } else { host.name() };
        match self.suffix() {
            Some(suffix) => host.ends_with(suffix),
            None => host == &*self.0,
        }
    }
}

/// A request's host, lower-cased. Allocates only where the client wrote capitals.
pub(super) struct HostName<'q> {
    full: Cow<'q, str>,
    name_len: usize,
}

impl<'q> HostName<'q> {
    pub(super) fn of(host: &'q str) -> Self {
        let full = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        let name_len = without_port(&full).len();
        Self { full, name_len }
    }

    /// Without port.
    pub(super) fn name(&self) -> &str {
        &self.full[..self.name_len]
    }

    fn full(&self) -> &str {
        &self.full
    }
}

/// The tables of [`super::RouterMode::HostUri`].
#[derive(Debug, Default)]
pub(super) struct HostTables {
    exact: HashMap<Arc<str>, PathTable, ahash::RandomState>,
    /// `*.name`, by `.name`: one question per dot of the host.
    at_dot: HashMap<Box<str>, (Arc<str>, PathTable), ahash::RandomState>,
    /// Longest key of `at_dot`: what is longer in a host is not asked for.
    longest: usize,
    /// `*name` and `*`, by the suffix read backwards.
    others: Trie<(Arc<str>, PathTable)>,
    hostless: PathTable,
}

impl HostTables {
    /// Tries `find` in the host's own table, then from its longest wildcard to the shortest, then
    /// among routes without hosts, until it finds something.
    pub(super) fn find<'t, R>(
        &'t self,
        host: &str,
        mut find: impl FnMut(&'t PathTable, Option<&'t Arc<str>>) -> Option<R>,
    ) -> Option<R> {
        if let Some((pattern, table)) = self.exact.get_key_value(host)
            && let Some(found) = find(table, Some(pattern))
        {
            return Some(found);
        }
        let mut others = Found::new();
        if !self.others.is_empty() {
            let backwards: SmallVec<[u8; 256]> = host.bytes().rev().collect();
            self.others.prefixes_of(&backwards, &mut others);
        }
        let mut others = others
            .iter()
            .rev()
            .map(|&at| self.others.value(at))
            .peekable();
        let start = host.len().saturating_sub(self.longest);
        for dot in memchr::memchr_iter(b'.', &host.as_bytes()[start..]) {
            let Some((pattern, table)) = self.at_dot.get(&host[start + dot..]) else {
                continue;
            };
            // Both patterns start with an asterisk, so their lengths compare as their suffixes do.
            while let Some((longer, table)) =
                others.next_if(|(other, _)| other.len() > pattern.len())
            {
                if let Some(found) = find(table, Some(longer)) {
                    return Some(found);
                }
            }
            if let Some(found) = find(table, Some(pattern)) {
                return Some(found);
            }
        }
        for (pattern, table) in others {
            if let Some(found) = find(table, Some(pattern)) {
                return Some(found);
            }
        }
        find(&self.hostless, None)
    }
}

/// Collects routes by host before the tables are read-only.
#[derive(Default)]
pub(super) struct Builder {
    tables: HashMap<Arc<str>, table::Builder, ahash::RandomState>,
    hostless: table::Builder,
}

impl Builder {
    /// Adds a route under each of its hosts. Routes come in file order.
    pub(super) fn add(
        &mut self,
        route: u32,
        hosts: &[HostPattern],
        uris: &[UriPattern],
        priority: i64,
    ) {
        if hosts.is_empty() {
            self.hostless.add(route, uris, priority);
        }
        for host in hosts {
            let table = self.tables.entry(host.text().clone()).or_default();
            table.add(route, uris, priority);
        }
    }

    /// The finished tables.
    pub(super) fn finish(self) -> HostTables {
        let mut exact =
            HashMap::with_capacity_and_hasher(self.tables.len(), ahash::RandomState::new());
        let mut at_dot = HashMap::default();
        let mut longest = 0;
        let mut others = Vec::new();
        for (pattern, table) in self.tables {
            let table = table.finish();
            match pattern.strip_prefix('*').map(Box::<str>::from) {
                Some(suffix) if suffix.starts_with('.') => {
                    longest = longest.max(suffix.len());
                    at_dot.insert(suffix, (pattern, table));
                }
                Some(suffix) => {
                    let backwards: Box<[u8]> = suffix.bytes().rev().collect();
                    others.push((backwards, (pattern, table)));
                }
                None => {
                    exact.insert(pattern, table);
                }
            }
        }
        exact.shrink_to_fit();
        HostTables {
            exact,
            longest,
            at_dot,
            others: Trie::build(others),
            hostless: self.hostless.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_patterns_are_read() {
        for text in [
            "*", "a.test", "*.a.test", "*a.test", "A.Test", "[::1]", "a:80",
        ] {
            assert!(HostPattern::parse(text).is_ok(), "{text}");
        }
        for text in ["", "a.*.test", "a.*", "**", "a/b", "a b", "ä.test"] {
            assert_eq!(HostPattern::parse(text), Err(HostPatternError), "{text}");
        }
    }

    #[test]
    fn wildcards_match_by_suffix() {
        for (pattern, host, expected) in [
            ("*.foo.com", "a.foo.com", true),
            ("*.foo.com", "a.b.FOO.com:8080", true),
            ("*.foo.com", "foo.com", false),
            ("*foo.com", "foo.com", true),
            ("*foo.com", "barfoo.com", true),
            ("*", "", true),
            ("foo.com", "foo.com:80", true),
            ("foo.com:80", "foo.com:80", true),
            ("foo.com:80", "foo.com", false),
            ("[::1]", "[::1]:80", true),
        ] {
            let pattern = HostPattern::parse(pattern).expect("the pattern is valid");
            assert_eq!(
                pattern.matches(&HostName::of(host)),
                expected,
                "{pattern:?} {host}"
            );
        }
    }
}
