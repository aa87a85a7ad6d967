//! A handshake in memory with an identity that no client was shown yet: real OpenSSL on both ends,
//! and on the server's the steps of a real connection ([`super::present`]). What OpenSSL refuses,
//! and what leaves a client without a common cipher or signature, shows before it is served.
//!
//! The client speaks one protocol and verifies one kind of key per handshake. It asks nobody whom to
//! trust: it must be shown the very certificate and chain that is rehearsed, and proof of its key. It
//! has no certificate of its own, so a name that requires one must turn it away. Of pairs that share a
//! [`KeySlot`](super::KeySlot) each has its turn without the others, as time has it.

mod kind;
mod pipe;
#[cfg(test)]
pub(crate) mod weak;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::sign::{Signer, Verifier};
use openssl::ssl::{
    ClientHelloResponse, ErrorCode, Ssl, SslAcceptor, SslAlert, SslContext, SslMethod, SslOptions,
    SslRef, SslSessionCacheMode, SslStream, SslVerifyMode,
};
use pingora_core::tls::ext;

use super::certificate::CertifiedKey;
use super::policy::{Protocol, Protocols, TlsPolicy};
use super::{ffi, present};
use kind::Kind;
use pipe::End;

/// Why a rehearsed handshake did not go as it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// OpenSSL does not take the certificate, its chain or the key.
    #[error("openssl refuses the certificate: {reason}")]
    Refused {
        /// OpenSSL's words.
        reason: Box<str>,
    },
    /// The handshake broke off.
    #[error("no {protocol} handshake succeeds: {reason}")]
    Broken {
        /// What the client spoke.
        protocol: Protocol,
        /// OpenSSL's words.
        reason: Box<str>,
    },
    /// The client was shown another certificate, or less of its chain.
    #[error("{protocol} clients are shown another certificate in its place")]
    OtherShown {
        /// What the client spoke.
        protocol: Protocol,
    },
    /// The name requires a certificate of clients, and let in one without.
    #[error("{protocol} clients without a certificate are let in")]
    LetIn {
        /// What the client spoke.
        protocol: Protocol,
    },
}

impl Failure {
    /// Whether nothing of the identity must be served: it is not a matter of what clients speak.
    #[must_use]
    pub const fn is_grave(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::LetIn { .. })
    }

    /// What the client spoke; `None` where that does not matter.
    #[must_use]
    pub const fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Refused { .. } => None,
            Self::Broken { protocol, .. }
            | Self::OtherShown { protocol }
            | Self::LetIn { protocol } => Some(*protocol),
        }
    }
}

/// What came of one pair's handshakes.
#[derive(Debug)]
pub struct Played {
    /// Its position.
    pub pair: usize,
    /// What clients that can verify it were served over.
    pub served: Option<Protocols>,
    /// Why they were not over others.
    pub failures: Vec<Failure>,
}

/// What came of a rehearsal.
#[derive(Debug)]
pub struct Rehearsed(pub Vec<Played>);

impl Rehearsed {
    /// Protocols over which at least one pair is served.
    #[must_use]
    pub fn served(&self) -> Option<Protocols> {
        let served = self.0.iter().filter_map(|played| played.served);
        served.reduce(Protocols::or)
    }

    /// The failures, with the positions of their pairs.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Failure)> {
        self.0.iter().flat_map(|played| {
            let failures = played.failures.iter();
            failures.map(|failure| (played.pair, failure))
        })
    }

    /// Why nothing of it must be served, if there is a reason, and the position of its pair: a grave
    /// failure; or one over a protocol that clients were served over (`expected`) and no pair serves
    /// any more; or any, where no client is served at all.
    #[must_use]
    pub fn fault(&self, expected: Option<Protocols>) -> Option<(usize, &Failure)> {
        let served = self.served();
        let serves = |protocol| served.is_some_and(|served| served.allows(protocol));
        let was_served = |protocol| expected.is_some_and(|expected| expected.allows(protocol));
        let grave = self.failures().find(|(_, failure)| failure.is_grave());
        grave.or_else(|| {
            self.failures().find(|(_, failure)| {
                let of = failure.protocol();
                served.is_none() || of.is_some_and(|of| was_served(of) && !serves(of))
            })
        })
    }
}

/// What identities have in common whose handshakes find the same versions, ciphers and kinds of
/// signatures.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Class {
    kinds: Vec<Kind>,
    protocols: Protocols,
    client: Option<[u8; 32]>,
}

