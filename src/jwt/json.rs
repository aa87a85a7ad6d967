//! JSON objects of tokens, read in one pass without a tree. Names are unique at every depth: of
//! two readers of an object with a name twice one sees the first, the other the last.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

/// The value of a member.
#[derive(Debug, Clone, PartialEq)]
pub enum Member<'t> {
    /// A string.
    Text(Cow<'t, str>),
    /// A number; a large one to the nearest that a double holds.
    Number(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// An object or array.
    Nested,
}

/// Shows `take` the members of an object in order. `None` where the text is no JSON object, or a
/// name stands twice in an object of it; then some members may have been shown.
#[must_use]
pub fn members<'t>(text: &'t [u8], take: impl FnMut(&str, Member<'t>)) -> Option<()> {
    let text = std::str::from_utf8(text).ok()?;
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Members(take)).ok()?;
    json.end().ok()
}

struct Members<F>(F);

impl<'de, F: FnMut(&str, Member<'de>)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut names: SmallVec<[Cow<'de, str>; 16]> = SmallVec::new();
        while let Some(Name(name)) = map.next_key()? {
            (self.0)(&name, map.next_value()?);
            names.push(name);
        }
        names.sort_unstable();
        if names
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a == b))
        {
            return Err(A::Error::custom("a name stands twice"));
        }
        Ok(())
    }
}

/// Borrowed where it has no escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Member::deserialize(deserializer)? {
            Member::Text(name) => Ok(Self(name)),
            _ => Err(D::Error::custom("expected a string")),
        }
    }
}

impl<'de> Deserialize<'de> for Member<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyMember)
    }
}

struct AnyMember;

impl<'de> Visitor<'de> for AnyMember {
    type Value = Member<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Member<'de>, E> {
        Ok(Member::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Member<'de>, E> {
        Ok(Member::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Member<'de>, E> {
        Ok(Member::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Member<'de>, E> {
        Ok(Member::Number(value))
    }

    fn visit_unit<E>(self) -> Result<Member<'de>, E> {
        Ok(Member::Null)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Member<'de>, E> {
        Ok(Member::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Member<'de>, E> {
        Ok(Member::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Member<'de>, A::Error> {
        while items.next_element::<Member<'de>>()?.is_some() {}
        Ok(Member::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Member<'de>, A::Error> {
        Members(|_: &str, _: Member<'de>| ()).visit_map(map)?;
        Ok(Member::Nested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<(String, Member<'_>)>> {
        let mut found = Vec::new();
        members(text.as_bytes(), |name, member| {
            found.push((name.to_owned(), member));
        })?;
        Some(found)
    }

    #[test]
    fn members_come_in_order_with_their_values() {
        let text = r#" {"a":"x","b":-1,"c":1.5e3,"d":true,"e":null,"f":[{"a":1}],"g":{"a":{}},
            "\u0068":"\n","i":18446744073709551615,"":""} "#;
        let found = read(text).expect("an object");
        let expected = [
            ("a", Member::Text("x".into())),
            ("b", Member::Number(-1.0)),
            ("c", Member::Number(1500.0)),
            ("d", Member::Bool(true)),
            ("e", Member::Null),
            ("f", Member::Nested),
            ("g", Member::Nested),
            ("h", Member::Text("\n".into())),
            ("i", Member::Number(18_446_744_073_709_551_615.0)),
            ("", Member::Text("".into())),
        ];
        let expected = expected.map(|(name, member)| (name.to_owned(), member));
        assert_eq!(found, expected);
        assert_eq!(read("{}"), Some(Vec::new()));
    }

    #[test]
    fn a_name_that_stands_twice_is_refused_at_every_depth() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"\u0061":3}"#,
            r#"{"x":{"a":1,"a":2}}"#,
            r#"{"x":[[{"a":1,"b":{},"a":2}]]}"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(read(r#"{"a":{"a":{"a":1}},"A":1}"#).is_some());
        let many = |last: usize| {
            let names = (0..500).chain([last]);
            let members: Vec<_> = names.map(|n| format!("\"{n}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(read(&many(500)).is_some());
        assert!(read(&many(250)).is_none());
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for text in [
            "",
            "{",
            "}",
            "[]",
            "\"a\"",
            "1",
            "null",
            "{}x",
            "{} {}",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":NaN}",
            "{\"a\":1e999}",
            "{\"a\":01}",
            "{\"a\":Infinity}",
            "\u{feff}{}",
            "{'a':1}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(
            members(b"{\"a\":\"\xff\"}", |_, _| ()).is_none(),
            "not UTF-8"
        );
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(read(&deep), None, "too deep, and no stack is lost");
    }
}
