//! What the plugins that ask a directory share: how one is addressed and trusted, and consumers by
//! the name of their entry.

use std::sync::Arc;

use serde::Deserialize;

use super::given::resolved;
use crate::callout::Trust;
use crate::ldap::{TlsSettings, canonical, is_attribute};
use crate::plugins::ctx::{Attached, RequestCtx};
use crate::plugins::def::{BuildCtx, BuildError, Credential, CredentialCtx};
use crate::secrets::Secret;

/// Credential side of both plugins.
#[derive(Deserialize)]
pub(super) struct CredentialConfig {
    /// Distinguished name of the consumer's entry.
    user_dn: String,
}

/// A consumer is found by the name of its entry, however it is written ([`canonical`]).
pub(super) fn credential(
    config: CredentialConfig,
    _: &CredentialCtx<'_>,
) -> Result<Credential, BuildError> {
    let user_dn = Secret::from(config.user_dn);
    let name = user_dn.expose_str().unwrap_or_default();
    resolved("user_dn", &user_dn)?;
    match canonical(name) {
        Some(name) if !name.is_empty() => Ok(Credential {
            lookup_key: Secret::new(name),
            data: Arc::new(()),
        }),
        _ => Err(BuildError::invalid("user_dn", NO_NAME)),
    }
}

/// The consumer of the entry of this name.
pub(super) fn consumer(plugin: &str, req: &RequestCtx<'_>, user_dn: &str) -> Option<Attached> {
    let entry = req.state.consumers.find(plugin, &canonical(user_dn)?);
    entry.map(Attached::by)
}

/// Host and port out of `host` or `host:port`.
pub(super) fn address(text: &str, default_port: u16) -> Result<(String, u16), BuildError> {
    let refused = || BuildError::invalid("ldap_uri", "must be host or host:port");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(refused)?;
            let host: std::net::Ipv6Addr = host.parse().map_err(|_| refused())?;
            (host.to_string(), port.strip_prefix(':').unwrap_or(port))
        }
        None => match text.split_once(':') {
            Some((host, port)) if !port.is_empty() => (host.to_owned(), port),
            Some(_) => return Err(refused()),
            None => (text.to_owned(), ""),
        },
    };
    let named = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || !host.chars().all(named) {
        return Err(refused());
    }
    let port = match port {
        "" => default_port,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(refused)?,
        _ => return Err(refused()),
    };
    Ok((host, port))
}

/// Refuses what is no type of attribute: it would become part of a name or a search.
pub(super) fn attribute(field: &str, text: &str) -> Result<(), BuildError> {
    if is_attribute(text) {
        return Ok(());
    }
    Err(BuildError::invalid(
        field,
        "must be an attribute's name, such as uid",
    ))
}

/// Refuses what is no distinguished name.
pub(super) fn name(field: &str, text: &str) -> Result<(), BuildError> {
    match canonical(text) {
        Some(_) => Ok(()),
        None => Err(BuildError::invalid(field, NO_NAME)),
    }
}

/// What the directory's certificate must prove.
pub(super) fn tls(verify: bool, ctx: &BuildCtx<'_>) -> Result<TlsSettings, BuildError> {
    let trusted = match ctx.trust {
        Trust::System => None,
        Trust::Only(certificates) => Some(&**certificates),
    };
    TlsSettings::build(verify, trusted).map_err(|_| {
        let message = "the trusted certificates cannot be used";
        BuildError::invalid("", message)
    })
}

/// Told at load where TLS proves nothing.
pub(super) const UNVERIFIED: &str =
    "the directory's certificate is not verified, so that whoever is in between reads passwords";

const NO_NAME: &str = "must be a distinguished name, such as cn=user,dc=example,dc=org";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for (text, host, port) in [
            ("ldap.test", "ldap.test", 389),
            ("ldap.test:1389", "ldap.test", 1389),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:1389", "::1", 1389),
            ("[::1]", "::1", 389),
        ] {
            assert_eq!(address(text, 389), Ok((host.to_owned(), port)), "{text}");
        }
        for text in [
            "",
            ":389",
            "ldap.test:",
            "ldap.test:x",
            "ldap.test:0",
            "ldap.test:65536",
            "::1",
            "ldap://ldap.test",
            "ldap.test/x",
            "a b",
            "[::1",
            "[x]:1",
            "ldap.test:+1",
        ] {
            assert!(address(text, 389).is_err(), "{text}");
        }
    }
}
