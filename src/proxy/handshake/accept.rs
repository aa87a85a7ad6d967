//! What Pingora calls later in a handshake: the certificates to present, and the facts that requests
//! of the connection will ask for.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use openssl::error::ErrorStack;
use openssl::ssl::SslRef;
use pingora_core::listeners::TlsAccept;
use pingora_core::protocols::tls::TlsRef;
use pingora_core::tls::ext;

use super::hello::ChosenIndex;
use crate::plugins::ctx::TlsInfo;
use crate::tls::CertifiedKey;

/// What Pingora calls later in the handshake.
pub(super) struct Accept {
    pub chosen: ChosenIndex,
}

#[async_trait]
impl TlsAccept for Accept {
    /// Not called when a session is resumed. Installing nothing ends the handshake with an alert.
    async fn certificate_callback(&self, ssl: &mut TlsRef) {
        let Some(chosen) = ssl.ex_data(self.chosen) else {
            return;
        };
        let (identity, at) = (chosen.identity.clone(), chosen.at);
        for pair in identity.presented(at) {
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
