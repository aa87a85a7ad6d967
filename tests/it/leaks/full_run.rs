//! A run with a marker in every secret, and a search for it in everything the program says.

use super::broken::broken;
use super::*;

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
  - {{ username: basic, plugins: {{ basic-auth: {{ username: u, password: literal-{MARK} }} }} }}
  - {{ username: hashed, plugins: {{ basic-auth: {{ username: h, password: '{hash}' }} }} }}
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
  - {{ id: custom, host: custom.test, uri: /*, plugins: {{ key-auth: {{ header: X-Key, query: k }}, csrf: {{ key: csrf-{MARK} }} }}, upstream_id: up }}
  - {{ id: dead, host: dead.test, uri: /*, plugins: {{ key-auth: {{}} }}, upstream_id: dead }}
  - {{ id: basic, host: basic.test, uri: /*, plugins: {{ basic-auth: {{}} }}, upstream_id: up }}
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
        hash = bcrypt::hash(marked("hashed"), 4).unwrap(),
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
    let encode = |pair: String| base64::engine::general_purpose::STANDARD.encode(pair);
    for (user, password) in [("u", marked("literal")), ("h", marked("hashed"))] {
        let basic = format!("Basic {}", encode(format!("{user}:{password}")));
        let headers = [("Authorization", &*basic)];
        assert_eq!(get("basic.test", "/", &headers), 200, "{user}");
    }
    for user in ["u", "h", "nobody"] {
        let basic = format!("Basic {}", encode(format!("{user}:{wrong}")));
        assert_eq!(get("basic.test", "/", &[("Authorization", &*basic)]), 401);
    }
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

/// The audit log with a key out of the environment, and with one out of a document.
const KEY_OF_ENVIRONMENT: &str = "claviger: { audit: { key: $env://AUDIT_KEY_OF_TEST } }";
const KEY_OF_DOCUMENT: &str = "claviger: { audit: { key: $secret://vault/early/audit/key } }";

async fn full_run(log_format: &str, audit_key: &str) {
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
    bao.put_v2(
        "edge/audit",
        json!({"key": marked("a-key-of-the-audit-log")}),
    )
    .await;

    let env = [
        ("VAULT_TOKEN_OF_TEST", bao.token.clone()),
        ("KEY_OF_TEST", marked("env")),
        ("AUDIT_KEY_OF_TEST", marked("a-key-of-the-audit-log")),
    ];
    let early = format!(
        "claviger: {{ secrets: {{ managers: [{{ id: vault/early, uri: '{}', prefix: secret/edge, token: $env://VAULT_TOKEN_OF_TEST }}] }} }}",
        bao.addr
    );
    let mut builder = Gateway::builder()
        .bootstrap(BOOTSTRAP)
        .bootstrap(log_format)
        .bootstrap(AUDIT)
        .bootstrap(audit_key)
        .bootstrap(&early)
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
    assert_quiet(&gateway, &scanner, "in_use");
    scanner.assert_clean("`audit verify`", audit_verdict(&gateway, &env));

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
    // The key of the audit log may be away with its manager: what is said then holds none either.
    let verdict = gateway.command(&["audit", "verify"]);
    let verdict = { verdict }.envs(env.iter().copied()).output().unwrap();
    assert!(!verdict.stdout.is_empty() || !verdict.stderr.is_empty());
    scanner.assert_clean(
        "`audit verify` while the manager is sealed",
        [verdict.stdout, verdict.stderr].concat(),
    );
    assert_quiet(&gateway, &scanner, "manager_silent");
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
    let audit = fs::read_to_string(gateway.dir().join("audit.log")).unwrap();
    for event in ["adopted", "refused", "configuration_rejected", "stopped"] {
        assert!(
            audit.contains(&format!("\"event\":\"{event}\"")),
            "no {event} in the audit log"
        );
    }
    assert!(audit.contains("\"hmac\":"), "the lines are sealed");
    scanner.assert_clean("the audit log", audit);
}

fn reloads(gateway: &Gateway) -> usize {
    let page = gateway.metrics_page();
    page.lines()
        .filter(|line| line.starts_with("claviger_config_reloads_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_secret_of_a_full_run_is_in_anything_said_as_text() {
    full_run(TEXT_LOG, KEY_OF_ENVIRONMENT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_secret_of_a_full_run_is_in_anything_said_as_json() {
    full_run(JSON_LOG, KEY_OF_DOCUMENT).await;
}
