//! A parsed file as a tree that knows where each value stands. It holds what the file says and
//! never a meaning; whoever decodes it consumes it, so that big files are held once.

use std::hash::{Hash, Hasher};

use serde_json::{Map, Number, Value};
use siphasher::sip::SipHasher13;

/// A value and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What stands there.
    pub tree: Tree,
    /// Where it starts.
    pub at: At,
}

/// A place inside one file; both count from 1, and 0 means not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct At {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// The kinds of value YAML and JSON share.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// `null`, `~`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other finite number.
    Float(f64),
    /// Text, quoted or not of the kinds above.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in file order; keys are unique (the last of duplicates stands).
    Map(Vec<Entry>),
}

/// One pair of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key; keys that are numbers or booleans are taken as they are written.
    pub key: Box<str>,
    /// Where the key starts.
    pub at: At,
    /// The value.
    pub node: Node,
}

impl Node {
    /// A tree without places.
    #[must_use]
    pub fn from_json(value: Value) -> Self {
        let tree = match value {
            Value::Null => Tree::Null,
            Value::Bool(value) => Tree::Bool(value),
            Value::Number(number) => match number.as_i64() {
                Some(number) => Tree::Int(number),
                None => Tree::Float(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => Tree::Text(text),
            Value::Array(values) => Tree::List(values.into_iter().map(Self::from_json).collect()),
            Value::Object(map) => Tree::Map(
                map.into_iter()
                    .map(|(key, value)| Entry {
                        key: key.into_boxed_str(),
                        at: At::default(),
                        node: Self::from_json(value),
                    })
                    .collect(),
            ),
        };
        Self {
            tree,
            at: At::default(),
        }
    }

    /// What kind of value it is, in words for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.tree {
            Tree::Null => "null",
            Tree::Bool(_) => "a boolean",
            Tree::Int(_) | Tree::Float(_) => "a number",
            Tree::Text(_) => "a string",
            Tree::List(_) => "a list",
            Tree::Map(_) => "an object",
        }
    }

    /// The value under `key` of a map.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&Node> {
        match &self.tree {
            Tree::Map(entries) => entries.iter().find(|e| &*e.key == key).map(|e| &e.node),
            _ => None,
        }
    }

    /// The text, where it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.tree {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Hash of the content, not of the place. Equal content gives equal hashes in one process
    /// and, today, across processes; nothing may rely on the latter.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(0x636c_6176, 0x6967_6572);
        self.hash_into(&mut hasher);
        hasher.finish()
    }

    fn hash_into(&self, hasher: &mut impl Hasher) {
        match &self.tree {
            Tree::Null => hasher.write_u8(0),
            Tree::Bool(value) => (1_u8, value).hash(hasher),
            Tree::Int(value) => (2_u8, value).hash(hasher),
            Tree::Float(value) => (3_u8, value.to_bits()).hash(hasher),
            Tree::Text(value) => (4_u8, value).hash(hasher),
            Tree::List(nodes) => {
                (5_u8, nodes.len()).hash(hasher);
                nodes.iter().for_each(|node| node.hash_into(hasher));
            }
            Tree::Map(entries) => {
                (6_u8, entries.len()).hash(hasher);
                for entry in entries {
                    entry.key.hash(hasher);
                    entry.node.hash_into(hasher);
                }
            }
        }
    }
}

impl From<Node> for Value {
    fn from(node: Node) -> Self {
        match node.tree {
            Tree::Null => Self::Null,
            Tree::Bool(value) => Self::Bool(value),
            Tree::Int(value) => Self::Number(value.into()),
            Tree::Float(value) => Number::from_f64(value).map_or(Self::Null, Self::Number),
            Tree::Text(value) => Self::String(value),
            Tree::List(nodes) => Self::Array(nodes.into_iter().map(Self::from).collect()),
            Tree::Map(entries) => {
                let mut map = Map::with_capacity(entries.len());
                for entry in entries {
                    map.insert(entry.key.into_string(), entry.node.into());
                }
                Self::Object(map)
            }
        }
    }
}
