//! `claviger quickstart DIR`: a working configuration to start from, with a fresh development
//! certificate and random credentials. No credential is printed; the output names their files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use rand::RngCore as _;
use zeroize::Zeroizing;

use crate::tls::dev::{Authority, LeafOptions};

/// The name the example certificate is for. `.test` never resolves (RFC 6761 §6.2), so that a
/// forgotten `--resolve` fails instead of asking somebody else's server.
const HOST: &str = "quickstart.claviger.test";
/// How long the example certificate is valid: Mozilla's guidelines want less than 366 days, and some
/// browsers refuse more than 398.
const CERTIFICATE_SECS: i64 = 365 * 24 * 3600;
/// Random bytes in an API key, before base64.
const KEY_BYTES: usize = 24;

/// Arguments of `claviger quickstart`.
#[derive(Debug, Clone, clap::Args)]
pub struct QuickstartArgs {
    /// Folder to write into; made when absent.
    #[arg(value_name = "DIR", default_value = ".quickstart")]
    pub dir: PathBuf,
    /// Replace what an earlier quickstart left there, credentials included.
    #[arg(long)]
    pub force: bool,
}

/// Writes the configuration and says on standard output how to use it.
///
/// # Errors
/// A file is there already and `--force` is not given, or the folder cannot be written.
pub fn run(args: QuickstartArgs) -> anyhow::Result<()> {
    let folder = Folder::prepare(&args)?;
    folder.fill()?;
    folder.describe(&mut std::io::stdout())?;
    let mut notes = Vec::new();
    folder.describe(&mut notes)?;
    write_new(&folder.notes(), &notes, 0o644)
}

/// Where the example goes. Paths are absolute, so that it works from any working directory.
struct Folder {
    root: PathBuf,
    secrets: PathBuf,
}

impl Folder {
    fn prepare(args: &QuickstartArgs) -> anyhow::Result<Self> {
        fs::create_dir_all(&args.dir)
            .with_context(|| format!("cannot make the folder {}", args.dir.display()))?;
        let root = fs::canonicalize(&args.dir)
            .with_context(|| format!("cannot open the folder {}", args.dir.display()))?;
        let folder = Self {
            secrets: root.join("secrets"),
            root,
        };
        for file in folder.files().iter().filter(|file| file.exists()) {
            if !args.force {
                bail!("{} exists; --force replaces it", file.display());
            }
            // Removed rather than truncated: a link is not followed, a loose mode not inherited.
            fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
        if !folder.secrets.exists() {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&folder.secrets)
                .with_context(|| format!("cannot make {}", folder.secrets.display()))?;
        }
        fs::create_dir_all(folder.root.join("logs"))
            .with_context(|| format!("cannot make a folder in {}", folder.root.display()))?;
        Ok(folder)
    }

    fn config(&self) -> PathBuf {
        self.root.join("config.yaml")
    }

    fn resources(&self) -> PathBuf {
        self.root.join("apisix.yaml")
    }

    fn authority(&self) -> PathBuf {
        self.root.join("ca.pem")
    }

    fn certificate(&self) -> PathBuf {
        self.secrets.join("tls.crt")
    }

    fn private_key(&self) -> PathBuf {
        self.secrets.join("tls.key")
    }

    fn api_key(&self) -> PathBuf {
        self.secrets.join("alice.key")
    }

    /// What [`Folder::describe`] prints, for the next time.
    fn notes(&self) -> PathBuf {
        self.root.join("README.txt")
    }

    fn files(&self) -> [PathBuf; 7] {
        [
            self.notes(),
            self.config(),
            self.resources(),
            self.authority(),
            self.certificate(),
            self.private_key(),
            self.api_key(),
        ]
    }

    fn fill(&self) -> anyhow::Result<()> {
        let authority = Authority::new().context("cannot make a certificate authority")?;
        let options = LeafOptions {
            ends_in_secs: CERTIFICATE_SECS,
            ..LeafOptions::default()
        };
        let issued = authority
            .issue(&[HOST], &options)
            .context("cannot make a certificate")?;
        write_new(&self.authority(), authority.cert_pem()?.as_bytes(), 0o644)?;
        write_new(&self.certificate(), issued.cert_pem.as_bytes(), 0o600)?;
        write_new(&self.private_key(), issued.key_pem.expose(), 0o600)?;
        write_new(&self.api_key(), random_key().as_bytes(), 0o600)?;
        write_new(&self.config(), self.config_text().as_bytes(), 0o644)?;
        write_new(&self.resources(), self.resources_text().as_bytes(), 0o644)
    }

    fn config_text(&self) -> String {
        CONFIG
            .replace("@ERROR_LOG@", &quoted(&self.root.join("logs/error.log")))
            .replace("@ACCESS_LOG@", &quoted(&self.root.join("logs/access.log")))
            .replace("@PID@", &quoted(&self.root.join("claviger.pid")))
            .replace("@UPGRADE@", &quoted(&self.root.join("upgrade.sock")))
    }

