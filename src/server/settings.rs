//! From bootstrap configuration to what the rooms take.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderValue;
use serde::Deserialize;

use super::environment::Environment;
use crate::callout::Trust;
use crate::clock::Clock;
use crate::config::bootstrap::{Bootstrap, CipherKeys, HttpRouter, TRUSTED_CERTIFICATE};
use crate::config::resource::KeepalivePoolConfig;
use crate::diagnostic::Place;
use crate::http::client_addr::{ClientAddr, ClientAddrError, ForwardedPolicy};
use crate::http::path::PathRules;
use crate::http::request_guard::GuardRules;
use crate::ip_set::IpSet;
use crate::kept::Kept;
use crate::plugins::{self, Throttle, ThrottleSettings};
use crate::proxy::handshake::{SESSION_LIFETIME, TlsOptions, TlsSetupError};
use crate::proxy::listener::{EdgeLimits, ProxySenders};
use crate::proxy::{HeldBytes, ProxySettings};
use crate::routing::RouterMode;
use crate::sealed::Sealed;
use crate::secrets::{Reference, SecretsSettings};
use crate::snapshot::compile::{CertificateRules, CompileEnv};
use crate::telemetry::{AccessLog, Metrics};
use crate::tls::on_demand::Door;
use crate::tls::stapling;
use crate::tls::{Chains, Rehearsal, SessionCache, TicketKeys};
use crate::upstream::{DnsConfig, DnsError, Resolver};

