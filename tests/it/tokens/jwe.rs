//! Encrypted tokens. No standard prints one of `dir` with A256GCM, so `jose` makes them; RFC 7520
//! §5.6, which is `dir` with A128GCM, is refused as it must be.

use serde_json::{Value, json};

use super::clients::JOSE;
use crate::harness::{Behaviour, Gateway, Upstream};

const SECRET: &str = "a secret of thirty-two bytes, ok";

/// <https://www.rfc-editor.org/rfc/rfc7520#section-5.6>
const A128GCM: &str = "eyJhbGciOiJkaXIiLCJraWQiOiI3N2M3ZTJiOC02ZTEzLTQ1Y2YtODY3Mi02MTdiNWI0NTI0M2EiLCJlbmMiOiJBMTI4R0NNIn0..refa467QzzKx6QAB.JW_i_f52hww_ELQPGaYyeAB6HYGcR559l9TYnSovc23XJoBcW29rHP8yZOZG7YhLpT1bjFuvZPjQS-m0IFtVcXkZXdH_lr_FrdYt9HRUYkshtrMmIUAyGmUnd9zMDB2n0cRDIHAzFVeJUDxkUwVAE7_YGRPdcqMyiBoCO-FBdE-Nceb4h3-FtBP-c_BIwCPTjb9o0SbdcdREEMJMyZBH8ySWMVi1gPD9yxi-aQpGbSv_F9N4IZAxscj5g-NJsUPbjk29-s7LJAGb15wEBtXphVCgyy53CoIKLHHeJHXex45Uz9aKZSRSInZI-wjsY0yu3cT4_aQ3i1o-tiE-F8Ios61EKgyIQ4CWao8PFMj8TTnp.vbb32Xvllea2OtmHAdccRQ";

fn encrypted(key: &str, header: &Value) -> Value {
    json!({ "do": "encrypt", "alg": "HS256", "key": key, "header": header, "text": "for alice" })
}

#[test]
fn what_jose_encrypts_is_read_and_nothing_else() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .env("JWE_SECRET", SECRET)
        .resources(format!(
            "consumers:\n  - {{ username: alice, plugins: {{ jwe-decrypt: {{ key: alice, \
             secret: $env://JWE_SECRET }} }} }}\n  - {{ username: frodo, plugins: {{ jwe-decrypt: \
             {{ key: 77c7e2b8-6e13-45cf-8672-617b5b45243a, secret: '{SECRET}' }} }} }}\n\
             routes:\n  - {{ id: 1, uri: /*, plugins: {{ jwe-decrypt: {{ forward_header: X-Plain }} }}, \
             upstream: {{ nodes: {{ '{}': 1 }} }} }}\n",
            upstream.addr
        ))
        .start();
    let header = json!({ "alg": "dir", "enc": "A256GCM", "kid": "alice" });
    let unknown = json!({ "alg": "dir", "enc": "A256GCM", "kid": "nobody" });
    let other = "another secret, thirty-two bytes";
    let half = json!({ "alg": "dir", "enc": "A128GCM", "kid": "alice" });
    let results = JOSE.run(&[
        encrypted(SECRET, &header),
        encrypted(other, &header),
        encrypted(SECRET, &unknown),
        encrypted(&SECRET[..16], &half),
    ]);
    let tokens: Vec<&str> = results
        .iter()
        .map(|result| {
            result["token"]
                .as_str()
                .unwrap_or_else(|| panic!("{result}"))
        })
        .collect();
    let status = |token: &str| {
        let authorization = format!("Bearer {token}");
        gateway
            .get("a.test", "/", &[("Authorization", &authorization)])
            .status
    };
    assert_eq!(status(tokens[0]), 200);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("x-plain"), Some("for alice"));
    for bad in &tokens[1..] {
        assert_eq!(status(bad), 400, "{bad}");
    }
    assert_eq!(status(A128GCM), 400, "RFC 7520 §5.6");
    // One character of the text or the tag changed, or cut off.
    let good = tokens[0];
    for place in [good.rfind('.').unwrap() - 3, good.len() - 4] {
        let old = good.as_bytes()[place];
        let new = if old == b'A' { "B" } else { "A" };
        let changed = [&good[..place], new, &good[place + 1..]].concat();
        assert_eq!(status(&changed), 400, "{changed}");
    }
    assert_eq!(status(&good[..good.len() - 2]), 400);
    assert_eq!(upstream.count(), 1, "nothing refused reaches the upstream");
}
