//! Session tickets: keys that a fleet shares, keys of one process, and what happens without any.

use std::path::{Path, PathBuf};

use claviger::tls::dev::Authority;
use serde_json::json;

use crate::harness::{Behaviour, Gateway, OpenBao, Upstream, certs, wait_until};

use super::*;

const ON: &str = "apisix: { ssl: { ssl_session_tickets: true } }";
const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// The text of a key, `key` all over.
fn key(key: u8) -> String {
    format!("{key:02x}").repeat(48)
}

fn names() -> (Upstream, String) {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["a.test", "b.test"]);
    let upstream = Upstream::start(Behaviour::ok());
    let text = resources(
        &upstream,
        &[
            item("a", &["a.test"], &issued, ""),
            item("b", &["b.test"], &issued, ""),
        ],
    );
    (upstream, text)
}

/// A gateway whose keys are the file `secrets/keys`.
fn with_file(builder: Builder) -> Builder {
    let folder = builder.dir().join("secrets");
    builder.bootstrap(ON).bootstrap(&format!(
        "claviger: {{ tls: {{ session_tickets: {{ keys: $secret://file/early/keys }} }}, secrets: {{ \
         managers: [{{ id: file/early, path: {}, ttl: 1, neg_ttl: 1 }}] }} }}",
        folder.display()
    ))
}

/// A session of this name, in a file.
fn session(gateway: &Gateway, version: &str, name: &str) -> PathBuf {
    let files = (0..).map(|n| gateway.dir().join(format!("{name}{version}-{n}")));
    let file = files.into_iter().find(|file| !file.exists()).unwrap();
    let args = [
        "-ign_eof",
        version,
        "-servername",
        name,
        "-sess_out",
        file.to_str().unwrap(),
    ];
    let said = converse(gateway.https(), &args, REQUEST);
    assert!(said.contains("New, ") && said.contains("200 X"), "{said}");
    file
}

/// Whether it resumes there. Must be served either way.
fn resumes(gateway: &Gateway, version: &str, name: &str, session: &Path) -> bool {
    let args = [
        "-ign_eof",
        version,
        "-servername",
        name,
        "-sess_in",
        session.to_str().unwrap(),
    ];
    let said = converse(gateway.https(), &args, REQUEST);
    assert!(said.contains("200 X"), "{version}\n{said}");
    assert_ne!(said.contains("Reused, "), said.contains("New, "), "{said}");
    said.contains("Reused, ")
}

fn generation(gateway: &Gateway) -> f64 {
    gateway
        .metric("claviger_tls_ticket_key_generation")
        .unwrap_or_default()
}

