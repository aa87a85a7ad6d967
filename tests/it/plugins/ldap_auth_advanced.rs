use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger::tls::dev::Authority;

use super::{assert_local, get, over};
use crate::harness::client::Reply;
use crate::harness::slapd::{SERVICE, SERVICE_PASSWORDS, user};
use crate::harness::{Behaviour, Gateway, Pipe, Slapd, Upstream, certs, wait_until};

/// Two users of one `uid`, besides others.
fn entries() -> String {
    let units = ["users", "guests"].map(|unit| {
        format!("dn: ou={unit},dc=test\nobjectClass: organizationalUnit\nou: {unit}\n\n")
    });
    let users = [
        ("Alice Lee,ou=users", "Alice Lee", "alice"),
        ("Bob,ou=users", "Bob", "bob"),
        ("Star,ou=users", "Star", "*"),
        ("Twin,ou=users", "Twin", "twin"),
        ("Twin,ou=guests", "Twin", "twin"),
    ];
    let users =
        users.map(|(dn, cn, uid)| user(&format!("cn={dn},dc=test"), cn, uid, &format!("{uid}-pw")));
    units.concat() + &users.concat()
}

/// A route with the plugin; `more` are further fields.
fn route(path: &str, ldap_uri: &str, more: &str) -> String {
    format!(
        "  - {{ id: {path}, uri: /{path}, plugins: {{ ldap-auth-advanced: {{ base_dn: dc=test, \
         attribute: uid, ldap_uri: '{ldap_uri}'{more} }} }}, NODE }}\n"
    )
}

const CONSUMERS: &str = "
consumers:
  - { username: alice, plugins: { ldap-auth-advanced: { user_dn: 'CN=Alice Lee, ou=users, dc=test' } } }
  - { username: star, plugins: { ldap-auth-advanced: { user_dn: 'cn=Star,ou=users,dc=test' } } }
routes:
";

fn service() -> String {
    let [one, _] = SERVICE_PASSWORDS;
    format!(", bind_dn: '{SERVICE}', ldap_password: {one}")
}

fn start(routes: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(over(&upstream, &(CONSUMERS.to_owned() + routes)));
    (upstream, gateway)
}

fn header(user: &str, password: &str) -> String {
    format!("ldap {}", STANDARD.encode(format!("{user}:{password}")))
}

fn log_in(gateway: &Gateway, path: &str, user: &str, password: &str) -> Reply {
    get(gateway, path, &[("Authorization", &header(user, password))])
}

fn refused(reply: &Reply) {
    assert_local(reply, 401, "{\"message\":\"Authorization required\"}\n");
    let challenge = reply.header("www-authenticate");
    assert_eq!(challenge, Some("ldap realm=\"ldap\""));
}

fn outage(reply: &Reply) {
    assert_eq!(reply.status, 500);
    assert_eq!(reply.header("www-authenticate"), None);
}

#[test]
fn users_are_searched_and_bound() {
    let slapd = Slapd::start(&entries());
    let (addr, service) = (slapd.addr(), service());
    let routes = route("plain", &addr, &service)
        + &route(
            "any",
            &addr,
            &format!("{service}, consumer_required: false"),
        )
        + &route(
            "basic",
            &addr,
            &format!("{service}, header_type: basic, hide_credentials: true"),
        )
        + &route("nobody", &addr, "");
    let (upstream, gateway) = start(&routes);
    let reply = log_in(&gateway, "/plain", "alice", "alice-pw");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("x-consumer-username"), Some("alice"));
    assert!(seen.header("authorization").is_some());
    // Bob is in the directory and none of our consumers.
    refused(&log_in(&gateway, "/plain", "bob", "bob-pw"));
    let bob = header("bob", "bob-pw");
    let forged = [("Authorization", &*bob), ("X-Consumer-Username", "root")];
    assert_eq!(get(&gateway, "/any", &forged).status, 200);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(
        seen.header("x-consumer-username"),
        None,
        "nobody vouches for it"
    );

    let basic = header("alice", "alice-pw").replace("ldap", "basic");
    assert_eq!(
        get(&gateway, "/basic", &[("Authorization", &basic)]).status,
        200
    );
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("authorization"), None);
    let reply = get(&gateway, "/basic", &[]);
    assert_eq!(
        reply.header("www-authenticate"),
        Some("Basic realm=\"ldap\"")
    );

    let proxy = header("alice", "alice-pw");
    let both = [
        ("Proxy-Authorization", &*proxy),
        ("Authorization", "Bearer x"),
    ];
    assert_eq!(get(&gateway, "/plain", &both).status, 200);
    let wrong = header("alice", "x");
    let both = [("Proxy-Authorization", &*wrong), ("Authorization", &*proxy)];
    refused(&get(&gateway, "/plain", &both));
    // This directory lets nobody search without a name: it finds no one.
    assert_ne!(log_in(&gateway, "/nobody", "alice", "alice-pw").status, 200);
}