    fn resources_text(&self) -> String {
        RESOURCES
            .replace("@HOST@", HOST)
            .replace("@SECRETS@", &quoted(&self.secrets))
    }

    fn describe(&self, out: &mut impl Write) -> std::io::Result<()> {
        let (config, resources) = (shell(&self.config()), shell(&self.resources()));
        let (ca, key) = (shell(&self.authority()), shell(&self.api_key()));
        let curl = format!(
            "curl -sS -w ' -> %{{http_code}}\\n' --cacert {ca} --resolve {HOST}:9443:127.0.0.1"
        );
        let url = format!("https://{HOST}:9443/hello");
        writeln!(out, "Start it:")?;
        writeln!(out, "  claviger echo --listen 127.0.0.1:1980 &")?;
        writeln!(
            out,
            "  claviger run --config {config} --resources {resources}"
        )?;
        writeln!(out, "\nTry it (401 without a key; 200 with it; metrics):")?;
        writeln!(out, "  {curl} {url}")?;
        writeln!(out, "  {curl} -H \"apikey: $(cat {key})\" {url}")?;
        writeln!(
            out,
            "  curl -sS http://127.0.0.1:9091/apisix/prometheus/metrics"
        )?;
        out.flush()
    }
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn random_key() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    rand::rng().fill_bytes(bytes.as_mut_slice());
    Zeroizing::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

/// As a YAML (and JSON) double-quoted scalar.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

/// As one word of a shell.
fn shell(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

const CONFIG: &str = r#"# Bootstrap: listeners, logs, threads. Read once at start.
deployment:
  role: data_plane
  role_data_plane:
    config_provider: yaml

apisix:
  enable_ipv6: false
  enable_control: false
  node_listen:
    - ip: 127.0.0.1
      port: 9080
  ssl:
    enable: true
    listen:
      - ip: 127.0.0.1
        port: 9443
  status:
    ip: 127.0.0.1
    port: 7085

nginx_config:
  error_log: @ERROR_LOG@
  error_log_level: info
  http:
    access_log: @ACCESS_LOG@

plugin_attr:
  prometheus:
    export_addr:
      ip: 127.0.0.1
      port: 9091
    refresh_interval: 1

claviger:
  pid_file: @PID@
  upgrade_sock: @UPGRADE@
"#;

const RESOURCES: &str = r#"# Resources: change this file while the gateway runs, and it follows within a second.
secrets:
  - id: file/main # one secret per file in this folder
    path: @SECRETS@

ssls:
  - id: quickstart
    sni: @HOST@
    cert: $secret://file/main/tls.crt
    key: $secret://file/main/tls.key

consumers:
  - username: alice
    plugins:
      key-auth:
        key: $secret://file/main/alice.key

routes:
  - id: hello
    host: @HOST@
    uri: /*
    plugins:
      key-auth: {}
      prometheus: {}
    upstream:
      type: roundrobin
      nodes:
        "127.0.0.1:1980": 1

#END
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn args(dir: &Path, force: bool) -> QuickstartArgs {
        QuickstartArgs {
            dir: dir.to_owned(),
            force,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn secrets_are_for_their_owner_only_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::prepare(&args(dir.path(), false)).unwrap();
        folder.fill().unwrap();
        assert_eq!(mode(&folder.secrets), 0o700);
        for file in [folder.certificate(), folder.private_key(), folder.api_key()] {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
        let mut out = Vec::new();
        folder.describe(&mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        let key = fs::read_to_string(folder.api_key()).unwrap();
        assert_eq!(key.len(), 32);
        assert!(!said.contains(&key) && said.contains("alice.key"), "{said}");
        for file in [folder.config(), folder.resources()] {
            let text = fs::read_to_string(file).unwrap();
            assert!(!text.contains(&key) && !text.contains('@'), "{text}");
        }
    }

    #[test]
    fn nothing_is_replaced_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        run(args(dir.path(), false)).unwrap();
        let key = dir.path().join("secrets/alice.key");
        let before = fs::read(&key).unwrap();
        let refusal = run(args(dir.path(), false)).unwrap_err().to_string();
        assert!(
            refusal.ends_with("exists; --force replaces it"),
            "{refusal}"
        );
        assert_eq!(fs::read(&key).unwrap(), before);
        run(args(dir.path(), true)).unwrap();
        assert_ne!(fs::read(&key).unwrap(), before);
    }

    #[test]
    fn both_files_are_yaml_whatever_the_folder_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("it's a: \"folder\"");
        let folder = Folder::prepare(&args(&odd, false)).unwrap();
        let config: serde_json::Value = serde_yaml::from_str(&folder.config_text()).unwrap();
        assert_eq!(config["apisix"]["ssl"]["listen"][0]["port"], 9443);
        let resources: serde_json::Value = serde_yaml::from_str(&folder.resources_text()).unwrap();
        let path = resources["secrets"][0]["path"].as_str().unwrap();
        assert_eq!(Path::new(path), folder.secrets);
        assert!(shell(&folder.root).ends_with(r#"/it'\''s a: "folder"'"#));
    }
}
