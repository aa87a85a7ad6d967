//! `bare LISTEN UPSTREAM [TLS_LISTEN CERT KEY]`: a pass-through with Pingora's defaults, one
//! worker thread and the system's allocator. What claviger costs is told as a ratio to this.

use std::error::Error;
use std::net::SocketAddr;

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

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, tls @ ..] = args.as_slice() else {
        return Err("usage: bare LISTEN UPSTREAM [TLS_LISTEN CERT KEY]".into());
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
    if let [tls_listen, cert, key] = tls {
        service.add_tls(tls_listen, cert, key)?;
    }
    server.add_service(service);
    server.run_forever()
}
