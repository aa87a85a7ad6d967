use serde_json::{Value, json};

use super::{assert_local, get, over, send, status_and_body};
use crate::harness::client::Reply;
use crate::harness::wolf::{Mood, Wolf};
use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

const RESOURCES: &str = "
consumers:
  - { username: shop, plugins: { wolf-rbac: { appid: shop, server: 'WOLF' } } }
  - { username: other, plugins: { wolf-rbac: { appid: other, server: 'WOLF', header_prefix: 'Wolf-' } } }
  - { username: lost, plugins: { wolf-rbac: { appid: lost, server: 'http://127.0.0.1:1' } } }
routes:
  - { id: 1, uri: /shop/*, plugins: { wolf-rbac: {} }, NODE }
  - { id: 2, uri: /apisix/plugin/wolf-rbac/*, plugins: { public-api: {} } }
  - { id: 3, uri: /login, plugins: { public-api: { uri: /apisix/plugin/wolf-rbac/login } } }
";

fn start(yaml: &str) -> (Wolf, Upstream, Gateway) {
    let wolf = Wolf::start(&[("ann", "ann-pw&=+"), ("bob", "bob-pw")]);
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = over(&upstream, yaml).replace("WOLF", &wolf.uri());
    (wolf, upstream, Gateway::start(yaml))
}

fn bearing(gateway: &Gateway, path: &str, token: &str) -> Reply {
    get(gateway, path, &[("Authorization", token)])
}

fn refused(reply: &Reply, status: u16, message: &str) {
    assert_local(reply, status, &format!("{{\"message\":\"{message}\"}}\n"));
    assert_eq!(reply.header("www-authenticate"), None);
}

/// A request with a body.
fn post(
    gateway: &Gateway,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let mut connection = gateway.connect();
    let fields: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    connection.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: a.test\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    ));
    connection.expect_reply()
}

const JSON: (&str, &str) = ("Content-Type", "application/json");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const LOGIN: &str = "/apisix/plugin/wolf-rbac/login";
const CHANGE: &str = "/apisix/plugin/wolf-rbac/change_pwd";
const INFO: &str = "/apisix/plugin/wolf-rbac/user_info";

#[test]
fn wolf_lets_in_and_says_who_it_is() {
    let (wolf, upstream, gateway) = start(RESOURCES);
    let token = format!("V1#shop#{}", wolf.token("ann"));
    let cookie = format!("a=b; x-rbac-token={token}");
    let encoded = token
        .replace('#', "%23")
        .replace('+', "%2B")
        .replace('=', "%3D");
    let forged = [
        ("X-UserId", "1"),
        ("X-Username", "root"),
        ("X-Nickname", "root"),
        ("X_Username", "root"),
        ("X-Consumer-Username", "root"),
    ];
    for (path, header) in [
        (format!("/shop/a?rbac_token={encoded}&x"), ("X-Other", "x")),
        ("/shop/a".to_owned(), ("Authorization", &*token)),
        ("/shop/a".to_owned(), ("x-rbac-token", &*token)),
        ("/shop/a".to_owned(), ("Cookie", &*cookie)),
    ] {
        let headers: Vec<_> = forged.into_iter().chain([header]).collect();
        let reply = get(&gateway, &path, &headers);
        assert_eq!(reply.status, 200, "{header:?}: {}", reply.text());
        let seen = upstream.requests().pop().unwrap();
        for (name, value) in [
            ("x-userid", "100"),
            ("x-username", "ann"),
            ("x-nickname", "ann%20%C3%BC%2F1"),
        ] {
            let named = seen.headers.iter().filter(|(found, _)| found == name);
            let values: Vec<_> = named.map(|(_, value)| value.as_str()).collect();
            assert_eq!(values, [value], "{name} upstream");
            assert_eq!(reply.header(name), Some(value), "{name} to the client");
        }
        assert_eq!(seen.header("x-consumer-username"), Some("shop"));
        assert_eq!(
            seen.header("x_username"),
            None,
            "what CGI takes for it goes"
        );
    }
    let asked = wolf.take();
    let question =
        "/wolf/rbac/access_check?appID=shop&resName=%2Fshop%2Fa&action=GET&clientIP=127.0.0.1";
    assert!(
        asked.iter().all(|asked| asked.word(1) == question),
        "{:?}",
        asked[0].start
    );
}

#[test]
fn refusals_are_exact() {
    let (wolf, upstream, gateway) = start(RESOURCES);
    refused(
        &get(&gateway, "/shop/a", &[]),
        401,
        "Missing rbac token in request",
    );
    for token in [
        "",
        "x",
        "V1",
        "V1#shop",
        "V2#shop#x",
        "v1#shop#x",
        "Bearer V1#shop#x",
    ] {
        let reply = bearing(&gateway, "/shop/a", token);
        refused(&reply, 401, "invalid rbac token: parse failed");
    }
    // The first place counts, whatever it holds.
    let good = format!("V1#shop#{}", wolf.token("ann"));
    let reply = bearing(&gateway, "/shop/a?rbac_token=x", &good);
    refused(&reply, 401, "invalid rbac token: parse failed");
    for appid in ["nobody", "SHOP", "", "$secret://file/main/x"] {
        let reply = bearing(&gateway, "/shop/a", &format!("V1#{appid}#x"));
        refused(&reply, 401, "Invalid appid in rbac token");
    }
    let reply = bearing(&gateway, "/shop/a", "V1#shop#unknown");
    refused(&reply, 401, "ERR_TOKEN_INVALID");
    assert_eq!(upstream.count(), 0, "nothing refused reaches the upstream");

    let forged = [("Authorization", &*good), ("X-Username", "root")];
    let reply = send(&gateway, "DELETE", "/shop/a", &forged);
    let (status, body) = status_and_body(&reply);
    let body: Value = serde_json::from_str(&body).unwrap();
    let expected =
        json!({"message": "ERR_ACCESS_DENIED", "username": "ann", "nickname": "ann ü/1"});
    assert_eq!((status, body), (401, expected));
    assert_eq!(reply.header("x-username"), Some("ann"));
    assert_eq!(upstream.count(), 0, "nothing refused reaches the upstream");
    for (reason, count) in [
        ("missing", 1),
        ("malformed", 8),
        ("unknown", 4),
        ("denied", 2),
    ] {
        let line = format!("{{plugin=\"wolf-rbac\",reason=\"{reason}\"}} {count}");
        wait_until(&line, || gateway.metrics_page().contains(&line));
    }
    // Another application, with a prefix of its own.
    let reply = bearing(&gateway, "/shop/a", &good.replace("shop", "other"));
    assert_eq!(reply.status, 401);
    assert_eq!(reply.header("wolf-username"), Some("ann"));
    assert_eq!(reply.header("x-username"), None);

    let alone = "routes:\n  - { id: 1, uri: /shop/*, plugins: { wolf-rbac: {} }, NODE }\n  \
                 - { id: 2, uri: /apisix/plugin/wolf-rbac/*, plugins: { public-api: {} } }\n";
    let (_wolf, _upstream, gateway) = start(alone);
    refused(
        &bearing(&gateway, "/shop/a", "V1#shop#x"),
        401,
        "Missing related consumer",
    );
    assert_eq!(bearing(&gateway, INFO, "V1#shop#x").status, 500);
}

#[test]
fn trouble_is_tried_again_and_lets_nobody_in() {
    let (wolf, upstream, gateway) = start(RESOURCES);
    let token = format!("V1#shop#{}", wolf.token("ann"));
    let ask = || bearing(&gateway, "/shop/a", &token);
    wolf.set(Mood::Failing(2, 503));
    assert_eq!(ask().status, 200, "the third try succeeds");
    assert_eq!(wolf.take().len(), 3);
    wolf.set(Mood::Failing(3, 502));
    refused(&ask(), 500, "request to wolf-server failed, status:502");
    assert_eq!(wolf.take().len(), 3, "there is no fourth");

    let unread = "check permission failed! parse response json failed!";
    let mut served = upstream.count();
    for (status, body, answer) in [
        (200, "<html>", (500, unread)),
        (200, "", (500, unread)),
        (200, "[]", (500, unread)),
        (403, "<html>", (403, unread)),
        (403, r#"{"ok":false,"reason":"no"}"#, (403, "no")),
        (200, r#"{"ok":false,"reason":"no"}"#, (401, "no")),
        (302, r#"{"ok":true,"reason":"moved"}"#, (401, "moved")),
    ] {
        wolf.set(Mood::Saying(status, body.to_owned()));
        refused(&ask(), answer.0, answer.1);
    }
    assert_eq!(upstream.count(), served, "nobody is let in");
    wolf.set(Mood::Saying(200, r#"{"ok":true}"#.to_owned()));
    let forged = [
        ("Authorization", &*token),
        ("X-Username", "root"),
        ("X-UserId", "1"),
    ];
    assert_eq!(get(&gateway, "/shop/a", &forged).status, 200);
    served += 1;
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(
        seen.header("x-username"),
        None,
        "what the client says of itself goes"
    );
    assert_eq!(seen.header("x-userid"), None);
    wolf.set(Mood::Saying(
        200,
        r#"{"ok":true,"data":{"userInfo":{"id":{},"username":"a\r\nX-Admin: 1","nickname":null}}}"#
            .to_owned(),
    ));
    let reply = ask();
    assert_eq!(reply.status, 200);
    served += 1;
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(
        (seen.header("x-username"), seen.header("x-admin")),
        (None, None)
    );
    assert_eq!(reply.header("x-nickname"), Some("a%0D%0AX-Admin%3A%201"));

    wolf.set(Mood::Close);
    refused(&ask(), 500, "request to wolf-server failed, err:closed");
    let lost = bearing(&gateway, "/shop/a", "V1#lost#x");
    refused(
        &lost,
        500,
        "request to wolf-server failed, err:connection refused",
    );
    assert_eq!(upstream.count(), served);
    assert!(
        !gateway.log().contains(&wolf.token("ann")[..16]),
        "no token in the log"
    );
}

#[test]
fn users_log_in_and_change_their_password() {
    let (wolf, _upstream, gateway) = start(RESOURCES);
    let form = "appid=shop&username=ann&password=ann-pw%26%3D%2B";
    let json = json!({"appid": "shop", "username": "ann", "password": "ann-pw&=+"}).to_string();
    let mut token = String::new();
    for (path, kind, body) in [
        (LOGIN, FORM, form),
        (LOGIN, JSON, &*json),
        (
            "/login",
            ("Content-Type", "application/json; charset=utf-8"),
            &*json,
        ),
    ] {
        let reply = post(&gateway, "POST", path, &[kind], body);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        let body: Value = serde_json::from_str(&reply.text()).unwrap();
        assert_eq!(body["user_info"]["username"], "ann");
        token = body["rbac_token"].as_str().unwrap().to_owned();
        assert!(token.starts_with("V1#shop#wolf#token"), "{token}");
        assert_eq!(bearing(&gateway, "/shop/a", &token).status, 200);
    }
    let reply = bearing(&gateway, INFO, &token);
    let body: Value = serde_json::from_str(&reply.text()).unwrap();
    let info = json!({"user_info": {"id": 100, "username": "ann", "nickname": "ann ü/1"}});
    assert_eq!((reply.status, body), (200, info));

    let new = json!({"oldPassword": "ann-pw&=+", "newPassword": "new"}).to_string();
    let headers = [JSON, ("x-rbac-token", &*token)];
    let reply = post(&gateway, "PUT", CHANGE, &headers, &new);
    assert_local(
        &reply,
        200,
        "{\"message\":\"success to change password\"}\n",
    );
    // The old one is old now.
    let failed = "request to wolf-server failed!";
    refused(&post(&gateway, "PUT", CHANGE, &headers, &new), 200, failed);
    refused(&post(&gateway, "POST", LOGIN, &[JSON], &json), 200, failed);
    let reply = post(
        &gateway,
        "POST",
        LOGIN,
        &[FORM],
        "appid=shop&username=ann&password=new",
    );
    assert_eq!(reply.status, 200);
    assert!(reply.text().contains("rbac_token"));
    assert!(!gateway.log().contains("ann-pw"), "no password in the log");
    drop(wolf);
}

#[test]
fn wrong_questions_to_the_apis_are_refused() {
    let (wolf, _upstream, gateway) = start(RESOURCES);
    for (method, path, headers, body, status, message) in [
        ("POST", LOGIN, &[JSON][..], "{", 400, "invalid request"),
        ("POST", LOGIN, &[JSON], "", 400, "invalid request"),
        ("POST", LOGIN, &[JSON], "[]", 400, "invalid request"),
        ("POST", LOGIN, &[JSON], "{}", 400, "appid is missing"),
        (
            "POST",
            LOGIN,
            &[JSON],
            r#"{"appid":1}"#,
            400,
            "appid is missing",
        ),
        ("POST", LOGIN, &[FORM], "", 400, "appid is missing"),
        (
            "POST",
            LOGIN,
            &[FORM],
            "appid=nobody",
            400,
            "appid not found",
        ),
        (
            "PUT",
            CHANGE,
            &[JSON],
            "{}",
            401,
            "Missing rbac token in request",
        ),
        (
            "PUT",
            CHANGE,
            &[JSON, ("x-rbac-token", "x")],
            "{}",
            401,
            "invalid rbac token: parse failed",
        ),
        (
            "PUT",
            CHANGE,
            &[JSON, ("x-rbac-token", "V1#x#x")],
            "{}",
            400,
            "appid not found",
        ),
        ("GET", INFO, &[], "", 401, "Missing rbac token in request"),
        (
            "GET",
            INFO,
            &[("x-rbac-token", "V1#shop#x")],
            "",
            500,
            "request to wolf-server failed!",
        ),
        (
            "GET",
            INFO,
            &[("x-rbac-token", "V1#lost#x")],
            "",
            500,
            "request to wolf-server failed!",
        ),
    ] {
        refused(
            &post(&gateway, method, path, headers, body),
            status,
            message,
        );
    }
    for (method, path) in [
        ("GET", LOGIN),
        ("POST", CHANGE),
        ("POST", INFO),
        ("GET", "/login"),
    ] {
        assert_eq!(
            post(&gateway, method, path, &[], "").status,
            404,
            "{method} {path}"
        );
    }
    let long = "x".repeat(70_000);
    assert_eq!(post(&gateway, "POST", LOGIN, &[FORM], &long).status, 413);
    wolf.set(Mood::Saying(200, "<html>".to_owned()));
    let token = format!("V1#shop#{}", wolf.token("ann"));
    refused(
        &bearing(&gateway, INFO, &token),
        500,
        "request to wolf-server failed!",
    );
    let login = post(&gateway, "POST", LOGIN, &[FORM], "appid=shop");
    refused(&login, 500, "request to wolf-server failed!");
}

#[test]
fn an_appid_out_of_a_reference_follows_its_rotation() {
    let secrets = tempfile::tempdir().unwrap();
    let put = |value: &str| {
        let path = secrets.path().join("appid");
        std::fs::write(path.with_extension("tmp"), value).unwrap();
        std::fs::rename(path.with_extension("tmp"), path).unwrap();
    };
    put("old");
    let yaml = format!(
        "secrets:\n  - {{ id: file/main, path: {}, ttl: 1, neg_ttl: 1 }}\nconsumers:\n  \
         - {{ username: shop, plugins: {{ wolf-rbac: {{ appid: $secret://file/main/appid, server: 'WOLF' }} }} }}\n  \
         - {{ username: lost, plugins: {{ wolf-rbac: {{ appid: $secret://file/main/absent, server: 'WOLF' }} }} }}\n\
         routes:\n  - {{ id: 1, uri: /shop/*, plugins: {{ wolf-rbac: {{}} }}, NODE }}\n",
        secrets.path().display()
    );
    let wolf = Wolf::start(&[]);
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = over(&upstream, &yaml).replace("WOLF", &wolf.uri());
    let gateway = Gateway::builder().resources(yaml).unready().start();
    let token = wolf.token("ann");
    let status = |appid: &str| bearing(&gateway, "/shop/a", &format!("V1#{appid}#{token}")).status;
    let unknown = "Invalid appid in rbac token";
    wait_until(
        "wolf is asked for the old application, which it does not know",
        || {
            status("old") == 401
                && wolf
                    .take()
                    .iter()
                    .any(|asked| asked.word(1).contains("appID=old"))
        },
    );
    refused(&bearing(&gateway, "/shop/a", "V1#shop#x"), 401, unknown);
    put("shop");
    wait_until("the new one is let in", || status("shop") == 200);
    refused(&bearing(&gateway, "/shop/a", "V1#old#x"), 401, unknown);
    for text in ["$secret://file/main/appid", "$secret://file/main/absent"] {
        refused(
            &bearing(&gateway, "/shop/a", &format!("V1#{text}#{token}")),
            401,
            unknown,
        );
    }
}
