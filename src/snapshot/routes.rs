//! Services and routes: what stands on a route is merged here, once, so that a request finds it
//! ready (`spec/00` §3, §7.2).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use indexmap::IndexMap;

use super::compile::{Compilation, Scope};
use super::plugins::{self, PluginSet};
use super::rest::AllUnits;
use super::unit::{Unit, Units};
use super::{CompiledRoute, Outcome, Snapshot, UpstreamLink, upstreams};
use crate::config::Documents;
use crate::config::resource::{Item, RouteConfig, ServiceConfig};
use crate::diagnostic::Diagnostic;
use crate::expr::{Expr, VarSource};
use crate::ip_set::IpSet;
use crate::plugins::{Chain, Plugin, RouteInfo};
use crate::routing::{HostPattern, MethodSet, Predicate, RouteSpec, Router, UriPattern};

/// A compiled service.
pub(super) struct Service {
    /// Its plugins.
    pub plugins: PluginSet,
    /// Its upstream.
    pub upstream: UpstreamLink,
    /// Its name.
    pub name: Option<Arc<str>>,
    /// Hosts for routes that name none.
    pub hosts: Vec<String>,
    /// Whether its routes pass WebSocket upgrades on.
    pub enable_websocket: Option<bool>,
}

/// Builds the services that changed.
pub(super) fn services(
    documents: &Documents,
    before: Option<&AllUnits>,
    units: &AllUnits,
    run: &Compilation<'_>,
) -> Units<Service> {
    let mut built = Units::with_capacity(documents.services.len());
    for item in &documents.services {
        let config = &item.value;
        let mut stamp = run.hasher();
        plugins::stamp(item.fingerprint, &config.plugins, run).hash(&mut stamp);
        upstreams::stamp(
            config.upstream.as_ref(),
            config.upstream_id.as_deref(),
            ("services", &item.id),
            units,
            run,
        )
        .hash(&mut stamp);
        built.reuse_or_build(
            before.map(|b| &b.services),
            &item.id,
            stamp.finish(),
            |_, diagnostics| {
                run.count();
                service(item, units, run, diagnostics)
            },
        );
    }
    built
}

fn service(
    item: &Item<ServiceConfig>,
    units: &AllUnits,
    run: &Compilation<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Service {
    let owner = format!("services/{}", item.id);
    let mut scope = Scope {
        run,
        owner: &owner,
        place: &item.place,
        diagnostics,
    };
    let config = &item.value;
    Service {
        plugins: plugins::build(&config.plugins, &mut scope),
        upstream: upstreams::link(
            config.upstream.as_ref(),
            config.upstream_id.as_deref(),
            units,
            &mut scope,
        ),
        name: config.name.as_deref().map(Into::into),
        hosts: config.hosts.clone(),
        enable_websocket: config.enable_websocket,
    }
}

/// A compiled route and what it matches.
pub(super) struct RouteUnit {
    /// What a match gets.
    pub route: Arc<CompiledRoute>,
    /// Its place in the table; `None` where it is switched off or can match nothing.
    spec: Option<Arc<Spec>>,
    /// Its `vars` hold something against a field of the body.
    pub asks_body: bool,
}

type Spec = RouteSpec<Arc<CompiledRoute>>;

/// Builds the routes that changed, and the routing table where any did.
pub(super) fn compile(
    documents: &Documents,
    previous: Option<&Snapshot>,
    units: &mut AllUnits,
    run: &Compilation<'_>,
) -> Arc<Router<Arc<CompiledRoute>>> {
    let before = previous.map(|snapshot| &snapshot.rest.units);
    let mut built = Units::with_capacity(documents.routes.len());
    let mut specs: Vec<(usize, Arc<Spec>)> = Vec::with_capacity(documents.routes.len());
    let refused_services = documents.refused_services.iter();
    let refused_services: HashMap<&str, _> =
        refused_services.map(|item| (&*item.id, item)).collect();
    let refused_service = |config: &RouteConfig| {
        let id = config.service_id.as_deref()?;
        refused_services.get(id).copied()
    };
    for item in &documents.routes {
        let config = &item.value;
        let service = config
            .service_id
            .as_deref()
            .map(|id| units.services.get(id));
        let shared = config
            .plugin_config_id
            .as_deref()
            .map(|id| units.plugin_configs.get(id));
        let mut stamp = run.hasher();
        plugins::stamp(item.fingerprint, &config.plugins, run).hash(&mut stamp);
        upstreams::stamp(
            config.upstream.as_ref(),
            config.upstream_id.as_deref(),
            ("routes", &item.id),
            units,
            run,
        )
        .hash(&mut stamp);
        service
            .map(|unit| unit.map(|unit| Arc::as_ptr(unit).addr()))
            .hash(&mut stamp);
        let refused = refused_service(config);
        refused.map(|item| item.fingerprint).hash(&mut stamp);
        shared
            .map(|unit| unit.map(|unit| Arc::as_ptr(unit).addr()))
            .hash(&mut stamp);
        let (unit, _) = built.reuse_or_build(
            before.map(|b| &b.routes),
            &item.id,
            stamp.finish(),
            |_, diagnostics| {
                run.count();
                let owner = format!("routes/{}", item.id);
                let mut scope = Scope {
                    run,
                    owner: &owner,
                    place: &item.place,
                    diagnostics,
                };
                let hosts = service_hosts(service.flatten(), refused);
                route_unit(item, hosts, service, shared, units, &mut scope)
            },
        );
        specs.extend(unit.value.spec.clone().map(|spec| (item.index, spec)));
    }
    for refused in &documents.refused_routes {
        let owner = format!("routes/{}", refused.id);
        // What is wrong with it was reported by the parser.
        let mut known = Vec::new();
        let mut scope = Scope {
            run,
            owner: &owner,
            place: &refused.place,
            diagnostics: &mut known,
        };
        let config = &refused.matches;
        let service = config.service_id.as_deref();
        let service = service.and_then(|id| units.services.get(id));
        let hosts = service_hosts(service, refused_service(config));
        let spec = matches(config, hosts, &mut scope).into_spec(|| {
            Arc::new(CompiledRoute {
                info: Arc::new(RouteInfo {
                    id: Arc::clone(&refused.id),
                    ..RouteInfo::default()
                }),
                outcome: Outcome::Absent,
            })
        });
        specs.extend(spec.map(|spec| (refused.index, Arc::new(spec))));
    }
    // Ties are broken by the order of the file, refused routes included.
    specs.sort_by_key(|(index, _)| *index);
    units.routes = built;
    let specs: Vec<_> = specs.into_iter().map(|(_, spec)| spec).collect();
    match previous {
        Some(previous) if previous.router.is_of(run.env.router, &specs) => {
            Arc::clone(&previous.router)
        }
        _ => Arc::new(Router::build(run.env.router, specs)),
    }
}

/// Hosts for routes that name none. A service that failed its own checks has the hosts that could be
/// read: its routes refuse there, and nowhere else.
fn service_hosts<'a>(
    service: Option<&'a Arc<Unit<Service>>>,
    refused: Option<&'a Item<ServiceConfig>>,
) -> &'a [String] {
    match (service, refused) {
        (Some(unit), _) => &unit.value.hosts,
        (None, Some(item)) => &item.value.hosts,
        (None, None) => &[],
    }
}