fn tickets(gateway: &Gateway, result: &str) -> f64 {
    let name = format!("claviger_tls_tickets_total{{result=\"{result}\"}}");
    gateway.metric(&name).expect("tickets are on")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_fleet_resumes_each_others_sessions_while_their_key_is_one_of_three() {
    let bao = OpenBao::start().await;
    bao.put_v2("edge/tickets", json!({"keys": key(1)})).await;
    let (_upstream, text) = names();
    let start = || {
        let builder = Gateway::builder().env("EARLY_TOKEN", &bao.token);
        let builder = builder.bootstrap(ON).bootstrap(&format!(
            "claviger: {{ tls: {{ session_tickets: {{ keys: $secret://vault/main/edge/tickets/keys }} }}, \
             secrets: {{ managers: [{{ id: vault/main, uri: '{}', prefix: secret, ttl: 1, neg_ttl: 1, \
             token: $env://EARLY_TOKEN }}] }} }}",
            bao.addr
        ));
        builder.resources(&text).start()
    };
    let (one, other) = (start(), start());
    let sessions = VERSIONS.map(|version| (version, session(&one, version, "a.test")));
    let all_resume = |gateway: &Gateway| {
        let resumed = sessions
            .each_ref()
            .map(|(version, file)| resumes(gateway, version, "a.test", file));
        assert_eq!(resumed[0], resumed[1], "both versions alike");
        resumed[0]
    };
    for (version, file) in &sessions {
        assert!(!resumes(&other, version, "b.test", file), "another name");
    }
    for (value, age) in [(key(1), 1.0), (key(2), 2.0), (key(3), 3.0)] {
        bao.put_v2("edge/tickets", json!({ "keys": value })).await;
        for gateway in [&one, &other] {
            wait_until("the key is in use", || generation(gateway) >= age);
            assert!(all_resume(gateway), "key {age}");
        }
    }
    // The fourth key takes the place of the first.
    bao.put_v2("edge/tickets", json!({"keys": key(4)})).await;
    for gateway in [&one, &other] {
        wait_until("the key is in use", || generation(gateway) >= 4.0);
        assert!(!all_resume(gateway));
        assert_eq!(gateway.metric("claviger_tls_ticket_keys"), Some(3.0));
        assert!(tickets(gateway, "unknown_key") >= 2.0);
    }
    // A list is all there is, so that a key can be withdrawn at once.
    let late = VERSIONS.map(|version| (version, session(&one, version, "a.test")));
    let list = format!("{},{}", key(6), key(5));
    bao.put_v2("edge/tickets", json!({ "keys": list })).await;
    wait_until("the keys are in use", || generation(&other) >= 5.0);
    for (version, file) in &late {
        assert!(!resumes(&other, version, "a.test", file), "withdrawn");
    }
    assert_eq!(other.metric("claviger_tls_ticket_keys"), Some(2.0));
    // Whoever starts now knows the same.
    wait_until("the keys are in use", || generation(&one) >= 5.0);
    let third = start();
    for version in VERSIONS {
        assert!(resumes(
            &third,
            version,
            "a.test",
            &session(&one, version, "a.test")
        ));
    }
}

#[test]
fn a_ticket_of_a_key_that_is_not_known_costs_a_full_handshake_and_nothing_else() {
    let (_upstream, text) = names();
    let start = |keys: &str| {
        let builder = Gateway::builder().bootstrap(ON).env("KEYS", keys);
        let builder =
            builder.bootstrap("claviger: { tls: { session_tickets: { keys: $env://KEYS } } }");
        builder.resources(&text).start()
    };
    // Before the others are told to seal with the next key, they are told that it opens.
    let (old, next) = (key(1), format!("{},{}", key(1), key(2)));
    let (old, next, new) = (start(&old), start(&next), start(&key(2)));
    for version in VERSIONS {
        let of_old = session(&old, version, "a.test");
        let of_new = session(&new, version, "a.test");
        assert!(!resumes(&new, version, "a.test", &of_old), "{version}");
        assert!(!resumes(&old, version, "a.test", &of_new), "{version}");
        assert!(resumes(&next, version, "a.test", &of_old), "{version}");
        assert!(resumes(&next, version, "a.test", &of_new), "{version}");
    }
    assert_eq!(tickets(&old, "unknown_key"), 2.0);
    assert_eq!(tickets(&next, "unknown_key"), 0.0);
    assert_eq!(
        (tickets(&next, "newest_key"), tickets(&next, "older_key")),
        (2.0, 2.0)
    );
    // Replaced were those of TLS 1.3, which are for one use, and that of the older key.
    assert_eq!(tickets(&next, "issued"), 3.0);
}

#[test]
fn random_keys_are_those_of_one_process() {
    let (_upstream, text) = names();
    let start = || Gateway::builder().bootstrap(ON).resources(&text).start();
    let mut first = start();
    let sessions = VERSIONS.map(|version| (version, session(&first, version, "a.test")));
    for (version, file) in &sessions {
        assert!(resumes(&first, version, "a.test", file), "{version}");
    }
    let age = first
        .metric("claviger_tls_ticket_key_age_seconds")
        .expect("there is a key");
    assert!((0.0..60.0).contains(&age), "{age}");
    first.signal(rustix::process::Signal::TERM);
    first.wait_exit();
    let second = start();
    for (version, file) in &sessions {
        assert!(!resumes(&second, version, "a.test", file), "{version}");
    }
}

#[test]
fn random_keys_rotate_and_the_third_after_is_the_end() {
    let (_upstream, text) = names();
    let gateway = Gateway::builder()
        .bootstrap(ON)
        .bootstrap("claviger: { tls: { session_tickets: { rotate: 1s } } }")
        .resources(&text)
        .start();
    let sessions = VERSIONS.map(|version| (version, session(&gateway, version, "a.test")));
    let before = generation(&gateway);
    wait_until("three keys came", || generation(&gateway) >= before + 3.0);
    for (version, file) in &sessions {
        assert!(!resumes(&gateway, version, "a.test", file), "{version}");
    }
    assert_eq!(gateway.metric("claviger_tls_ticket_keys"), Some(3.0));
}

#[test]
fn without_keys_handshakes_are_full_ones_until_there_are_some() {
    let (_upstream, text) = names();
    let gateway = with_file(Gateway::builder())
        .file("secrets/other", "x")
        .resources(&text)
        .unready()
        .start();
    wait_until("the listeners accept", || {
        TcpStream::connect(gateway.https()).is_ok()
    });
    assert!(!gateway.is_ready(), "a reference in use has no value");
    let none = |version: &str| {
        let file = session(&gateway, version, "a.test");
        // Where a session came at all, it is good for nothing.
        !file.exists() || !resumes(&gateway, version, "a.test", &file)
    };
    assert!(VERSIONS.iter().all(|version| none(version)));
    let args = ["-tls1_3", "-servername", "a.test", "-ign_eof"];
    let hint = converse(gateway.https(), &args, REQUEST);
    assert!(!hint.contains("TLS session ticket:"), "{hint}");
    assert_eq!(gateway.metric("claviger_tls_ticket_keys"), Some(0.0));

    gateway.write_file("secrets/keys", key(1));
    wait_until("there are keys", || generation(&gateway) >= 1.0);
    wait_until("the gateway is ready", || gateway.is_ready());
    let sessions = VERSIONS.map(|version| (version, session(&gateway, version, "a.test")));
    let resume = || {
        let mut all = sessions.iter();
        all.all(|(version, file)| resumes(&gateway, version, "a.test", file))
    };
    assert!(resume());

    // What is no key changes nothing, and is told without being repeated.
    gateway.write_file("secrets/keys", "hunter2");
    wait_until("the mistake is told", || {
        gateway.log().contains("session-tickets")
    });
    let log = gateway.log();
    let line = log
        .lines()
        .find(|line| line.contains("session-tickets"))
        .unwrap();
    for part in [
        "config.yaml:",
        "session_tickets.keys",
        "expected key 1",
        "the last good keys serve on",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!log.contains("hunter2"));
    assert!(resume());
    assert_eq!(generation(&gateway), 1.0);

    // What is gone opens nothing any more.
    std::fs::remove_file(gateway.dir().join("secrets/keys")).unwrap();
    wait_until("the keys are gone", || {
        gateway.metric("claviger_tls_ticket_keys") == Some(0.0)
    });
    assert!(VERSIONS.iter().all(|version| none(version)));
    assert!(!resume());
}

#[test]
fn a_session_from_where_a_name_is_open_opens_it_nowhere_else() {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["m.test"]);
    let guard = format!(
        "    client: {{ ca: {} }}\n",
        serde_json::to_string(&authority.cert_pem().unwrap()).unwrap()
    );
    let upstream = Upstream::start(Behaviour::ok());
    let start = |more: &str| {
        let text = resources(&upstream, &[item("m", &["m.test"], &issued, more)]);
        let builder = Gateway::builder().bootstrap(ON).env("KEYS", &key(1));
        let builder =
            builder.bootstrap("claviger: { tls: { session_tickets: { keys: $env://KEYS } } }");
        builder.resources(text).start()
    };
    let (open, guarded) = (start(""), start(&guard));
    for version in VERSIONS {
        let file = session(&open, version, "m.test");
        assert!(resumes(&open, version, "m.test", &file), "{version}");
        let served = upstream.count();
        let args = [
            "-ign_eof",
            version,
            "-servername",
            "m.test",
            "-sess_in",
            file.to_str().unwrap(),
        ];
        let said = converse(guarded.https(), &args, REQUEST);
        assert!(
            !said.contains("Reused, ") && !said.contains("HTTP/1.1"),
            "{said}"
        );
        assert_eq!(upstream.count(), served);
    }
}

