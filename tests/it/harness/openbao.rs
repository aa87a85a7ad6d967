//! A real `OpenBao`: KV version 2 at `secret/`, version 1 at `kv1/`. Either a dev server, or one with
//! storage on disk that can be sealed, unsealed, stopped and started again on its port and data.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use claviger::tls::dev::Issued;
use serde_json::{Value, json};

use super::{certs, ports, tool};

/// A running server; killed on drop.
pub struct OpenBao {
    child: Child,
    args: Vec<String>,
    /// Of a server that can be sealed and unsealed.
    unseal_key: Option<String>,
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

    /// A server with storage on disk, initialised and unsealed, over plain HTTP.
    pub async fn start_server() -> Self {
        Self::start_server_with(None).await
    }

    /// The same over TLS, or as [`Tls`] says.
    pub async fn start_server_with(tls: Option<Tls<'_>>) -> Self {
        let (port, cluster_port) = (ports::free(), ports::free());
        let home = tempfile::tempdir().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let addr = format!("{scheme}://127.0.0.1:{port}");
        let listener = listener(home.path(), tls.as_ref());
        std::fs::create_dir(home.path().join("data")).unwrap();
        let config = format!(
            "storage \"raft\" {{\n path = {:?}\n node_id = \"one\"\n performance_multiplier = 1\n}}\n\
             listener \"tcp\" {{\n address = \"127.0.0.1:{port}\"\n \
             cluster_address = \"127.0.0.1:{cluster_port}\"\n{listener}}}\n\
             api_addr = {addr:?}\ncluster_addr = \"https://127.0.0.1:{cluster_port}\"\n",
            home.path().join("data")
        );
        let file = home.path().join("config.hcl");
        std::fs::write(&file, config).unwrap();
        let args = vec!["server".to_owned(), format!("-config={}", file.display())];
        let client = tls.as_ref().and_then(|tls| tls.client);
        let mut bao = Self::spawn(args, addr, "", home, client);
        bao.wait_until(|status| status != 0).await;
        let shares = json!({"secret_shares": 1, "secret_threshold": 1});
        let made = bao.call("PUT", "sys/init", shares).await;
        made["root_token"]
            .as_str()
            .unwrap()
            .clone_into(&mut bao.token);
        bao.unseal_key = Some(made["keys"][0].as_str().unwrap().to_owned());
        bao.unseal().await;
        for (mount, version) in [("secret", "2"), ("kv1", "1")] {
            let kv = json!({"type": "kv", "options": {"version": version}});
            bao.call("POST", &format!("sys/mounts/{mount}"), kv).await;
        }
        // Version 2 is set up after the mount is there.
        bao.wait_until_ready().await;
        bao
    }

    /// Unseals a server of [`OpenBao::start_server`], and waits until it serves.
    pub async fn unseal(&self) {
        let key = self.unseal_key.as_ref().expect("only a server is unsealed");
        self.call("PUT", "sys/unseal", json!({"key": key})).await;
        self.wait_until(|status| status == 200).await;
    }

    /// Ends the process; its data stays.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port, with the data it had; it is sealed then.
    pub async fn restart(&mut self) {
        self.stop();
        self.child = launch(&self.args, self.home.path());
        self.wait_until(|status| status != 0).await;
    }

    async fn start_with(tls: bool, token: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let home = tempfile::tempdir().unwrap();
        let mut args = vec![
            "server".to_owned(),
            "-dev".to_owned(),
            "-dev-no-store-token".to_owned(),
            format!("-dev-root-token-id={token}"),
            format!("-dev-listen-address=127.0.0.1:{port}"),
        ];
        if tls {
            args.push("-dev-tls".to_owned());
            args.push(format!("-dev-tls-cert-dir={}", home.path().display()));
        }
        let scheme = if tls { "https" } else { "http" };
        let addr = format!("{scheme}://127.0.0.1:{port}");
        let bao = Self::spawn(args, addr, token, home, None);
        bao.wait_until_ready().await;
        bao.call(
            "POST",
            "sys/mounts/kv1",
            json!({"type": "kv", "options": {"version": "1"}}),
        )
        .await;
        bao
    }

    fn spawn(
        args: Vec<String>,
        addr: String,
        token: &str,
        home: tempfile::TempDir,
        client: Option<&Issued>,
    ) -> Self {
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .tls_danger_accept_invalid_certs(true);
        if let Some(issued) = client {
            let key = certs::key_text(issued).as_bytes();
            let identity = reqwest::Identity::from_pkcs8_pem(issued.cert_pem.as_bytes(), key);
            http = http.identity(identity.unwrap());
        }
        Self {
            child: launch(&args, home.path()),
            args,
            unseal_key: None,
            addr,
            token: token.to_owned(),
            http: http.build().unwrap(),
            home,
        }
    }

    /// Waits until the server's health has such a status; 0 is no answer.
    async fn wait_until(&self, expected: impl Fn(u16) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let health = self.try_call("GET", "sys/health", Value::Null).await;
            let status = health.map_or(0, |(status, _)| status);
            if expected(status) {
                return;
            }
            assert!(Instant::now() < deadline, "OpenBao's health is {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
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

    /// The same with further headers, such as a namespace or a wrapping.
    pub async fn call_with(&self, header: (&str, &str), path: &str, body: Value) -> Value {
        let (status, answer) = self.try_call_with(header, path, body).await.unwrap();
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// The same where it may fail.
    pub async fn try_call_with(
        &self,
        header: (&str, &str),
        path: &str,
        body: Value,
    ) -> Result<(u16, Value), reqwest::Error> {
        let request = self.request("POST", path, body);
        answer(request.header(header.0, header.1)).await
    }

    async fn try_call(
        &self,
        method: &str,
        path: &str,
        body: Value,
    ) -> Result<(u16, Value), reqwest::Error> {
        answer(self.request(method, path, body)).await
    }

    fn request(&self, method: &str, path: &str, body: Value) -> reqwest::RequestBuilder {
        let method = method.parse().unwrap();
        let url = format!("{}/v1/{path}", self.addr);
        let mut request = self.http.request(method, url);
        if !self.token.is_empty() {
            request = request.header("X-Vault-Token", &self.token);
        }
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        request
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, Value), reqwest::Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let text = response.text().await?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

/// How a server of [`OpenBao::start_server_with`] listens.
pub struct Tls<'a> {
    /// What it shows.
    pub certificate: &'a Issued,
    /// PEM of the only authority whose clients it lets in.
    pub client_ca: Option<&'a str>,
    /// What the harness shows, where it has to.
    pub client: Option<&'a Issued>,
}

fn listener(home: &Path, tls: Option<&Tls<'_>>) -> String {
    let Some(tls) = tls else {
        return " tls_disable = true\n".to_owned();
    };
    let write = |name: &str, text: &str| {
        let path = home.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let cert = write("tls.crt", &tls.certificate.cert_pem);
    let key = write("tls.key", certs::key_text(tls.certificate));
    let mut lines = format!(" tls_cert_file = {cert:?}\n tls_key_file = {key:?}\n");
    if let Some(ca) = tls.client_ca {
        let ca = write("clients.crt", ca);
        lines +=
            &format!(" tls_require_and_verify_client_cert = true\n tls_client_ca_file = {ca:?}\n");
    }
    lines
}

fn launch(args: &[String], home: &Path) -> Child {
    let program = std::env::var_os("CLAVIGER_BAO").map_or_else(|| tool("bao"), Into::into);
    Command::new(&program)
        .args(args)
        .env("HOME", home)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{} must start: {error}", program.display()))
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ROOT_TOKEN: &str = "root-token-of-a-test";
