//! Finds references in JSON and puts values in their place. JSON that holds values lives only
//! here and is wiped when dropped.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;
use zeroize::Zeroize;

use crate::config::resource::{Pem, Settings};
use crate::sealed::Opened;
use crate::secrets::{Reference, Resolved, Unresolved, View};

/// Calls `found` with every reference in `json`, at any depth.
pub fn visit(json: &Value, found: &mut dyn FnMut(&str)) {
    match json {
        Value::String(text) if Reference::is_reference(text) => found(text),
        Value::Array(items) => items.iter().for_each(|item| visit(item, found)),
        Value::Object(members) => members.values().for_each(|member| visit(member, found)),
        _ => {}
    }
}

/// The same for a plugin's settings.
pub fn visit_settings(settings: &Settings, found: &mut dyn FnMut(&str)) {
    settings.dollar_strings(|text| {
        if Reference::is_reference(text) {
            found(text);
        }
    });
}

/// Adds the versions of all references in `json` to `stamp`, so that two stamps are equal exactly
/// when content and secret values are.
pub fn stamp(json: &Value, view: &View, stamp: &mut impl Hasher) {
    visit(json, &mut |reference| stamp_text(reference, view, stamp));
}

/// The same for a plugin's settings.
pub fn stamp_settings(settings: &Settings, view: &View, stamp: &mut impl Hasher) {
    visit_settings(settings, &mut |reference| {
        stamp_text(reference, view, stamp)
    });
}

/// The same for one string that may be a reference.
pub fn stamp_text(text: &str, view: &View, stamp: &mut impl Hasher) {
    if Reference::is_reference(text) {
        view.resolve(text)
            .map(|resolved| resolved.version)
            .ok()
            .hash(stamp);
    }
}

/// A reference that has no value, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reference {reference} has no value: {why}")]
pub struct Missing {
    /// Dotted path of the field.
    pub field: String,
    /// The reference as written; it is not secret.
    pub reference: Arc<str>,
    /// Why.
    #[source]
    pub why: Unresolved,
    /// Who would have to mend it.
    pub fault: Fault,
}

/// What keeps a reference from being replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has no value now.
    NoValue,
    /// Its value can stand in no field.
    Misfit,
    /// It stands where a name is expected, so that no value could ever help.
    Name,
}

impl Missing {
    fn new(field: &str, reference: &str, why: Unresolved) -> Self {
        Self {
            field: field.to_owned(),
            reference: reference.into(),
            why,
            fault: Fault::NoValue,
        }
    }

    fn misfit(field: &str, reference: &str, why: &str) -> Self {
        Self {
            fault: Fault::Misfit,
            ..Self::new(field, reference, Unresolved::because(why))
        }
    }

    fn name(field: &str, reference: &str) -> Self {
        let why = Unresolved::because("a reference stands for a value, never for a name");
        Self {
            fault: Fault::Name,
            ..Self::new(field, reference, why)
        }
    }
}

/// JSON whose references were replaced by values. Wiped on drop; never printed.
pub struct Substituted(Value);

impl Substituted {
    /// The JSON with values in it. For plugin builders only.
    #[must_use]
    pub const fn expose(&self) -> &Value {
        &self.0
    }
}

/// A plugin's configuration without `_meta`, which is the engine's.
#[must_use]
pub fn without_meta(json: &Value) -> Substituted {
    let mut copy = json.clone();
    if let Value::Object(members) = &mut copy {
        members.shift_remove("_meta");
    }
    Substituted(copy)
}

impl Drop for Substituted {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Whether `json` holds any reference.
#[must_use]
pub fn has_references(json: &Value) -> bool {
    let mut any = false;
    visit(json, &mut |_| any = true);
    any
}

/// Replaces every reference in `json` by its value.
///
/// # Errors
/// The first reference that has no value now, or whose value is not text.
pub fn substitute(json: Value, view: &View) -> Result<Substituted, Missing> {
    let mut copy = Substituted(json);
    let mut missing = None;
    replace(&mut copy.0, view, &mut String::new(), &mut missing);
    match missing {
        Some(missing) => Err(missing),
        None => Ok(copy),
    }
}

/// The value of one string: itself, or what its reference is worth.
///
/// # Errors
/// It is a reference without a value.
pub fn text<'a>(text: &'a str, field: &str, view: &View) -> Result<Plain<'a>, Missing> {
    if !Reference::is_reference(text) {
        return Ok(Plain::Literal(text));
    }
    let value = match view.resolve(text) {
        Ok(resolved) => resolved.open(),
        Err(why) => return Err(Missing::new(field, text, why)),
    };
    // A value that is a reference was put there by mistake: nobody follows it, and its text is no
    // value.
    if value.as_str().is_some_and(Reference::is_reference) {
        let why = "the value is itself a reference";
        return Err(Missing::misfit(field, text, why));
    }
    Ok(Plain::Value(value))
}

