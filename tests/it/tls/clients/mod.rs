//! The programs people reach the gateway with, as they come: curl, h2load, Python's `ssl`, openssl.

mod curl;
mod h2load;
mod kinds;
mod python;
mod s_client;

use super::*;

/// The same gateway for several clients: `a.test` and `b.test`, whose CA is `ca.pem`.
fn two_names() -> (Upstream, Gateway) {
    let authority = Authority::new().unwrap();
    let pair = |name: &str| item(name, &[name], &certs::server(&authority, &[name]), "");
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .file("ca.pem", authority.cert_pem().unwrap())
        .file(
            "other-ca.pem",
            Authority::new().unwrap().cert_pem().unwrap(),
        )
        .resources(resources(&upstream, &[pair("a.test"), pair("b.test")]))
        .start();
    (upstream, gateway)
}
