//! The main job, end to end, in its smallest form.

use crate::harness::certs;
use crate::harness::{Behaviour, Connection, Gateway, Upstream, wait_until};
use claviger::tls::dev::Authority;

fn resources(upstream: &Upstream) -> String {
    let node = upstream.addr;
    format!(
        r#"
consumers:
  - username: alice
    plugins: {{ key-auth: {{ key: open-sesame }} }}
routes:
  - id: open
    host: open.test
    uri: /*
    plugins: {{ prometheus: {{}} }}
    upstream: {{ type: roundrobin, nodes: {{ "{node}": 1 }} }}
  - id: guarded
    host: guarded.test
    uri: /*
    plugins: {{ key-auth: {{}}, prometheus: {{}} }}
    upstream: {{ type: roundrobin, nodes: {{ "{node}": 1 }} }}
"#
    )
}

#[test]
fn a_request_reaches_its_upstream() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(&upstream));
    let reply = gateway.get("open.test", "/a?b=c", &[("X-One", "1")]);
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    let seen = upstream.requests().remove(0);
    assert_eq!(seen.start, "GET /a?b=c HTTP/1.1");
    assert_eq!(seen.header("host"), Some("open.test"));
    assert_eq!(seen.header("x-one"), Some("1"));
}

#[test]
fn an_unknown_host_gets_404() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(&upstream));
    let reply = gateway.get("other.test", "/", &[]);
    assert_eq!(reply.status, 404);
    assert_eq!(
        reply.text().trim(),
        r#"{"error_msg":"404 Route Not Found"}"#
    );
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_key_opens_what_is_closed_without_it() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(&upstream));
    let without = gateway.get("guarded.test", "/", &[]);
    assert_eq!(without.status, 401);
    assert!(without.text().contains("Missing API key in request"));
    assert_eq!(
        without.header("www-authenticate"),
        Some(r#"apikey realm="key""#)
    );
    let wrong = gateway.get("guarded.test", "/", &[("apikey", "guess")]);
    assert_eq!(wrong.status, 401);
    assert!(wrong.text().contains("Invalid API key in request"));
    assert_eq!(
        upstream.count(),
        0,
        "nothing refused may reach the upstream"
    );
    let right = gateway.get("guarded.test", "/", &[("apikey", "open-sesame")]);
    assert_eq!(right.status, 200);
    let seen = upstream.requests().remove(0);
    assert_eq!(seen.header("x-consumer-username"), Some("alice"));
}

#[test]
fn requests_are_counted() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(&upstream));
    gateway.get("open.test", "/", &[]);
    gateway.get("guarded.test", "/", &[]);
    wait_until("both requests are on the metrics page", || {
        let page = gateway.metrics_page();
        let counted = |code: &str, route: &str| {
            page.lines().any(|line| {
                line.starts_with("apisix_http_status{")
                    && line.contains(&format!("code=\"{code}\""))
                    && line.contains(&format!("route=\"{route}\""))
                    && line.ends_with(" 1")
            })
        };
        counted("200", "open") && counted("401", "guarded")
    });
}

#[test]
fn a_changed_file_is_live_without_a_restart() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(&upstream));
    assert_eq!(gateway.get("new.test", "/", &[]).status, 404);
    gateway.write_resources(&resources(&upstream).replace("open.test", "new.test"));
    wait_until("the new host is served", || {
        gateway.get("new.test", "/", &[]).status == 200
    });
    assert_eq!(gateway.get("open.test", "/", &[]).status, 404);
}

#[test]
fn a_broken_file_changes_nothing() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(&upstream));
    gateway.write_resources("routes:\n  - id: [unclosed\n");
    wait_until("the refusal is counted", || {
        gateway
            .metrics_page()
            .lines()
            .any(|line| line.starts_with("claviger_config_reloads_total{result=\"rejected\"}"))
    });
    assert_eq!(gateway.get("open.test", "/", &[]).status, 200);
}

#[test]
fn tls_is_chosen_by_name_and_an_unknown_name_gets_no_certificate() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let issued = certs::server(&authority, &["open.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .file("secrets/tls.crt", &issued.cert_pem)
        .file("secrets/tls.key", certs::key_text(&issued));
    let folder = builder.dir().join("secrets");
    let ssl = format!(
        r#"
secrets:
  - id: file/main
    path: {}
ssls:
  - id: open
    sni: open.test
    cert: $secret://file/main/tls.crt
    key: $secret://file/main/tls.key
"#,
        folder.display()
    );
    let gateway = builder.resources(ssl + &resources(&upstream)).start();
    let mut connection = Connection::open_tls(gateway.https(), "open.test", &ca)
        .expect("the name has a certificate");
    connection.request("GET", "/", &[("Host", "open.test")]);
    assert_eq!(connection.expect_reply().status, 200);
    let refusal = Connection::open_tls(gateway.https(), "other.test", &ca);
    assert!(refusal.is_err(), "no default certificate may be sent");
}

#[test]
fn a_route_is_chosen_by_a_field_of_the_body_which_still_goes_upstream() {
    let upstream = Upstream::start(Behaviour::ok());
    let node = upstream.addr;
    let to = format!("upstream: {{ nodes: {{ \"{node}\": 1 }} }}");
    let gateway = Gateway::start(format!(
        "routes:\n\
         - {{id: form, uri: /, vars: [[post_arg_tier, '==', gold]], plugins: {{proxy-rewrite: {{headers: {{X-Seen: form}}}}}}, {to}}}\n\
         - {{id: json, uri: /, vars: [['post_arg.user.tier', '==', gold]], plugins: {{proxy-rewrite: {{headers: {{X-Seen: json}}}}}}, {to}}}\n\
         - {{id: rest, uri: /*, plugins: {{proxy-rewrite: {{headers: {{X-Seen: rest}}}}}}, {to}}}\n"
    ));
    let form = "application/x-www-form-urlencoded";
    let json = "application/json";
    let large = format!("tier=gold&pad={}", "x".repeat(70_000));
    for (media_type, expect, body, seen) in [
        (form, "", "a=b&tier=gold", "form"),
        (form, "Expect: 100-continue\r\n", "tier=gold", "form"),
        (form, "", "tier=silver", "rest"),
        (json, "", r#"{"user": {"tier": "gold"}}"#, "json"),
        (json, "", "{broken", "rest"),
        // Not read ahead, and passed on whole.
        (form, "", large.as_str(), "rest"),
    ] {
        upstream.forget();
        let mut connection = Connection::open(gateway.http());
        let length = body.len();
        connection.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {media_type}\r\n{expect}Content-Length: {length}\r\n\r\n"
        ));
        if !expect.is_empty() {
            assert_eq!(connection.expect_reply().status, 100);
        }
        connection.send(body);
        assert_eq!(connection.expect_reply().status, 200, "{body:.40}");
        let request = upstream.requests().remove(0);
        assert_eq!(request.header("x-seen"), Some(seen), "{body:.40}");
        assert_eq!(request.body, body.as_bytes(), "{body:.40}");
    }
}

#[test]
fn a_name_of_redact_args_is_masked_on_every_route() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .resources(resources(&upstream))
        .bootstrap("claviger: { log: { redact_args: [ticket] } }")
        .start();
    gateway.get("open.test", "/a?ticket=planted-1&b=c", &[]);
    gateway.get("none.test", "/d?ticket=planted-2", &[]);
    let log = gateway.dir().join("logs/access.log");
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("both lines are written", || read().lines().count() == 2);
    assert!(read().contains("b=c"), "{}", read());
    assert!(!read().contains("planted"), "{}", read());
}
