//! Kinds of keys, as clients tell them apart, and a client for each.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ssl::{
    SslContext, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslVerifyMode,
};

use crate::tls::key::KeyAlgorithm;

/// What a client must be able to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Rsa,
    /// A key that is for RSA-PSS alone.
    RsaPss,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [
        Self::Rsa,
        Self::RsaPss,
        Self::P256,
        Self::P384,
        Self::Ed25519,
    ];

    pub(super) const fn of(algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::Rsa { .. } => Self::Rsa,
            KeyAlgorithm::RsaPss { .. } => Self::RsaPss,
            KeyAlgorithm::EcdsaP256 => Self::P256,
            KeyAlgorithm::EcdsaP384 => Self::P384,
            KeyAlgorithm::Ed25519 => Self::Ed25519,
        }
    }

    /// What a signature of TLS is made over; Ed25519 hashes by itself.
    pub(super) fn digest(self) -> Option<MessageDigest> {
        match self {
            Self::Rsa | Self::RsaPss | Self::P256 => Some(MessageDigest::sha256()),
            Self::P384 => Some(MessageDigest::sha384()),
            Self::Ed25519 => None,
        }
    }

    /// A client that verifies this kind of key and no other. It refuses nothing for being weak: what
    /// the server's side presents is the server's to judge.
    pub(super) fn client(self) -> Result<SslContext, ErrorStack> {
        let mut client = SslContextBuilder::new(SslMethod::tls_client())?;
        client.set_verify(SslVerifyMode::NONE);
        client.set_session_cache_mode(SslSessionCacheMode::OFF);
        client.set_options(SslOptions::NO_TICKET);
        client.set_cipher_list(self.ciphers())?;
        client.set_sigalgs_list(self.signatures())?;
        // One cheap share in the hello, and the curves of the certificates.
        client.set_groups_list("X25519:P-256:P-384")?;
        Ok(client.build())
    }

    const fn signatures(self) -> &'static str {
        match self {
            Self::Rsa => {
                "rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:\
                 rsa_pkcs1_sha256:rsa_pkcs1_sha384:rsa_pkcs1_sha512"
            }
            Self::RsaPss => "rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512",
            Self::P256 => "ecdsa_secp256r1_sha256",
            Self::P384 => "ecdsa_secp384r1_sha384",
            Self::Ed25519 => "ed25519",
        }
    }

    /// For TLS 1.2 and below, where the cipher says how the server proves its key.
    const fn ciphers(self) -> &'static str {
        match self {
            Self::Rsa | Self::RsaPss => "aRSA:@SECLEVEL=0",
            Self::P256 | Self::P384 | Self::Ed25519 => "aECDSA:@SECLEVEL=0",
        }
    }
}
