//! Client certificates as requests meet them (`spec/04` §4): which connections may ask for a name
//! that is guarded by them, what a request knows of its client, and what its upstream is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderValue;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;

use super::ctx::Exchange;
use super::{Gateway, forward};
use crate::http::{host, lookalike};
use crate::plugins::ctx::TlsInfo;
use crate::tls::{ClientAuth, ClientVerdict, Forward, SniStore, Standing};

impl Gateway {
    /// Lets a request through to a guarded name only over a handshake for that very name, in
    /// which a certificate was verified that today's rules accept; or where its path needs none.
    /// Call it once the path is normal: what is matched is what goes upstream.
    ///
    /// A certificate counts for the name it was verified for: requests for other names over the
    /// same connection know nothing of it.
    pub(super) fn guard_client(&self, head: &RequestHeader, exchange: &mut Exchange) -> Result<()> {
        let Some(tls) = exchange.state.tls.clone() else {
            return Ok(());
        };
        let host = host::without_port(forward::received_host(head).unwrap_or_default());
        let host = host.strip_suffix('.').unwrap_or(host);
        let snapshot = Arc::clone(&exchange.snapshot);
        let item = snapshot.names.find(host);
        let guarded = match item {
            Some(item) => Some(item).filter(|item| item.guards_clients),
            // A route's wildcard holds names of any depth, an item's one label.
            None => snapshot.names.guard_above(host),
        };
        let Some(guarded) = guarded else {
            // Clients that know an address only send no name; nobody else's name is meant then.
            if item.is_none() && tls.sni.is_none() {
                vouch_for_fallback(&tls, &snapshot.names, exchange);
            }
            return Ok(());
        };
        let auth = guarded.policy.client().map(|auth| &**auth);
        let refusal = if tls.served_as.eq_ignore_ascii_case(host) {
            verify(&tls, auth, exchange)
        } else {
            let verified = tls
                .client
                .as_ref()
                .is_some_and(|client| client.is_verified());
            Some(Refusal::OtherName { verified })
        };
        let Some(refusal) = refusal else {
            return Ok(());
        };
        let path = exchange.state.path.as_deref();
        let path = path.unwrap_or(head.uri.path());
        if auth.is_some_and(|auth| auth.exempts(path)) {
            return Ok(());
        }
        self.settings.metrics.own().refused("client_certificate");
        if matches!(refusal, Refusal::Outdated) {
            tls.spent.store(true, Ordering::Relaxed);
        }
        Err(refusal.into_error(&tls, host))
    }

    /// Takes out what a client says of its certificate by itself.
    pub(super) fn drop_forged_certificate(head: &mut RequestHeader) {
        if lookalike::has_any(head, &CLIENT_CERT) {
            lookalike::remove(head, CLIENT_CERT.into_iter());
            for name in CLIENT_CERT {
                drop(head.remove_header(name));
            }
        }
    }

    /// Tells the upstream of the certificate (RFC 9440), where the name's item says so.
    pub(super) fn forward_certificate(
        upstream_request: &mut RequestHeader,
        exchange: &Exchange,
    ) -> Result<()> {
        let ClientVerdict::Verified(certificate) = &exchange.state.client_certificate else {
            return Ok(());
        };
        if exchange.forward_certificate == Forward::Nothing {
            return Ok(());
        }
        let unfit = || Error::explain(ErrorType::InternalError, "certificate cannot be written");
        let value = certificate.client_cert().ok_or_else(unfit)?;
        upstream_request.insert_header("Client-Cert", HeaderValue::clone(value))?;
        if exchange.forward_certificate == Forward::Chain
            && let Some(chain) = certificate.client_cert_chain()
        {
            upstream_request.insert_header("Client-Cert-Chain", HeaderValue::clone(chain))?;
        }
        Ok(())
    }
}

/// What the certificate of a connection that was served as the fallback's name is worth.
fn vouch_for_fallback(tls: &TlsInfo, names: &SniStore, exchange: &mut Exchange) {
    if let (Some(_), Some(item)) = (&tls.client, names.find_lower_case(&tls.served_as)) {
        // Whatever it is, the request needs none.
        let _ = verify(tls, item.policy.client().map(|auth| &**auth), exchange);
    }
}

/// Notes what these rules find the client's certificate worth; where it is nothing, why.
fn verify(tls: &TlsInfo, auth: Option<&ClientAuth>, exchange: &mut Exchange) -> Option<Refusal> {
    let (Some(auth), Some(client)) = (auth, &tls.client) else {
        return Some(Refusal::Outdated);
    };
    let Standing::Current(verdict) = client.standing(auth, exchange.state.started_wall) else {
        return Some(Refusal::Outdated);
    };
    let refusal = match &verdict {
        ClientVerdict::Verified(_) => {
            exchange.forward_certificate = auth.forward();
            None
        }
        ClientVerdict::Absent => Some(Refusal::Absent),
        ClientVerdict::Failed(reason) => Some(Refusal::Failed(reason)),
    };
    exchange.state.client_certificate = verdict;
    refusal
}

/// Why a request is refused.
enum Refusal {
    /// The handshake was for another name.
    OtherName {
        /// A certificate was verified for that one.
        verified: bool,
    },
    /// No certificate.
    Absent,
    /// A bad one.
    Failed(&'static str),
    /// The handshake knew other rules. A new one knows today's.
    Outdated,
}

impl Refusal {
    /// The first three are APISIX's, letter for letter where its log has words for them.
    fn into_error(self, tls: &TlsInfo, host: &str) -> Box<Error> {
        let bad_request = |message| Error::explain(ErrorType::HTTPStatus(400), message);
        match self {
            Self::OtherName { verified } => {
                let verified = if verified { "" } else { "not " };
                let sni = &tls.served_as;
                bad_request(format!(
                    "client certificate {verified}verified with SNI {sni}, but the host is {host}"
                ))
            }
            Self::Absent => bad_request("client certificate was not present".to_owned()),
            Self::Failed(reason) => bad_request(format!(
                "client certificate verification is not passed: FAILED:{reason}"
            )),
            // RFC 9110 §15.5.20: the client may ask again over another connection.
            Self::Outdated => Error::explain(
                ErrorType::HTTPStatus(421),
                format!(
                    "the connection was made before the rules for client certificates of {host} changed, and shows none that they accept"
                ),
            ),
        }
    }
}

/// Header fields that tell of a client's certificate, in lower case.
const CLIENT_CERT: [&str; 2] = ["client-cert", "client-cert-chain"];
