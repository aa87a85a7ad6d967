//! The conformance suite on KV version 1 and 2, found by asking and as declared.

use serde_json::{Value, json};

use super::super::{Backend, Fault, conformance};
use crate::harness::openbao::OpenBao;
use crate::harness::{Relay, Relaying};

struct Kv {
    bao: OpenBao,
    relay: Relay,
    /// May read all but what [`Kv::forbid`] was told.
    token: String,
    version: u8,
    declared: Option<Value>,
}

impl Kv {
    fn mount(&self) -> &'static str {
        if self.version == 1 { "kv1" } else { "secret" }
    }
}

fn encoded(path: &str) -> String {
    let encode = |part| percent_encode(part);
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

fn percent_encode(part: &str) -> String {
    part.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

impl Backend for Kv {
    fn id(&self) -> &'static str {
        "vault/main"
    }

    fn fields(&self) -> Value {
        let mut fields = json!({
            "uri": self.relay.uri(), "prefix": format!("/{}//apisix/", self.mount()),
            "token": format!("  {}\n", self.token), "timeout": 5,
        });
        if let Some(declared) = &self.declared {
            fields["kv_version"] = declared.clone();
        }
        fields
    }

    async fn put(&self, path: &str, fields: Value) {
        let path = format!("apisix/{}", encoded(path));
        match self.version {
            1 => self.bao.put_v1(&path, fields).await,
            _ => self.bao.put_v2(&path, fields).await,
        }
    }

    async fn delete(&self, path: &str) {
        let path = format!("apisix/{}", encoded(path));
        match self.version {
            1 => self.bao.delete_v1(&path).await,
            _ => self.bao.delete_v2(&path).await,
        }
    }

    async fn undelete(&self, path: &str, fields: Value) {
        if self.version == 1 {
            return self.put(path, fields).await;
        }
        let path = format!("secret/undelete/apisix/{}", encoded(path));
        self.bao.call("POST", &path, json!({"versions": [1]})).await;
    }

    async fn forbid(&self, path: &str) -> bool {
        self.bao.policy("reader", &self.rules(Some(path))).await;
        true
    }

    async fn allow(&self, _path: &str) {
        self.bao.policy("reader", &self.rules(None)).await;
    }

    async fn go_down(&mut self) {
        self.bao.seal().await;
    }

    fn relay(&self) -> Option<&Relay> {
        Some(&self.relay)
    }

    fn relaying(&self, fault: Fault) -> Relaying {
        let sealed = r#"{"errors":["Vault is sealed"]}"#;
        match fault {
            Fault::Sealed => Relaying::Answer(503, sealed),
            Fault::Failing => Relaying::Answer(500, r#"{"errors":["internal error"]}"#),
            Fault::Throttled => {
                Relaying::Answer(429, r#"{"errors":["request path quota exceeded"]}"#)
            }
            Fault::WrongContent => Relaying::Answer(404, "<html>not found</html>"),
            Fault::Slow => Relaying::Never,
            Fault::Closed => Relaying::Close,
            Fault::Garbage => Relaying::Garbage,
            Fault::Truncated => Relaying::Truncated,
        }
    }

    fn forbidden(&self) -> &'static str {
        match self.version {
            1 => {
                "forbidden by the manager: no policy of our token lets it read \
                  kv1/apisix/deep/er/than/two"
            }
            _ => {
                "forbidden by the manager: no policy of our token lets it read \
                  secret/data/apisix/deep/er/than/two"
            }
        }
    }

    fn deleted(&self) -> &'static str {
        match self.version {
            1 => self.no_document(),
            _ => "document version is deleted",
        }
    }
}

impl Kv {
    fn rules(&self, but: Option<&str>) -> String {
        let mount = self.mount();
        let mut rules = format!("path \"{mount}/*\" {{ capabilities = [\"read\"] }}\n");
        if let Some(path) = but {
            let data = if self.version == 1 { "" } else { "data/" };
            let path = format!("{mount}/{data}apisix/{path}");
            rules += &format!("path \"{path}\" {{ capabilities = [\"deny\"] }}\n");
        }
        rules
    }
}

async fn kv(version: u8, declared: Option<Value>) -> Kv {
    let bao = OpenBao::start().await;
    let mount = if version == 1 { "kv1" } else { "secret" };
    let rules = format!("path \"{mount}/*\" {{ capabilities = [\"read\"] }}");
    Kv {
        token: bao.token_with("reader", &rules).await,
        relay: Relay::start(&bao.addr, Relaying::Pass),
        bao,
        version,
        declared,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_version_1_found_by_asking_conforms() {
    conformance(kv(1, None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_version_1_as_declared_conforms() {
    conformance(kv(1, Some(json!(1))).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_version_2_found_by_asking_conforms() {
    conformance(kv(2, Some(json!("auto"))).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_version_2_as_declared_conforms() {
    conformance(kv(2, Some(json!(2))).await).await;
}
