//! Every plugin, and the engine that runs them, against the real program.

mod acl;
mod attach_consumer_label;
mod auth_throttle;
mod authz_casdoor;
mod basic_auth;
mod bodies;
mod consumer_restriction;
mod cors;
mod csrf;
mod engine;
mod forward_auth;
mod hmac_auth;
mod ip_restriction;
mod jwe_decrypt;
mod jwt_auth;
mod key_auth;
mod ldap_auth;
mod ldap_auth_advanced;
mod mocking;
mod multi_auth;
mod prometheus;
mod proxy_rewrite;
mod redirect;
mod request_id;
mod response_rewrite;
mod signing;
mod wolf_rbac;

use crate::harness::client::Reply;
use crate::harness::{Behaviour, Connection, Gateway, Upstream};

/// Type of the bodies the gateway makes itself.
const TEXT: &str = "text/plain; charset=utf-8";

/// An upstream that answers `hello`, and a gateway; `NODE` in the YAML is the upstream.
fn start(yaml: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(over(&upstream, yaml));
    (upstream, gateway)
}

/// The same with one template for the access log, whose lines are written at once.
fn start_logging(format: &str, yaml: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(Behaviour::ok());
    let bootstrap = format!(
        "nginx_config: {{ http: {{ access_log_format: '{format}', access_log_buffer: 1 }} }}"
    );
    let builder = Gateway::builder().bootstrap(&bootstrap);
    let gateway = builder.resources(over(&upstream, yaml)).start();
    (upstream, gateway)
}

fn over(upstream: &Upstream, yaml: &str) -> String {
    let node = format!("upstream: {{ nodes: {{ '{}': 1 }} }}", upstream.addr);
    yaml.replace("NODE", &node)
}

/// One request on a connection of its own.
fn send(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut connection = gateway.connect();
    send_on(&mut connection, method, path, headers)
}

/// One request on this connection.
fn send_on(
    connection: &mut Connection,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Reply {
    let headers: Vec<_> = [("Host", "a.test")]
        .iter()
        .chain(headers)
        .copied()
        .collect();
    connection.request(method, path, &headers);
    if method == "HEAD" {
        connection.expect_head_reply()
    } else {
        connection.expect_reply()
    }
}

fn get(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Reply {
    send(gateway, "GET", path, headers)
}

/// What curl got: status, head and body.
struct Curled {
    status: u16,
    head: String,
    body: String,
}

/// curl with these arguments; `path` is behind the gateway's address.
fn curl<A: AsRef<std::ffi::OsStr>>(gateway: &Gateway, path: &str, args: &[A]) -> Curled {
    let mut command = std::process::Command::new("curl");
    command.args([
        "-sS",
        "-i",
        "--globoff",
        "--max-time",
        "20",
        "--noproxy",
        "*",
    ]);
    command
        .args(args)
        .arg(format!("http://{}{path}", gateway.http()));
    let output = command.output();
    let output = output.expect("curl is installed (scripts/setup.sh)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {output:?}");
    let (head, body) = said.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Curled {
        status: status.expect("an answer has a status"),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

/// The value of a counter on the Prometheus page; 0 while there is none.
fn counted(gateway: &Gateway, series: &str) -> u64 {
    let page = gateway.metrics_page();
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

fn status_and_body(reply: &Reply) -> (u16, String) {
    (reply.status, reply.text())
}

/// All of an answer that the gateway made: status, body, its type and its length.
fn assert_local(reply: &Reply, status: u16, body: &str) {
    assert_eq!(status_and_body(reply), (status, body.to_owned()));
    assert_eq!(reply.header("content-type"), Some(TEXT));
    let length = body.len().to_string();
    assert_eq!(reply.header("content-length"), Some(length.as_str()));
    assert!(reply.header("transfer-encoding").is_none());
}

/// Lines of the access log so far.
fn access_log(gateway: &Gateway) -> Vec<String> {
    let path = gateway.dir().join("logs/access.log");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
