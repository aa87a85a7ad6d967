//! A real `drongo` server: Google's Secret Manager without its guards. [`super::google`] stands in
//! front of it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{ports, tool};

/// A running server; killed on drop.
pub struct Drongo {
    child: Child,
    /// `http://127.0.0.1:port`.
    pub addr: String,
    http: reqwest::Client,
}

/// The project of every secret here.
pub const PROJECT: &str = "test-project";

impl Drongo {
    /// Starts `drongo` from `.venv/bin` or the path.
    pub async fn start() -> Self {
        let port = ports::free();
        let program = tool("drongo");
        let child = Command::new(&program)
            .args(["server", "--host", "127.0.0.1", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} must start: {error}", program.display()));
        let drongo = Self {
            child,
            addr: format!("http://127.0.0.1:{port}"),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while drongo
            .http
            .get(format!("{}/drongo/health", drongo.addr))
            .send()
            .await
            .is_err()
        {
            assert!(
                Instant::now() < deadline,
                "drongo must be ready within 60 s"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drongo
    }

    /// Adds a version, and the secret itself before its first.
    pub async fn put(&self, name: &str, value: &[u8]) {
        let body = json!({"payload": {"data": STANDARD.encode(value)}});
        let version = format!("/{name}:addVersion");
        if self.call("POST", &version, body.clone()).await.is_none() {
            let made = self
                .call("POST", &format!("?secretId={name}"), json!({}))
                .await;
            assert!(made.is_some(), "{name} must be created");
            let added = self.call("POST", &version, body).await;
            assert!(added.is_some(), "{name} must get a version");
        }
    }

    /// Puts the newest version into a state: `disable`, `enable` or `destroy`.
    pub async fn set_newest(&self, name: &str, what: &str) {
        let versions = self
            .call("GET", &format!("/{name}/versions"), Value::Null)
            .await;
        let newest = versions.unwrap()["totalSize"].as_u64().unwrap();
        let path = format!("/{name}/versions/{newest}:{what}");
        assert!(
            self.call("POST", &path, json!({})).await.is_some(),
            "{path}"
        );
    }

    /// Deletes the secret with all its versions.
    pub async fn delete(&self, name: &str) {
        let gone = self.call("DELETE", &format!("/{name}"), Value::Null).await;
        assert!(gone.is_some(), "{name} must be there");
    }

    /// The answer, unless it is a 404.
    async fn call(&self, method: &str, path: &str, body: Value) -> Option<Value> {
        let url = format!("{}/v1/projects/{PROJECT}/secrets{path}", self.addr);
        let mut request = self.http.request(method.parse().unwrap(), url);
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let response = request.send().await.unwrap();
        if response.status().as_u16() == 404 {
            return None;
        }
        assert!(
            response.status().is_success(),
            "{method} {path}: {}",
            response.status()
        );
        Some(serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }
}

impl Drop for Drongo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
