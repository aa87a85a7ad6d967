//! Every login, at the server's own auth methods.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger::tls::dev::{Authority, LeafOptions, Usage};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use serde_json::{Value, json};

use super::super::text;
use super::*;
use crate::harness::certs;
use crate::harness::openbao::Tls;
use crate::harness::wire::{Kind, Reader};
use crate::harness::{Relay, Relaying};

/// Writes as rotating tools do: aside, then renamed.
fn write(path: &Path, text: &str) {
    let aside = path.with_extension("tmp");
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(aside, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn approle_logs_in_once_for_many_documents() {
    let bao = dev().await;
    let role_id = app_role(&bao, json!({})).await;
    let relay = Relay::start(&bao.addr, Relaying::Pass);
    let secret_id = secret_id(&bao).await;
    let auth = json!({"method": "approle", "role_id": role_id, "secret_id": secret_id});
    let room = room_of(fields(&relay.uri(), auth));
    let references: Vec<String> = (0..50)
        .map(|number| format!("$secret://{ID}/d{number}/k"))
        .collect();
    for number in 0..50 {
        bao.put_v2(&format!("apisix/d{number}"), json!({"k": "v"}))
            .await;
    }
    let view = room
        .ensure(&references.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    for reference in &references {
        assert_eq!(text(&view, reference), found("v"), "{reference}");
    }
    assert_eq!(logins(&room, "approle"), 1);
    let is_login = |path: &&String| path.as_str() == "/v1/auth/approle/login";
    assert_eq!(relay.paths().iter().filter(is_login).count(), 1);
    let report = room.secrets.manager_report();
    let login = report[0].login.expect("must be logged in");
    assert_eq!(login.method, "approle");
    assert!(login.left.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_id_is_named_and_does_not_hammer_and_its_file_mends_it() {
    let bao = dev().await;
    let role_id = app_role(&bao, json!({})).await;
    let relay = Relay::start(&bao.addr, Relaying::Pass);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("secret-id");
    write(&file, "hunter2\n");
    let auth = json!({"method": "approle", "role_id": role_id, "secret_id_file": file});
    let room = room_of(fields(&relay.uri(), auth));
    let why = "login failed: approle at auth/approle does not accept role_id and secret_id \
               (status 400)";
    assert_eq!(value(&room).await, Err(why.to_owned()));
    room.failures(3).await;
    let is_login = |path: &&String| path.as_str() == "/v1/auth/approle/login";
    let tries = relay.paths().iter().filter(is_login).count();
    assert!(
        tries <= 2,
        "{tries} logins in a few seconds would lock the role out"
    );
    assert_eq!(failures(&room)[0], why);

    write(&file, &format!(" {}\n", secret_id(&bao).await));
    room.until(REFERENCE, Ok("v")).await;
}

/// A wrapping token around what an endpoint answers.
async fn wrapped(bao: &OpenBao, path: &str, body: Value) -> String {
    let answer = bao.call_with(("X-Vault-Wrap-TTL", "60s"), path, body).await;
    answer["wrap_info"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrapped_secret_id_is_opened_once_and_a_used_wrapping_is_an_alarm() {
    let bao = dev().await;
    let role_id = app_role(&bao, json!({})).await;
    let endpoint = "auth/approle/role/gateway/secret-id";
    let wrapping = wrapped(&bao, endpoint, json!({})).await;
    let auth = |wrapping: &str| json!({"method": "approle", "role_id": role_id, "secret_id": wrapping, "wrapped": true});
    let relay = Relay::start(&bao.addr, Relaying::Pass);
    let room = room_of(fields(&relay.uri(), auth(&wrapping)));
    assert_eq!(value(&room).await, found("v"));

    // The kept secret id serves the next login.
    revoke_logins(&bao).await;
    until(&room, "another login", || logins(&room, "approle") == 2).await;
    assert_eq!(text(&room.secrets.view(), REFERENCE), found("v"));
    let opened = |path: &&String| path.as_str() == "/v1/sys/wrapping/unwrap";
    assert_eq!(relay.paths().iter().filter(opened).count(), 1);

    let thief = room_of(fields(&bao.addr, auth(&wrapping)));
    let why = value(&thief).await.unwrap_err();
    assert!(why.contains("somebody else may have unwrapped"), "{why}");
    assert!(why.starts_with("login failed: approle"), "{why}");

    // A secret id that somebody else put in: made by another endpoint.
    let forged = wrapped(&bao, "sys/wrapping/wrap", json!({"secret_id": "mine"})).await;
    let fooled = room_of(fields(&bao.addr, auth(&forged)));
    let why = value(&fooled).await.unwrap_err();
    assert!(why.contains("was not made by this role"), "{why}");
}

fn rsa() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn jwt(key: &PKey<Private>, claims: &Value) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let text = format!(
        "{}.{}",
        part(&json!({"alg": "RS256", "typ": "JWT"})),
        part(claims)
    );
    let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
    let signature = signer.sign_oneshot_to_vec(text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn unix(offset: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_secs()).unwrap() + offset
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwt_is_read_from_its_file_at_every_login() {
    let bao = dev().await;
    enable(&bao, "jwt").await;
    let key = rsa();
    let public = String::from_utf8(key.public_key_to_pem().unwrap()).unwrap();
    let config = json!({"jwt_validation_pubkeys": [public]});
    bao.call("POST", "auth/jwt/config", config).await;
    let role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"],
        "token_policies": "reader", "token_ttl": "60s"});
    bao.call("POST", "auth/jwt/role/gateway", role).await;
    let claims =
        |ends| json!({"sub": "gateway", "aud": "vault", "iat": unix(-3600), "exp": unix(ends)});

    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("token");
    write(&file, &jwt(&key, &claims(-1800)));
    let auth = json!({"method": "jwt", "role": "gateway", "jwt_file": file});
    let room = room_of(fields(&bao.addr, auth));
    let why = value(&room).await.unwrap_err();
    assert!(
        why.starts_with("login failed: jwt at auth/jwt does not accept role and jwt_file"),
        "{why}"
    );
    write(&file, &format!("{}\n", jwt(&key, &claims(600))));
    room.until(REFERENCE, Ok("v")).await;
    assert_eq!(logins(&room, "jwt"), 1);

    std::fs::remove_file(&file).unwrap();
    let room = room_of(fields(
        &bao.addr,
        json!({"method": "jwt", "jwt_file": file}),
    ));
    let why = value(&room).await.unwrap_err();
    assert!(why.starts_with("login failed: jwt_file: "), "{why}");
}

/// Kubernetes' part of the login: says who a token is, if it is this one.
fn token_reviewer(good: String) -> (SocketAddr, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let reviews = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&reviews);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut reader = Reader::default();
            while let Ok(Some(request)) = reader.message(&mut stream, Kind::Request) {
                assert_eq!(
                    request.word(1),
                    "/apis/authentication.k8s.io/v1/tokenreviews"
                );
                let review: Value = serde_json::from_slice(&request.body).unwrap();
                let is_good = review["spec"]["token"] == good.as_str()
                    && request.header("authorization") == Some("Bearer reviewer-of-a-test");
                seen.lock().unwrap().push(review);
                let status = match is_good {
                    true => json!({"authenticated": true, "user": {
                        "username": "system:serviceaccount:apps:gateway", "uid": "u-1",
                        "groups": ["system:serviceaccounts"]}}),
                    false => json!({"authenticated": false, "error": "unknown token"}),
                };
                let body = json!({"apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenReview", "status": status})
                .to_string();
                let head = format!(
                    "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                if stream.write_all((head + &body).as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (addr, reviews)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_reviews_the_service_accounts_token() {
    let bao = dev().await;
    enable(&bao, "kubernetes").await;
    let claims = |name: &str| {
        json!({"iss": "kubernetes/serviceaccount", "sub": format!("system:serviceaccount:apps:{name}"),
            "kubernetes.io/serviceaccount/namespace": "apps",
            "kubernetes.io/serviceaccount/secret.name": "s",
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": "u-1"})
    };
    let key = rsa();
    let ours = jwt(&key, &claims("gateway"));
    let (reviewer, reviews) = token_reviewer(ours.clone());
    let ca = Authority::new().unwrap().cert_pem().unwrap();
    let config = json!({"kubernetes_host": format!("http://{reviewer}"),
        "kubernetes_ca_cert": ca, "disable_local_ca_jwt": true,
        "token_reviewer_jwt": "reviewer-of-a-test"});
    bao.call("POST", "auth/kubernetes/config", config).await;
    let role = json!({"bound_service_account_names": "gateway",
        "bound_service_account_namespaces": "apps", "token_policies": "reader",
        "token_ttl": "60s"});
    bao.call("POST", "auth/kubernetes/role/gateway", role).await;

    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("token");
    write(&file, &ours);
    let auth = json!({"method": "kubernetes", "role": "gateway", "jwt_file": file});
    let room = room_of(fields(&bao.addr, auth.clone()));
    assert_eq!(value(&room).await, found("v"));
    assert_eq!(logins(&room, "kubernetes"), 1);
    assert_eq!(reviews.lock().unwrap()[0]["spec"]["token"], ours.as_str());

    write(&file, &jwt(&rsa(), &claims("gateway")));
    let room = room_of(fields(&bao.addr, auth));
    let why = value(&room).await.unwrap_err();
    let expected = "login failed: kubernetes at auth/kubernetes does not accept role and jwt_file";
    assert!(why.starts_with(expected), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_logs_in() {
    let authority = Authority::new().unwrap();
    let server = certs::server(&authority, &["localhost", "127.0.0.1"]);
    let bao = OpenBao::start_server_with(Some(Tls {
        certificate: &server,
        client_ca: None,
        client: None,
    }))
    .await;
    furnish(&bao).await;
    enable(&bao, "cert").await;
    let ca = authority.cert_pem().unwrap();
    let clients = Authority::named("Clients").unwrap();
    let role = json!({"certificate": clients.cert_pem().unwrap(), "token_policies": "reader",
        "allowed_common_names": "gateway"});
    bao.call("POST", "auth/cert/certs/gateways", role).await;

    let options = LeafOptions {
        usage: Usage::Client,
        ..LeafOptions::default()
    };
    for (authority, name, role, is_let_in) in [
        (&clients, "gateway", Some("gateways"), true),
        (&clients, "gateway", None, true),
        (&clients, "stranger", Some("gateways"), false),
        (
            &Authority::named("Strangers").unwrap(),
            "gateway",
            Some("gateways"),
            false,
        ),
    ] {
        let issued = authority.issue(&[name], &options).unwrap();
        let mut fields = fields(&bao.addr, json!({"method": "cert", "role": role}));
        fields["tls"] = json!({"ca": ca, "client_cert": issued.cert_pem,
            "client_key": key_text(&issued.key_pem)});
        let room = room_of(fields);
        match value(&room).await {
            Ok(found) if is_let_in => assert_eq!(found, "v"),
            Err(why) if !is_let_in => {
                let expected = "login failed: cert at auth/cert does not accept tls.client_cert";
                assert!(why.starts_with(expected), "{why}");
            }
            other => panic!("{name} {role:?}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_file_is_followed_and_its_token_trimmed() {
    let bao = dev().await;
    let [first, second] = [
        token(&bao, json!({"policies": ["reader"]})).await,
        token(&bao, json!({"policies": ["reader"]})).await,
    ];
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("token");
    write(&file, &format!("  {first}\n\n"));
    let room = room_of(fields(
        &bao.addr,
        json!({"method": "token_file", "token_file": file}),
    ));
    assert_eq!(value(&room).await, found("v"));

    // A token that is not accepted does not replace the one in force.
    write(&file, "half-writ");
    until(&room, "a refused login", || !failures(&room).is_empty()).await;
    let before = reads(&room);
    until(&room, "two more reads", || reads(&room) >= before + 2).await;
    assert_eq!(failed_reads(&room), Vec::<&str>::new());

    write(&file, &second);
    until(&room, "a second login", || logins(&room, "token_file") == 2).await;
    bao.revoke(&first).await;
    let before = reads(&room);
    until(&room, "two more reads", || reads(&room) >= before + 2).await;
    assert_eq!(failed_reads(&room), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_waits_for_a_login_longer_than_its_time_limit() {
    let bao = dev().await;
    let relay = Relay::start(&bao.addr, Relaying::Never);
    let auth = json!({"method": "approle", "role_id": "r", "secret_id": "s"});
    let mut fields = fields(&relay.uri(), auth);
    fields["timeout"] = json!(0.5);
    let room = room_of(fields);
    let started = std::time::Instant::now();
    let why = value(&room).await.unwrap_err();
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    assert!(why.contains("in time"), "{why}");
}
