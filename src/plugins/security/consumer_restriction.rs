//! `consumer-restriction`: lets requests through by who they come from, or by what they matched
//! (`spec/02` §10). Compares names only; who a client is was decided by an auth plugin.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::rejection;
use crate::consumer::GroupLink;
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{Access, Hooks, Step};
use crate::plugins::respond::Response;
use crate::routing::MethodSet;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "consumer-restriction",
    priority: 2400,
    kind: PluginKind::Ordinary,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: None,
};

#[derive(Deserialize)]
struct ConsumerRestrictionConfig {
    /// What the lists hold.
    #[serde(default, rename = "type")]
    subject: Subject,
    /// Refused, whatever else is said.
    blacklist: Option<Vec<String>>,
    /// Let through; everyone else is refused.
    whitelist: Option<Vec<String>>,
    /// Let through with these methods only; of a name's entries the first counts.
    allowed_by_methods: Option<Vec<UserMethods>>,
    /// Status of the refusal.
    #[serde(default = "super::default_rejected_code")]
    rejected_code: u16,
    /// Text of the refusal; absent: `The <type> is forbidden.`
    rejected_msg: Option<String>,
}

#[derive(Deserialize)]
struct UserMethods {
    user: String,
    methods: Vec<String>,
}

/// What is compared.
#[derive(Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "snake_case")]
enum Subject {
    #[default]
    ConsumerName,
    ConsumerGroupId,
    ServiceId,
    RouteId,
}

struct ConsumerRestriction {
    subject: Subject,
    blacklist: Names,
    whitelist: Option<Names>,
    methods: HashMap<Box<str>, MethodSet, ahash::RandomState>,
    absent: Response,
    refusal: Response,
}

type Names = HashSet<Box<str>, ahash::RandomState>;

fn build(config: ConsumerRestrictionConfig, _ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    if config.blacklist.is_none()
        && config.whitelist.is_none()
        && config.allowed_by_methods.is_none()
    {
        return Err(BuildError::invalid(
            "",
            "at least one of blacklist, whitelist and allowed_by_methods is required",
        ));
    }
    let subject = config.subject.name();
    let absent = format!("The request is rejected, please check the {subject} for this request");
    let forbidden = format!("The {subject} is forbidden.");
    let forbidden = config.rejected_msg.as_deref().unwrap_or(&forbidden);
    let plugin = ConsumerRestriction {
        subject: config.subject,
        blacklist: names("blacklist", config.blacklist)?.unwrap_or_default(),
        whitelist: names("whitelist", config.whitelist)?,
        methods: methods(config.allowed_by_methods)?,
        absent: Response::message(401, &absent),
        refusal: rejection(config.rejected_code, forbidden)?,
    };
    Ok(Hooks::of(plugin).access().done())
}

fn names(field: &str, list: Option<Vec<String>>) -> Result<Option<Names>, BuildError> {
    match list {
        Some(list) if list.is_empty() => Err(BuildError::invalid(field, "must not be empty")),
        list => Ok(list.map(|list| list.into_iter().map(Into::into).collect())),
    }
}

fn methods(
    list: Option<Vec<UserMethods>>,
) -> Result<HashMap<Box<str>, MethodSet, ahash::RandomState>, BuildError> {
    let mut methods = HashMap::default();
    for (index, entry) in list.into_iter().flatten().enumerate() {
        let field = format!("allowed_by_methods[{index}].methods");
        if entry.methods.is_empty() {
            return Err(BuildError::invalid(field, "must not be empty"));
        }
        let set = MethodSet::parse(&entry.methods)
            .map_err(|error| BuildError::invalid(field, error.to_string()))?;
        methods.entry(entry.user.into()).or_insert(set);
    }
    Ok(methods)
}

impl Subject {
    /// As the configuration and the messages spell it.
    const fn name(self) -> &'static str {
        match self {
            Self::ConsumerName => "consumer_name",
            Self::ConsumerGroupId => "consumer_group_id",
            Self::ServiceId => "service_id",
            Self::RouteId => "route_id",
        }
    }

    /// What the request has of it.
    fn of<'r>(self, req: &'r RequestCtx<'_>) -> Option<&'r str> {
        let consumer = || Some(&req.state.consumer.as_ref()?.consumer);
        let route = || req.state.route.as_ref();
        match self {
            Self::ConsumerName => Some(&consumer()?.username),
            Self::ConsumerGroupId => match &consumer()?.group {
                GroupLink::Member(id) => Some(id),
                GroupLink::Alone | GroupLink::Missing(_) => None,
            },
            Self::ServiceId => route()?.service_id.as_deref(),
            Self::RouteId => Some(&route()?.id),
        }
    }
}

impl Access for ConsumerRestriction {
    fn access<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        let Some(name) = self.subject.of(req) else {
            return self.absent.clone().into();
        };
        if self.lets_in(name, req) {
            Step::CONTINUE
        } else {
            self.refusal.clone().into()
        }
    }
}

