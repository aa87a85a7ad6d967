//! A client of hmac-auth: signs as APISIX's documentation says.

use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

/// Key id of [`CONSUMERS`]' alice.
pub const KEY_ID: &str = "alice-id";
/// Her secret.
pub const SECRET: &str = "alice-s3cret";

/// Consumers of the tests.
pub const CONSUMERS: &str = "
consumers:
  - { username: alice, labels: { custom_id: '42' }, plugins: { hmac-auth: { key_id: alice-id, secret_key: alice-s3cret } } }
  - { username: bob }
  - { id: bob/credentials/second, plugins: { hmac-auth: { key_id: bob-id, secret_key: bob-s3cret } } }
  - { username: guest }
";

/// Now, as `Date` has it.
pub fn now() -> String {
    at(0)
}

/// So many seconds from now.
pub fn at(offset: i64) -> String {
    let seconds = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let moment = seconds.checked_add_signed(offset).unwrap();
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(moment))
}

/// `Authorization` of alice over these lines, the first of which names what they are.
pub fn authorization(headers: &str, lines: &[&str]) -> String {
    authorization_of(KEY_ID, SECRET, "hmac-sha256", headers, lines)
}

/// The same with every part chosen.
pub fn authorization_of(
    key_id: &str,
    secret: &str,
    algorithm: &str,
    headers: &str,
    lines: &[&str],
) -> String {
    let mut text = format!("{key_id}\n");
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    let digest = match algorithm {
        "hmac-sha1" => MessageDigest::sha1(),
        "hmac-sha512" => MessageDigest::sha512(),
        _ => MessageDigest::sha256(),
    };
    let key = PKey::hmac(secret.as_bytes()).unwrap();
    let mut signer = Signer::new(digest, &key).unwrap();
    let signature = BASE64_STANDARD.encode(signer.sign_oneshot_to_vec(text.as_bytes()).unwrap());
    format!(
        r#"Signature keyId="{key_id}",algorithm="{algorithm}",headers="{headers}",signature="{signature}""#
    )
}

/// Fields of alice's request, signed with method, target and date.
pub fn signed(method: &str, target: &str) -> Vec<(String, String)> {
    let date = now();
    let lines = [format!("{method} {target}"), format!("date: {date}")];
    let lines = [&*lines[0], &*lines[1]];
    fields(&[
        ("date", &date),
        (
            "authorization",
            &authorization("@request-target date", &lines),
        ),
    ])
}

/// The same with the digest of a body, which is signed too.
pub fn signed_body(method: &str, target: &str, body: &[u8]) -> Vec<(String, String)> {
    let date = now();
    let digest = digest(body);
    let lines = [
        format!("{method} {target}"),
        format!("date: {date}"),
        format!("digest: {digest}"),
    ];
    let lines = [&*lines[0], &*lines[1], &*lines[2]];
    fields(&[
        ("date", &date),
        ("digest", &digest),
        (
            "authorization",
            &authorization("@request-target date digest", &lines),
        ),
    ])
}

/// Value of `Digest`.
pub fn digest(body: &[u8]) -> String {
    let digest = BASE64_STANDARD.encode(openssl::sha::sha256(body));
    format!("SHA-256={digest}")
}

/// Lends fields to the client.
pub fn lent(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    fields
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect()
}

fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    fields.iter().map(owned).collect()
}
