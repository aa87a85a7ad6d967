//! Handshakes in memory with a pair that no client was shown yet, by kind of key and protocol.

#![expect(
    missing_docs,
    reason = "`criterion_group!` makes a public function without docs"
)]

use std::hint::black_box;
use std::sync::Arc;

use claviger::tls::dev::{Authority, KeyKind, LeafOptions};
use claviger::tls::{CertifiedKey, Protocols, Rehearsal, TlsPolicy};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

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
    let issued = authority.issue(&["a.test"], &options).expect("a leaf");
    let pair = CertifiedKey::parse(issued.cert_pem.as_bytes(), &issued.key_pem);
    Arc::new(pair.expect("a pair"))
}

fn rehearsals(criterion: &mut Criterion) {
    let authority = Authority::new().expect("an authority");
    let rehearsal = Rehearsal::new(None).expect("known ciphers");
    let mut group = criterion.benchmark_group("rehearsal");
    for kind in KINDS {
        let pairs = [pair(&authority, kind)];
        for version in ["TLSv1.2", "TLSv1.3"] {
            let protocols = Protocols::parse([version]).expect("a known name");
            let policy = TlsPolicy::new("bench", protocols, None, 0);
            let id = BenchmarkId::new(format!("{kind:?}"), version);
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let rehearsed = rehearsal.rehearse(black_box(&pairs), &policy);
                    rehearsed.expect("openssl begins")
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, rehearsals);
criterion_main!(benches);
