//! Certificates (`spec/00` §5). PEM or references.

use std::collections::HashMap;

/// What the certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslKind {
    /// Presented to clients.
    #[default]
    Server,
    /// Presented to upstreams.
    Client,
}

/// Client mutual TLS.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SslClientConfig {
    /// Trusted CAs, PEM or reference.
    pub ca: String,
    /// How many intermediates at most. Default 1.
    pub depth: u32,
    /// Paths that need no certificate.
    pub skip_mtls_uri_regex: Vec<String>,
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
    /// False hides the item (`status: 0`).
    pub enabled: bool,
    /// Labels.
    pub labels: HashMap<String, String>,
}
