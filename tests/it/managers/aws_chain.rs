//! `aws` without keys of its own: the SDK's default chain, in the environment of the real program;
//! and a key that is rotated in AWS while the program serves.

use std::net::{SocketAddr, TcpListener};

use serde_json::json;

use crate::harness::gateway::Builder;
use crate::harness::moto::{AccessKey, Moto, REGION};
use crate::harness::wire::{Kind, Message, Reader};
use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

/// One consumer per reference; whoever knows a value gets a 200.
fn resources(upstream: &Upstream, manager: &str, references: &[&str]) -> String {
    let consumers: String = references
        .iter()
        .enumerate()
        .map(|(n, reference)| {
            format!(
                "  - username: user{n}\n    plugins: {{ key-auth: {{ key: '$secret://aws/main/{reference}' }} }}\n"
            )
        })
        .collect();
    format!(
        "secrets:\n  - {{ id: aws/main, ttl: 1, neg_ttl: 1, {manager} }}\nconsumers:\n{consumers}\
         routes:\n  - {{ id: 1, uri: /*, plugins: {{ key-auth: {{}} }}, \
         upstream: {{ nodes: {{ '{}': 1 }} }} }}\n",
        upstream.addr
    )
}

/// A gateway with this environment and none of the machine's own credentials.
fn builder(env: &[(&str, &str)]) -> Builder {
    let builder = Gateway::builder();
    let home = builder.dir().to_str().unwrap().to_owned();
    let builder = builder
        .env("HOME", &home)
        .env("AWS_EC2_METADATA_DISABLED", "true");
    env.iter()
        .fold(builder, |builder, (name, value)| builder.env(name, value))
}

/// The environment of a web identity.
fn web<'a>(sts: &'a str, token_file: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/gateway"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token_file),
        ("AWS_ENDPOINT_URL_STS", sts),
    ]
}

fn status(gateway: &Gateway, key: &str) -> u16 {
    gateway.get("a.test", "/", &[("apikey", key)]).status
}

