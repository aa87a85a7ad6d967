//! YAML text to [`Node`]s, in one pass and within bounds. Streams the entries of top-level lists,
//! so that a file of 100 000 items never stands in memory as one tree.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::node::{At, Entry, Node, Tree};

/// Nesting deeper than this is refused; real configuration stays below 20.
const MAX_DEPTH: usize = 128;
/// Nodes that aliases may add in one file: a "billion laughs" ends here.
const MAX_ALIAS_NODES: usize = 1_000_000;
/// Maps up to this size look for duplicate keys by comparing; larger ones keep a set.
const SMALL_MAP: usize = 16;

/// Text that is not YAML, and where. The message never holds text from the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct YamlError {
    /// Where the parser stopped.
    pub at: At,
    /// What was expected.
    pub message: String,
}

impl YamlError {
    fn new(at: At, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { at, message }
    }
}

/// A key that stood twice in one map; the later value won.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateKey {
    /// The key. Keys are names, not values.
    pub key: Box<str>,
    /// Where it stands again.
    pub at: At,
}

/// What a reader of the top level sees.
#[derive(Debug)]
pub enum Top {
    /// A top-level key with a list: its entries follow as [`Top::Element`].
    List {
        /// The key.
        key: Box<str>,
        /// Where the key stands.
        at: At,
    },
    /// One entry of the list announced last.
    Element(Node, Vec<DuplicateKey>),
    /// A top-level key with anything else.
    Other(Entry, Vec<DuplicateKey>),
    /// A top-level key stood before; its first value is to be forgotten.
    Duplicate(DuplicateKey),
}

/// Reads a whole text as one tree.
///
/// # Errors
/// It is not one YAML document within bounds.
pub fn parse(text: &str) -> Result<(Node, Vec<DuplicateKey>), YamlError> {
    check_characters(text)?;
    let mut reader = Reader::new(text);
    let Some((event, span)) = reader.start()? else {
        return Ok((null(At::default()), Vec::new()));
    };
    let node = reader.node(event, span, 0)?;
    reader.end()?;
    Ok((node, reader.duplicates))
}

/// Reads the first value of a text and ignores what follows it.
///
/// # Errors
/// There is no value, or it is not YAML within bounds.
pub(super) fn parse_first(text: &str) -> Result<Node, YamlError> {
    let mut reader = Reader::new(text);
    match reader.start()? {
        Some((event, span)) => reader.node(event, span, 0),
        None => Ok(null(At::default())),
    }
}

/// Reads a text whose top level is a map, handing out its lists entry by entry.
///
/// # Errors
/// It is not one YAML document within bounds, or its top level is not a map.
pub fn stream(text: &str, mut each: impl FnMut(Top)) -> Result<(), YamlError> {
    check_characters(text)?;
    let mut reader = Reader::new(text);
    let Some((event, span)) = reader.start()? else {
        return Ok(());
    };
    match event {
        Event::MappingStart(..) => {}
        Event::Scalar(ref text, ScalarStyle::Plain, _, _) if is_null(text) => return reader.end(),
        _ => {
            return Err(YamlError::new(
                at(span),
                "expected a map of resource lists at the top level",
            ));
        }
    }
    let mut seen = HashSet::new();
    loop {
        let (event, span) = reader.next()?;
        if event == Event::MappingEnd {
            return reader.end();
        }
        let place = at(span);
        let key = key_text(reader.node(event, span, 1)?)?;
        if !seen.insert(key.clone()) {
            each(Top::Duplicate(DuplicateKey {
                key: key.clone(),
                at: place,
            }));
        }
        reader.entry(key, place, &mut each)?;
    }
}

struct Reader<'text> {
    parser: Parser<'text, StrInput<'text>>,
    anchors: HashMap<usize, Node>,
    alias_nodes: usize,
    duplicates: Vec<DuplicateKey>,
}

impl<'text> Reader<'text> {
    fn new(text: &'text str) -> Self {
        Self {
            parser: Parser::new_from_str(text),
            anchors: HashMap::new(),
            alias_nodes: 0,
            duplicates: Vec::new(),
        }
    }

