//! Client mutual TLS of an `ssls` item: whose certificates its names accept.

use std::sync::Arc;

use super::compile::Scope;
use super::substitute;
use crate::config::resource::{Pem, SslConfig};
use crate::tls::{CaBundle, ClientAuth};

/// What the item asks of clients; `None` where it asks for nothing. `Err` where that cannot be set
/// up, which was reported: its names refuse.
pub(super) fn build(
    config: &SslConfig,
    scope: &mut Scope<'_>,
) -> Result<Option<Arc<ClientAuth>>, ()> {
    let Some(client) = &config.client else {
        return Ok(None);
    };
    if !client.skip_mtls_uri_regex.is_empty() {
        scope.error("unsupported", "client.skip_mtls_uri_regex", "exempting paths from client certificates is not available; the names of this item refuse handshakes");
        return Err(());
    }
    let ca = match substitute::pem(&client.ca, Pem::Certificate, "client.ca", scope.run.view) {
        Ok(pem) => pem.and_then(|pem| CaBundle::parse(&pem).map_err(|error| error.to_string())),
        Err(missing) => {
            scope.unresolved("client.ca", &missing);
            return Err(());
        }
    };
    ca.and_then(|ca| {
        ClientAuth::build(ca, client.depth).map_err(|_| "cannot be trusted as a CA".to_owned())
    })
    .map(|auth| Some(Arc::new(auth)))
    .map_err(|error| scope.error("certificate", "client.ca", &error))
}
