//! Path patterns of routes (`spec/00` §9.2): exact, prefix, and with parameters.

use std::sync::Arc;

use smallvec::SmallVec;

use super::RouterMode;

/// A path pattern the router cannot serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UriPatternError {
    /// Empty.
    #[error("a path pattern must not be empty")]
    Empty,
    /// `*name` before the last segment.
    #[error("`*` may only stand in the last segment of a pattern with parameters")]
    RestNotLast,
}

/// One path pattern. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UriPattern {
    text: Arc<str>,
    shape: Shape,
}

#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// The path equals the pattern.
    Exact,
    /// The path starts with the pattern without its last byte, `*`.
    Prefix,
    /// Parameters behind a literal prefix.
    Params(Arc<Params>),
}

#[derive(Debug)]
pub(super) struct Params {
    /// Everything before the first parameter; ends with `/`.
    pub(super) prefix: Box<str>,
    /// The segments from the first parameter on.
    pub(super) segments: Box<[Segment]>,
}

/// One segment of a pattern with parameters.
#[derive(Debug)]
pub(super) enum Segment {
    /// Exactly this.
    Literal(Box<str>),
    /// `:name`: one non-empty segment.
    Param(Arc<str>),
    /// `*name`, or literal text and `*`: this literal, then the rest of the path, maybe empty.
    /// Always last.
    Rest(Box<str>, Option<Arc<str>>),
}

/// What a pattern captured, in the path's order.
pub(super) type Captures<'r, 'q> = SmallVec<[(&'r Arc<str>, &'q str); 2]>;

impl UriPattern {
    /// Reads a pattern. `:name` and `*name` mean something with
    /// [`RouterMode::UriWithParameter`] only; elsewhere they are literal, as is an asterisk that
    /// does not stand last.
    ///
    /// # Errors
    /// The pattern is empty, or has a `*name` that is not its last segment.
    /// Differs from APISIX: the latter is accepted there.
    pub fn parse(text: &str, mode: RouterMode) -> Result<Self, UriPatternError> {
        if text.is_empty() {
            return Err(UriPatternError::Empty);
        }
        let params = match mode {
            RouterMode::UriWithParameter => params(text)?,
            RouterMode::HostUri | RouterMode::Uri => None,
        };
        let shape = match params {
            Some(params) => Shape::Params(Arc::new(params)),
            None if text.ends_with('*') => Shape::Prefix,
            None => Shape::Exact,
        };
        Ok(Self {
            text: text.into(),
            shape,
        })
    }

    /// The pattern as written.
    #[must_use]
    pub const fn text(&self) -> &Arc<str> {
        &self.text
    }

    pub(super) const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The part every matching path starts with; the whole path for an exact pattern.
    pub(super) fn literal_prefix(&self) -> &str {
        match &self.shape {
            Shape::Exact => &self.text,
            Shape::Prefix => &self.text[..self.text.len() - 1],
            Shape::Params(params) => &params.prefix,
        }
    }

    /// What the pattern captures from a path that it matches.
    pub(super) fn captures<'r, 'q>(&'r self, path: &'q str) -> Captures<'r, 'q> {
        let mut captures = Captures::new();
        let Shape::Params(params) = &self.shape else {
            return captures;
        };
        let mut rest = path.get(params.prefix.len()..).unwrap_or_default();
        for segment in &params.segments {
            let (this, after) = rest.split_once('/').unwrap_or((rest, ""));
            match segment {
                Segment::Literal(_) | Segment::Rest(_, None) => {}
                Segment::Param(name) => captures.push((name, this)),
                Segment::Rest(literal, Some(name)) => {
                    captures.push((name, rest.get(literal.len()..).unwrap_or_default()));
                }
            }
            rest = after;
        }
        captures
    }
}

/// Splits a pattern at its first parameter; `None` where it has none. Literal segments are
/// compared as they are (differs from APISIX, where they are unescaped regexes).
fn params(text: &str) -> Result<Option<Params>, UriPatternError> {
    let is_param =
        |segment: &str| segment.len() > 1 && (segment.starts_with(':') || segment.starts_with('*'));
    let mut prefix = 0;
    for segment in text.split('/') {
        if is_param(segment) {
            break;
        }
        prefix += segment.len() + 1;
    }
    if prefix > text.len() {
        return Ok(None);
    }
    let (prefix, rest) = text.split_at(prefix);
    let last = rest.split('/').count() - 1;
    let segments: Result<Box<[_]>, _> = rest
        .split('/')
        .enumerate()
        .map(|(position, segment)| self::segment(segment, position == last))
        .collect();
    Ok(Some(Params {
        prefix: prefix.into(),
        segments: segments?,
    }))
}

fn segment(segment: &str, last: bool) -> Result<Segment, UriPatternError> {
    if let Some(name) = segment.strip_prefix(':').filter(|name| !name.is_empty()) {
        return Ok(Segment::Param(name.into()));
    }
    let rest = match segment.strip_prefix('*') {
        Some("") => Segment::Rest("".into(), None),
        Some(name) => Segment::Rest("".into(), Some(name.into())),
        None => match segment.strip_suffix('*') {
            Some(literal) if last => Segment::Rest(literal.into(), None),
            _ => return Ok(Segment::Literal(segment.into())),
        },
    };
    if last {
        Ok(rest)
    } else {
        Err(UriPatternError::RestNotLast)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captures(pattern: &str, path: &str) -> Vec<(String, String)> {
        let pattern =
            UriPattern::parse(pattern, RouterMode::UriWithParameter).expect("the pattern is valid");
        let captures = pattern.captures(path);
        captures
            .iter()
            .map(|(name, value)| (name.to_string(), (*value).to_owned()))
            .collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn parameters_capture_segments_and_the_rest() {
        assert_eq!(captures("/u/:id/x", "/u/7/x"), [pair("id", "7")]);
        assert_eq!(
            captures("/u/:id/*tail", "/u/7/a/b"),
            [pair("id", "7"), pair("tail", "a/b")]
        );
        assert_eq!(captures("/f/*path", "/f/"), [pair("path", "")]);
        assert_eq!(captures("/f/*", "/f/x"), []);
    }

    #[test]
    fn parameters_are_literal_without_the_parameter_router() {
        let pattern = UriPattern::parse("/u/:id", RouterMode::HostUri).expect("valid");
        assert!(matches!(pattern.shape(), Shape::Exact));
    }

    #[test]
    fn a_rest_must_stand_last() {
        let parsed = UriPattern::parse("/a/*x/b", RouterMode::UriWithParameter);
        assert_eq!(parsed.err(), Some(UriPatternError::RestNotLast));
    }
}
