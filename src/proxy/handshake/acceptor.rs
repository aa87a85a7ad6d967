//! What a TLS port does with a connection: one OpenSSL context for all listeners, so that a session
//! resumes on any of them. Knows no time limit; who calls it bounds it.

use std::sync::Arc;

use openssl::ssl::{AlpnError, Ssl, SslAcceptor, SslAcceptorBuilder, SslMethod, select_next_proto};
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::tls::SslStream;
use pingora_core::protocols::tls::server::handshake_with_callback;

use super::accept::Accept;
use super::hello::Hello;
use super::{
    CurrentNames, HandshakeError, RefusedHandshakes, TlsOptions, TlsSetupError, resumption, staple,
};
use crate::clock::Clock;
use crate::tls::present;

/// A connection after its handshake.
pub type SecureStream = SslStream<L4Stream>;

/// The server's side of TLS handshakes. Share it in an `Arc` between listeners.
pub struct Acceptor {
    context: SslAcceptor,
    accept: Accept,
}

impl Acceptor {
    /// An acceptor that takes certificates from `names`.
    ///
    /// # Errors
    /// The cipher list is unknown, or OpenSSL refused.
    pub fn build(
        names: Arc<dyn CurrentNames>,
        options: TlsOptions,
        refused: Arc<RefusedHandshakes>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsSetupError> {
        let chosen = Ssl::new_ex_index()?;
        let mut context = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
        present::settle(&mut context, options.ciphers.as_deref())
            .map_err(TlsSetupError::Ciphers)?;
        resumption::set_up(&mut context, &options)?;
        staple::set_up(&mut context, chosen)?;
        offer_protocols(&mut context, options.http2);
        let hello = Hello {
            names,
            options,
            refused,
            chosen,
            clock,
        };
        context.set_client_hello_callback(move |ssl, alert| hello.decide(ssl, alert));
        Ok(Self {
            context: context.build(),
            accept: Accept { chosen },
        })
    }

    /// The handshake on a connection of which nothing was read yet.
    ///
    /// # Errors
    /// It failed.
    pub async fn handshake(&self, stream: L4Stream) -> Result<SecureStream, HandshakeError> {
        handshake_with_callback(&self.context, stream, &self.accept)
            .await
            .map_err(|error| HandshakeError::read(&error))
    }
}

/// What the client may speak inside: HTTP/2 first where it is offered.
fn offer_protocols(context: &mut SslAcceptorBuilder, http2: bool) {
    let offered = if http2 { HTTP2_OR_HTTP1 } else { HTTP1 };
    context.set_alpn_select_callback(move |_, asked| {
        // Clients that ask for others alone are served HTTP/1.1.
        select_next_proto(offered, asked).ok_or(AlpnError::NOACK)
    });
}

/// As ALPN has them on the wire (RFC 7301 §3.1).
const HTTP2_OR_HTTP1: &[u8] = b"\x02h2\x08http/1.1";
const HTTP1: &[u8] = b"\x08http/1.1";
