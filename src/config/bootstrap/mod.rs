//! `conf/config.yaml`: what the process itself needs before it can serve. Names are APISIX's
//! (`spec/06`), so a user's file works unchanged; what is ours stands under `claviger:`.
//! Every setting has a default; the file's maps are merged over them, its lists replace them.

mod apisix;
mod claviger;
mod declared;
mod listen;
mod nginx;
mod plugin_attr;
mod proxy_protocol;
mod tls;
mod units;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

pub use apisix::{Apisix, Deployment, HttpRouter, SecretCacheSettings, SslSettings};
pub use claviger::{
    AuditSettings, Claviger, Limits, LogSettings, ReadyWhen, SecretSettings, ThrottleConfig,
};
pub use declared::{AUDIT_KEY, Declared, DeclaredManager, PLUGIN_ATTR, TRUSTED_CERTIFICATE};
pub use listen::Listen;
pub use nginx::{NginxConfig, NginxHttp, NginxUpstream};
pub use plugin_attr::PluginAttr;
pub use proxy_protocol::{ProxyProtocol, ProxyProtocolExtras};
pub use tls::{TicketSettings, TlsExtras};

use super::check::{Check, Finding};
use super::node::{At, Node, Tree};
use super::substitute::{Env, substitute_values};
use super::yaml;
use crate::diagnostic::{Diagnostic, Place, Severity};

/// The bootstrap configuration, decoded over its defaults.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bootstrap {
    /// `deployment:`.
    pub deployment: Deployment,
    /// `apisix:`.
    pub apisix: Apisix,
    /// `nginx_config:`.
    pub nginx_config: NginxConfig,
    /// `plugins:`, which replaces the list of enabled plugins; `None` enables the default ones.
    pub plugins: Option<Vec<String>>,
    /// `plugin_attr:` over the defaults of `prometheus`, by plugin name.
    pub plugin_attr: PluginAttr,
    /// `claviger:`.
    pub claviger: Claviger,
    /// The file it came from; empty for defaults.
    pub path: PathBuf,
    /// `APISIX_PROFILE`, where it was set.
    pub profile: Option<String>,
    /// Dotted path and place of each reference.
    pub references: Vec<(String, At)>,
}

/// Why there is no bootstrap configuration.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is refused; every reason, in file order.
    #[error("{} is refused", path.display())]
    Refused {
        /// Its path.
        path: PathBuf,
        /// All findings, errors and warnings.
        diagnostics: Vec<Diagnostic>,
    },
}

impl Bootstrap {
    /// Reads a file, or with `APISIX_PROFILE=p` its sibling `config-p.yaml`. Returns warnings
    /// beside it.
    ///
    /// # Errors
    /// The file cannot be read or is refused.
    pub fn load(path: &Path) -> Result<(Self, Vec<Diagnostic>), BootstrapError> {
        let env = |name: &str| std::env::var(name).ok();
        let profile = env("APISIX_PROFILE").filter(|profile| !profile.is_empty());
        let path = with_profile(path, profile.as_deref());
        let unreadable = |source| BootstrapError::Unreadable {
            path: path.clone(),
            source,
        };
        let bytes = super::source::read_bounded(&path, MAX_BYTES).map_err(unreadable)?;
        let file: Arc<str> = path.to_string_lossy().into();
        let refused = |diagnostics| BootstrapError::Refused {
            path: path.clone(),
            diagnostics,
        };
        let text = super::parse::utf8(&bytes, &file).map_err(|found| refused(vec![found]))?;
        let (mut bootstrap, diagnostics) = Self::parse(text, &file, &env).map_err(&refused)?;
        bootstrap.path.clone_from(&path);
        bootstrap.profile = profile;
        Ok((bootstrap, diagnostics))
    }

