//! Which of several pairs a client is shown: by what it can verify, and by what is valid.

use std::path::Path;

use super::super::*;
use super::{issue, more_pairs};
use claviger::tls::dev::KeyKind;

/// What a client is shown that verifies only with these algorithms.
fn shown(gateway: &Gateway, name: &str, args: &[&str]) -> String {
    let args = [&["-servername", name, "-showcerts"][..], args].concat();
    s_client(gateway.https(), &args)
}

#[test]
fn each_client_gets_the_pair_it_can_verify_with_that_pairs_own_chain() {
    let root = Authority::new().unwrap();
    let under = |name, key| issue(&root.intermediate(name).unwrap(), "a.test", key);
    let ecdsa = under("chain of ecdsa", KeyKind::EcdsaP256);
    let rsa = under("chain of rsa", KeyKind::Rsa2048);
    let edwards = under("chain of ed25519", KeyKind::Ed25519);
    let upstream = Upstream::start(Behaviour::ok());
    let item = item("a", &["a.test"], &ecdsa, &more_pairs(&[&rsa, &edwards]));
    let gateway = Gateway::start(resources(&upstream, &[item]));
    for (args, chain) in [
        (&["-tls1_3", "-sigalgs", "ECDSA+SHA256"][..], "ecdsa"),
        (&["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "rsa"),
        (&["-tls1_3", "-sigalgs", "ed25519"], "ed25519"),
        (&["-tls1_2", "-sigalgs", "ECDSA+SHA256"], "ecdsa"),
        (&["-tls1_2", "-sigalgs", "RSA+SHA256"], "rsa"),
        (&["-tls1_2", "-sigalgs", "ed25519"], "ed25519"),
        (
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
            "rsa",
        ),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
            "ecdsa",
        ),
    ] {
        let said = shown(&gateway, "a.test", args);
        let issuer = format!("issuer=CN = chain of {chain}");
        assert!(said.contains(&issuer), "{args:?}: {issuer}\n{said}");
        for other in ["ecdsa", "rsa", "ed25519"] {
            let link = format!("chain of {other}");
            assert_eq!(said.contains(&link), other == chain, "{args:?}\n{said}");
        }
        // The leaf and its intermediate.
        assert_eq!(said.matches("BEGIN CERTIFICATE").count(), 2, "{said}");
    }
    // None of the three can be verified by these.
    for args in [
        &["-tls1_3", "-sigalgs", "ed448"][..],
        &["-tls1_3", "-sigalgs", "ECDSA+SHA384"],
        &[
            "-tls1_2",
            "-sigalgs",
            "ed448",
            "-cipher",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ],
    ] {
        assert_alert(&shown(&gateway, "a.test", args), 40);
    }
}

#[test]
fn of_two_pairs_with_one_kind_of_key_the_first_serves_and_the_other_is_told_of() {
    let authority = Authority::new().unwrap();
    let first = issue(&authority, "first.test", KeyKind::EcdsaP384);
    let second = issue(&authority, "second.test", KeyKind::EcdsaP256);
    let upstream = Upstream::start(Behaviour::ok());
    let item = item("a", &["a.test"], &first, &more_pairs(&[&second]));
    let gateway = Gateway::start(resources(&upstream, &[item]));
    let shown = subject(gateway.https(), "a.test");
    assert_eq!(shown.as_deref(), Some("first.test"));
    let said = "ssls/a certs.0: an earlier pair of the item has an ECDSA key too";
    assert!(gateway.log().contains(said), "{said}");
}

#[test]
fn an_expired_pair_is_left_out_and_the_others_serve() {
    let authority = Authority::new().unwrap();
    let over = certs::expired(&authority, &["over.test"]);
    let rsa = issue(&authority, "rsa.test", KeyKind::Rsa2048);
    let ecdsa = issue(&authority, "ecdsa.test", KeyKind::EcdsaP256);
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(resources(
        &upstream,
        &[
            item("left", &["left.test"], &over, &more_pairs(&[&rsa])),
            item("next", &["next.test"], &over, &more_pairs(&[&ecdsa])),
        ],
    ));
    let at = gateway.https();
    let only = |name, algorithm| s_client(at, &["-servername", name, "-sigalgs", algorithm]);
    assert_eq!(subject(at, "left.test").as_deref(), Some("rsa.test"));
    assert_alert(&only("left.test", "ECDSA+SHA256"), 40);
    // The second of a kind takes over where the first has ended.
    let taken = subject_in(&only("next.test", "ECDSA+SHA256"));
    assert_eq!(taken.as_deref(), Some("ecdsa.test"));
    let log = gateway.log();
    assert!(log.contains("it is not presented any more"), "{log}");
    let page = gateway.metrics_page();
    for sample in [
        "claviger_certificates{state=\"valid\"} 2",
        "claviger_certificates{state=\"expired\"} 2",
        "claviger_config_refused_items{kind=\"ssls\"} 0",
    ] {
        assert!(page.lines().any(|line| line == sample), "{sample}\n{page}");
    }
}

/// Runs the `openssl` program in a folder.
fn openssl(dir: &Path, args: &str) {
    let output = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(dir)
        .output()
        .expect("openssl is installed (scripts/setup.sh)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args}: {said}");
}

/// Every kind of key in the forms that tools write, with what those put around it.
#[test]
fn keys_serve_in_every_form_that_tools_write() {
    let dir = tempfile::tempdir().unwrap();
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let make = |name: &str, make: &str, form: &str| {
        openssl(dir.path(), &format!("{make} -out {name}.raw"));
        openssl(
            dir.path(),
            &format!(
                "req -x509 -key {name}.raw -out {name}.crt -days 9 -subj /CN={name}.test -addext subjectAltName=DNS:{name}.test"
            ),
        );
        if form.is_empty() {
            std::fs::copy(
                dir.path().join(format!("{name}.raw")),
                dir.path().join(format!("{name}.key")),
            )
            .unwrap();
        } else {
            openssl(
                dir.path(),
                &format!("{form} -in {name}.raw -out {name}.key"),
            );
        }
        (text(&format!("{name}.crt")), text(&format!("{name}.key")))
    };
    let mut pairs = vec![
        (
            "pkcs1",
            make(
                "pkcs1",
                "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048",
                "rsa -traditional",
            ),
        ),
        (
            "rsa3072",
            make(
                "rsa3072",
                "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072",
                "",
            ),
        ),
        (
            "pss",
            make(
                "pss",
                "genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048",
                "",
            ),
        ),
        // With EC PARAMETERS before the key.
        ("sec1", make("sec1", "ecparam -genkey -name prime256v1", "")),
        (
            "p384",
            make(
                "p384",
                "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384",
                "",
            ),
        ),
        ("ed25519", make("ed25519", "genpkey -algorithm ED25519", "")),
    ];
    assert!(pairs[0].1.1.contains("BEGIN RSA PRIVATE KEY"));
    assert!(pairs[3].1.1.contains("BEGIN EC PARAMETERS"));
    // One text for both, as from a PKCS#12 file, with line ends of Windows and more behind.
    let (cert, key) = &pairs[4].1;
    let bag = format!("Bag Attributes\n    localKeyID: 01\n{key}subject=x\n{cert}garbage behind\n")
        .replace('\n', "\r\n");
    pairs.push(("p384", (bag.clone(), bag)));
    let upstream = Upstream::start(Behaviour::ok());
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let items: Vec<_> = (0..)
        .zip(&pairs)
        .map(|(n, (_, (cert, key)))| {
            format!(
                "  - {{ id: i{n}, sni: i{n}.test, cert: {}, key: {} }}\n",
                quoted(cert),
                quoted(key)
            )
        })
        .collect();
    let gateway = Gateway::start(resources(&upstream, &items));
    for (n, (subject, _)) in (0..).zip(&pairs) {
        for version in ["-tls1_2", "-tls1_3"] {
            let name = format!("i{n}.test");
            let said = s_client(gateway.https(), &["-servername", &name, version]);
            let expected = format!("{subject}.test");
            assert_eq!(subject_in(&said), Some(expected), "{version}\n{said}");
        }
    }
}

#[test]
fn explain_tells_kind_end_and_fingerprint() {
    let authority = Authority::new().unwrap();
    let issued = issue(
        &authority.intermediate("middle").unwrap(),
        "a.test",
        KeyKind::EcdsaP384,
    );
    let upstream = Upstream::start(Behaviour::ok());
    let held = item("held", &["a.test"], &issued, "");
    let referred = "  - { id: far, sni: b.test, cert: $env://NO_CERT, key: $env://NO_KEY }\n";
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.yaml"), "{}\n").unwrap();
    let yaml = resources(&upstream, &[held, referred.to_owned()]) + "#END\n";
    std::fs::write(dir.path().join("apisix.yaml"), yaml).unwrap();
    std::fs::write(dir.path().join("a.pem"), &issued.cert_pem).unwrap();
    let explain = |about: &str| {
        let output = Command::new(crate::harness::gateway::program())
            .args(["explain", "--config", "config.yaml", about])
            .current_dir(dir.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let said = explain("ssls/held");
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("ssls/held: a.test"));
    let pair = lines.next().unwrap_or_default();
    assert!(
        pair.starts_with("  pair 1: ECDSA P-384, 1 further in its chain, from "),
        "{pair}"
    );
    let fingerprint = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in", "a.pem"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let fingerprint = String::from_utf8(fingerprint.stdout).unwrap();
    let (_, hex) = fingerprint.trim().split_once('=').unwrap();
    let hex = hex.replace(':', "").to_lowercase();
    assert!(pair.ends_with(&format!(" UTC, sha256 {hex}")), "{pair}");
    assert!(explain("ssls/far").contains("pair 1: its values were not read"));
}
