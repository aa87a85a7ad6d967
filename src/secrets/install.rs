//! From a declared manager to one that runs: its fields' references replaced, its clocks read, the
//! rest handed to its kind. Decides which changes of an item leave the place of its secrets alone.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::fetch::Runner;
use super::manager::env::Env;
use super::manager::{BuildCtx, BuildError, Fields, MANAGERS, ManagerDef, seconds};
use super::reference::{Reference, Target};
use super::refresh::Schedule;
use super::settings::{ManagerProblem, ManagerSpec, Observer, SecretsSettings};
use crate::clock::Clock;
use crate::sealed::Sealed;

/// A declared manager whose `$env://` fields are replaced, and whose other references are known.
pub(super) struct Template {
    pub(super) id: Arc<str>,
    /// Fields that hold references into other managers.
    pub(super) needs: Vec<Need>,
    def: &'static ManagerDef,
    fields: Fields,
    place: Option<Digest>,
}

/// A field whose value another manager keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    /// Dotted path of the field.
    pub(super) field: String,
    /// As written.
    pub(super) reference: Arc<str>,
    /// Id of the manager it points into.
    pub(super) manager: Arc<str>,
}

pub(super) type Digest = [u8; 32];

/// What building takes besides the declaration.
#[derive(Clone, Copy)]
pub(super) struct Workshop<'a> {
    pub(super) settings: &'a SecretsSettings,
    pub(super) env: &'a Env,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) observer: &'a Arc<dyn Observer>,
}

/// The same, to be carried off.
#[derive(Clone)]
pub(super) struct Workbench {
    pub(super) settings: Arc<SecretsSettings>,
    pub(super) env: Arc<Env>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) observer: Arc<dyn Observer>,
}

impl Workbench {
    pub(super) fn shop(&self) -> Workshop<'_> {
        Workshop {
            settings: &self.settings,
            env: &self.env,
            clock: &self.clock,
            observer: &self.observer,
        }
    }
}

/// Clocks that any manager may override.
#[derive(Deserialize)]
struct Timing {
    #[serde(default, deserialize_with = "seconds")]
    ttl: Option<Duration>,
    #[serde(default, deserialize_with = "seconds")]
    neg_ttl: Option<Duration>,
    #[serde(default, deserialize_with = "seconds")]
    max_stale: Option<Duration>,
}

impl Template {
    /// Reads a declaration; nothing is built yet.
    pub(super) fn of(spec: &ManagerSpec, shop: Workshop<'_>) -> Result<Self, ManagerProblem> {
        let prepare = || {
            let mut defs = MANAGERS.iter();
            let def = defs.find(|def| def.name == spec.kind).ok_or_else(|| {
                BuildError::new("id", format!("no secret manager: {}", spec.kind))
            })?;
            let mut needs = Vec::new();
            let mut fields = spec.fields.clone();
            let replaced = walk(&mut fields, "", &mut |path, text| {
                replace_env(path, text, shop.env, &mut needs)
            });
            let fields = Fields::new(fields);
            replaced?;
            let place = place(def, fields.value(), &needs);
            Ok(Self {
                id: Arc::clone(&spec.id),
                needs,
                def,
                fields,
                place,
            })
        };
        prepare().map_err(|error| problem(&spec.id, error))
    }

    /// Whether both mean the same secrets, so that a value of one is a value of the other.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        self.place.is_some() && self.place == other.place
    }

    /// Makes the manager; `value_of` knows the values of [`Template::needs`].
    pub(super) fn build(
        &self,
        value_of: &dyn Fn(&str) -> Option<Arc<Sealed>>,
        shop: Workshop<'_>,
    ) -> Result<Runner, ManagerProblem> {
        let build = || {
            let mut fields = self.fields.value().clone();
            let replaced = walk(&mut fields, "", &mut |path, text| {
                let missing = || BuildError::new(path, format!("{text}: no value"));
                let value = value_of(text).ok_or_else(missing)?;
                let value = value.open();
                let value = value.as_str().ok_or_else(|| not_text(path, text))?;
                *text = value.to_owned();
                Ok(())
            });
            let fields = Fields::new(fields);
            replaced?;
            let timing: Timing = fields.parse()?;
            let settings = shop.settings;
            let schedule = Schedule {
                ttl: timing.ttl.unwrap_or(settings.ttl),
                neg_ttl: timing.neg_ttl.unwrap_or(settings.neg_ttl),
                max_stale: timing.max_stale.unwrap_or(settings.max_stale),
            };
            let ctx = BuildCtx {
                id: &self.id,
                clock: shop.clock,
                trusted_ca: settings.trusted_ca.as_deref(),
                observer: shop.observer,
            };
            let manager = (self.def.build)(&fields, &ctx)?;
            let id = Arc::clone(&self.id);
            Ok(Runner::new(id, manager, schedule, settings.concurrency))
        };
        build().map_err(|error| problem(&self.id, error))
    }
}

/// Digest of what a manager is declared as, whatever the order of its fields.
pub(super) fn fingerprint(spec: &ManagerSpec) -> Digest {
    digest(&spec.kind, &mut spec.fields.clone())
}

