//! Servers in the manager's place whose answers say nothing: they give no value and end none.

use std::fmt::Write as _;

use serde_json::json;

use super::{Stand, assert_unready, vault, with_key};
use crate::harness::{Gateway, OpenBao, Relay, Relaying, wait_until};

/// Answers that say nothing about a secret.
const IMPOSTORS: &[Relaying] = &[
    Relaying::Answer(403, r#"{"errors":["permission denied"]}"#),
    Relaying::Answer(403, "<html>forbidden</html>"),
    Relaying::Answer(404, "<html>not found</html>"),
    Relaying::Answer(500, r#"{"errors":["internal error"]}"#),
    Relaying::Answer(503, r#"{"errors":["Vault is sealed"]}"#),
    Relaying::Answer(302, ""),
    Relaying::Answer(200, r#"{"data":{"data":{"key":"#),
    Relaying::Answer(200, r#"{"data":{}}"#),
    Relaying::Answer(200, "<html>welcome</html>"),
    Relaying::Garbage,
    Relaying::Close,
    Relaying::Never,
];

/// A manager per impostor, and a consumer `k<n>` behind each.
struct Impostors {
    relays: Vec<Relay>,
    managers: String,
    consumers: String,
}

impl Impostors {
    async fn new(bao: &OpenBao, modes: &[Relaying]) -> Self {
        let mut impostors = Self {
            relays: Vec::new(),
            managers: String::new(),
            consumers: String::new(),
        };
        for (n, mode) in modes.iter().enumerate() {
            bao.put_v2(&format!("edge/k{n}"), json!({"key": format!("k{n}")}))
                .await;
            let relay = Relay::start(&bao.addr, *mode);
            let manager = vault(&format!("m{n}"), &relay.uri(), &bao.token, "timeout: 2");
            impostors.managers.push_str(&manager);
            let _ = writeln!(
                impostors.consumers,
                "  - {{ username: k{n}, plugins: {{ key-auth: {{ key: $secret://vault/m{n}/k{n}/key }} }} }}"
            );
            impostors.relays.push(relay);
        }
        impostors
    }

    fn keys(&self) -> impl Iterator<Item = String> {
        (0..self.relays.len()).map(|n| format!("k{n}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn impostors_at_the_start_give_no_value_and_delay_no_more_than_load_wait() {
    let bao = OpenBao::start().await;
    let stand = Stand::new();
    stand.fill(&bao).await;
    let impostors = Impostors::new(&bao, IMPOSTORS).await;
    let main = vault("main", &bao.addr, &bao.token, "");
    let gateway = Gateway::builder()
        .bootstrap("claviger: { secrets: { load_wait: 1s } }")
        .resources(stand.resources(&(main + &impostors.managers), &impostors.consumers))
        .unready()
        .start();
    wait_until("what can be had serves", || {
        gateway.get("open.test", "/", &[]).status == 200 && stand.secrets_serve(&gateway)
    });
    stand.neighbours_serve(&gateway);
    for key in impostors.keys() {
        assert_eq!(with_key(&gateway, &key), 401, "{key}");
    }
    assert_unready(&gateway);
    for relay in &impostors.relays {
        relay.set(Relaying::Pass);
    }
    for key in impostors.keys() {
        wait_until("the manager is itself again", || {
            with_key(&gateway, &key) == 200
        });
    }
    wait_until("all is there", || gateway.is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn impostors_later_end_no_value_and_an_honest_no_does() {
    let bao = OpenBao::start().await;
    let stand = Stand::new();
    stand.fill(&bao).await;
    let honest_no = Relaying::Answer(404, r#"{"errors":[]}"#);
    let modes = [IMPOSTORS, &[honest_no]].concat();
    let impostors = Impostors::new(&bao, &vec![Relaying::Pass; modes.len()]).await;
    let main = vault("main", &bao.addr, &bao.token, "");
    let gateway =
        Gateway::start(stand.resources(&(main + &impostors.managers), &impostors.consumers));
    let before: Vec<_> = impostors.relays.iter().map(Relay::count).collect();
    for (relay, mode) in impostors.relays.iter().zip(&modes) {
        relay.set(*mode);
    }
    let last = format!("k{}", IMPOSTORS.len());
    wait_until("what the manager says is gone ends", || {
        with_key(&gateway, &last) == 401
    });
    for (relay, before) in impostors.relays.iter().zip(before) {
        // Two answers would confirm a "no".
        wait_until("the impostor was asked thrice", || {
            relay.count() >= before + 3
        });
    }
    for key in impostors.keys().take(IMPOSTORS.len()) {
        assert_eq!(with_key(&gateway, &key), 200, "{key} must serve on");
    }
    stand.neighbours_serve(&gateway);
    assert!(stand.secrets_serve(&gateway));
}
