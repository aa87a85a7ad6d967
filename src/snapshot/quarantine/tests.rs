use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use openssl::asn1::Asn1Time;

use crate::clock::{Clock, SystemClock};
use crate::config::parse;
use crate::secrets::{Resolved, Secret, View};
use crate::snapshot::Snapshot;
use crate::snapshot::compile::compile;
use crate::snapshot::tests::Bench;
use crate::tls::dev::{Authority, Issued, KeyKind, LeafOptions};
use crate::tls::rehearsal::weak;
use crate::tls::{IdentityState, Rehearsal, TlsIdentity};

use super::*;

/// Values of `$env://C` (certificates), `$env://K` (key) and `$env://CA`.
struct Values {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
    version: u64,
}

impl Values {
    fn view(&self) -> View {
        let value = |name: &str, value: &[u8]| {
            let resolved = Resolved::new(&Secret::new(value.to_vec()), self.version);
            (format!("$env://{name}").into(), Ok(resolved))
        };
        let all = [
            value("C", &self.cert),
            value("K", &self.key),
            value("CA", &self.ca),
        ];
        View::new(all.into_iter().collect::<HashMap<_, _>>())
    }
}

struct Stage {
    bench: Bench,
    authority: Authority,
    version: u64,
}

impl Stage {
    fn new() -> Self {
        Self {
            bench: Bench::new(),
            authority: Authority::new().expect("authority"),
            version: 0,
        }
    }

    fn values(&mut self, cert: Vec<u8>, key: Vec<u8>) -> Values {
        self.version += 1;
        let ca = self.authority.cert_pem().expect("pem");
        Values {
            cert,
            key,
            ca: ca.into(),
            version: self.version,
        }
    }

    fn good(&mut self, key: KeyKind) -> Values {
        let options = LeafOptions {
            key,
            ..LeafOptions::default()
        };
        let issued = self.authority.issue(&["a.test"], &options);
        let Issued { cert_pem, key_pem } = issued.expect("leaf");
        self.values(cert_pem.into(), key_pem.expose().to_vec())
    }

    fn small_ca(&mut self) -> Values {
        let (cert, key) = weak::small_ca();
        self.values(cert, key)
    }

    fn compile(&self, more: &str, values: &Values, previous: Option<&Snapshot>) -> Snapshot {
        self.compile_at(SystemClock.wall(), more, values, previous)
    }

    fn compile_at(
        &self,
        now: SystemTime,
        more: &str,
        values: &Values,
        previous: Option<&Snapshot>,
    ) -> Snapshot {
        let yaml =
            format!("ssls:\n  - {{ id: a, sni: a.test, cert: $env://C, key: $env://K{more} }}\n");
        let env: parse::SharedEnv = Arc::new(|_: &str| None);
        let documents = parse::parse(&yaml, &"apisix.yaml".into(), &env).expect("valid YAML");
        compile(&documents, &values.view(), previous, &self.bench.env, now)
    }
}

fn identity(snapshot: &Snapshot) -> &Arc<TlsIdentity> {
    snapshot.names.find("a.test").expect("it is declared")
}

fn refuses(snapshot: &Snapshot) -> bool {
    matches!(identity(snapshot).state, IdentityState::Refused { .. })
}

fn refuses_at(snapshot: &Snapshot, at: SystemTime) -> bool {
    !identity(snapshot).serves(at)
}

fn is_quarantined(snapshot: &Snapshot) -> bool {
    snapshot.certificates[0].quarantined
}

fn findings(snapshot: &Snapshot) -> Vec<String> {
    let findings = snapshot.diagnostics.iter();
    let findings = findings.map(|found| {
        let (severity, field, message) = (found.severity, &found.field, &found.message);
        format!("{severity:?} {} {field}: {message}", found.code)
    });
    findings.collect()
}

fn rehearsal(ciphers: &str) -> Arc<Rehearsal> {
    Arc::new(Rehearsal::new(Some(ciphers)).expect("known ciphers"))
}

const MTLS: &str = ", client: { ca: $env://CA }";

#[test]
fn what_fails_is_quarantined_until_the_next_change() {
    let mut stage = Stage::new();
    let good = stage.good(KeyKind::EcdsaP256);
    let before = stage.compile("", &good, None);
    assert_eq!(findings(&before), [""; 0]);
    assert!(!is_quarantined(&before));

    let bad = stage.small_ca();
    let held = stage.compile("", &bad, Some(&before));
    assert!(Arc::ptr_eq(identity(&held), identity(&before)));
    assert!(is_quarantined(&held));
    let told = "Error quarantined cert: openssl refuses the certificate: ca key too small; \
                the pairs of before serve on";
    assert_eq!(findings(&held), [told]);
    assert_eq!(held.counts["ssls"].refused, 0);

    // Again something bad: what serves is still what was good.
    let worse = stage.small_ca();
    let worse = stage.compile("", &worse, Some(&held));
    assert!(Arc::ptr_eq(identity(&worse), identity(&before)));

    let healed = stage.good(KeyKind::Rsa2048);
    let healed = stage.compile("", &healed, Some(&worse));
    assert!(!Arc::ptr_eq(identity(&healed), identity(&before)));
    assert!(!is_quarantined(&healed) && !refuses(&healed));
    assert_eq!(findings(&healed), [""; 0]);
}

