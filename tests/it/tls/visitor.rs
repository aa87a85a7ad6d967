//! A client that has certificates and keeps connections, over HTTP/1 and 2.

use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;

use bytes::Bytes;
use claviger::tls::dev::{Authority, Issued, LeafOptions, Usage};
use http::Request;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslConnector, SslMethod, SslStream, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use tokio::runtime::Runtime;

use crate::harness::client::tcp;
use crate::harness::{Connection, certs};

/// A connection of a client with certificates.
pub type Visit = Connection<SslStream<TcpStream>>;

/// A certificate of a client, its chain and key.
#[derive(Clone)]
pub struct Card {
    /// All of it, as `curl --cert` and `openssl s_client -cert` take it.
    pub pem: String,
    chain: Vec<X509>,
    key: PKey<Private>,
}

impl Card {
    /// A good one.
    pub fn of(authority: &Authority) -> Self {
        Self::named(authority, "someone")
    }

    /// A good one of this name.
    pub fn named(authority: &Authority, name: &str) -> Self {
        Self::with(authority, name, |_| {})
    }

    /// One that differs from a good one.
    pub fn with(authority: &Authority, name: &str, change: impl FnOnce(&mut LeafOptions)) -> Self {
        let mut options = LeafOptions {
            usage: Usage::Client,
            ..LeafOptions::default()
        };
        change(&mut options);
        Self::from(&authority.issue(&[name], &options).unwrap())
    }

    /// This certificate.
    pub fn from(issued: &Issued) -> Self {
        let key = PKey::private_key_from_pem(certs::key_text(issued).as_bytes());
        Self {
            pem: format!("{}{}", issued.cert_pem, certs::key_text(issued)),
            chain: X509::stack_from_pem(issued.cert_pem.as_bytes()).unwrap(),
            key: key.unwrap(),
        }
    }

    /// The same, with more certificates sent behind it.
    pub fn and(mut self, more: impl IntoIterator<Item = X509>) -> Self {
        self.chain.extend(more);
        self
    }

    /// The same certificate with a key that is not its own, though it says so.
    pub fn with_stolen_certificate(mut self) -> Self {
        use openssl::bn::BigNum;
        use openssl::ec::EcKey;
        let own = self.key.ec_key().unwrap();
        let another = BigNum::from_u32(4711).unwrap();
        let key = EcKey::from_private_components(own.group(), &another, own.public_key());
        self.key = PKey::from_ec_key(key.unwrap()).unwrap();
        self
    }

    /// The certificate itself, PEM.
    pub fn leaf_pem(&self) -> String {
        String::from_utf8(self.chain[0].to_pem().unwrap()).unwrap()
    }

    /// The chain as DER, leaf first.
    pub fn der(&self) -> Vec<Vec<u8>> {
        let links = self.chain.iter();
        links.map(|link| link.to_der().unwrap()).collect()
    }

    /// The certificate itself.
    pub fn leaf(&self) -> &X509 {
        &self.chain[0]
    }
}

/// How a client comes.
#[derive(Clone, Copy)]
pub struct Visitor<'a> {
    addr: SocketAddr,
    sni: Option<&'a str>,
    card: Option<&'a Card>,
    version: Option<SslVersion>,
}

impl<'a> Visitor<'a> {
    /// One that asks for this name.
    pub fn new(addr: SocketAddr, sni: &'a str) -> Self {
        Self {
            addr,
            sni: Some(sni),
            card: None,
            version: None,
        }
    }

    /// One that asks for no name.
    pub fn nameless(addr: SocketAddr) -> Self {
        Self {
            sni: None,
            ..Self::new(addr, "")
        }
    }

    /// With this certificate.
    pub fn card(self, card: &'a Card) -> Self {
        Self {
            card: Some(card),
            ..self
        }
    }

    /// Of this version only.
    pub fn version(self, version: SslVersion) -> Self {
        Self {
            version: Some(version),
            ..self
        }
    }

    /// Connects; the error is OpenSSL's. In TLS 1.3 a server that wants no such client says so
    /// only later, to the first read.
    pub fn connect(self) -> Result<Visit, String> {
        let stream = self.ssl(b"\x08http/1.1").connect(tcp(self.addr));
        stream
            .map(Connection::over_tls)
            .map_err(|error| error.to_string())
    }

    fn ssl(self, alpn: &[u8]) -> Ssl {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_alpn_protos(alpn).unwrap();
        builder.set_min_proto_version(self.version).unwrap();
        builder.set_max_proto_version(self.version).unwrap();
        if let Some(card) = self.card {
            builder.set_certificate(card.leaf()).unwrap();
            for link in &card.chain[1..] {
                builder.add_extra_chain_cert(link.clone()).unwrap();
            }
            builder.set_private_key(&card.key).unwrap();
        }
        let mut ssl = builder.build().configure().unwrap();
        ssl.set_verify_hostname(false);
        ssl.set_use_server_name_indication(self.sni.is_some());
        ssl.into_ssl(self.sni.unwrap_or("none")).unwrap()
    }

    /// What became of one request over a connection of its own: the status, or how the handshake
    /// ended.
    pub fn ask(self, host: &str, path: &str) -> Result<u16, String> {
        let mut visit = self.connect()?;
        visit.request("GET", path, &[("Host", host)]);
        match visit.reply() {
            Ok(Some(reply)) => Ok(reply.status),
            Ok(None) => Err("closed".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// An HTTP/2 connection.
    pub fn connect_http2(self) -> Http2 {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let ssl = self.ssl(b"\x02h2");
        let (requests, ended) = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(self.addr).await.unwrap();
            let mut stream = tokio_openssl::SslStream::new(ssl, stream).unwrap();
            Pin::new(&mut stream).connect().await.unwrap();
            let (requests, connection) = h2::client::handshake(stream).await.unwrap();
            (requests, tokio::spawn(async { drop(connection.await) }))
        });
        Http2 {
            requests,
            ended,
            runtime,
        }
    }
}

/// Status of one request; `None` where the connection ended instead.
pub fn ask(visit: &mut Visit, host: &str, path: &str) -> Option<u16> {
    visit.request("GET", path, &[("Host", host)]);
    visit.reply().ok().flatten().map(|reply| reply.status)
}

/// An HTTP/2 connection.
pub struct Http2 {
    requests: h2::client::SendRequest<Bytes>,
    ended: tokio::task::JoinHandle<()>,
    runtime: Runtime,
}

impl Http2 {
    /// Status of one request with these fields; `None` where the connection takes none any more.
    pub fn ask(&self, host: &str, path: &str, fields: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::get(format!("https://{host}{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let requests = self.requests.clone();
        self.runtime.block_on(async {
            let mut requests = requests.ready().await.ok()?;
            let (response, _) = requests.send_request(request, true).ok()?;
            Some(response.await.ok()?.status().as_u16())
        })
    }

    /// Whether the server has ended the connection.
    pub fn is_closed(&self) -> bool {
        self.ended.is_finished()
    }
}
