use super::{get, over, send, start};
use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

const RESOURCES: &str = r#"
global_rules:
  - { id: 1, plugins: { prometheus: {} } }
consumers:
  - { username: alice, plugins: { key-auth: { key: k } } }
services:
  - { id: s1, name: shop }
routes:
  - { id: 1, uri: /ok/*, host: "*.test", service_id: s1, plugins: { key-auth: {} }, NODE }
  - { id: 2, name: orders, uri: /named, service_id: s1, plugins: { prometheus: { prefer_name: true } }, NODE }
  - { id: 3, uri: /moved, plugins: { redirect: { uri: / } } }
  - { id: 4, uri: /nowhere, plugins: {} }
  - { id: 5, uri: /gone, upstream_id: none, plugins: {} }
"#;

/// `http_status` samples of this code, as label text and value.
fn samples(gateway: &Gateway, code: u16) -> Vec<String> {
    let head = format!("apisix_http_status{{code=\"{code}\",");
    let page = gateway.metrics_page();
    let lines = page.lines().filter_map(|line| line.strip_prefix(&head));
    lines.map(str::to_owned).collect()
}

fn tail(node: &str, source: &str, count: u32) -> String {
    format!(
        "node=\"{node}\",request_type=\"traditional_http\",request_llm_model=\"\",llm_model=\"\",\
         response_source=\"{source}\"}} {count}"
    )
}

#[test]
fn every_end_of_a_request_is_counted_once() {
    let (upstream, gateway) = start(RESOURCES);
    get(&gateway, "/ok/a", &[("apikey", "k")]);
    get(&gateway, "/ok/a", &[]);
    get(&gateway, "/named", &[]);
    get(&gateway, "/moved", &[]);
    get(&gateway, "/unmatched", &[]);
    get(&gateway, "/nowhere", &[]);
    get(&gateway, "/gone", &[]);
    upstream.set(Behaviour::Close);
    send(
        &gateway,
        "POST",
        "/ok/b",
        &[("apikey", "k"), ("Content-Length", "0")],
    );
    upstream.set(Behaviour::Answer(500, "oops".to_owned()));
    get(&gateway, "/ok/c", &[("apikey", "k")]);
    let ok = "route=\"1\",matched_uri=\"/ok/*\",matched_host=\"*.test\",service=\"s1\"";
    let none = "route=\"\",matched_uri=\"\",matched_host=\"\",service=\"\",consumer=\"\"";
    let (local, up) = ("127.0.0.1", "upstream");
    let expected: [(u16, Vec<String>); 6] = [
        (
            200,
            vec![
                format!("{ok},consumer=\"alice\",{}", tail(local, up, 1)),
                format!(
                    "route=\"orders\",matched_uri=\"/named\",matched_host=\"\",service=\"shop\",consumer=\"\",{}",
                    tail(local, up, 1)
                ),
            ],
        ),
        (
            401,
            vec![format!("{ok},consumer=\"\",{}", tail("", "apisix", 1))],
        ),
        (
            302,
            vec![format!(
                "route=\"3\",matched_uri=\"/moved\",matched_host=\"\",service=\"\",consumer=\"\",{}",
                tail("", "apisix", 1)
            )],
        ),
        (404, vec![format!("{none},{}", tail("", "apisix", 1))]),
        (
            500,
            vec![format!("{ok},consumer=\"alice\",{}", tail(local, up, 1))],
        ),
        (
            503,
            vec![format!(
                "route=\"4\",matched_uri=\"/nowhere\",matched_host=\"\",service=\"\",consumer=\"\",{}",
                tail("", "apisix", 1)
            )],
        ),
    ];
    wait_until("the last request is on the page", || {
        !samples(&gateway, 500).is_empty()
    });
    for (code, lines) in expected {
        assert_eq!(samples(&gateway, code), lines, "{code}");
    }
    let bad = samples(&gateway, 502);
    assert_eq!(bad.len(), 2, "{bad:#?}");
    assert!(bad[0].ends_with(&tail(local, "nginx", 1)), "{bad:#?}");
    assert!(bad[1].ends_with(&tail("", "apisix", 1)), "{bad:#?}");
    let page = gateway.metrics_page();
    let upstream_times = page.lines().filter(|line| {
        line.starts_with("apisix_http_latency_count{route=\"\"")
            && line.contains("type=\"upstream\"")
    });
    assert_eq!(upstream_times.count(), 0, "no upstream, no time of one");
}

#[test]
fn bytes_of_both_directions_are_counted() {
    let (_upstream, gateway) = start(RESOURCES);
    let mut connection = gateway.connect();
    let request =
        "POST /ok/x HTTP/1.1\r\nHost: a.test\r\napikey: k\r\nContent-Length: 1000\r\n\r\n";
    connection.send(format!("{request}{}", "x".repeat(1000)));
    assert_eq!(connection.expect_reply().text(), "hello");
    let bytes = |kind: &str| -> Option<u64> {
        let page = gateway.metrics_page();
        let end = format!("type=\"{kind}\"}} ");
        let line = page.lines().find_map(|line| {
            line.starts_with("apisix_bandwidth{")
                .then(|| line.split_once(&end))
                .flatten()
        });
        line.map(|(_, value)| value.parse().unwrap())
    };
    wait_until("the request is counted", || bytes("ingress").is_some());
    assert_eq!(bytes("ingress"), Some(request.len() as u64 + 1000));
    let egress = bytes("egress").unwrap();
    assert!((50..400).contains(&egress), "{egress}");
}

#[test]
fn without_the_plugin_nothing_is_counted() {
    let upstream = Upstream::start(Behaviour::ok());
    let resources = "
plugin_metadata:
  - { id: prometheus, disabled_labels: { http_status: [matched_uri, node] } }
routes:
  - { id: quiet, uri: /quiet, NODE }
  - { id: counted, uri: /counted, plugins: { prometheus: {} }, NODE }
";
    let gateway = Gateway::start(over(&upstream, resources));
    get(&gateway, "/quiet", &[]);
    get(&gateway, "/counted", &[]);
    wait_until("one is counted", || !samples(&gateway, 200).is_empty());
    let lines = samples(&gateway, 200);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].starts_with("route=\"counted\",matched_uri=\"\","),
        "{lines:#?}"
    );
    assert!(lines[0].ends_with(&tail("", "upstream", 1)), "{lines:#?}");
}
