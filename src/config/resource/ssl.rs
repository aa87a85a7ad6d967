//! Certificates (`spec/00` §5). PEM or references.

use super::ocsp_stapling::{self, OcspStaplingConfig};
use super::on_demand::{self, OnDemandConfig};
use super::shape::{self, Head, Labels, Pem, Shared, fields, inner_fields, pem, unique};
use crate::config::check::Check;
use crate::config::node::{At, Entry, Node};
use crate::expr::pattern;

/// What the certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslKind {
    /// Presented to clients.
    #[default]
    Server,
    /// Presented to upstreams.
    Client,
}

/// What upstreams are told of a verified client certificate. Ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardConfig {
    /// Nothing.
    #[default]
    None,
    /// The certificate.
    Leaf,
    /// The certificate and who vouches for it.
    Chain,
}

/// Client mutual TLS.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SslClientConfig {
    /// Trusted CAs, PEM or reference.
    pub ca: String,
    /// How many intermediates at most. Default 1.
    pub depth: u32,
    /// Paths that need no certificate. Empty: the handshake needs one.
    pub skip_mtls_uri_regex: Vec<String>,
    /// Revocation lists, PEM or reference. Ours.
    pub crl: Option<String>,
    /// What upstreams are told. Ours.
    pub forward: ForwardConfig,
}

/// An `ssls` item. `sni`/`snis` and `cert`+`certs` are folded together by the parser.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SslConfig {
    /// What it is for.
    pub kind: SslKind,
    /// (certificate chain, key) pairs, each half PEM or reference.
    pub pairs: Vec<(String, String)>,
    /// Name patterns, lower-cased, without a trailing dot.
    pub snis: Vec<String>,
    /// Client mutual TLS.
    pub client: Option<SslClientConfig>,
    /// Allowed protocols (`TLSv1.1` `TLSv1.2` `TLSv1.3`); empty takes the global list.
    pub ssl_protocols: Vec<String>,
    /// Certificates are fetched when a client asks for their name; `None` fetches them at load.
    pub on_demand: Option<OnDemandConfig>,
    /// Whether responses about the certificates are stapled; of the plugin `ocsp-stapling`.
    pub ocsp_stapling: Option<OcspStaplingConfig>,
    /// Whether a certificate of the item is presented past its end; `None` takes what
    /// `claviger.tls.serve_expired` says.
    pub serve_expired: Option<bool>,
    /// False hides the item (`status: 0`).
    pub enabled: bool,
    /// Labels.
    pub labels: Labels,
}

#[derive(Default)]
struct Halves {
    cert: Option<String>,
    key: Option<String>,
    certs: Vec<String>,
    keys: Vec<String>,
    given: Vec<&'static str>,
}

pub(super) fn parse(check: &mut Check, entries: Vec<Entry>, at: At) -> (Head, SslConfig) {
    let (mut head, mut ssl) = (
        Head::default(),
        SslConfig {
            enabled: true,
            ..Default::default()
        },
    );
    let mut halves = Halves::default();
    fields(check, entries, |check, key, mut node| {
        head.take(check, Shared::NoName, key, &mut node)
            || field(&mut ssl, &mut halves, check, key, node)
    });
    let given = |key: &str| halves.given.contains(&key);
    for half in ["cert", "key"] {
        if !given(half) {
            check.error(
                at,
                "missing-field",
                format!("property \"{half}\" is required"),
            );
        }
    }
    if given("sni") && given("snis") {
        check.error(at, "conflict", "sni and snis exclude each other");
    }
    if ssl.kind == SslKind::Server && !given("sni") && !given("snis") {
        check.error(at, "missing-field", "expected sni or snis");
    }
    if halves.certs.len() != halves.keys.len() && !check.refused() {
        check.error(at, "conflict", "mismatched number of certs and keys");
    }
    ssl.pairs.extend(halves.cert.zip(halves.key));
    ssl.pairs.extend(halves.certs.into_iter().zip(halves.keys));
    on_demand::check_item(check, &ssl, at);
    ocsp_stapling::check_item(check, &mut ssl, at);
    ssl.labels = std::mem::take(&mut head.labels);
    // Lists grow by fours, and there may be thousands of items.
    ssl.pairs.shrink_to_fit();
    ssl.snis.shrink_to_fit();
    (head, ssl)
}

