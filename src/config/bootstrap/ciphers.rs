//! `apisix.ssl.ssl_ciphers`, held against what OpenSSL knows.

use openssl::ssl::{SslContextBuilder, SslMethod};

use crate::config::check::Check;
use crate::config::node::Node;

/// Kinds of keys for which a list has a cipher. TLS 1.3 works with any key under any list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CipherKeys {
    /// RSA.
    pub rsa: bool,
    /// ECDSA and Ed25519.
    pub ecdsa: bool,
}

impl CipherKeys {
    /// Of an OpenSSL cipher list; of the default for an empty one.
    #[must_use]
    pub fn of(list: &str) -> Self {
        if list.is_empty() {
            return Self {
                rsa: true,
                ecdsa: true,
            };
        }
        // What is left without the other kind, and without what needs no certificate.
        let left = |others: &str| selects(&format!("{list}:{others}:!aNULL:!aPSK:!aSRP:!aDSS"));
        Self {
            rsa: left("!aECDSA"),
            ecdsa: left("!aRSA"),
        }
    }
}

/// A cipher list in which something is known to OpenSSL. What is not is a warning.
pub(super) fn decode(check: &mut Check, node: Node) -> Option<String> {
    let at = node.at;
    let list = check.text(node)?;
    if !list.is_empty() && !selects(&list) {
        let message = "expected a cipher list of OpenSSL with at least one cipher of TLS 1.2";
        check.error(at, "invalid-value", message);
        return None;
    }
    let words = list.split([':', ',', ' ']).filter(|word| !word.is_empty());
    for word in words.filter(|word| !word.starts_with(['!', '-', '+', '@'])) {
        if word.starts_with("TLS_") {
            let message = format!("{word} has no effect: suites of TLS 1.3 are not chosen here");
            check.warn(at, "no-effect", message);
        } else if !selects(word) {
            let message = format!("{word} is no cipher OpenSSL knows, and has no effect");
            check.warn(at, "no-effect", message);
        }
    }
    Some(list)
}

fn selects(list: &str) -> bool {
    let context = SslContextBuilder::new(SslMethod::tls_server());
    context.is_ok_and(|mut context| context.set_cipher_list(list).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_asked_for_which_keys_it_has_ciphers() {
        for (list, rsa, ecdsa) in [
            ("", true, true),
            ("ECDHE-ECDSA-AES128-GCM-SHA256", false, true),
            (
                "ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256",
                true,
                false,
            ),
            ("HIGH", true, true),
            ("HIGH:!aRSA", false, true),
        ] {
            assert_eq!(CipherKeys::of(list), CipherKeys { rsa, ecdsa }, "{list}");
        }
    }
}