fn route_unit(
    item: &Item<RouteConfig>,
    hosts: &[String],
    service: Dependency<'_, Service>,
    shared: Dependency<'_, PluginSet>,
    units: &AllUnits,
    scope: &mut Scope<'_>,
) -> RouteUnit {
    let matches = matches(&item.value, hosts, scope);
    let mut compiled = route(item, service, shared, units, scope);
    if !matches.sound {
        compiled.outcome = Outcome::Absent;
    }
    let route = Arc::new(compiled);
    let asks_body = matches.asks_body;
    let spec = matches
        .into_spec(|| Arc::clone(&route))
        .filter(|_| item.value.enabled)
        .map(Arc::new);
    RouteUnit {
        route,
        spec,
        asks_body,
    }
}

/// What a route matches, as far as it can be told.
struct Matches {
    spec: Option<RouteSpec<()>>,
    /// All of it could be told. Where not, the route refuses whatever it still matches.
    sound: bool,
    asks_body: bool,
}

impl Matches {
    fn into_spec(self, value: impl FnOnce() -> Arc<CompiledRoute>) -> Option<Spec> {
        let spec = self.spec?;
        Some(RouteSpec {
            uris: spec.uris,
            hosts: spec.hosts,
            methods: spec.methods,
            remote_addrs: spec.remote_addrs,
            priority: spec.priority,
            vars: spec.vars,
            value: value(),
        })
    }
}

fn matches(config: &RouteConfig, service_hosts: &[String], scope: &mut Scope<'_>) -> Matches {
    let vars = config.vars.as_ref().map(Expr::parse).transpose();
    let vars = vars.map_err(|error| {
        scope.error("route", "vars", &error.to_string());
    });
    let sound = vars.is_ok();
    let vars = vars.ok().flatten();
    let asks_body = vars.as_ref().is_some_and(Expr::asks_body);
    let vars =
        vars.map(|expr| Box::new(move |vars: &dyn VarSource| expr.matches(vars)) as Predicate);
    let spec = spec(config, service_hosts, vars, scope);
    Matches {
        sound: sound && spec.is_some(),
        spec,
        asks_body,
    }
}

