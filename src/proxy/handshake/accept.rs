//! What Pingora calls later in a handshake: the certificates to present, and the facts that requests
//! of the connection will ask for.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use async_trait::async_trait;
use pingora_core::listeners::TlsAccept;
use pingora_core::protocols::tls::TlsRef;

use super::hello::{ChosenIndex, Demanded};
use crate::plugins::ctx::TlsInfo;
use crate::tls::{CertifiedKey, IdentityState, OnDemand, Presented, TlsIdentity, ffi, present};

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
        match &identity.state {
            IdentityState::Serving { .. } => show(ssl, &identity, identity.presented(at)),
            IdentityState::OnDemand(names) => {
                let Some(demanded) = chosen.demanded.clone() else {
                    return;
                };
                let served_as = chosen.served_as.clone();
                show_demanded(ssl, &identity, names, demanded, (&served_as, at)).await;
            }
            IdentityState::Refused { .. } => {}
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

fn show<'p>(
    ssl: &mut TlsRef,
    identity: &TlsIdentity,
    pairs: impl IntoIterator<Item = &'p Arc<CertifiedKey>>,
) {
    if let Err(refused) = present::present(ssl, pairs) {
        let (id, why) = (&identity.id, &refused.source);
        log::error!("ssl {id}: {refused}: {why}");
    }
}

/// Waits for the name's pairs where they are not in memory; without them nothing is shown.
async fn show_demanded(
    ssl: &mut TlsRef,
    identity: &TlsIdentity,
    names: &OnDemand,
    demanded: Demanded,
    (served_as, at): (&str, SystemTime),
) {
    let Demanded { name, served } = demanded;
    let served = match served {
        Some(served) => served,
        None => match names.obtain(&name).await {
            Ok(served) => served,
            // The keeper says why, as often as is useful.
            Err(_) => return,
        },
    };
    let bound = served.session_context(&identity.policy, served_as, at);
    if let Err(error) = bound.and_then(|context| ffi::bind_session(ssl, &context)) {
        log::error!("openssl refused the settings of a handshake: {error}");
        return;
    }
    show(ssl, identity, &served.pairs);
}
