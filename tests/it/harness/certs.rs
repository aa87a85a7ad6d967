//! Certificates made at run time, by the authority `claviger quickstart` uses.

use claviger::tls::dev::{Authority, Issued, LeafOptions};

/// A server certificate for these names, valid now.
pub fn server(authority: &Authority, names: &[&str]) -> Issued {
    authority.issue(names, &LeafOptions::default()).unwrap()
}

/// A server certificate that ended an hour ago.
pub fn expired(authority: &Authority, names: &[&str]) -> Issued {
    let options = LeafOptions {
        starts_in_secs: -7200,
        ends_in_secs: -3600,
        ..LeafOptions::default()
    };
    authority.issue(names, &options).unwrap()
}

/// The private key as text, for files and managers that take text.
pub fn key_text(issued: &Issued) -> &str {
    issued.key_pem.expose_str().expect("PEM is ASCII")
}

/// The first certificate of a chain.
pub fn first(chain: &str) -> String {
    let end = "-----END CERTIFICATE-----\n";
    let (first, _) = chain.split_once(end).expect("a chain has a leaf");
    format!("{first}{end}")
}
