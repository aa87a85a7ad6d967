//! Client mutual TLS, enforced inside the handshake: who issued the certificates a name accepts.

use openssl::error::ErrorStack;
use openssl::sha::Sha256;
use openssl::ssl::{SslRef, SslVerifyMode};
use openssl::x509::store::{X509Store, X509StoreBuilder};
use pingora_core::tls::ext;

use super::certificate::CaBundle;

/// The certificates a name accepts from clients. A client without one is refused.
pub struct ClientAuth {
    store: X509Store,
    ca: CaBundle,
    depth: u32,
    digest: [u8; 32],
}

impl ClientAuth {
    /// Accepts what chains to `ca` over at most `depth` intermediates (APISIX default 1).
    ///
    /// # Errors
    /// OpenSSL refused a certificate.
    pub fn build(ca: CaBundle, depth: u32) -> Result<Self, ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        for certificate in ca.certificates() {
            store.add_cert(certificate.clone())?;
        }
        let mut digest = Sha256::new();
        digest.update(ca.digest());
        digest.update(&depth.to_be_bytes());
        Ok(Self {
            store: store.build(),
            ca,
            depth,
            digest: digest.finish(),
        })
    }

    /// Changes whenever what is accepted does.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Makes this handshake ask for a certificate and end with an alert without a good one.
    ///
    /// # Errors
    /// OpenSSL refused; the handshake must not go on.
    pub fn require(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        ext::ssl_set_verify_cert_store(ssl, &self.store)?;
        for certificate in self.ca.certificates() {
            ssl.add_client_ca(certificate)?;
        }
        let depth = i32::try_from(self.depth).unwrap_or(i32::MAX);
        ssl.param_mut().set_depth(depth);
        ssl.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        Ok(())
    }
}
