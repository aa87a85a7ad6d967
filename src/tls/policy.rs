//! What a name allows: protocol versions, client certificates, and which sessions may resume.

use std::sync::Arc;
use std::time::SystemTime;

use openssl::sha::Sha256;
use openssl::ssl::SslVersion;

use super::client_auth::{ClientAuth, Forward};
use crate::clock::unix_secs;

/// A protocol version clients may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TLS 1.1, deprecated by RFC 8996.
    Tls11,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Protocol {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::Tls11, Self::Tls12, Self::Tls13];

    /// The version of this name in configuration (`TLSv1.2`).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "TLSv1.1" => Some(Self::Tls11),
            "TLSv1.2" => Some(Self::Tls12),
            "TLSv1.3" => Some(Self::Tls13),
            _ => None,
        }
    }

    /// The same as OpenSSL calls it.
    #[must_use]
    pub const fn version(self) -> SslVersion {
        match self {
            Self::Tls11 => SslVersion::TLS1_1,
            Self::Tls12 => SslVersion::TLS1_2,
            Self::Tls13 => SslVersion::TLS1_3,
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Tls11 => 1,
            Self::Tls12 => 2,
            Self::Tls13 => 4,
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tls11 => "TLSv1.1",
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        })
    }
}

/// A name that is no protocol version, or a list without any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected at least one of TLSv1.1, TLSv1.2, TLSv1.3")]
pub struct BadProtocols;

/// A set of versions; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocols(u8);

impl Protocols {
    /// The set a list of names asks for.
    ///
    /// # Errors
    /// The list is empty or holds an unknown name.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, BadProtocols> {
        let mut bits = 0;
        for name in names {
            bits |= Protocol::parse(name).ok_or(BadProtocols)?.bit();
        }
        if bits == 0 {
            return Err(BadProtocols);
        }
        Ok(Self(bits))
    }

    /// Whether the version may be used.
    #[must_use]
    pub fn allows(self, protocol: Protocol) -> bool {
        self.0 & protocol.bit() != 0
    }

    /// The versions, oldest first.
    pub fn iter(self) -> impl Iterator<Item = Protocol> {
        let all = Protocol::ALL.into_iter();
        all.filter(move |protocol| self.allows(*protocol))
    }

    /// The versions of both.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl From<Protocol> for Protocols {
    fn from(protocol: Protocol) -> Self {
        Self(protocol.bit())
    }
}

impl Default for Protocols {
    /// TLS 1.2 and 1.3 (APISIX `apisix.ssl.ssl_protocols`).
    fn default() -> Self {
        Self(Protocol::Tls12.bit() | Protocol::Tls13.bit())
    }
}

/// What the handshake of a name must hold to.
#[derive(Clone)]
pub struct TlsPolicy {
    protocols: Protocols,
    client: Option<Arc<ClientAuth>>,
    identity: [u8; 32],
}

impl TlsPolicy {
    /// The policy of the `ssls` item `id`. A new `generation` makes old sessions useless, for
    /// when trust was withdrawn without any other visible change; 0 otherwise.
    #[must_use]
    pub fn new(
        id: &str,
        protocols: Protocols,
        client: Option<Arc<ClientAuth>>,
        generation: u64,
    ) -> Self {
        let mut digest = Sha256::new();
        digest.update(&(id.len() as u64).to_be_bytes());
        digest.update(id.as_bytes());
        digest.update(&[protocols.0, u8::from(client.is_some())]);
        if let Some(client) = &client {
            digest.update(client.digest());
            // A session that need not have presented anything opens nothing that must have.
            digest.update(&[u8::from(client.is_enforced_in_handshake())]);
        }
        digest.update(&generation.to_be_bytes());
        Self {
            protocols,
            client,
            identity: digest.finish(),
        }
    }

    /// Versions clients may use.
    #[must_use]
    pub fn protocols(&self) -> Protocols {
        self.protocols
    }

