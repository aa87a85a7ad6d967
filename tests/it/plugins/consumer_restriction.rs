use super::{assert_local, get, send, start};

const RESOURCES: &str = "
consumer_groups:
  - { id: staff, plugins: { response-rewrite: { headers: { set: { X-Group: staff } } } } }
consumers:
  - { username: alice, group_id: staff, plugins: { key-auth: { key: alice } } }
  - { username: bob, plugins: { key-auth: { key: bob } } }
  - { username: carol, plugins: { key-auth: { key: carol }, consumer-restriction: { type: route_id, blacklist: [by-consumer] } } }
  - { username: guest }
services:
  - { id: shop, NODE }
routes:
  - { id: name, uri: /name, plugins: { key-auth: {}, consumer-restriction: { whitelist: [alice, guest] } }, NODE }
  - { id: open, uri: /open, plugins: { consumer-restriction: { whitelist: [alice] } }, NODE }
  - { id: black, uri: /black, plugins: { key-auth: { anonymous_consumer: guest }, consumer-restriction: { blacklist: [guest, bob], rejected_code: 451, rejected_msg: not you } }, NODE }
  - { id: group, uri: /group, plugins: { key-auth: {}, consumer-restriction: { type: consumer_group_id, whitelist: [staff] } }, NODE }
  - { id: methods, uri: /methods, plugins: { key-auth: {}, consumer-restriction: { allowed_by_methods: [{ user: alice, methods: [GET] }] } }, NODE }
  - { id: service, uri: /service, service_id: shop, plugins: { consumer-restriction: { type: service_id, whitelist: [other] } } }
  - { id: none, uri: /none, plugins: { consumer-restriction: { type: service_id, whitelist: [shop] } }, NODE }
  - { id: route, uri: /route, plugins: { consumer-restriction: { type: route_id, whitelist: [route] } }, NODE }
  - { id: by-consumer, uri: /by-consumer, plugins: { key-auth: {} }, NODE }
";

fn message(text: &str) -> String {
    format!("{{\"message\":\"{text}\"}}\n")
}

#[test]
fn names_groups_services_and_routes_decide() {
    let (upstream, gateway) = start(RESOURCES);
    let check = |of: &str| {
        message(&format!(
            "The request is rejected, please check the {of} for this request"
        ))
    };
    let forbidden = |of: &str| message(&format!("The {of} is forbidden."));
    for (path, key, refusal) in [
        ("/name", "alice", None),
        ("/name", "bob", Some((403, forbidden("consumer_name")))),
        ("/open", "alice", Some((401, check("consumer_name")))),
        ("/black", "alice", None),
        ("/black", "bob", Some((451, message("not you")))),
        ("/black", "unknown", Some((451, message("not you")))),
        ("/group", "alice", None),
        ("/group", "bob", Some((401, check("consumer_group_id")))),
        ("/service", "", Some((403, forbidden("service_id")))),
        ("/none", "", Some((401, check("service_id")))),
        ("/route", "", None),
        ("/by-consumer", "alice", None),
        ("/by-consumer", "carol", Some((403, forbidden("route_id")))),
        // The consumer's own takes the place of the route's, as any plugin does.
        ("/name", "carol", None),
    ] {
        upstream.forget();
        let reply = get(&gateway, path, &[("apikey", key)]);
        match refusal {
            None => assert_eq!(reply.status, 200, "{path} {key}"),
            Some((status, body)) => {
                assert_local(&reply, status, &body);
                assert_eq!(upstream.count(), 0, "{path} {key}");
            }
        }
    }
}

#[test]
fn methods_are_asked_of_those_they_name() {
    let (_upstream, gateway) = start(RESOURCES);
    for (method, key, status) in [
        ("GET", "alice", 200),
        ("POST", "alice", 403),
        ("HEAD", "alice", 403),
        ("POST", "bob", 200),
    ] {
        let reply = send(&gateway, method, "/methods", &[("apikey", key)]);
        assert_eq!(reply.status, status, "{method} {key}");
    }
}