#[test]
fn wrong_and_ambiguous_users_are_refused() {
    let slapd = Slapd::start(&entries());
    let (upstream, gateway) = start(&route("plain", &slapd.addr(), &service()));
    refused(&get(&gateway, "/plain", &[]));
    for (user, password) in [
        ("alice", "wrong"),
        ("alice", ""),
        ("", "alice-pw"),
        ("nobody", "alice-pw"),
        // Two entries have this name.
        ("twin", "twin-pw"),
        // Not syntax of a filter.
        ("ali*", "alice-pw"),
        ("alice)(uid=*", "alice-pw"),
        ("alice\\2a", "alice-pw"),
        (")(", "alice-pw"),
        ("*", "alice-pw"),
    ] {
        refused(&log_in(&gateway, "/plain", user, password));
    }
    assert_eq!(upstream.count(), 0, "nothing refused reaches the upstream");
    let reply = log_in(&gateway, "/plain", "*", "*-pw");
    assert_eq!(reply.status, 200, "a star is a name like another");
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("x-consumer-username"), Some("star"));
}

#[test]
fn an_outage_is_no_refusal() {
    let mut slapd = Slapd::start(&entries());
    let pipe = Pipe::start(&slapd.addr());
    let wrong = format!(", bind_dn: '{SERVICE}', ldap_password: wrong");
    let routes = route(
        "plain",
        &pipe.addr.to_string(),
        &(service() + ", timeout: 300"),
    ) + &route("wrong", &slapd.addr(), &wrong)
        + &route("base", &slapd.addr(), &service()).replace("base_dn: dc=test", "base_dn: dc=none");
    let (_upstream, gateway) = start(&routes);
    let ask = || log_in(&gateway, "/plain", "alice", "alice-pw");
    assert_eq!(ask().status, 200);
    outage(&log_in(&gateway, "/wrong", "alice", "alice-pw"));
    outage(&log_in(&gateway, "/base", "alice", "alice-pw"));

    pipe.hold(true);
    let asked = Instant::now();
    outage(&ask());
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "it is waited for as long as configured"
    );
    pipe.hold(false);
    assert_eq!(
        ask().status,
        200,
        "an answer that comes late is no other question's"
    );
    pipe.cut();
    assert_eq!(
        ask().status,
        200,
        "connections that have ended are replaced"
    );
    slapd.stop();
    outage(&ask());
    slapd.restart();
    assert_eq!(ask().status, 200);
    let counted = "{plugin=\"ldap-auth-advanced\",reason=\"unavailable\"} 4";
    wait_until("outages are counted", || {
        gateway.metrics_page().contains(counted)
    });
    let log = gateway.log();
    for hidden in [SERVICE_PASSWORDS[0], "alice-pw", "Alice Lee"] {
        assert!(
            !log.contains(hidden),
            "the log names neither users nor passwords"
        );
    }
}

#[test]
fn connections_are_kept_and_never_search_as_a_user() {
    let slapd = Slapd::start(&entries());
    let (kept, closed) = (Pipe::start(&slapd.addr()), Pipe::start(&slapd.addr()));
    let routes = route("kept", &kept.addr.to_string(), &service())
        + &route(
            "closed",
            &closed.addr.to_string(),
            &(service() + ", keepalive: false"),
        );
    let (_upstream, gateway) = start(&routes);
    for _ in 0..5 {
        // A user may not search: a search under alice's name would find no one.
        assert_eq!(log_in(&gateway, "/kept", "alice", "alice-pw").status, 200);
        refused(&log_in(&gateway, "/kept", "alice", "wrong"));
        assert_eq!(log_in(&gateway, "/closed", "alice", "alice-pw").status, 200);
    }
    assert_eq!(kept.connections(), 2, "one to search, one to bind");
    assert_eq!(closed.connections(), 10);
}

#[test]
fn many_at_once_each_get_their_own_answer() {
    let slapd = Slapd::start(&entries());
    let (_upstream, gateway) = start(&route("plain", &slapd.addr(), &service()));
    std::thread::scope(|scope| {
        for number in 0..8 {
            let gateway = &gateway;
            scope.spawn(move || {
                for round in 0..10 {
                    let good = (number + round) % 2 == 0;
                    let password = if good { "alice-pw" } else { "wrong" };
                    let status = log_in(gateway, "/plain", "alice", password).status;
                    assert_eq!(status, if good { 200 } else { 401 });
                }
            });
        }
    });
}