impl Class {
    /// The class of an identity with these pairs.
    #[must_use]
    pub fn of(pairs: &[Arc<CertifiedKey>], policy: &TlsPolicy) -> Self {
        let kinds = pairs.iter().map(|pair| Kind::of(pair.algorithm()));
        Self {
            kinds: kinds.collect(),
            protocols: policy.protocols(),
            client: policy.client().map(|client| *client.digest()),
        }
    }
}

/// Classes that were rehearsed whole. Of ten thousand certificates of one kind that replace others each
/// is rehearsed over one protocol more; where clients were served nothing before, as at the start, each
/// key is only made to sign. For one compilation, or for one policy.
#[derive(Default)]
pub struct Classes(Mutex<HashSet<Class>>);

impl Classes {
    /// One rehearsal; see [`Rehearsal::rehearse`]. `replaces` is what clients were served over before.
    ///
    /// # Errors
    /// OpenSSL could not even begin.
    pub fn rehearse(
        &self,
        pairs: &[Arc<CertifiedKey>],
        policy: &TlsPolicy,
        rehearsal: &Rehearsal,
        replaces: Option<Protocols>,
    ) -> Result<Rehearsed, ErrorStack> {
        let class = Class::of(pairs, policy);
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&class) {
            return rehearsal.rehearse_another(pairs, policy, replaces);
        }
        let rehearsed = rehearsal.rehearse(pairs, policy)?;
        if rehearsed.failures().next().is_none() {
            known().insert(class);
        }
        Ok(rehearsed)
    }
}

/// Rehearses handshakes under the settings all names share. Keeps nothing of what it rehearsed.
pub struct Rehearsal {
    server: SslContext,
    /// One per [`Kind`], made when it is first needed.
    clients: [OnceLock<SslContext>; Kind::ALL.len()],
    /// What the hello callback holds a handshake to.
    policy: Index<Ssl, TlsPolicy>,
}

impl Rehearsal {
    /// For listeners with these ciphers (as [`present::settle`] takes them).
    ///
    /// # Errors
    /// OpenSSL refused the ciphers.
    pub fn new(ciphers: Option<&str>) -> Result<Self, ErrorStack> {
        let policy = Ssl::new_ex_index()?;
        // As Pingora's `TlsSettings::with_callbacks` begins.
        let mut server = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
        present::settle(&mut server, ciphers)?;
        server.set_session_cache_mode(SslSessionCacheMode::OFF);
        server.set_options(SslOptions::NO_TICKET);
        server.set_num_tickets(0)?;
        server.set_client_hello_callback(move |ssl, alert| hello(ssl, policy, alert));
        Ok(Self {
            server: server.build().into_context(),
            clients: Default::default(),
            policy,
        })
    }

    /// One handshake for each pair and each protocol that the policy allows.
    ///
    /// # Errors
    /// OpenSSL could not even begin.
    pub fn rehearse(
        &self,
        pairs: &[Arc<CertifiedKey>],
        policy: &TlsPolicy,
    ) -> Result<Rehearsed, ErrorStack> {
        self.rehearse_over(policy.protocols(), pairs, policy)
    }

    /// As [`Self::rehearse`] where others of the same [`Class`] went well over each protocol: that
    /// leaves what is each pair's own. One handshake over the newest protocol shows it; where it
    /// `replaces` nothing, that OpenSSL takes each pair and that each key signs for its certificate.
    ///
    /// # Errors
    /// OpenSSL could not even begin.
    pub fn rehearse_another(
        &self,
        pairs: &[Arc<CertifiedKey>],
        policy: &TlsPolicy,
        replaces: Option<Protocols>,
    ) -> Result<Rehearsed, ErrorStack> {
        let protocols = policy.protocols();
        if replaces.is_none() {
            let proven = (0..pairs.len()).all(|pair| self.prove(pairs, pair, policy).is_ok());
            if !proven {
                return self.rehearse(pairs, policy);
            }
            let played = |pair| Played {
                pair,
                served: Some(protocols),
                failures: Vec::new(),
            };
            return Ok(Rehearsed((0..pairs.len()).map(played).collect()));
        }
        let newest = protocols.iter().last().map_or(protocols, Protocols::from);
        let mut rehearsed = self.rehearse_over(newest, pairs, policy)?;
        if rehearsed.failures().next().is_some() {
            return self.rehearse(pairs, policy);
        }
        for played in &mut rehearsed.0 {
            played.served = Some(protocols);
        }
        Ok(rehearsed)
    }

