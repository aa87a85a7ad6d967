//! AWS web identity against a real STS: the exchange is made, and nobody tells of it.

use super::*;
use crate::harness::moto::{Moto, element};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_identity_is_exchanged_and_neither_side_of_it_is_said() {
    let moto = Moto::start().await;
    let upstream = Upstream::start(Behaviour::ok());
    let role = moto.role("gateway").await;
    for (name, key) in [("first", "first"), ("second", "second")] {
        let text = json!({"key": marked(key)}).to_string();
        moto.put(name, &text).await;
    }
    let sts = Relay::start(&moto.addr, Relaying::Pass);
    let resources = |names: &[&str]| {
        let consumer = |name: &&str| {
            format!(
                "  - {{ username: {name}, plugins: {{ key-auth: {{ key: $secret://aws/main/{name}/key }} }} }}\n"
            )
        };
        let consumers: String = names.iter().map(consumer).collect();
        format!(
            "secrets:\n  - {{ id: aws/main, ttl: 1, neg_ttl: 1, endpoint_url: '{}' }}\nconsumers:\n{consumers}\
             routes:\n  - {{ id: 1, uri: /*, plugins: {{ key-auth: {{}} }}, \
             upstream: {{ nodes: {{ '{}': 1 }} }} }}\n",
            moto.addr, upstream.addr
        )
    };
    let builder = Gateway::builder();
    let home = builder.dir().display().to_string();
    let sts_uri = sts.uri();
    let env = [
        ("HOME", &*home),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ROLE_ARN", &*role),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "./token"),
        ("AWS_ENDPOINT_URL_STS", &*sts_uri),
    ];
    let gateway = env
        .iter()
        .fold(builder, |builder, (name, value)| builder.env(name, value))
        .bootstrap("nginx_config: { error_log_level: debug }")
        .bootstrap(AUDIT)
        .file("token", marked("web-identity"))
        .resources(resources(&["first"]))
        .start();
    let status = |name: &str| {
        let key = marked(name);
        gateway.get("a.test", "/", &[("apikey", &key)]).status
    };
    assert_eq!(status("first"), 200);
    let exchanged = sts.answers();
    assert!(
        exchanged.contains("<AssumeRoleWithWebIdentityResult>"),
        "STS was asked, and only STS: {:?}",
        sts.paths()
    );
    // From here on `moto` looks at signatures: what is read is read with what STS gave.
    moto.enforce(true).await;
    gateway.write_resources(&resources(&["first", "second"]));
    wait_until("the session may read", || status("second") == 200);

    let given = ["SecretAccessKey", "SessionToken"].map(|name| element(&exchanged, name));
    let scanner = Scanner::new(&[]).and(&[&given[0], &given[1]]);
    assert!(
        !scanner.findings(exchanged.as_bytes()).is_empty(),
        "the control"
    );
    let check = |gateway: &Gateway| {
        for command in COMMANDS {
            let text = said(gateway, "apisix.yaml", command, &env);
            scanner.assert_clean(&command.join(" "), text);
        }
    };
    check(&gateway);
    assert_quiet(&gateway, &scanner, "logged_in");

    // STS refuses from here on, in words that repeat what it was sent.
    sts.set(Relaying::Answer(
        400,
        "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>mArKeR7zQ4</Message></Error></ErrorResponse>",
    ));
    check(&gateway);
    scanner.assert_clean("`audit verify`", audit_verdict(&gateway, &[]));
    scanner.assert_clean("the log", gateway.log());
}
