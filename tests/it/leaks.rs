//! A marker in every secret of a full run, and a search for it in everything the program says.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use claviger::tls::dev::Authority;
use serde_json::json;

use crate::harness::gateway::program;
use crate::harness::{
    Behaviour, Connection, Gateway, OpenBao, Relay, Relaying, Upstream, certs, client, wait_until,
};

/// Stands inside every secret.
const MARK: &str = "mArKeR7zQ4";

/// Every form in which a secret could come out: as it is, and as something may have encoded it.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex = |upper| -> String {
        secret
            .iter()
            .map(|byte| match upper {
                true => format!("{byte:02X}"),
                false => format!("{byte:02x}"),
            })
            .collect()
    };
    let percent: String = secret.iter().map(|byte| format!("%{byte:02X}")).collect();
    let decimal: Vec<String> = secret.iter().map(ToString::to_string).collect();
    let escaped: String = secret.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let mut forms = vec![
        ("plain", secret.to_vec()),
        ("lower-case", secret.to_ascii_lowercase()),
        ("hex", hex(false).into_bytes()),
        ("HEX", hex(true).into_bytes()),
        ("percent", percent.to_ascii_lowercase().into_bytes()),
        ("PERCENT", percent.into_bytes()),
        ("numbers", decimal.join(", ").into_bytes()),
        ("escapes", escaped.into_bytes()),
    ];
    // Base64 of a longer text holds it in one of three shapes, but for the letters at its edges.
    for skip in 0..3 {
        let padded = [&b"\0\0"[..skip], secret].concat();
        let whole = padded.len() / 3 * 3;
        let start = [0, 2, 3][skip];
        for (name, engine) in [
            ("base64", &STANDARD_NO_PAD),
            ("base64url", &URL_SAFE_NO_PAD),
        ] {
            let text = engine.encode(&padded[..whole]);
            forms.push((name, text.as_bytes()[start..].to_vec()));
        }
    }
    forms
}

/// What to search for.
struct Scanner(Vec<(String, Vec<u8>)>);

impl Scanner {
    /// For the marker, and for each line and some inner bytes of these PEM keys.
    fn new(private_keys: &[&str]) -> Self {
        let mut needles: Vec<(String, Vec<u8>)> = forms(MARK.as_bytes())
            .into_iter()
            .map(|(form, bytes)| (format!("the marker as {form}"), bytes))
            .collect();
        for pem in private_keys {
            for line in pem.lines().filter(|line| !line.starts_with('-')) {
                needles.push(("a line of a private key".into(), line.as_bytes().to_vec()));
            }
            let key = openssl::pkey::PKey::private_key_from_pem(pem.as_bytes()).unwrap();
            let der = key.private_key_to_der().unwrap();
            for (form, bytes) in forms(&der[12..28]) {
                needles.push((format!("private key as {form}"), bytes));
            }
        }
        Self(needles)
    }

    /// Which forms stand in the text, and around what.
    fn findings(&self, text: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for (what, needle) in &self.0 {
            if let Some(at) = memchr::memmem::find(text, needle) {
                let around = &text[at.saturating_sub(200)..(at + 100).min(text.len())];
                found.push(format!("{what}: …{}…", String::from_utf8_lossy(around)));
            }
        }
        found
    }

    fn assert_clean(&self, what: &str, text: impl AsRef<[u8]>) {
        let found = self.findings(text.as_ref());
        assert!(found.is_empty(), "{what} leaks: {found:#?}");
    }
}

#[test]
fn the_scanner_finds_what_is_planted_in_any_form() {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["a.test"]);
    let scanner = Scanner::new(&[certs::key_text(&issued)]);
    assert_eq!(scanner.findings(b"nothing to see"), [""; 0]);
    for around in ["", "x", "xy", "xyz"] {
        let secret = format!("{around}{MARK}{around}");
        let planted = [
            secret.clone(),
            format!("{:?}", secret.as_bytes()),
            base64::engine::general_purpose::STANDARD.encode(&secret),
            base64::engine::general_purpose::URL_SAFE.encode(&secret),
            secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
            secret.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        ];
        for text in planted {
            let line = format!("2026-01-01 WARN something: {text} and more");
            assert!(!scanner.findings(line.as_bytes()).is_empty(), "{line}");
        }
    }
    let key = certs::key_text(&issued).lines().nth(1).unwrap();
    assert!(!scanner.findings(format!("key={key}").as_bytes()).is_empty());
}

