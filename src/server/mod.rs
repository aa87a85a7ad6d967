//! Composition root: builds every room from the bootstrap configuration; owns start and stop.

mod early;
mod environment;
mod facts;
mod loading;
mod logs;
mod observer;
mod process;
mod readiness;
mod settings;
mod sockets;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::HttpServerOptions;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server, ShutdownWatch};
use pingora_core::services::background::{BackgroundService, background_service};
use pingora_core::services::{Service, ServiceReadyNotifier};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;

use crate::admin::{self, MetricsApp, Readiness, StatusApp};
use crate::clock::{Clock, SystemClock};
use crate::config::bootstrap::{Bootstrap, TRUSTED_CERTIFICATE};
use crate::config::source::{LoadError, Source, SourceOptions, Watcher};
use crate::proxy::Gateway;
use crate::proxy::drain::Drain;
use crate::proxy::handshake::{
    Acceptor, RefusedHandshakes, SESSION_BYTES, SESSION_LIFETIME, TlsOptions, TlsSetupError,
};
use crate::proxy::listener::{EdgeParts, EdgeService, Entrance, PerAddress};
use crate::proxy::signals::Signals;
use crate::reload::{Reload, SnapshotCell, Status};
use crate::secrets::Secrets;
use crate::snapshot::compile::CompileEnv;
use crate::telemetry::metrics::{
    Collect, HandshakeCounts, MetricsConfig, MetricsConfigError, ProxiedCounts,
};
use crate::telemetry::{Logger, Metrics};
use crate::tls::on_demand::Keeper;
use crate::tls::stapling;
use crate::tls::{SessionCache, SniStore, TicketKeys};
use observer::SecretObserver;
use sockets::{Bound, Sockets};

