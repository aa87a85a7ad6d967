//! The status callback: what the authority said of the certificate that OpenSSL has chosen. Called
//! only where the client asked for it, and waits for nothing.

use std::sync::Arc;

use foreign_types_shared::ForeignTypeRef as _;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslRef};

use super::hello::ChosenIndex;
use crate::tls::IdentityState;
use crate::tls::stapling::Staple;

/// Has handshakes of this context staple what is at hand.
pub(super) fn set_up(
    context: &mut SslContextBuilder,
    chosen: ChosenIndex,
) -> Result<(), ErrorStack> {
    context.set_status_callback(move |ssl| {
        // Without one, or where OpenSSL refuses it, the handshake goes on as if nobody had asked.
        Ok(find(ssl, chosen).is_some_and(|staple| ssl.set_ocsp_status(staple.der()).is_ok()))
    })
}

fn find(ssl: &SslRef, chosen: ChosenIndex) -> Option<Arc<Staple>> {
    let chosen = ssl.ex_data(chosen)?;
    let settings = chosen.identity.stapling?;
    let IdentityState::Serving { pairs } = &chosen.identity.state else {
        return None;
    };
    // OpenSSL holds the very object that was put onto the connection.
    let shown = ssl.certificate()?.as_ptr();
    let mut pairs = pairs.iter();
    let pair = pairs.find(|pair| pair.leaf().as_ptr() == shown)?;
    pair.staple(settings, chosen.at)
}