    fn next(&mut self) -> Result<(Event<'text>, Span), YamlError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(scan_error(&error)),
            None => Err(YamlError::new(At::default(), "unexpected end of file")),
        }
    }

    /// The event of the document's root, or nothing where the text holds no document.
    fn start(&mut self) -> Result<Option<(Event<'text>, Span)>, YamlError> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::StreamEnd => return Ok(None),
                other => return Ok(Some((other, span))),
            }
        }
    }

    fn end(&mut self) -> Result<(), YamlError> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentEnd | Event::Nothing => {}
                _ => {
                    return Err(YamlError::new(
                        at(span),
                        "expected one document, found a second",
                    ));
                }
            }
        }
    }

    fn entry(
        &mut self,
        key: Box<str>,
        place: At,
        each: &mut impl FnMut(Top),
    ) -> Result<(), YamlError> {
        let (event, span) = self.next()?;
        if !matches!(event, Event::SequenceStart(0, _)) {
            let node = self.node(event, span, 1)?;
            let duplicates = std::mem::take(&mut self.duplicates);
            match node.tree {
                // A list behind an anchor or an alias.
                Tree::List(nodes) => {
                    each(Top::List { key, at: place });
                    nodes
                        .into_iter()
                        .for_each(|node| each(Top::Element(node, Vec::new())));
                }
                _ => each(Top::Other(
                    Entry {
                        key,
                        at: place,
                        node,
                    },
                    duplicates,
                )),
            }
            return Ok(());
        }
        each(Top::List { key, at: place });
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(());
            }
            let node = self.node(event, span, 2)?;
            each(Top::Element(node, std::mem::take(&mut self.duplicates)));
        }
    }

    fn node(&mut self, event: Event<'text>, span: Span, depth: usize) -> Result<Node, YamlError> {
        let place = at(span);
        if depth > MAX_DEPTH {
            return Err(too_deep(place));
        }
        let (tree, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tree = if style == ScalarStyle::Plain || tag.is_some() {
                    typed(text.into_owned(), style, tag.as_deref())
                } else {
                    Tree::Text(text.into_owned())
                };
                (tree, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(id) => return self.alias(id, place, depth),
            _ => return Err(YamlError::new(place, "expected a value")),
        };
        let node = Node { tree, at: place };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Tree, YamlError> {
        let mut nodes = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Tree::List(nodes));
            }
            nodes.push(self.node(event, span, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Tree, YamlError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Node> = Vec::new();
        let mut positions: HashMap<Box<str>, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let place = at(span);
            let is_merge =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if &**text == "<<");
            let key = key_text(self.node(event, span, depth + 1)?)?;
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            if is_merge {
                merged.push(node);
                continue;
            }
            let earlier = if entries.len() < SMALL_MAP {
                entries.iter().position(|entry| entry.key == key)
            } else {
                if positions.is_empty() {
                    positions.extend(entries.iter().enumerate().map(|(i, e)| (e.key.clone(), i)));
                }
                let found = positions.get(&key).copied();
                if found.is_none() {
                    positions.insert(key.clone(), entries.len());
                }
                found
            };
            match earlier {
                Some(position) => {
                    self.duplicates.push(DuplicateKey { key, at: place });
                    entries[position].node = node;
                }
                None => entries.push(Entry {
                    key,
                    at: place,
                    node,
                }),
            }
        }
        for node in merged {
            merge(&mut entries, node)?;
        }
        Ok(Tree::Map(entries))
    }

    fn alias(&mut self, id: usize, place: At, depth: usize) -> Result<Node, YamlError> {
        let target = self
            .anchors
            .get(&id)
            .ok_or_else(|| YamlError::new(place, "alias of an anchor that is not complete here"))?;
        let (size, height) = measure(target);
        if depth + height > MAX_DEPTH {
            return Err(too_deep(place));
        }
        self.alias_nodes += size;
        if self.alias_nodes > MAX_ALIAS_NODES {
            return Err(YamlError::new(
                place,
                format!("aliases expand to more than {MAX_ALIAS_NODES} values"),
            ));
        }
        Ok(Node {
            tree: target.tree.clone(),
            at: place,
        })
    }
}

/// `<<`: keys of the merged map that the map itself does not have.
fn merge(entries: &mut Vec<Entry>, node: Node) -> Result<(), YamlError> {
    match node.tree {
        Tree::Map(merged) => {
            let own: HashSet<Box<str>> = entries.iter().map(|entry| entry.key.clone()).collect();
            entries.extend(merged.into_iter().filter(|entry| !own.contains(&entry.key)));
            Ok(())
        }
        Tree::List(nodes) => nodes.into_iter().try_for_each(|node| match node.tree {
            Tree::Map(_) => merge(entries, node),
            _ => Err(YamlError::new(node.at, "expected a map behind <<")),
        }),
        _ => Err(YamlError::new(
            node.at,
            "expected a map or a list of maps behind <<",
        )),
    }
}

