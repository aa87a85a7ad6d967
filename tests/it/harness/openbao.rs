//! A real `OpenBao` dev server: KV version 2 at `secret/`, version 1 at `kv1/`.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::tool;

/// A running server; killed on drop.
pub struct OpenBao {
    child: Child,
    /// `http://127.0.0.1:port`.
    pub addr: String,
    /// Root token.
    pub token: String,
    http: reqwest::Client,
    home: tempfile::TempDir,
}

impl OpenBao {
    /// Starts `bao` from `CLAVIGER_BAO`, `.venv/bin/bao` or the path.
    pub async fn start() -> Self {
        Self::start_with(false, ROOT_TOKEN).await
    }

    /// The same with this root token.
    pub async fn start_with_token(token: &str) -> Self {
        Self::start_with(false, token).await
    }

    /// The same over TLS, with a certificate for `localhost` and 127.0.0.1.
    pub async fn start_tls() -> Self {
        Self::start_with(true, ROOT_TOKEN).await
    }

    /// PEM of the authority behind [`OpenBao::start_tls`].
    pub fn ca(&self) -> std::path::PathBuf {
        let files = std::fs::read_dir(self.home.path()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let is_ca = |path: &std::path::PathBuf| path.to_string_lossy().ends_with("-ca.pem");
        paths
            .into_iter()
            .find(is_ca)
            .expect("dev-tls must write its CA")
    }

    async fn start_with(tls: bool, token: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let home = tempfile::tempdir().unwrap();
        let token = token.to_owned();
        let program = std::env::var_os("CLAVIGER_BAO").map_or_else(|| tool("bao"), Into::into);
        let child = Command::new(&program)
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={token}"))
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .args(tls.then_some("-dev-tls"))
            .args(tls.then(|| format!("-dev-tls-cert-dir={}", home.path().display())))
            .env("HOME", home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} must start: {error}", program.display()));
        let bao = Self {
            child,
            addr: format!("{}://127.0.0.1:{port}", if tls { "https" } else { "http" }),
            token,
            http: reqwest::Client::builder()
                .no_proxy()
                .tls_danger_accept_invalid_certs(true)
                .build()
                .unwrap(),
            home,
        };
        bao.wait_until_ready().await;
        bao.call(
            "POST",
            "sys/mounts/kv1",
            json!({"type": "kv", "options": {"version": "1"}}),
        )
        .await;
        bao
    }

    async fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            // The dev server mounts `secret/` after it begins to answer.
            let ready = self.try_call("GET", "secret/config", Value::Null).await;
            if ready.is_ok_and(|(status, _)| status == 200) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "OpenBao must be ready within 60 s"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Writes a version 1 document.
    pub async fn put_v1(&self, path: &str, fields: Value) {
        self.call("POST", &format!("kv1/{path}"), fields).await;
    }

    /// Writes a version of a version 2 document.
    pub async fn put_v2(&self, path: &str, fields: Value) {
        self.call(
            "POST",
            &format!("secret/data/{path}"),
            json!({"data": fields}),
        )
        .await;
    }

    /// Deletes a version 1 document.
    pub async fn delete_v1(&self, path: &str) {
        self.call("DELETE", &format!("kv1/{path}"), Value::Null)
            .await;
    }

    /// Deletes the newest version of a version 2 document.
    pub async fn delete_v2(&self, path: &str) {
        self.call("DELETE", &format!("secret/data/{path}"), Value::Null)
            .await;
    }

    /// Writes a policy (HCL).
    pub async fn policy(&self, name: &str, rules: &str) {
        let path = format!("sys/policies/acl/{name}");
        self.call("PUT", &path, json!({"policy": rules})).await;
    }

    /// A token with these policy rules (HCL).
    pub async fn token_with(&self, name: &str, rules: &str) -> String {
        self.policy(name, rules).await;
        let answer = self
            .call("POST", "auth/token/create", json!({"policies": [name]}))
            .await;
        answer["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// Ends a token.
    pub async fn revoke(&self, token: &str) {
        self.call("POST", "auth/token/revoke", json!({"token": token}))
            .await;
    }

    /// Seals the server.
    pub async fn seal(&self) {
        self.call("POST", "sys/seal", Value::Null).await;
    }

    /// A call of the HTTP API that must succeed.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.try_call(method, path, body).await.unwrap();
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        answer
    }

    async fn try_call(
        &self,
        method: &str,
        path: &str,
        body: Value,
    ) -> Result<(u16, Value), reqwest::Error> {
        let method = method.parse().unwrap();
        let url = format!("{}/v1/{path}", self.addr);
        let mut request = self
            .http
            .request(method, url)
            .header("X-Vault-Token", &self.token);
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ROOT_TOKEN: &str = "root-token-of-a-test";
