//! How sessions resume: by tickets, or from a cache in this process's memory.

use std::sync::Arc;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslOptions, SslSessionCacheMode};

use super::TlsOptions;
use crate::tls::ffi;

/// Sets up how sessions of a context resume, for [`SESSION_LIFETIME`].
///
/// # Errors
/// OpenSSL refused.
pub(super) fn set_up(
    context: &mut SslContextBuilder,
    options: &TlsOptions,
) -> Result<(), ErrorStack> {
    match &options.tickets {
        Some(keys) => ffi::set_ticket_keys(context, Arc::clone(keys))?,
        None => {
            context.set_options(SslOptions::NO_TICKET);
        }
    }
    match &options.sessions {
        Some(cache) => {
            ffi::set_session_cache(context, Arc::clone(cache), options.tickets.is_some());
        }
        None => {
            context.set_session_cache_mode(SslSessionCacheMode::OFF);
        }
    }
    ffi::set_session_lifetime(context, SESSION_LIFETIME);
    // OpenSSL would send two after a full handshake of TLS 1.3. Each costs about a twentieth of the
    // handshake, or room in the cache, and HTTP/2 clients open one connection.
    context.set_num_tickets(1)
}

/// How long a session may be resumed. APISIX 3.18: `ssl_session_timeout 10m`.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(600);

/// What the cache of sessions may take. APISIX 3.18: `ssl_session_cache shared:SSL:20m`.
pub const SESSION_BYTES: usize = 20 << 20;
