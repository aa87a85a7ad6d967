//! `public-api`: what a plugin offers to clients itself, such as logging in, answered on this
//! route (`spec/03` §8). Knows no such offer; [`crate::plugins::APIS`] lists them.

use serde::Deserialize;

use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{Access, Flow, Hooks, Step};
use crate::plugins::respond::Response;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "public-api",
    priority: 501,
    kind: PluginKind::Ordinary,
    build: |json, _| build(def::parse(json)?),
    credential: None,
};

#[derive(Deserialize)]
struct PublicApiConfig {
    /// Path of the offer; absent, the request's own.
    uri: Option<String>,
}

struct PublicApi {
    uri: Option<Box<str>>,
}

fn build(config: PublicApiConfig) -> Result<Hooks, BuildError> {
    if config.uri.as_deref() == Some("") {
        return Err(BuildError::invalid("uri", "must not be empty"));
    }
    let uri = config.uri.map(Into::into);
    let hooks = Hooks::of(PublicApi { uri }).access().reads_body();
    let credentials = crate::plugins::APIS.iter().flat_map(|offer| offer.redacts);
    let hooks = hooks.redacts(credentials.copied());
    Ok(hooks.done())
}

impl Access for PublicApi {
    fn access<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        let uri = self.uri.as_deref().unwrap_or_else(|| req.received().path);
        let mut offers = crate::plugins::APIS.iter();
        let offer = offers.find(|offer| offer.uri == uri && offer.method == req.head.method);
        match offer {
            None => Response::status(404).into(),
            Some(offer) => Step::Wait(Box::pin(
                async move { Flow::from((offer.serve)(req).await) },
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Exchange, body_text, built, refusal};

    const LOGIN: &str = "/apisix/plugin/wolf-rbac/login";

    #[test]
    fn an_offer_is_found_by_path_and_method() {
        let own = built(&DEF, &json!({}));
        let named = built(
            &DEF,
            &json!({ "uri": "/apisix/plugin/wolf-rbac/user_info" }),
        );
        let missing = "{\"message\":\"Missing rbac token in request\"}\n";
        let mut rewritten = Exchange::get("/apisix/plugin/wolf-rbac/user_info");
        rewritten.ctx().set_target("/x").expect("target is valid");
        let answer = rewritten.access(&own).expect("it answers");
        assert_eq!(answer.status, 401, "the path is the client's");
        for (method, path, hooks, status, body) in [
            (
                "GET",
                "/apisix/plugin/wolf-rbac/user_info",
                &own,
                401,
                missing,
            ),
            ("GET", "/anything", &named, 401, missing),
            ("POST", "/anything", &named, 404, ""),
            ("GET", LOGIN, &own, 404, ""),
            ("GET", "/anything", &own, 404, ""),
        ] {
            let answer = Exchange::new(method, path)
                .access(hooks)
                .expect("it answers");
            assert_eq!(
                (answer.status, body_text(&answer)),
                (status, body),
                "{path}"
            );
        }
    }

    /// A token in the query stood in the access log of such routes.
    #[test]
    fn credentials_of_offers_are_masked() {
        let hooks = built(&DEF, &json!({}));
        for name in ["rbac_token", "x-rbac-token"] {
            assert!(hooks.redacted().contains(&name.into()), "{name}");
        }
    }

    #[test]
    fn a_wrong_uri_is_refused() {
        assert_eq!(refusal(&DEF, &json!({"uri": ""})), "uri: must not be empty");
        assert_eq!(refusal(&DEF, &json!({"uri": 1})), "uri: expected a string");
    }
}