/// Answers each request with the text for it, until the test ends.
fn stub(answer: impl Fn(&Message) -> String + Send + 'static) -> SocketAddr {
    use std::io::Write as _;

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut reader = Reader::default();
            if let Ok(Some(request)) = reader.message(&mut stream, Kind::Request) {
                let body = answer(&request);
                let _ = stream.write_all(
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\
                         X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 600\r\n\r\n{body}",
                        body.len()
                    )
                    .as_bytes(),
                );
            }
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_link_of_the_default_chain_signs_as_who_it_says() {
    let moto = Moto::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    moto.put("app/keys", r#"{"alice":"alice-key"}"#).await;
    let manager = format!("endpoint_url: '{}'", moto.addr);
    let resources = resources(&upstream, &manager, &["app/keys#alice"]);
    let AccessKey { id, secret } = moto.user("gateway").await;
    let (session, token) = moto.session(&moto.role("pod").await).await;
    moto.enforce(true).await;

    let given = json!({"Code": "Success", "AccessKeyId": session.id,
        "SecretAccessKey": session.secret, "Token": token, "Expiration": "2199-01-01T00:00:00Z"})
    .to_string();
    let container = stub({
        let given = given.clone();
        move |request| match request.header("authorization") {
            Some("pod-identity") => given.clone(),
            _ => "{}".to_owned(),
        }
    });
    let container = format!("http://{container}/credentials");
    let instance = stub(move |request| match request.word(1) {
        "/latest/api/token" => "imds-token".to_owned(),
        _ if request.header("x-aws-ec2-metadata-token") != Some("imds-token") => String::new(),
        "/latest/meta-data/iam/security-credentials/" => "role".to_owned(),
        "/latest/meta-data/iam/security-credentials/role" => given.clone(),
        _ => String::new(),
    });
    let instance = format!("http://{instance}");
    let profile = format!("[team]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");

    for (link, env) in [
        (
            "environment",
            vec![
                ("AWS_ACCESS_KEY_ID", &*id),
                ("AWS_SECRET_ACCESS_KEY", &secret),
            ],
        ),
        (
            "profile",
            vec![
                ("AWS_PROFILE", "team"),
                ("AWS_SHARED_CREDENTIALS_FILE", "./keys"),
            ],
        ),
        (
            "container",
            vec![
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*container),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod-identity"),
            ],
        ),
        (
            "instance",
            vec![
                ("AWS_EC2_METADATA_DISABLED", "false"),
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*instance),
            ],
        ),
    ] {
        let gateway = builder(&env)
            .file("keys", &profile)
            .resources(&*resources)
            .start();
        assert_eq!(status(&gateway, "alice-key"), 200, "{link}");
        for secret in [&secret, &session.secret, &token] {
            assert!(!gateway.log().contains(&**secret), "{link}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_identity_is_changed_for_a_role_whose_session_signs() {
    let moto = Moto::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    let role = moto.role("gateway").await;
    let elsewhere = json!({ "SecretString": r#"{"k":"frankfurt"}"# });
    moto.put_in("eu-central-1", "app/keys", elsewhere).await;
    let later = json!({ "SecretString": r#"{"k":"later"}"# });
    moto.put_in("eu-central-1", "app/more", later).await;
    moto.put_in(
        REGION,
        "app/keys",
        json!({"SecretString": r#"{"k":"virginia"}"#}),
    )
    .await;
    let manager = format!("endpoint_url: '{}'", moto.addr);
    let before = resources(&upstream, &manager, &["app/keys#k"]);
    let gateway = builder(&[
        ("AWS_ROLE_ARN", &role),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "./token"),
        ("AWS_ENDPOINT_URL_STS", &moto.addr),
        ("AWS_REGION", "eu-central-1"),
    ])
    .file("token", "web-identity-token-of-a-test")
    .resources(before)
    .start();
    assert_eq!(status(&gateway, "frankfurt"), 200);
    assert_eq!(status(&gateway, "virginia"), 401);

    // From here on `moto` looks at the signature and at the session's token.
    moto.enforce(true).await;
    gateway.write_resources(&resources(
        &upstream,
        &manager,
        &["app/keys#k", "app/more#k"],
    ));
    wait_until("the role may read", || status(&gateway, "later") == 200);
}

#[test]
fn a_chain_that_gives_nothing_says_why_and_repeats_no_answer() {
    let upstream = Upstream::start(Behaviour::ok());
    let manager = "endpoint_url: 'http://127.0.0.1:1'";
    let resources = resources(&upstream, manager, &["app/keys#k"]);
    let sts = |status, body: &str| Upstream::start(Behaviour::Answer(status, body.to_owned()));
    let garbled = sts(
        200,
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><SecretAccessKey>hunter2</SecretAccessKey><Expiration>hunter2",
    );
    let refusing = sts(
        400,
        "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>hunter2</Message></Error></ErrorResponse>",
    );
    let uri = |server: &Upstream| format!("http://{}", server.addr);
    let (garbled_uri, refusing_uri) = (uri(&garbled), uri(&refusing));
    let gateways = [
        (vec![], "login failed: no credentials in environment"),
        (
            web(&garbled_uri, "./token"),
            "login failed: the answer with credentials was not understood",
        ),
        (
            web(&refusing_uri, "./token"),
            "login failed: STS gives no credentials: InvalidIdentityToken",
        ),
        (
            web(&refusing_uri, "./absent"),
            "login failed: a file of credentials cannot be read",
        ),
        (
            web("http://127.0.0.1:1", "./token"),
            "login failed: credentials are not to be had: manager unreachable",
        ),
    ]
    .map(|(env, expected)| {
        let gateway = builder(&env)
            .bootstrap("nginx_config: { error_log_level: debug }")
            .file("token", "hunter2-web-identity")
            .resources(&*resources)
            .unready()
            .start();
        (gateway, expected)
    });
    for (gateway, expected) in &gateways {
        wait_until(expected, || gateway.log().contains(expected));
        assert_eq!(status(gateway, "hunter2"), 401);
        assert!(!gateway.log().contains("hunter2"), "{}", gateway.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_rotated_in_aws_is_in_force_without_a_reload() {
    let moto = Moto::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    moto.put("app/keys", r#"{"alice":"old"}"#).await;
    moto.put("app/raw", "raw-old").await;
    let manager = format!(
        "access_key_id: a, secret_access_key: b, endpoint_url: '{}'",
        moto.addr
    );
    let resources = resources(&upstream, &manager, &["app/keys/alice", "app/raw"]);
    let gateway = Gateway::start(resources);
    let revision = || gateway.get("a.test", "/", &[("apikey", "raw-old")]).status;
    assert_eq!((status(&gateway, "old"), revision()), (200, 200));
    moto.put("app/keys", r#"{"alice":"new"}"#).await;
    wait_until("the new key is in force", || status(&gateway, "new") == 200);
    assert_eq!(status(&gateway, "old"), 401);
    assert_eq!(revision(), 200, "the other's user is untouched");

    // Deleted for good ends it, restored brings it back.
    moto.delete("app/keys").await;
    wait_until("a deleted secret ends", || status(&gateway, "new") == 401);
    moto.restore("app/keys").await;
    wait_until("a restored one is back", || status(&gateway, "new") == 200);
    assert_eq!(revision(), 200);
}
