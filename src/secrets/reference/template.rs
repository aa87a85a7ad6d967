//! References that become one for each name clients ask for: `{sni}` in them stands for the name.

use std::sync::Arc;

use super::{Key, MAX_LEN, Reference, ReferenceError, Target};

/// A reference with [`Template::NAME`] in path or field. What it becomes names the same manager and
/// version whatever the name is, and passed the grammar's checks with names in it; a name that
/// [`host_name`](crate::http::host_name) takes can step out of no segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    manager: Arc<str>,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotATemplate {
    /// It holds no `{sni}`.
    #[error("expected a reference with {{sni}} in its path or field")]
    NoName,
    /// It is one into the environment.
    #[error("expected a reference into a secret manager; no client chooses a variable")]
    Environment,
    /// `{sni}` stands where the manager or the version is named.
    #[error("expected {{sni}} in the path or the field, nowhere else")]
    Misplaced,
    /// With a name in it, it is no reference.
    #[error(transparent)]
    Malformed(#[from] ReferenceError),
}

impl Template {
    /// What stands for the name.
    pub const NAME: &str = "{sni}";

    /// Reads a whole string as a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, NotATemplate> {
        let names = text.matches(Self::NAME).count();
        if names == 0 {
            return Err(NotATemplate::NoName);
        }
        if text.len() + names * LONGEST_NAME > MAX_LEN {
            return Err(ReferenceError::TooLong.into());
        }
        let with = |name: &str| match Reference::parse(&text.replace(Self::NAME, name)) {
            Ok(Reference {
                target: Target::Managed(key),
                ..
            }) => Ok(key),
            Ok(_) => Err(NotATemplate::Environment),
            Err(error) => Err(error.into()),
        };
        // Where two names make no difference, and how long one is makes none, none does.
        let (one, other): (Key, Key) = (with("a.test")?, with("b.example")?);
        if one.manager != other.manager || one.version != other.version {
            return Err(NotATemplate::Misplaced);
        }
        Ok(Self {
            text: text.into(),
            manager: one.manager,
        })
    }

    /// The reference for this name, which must have passed as a host name.
    #[must_use]
    pub fn for_name(&self, name: &str) -> Arc<str> {
        self.text.replace(Self::NAME, name).into()
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Id of the manager that is asked.
    #[must_use]
    pub fn manager(&self) -> &Arc<str> {
        &self.manager
    }
}

/// RFC 1035 §2.3.4, in text.
const LONGEST_NAME: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_stand_in_path_and_field_and_nowhere_else() {
        for (text, expected) in [
            (
                "$secret://vault/main/tls/{sni}/cert",
                "$secret://vault/main/tls/x.test/cert",
            ),
            ("$secret://file/a/{sni}.pem", "$secret://file/a/x.test.pem"),
            (
                "$secret://vault/main/tls?version=2#{sni}/key",
                "$secret://vault/main/tls?version=2#x.test/key",
            ),
            (
                "$secret://aws/a/{sni}/{sni}",
                "$secret://aws/a/x.test/x.test",
            ),
        ] {
            let template = Template::parse(text).expect(text);
            assert_eq!(&*template.for_name("x.test"), expected);
            let manager = expected.split('/').skip(2).take(2).collect::<Vec<_>>();
            assert_eq!(&**template.manager(), manager.join("/"));
        }
        for (text, error) in [
            ("$secret://vault/main/tls/cert", NotATemplate::NoName),
            (
                "{sni}/x",
                NotATemplate::Malformed(ReferenceError::Prefix("a.test/x".into())),
            ),
            ("$env://{sni}", NotATemplate::Environment),
            ("$secret://{sni}/main/a/b", NotATemplate::Misplaced),
            ("$secret://vault/{sni}/a/b", NotATemplate::Misplaced),
            (
                "$secret://vault/main/a/b?version={sni}",
                NotATemplate::Misplaced,
            ),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
        let long = format!("$secret://vault/main/{}{{sni}}/k", "a/".repeat(1950));
        assert_eq!(Template::parse(&long), Err(ReferenceError::TooLong.into()));
    }

    #[test]
    fn no_other_reference_holds_a_name() {
        for text in ["$secret://vault/main/{sni}/key", "$env://A/{sni}"] {
            assert_eq!(Reference::parse(text), Err(ReferenceError::NoNameHere));
        }
    }
}
