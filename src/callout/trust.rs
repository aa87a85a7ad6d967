//! What a server's certificate must chain up to, and TLS made of it once.

use std::sync::Arc;

use native_tls::{Certificate, Protocol, TlsConnector};
use openssl::sha::sha256;
use openssl::x509::X509;

use crate::kept::Kept;

/// Certificates to trust.
#[derive(Clone, Default)]
pub enum Trust {
    /// The system's.
    #[default]
    System,
    /// These and no others; none at all refuses every server.
    Only(Arc<[X509]>),
}

/// The text holds no certificates, or the TLS library does not take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected PEM certificates")]
pub struct NotTrust;

impl Trust {
    /// Reads a PEM bundle of at least one certificate.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(pem: &[u8]) -> Result<Self, NotTrust> {
        match X509::stack_from_pem(pem) {
            Ok(certificates) if !certificates.is_empty() => Ok(Self::Only(certificates.into())),
            _ => Err(NotTrust),
        }
    }

    /// Trusts nothing: every server over TLS is refused.
    #[must_use]
    pub fn nothing() -> Self {
        Self::Only(Arc::new([]))
    }

    fn certificates(&self) -> Result<Option<Vec<Vec<u8>>>, NotTrust> {
        match self {
            Self::System => Ok(None),
            Self::Only(certificates) => {
                let der = certificates.iter().map(|certificate| certificate.to_der());
                der.collect::<Result<_, _>>()
                    .map(Some)
                    .map_err(|_| NotTrust)
            }
        }
    }
}

/// TLS for clients; all with the same trust share one.
pub(super) struct Connector {
    id: String,
    tls: TlsConnector,
    /// Keeps the entry that others share.
    _shared: Arc<Result<TlsConnector, NotTrust>>,
}

impl Connector {
    pub(super) fn build(trust: &Trust, verify: bool, kept: &Kept) -> Result<Self, NotTrust> {
        let certificates = if verify { trust.certificates()? } else { None };
        let id = match &certificates {
            _ if !verify => "any".to_owned(),
            None => "system".to_owned(),
            Some(certificates) => {
                let digests: Vec<_> = certificates.iter().map(|der| sha256(der)).collect();
                hex(&sha256(digests.as_flattened()))
            }
        };
        let key = format!("callout/tls/{id}");
        let shared = kept.entry(&key, || connector(certificates.as_deref(), verify));
        let tls = Result::clone(&shared)?;
        Ok(Self {
            id,
            tls,
            _shared: shared,
        })
    }

    /// Names the trust.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The library's object; a clone is the same.
    pub(super) fn tls(&self) -> TlsConnector {
        self.tls.clone()
    }
}

fn connector(certificates: Option<&[Vec<u8>]>, verify: bool) -> Result<TlsConnector, NotTrust> {
    let mut builder = TlsConnector::builder();
    builder.min_protocol_version(Some(Protocol::Tlsv12));
    if !verify {
        builder
            .danger_accept_invalid_certs(true)
            .danger_accept_invalid_hostnames(true);
    }
    if let Some(certificates) = certificates {
        builder.disable_built_in_roots(true);
        for der in certificates {
            let certificate = Certificate::from_der(der).map_err(|_| NotTrust)?;
            builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|_| NotTrust)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
