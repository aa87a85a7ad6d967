//! Fields that hold references into OpenBao: rotated while requests run, and failing closed once
//! there is no value. What a plugin does with its values is told beside the plugin.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::csrf::{apisix_token, now};
use super::{get, over, send};
use crate::harness::casdoor::{CLIENT_ID, Casdoor};
use crate::harness::slapd::{SERVICE, SERVICE_PASSWORDS, user};
use crate::harness::wolf::Wolf;
use crate::harness::{Behaviour, Gateway, OpenBao, Service, Slapd, Upstream, said, wait_until};

const FIELDS: [&str; 6] = ["user_dn", "password", "appid", "header", "client", "csrf"];
const RESOURCES: &str = "
secrets:
  - { id: vault/main, uri: 'BAO', prefix: secret/edge, token: 'TOKEN', ttl: 1, neg_ttl: 1 }
consumers:
  - { username: anna, plugins: { ldap-auth: { user_dn: $secret://vault/main/user_dn/v } } }
  - { username: alice, plugins: { ldap-auth-advanced: { user_dn: 'cn=alice,ou=users,dc=test' } } }
  - { username: shop, plugins: { wolf-rbac: { appid: $secret://vault/main/appid/v, server: 'WOLF' } } }
routes:
  - { id: ldap, uri: /ldap, plugins: { ldap-auth: { base_dn: 'ou=users,dc=test', ldap_uri: 'LDAP' } }, NODE }
  - id: search
    uri: /search
    plugins:
      ldap-auth-advanced: { base_dn: dc=test, ldap_uri: 'LDAP', header_type: basic, bind_dn: 'SERVICE', ldap_password: $secret://vault/main/password/v }
    NODE
  - { id: wolf, uri: /shop/*, plugins: { wolf-rbac: {} }, NODE }
  - { id: forward, uri: /forward, plugins: { forward-auth: { uri: 'http://AUTH/', extra_headers: { X-Key: $secret://vault/main/header/v } } }, NODE }
  - { id: door, uri: /door/*, plugins: { authz-casdoor: { endpoint_addr: 'http://DOOR', client_id: CLIENT, client_secret: $secret://vault/main/client/v, callback_url: 'http://a.test/door/back' } }, NODE }
  - { id: csrf, uri: /csrf, plugins: { csrf: { key: $secret://vault/main/csrf/v } }, NODE }
";

/// Everything the plugins ask, and the gateway before it.
struct Setting {
    bao: OpenBao,
    _slapd: Slapd,
    wolf: Wolf,
    casdoor: Casdoor,
    auth: Service,
    upstream: Upstream,
    gateway: Gateway,
}

impl Setting {
    async fn start() -> Self {
        let bao = OpenBao::start().await;
        for (field, value) in [
            ("user_dn", "cn=alice,ou=users,dc=test"),
            ("password", SERVICE_PASSWORDS[0]),
            ("appid", "shop"),
            ("header", "first-header"),
            ("client", "the-first-client-secret-of-forty-letters"),
            ("csrf", "first-key"),
        ] {
            bao.put_v2(&format!("edge/{field}"), json!({"v": value}))
                .await;
        }
        let unit = "dn: ou=users,dc=test\nobjectClass: organizationalUnit\nou: users\n\n";
        let people = ["alice", "bob"].map(|name| {
            user(
                &format!("cn={name},ou=users,dc=test"),
                name,
                name,
                &format!("{name}-pw"),
            )
        });
        let slapd = Slapd::start(&(unit.to_owned() + &people.concat()));
        let wolf = Wolf::start(&[]);
        let casdoor = Casdoor::start("the-first-client-secret-of-forty-letters");
        let auth = Service::start(|_| said(200, &[], ""));
        let upstream = Upstream::start(Behaviour::ok());
        let yaml = over(&upstream, RESOURCES)
            .replace("BAO", &bao.addr)
            .replace("TOKEN", &bao.token)
            .replace("LDAP", &slapd.addr())
            .replace("SERVICE", SERVICE)
            .replace("WOLF", &wolf.uri())
            .replace("AUTH", &auth.addr.to_string())
            .replace("DOOR", &casdoor.addr().to_string())
            .replace("CLIENT", CLIENT_ID);
        let gateway = Gateway::builder().resources(yaml).unready().start();
        Self {
            bao,
            _slapd: slapd,
            wolf,
            casdoor,
            auth,
            upstream,
            gateway,
        }
    }

    async fn put(&self, field: &str, value: &str) {
        let path = format!("edge/{field}");
        self.bao.put_v2(&path, json!({"v": value})).await;
    }

    fn log_in(&self, path: &str, user: &str, password: &str) -> u16 {
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        get(&self.gateway, path, &[("Authorization", &basic)]).status
    }

    fn bearing(&self, appid: &str, token: &str) -> u16 {
        let token = format!("V1#{appid}#{token}");
        get(&self.gateway, "/shop/a", &[("x-rbac-token", &token)]).status
    }

    /// The header that the server was sent, where it was asked.
    fn forwarded(&self) -> (u16, Option<String>) {
        self.auth.take();
        let status = get(&self.gateway, "/forward", &[]).status;
        let asked = self.auth.take().pop();
        let header = asked.and_then(|asked| asked.header("x-key").map(str::to_owned));
        (status, header)
    }

    fn signed(&self, key: &str) -> u16 {
        let token = apisix_token(key, now());
        let cookie = format!("apisix-csrf-token={token}");
        let headers = [("apisix-csrf-token", &*token), ("Cookie", &*cookie)];
        send(&self.gateway, "POST", "/csrf", &headers).status
    }

    fn at_the_door(&self, cookie: &str) -> (u16, String, String) {
        self.by_door("/door/page", cookie)
    }

    /// Status, cookie and way of an answer.
    fn by_door(&self, path: &str, cookie: &str) -> (u16, String, String) {
        let reply = get(&self.gateway, path, &[("Cookie", cookie)]);
        let of = |name| reply.header(name).unwrap_or_default().to_owned();
        let cookie = of("set-cookie")
            .split(';')
            .next()
            .unwrap_or_default()
            .to_owned();
        (reply.status, cookie, of("location"))
    }

    /// Logs in at Casdoor; the session's cookie.
    fn session(&self) -> String {
        let (_, login, away) = self.at_the_door("");
        let code = self.casdoor.log_in(&away);
        let code = percent_encoding::utf8_percent_encode(&code, percent_encoding::NON_ALPHANUMERIC);
        let state = away.split("state=").nth(1).unwrap();
        let state = state.split('&').next().unwrap();
        let back = format!("/door/back?code={code}&state={state}");
        let (status, session, _) = self.by_door(&back, &login);
        assert_eq!(status, 302, "{:?}", self.casdoor.complaints());
        session
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn references_rotate_and_fail_closed_out_of_openbao() {
    let all = Setting::start().await;
    let token = all.wolf.token("ann");
    wait_until("all values are there", || {
        all.log_in("/ldap", "alice", "alice-pw") == 200
            && all.log_in("/search", "alice", "alice-pw") == 200
            && all.bearing("shop", &token) == 200
            && all.forwarded() == (200, Some("first-header".to_owned()))
            && all.at_the_door("").0 == 302
            && all.signed("first-key") == 200
    });
    let session = all.session();
    assert_eq!(all.at_the_door(&session).0, 200);

    // Each follows its rotation, and what held before holds no more.
    let second = "the-second-client-secret-of-forty-letter";
    all.casdoor.set_secret(second);
    for (field, value) in [
        ("user_dn", "cn=bob,ou=users,dc=test"),
        ("password", "wrong"),
        ("appid", "unknown-to-wolf"),
        ("header", "second-header"),
        ("client", second),
        ("csrf", "second-key"),
    ] {
        all.put(field, value).await;
    }
    wait_until("all new values are in force", || {
        all.log_in("/ldap", "bob", "bob-pw") == 200
            && all.log_in("/search", "alice", "alice-pw") == 500
            && all.bearing("shop", &token) == 401
            && all.forwarded() == (200, Some("second-header".to_owned()))
            && all.at_the_door(&session).0 == 302
            && all.signed("second-key") == 200
    });
    assert_eq!(all.log_in("/ldap", "alice", "alice-pw"), 401);
    assert_eq!(all.signed("first-key"), 401);
    let session = all.session();
    assert_eq!(all.at_the_door(&session).0, 200);
    all.put("password", SERVICE_PASSWORDS[1]).await;
    all.put("appid", "shop").await;
    wait_until("right values are used again", || {
        all.log_in("/search", "alice", "alice-pw") == 200 && all.bearing("shop", &token) == 200
    });

    for field in FIELDS {
        let path = format!("edge/{field}");
        all.bao.put_v2(&path, json!({"other": "x"})).await;
    }
    wait_until("without values all refuse", || {
        all.log_in("/ldap", "bob", "bob-pw") == 401
            && all.log_in("/search", "alice", "alice-pw") == 503
            && all.bearing("shop", &token) == 401
            && all.forwarded() == (503, None)
            && all.at_the_door(&session).0 == 503
            && all.signed("second-key") == 503
    });
    let text = |field: &str| format!("$secret://vault/main/{field}/v");
    all.upstream.forget();
    assert_eq!(all.bearing(&text("appid"), &token), 401);
    assert_eq!(all.log_in("/ldap", &text("user_dn"), "x"), 401);
    assert_eq!(all.signed(&text("csrf")), 503);
    assert_eq!(all.by_door("/door/back?code=c&state=s", &session).0, 503);
    assert_eq!(all.upstream.count(), 0);

    // And they come back.
    all.put("user_dn", "cn=alice,ou=users,dc=test").await;
    all.put("csrf", "third-key").await;
    wait_until("values that return are used", || {
        all.log_in("/ldap", "alice", "alice-pw") == 200 && all.signed("third-key") == 200
    });
}