    /// Decodes a text. `file` names it in diagnostics.
    ///
    /// # Errors
    /// All findings, where one of them is an error.
    pub fn parse(
        text: &str,
        file: &Arc<str>,
        env: Env<'_>,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let one = |code, at: At, message: String| {
            let finding = Finding {
                severity: Severity::Error,
                code,
                field: String::new(),
                at,
                message,
            };
            vec![diagnostic(finding, file)]
        };
        let (mut node, duplicates) =
            yaml::parse(text).map_err(|error| one("syntax", error.at, error.message))?;
        substitute_values(&mut node, env)
            .map_err(|unset| one("unset-variable", unset.at, unset.to_string()))?;
        let mut check = Check::default();
        for duplicate in duplicates {
            let message = format!("key {} stands twice; the later one is taken", duplicate.key);
            check.warn(duplicate.at, "duplicate-key", message);
        }
        let mut bootstrap = Self {
            references: declared::references(&mut check, &node),
            ..Self::default()
        };
        if node.tree != Tree::Null {
            bootstrap.decode(&mut check, node);
        }
        let refused = check.refused();
        let diagnostics = check
            .findings
            .into_iter()
            .map(|found| diagnostic(found, file))
            .collect();
        if refused {
            Err(diagnostics)
        } else {
            Ok((bootstrap, diagnostics))
        }
    }

    /// Addresses for plain HTTP, IPv6 included where it is enabled.
    #[must_use]
    pub fn http_listeners(&self) -> Vec<SocketAddr> {
        self.addresses(&self.apisix.node_listen)
    }

    /// Addresses for HTTPS; none where TLS is disabled.
    #[must_use]
    pub fn https_listeners(&self) -> Vec<SocketAddr> {
        if self.apisix.ssl.enable {
            self.addresses(&self.apisix.ssl.listen)
        } else {
            Vec::new()
        }
    }

    /// Addresses for plain HTTP behind the PROXY protocol.
    #[must_use]
    pub fn proxied_http_listeners(&self) -> Vec<SocketAddr> {
        let port = self.apisix.proxy_protocol.listen_http_port;
        self.addresses(port.map(Listen::all).as_slice())
    }

    /// Addresses for HTTPS behind the PROXY protocol; none where TLS is disabled.
    #[must_use]
    pub fn proxied_https_listeners(&self) -> Vec<SocketAddr> {
        let port = self.apisix.proxy_protocol.listen_https_port;
        let port = port.filter(|_| self.apisix.ssl.enable);
        self.addresses(port.map(Listen::all).as_slice())
    }

    /// The resource file or folder. Relative paths are relative to the working directory, except
    /// the default, which stands beside `config.yaml`.
    #[must_use]
    pub fn resources_path(&self) -> PathBuf {
        if let Some(path) = &self.claviger.resources {
            return path.clone();
        }
        let extension = &self.deployment.config_provider;
        let profile = self
            .profile
            .as_ref()
            .map_or_else(String::new, |profile| format!("-{profile}"));
        self.path
            .with_file_name(format!("apisix{profile}.{extension}"))
    }

    /// Traffic threads asked for; `None` is one per core.
    #[must_use]
    pub fn threads(&self) -> Option<usize> {
        self.claviger.threads.or(self.nginx_config.worker_processes)
    }

    /// Level of the error log, in nginx's words.
    #[must_use]
    pub fn log_level(&self) -> &str {
        self.claviger
            .log
            .level
            .as_deref()
            .unwrap_or(&self.nginx_config.error_log_level)
    }

    fn addresses(&self, listen: &[Listen]) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for entry in listen {
            if let Some(ip) = entry.ip {
                addresses.push(SocketAddr::new(ip, entry.port));
                continue;
            }
            addresses.push(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), entry.port));
            if self.apisix.enable_ipv6 {
                addresses.push(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), entry.port));
            }
        }
        let mut seen = std::collections::HashSet::new();
        addresses.retain(|address| seen.insert(*address));
        addresses
    }

    fn decode(&mut self, check: &mut Check, node: Node) {
        entries(check, node, |check, key, node| match key {
            "deployment" => self.deployment.decode(check, node),
            "apisix" => self.apisix.decode(check, node),
            "nginx_config" => self.nginx_config.decode(check, node),
            "plugins" => self.plugins = strings(check, node),
            "plugin_attr" => self.plugin_attr.decode(check, node),
            "claviger" => self.claviger.decode(check, node),
            _ => {}
        });
        self.apisix
            .check_proxied(check, &self.claviger.proxy_protocol);
    }
}

fn with_profile(path: &Path, profile: Option<&str>) -> PathBuf {
    match profile {
        Some(profile) if path.file_name().is_some_and(|name| name == "config.yaml") => {
            path.with_file_name(format!("config-{profile}.yaml"))
        }
        _ => path.to_owned(),
    }
}

fn diagnostic(finding: Finding, file: &Arc<str>) -> Diagnostic {
    let message = match finding.code {
        "wrong-type" => merge_text(&finding),
        _ => finding.message,
    };
    let (line, column) = (finding.at.line, finding.at.column);
    Diagnostic {
        severity: finding.severity,
        code: finding.code,
        place: Place {
            file: Some(file.clone()),
            line,
            column,
        },
        object: String::new(),
        field: finding.field,
        message,
    }
}

/// APISIX's text for a value of another type than its default (`spec/06` §1).
fn merge_text(finding: &Finding) -> String {
    let message = finding
        .message
        .replacen("expected ", "expect: ", 1)
        .replacen(", found ", ", but got: ", 1);
    let message = message.replace(": an ", ": ").replace(": a ", ": ");
    format!("failed to merge, path[{}] {message}", finding.field)
}

/// Decodes each pair of a map under its key; `null` leaves the default, as in APISIX.
fn entries(check: &mut Check, node: Node, mut decode: impl FnMut(&mut Check, &str, Node)) {
    for entry in check.map(node).into_iter().flatten() {
        if entry.node.tree != Tree::Null {
            check.within(&entry.key, |check| decode(check, &entry.key, entry.node));
        }
    }
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

fn strings(check: &mut Check, node: Node) -> Option<Vec<String>> {
    check.list(node).map(|nodes| check.each(nodes, Check::text))
}

fn net(check: &mut Check, node: Node) -> Option<IpNet> {
    let at = node.at;
    let text = check.text(node)?;
    let parsed = text
        .parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    if parsed.is_none() {
        check.error(at, "invalid-value", "expected an IP address or CIDR block");
    }
    parsed
}

/// `config.yaml` may be no larger.
const MAX_BYTES: u64 = 4 << 20;
