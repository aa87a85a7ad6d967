//! `ldap-auth`: the client's name becomes a distinguished name, and the directory says whether the
//! password is its (`spec/02` §7). Passwords are neither kept nor compared here.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::header;
use serde::Deserialize;

use super::basic::Presented;
use super::ldap;
use super::scheme::{Auth, Failure, Scheme, Trial, Verdict, challenge, refusal};
use crate::ldap::{Directory, Keepalive, LdapError, Security, Settings, escape_value};
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, CredentialDef, PluginDef, PluginKind};
use crate::plugins::phase::Hooks;
use crate::plugins::respond::Response;
use crate::telemetry::metrics::AuthFailure;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: NAME,
    priority: 2540,
    kind: PluginKind::Auth,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: Some(CredentialDef {
        lookup_field: "user_dn",
        build: |json, ctx| ldap::credential(def::parse(json)?, ctx),
    }),
};

const NAME: &str = "ldap-auth";
/// APISIX's, which are not configurable.
const TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE: Keepalive = Keepalive {
    connections: 5,
    idle: Duration::from_secs(60),
};

/// Route side.
#[derive(Deserialize)]
struct LdapAuthConfig {
    /// Name of the entry below which users stand.
    base_dn: String,
    /// The directory, `host[:389]`.
    ldap_uri: String,
    /// Speak TLS from the first byte.
    #[serde(default)]
    use_tls: bool,
    /// Whether the directory must prove that it is the one.
    #[serde(default)]
    tls_verify: bool,
    /// Attribute that the client's name is put into.
    #[serde(default = "cn")]
    uid: String,
    /// Take the credential out of the request before it goes upstream.
    #[serde(default)]
    hide_credentials: bool,
    /// Realm of the challenge.
    #[serde(default = "realm")]
    realm: String,
}

fn cn() -> String {
    "cn".to_owned()
}

fn realm() -> String {
    "ldap".to_owned()
}

struct LdapAuth {
    directory: Directory,
    /// `<uid>=`.
    before: String,
    /// `,<base_dn>`, or nothing.
    after: String,
    hide_credentials: bool,
    missing: Response,
    malformed: Response,
    refused: Response,
    no_consumer: Response,
}

fn build(config: LdapAuthConfig, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let default_port = if config.use_tls { 636 } else { 389 };
    let (host, port) = ldap::address(&config.ldap_uri, default_port)?;
    ldap::name("base_dn", &config.base_dn)?;
    ldap::attribute("uid", &config.uid)?;
    let security = if config.use_tls {
        Security::Tls(ldap::tls(config.tls_verify, ctx)?)
    } else {
        Security::Plain
    };
    let settings = Settings {
        host,
        port,
        security,
        timeout: TIMEOUT,
        keepalive: Some(KEEPALIVE),
    };
    let challenge = challenge("Basic", &config.realm)?;
    let comma = if config.base_dn.trim().is_empty() {
        ""
    } else {
        ","
    };
    let plugin = LdapAuth {
        directory: Directory::new(settings, Arc::clone(ctx.clock)),
        before: config.uid + "=",
        after: [comma, &config.base_dn].concat(),
        hide_credentials: config.hide_credentials,
        missing: refusal("Missing authorization in request", &challenge),
        malformed: refusal("Invalid authorization in request", &challenge),
        refused: refusal("Invalid user authorization", &challenge),
        no_consumer: refusal("Missing related consumer", &challenge),
    };
    let hooks = Auth::hooks(NAME, plugin, &challenge, None, ctx)?;
    let hooks = if config.use_tls && !config.tls_verify {
        hooks.warns("tls_verify", ldap::UNVERIFIED)
    } else {
        hooks
    };
    Ok(hooks.done())
}