/// The moment of the older pair's notice stayed in force once it had passed, so that the item was
/// built again every second.
#[test]
fn a_pair_that_serves_on_is_looked_at_when_its_time_comes_and_once() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let mut stage = Stage::new();
    let options = LeafOptions {
        ends_in_secs: 20 * 24 * 3600,
        ..LeafOptions::default()
    };
    let short = stage.authority.issue(&["a.test"], &options).expect("leaf");
    let good = stage.values(short.cert_pem.into(), short.key_pem.expose().to_vec());
    let before = stage.compile("", &good, None);
    let ends = before.certificates[0].not_after().expect("it has a pair");
    let bad = stage.small_ca();
    let held = stage.compile("", &bad, Some(&before));
    let noticed = ends - stage.bench.env.certificates.expiry_notice + Duration::from_secs(1);
    assert!(held.is_due(noticed));
    let again = stage.compile_at(noticed, "", &bad, Some(&held));
    assert!(is_quarantined(&again));
    assert!(!again.is_due(noticed + DAY), "it was looked at");
    assert!(again.is_due(ends), "and will be at its end");
    let ended = stage.compile_at(ends, "", &bad, Some(&again));
    assert!(refuses_at(&ended, ends) && !ended.is_due(ends + DAY));
}

#[test]
fn quarantine_never_brings_back_what_has_expired() {
    let mut stage = Stage::new();
    let good = stage.good(KeyKind::EcdsaP256);
    let lenient = stage.compile(", serve_expired: true", &good, None);
    let ended = lenient.certificates[0].not_after().expect("it has a pair");
    let ended = ended + Duration::from_secs(1);
    assert!(!refuses_at(&lenient, ended));
    // Pairs that cannot be served, then a policy that cannot.
    let bad = stage.small_ca();
    let held = stage.compile(", serve_expired: false", &bad, Some(&lenient));
    assert!(is_quarantined(&held) && !refuses_at(&held, SystemClock.wall()));
    assert!(refuses_at(&held, ended), "serve_expired was taken back");
    let next = stage.good(KeyKind::EcdsaP256);
    let nobody = ", serve_expired: false, ssl_protocols: [TLSv1.1]";
    let closed = stage.compile(nobody, &next, Some(&lenient));
    assert!(refuses_at(&closed, ended));
}

#[test]
fn with_nothing_before_it_refuses() {
    let mut stage = Stage::new();
    let bad = stage.small_ca();
    let first = stage.compile("", &bad, None);
    assert!(refuses(&first) && !is_quarantined(&first));
    let told = "Error quarantined cert: openssl refuses the certificate: ca key too small; \
                its names refuse handshakes";
    assert_eq!(findings(&first), [told]);
    assert_eq!(first.counts["ssls"].refused, 1);
    let good = stage.good(KeyKind::EcdsaP256);
    assert!(!refuses(&stage.compile("", &good, Some(&first))));
}

#[test]
fn pairs_to_come_are_rehearsed_and_those_that_ended_are_not() {
    let mut stage = Stage::new();
    let good = stage.good(KeyKind::Rsa2048);
    let within = |times: [Result<Asn1Time, openssl::error::ErrorStack>; 2]| {
        let times = times.map(|time| time.expect("a time"));
        let (cert, key) = weak::small_ca_within(&times);
        let [cert, key] = [cert, key].map(|pem| serde_json::json!([String::from_utf8_lossy(&pem)]));
        format!(", certs: {cert}, keys: {key}")
    };
    let ended = within([Asn1Time::from_unix(0), Asn1Time::from_unix(1_000_000_000)]);
    let serves = stage.compile(&ended, &good, None);
    assert!(!refuses(&serves), "{:?}", findings(&serves));
    // Now it is to be presented after all.
    let all_the_same = format!("{ended}, serve_expired: true");
    let held = stage.compile(&all_the_same, &good, Some(&serves));
    assert!(is_quarantined(&held), "{:?}", findings(&held));
    assert!(Arc::ptr_eq(identity(&held), identity(&serves)));

    let early = within([Asn1Time::days_from_now(10), Asn1Time::days_from_now(30)]);
    let first = stage.compile(&early, &good, None);
    let told = "Error quarantined certs.0: openssl refuses the certificate: ca key too small; \
                its names refuse handshakes";
    assert!(refuses(&first));
    assert!(
        findings(&first).iter().any(|found| found == told),
        "{:?}",
        findings(&first)
    );
}