/// A bootstrap setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// An address list or header name.
    #[error("{field}: {source}")]
    ClientAddr {
        /// The key.
        field: &'static str,
        /// Why.
        #[source]
        source: ClientAddrError,
    },
    /// Not one of the words.
    #[error("{field}: expected {expected}")]
    Word {
        /// The key.
        field: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// No resolver can be set up.
    #[error("apisix.dns_resolver: {0}")]
    Dns(#[from] DnsError),
    /// A reference without which nothing starts has no value, or one that does not fit.
    #[error("{place}: {field}: {why}")]
    Reference {
        /// Where it stands.
        place: Place,
        /// The key.
        field: Arc<str>,
        /// What was expected; never a value.
        why: String,
    },
    /// No runtime to read secrets on.
    #[error("cannot start a runtime")]
    Runtime(#[source] std::io::Error),
    /// A file cannot be read.
    #[error("{field}: {} cannot be read", path.display())]
    File {
        /// The key.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What compilation needs.
///
/// # Errors
/// A setting cannot be used.
pub fn compile_env(
    bootstrap: &Bootstrap,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
) -> Result<CompileEnv, SettingsError> {
    let apisix = &bootstrap.apisix;
    let upstream = &bootstrap.nginx_config.http.upstream;
    let resolver = DnsConfig {
        servers: apisix.dns_resolver.clone(),
        valid: apisix.dns_resolver_valid,
        timeout: apisix.resolver_timeout,
        search: apisix.enable_resolv_search_opt,
    };
    let plugins = bootstrap.plugins.as_ref().map(|names| {
        let known = |name: &str| plugins::find(name).is_some() || name == stapling::PLUGIN;
        for name in names.iter().filter(|name| !known(name)) {
            log::warn!("plugins: {name} is not available; a resource that uses it refuses");
        }
        names.iter().cloned().collect::<HashSet<_>>()
    });
    let trust = match trusted_ca(bootstrap)? {
        None => Trust::System,
        Some(pem) => Trust::parse(&pem).map_err(|_| SettingsError::Word {
            field: TRUSTED_CERTIFICATE,
            expected: "a file of PEM certificates",
        })?,
    };
    let ciphers = Some(&*apisix.ssl.ssl_ciphers).filter(|ciphers| !ciphers.is_empty());
    let rehearsal = Rehearsal::new(ciphers).map_err(|_| SettingsError::Word {
        field: "apisix.ssl.ssl_ciphers",
        expected: "a list of ciphers with one that OpenSSL knows",
    })?;
    Ok(CompileEnv {
        rehearsal: Arc::new(rehearsal),
        redact_args: bootstrap
            .claviger
            .log
            .redact_args
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        plugins,
        plugin_attr: bootstrap.plugin_attr.as_map().clone(),
        https_ports: bootstrap
            .https_listeners()
            .iter()
            .map(SocketAddr::port)
            .collect(),
        router: match apisix.router_http {
            HttpRouter::HostUri => RouterMode::HostUri,
            HttpRouter::Uri => RouterMode::Uri,
            HttpRouter::UriWithParameter => RouterMode::UriWithParameter,
        },
        ssl_protocols: apisix.ssl.ssl_protocols.clone(),
        cipher_keys: CipherKeys::of(&apisix.ssl.ssl_ciphers),
        keepalive: KeepalivePoolConfig {
            size: upstream.keepalive,
            idle_timeout: upstream.keepalive_timeout,
            requests: upstream.keepalive_requests,
        },
        index_key: rand::random(),
        throttle: bootstrap.claviger.throttle.as_ref().map(|throttle| {
            let settings = ThrottleSettings {
                failures: throttle.failures,
                window: throttle.window,
                refuse_for: throttle.refuse_for,
                addresses: throttle.addresses,
                trusted: IpSet::from_nets(throttle.trusted.iter().copied()),
            };
            Arc::new(Throttle::new(settings, rand::random(), Arc::clone(clock)))
        }),
        hasher: ahash::RandomState::new(),
        metrics: Arc::clone(metrics),
        kept: Arc::new(Kept::new()),
        clock: Arc::clone(clock),
        resolver: Arc::new(Resolver::build(resolver, Arc::clone(clock))?),
        trust,
        on_demand: Door::closed(Arc::clone(clock)),
        certificates: CertificateRules {
            expiry_notice: bootstrap.claviger.tls.expiry_notice,
            serve_expired: bootstrap.claviger.tls.serve_expired,
            chains: Chains::new(),
        },
    })
}

/// Settings of the secrets room.
///
/// # Errors
/// The trusted certificates cannot be read.
pub fn secrets_settings(bootstrap: &Bootstrap) -> Result<SecretsSettings, SettingsError> {
    let cache = &bootstrap.apisix.lru_secret;
    let own = &bootstrap.claviger.secrets;
    Ok(SecretsSettings {
        ttl: cache.ttl,
        neg_ttl: cache.neg_ttl,
        max_stale: own.max_stale,
        concurrency: own.concurrency,
        env: bootstrap
            .nginx_config
            .envs
            .iter()
            .map(|(name, value)| (name.clone(), Arc::new(Sealed::new(value.as_bytes()))))
            .collect(),
        trusted_ca: trusted_ca(bootstrap)?.map(Into::into),
    })
}

/// The bundle of [`trusted_ca_file`].
fn trusted_ca(bootstrap: &Bootstrap) -> Result<Option<Vec<u8>>, SettingsError> {
    let Some(path) = trusted_ca_file(bootstrap) else {
        return Ok(None);
    };
    let pem = std::fs::read(&path).map_err(|source| SettingsError::File {
        field: TRUSTED_CERTIFICATE,
        path: path.into(),
        source,
    })?;
    Ok(Some(pem))
}

/// The same where the environment's values were taken; those of `nginx_config.envs` go before them.
pub(super) fn with_environment(
    mut settings: SecretsSettings,
    environment: &Environment,
) -> SecretsSettings {
    settings.env.splice(0..0, environment.variables());
    settings
}

/// The bundle outgoing TLS trusts instead of the system's. A reference names no file: its value is
/// the trust of upstreams alone, since managers are asked before there is one.
pub(super) fn trusted_ca_file(bootstrap: &Bootstrap) -> Option<String> {
    let file = &bootstrap.apisix.ssl.ssl_trusted_certificate;
    let named = file != "system" && !file.is_empty() && !Reference::is_reference(file);
    named.then(|| file.clone())
}

pub(super) fn proxy_settings(
    bootstrap: &Bootstrap,
    metrics: &Arc<Metrics>,
    access_log: Option<AccessLog>,
) -> Result<ProxySettings, SettingsError> {
    let apisix = &bootstrap.apisix;
    let http = &bootstrap.nginx_config.http;
    let limits = &bootstrap.claviger.limits;
    let texts = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    let client_addr = ClientAddr::build(
        &texts(&http.real_ip_from),
        &http.real_ip_header,
        http.real_ip_recursive,
    )
    .map_err(|source| SettingsError::ClientAddr {
        field: "nginx_config.http.real_ip_from",
        source,
    })?;
    let trusted = apisix.trusted_addresses.as_deref().map(texts);
    let forwarded =
        ForwardedPolicy::build(trusted.as_deref()).map_err(|source| SettingsError::ClientAddr {
            field: "apisix.trusted_addresses",
            source,
        })?;
    let server = if apisix.enable_server_tokens {
        HeaderValue::from_static(concat!("Claviger/", env!("CARGO_PKG_VERSION")))
    } else {
        HeaderValue::from_static("Claviger")
    };
    Ok(ProxySettings {
        server,
        path_rules: PathRules {
            keep_encoded_slash: apisix.match_uri_encoded_slash,
            delete_tail_slash: apisix.delete_uri_tail_slash,
            servlet: apisix.normalize_uri_like_servlet,
        },
        guard: GuardRules {
            max_target_bytes: limits.uri_bytes,
            max_header_bytes: limits.header_bytes,
            max_headers: limits.header_count,
        },
        drop_underscored: !http.underscores_in_headers,
        client_addr,
        forwarded,
        keepalive: http.keepalive_timeout,
        body_timeout: http.client_body_timeout,
        send_timeout: http.send_timeout,
        max_body_bytes: http.client_max_body_size,
        held_bytes: Arc::new(HeldBytes::new(limits.held_body_bytes)),
        show_upstream_status: apisix.show_upstream_status_in_response_header,
        access_log,
        metrics: Arc::clone(metrics),
    })
}

pub(super) fn edge_limits(bootstrap: &Bootstrap) -> EdgeLimits {
    let http = &bootstrap.nginx_config.http;
    EdgeLimits {
        max_connections: bootstrap.claviger.limits.connections,
        handshake_timeout: bootstrap.claviger.tls.handshake_timeout,
        client_header_timeout: http.client_header_timeout,
        h2c: bootstrap.apisix.enable_http2,
    }
}

/// Who may send headers of the PROXY protocol.
pub(super) fn proxy_senders(bootstrap: &Bootstrap) -> ProxySenders {
    match &bootstrap.claviger.proxy_protocol.trusted {
        None => ProxySenders::Anybody,
        Some(nets) => ProxySenders::Only(IpSet::from_nets(nets.iter().copied())),
    }
}

/// Keys of session tickets, where tickets are on.
///
/// # Errors
/// There are no random bytes.
pub(super) fn ticket_keys(
    bootstrap: &Bootstrap,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<TicketKeys>>, TlsSetupError> {
    let clock = Arc::clone(clock);
    let keys = match bootstrap.ticket_keys() {
        _ if !bootstrap.apisix.ssl.ssl_session_tickets => return Ok(None),
        Some(_) => TicketKeys::shared(SESSION_LIFETIME, clock),
        None => {
            let rotate = bootstrap.claviger.tls.session_tickets.rotate;
            TicketKeys::random(rotate, SESSION_LIFETIME, clock)?
        }
    };
    Ok(Some(Arc::new(keys)))
}

pub(super) fn tls_options(
    bootstrap: &Bootstrap,
    tickets: Option<Arc<TicketKeys>>,
    sessions: Arc<SessionCache>,
) -> TlsOptions {
    let ssl = &bootstrap.apisix.ssl;
    TlsOptions {
        ciphers: Some(ssl.ssl_ciphers.clone()).filter(|ciphers| !ciphers.is_empty()),
        tickets,
        sessions: Some(sessions),
        http2: bootstrap.apisix.enable_http2,
        fallback_sni: ssl.fallback_sni.clone(),
        fallback_for_unknown: bootstrap.claviger.fallback_for_unknown,
    }
}

/// Everything that is listened on, and whether other processes may share it (`SO_REUSEPORT`).
pub(super) fn addresses(bootstrap: &Bootstrap) -> Vec<(SocketAddr, bool)> {
    let shared = bootstrap.apisix.enable_reuseport;
    let edge = bootstrap.http_listeners().into_iter();
    let edge = edge
        .chain(bootstrap.https_listeners())
        .chain(bootstrap.proxied_http_listeners())
        .chain(bootstrap.proxied_https_listeners());
    let metrics = metrics_export(bootstrap).map(|(address, _)| address);
    let admin = metrics.into_iter().chain(bootstrap.apisix.status);
    edge.map(|address| (address, shared))
        .chain(admin.map(|address| (address, false)))
        .collect()
}

/// Where metrics are served; `None` where `enable_export_server` is off.
pub(super) fn metrics_export(bootstrap: &Bootstrap) -> Option<(SocketAddr, String)> {
    #[derive(Deserialize)]
    #[serde(default)]
    struct Export {
        enable_export_server: bool,
        export_uri: String,
        export_addr: ExportAddr,
    }
    #[derive(Deserialize)]
    #[serde(default)]
    struct ExportAddr {
        ip: IpAddr,
        port: u16,
    }
    impl Default for Export {
        fn default() -> Self {
            Self {
                enable_export_server: true,
                export_uri: "/apisix/prometheus/metrics".to_owned(),
                export_addr: ExportAddr::default(),
            }
        }
    }
    impl Default for ExportAddr {
        fn default() -> Self {
            Self {
                ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                port: 9091,
            }
        }
    }
    let export = match bootstrap.plugin_attr.find("prometheus") {
        Some(attr) => Export::deserialize(attr).unwrap_or_else(|error| {
            log::error!(
                "plugin_attr.prometheus: {}",
                crate::diagnostic::without_values(&error.to_string())
            );
            Export::default()
        }),
        None => Export::default(),
    };
    let address = SocketAddr::new(export.export_addr.ip, export.export_addr.port);
    export
        .enable_export_server
        .then_some((address, export.export_uri))
}
