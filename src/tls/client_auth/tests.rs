//! Digests, paths, names told to clients. What handshakes make of it: `tests/it/tls`.

use super::*;
use crate::expr::pattern;
use crate::tls::dev::Authority;

fn authority(name: &str) -> Authority {
    Authority::named(name).expect("authority")
}

fn bundle(authorities: &[&Authority]) -> CaBundle {
    let pem: String = authorities
        .iter()
        .map(|authority| authority.cert_pem().expect("pem"))
        .collect();
    CaBundle::parse(pem.as_bytes()).expect("bundle")
}

fn built(ca: &Authority, change: impl FnOnce(&mut ClientRules)) -> ClientAuth {
    let mut rules = ClientRules::new(bundle(&[ca]));
    change(&mut rules);
    ClientAuth::build(rules).expect("rules hold")
}

fn lists(ca: &Authority, ends_in_secs: i64) -> RevocationLists {
    let pem = ca.revoke(&[], ends_in_secs).expect("list");
    RevocationLists::parse(pem.as_bytes()).expect("it parses")
}

#[test]
fn the_digest_changes_with_what_a_verdict_depends_on_and_with_nothing_else() {
    let (ca, other) = (authority("one"), authority("one"));
    let base = built(&ca, |_| {});
    let changed = [
        built(&other, |_| {}),
        built(&ca, |rules| rules.depth = 2),
        built(&ca, |rules| rules.revoked = Some(lists(&ca, 3600))),
        built(&ca, |rules| rules.revoked = Some(lists(&ca, 7200))),
        built(&ca, |rules| rules.forward = Forward::Chain),
    ];
    for (index, one) in changed.iter().enumerate() {
        assert_ne!(base.digest(), one.digest(), "{index}");
        for two in &changed[index + 1..] {
            assert_ne!(one.digest(), two.digest(), "{index}");
        }
    }
    for same in [
        built(&ca, |_| {}),
        built(&ca, |rules| rules.exempt = Some(Vec::new())),
        built(&ca, |rules| rules.forward = Forward::Leaf),
    ] {
        assert_eq!(base.digest(), same.digest());
    }
}

#[test]
fn paths_are_searched_for_the_patterns() {
    let ca = authority("one");
    let patterns = ["^/open/", "health$"].map(|text| pattern::compile(text, false));
    let patterns = patterns.map(|pattern| pattern.expect("pattern"));
    let auth = built(&ca, |rules| rules.exempt = Some(patterns.into()));
    assert!(!auth.is_enforced_in_handshake());
    for (path, exempt) in [
        ("/open/a", true),
        ("/a/health", true),
        ("/healthy", false),
        ("/a/open/", false),
        ("/", false),
    ] {
        assert_eq!(auth.exempts(path), exempt, "{path}");
    }
    let strict = built(&ca, |_| {});
    assert!(strict.is_enforced_in_handshake() && !strict.exempts("/"));
}

#[test]
fn clients_are_told_each_name_once() {
    let (one, two, three) = (authority("same"), authority("same"), authority("third"));
    let bundle = bundle(&[&one, &two, &three]);
    assert_eq!(bundle.certificates().len(), 3);
    assert_eq!(hints(&bundle).len(), 2);
}

#[test]
fn lists_that_ended_make_everything_out_of_date() {
    let ca = authority("one");
    let now = SystemTime::now();
    let out = |ends| {
        let auth = built(&ca, |rules| rules.revoked = Some(lists(&ca, ends)));
        auth.is_out_of_date(now)
    };
    assert!(!out(3600));
    assert!(out(-60));
    assert!(!built(&ca, |_| {}).is_out_of_date(now));
}
