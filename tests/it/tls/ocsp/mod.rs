//! OCSP stapling, with the responder and the client of the real `openssl`.

mod answers;
mod troubles;

use claviger::tls::dev::{Authority, Issued, KeyKind, LeafOptions};
use serde_json::json;

use super::*;
use crate::harness::gateway::Builder;
use crate::harness::{Behaviour, Gateway, Responder, Standing, Upstream, certs, serial};

/// What a client that asks for a response sees.
struct Seen {
    /// Of the certificate.
    serial: String,
    /// Of the certificate that the response says to be good, where there is one.
    good: Option<String>,
}

/// A handshake that asks for a response; it must end well.
fn look(gateway: &Gateway, name: &str, args: &[&str]) -> Seen {
    let args = [&["-status", "-servername", name], args].concat();
    let said = s_client(gateway.https(), &args);
    // Behind that of the response's signer.
    let (_, shown) = said.split_once("\nServer certificate\n").expect(&said);
    let none = said.contains("OCSP response: no response sent");
    let good = said.contains("Cert Status: good");
    assert!(none != good, "{said}");
    let mut lines = said.lines().map(str::trim);
    let about = lines.find_map(|line| line.strip_prefix("Serial Number: "));
    Seen {
        serial: serial(shown.as_bytes()),
        good: good.then(|| about.unwrap().to_owned()),
    }
}

/// Whether the certificate comes with a response, which must be its own.
fn stapled(gateway: &Gateway, name: &str) -> bool {
    let seen = look(gateway, name, &[]);
    if let Some(good) = &seen.good {
        assert_eq!(*good, seen.serial, "the response of another certificate");
    }
    seen.good.is_some()
}

fn await_staple(gateway: &Gateway, name: &str) {
    wait_until("a response is stapled", || stapled(gateway, name));
}

/// How many questions ended so.
fn ended(gateway: &Gateway, result: &str) -> f64 {
    let name = format!("claviger_ocsp_responses_total{{result=\"{result}\"}}");
    gateway.metric(&name).unwrap_or_default()
}

/// An authority below a root, so that its leaves carry it in their chain.
fn authority() -> Authority {
    Authority::new().unwrap().intermediate("issuing").unwrap()
}

fn leaf(authority: &Authority, name: &str, key: KeyKind, responder: &Responder) -> Issued {
    let options = LeafOptions {
        key,
        responder: Some(responder.url()),
        ..LeafOptions::default()
    };
    authority.issue(&[name], &options).unwrap()
}

/// A gateway that may staple.
fn listed() -> Builder {
    Gateway::builder().bootstrap("plugins: [ocsp-stapling]")
}

const ENABLED: &str = "    ocsp_stapling: { enabled: true }\n";

#[test]
fn each_certificate_of_a_name_comes_with_its_own_response() {
    let root = Authority::new().unwrap();
    let authority = root.intermediate("issuing").unwrap();
    let mut responder = Responder::of(&authority);
    let pairs = [KeyKind::EcdsaP256, KeyKind::Rsa2048]
        .map(|key| leaf(&authority, "a.test", key, &responder));
    let quiet = leaf(&authority, "quiet.test", KeyKind::EcdsaP256, &responder);
    let known = [&pairs[0], &pairs[1], &quiet];
    responder.run(&known.map(|pair| (&*pair.cert_pem, Standing::Good)));
    let text = |text: &str| serde_json::to_string(text).unwrap();
    let more = format!(
        "{ENABLED}    certs: [{}]\n    keys: [{}]\n",
        text(&pairs[1].cert_pem),
        text(certs::key_text(&pairs[1]))
    );
    let items = [
        item("a", &["a.test"], &pairs[0], &more),
        item("quiet", &["quiet.test"], &quiet, "    ocsp_stapling: {}\n"),
    ];
    let upstream = Upstream::start(Behaviour::ok());
    let builder = listed().file("ca.pem", root.cert_pem().unwrap());
    let gateway = builder.resources(resources(&upstream, &items)).start();
    let algorithms = ["ECDSA+SHA256", "RSA-PSS+SHA256"];
    for version in ["-tls1_2", "-tls1_3"] {
        for (pair, algorithm) in pairs.iter().zip(algorithms) {
            let args = [version, "-sigalgs", algorithm];
            let own = serial(pair.cert_pem.as_bytes());
            wait_until("its own response is stapled", || {
                let seen = look(&gateway, "a.test", &args);
                assert_eq!(seen.serial, own, "{algorithm} chooses the certificate");
                assert!(seen.good.as_ref().is_none_or(|good| *good == own));
                seen.good.is_some()
            });
        }
    }
    assert!(!stapled(&gateway, "quiet.test"), "off unless enabled");
    let staples =
        |state: &str| gateway.metric(&format!("claviger_ocsp_staples{{state=\"{state}\"}}"));
    assert_eq!(
        (staples("stapled"), staples("missing")),
        (Some(2.0), Some(0.0))
    );
    // Asked once each, and not again for a long time.
    assert!((ended(&gateway, "good") - 2.0).abs() < f64::EPSILON);
    // A client that insists, and verifies the response by itself (91: it does not hold).
    let insist = |name| curl(&gateway, name, &["--cert-status"]).0;
    assert_eq!(insist("a.test"), Some(0));
    assert_eq!(insist("quiet.test"), Some(91));
}

