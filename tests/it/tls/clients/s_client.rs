//! openssl: groups and a second hello, signatures, sessions taken up again, records of any size; and
//! of hybrid groups the library, for `s_client` knows them only since 3.5.

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};

use super::*;

/// How many ServerHellos there were: a HelloRetryRequest is one too.
fn server_hellos(said: &str) -> usize {
    said.lines()
        .filter(|line| line.starts_with("<<<") && line.ends_with("ServerHello"))
        .count()
}

#[test]
fn groups_are_agreed_upon_in_one_round_trip_or_two() {
    let (_upstream, gateway) = two_names();
    let name = ["-servername", "a.test", "-msg", "-groups"];
    for (groups, version, used, hellos) in [
        ("X25519", "-tls1_3", "X25519, 253 bits", 1),
        ("P-256", "-tls1_3", "ECDH, prime256v1, 256 bits", 1),
        ("P-384", "-tls1_3", "ECDH, secp384r1, 384 bits", 1),
        ("P-256", "-tls1_2", "ECDH, prime256v1, 256 bits", 1),
        // The client has a share of a group we do not take, and is asked for another.
        ("X448:P-384", "-tls1_3", "ECDH, secp384r1, 384 bits", 2),
        ("P-521:P-256", "-tls1_3", "ECDH, prime256v1, 256 bits", 2),
        // Both are ours and the share is of the second: not worth a second round trip.
        ("P-256:X25519", "-tls1_3", "ECDH, prime256v1, 256 bits", 1),
        // A slower group than need be.
        ("P-384:X25519", "-tls1_3", "X25519, 253 bits", 2),
    ] {
        let said = s_client(gateway.https(), &[&name[..], &[groups, version]].concat());
        let used = format!("Server Temp Key: {used}");
        assert!(said.contains(&used), "{groups} {version}: {used}\n{said}");
        assert_eq!(server_hellos(&said), hellos, "{groups} {version}\n{said}");
        assert_eq!(subject_in(&said).as_deref(), Some("a.test"), "{groups}");
    }
    for groups in ["P-521", "X448"] {
        for version in ["-tls1_2", "-tls1_3"] {
            let said = s_client(gateway.https(), &[&name[..], &[groups, version]].concat());
            assert_alert(&said, 40);
        }
    }
}

#[test]
fn a_second_hello_must_not_ask_for_another_name() {
    // `-groups` makes the second hello; the name in it is the same, and each is served as its own.
    let (_upstream, gateway) = two_names();
    for name in ["a.test", "b.test"] {
        let args = [
            "-servername",
            name,
            "-tls1_3",
            "-groups",
            "X448:P-256",
            "-msg",
        ];
        let said = s_client(gateway.https(), &args);
        assert_eq!(server_hellos(&said), 2, "{said}");
        assert_eq!(subject_in(&said).as_deref(), Some(name), "{said}");
    }
    let args = [
        "-servername",
        "c.test",
        "-tls1_3",
        "-groups",
        "X448:P-256",
        "-msg",
    ];
    let said = s_client(gateway.https(), &args);
    assert_eq!(
        server_hellos(&said),
        0,
        "refused at its first hello\n{said}"
    );
    assert_alert(&said, 112);
}

#[test]
fn the_hybrid_group_is_agreed_upon() {
    let (_upstream, gateway) = two_names();
    for (groups, agreed) in [
        ("X25519MLKEM768", true),
        ("X25519MLKEM768:X25519", true),
        ("X25519:X25519MLKEM768", true),
        ("MLKEM768", false),
        ("SecP256r1MLKEM768", false),
    ] {
        let mut client = SslConnector::builder(SslMethod::tls_client()).unwrap();
        client.set_groups_list(groups).unwrap();
        client.set_verify(SslVerifyMode::NONE);
        let stream = TcpStream::connect(gateway.https()).unwrap();
        let connected = client.build().connect("a.test", stream);
        assert_eq!(connected.is_ok(), agreed, "{groups}");
    }
}

