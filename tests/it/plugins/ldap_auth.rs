use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger::tls::dev::Authority;

use super::{assert_local, get, over};
use crate::harness::client::Reply;
use crate::harness::slapd::user;
use crate::harness::{Behaviour, Gateway, Slapd, Upstream, certs, wait_until};

const RESOURCES: &str = "
consumers:
  - { username: alice, labels: { custom_id: '42' }, plugins: { ldap-auth: { user_dn: 'cn=alice,ou=users,dc=test' } } }
  - { username: bob }
  - { id: bob/credentials/ldap, plugins: { ldap-auth: { user_dn: 'CN=bob, OU=users, DC=test' } } }
  - { username: comma, plugins: { ldap-auth: { user_dn: 'cn=comma\\2Cuser,ou=users,dc=test' } } }
  - { username: below, plugins: { ldap-auth: { user_dn: 'cn=below,cn=alice,ou=users,dc=test' } } }
routes:
  - { id: 1, uri: /plain, plugins: { ldap-auth: { base_dn: 'ou=users,dc=test', ldap_uri: 'LDAP' } }, NODE }
  - { id: 2, uri: /hidden, plugins: { ldap-auth: { base_dn: 'ou=users,dc=test', ldap_uri: 'LDAP', hide_credentials: true, realm: staff } }, NODE }
";

/// Users below `ou=users`, among them one below another and one whose name holds a comma.
fn entries() -> String {
    let mut text =
        "dn: ou=users,dc=test\nobjectClass: organizationalUnit\nou: users\n\n".to_owned();
    for (dn, cn) in [
        ("cn=alice", "alice"),
        ("cn=below,cn=alice", "below"),
        ("cn=bob", "bob"),
        ("cn=carol", "carol"),
        ("cn=comma\\,user", "comma,user"),
    ] {
        let dn = format!("{dn},ou=users,dc=test");
        text.push_str(&user(&dn, cn, cn, &format!("{cn}:pw ")));
    }
    text
}

fn setting(yaml: &str) -> (Slapd, Upstream, Gateway) {
    // LDIF ends values before their trailing spaces, so passwords with one are base64.
    let slapd = Slapd::start(&with_base64_passwords(&entries()));
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = over(&upstream, yaml).replace("LDAP", &slapd.addr());
    (slapd, upstream, Gateway::start(yaml))
}

