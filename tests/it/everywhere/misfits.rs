//! Values that break the rules of the field they are for: they refuse like literals, alone, and
//! the rule is told, never the value.

use std::fmt::Write as _;

use claviger::tls::dev::Authority;
use serde_json::json;

use crate::harness::{Behaviour, Connection, Gateway, Upstream, certs, wait_until};

/// In every value below, in one case or the other.
const MARK: &str = "zqxmark";

/// A plugin's settings with `@` for a reference, the value behind it, and part of the rule.
const PLUGINS: &[(&str, &str, &str, &str)] = &[
    (
        "request-id",
        "header_name: '@'",
        "bad zqxmark",
        "must be a header name",
    ),
    ("forward-auth", "uri: '@'", "zqxmark", "expected http(s)://"),
    (
        "forward-auth",
        "uri: 'http://a', request_method: '@'",
        "zqxmark",
        "must be GET or POST",
    ),
    (
        "forward-auth",
        "uri: 'http://a', extra_headers: { X-A: '@' }",
        "a\nzqxmark",
        "must be a header value",
    ),
    (
        "forward-auth",
        "uri: 'http://a', upstream_headers: ['@']",
        "bad zqxmark",
        "must be a header name",
    ),
    (
        "authz-casdoor",
        "endpoint_addr: '@', client_id: a, client_secret: b, callback_url: 'http://a/b'",
        "zqxmark",
        "expected http(s)://",
    ),
    (
        "authz-casdoor",
        "endpoint_addr: 'http://a', client_id: a, client_secret: b, callback_url: '@'",
        "http://zqxmark",
        "must have a path",
    ),
    ("request-id", "algorithm: '@'", "zqxmark", "expected one of"),
    (
        "request-id",
        "algorithm: range_id, range_id: { char_set: '@' }",
        "zqxmark é",
        "printable ASCII",
    ),
    (
        "request-id",
        "algorithm: range_id, range_id: { char_set: '@' }",
        "zqx",
        "at least 6",
    ),
    (
        "mocking",
        "response_example: x, content_type: '@'",
        "zqxmark/json",
        "must be one of",
    ),
    (
        "mocking",
        "response_example: x, response_headers: { X-A: '@' }",
        "a\nzqxmark",
        "must be a header value",
    ),
    (
        "mocking",
        "response_example: x, response_status: '@'",
        "zqxmark",
        "expected u16",
    ),
    (
        "mocking",
        "response_schema: { type: '@' }",
        "zqxmark",
        "type must be",
    ),
    (
        "mocking",
        "response_schema: '@'",
        "zqxmark",
        "expected a map",
    ),
    ("cors", "allow_origins: '@'", "zqxmark", "must be '*'"),
    (
        "cors",
        "allow_methods: '@'",
        "a\nzqxmark",
        "printable ASCII",
    ),
    (
        "cors",
        "allow_headers: '@'",
        "a\rzqxmark",
        "printable ASCII",
    ),
    (
        "cors",
        "expose_headers: '@'",
        "a\nzqxmark",
        "printable ASCII",
    ),
    (
        "cors",
        "allow_origins_by_regex: ['@']",
        "(zqxmark",
        "regular expression",
    ),
    (
        "cors",
        "timing_allow_origins: '@'",
        "zqxmark",
        "must be '*'",
    ),
    (
        "cors",
        "timing_allow_origins_by_regex: ['@']",
        "(zqxmark",
        "regular expression",
    ),
    (
        "cors",
        "allow_credential: '@'",
        "zqxmark",
        "expected a boolean",
    ),
    (
        "ip-restriction",
        "whitelist: ['@']",
        "zqxmark",
        "must be an IP address",
    ),
    (
        "ip-restriction",
        "blacklist: [10.0.0.1, '@']",
        "10.0.0.300 zqxmark",
        "must be an IP address",
    ),
    (
        "ip-restriction",
        "blacklist: '@'",
        "zqxmark",
        "expected a sequence",
    ),
    (
        "key-auth",
        "header: '@'",
        "bad zqxmark",
        "must be a header name",
    ),
    (
        "key-auth",
        "realm: '@'",
        "zqxmark\"",
        "printable ASCII characters without",
    ),
    (
        "proxy-rewrite",
        "uri: '@'",
        "zqxmark",
        "must start with '/'",
    ),
    ("proxy-rewrite", "method: '@'", "ZQXMARK", "must be one of"),
    (
        "proxy-rewrite",
        "host: '@'",
        "zqxmark/",
        "must be a host name",
    ),
    (
        "proxy-rewrite",
        "regex_uri: ['@', /x]",
        "(zqxmark",
        "regular expression",
    ),
    (
        "proxy-rewrite",
        "headers: { set: { X-A: '@' } }",
        "a\nzqxmark",
        "must be a header value",
    ),
    (
        "proxy-rewrite",
        "headers: { add: { X-A: ['@'] } }",
        "a\r\nzqxmark: b",
        "must be a header value",
    ),
    (
        "proxy-rewrite",
        "headers: { remove: ['@'] }",
        "bad zqxmark",
        "must be a header name",
    ),
    ("proxy-rewrite", "headers: '@'", "zqxmark", "expected a map"),
    (
        "redirect",
        "regex_uri: ['@', /x]",
        "(zqxmark",
        "regular expression",
    ),
    (
        "redirect",
        "uri: /x, ret_code: '@'",
        "zqxmark",
        "expected u16",
    ),
    (
        "response-rewrite",
        "body_base64: true, body: '@'",
        "zqxmark!",
        "invalid base64",
    ),
    (
        "response-rewrite",
        "headers: { set: { X-A: '@' } }",
        "a\nzqxmark",
        "must be a header value",
    ),
    (
        "response-rewrite",
        "headers: { add: ['@'] }",
        "zqxmark",
        "must be 'Name: value'",
    ),
    (
        "response-rewrite",
        "headers: { add: ['@'] }",
        "bad zqxmark: b",
        "must be a header name",
    ),
    (
        "response-rewrite",
        "headers: { remove: ['@'] }",
        "bad zqxmark",
        "must be a header name",
    ),
    (
        "response-rewrite",
        "vars: [[arg_a, '@', b]]",
        "zqxmark",
        "does not fit",
    ),
    (
        "response-rewrite",
        "vars: [[arg_a, '~~', '@']]",
        "(zqxmark",
        "regular expression",
    ),
    (
        "response-rewrite",
        "vars: [[remote_addr, ipmatch, ['@']]]",
        "zqxmark",
        "invalid ip address",
    ),
    (
        "response-rewrite",
        "filters: [{ regex: '@', replace: x }]",
        "(zqxmark",
        "regular expression",
    ),
    (
        "response-rewrite",
        "filters: [{ regex: x, replace: '@' }]",
        "$zqxmark",
        "may name captures",
    ),
    (
        "response-rewrite",
        "filters: [{ regex: x, replace: x, scope: '@' }]",
        "zqxmark",
        "expected",
    ),
    (
        "response-rewrite",
        "filters: [{ regex: x, replace: x, options: '@' }]",
        "zqxmark",
        "letters i, m, s",
    ),
    (
        "prometheus",
        "prefer_name: '@'",
        "zqxmark",
        "expected a boolean",
    ),
    // What the engine reads of every plugin.
    (
        "mocking",
        "response_example: x, _meta: { priority: '@' }",
        "zqxmark",
        "expected i32",
    ),
    (
        "mocking",
        "response_example: x, _meta: { filter: [[arg_a, '~~', '@']] }",
        "(zqxmark",
        "regular expression",
    ),
    // A value that is a reference was put there by mistake, and is not followed.
    (
        "proxy-rewrite",
        "uri: '@'",
        "$env://ZQXMARK",
        "itself a reference",
    ),
    (
        "ip-restriction",
        "message: '@', blacklist: [10.0.0.1]",
        "$Secret://zqxmark/a/b",
        "itself a reference",
    ),
];

