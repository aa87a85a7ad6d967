//! Certificates that change or go, and configurations that do.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_in_use_follows_its_document_and_is_refused_when_that_is_deleted() {
    let setting = Setting {
        manager: "ttl: 1, neg_ttl: 1",
        on_demand: "{ neg_ttl: 60 }",
        ..Setting::default()
    };
    let stage = setting.start().await;
    for _ in 0..3 {
        let issued = stage.write("a.demand.test").await;
        let wanted = serial(&issued);
        wait_until("the new certificate is shown", || {
            stage.shake("a.demand.test").unwrap().serial == wanted
        });
    }
    // Half of a pair changes nothing.
    let other = certs::server(&stage.authority, &["a.demand.test"]);
    let good = stage.shake("a.demand.test").unwrap();
    let misfit = json!({"cert": other.cert_pem, "key": certs::key_text(&certs::server(&stage.authority, &["a.demand.test"]))});
    stage.bao.put_v2("edge/tls/a.demand.test", misfit).await;
    let said = "a.demand.test: the private key does not belong to the certificate; the last good pair serves on";
    wait_until("the misfit is told", || {
        assert_eq!(stage.shake("a.demand.test").as_ref(), Ok(&good));
        stage.gateway.log().contains(said)
    });
    stage.bao.delete_v2("edge/tls/a.demand.test").await;
    wait_until("the name is refused", || {
        stage.shake("a.demand.test").is_err()
    });
    let reads = stage.reads();
    stage.shake("a.demand.test").unwrap_err();
    assert_eq!(stage.reads(), reads, "and that is remembered");
    let of = "$secret://vault/main/tls/a.demand.test/cert";
    wait_until("the audit log knows", || {
        stage.audited("adopted", of) >= 3 && stage.audited("refused", of) == 1
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_names_in_use_are_read_again_and_a_rested_one_before_it_is_served() {
    let setting = Setting {
        manager: "ttl: 1, neg_ttl: 1",
        ..Setting::default()
    };
    let stage = setting.start().await;
    for name in ["a.demand.test", "b.demand.test"] {
        stage.write(name).await;
        stage.shake(name).unwrap();
    }
    wait_until("the one in use is read five times", || {
        stage.shake("b.demand.test").unwrap();
        stage.reads_of("b.demand.test") >= 5
    });
    // Its first handshake counts as a use.
    assert!(stage.reads_of("a.demand.test") <= 2);
    let newer = stage.write("a.demand.test").await;
    let shown = stage.shake("a.demand.test").unwrap();
    assert_eq!(
        shown.serial,
        serial(&newer),
        "older than its ttl: looked at first"
    );
    assert!(stage.reads_of("a.demand.test") <= 3);
}

/// What `openssl s_client` says to one request, its session written to or read from that file.
fn visit(stage: &Stage, version: &str, name: &str, way: &str, session: &str) -> String {
    let session = stage.gateway.dir().join(session);
    let session = session.to_str().unwrap();
    let args = ["-ign_eof", version, "-servername", name, way, session];
    converse(stage.gateway.https(), &args, REQUEST)
}

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_of_a_first_handshake_resumes_for_its_name_only() {
    let stage = Setting::default().start().await;
    for version in VERSIONS {
        let name = format!("a{version}.demand.test").replace(['_', '-'], "x");
        stage.write(&name).await;
        stage.write("other.demand.test").await;
        let said = visit(&stage, version, &name, "-sess_out", "session");
        assert!(said.contains("New, ") && said.contains("200 X"), "{said}");
        for (name, way) in [(&*name, "Reused, "), ("other.demand.test", "New, ")] {
            let said = visit(&stage, version, name, "-sess_in", "session");
            let fits = said.contains(way) && said.contains("200 X");
            assert!(fits, "{version} {name} {way}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lives_no_longer_than_its_certificate() {
    let setting = Setting {
        manager: "ttl: 1, neg_ttl: 1",
        ..Setting::default()
    };
    let stage = setting.start().await;
    let name = "a.demand.test";
    stage.write(name).await;
    let enter = || {
        for version in VERSIONS {
            let said = visit(&stage, version, name, "-sess_out", version);
            assert!(said.contains("New, ") && said.contains("200 X"), "{said}");
        }
    };
    enter();
    let newer = stage.write(name).await;
    wait_until("the new certificate is shown", || {
        stage.shake(name).unwrap().serial == serial(&newer)
    });
    for version in VERSIONS {
        let said = visit(&stage, version, name, "-sess_in", version);
        assert!(
            said.contains("New, ") && said.contains("200 X"),
            "{version}: {said}"
        );
    }
    enter();
    stage.bao.delete_v2(&format!("edge/tls/{name}")).await;
    wait_until("the name is refused", || stage.shake(name).is_err());
    for version in VERSIONS {
        let said = visit(&stage, version, name, "-sess_in", version);
        assert!(!said.contains("200 X"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_what_was_fetched_while_the_references_stay() {
    let mut setting = Setting::default();
    let stage = setting.start().await;
    stage.write("a.demand.test").await;
    stage.shake("a.demand.test").unwrap();
    let revision = "claviger_config_revision";
    let reload = |setting: &Setting, more: &str| {
        let before = stage.metric(revision);
        let text = setting.resources(&stage.relay.uri(), &stage.bao.token, &stage.upstream);
        stage.gateway.write_resources(&format!("{text}{more}"));
        wait_until("it is in force", || stage.metric(revision) > before);
    };
    reload(&setting, "  - { id: more, uri: /more, plugins: {} }\n");
    setting.on_demand = "{ max_names: 7 }";
    setting.item = "    ssl_protocols: [TLSv1.2]\n".to_owned();
    reload(&setting, "");
    stage.shake("a.demand.test").unwrap();
    assert_eq!(stage.reads(), 1, "names stay");

    let issued = certs::server(&stage.authority, &["a.demand.test"]);
    let fields = json!({"cert": issued.cert_pem, "key": certs::key_text(&issued)});
    stage.bao.put_v2("edge/new/a.demand.test", fields).await;
    setting.places = ["new/{sni}/cert", "new/{sni}/key"];
    reload(&setting, "");
    let shown = stage.shake("a.demand.test").unwrap();
    assert_eq!(
        shown.serial,
        serial(&issued),
        "other references are other certificates"
    );
    assert_eq!(stage.reads(), 2);
}
