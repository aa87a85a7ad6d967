//! `authz-casdoor` before a program that speaks Casdoor's interface (`spec/02` §9).

use serde_json::json;

use super::{access_log, get, over, status_and_body};
use crate::harness::casdoor::{CLIENT_ID, Casdoor};
use crate::harness::client::Reply;
use crate::harness::{Behaviour, Gateway, Upstream, said, wait_until};

const SECRET: &str = "3416238e1edf915eac08b8fe345b2b95cdba7e04";

fn routes(door: &str, secret: &str) -> String {
    format!(
        "
routes:
  - id: 1
    uri: /*
    plugins:
      authz-casdoor:
        endpoint_addr: http://{door}
        client_id: {CLIENT_ID}
        client_secret: {secret}
        callback_url: http://a.test/back
    NODE
"
    )
}

fn start(casdoor: &Casdoor) -> (Upstream, Gateway) {
    let upstream = Upstream::start(Behaviour::ok());
    let yaml = over(&upstream, &routes(&casdoor.addr().to_string(), SECRET));
    let builder = Gateway::builder().bootstrap("nginx_config: { http: { access_log_buffer: 1 } }");
    (upstream, builder.resources(yaml).start())
}

/// A browser: keeps its cookie, follows nothing by itself.
#[derive(Default, Clone)]
struct Browser {
    cookie: Option<String>,
}

impl Browser {
    fn get(&mut self, gateway: &Gateway, path: &str) -> Reply {
        let mut headers = vec![("Accept", "text/html")];
        headers.extend(self.cookie.as_deref().map(|cookie| ("Cookie", cookie)));
        let reply = get(gateway, path, &headers);
        if let Some(set) = reply.header("set-cookie") {
            self.cookie = set.split(';').next().map(str::to_owned);
        }
        reply
    }

    /// Asks for `path`, is sent away, logs in; where it has to come back.
    fn log_in(&mut self, gateway: &Gateway, casdoor: &Casdoor, path: &str) -> String {
        let away = self.get(gateway, path);
        assert_eq!(away.status, 302, "{path}");
        let authorize = away.header("location").unwrap().to_owned();
        let code = casdoor.log_in(&authorize);
        let state = authorize.split("state=").nth(1).unwrap();
        let state = state.split('&').next().unwrap();
        let code = percent_encoding::utf8_percent_encode(&code, percent_encoding::NON_ALPHANUMERIC);
        format!("/back?code={code}&state={state}")
    }
}

#[test]
fn a_browser_logs_in_and_gets_where_it_was_going() {
    let casdoor = Casdoor::start(SECRET);
    let (upstream, gateway) = start(&casdoor);
    let mut browser = Browser::default();
    let back = browser.log_in(&gateway, &casdoor, "//evil.test/../page?x=1&y=%2F");
    let landed = browser.get(&gateway, &back);
    assert_eq!(landed.status, 302);
    assert_eq!(landed.header("location"), Some("/page?x=1&y=%2F"));
    assert_eq!(landed.header("cache-control"), Some("no-store"));
    let cookie = landed.header("set-cookie").unwrap();
    assert!(
        cookie.ends_with("; Max-Age=3600; Path=/; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    assert!(!cookie.contains("ey.access.token"));
    let asked = casdoor.take();
    let exchange = asked.last().unwrap();
    assert_eq!(
        exchange.start,
        "POST /api/login/oauth/access_token HTTP/1.1"
    );
    assert_eq!(exchange.header("host"), Some(&*casdoor.addr().to_string()));
    assert_eq!(casdoor.complaints(), [""; 0]);
    assert_eq!(upstream.count(), 0, "nothing went upstream so far");
    let page = browser.get(&gateway, "/page?x=1");
    assert_eq!(status_and_body(&page), (200, "hello".to_owned()));
    assert!(page.header("set-cookie").is_none());
    assert!(casdoor.take().is_empty(), "a session asks nobody");
    // The session is this browser's.
    assert_eq!(Browser::default().get(&gateway, "/page").status, 302);
    let mut forger = browser.clone();
    let changed = forger.cookie.as_mut().unwrap();
    let last = changed.pop().unwrap();
    changed.push(if last == 'A' { 'B' } else { 'A' });
    assert_eq!(forger.get(&gateway, "/page").status, 302);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn states_and_codes_are_good_once_and_for_one_browser() {
    let casdoor = Casdoor::start(SECRET);
    let (upstream, gateway) = start(&casdoor);
    let mut browser = Browser::default();
    let back = browser.log_in(&gateway, &casdoor, "/page");
    let before = browser.clone();
    let mut other = Browser::default();
    // Without a login of its own.
    assert_eq!(other.get(&gateway, &back).status, 503);
    // With another login: the state is not its own.
    other.get(&gateway, "/");
    let reply = other.get(&gateway, &back);
    assert_eq!(status_and_body(&reply), (400, "invalid state".to_owned()));
    let reply = browser.clone().get(&gateway, "/back?error=access_denied");
    let message = "failed when accessing token. Invalid code or state";
    assert_eq!(status_and_body(&reply), (400, message.to_owned()));
    let answers = [&mut browser, &mut before.clone(), &mut before.clone()]
        .map(|browser| browser.get(&gateway, &back).status);
    assert_eq!(answers, [302, 400, 400], "once");
    assert_eq!(casdoor.complaints(), [""; 0]);
    // A session is no login.
    assert_eq!(browser.get(&gateway, &back).status, 503);
    assert_eq!(browser.get(&gateway, "/page").status, 200);
    // A login that ended badly begins anew.
    let mut again = before;
    let away = again.get(&gateway, "/page");
    assert!(
        !back.contains(state_of(&away)),
        "the used state is not used again"
    );
    // A code of nobody's.
    let mut guesser = Browser::default();
    let away = guesser.get(&gateway, "/page");
    let state = state_of(&away).to_owned();
    let reply = guesser.get(&gateway, &format!("/back?code=guessed&state={state}"));
    assert_eq!(reply.status, 503);
    assert_eq!(upstream.count(), 1);
    let log = gateway.log();
    assert!(log.contains("authz-casdoor: no token: the token endpoint answered 400"));
    for hidden in ["guessed", SECRET, "ey.access"] {
        assert!(!log.contains(hidden), "{hidden} is in the log");
    }
    wait_until("codes and states are masked in the access log", || {
        let log = access_log(&gateway);
        log.iter()
            .any(|line| line.contains("/back?code=***&state=***"))
    });
    assert!(
        !access_log(&gateway)
            .iter()
            .any(|line| line.contains(&state))
    );
}

fn state_of(away: &Reply) -> &str {
    let location = away.header("location").unwrap();
    let state = location.split("state=").nth(1).unwrap();
    state.split('&').next().unwrap()
}

#[test]
fn a_failing_casdoor_lets_nobody_in() {
    let casdoor = Casdoor::start(SECRET);
    let (upstream, gateway) = start(&casdoor);
    for expires_in in [json!(0), json!(-1), json!(null), json!("soon")] {
        casdoor.set_expires_in(expires_in.clone());
        let mut browser = Browser::default();
        let back = browser.log_in(&gateway, &casdoor, "/page");
        assert_eq!(browser.get(&gateway, &back).status, 503, "{expires_in}");
        assert_eq!(browser.get(&gateway, "/page").status, 302, "{expires_in}");
    }
    let good = r#"{"access_token":"t","expires_in":3600}"#;
    let huge = format!("{good}{}", " ".repeat(2_000_000));
    for (status, body) in [
        (200, ""),
        (200, "<html>"),
        (200, "[]"),
        (200, r#"{"access_token":"t"}"#),
        (200, r#"{"expires_in":3600}"#),
        (200, &huge),
        (302, good),
        (404, good),
        (500, good),
    ] {
        let (casdoor, body) = (Casdoor::start(SECRET), body.to_owned());
        let yaml = over(&upstream, &routes(&casdoor.addr().to_string(), SECRET));
        gateway.write_resources(&yaml);
        let door = casdoor.addr().to_string();
        let mut browser = Browser::default();
        wait_until("the new door is in force", || {
            let away = browser.get(&gateway, "/page");
            away.header("location").unwrap().contains(&door)
        });
        let back = browser.log_in(&gateway, &casdoor, "/page");
        let shown = format!("{status} {body:.40}");
        casdoor.misbehave(move |_| said(status, &[("Location", "/")], body.clone()));
        let reply = browser.get(&gateway, &back);
        assert_eq!(reply.status, 503, "{shown}");
        assert!(reply.header("set-cookie").is_none(), "{shown}");
    }
    for behaviour in [
        Behaviour::Garbage,
        Behaviour::Close,
        Behaviour::CloseMidBody,
        Behaviour::Raw(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
                .to_owned(),
        ),
    ] {
        let door = Upstream::start(behaviour.clone());
        gateway.write_resources(&over(&upstream, &routes(&door.addr.to_string(), SECRET)));
        let mut browser = Browser::default();
        let mut state = String::new();
        wait_until("the new door is in force", || {
            let away = browser.get(&gateway, "/page");
            state_of(&away).clone_into(&mut state);
            away.header("location")
                .unwrap()
                .contains(&door.addr.to_string())
        });
        let reply = browser.get(&gateway, &format!("/back?code=c&state={state}"));
        assert_eq!(reply.status, 503, "{behaviour:?}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_session_ends_with_its_token() {
    let casdoor = Casdoor::start(SECRET);
    casdoor.set_expires_in(json!(2));
    let (_upstream, gateway) = start(&casdoor);
    let mut browser = Browser::default();
    let back = browser.log_in(&gateway, &casdoor, "/page");
    let landed = browser.get(&gateway, &back);
    assert!(
        landed
            .header("set-cookie")
            .unwrap()
            .contains("; Max-Age=2;")
    );
    // The browser would drop the cookie; a thief would not.
    let thief = browser.clone();
    wait_until("the session is over", || {
        thief.clone().get(&gateway, "/page").status == 302
    });
}

#[test]
fn a_fleet_shares_sessions_and_a_rotated_secret_ends_them() {
    let casdoor = Casdoor::start(SECRET);
    let upstream = Upstream::start(Behaviour::ok());
    let start = || {
        let secrets = format!("{{\"client\":\"{SECRET}\"}}");
        let builder = Gateway::builder().file("secrets/door.json", secrets);
        let manager = format!(
            "secrets:\n  - {{ id: file/local, path: {}/secrets, ttl: 1, neg_ttl: 1 }}\n",
            builder.dir().display()
        );
        let routes = routes(
            &casdoor.addr().to_string(),
            "$secret://file/local/door/client",
        );
        builder
            .resources(manager + &over(&upstream, &routes))
            .start()
    };
    let (first, second) = (start(), start());
    let mut browser = Browser::default();
    let back = browser.log_in(&first, &casdoor, "/page");
    assert_eq!(
        browser.get(&second, &back).status,
        302,
        "begun here, finished there"
    );
    assert_eq!(browser.get(&first, "/page").status, 200);
    assert_eq!(browser.get(&second, "/page").status, 200);
    let rotated = "another secret of forty characters 01234";
    casdoor.set_secret(rotated);
    let document = format!("{{\"client\":\"{rotated}\"}}");
    first.write_file("secrets/door.json", document);
    let old = browser.clone();
    wait_until("sessions under the old secret end", || {
        old.clone().get(&first, "/page").status == 302
    });
    let back = browser.log_in(&first, &casdoor, "/page");
    assert_eq!(browser.get(&first, &back).status, 302);
    assert_eq!(
        browser.get(&first, "/page").status,
        200,
        "the new one serves"
    );
    first.write_file("secrets/door.json", "{}");
    wait_until("without a value the plugin refuses", || {
        browser.get(&first, "/page").status == 503
    });
}

#[test]
fn a_reference_is_no_secret() {
    let casdoor = Casdoor::start("$env://NOT_THERE");
    let upstream = Upstream::start(Behaviour::ok());
    let routes = routes(&casdoor.addr().to_string(), "$env://NOT_THERE");
    let builder = Gateway::builder().resources(over(&upstream, &routes));
    let gateway = builder.unready().start();
    for path in ["/page", "/back?code=c&state=s"] {
        assert_eq!(get(&gateway, path, &[]).status, 503, "{path}");
    }
    assert!(casdoor.take().is_empty());
    assert_eq!(upstream.count(), 0);
}