    /// What is a pair's own: on a connection that is held to the policy OpenSSL takes it with those
    /// beside it, and its key signs for its certificate.
    fn prove(
        &self,
        pairs: &[Arc<CertifiedKey>],
        pair: usize,
        policy: &TlsPolicy,
    ) -> Result<(), Unproven> {
        let mut server = Ssl::new(&self.server)?;
        present::hold_to(&mut server, policy, &[0; 32])?;
        let presented = beside(pairs, pair);
        match present::present(&mut server, presented.iter().copied()) {
            Err(refused) if refused.pair == 0 => return Err(Unproven),
            Ok(()) | Err(_) => {}
        }
        // Its public half is the certificate's: that was compared as it was parsed.
        let pair = pairs[pair].to_try()?;
        let digest = Kind::of(pair.algorithm()).digest();
        let mut signer = match digest {
            Some(digest) => Signer::new(digest, pair.key()),
            None => Signer::new_without_digest(pair.key()),
        }?;
        let signature = signer.sign_oneshot_to_vec(PROBE)?;
        let mut verifier = match digest {
            Some(digest) => Verifier::new(digest, pair.key()),
            None => Verifier::new_without_digest(pair.key()),
        }?;
        match verifier.verify_oneshot(&signature, PROBE)? {
            true => Ok(()),
            false => Err(Unproven),
        }
    }

    fn rehearse_over(
        &self,
        protocols: Protocols,
        pairs: &[Arc<CertifiedKey>],
        policy: &TlsPolicy,
    ) -> Result<Rehearsed, ErrorStack> {
        let tried = pairs.iter().map(|pair| pair.to_try().map(Arc::new));
        let pairs = &tried.collect::<Result<Vec<_>, _>>()?;
        let mut all = Vec::with_capacity(pairs.len());
        for pair in 0..pairs.len() {
            let mut played = Played {
                pair,
                served: None,
                failures: Vec::new(),
            };
            for protocol in protocols.iter() {
                match self.play(pairs, pair, policy, protocol)? {
                    Ok(()) => {
                        let one = Protocols::from(protocol);
                        played.served = Some(played.served.map_or(one, |served| served.or(one)));
                    }
                    Err(failure) if played.failures.contains(&failure) => {}
                    Err(failure) => played.failures.push(failure),
                }
            }
            all.push(played);
        }
        Ok(Rehearsed(all))
    }

    fn play(
        &self,
        pairs: &[Arc<CertifiedKey>],
        expected: usize,
        policy: &TlsPolicy,
        protocol: Protocol,
    ) -> Result<Result<(), Failure>, ErrorStack> {
        let pair = &pairs[expected];
        let presented = beside(pairs, expected);
        let (server_end, client_end) = pipe::pipe();
        let mut server = Ssl::new(&self.server)?;
        server.set_ex_data(self.policy, policy.clone());
        ext::suspend_when_need_ssl_cert(&mut server);
        let mut client = Ssl::new(self.client(Kind::of(pair.algorithm()))?)?;
        client.set_min_proto_version(Some(protocol.version()))?;
        client.set_max_proto_version(Some(protocol.version()))?;
        let mut scene = Scene {
            server: SslStream::new(server, server_end)?,
            client: SslStream::new(client, client_end)?,
        };
        Ok(scene.play(&presented, protocol))
    }

    fn client(&self, kind: Kind) -> Result<&SslContext, ErrorStack> {
        let slot = &self.clients[kind as usize];
        if let Some(context) = slot.get() {
            return Ok(context);
        }
        let context = kind.client()?;
        Ok(slot.get_or_init(|| context))
    }
}

/// A pair, and those that are presented beside it: one of each other slot.
fn beside(pairs: &[Arc<CertifiedKey>], expected: usize) -> Vec<&Arc<CertifiedKey>> {
    let mut presented = vec![&pairs[expected]];
    for pair in pairs {
        let slot = pair.algorithm().slot();
        let mut others = presented.iter();
        if others.all(|other| other.algorithm().slot() != slot) {
            presented.push(pair);
        }
    }
    presented
}

/// It takes a whole rehearsal to tell why.
struct Unproven;

impl From<ErrorStack> for Unproven {
    fn from(_: ErrorStack) -> Self {
        Self
    }
}