/// The value behind a consumer's key, and part of the rule.
const CREDENTIALS: &[(&[u8], &str)] = &[
    (b"$secret://file/main/zqxmark", "itself a reference"),
    (b"zqxmark\xff\xfe", "not text"),
    (b"", "value is empty"),
];

/// Every other value comes from the environment: `check --resolve` holds only these against the
/// rules.
fn reference(n: usize) -> String {
    match n % 2 {
        0 => format!("$secret://file/main/p{n}"),
        _ => format!("$env://MISFIT_{n}"),
    }
}

fn refused_plugins_and_credentials(folder: &str, node: &str) -> String {
    let mut yaml = format!("secrets:\n  - {{ id: file/main, path: {folder} }}\nconsumers:\n");
    let key_auth = |key: &str| format!("{{ key-auth: {{ key: '{key}' }} }}");
    let _ = writeln!(
        yaml,
        "  - {{ username: bob, plugins: {} }}",
        key_auth("bob")
    );
    for n in 0..CREDENTIALS.len() {
        let key = key_auth(&format!("$secret://file/main/c{n}"));
        let _ = writeln!(yaml, "  - {{ username: bad{n}, plugins: {key} }}");
    }
    let upstream = format!("upstream: {{ type: roundrobin, nodes: {{ '{node}': 1 }} }}");
    let _ = writeln!(
        yaml,
        "routes:\n  - {{ id: open, host: open.test, uri: /*, {upstream} }}\n  \
         - {{ id: guarded, host: guarded.test, uri: /*, plugins: {{ key-auth: {{}} }}, {upstream} }}"
    );
    for (n, (plugin, settings, ..)) in PLUGINS.iter().enumerate() {
        let settings = settings.replace('@', &reference(n));
        let _ = writeln!(
            yaml,
            "  - {{ id: p{n}, host: p{n}.test, uri: /*, plugins: {{ {plugin}: {{ {settings} }} }}, {upstream} }}"
        );
    }
    // The text of a reference as a name would be sent as one.
    let _ = writeln!(
        yaml,
        "  - {{ id: name, host: name.test, uri: /*, {upstream}, plugins: {{ mocking: {{ response_schema: \
         {{ type: object, properties: {{ $env://PATH: {{ type: string }} }} }} }} }} }}"
    );
    yaml
}

