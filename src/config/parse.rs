//! Text of one resource file to its items (`spec/00` §1). A text that is not YAML is refused
//! whole, with line and column; an item that is invalid is marked, and its neighbours live.

use std::sync::Arc;

use serde::de::IgnoredAny;

use super::Documents;
use super::assemble::assemble;
use super::check::{Check, Finding};
use super::node::{At, Entry, Node, Tree};
use super::places::{Places, Retained};
use super::resource::{Kind, ParsedItem, parse_item};
use super::substitute::{Env, substitute};
use super::yaml::{self, DuplicateKey, Top, at_offset};
use crate::diagnostic::{Diagnostic, Place, Severity};

/// Answers environment variables, for as long as a source lives.
pub type SharedEnv = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The process's own environment.
#[must_use]
pub fn process_env() -> SharedEnv {
    Arc::new(|name| std::env::var(name).ok())
}

/// One file's items, valid or not.
#[derive(Debug)]
pub(super) struct ParsedFile {
    pub(super) file: Arc<str>,
    pub(super) items: Vec<ParsedItem>,
    /// `plugins:`, where the file has it.
    pub(super) plugins: Option<Vec<String>>,
    /// Findings outside any item.
    pub(super) findings: Vec<Finding>,
}

/// Reads one text as the whole resource document. `file` names it; `*.json` is read as JSON.
///
/// # Errors
/// The text does not parse, or a `${{VAR}}` is unset: nothing of it can be used.
pub fn parse(text: &str, file: &Arc<str>, env: &SharedEnv) -> Result<Documents, Diagnostic> {
    let parsed = Arc::new(parse_file(text, file, &**env)?);
    let retained = Retained::text(file.clone(), text.into());
    Ok(assemble(
        &[parsed],
        Places::new(vec![retained], env.clone()),
    ))
}

/// Whether the text ends with the line `#END`: in the last 10 bytes, white space behind it only.
#[must_use]
pub fn has_end_marker(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(10)..];
    let Some(before) = tail.trim_ascii_end().strip_suffix(b"#END") else {
        return false;
    };
    let preceding = bytes[..bytes.len() - tail.len() + before.len()].last();
    preceding.is_none_or(|byte| *byte == b'\n')
}

/// The text of a file, without a byte order mark.
///
/// # Errors
/// It is not UTF-8; the finding says where.
pub fn utf8<'bytes>(bytes: &'bytes [u8], file: &Arc<str>) -> Result<&'bytes str, Diagnostic> {
    let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let at = at_offset(bytes, error.valid_up_to());
        let message = if utf16 {
            "expected UTF-8, found UTF-16"
        } else {
            "expected UTF-8"
        };
        refusal(file, "syntax", at, message.into())
    })
}

/// Reads one file's text.
pub(super) fn parse_file(
    text: &str,
    file: &Arc<str>,
    env: Env<'_>,
) -> Result<ParsedFile, Diagnostic> {
    let text = substitute(text, env)
        .map_err(|unset| refusal(file, "unset-variable", unset.at, unset.to_string()))?;
    let mut builder = Builder::default();
    let is_json = file.ends_with(".json");
    if is_json {
        check_json(&text, file)?;
    } else if text.trim_ascii().is_empty() {
        let message = "file is empty; an empty configuration is a file that holds #END";
        return Err(refusal(file, "syntax", At::default(), message.into()));
    }
    match yaml::stream(&text, |top| builder.take(top)) {
        Ok(()) => {}
        // JSON that the YAML parser does not take, such as escaped surrogate pairs: no places then.
        Err(_) if is_json => {
            builder = Builder::default();
            builder.take_json(&text, file)?;
        }
        Err(error) => return Err(refusal(file, "syntax", error.at, error.message)),
    }
    let Builder {
        mut items,
        plugins,
        mut check,
        ..
    } = builder;
    items.shrink_to_fit();
    let findings = std::mem::take(&mut check.findings);
    Ok(ParsedFile {
        file: file.clone(),
        items,
        plugins,
        findings,
    })
}

#[derive(Default)]
struct Builder {
    items: Vec<ParsedItem>,
    plugins: Option<Vec<String>>,
    check: Check,
    list: List,
}

/// The list whose entries are being read.
#[derive(Default)]
enum List {
    Of(Kind),
    Plugins,
    #[default]
    Ignored,
}

impl Builder {
    fn take(&mut self, top: Top) {
        match top {
            Top::List { key, at } => self.list(&key, at),
            Top::Element(node, duplicates) => self.element(node, duplicates),
            Top::Other(entry, duplicates) => self.other(entry, duplicates),
            Top::Duplicate(duplicate) => self.forget(&duplicate),
        }
    }

    fn list(&mut self, key: &str, at: At) {
        self.list = match Kind::find(key) {
            Some(kind) => List::Of(kind),
            None if key == "plugins" => {
                self.plugins = Some(Vec::new());
                List::Plugins
            }
            None => {
                self.ignored(key, at);
                List::Ignored
            }
        };
    }