#[test]
fn tls_is_verified_unless_told_otherwise() {
    let authority = Authority::new().unwrap();
    let certificate = certs::server(&authority, &["localhost"]);
    let slapd = Slapd::start_tls(&entries(), &certificate);
    let mut routes = String::new();
    for (kind, port, field) in [
        ("ldaps", slapd.tls_port(), "use_ldaps"),
        ("starttls", slapd.port(), "use_starttls"),
    ] {
        let more = format!("{}, {field}: true", service());
        let any = format!("{more}, ssl_verify: false");
        routes += &route(&format!("{kind}-good"), &format!("localhost:{port}"), &more);
        routes += &route(&format!("{kind}-name"), &format!("127.0.0.1:{port}"), &more);
        routes += &route(&format!("{kind}-any"), &format!("127.0.0.1:{port}"), &any);
    }
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = over(&upstream, &(CONSUMERS.to_owned() + &routes));
    let other = Authority::named("another").unwrap();
    for (trusted, good) in [(&authority, 200), (&other, 500)] {
        let builder = Gateway::builder()
            .file("ca.pem", trusted.cert_pem().unwrap())
            .bootstrap("apisix: { ssl: { ssl_trusted_certificate: ca.pem } }");
        let gateway = builder.resources(&*yaml).start();
        for kind in ["ldaps", "starttls"] {
            let status =
                |end: &str| log_in(&gateway, &format!("/{kind}-{end}"), "alice", "alice-pw").status;
            assert_eq!(status("good"), good, "{kind}");
            assert_eq!(
                status("name"),
                500,
                "{kind}: the certificate is for another name"
            );
            assert_eq!(status("any"), 200, "{kind}");
        }
        assert!(
            gateway.log().contains("certificate is not verified"),
            "it is warned of"
        );
    }
    // A directory that does not offer StartTLS is not asked in the clear.
    let plain = Slapd::start(&entries());
    let more = service() + ", use_starttls: true, ssl_verify: false";
    let (_upstream, gateway) = start(&route("plain", &plain.addr(), &more));
    outage(&log_in(&gateway, "/plain", "alice", "alice-pw"));
}

#[test]
fn the_search_s_password_follows_its_rotation() {
    let secrets = tempfile::tempdir().unwrap();
    let put = |name: &str, value: &str| {
        let path = secrets.path().join(name);
        std::fs::write(path.with_extension("tmp"), value).unwrap();
        std::fs::rename(path.with_extension("tmp"), path).unwrap();
    };
    let slapd = Slapd::start(&entries());
    let [one, two] = SERVICE_PASSWORDS;
    put("password", one);
    put("name", "cn=Alice Lee,ou=users,dc=test");
    let more = format!(", bind_dn: '{SERVICE}', ldap_password: $secret://file/main/password");
    let absent = format!(", bind_dn: '{SERVICE}', ldap_password: $secret://file/main/absent");
    let yaml = format!(
        "secrets:\n  - {{ id: file/main, path: {}, ttl: 1, neg_ttl: 1 }}\nconsumers:\n  \
         - {{ username: anna, plugins: {{ ldap-auth-advanced: {{ user_dn: $secret://file/main/name }} }} }}\n\
         routes:\n{}{}",
        secrets.path().display(),
        route("plain", &slapd.addr(), &more),
        route("absent", &slapd.addr(), &absent),
    );
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .resources(over(&upstream, &yaml))
        .unready()
        .start();
    let status = |path: &str| log_in(&gateway, path, "alice", "alice-pw").status;
    wait_until("the values are there", || status("/plain") == 200);
    assert_eq!(status("/absent"), 503, "a route without its values refuses");
    put("password", two);
    put("absent", two);
    wait_until("the other route has its value", || {
        // Both passwords are good, so that no request fails meanwhile.
        assert_eq!(status("/plain"), 200);
        status("/absent") == 200
    });
    put("password", "wrong");
    wait_until("a wrong password is used as it is", || {
        status("/plain") == 500
    });
    put("password", "");
    put("absent", one);
    wait_until(
        "an empty value is none, and the last good one serves",
        || status("/absent") == 200,
    );
    put("password", two);
    wait_until("the right one is used again", || status("/plain") == 200);
    put("name", "cn=Bob,ou=users,dc=test");
    wait_until("alice is not anna any more", || status("/plain") == 401);
}
