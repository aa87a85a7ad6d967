//! `bare LISTEN UPSTREAM [TLS_LISTEN CERT KEY [sessions|tickets]]`: a pass-through with Pingora's
//! defaults, one worker thread and the system's allocator. What claviger costs is told as a ratio to
//! this.
//!
//! The TLS listener has one static certificate: `TlsSettings::intermediate`, as `add_tls` would set
//! it up, with HTTP/2 offered and one ticket a handshake instead of two, as claviger does. By default
//! sessions resume by ticket; `sessions` turns tickets off, so that they resume from OpenSSL's cache,
//! as claviger's do by default from its own.

use std::error::Error;
use std::net::SocketAddr;

use openssl::ssl::{SslOptions, SslSessionCacheMode};
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::prelude::HttpPeer;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct Bare {
    upstream: SocketAddr,
}

#[async_trait::async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut Self::CTX,
    ) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

fn tls_settings(cert: &str, key: &str, resume: &str) -> Result<TlsSettings, Box<dyn Error>> {
    let mut settings = TlsSettings::intermediate(cert, key)?;
    settings.enable_h2();
    settings.set_num_tickets(1)?;
    match resume {
        "tickets" => {}
        "sessions" => {
            settings.set_options(SslOptions::NO_TICKET);
            settings.set_session_cache_mode(SslSessionCacheMode::SERVER);
        }
        other => return Err(format!("{other} is neither sessions nor tickets").into()),
    }
    Ok(settings)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, tls @ ..] = args.as_slice() else {
        let usage = "usage: bare LISTEN UPSTREAM [TLS_LISTEN CERT KEY [sessions|tickets]]";
        return Err(usage.into());
    };
    let conf = ServerConf {
        threads: 1,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let bare = Bare {
        upstream: upstream.parse()?,
    };
    let mut service = http_proxy_service(&server.configuration, bare);
    service.add_tcp(listen);
    if let [tls_listen, cert, key, resume @ ..] = tls {
        let resume = resume.first().map_or("tickets", String::as_str);
        let settings = tls_settings(cert, key, resume)?;
        service.add_tls_with_settings(tls_listen, None, settings);
    }
    server.add_service(service);
    server.run_forever()
}
