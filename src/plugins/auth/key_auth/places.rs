//! Where a request may carry its key: headers, `Authorization: Bearer`, the query.

use std::borrow::Cow;
use std::fmt;

use http::HeaderName;
use http::header::AUTHORIZATION;
use serde::Deserializer;
use serde::de::{SeqAccess, Visitor};

use crate::http::query;
use crate::plugins::auth::hide;
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::BuildError;

/// Places, in the order they are asked; the first that holds something counts.
pub(super) struct Places {
    headers: Box<[Header]>,
    query: Box<str>,
}

struct Header {
    name: HeaderName,
    /// The key stands behind `Bearer`; another scheme is not for us.
    bearer: bool,
}

/// Where a key was found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// In the header at this place of the list.
    Header(usize),
    Query,
}

/// Where a key is and its text; `None` where what is there can match nothing.
pub(super) type Presented<'r> = (Found, Option<Cow<'r, [u8]>>);

impl Places {
    pub(super) fn new(headers: &[String], bearer: bool, query: String) -> Result<Self, BuildError> {
        let header = |name: &String| {
            let name = HeaderName::try_from(name)
                .map_err(|_| BuildError::invalid("header", "must be a header name"))?;
            let bearer = bearer && name == AUTHORIZATION;
            Ok(Header { name, bearer })
        };
        let headers: Result<Vec<_>, BuildError> = headers.iter().map(header).collect();
        let mut headers = headers?;
        if headers.is_empty() || headers.len() > MOST_HEADERS {
            let message = "must be a header name or a list of 1 to 16";
            return Err(BuildError::invalid("header", message));
        }
        if bearer && !headers.iter().any(|header| header.bearer) {
            headers.push(Header {
                name: AUTHORIZATION,
                bearer,
            });
        }
        Ok(Self {
            headers: headers.into(),
            query: query.into(),
        })
    }

    /// Names that logs mask.
    pub(super) fn names(&self) -> Vec<Box<str>> {
        let headers = self.headers.iter();
        let headers = headers.map(|header| header.name.as_str().into());
        headers.chain([self.query.clone()]).collect()
    }

    /// The key the request carries, and where.
    pub(super) fn presented<'r>(&self, req: &'r RequestCtx<'_>) -> Option<Presented<'r>> {
        for (place, header) in self.headers.iter().enumerate() {
            if let Some(key) = header.key(req) {
                return Some((Found::Header(place), key.map(Cow::Borrowed)));
            }
        }
        // Of an argument that stands twice APISIX sees a list, which equals no key.
        let key = query::single(req.query()?, &self.query)?;
        let key = key.map(|key| match key {
            Cow::Borrowed(key) => Cow::Borrowed(key.as_bytes()),
            Cow::Owned(key) => Cow::Owned(key.into_bytes()),
        });
        Some((Found::Query, key))
    }

    /// Takes the key out of that place.
    pub(super) fn remove(&self, req: &mut RequestCtx<'_>, found: Found) {
        match found {
            Found::Header(place) => {
                if let Some(header) = self.headers.get(place) {
                    drop(req.head.remove_header(&header.name));
                }
            }
            Found::Query => hide::from_query(req, &self.query),
        }
    }

    /// Takes keys out of all places.
    pub(super) fn clear(&self, req: &mut RequestCtx<'_>) {
        for header in &self.headers {
            if header.key(req).is_some() {
                drop(req.head.remove_header(&header.name));
            }
        }
        hide::from_query(req, &self.query);
    }
}

impl Header {
    /// What the header holds for us, `Some(None)` where that can match nothing. Of a header that
    /// was sent twice the first value counts, as in APISIX; of two `Authorization` none, since the
    /// upstream might read the other (RFC 9110 §11.6.2 knows one).
    fn key<'r>(&self, req: &'r RequestCtx<'_>) -> Option<Option<&'r [u8]>> {
        let mut values = req.head.headers.get_all(&self.name).iter();
        let value = values.next()?.as_bytes();
        if !self.bearer {
            return Some(Some(value));
        }
        let key = behind_bearer(value);
        if values.next().is_none() {
            key
        } else {
            Some(None)
        }
    }
}

/// `Bearer`, in any case, one or more spaces and a key. `None` is another scheme.
fn behind_bearer(value: &[u8]) -> Option<Option<&[u8]>> {
    let value = value.trim_ascii();
    let end = value.iter().position(|byte| *byte == b' ');
    let (scheme, key) = value.split_at(end.unwrap_or(value.len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return None;
    }
    Some(Some(key.trim_ascii_start()).filter(|key| !key.is_empty()))
}

/// Reads one name or a list of names.
pub(super) fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a header name or a list of them")
        }

        fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
            Ok(vec![name.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(name) = names.next_element()? {
                list.push(name);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(Names)
}

const MOST_HEADERS: usize = 16;
