//! `ldap-auth-advanced`: the directory is searched for the client's entry, and says whether the
//! password is its (`spec/02` §7). A directory that does not answer is a 500, never a 401.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderName, header};
use serde::Deserialize;

use super::basic::Presented;
use super::ldap;
use super::scheme::{Auth, Failure, Scheme, Trial, Verdict, challenge, refusal};
use crate::ldap::{Directory, Keepalive, LdapError, Lookup, Security, Service, Settings};
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, CredentialDef, PluginDef, PluginKind};
use crate::plugins::phase::Hooks;
use crate::plugins::respond::Response;
use crate::secrets::Secret;
use crate::telemetry::metrics::AuthFailure;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: NAME,
    priority: 2541,
    kind: PluginKind::Auth,
    build: |json, ctx| build(def::parse(json)?, ctx),
    credential: Some(CredentialDef {
        lookup_field: "user_dn",
        build: |json, ctx| ldap::credential(def::parse(json)?, ctx),
    }),
};

const NAME: &str = "ldap-auth-advanced";

/// Route side.
#[derive(Deserialize)]
#[serde(default)]
struct AdvancedConfig {
    /// The directory, `host[:port]`; the port is 389, or 636 with `use_ldaps`.
    ldap_uri: Option<String>,
    /// Name of the entry below which users are searched.
    base_dn: Option<String>,
    /// Speak TLS from the first byte.
    use_ldaps: bool,
    /// Ask for TLS once connected.
    use_starttls: bool,
    /// Whether the directory must prove that it is the one.
    ssl_verify: bool,
    /// Milliseconds for all that is asked for one request.
    timeout: u64,
    /// Keep connections for later requests.
    keepalive: bool,
    /// Milliseconds after which an unused one is closed.
    keepalive_timeout: u64,
    /// How many are kept, of those that search and of those that check passwords.
    keepalive_pool_size: usize,
    /// Attribute that holds the client's name.
    attribute: String,
    /// Name the search runs under; absent, it runs under none.
    bind_dn: Option<String>,
    /// Its password.
    ldap_password: Option<String>,
    /// Entries a search may return.
    size_limit: u32,
    /// Seconds it may take; 0 leaves that to the directory.
    time_limit: u32,
    /// Refuse users that are no consumers.
    consumer_required: bool,
    /// Scheme of the credential header.
    header_type: HeaderType,
    /// Take the credential out of the request before it goes upstream.
    hide_credentials: bool,
    /// Realm of the challenge.
    realm: String,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum HeaderType {
    Ldap,
    Basic,
}

impl HeaderType {
    const fn scheme(self) -> &'static str {
        match self {
            Self::Ldap => "ldap",
            Self::Basic => "Basic",
        }
    }
}

impl Default for AdvancedConfig {
    fn default() -> Self {
        Self {
            ldap_uri: None,
            base_dn: None,
            use_ldaps: false,
            use_starttls: false,
            ssl_verify: true,
            timeout: 10_000,
            keepalive: true,
            keepalive_timeout: 60_000,
            keepalive_pool_size: 5,
            attribute: "cn".to_owned(),
            bind_dn: None,
            ldap_password: None,
            size_limit: 2,
            time_limit: 5,
            consumer_required: true,
            header_type: HeaderType::Ldap,
            hide_credentials: false,
            realm: "ldap".to_owned(),
        }
    }
}

struct Advanced {
    directory: Directory,
    lookup: Lookup,
    scheme: &'static str,
    consumer_required: bool,
    hide_credentials: bool,
    refused: Response,
    outage: Response,
}

