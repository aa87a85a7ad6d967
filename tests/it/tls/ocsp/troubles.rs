//! Certificates that are revoked or unknown, responders that are away or foreign: handshakes go on
//! without a response.

use super::*;

#[test]
fn what_is_not_good_is_not_stapled() {
    let authority = authority();
    let mut responder = Responder::of(&authority);
    let pair = |name| leaf(&authority, name, KeyKind::EcdsaP256, &responder);
    let [good, revoked, unknown] = ["good.test", "revoked.test", "unknown.test"].map(pair);
    responder.run(&[
        (&good.cert_pem, Standing::Good),
        (&revoked.cert_pem, Standing::Revoked),
    ]);
    let upstream = Upstream::start(Behaviour::ok());
    let items = [
        item("good", &["good.test"], &good, ENABLED),
        item("revoked", &["revoked.test"], &revoked, ENABLED),
        item("unknown", &["unknown.test"], &unknown, ENABLED),
    ];
    let gateway = listed().resources(resources(&upstream, &items)).start();
    await_staple(&gateway, "good.test");
    await_log(&gateway, "ssl revoked: ocsp: the certificate is revoked");
    await_log(
        &gateway,
        "ssl unknown: ocsp: the responder does not know the certificate",
    );
    assert!(ended(&gateway, "revoked") >= 1.0 && ended(&gateway, "unknown") >= 1.0);
    for name in ["revoked.test", "unknown.test"] {
        assert!(!stapled(&gateway, name), "{name}");
    }
    let missing = gateway.metric("claviger_ocsp_staples{state=\"missing\"}");
    assert_eq!(missing, Some(2.0));
    // Once the authority has taken it up.
    responder.run(&[(&unknown.cert_pem, Standing::Good)]);
    await_staple(&gateway, "unknown.test");
    assert!(stapled(&gateway, "good.test"), "kept while it is valid");
}

#[test]
fn a_responder_that_is_away_fails_no_handshake_and_heals() {
    let authority = authority();
    let mut responder = Responder::of(&authority);
    let pair = leaf(&authority, "a.test", KeyKind::EcdsaP256, &responder);
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = resources(&upstream, &[item("a", &["a.test"], &pair, ENABLED)]);
    let gateway = listed().resources(yaml).start();
    wait_until("it was asked", || ended(&gateway, "unreachable") >= 2.0);
    assert!(!stapled(&gateway, "a.test"));
    let told = gateway.log().matches("ssl a: ocsp: ").count();
    assert_eq!(told, 1, "one line, however often it is asked");
    responder.run(&[(&pair.cert_pem, Standing::Good)]);
    await_staple(&gateway, "a.test");
    responder.stop();
    assert!(stapled(&gateway, "a.test"), "what was said holds on");
}

#[test]
fn a_response_of_a_foreign_signer_is_stapled_with_skip_verify_only() {
    let authority = authority();
    let foreign = Authority::named("foreign").unwrap();
    let key = foreign.key_pem().unwrap();
    let key = key.expose_str().unwrap();
    let mut responder = Responder::signing_as(&authority, &foreign.cert_pem().unwrap(), key);
    let pair = |name| leaf(&authority, name, KeyKind::EcdsaP256, &responder);
    let [strict, lax] = ["strict.test", "lax.test"].map(pair);
    responder.run(&[
        (&strict.cert_pem, Standing::Good),
        (&lax.cert_pem, Standing::Good),
    ]);
    let upstream = Upstream::start(Behaviour::ok());
    let skip = "    ocsp_stapling: { enabled: true, skip_verify: true }\n";
    let yaml = resources(
        &upstream,
        &[
            item("strict", &["strict.test"], &strict, ENABLED),
            item("lax", &["lax.test"], &lax, skip),
        ],
    );
    let gateway = listed().resources(yaml.clone()).start();
    await_staple(&gateway, "lax.test");
    await_log(
        &gateway,
        "ssl strict: ocsp: the response is not signed by the certificate's authority",
    );
    assert!(!stapled(&gateway, "strict.test"));
    // Nor is what was taken unverified, once that is not wanted any more.
    gateway.write_resources(&yaml.replace(", skip_verify: true", ""));
    wait_until("it is verified", || !stapled(&gateway, "lax.test"));
}

#[test]
fn what_cannot_be_asked_about_is_told_at_load() {
    let root = Authority::new().unwrap();
    let authority = root.intermediate("issuing").unwrap();
    let responder = Responder::of(&authority);
    let alone = leaf(&root, "alone.test", KeyKind::EcdsaP256, &responder);
    let silent = certs::server(&authority, &["silent.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = resources(
        &upstream,
        &[
            item("alone", &["alone.test"], &alone, ENABLED),
            item("silent", &["silent.test"], &silent, ENABLED),
        ],
    );
    let gateway = listed().resources(yaml).start();
    await_log(
        &gateway,
        "ssls/alone cert: no OCSP response is stapled to the certificate: the certificate that \
         issued it does not follow in the chain",
    );
    await_log(
        &gateway,
        "ssls/silent cert: no OCSP response is stapled to the certificate: it names no OCSP \
         responder (authority information access)",
    );
    for name in ["alone.test", "silent.test"] {
        assert!(!stapled(&gateway, name), "{name}");
    }
}