impl ConsumerRestriction {
    fn lets_in(&self, name: &str, req: &RequestCtx<'_>) -> bool {
        if self.blacklist.contains(name) {
            return false;
        }
        match &self.whitelist {
            Some(whitelist) => whitelist.contains(name),
            None => {
                let methods = self.methods.get(name);
                methods.is_none_or(|methods| methods.accepts(&req.head.method))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::consumer::Consumer;
    use crate::plugins::ctx::{Attached, RouteInfo};
    use crate::plugins::testing::{Exchange, body_text, built, refusal};

    /// What a consumer's request gets: its name, or `-` for none.
    fn answer(config: &Value, method: &str, name: &str) -> Option<(u16, String)> {
        let hooks = built(&DEF, config);
        let mut exchange = Exchange::new(method, "/");
        exchange.state.consumer = (name != "-").then(|| Attached {
            consumer: Arc::new(Consumer {
                username: name.into(),
                plugins: None,
                group: match name {
                    "member" => GroupLink::Member("g".into()),
                    _ => GroupLink::Alone,
                },
                labels: None,
            }),
            credential_id: None,
        });
        exchange.state.route = (name != "-").then(|| {
            Arc::new(RouteInfo {
                id: "r".into(),
                service_id: (name == "member").then(|| "s".into()),
                ..RouteInfo::default()
            })
        });
        let answer = exchange.access(&hooks)?;
        Some((answer.status, body_text(&answer).to_owned()))
    }

    fn message(status: u16, text: &str) -> Option<(u16, String)> {
        Some((status, format!("{{\"message\":\"{text}\"}}\n")))
    }

    #[test]
    fn the_blacklist_is_asked_first_and_methods_never_rescue() {
        let forbidden = message(403, "The consumer_name is forbidden.");
        let config = json!({
            "blacklist": ["bad", "both"], "whitelist": ["good", "both"],
            "allowed_by_methods": [{"user": "good", "methods": ["GET"]}, {"user": "else", "methods": ["GET"]}],
        });
        assert_eq!(
            answer(&config, "POST", "good"),
            None,
            "methods are not consulted"
        );
        assert_eq!(answer(&config, "GET", "both"), forbidden);
        assert_eq!(answer(&config, "GET", "bad"), forbidden);
        assert_eq!(answer(&config, "GET", "else"), forbidden);
        assert_eq!(answer(&config, "GET", "Good"), forbidden);
    }

    #[test]
    fn methods_bind_the_users_they_name() {
        let config = json!({"allowed_by_methods": [
            {"user": "reader", "methods": ["GET", "HEAD"]},
            {"user": "reader", "methods": ["POST"]},
        ]});
        assert_eq!(answer(&config, "GET", "reader"), None);
        let forbidden = message(403, "The consumer_name is forbidden.");
        assert_eq!(
            answer(&config, "POST", "reader"),
            forbidden,
            "the first entry counts"
        );
        assert_eq!(answer(&config, "LOCK", "reader"), forbidden);
        assert_eq!(answer(&config, "POST", "other"), None);
        let config = json!({"blacklist": ["bad"], "allowed_by_methods": [{"user": "bad", "methods": ["GET"]}]});
        assert_eq!(answer(&config, "GET", "bad"), forbidden);
    }

    #[test]
    fn each_type_has_its_value_and_its_messages() {
        for (subject, value) in [
            ("consumer_name", "member"),
            ("consumer_group_id", "g"),
            ("service_id", "s"),
            ("route_id", "r"),
        ] {
            let config = json!({"type": subject, "whitelist": [value]});
            assert_eq!(answer(&config, "GET", "member"), None, "{subject}");
            let absent =
                format!("The request is rejected, please check the {subject} for this request");
            assert_eq!(answer(&config, "GET", "-"), message(401, &absent));
            let config = json!({"type": subject, "blacklist": [value]});
            let forbidden = format!("The {subject} is forbidden.");
            assert_eq!(answer(&config, "GET", "member"), message(403, &forbidden));
        }
        let config = json!({"type": "consumer_group_id", "blacklist": ["g"]});
        assert_eq!(
            answer(&config, "GET", "alone").map(|found| found.0),
            Some(401)
        );
    }

    #[test]
    fn status_and_text_of_the_refusal_are_configurable() {
        let config =
            json!({"whitelist": ["x"], "rejected_code": 451, "rejected_msg": "no \"entry\""});
        assert_eq!(
            answer(&config, "GET", "y"),
            message(451, "no \\\"entry\\\"")
        );
    }

    #[test]
    fn wrong_configuration_names_the_field() {
        let none = ": at least one of blacklist, whitelist and allowed_by_methods is required";
        for (json, expected) in [
            (json!({}), none),
            (json!({"blacklist": []}), "blacklist: must not be empty"),
            (json!({"whitelist": []}), "whitelist: must not be empty"),
            (
                json!({"whitelist": ["a"], "rejected_code": 199}),
                "rejected_code: must be 200 to 599",
            ),
            (
                json!({"type": "hunter2", "whitelist": ["a"]}),
                "type: expected one of `consumer_name`, `consumer_group_id`, `service_id`, `route_id`",
            ),
            (
                json!({"allowed_by_methods": [{"user": "a", "methods": ["GET"]}, {"user": "b", "methods": []}]}),
                "allowed_by_methods[1].methods: must not be empty",
            ),
            (
                json!({"allowed_by_methods": [{"user": "a", "methods": ["get"]}]}),
                "allowed_by_methods[0].methods: expected one of GET POST PUT DELETE PATCH HEAD OPTIONS CONNECT TRACE PURGE, in capitals",
            ),
        ] {
            assert_eq!(refusal(&DEF, &json), expected);
        }
    }
}
