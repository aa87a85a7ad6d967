//! Configurations with secrets next to what is wrong with them.

use super::{MARK, marked};

/// Files with secrets next to what is wrong with them, or inside it.
pub fn broken(good: &str) -> Vec<String> {
    let secret = marked("broken");
    let text = [
        format!("consumers:\n  - username: a\n    plugins: {{ key-auth: {{ key: '{secret} }} }}\n"),
        format!("consumers:\n  - username: a\n\tkey: {secret}\n"),
        format!("consumers:\n  - username: a\n    plugins: {{ key-auth: {{ key: {secret} }}\n"),
        format!("{secret}\n"),
        format!("consumers: {secret}\n"),
        format!("consumers:\n  - &a {secret}\n  - *{secret}\n"),
        format!("consumers:\n  - !!{secret} x\n"),
        format!("consumers:\n  - key: \"{secret}\\q\"\n"),
        format!("secrets:\n  - id: vault/main\n    token: {secret}\n   uri: x\n"),
        format!("consumers:\n  - username: ${{{{UNSET_{MARK}:=$\n    key: {secret}\n"),
    ];
    let plugins = [
        format!("key-auth: {secret}"),
        format!("key-auth: {{ header: ['{secret} x'] }}"),
        format!("key-auth: {{ header: {{ a: {secret} }} }}"),
        format!("key-auth: {{ bearer: {secret} }}"),
        format!("basic-auth: {{ realm: '\"{secret}' }}"),
        format!("key-auth: {{ hide_credentials: {secret} }}"),
        format!("ip-restriction: {{ whitelist: [{secret}] }}"),
        format!("ip-restriction: {{ whitelist: {secret} }}"),
        format!("proxy-rewrite: {{ headers: {secret} }}"),
        format!("proxy-rewrite: {{ headers: {{ set: [{secret}] }} }}"),
        format!("proxy-rewrite: {{ headers: {{ set: {{ X: [{secret}] }} }} }}"),
        format!("proxy-rewrite: {{ method: {secret} }}"),
        format!("proxy-rewrite: {{ scheme: {secret} }}"),
        format!("proxy-rewrite: {{ regex_uri: ['({secret}', x] }}"),
        format!("proxy-rewrite: {{ uri: '{secret} x' }}"),
        format!("response-rewrite: {{ status_code: {secret} }}"),
        format!("response-rewrite: {{ body: {secret}, body_base64: true }}"),
        format!("response-rewrite: {{ vars: {secret} }}"),
        format!("response-rewrite: {{ vars: [[arg_a, '~~', '({secret}']] }}"),
        format!("response-rewrite: {{ vars: [[arg_a, {secret}, 1]] }}"),
        format!("response-rewrite: {{ filters: [{{ regex: '({secret}', replace: x }}] }}"),
        format!("response-rewrite: {{ filters: [{{ regex: a, scope: {secret}, replace: x }}] }}"),
        format!("response-rewrite: {{ headers: {{ set: {{ 'X': \"a\\n{secret}\" }} }} }}"),
        format!("redirect: {{ ret_code: {secret}, uri: /x }}"),
        format!("redirect: {{ regex_uri: ['({secret}', x] }}"),
        format!("acl: {{ allow_labels: {{ a: {secret} }} }}"),
        format!("acl: {{ deny_labels: {{ a: [b] }}, external_user_label_field: '$..([{secret}' }}"),
        format!(
            "acl: {{ deny_labels: {{ a: [b] }}, external_user_label_field_parser: segmented_text, \
             external_user_label_field_separator: '({secret}' }}"
        ),
        format!("attach-consumer-label: {{ headers: {{ X: {secret} }} }}"),
        format!("consumer-restriction: {{ type: {secret}, whitelist: [a] }}"),
        format!("consumer-restriction: {{ whitelist: {secret} }}"),
        format!("consumer-restriction: {{ blacklist: [{secret}] }}"),
        format!(
            "consumer-restriction: {{ allowed_by_methods: [{{ user: {secret}, methods: [{secret}] }}] }}"
        ),
        format!("csrf: {{ key: [{secret}] }}"),
        format!("csrf: {{ key: k, name: '{secret} x' }}"),
        format!("csrf: {{ key: {secret}, expires: {secret} }}"),
        format!("cors: {{ max_age: {secret} }}"),
        format!("cors: {{ allow_origins_by_regex: ['({secret}'] }}"),
        format!("mocking: {{ response_status: {secret} }}"),
        format!("mocking: {{ response_schema: {secret} }}"),
        format!("request-id: {{ algorithm: {secret} }}"),
        format!("key-auth: {{ _meta: {{ filter: [[arg_a, '~~', '({secret}']] }} }}"),
        format!("key-auth: {{ _meta: {{ priority: {secret} }} }}"),
        format!("key-auth: {{ _meta: {{ error_response: [{secret}] }} }}"),
    ];
    let managers = [
        format!("id: vault/b1, uri: 'http://u:{secret}@127.0.0.1', prefix: a, token: t"),
        format!("id: vault/b2, uri: 'http://127.0.0.1', prefix: a, token: [{secret}]"),
        format!("id: vault/b3, uri: 'http://127.0.0.1', prefix: a, token: \"{secret}\\nx\""),
        format!("id: vault/b4, uri: 'http://127.0.0.1', prefix: a, token: t, timeout: {secret}"),
        format!("id: vault/b5, uri: 'http://127.0.0.1', prefix: a, token: t, kv_version: {secret}"),
        format!("id: vault/b6, uri: 'http://127.0.0.1', prefix: a, token: t, auth: {secret}"),
        format!("id: vault/b7, uri: 'http://127.0.0.1', prefix: a, auth: {{ method: {secret} }}"),
        format!(
            "id: vault/b8, uri: 'https://127.0.0.1', prefix: a, token: t, tls: {{ client_cert: a, client_key: '{secret}' }}"
        ),
        format!(
            "id: vault/b9, uri: 'https://127.0.0.1', prefix: a, token: t, tls: {{ client_cert: '-----BEGIN {secret}', client_key: '-----BEGIN {secret}' }}"
        ),
        format!("id: file/b10, path: [{secret}]"),
    ];
    let mut items = good.to_owned();
    let routes: String = plugins
        .iter()
        .enumerate()
        .map(|(n, plugin)| {
            format!("  - {{ id: b{n}, host: b{n}.test, uri: /*, upstream_id: up, plugins: {{ {plugin} }} }}\n")
        })
        .collect();
    items = items.replace("routes:\n", &format!("routes:\n{routes}"));
    let managers: String = managers
        .iter()
        .map(|fields| format!("  - {{ {fields} }}\n"))
        .collect();
    items = items.replace("secrets:\n", &format!("secrets:\n{managers}"));
    let consumers = [
        format!("username: c1, plugins: {{ key-auth: {{ key: [{secret}] }} }}"),
        format!("username: c2, plugins: {{ key-auth: {secret} }}"),
        format!("username: c3, plugins: {secret}"),
        format!("username: c4, plugins: {{ key-auth: {{ key: '{secret}', key: x }} }}"),
        format!("username: c5, labels: {secret}, plugins: {{ key-auth: {{ key: {secret} }} }}"),
        format!("username: c6, plugins: {{ unknown-plugin: {{ password: {secret} }} }}"),
        format!(
            "username: c7, plugins: {{ basic-auth: {{ username: '{secret}:', password: {secret} }} }}"
        ),
        format!(
            "username: c8, plugins: {{ basic-auth: {{ username: u, password: '$5${secret}$x' }} }}"
        ),
        format!(
            "username: c9, plugins: {{ key-auth: {{ key: '$argon2id$v=19$m=8,t=1,p=1${secret}${secret}' }} }}"
        ),
        format!("username: c10, plugins: {{ key-auth: {{ key: {secret}, key_prefix: other }} }}"),
        format!(
            "username: c11, plugins: {{ basic-auth: {{ username: u, password: [{secret}] }} }}"
        ),
    ];
    let consumers: String = consumers
        .iter()
        .map(|fields| format!("  - {{ {fields} }}\n"))
        .collect();
    items = items.replace("consumers:\n", &format!("consumers:\n{consumers}"));
    // Long enough to be taken for PEM.
    let long = secret.repeat(10);
    let pem = format!("-----BEGIN PRIVATE KEY-----\\n{long}\\n-----END PRIVATE KEY-----\\n");
    let pairs = [
        format!("id: s1, sni: s1.test, cert: {secret}, key: {secret}"),
        format!("id: s2, sni: s2.test, cert: \"{pem}\", key: \"{pem}\""),
        format!("id: s3, sni: s3.test, cert: [{secret}], key: {{ a: {secret} }}"),
        format!("id: s4, sni: s4.test, cert: x, key: x, certs: {secret}, keys: [{secret}]"),
        format!("id: s6, sni: s6.test, cert: {long}, key: {long}"),
        format!(
            "id: s7, sni: s7.test, cert: \"-----BEGIN CERTIFICATE-----\\n{long}\\n-----END CERTIFICATE-----\\n\", key: \"{pem}\""
        ),
        format!("id: s5, sni: s5.test, cert: x, key: {secret}, client: {{ ca: {secret} }}"),
    ];
    let pairs: String = pairs
        .iter()
        .map(|fields| format!("  - {{ {fields} }}\n"))
        .collect();
    items = items.replace("ssls:\n", &format!("ssls:\n{pairs}"));
    let tls = format!(
        "upstreams:\n  - {{ id: t1, type: roundrobin, scheme: https, nodes: {{ \"127.0.0.1:1\": 1 }}, tls: {{ client_cert: {long}, client_key: \"{pem}\" }} }}\n"
    );
    items = items.replace("upstreams:\n", &tls);
    let truncated = items.replace(
        "secrets:\n",
        &format!("plugin_metadata:\n  - {{ id: cors, allow_origins: {secret} }}\nsecrets:\n"),
    );
    text.into_iter().chain([truncated]).collect()
}