/// `None` where path, host, method or address cannot be told: such a route matches nothing.
fn spec(
    config: &RouteConfig,
    service_hosts: &[String],
    vars: Option<Predicate>,
    scope: &mut Scope<'_>,
) -> Option<RouteSpec<()>> {
    let mode = scope.run.env.router;
    let hosts = if config.hosts.is_empty() {
        service_hosts
    } else {
        &config.hosts
    };
    let uris = config.uris.iter().map(|uri| UriPattern::parse(uri, mode));
    let uris = uris
        .collect::<Result<_, _>>()
        .map_err(|error| scope.error("route", "uri", &error.to_string()));
    let hosts = hosts.iter().map(|host| HostPattern::parse(host));
    let hosts = hosts
        .collect::<Result<_, _>>()
        .map_err(|error| scope.error("route", "hosts", &error.to_string()));
    let methods = MethodSet::parse(&config.methods)
        .map_err(|error| scope.error("route", "methods", &error.to_string()));
    let remote_addrs = IpSet::parse(&config.remote_addrs)
        .map_err(|error| scope.error("route", "remote_addrs", &error.to_string()));
    Some(RouteSpec {
        uris: uris.ok()?,
        hosts: hosts.ok()?,
        methods: methods.ok()?,
        remote_addrs: remote_addrs.ok()?,
        priority: config.priority,
        vars,
        value: (),
    })
}

type Dependency<'a, T> = Option<Option<&'a Arc<Unit<T>>>>;

fn route(
    item: &Item<RouteConfig>,
    service: Dependency<'_, Service>,
    shared: Dependency<'_, PluginSet>,
    units: &AllUnits,
    scope: &mut Scope<'_>,
) -> CompiledRoute {
    let config = &item.value;
    let own = plugins::build(&config.plugins, scope);
    let (service, shared) = match dependencies(config, &own, service, shared, scope) {
        Ok(found) => found,
        Err(outcome) => {
            return CompiledRoute {
                info: info(item, None, Vec::new()),
                outcome,
            };
        }
    };

    // Whole plugins override: service, then plugin_config, then the route itself.
    let mut merged = IndexMap::new();
    let mut redacted = Vec::new();
    for set in service
        .map(|service| &service.plugins)
        .into_iter()
        .chain(shared)
        .chain([&own])
    {
        merged.extend(
            set.plugins
                .iter()
                .map(|(name, plugin)| (*name, Arc::clone(plugin))),
        );
        redacted.extend(set.redacted.iter().cloned());
    }
    let merged: Vec<_> = merged.into_values().collect();
    let upstream = match upstreams::link(
        config.upstream.as_ref(),
        config.upstream_id.as_deref(),
        units,
        scope,
    ) {
        UpstreamLink::None => {
            service.map_or(UpstreamLink::None, |service| service.upstream.clone())
        }
        own => own,
    };
    let websocket = config
        .enable_websocket
        .or_else(|| service?.enable_websocket)
        .unwrap_or_default();
    CompiledRoute {
        info: info(item, service, redacted),
        outcome: Outcome::Serve {
            chain: shared_chain(&merged, scope),
            upstream: upstream.for_route(config.timeout.as_ref(), websocket),
            websocket,
        },
    }
}

/// The chain of these very plugins that another route has already, or a new one.
fn shared_chain(plugins: &[Arc<Plugin>], scope: &Scope<'_>) -> Arc<Chain> {
    // A chain keeps its plugins, idle ones too: while it lives their addresses mean no others.
    let addresses = plugins.iter().map(|plugin| Arc::as_ptr(plugin).addr());
    let mut key = String::from("chain");
    for address in addresses {
        // Writing into a string cannot fail.
        let _ = write!(key, "/{address:x}");
    }
    let kept = &scope.run.env.kept;
    kept.entry(&key, || Chain::build(plugins))
}

/// What the route stands on, or what becomes of it without (`spec/00` §1.3).
fn dependencies<'a>(
    config: &RouteConfig,
    own: &PluginSet,
    service: Dependency<'a, Service>,
    shared: Dependency<'a, PluginSet>,
    scope: &mut Scope<'_>,
) -> Result<(Option<&'a Service>, Option<&'a PluginSet>), Outcome> {
    if own.refused {
        return Err(Outcome::Absent);
    }
    let service = match service {
        None => None,
        Some(Some(unit)) if !unit.value.plugins.refused => Some(&unit.value),
        Some(_) => {
            let id = config.service_id.as_deref().unwrap_or_default();
            scope.error(
                "missing-service",
                "service_id",
                &format!("service {id} does not exist or is invalid; the route answers 404"),
            );
            return Err(Outcome::Refuse { status: 404 });
        }
    };
    let shared = match shared {
        None => None,
        Some(Some(unit)) if !unit.value.refused => Some(&unit.value),
        Some(_) => {
            let id = config.plugin_config_id.as_deref().unwrap_or_default();
            scope.error(
                "missing-plugin-config",
                "plugin_config_id",
                &format!("plugin_config {id} does not exist or is invalid; the route answers 503"),
            );
            return Err(Outcome::Refuse { status: 503 });
        }
    };
    Ok((service, shared))
}

fn info(
    item: &Item<RouteConfig>,
    service: Option<&Service>,
    redacted_args: Vec<Box<str>>,
) -> Arc<RouteInfo> {
    Arc::new(RouteInfo {
        id: Arc::clone(&item.id),
        name: item.value.name.as_deref().map(Into::into),
        service_id: item.value.service_id.as_deref().map(Into::into),
        service_name: service.and_then(|service| service.name.clone()),
        redacted_args,
    })
}
