use super::{assert_local, get, start};

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
    // A client does not choose its own address.
    let forged = [("X-Forwarded-For", "10.1.1.1"), ("X-Real-IP", "10.1.1.1")];
    assert_local(&get(&gateway, "/out", &forged), 403, refused);
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