    fn element(&mut self, node: Node, duplicates: Vec<DuplicateKey>) {
        let mut check = Check::default();
        duplicates
            .into_iter()
            .for_each(|duplicate| warn_of(&mut check, &duplicate));
        match self.list {
            List::Of(kind) => self.items.push(parse_item(kind, node, check)),
            List::Plugins => {
                let name = self
                    .check
                    .within("plugins", |check| plugin_name(check, node));
                self.plugins.get_or_insert_default().extend(name);
            }
            List::Ignored => {}
        }
    }

    fn other(&mut self, entry: Entry, duplicates: Vec<DuplicateKey>) {
        duplicates
            .into_iter()
            .for_each(|duplicate| warn_of(&mut self.check, &duplicate));
        let known = Kind::find(&entry.key).is_some();
        let empty = match &entry.node.tree {
            Tree::Null => true,
            Tree::Map(entries) => entries.is_empty(),
            _ => false,
        };
        if &*entry.key == "plugins" && empty {
            self.plugins = Some(Vec::new());
        } else if (known || &*entry.key == "plugins") && !empty {
            let message = format!("expected a list, found {}", entry.node.kind());
            self.check.within(&entry.key, |check| {
                check.error(entry.node.at, "wrong-type", message)
            });
            if let Some(kind @ Kind::GlobalRules) = Kind::find(&entry.key) {
                // What was to hold for every request must not be lost.
                let check = Check::default();
                self.items.push(parse_item(kind, unreadable(&entry), check));
            }
        } else if !known {
            self.ignored(&entry.key, entry.at);
        }
    }

    /// A list that stands twice: as in APISIX the later one is taken.
    fn forget(&mut self, duplicate: &DuplicateKey) {
        let message = format!(
            "key {} stands twice; the earlier list is not in force",
            duplicate.key
        );
        self.check.error(duplicate.at, "duplicate-key", message);
        match Kind::find(&duplicate.key) {
            Some(kind) => self.items.retain(|item| item.kind != kind),
            None if &*duplicate.key == "plugins" => self.plugins = None,
            None => {}
        }
    }

    fn ignored(&mut self, key: &str, at: At) {
        let message = match key {
            "stream_routes" => "stream routes are not supported; they are ignored",
            // Where people keep their anchors.
            _ if key.starts_with(['x', '.', '_']) => return,
            _ => "no such list; it is ignored",
        };
        let code = if key == "stream_routes" {
            "unsupported"
        } else {
            "unknown-field"
        };
        self.check
            .within(key, |check| check.warn(at, code, message));
    }

    fn take_json(&mut self, text: &str, file: &Arc<str>) -> Result<(), Diagnostic> {
        let value = serde_json::from_str(text).map_err(|error| json_refusal(file, &error))?;
        let node = Node::from_json(value);
        let Tree::Map(entries) = node.tree else {
            let message = "expected a map of resource lists at the top level";
            return Err(refusal(file, "syntax", At::default(), message.into()));
        };
        for entry in entries {
            match entry.node.tree {
                Tree::List(nodes) => {
                    self.list(&entry.key, At::default());
                    nodes
                        .into_iter()
                        .for_each(|node| self.element(node, Vec::new()));
                }
                _ => self.other(entry, Vec::new()),
            }
        }
        Ok(())
    }
}

/// In place of a list that is none: an item that cannot be read either.
fn unreadable(entry: &Entry) -> Node {
    Node {
        tree: Tree::Null,
        at: entry.node.at,
    }
}

fn warn_of(check: &mut Check, duplicate: &DuplicateKey) {
    let message = format!("key {} stands twice; the later one is taken", duplicate.key);
    check.warn(duplicate.at, "duplicate-key", message);
}

/// An entry of `plugins:`; those for streams are not ours.
fn plugin_name(check: &mut Check, node: Node) -> Option<String> {
    if let Tree::Text(name) = node.tree {
        return Some(name);
    }
    let at = node.at;
    let (mut name, mut stream) = (None, false);
    for entry in check.map(node)? {
        match &*entry.key {
            "name" => name = check.within("name", |check| check.text(entry.node)),
            "stream" => {
                stream = check.within("stream", |check| check.boolean(&entry.node)) == Some(true)
            }
            _ => check.warn(entry.at, "unknown-field", "no such field; it has no effect"),
        }
    }
    if name.is_none() && !check.refused() {
        check.error(at, "missing-field", "property \"name\" is required");
    }
    name.filter(|_| !stream)
}

fn check_json(text: &str, file: &Arc<str>) -> Result<(), Diagnostic> {
    serde_json::from_str::<IgnoredAny>(text)
        .map(drop)
        .map_err(|error| json_refusal(file, &error))
}

fn json_refusal(file: &Arc<str>, error: &serde_json::Error) -> Diagnostic {
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let at = At {
        line: small(error.line()),
        column: small(error.column()),
    };
    let message = if error.is_eof() {
        "unexpected end of file"
    } else {
        "expected JSON"
    };
    refusal(file, "syntax", at, message.into())
}

/// A finding that refuses a whole file.
pub(super) fn refusal(file: &Arc<str>, code: &'static str, at: At, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code,
        place: Place {
            file: Some(file.clone()),
            line: at.line,
            column: at.column,
        },
        object: String::new(),
        field: String::new(),
        message,
    }
}

#[cfg(test)]
mod tests;