/// What one string stands for.
pub enum Plain<'a> {
    /// Itself.
    Literal(&'a str),
    /// What its reference is worth; wiped when dropped.
    Value(Opened),
}

impl Deref for Plain<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Literal(text) => text.as_bytes(),
            Self::Value(value) => value,
        }
    }
}

/// PEM out of one string: itself, or what its reference is worth. The bounds of literals hold for
/// values too.
///
/// # Errors
/// It is a reference without a value (outer), or the value is out of bounds (inner).
pub fn pem<'a>(
    text: &'a str,
    kind: Pem,
    field: &str,
    view: &View,
) -> Result<Result<Plain<'a>, String>, Missing> {
    let value = self::text(text, field, view)?;
    Ok(kind.check(&value).map(|()| value))
}

/// A message about settings whose references were replaced, as it may be told. Builders name what
/// they expected; should one repeat a value all the same, that is cut off here.
#[must_use]
pub fn told(message: &str, settings: &Value, view: &View) -> String {
    let mut repeats = false;
    visit(settings, &mut |reference| {
        let value = view.resolve(reference).map(Resolved::open);
        let value = value.as_ref().ok().and_then(Opened::as_str);
        repeats |= value
            .is_some_and(|value| value.len() >= SHORTEST_SECRET && message.contains(value.trim()));
    });
    if repeats {
        return "the value does not fit".to_owned();
    }
    message.to_owned()
}

/// Shorter values occur in any text.
const SHORTEST_SECRET: usize = 4;

fn replace(json: &mut Value, view: &View, path: &mut String, missing: &mut Option<Missing>) {
    let length = path.len();
    match json {
        Value::String(text) if Reference::is_reference(text) => {
            match self::text(text, path, view) {
                Ok(value) => match std::str::from_utf8(&value) {
                    Ok(value) => *text = value.to_owned(),
                    Err(_) => {
                        *missing = Some(Missing::misfit(path, text, "the value is not text"));
                    }
                },
                Err(refused) => *missing = Some(refused),
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                if missing.is_some() {
                    return;
                }
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&index.to_string());
                replace(item, view, path, missing);
                path.truncate(length);
            }
        }
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                if missing.is_some() {
                    return;
                }
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                if Reference::is_reference(name) {
                    *missing = Some(Missing::name(path, name));
                    return;
                }
                replace(member, view, path, missing);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn wipe(json: &mut Value) {
    match json {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;
    use crate::secrets::Secret;

    fn view(values: &[(&str, Option<&str>)]) -> View {
        let outcome = |value: &Option<&str>| match value {
            Some(value) => Ok(Resolved::new(&Secret::from((*value).to_owned()), 1)),
            None => Err(Unresolved {
                reason: "gone".into(),
            }),
        };
        let outcomes: HashMap<_, _> = values
            .iter()
            .map(|(name, value)| ((*name).into(), outcome(value)))
            .collect();
        View::new(outcomes)
    }

    #[test]
    fn references_at_any_depth_become_values() {
        let json = json!({"a": {"b": ["x", "$env://K"]}, "c": 1});
        let done =
            substitute(json.clone(), &view(&[("$env://K", Some("v"))])).expect("K has a value");
        assert_eq!(done.expose(), &json!({"a": {"b": ["x", "v"]}, "c": 1}));
    }

    #[test]
    fn a_missing_reference_names_its_field_and_never_stays_as_text() {
        let json = json!({"a": {"b": ["x", "$env://K"]}});
        let Err(missing) = substitute(json.clone(), &view(&[("$env://K", None)])) else {
            panic!("a reference without value must not be substituted");
        };
        assert_eq!(missing.field, "a.b.1");
    }

    #[test]
    fn a_reference_as_a_name_and_a_value_that_is_one_are_no_values() {
        let view = view(&[("$env://K", Some("$ENV://OTHER")), ("$env://N", Some("v"))]);
        for (json, field, fault) in [
            (json!({"a": {"$env://N": 1}}), "a.$env://N", Fault::Name),
            (json!([{"$Secret://x": "y"}]), "0.$Secret://x", Fault::Name),
            (json!({"a": "$env://K"}), "a", Fault::Misfit),
        ] {
            let Err(missing) = substitute(json, &view) else {
                panic!("{field} must be refused");
            };
            assert_eq!((&*missing.field, missing.fault), (field, fault));
        }
    }

    #[test]
    fn a_message_that_repeats_a_value_is_not_told() {
        let view = view(&[("$env://K", Some("hunter22\n"))]);
        let json = json!({"a": ["$env://K"]});
        let told = told("must be a number, not hunter22", &json, &view);
        assert_eq!(told, "the value does not fit");
        assert_eq!(super::told("must be short", &json, &view), "must be short");
    }

    #[test]
    fn a_reference_inside_other_text_is_a_literal() {
        let json = json!("Bearer $env://K");
        let done = substitute(json.clone(), &View::default()).expect("nothing to resolve");
        assert_eq!(done.expose(), &json);
    }
}