/// Nothing that anybody may see holds the mark.
fn assert_unseen(gateway: &Gateway, told: &str) {
    for text in [told, &gateway.log(), &gateway.metrics_page()] {
        let text = text.to_ascii_lowercase();
        let line = text.lines().find(|line| line.contains(MARK));
        assert_eq!(line, None, "a value is told");
    }
}

/// What `check --resolve` says, which reads no value and so can tell none.
fn check(gateway: &Gateway) -> String {
    let mut command = gateway.command(&["check", "--resolve"]);
    for (n, (_, _, value, _)) in PLUGINS.iter().enumerate() {
        command.env(format!("MISFIT_{n}"), value);
    }
    let output = command.output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn a_value_that_does_not_fit_refuses_its_user_and_only_the_rule_is_told() {
    let upstream = Upstream::start(Behaviour::ok());
    let mut builder = Gateway::builder().bootstrap("nginx_config: { error_log_level: debug }");
    for (n, (_, _, value, _)) in PLUGINS.iter().enumerate() {
        builder = builder
            .file(&format!("secrets/p{n}"), value)
            .env(&format!("MISFIT_{n}"), value);
    }
    for (n, (value, _)) in CREDENTIALS.iter().enumerate() {
        builder = builder.file(&format!("secrets/c{n}"), value);
    }
    let folder = builder.dir().join("secrets");
    let node = upstream.addr.to_string();
    let resources = refused_plugins_and_credentials(folder.to_str().unwrap(), &node);
    let gateway = builder.resources(resources).unready().start();
    wait_until("neighbours serve", || {
        gateway.get("open.test", "/", &[]).status == 200
    });
    let (told, checked) = (gateway.log(), check(&gateway));
    let rule = |told: &str, object: &str, rule: &str| {
        let lines = told
            .lines()
            .filter(|line| line.contains(&format!(" {object} ")));
        let lines: Vec<_> = lines.collect();
        assert!(
            lines.iter().any(|line| line.contains(rule)),
            "{object} must be told {rule:?}: {lines:?}"
        );
    };
    let before = upstream.count();
    for (n, (plugin, settings, _, expected)) in PLUGINS.iter().enumerate() {
        let reply = gateway.get(&format!("p{n}.test"), "/", &[]);
        assert_eq!(reply.status, 503, "{plugin}: {settings}");
        assert!(reply.text().contains(plugin), "{}", reply.text());
        assert!(
            !reply.text().to_ascii_lowercase().contains(MARK),
            "{settings}"
        );
        rule(&told, &format!("routes/p{n}"), expected);
        if n % 2 == 1 {
            rule(&checked, &format!("routes/p{n}"), expected);
        }
    }
    let reply = gateway.get("name.test", "/", &[]);
    assert_eq!(reply.status, 503);
    for told in [&told, &checked] {
        rule(told, "routes/name", "never for a name");
    }
    for (n, (value, expected)) in CREDENTIALS.iter().enumerate() {
        let value = String::from_utf8_lossy(value);
        for key in [&*value, &format!("$secret://file/main/c{n}")] {
            let reply = gateway.get("guarded.test", "/", &[("apikey", key)]);
            assert_eq!(reply.status, 401, "{key}");
        }
        rule(&told, &format!("consumers/bad{n}"), expected);
    }
    assert_eq!(upstream.count(), before, "no refusal reaches upstreams");
    let bob = gateway.get("guarded.test", "/", &[("apikey", "bob")]);
    assert_eq!(bob.status, 200);
    assert_unseen(&gateway, &checked);

    // A value that fits heals its user, without a reload.
    gateway.write_file("secrets/p0", "X-Fits");
    wait_until("the plugin runs", || {
        gateway.get("p0.test", "/", &[]).status == 200
    });
}

#[test]
fn a_certificate_that_does_not_fit_refuses_its_user_and_only_the_rule_is_told() {
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let issued = certs::server(&authority, &["good.test"]);
    let other = certs::server(&authority, &["good.test"]);
    let garbage = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        MARK.repeat(40)
    );
    let bad_key = garbage.replace("CERTIFICATE", "PRIVATE KEY");
    let huge = format!("{}\n{}", issued.cert_pem, MARK.repeat(70_000 / MARK.len()));
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .file("secrets/cert", &issued.cert_pem)
        .file("secrets/key", certs::key_text(&issued))
        .file("secrets/other", certs::key_text(&other))
        .file("secrets/garbage", &garbage)
        .file("secrets/text", MARK.repeat(40))
        .file("secrets/bad_key", &bad_key)
        .file("secrets/huge", &huge)
        .file("secrets/ca", &ca);
    // Item, fields, part of the rule.
    let ssls = [
        ("garbage", "cert: '@garbage', key: '@key'", "does not parse"),
        ("nocert", "cert: '@text', key: '@key'", "no PEM certificate"),
        (
            "badkey",
            "cert: '@cert', key: '@bad_key'",
            "private key does not parse",
        ),
        ("nokey", "cert: '@cert', key: '@text'", "no PEM private key"),
        (
            "mismatch",
            "cert: '@cert', key: '@other'",
            "does not belong",
        ),
        ("huge", "cert: '@huge', key: '@key'", "65536"),
        (
            "second",
            "cert: '@cert', key: '@key', certs: ['@garbage'], keys: ['@key']",
            "does not parse",
        ),
        (
            "ca",
            "cert: '@cert', key: '@key', client: { ca: '@garbage' }",
            "does not parse",
        ),
        (
            "hugeca",
            "cert: '@cert', key: '@key', client: { ca: '@huge' }",
            "65536",
        ),
    ];
    let upstreams = [
        (
            "u-ca",
            "verify: true, ca_certs: '@garbage'",
            "does not parse",
        ),
        (
            "u-cert",
            "client_cert: '@garbage', client_key: '@key'",
            "does not parse",
        ),
        (
            "u-key",
            "client_cert: '@cert', client_key: '@bad_key'",
            "does not parse",
        ),
        (
            "u-pair",
            "client_cert: '@cert', client_key: '@other'",
            "does not belong",
        ),
        ("u-id", "client_cert_id: client", "does not parse"),
    ];
    let mut yaml = format!(
        "secrets:\n  - {{ id: file/main, path: {}/secrets }}\nssls:\n  - {{ id: good, sni: good.test, cert: {}, key: {} }}\n  \
         - {{ id: client, type: client, cert: $secret://file/main/garbage, key: $secret://file/main/key }}\n",
        builder.dir().display(),
        json!(issued.cert_pem),
        json!(certs::key_text(&issued)),
    );
    for (id, fields, _) in ssls {
        let fields = fields.replace('@', "$secret://file/main/");
        let _ = writeln!(yaml, "  - {{ id: {id}, sni: {id}.test, {fields} }}");
    }
    yaml.push_str("routes:\n");
    for (id, tls, _) in upstreams {
        let tls = tls.replace('@', "$secret://file/main/");
        let _ = writeln!(
            yaml,
            "  - {{ id: {id}, host: {id}.test, uri: /*, upstream: {{ scheme: https, type: roundrobin, nodes: {{ '{}': 1 }}, tls: {{ {tls} }} }} }}",
            upstream.addr
        );
    }
    let gateway = builder.resources(yaml).start();
    let handshake = |name: &str| Connection::open_tls(gateway.https(), name, &ca);
    wait_until("the good name serves", || handshake("good.test").is_ok());
    let told = gateway.log();
    for (id, _, rule) in ssls {
        let refused = handshake(&format!("{id}.test")).err().unwrap_or_default();
        assert!(refused.contains("alert"), "{id}: {refused}");
        let found = told
            .lines()
            .any(|line| line.contains(&format!("ssls/{id} ")) && line.contains(rule));
        assert!(found, "{id} must be told {rule:?}: {told}");
    }
    for (id, _, rule) in upstreams {
        let reply = gateway.get(&format!("{id}.test"), "/", &[]);
        // APISIX answers 502 for an `ssls` item that cannot be used.
        assert!([502, 503].contains(&reply.status), "{id}: {}", reply.status);
        let found = told
            .lines()
            .any(|line| line.contains(&format!("routes/{id} ")) && line.contains(rule));
        assert!(found, "{id} must be told {rule:?}: {told}");
    }
    assert_eq!(upstream.connections(), 0, "nothing was even connected");
    assert_unseen(&gateway, &check(&gateway));
    let log = gateway.log();
    assert!(!log.contains(&MARK.repeat(2)), "no part of a key is logged");
}