#[test]
fn a_certificate_is_signed_with_as_the_client_can_verify() {
    let (_upstream, gateway) = two_names();
    for version in ["-tls1_2", "-tls1_3"] {
        let ask = |algorithms: &str| {
            let name = ["-servername", "a.test", version, "-sigalgs", algorithms];
            s_client(gateway.https(), &name)
        };
        for algorithms in ["ECDSA+SHA256", "RSA-PSS+SHA256:ECDSA+SHA256"] {
            let said = ask(algorithms);
            assert!(
                said.contains("Peer signing digest: SHA256"),
                "{version} {algorithms}\n{said}"
            );
            assert!(
                said.contains("Peer signature type: ECDSA"),
                "{version} {algorithms}\n{said}"
            );
        }
        assert_alert(&ask("RSA-PSS+SHA256"), 40);
    }
}

/// `-reconnect` ends each connection itself, as soon as it stands, and comes back five times.
#[test]
fn a_client_that_closes_first_resumes_whenever_it_comes_back() {
    for tickets in [false, true] {
        let bootstrap = format!("apisix: {{ ssl: {{ ssl_session_tickets: {tickets} }} }}");
        let builder = Gateway::builder().bootstrap(&bootstrap);
        let (_upstream, gateway) = start(builder, &["a.test", "b.test"]);
        for name in ["a.test", "b.test"] {
            let args = ["-servername", name, "-tls1_2", "-reconnect"];
            let said = s_client(gateway.https(), &args);
            let times = |way: &str| {
                said.matches(&format!("{way}, TLSv1.2, Cipher is ECDHE"))
                    .count()
            };
            let ways = (times("New"), times("Reused"));
            assert_eq!(ways, (1, 5), "tickets {tickets}, {name}\n{said}");
        }
    }
}

#[test]
fn records_may_be_as_small_as_they_like() {
    let authority = Authority::new().unwrap();
    let issued = certs::server(&authority, &["a.test"]);
    let upstream = Upstream::start(Behaviour::EchoBody);
    let gateway = Gateway::start(resources(&upstream, &[item("a", &["a.test"], &issued, "")]));
    let body: String = ('a'..='z').cycle().take(40_000).collect();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for version in ["-tls1_2", "-tls1_3"] {
        for sizes in [
            &["-max_send_frag", "512"][..],
            &["-max_send_frag", "512", "-split_send_frag", "512"],
            // Ours are then as small, too (RFC 6066 §4).
            &["-maxfraglen", "512"],
            &["-maxfraglen", "512", "-max_send_frag", "512"],
        ] {
            let name = ["-servername", "a.test", "-ign_eof", "-quiet", version];
            let said = converse(gateway.https(), &[&name[..], sizes].concat(), &request);
            assert!(
                said.contains("HTTP/1.1 200 "),
                "{version} {sizes:?}\n{said}"
            );
            assert!(said.contains(&body), "{version} {sizes:?}");
        }
    }
}

#[test]
fn a_hello_may_come_in_records_of_a_byte() {
    let (_upstream, gateway) = two_names();
    let whole = hello(Some(&server_name(b"a.test")));
    let (head, message) = whole.split_at(5);
    for size in [1, 2, 7, 64] {
        let records: Vec<u8> = message
            .chunks(size)
            .flat_map(|part| [&head[..3], &(part.len() as u16).to_be_bytes(), part].concat())
            .collect();
        let answer = answer_to(gateway.https(), &records);
        assert_eq!(answer[..3], [0x16, 3, 3], "records of {size}: {answer:?}");
        assert_eq!(answer[5], 2, "a ServerHello: {answer:?}");
    }
    let unknown = hello(Some(&server_name(b"c.test")));
    let (head, message) = unknown.split_at(5);
    let records: Vec<u8> = message
        .iter()
        .flat_map(|&byte| [head[0], head[1], head[2], 0, 1, byte])
        .collect();
    let answer = answer_to(gateway.https(), &records);
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 112]);
}