impl Scheme for LdapAuth {
    fn authenticate(&self, req: &mut RequestCtx<'_>) -> Trial<'_> {
        Trial::wait_for(self.presented(req))
    }

    fn wait<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> BoxFuture<'a, Verdict<'static>> {
        Box::pin(async move {
            let verdict = self.asked(req).await;
            if verdict.is_ok() {
                self.hide(req);
            }
            verdict.map_err(Failure::into_owned)
        })
    }

    fn hide(&self, req: &mut RequestCtx<'_>) {
        if self.hide_credentials {
            drop(req.head.remove_header("authorization"));
        }
    }
}

impl LdapAuth {
    fn presented(&self, req: &RequestCtx<'_>) -> Result<Presented, Failure<'_>> {
        let presented = Presented::of(&req.head.headers, &header::AUTHORIZATION, "Basic");
        presented.map_err(|reason| {
            let answer = match reason {
                AuthFailure::Missing => &self.missing,
                _ => &self.malformed,
            };
            Failure::ready(reason, answer)
        })
    }

    async fn asked<'a>(&'a self, req: &mut RequestCtx<'_>) -> Verdict<'a> {
        let login = self.presented(req)?;
        let refused = |reason| Failure::ready(reason, &self.refused);
        // A directory's names are text (RFC 4511 §4.1.2).
        let user =
            std::str::from_utf8(login.username()).map_err(|_| refused(AuthFailure::Unknown))?;
        let user_dn = [&self.before, &*escape_value(user), &self.after].concat();
        let answer = self.directory.verify(&user_dn, login.password()).await;
        answer.map_err(|error| refused(reason(&error)))?;
        if let Some(attached) = ldap::consumer(NAME, req, &user_dn) {
            return Ok(Some(attached));
        }
        let answer = if req.state.consumers.has_any(NAME) {
            &self.refused
        } else {
            &self.no_consumer
        };
        Err(Failure::ready(AuthFailure::Unknown, answer))
    }
}

/// The client is told the same whatever the reason is, as by APISIX.
fn reason(error: &LdapError) -> AuthFailure {
    if error.is_refusal() {
        AuthFailure::Mismatch
    } else {
        AuthFailure::Unavailable
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{self, Exchange, answered, body_text, build, built, refusal};

    /// Nothing listens there.
    const NOWHERE: &str = "127.0.0.1:1";

    #[test]
    fn what_is_no_login_is_refused_without_the_directory() {
        let hooks = built(
            &DEF,
            &json!({"base_dn": "dc=test", "ldap_uri": NOWHERE, "realm": "r"}),
        );
        let missing = "Missing authorization in request";
        let invalid = "Invalid authorization in request";
        for (header, message) in [
            (None, missing),
            (Some("Bearer YTpi"), invalid),
            (Some("Basic YWI="), invalid),
            (Some("Basic YTo="), invalid),
            (Some("Basic /zpi"), "Invalid user authorization"),
            (Some("Basic YTpi"), "Invalid user authorization"),
        ] {
            let exchange = Exchange::get("/");
            let mut exchange = match header {
                Some(value) => exchange.header("Authorization", value),
                None => exchange,
            };
            let answer = exchange.rewrite(&hooks).expect("request is refused");
            assert_eq!(answer.status, 401);
            assert_eq!(
                body_text(&answer),
                format!("{{\"message\":\"{message}\"}}\n")
            );
            assert_eq!(
                answered(&answer, "www-authenticate"),
                Some("Basic realm=\"r\"")
            );
        }
    }

    #[test]
    fn a_wrong_configuration_is_refused_by_field() {
        let name = "must be a distinguished name, such as cn=user,dc=example,dc=org";
        let attribute = "must be an attribute's name, such as uid";
        for (field, value, message) in [
            ("ldap_uri", json!("ldap://x"), "must be host or host:port"),
            ("base_dn", json!("test"), name),
            ("uid", json!("cn=a,cn"), attribute),
            ("uid", json!(""), attribute),
            ("use_tls", json!("yes"), "expected a boolean"),
        ] {
            let mut json = json!({"base_dn": "dc=test", "ldap_uri": NOWHERE});
            json[field] = value;
            assert_eq!(refusal(&DEF, &json), format!("{field}: {message}"));
        }
        assert!(build(&DEF, &json!({"base_dn": "dc=test"})).is_err());
        assert!(build(&DEF, &json!({"ldap_uri": NOWHERE})).is_err());
    }

    #[test]
    fn a_directory_that_need_not_prove_itself_is_warned_of() {
        let warned = |json: serde_json::Value| {
            let hooks = built(&DEF, &json);
            hooks.warnings().len()
        };
        let base = json!({"base_dn": "dc=test", "ldap_uri": NOWHERE});
        let with = |more: &[(&str, bool)]| {
            let mut json = base.clone();
            for (field, value) in more {
                json[*field] = json!(value);
            }
            json
        };
        assert_eq!(warned(with(&[])), 0);
        assert_eq!(warned(with(&[("use_tls", true)])), 1);
        assert_eq!(warned(with(&[("use_tls", true), ("tls_verify", true)])), 0);
    }

    #[test]
    fn a_credential_is_found_by_its_name_however_written() {
        let key = |user_dn: &str| {
            let side = testing::credential(&DEF, &json!({"user_dn": user_dn}));
            side.map(|side| side.lookup_key.expose().to_vec())
        };
        assert_eq!(key("CN=a, dc=t"), key("cn=a,dc=t"));
        assert_ne!(key("cn=A,dc=t"), key("cn=a,dc=t"));
        for user_dn in ["", "a", "$secret://vault/1/a/b", "cn=a,"] {
            let error = key(user_dn).expect_err("credential is refused");
            assert_eq!(error.field, "user_dn");
        }
    }
}
