//! Certificates in whole compilations: what time does to them, and what is shared.

use std::time::Duration;

use super::*;
use crate::config::Documents;
use crate::tls::dev::{Authority, Issued, LeafOptions};
use crate::tls::{CertifiedKey, IdentityState};

fn documents(yaml: &str) -> Documents {
    let env: parse::SharedEnv = Arc::new(|_: &str| None);
    parse::parse(yaml, &"apisix.yaml".into(), &env).expect("YAML is valid")
}

fn issue(authority: &Authority, starts_in_secs: i64, ends_in_secs: i64) -> Issued {
    let options = LeafOptions {
        starts_in_secs,
        ends_in_secs,
        ..LeafOptions::default()
    };
    authority.issue(&["a.test"], &options).expect("leaf")
}

fn item(id: &str, issued: &Issued) -> String {
    let quoted = |text: &str| serde_json::to_string(text).expect("text");
    format!(
        "  - {{ id: {id}, sni: {id}.test, cert: {}, key: {} }}\n",
        quoted(&issued.cert_pem),
        quoted(issued.key_pem.expose_str().expect("PEM"))
    )
}

fn about(snapshot: &Snapshot, id: &str) -> Vec<String> {
    let object = format!("ssls/{id}");
    let found = snapshot.diagnostics.iter();
    let found = found.filter(|found| found.object == object && !found.message.contains("cover"));
    found.map(|found| found.message.clone()).collect()
}

fn pairs(snapshot: &Snapshot, name: &str) -> Vec<Arc<CertifiedKey>> {
    let identity = snapshot.names.find(name).expect("declared");
    match &identity.state {
        IdentityState::Serving { pairs } => pairs.clone(),
        IdentityState::OnDemand(_) | IdentityState::Refused { .. } => Vec::new(),
    }
}

#[test]
fn time_alone_makes_what_is_served_and_said_new_and_nothing_else() {
    const HOUR: u64 = 3600;
    let bench = Bench::new();
    let now = bench.env.clock.wall();
    let at = |hours: u64| now + Duration::from_secs(hours * HOUR);
    let day = 24 * 3600;
    let authority = Authority::new().expect("authority");
    let short = issue(&authority, -day, 20 * day);
    let long = issue(&authority, -day, 900 * day);
    let early = issue(&authority, 10 * day, 900 * day);
    let yaml = [
        item("short", &short),
        item("long", &long),
        item("early", &early),
    ];
    let documents = documents(&format!("ssls:\n{}", yaml.concat()));
    let compile = |previous: Option<&Snapshot>, now| {
        compile(&documents, &View::default(), previous, &bench.env, now)
    };
    let first = compile(None, now);
    assert!(
        about(&first, "short").is_empty(),
        "{:?}",
        about(&first, "short")
    );
    assert!(about(&first, "early")[0].contains("not presented until then"));
    assert_eq!(first.counts["ssls"].refused, 1);

    // A notice of 14 days begins on the sixth.
    assert!(!first.is_due(at(24)) && first.is_due(at(24 * 6 + 1)));
    let same = compile(Some(&first), at(24));
    assert_eq!(same.others_built, 0);
    let noticed = compile(Some(&same), at(24 * 6 + 1));
    assert_eq!(noticed.others_built, 1);
    assert!(about(&noticed, "short")[0].starts_with("the certificate expires on "));
    assert!(Arc::ptr_eq(
        &pairs(&noticed, "short.test")[0],
        &pairs(&first, "short.test")[0]
    ));
    assert!(!noticed.is_due(at(24 * 7)));

    let begun = compile(Some(&noticed), at(24 * 11));
    assert_eq!(begun.others_built, 1);
    assert!(about(&begun, "early").is_empty());
    let ended = compile(Some(&begun), at(24 * 20 + 1));
    assert!(about(&ended, "short")[0].ends_with("it is not presented any more"));
    assert_eq!(ended.counts["ssls"].refused, 1);
    assert!(!ended.is_due(at(24 * 100)));

    // The clock was wrong: what has ended has not.
    assert!(ended.is_due(now));
    let back = compile(Some(&ended), now);
    assert!(about(&back, "short").is_empty());
    assert_eq!(back.counts["ssls"].refused, 1, "the early one again");
}

#[test]
fn chains_of_one_authority_are_kept_once() {
    let bench = Bench::new();
    let middle = Authority::new().and_then(|root| root.intermediate("middle"));
    let middle = middle.expect("middle");
    let yaml: String = (0..20)
        .map(|n| item(&format!("n{n}"), &issue(&middle, -3600, 10 * 86_400)))
        .collect();
    let documents = documents(&format!("ssls:\n{yaml}"));
    let now = bench.env.clock.wall();
    let snapshot = compile(&documents, &View::default(), None, &bench.env, now);
    let chain = |n: usize| {
        let pair = pairs(&snapshot, &format!("n{n}.test")).remove(0);
        assert_eq!(pair.intermediates().len(), 1);
        pair.intermediates().as_ptr()
    };
    assert!((1..20).all(|n| chain(n) == chain(0)));
}

#[test]
fn a_pair_for_upstreams_is_refused_once_it_has_ended() {
    let bench = Bench::new();
    let now = bench.env.clock.wall();
    let issued = issue(&Authority::new().expect("authority"), -3600, 1000);
    let quoted = |text: &str| serde_json::to_string(text).expect("text");
    let (cert, key) = (
        quoted(&issued.cert_pem),
        quoted(issued.key_pem.expose_str().expect("PEM")),
    );
    let yaml = format!(
        "ssls:\n  - {{ id: c, type: client, cert: {cert}, key: {key} }}\n\
         routes:\n  - {{ id: 1, uri: /own, upstream: {{ scheme: https, nodes: {{ '127.0.0.1:1': 1 }}, \
         tls: {{ client_cert: {cert}, client_key: {key} }} }} }}\n  \
         - {{ id: 2, uri: /by-id, upstream: {{ scheme: https, nodes: {{ '127.0.0.1:1': 1 }}, \
         tls: {{ client_cert_id: c }} }} }}\n"
    );
    let documents = documents(&yaml);
    let compile = |previous: Option<&Snapshot>, now| {
        compile(&documents, &View::default(), previous, &bench.env, now)
    };
    let outcomes = |snapshot: &Snapshot| ["/own", "/by-id"].map(|path| outcome(snapshot, path));
    let first = compile(None, now);
    assert_eq!(outcomes(&first), ["served"; 2]);
    let later = now + Duration::from_secs(2000);
    assert!(first.is_due(later));
    let ended = compile(Some(&first), later);
    assert_eq!(outcomes(&ended), ["upstream refused"; 2]);
    assert_eq!(outcomes(&compile(Some(&ended), now)), ["served"; 2]);
}
