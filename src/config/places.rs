//! Places of fields inside items, found again by reading the text on demand: keeping a position
//! for every field of 100 000 items would cost more memory than the items.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::node::{At, Node, Tree};
use super::parse::{SharedEnv, utf8};
use super::source::{content_hash, read_bounded};
use super::substitute::substitute;
use super::yaml;
use crate::diagnostic::Place;

/// Where fields stand, for findings that `snapshot::compile` makes about an item's inside. Cheap
/// to clone. The file looked at last stays in memory until [`Places::release`].
#[derive(Clone, Default)]
pub struct Places(Option<Arc<Files>>);

struct Files {
    retained: Vec<Retained>,
    env: SharedEnv,
    open: Mutex<Option<Arc<Open>>>,
}

/// A file as it was when it was parsed.
pub(super) struct Retained {
    file: Arc<str>,
    text: RetainedText,
}

enum RetainedText {
    Held(Arc<str>),
    OnDisk {
        path: PathBuf,
        hash: u64,
        bytes: u64,
    },
}

/// A text at hand, with the offset of each line.
struct Open {
    file: Arc<str>,
    text: String,
    lines: Vec<usize>,
}

impl Retained {
    /// A text that stands in no file.
    pub(super) fn text(file: Arc<str>, text: Arc<str>) -> Self {
        Self {
            file,
            text: RetainedText::Held(text),
        }
    }

    /// A file of that size, looked at again only while its content is the same.
    pub(super) fn on_disk(file: Arc<str>, path: PathBuf, hash: u64, bytes: u64) -> Self {
        Self {
            file,
            text: RetainedText::OnDisk { path, hash, bytes },
        }
    }

    fn read(&self) -> Option<String> {
        match &self.text {
            RetainedText::Held(text) => Some(text.to_string()),
            RetainedText::OnDisk { path, hash, bytes } => {
                let content = read_bounded(path, *bytes).ok()?;
                if content_hash(&content) != *hash {
                    return None;
                }
                utf8(&content, &self.file).ok().map(str::to_owned)
            }
        }
    }
}

impl Places {
    pub(super) fn new(retained: Vec<Retained>, env: SharedEnv) -> Self {
        Self(Some(Arc::new(Files {
            retained,
            env,
            open: Mutex::new(None),
        })))
    }

    /// The place of `field` (dotted path) inside the item that starts at `item`: of its deepest
    /// part that exists, or the item's own place where the text is no longer at hand.
    ///
    /// Reads the file; for findings only, never on a request's path.
    #[must_use]
    pub fn locate(&self, item: &Place, field: &str) -> Place {
        let at = self.find(item, field).unwrap_or(At {
            line: item.line,
            column: item.column,
        });
        Place {
            file: item.file.clone(),
            line: at.line,
            column: at.column,
        }
    }

    /// Lets go of the text looked at last. Call it once a configuration is compiled.
    pub fn release(&self) {
        if let Some(files) = &self.0 {
            *files.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn find(&self, item: &Place, field: &str) -> Option<At> {
        if field.is_empty() || item.line == 0 {
            return None;
        }
        let open = self.0.as_ref()?.open(item.file.as_deref()?)?;
        let text = open.item(item.line, item.column)?;
        let node = yaml::parse_first(&text).ok()?;
        let at = walk(&node, field)?;
        Some(At {
            line: at.line + item.line - 1,
            column: at.column,
        })
    }
}

impl Files {
    fn open(&self, file: &str) -> Option<Arc<Open>> {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = slot.as_ref().filter(|open| &*open.file == file) {
            return Some(open.clone());
        }
        let retained = self
            .retained
            .iter()
            .find(|retained| &*retained.file == file)?;
        let raw = retained.read()?;
        let text = substitute(&raw, &*self.env).ok()?.into_owned();
        let newlines = memchr::memchr_iter(b'\n', text.as_bytes()).map(|offset| offset + 1);
        let lines = std::iter::once(0).chain(newlines).collect();
        let open = Arc::new(Open {
            file: retained.file.clone(),
            text,
            lines,
        });
        *slot = Some(open.clone());
        Some(open)
    }
}

impl Open {
    /// The text of the item that starts there, with its first line's start blanked, so that
    /// columns stay.
    fn item(&self, line: u32, column: u32) -> Option<String> {
        let (line, indent) = (line as usize - 1, column.checked_sub(1)? as usize);
        let line_start = *self.lines.get(line)?;
        // Columns count characters.
        let (offset, _) = self.text[line_start..].char_indices().nth(indent)?;
        let start = line_start + offset;
        let first = &self.text[start..];
        let end = if first.starts_with('{') {
            start + flow_length(first.as_bytes())
        } else {
            self.block_end(line + 1, indent)
        };
        let mut text = " ".repeat(indent);
        text.push_str(self.text.get(start..end)?);
        Some(text)
    }

    /// Offset of the first line that is indented less.
    fn block_end(&self, line: usize, indent: usize) -> usize {
        let outside = |start: &&usize| {
            let rest = &self.text[**start..];
            let line = rest.split('\n').next().unwrap_or_default();
            let content = line.trim_start_matches(' ');
            let blank = content.trim_ascii().is_empty() || content.starts_with('#');
            !blank && line.len() - content.len() < indent
        };
        let rest = self.lines.get(line..).unwrap_or_default();
        rest.iter()
            .find(outside)
            .copied()
            .unwrap_or(self.text.len())
    }
}

/// Length of the `{…}` at the start of a text, up to its own closing bracket.
fn flow_length(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        // A quote opens a string, and `#` a comment, only where a value could begin.
        let begins = at
            .checked_sub(1)
            .is_some_and(|before| b" \t\n\r,:[{".contains(&text[before]));
        let rest = &text[at + 1..];
        match text[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' if begins => at += double_quoted(rest),
            b'\'' if begins => at += single_quoted(rest),
            b'#' if begins => at += memchr::memchr(b'\n', rest).unwrap_or(rest.len()),
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at.min(text.len())
}

/// Bytes up to and with the quote that closes a single-quoted string; two quotes are one inside.
fn single_quoted(rest: &[u8]) -> usize {
    let mut quotes = memchr::memchr_iter(b'\'', rest);
    while let Some(at) = quotes.next() {
        if rest.get(at + 1) != Some(&b'\'') {
            return at + 1;
        }
        quotes.next();
    }
    rest.len()
}

/// Bytes up to and with the quote that closes a double-quoted string.
fn double_quoted(rest: &[u8]) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The place of a dotted path's deepest part that exists. Keys may hold dots themselves.
fn walk(node: &Node, field: &str) -> Option<At> {
    match &node.tree {
        Tree::Map(entries) => {
            let rest = |key: &str| {
                let rest = field.strip_prefix(key)?;
                if rest.is_empty() {
                    Some(rest)
                } else {
                    rest.strip_prefix('.')
                }
            };
            let fitting = entries.iter().filter(|entry| rest(&entry.key).is_some());
            let entry = fitting.max_by_key(|entry| entry.key.len())?;
            let rest = rest(&entry.key)?;
            if rest.is_empty() {
                Some(entry.at)
            } else {
                walk(&entry.node, rest).or(Some(entry.at))
            }
        }
        Tree::List(nodes) => {
            let (index, rest) = field.split_once('.').unwrap_or((field, ""));
            let node = nodes.get(index.parse::<usize>().ok()?)?;
            if rest.is_empty() {
                Some(node.at)
            } else {
                walk(node, rest).or(Some(node.at))
            }
        }
        _ => None,
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places(…)")
    }
}
