//! Several addresses: the next one where one cannot serve.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::text;
use super::*;
use crate::harness::{Relay, Relaying, ports};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_and_a_stopped_server_are_passed_over() {
    let mut first = OpenBao::start_server().await;
    let mut second = OpenBao::start_server().await;
    for (bao, value) in [(&first, "one"), (&second, "two")] {
        bao.put_v2("apisix/a", json!({"k": value})).await;
        bao.policy("reader", READER).await;
        token(
            bao,
            json!({"id": "same-token-of-a-test", "policies": ["reader"]}),
        )
        .await;
    }
    let room = room_of(json!({
        "uri": [first.addr, second.addr], "prefix": "secret/apisix",
        "token": "same-token-of-a-test", "kv_version": 2, "timeout": 4,
    }));
    assert_eq!(value(&room).await, found("one"));
    first.seal().await;
    room.until(REFERENCE, Ok("two")).await;
    assert_eq!(failed_reads(&room), Vec::<&str>::new());

    // It stays with the one that answered.
    first.unseal().await;
    let before = reads(&room);
    until(&room, "three more reads", || reads(&room) >= before + 3).await;
    assert_eq!(text(&room.secrets.view(), REFERENCE), found("two"));
    second.stop();
    room.until(REFERENCE, Ok("one")).await;

    // A restarted server is sealed; all of them sealed are one sealed manager.
    second.restart().await;
    first.restart().await;
    assert!(room.failures(3).await.contains("sealed"));
    assert_eq!(text(&room.secrets.view(), REFERENCE), found("one"));
    second.unseal().await;
    room.until(REFERENCE, Ok("two")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_wrong_with_one_the_next_is_asked_in_the_same_read() {
    let bao = dev().await;
    let (first, second) = (
        Relay::start(&bao.addr, Relaying::Pass),
        Relay::start(&bao.addr, Relaying::Pass),
    );
    let nowhere = format!("http://127.0.0.1:{}", ports::free());
    for fault in [
        Relaying::Answer(503, r#"{"errors":["Vault is sealed"]}"#),
        Relaying::Answer(500, r#"{"errors":["local node not active"]}"#),
        Relaying::Answer(307, ""),
        Relaying::Close,
        Relaying::Garbage,
        Relaying::Never,
    ] {
        first.set(fault);
        let room = room_of(json!({
            "uri": [first.uri(), nowhere, "https://vault.invalid", second.uri()],
            "prefix": "secret/apisix", "token": bao.token, "timeout": 4,
        }));
        let started = Instant::now();
        assert_eq!(value(&room).await, found("v"), "{fault:?}");
        assert!(started.elapsed() < Duration::from_secs(4), "{fault:?}");
        let asked = first.count();
        let before = reads(&room);
        until(&room, "two more reads", || reads(&room) >= before + 2).await;
        assert_eq!(
            first.count(),
            asked,
            "{fault:?}: the one that answered is asked"
        );
        assert_eq!(failed_reads(&room), Vec::<&str>::new(), "{fault:?}");
    }
}