#[test]
fn a_new_certificate_never_comes_with_the_response_of_the_old_one() {
    let authority = authority();
    let mut responder = Responder::of(&authority);
    let [old, new] = [0, 1].map(|_| leaf(&authority, "a.test", KeyKind::EcdsaP256, &responder));
    let document =
        |pair: &Issued| json!({"cert": pair.cert_pem, "key": certs::key_text(pair)}).to_string();
    responder.run(&[(&old.cert_pem, Standing::Good)]);
    let builder = listed().file("secrets/site.json", document(&old));
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = format!(
        "secrets:\n  - {{ id: file/main, path: {}, ttl: 600 }}\n{}",
        builder.dir().join("secrets").display(),
        resources(
            &upstream,
            &[format!(
                "  - id: a\n    sni: a.test\n    cert: $secret://file/main/site/cert\n    key: \
                 $secret://file/main/site/key\n{ENABLED}"
            )]
        )
    );
    let gateway = builder.resources(yaml).start();
    await_staple(&gateway, "a.test");
    // The responder does not know it yet, as it is with authorities.
    gateway.write_file("secrets/site.json", document(&new));
    let new_serial = serial(new.cert_pem.as_bytes());
    wait_until("the new one serves, and was asked about", || {
        let seen = look(&gateway, "a.test", &[]);
        assert!(seen.good.is_none_or(|good| good == seen.serial));
        seen.serial == new_serial && ended(&gateway, "unknown") > 0.0
    });
    assert!(!stapled(&gateway, "a.test"));
    responder.run(&[(&new.cert_pem, Standing::Good)]);
    await_staple(&gateway, "a.test");
    assert_eq!(look(&gateway, "a.test", &[]).good, Some(new_serial));
    // A reload that says nothing new of the item asks nothing anew.
    let good = ended(&gateway, "good");
    let revision = gateway.metric("claviger_config_revision");
    let mut yaml = std::fs::read_to_string(gateway.dir().join("apisix.yaml")).unwrap();
    yaml = yaml.replace("id: all", "id: every");
    gateway.write_resources(&yaml);
    wait_until("it is in force", || {
        gateway.metric("claviger_config_revision") > revision
    });
    assert!(stapled(&gateway, "a.test"), "what was fetched stays");
    assert!((ended(&gateway, "good") - good).abs() < f64::EPSILON);
}

#[test]
fn nothing_is_stapled_unless_the_plugin_is_listed() {
    let authority = authority();
    let mut responder = Responder::of(&authority);
    let pair = leaf(&authority, "a.test", KeyKind::EcdsaP256, &responder);
    responder.run(&[(&pair.cert_pem, Standing::Good)]);
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = resources(&upstream, &[item("a", &["a.test"], &pair, ENABLED)]);
    let gateway = Gateway::start(yaml.clone());
    await_log(
        &gateway,
        "the plugin ocsp-stapling is not in the list of plugins",
    );
    assert!(!stapled(&gateway, "a.test"));
    assert_eq!(
        gateway.metric("claviger_ocsp_staples{state=\"missing\"}"),
        None
    );
    // The resource file's own list counts as well.
    gateway.write_resources(&format!("plugins:\n  - name: ocsp-stapling\n{yaml}"));
    await_staple(&gateway, "a.test");
    gateway.write_resources(&yaml);
    wait_until("it is off again", || !stapled(&gateway, "a.test"));
}
