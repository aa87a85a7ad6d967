use super::*;
use crate::secrets::Secret;
use crate::tls::dev::{Authority, KeyKind, LeafOptions};
use crate::tls::{CaBundle, ClientAuth, ClientRules};

const KINDS: [KeyKind; 4] = [
    KeyKind::EcdsaP256,
    KeyKind::EcdsaP384,
    KeyKind::Rsa2048,
    KeyKind::Ed25519,
];

fn pair(authority: &Authority, key: KeyKind) -> Arc<CertifiedKey> {
    let options = LeafOptions {
        key,
        ..LeafOptions::default()
    };
    let issued = authority.issue(&["a.test"], &options).expect("leaf");
    let cert = issued.cert_pem.as_bytes();
    Arc::new(CertifiedKey::parse(cert, &issued.key_pem).expect("a pair"))
}

fn parsed((cert, key): (Vec<u8>, Vec<u8>)) -> Arc<CertifiedKey> {
    let pair = CertifiedKey::parse(&cert, &Secret::new(key));
    Arc::new(pair.expect("it parses, and the halves fit"))
}

fn policy(protocols: &[&str], client: Option<Arc<ClientAuth>>) -> TlsPolicy {
    let protocols = Protocols::parse(protocols.iter().copied()).expect("known names");
    TlsPolicy::new("1", protocols, client, 0)
}

fn rehearse(ciphers: Option<&str>, pairs: &[Arc<CertifiedKey>], policy: &TlsPolicy) -> Rehearsed {
    let rehearsal = Rehearsal::new(ciphers).expect("known ciphers");
    let rehearsed = rehearsal.rehearse(pairs, policy);
    rehearsed.expect("openssl begins")
}

fn failures(rehearsed: &Rehearsed) -> Vec<String> {
    let failures = rehearsed.failures();
    failures
        .map(|(pair, failure)| format!("{pair}: {failure}"))
        .collect()
}

const NOTHING: &[&str] = &[];

#[test]
fn every_kind_is_served_over_the_default_protocols() {
    let root = Authority::new().expect("root");
    let middle = root.intermediate("middle").expect("intermediate");
    for kind in KINDS {
        for authority in [&root, &middle] {
            let policy = policy(&["TLSv1.2", "TLSv1.3"], None);
            let rehearsed = rehearse(None, &[pair(authority, kind)], &policy);
            assert_eq!(failures(&rehearsed), NOTHING, "{kind:?}");
            assert_eq!(rehearsed.served(), Some(Protocols::default()));
        }
    }
}

#[test]
fn of_several_pairs_each_is_shown_to_its_clients() {
    let authority = Authority::new().expect("authority");
    let kinds = [KeyKind::Rsa2048, KeyKind::EcdsaP256, KeyKind::Ed25519];
    let pairs = kinds.map(|kind| pair(&authority, kind));
    let rehearsed = rehearse(None, &pairs, &policy(&["TLSv1.2", "TLSv1.3"], None));
    assert_eq!(failures(&rehearsed), NOTHING);
    // Two with one kind of key never stand side by side: each has its turn.
    for kinds in [
        [KeyKind::Rsa2048, KeyKind::EcdsaP256, KeyKind::Rsa2048],
        [KeyKind::EcdsaP384, KeyKind::Rsa2048, KeyKind::EcdsaP256],
    ] {
        let pairs = kinds.map(|kind| pair(&authority, kind));
        let rehearsed = rehearse(None, &pairs, &policy(&["TLSv1.2", "TLSv1.3"], None));
        assert_eq!(failures(&rehearsed), NOTHING);
        assert!(rehearsed.0.iter().all(|played| played.served.is_some()));
    }
}

#[test]
fn tls_1_1_is_served_where_the_policy_allows_it() {
    let authority = Authority::new().expect("authority");
    let ciphers = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA";
    for kind in [KeyKind::Rsa2048, KeyKind::EcdsaP256] {
        let policy = policy(&["TLSv1.1", "TLSv1.3"], None);
        let rehearsed = rehearse(Some(ciphers), &[pair(&authority, kind)], &policy);
        assert_eq!(failures(&rehearsed), NOTHING, "{kind:?}");
    }
    // Ed25519 has no signature that TLS 1.1 knows, and no list of ours a cipher for it.
    let policy = policy(&["TLSv1.1"], None);
    let rehearsed = rehearse(
        Some(ciphers),
        &[pair(&authority, KeyKind::Ed25519)],
        &policy,
    );
    assert_eq!(rehearsed.served(), None);
    let rehearsed = rehearse(None, &[pair(&authority, KeyKind::Rsa2048)], &policy);
    assert_eq!(
        failures(&rehearsed),
        ["0: no TLSv1.1 handshake succeeds: no shared cipher"]
    );
}

