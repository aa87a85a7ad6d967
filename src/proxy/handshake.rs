//! The TLS handshake: which identity serves the name a client asked for. Reads the current names
//! once per handshake, waits for nothing, and never presents a certificate for a name that no
//! item declares.
//!
//! Everything that depends on the name is decided in OpenSSL's client-hello callback, because
//! only there the protocol range can still change and resumption has not been decided yet. What
//! was decided travels with the connection (`ex_data`); the name OpenSSL reports later is that of
//! the *resumed* session and is not used.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{
    ClientHelloResponse, Ssl, SslAlert, SslOptions, SslRef, SslSessionCacheMode, SslVersion,
};
use pingora_core::listeners::TlsAccept;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::protocols::tls::{ALPN, TlsRef};
use pingora_core::tls::ext;

use crate::plugins::ctx::TlsInfo;
use crate::tls::sni::{MAX_NAME, Requested, lower_case, parse};
use crate::tls::{CertifiedKey, IdentityState, Protocol, Protocols, SniStore, TlsIdentity, ffi};

/// Where a handshake finds the names in force now.
pub trait CurrentNames: Send + Sync {
    /// The names; called once per handshake, on a worker's thread, so it must not wait.
    fn current(&self) -> Arc<SniStore>;
}

impl<F: Fn() -> Arc<SniStore> + Send + Sync> CurrentNames for F {
    fn current(&self) -> Arc<SniStore> {
        self()
    }
}

/// Settings of the TLS listeners (`apisix.ssl`).
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// OpenSSL cipher list for TLS 1.2 and below; `None` takes Mozilla's intermediate list, which
    /// is APISIX's default. TLS 1.3 suites are not affected.
    pub ciphers: Option<String>,
    /// Session tickets, whose keys are random and live as long as the process. Default false
    /// (APISIX `ssl_session_tickets`); sessions then resume from a cache in memory.
    pub session_tickets: bool,
    /// Offer HTTP/2 by ALPN.
    pub http2: bool,
    /// Name assumed for clients that send none. `None` refuses them.
    pub fallback_sni: Option<String>,
    /// Whether clients that ask for an unknown name are served as `fallback_sni` too. Default
    /// false (APISIX never does); true presents a certificate the client did not ask for.
    pub fallback_for_unknown: bool,
}

/// How handshakes were refused before any certificate was chosen.
#[derive(Debug, Default)]
pub struct RefusedHandshakes {
    /// No name sent and no fallback.
    pub no_name: AtomicU64,
    /// A name that no item declares.
    pub unknown_name: AtomicU64,
    /// A name no certificate can have, or an extension that does not parse.
    pub bad_name: AtomicU64,
    /// A name whose item cannot serve.
    pub refused_item: AtomicU64,
}

