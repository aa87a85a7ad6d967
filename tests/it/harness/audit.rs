//! A real `OpenBao` dev server with an audit device: it says itself what was asked of it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ports, tool};

/// A running server; killed on drop.
pub struct AuditedBao {
    child: Child,
    /// `http://127.0.0.1:port`.
    pub addr: String,
    home: tempfile::TempDir,
    http: reqwest::Client,
}

impl AuditedBao {
    /// Root token.
    pub const TOKEN: &'static str = "root-token-of-an-audit";

    /// Starts `bao` with a file for its audit device.
    pub async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("audit.hcl");
        let log = home.path().join("audit.log");
        // Devices are declared; OpenBao makes none over its API.
        let device = format!("audit \"file\" \"it\" {{ options {{ file_path = {log:?} }} }}\n");
        std::fs::write(&config, device).unwrap();
        let address = format!("127.0.0.1:{}", ports::free());
        let program = std::env::var_os("CLAVIGER_BAO").map_or_else(|| tool("bao"), Into::into);
        let child = Command::new(program)
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={}", Self::TOKEN))
            .arg(format!("-dev-listen-address={address}"))
            .arg(format!("-config={}", config.display()))
            .env("HOME", home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bao = Self {
            child,
            addr: format!("http://{address}"),
            home,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while bao.try_put("ready", json!({"k": "v"})).await != Some(200) {
            assert!(Instant::now() < deadline, "OpenBao must start within 60 s");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bao
    }

    /// Writes a version of a version 2 document at `secret/`.
    pub async fn put(&self, path: &str, fields: Value) {
        assert_eq!(self.try_put(path, fields).await, Some(200), "{path}");
    }

    async fn try_put(&self, path: &str, fields: Value) -> Option<u16> {
        let request = self
            .http
            .post(format!("{}/v1/secret/data/{path}", self.addr))
            .header("X-Vault-Token", Self::TOKEN)
            .body(json!({ "data": fields }).to_string());
        Some(request.send().await.ok()?.status().as_u16())
    }

    /// Paths of all reads so far, in order, as the server logged them.
    pub fn reads(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.log()).unwrap();
        let read = |line: &str| {
            // The last line may be on its way.
            let record: Value = serde_json::from_str(line).ok()?;
            let asked = record["type"] == "request" && record["request"]["operation"] == "read";
            asked.then(|| record["request"]["path"].as_str().unwrap().to_owned())
        };
        log.lines().filter_map(read).collect()
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("audit.log")
    }
}

impl Drop for AuditedBao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
