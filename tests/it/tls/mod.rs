//! TLS as clients see it: which certificate a name gets, and which names get none. By the real
//! `openssl s_client` and `curl` wherever they can say it.

mod audit;
mod client_auth;
mod client_chains;
mod client_identity;
mod client_paths;
mod client_rules;
mod clients;
mod generations;
mod inbound;
mod names;
mod ocsp;
mod on_demand;
mod pairs;
mod protocols;
mod sessions;
mod tickets;
mod visitor;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use claviger::tls::dev::{Authority, Issued, LeafOptions, Usage};

use crate::harness::gateway::Builder;
use crate::harness::{Behaviour, Gateway, Upstream, certs, wait_until};

/// An item of `ssls`, its pair written literally.
fn item(id: &str, names: &[&str], issued: &Issued, more: &str) -> String {
    let text = |text: &str| serde_json::to_string(text).unwrap();
    format!(
        "  - id: {id}\n    snis: {}\n    cert: {}\n    key: {}\n{more}",
        serde_json::to_string(names).unwrap(),
        text(&issued.cert_pem),
        text(certs::key_text(issued)),
    )
}

/// These items, and a route for every host.
fn resources(upstream: &Upstream, items: &[String]) -> String {
    format!(
        "ssls:\n{}routes:\n  - id: all\n    uri: /*\n    upstream: {{ type: roundrobin, nodes: \
         {{ \"{}\": 1 }} }}\n",
        items.concat(),
        upstream.addr
    )
}

/// A gateway with an item for each of these names, called as its name.
fn start(builder: Builder, names: &[&str]) -> (Upstream, Gateway) {
    let authority = Authority::new().unwrap();
    let items: Vec<_> = (0..)
        .zip(names)
        .map(|(n, name)| {
            let issued = certs::server(&authority, &[name]);
            item(&format!("i{n}"), &[name], &issued, "")
        })
        .collect();
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = builder.resources(resources(&upstream, &items)).start();
    (upstream, gateway)
}

/// What `openssl s_client` says, to a conversation that ends when the server ends it.
fn converse(addr: SocketAddr, args: &[&str], request: &str) -> String {
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &addr.to_string()])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed (scripts/setup.sh)");
    // Gone already where the handshake fails.
    let _ = client.stdin.take().unwrap().write_all(request.as_bytes());
    let output = client.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The same without a word after the handshake.
fn s_client(addr: SocketAddr, args: &[&str]) -> String {
    converse(addr, args, "")
}

/// Subject of the certificate a client of this name is shown.
fn subject(addr: SocketAddr, name: &str) -> Option<String> {
    subject_in(&s_client(addr, &["-servername", name]))
}

fn subject_in(said: &str) -> Option<String> {
    let line = said.lines().find_map(|line| line.strip_prefix("subject="));
    line.map(|line| line.trim_start_matches("CN = ").to_owned())
}

fn assert_alert(said: &str, number: u8) {
    assert!(said.contains("no peer certificate available"), "{said}");
    let alert = format!("SSL alert number {number}");
    assert!(said.contains(&alert), "{alert} expected\n{said}");
}

/// A TLS 1.2 ClientHello whose `server_name` extension has this content.
fn hello(server_name: Option<&[u8]>) -> Vec<u8> {
    fn block<const N: usize>(content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u64).to_be_bytes();
        [&length[8 - N..], content].concat()
    }
    let extension =
        |kind: u16, content: &[u8]| [kind.to_be_bytes().to_vec(), block::<2>(content)].concat();
    let mut extensions = [
        extension(10, &block::<2>(&[0, 0x17])),
        extension(11, &block::<1>(&[0])),
        extension(13, &block::<2>(&[4, 3])),
    ]
    .concat();
    if let Some(content) = server_name {
        extensions.extend(extension(0, content));
    }
    let hello = [
        &[3, 3][..],
        &[7; 32],
        &block::<1>(&[]),
        &block::<2>(&[0xc0, 0x2b]),
        &block::<1>(&[0]),
        &block::<2>(&extensions),
    ]
    .concat();
    let message = [&[1][..], &block::<3>(&hello)].concat();
    [&[0x16, 3, 1][..], &block::<2>(&message)].concat()
}

/// The content of a `server_name` extension with this name.
fn server_name(name: &[u8]) -> Vec<u8> {
    let entry = [&[0][..], &(name.len() as u16).to_be_bytes(), name].concat();
    [&(entry.len() as u16).to_be_bytes()[..], &entry].concat()
}

fn answer_to(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    let limit = Some(Duration::from_secs(10));
    stream.set_read_timeout(limit).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = vec![0; 7];
    stream.read_exact(&mut answer).expect("an answer");
    answer
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: none\r\nConnection: close\r\n\r\n";

/// What curl's answer was: its exit code and the status.
fn curl(gateway: &Gateway, url_host: &str, args: &[&str]) -> (Option<i32>, String) {
    let port = gateway.https().port();
    let ca = gateway.dir().join("ca.pem");
    let output = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"])
        .args(["--max-time", "10", "--noproxy", "*", "--cacert"])
        .arg(ca)
        .args(["--resolve", &format!("{url_host}:{port}:127.0.0.1")])
        .args(args)
        .arg(format!("https://{url_host}:{port}/"))
        .current_dir(gateway.dir())
        .output()
        .expect("curl is installed (scripts/setup.sh)");
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), status)
}

/// Waits until the log says so: a request is logged after its answer was sent.
fn await_log(gateway: &Gateway, said: &str) {
    wait_until(said, || gateway.log().contains(said));
}

/// The `client` of an item: a CA, literal or reference, and further members.
fn guard(ca: &str, more: &str) -> String {
    let ca = serde_json::to_string(ca).unwrap();
    format!("    client: {{ ca: {ca}{more} }}\n")
}

/// `m.test` and `*.w.test` want certificates of one CA, `o.test` wants none, and what `bad.test`
/// wants cannot be set up.
fn start_mtls() -> (Upstream, Gateway) {
    let authority = Authority::new().unwrap();
    let clients = Authority::named("clients").unwrap();
    let client = |authority: &Authority, ends_in_secs| {
        let options = LeafOptions {
            usage: Usage::Client,
            starts_in_secs: -7200,
            ends_in_secs,
            ..LeafOptions::default()
        };
        let issued = authority.issue(&["someone"], &options).unwrap();
        format!("{}{}", issued.cert_pem, certs::key_text(&issued))
    };
    let one = clients.intermediate("one").unwrap();
    let two = one.intermediate("two").unwrap();
    let guard = format!(
        "    client: {{ ca: {} }}\n",
        serde_json::to_string(&clients.cert_pem().unwrap()).unwrap()
    );
    let missing = "    client: { ca: \"$env://NO_SUCH_CA\" }\n";
    let server = |name| certs::server(&authority, &[name]);
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .file("ca.pem", authority.cert_pem().unwrap())
        .file("good.pem", client(&clients, 3600))
        .file("expired.pem", client(&clients, -3600))
        .file("foreign.pem", client(&authority, 3600))
        .file("one.pem", client(&one, 3600))
        .file("two.pem", client(&two, 3600))
        .resources(resources(
            &upstream,
            &[
                item("m", &["m.test"], &server("m.test"), &guard),
                item("w", &["*.w.test"], &server("*.w.test"), &guard),
                item("o", &["o.test"], &server("o.test"), ""),
                item("bad", &["bad.test"], &server("bad.test"), missing),
            ],
        ))
        .unready()
        .start();
    wait_until("the listeners accept", || {
        TcpStream::connect(gateway.https()).is_ok()
    });
    (upstream, gateway)
}