pub use environment::Environment;
pub use logs::{audit_seal, logger};
pub use process::{PidFile, harden, pid_of};
pub use settings::{SettingsError, compile_env, secrets_settings};

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The resources could not be read.
    #[error(transparent)]
    Resources(#[from] LoadError),
    /// A bootstrap setting cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// `plugin_attr.prometheus` cannot be used.
    #[error(transparent)]
    Metrics(#[from] MetricsConfigError),
    /// TLS cannot be set up.
    #[error("TLS listeners cannot be set up")]
    Tls(#[from] TlsSetupError),
    /// A file cannot be written or opened.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Serves until a signal says stop. Reads the resources before it starts anything: a file that
/// does not parse refuses the start, as APISIX's launcher does.
///
/// # Errors
/// Something of the configuration cannot be used.
pub fn run(
    bootstrap: &Bootstrap,
    resources: &Path,
    upgrade: bool,
    logger: &Logger,
    environment: &Environment,
) -> Result<(), ServerError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let declared = Arc::new(bootstrap.declared());
    let settled = early::settle(bootstrap, &declared, &clock, environment)?;
    let audit = logs::audit(&settled, &declared, &clock, environment)?;
    let bootstrap = &*settled;
    let options = SourceOptions {
        max_bytes: bootstrap.claviger.max_resource_bytes,
        declared,
        env: environment.shared(),
    };
    // Watched before it is read, so that no change falls between.
    let watcher = Watcher::start(resources);
    let mut source = Source::new(resources, options);
    let documents = source.load()?;

    let metrics_config = bootstrap
        .plugin_attr
        .find("prometheus")
        .cloned()
        .unwrap_or_default();
    let metrics = Arc::new(Metrics::with_config(
        &MetricsConfig::parse(&metrics_config)?,
        Arc::clone(&clock),
    ));
    let access_log = logs::access_log(bootstrap)?;
    let mut env = settings::compile_env(bootstrap, &metrics, &clock)?;
    let observer = Arc::new(SecretObserver {
        metrics: Arc::clone(&metrics),
        audit: audit.clone(),
    });
    let secrets = Secrets::new(
        settings::with_environment(settings::secrets_settings(bootstrap)?, environment),
        Arc::clone(&clock),
        observer,
    );
    let (keeper, door) = Keeper::new(Arc::clone(&secrets), Arc::clone(&clock));
    env.on_demand = door;
    let env = Arc::new(env);
    let tickets = settings::ticket_keys(bootstrap, &clock)?;
    let cache = SessionCache::new(SESSION_BYTES, SESSION_LIFETIME, Arc::clone(&clock));
    let sessions = Arc::new(cache);
    let cell = Arc::new(SnapshotCell::new());
    let (stapler, stapled) = stapler(&cell, &env, &clock)?;
    let status = Arc::new(Status::audited(audit.clone()));
    let drain = Arc::new(Drain::new(Arc::clone(metrics.connections())));
    let reload = Reload::new(
        source,
        documents,
        Arc::clone(&secrets),
        Arc::clone(&env),
        Arc::clone(&cell),
        Arc::clone(&status),
        bootstrap.claviger.secrets.load_wait,
    )
    .with_tickets(tickets.clone());
    let proxy_settings = settings::proxy_settings(bootstrap, &metrics, access_log.clone())?;
    let gateway = Gateway::new(Arc::clone(&cell), Arc::clone(&clock), proxy_settings);

    // Received here and not by Pingora, which would exit where nobody sends any.
    let inherited = upgrade
        .then(|| sockets::inherit(&bootstrap.claviger.upgrade_sock))
        .transpose()?;
    let sockets = Arc::new(Sockets::bind(&settings::addresses(bootstrap), inherited)?);
    let mut server = Server::new_with_opt_and_conf(None, server_conf(bootstrap));
    server.bootstrap();
    let conf = Arc::clone(&server.configuration);
    let (look_again, looks) = mpsc::channel(1);

    let refused = Arc::new(RefusedHandshakes::default());
    metrics.register(Arc::new(facts::Facts {
        cell: Arc::clone(&cell),
        status: Arc::clone(&status),
        secrets: Arc::clone(&secrets),
        refused: Arc::clone(&refused),
        tickets: tickets.clone(),
        stapled,
        sessions: Arc::clone(&sessions),
        clock: Arc::clone(&clock),
        expiry_notice: bootstrap.claviger.tls.expiry_notice,
    }));
    if let Some(access_log) = &access_log {
        metrics.register(Arc::new(access_log.clone()));
    }
    metrics.register(Arc::new(logger.clone()));
    if let Some(audit) = &audit {
        metrics.register(Arc::new(audit.clone()));
    }
    let loading = loading::runtime().map_err(|source| ServerError::Io {
        what: "cannot start the threads that load".to_owned(),
        source,
    })?;
    let loader = server.add_service(background_service(
        "configuration",
        Loader {
            runtime: loading.handle().clone(),
            work: Mutex::new(Some(Work {
                reload,
                looks,
                watcher,
                secrets: Arc::clone(&secrets),
                keeper,
                stapler,
                env,
                tickets: tickets.clone(),
                look_again: look_again.clone(),
            })),
        },
    ));
    let handshakes = Arc::new(HandshakeCounts::default());
    metrics.register(Arc::clone(&handshakes) as Arc<dyn Collect>);
    let proxied = Arc::new(ProxiedCounts::default());
    metrics.register(Arc::clone(&proxied) as Arc<dyn Collect>);
    let parts = EdgeParts {
        limits: settings::edge_limits(bootstrap),
        drain: Arc::clone(&drain),
        handshakes,
        per_address: PerAddress::new(bootstrap.claviger.tls.handshakes_per_address),
        proxied,
        lines: Arc::clone(&refused.lines),
        clock: Arc::clone(&clock),
    };
    let tls = settings::tls_options(bootstrap, tickets, sessions);
    let edge = edge(bootstrap, gateway, &conf, &cell, parts, refused, tls)?;
    let bound = Bound {
        service: Box::new(edge),
        sockets: Arc::clone(&sockets),
        stop: None,
    };
    server.add_service(bound).add_dependency(&loader);
    let readiness = readiness::Ready {
        cell: Arc::clone(&cell),
        status,
        drain: Arc::clone(&drain),
        sockets: Arc::clone(&sockets),
        secrets: Arc::clone(&secrets),
        audit: audit.clone(),
        when: bootstrap.claviger.secrets.ready,
    };
    for service in admin_services(bootstrap, &metrics, Arc::new(readiness)) {
        server.add_service(Bound {
            service,
            sockets: Arc::clone(&sockets),
            stop: Some(drain.handed_over()),
        });
    }

    let _pid_file =
        PidFile::write(&bootstrap.claviger.pid_file).map_err(|source| ServerError::Io {
            what: format!(
                "cannot write the pid file {}",
                bootstrap.claviger.pid_file.display()
            ),
            source,
        })?;
    let (reopen, last_lines, last_events) = (logger.clone(), access_log.clone(), audit.clone());
    let signals = Signals {
        drain,
        drain_timeout: bootstrap.nginx_config.worker_shutdown_timeout,
        upgrade_socket: Some(bootstrap.claviger.upgrade_sock.clone()),
        failed: sockets.failed(),
        on_reload: Box::new(move || {
            secrets.refresh_now();
            // A full queue means that a look is due already.
            let _ = look_again.try_send(());
        }),
        on_reopen: Box::new(move || {
            reopen.reopen();
            if let Some(access_log) = &access_log {
                access_log.reopen();
            }
            if let Some(audit) = &audit {
                audit.reopen();
            }
        }),
    };
    server.run(RunArgs {
        shutdown_signal: Box::new(signals),
    });
    loading.shutdown_background();
    // Clones of it live on in threads that never end, so that nothing is flushed by dropping it.
    if let Some(access_log) = last_lines {
        let _ = access_log.flush(LAST_WORDS);
    }
    if let Some(audit) = last_events {
        audit.record("stopped", Vec::new());
        if !audit.close(LAST_WORDS) {
            log::error!("the last events are not in the audit log");
        }
    }
    sockets.failure().map_or(Ok(()), Err)
}

/// Pingora's own settings. Waiting for requests to end is done by [`Signals`], not here.
fn server_conf(bootstrap: &Bootstrap) -> ServerConf {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    ServerConf {
        threads: bootstrap.threads().unwrap_or(cores),
        work_stealing: true,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        // A global bound of Pingora's; `retries` of each upstream is the one that counts.
        max_retries: 256,
        upstream_keepalive_pool_size: bootstrap.nginx_config.http.upstream.keepalive as usize,
        upgrade_sock: bootstrap
            .claviger
            .upgrade_sock
            .to_string_lossy()
            .into_owned(),
        ca_file: settings::trusted_ca_file(bootstrap),
        ..ServerConf::default()
    }
}

type Proxy = pingora_proxy::HttpProxy<Gateway>;

fn edge(
    bootstrap: &Bootstrap,
    gateway: Gateway,
    conf: &Arc<ServerConf>,
    cell: &Arc<SnapshotCell>,
    parts: EdgeParts,
    refused: Arc<RefusedHandshakes>,
    tls: TlsOptions,
) -> Result<EdgeService<Proxy>, ServerError> {
    let mut proxy = pingora_proxy::http_proxy(conf, gateway);
    let mut options = HttpServerOptions::default();
    options.h2c = bootstrap.apisix.enable_http2;
    options.keepalive_request_limit =
        Some(bootstrap.claviger.limits.keepalive_requests).filter(|limit| *limit > 0);
    options.h2_idle_timeout = Some(bootstrap.nginx_config.http.keepalive_timeout);
    proxy.server_options = Some(options);
    let mut edge = EdgeService::new("proxy", proxy, parts);
    let senders = Arc::new(settings::proxy_senders(bootstrap));
    let mut entrance = Entrance::default();
    edge.listen(&bootstrap.http_listeners(), entrance.clone());
    entrance.proxied = Some(Arc::clone(&senders));
    edge.listen(&bootstrap.proxied_http_listeners(), entrance);
    if bootstrap.apisix.ssl.enable {
        let names = Arc::clone(cell);
        let none = Arc::new(SniStore::default());
        let names = move || {
            names
                .current()
                .map_or_else(|| Arc::clone(&none), |snapshot| Arc::clone(&snapshot.names))
        };
        let clock = Arc::new(SystemClock);
        let tls = Acceptor::build(Arc::new(names), tls, refused, clock)?;
        let mut entrance = Entrance {
            tls: Some(Arc::new(tls)),
            proxied: None,
        };
        edge.listen(&bootstrap.https_listeners(), entrance.clone());
        entrance.proxied = Some(senders);
        edge.listen(&bootstrap.proxied_https_listeners(), entrance);
    }
    Ok(edge)
}

/// What asks OCSP responders, and what it counts.
fn stapler(
    cell: &Arc<SnapshotCell>,
    env: &CompileEnv,
    clock: &Arc<dyn Clock>,
) -> Result<(stapling::Keeper, Arc<stapling::Counts>), SettingsError> {
    let cell = Arc::clone(cell);
    let items = move || Some(Arc::clone(&cell.current()?.names));
    let made = stapling::Keeper::new(Box::new(items), &env.trust, &env.kept, Arc::clone(clock));
    made.map_err(|_| SettingsError::Word {
        field: TRUSTED_CERTIFICATE,
        expected: "certificates that the TLS library takes",
    })
}

fn admin_services(
    bootstrap: &Bootstrap,
    metrics: &Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
) -> Vec<Box<dyn Service>> {
    let mut services: Vec<Box<dyn Service>> = Vec::new();
    if let Some((address, path)) = settings::metrics_export(bootstrap) {
        let app = MetricsApp::new(Arc::clone(metrics), path);
        let service = admin::service("metrics", &[address.to_string()], app);
        services.push(Box::new(service));
    }
    if let Some(address) = bootstrap.apisix.status {
        let app = StatusApp::new(readiness);
        let service = admin::service("status", &[address.to_string()], app);
        services.push(Box::new(service));
    }
    services
}

/// What runs beside the traffic, on threads of its own: the reload loop, secrets, names.
struct Loader {
    runtime: Handle,
    work: Mutex<Option<Work>>,
}

struct Work {
    reload: Reload,
    looks: mpsc::Receiver<()>,
    watcher: Watcher,
    secrets: Arc<Secrets>,
    keeper: Keeper,
    stapler: stapling::Keeper,
    env: Arc<CompileEnv>,
    tickets: Option<Arc<TicketKeys>>,
    look_again: mpsc::Sender<()>,
}

#[async_trait]
impl BackgroundService for Loader {
    async fn start_with_ready_notifier(
        &self,
        shutdown: ShutdownWatch,
        ready: ServiceReadyNotifier,
    ) {
        let taken = self
            .work
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(work) = taken else {
            return;
        };
        let work = self.runtime.spawn(work.run(shutdown, ready));
        if let Err(error) = work.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

impl Work {
    async fn run(mut self, shutdown: ShutdownWatch, ready: ServiceReadyNotifier) {
        let mut secrets = tokio::spawn(Arc::clone(&self.secrets).run(shutdown.clone()));
        let mut keeper = tokio::spawn(self.keeper.run(shutdown.clone()));
        let mut stapler = tokio::spawn(self.stapler.run(shutdown.clone()));
        self.reload.first().await;
        ready.notify_ready();
        tokio::select! {
            () = self.reload.run(self.looks, shutdown.clone()) => {}
            () = tell(self.watcher, self.look_again, shutdown.clone()) => {}
            () = self.env.resolver.run(shutdown.clone()) => {}
            () = keep_tickets(self.tickets, shutdown) => {}
            ended = &mut secrets => is_visible(ended),
            ended = &mut keeper => is_visible(ended),
            ended = &mut stapler => is_visible(ended),
        }
        keeper.abort();
        stapler.abort();
        secrets.abort();
    }
}

/// Passes on the panic of a task, which would go unseen.
fn is_visible(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Has keys of session tickets come and go in time; until shutdown.
async fn keep_tickets(tickets: Option<Arc<TicketKeys>>, shutdown: ShutdownWatch) {
    match tickets {
        Some(tickets) => tickets.run(shutdown).await,
        None => std::future::pending().await,
    }
}

/// Turns file events into looks; ends at shutdown.
async fn tell(
    mut watcher: Watcher,
    look_again: mpsc::Sender<()>,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            _ = shutdown.changed() => return,
            () = watcher.changed() => {
                // A full queue means that a look is due already.
                let _ = look_again.try_send(());
            }
        }
    }
}

/// Longest wait for logs to be written at the end.
pub const LAST_WORDS: Duration = Duration::from_secs(2);
