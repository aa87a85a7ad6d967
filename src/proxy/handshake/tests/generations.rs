//! What a handshake was begun with is what it ends with, whatever is published meanwhile.

use openssl::ssl::{SslConnector, SslMethod, SslVersion};
use openssl::x509::X509;

use super::*;

/// Does something after the server's first words and before the client's next.
struct Between<F> {
    stream: TcpStream,
    heard: bool,
    then: Option<F>,
}

impl<F: FnOnce()> Read for Between<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.heard = true;
        self.stream.read(buffer)
    }
}

impl<F: FnOnce()> Write for Between<F> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        if self.heard
            && let Some(then) = self.then.take()
        {
            then();
        }
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// The certificate a client of `a.test` is shown, and the facts of its connection; `then` runs
/// after the server asked for another hello.
fn shown(server: &Server, then: impl FnOnce()) -> (X509, String) {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("client");
    builder
        .set_ca_file(server.path("ca.pem"))
        .expect("the authority");
    let only = Some(SslVersion::TLS1_3);
    builder.set_min_proto_version(only).expect("known");
    // A share of a group the server does not speak, so that it asks again.
    builder.set_groups_list("P-521:P-256").expect("known");
    let stream = Between {
        stream: TcpStream::connect(server.addr).expect("connect"),
        heard: false,
        then: Some(then),
    };
    let connector = builder.build();
    let tls = connector.connect("a.test", stream);
    let mut tls = tls.map_err(|_| ()).expect("a handshake");
    assert!(tls.get_ref().then.is_none(), "there was a retry");
    let leaf = tls.ssl().peer_certificate().expect("a server has one");
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    tls.write_all(request).expect("write");
    let mut answer = String::new();
    tls.read_to_string(&mut answer).expect("answer");
    (leaf, answer)
}

#[test]
fn a_handshake_ends_with_what_it_was_begun_with() {
    let ca = authority();
    let clients = Authority::named("clients").expect("authority");
    let bundle = clients.cert_pem().expect("pem");
    let bundle = CaBundle::parse(bundle.as_bytes()).expect("bundle");
    let client = Arc::new(ClientAuth::build(ClientRules::new(bundle)).expect("store"));
    let generation = |id: &str, policy| {
        let leaf = leaf(&ca, &["a.test"], KeyKind::EcdsaP256);
        entry(&["a.test"], identity(id, &[leaf], policy))
    };
    let server = Server::start(
        &ca,
        TlsOptions::default(),
        vec![generation("old", policy("old", &[]))],
    );
    let (first, _) = shown(&server, || {});
    // The next generation shows another certificate, wants one of clients, and speaks less.
    let protocols = Protocols::parse(["TLSv1.2"]).expect("known");
    let guarded = TlsPolicy::new("new", protocols, Some(client), 0);
    let next = Arc::new(SniStore::build(vec![generation("new", guarded)]));
    let (begun, facts) = shown(&server, || server.names.store(next));
    assert_eq!(begun, first);
    assert!(facts.contains("ssl_id: \"old\""), "{facts}");
    // Nothing of the old one is left for those who begin now.
    let after = server.s_client(&["-servername", "a.test", "-tls1_2"]);
    assert!(after.contains("alert number 40"), "{after}");
    // The name may vanish as well.
    let back = SniStore::build(vec![generation("back", policy("back", &[]))]);
    server.names.store(Arc::new(back));
    let (_, facts) = shown(&server, || server.names.store(Arc::default()));
    assert!(facts.contains("ssl_id: \"back\""), "{facts}");
}