/// A secret with the marker in it.
fn marked(name: &str) -> String {
    format!("{name}-{MARK}")
}

const BOOTSTRAP: &str = r#"
nginx_config:
  error_log_level: debug
  envs: ["BOOTSTRAP_VARIABLE=boot-mArKeR7zQ4"]
deployment:
  admin: { admin_key: [{ name: admin, key: admin-mArKeR7zQ4, role: admin }] }
"#;

const TEXT_LOG: &str = r#"
nginx_config:
  http:
    access_log_format: '"$request" $args $request_uri $http_referer $http_apikey $http_x_key $http_authorization $http_cookie $cookie_session $cookie_token $arg_apikey $arg_k $remote_user $consumer_name $status'
"#;

const JSON_LOG: &str = "claviger: { log: { json: true, access_json: true } }";

fn resources(
    folder: &std::path::Path,
    bao: &OpenBao,
    upstream: &Upstream,
    literal_pair: (&str, &str),
) -> String {
    let (cert, key) = (json!(literal_pair.0), json!(literal_pair.1));
    format!(
        r#"
secrets:
  - {{ id: vault/main, uri: '{uri}', prefix: secret/edge, token: '{token}', ttl: 1, neg_ttl: 1 }}
  - {{ id: vault/env, uri: '{uri}', prefix: secret/edge, token: $env://VAULT_TOKEN_OF_TEST, ttl: 1 }}
  - {{ id: vault/refused, uri: '{uri}', prefix: secret/edge, token: 'refused-{MARK}', ttl: 1 }}
  - {{ id: file/main, path: {folder}/secrets }}
consumers:
  - {{ username: vault, plugins: {{ key-auth: {{ key: $secret://vault/main/consumer/key }} }} }}
  - {{ username: env, plugins: {{ key-auth: {{ key: $env://KEY_OF_TEST }} }} }}
  - {{ username: boot, plugins: {{ key-auth: {{ key: $env://BOOTSTRAP_VARIABLE }} }} }}
  - {{ username: file, plugins: {{ key-auth: {{ key: $secret://file/main/key }} }} }}
  - {{ username: literal, plugins: {{ key-auth: {{ key: literal-{MARK} }} }} }}
  - {{ username: twin, plugins: {{ key-auth: {{ key: literal-{MARK} }} }} }}
  - {{ username: refused, plugins: {{ key-auth: {{ key: $secret://vault/refused/consumer/key }} }} }}
ssls:
  - {{ id: secret, sni: secret.test, cert: $secret://vault/env/tls/cert, key: $secret://vault/env/tls/key }}
  - {{ id: literal, sni: literal.test, cert: {cert}, key: {key} }}
  - {{ id: unfit, sni: unfit.test, cert: {cert}, key: $secret://vault/main/tls/key }}
routes:
  - id: guarded
    host: guarded.test
    uri: /*
    plugins:
      key-auth: {{ header: apikey, query: apikey, hide_credentials: true }}
      proxy-rewrite: {{ headers: {{ set: {{ X-Up: $secret://vault/main/plugin/header }} }} }}
      prometheus: {{}}
    upstream_id: up
  - {{ id: custom, host: custom.test, uri: /*, plugins: {{ key-auth: {{ header: X-Key, query: k }} }}, upstream_id: up }}
  - {{ id: dead, host: dead.test, uri: /*, plugins: {{ key-auth: {{}} }}, upstream_id: dead }}
  - id: literal-field
    host: field.test
    uri: /*
    plugins: {{ proxy-rewrite: {{ headers: {{ set: {{ X-Up: field-{MARK} }} }} }} }}
    upstream_id: up
  # Values that cannot be what the field must hold.
  - {{ id: unfit1, host: unfit1.test, uri: /*, upstream_id: up, plugins: {{ ip-restriction: {{ whitelist: [$secret://vault/main/plugin/header] }} }} }}
  - {{ id: unfit2, host: unfit2.test, uri: /*, upstream_id: up, plugins: {{ proxy-rewrite: {{ headers: {{ set: {{ X-Up: $secret://vault/main/plugin/lines }} }} }} }} }}
  - {{ id: unfit3, host: unfit3.test, uri: /*, upstream_id: up, plugins: {{ redirect: {{ ret_code: $secret://vault/main/plugin/header, uri: /x }} }} }}
  - {{ id: unfit4, host: unfit4.test, uri: /*, upstream_id: up, plugins: {{ proxy-rewrite: {{ regex_uri: [$secret://vault/main/plugin/regex, /x] }} }} }}
  - {{ id: unfit5, host: unfit5.test, uri: /*, upstream_id: up, plugins: {{ cors: {{ allow_origins: $secret://vault/main/plugin/header }} }} }}
  - {{ id: unfit6, host: unfit6.test, uri: /*, upstream_id: up, plugins: {{ response-rewrite: {{ filters: [{{ regex: $secret://vault/main/plugin/regex, replace: x }}] }} }} }}
upstreams:
  - {{ id: up, type: roundrobin, nodes: {{ "{node}": 1 }} }}
  - {{ id: dead, type: roundrobin, nodes: {{ "127.0.0.1:1": 1 }} }}
"#,
        folder = folder.display(),
        uri = bao.addr,
        token = bao.token,
        node = upstream.addr,
    )
}

/// Requests that present secrets, rightly and wrongly. Returns what was answered.
fn traffic(gateway: &Gateway, ca: &str) -> Vec<u8> {
    let mut answers = Vec::new();
    let mut get = |host: &str, path: &str, headers: &[(&str, &str)]| -> u16 {
        let reply = gateway.get(host, path, headers);
        let _ = write!(
            DisplayBytes(&mut answers),
            "{}\n{:?}\n{}\n",
            reply.message.start,
            reply.message.headers,
            reply.text()
        );
        reply.status
    };
    for name in ["vault", "env", "boot", "file", "literal"] {
        let key = marked(name);
        assert_eq!(get("guarded.test", "/", &[("apikey", &key)]), 200, "{name}");
        let in_query = format!("/?apikey={key}&b=1");
        assert_eq!(get("guarded.test", &in_query, &[]), 200);
        assert_eq!(get("custom.test", &format!("/?k={key}"), &[]), 200);
        assert_eq!(get("custom.test", "/", &[("X-Key", &key)]), 200);
        assert_eq!(get("dead.test", "/", &[("apikey", &key)]), 502);
        assert_eq!(get("dead.test", &in_query, &[]), 502);
    }
    let wrong = marked("wrong");
    let encoded: String = wrong.bytes().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(get("guarded.test", "/", &[("apikey", &wrong)]), 401);
    for query in [&wrong, &encoded] {
        let path = format!("/?apikey={query}");
        assert_eq!(get("guarded.test", &path, &[]), 401);
        get("unknown.test", &path, &[]);
        let referer = format!("https://a.test{path}");
        get("field.test", "/", &[("Referer", &referer)]);
    }
    let cookie = format!("token={wrong}; session={wrong}");
    let bearer = format!("Bearer {wrong}");
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("u:{wrong}"));
    let headers = [
        ("Cookie", &*cookie),
        ("Authorization", &*bearer),
        ("X-Vault-Token", &*wrong),
    ];
    for host in ["guarded.test", "field.test", "unknown.test", "dead.test"] {
        get(host, "/", &headers);
        get(host, "/", &[("Authorization", &format!("Basic {basic}"))]);
    }
    for n in 1..=6 {
        get(&format!("unfit{n}.test"), "/", &[]);
    }
    // Requests that are refused before they are one, each with a key in it.
    for request in [
        format!("GET /?apikey={wrong} HTTP/1.1\r\napikey: {wrong}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\napikey: {wrong}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\napikey: {wrong}\0\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\napikey : {wrong}\r\n\r\n"),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\napikey: {wrong}\r\n\r\n"
        ),
        format!("GET /?apikey={wrong}\n\nHTTP/9.9\r\n\r\n"),
        format!("{wrong}\r\n\r\n"),
    ] {
        let mut connection = gateway.connect();
        connection.send(&request);
        connection.finish_sending();
        connection.set_read_timeout(std::time::Duration::from_secs(5));
        if let Ok(Some(reply)) = connection.reply() {
            answers.extend_from_slice(format!("{reply:?}").as_bytes());
        }
    }
    for (name, served) in [
        ("secret.test", true),
        ("literal.test", true),
        ("unfit.test", false),
    ] {
        let handshake = Connection::open_tls(gateway.https(), name, ca);
        assert_eq!(handshake.is_ok(), served, "{name}");
    }
    answers
}

struct DisplayBytes<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for DisplayBytes<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Runs a command on the gateway's configuration and returns all it says.
fn said(gateway: &Gateway, resources: &str, command: &[&str], env: &[(&str, &str)]) -> Vec<u8> {
    let output = Command::new(program())
        .args(command)
        .args(["--config", "config.yaml", "--resources", resources])
        .envs(env.iter().copied())
        .current_dir(gateway.dir())
        .output()
        .unwrap();
    assert!(!output.stdout.is_empty() || !output.stderr.is_empty());
    [output.stdout, output.stderr].concat()
}

const COMMANDS: &[&[&str]] = &[&["check"], &["check", "--resolve"], &["explain"]];

async fn full_run(log_format: &str) {
    let bao = OpenBao::start_with_token(&marked("root")).await;
    let upstream = Upstream::start(Behaviour::ok());
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let secret = certs::server(&authority, &["secret.test"]);
    let literal = certs::server(&authority, &["literal.test", "unfit.test"]);
    let key = certs::key_text(&secret);
    let scanner = Scanner::new(&[key, certs::key_text(&literal)]);
    bao.put_v2("edge/consumer", json!({"key": marked("vault")}))
        .await;
    bao.put_v2("edge/tls", json!({"cert": secret.cert_pem, "key": key}))
        .await;
    let plugin = json!({
        "header": marked("header"), "lines": format!("a\r\n{}\n", marked("b")),
        "regex": format!("({}", marked("regex")),
    });
    bao.put_v2("edge/plugin", plugin).await;

    let env = [
        ("VAULT_TOKEN_OF_TEST", bao.token.clone()),
        ("KEY_OF_TEST", marked("env")),
    ];
    let mut builder = Gateway::builder()
        .bootstrap(BOOTSTRAP)
        .bootstrap(log_format)
        .file("secrets/key", marked("file"));
    for (name, value) in &env {
        builder = builder.env(name, value);
    }
    let literal_pair = (&*literal.cert_pem, certs::key_text(&literal));
    let good = resources(builder.dir(), &bao, &upstream, literal_pair);
    let gateway = builder.resources(&*good).unready().start();
    wait_until("the secrets are there", || {
        let key = marked("vault");
        gateway.get("guarded.test", "/", &[("apikey", &key)]).status == 200
    });

    scanner.assert_clean("an answer", traffic(&gateway, &ca));
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, &**value)).collect();
    for command in COMMANDS {
        let text = said(&gateway, "apisix.yaml", command, &env);
        scanner.assert_clean(&command.join(" "), text);
    }

    // The manager answers with secrets in the wrong places, then goes.
    bao.put_v2("edge/consumer", json!({"key": {"inner": marked("object")}}))
        .await;
    bao.put_v2("edge/tls", json!({"cert": marked("no-cert"), "key": format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", marked("no-key"))}))
        .await;
    wait_until("the pair that does not parse is told", || {
        gateway.log().contains("last good pair serves on")
    });
    bao.seal().await;

    for (n, broken) in broken(&good).iter().enumerate() {
        let before = reloads(&gateway);
        gateway.write_resources(broken);
        wait_until("the broken file was tried", || reloads(&gateway) > before);
        let name = format!("broken-{n}.yaml");
        fs::write(gateway.dir().join(&name), format!("{broken}\n#END\n")).unwrap();
        for command in COMMANDS {
            let text = said(&gateway, &name, command, &env);
            scanner.assert_clean(&format!("{} of broken file {n}", command.join(" ")), text);
        }
    }
    for path in ["/status", "/status/ready", "/unknown"] {
        let reply = client::get(gateway.status(), path, &[("Host", "status")]);
        scanner.assert_clean(path, format!("{reply:?}"));
    }
    scanner.assert_clean("the metrics page", gateway.metrics_page());
    gateway.signal(rustix::process::Signal::HUP);
    let mut gateway = gateway;
    gateway.signal(rustix::process::Signal::TERM);
    gateway.wait_exit();
    let log = gateway.log();
    assert!(
        log.contains("***"),
        "credentials were there and were masked"
    );
    scanner.assert_clean("output, error log or access log", log);
}

fn reloads(gateway: &Gateway) -> usize {
    let page = gateway.metrics_page();
    page.lines()
        .filter(|line| line.starts_with("claviger_config_reloads_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

/// Files with secrets next to what is wrong with them, or inside it.
fn broken(good: &str) -> Vec<String> {
    let secret = marked("broken");
    let text = [
        format!("consumers:\n  - username: a\n    plugins: {{ key-auth: {{ key: '{secret} }} }}\n"),
        format!("consumers:\n  - username: a\n\tkey: {secret}\n"),
        format!("consumers:\n  - username: a\n    plugins: {{ key-auth: {{ key: {secret} }}\n"),
        format!("{secret}\n"),
        format!("consumers: {secret}\n"),
        format!("consumers:\n  - &a {secret}\n  - *{secret}\n"),
        format!("consumers:\n  - !!{secret} x\n"),
        format!("consumers:\n  - key: \"{secret}\\q\"\n"),
        format!("secrets:\n  - id: vault/main\n    token: {secret}\n   uri: x\n"),
        format!("consumers:\n  - username: ${{{{UNSET_{MARK}:=$\n    key: {secret}\n"),
    ];
    let plugins = [
        format!("key-auth: {secret}"),
        format!("key-auth: {{ header: [{secret}] }}"),
        format!("key-auth: {{ hide_credentials: {secret} }}"),
        format!("ip-restriction: {{ whitelist: [{secret}] }}"),
        format!("ip-restriction: {{ whitelist: {secret} }}"),
        format!("proxy-rewrite: {{ headers: {secret} }}"),
        format!("proxy-rewrite: {{ headers: {{ set: [{secret}] }} }}"),
        format!("proxy-rewrite: {{ headers: {{ set: {{ X: [{secret}] }} }} }}"),
        format!("proxy-rewrite: {{ method: {secret} }}"),
        format!("proxy-rewrite: {{ scheme: {secret} }}"),
        format!("proxy-rewrite: {{ regex_uri: ['({secret}', x] }}"),
        format!("proxy-rewrite: {{ uri: '{secret} x' }}"),
        format!("response-rewrite: {{ status_code: {secret} }}"),
        format!("response-rewrite: {{ body: {secret}, body_base64: true }}"),
        format!("response-rewrite: {{ vars: {secret} }}"),
        format!("response-rewrite: {{ vars: [[arg_a, '~~', '({secret}']] }}"),
        format!("response-rewrite: {{ vars: [[arg_a, {secret}, 1]] }}"),
        format!("response-rewrite: {{ filters: [{{ regex: '({secret}', replace: x }}] }}"),
        format!("response-rewrite: {{ filters: [{{ regex: a, scope: {secret}, replace: x }}] }}"),
        format!("response-rewrite: {{ headers: {{ set: {{ 'X': \"a\\n{secret}\" }} }} }}"),
        format!("redirect: {{ ret_code: {secret}, uri: /x }}"),
        format!("redirect: {{ regex_uri: ['({secret}', x] }}"),
        format!("cors: {{ max_age: {secret} }}"),
        format!("cors: {{ allow_origins_by_regex: ['({secret}'] }}"),
        format!("mocking: {{ response_status: {secret} }}"),
        format!("mocking: {{ response_schema: {secret} }}"),
        format!("request-id: {{ algorithm: {secret} }}"),
        format!("key-auth: {{ _meta: {{ filter: [[arg_a, '~~', '({secret}']] }} }}"),
        format!("key-auth: {{ _meta: {{ priority: {secret} }} }}"),
        format!("key-auth: {{ _meta: {{ error_response: [{secret}] }} }}"),
    ];
    let managers = [
        format!("id: vault/b1, uri: 'http://u:{secret}@127.0.0.1', prefix: a, token: t"),
        format!("id: vault/b2, uri: 'http://127.0.0.1', prefix: a, token: [{secret}]"),
        format!("id: vault/b3, uri: 'http://127.0.0.1', prefix: a, token: \"{secret}\\nx\""),
        format!("id: vault/b4, uri: 'http://127.0.0.1', prefix: a, token: t, timeout: {secret}"),
        format!("id: vault/b5, uri: 'http://127.0.0.1', prefix: a, token: t, kv_version: {secret}"),
        format!("id: vault/b6, uri: 'http://127.0.0.1', prefix: a, token: t, auth: {secret}"),
        format!("id: vault/b7, uri: 'http://127.0.0.1', prefix: a, auth: {{ method: {secret} }}"),
        format!(
            "id: vault/b8, uri: 'https://127.0.0.1', prefix: a, token: t, tls: {{ client_cert: a, client_key: '{secret}' }}"
        ),
        format!(
            "id: vault/b9, uri: 'https://127.0.0.1', prefix: a, token: t, tls: {{ client_cert: '-----BEGIN {secret}', client_key: '-----BEGIN {secret}' }}"
        ),
        format!("id: file/b10, path: [{secret}]"),
    ];
    let mut items = good.to_owned();
    let routes: String = plugins
        .iter()
        .enumerate()
        .map(|(n, plugin)| {
            format!("  - {{ id: b{n}, host: b{n}.test, uri: /*, upstream_id: up, plugins: {{ {plugin} }} }}\n")
        })
        .collect();
    items = items.replace("routes:\n", &format!("routes:\n{routes}"));
    let managers: String = managers
        .iter()
        .map(|fields| format!("  - {{ {fields} }}\n"))
        .collect();
    items = items.replace("secrets:\n", &format!("secrets:\n{managers}"));
    let consumers = [
        format!("username: c1, plugins: {{ key-auth: {{ key: [{secret}] }} }}"),
        format!("username: c2, plugins: {{ key-auth: {secret} }}"),
        format!("username: c3, plugins: {secret}"),
        format!("username: c4, plugins: {{ key-auth: {{ key: '{secret}', key: x }} }}"),
        format!("username: c5, labels: {secret}, plugins: {{ key-auth: {{ key: {secret} }} }}"),
        format!("username: c6, plugins: {{ unknown-plugin: {{ password: {secret} }} }}"),
    ];
    let consumers: String = consumers
        .iter()
        .map(|fields| format!("  - {{ {fields} }}\n"))
        .collect();
    items = items.replace("consumers:\n", &format!("consumers:\n{consumers}"));
    // Long enough to be taken for PEM.
    let long = secret.repeat(10);
    let pem = format!("-----BEGIN PRIVATE KEY-----\\n{long}\\n-----END PRIVATE KEY-----\\n");
    let pairs = [
        format!("id: s1, sni: s1.test, cert: {secret}, key: {secret}"),
        format!("id: s2, sni: s2.test, cert: \"{pem}\", key: \"{pem}\""),
        format!("id: s3, sni: s3.test, cert: [{secret}], key: {{ a: {secret} }}"),
        format!("id: s4, sni: s4.test, cert: x, key: x, certs: {secret}, keys: [{secret}]"),
        format!("id: s6, sni: s6.test, cert: {long}, key: {long}"),
        format!(
            "id: s7, sni: s7.test, cert: \"-----BEGIN CERTIFICATE-----\\n{long}\\n-----END CERTIFICATE-----\\n\", key: \"{pem}\""
        ),
        format!("id: s5, sni: s5.test, cert: x, key: {secret}, client: {{ ca: {secret} }}"),
    ];
    let pairs: String = pairs
        .iter()
        .map(|fields| format!("  - {{ {fields} }}\n"))
        .collect();
    items = items.replace("ssls:\n", &format!("ssls:\n{pairs}"));
    let tls = format!(
        "upstreams:\n  - {{ id: t1, type: roundrobin, scheme: https, nodes: {{ \"127.0.0.1:1\": 1 }}, tls: {{ client_cert: {long}, client_key: \"{pem}\" }} }}\n"
    );
    items = items.replace("upstreams:\n", &tls);
    let truncated = items.replace(
        "secrets:\n",
        &format!("plugin_metadata:\n  - {{ id: cors, allow_origins: {secret} }}\nsecrets:\n"),
    );
    text.into_iter().chain([truncated]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_secret_of_a_full_run_is_in_anything_said_as_text() {
    full_run(TEXT_LOG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_secret_of_a_full_run_is_in_anything_said_as_json() {
    full_run(JSON_LOG).await;
}

#[test]
fn a_leak_asked_for_is_found_in_the_access_log() {
    let gateway = Gateway::builder()
        .bootstrap("nginx_config: { http: { access_log_format: 'leak=$http_x_harmless' } }")
        .start();
    let scanner = Scanner::new(&[]);
    let key = marked("client");
    gateway.get("a.test", "/", &[("X-Harmless", &key)]);
    wait_until("the planted leak is found", || {
        !scanner.findings(gateway.log().as_bytes()).is_empty()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_an_impostor_says_is_not_repeated() {
    let bao = OpenBao::start().await;
    let scanner = Scanner::new(&[]);
    let echo: &'static str = r#"{"errors":["mArKeR7zQ4"],"data":"mArKeR7zQ4"}"#;
    let modes = [
        Relaying::Answer(200, echo),
        Relaying::Answer(400, echo),
        Relaying::Answer(403, echo),
        Relaying::Answer(500, echo),
        Relaying::Answer(200, "mArKeR7zQ4"),
        Relaying::Answer(
            200,
            r#"{"data":{"data":["mArKeR7zQ4"],"metadata":"mArKeR7zQ4"}}"#,
        ),
    ];
    let relays: Vec<_> = modes
        .iter()
        .map(|mode| Relay::start(&bao.addr, *mode))
        .collect();
    let mut yaml = String::from("secrets:\n");
    for (n, relay) in relays.iter().enumerate() {
        let _ = writeln!(
            yaml,
            "  - {{ id: vault/m{n}, uri: '{}', prefix: secret/edge, kv_version: {}, token: token-{MARK}, ttl: 1 }}",
            relay.uri(),
            1 + n % 2
        );
    }
    yaml.push_str("consumers:\n");
    for n in 0..relays.len() {
        let _ = writeln!(
            yaml,
            "  - {{ username: c{n}, plugins: {{ key-auth: {{ key: $secret://vault/m{n}/a/key }} }} }}"
        );
    }
    let gateway = Gateway::builder()
        .bootstrap("nginx_config: { error_log_level: debug }")
        .resources(yaml)
        .unready()
        .start();
    wait_until("every impostor was asked", || {
        relays.iter().all(|relay| relay.count() > 0)
    });
    for command in COMMANDS {
        let text = said(&gateway, "apisix.yaml", command, &[]);
        scanner.assert_clean(&command.join(" "), text);
    }
    let log = gateway.log();
    assert!(log.contains("vault/m0"), "the failures are told");
    scanner.assert_clean("the log", log);
}

#[test]
fn the_running_process_cannot_be_dumped_or_read() {
    let mut gateway = Gateway::builder()
        .env("SECRET_OF_TEST", &marked("env"))
        .unprivileged()
        .start();
    let pid = gateway.pid();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("there is a limit of core files");
    let words: Vec<_> = core.split_whitespace().collect();
    assert_eq!(&words[4..6], ["0", "0"], "{core}");
    // Another process of the same user, as a debugger would be.
    let status = fs::metadata(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&status),
        0,
        "what cannot be dumped belongs to root in /proc"
    );
    for file in ["environ", "mem", "maps"] {
        let mut cat = Command::new("cat");
        cat.arg(format!("/proc/{pid}/{file}"));
        if let Some(user) = gateway.user() {
            cat.uid(user).gid(user);
        }
        let output = cat.output().unwrap();
        assert!(!output.status.success(), "/proc/{pid}/{file} is readable");
        assert!(output.stdout.is_empty());
    }
    // The control: without the hardening it can be read.
    gateway.signal(rustix::process::Signal::KILL);
    gateway.wait_exit();
    let open = Gateway::builder()
        .bootstrap("claviger: { allow_core_dump: true }")
        .env("SECRET_OF_TEST", &marked("env"))
        .unprivileged()
        .start();
    let mut environ = Vec::new();
    fs::File::open(format!("/proc/{}/environ", open.pid()))
        .and_then(|mut file| file.read_to_end(&mut environ))
        .expect("a process of the same user can be read");
    let status = fs::metadata(format!("/proc/{}/environ", open.pid())).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&status),
        open.user().unwrap_or(rustix::process::getuid().as_raw()),
    );
    assert!(memchr::memmem::find(&environ, MARK.as_bytes()).is_some());
}
