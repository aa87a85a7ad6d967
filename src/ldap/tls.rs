//! How a connection to a directory is protected.

use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;

/// Whether and when TLS is spoken.
#[derive(Clone)]
pub enum Security {
    /// Never: passwords travel as they are.
    Plain,
    /// From the first byte (`ldaps`).
    Tls(TlsSettings),
    /// After an LDAP message asked for it (RFC 4511 §4.14).
    StartTls(TlsSettings),
}

/// What is expected of a directory's certificate.
#[derive(Clone)]
pub struct TlsSettings {
    connector: SslConnector,
    verify: bool,
}

impl TlsSettings {
    /// With `verify` the certificate must be the host's and come from a trusted authority: one of
    /// `trusted`, or of the system's where that is `None`.
    ///
    /// # Errors
    /// OpenSSL cannot take the certificates.
    pub fn build(verify: bool, trusted: Option<&[X509]>) -> Result<Self, ErrorStack> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        if !verify {
            builder.set_verify(SslVerifyMode::NONE);
        } else if let Some(trusted) = trusted {
            let mut store = X509StoreBuilder::new()?;
            for certificate in trusted {
                store.add_cert(certificate.clone())?;
            }
            builder.set_cert_store(store.build());
        }
        Ok(Self {
            connector: builder.build(),
            verify,
        })
    }

    /// A session for a connection to `host`, whose name is checked and sent as SNI.
    pub(super) fn session(&self, host: &str) -> Result<openssl::ssl::Ssl, ErrorStack> {
        let mut configuration = self.connector.configure()?;
        configuration.set_verify_hostname(self.verify);
        configuration.into_ssl(host)
    }
}