fn hello(
    ssl: &mut SslRef,
    policy: Index<Ssl, TlsPolicy>,
    alert: &mut SslAlert,
) -> Result<ClientHelloResponse, ErrorStack> {
    let outcome = match ssl.ex_data(policy).cloned() {
        // No session is kept, so that it does not matter which may resume.
        Some(policy) => present::hold_to(ssl, &policy, &[0; 32]),
        None => Err(ErrorStack::get()),
    };
    if outcome.is_err() {
        *alert = SslAlert::INTERNAL_ERROR;
    }
    outcome.map(|()| ClientHelloResponse::SUCCESS)
}

/// Both ends of one handshake.
struct Scene {
    server: SslStream<End>,
    client: SslStream<End>,
}

/// How far an end has come.
enum Progress {
    Waits,
    Done,
    Failed(Box<str>),
}

impl Scene {
    /// The first of the pairs is the one to be shown.
    fn play(&mut self, pairs: &[&Arc<CertifiedKey>], protocol: Protocol) -> Result<(), Failure> {
        let mut client = Progress::Waits;
        let mut server = Progress::Waits;
        for _ in 0..MOST_ROUNDS {
            if matches!(client, Progress::Waits) {
                client = progress(self.client.connect());
            }
            if matches!(server, Progress::Waits) {
                server = self.accept(pairs)?;
            }
            match (&client, &server) {
                (Progress::Waits, _) | (_, Progress::Waits) => {}
                _ => break,
            }
            if matches!(server, Progress::Failed(_)) && !matches!(client, Progress::Waits) {
                break;
            }
        }
        self.judge(&client, &server, pairs[0], protocol)
    }

    /// One step of the server's.
    fn accept(&mut self, pairs: &[&Arc<CertifiedKey>]) -> Result<Progress, Failure> {
        let step = self.server.accept();
        let suspended = step.as_ref().err().is_some_and(ext::is_suspended_for_cert);
        if !suspended {
            return Ok(progress(step));
        }
        let ssl = ffi::ssl_of(&mut self.server);
        match present::present(ssl, pairs.iter().copied()) {
            Err(refused) if refused.pair == 0 => {
                let reason = reason(&refused.source);
                return Err(Failure::Refused { reason });
            }
            // Of another pair that is said in its own turn.
            Ok(()) | Err(_) => {}
        }
        ext::unblock_ssl_cert(ssl);
        Ok(progress(self.server.accept()))
    }

    fn judge(
        &self,
        client: &Progress,
        server: &Progress,
        pair: &CertifiedKey,
        protocol: Protocol,
    ) -> Result<(), Failure> {
        let must_refuse = SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        let must_refuse = self.server.ssl().verify_mode().contains(must_refuse);
        let broken = |reason: &str| {
            let reason = reason.into();
            Err(Failure::Broken { protocol, reason })
        };
        match (server, client) {
            (Progress::Done, Progress::Done) if must_refuse => {
                return Err(Failure::LetIn { protocol });
            }
            (Progress::Done, Progress::Done) => {}
            // The server's flight was good: it is the client's certificate that is missing.
            (Progress::Failed(why), _) if must_refuse && **why == *NO_CLIENT_CERTIFICATE => {}
            (Progress::Failed(why), _) | (_, Progress::Failed(why)) => return broken(why),
            _ => return broken("it does not end"),
        }
        let shown = self.client.ssl();
        let leaf = shown.peer_certificate();
        let links = shown.peer_cert_chain().map_or(0, |chain| chain.len());
        let same = leaf.is_some_and(|leaf| leaf == *pair.leaf());
        if same && links == 1 + pair.intermediates().len() {
            Ok(())
        } else {
            Err(Failure::OtherShown { protocol })
        }
    }
}

fn progress(step: Result<(), openssl::ssl::Error>) -> Progress {
    match step {
        Ok(()) => Progress::Done,
        Err(error) if error.code() == ErrorCode::WANT_READ => Progress::Waits,
        Err(error) => {
            let none = || "openssl gives no reason".into();
            Progress::Failed(error.ssl_error().map_or_else(none, reason))
        }
    }
}

/// The first reason in OpenSSL's words, which name no value.
fn reason(errors: &ErrorStack) -> Box<str> {
    let mut reasons = errors.errors().iter().filter_map(|error| error.reason());
    reasons.next().unwrap_or("openssl gives no reason").into()
}

/// What a key is made to sign. No message of TLS: those begin otherwise (RFC 8446 §4.4.3).
const PROBE: &[u8] = b"claviger";
/// More flights than any handshake has.
const MOST_ROUNDS: usize = 16;
/// `SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE`.
const NO_CLIENT_CERTIFICATE: &str = "peer did not return a certificate";

#[cfg(test)]
mod tests;
