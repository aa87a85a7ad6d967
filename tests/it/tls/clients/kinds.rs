//! Every kind of certificate, made by openssl and served to clients that check it.

use std::path::Path;

use super::*;

/// A kind: its name in the test, how openssl makes the key, and what a client sees of it.
struct Kind {
    name: &'static str,
    key: &'static [&'static str],
    bits: &'static str,
    /// As TLS 1.3 signs.
    signed: &'static str,
}

const KINDS: [Kind; 6] = [
    Kind {
        name: "rsa2048.test",
        key: &["rsa:2048"],
        bits: "2048",
        signed: "RSA-PSS",
    },
    Kind {
        name: "rsa3072.test",
        key: &["rsa:3072"],
        bits: "3072",
        signed: "RSA-PSS",
    },
    Kind {
        name: "rsa4096.test",
        key: &["rsa:4096"],
        bits: "4096",
        signed: "RSA-PSS",
    },
    Kind {
        name: "p256.test",
        key: &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        bits: "256",
        signed: "ECDSA",
    },
    Kind {
        name: "p384.test",
        key: &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        bits: "384",
        signed: "ECDSA",
    },
    Kind {
        name: "ed25519.test",
        key: &["ed25519"],
        bits: "256",
        signed: "ed25519",
    },
];

/// A certificate that is its own issuer, and its key, as PEM.
fn self_signed(dir: &Path, kind: &Kind) -> [String; 2] {
    let files = ["cert", "key"].map(|what| dir.join(format!("{}.{what}", kind.name)));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "30", "-subj"])
        .arg(format!("/CN={}", kind.name))
        .arg("-addext")
        .arg(format!("subjectAltName=DNS:{}", kind.name))
        .args(["-out", files[0].to_str().unwrap()])
        .args(["-keyout", files[1].to_str().unwrap(), "-newkey"])
        .args(kind.key)
        .output()
        .expect("openssl is installed (scripts/setup.sh)");
    assert!(made.status.success(), "{made:?}");
    files.map(|file| std::fs::read_to_string(file).unwrap())
}

#[test]
fn every_kind_of_certificate_is_served_under_both_versions() {
    let builder = Gateway::builder();
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let mut all = String::new();
    let mut items = Vec::new();
    for kind in &KINDS {
        let [cert, key] = self_signed(builder.dir(), kind);
        items.push(format!(
            "  - {{ id: {0}, sni: {0}, cert: {1}, key: {2} }}\n",
            kind.name,
            quoted(&cert),
            quoted(&key)
        ));
        all += &cert;
    }
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = builder
        .file("ca.pem", all)
        .resources(resources(&upstream, &items))
        .start();
    let ca = gateway.dir().join("ca.pem");
    let ca = ["-CAfile", ca.to_str().unwrap(), "-verify_return_error"];
    for kind in &KINDS {
        for version in ["-tls1_2", "-tls1_3"] {
            let name = ["-servername", kind.name, "-verify_hostname", kind.name];
            let args = [&name[..], &ca, &[version, "-ign_eof"]].concat();
            let said = converse(gateway.https(), &args, REQUEST);
            for expected in [
                format!("Server public key is {} bit", kind.bits),
                format!("Peer signature type: {}", kind.signed),
                "Verify return code: 0 (ok)".to_owned(),
                "HTTP/1.1 200 X".to_owned(),
            ] {
                assert!(
                    said.contains(&expected),
                    "{} {version}: {expected}\n{said}",
                    kind.name
                );
            }
        }
    }
    assert_eq!(upstream.count(), 12);
}
