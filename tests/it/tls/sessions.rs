//! Resumption.

use claviger::tls::dev::Authority;

use crate::harness::{Behaviour, Gateway, Upstream, certs};

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
