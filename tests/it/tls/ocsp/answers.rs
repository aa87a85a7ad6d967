//! What answers are worth, by the answers of the real `openssl ocsp`.

use std::time::SystemTime;

use claviger::tls::CertifiedKey;
use claviger::tls::ocsp::{Question, Unasked, Unfit};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn question(pair: &Issued) -> Question {
    let parsed = CertifiedKey::parse(pair.cert_pem.as_bytes(), &pair.key_pem).unwrap();
    Question::about(&parsed).unwrap()
}

/// What an answer of this signer is worth.
fn worth(authority: &Authority, certificate: &str, key: &str, verify: bool) -> Option<Unfit> {
    let responder = Responder::signing_as(authority, certificate, key);
    let pair = leaf(authority, "a.test", KeyKind::EcdsaP256, &responder);
    let question = question(&pair);
    let known = [(&*pair.cert_pem, Standing::Good)];
    let answer = responder.answer(&question.request().unwrap(), &known);
    question.judge(&answer, verify, SystemTime::now()).err()
}

#[test]
fn an_answer_holds_in_its_time_for_its_certificate() {
    let authority = authority();
    let responder = Responder::of(&authority);
    let [one, other] = [0, 1].map(|_| leaf(&authority, "a.test", KeyKind::EcdsaP256, &responder));
    let asked = question(&one);
    assert_eq!(asked.responder().as_str(), responder.url());
    let request = asked.request().unwrap();
    let known = [
        (&*one.cert_pem, Standing::Good),
        (&*other.cert_pem, Standing::Good),
    ];
    let answer = responder.answer(&request, &known);
    let now = SystemTime::now();
    let good = asked.judge(&answer, true, now).expect("good");
    assert_eq!(*good.der, *answer);
    let left = good.next_update.unwrap().duration_since(now).unwrap();
    assert!(left > DAY / 2 && left <= DAY, "{left:?}");
    // What stands behind the response is not passed on.
    let longer = [&answer[..], b"more"].concat();
    let good = asked.judge(&longer, true, now).expect("good");
    assert_eq!(*good.der, *answer);

    let judge = |answer: &[u8], at| asked.judge(answer, true, at).err();
    assert_eq!(judge(&answer, now + 2 * DAY), Some(Unfit::Late));
    assert_eq!(judge(&answer, now - DAY), Some(Unfit::Early));
    assert_eq!(
        judge(&answer[..answer.len() - 1], now),
        Some(Unfit::Garbled)
    );
    assert_eq!(judge(b"", now), Some(Unfit::Garbled));
    let mut forged = answer.clone();
    // The last digit of when it was made.
    let time = forged.windows(2).position(|two| two == b"\x18\x0f");
    forged[time.unwrap() + 2 + 13] ^= 1;
    assert_eq!(judge(&forged, now), Some(Unfit::Unsigned));
    let elsewhere = question(&other).judge(&answer, true, now).err();
    assert_eq!(elsewhere, Some(Unfit::Elsewhere));

    for (known, unfit) in [
        (&[(&*one.cert_pem, Standing::Revoked)][..], Unfit::Revoked),
        (&[], Unfit::Unknown),
    ] {
        let answer = responder.answer(&request, known);
        for verify in [true, false] {
            let judged = asked.judge(&answer, verify, now).err();
            assert_eq!(
                judged,
                Some(unfit),
                "skip_verify skips no more than the signature"
            );
        }
    }
}

#[test]
fn only_the_authority_and_who_it_made_its_responder_may_sign() {
    let root = Authority::new().unwrap();
    let authority = root.intermediate("issuing").unwrap();
    let text = |authority: &Authority| {
        let key = authority.key_pem().unwrap();
        (
            authority.cert_pem().unwrap(),
            key.expose_str().unwrap().to_owned(),
        )
    };
    let (cert, key) = text(&authority);
    assert_eq!(worth(&authority, &cert, &key, true), None);
    // Of another authority, of one that has the same name, of the one above.
    let namesake = Authority::named("issuing").unwrap();
    for foreign in [&Authority::new().unwrap(), &namesake, &root] {
        let (cert, key) = text(foreign);
        assert_eq!(worth(&authority, &cert, &key, true), Some(Unfit::Unsigned));
        assert_eq!(worth(&authority, &cert, &key, false), None);
    }
    // A certificate of the authority: any server's would do else.
    let server = certs::server(&authority, &["signer.test"]);
    let key = certs::key_text(&server);
    assert_eq!(
        worth(&authority, &server.cert_pem, key, true),
        Some(Unfit::Unsigned)
    );
    let (cert, key) = delegate(&authority);
    assert_eq!(worth(&authority, &cert, &key, true), None);
}

#[test]
fn nobody_is_asked_without_issuer_or_address() {
    let root = Authority::new().unwrap();
    let authority = root.intermediate("issuing").unwrap();
    let about = |authority: &Authority, responder: Option<&str>| {
        let options = LeafOptions {
            responder: responder.map(str::to_owned),
            ..LeafOptions::default()
        };
        let pair = authority.issue(&["a.test"], &options).unwrap();
        let pair = CertifiedKey::parse(pair.cert_pem.as_bytes(), &pair.key_pem).unwrap();
        Question::about(&pair).err()
    };
    let url = format!("http://127.0.0.1:1/{}", "x".repeat(200));
    assert_eq!(about(&authority, Some(&url)), None);
    assert_eq!(about(&root, Some(&url)), Some(Unasked::NoIssuer));
    assert_eq!(about(&authority, None), Some(Unasked::NoResponder));
    assert_eq!(
        about(&authority, Some("ldap://a.test")),
        Some(Unasked::NoResponder)
    );
}

/// A certificate of the authority for signing responses, and its key.
fn delegate(authority: &Authority) -> (String, String) {
    let responder = Responder::of(authority);
    let home = responder.home();
    std::fs::write(home.join("extensions"), "extendedKeyUsage=OCSPSigning\n").unwrap();
    let openssl = |args: &str| {
        let mut command = Command::new("openssl");
        let command = command.args(args.split(' ')).current_dir(home);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    openssl(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout own.key -subj /CN=r \
         -out own.csr",
    );
    openssl(
        "x509 -req -in own.csr -CA ca.pem -CAkey signer.key -extfile extensions -days 1 -out \
         own.pem",
    );
    let text = |name: &str| std::fs::read_to_string(home.join(name)).unwrap();
    (text("own.pem"), text("own.key"))
}
