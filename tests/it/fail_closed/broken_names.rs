//! `ssls` items that fail their own checks: no wildcard beside one serves its names, neither with
//! another certificate nor without the client certificates it was to ask for.

use std::net::TcpStream;

use claviger::tls::dev::Authority;
use openssl::ssl::SslStream;
use serde_json::json;

use crate::harness::{Behaviour, Connection, Gateway, Upstream, certs, wait_until};

/// The label of a name below `a.test`, and an item for it with one fault. `@` stands for a sound
/// certificate and key.
const BROKEN: &[(&str, &str)] = &[
    (
        "unknown",
        "sni: unknown.a.test, @, client: { ca: CA }, nope: 1",
    ),
    ("client", "sni: client.a.test, @, client: 5"),
    ("noca", "sni: noca.a.test, @, client: { depth: 1 }"),
    ("badca", "sni: badca.a.test, @, client: { ca: short }"),
    ("nocert", "sni: nocert.a.test, key: KEY"),
    ("short", "sni: short.a.test, cert: short, key: KEY"),
    ("number", "sni: number.a.test, cert: 5, key: KEY"),
    ("halves", "sni: halves.a.test, @, certs: [CERT]"),
    (
        "protocol",
        "sni: protocol.a.test, @, ssl_protocols: [SSLv3]",
    ),
    ("type", "type: 5, sni: type.a.test, @"),
    ("status", "status: 'off', sni: status.a.test, @"),
    ("list", "sni: [list.a.test], @"),
    ("text", "snis: TEXT.a.test., @"),
    ("both", "sni: both.a.test, snis: [two.a.test], @"),
    ("part", "snis: [part.a.test, 'https://rest.a.test'], @"),
];

struct Stand {
    upstream: Upstream,
    ca: String,
    cert: String,
    key: String,
}

impl Stand {
    fn new() -> Self {
        let authority = Authority::new().unwrap();
        let issued = certs::server(&authority, &["*.a.test"]);
        Self {
            upstream: Upstream::start(Behaviour::ok()),
            ca: authority.cert_pem().unwrap(),
            cert: json!(issued.cert_pem).to_string(),
            key: json!(certs::key_text(&issued)).to_string(),
        }
    }

    /// A wildcard that serves, and these items; after it, for the order is not what protects.
    fn resources(&self, items: &[(&str, &str)]) -> String {
        let mut yaml = String::from("ssls:\n  - { id: wildcard, sni: '*.a.test', @ }\n");
        for (id, fields) in items {
            yaml.push_str(&format!("  - {{ id: {id}, {fields} }}\n"));
        }
        let yaml = yaml
            .replace('@', "cert: CERT, key: KEY")
            .replace("CERT", &self.cert)
            .replace("KEY", &self.key)
            .replace("CA ", &format!("{} ", json!(self.ca)));
        let node = self.upstream.addr;
        format!(
            "{yaml}routes:\n  - {{ id: open, uri: /*, upstream: {{ nodes: {{ '{node}': 1 }} }} }}\n"
        )
    }

    fn open(
        &self,
        gateway: &Gateway,
        name: &str,
    ) -> Result<Connection<SslStream<TcpStream>>, String> {
        Connection::open_tls(gateway.https(), name, &self.ca)
    }

    /// Serves over the certificate of the wildcard.
    fn serves(&self, gateway: &Gateway, name: &str) -> bool {
        self.open(gateway, name).is_ok_and(|mut connection| {
            connection.request("GET", "/", &[("Host", name)]);
            connection.expect_reply().status == 200
        })
    }

    fn refuses(&self, gateway: &Gateway, name: &str) {
        let error = self.open(gateway, name).err();
        let error = error.unwrap_or_else(|| panic!("{name} must refuse"));
        assert!(error.contains("alert"), "{name}: {error}");
    }
}

#[test]
fn a_broken_item_refuses_its_names_beside_a_wildcard() {
    let stand = Stand::new();
    let gateway = Gateway::start(stand.resources(BROKEN));
    assert!(stand.serves(&gateway, "free.a.test"));
    let log = gateway.log();
    for (label, _) in BROKEN {
        stand.refuses(&gateway, &format!("{label}.a.test"));
        assert!(log.contains(&format!("ssls/{label}")), "{label}: {log}");
    }
    stand.refuses(&gateway, "two.a.test");
    // Over a handshake for another name neither: what was to be asked for is not known.
    let mut other = stand.open(&gateway, "free.a.test").unwrap();
    other.request("GET", "/", &[("Host", "unknown.a.test")]);
    assert_eq!(other.expect_reply().status, 400);
    assert!(stand.serves(&gateway, "free.a.test"));
    let page = gateway.metrics_page();
    let refused = format!(
        "claviger_config_refused_items{{kind=\"ssls\"}} {}",
        BROKEN.len()
    );
    assert!(page.contains(&refused), "{refused}: {page}");
}

#[test]
fn an_item_that_breaks_by_a_reload_refuses_until_it_is_mended() {
    let stand = Stand::new();
    let sound = ("mine", "sni: mine.a.test, @");
    let broken = ("mine", "sni: mine.a.test, @, clientt: { ca: CA }");
    let moved = ("mine", "sni: elsewhere.a.test, @, clientt: { ca: CA }");
    let gateway = Gateway::start(stand.resources(&[sound]));
    assert!(stand.serves(&gateway, "mine.a.test"));
    for _ in 0..2 {
        gateway.write_resources(&stand.resources(&[broken]));
        wait_until("the broken item refuses", || {
            stand.open(&gateway, "mine.a.test").is_err()
        });
        assert!(stand.serves(&gateway, "elsewhere.a.test"));
        gateway.write_resources(&stand.resources(&[moved]));
        wait_until("it refuses another name", || {
            stand.open(&gateway, "elsewhere.a.test").is_err()
        });
        assert!(stand.serves(&gateway, "mine.a.test"));
        gateway.write_resources(&stand.resources(&[sound]));
        wait_until("the mended item serves", || {
            stand.serves(&gateway, "mine.a.test") && stand.serves(&gateway, "elsewhere.a.test")
        });
    }
}

#[test]
fn names_that_cannot_be_read_are_told_to_be_unguarded() {
    let stand = Stand::new();
    let items = [
        ("url", "sni: 'https://url.a.test', @, client: { ca: CA }"),
        ("none", "@"),
        ("object", "sni: { name: object.a.test }, @"),
        ("part", "snis: [part.a.test, 'b c'], @"),
        ("port", "sni: 'port.a.test:443', @"),
        ("hidden", "status: 0, sni: hidden.a.test, @, nope: 1"),
        ("shown", "type: client, @, nope: 1"),
    ];
    let mut resources = stand.resources(&items);
    resources = resources.replace("routes:", "  - just text\nroutes:");
    let gateway = Gateway::start(resources);
    let log = gateway.log();
    let told = |id: &str, code: &str| {
        let mut lines = log.lines();
        lines.any(|line| line.contains(&format!("ssls/{id}")) && line.contains(code))
    };
    for id in ["url", "none", "object", "part", "arr_9"] {
        assert!(told(id, "error[guards-nothing]"), "{id}: {log}");
    }
    assert!(told("port", "no client can ask"), "{log}");
    for id in ["port", "hidden", "shown"] {
        assert!(
            !told(id, "error[guards-nothing]"),
            "{id} has nothing to guard: {log}"
        );
    }
    for name in ["url", "object", "hidden", "port"] {
        assert!(stand.serves(&gateway, &format!("{name}.a.test")), "{name}");
    }
    stand.refuses(&gateway, "part.a.test");
}
