//! Every form beside what the `openssl` program says of the same certificate.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::tls::dev::{Authority, Issued, LeafOptions, Usage};

fn issued(authority: &Authority, name: &str) -> Issued {
    let options = LeafOptions {
        usage: Usage::Client,
        ends_in_secs: 3 * 86_400 + 600,
        ..LeafOptions::default()
    };
    authority.issue(&[name], &options).expect("leaf")
}

fn certificate(pem: &str) -> ClientCertificate {
    let chain = X509::stack_from_pem(pem.as_bytes()).expect("pem");
    ClientCertificate::new(chain[0].clone(), chain)
}

/// What stands behind `=` in the answer of `openssl x509`.
fn openssl(pem: &str, args: &[&str]) -> String {
    let mut program = Command::new("openssl")
        .args(["x509", "-noout"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut input = program.stdin.take().expect("piped");
    input.write_all(pem.as_bytes()).expect("openssl reads");
    drop(input);
    let output = program.wait_with_output().expect("openssl ends");
    let text = String::from_utf8(output.stdout).expect("text");
    let (_, value) = text.trim_end().split_once('=').expect("name=value");
    value.to_owned()
}

#[test]
fn a_chain_is_in_force_until_the_first_of_it_ends() {
    let authority = Authority::new().expect("authority");
    let [leaf, link] = [3600, 600].map(|ends_in_secs| {
        let options = LeafOptions {
            ends_in_secs,
            ..LeafOptions::default()
        };
        let issued = authority.issue(&["x"], &options).expect("leaf");
        X509::from_pem(issued.cert_pem.as_bytes()).expect("pem")
    });
    let root = authority.cert_pem().expect("pem");
    let root = X509::from_pem(root.as_bytes()).expect("pem");
    let of = |chain: &[&X509]| {
        let chain = chain.iter().map(|link| (*link).clone());
        ClientCertificate::new(leaf.clone(), chain)
    };
    let end = |certificate: &X509| time(certificate.not_after()).expect("time");
    assert_eq!(of(&[&leaf, &root]).in_force_until(), end(&leaf));
    let chained = of(&[&leaf, &link, &root]);
    assert_eq!(chained.in_force_until(), end(&link));
    assert_eq!(chained.not_after(), end(&leaf));
    // A root may end before what it issued.
    assert_eq!(of(&[&leaf, &link]).in_force_until(), end(&link));
    assert_eq!(of(&[]).in_force_until(), end(&leaf), "a resumed session");
}

#[test]
fn texts_are_those_of_openssl() {
    let authority = Authority::named("Clients, of \"us\" + more").expect("authority");
    for name in ["plain", "a+b, \"c\" <d>; e=f", "#ümlaut \n line"] {
        let pem = issued(&authority, name).cert_pem;
        let certificate = certificate(&pem);
        let rfc2253 = ["-nameopt", "RFC2253"];
        let said = openssl(&pem, &[&["-subject"][..], &rfc2253].concat());
        assert_eq!(certificate.subject(), said, "{name}");
        assert!(certificate.subject().is_ascii(), "{name}");
        let said = openssl(&pem, &[&["-issuer"][..], &rfc2253].concat());
        assert_eq!(certificate.issuer(), said);
        assert_eq!(certificate.serial(), openssl(&pem, &["-serial"]));
        let said = openssl(&pem, &["-fingerprint", "-sha1"]);
        let said = said.replace(':', "").to_lowercase();
        assert_eq!(certificate.fingerprint(), said);
        assert_eq!(certificate.starts(), openssl(&pem, &["-startdate"]));
        assert_eq!(certificate.ends(), openssl(&pem, &["-enddate"]));
    }
}

#[test]
fn pem_has_three_forms() {
    let authority = Authority::new().expect("authority");
    let pem = issued(&authority, "a").cert_pem;
    let certificate = certificate(&pem);
    assert_eq!(certificate.pem(), pem);
    let indented = certificate.indented_pem();
    assert_eq!(indented.replace("\n\t", "\n"), pem.trim_end());
    assert!(indented.lines().skip(1).all(|line| line.starts_with('\t')));
    let escaped = certificate.escaped_pem();
    assert!(
        escaped.starts_with("-----BEGIN%20CERTIFICATE-----%0AMII"),
        "{escaped}"
    );
    let back = percent_encoding::percent_decode_str(escaped).decode_utf8();
    assert_eq!(back.expect("text"), pem);
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
    assert!(escaped.bytes().all(safe), "{escaped}");
}

#[test]
fn days_left_are_whole_and_never_negative() {
    let authority = Authority::new().expect("authority");
    let certificate = certificate(&issued(&authority, "a").cert_pem);
    let now = SystemTime::now();
    assert_eq!(certificate.days_left(now), 3);
    let day = Duration::from_secs(86_400);
    assert_eq!(certificate.days_left(now + 3 * day), 0);
    assert_eq!(certificate.days_left(now + 9 * day), 0);
}

#[test]
fn fields_hold_the_leaf_and_whoever_stands_between_it_and_the_root() {
    let root = Authority::named("root").expect("authority");
    let one = root.intermediate("one").expect("authority");
    let two = one.intermediate("two").expect("authority");
    let der = |field: &str| {
        STANDARD
            .decode(field.trim().trim_matches(':'))
            .expect("base64")
    };
    for (issuer, between) in [(&root, 0), (&one, 1), (&two, 2)] {
        let sent = issued(issuer, "a").cert_pem;
        let links = X509::stack_from_pem(sent.as_bytes()).expect("pem");
        let verified = sent + &root.cert_pem().expect("pem");
        let certificate = certificate(&verified);
        let leaf = certificate.client_cert().expect("a field");
        let leaf = leaf.to_str().expect("ASCII");
        assert!(leaf.starts_with(':') && leaf.ends_with(':'), "{leaf}");
        assert_eq!(der(leaf), links[0].to_der().expect("der"));
        let chain = certificate.client_cert_chain();
        let chain = chain.map(|chain| chain.to_str().expect("ASCII").to_owned());
        let chain: Vec<_> = chain
            .iter()
            .flat_map(|chain| chain.split(", "))
            .map(der)
            .collect();
        let expected = links[1..].iter().map(|link| link.to_der().expect("der"));
        assert_eq!(chain, expected.collect::<Vec<_>>());
        assert_eq!(chain.len(), between);
    }
}
