//! `ip-restriction`: lets clients through by address (`spec/02` §11).

use serde::Deserialize;

use crate::ip_set::IpSet;
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{Access, Hooks, Step};
use crate::plugins::respond::Response;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "ip-restriction",
    priority: 3000,
    kind: PluginKind::Ordinary,
    build: |json, ctx| build(&def::parse(json)?, ctx),
    credential: None,
};

#[derive(Deserialize)]
struct IpRestrictionConfig {
    /// Addresses and networks let through; all others are refused.
    whitelist: Option<Vec<String>>,
    /// Addresses and networks refused; all others are let through.
    blacklist: Option<Vec<String>>,
    /// Text of the refusal.
    #[serde(default = "default_message")]
    message: String,
    /// Status of the refusal: 403 or 404.
    #[serde(default = "default_code")]
    response_code: u16,
}

fn default_message() -> String {
    "Your IP address is not allowed".to_owned()
}

const fn default_code() -> u16 {
    403
}

struct IpRestriction {
    networks: IpSet,
    /// Whether the networks are the ones let through.
    allows: bool,
    refusal: Response,
}

fn build(config: &IpRestrictionConfig, _ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let (field, list, allows) = match (&config.whitelist, &config.blacklist) {
        (Some(list), None) => ("whitelist", list, true),
        (None, Some(list)) => ("blacklist", list, false),
        _ => {
            return Err(BuildError::invalid(
                "",
                "exactly one of whitelist and blacklist is required",
            ));
        }
    };
    if list.is_empty() {
        return Err(BuildError::invalid(field, "must not be empty"));
    }
    let networks = IpSet::parse(list).map_err(|error| {
        BuildError::invalid(format!("{field}[{}]", error.index), error.to_string())
    })?;
    if !(1..=1024).contains(&config.message.chars().count()) {
        return Err(BuildError::invalid(
            "message",
            "must have 1 to 1024 characters",
        ));
    }
    if !matches!(config.response_code, 403 | 404) {
        return Err(BuildError::invalid("response_code", "must be 403 or 404"));
    }
    let plugin = IpRestriction {
        networks,
        allows,
        refusal: Response::message(config.response_code, &config.message),
    };
    Ok(Hooks::of(plugin).access().done())
}

impl Access for IpRestriction {
    fn access<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        if self.networks.contains(req.client_ip()) == self.allows {
            Step::CONTINUE
        } else {
            self.refusal.clone().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Exchange, body_text, built, refusal};

    fn answer(config: &serde_json::Value, client: &str) -> Option<(u16, String)> {
        let hooks = built(&DEF, config);
        let mut exchange = Exchange::get("/");
        exchange.state.client = client.parse().expect("address is valid");
        let answer = exchange.access(&hooks)?;
        Some((answer.status, body_text(&answer).to_owned()))
    }

    #[test]
    fn lists_decide_by_client_address() {
        let refused = Some((
            403,
            "{\"message\":\"Your IP address is not allowed\"}\n".to_owned(),
        ));
        let allow = json!({"whitelist": ["10.0.0.0/8", "2001:db8::1"]});
        let deny = json!({"blacklist": ["10.0.0.0/8"]});
        for (config, client, expected) in [
            (&allow, "10.1.1.1:1", None),
            (&allow, "11.1.1.1:1", refused.clone()),
            (&allow, "[2001:db8::1]:1", None),
            (&allow, "[2001:db8::2]:1", refused.clone()),
            (&allow, "[::ffff:10.1.1.1]:1", None),
            (&deny, "10.1.1.1:1", refused.clone()),
            (&deny, "[::ffff:10.1.1.1]:1", refused.clone()),
            (&deny, "11.1.1.1:1", None),
        ] {
            assert_eq!(answer(config, client), expected, "{config} {client}");
        }
    }

    #[test]
    fn message_and_code_can_be_chosen() {
        let config =
            json!({"blacklist": ["0.0.0.0/0"], "message": "no \"way\"", "response_code": 404});
        let expected = (404, "{\"message\":\"no \\\"way\\\"\"}\n".to_owned());
        assert_eq!(answer(&config, "1.2.3.4:5"), Some(expected));
    }

    #[test]
    fn wrong_configuration_names_the_field() {
        let one = ": exactly one of whitelist and blacklist is required";
        let ip = "must be an IP address or a network in CIDR notation, such as 10.0.0.0/8";
        for (json, expected) in [
            (json!(null), one.to_owned()),
            (
                json!({"whitelist": ["::1"], "blacklist": ["::1"]}),
                one.to_owned(),
            ),
            (
                json!({"whitelist": []}),
                "whitelist: must not be empty".to_owned(),
            ),
            (
                json!({"blacklist": ["::1", "x"]}),
                format!("blacklist[1]: {ip}"),
            ),
            (
                json!({"whitelist": ["::1"], "message": ""}),
                "message: must have 1 to 1024 characters".to_owned(),
            ),
            (
                json!({"whitelist": ["::1"], "response_code": 500}),
                "response_code: must be 403 or 404".to_owned(),
            ),
            (
                json!({"whitelist": "::1"}),
                "whitelist: expected a sequence".to_owned(),
            ),
        ] {
            assert_eq!(refusal(&DEF, &json), expected);
        }
    }
}