fn digest(kind: &str, fields: &mut Value) -> Digest {
    let mut fields = fields.take();
    fields.sort_all_objects();
    let fields = Fields::new(fields);
    let text = Zeroizing::new(format!("{kind}\n{}", fields.as_json()));
    openssl::sha::sha256(text.as_bytes())
}

/// Digest of the fields that say which secrets are meant. `None` where that is not known before
/// another manager was asked.
fn place(def: &ManagerDef, fields: &Value, needs: &[Need]) -> Option<Digest> {
    let mut access = def.access.iter().chain(CLOCKS);
    if !needs.iter().all(|need| {
        let mut access = access.clone();
        access.any(|path| is_below(&need.field, path))
    }) {
        return None;
    }
    let mut identity = fields.clone();
    access.by_ref().for_each(|path| cut(&mut identity, path));
    Some(digest(def.name, &mut identity))
}

/// Whether `field` is `path` or stands inside it.
fn is_below(field: &str, path: &str) -> bool {
    field
        .strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn cut(fields: &mut Value, path: &str) {
    let Value::Object(members) = fields else {
        return;
    };
    let cut = match path.split_once('.') {
        None => members.shift_remove(path),
        Some((name, rest)) => {
            if let Some(inner) = members.get_mut(name) {
                self::cut(inner, rest);
            }
            return;
        }
    };
    // Wiped as fields are.
    drop(cut.map(Fields::new));
}

/// Calls `found` with the dotted path and the text of every reference.
fn walk(
    value: &mut Value,
    path: &str,
    found: &mut dyn FnMut(&str, &mut String) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    match value {
        Value::String(text) if Reference::is_reference(text) => found(path, text),
        Value::Array(items) => items
            .iter_mut()
            .enumerate()
            .try_for_each(|(index, item)| walk(item, &format!("{path}[{index}]"), found)),
        Value::Object(fields) => fields.iter_mut().try_for_each(|(name, field)| {
            let path = match path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            walk(field, &path, found)
        }),
        _ => Ok(()),
    }
}

/// Puts the environment's value in the place of a reference to it; notes any other.
fn replace_env(
    path: &str,
    text: &mut String,
    env: &Env,
    needs: &mut Vec<Need>,
) -> Result<(), BuildError> {
    let reference =
        Reference::parse(text).map_err(|error| BuildError::new(path, error.to_string()))?;
    match reference.target() {
        Target::Managed(key) => needs.push(Need {
            field: path.to_owned(),
            reference: text.as_str().into(),
            manager: Arc::clone(&key.manager),
        }),
        Target::Env { name, json_key } => {
            let value = env.resolve(name, json_key.as_deref());
            let value = value.map_err(|why| BuildError::new(path, format!("{text}: {why}")))?;
            let value = value.open();
            let value = value.as_str().ok_or_else(|| not_text(path, text))?;
            *text = value.to_owned();
        }
    }
    Ok(())
}

fn not_text(path: &str, reference: &str) -> BuildError {
    BuildError::new(path, format!("{reference}: value is not text"))
}

fn problem(id: &Arc<str>, error: BuildError) -> ManagerProblem {
    ManagerProblem {
        id: Arc::clone(id),
        field: error.field,
        message: error.message,
    }
}

const CLOCKS: &[&str] = &["ttl", "neg_ttl", "max_stale"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::SystemClock;

    fn template(fields: Value) -> Template {
        let spec = ManagerSpec {
            id: "vault/main".into(),
            kind: "vault".to_owned(),
            fields,
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let observer: Arc<dyn Observer> = Arc::new(());
        let shop = Workshop {
            settings: &SecretsSettings::default(),
            env: &Env::of_process(&[("T".to_owned(), Arc::new(Sealed::new(b"t")))]),
            clock: &clock,
            observer: &observer,
        };
        Template::of(&spec, shop).expect("fields must be accepted")
    }

    #[test]
    fn credentials_trust_and_clocks_leave_the_place_alone_and_all_else_does_not() {
        let base = || json!({"uri": "http://a", "prefix": "kv", "token": "t"});
        let with = |name: &str, value: Value| {
            let mut fields = base();
            fields[name] = value;
            template(fields)
        };
        for (name, value) in [
            ("token", json!("other")),
            ("token", json!("$env://T")),
            ("token", json!("$secret://file/a/token")),
            (
                "auth",
                json!({"method": "approle", "secret_id": "$secret://file/a/b"}),
            ),
            ("tls", json!({"verify": false})),
            ("timeout", json!(1)),
            ("ttl", json!(1)),
            ("max_stale", json!(1)),
        ] {
            assert!(with(name, value).is_same_place(&template(base())), "{name}");
        }
        for (name, value) in [
            ("uri", json!("http://b")),
            ("prefix", json!("kv2")),
            ("namespace", json!("x")),
            ("kv_version", json!(2)),
            ("whatever", json!(1)),
            ("tokens", json!("t")),
        ] {
            assert!(
                !with(name, value).is_same_place(&template(base())),
                "{name}"
            );
        }
    }

    #[test]
    fn a_place_that_another_manager_names_is_never_the_same() {
        let fields = json!({"uri": "http://a", "prefix": "$secret://file/a/prefix", "token": "t"});
        let template = || self::template(fields.clone());
        assert!(!template().is_same_place(&template()));
        assert_eq!(template().needs[0].field, "prefix");
    }
}