    /// Whose certificates clients must present; `None` where none are asked for.
    #[must_use]
    pub fn client(&self) -> Option<&Arc<ClientAuth>> {
        self.client.as_ref()
    }

    /// Whether sessions may resume: not where upstreams are told of the client's chain, which no
    /// session keeps.
    #[must_use]
    pub fn allows_resumption(&self) -> bool {
        let client = self.client.as_ref();
        client.is_none_or(|client| client.forward() != Forward::Chain)
    }

    /// Session id context for `name`: a session resumes under the same policy **and** name only,
    /// so that no session carries trust from one name to another (`spec/04` §4, CVE fix #12366).
    ///
    /// Where clients are asked for certificates it is another one each day: a session keeps the leaf
    /// alone and is renewed by resuming it, and would outlive those who vouched for it.
    #[must_use]
    pub fn session_context(&self, name: &str, at: SystemTime) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(&self.identity);
        if self.client.is_some() {
            // Not all items at the same moment.
            let own = u64::from(u16::from_be_bytes([self.identity[0], self.identity[1]]));
            let day = (unix_secs(at) + own) / DAY_SECS;
            digest.update(&day.to_be_bytes());
        }
        digest.update(name.as_bytes());
        digest.finish()
    }
}

/// Equal where handshakes are held to the same.
impl PartialEq for TlsPolicy {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for TlsPolicy {}

const DAY_SECS: u64 = 86_400;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tls::certificate::CaBundle;
    use crate::tls::client_auth::ClientRules;
    use crate::tls::dev::Authority;

    #[test]
    fn protocols_may_have_gaps() {
        let protocols = Protocols::parse(["TLSv1.1", "TLSv1.3"]).expect("known names");
        assert!(protocols.allows(Protocol::Tls11));
        assert!(!protocols.allows(Protocol::Tls12));
        assert!(protocols.allows(Protocol::Tls13));
    }

    #[test]
    fn unknown_or_no_protocols_are_refused() {
        assert_eq!(Protocols::parse(["TLSv1.0"]), Err(BadProtocols));
        assert_eq!(Protocols::parse([]), Err(BadProtocols));
    }

    #[test]
    fn session_contexts_differ_by_name_item_protocols_and_generation() {
        let policy = |id, names: &[&str], generation| {
            let protocols = Protocols::parse(names.iter().copied()).expect("known names");
            TlsPolicy::new(id, protocols, None, generation)
        };
        let at = SystemTime::UNIX_EPOCH;
        let base = policy("1", &["TLSv1.3"], 0);
        let context = base.session_context("a.test", at);
        let later = at + 400 * Duration::from_secs(DAY_SECS);
        assert_eq!(context, base.session_context("a.test", later));
        assert_ne!(context, base.session_context("b.test", at));
        for other in [
            policy("2", &["TLSv1.3"], 0),
            policy("1", &["TLSv1.2", "TLSv1.3"], 0),
            policy("1", &["TLSv1.3"], 1),
        ] {
            assert_ne!(context, other.session_context("a.test", at));
        }
    }

    #[test]
    fn sessions_of_clients_with_certificates_are_made_anew_each_day() {
        let ca = Authority::new().and_then(|ca| ca.cert_pem()).expect("pem");
        let ca = CaBundle::parse(ca.as_bytes()).expect("bundle");
        let auth = ClientAuth::build(ClientRules::new(ca)).expect("rules hold");
        let policy = TlsPolicy::new("1", Protocols::default(), Some(Arc::new(auth)), 0);
        let hours = (0..72_u64).map(|hour| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(hour * 3600);
            policy.session_context("a.test", at)
        });
        let mut contexts: Vec<_> = hours.collect();
        for (hour, context) in contexts.iter().enumerate().skip(24) {
            assert_ne!(*context, contexts[hour - 24]);
        }
        contexts.dedup();
        assert!((3..=4).contains(&contexts.len()), "{}", contexts.len());
    }
}