fn field(
    ssl: &mut SslConfig,
    halves: &mut Halves,
    check: &mut Check,
    key: &str,
    node: Node,
) -> bool {
    halves.given.extend(
        ["cert", "key", "sni", "snis"]
            .into_iter()
            .find(|name| *name == key),
    );
    match key {
        "type" => {
            let word = check.word(node, &["server", "client"]);
            ssl.kind = if word.as_deref() == Some("client") {
                SslKind::Client
            } else {
                SslKind::Server
            };
        }
        "cert" => halves.cert = pem(check, node, Pem::Certificate),
        "key" => halves.key = pem(check, node, Pem::Key),
        "certs" => {
            let nodes = check.list(node).unwrap_or_default();
            halves.certs = check.each(nodes, |check, node| pem(check, node, Pem::Certificate));
        }
        "keys" => {
            let nodes = check.list(node).unwrap_or_default();
            halves.keys = check.each(nodes, |check, node| pem(check, node, Pem::Key));
        }
        "sni" => ssl.snis.extend(shape::one_or_many(check, node, sni)),
        "snis" => ssl.snis.extend(unique(check, node, 1, sni)),
        "client" => ssl.client = client(check, node),
        "on_demand" => ssl.on_demand = on_demand::parse(check, node),
        "ssl_protocols" => {
            ssl.ssl_protocols = unique(check, node, 0, |check, node| {
                check.word(node, &["TLSv1.1", "TLSv1.2", "TLSv1.3"])
            });
        }
        "serve_expired" => ssl.serve_expired = check.boolean(&node),
        "status" => ssl.enabled = check.int(&node, 0..=1) != Some(0),
        "ocsp_stapling" => ssl.ocsp_stapling = ocsp_stapling::parse(check, node),
        _ => return false,
    }
    true
}

fn sni(check: &mut Check, node: Node) -> Option<String> {
    let at = node.at;
    let name = shape::host(check, node)?;
    if never_asked_for(&name) {
        let message =
            "no client can ask for this name: expected a host name, *. and a host name, or *";
        check.warn(at, "unreachable-name", message);
    }
    Some(name.strip_suffix('.').map(str::to_owned).unwrap_or(name))
}

/// APISIX takes addresses, ports and stars that are no label of their own; no handshake asks for one.
fn never_asked_for(name: &str) -> bool {
    let label = name.strip_prefix("*.").unwrap_or(name);
    name != "*" && (label.contains(['*', ':', '[', ']']) || label.is_empty())
}

fn client(check: &mut Check, node: Node) -> Option<SslClientConfig> {
    let at = node.at;
    let mut client = SslClientConfig {
        depth: 1,
        ..Default::default()
    };
    let mut given = false;
    inner_fields(check, node, |check, key, node| {
        match key {
            "ca" => {
                given = true;
                client.ca = pem(check, node, Pem::Certificate).unwrap_or_default();
            }
            "depth" => client.depth = check.small(&node, 0..=i64::from(u32::MAX)).unwrap_or(1),
            "skip_mtls_uri_regex" => {
                client.skip_mtls_uri_regex = unique(check, node, 1, regex);
            }
            "crl" => client.crl = pem(check, node, Pem::Revocations),
            "forward" => {
                let word = check.word(node, &["none", "leaf", "chain"]);
                client.forward = match word.as_deref() {
                    Some("leaf") => ForwardConfig::Leaf,
                    Some("chain") => ForwardConfig::Chain,
                    _ => ForwardConfig::None,
                };
            }
            _ => return false,
        }
        true
    });
    if !given {
        check.error(at, "missing-field", "property \"ca\" is required");
    }
    given.then_some(client)
}

/// Searched for anywhere in a path, as APISIX does it.
fn regex(check: &mut Check, node: Node) -> Option<String> {
    let at = node.at;
    let text = check.text(node)?;
    if let Err(error) = pattern::compile(&text, false) {
        check.error(at, "invalid-value", error.to_string());
        return None;
    }
    Some(text)
}
