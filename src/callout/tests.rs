//! Callers against servers that are sockets of the test's own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tokio::runtime::{Builder, Runtime};

use super::*;

fn settings() -> Settings {
    Settings {
        timeout: Duration::from_secs(5),
        verify: true,
        keepalive: Some(Keepalive {
            idle: Duration::from_secs(60),
            connections: 5,
        }),
        max_body: 1000,
    }
}

fn caller(settings: &Settings) -> Caller {
    Caller::build(settings, &Trust::System, &Kept::new()).expect("settings are right")
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime starts")
}

/// A server that answers each request of a connection with the next of these texts, and closes
/// the connection after the last. Counts connections.
fn serve(answers: &'static [&'static str]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                for answer in answers {
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read(&mut byte) {
                            Ok(1) => head.push(byte[0]),
                            _ => return,
                        }
                    }
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, connections)
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::parse(&format!("http://{address}/x")).expect("a URL")
}

fn get(caller: &Caller, address: SocketAddr) -> Result<Answer, CallError> {
    runtime().block_on(caller.call(Call::get(endpoint(address))))
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\n\r\nhi";

#[test]
fn an_answer_is_read_whole() {
    let (address, _) = serve(&[OK]);
    let answer = get(&caller(&settings()), address).expect("it answers");
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.headers.get("x-a").map(|a| a.as_bytes()),
        Some(&b"1"[..])
    );
    assert_eq!(*answer.body, b"hi");
}

#[test]
fn a_redirect_is_an_answer_and_is_not_followed() {
    let (address, connections) = serve(&[
        "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
        OK,
    ]);
    let answer = get(&caller(&settings()), address).expect("it answers");
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn odd_answers_are_errors() {
    type Expected = fn(&CallError) -> bool;
    let cases: [(&'static [&'static str], Expected); 9] = [
        (&["\x16\x03\x01 nonsense\r\n\r\n"], |error| {
            matches!(error, CallError::Garbled(_))
        }),
        (&["HTTP/1.1 abc\r\n\r\n"], |error| {
            matches!(error, CallError::Garbled(_))
        }),
        (&[""], |error| matches!(error, CallError::Closed(_))),
        (&["HTTP/1.1 200 OK\r\nContent-Le"], |error| {
            matches!(error, CallError::Closed(_))
        }),
        (
            &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi"],
            |error| matches!(error, CallError::Garbled(_)),
        ),
        (
            &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n9"],
            |error| matches!(error, CallError::Garbled(_)),
        ),
        (
            &["HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"],
            |error| matches!(error, CallError::TooLarge),
        ),
        (&["HTTP/1.1 100 Continue\r\n\r\n"], |error| {
            matches!(error, CallError::Closed(_))
        }),
        (
            &["HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"],
            |error| !matches!(error, CallError::TimedOut),
        ),
    ];
    let caller = caller(&settings());
    for (answers, expected) in cases {
        let (address, _) = serve(answers);
        let error = get(&caller, address).err().expect("it is no answer");
        assert!(expected(&error), "{answers:?}: {error}");
    }
}

#[test]
fn a_body_without_end_is_cut_off() {
    let (address, _) = serve(&[concat!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "3e8\r\n",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    )]);
    let small = Settings {
        max_body: 40,
        ..settings()
    };
    let error = get(&caller(&small), address).err();
    assert_eq!(error, Some(CallError::TooLarge));
}

#[test]
fn silence_ends_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let hasty = Settings {
        timeout: Duration::from_millis(50),
        ..settings()
    };
    let error = get(&caller(&hasty), address).err();
    assert_eq!(error, Some(CallError::TimedOut));
}