/// Why TLS listeners could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The cipher list names nothing OpenSSL knows.
    #[error("the cipher list has no known cipher")]
    Ciphers(#[source] ErrorStack),
    /// OpenSSL refused.
    #[error("openssl refused the settings")]
    OpenSsl(#[from] ErrorStack),
    /// Pingora refused.
    #[error("pingora refused the settings")]
    Pingora(#[source] Box<pingora_error::Error>),
}

/// Settings for Pingora's TLS listeners that take certificates from `names`.
///
/// # Errors
/// The cipher list is unknown, or OpenSSL refused.
pub fn tls_settings(
    names: Arc<dyn CurrentNames>,
    options: TlsOptions,
    refused: Arc<RefusedHandshakes>,
) -> Result<TlsSettings, TlsSetupError> {
    let chosen = Ssl::new_ex_index()?;
    let accept = Box::new(Accept { chosen });
    let mut settings = TlsSettings::with_callbacks(accept).map_err(TlsSetupError::Pingora)?;
    if let Some(ciphers) = &options.ciphers {
        settings
            .set_cipher_list(ciphers)
            .map_err(TlsSetupError::Ciphers)?;
    }
    settings.set_options(SslOptions::CIPHER_SERVER_PREFERENCE | SslOptions::NO_RENEGOTIATION);
    if !options.session_tickets {
        settings.set_options(SslOptions::NO_TICKET);
    }
    settings.set_session_cache_mode(SslSessionCacheMode::SERVER);
    settings.set_session_cache_size(SESSION_CACHE_SIZE);
    ffi::set_session_lifetime(&mut settings, SESSION_LIFETIME);
    settings.set_alpn(if options.http2 { ALPN::H2H1 } else { ALPN::H1 });
    let hello = Hello {
        names,
        options,
        refused,
        chosen,
    };
    settings.set_client_hello_callback(move |ssl, alert| hello.decide(ssl, alert));
    Ok(settings)
}

/// What was decided for one connection.
struct Chosen {
    identity: Arc<TlsIdentity>,
    /// Name the client sent, lower-cased.
    sni: Option<Box<str>>,
    /// The same, or the name assumed where it sent none.
    served_as: Box<str>,
}

/// Where [`Chosen`] stands on a connection.
type ChosenIndex = Index<Ssl, Chosen>;

/// The client-hello callback.
struct Hello {
    names: Arc<dyn CurrentNames>,
    options: TlsOptions,
    refused: Arc<RefusedHandshakes>,
    chosen: ChosenIndex,
}

/// The alert a handshake ends with.
type Refusal = SslAlert;

impl Hello {
    fn decide(
        &self,
        ssl: &mut SslRef,
        alert: &mut SslAlert,
    ) -> Result<ClientHelloResponse, ErrorStack> {
        match self.choose(ssl) {
            Ok(()) => Ok(ClientHelloResponse::SUCCESS),
            Err(refusal) => {
                *alert = refusal;
                Err(ErrorStack::get())
            }
        }
    }

    fn choose(&self, ssl: &mut SslRef) -> Result<(), Refusal> {
        let mut buffer = [0; MAX_NAME];
        let sni = self.requested(ssl, &mut buffer)?;
        // After a HelloRetryRequest the client says hello again; what was decided stays, and it
        // must not ask for another name now (RFC 8446 §4.1.2).
        if let Some(first) = ssl.ex_data(self.chosen) {
            return match first.sni.as_deref() == sni {
                true => Ok(()),
                false => Err(SslAlert::ILLEGAL_PARAMETER),
            };
        }
        let identity = self.find(sni)?;
        if let IdentityState::Refused { reason } = &identity.state {
            self.refused.refused_item.fetch_add(1, Ordering::Relaxed);
            log::warn!("ssl {} refuses handshakes: {reason}", identity.id);
            return Err(SslAlert::INTERNAL_ERROR);
        }
        let fallback = self.options.fallback_sni.as_deref();
        let chosen = Chosen {
            identity,
            served_as: sni.or(fallback).unwrap_or_default().into(),
            sni: sni.map(Box::from),
        };
        self.apply(ssl, chosen).map_err(|error| {
            log::error!("openssl refused the settings of a handshake: {error}");
            SslAlert::INTERNAL_ERROR
        })
    }

    /// The name the client sent, lower-cased.
    fn requested<'b>(
        &self,
        ssl: &SslRef,
        buffer: &'b mut [u8; MAX_NAME],
    ) -> Result<Option<&'b str>, Refusal> {
        let refusal = match parse(ffi::server_name_extension(ssl)) {
            Requested::Nothing => return Ok(None),
            Requested::Name(name) => match lower_case(name, buffer) {
                Some(name) => return Ok(Some(name)),
                None => SslAlert::UNRECOGNIZED_NAME,
            },
            Requested::BadName => SslAlert::UNRECOGNIZED_NAME,
            Requested::Malformed => SslAlert::DECODE_ERROR,
        };
        self.refused.bad_name.fetch_add(1, Ordering::Relaxed);
        Err(refusal)
    }

    fn find(&self, sni: Option<&str>) -> Result<Arc<TlsIdentity>, Refusal> {
        let names = self.names.current();
        let fallback = self.options.fallback_sni.as_deref();
        let Some(sni) = sni else {
            let found = fallback.and_then(|name| names.find(name));
            return found.cloned().ok_or_else(|| {
                self.refused.no_name.fetch_add(1, Ordering::Relaxed);
                log::warn!("failed to find SNI: the client sent none and no fallback serves it");
                SslAlert::UNRECOGNIZED_NAME
            });
        };
        if let Some(found) = names.find_lower_case(sni) {
            return Ok(found.clone());
        }
        let fallback = fallback.filter(|_| self.options.fallback_for_unknown);
        let found = fallback.and_then(|name| names.find(name));
        found.cloned().ok_or_else(|| {
            self.refused.unknown_name.fetch_add(1, Ordering::Relaxed);
            log::warn!("failed to find any SSL certificate by SNI: {sni}");
            SslAlert::UNRECOGNIZED_NAME
        })
    }

    /// Puts the decision onto the connection.
    fn apply(&self, ssl: &mut SslRef, chosen: Chosen) -> Result<(), ErrorStack> {
        let policy = &chosen.identity.policy;
        set_protocols(ssl, policy.protocols())?;
        ffi::set_session_context(ssl, &policy.session_context(&chosen.served_as))?;
        if let Some(client) = policy.client() {
            client.require(ssl)?;
        }
        ssl.set_ex_data(self.chosen, chosen);
        Ok(())
    }
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
        // checked at load, so the level guards nothing else here.
        ssl.set_security_level(0);
        ssl.set_min_proto_version(Some(SslVersion::TLS1_1))?;
    }
    Ok(())
}

