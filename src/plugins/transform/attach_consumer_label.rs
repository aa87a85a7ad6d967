//! `attach-consumer-label`: tells the upstream labels of the authenticated consumer
//! (`spec/02` §12). What a client sends under these names never passes.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::http::lookalike;
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{BeforeProxy, Hooks};

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "attach-consumer-label",
    priority: 2399,
    kind: PluginKind::Ordinary,
    build: |json, ctx| build(&def::parse(json)?, ctx),
    credential: None,
};

#[derive(Deserialize)]
struct AttachConsumerLabelConfig {
    /// Header → `$label`.
    headers: Map<String, Value>,
}

struct AttachConsumerLabel {
    headers: Box<[Attachment]>,
}

struct Attachment {
    name: HeaderName,
    /// The name as configured, for HTTP/1.
    case: Bytes,
    label: Box<str>,
}

fn build(config: &AttachConsumerLabelConfig, _ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    if config.headers.is_empty() {
        return Err(BuildError::invalid("headers", "must not be empty"));
    }
    let headers = config.headers.iter().map(|(name, label)| {
        let field = format!("headers.{name}");
        let label = label.as_str().and_then(|label| label.strip_prefix('$'));
        let Some(label) = label else {
            let message = "must be '$' and the name of a label";
            return Err(BuildError::invalid(field, message));
        };
        Ok(Attachment {
            name: HeaderName::try_from(name)
                .map_err(|_| BuildError::invalid(field, "must be a header name"))?,
            case: name.clone().into(),
            label: label.into(),
        })
    });
    let headers = headers.collect::<Result<_, _>>()?;
    Ok(Hooks::of(AttachConsumerLabel { headers })
        .before_proxy()
        .done())
}

impl BeforeProxy for AttachConsumerLabel {
    fn before_proxy(&self, req: &mut RequestCtx<'_>) {
        lookalike::remove(
            req.head,
            self.headers.iter().map(|header| header.name.as_str()),
        );
        let consumer = req.state.consumer.as_ref();
        let labels = consumer.and_then(|attached| attached.consumer.labels.as_deref());
        for header in &self.headers {
            let label = labels.and_then(|labels| labels.get(&*header.label));
            let value = label.and_then(|label| HeaderValue::from_bytes(label.as_bytes()).ok());
            match value {
                // The name was checked at load, so this cannot fail.
                Some(value) => drop(req.head.insert_header(header.case.clone(), value)),
                None => drop(req.head.remove_header(&header.name)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::consumer::{Consumer, GroupLink};
    use crate::plugins::ctx::Attached;
    use crate::plugins::testing::{Exchange, built, refusal};

    fn with_labels(mut exchange: Exchange, labels: &[(&str, &str)]) -> Exchange {
        let labels = labels.iter().map(|(name, value)| {
            let (name, value): (&str, &str) = (name, value);
            (name.to_owned(), value.to_owned())
        });
        exchange.state.consumer = Some(Attached {
            consumer: Arc::new(Consumer {
                username: "alice".into(),
                plugins: None,
                group: GroupLink::Alone,
                labels: Some(Arc::new(labels.collect())),
            }),
            credential_id: None,
        });
        exchange
    }

    #[test]
    fn labels_replace_what_the_client_sent() {
        let hooks = built(
            &DEF,
            &json!({"headers": {"X-Team": "$team", "X-Role": "$role", "X-Odd": "$odd", "X-Name": "$name"}}),
        );
        let mut exchange = with_labels(
            Exchange::get("/"),
            &[("team", "blue"), ("odd", "a\nb"), ("name", "J\u{fc}rgen")],
        )
        .header("x-team", "forged")
        .header("X-TEAM", "twice")
        .header("X_Team", "cgi")
        .header("X-Role", "admin")
        .header("X-Odd", "forged")
        .header("X-Kept", "1");
        let hook = hooks.before_proxy.clone().expect("plugin has the phase");
        hook.before_proxy(&mut exchange.ctx());
        assert_eq!(exchange.values("x-team"), ["blue"]);
        assert!(exchange.values("x_team").is_empty());
        assert!(
            exchange.values("x-role").is_empty(),
            "there is no such label"
        );
        assert!(
            exchange.values("x-odd").is_empty(),
            "it fits into no header"
        );
        let name = exchange
            .head
            .headers
            .get("x-name")
            .map(HeaderValue::as_bytes);
        assert_eq!(name, Some("J\u{fc}rgen".as_bytes()));
        assert_eq!(exchange.values("x-kept"), ["1"]);
    }

    #[test]
    fn without_a_consumer_the_clients_copies_go() {
        let hooks = built(&DEF, &json!({"headers": {"X-Team": "$team"}}));
        let mut exchange = Exchange::get("/").header("X-Team", "forged");
        let hook = hooks.before_proxy.clone().expect("plugin has the phase");
        hook.before_proxy(&mut exchange.ctx());
        assert!(exchange.values("x-team").is_empty());
    }

    #[test]
    fn wrong_configuration_names_the_field() {
        for (json, expected) in [
            (json!({}), ": missing field `headers`"),
            (json!({"headers": {}}), "headers: must not be empty"),
            (
                json!({"headers": {"X-Team": "team"}}),
                "headers.X-Team: must be '$' and the name of a label",
            ),
            (
                json!({"headers": {"X-Team": 5}}),
                "headers.X-Team: must be '$' and the name of a label",
            ),
            (
                json!({"headers": {"X Team": "$team"}}),
                "headers.X Team: must be a header name",
            ),
        ] {
            assert_eq!(refusal(&DEF, &json), expected);
        }
    }
}
