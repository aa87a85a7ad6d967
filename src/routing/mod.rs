//! From a request to the value of the route that serves it, in APISIX's order (`spec/00` §9).
//! Does not care what the value is. Built once per snapshot; a lookup allocates nothing unless
//! the host has capitals, scans no routes but those that share host and path pattern, and asks
//! variables only of routes that have `vars`.

mod host;
mod method;
mod params;
mod path;
mod table;
#[cfg(test)]
mod tests;
mod trie;

use std::net::IpAddr;
use std::sync::Arc;

use ::http::Method;
use smallvec::SmallVec;

use crate::expr::VarSource;
use crate::ip_set::IpSet;

pub use host::{HostPattern, HostPatternError};
pub use method::{MethodSet, UnknownMethod};
pub use path::{UriPattern, UriPatternError};

use host::{HostName, HostTables};
use table::{Candidate, PathTable};

/// How host and path are weighed against each other (`apisix.router.http`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RouterMode {
    /// `radixtree_host_uri`: first by host, then by path inside the host's table.
    #[default]
    HostUri,
    /// `radixtree_uri`: by path; the host is one of the predicates.
    Uri,
    /// `radixtree_uri_with_parameter`: as [`Self::Uri`], and paths may hold `:name` and `*name`.
    UriWithParameter,
}

/// A route's `vars`, compiled: whether the request's variables satisfy it.
pub type Predicate = Box<dyn Fn(&dyn VarSource) -> bool + Send + Sync>;

/// What one route matches and what it leads to.
pub struct RouteSpec<T> {
    /// Path patterns; a route without any never matches.
    pub uris: Vec<UriPattern>,
    /// Host patterns; empty accepts any host.
    pub hosts: Vec<HostPattern>,
    /// Accepted methods; the empty set accepts all. `HEAD` is not implied by `GET`.
    pub methods: MethodSet,
    /// Accepted client addresses; the empty set accepts all.
    pub remote_addrs: IpSet,
    /// Higher first, but only between routes with the same path pattern in the same table.
    pub priority: i64,
    /// Further conditions; `None` has none.
    pub vars: Option<Predicate>,
    /// What a match yields.
    pub value: T,
}

/// What is asked of the router.
pub struct RouteQuery<'q> {
    /// `Host` as received, with its port if it has one; empty where the request has none.
    pub host: &'q str,
    /// Normalised, decoded path without query (`http::path`).
    pub path: &'q str,
    /// Method.
    pub method: &'q Method,
    /// Client address as known when the route is matched.
    pub client: IpAddr,
    /// Variables, for routes that have `vars`.
    pub vars: &'q dyn VarSource,
}

/// A route that fits.
#[derive(Debug)]
pub struct Match<'r, 'q, T> {
    /// Its value.
    pub value: &'r T,
    /// The path pattern that matched, as written.
    pub uri_pattern: &'r Arc<str>,
    /// The host pattern that matched, as written (lower-cased); `None` for a route without hosts.
    pub host_pattern: Option<&'r Arc<str>>,
    /// What `:name` and `*name` captured, in the path's order.
    pub params: SmallVec<[(&'r Arc<str>, &'q str); 2]>,
}

/// A routing table.
pub struct Router<T> {
    mode: RouterMode,
    routes: Vec<Arc<RouteSpec<T>>>,
    tables: Tables,
}

enum Tables {
    ByHost(Box<HostTables>),
    ByPath(PathTable),
}

impl<T> Router<T> {
    /// Builds the table from routes in file order.
    #[must_use]
    pub fn build(mode: RouterMode, specs: Vec<impl Into<Arc<RouteSpec<T>>>>) -> Self {
        let mut by_host = host::Builder::default();
        let mut by_path = table::Builder::default();
        let routes: Vec<Arc<RouteSpec<T>>> = specs.into_iter().map(Into::into).collect();
        for (route, spec) in (0_u32..).zip(&routes) {
            match mode {
                RouterMode::HostUri => by_host.add(route, &spec.hosts, &spec.uris, spec.priority),
                RouterMode::Uri | RouterMode::UriWithParameter => {
                    by_path.add(route, &spec.uris, spec.priority);
                }
            }
        }
        let tables = match mode {
            RouterMode::HostUri => Tables::ByHost(Box::new(by_host.finish())),
            RouterMode::Uri | RouterMode::UriWithParameter => Tables::ByPath(by_path.finish()),
        };
        Self {
            mode,
            routes,
            tables,
        }
    }

    /// Whether this is the table of just these routes in this order.
    #[must_use]
    pub fn is_of(&self, mode: RouterMode, specs: &[Arc<RouteSpec<T>>]) -> bool {
        let mut pairs = self.routes.iter().zip(specs);
        self.mode == mode
            && self.routes.len() == specs.len()
            && pairs.all(|(own, spec)| Arc::ptr_eq(own, spec))
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The values of all routes, in file order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.routes.iter().map(|route| &route.value)
    }

    /// The route that serves the request, by the order of `spec/00` §9.
    #[must_use]
    pub fn find<'r, 'q>(&'r self, query: &RouteQuery<'q>) -> Option<Match<'r, 'q, T>> {
        let host = HostName::of(query.host);
        match &self.tables {
            Tables::ByHost(tables) => tables.find(host.name(), |table, pattern| {
                let candidate = table.find(query.path, |candidate| {
                    self.accepts(candidate, query, &host).is_some()
                })?;
                Some(self.matched(candidate, pattern, query))
            }),
            Tables::ByPath(table) => {
                let mut pattern = None;
                let candidate = table.find(query.path, |candidate| {
                    let accepted = self.accepts(candidate, query, &host);
                    pattern = accepted.flatten();
                    accepted.is_some()
                })?;
                Some(self.matched(candidate, pattern, query))
            }
        }
    }

    /// Whether the route's predicates hold (method, address, host, variables: APISIX's order),
    /// and by which of its host patterns.
    #[expect(
        clippy::option_option,
        reason = "outer: accepted; inner: by a host pattern"
    )]
    fn accepts(
        &self,
        candidate: &Candidate,
        query: &RouteQuery<'_>,
        host: &HostName<'_>,
    ) -> Option<Option<&Arc<str>>> {
        let route = &self.routes[candidate.route as usize];
        if !route.methods.accepts(query.method) {
            return None;
        }
        if !route.remote_addrs.is_empty() && !route.remote_addrs.contains(query.client) {
            return None;
        }
        // By host the table has decided already.
        let pattern = match (&self.tables, &*route.hosts) {
            (Tables::ByHost(_), _) | (_, []) => None,
            (_, hosts) => Some(hosts.iter().find(|pattern| pattern.matches(host))?.text()),
        };
        let holds = route.vars.as_ref().is_none_or(|vars| vars(query.vars));
        holds.then_some(pattern)
    }

    fn matched<'r, 'q>(
        &'r self,
        candidate: &'r Candidate,
        host_pattern: Option<&'r Arc<str>>,
        query: &RouteQuery<'q>,
    ) -> Match<'r, 'q, T> {
        Match {
            value: &self.routes[candidate.route as usize].value,
            uri_pattern: candidate.pattern.text(),
            host_pattern,
            params: candidate.pattern.captures(query.path),
        }
    }
}
