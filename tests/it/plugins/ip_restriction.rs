use super::{assert_local, get, over, start};
use crate::harness::{Behaviour, Gateway, Upstream};

const RESOURCES: &str = "
routes:
  - { id: 1, uri: /in, plugins: { ip-restriction: { whitelist: [127.0.0.0/8, '::1'] } }, NODE }
  - { id: 2, uri: /out, plugins: { ip-restriction: { whitelist: [10.0.0.0/8] } }, NODE }
  - { id: 3, uri: /denied, plugins: { ip-restriction: { blacklist: [127.0.0.1], message: 'no \"way\"', response_code: 404 } }, NODE }
  - { id: 4, uri: /other, plugins: { ip-restriction: { blacklist: [10.0.0.0/8] } }, NODE }
  - { id: 5, uri: /moved, plugins: { ip-restriction: { whitelist: [10.0.0.0/8] }, redirect: { uri: /new } }, NODE }
";

#[test]
fn lists_let_through_or_refuse_by_client_address() {
    let (upstream, gateway) = start(RESOURCES);
    assert_eq!(get(&gateway, "/in", &[]).status, 200);
    assert_eq!(get(&gateway, "/other", &[]).status, 200);
    let reached = upstream.count();
    let refused = "{\"message\":\"Your IP address is not allowed\"}\n";
    assert_local(&get(&gateway, "/out", &[]), 403, refused);
    let worded = "{\"message\":\"no \\\"way\\\"\"}\n";
    assert_local(&get(&gateway, "/denied", &[]), 404, worded);
    assert_eq!(upstream.count(), reached);
}

#[test]
fn a_redirect_comes_before_the_address_is_checked() {
    let (_upstream, gateway) = start(RESOURCES);
    let reply = get(&gateway, "/moved", &[]);
    assert_eq!(
        (reply.status, reply.header("location")),
        (302, Some("/new"))
    );
}

#[test]
fn only_a_trusted_peer_says_who_the_client_is() {
    let upstream = Upstream::start(Behaviour::ok());
    let said = [("X-Real-IP", "10.1.1.1"), ("X-Forwarded-For", "10.1.1.1")];
    // APISIX trusts 127.0.0.1 unless told otherwise.
    for (bootstrap, status) in [
        ("{}", 200),
        (
            "nginx_config: { http: { real_ip_from: [192.0.2.0/24] } }",
            403,
        ),
    ] {
        let builder = Gateway::builder().bootstrap(bootstrap);
        let gateway = builder.resources(over(&upstream, RESOURCES)).start();
        assert_eq!(get(&gateway, "/out", &said).status, status, "{bootstrap}");
    }
}