/// What Pingora calls later in the handshake.
struct Accept {
    chosen: ChosenIndex,
}

#[async_trait]
impl TlsAccept for Accept {
    /// Not called when a session is resumed. Installing nothing ends the handshake with an alert.
    async fn certificate_callback(&self, ssl: &mut TlsRef) {
        let Some(chosen) = ssl.ex_data(self.chosen) else {
            return;
        };
        let identity = chosen.identity.clone();
        let IdentityState::Serving { pairs } = &identity.state else {
            return;
        };
        for pair in pairs {
            if let Err(error) = install(ssl, pair) {
                log::error!(
                    "openssl refused a certificate of ssl {}: {error}",
                    identity.id
                );
            }
        }
    }

    async fn handshake_complete_callback(
        &self,
        ssl: &TlsRef,
    ) -> Option<Arc<dyn Any + Send + Sync>> {
        let chosen = ssl.ex_data(self.chosen)?;
        let cipher = ssl.current_cipher().map_or("", |cipher| cipher.name());
        // An `Arc` inside Pingora's own, so that a request takes a share and copies nothing.
        Some(Arc::new(Arc::new(TlsInfo {
            sni: chosen.sni.clone(),
            served_as: chosen.served_as.clone(),
            protocol: ssl.version_str(),
            cipher: Cow::Borrowed(cipher),
            ssl_id: chosen.identity.id.clone(),
            client_verified: chosen.identity.policy.client().is_some(),
            resumed: ssl.session_reused(),
        })))
    }
}

/// OpenSSL keeps one pair and chain per kind of key and picks by what the client can verify.
fn install(ssl: &mut SslRef, pair: &CertifiedKey) -> Result<(), ErrorStack> {
    ext::ssl_use_certificate(ssl, pair.leaf())?;
    ext::ssl_use_private_key(ssl, pair.key())?;
    for link in pair.intermediates() {
        ext::ssl_add_chain_cert(ssl, link)?;
    }
    Ok(())
}

/// Sessions kept for resumption, per listener; the oldest go first. OpenSSL's own default.
const SESSION_CACHE_SIZE: i32 = 20 * 1024;

/// APISIX 3.18: `ssl_session_timeout 10m`.
const SESSION_LIFETIME: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
