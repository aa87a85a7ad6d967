//! What Pingora calls later in a handshake: the certificates to present, and the facts that requests
//! of the connection will ask for.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use pingora_core::listeners::TlsAccept;
use pingora_core::protocols::tls::TlsRef;

use super::hello::ChosenIndex;
use crate::plugins::ctx::TlsInfo;
use crate::tls::{Presented, present};

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
        if let Err(refused) = present::present(ssl, identity.presented(at)) {
            let (id, why) = (&identity.id, &refused.source);
            log::error!("ssl {id}: {refused}: {why}");
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
            client: chosen
                .identity
                .policy
                .client()
                .map(|auth| Presented::read(ssl, auth)),
            resumed: ssl.session_reused(),
            spent: AtomicBool::new(false),
        })))
    }
}
