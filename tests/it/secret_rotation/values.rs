//! How one value after another comes into force: pairs, plugin fields, deletions, files.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_last_good_pair_serves_until_certificate_and_key_fit_again() {
    let bao = OpenBao::start().await;
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let issue = || certs::server(&authority, &["pair.test"]);
    let (first, second) = (issue(), issue());
    bao.put_v2("edge/cert", json!({"pem": first.cert_pem}))
        .await;
    bao.put_v2("edge/key", json!({"pem": certs::key_text(&first)}))
        .await;
    let resources = [
        "secrets:\n".to_owned(),
        vault("main", &bao.addr, "secret/edge", &bao.token, 1),
        ssl(
            "pair.test",
            "$secret://vault/main/cert/pem",
            "$secret://vault/main/key/pem",
        ),
    ];
    let gateway = Gateway::start(resources.concat());
    let served = || {
        Connection::open_tls(gateway.https(), "pair.test", &ca)
            .expect("no handshake may fail")
            .certificate()
    };
    let says = |times| gateway.log().matches("last good pair serves on").count() == times;
    assert!(served() == der(&first));

    bao.put_v2("edge/cert", json!({"pem": second.cert_pem}))
        .await;
    wait_until("a finding says that the halves do not fit", || {
        assert!(served() == der(&first), "half a rotation changes nothing");
        says(1)
    });
    bao.put_v2("edge/key", json!({"pem": certs::key_text(&second)}))
        .await;
    wait_until("the new pair serves", || served() == der(&second));

    // Text that is no key, then an expired pair: neither replaces what serves.
    bao.put_v2("edge/key", json!({"pem": "no key at all"}))
        .await;
    wait_until("a finding says that it is no key", || {
        assert!(served() == der(&second));
        says(2)
    });
    let expired = certs::expired(&authority, &["pair.test"]);
    bao.put_v2("edge/cert", json!({"pem": expired.cert_pem}))
        .await;
    bao.put_v2("edge/key", json!({"pem": certs::key_text(&expired)}))
        .await;
    wait_until("a finding says that it is expired", || {
        assert!(served() == der(&second));
        gateway.log().contains("expired")
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn plugin_fields_follow_their_references() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    bao.put_v2("edge/plugin", json!({"up": "up-1", "down": "down-1"}))
        .await;
    let resources = format!(
        r#"
routes:
  - id: r
    host: r.test
    uri: /*
    plugins:
      proxy-rewrite: {{ headers: {{ set: {{ X-Up: "$secret://vault/main/plugin/up" }} }} }}
      response-rewrite: {{ headers: {{ set: {{ X-Down: "$secret://vault/main/plugin/down" }} }} }}
    upstream: {{ type: roundrobin, nodes: {{ "{}": 1 }} }}
secrets:
{}"#,
        upstream.addr,
        vault("main", &bao.addr, "secret/edge", &bao.token, 1)
    );
    let gateway = Gateway::start(resources);
    let values = || {
        let reply = gateway.get("r.test", "/", &[]);
        assert_eq!(reply.status, 200);
        let seen = upstream.requests().pop().unwrap();
        (
            seen.header("x-up").unwrap_or_default().to_owned(),
            reply.header("x-down").unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(values(), ("up-1".to_owned(), "down-1".to_owned()));
    bao.put_v2("edge/plugin", json!({"up": "up-2", "down": "down-2"}))
        .await;
    wait_until("both plugins use the new values", || {
        values() == ("up-2".to_owned(), "down-2".to_owned())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_deleted_secret_ends_and_comes_back_when_undeleted() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    bao.put_v2("edge/alice", json!({"key": "alice-1"})).await;
    let resources = [
        "secrets:\n".to_owned(),
        vault("main", &bao.addr, "secret/edge", &bao.token, 1),
        consumers(&[("alice", "$secret://vault/main/alice/key")]),
        guarded(&upstream),
    ];
    let gateway = Gateway::start(resources.concat());
    assert_eq!(status_with(&gateway, "alice-1"), 200);
    bao.delete_v2("edge/alice").await;
    let deleted = Instant::now();
    wait_until("the deleted key ends", || {
        status_with(&gateway, "alice-1") == 401
    });
    // Noticed within the ttl, confirmed within neg_ttl.
    let took = deleted.elapsed();
    assert!(took <= Duration::from_secs(2) + GRACE, "it took {took:?}");
    wait_until("readiness tells", || !gateway.is_ready());
    bao.call(
        "POST",
        "secret/undelete/edge/alice",
        json!({"versions": [1]}),
    )
    .await;
    wait_until("the undeleted key is back", || {
        status_with(&gateway, "alice-1") == 200
    });
    wait_until("readiness is back", || gateway.is_ready());
}

#[test]
fn references_to_the_environment_and_to_files_follow_their_kind() {
    let upstream = Upstream::start(Behaviour::ok());
    let builder = Gateway::builder()
        .env("CAROL", "carol-1")
        .env("DAVE", r#"{"key":"dave-1"}"#)
        .file("renamed/alice", "alice-1")
        .file("linked/..1/bob", "bob-1");
    let dir = builder.dir().to_owned();
    let link = |target: &str, name: &str| {
        let fresh = dir.join("linked").join(format!("{name}.link"));
        symlink(target, &fresh).unwrap();
        std::fs::rename(fresh, dir.join("linked").join(name)).unwrap();
    };
    link("..1", "..data");
    link("..data/bob", "bob");
    // Read once in five minutes, were it not for the watch.
    let managers = format!(
        "secrets:\n  - {{ id: file/renamed, path: {0}/renamed, ttl: 300 }}\n  - {{ id: \
         file/linked, path: {0}/linked, ttl: 300 }}\n",
        dir.display()
    );
    let resources = [
        managers,
        consumers(&[
            ("alice", "$secret://file/renamed/alice"),
            ("bob", "$secret://file/linked/bob"),
            ("carol", "$env://CAROL"),
            ("dave", "$env://DAVE/key"),
        ]),
        guarded(&upstream),
    ];
    let gateway = builder.resources(resources.concat()).start();
    for key in ["alice-1", "bob-1", "carol-1", "dave-1"] {
        assert_eq!(status_with(&gateway, key), 200, "{key}");
    }

    gateway.write_file("renamed/alice", "alice-2");
    gateway.write_file("linked/..2", "");
    std::fs::remove_file(dir.join("linked/..2")).unwrap();
    std::fs::create_dir(dir.join("linked/..2")).unwrap();
    gateway.write_file("linked/..2/bob", "bob-2");
    link("..2", "..data");
    for (new, old) in [("alice-2", "alice-1"), ("bob-2", "bob-1")] {
        wait_until(new, || status_with(&gateway, new) == 200);
        assert_eq!(status_with(&gateway, old), 401, "{old} must have ended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_changed_value_rebuilds_its_users_and_nothing_else() {
    let bao = OpenBao::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    let authority = Authority::new().unwrap();
    let ca = authority.cert_pem().unwrap();
    let issue = || certs::server(&authority, &["tls.test"]);
    let pair = |issued: &Issued| json!({"cert": issued.cert_pem, "key": certs::key_text(issued)});
    bao.put_v2("edge/tls", pair(&issue())).await;
    for document in ["alice", "field", "both"] {
        let fields = json!({"key": format!("{document}-1")});
        bao.put_v2(&format!("edge/{document}"), fields).await;
    }
    let mut users = vec![
        ("alice".to_owned(), "$secret://vault/main/alice/key"),
        ("both".to_owned(), "$secret://vault/main/both/key"),
    ];
    let steady = (0..20).map(|n| format!("steady-{n}")).collect::<Vec<_>>();
    users.extend(steady.iter().map(|name| (name.clone(), &**name)));
    let users: Vec<_> = users.iter().map(|(name, key)| (&**name, *key)).collect();
    let mut routes = guarded(&upstream);
    for name in ["field", "both"] {
        let _ = writeln!(
            routes,
            "  - {{ id: {name}, host: {name}.test, uri: /*, plugins: {{ response-rewrite: {{ headers: {{ set: {{ X-Down: $secret://vault/main/{name}/key }} }} }} }}, upstream: {{ type: roundrobin, nodes: {{ \"{}\": 1 }} }} }}",
            upstream.addr
        );
    }
    let resources = [
        "secrets:\n".to_owned(),
        vault("main", &bao.addr, "secret/edge", &bao.token, 1),
        consumers(&users),
        ssl(
            "tls.test",
            "$secret://vault/main/tls/cert",
            "$secret://vault/main/tls/key",
        ),
        routes,
    ];
    let gateway = Gateway::start(resources.concat());
    // What the log says of the newest configuration.
    let built = || {
        let log = gateway.log();
        let line = log.lines().rfind(|line| line.contains("trigger=Secrets"));
        let words = line.unwrap_or_default().split(' ');
        let built: Vec<_> = words.filter(|word| word.contains("_built=")).collect();
        built.join(" ")
    };
    let field = |host: &str| {
        let reply = gateway.get(host, "/", &[]);
        reply.header("x-down").unwrap_or_default().to_owned()
    };
    for (document, expected) in [
        ("alice", "consumers_built=1 others_built=0"),
        ("field", "consumers_built=0 others_built=1"),
        ("both", "consumers_built=1 others_built=1"),
    ] {
        let value = format!("{document}-2");
        bao.put_v2(&format!("edge/{document}"), json!({"key": value}))
            .await;
        wait_until("the new value is used", || match document {
            "field" => field("field.test") == value,
            _ => status_with(&gateway, &value) == 200,
        });
        wait_until(expected, || built() == expected);
    }
    assert_eq!(field("both.test"), "both-2");
    let renewed = issue();
    bao.put_v2("edge/tls", pair(&renewed)).await;
    wait_until("the new certificate is shown", || {
        let handshake = Connection::open_tls(gateway.https(), "tls.test", &ca);
        handshake.expect("no handshake may fail").certificate() == der(&renewed)
    });
    let expected = "consumers_built=0 others_built=1";
    wait_until(expected, || built() == expected);
    assert_nothing_was_reloaded(&gateway);
}
