//! Every manager, login and failure: what is said of them holds no secret.

use super::*;

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
        .bootstrap(AUDIT)
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
    assert_quiet(&gateway, &scanner, "refused");
    scanner.assert_clean("`audit verify`", audit_verdict(&gateway, &[]));
    let log = gateway.log();
    assert!(log.contains("vault/m0"), "the failures are told");
    scanner.assert_clean("the log", log);
}

/// Answers that hold the marker wherever an answer can hold anything.
fn answers() -> Vec<(&'static str, Behaviour)> {
    // Login, token, mount, document and error of Vault, AWS and Google, all in one.
    let all = json!({
        "access_token": marked("bearer"), "token_type": "Bearer", "expires_in": 3,
        "error": marked("oauth"), "error_description": marked("oauth"),
        "payload": {"data": STANDARD_NO_PAD.encode(marked("payload"))},
        "auth": {"client_token": marked("hvs"), "accessor": marked("accessor"), "renewable": true,
            "lease_duration": 2, "metadata": {"role": marked("role")}},
        "wrap_info": {"token": marked("wrapping")},
        "errors": [marked("error")], "warnings": [marked("warning")],
        "__type": marked("Exception"), "message": marked("message"), "Message": marked("message"),
        "SecretString": json!({"key": marked("aws")}).to_string(),
        // A version is told on purpose.
        "VersionId": "2f9c1e6a-0001",
        "data": {"data": {"key": marked("value")}, "key": marked("value"),
            "metadata": {"version": 1, "deletion_time": "", "destroyed": false},
            "path": "secret/", "options": {"version": "2"}, "id": marked("token"),
            "ttl": 60, "renewable": true, "secret_id": marked("secret-id"),
            "creation_path": "auth/approle/role/gateway/secret-id"},
    })
    .to_string();
    let errors = json!({"errors": [marked("error")]}).to_string();
    let of = |status, body: &str| Behaviour::Answer(status, body.to_owned());
    let redirect = format!(
        "HTTP/1.1 307 {MARK}\r\nLocation: http://127.0.0.1:1/{MARK}\r\nX-{MARK}: {MARK}\r\nContent-Length: 0\r\n\r\n"
    );
    let malformed = format!("HTTP/1.1 2x0 {MARK}\r\n{MARK}\r\n\r\n{MARK}");
    let cut = format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{{\"data\":\"{MARK}");
    vec![
        ("all", of(200, &all)),
        ("garbage", of(200, &marked("garbage"))),
        ("cut", Behaviour::Raw(cut)),
        ("malformed", Behaviour::Raw(malformed)),
        ("redirect", Behaviour::Raw(redirect)),
        ("bad", of(400, &errors)),
        ("refused", of(403, &errors)),
        ("absent", of(404, &errors)),
        ("throttled", of(429, &all)),
        ("broken", of(500, &all)),
        ("sealed", of(503, &errors)),
        ("never", Behaviour::Never),
        ("closed", Behaviour::Close),
    ]
}

/// Fields of a manager for every way to log in, with a secret in each.
fn logins(folder: &std::path::Path, account: &serde_json::Value) -> Vec<(String, String)> {
    let file = |name: &str| folder.join("credentials").join(name).display().to_string();
    let token = format!("token: {}", marked("token"));
    let id = "role_id: gateway";
    let auth = [
        ("token", token),
        (
            "file",
            format!(
                "auth: {{ method: token_file, token_file: {} }}",
                file("token")
            ),
        ),
        (
            "approle",
            format!(
                "auth: {{ method: approle, {id}, secret_id: {} }}",
                marked("id")
            ),
        ),
        (
            "approle-file",
            format!(
                "auth: {{ method: approle, {id}, secret_id_file: {} }}",
                file("id")
            ),
        ),
        (
            "wrapped",
            format!(
                "auth: {{ method: approle, {id}, secret_id: {}, wrapped: true }}",
                marked("w")
            ),
        ),
        (
            "jwt",
            format!(
                "auth: {{ method: jwt, role: gateway, jwt_file: {} }}",
                file("jwt")
            ),
        ),
        (
            "kubernetes",
            format!(
                "auth: {{ method: kubernetes, role: gateway, jwt_file: {} }}",
                file("jwt")
            ),
        ),
    ];
    let vault = auth.map(|(name, auth)| {
        let fields = format!("uri: '{{}}', prefix: secret/edge, timeout: 1, {auth}");
        (format!("vault/{name}"), fields)
    });
    let key = "access_key_id: AKIDTEST";
    let secret = format!("secret_access_key: {}", marked("secret"));
    let session = format!("session_token: {}", marked("session"));
    let aws = [
        ("static", format!("{key}, {secret}")),
        ("session", format!("{key}, {secret}, {session}")),
        ("chain", "region: us-east-1".to_owned()),
    ]
    .map(|(name, login)| {
        let fields = format!("endpoint_url: '{{}}', timeout: 1, {login}");
        (format!("aws/{name}"), fields)
    });
    let gcp = [
        ("inline", format!("auth_config: {account}")),
        ("file", format!("auth_file: {}", file("account.json"))),
    ]
    .map(|(name, login)| (format!("gcp/{name}"), format!("timeout: 1, {login}")));
    vault.into_iter().chain(aws).chain(gcp).collect()
}

const MOST_SAID: &[&str] = &["all", "garbage", "malformed", "refused", "broken"];
const MOST_USED: &[&str] = &["vault/token", "vault/approle", "aws/session", "gcp/inline"];

#[test]
fn no_login_and_no_failure_says_a_secret() {
    let authority = Authority::new().unwrap();
    let server = certs::server(&authority, &["127.0.0.1"]);
    let ours = certs::server(&authority, &["client.test"]);
    let key = openssl::rsa::Rsa::generate(2048).unwrap();
    let key = String::from_utf8(key.private_key_to_pem().unwrap()).unwrap();
    let scanner = Scanner::new(&[certs::key_text(&ours), &key]);
    let account = json!({
        "client_email": "gateway@test", "project_id": "test", "private_key": key,
        "token_uri": "{}/token", "entries_uri": "{}/v1",
    });
    let builder = Gateway::builder()
        .bootstrap("nginx_config: { error_log_level: debug }")
        .bootstrap("claviger: { secrets: { load_wait: 2s } }")
        .bootstrap(AUDIT)
        .env("BROKEN_JSON", &format!("{{\"key\": \"{}\"", marked("json")))
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/gateway")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .file("credentials/token", marked("token"))
        .file("credentials/id", marked("id"))
        .file(
            "credentials/jwt",
            format!("eyJhbGciOiJIUzI1NiJ9.{}.c2ln", marked("jwt")),
        )
        .file(
            "credentials/account.json",
            account.to_string().replace("{}", "http://127.0.0.1:1"),
        )
        .file("credentials/client.pem", &ours.cert_pem)
        .file("credentials/client.key", certs::key_text(&ours))
        .file("credentials/ca.pem", authority.cert_pem().unwrap())
        .file(
            "secrets/broken.json",
            format!("{{\"key\": \"{}", marked("file")),
        )
        .file("secrets/list.json", format!("[\"{}\"]", marked("list")))
        .file(
            "secrets/binary",
            [marked("binary").as_bytes(), b"\xff\0"].concat(),
        );
    let folder = builder.dir().to_owned();
    let path = |name: &str| folder.join("credentials").join(name).display().to_string();
    let mut secrets = String::from("secrets:\n");
    let mut consumers = String::from("consumers:\n");
    let mut users = 0;
    let mut consumer = |reference: &str| {
        users += 1;
        let _ = writeln!(
            consumers,
            "  - {{ username: c{users}, plugins: {{ key-auth: {{ key: {reference} }} }} }}"
        );
    };
    let mut servers = Vec::new();
    for (answer, behaviour) in answers() {
        let plain = Upstream::start(behaviour.clone());
        for (login, fields) in logins(&folder, &account) {
            // Every answer to some logins, some answers to every login.
            if !MOST_SAID.contains(&answer) && !MOST_USED.contains(&&*login) {
                continue;
            }
            let fields = fields.replace("{}", &format!("http://{}", plain.addr));
            let _ = writeln!(
                secrets,
                "  - {{ id: {login}-{answer}, {fields}, ttl: 1, neg_ttl: 1 }}"
            );
            consumer(&format!("$secret://{login}-{answer}/doc/key"));
        }
        servers.push(plain);
        if !MOST_SAID.contains(&answer) {
            continue;
        }
        let (cert, key) = (&server.cert_pem, server.key_pem.expose());
        let tls = Upstream::start_mtls(behaviour, cert, key, Some(&authority.cert_pem().unwrap()));
        for (trust, ca) in [
            ("trusted", format!("ca: {}, ", path("ca.pem"))),
            ("untrusted", String::new()),
        ] {
            let _ = writeln!(
                secrets,
                "  - {{ id: vault/cert-{trust}-{answer}, uri: 'https://{}', prefix: secret/edge, timeout: 1, ttl: 1, neg_ttl: 1, \
                 auth: {{ method: cert, role: gateway }}, tls: {{ {ca}client_cert: {}, client_key: {} }} }}",
                tls.addr,
                path("client.pem"),
                path("client.key")
            );
            consumer(&format!("$secret://vault/cert-{trust}-{answer}/doc/key"));
        }
        servers.push(tls);
    }
    let _ = writeln!(
        secrets,
        "  - {{ id: file/main, path: {}/secrets, ttl: 1 }}",
        folder.display()
    );
    for reference in [
        "$env://BROKEN_JSON/key",
        "$secret://file/main/broken.json/key",
        "$secret://file/main/list.json/key",
        "$secret://file/main/binary",
    ] {
        consumer(reference);
    }
    let gateway = builder
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", &path("jwt"))
        .env(
            "AWS_ENDPOINT_URL_STS",
            &format!("http://{}", servers[0].addr),
        )
        .resources([secrets, consumers].concat())
        .unready()
        .start();
    let asked = |server: &Upstream| server.connections() > 2;
    wait_until("every server was asked", || servers.iter().all(asked));
    wait_until("logins and failures are told", || {
        let log = gateway.log();
        ["logged in by approle", "login failed"]
            .iter()
            .all(|words| log.contains(words))
    });
    assert_quiet(&gateway, &scanner, "login_failed");
    assert_quiet(&gateway, &scanner, "logged_in");
    scanner.assert_clean("`audit verify`", audit_verdict(&gateway, &[]));
    let environment = format!("{{\"key\": \"{}\"", marked("json"));
    std::thread::scope(|scope| {
        for command in [&["check", "--resolve"][..], &["explain", "--json"]] {
            let (scanner, gateway, environment) = (&scanner, &gateway, &*environment);
            scope.spawn(move || {
                let text = said(
                    gateway,
                    "apisix.yaml",
                    command,
                    &[("BROKEN_JSON", environment)],
                );
                scanner.assert_clean(&command.join(" "), text);
            });
        }
    });
    scanner.assert_clean("the log", gateway.log());
}
