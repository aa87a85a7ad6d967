//! Resumption.

use claviger::tls::dev::Authority;

use crate::harness::{Behaviour, Gateway, Upstream, certs, wait_until};

use super::*;

#[test]
fn sessions_resume_for_their_own_name_only() {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["a.test", "b.test", "*.w.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let text = resources(
        &upstream,
        &[
            item("a", &["a.test"], &issued, ""),
            item("b", &["b.test"], &issued, ""),
            item("w", &["*.w.test"], &issued, ""),
        ],
    );
    for tickets in ["true", "false"] {
        let gateway = Gateway::builder()
            .bootstrap(&format!(
                "apisix: {{ ssl: {{ ssl_session_tickets: {tickets} }} }}"
            ))
            .resources(&text)
            .start();
        let session = gateway.dir().join("session");
        let session = session.to_str().unwrap();
        for version in ["-tls1_2", "-tls1_3"] {
            for (first, second, way) in [
                ("a.test", "a.test", "Reused, "),
                ("a.test", "b.test", "New, "),
                ("x.w.test", "x.w.test", "Reused, "),
                ("x.w.test", "y.w.test", "New, "),
            ] {
                let common = ["-ign_eof", version, "-servername"];
                let args = [&common[..], &[first, "-sess_out", session]].concat();
                let said = converse(gateway.https(), &args, REQUEST);
                assert!(said.contains("New, "), "{said}");
                let args = [&common[..], &[second, "-sess_in", session]].concat();
                let said = converse(gateway.https(), &args, REQUEST);
                assert!(
                    said.contains(way) && said.contains("200 X"),
                    "tickets {tickets}, {version}, {first} then {second}: {way}\n{said}"
                );
            }
        }
    }
}

#[test]
fn a_session_of_an_open_name_opens_no_guarded_one() {
    let (upstream, gateway) = start_mtls();
    let session = gateway.dir().join("session");
    let session = session.to_str().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let common = ["-ign_eof", version, "-servername"];
        let args = [&common[..], &["o.test", "-sess_out", session]].concat();
        let said = converse(gateway.https(), &args, REQUEST);
        assert!(said.contains("200 X"), "{said}");
        let served = upstream.count();
        let args = [&common[..], &["m.test", "-sess_in", session]].concat();
        let said = converse(gateway.https(), &args, REQUEST);
        assert!(!said.contains("Reused, "), "{said}");
        assert!(!said.contains("HTTP/1.1"), "{said}");
        assert_eq!(upstream.count(), served);
    }
}

#[test]
fn sessions_in_memory_outlive_the_connection_however_it_ends_and_new_certificates() {
    let authority = Authority::new().unwrap();
    let upstream = Upstream::start(Behaviour::ok());
    let text = || {
        let issued = certs::server(&authority, &["a.test"]);
        resources(&upstream, &[item("a", &["a.test"], &issued, "")])
    };
    let gateway = Gateway::start(text());
    let session = gateway.dir().join("session");
    let session = session.to_str().unwrap();
    let kept = || gateway.metric("claviger_tls_sessions").expect("it is told");
    for version in ["-tls1_2", "-tls1_3"] {
        let resume = || {
            let args = [
                "-ign_eof",
                version,
                "-servername",
                "a.test",
                "-sess_in",
                session,
            ];
            let said = converse(gateway.https(), &args, REQUEST);
            assert!(said.contains("200 X"), "{said}");
            said.contains("Reused, ")
        };
        let begin = |more: &[&str], request| {
            let _ = std::fs::remove_file(session);
            let args = [version, "-servername", "a.test", "-sess_out", session];
            let said = converse(gateway.https(), &[&args[..], more].concat(), request);
            assert!(said.contains("New, "), "{said}");
        };
        let before = kept();
        // The client ends the connection, after its request or without one.
        for request in ["GET / HTTP/1.1\r\nHost: none\r\n\r\n", ""] {
            begin(&[], request);
            // In TLS 1.3 it may be gone before the session came.
            let has_session = std::path::Path::new(session).exists();
            assert!(has_session || version == "-tls1_3");
            assert!(!has_session || resume(), "{version}");
        }
        wait_until("both sessions are kept", || kept() >= before + 2.0);
        begin(&["-ign_eof"], REQUEST);
        assert!(resume() && resume(), "as often as it likes: {version}");
        let revision = gateway.metric("claviger_config_revision");
        gateway.write_resources(&text());
        wait_until("the new certificate is in force", || {
            gateway.metric("claviger_config_revision") > revision
        });
        assert!(resume(), "the policy is the same: {version}");
    }
}
