//! What the settings of plugins say about consumers and other objects, for those who check whether
//! these exist. Reads declarations; builds nothing.

use serde_json::Value;

use super::def::PluginKind;
use crate::secrets::Reference;

/// What a name in a plugin's settings is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A consumer.
    Consumer,
    /// A consumer group.
    Group,
    /// A service.
    Service,
    /// A route.
    Route,
}

/// A name in a plugin's settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Mention {
    /// Dotted path inside the settings.
    pub field: String,
    /// Of what.
    pub of: Named,
    /// The name.
    pub name: String,
}

/// What one plugin's settings say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Names that something else must have.
    pub mentions: Vec<Mention>,
    /// Auth plugins that let in only whom a credential lets in, with their path inside the
    /// settings; empty for the plugin itself.
    pub doors: Vec<(&'static str, String)>,
}

/// What the settings of a plugin on a route (or what a route stands on) say. They are asked for
/// only where the plugin is one that speaks of others.
pub fn said(plugin: &str, settings: impl FnOnce() -> Value) -> Said {
    let mut said = Said::default();
    let is_auth = super::find(plugin).is_some_and(|(_, def)| def.kind == PluginKind::Auth);
    if !is_auth && plugin != RESTRICTION {
        return said;
    }
    let json = settings();
    if json.pointer("/_meta/disable") == Some(&Value::Bool(true)) {
        return said;
    }
    match plugin {
        RESTRICTION => restriction(&json, &mut said),
        MULTI => ways(&json, &mut said),
        _ => door(plugin, &json, "", &mut said),
    }
    said
}

fn door(plugin: &str, json: &Value, at: &str, said: &mut Said) {
    let Some((_, def)) = super::find(plugin) else {
        return;
    };
    let field = |name: &str| match at {
        "" => name.to_owned(),
        at => format!("{at}.{name}"),
    };
    if let Some(name) = json.get(ANONYMOUS).and_then(Value::as_str) {
        mention(field(ANONYMOUS), Named::Consumer, name, said);
    } else if def.credential.is_some() && json.get("consumer_required") != Some(&Value::Bool(false))
    {
        said.doors.push((def.name, at.to_owned()));
    }
}

fn ways(json: &Value, said: &mut Said) {
    let ways = json.get("auth_plugins").and_then(Value::as_array);
    for (index, way) in ways.into_iter().flatten().enumerate() {
        for (plugin, json) in way.as_object().into_iter().flatten() {
            door(
                plugin,
                json,
                &format!("auth_plugins.{index}.{plugin}"),
                said,
            );
        }
    }
}

fn restriction(json: &Value, said: &mut Said) {
    let of = match json.get("type").and_then(Value::as_str) {
        None | Some("consumer_name") => Named::Consumer,
        Some("consumer_group_id") => Named::Group,
        Some("service_id") => Named::Service,
        Some("route_id") => Named::Route,
        Some(_) => return,
    };
    let list = |field: &str| json.get(field).and_then(Value::as_array);
    for field in ["whitelist", "blacklist"] {
        for (index, name) in list(field).into_iter().flatten().enumerate() {
            if let Some(name) = name.as_str() {
                mention(format!("{field}.{index}"), of, name, said);
            }
        }
    }
    let field = "allowed_by_methods";
    for (index, entry) in list(field).into_iter().flatten().enumerate() {
        if let Some(name) = entry.get("user").and_then(Value::as_str) {
            mention(format!("{field}.{index}.user"), of, name, said);
        }
    }
}

/// A reference is no name before it has its value.
fn mention(field: String, of: Named, name: &str, said: &mut Said) {
    if !Reference::is_reference(name) {
        let name = name.to_owned();
        said.mentions.push(Mention { field, of, name });
    }
}

const ANONYMOUS: &str = "anonymous_consumer";
const RESTRICTION: &str = "consumer-restriction";
const MULTI: &str = "multi-auth";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(plugin: &str, json: &Value) -> (Vec<(String, Named, String)>, Vec<String>) {
        let said = said(plugin, || json.clone());
        let mentions = said.mentions.into_iter();
        let mentions = mentions.map(|found| (found.field, found.of, found.name));
        let doors = said.doors.into_iter();
        let doors = doors.map(|(plugin, at)| format!("{plugin} {at}"));
        (mentions.collect(), doors.collect())
    }

    #[test]
    fn an_auth_plugin_is_a_door_unless_anyone_may_pass() {
        let doors = |plugin, json: Value| of(plugin, &json).1;
        assert_eq!(doors("key-auth", json!({})), ["key-auth "]);
        assert_eq!(doors("key-auth", json!({"header": "x"})), ["key-auth "]);
        let none: [&str; 0] = [];
        assert_eq!(doors("key-auth", json!({"_meta": {"disable": true}})), none);
        assert_eq!(doors("key-auth", json!({"consumer_required": false})), none);
        assert_eq!(doors("cors", json!({})), none);
        let (mentions, doors) = of("key-auth", &json!({"anonymous_consumer": "guest"}));
        let guest = (
            "anonymous_consumer".to_owned(),
            Named::Consumer,
            "guest".to_owned(),
        );
        assert_eq!((mentions, doors), (vec![guest], vec![]));
        let (mentions, doors) = of("key-auth", &json!({"anonymous_consumer": "$env://GUEST"}));
        assert_eq!((mentions, doors), (vec![], vec![]));
    }

    #[test]
    fn each_way_of_multi_auth_is_a_door() {
        let json = json!({"auth_plugins": [
            {"key-auth": {}}, {"key-auth": {"anonymous_consumer": "guest"}}, {"none": {}}, 7
        ]});
        let (mentions, doors) = of("multi-auth", &json);
        let field = "auth_plugins.1.key-auth.anonymous_consumer".to_owned();
        assert_eq!(mentions, [(field, Named::Consumer, "guest".to_owned())]);
        assert_eq!(doors, ["key-auth auth_plugins.0.key-auth"]);
    }

    #[test]
    fn lists_of_names_say_what_they_name() {
        let json = json!({
            "whitelist": ["a", "$env://B", 3], "blacklist": ["c"],
            "allowed_by_methods": [{"user": "d", "methods": []}],
        });
        let (mentions, _) = of("consumer-restriction", &json);
        let expected = [
            ("whitelist.0", "a"),
            ("blacklist.0", "c"),
            ("allowed_by_methods.0.user", "d"),
        ];
        let expected =
            expected.map(|(field, name)| (field.to_owned(), Named::Consumer, name.to_owned()));
        assert_eq!(mentions, expected);
        for (subject, named) in [
            ("consumer_group_id", Named::Group),
            ("service_id", Named::Service),
            ("route_id", Named::Route),
        ] {
            let json = json!({"type": subject, "whitelist": ["a"]});
            let (mentions, _) = of("consumer-restriction", &json);
            assert_eq!(mentions.first().map(|found| found.1), Some(named));
        }
    }
}