fn build(config: AdvancedConfig, ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    check_ranges(&config)?;
    let required = |field: &str| BuildError::invalid(field, "is required");
    let ldap_uri = config.ldap_uri.ok_or_else(|| required("ldap_uri"))?;
    let base_dn = config.base_dn.ok_or_else(|| required("base_dn"))?;
    let default_port = if config.use_ldaps { 636 } else { 389 };
    let (host, port) = ldap::address(&ldap_uri, default_port)?;
    ldap::name("base_dn", &base_dn)?;
    ldap::attribute("attribute", &config.attribute)?;
    let security = match (config.use_ldaps, config.use_starttls) {
        (false, false) => Security::Plain,
        (true, false) => Security::Tls(ldap::tls(config.ssl_verify, ctx)?),
        (false, true) => Security::StartTls(ldap::tls(config.ssl_verify, ctx)?),
        (true, true) => {
            let message = "use_ldaps and use_starttls are mutually exclusive";
            return Err(BuildError::invalid("use_starttls", message));
        }
    };
    let unverified = !matches!(security, Security::Plain) && !config.ssl_verify;
    let keepalive = Keepalive {
        connections: config.keepalive_pool_size,
        idle: Duration::from_millis(config.keepalive_timeout),
    };
    let settings = Settings {
        host,
        port,
        security,
        timeout: Duration::from_millis(config.timeout),
        keepalive: config.keepalive.then_some(keepalive),
    };
    let lookup = Lookup {
        base: base_dn,
        attribute: config.attribute,
        size_limit: config.size_limit,
        time_limit_secs: config.time_limit,
        service: service(config.bind_dn, config.ldap_password)?,
    };
    let challenge = challenge(config.header_type.scheme(), &config.realm)?;
    let plugin = Advanced {
        directory: Directory::new(settings, Arc::clone(ctx.clock)),
        lookup,
        scheme: config.header_type.scheme(),
        consumer_required: config.consumer_required,
        hide_credentials: config.hide_credentials,
        refused: refusal("Authorization required", &challenge),
        outage: Response::status(500),
    };
    let hooks = Auth::hooks(NAME, plugin, &challenge, None, ctx)?;
    let hooks = if unverified {
        hooks.warns("ssl_verify", ldap::UNVERIFIED)
    } else {
        hooks
    };
    Ok(hooks.done())
}

fn check_ranges(config: &AdvancedConfig) -> Result<(), BuildError> {
    let checks = [
        (
            "timeout",
            (1..=60_000).contains(&config.timeout),
            "must be 1 to 60000",
        ),
        (
            "keepalive_timeout",
            config.keepalive_timeout >= 1000,
            "must be 1000 or more",
        ),
        (
            "keepalive_pool_size",
            config.keepalive_pool_size >= 1,
            "must be 1 or more",
        ),
        ("size_limit", config.size_limit >= 2, "must be 2 or more"),
    ];
    match checks.into_iter().find(|(_, holds, _)| !holds) {
        Some((field, _, message)) => Err(BuildError::invalid(field, message)),
        None => Ok(()),
    }
}

/// Who searches. A name without a password would search as nobody while it looks like somebody
/// (RFC 4513 §5.1.2).
fn service(name: Option<String>, password: Option<String>) -> Result<Option<Service>, BuildError> {
    let password = password.map(Secret::from);
    let Some(name) = name else {
        return Ok(None);
    };
    ldap::name("bind_dn", &name)?;
    if name.trim().is_empty() {
        return Err(BuildError::invalid("bind_dn", "must not be empty"));
    }
    match password {
        Some(password) if !password.is_empty() => Ok(Some(Service { name, password })),
        Some(_) => Err(BuildError::invalid("ldap_password", "must not be empty")),
        None => {
            let message = "ldap_password is required when bind_dn is set";
            Err(BuildError::invalid("ldap_password", message))
        }
    }
}

impl Scheme for Advanced {
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
            let place = place(req);
            drop(req.head.remove_header(&place));
        }
    }
}

impl Advanced {
    fn presented(&self, req: &RequestCtx<'_>) -> Result<Presented, Failure<'_>> {
        let presented = Presented::of(&req.head.headers, &place(req), self.scheme);
        presented.map_err(|reason| Failure::ready(reason, &self.refused))
    }

    async fn asked<'a>(&'a self, req: &mut RequestCtx<'_>) -> Verdict<'a> {
        let login = self.presented(req)?;
        let unknown = || Failure::ready(AuthFailure::Unknown, &self.refused);
        // A directory's names are text (RFC 4511 §4.1.2).
        let user = std::str::from_utf8(login.username()).map_err(|_| unknown())?;
        let asked = self
            .directory
            .find_and_verify(&self.lookup, user, login.password());
        let user_dn = asked.await.map_err(|error| self.failure(&error))?;
        if !self.consumer_required {
            return Ok(None);
        }
        let attached = ldap::consumer(NAME, req, &user_dn);
        attached.map(Some).ok_or_else(unknown)
    }

    fn failure(&self, error: &LdapError) -> Failure<'_> {
        let refused = |reason| Failure::ready(reason, &self.refused);
        match error {
            LdapError::NoSuchUser | LdapError::Ambiguous => refused(AuthFailure::Unknown),
            error if error.is_refusal() => refused(AuthFailure::Mismatch),
            _ => Failure::ready(AuthFailure::Unavailable, &self.outage),
        }
    }
}

