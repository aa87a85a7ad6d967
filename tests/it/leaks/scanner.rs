//! Searches for the marker, and for private keys, in every form something may have encoded them in.

use super::*;

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
    let unicode = |upper: bool| -> String {
        let byte = |byte: &u8| match upper {
            true => format!("\\u{byte:04X}"),
            false => format!("\\u{byte:04x}"),
        };
        secret.iter().map(byte).collect()
    };
    let mut forms = vec![
        ("plain", secret.to_vec()),
        ("lower-case", secret.to_ascii_lowercase()),
        ("hex", hex(false).into_bytes()),
        ("HEX", hex(true).into_bytes()),
        ("percent", percent.to_ascii_lowercase().into_bytes()),
        ("PERCENT", percent.into_bytes()),
        ("numbers", decimal.join(", ").into_bytes()),
        ("escapes", escaped.into_bytes()),
        ("JSON escapes", unicode(false).into_bytes()),
        ("JSON ESCAPES", unicode(true).into_bytes()),
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
pub struct Scanner(Vec<(String, Vec<u8>)>);

impl Scanner {
    /// For the marker, and for each line and some inner bytes of these PEM keys.
    pub fn new(private_keys: &[&str]) -> Self {
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

    /// The same, and for these secrets without a marker.
    pub fn and(mut self, secrets: &[&str]) -> Self {
        for secret in secrets {
            assert!(secret.len() > 15, "too short to be told from other text");
            for (form, bytes) in forms(secret.as_bytes()) {
                self.0.push((format!("a secret as {form}"), bytes));
            }
        }
        self
    }

    /// Which forms stand in the text, and around what.
    pub fn findings(&self, text: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for (what, needle) in &self.0 {
            if let Some(at) = memchr::memmem::find(text, needle) {
                let around = &text[at.saturating_sub(200)..(at + 100).min(text.len())];
                found.push(format!("{what}: …{}…", String::from_utf8_lossy(around)));
            }
        }
        found
    }

    pub fn assert_clean(&self, what: &str, text: impl AsRef<[u8]>) {
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
            secret.bytes().map(|byte| format!("{byte:02X}")).collect(),
            secret.bytes().map(|byte| format!("%{byte:02x}")).collect(),
            secret.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            secret
                .bytes()
                .map(|byte| format!("\\x{byte:02x}"))
                .collect(),
            secret
                .bytes()
                .map(|byte| format!("\\u{byte:04x}"))
                .collect(),
            secret
                .bytes()
                .map(|byte| format!("\\u{byte:04X}"))
                .collect(),
            serde_json::to_string(&json!({"a": [secret]})).unwrap(),
        ];
        for text in planted {
            let line = format!("2026-01-01 WARN something: {text} and more");
            assert!(!scanner.findings(line.as_bytes()).is_empty(), "{line}");
        }
    }
    let key = certs::key_text(&issued).lines().nth(1).unwrap();
    assert!(!scanner.findings(format!("key={key}").as_bytes()).is_empty());
}

/// The control of all searches: where a marker is made to be said, it is found.
#[test]
fn leaks_asked_for_are_found_in_every_channel() {
    let upstream = Upstream::start(Behaviour::ok());
    let resources = format!(
        r#"
secrets:
  - {{ id: vault/{MARK}, uri: 'http://127.0.0.1:1', prefix: secret/edge, token: t }}
consumers:
  - {{ username: {MARK}, plugins: {{ key-auth: {{ key: $secret://vault/{MARK}/a/k }} }} }}
routes:
  - {{ id: unfit-{MARK}, uri: /unfit, plugins: {{ redirect: {{ ret_code: text, uri: /x }} }} }}
  - id: {MARK}
    host: a.test
    uri: /*
    plugins: {{ prometheus: {{}}, response-rewrite: {{ headers: {{ set: {{ X-Leak: {MARK} }} }} }} }}
    upstream: {{ type: roundrobin, nodes: {{ "{}": 1 }} }}
"#,
        upstream.addr
    );
    let gateway = Gateway::builder()
        .bootstrap("nginx_config: { http: { access_log_format: 'leak=$http_x_harmless' } }")
        .bootstrap(&format!(
            "claviger: {{ audit: {{ path: audit-{MARK}.log }} }}"
        ))
        .resources(resources)
        .unready()
        .start();
    let scanner = Scanner::new(&[]);
    let found = |what: &str, text: &[u8]| {
        assert!(!scanner.findings(text).is_empty(), "{what} has no marker");
    };
    let key = marked("client");
    let reply = gateway.get("a.test", "/", &[("X-Harmless", &key)]);
    found("the answer", format!("{reply:?}").as_bytes());
    found("the metrics page", gateway.metrics_page().as_bytes());
    for command in COMMANDS {
        let text = said(&gateway, "apisix.yaml", command, &[]);
        found(&command.join(" "), &text);
    }
    let secrets = client::get(gateway.status(), "/status/secrets", &[("Host", "status")]);
    found("/status/secrets", secrets.text().as_bytes());
    found("`audit verify`", &audit_verdict(&gateway, &[]));
    let audit = format!("audit-{MARK}.log");
    for log in ["logs/error.log", "logs/access.log", &audit] {
        wait_until("the planted leak is written", || {
            let text = fs::read(gateway.dir().join(log)).unwrap_or_default();
            !scanner.findings(&text).is_empty()
        });
    }
}
