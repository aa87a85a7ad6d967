//! Sets of request methods (`spec/00` §2).

use ::http::Method;

/// A method that routes cannot name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected one of GET POST PUT DELETE PATCH HEAD OPTIONS CONNECT TRACE PURGE, in capitals")]
pub struct UnknownMethod;

/// The methods a route accepts; the empty set accepts all, also ones it could not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MethodSet(u16);

impl MethodSet {
    /// The set of these methods.
    ///
    /// # Errors
    /// One of them is not among the ten that APISIX knows.
    pub fn parse<I>(names: I) -> Result<Self, UnknownMethod>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        names.into_iter().try_fold(Self(0), |set, name| {
            let bit = bit(name.as_ref()).ok_or(UnknownMethod)?;
            Ok(Self(set.0 | bit))
        })
    }

    /// Whether the method is accepted.
    #[must_use]
    pub fn accepts(self, method: &Method) -> bool {
        self.0 == 0 || bit(method.as_str()).is_some_and(|bit| self.0 & bit != 0)
    }
}

fn bit(method: &str) -> Option<u16> {
    let position = match method {
        "GET" => 0,
        "POST" => 1,
        "PUT" => 2,
        "DELETE" => 3,
        "PATCH" => 4,
        "HEAD" => 5,
        "OPTIONS" => 6,
        "CONNECT" => 7,
        "TRACE" => 8,
        "PURGE" => 9,
        _ => return None,
    };
    Some(1 << position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_not_implied_by_get() {
        let set = MethodSet::parse(["GET", "PURGE"]).expect("known methods");
        assert!(set.accepts(&Method::GET));
        assert!(set.accepts(&Method::from_bytes(b"PURGE").expect("a token")));
        assert!(!set.accepts(&Method::HEAD));
        assert!(!set.accepts(&Method::from_bytes(b"LOCK").expect("a token")));
    }

    #[test]
    fn the_empty_set_accepts_all() {
        assert!(MethodSet::default().accepts(&Method::from_bytes(b"LOCK").expect("a token")));
    }

    #[test]
    fn unknown_and_small_letter_methods_are_refused() {
        assert_eq!(MethodSet::parse(["get"]), Err(UnknownMethod));
        assert_eq!(MethodSet::parse(["LOCK"]), Err(UnknownMethod));
    }
}