/// The header that counts.
fn place(req: &RequestCtx<'_>) -> HeaderName {
    match req.header(&header::PROXY_AUTHORIZATION) {
        Some(_) => header::PROXY_AUTHORIZATION,
        None => header::AUTHORIZATION,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Exchange, answered, body_text, built, refusal};

    /// Nothing listens there.
    const NOWHERE: &str = "127.0.0.1:1";

    #[test]
    fn credentials_come_from_the_proxy_header_first() {
        let hooks = built(&DEF, &json!({"base_dn": "dc=test", "ldap_uri": NOWHERE}));
        let basic = json!({"base_dn": "dc=test", "ldap_uri": NOWHERE, "header_type": "basic"});
        let basic = built(&DEF, &basic);
        let required = "{\"message\":\"Authorization required\"}\n";
        let (ldap, as_basic) = ("ldap realm=\"ldap\"", "Basic realm=\"ldap\"");
        let get = || Exchange::get("/");
        // 500 shows that the directory was asked, which is not there.
        for (mut exchange, hooks, status, challenge) in [
            (get(), &hooks, 401, Some(ldap)),
            (get(), &basic, 401, Some(as_basic)),
            (
                get().header("Authorization", "Basic YTpi"),
                &hooks,
                401,
                Some(ldap),
            ),
            (
                get().header("Authorization", "ldap YTpi"),
                &basic,
                401,
                Some(as_basic),
            ),
            (
                get().header("Authorization", "ldap YTo="),
                &hooks,
                401,
                Some(ldap),
            ),
            (
                get().header("Authorization", "ldap YTpi"),
                &hooks,
                500,
                None,
            ),
            (
                get().header("Authorization", "LDAP YTpi"),
                &hooks,
                500,
                None,
            ),
            (
                get().header("Authorization", "basic YTpi"),
                &basic,
                500,
                None,
            ),
            (
                get().header("Proxy-Authorization", "ldap YTpi"),
                &hooks,
                500,
                None,
            ),
            (
                get()
                    .header("Proxy-Authorization", "x")
                    .header("Authorization", "ldap YTpi"),
                &hooks,
                401,
                Some(ldap),
            ),
        ] {
            let answer = exchange.rewrite(hooks).expect("request is refused");
            assert_eq!(answer.status, status);
            assert_eq!(answered(&answer, "www-authenticate"), challenge);
            let body = if status == 401 { required } else { "" };
            assert_eq!(body_text(&answer), body);
        }
    }

    #[test]
    fn a_wrong_configuration_is_refused_by_field() {
        for (more, expected) in [
            (
                json!({"use_ldaps": true, "use_starttls": true}),
                "use_starttls: use_ldaps and use_starttls are mutually exclusive",
            ),
            (json!({"timeout": 0}), "timeout: must be 1 to 60000"),
            (json!({"timeout": 60001}), "timeout: must be 1 to 60000"),
            (
                json!({"keepalive_timeout": 999}),
                "keepalive_timeout: must be 1000 or more",
            ),
            (
                json!({"keepalive_pool_size": 0}),
                "keepalive_pool_size: must be 1 or more",
            ),
            (json!({"size_limit": 1}), "size_limit: must be 2 or more"),
            (json!({"ldap_uri": null}), "ldap_uri: is required"),
            (json!({"base_dn": null}), "base_dn: is required"),
            (
                json!({"ssl_verify": "no"}),
                "ssl_verify: expected a boolean",
            ),
            (
                json!({"attribute": "cn)(uid"}),
                "attribute: must be an attribute's name, such as uid",
            ),
            (
                json!({"bind_dn": "cn=a,dc=t"}),
                "ldap_password: ldap_password is required when bind_dn is set",
            ),
            (
                json!({"bind_dn": "cn=a,dc=t", "ldap_password": ""}),
                "ldap_password: must not be empty",
            ),
            (
                json!({"bind_dn": "", "ldap_password": "x"}),
                "bind_dn: must not be empty",
            ),
        ] {
            let mut json = json!({"base_dn": "dc=test", "ldap_uri": NOWHERE});
            for (field, value) in more.as_object().expect("case is an object") {
                json[field] = value.clone();
            }
            assert_eq!(refusal(&DEF, &json), expected);
        }
    }
}