#[test]
fn tickets_are_for_ten_minutes_and_one_a_handshake() {
    let (_upstream, text) = names();
    let gateway = Gateway::builder().bootstrap(ON).resources(&text).start();
    for version in VERSIONS {
        let args = ["-ign_eof", version, "-servername", "a.test"];
        let said = converse(gateway.https(), &args, REQUEST);
        let hints = said
            .matches("TLS session ticket lifetime hint: 600 (seconds)")
            .count();
        assert_eq!(hints, 1, "{version}\n{said}");
    }
    assert_eq!(tickets(&gateway, "issued"), 2.0);
}

#[test]
fn keys_are_a_reference_or_none() {
    for (tickets, told) in [
        ("{ keys: 0123456789abcdef }", "expected a reference"),
        ("{ rotate: 500ms }", "expected at least 1s"),
        ("{ rotate: never }", "expected a duration"),
        ("{ key: $env://KEYS }", "claviger.tls.session_tickets.key"),
    ] {
        let mut gateway = Gateway::builder()
            .bootstrap(ON)
            .bootstrap(&format!(
                "claviger: {{ tls: {{ session_tickets: {tickets} }} }}"
            ))
            .resources("")
            .spawn();
        assert!(!gateway.wait_exit().success(), "{tickets}");
        let log = gateway.log();
        assert!(log.contains(told), "{tickets}: {told}\n{log}");
        assert!(!log.contains("0123456789abcdef"), "{log}");
    }
    // Nobody reads keys that nothing seals with.
    let gateway = Gateway::builder()
        .bootstrap("claviger: { tls: { session_tickets: { keys: $env://NO_SUCH_KEYS } } }")
        .resources("")
        .start();
    let log = gateway.log();
    assert!(
        log.contains("has no effect while apisix.ssl.ssl_session_tickets is false"),
        "{log}"
    );
    assert_eq!(gateway.metric("claviger_tls_ticket_keys"), None);
}