fn too_deep(place: At) -> YamlError {
    YamlError::new(place, format!("nested deeper than {MAX_DEPTH} levels"))
}

/// Number of nodes, and of levels below the first.
fn measure(node: &Node) -> (usize, usize) {
    let add = |(size, height): (usize, usize), child: &Node| {
        let (nodes, levels) = measure(child);
        (size + nodes, height.max(levels + 1))
    };
    match &node.tree {
        Tree::List(nodes) => nodes.iter().fold((1, 0), add),
        Tree::Map(entries) => entries.iter().map(|entry| &entry.node).fold((1, 0), add),
        _ => (1, 0),
    }
}

fn key_text(node: Node) -> Result<Box<str>, YamlError> {
    match node.tree {
        Tree::Text(text) => Ok(text.into_boxed_str()),
        Tree::Int(number) => Ok(number.to_string().into_boxed_str()),
        Tree::Float(number) => Ok(number.to_string().into_boxed_str()),
        Tree::Bool(value) => Ok(value.to_string().into_boxed_str()),
        Tree::Null => Ok("null".into()),
        Tree::List(_) | Tree::Map(_) => Err(YamlError::new(node.at, "expected a scalar as key")),
    }
}

/// Types a scalar the way APISIX's users expect it: YAML 1.2's core schema, without octal, and
/// with numbers that lead with a zero left as text.
pub(crate) fn typed(text: String, style: ScalarStyle, tag: Option<&Tag>) -> Tree {
    if let Some(tag) = tag {
        if tag.is_yaml_core_schema() && tag.suffix != "str" {
            return plain(text);
        }
        return Tree::Text(text);
    }
    if style == ScalarStyle::Plain {
        plain(text)
    } else {
        Tree::Text(text)
    }
}

/// Types an unquoted scalar.
pub(crate) fn plain(text: String) -> Tree {
    if is_null(&text) {
        return Tree::Null;
    }
    match text.as_bytes()[0] {
        b't' | b'T' if matches!(&*text, "true" | "True" | "TRUE") => return Tree::Bool(true),
        b'f' | b'F' if matches!(&*text, "false" | "False" | "FALSE") => return Tree::Bool(false),
        b'0'..=b'9' | b'-' | b'+' | b'.' => {}
        _ => return Tree::Text(text),
    }
    number(&text).unwrap_or(Tree::Text(text))
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn number(text: &str) -> Option<Tree> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(Tree::Int);
    }
    let bytes = digits.as_bytes();
    let first = *bytes.first()?;
    if first == b'0' && bytes.get(1).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    if bytes.iter().all(u8::is_ascii_digit) {
        return text.parse().map(Tree::Int).ok().or_else(|| finite(text));
    }
    let numeric = bytes
        .iter()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
    if numeric && bytes.iter().any(u8::is_ascii_digit) {
        finite(text)
    } else {
        None
    }
}

fn finite(text: &str) -> Option<Tree> {
    text.parse::<f64>()
        .ok()
        .filter(|n| n.is_finite())
        .map(Tree::Float)
}

/// NUL and other control characters, which YAML excludes, by line and column.
fn check_characters(text: &str) -> Result<(), YamlError> {
    let bad = |b: &u8| *b < 0x20 && !matches!(b, b'\n' | b'\r' | b'\t') || *b == 0x7f;
    let Some(offset) = text.as_bytes().iter().position(|b| bad(b)) else {
        return Ok(());
    };
    let message = if text.as_bytes()[offset] == 0 {
        "NUL character"
    } else {
        "control character"
    };
    Err(YamlError::new(at_offset(text.as_bytes(), offset), message))
}

/// Line and column of a byte.
pub(crate) fn at_offset(text: &[u8], offset: usize) -> At {
    let before = &text[..offset];
    let line = memchr::memchr_iter(b'\n', before).count();
    let column = offset - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    At {
        line: small(line + 1),
        column: small(column + 1),
    }
}

fn scan_error(error: &ScanError) -> YamlError {
    let mark = error.marker();
    let at = At {
        line: small(mark.line()),
        column: small(mark.col() + 1),
    };
    // One message quotes a character of the file.
    let info = error.info().split(": `").next().unwrap_or_default();
    YamlError::new(at, info)
}

fn at(span: Span) -> At {
    At {
        line: small(span.start.line()),
        column: small(span.start.col() + 1),
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

const fn null(at: At) -> Node {
    Node {
        tree: Tree::Null,
        at,
    }
}
