//! The client-hello callback: the name, the identity that serves it, and what its policy allows. The
//! only place where the protocol range can still change and resumption is not decided yet.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{ClientHelloResponse, Ssl, SslAlert, SslRef};

use super::{CurrentNames, RefusedHandshakes, TlsOptions};
use crate::clock::Clock;
use crate::tls::on_demand::{Found, Served};
use crate::tls::sni::{MAX_NAME, Requested, lower_case, parse};
use crate::tls::{IdentityState, TlsIdentity, ffi, present};

/// What was decided for one connection.
pub(super) struct Chosen {
    pub identity: Arc<TlsIdentity>,
    /// Name the client sent, lower-cased.
    pub sni: Option<Box<str>>,
    /// The same, or the name assumed where it sent none.
    pub served_as: Box<str>,
    /// When: which pairs are valid is decided once.
    pub at: SystemTime,
    /// What an identity that serves names on demand has for this one.
    pub demanded: Option<Demanded>,
}

/// A name that is served on demand.
#[derive(Clone)]
pub(super) struct Demanded {
    /// The name, in lower case.
    pub name: Box<str>,
    /// `None` where the certificate callback has to ask.
    pub served: Option<Arc<Served>>,
}

/// Where [`Chosen`] stands on a connection.
pub(super) type ChosenIndex = Index<Ssl, Chosen>;

/// The client-hello callback.
pub(super) struct Hello {
    pub names: Arc<dyn CurrentNames>,
    pub options: TlsOptions,
    pub refused: Arc<RefusedHandshakes>,
    pub chosen: ChosenIndex,
    pub clock: Arc<dyn Clock>,
}

/// The alert a handshake ends with.
type Refusal = SslAlert;

impl Hello {
    pub(super) fn decide(
        &self,
        ssl: &mut SslRef,
        alert: &mut SslAlert,
    ) -> Result<ClientHelloResponse, ErrorStack> {
        match self.choose(ssl) {
            Ok(()) => Ok(ClientHelloResponse::SUCCESS),
            Err(refusal) => {
                *alert = refusal;
                Err(ErrorStack::get())
            }
        }
    }

    fn choose(&self, ssl: &mut SslRef) -> Result<(), Refusal> {
        let mut buffer = [0; MAX_NAME];
        let sni = self.requested(ssl, &mut buffer)?;
        // After a HelloRetryRequest the client says hello again; what was decided stays, and it
        // must not ask for another name now (RFC 8446 §4.1.2).
        if let Some(first) = ssl.ex_data(self.chosen) {
            return match first.sni.as_deref() == sni {
                true => Ok(()),
                false => Err(SslAlert::ILLEGAL_PARAMETER),
            };
        }
        let at = self.clock.wall();
        let (identity, found_as) = self.find(sni)?;
        let demanded = match &identity.state {
            IdentityState::Refused { reason } => {
                self.refused.refused_item.fetch_add(1, Ordering::Relaxed);
                let id = &identity.id;
                self.refused
                    .say(format_args!("ssl {id} refuses handshakes: {reason}"));
                return Err(SslAlert::INTERNAL_ERROR);
            }
            IdentityState::Serving { .. } => {
                if identity.presented(at).next().is_none() {
                    self.refused.expired.fetch_add(1, Ordering::Relaxed);
                    let id = &identity.id;
                    self.refused.say(format_args!(
                        "ssl {id} refuses handshakes: no certificate of it is valid now"
                    ));
                    return Err(SslAlert::INTERNAL_ERROR);
                }
                None
            }
            IdentityState::OnDemand(names) => {
                let mut buffer = [0; MAX_NAME];
                let name = lower_case(found_as, &mut buffer).unwrap_or_default();
                let served = match names.find(name) {
                    Found::Serving(served) => Some(served),
                    Found::Ask => None,
                    // Counted there; a line for each would let clients fill the log.
                    Found::Refused(_) => return Err(SslAlert::UNRECOGNIZED_NAME),
                };
                let name = name.into();
                Some(Demanded { name, served })
            }
        };
        let fallback = self.options.fallback_sni.as_deref();
        let chosen = Chosen {
            at,
            identity,
            served_as: sni.or(fallback).unwrap_or_default().into(),
            sni: sni.map(Box::from),
            demanded,
        };
        self.apply(ssl, chosen).map_err(|error| {
            log::error!("openssl refused the settings of a handshake: {error}");
            SslAlert::INTERNAL_ERROR
        })
    }

    /// The name the client sent, lower-cased.
    fn requested<'b>(
        &self,
        ssl: &SslRef,
        buffer: &'b mut [u8; MAX_NAME],
    ) -> Result<Option<&'b str>, Refusal> {
        let refusal = match parse(ffi::server_name_extension(ssl)) {
            Requested::Nothing => return Ok(None),
            Requested::Name(name) => match lower_case(name, buffer) {
                Some(name) => return Ok(Some(name)),
                None => SslAlert::UNRECOGNIZED_NAME,
            },
            Requested::BadName => SslAlert::UNRECOGNIZED_NAME,
            Requested::Malformed => SslAlert::DECODE_ERROR,
        };
        self.refused.bad_name.fetch_add(1, Ordering::Relaxed);
        Err(refusal)
    }

    /// The identity, and the name it was found by.
    fn find<'n>(&'n self, sni: Option<&'n str>) -> Result<(Arc<TlsIdentity>, &'n str), Refusal> {
        let names = self.names.current();
        let fallback = self.options.fallback_sni.as_deref();
        let find = |name: &'n str| Some((Arc::clone(names.find(name)?), name));
        let Some(sni) = sni else {
            return fallback.and_then(find).ok_or_else(|| {
                self.refused.no_name.fetch_add(1, Ordering::Relaxed);
                self.refused.say(format_args!(
                    "failed to find SNI: the client sent none and no fallback serves it"
                ));
                SslAlert::UNRECOGNIZED_NAME
            });
        };
        if let Some(found) = names.find_lower_case(sni) {
            return Ok((found.clone(), sni));
        }
        let fallback = fallback.filter(|_| self.options.fallback_for_unknown);
        fallback.and_then(find).ok_or_else(|| {
            self.refused.unknown_name.fetch_add(1, Ordering::Relaxed);
            self.refused.say(format_args!(
                "failed to find any SSL certificate by SNI: {sni}"
            ));
            SslAlert::UNRECOGNIZED_NAME
        })
    }

    /// Puts the decision onto the connection.
    fn apply(&self, ssl: &mut SslRef, chosen: Chosen) -> Result<(), ErrorStack> {
        let identity = &chosen.identity;
        let policy = &identity.policy;
        let context = match &chosen.demanded {
            None => {
                let context = present::session_context(policy, &chosen.served_as, chosen.at)?;
                identity.narrow(context, chosen.at)
            }
            Some(demanded) => match &demanded.served {
                Some(served) => served.session_context(policy, &chosen.served_as, chosen.at)?,
                // Nothing resumes before it is known that the name is served still.
                None => present::once()?,
            },
        };
        present::hold_to(ssl, policy, &context)?;
        ssl.set_ex_data(self.chosen, chosen);
        Ok(())
    }
}