fn with_base64_passwords(entries: &str) -> String {
    let mut text = String::new();
    for line in entries.lines() {
        match line.strip_prefix("userPassword: ") {
            Some(password) => {
                text.push_str(&format!("userPassword:: {}\n", STANDARD.encode(password)));
            }
            None => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn log_in(gateway: &Gateway, path: &str, user: &str, password: &str) -> Reply {
    get(gateway, path, &[("Authorization", &basic(user, password))])
}

fn refused(reply: &Reply, message: &str) {
    assert_local(reply, 401, &format!("{{\"message\":\"{message}\"}}\n"));
    let challenge = reply.header("www-authenticate");
    assert_eq!(challenge, Some("Basic realm=\"ldap\""));
}

fn failures(gateway: &Gateway, reason: &str) -> u64 {
    let name = format!("claviger_auth_failures_total{{plugin=\"ldap-auth\",reason=\"{reason}\"}} ");
    let page = gateway.metrics_page();
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(&*name));
    lines.next().map_or(0, |count| count.parse().unwrap())
}

#[test]
fn the_directory_says_whose_a_password_is() {
    let (_slapd, upstream, gateway) = setting(RESOURCES);
    for (path, user, consumer, credential, custom_id) in [
        ("/plain", "alice", "alice", None, Some("42")),
        ("/hidden", "bob", "bob", Some("ldap"), None),
        ("/plain", "comma,user", "comma", None, None),
    ] {
        let password = format!("{user}:pw ");
        let header = basic(user, &password);
        let forged = ("X-Credential-Identifier", "forged");
        let reply = get(&gateway, path, &[("Authorization", &header), forged]);
        assert_eq!(reply.status, 200, "{user}: {}", reply.text());
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.header("x-consumer-username"), Some(consumer));
        assert_eq!(seen.header("x-credential-identifier"), credential);
        assert_eq!(seen.header("x-consumer-custom-id"), custom_id);
        let kept = (path == "/plain").then_some(&*header);
        assert_eq!(seen.header("authorization"), kept);
    }
}

#[test]
fn refusals_are_exact() {
    let (_slapd, upstream, gateway) = setting(RESOURCES);
    refused(
        &get(&gateway, "/plain", &[]),
        "Missing authorization in request",
    );
    let malformed = "Invalid authorization in request";
    for header in [
        "Bearer x",
        "Basic",
        "Basic !",
        &basic("alice", ""),
        &basic("", "x"),
    ] {
        refused(
            &get(&gateway, "/plain", &[("Authorization", header)]),
            malformed,
        );
    }
    let invalid = "Invalid user authorization";
    for (user, password) in [
        ("alice", "wrong"),
        ("alice", "alice"),
        ("alice", "alice:pw"),
        ("nobody", "alice:pw "),
        // Right, and none of our consumers.
        ("carol", "carol:pw "),
        // The same entry to the directory, and another name.
        ("ALICE", "alice:pw "),
    ] {
        refused(&log_in(&gateway, "/plain", user, password), invalid);
    }
    let reply = get(&gateway, "/hidden", &[]);
    let challenge = reply.header("www-authenticate");
    assert_eq!(challenge, Some("Basic realm=\"staff\""));
    assert_eq!(upstream.count(), 0, "nothing refused reaches the upstream");
    for (reason, count) in [
        ("missing", 2),
        ("malformed", 5),
        ("mismatch", 4),
        ("unknown", 2),
    ] {
        wait_until(&format!("{count} failures for {reason}"), || {
            failures(&gateway, reason) == count
        });
    }
}

#[test]
fn a_user_name_is_never_syntax() {
    let (_slapd, upstream, gateway) = setting(RESOURCES);
    let below = "below:pw ";
    // Put in as it is, the first would name the entry below alice's, whose password this is.
    for user in [
        "below,cn=alice",
        "below,CN=alice",
        "alice+uid=alice",
        "alice,ou=users,dc=test",
        "*",
        "alice)(cn=*",
        "#alice",
        " alice",
        "alice ",
        "\"alice\"",
        "alice\\",
        "alice\\2Cou=users",
    ] {
        for password in [below, "alice:pw "] {
            let reply = log_in(&gateway, "/plain", user, password);
            refused(&reply, "Invalid user authorization");
        }
    }
    let nul = log_in(&gateway, "/plain", "alice\0", "alice:pw ");
    refused(&nul, "Invalid authorization in request");
    assert_eq!(upstream.count(), 0, "nothing refused reaches the upstream");
}

#[test]
fn without_any_consumer_the_answer_says_so() {
    let alone = "
routes:
  - { id: 1, uri: /plain, plugins: { ldap-auth: { base_dn: 'ou=users,dc=test', ldap_uri: 'LDAP' } }, NODE }
";
    let (_slapd, _upstream, gateway) = setting(alone);
    refused(
        &log_in(&gateway, "/plain", "alice", "alice:pw "),
        "Missing related consumer",
    );
    refused(
        &log_in(&gateway, "/plain", "alice", "wrong"),
        "Invalid user authorization",
    );
}

#[test]
fn a_directory_may_go_and_come_back() {
    let (mut slapd, _upstream, gateway) = setting(RESOURCES);
    let status = || log_in(&gateway, "/plain", "alice", "alice:pw ").status;
    assert_eq!(status(), 200);
    slapd.stop();
    let reply = log_in(&gateway, "/plain", "alice", "alice:pw ");
    refused(&reply, "Invalid user authorization");
    wait_until("it counts as an outage", || {
        failures(&gateway, "unavailable") == 1
    });
    wait_until("the log says so", || {
        gateway.log().contains("the directory cannot be reached")
    });
    slapd.restart();
    assert_eq!(status(), 200, "the first request after it is back succeeds");
    // Its connections end while nobody looks.
    slapd.restart();
    assert_eq!(
        status(),
        200,
        "a kept connection that has ended costs nothing"
    );
    let log = gateway.log();
    assert!(
        log.contains("answers again"),
        "the log says that it is back"
    );
    assert!(
        !log.contains("alice:pw") && !log.contains("cn=alice"),
        "and names nobody"
    );
}

#[test]
fn a_certificate_is_verified_where_asked() {
    let authority = Authority::new().unwrap();
    let certificate = certs::server(&authority, &["localhost"]);
    let slapd = Slapd::start_tls(&with_base64_passwords(&entries()), &certificate);
    let upstream = Upstream::start(Behaviour::ok());
    let mut yaml = RESOURCES.split("routes:").next().unwrap().to_owned() + "routes:\n";
    for (id, host, more) in [
        ("good", "localhost", "tls_verify: true"),
        ("name", "127.0.0.1", "tls_verify: true"),
        ("any", "127.0.0.1", "tls_verify: false"),
    ] {
        let port = slapd.tls_port();
        yaml.push_str(&format!(
            "  - {{ id: {id}, uri: /{id}, plugins: {{ ldap-auth: {{ base_dn: 'ou=users,dc=test', \
             ldap_uri: '{host}:{port}', use_tls: true, {more} }} }}, NODE }}\n"
        ));
    }
    let yaml = over(&upstream, &yaml);
    let other = Authority::named("another").unwrap();
    for (trusted, good) in [(&authority, 200), (&other, 401)] {
        let builder = Gateway::builder()
            .file("ca.pem", trusted.cert_pem().unwrap())
            .bootstrap("apisix: { ssl: { ssl_trusted_certificate: ca.pem } }");
        let gateway = builder.resources(&*yaml).start();
        let status = |path: &str| log_in(&gateway, path, "alice", "alice:pw ").status;
        assert_eq!(status("/good"), good);
        assert_eq!(status("/name"), 401, "the certificate is for another name");
        assert_eq!(status("/any"), 200);
        assert!(
            gateway.log().contains("certificate is not verified"),
            "it is warned of"
        );
    }
    // Nor the system's authorities, where nothing is said.
    let gateway = Gateway::start(yaml);
    assert_eq!(log_in(&gateway, "/good", "alice", "alice:pw ").status, 401);
}

#[test]
fn a_name_out_of_a_reference_follows_its_rotation() {
    let secrets = tempfile::tempdir().unwrap();
    let put = |name: &str, value: &str| {
        let path = secrets.path().join(name);
        std::fs::write(path.with_extension("tmp"), value).unwrap();
        std::fs::rename(path.with_extension("tmp"), path).unwrap();
    };
    put("alice", "cn=alice,ou=users,dc=test");
    let yaml = format!(
        "
secrets:
  - {{ id: file/main, path: {}, ttl: 1, neg_ttl: 1 }}
consumers:
  - {{ username: anna, plugins: {{ ldap-auth: {{ user_dn: $secret://file/main/alice }} }} }}
  - {{ username: lost, plugins: {{ ldap-auth: {{ user_dn: $secret://file/main/absent }} }} }}
routes:
  - {{ id: 1, uri: /plain, plugins: {{ ldap-auth: {{ base_dn: 'ou=users,dc=test', ldap_uri: 'LDAP' }} }}, NODE }}
  - {{ id: 2, uri: /lost, plugins: {{ ldap-auth: {{ base_dn: $secret://file/main/base, ldap_uri: 'LDAP' }} }}, NODE }}
",
        secrets.path().display()
    );
    let slapd = Slapd::start(&with_base64_passwords(&entries()));
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = over(&upstream, &yaml).replace("LDAP", &slapd.addr());
    let gateway = Gateway::builder().resources(yaml).unready().start();
    let status =
        |path: &str, user: &str| log_in(&gateway, path, user, &format!("{user}:pw ")).status;
    wait_until("alice is anna", || status("/plain", "alice") == 200);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("x-consumer-username"), Some("anna"));
    assert_eq!(status("/plain", "bob"), 401);
    assert_eq!(
        status("/lost", "alice"),
        503,
        "a route without its values refuses"
    );
    let text = log_in(&gateway, "/plain", "$secret://file/main/alice", "x");
    assert_eq!(text.status, 401);

    put("alice", "CN=bob,OU=users,DC=test");
    wait_until("bob is anna", || status("/plain", "bob") == 200);
    assert_eq!(status("/plain", "alice"), 401, "and alice is not any more");
    put("alice", "bob");
    wait_until("a value that is no name is nobody's", || {
        status("/plain", "bob") == 401
    });
    put("base", "ou=users,dc=test");
    put("alice", "cn=bob,ou=users,dc=test");
    wait_until("the route has its value", || status("/lost", "bob") == 200);
}