/// Serving all of before would have let in clients of a CA that was removed.
#[test]
fn quarantine_never_brings_back_who_was_trusted() {
    let mut stage = Stage::new();
    let good = stage.good(KeyKind::EcdsaP256);
    let before = stage.compile(MTLS, &good, None);
    let digest = |snapshot: &Snapshot| {
        let client = identity(snapshot).policy.client();
        client.map(|client| *client.digest())
    };
    let other = Authority::named("other").expect("authority");
    let other = other.cert_pem().expect("pem");
    let mut bad = stage.small_ca();
    bad.ca = other.into();
    let held = stage.compile(MTLS, &bad, Some(&before));
    assert!(is_quarantined(&held) && !refuses(&held));
    assert_eq!(
        held.certificates[0].not_after(),
        before.certificates[0].not_after()
    );
    assert_ne!(digest(&held), digest(&before));
    assert!(digest(&held).is_some() && identity(&held).guards_clients);

    // Asked for at the same time as the bad pair comes.
    let open = stage.compile("", &good, None);
    let bad = stage.small_ca();
    let held = stage.compile(MTLS, &bad, Some(&open));
    assert!(identity(&held).policy.client().is_some());

    // With a policy that serves nobody there is nothing that could keep clients out.
    let again = stage.good(KeyKind::EcdsaP256);
    let stricter = format!("{MTLS}, ssl_protocols: [TLSv1.1]");
    let closed = stage.compile(&stricter, &again, Some(&open));
    assert!(refuses(&closed) && identity(&closed).guards_clients);
}

#[test]
fn quarantine_never_serves_past_the_end_again() {
    let mut stage = Stage::new();
    let good = stage.good(KeyKind::EcdsaP256);
    let before = stage.compile(", serve_expired: true", &good, None);
    assert!(identity(&before).serve_expired);
    let bad = stage.small_ca();
    let held = stage.compile("", &bad, Some(&before));
    assert!(is_quarantined(&held) && !identity(&held).serve_expired);
    // A policy that serves nobody, at the same time.
    let next = stage.good(KeyKind::EcdsaP256);
    let closed = stage.compile(", ssl_protocols: [TLSv1.1]", &next, Some(&before));
    assert!(refuses(&closed));
}

#[test]
fn a_policy_that_serves_nobody_leaves_all_of_before() {
    let mut stage = Stage::new();
    let good = stage.good(KeyKind::EcdsaP256);
    let before = stage.compile("", &good, None);
    let next = stage.good(KeyKind::EcdsaP256);
    // No cipher of the list is one of TLS 1.1.
    let held = stage.compile(", ssl_protocols: [TLSv1.1]", &next, Some(&before));
    assert!(Arc::ptr_eq(identity(&held), identity(&before)));
    let told = "Error quarantined cert: no TLSv1.1 handshake succeeds: no shared cipher; \
                what served before serves on";
    assert_eq!(findings(&held), [told]);
    // An older protocol was forbidden: that stays so, at the price of refusing.
    let rsa_only = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA";
    stage.bench.env.rehearsal = rehearsal(rsa_only);
    let old = stage.compile(", ssl_protocols: [TLSv1.1]", &good, None);
    assert!(!refuses(&old), "{:?}", findings(&old));
    stage.bench.env.rehearsal = rehearsal("ECDHE-RSA-AES128-GCM-SHA256");
    let closed = stage.compile(", ssl_protocols: [TLSv1.2]", &good, Some(&old));
    assert!(refuses(&closed), "{:?}", findings(&closed));
}

#[test]
fn clients_that_were_served_must_still_be() {
    let mut stage = Stage::new();
    stage.bench.env.rehearsal = rehearsal("ECDHE-RSA-AES128-GCM-SHA256");
    let rsa = stage.good(KeyKind::Rsa2048);
    let before = stage.compile("", &rsa, None);
    assert_eq!(findings(&before), [""; 0]);
    let ecdsa = stage.good(KeyKind::EcdsaP256);
    let held = stage.compile("", &ecdsa, Some(&before));
    assert!(Arc::ptr_eq(identity(&held), identity(&before)));
    let told = "no TLSv1.2 handshake succeeds: no shared cipher";
    let quarantined = format!("Error quarantined cert: {told}; the pairs of before serve on");
    assert_eq!(findings(&held), [quarantined]);
    // Where nobody was served yet, those of TLS 1.3 are.
    let first = stage.compile("", &ecdsa, None);
    assert!(!refuses(&first));
    assert_eq!(
        findings(&first),
        [format!("Warning rehearsal cert: {told}")]
    );
}
