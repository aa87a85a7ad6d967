//! What a handshake is held to and what it presents. The same steps for a client's connection and
//! for a rehearsal ([`super::rehearsal`]), so that what was rehearsed is what is served.

use std::sync::Arc;
use std::time::SystemTime;

use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslOptions, SslRef, SslVersion};
use pingora_core::tls::ext;

use super::certificate::CertifiedKey;
use super::ffi;
use super::policy::{Protocol, Protocols, TlsPolicy};

/// OpenSSL refuses a pair.
#[derive(Debug, thiserror::Error)]
#[error("openssl refuses pair {pair}")]
pub struct Refused {
    /// Its position.
    pub pair: usize,
    /// Why.
    #[source]
    pub source: ErrorStack,
}

/// What all names of a listener share: ciphers for TLS 1.2 and below (`None` leaves those that the
/// context has), the server's preference among them, the groups of the key exchange, no renegotiation.
///
/// # Errors
/// The list names no cipher that OpenSSL knows.
pub fn settle(context: &mut SslContextBuilder, ciphers: Option<&str>) -> Result<(), ErrorStack> {
    if let Some(ciphers) = ciphers {
        context.set_cipher_list(ciphers)?;
    }
    context.set_options(SslOptions::CIPHER_SERVER_PREFERENCE | SslOptions::NO_RENEGOTIATION);
    context.set_groups_list(GROUPS)
}

/// Holds a handshake to the policy; sessions of another `context` do not resume in it. To be called
/// when the client's hello is at hand and neither version nor resumption was decided.
///
/// # Errors
/// OpenSSL refused; the handshake must not go on.
pub fn hold_to(ssl: &mut SslRef, policy: &TlsPolicy, context: &[u8; 32]) -> Result<(), ErrorStack> {
    set_protocols(ssl, policy.protocols())?;
    ffi::set_session_context(ssl, context)?;
    if let Some(client) = policy.client() {
        client.require(ssl)?;
    }
    Ok(())
}

/// Installs pairs; OpenSSL keeps one, with its chain, per kind of key, and picks by what the client
/// can verify.
///
/// # Errors
/// The first pair that is refused; those behind it are installed all the same.
pub fn present<'p>(
    ssl: &mut SslRef,
    pairs: impl IntoIterator<Item = &'p Arc<CertifiedKey>>,
) -> Result<(), Refused> {
    let mut outcome = Ok(());
    for (pair, certified) in pairs.into_iter().enumerate() {
        if let Err(source) = install(ssl, certified) {
            outcome = outcome.and(Err(Refused { pair, source }));
        }
    }
    outcome
}

fn install(ssl: &mut SslRef, pair: &CertifiedKey) -> Result<(), ErrorStack> {
    ext::ssl_use_certificate(ssl, pair.leaf())?;
    ext::ssl_use_private_key(ssl, pair.key())?;
    for link in pair.intermediates() {
        ext::ssl_add_chain_cert(ssl, link)?;
    }
    Ok(())
}

/// What a session must have been made under to resume here. Where none may, nobody can tell.
///
/// # Errors
/// OpenSSL has no randomness.
pub fn session_context(
    policy: &TlsPolicy,
    name: &str,
    at: SystemTime,
) -> Result<[u8; 32], ErrorStack> {
    if policy.allows_resumption() {
        return Ok(policy.session_context(name, at));
    }
    once()
}

/// A context that no session was ever made under.
///
/// # Errors
/// OpenSSL has no randomness.
pub fn once() -> Result<[u8; 32], ErrorStack> {
    let mut once = [0; 32];
    openssl::rand::rand_bytes(&mut once)?;
    Ok(once)
}

fn set_protocols(ssl: &mut SslRef, allowed: Protocols) -> Result<(), ErrorStack> {
    let mut clear = SslOptions::empty();
    let mut set = SslOptions::empty();
    for protocol in Protocol::ALL {
        let refuse = match protocol {
            Protocol::Tls11 => SslOptions::NO_TLSV1_1,
            Protocol::Tls12 => SslOptions::NO_TLSV1_2,
            Protocol::Tls13 => SslOptions::NO_TLSV1_3,
        };
        if allowed.allows(protocol) {
            clear |= refuse;
        } else {
            set |= refuse;
        }
    }
    ffi::change_options(ssl, set, clear);
    if allowed.allows(Protocol::Tls11) {
        // TLS 1.1 signs with SHA-1, which every level above 0 refuses. Our own certificates are
        // checked at load, and those of clients by a level of their own (`ClientAuth::require`).
        ssl.set_security_level(0);
        ssl.set_min_proto_version(Some(SslVersion::TLS1_1))?;
    }
    Ok(())
}

/// Groups of the key exchange: Mozilla's, and the hybrid that keeps today's traffic from tomorrow's
/// quantum computers. OpenSSL's default order without its slow and little used groups (X448, P-521,
/// finite fields). Between `/`-separated parts the order decides, within one the client's key share:
/// no second round trip is asked for where the first will do.
const GROUPS: &str = "X25519MLKEM768 / X25519:P-256 / P-384";