#[test]
fn nobody_there_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let caller = caller(&settings());
    let error = get(&caller, address).err().expect("nobody listens");
    assert!(matches!(error, CallError::Tcp(_)), "{error}");
    let nowhere = Endpoint::parse("http://nowhere.invalid/").expect("a URL");
    let error = runtime().block_on(caller.call(Call::get(nowhere)));
    let error = error.err().expect("there is no such name");
    assert!(matches!(error, CallError::Dns(_)), "{error}");
    let plain = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = plain.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in plain.incoming() {
            let greeting = b"220 this is no TLS\r\n";
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(greeting);
            let _ = stream.read(&mut [0; 512]);
        }
    });
    let secure = Endpoint::parse(&format!("https://{address}/")).expect("a URL");
    let error = runtime().block_on(caller.call(Call::get(secure)));
    let error = error.err().expect("the server speaks no TLS");
    assert!(matches!(error, CallError::Tls(_)), "{error:?}");
}

#[test]
fn errors_hold_nothing_of_the_call() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let secret = "s3cr3t-in-the-query";
    let caller = caller(&settings());
    let mut call = Call::get(endpoint(address).at("/p", &[("token", secret)]));
    let value = http::HeaderValue::from_static("s3cr3t-in-the-query");
    call.headers.insert("x-token", value);
    let error = runtime().block_on(caller.call(call)).err();
    let error = error.expect("nobody listens");
    assert!(!format!("{error} {error:?}").contains(secret));
}

#[test]
fn connections_are_kept_and_a_closed_one_is_replaced() {
    let (address, connections) = serve(&[OK, OK, OK]);
    let caller = caller(&settings());
    let runtime = runtime();
    for expected in [1, 1, 1, 2, 2] {
        let answer = runtime.block_on(caller.call(Call::get(endpoint(address))));
        assert!(answer.is_ok(), "a closed connection is no failure");
        assert_eq!(connections.load(Ordering::SeqCst), expected);
    }
}

#[test]
fn without_keepalive_each_call_has_its_own_connection() {
    let (address, connections) = serve(&[OK, OK]);
    let caller = caller(&Settings {
        keepalive: None,
        ..settings()
    });
    let runtime = runtime();
    for expected in [1, 2, 3] {
        let answer = runtime.block_on(caller.call(Call::get(endpoint(address))));
        assert!(answer.is_ok());
        assert_eq!(connections.load(Ordering::SeqCst), expected);
    }
}

/// A connection is driven by the runtime that opened it: one pool for all would let a runtime
/// that is busy hold up the calls of another.
#[test]
fn a_busy_runtime_holds_up_no_other() {
    let (address, connections) = serve(&[OK, OK, OK]);
    let caller = caller(&settings());
    let (opened, wait_opened) = mpsc::channel();
    let (release, wait_release) = mpsc::channel::<()>();
    let busy = std::thread::spawn({
        let caller = caller.clone();
        move || {
            runtime().block_on(async {
                let answer = caller.call(Call::get(endpoint(address))).await;
                opened.send(answer.is_ok()).expect("the test waits");
                // Blocks the runtime's only thread.
                wait_release.recv().expect("the test tells when");
                caller.call(Call::get(endpoint(address))).await.is_ok()
            })
        }
    });
    assert!(wait_opened.recv().expect("the thread runs"));
    assert!(get(&caller, address).is_ok(), "the other runtime works");
    release.send(()).expect("the thread waits");
    assert!(busy.join().expect("the thread ends"));
    assert_eq!(
        connections.load(Ordering::SeqCst),
        2,
        "one for each runtime"
    );
}

#[test]
fn equal_settings_share_a_transport() {
    let kept = Kept::new();
    let build = |settings: &Settings, trust: &Trust| {
        Caller::build(settings, trust, &kept).expect("settings are right")
    };
    let first = build(&settings(), &Trust::System);
    let same = build(&settings(), &Trust::System);
    assert!(Arc::ptr_eq(&first.0, &same.0));
    let slower = Settings {
        timeout: Duration::from_secs(6),
        ..settings()
    };
    assert!(!Arc::ptr_eq(&first.0, &build(&slower, &Trust::System).0));
    assert!(!Arc::ptr_eq(
        &first.0,
        &build(&settings(), &Trust::nothing()).0
    ));
}

#[test]
fn trust_is_a_bundle_of_certificates() {
    for pem in [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----",
    ] {
        assert!(Trust::parse(pem.as_bytes()).is_err(), "{pem}");
    }
}
