//! What can be wrong with certificates and keys, in words that never hold a byte of what was read.

use std::time::SystemTime;

use time::OffsetDateTime;

use crate::clock::unix_secs;
use crate::tls::key::KeySlot;

/// Why a certificate, a key or a bundle cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The text holds no certificate block.
    #[error("no PEM certificate found")]
    NoCertificate,
    /// A private key stands where certificates should.
    #[error("expected PEM certificates, found a private key alone: have the two been swapped?")]
    KeyForCertificate,
    /// A block that is not a certificate.
    #[error("a PEM certificate does not parse")]
    BadCertificate,
    /// The text holds no private key block.
    #[error("no PEM private key found")]
    NoKey,
    /// Certificates stand where a private key should.
    #[error("expected a PEM private key, found certificates alone: have the two been swapped?")]
    CertificateForKey,
    /// The text was escaped once too often.
    #[error("the PEM text holds \\n as two characters where lines should end")]
    EscapedLines,
    /// A pass phrase would be needed, and there is nobody to ask.
    #[error("the private key is encrypted; encrypted keys are not supported")]
    EncryptedKey,
    /// A block that is not a private key.
    #[error("the PEM private key does not parse")]
    BadKey,
    /// Neither RSA, ECDSA on P-256 or P-384, nor Ed25519.
    #[error("the key must be RSA, ECDSA on P-256 or P-384, or Ed25519")]
    UnsupportedKey,
    /// RSA below 2048 bits.
    #[error("the RSA key has {bits} bits; at least 2048 are needed")]
    WeakKey {
        /// Size of the modulus.
        bits: u32,
    },
    /// RSA beyond 8192 bits.
    #[error("the RSA key has {bits} bits; at most 8192 are possible")]
    HugeKey {
        /// Size of the modulus.
        bits: u32,
    },
    /// Signed with MD5 or SHA-1: OpenSSL would refuse it in every handshake.
    #[error("a certificate of the chain is signed with MD5 or SHA-1")]
    WeakSignature,
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The key belongs to a later certificate of the chain.
    #[error(
        "the private key does not belong to the first certificate but to certificate {position} of the chain: put that one first"
    )]
    LeafNotFirst {
        /// Position from 1.
        position: usize,
    },
    /// Past its end.
    #[error("the certificate expired on {}", Moment(*.at))]
    Expired {
        /// Its end.
        at: SystemTime,
    },
    /// Before its start.
    #[error("the certificate is not valid before {}", Moment(*.at))]
    NotYetValid {
        /// Its start.
        at: SystemTime,
    },
}

impl CertificateError {
    /// Whether the key is what should be looked at, and not the certificate.
    #[must_use]
    pub const fn is_about_key(&self) -> bool {
        matches!(
            self,
            Self::NoKey
                | Self::CertificateForKey
                | Self::EncryptedKey
                | Self::BadKey
                | Self::UnsupportedKey
                | Self::WeakKey { .. }
                | Self::HugeKey { .. }
                | Self::Mismatch
        )
    }

    /// `otherwise`, of a text without blocks; unless something else explains that.
    pub(in crate::tls) fn no_block(text: &[u8], otherwise: Self) -> Self {
        let has = |part: &[u8]| memchr::memmem::find(text, part).is_some();
        if has(b"-----BEGIN ") && has(b"-----\\n") {
            return Self::EscapedLines;
        }
        otherwise
    }
}

/// What deserves a look though the certificate serves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateWarning {
    /// Less than the caller's notice is left.
    #[error("the certificate expires on {}", Moment(*.at))]
    ExpiresSoon {
        /// Its end.
        at: SystemTime,
    },
    /// A certificate of the chain has ended: clients without a way around it will refuse.
    #[error("certificate {position} of the chain expired on {}", Moment(*.at))]
    LinkExpired {
        /// Position from 1; the certificate itself is 1.
        position: usize,
        /// Its end.
        at: SystemTime,
    },
    /// A certificate of the chain ends within the caller's notice, and before the leaf.
    #[error("certificate {position} of the chain expires on {}", Moment(*.at))]
    LinkExpiresSoon {
        /// Position from 1; the certificate itself is 1.
        position: usize,
        /// Its end.
        at: SystemTime,
    },
    /// A pattern of the item that the certificate does not cover; clients will refuse it.
    #[error("the certificate does not cover {pattern}")]
    NotCovered {
        /// The pattern, as configured.
        pattern: Box<str>,
    },
    /// A link whose issuer is not the next certificate.
    #[error("the chain is out of order: certificate {position} was not issued by the next one")]
    ChainOutOfOrder {
        /// Position from 1.
        position: usize,
    },
    /// Clients have not looked at the subject since 2017.
    #[error("the certificate has no subject alternative name; clients refuse it")]
    NoAlternativeNames,
    /// An authority's certificate presented as a server's or client's own.
    #[error("the certificate is one of an authority (CA); clients may refuse it")]
    Authority,
    /// Its extended key usage leaves out what it is used for.
    #[error("the certificate's extended key usage does not allow {0}")]
    Purpose(
        /// What it is used for.
        Purpose,
    ),
    /// Its key usage leaves out signatures, which TLS 1.3 and ECDHE need.
    #[error("the certificate's key usage does not allow digital signatures")]
    NoSignatures,
    /// RSA so long that handshakes are dear.
    #[error("the RSA key has {bits} bits; each handshake costs milliseconds of a core")]
    DearKey {
        /// Size of the modulus.
        bits: u32,
    },
    /// An earlier pair of the item has a key of the same kind.
    #[error(
        "an earlier pair of the item has an {slot} key too; this one serves only while that one is not valid"
    )]
    Shadowed {
        /// What they have in common.
        slot: KeySlot,
    },
}

/// What a certificate is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Presented by a server.
    Server,
    /// Presented by a client.
    Client,
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Server => "serverAuth",
            Self::Client => "clientAuth",
        })
    }
}

/// A moment as people read it, to the second, UTC.
pub struct Moment(
    /// The moment.
    pub SystemTime,
);

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = i64::try_from(unix_secs(self.0)).ok();
        let at = at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
        let (hour, minute, second) = at.to_hms();
        write!(
            f,
            "{year}-{month:02}-{day:02} at {hour:02}:{minute:02}:{second:02} UTC"
        )
    }
}
