//! Grammar of references (`spec/01` §1, design §3). Pure text work: it knows no manager's fields
//! and no value. What it lets through cannot leave its manager's prefix.

mod template;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use template::{NotATemplate, Template};

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    text: Arc<str>,
    target: Target,
}

/// What a reference points at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A variable of the environment as it was at start.
    Env {
        /// Name, case-sensitive.
        name: Box<str>,
        /// One flat key of the variable's JSON object, slashes included.
        json_key: Option<Box<str>>,
    },
    /// Something a declared manager keeps.
    Managed(Key),
}

/// A place inside a manager. Each manager splits `path` its own way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Id of the manager's item, `<kind>/<name>`.
    pub manager: Arc<str>,
    /// Everything between the manager and the query: non-empty segments joined by `/`.
    pub path: Box<str>,
    /// The field, where it was named with `#`; then `path` is the document as a whole.
    pub field: Option<Box<str>>,
    /// `?version=`: an older version of the document. `None` is the newest.
    pub version: Option<Arc<str>>,
    /// `?decode=`: what to do with the text before it is the value.
    pub decode: Option<Decode>,
}

/// How a value is unwrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decode {
    /// Standard or URL-safe alphabet, padded or not; white space is ignored.
    Base64,
}

/// Why a text is not a reference. Texts of `spec/01` §1.1 where APISIX has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Neither `$secret://` nor `$env://`.
    #[error("error secret_uri prefix: {0}")]
    Prefix(Box<str>),
    /// No manager, or no slash behind it.
    #[error("error format: no secret manager")]
    NoManager,
    /// No name of a manager's item, or no slash behind it.
    #[error("error format: no secret conf id")]
    NoConfId,
    /// Nothing behind the manager.
    #[error("error format: no secret key id")]
    NoKey,
    /// `$env://` without a name.
    #[error("error format: no env name")]
    NoEnvName,
    /// A segment that could step out of the manager's prefix or mean different things to
    /// different readers.
    #[error("error format: {0} in secret key")]
    Segment(SegmentFault),
    /// `?` with something other than `version=` or `decode=`, or one of them twice.
    #[error("error format: {0}")]
    Query(&'static str),
    /// Longer than [`MAX_LEN`].
    #[error("error format: reference is longer than 4096 bytes")]
    TooLong,
    /// The manager needs a document and a field.
    #[error("error key format, key: {0}")]
    KeyFormat(Box<str>),
    /// It holds [`Template::NAME`], and no name is asked for where it stands.
    #[error("error format: {{sni}} stands only in cert and key of an ssls item with on_demand")]
    NoNameHere,
}

/// What is wrong with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentFault {
    /// `//`, or a slash at either end.
    Empty,
    /// `.` or `..`, also percent-encoded.
    Dots,
    /// `%2f` or `%5c`, also encoded more than once, or a backslash.
    EncodedSlash,
    /// A control character, also percent-encoded.
    Control,
    /// Percent-encoded bytes that are no UTF-8, which lenient readers take for other characters.
    NotUtf8,
}

impl fmt::Display for SegmentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty segment",
            Self::Dots => "'.' or '..' segment",
            Self::EncodedSlash => "encoded slash or backslash",
            Self::Control => "control character",
            Self::NotUtf8 => "percent-encoding that is not UTF-8",
        })
    }
}

impl Reference {
    /// Whether the text claims to be a reference: starts with `$secret://` or `$env://` in any
    /// case. Such a text is never a literal value. Differs from APISIX, to which `$Secret://` is
    /// one, so that whoever reads the configuration has the password.
    #[must_use]
    pub fn is_reference(text: &str) -> bool {
        has_prefix(text, SECRET_PREFIX) || env_rest(text).is_some()
    }

    /// Whether a well-formed reference names its field with `#`, so that it means this document and
    /// no other.
    #[must_use]
    pub fn is_exact(text: &str) -> bool {
        text.contains('#')
    }

    /// Reads a whole string as a reference.
    ///
    /// # Errors
    /// Malformed; whoever holds it must refuse, never use the text.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        Self::parse_shared(&text.into())
    }

    /// [`Reference::parse`] that keeps the text it is given.
    ///
    /// # Errors
    /// As [`Reference::parse`].
    pub fn parse_shared(text: &Arc<str>) -> Result<Self, ReferenceError> {
        if text.len() > MAX_LEN {
            return Err(ReferenceError::TooLong);
        }
        if text.contains(Template::NAME) {
            return Err(ReferenceError::NoNameHere);
        }
        let target = match (env_rest(text), text.strip_prefix(SECRET_PREFIX)) {
            (Some(rest), _) => parse_env(rest)?,
            (None, Some(rest)) => Target::Managed(parse_managed(rest)?),
            (None, None) => {
                let shown = text.chars().take(SHOWN_CHARS).collect::<String>();
                return Err(ReferenceError::Prefix(shown.into()));
            }
        };
        let text = Arc::clone(text);
        Ok(Self { text, target })
    }

    /// The reference as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it points at.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }
}