#[test]
fn ciphers_that_fit_no_pair_leave_the_newer_protocol() {
    let authority = Authority::new().expect("authority");
    let pairs = [pair(&authority, KeyKind::Ed25519)];
    let rsa_only = Some("ECDHE-RSA-AES128-GCM-SHA256");
    let both = rehearse(rsa_only, &pairs, &policy(&["TLSv1.2", "TLSv1.3"], None));
    assert_eq!(both.served(), Some(Protocols::from(Protocol::Tls13)));
    assert_eq!(
        failures(&both),
        ["0: no TLSv1.2 handshake succeeds: no shared cipher"]
    );
    let old = rehearse(rsa_only, &pairs, &policy(&["TLSv1.2"], None));
    assert_eq!(old.served(), None);
}

#[test]
fn what_openssl_refuses_shows_with_its_reason() {
    let authority = Authority::new().expect("authority");
    let small = parsed(weak::small_ca());
    let both = policy(&["TLSv1.2", "TLSv1.3"], None);
    let rehearsed = rehearse(None, std::slice::from_ref(&small), &both);
    assert_eq!(
        failures(&rehearsed),
        ["0: openssl refuses the certificate: ca key too small"]
    );
    assert!(rehearsed.failures().all(|(_, failure)| failure.is_grave()));
    // The good pair beside it does not hide that, whether it has the same kind of key or not, and is
    // not blamed for it.
    for kind in [KeyKind::Rsa2048, KeyKind::EcdsaP256] {
        let pairs = [pair(&authority, kind), small.clone()];
        let rehearsed = rehearse(None, &pairs, &policy(&["TLSv1.3"], None));
        assert_eq!(
            failures(&rehearsed),
            ["1: openssl refuses the certificate: ca key too small"]
        );
    }
    // Level 0, which TLS 1.1 needs, takes it.
    let ciphers = Some("ECDHE-ECDSA-AES128-SHA");
    let rehearsed = rehearse(ciphers, &[small], &policy(&["TLSv1.1"], None));
    assert_eq!(failures(&rehearsed), NOTHING);
}

#[test]
fn a_key_that_cannot_sign_for_its_certificate_shows() {
    let torn = parsed(weak::torn());
    let rehearsed = rehearse(None, &[torn], &policy(&["TLSv1.2", "TLSv1.3"], None));
    assert_eq!(rehearsed.served(), None);
    assert_eq!(rehearsed.0[0].failures.len(), 2, "{rehearsed:?}");
}

#[test]
fn a_name_that_requires_a_certificate_of_clients_must_turn_the_rehearsal_away() {
    let authority = Authority::new().expect("authority");
    let ca = authority.cert_pem().expect("pem");
    let bundle = CaBundle::parse(ca.as_bytes()).expect("bundle");
    let client = Arc::new(ClientAuth::build(ClientRules::new(bundle)).expect("store"));
    for kind in KINDS {
        let policy = policy(&["TLSv1.2", "TLSv1.3"], Some(client.clone()));
        let rehearsed = rehearse(None, &[pair(&authority, kind)], &policy);
        assert_eq!(failures(&rehearsed), NOTHING, "{kind:?}");
    }
    // What is wrong besides is not hidden by that.
    let guarded = policy(&["TLSv1.2"], Some(client));
    let rsa_only = Some("ECDHE-RSA-AES128-GCM-SHA256");
    let rehearsed = rehearse(rsa_only, &[pair(&authority, KeyKind::EcdsaP256)], &guarded);
    assert_eq!(rehearsed.served(), None);
}

#[test]
fn what_is_a_pairs_own_shows_though_its_class_is_known() {
    let authority = Authority::new().expect("authority");
    let rehearsal = Rehearsal::new(None).expect("known ciphers");
    let classes = Classes::default();
    let policy = policy(&["TLSv1.2", "TLSv1.3"], None);
    let rehearse = |pair: Arc<CertifiedKey>, replaces| {
        let rehearsed = classes.rehearse(&[pair], &policy, &rehearsal, replaces);
        rehearsed.expect("openssl begins")
    };
    // The first of each kind, one that replaces another, one at the start.
    for replaces in [None, Some(Protocols::default()), None] {
        for kind in KINDS {
            let rehearsed = rehearse(pair(&authority, kind), replaces);
            assert_eq!(failures(&rehearsed), NOTHING, "{kind:?}");
            assert_eq!(rehearsed.served(), Some(Protocols::default()));
        }
        for bad in [weak::torn(), weak::small_ca()] {
            let rehearsed = rehearse(parsed(bad), replaces);
            assert_eq!(rehearsed.served(), None, "{rehearsed:?}");
        }
    }
}