impl Key {
    /// The usual split of a manager with documents of fields: at `#` where there is one, else at
    /// the last slash (APISIX's rule for Vault). The path is empty where there is no slash.
    #[must_use]
    pub fn split_last(&self) -> (&str, &str) {
        match (&self.field, self.path.rsplit_once('/')) {
            (Some(field), _) => (&self.path, field),
            (None, Some(split)) => split,
            (None, None) => ("", &self.path),
        }
    }
}

fn has_prefix(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn env_rest(text: &str) -> Option<&str> {
    has_prefix(text, ENV_PREFIX).then(|| &text[ENV_PREFIX.len()..])
}

fn parse_env(rest: &str) -> Result<Target, ReferenceError> {
    let (name, json_key) = match rest.split_once('/') {
        Some((name, key)) => (name, Some(key).filter(|key| !key.is_empty())),
        None => (rest, None),
    };
    if name.is_empty() {
        return Err(ReferenceError::NoEnvName);
    }
    if rest.chars().any(char::is_control) {
        return Err(ReferenceError::Segment(SegmentFault::Control));
    }
    Ok(Target::Env {
        name: name.into(),
        json_key: json_key.map(Into::into),
    })
}

fn parse_managed(rest: &str) -> Result<Key, ReferenceError> {
    let present = |part: &&str| !part.is_empty();
    let (kind, rest) = rest.split_once('/').ok_or(ReferenceError::NoManager)?;
    let kind = Some(kind)
        .filter(present)
        .ok_or(ReferenceError::NoManager)?;
    let (name, rest) = rest.split_once('/').ok_or(ReferenceError::NoConfId)?;
    let name = Some(name).filter(present).ok_or(ReferenceError::NoConfId)?;

    let (rest, field) = match rest.split_once('#') {
        Some((rest, field)) => (rest, Some(field)),
        None => (rest, None),
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    if path.is_empty() {
        return Err(ReferenceError::NoKey);
    }
    for segment in [kind, name].into_iter().chain(path.split('/')) {
        check_segment(segment)?;
    }
    if let Some(field) = field {
        check_field(field)?;
    }
    let (version, decode) = parse_query(query)?;
    Ok(Key {
        manager: format!("{kind}/{name}").into(),
        path: path.into(),
        field: field.map(Into::into),
        version,
        decode,
    })
}

fn check_field(field: &str) -> Result<(), ReferenceError> {
    if field.is_empty() {
        return Err(ReferenceError::NoKey);
    }
    if field.contains('?') {
        return Err(ReferenceError::Query("the query stands before the '#'"));
    }
    if field.chars().any(char::is_control) {
        return Err(ReferenceError::Segment(SegmentFault::Control));
    }
    Ok(())
}

/// Checks the segment as written and as any number of percent-decodings would read it, since a
/// proxy in front of the manager may decode once more than we encode.
fn check_segment(segment: &str) -> Result<(), ReferenceError> {
    if segment.is_empty() {
        return Err(ReferenceError::Segment(SegmentFault::Empty));
    }
    let mut reading = segment.as_bytes().to_vec();
    loop {
        if let Some(fault) = segment_fault(&reading) {
            return Err(ReferenceError::Segment(fault));
        }
        let decoded: Vec<u8> = percent_encoding::percent_decode(&reading).collect();
        if decoded.len() == reading.len() {
            return Ok(());
        }
        reading = decoded;
    }
}

fn segment_fault(segment: &[u8]) -> Option<SegmentFault> {
    // Some servers cut parameters (`..;v=1`) off before they look.
    let name = segment.split(|byte| *byte == b';').next();
    if matches!(name, Some(b"." | b"..")) {
        return Some(SegmentFault::Dots);
    }
    if segment.iter().any(|byte| matches!(byte, b'/' | b'\\')) {
        return Some(SegmentFault::EncodedSlash);
    }
    match std::str::from_utf8(segment) {
        Ok(text) if text.chars().any(char::is_control) => Some(SegmentFault::Control),
        Ok(_) => None,
        Err(_) => Some(SegmentFault::NotUtf8),
    }
}

fn parse_query(query: Option<&str>) -> Result<(Option<Arc<str>>, Option<Decode>), ReferenceError> {
    let (mut version, mut decode) = (None, None);
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        let known = match pair.split_once('=') {
            Some(("version", text)) if is_version(text) => version.replace(text.into()).is_none(),
            Some(("version", _)) => {
                return Err(ReferenceError::Query(
                    "version is 1 to 128 letters, digits, '-', '_' or '.'",
                ));
            }
            Some(("decode", "base64")) => decode.replace(Decode::Base64).is_none(),
            Some(("decode", _)) => return Err(ReferenceError::Query("decode knows only base64")),
            _ => {
                return Err(ReferenceError::Query(
                    "a query knows only version= and decode=",
                ));
            }
        };
        if !known {
            return Err(ReferenceError::Query("query parameter given twice"));
        }
    }
    Ok((version, decode))
}

fn is_version(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=128).contains(&text.len()) && text.bytes().all(fits)
}

const SECRET_PREFIX: &str = "$secret://";
const ENV_PREFIX: &str = "$env://";

/// Longest reference, in bytes.
pub const MAX_LEN: usize = 4096;

/// How much of a text that is no reference an error repeats: it may be a literal secret.
const SHOWN_CHARS: usize = 10;
