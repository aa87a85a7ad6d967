//! The router against a naive one that tries every route, and the rules by example.

use std::borrow::Cow;
use std::net::IpAddr;

use ::http::Method;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::expr::Variable;

struct NoVars;

impl VarSource for NoVars {
    fn var(&self, _: &Variable) -> Option<Cow<'_, str>> {
        None
    }
}

#[derive(Debug, Clone, Default)]
struct Plain {
    uris: Vec<String>,
    hosts: Vec<String>,
    methods: Vec<&'static str>,
    remote: Vec<&'static str>,
    priority: i64,
    refuses: bool,
}

fn router(mode: RouterMode, routes: &[Plain]) -> Router<usize> {
    let specs = routes.iter().enumerate().map(|(number, route)| RouteSpec {
        uris: route
            .uris
            .iter()
            .map(|uri| UriPattern::parse(uri, mode).expect("the pattern is valid"))
            .collect(),
        hosts: route
            .hosts
            .iter()
            .map(|host| HostPattern::parse(host).expect("the pattern is valid"))
            .collect(),
        methods: MethodSet::parse(&route.methods).expect("known methods"),
        remote_addrs: IpSet::parse(&route.remote).expect("addresses"),
        priority: route.priority,
        vars: route.refuses.then(|| -> Predicate { Box::new(|_| false) }),
        value: number,
    });
    Router::build(mode, specs.collect())
}

#[derive(Debug)]
struct Asked {
    host: String,
    path: String,
    method: Method,
    client: IpAddr,
}

impl Asked {
    fn get(host: &str, path: &str) -> Self {
        Self {
            host: host.to_owned(),
            path: path.to_owned(),
            method: Method::GET,
            client: IpAddr::from([192, 0, 2, 1]),
        }
    }

    fn query(&self) -> RouteQuery<'_> {
        RouteQuery {
            host: &self.host,
            path: &self.path,
            method: &self.method,
            client: self.client,
            vars: &NoVars,
        }
    }
}

fn found(table: &Router<usize>, host: &str, path: &str) -> Option<usize> {
    table
        .find(&Asked::get(host, path).query())
        .map(|found| *found.value)
}

fn route(uris: &[&str], hosts: &[&str], priority: i64) -> Plain {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    Plain {
        uris: owned(uris),
        hosts: owned(hosts),
        priority,
        ..Plain::default()
    }
}

/// The order of `spec/00` §9 written as one sort over all routes.
fn naive(mode: RouterMode, routes: &[Plain], asked: &Asked) -> Option<(usize, String)> {
    let host = asked.host.to_ascii_lowercase();
    let host = host.split(':').next().unwrap_or_default();
    let mut fitting = Vec::new();
    for (number, route) in routes.iter().enumerate() {
        let methods = &route.methods;
        let remote = &route.remote;
        if route.refuses
            || !(methods.is_empty() || methods.contains(&asked.method.as_str()))
            || !(remote.is_empty() || remote.contains(&asked.client.to_string().as_str()))
        {
            continue;
        }
        let none = [String::new()];
        let hosts = if route.hosts.is_empty() {
            &none[..]
        } else {
            &route.hosts
        };
        for pattern in hosts {
            let rank = if pattern.is_empty() {
                usize::MAX
            } else if let Some(suffix) = pattern.strip_prefix('*') {
                if !host.ends_with(suffix) {
                    continue;
                }
                1000 - suffix.len()
            } else if pattern == host {
                0
            } else {
                continue;
            };
            let host_rank = if mode == RouterMode::HostUri { rank } else { 0 };
            for uri in &route.uris {
                if let Some((exactness, length)) = naive_path(mode, uri, &asked.path) {
                    let shorter = if exactness == 0 { 0 } else { 1000 - uri.len() };
                    let order = (
                        host_rank,
                        exactness,
                        1000 - length,
                        -route.priority,
                        shorter,
                        number,
                    );
                    fitting.push((order, uri.clone()));
                }
            }
        }
    }
    fitting.sort_by_key(|(order, _)| *order);
    fitting
        .into_iter()
        .next()
        .map(|(order, uri)| (order.5, uri))
}

/// (0 exact or 1 prefix, length of the literal prefix), where the pattern matches.
fn naive_path(mode: RouterMode, uri: &str, path: &str) -> Option<(u8, usize)> {
    if mode == RouterMode::UriWithParameter {
        let first = uri
            .find("/:")
            .into_iter()
            .chain(uri.find("/*").filter(|at| at + 2 < uri.len()));
        if let Some(first) = first.min() {
            let mut pattern = String::from("^");
            let mut segments = uri.split('/').peekable();
            while let Some(segment) = segments.next() {
                if segment.starts_with(':') {
                    pattern.push_str("[^/]+");
                } else if segment.starts_with('*') {
                    pattern.push_str("(?s:.*)");
                } else if let Some(literal) = segment.strip_suffix('*') {
                    pattern.push_str(&regex::escape(literal));
                    pattern.push_str("(?s:.*)");
                } else {
                    pattern.push_str(&regex::escape(segment));
                }
                if segments.peek().is_some() {
                    pattern.push('/');
                }
            }
            pattern.push('$');
            let regex = regex::Regex::new(&pattern).expect("the pattern was escaped");
            return regex.is_match(path).then_some((1, first + 1));
        }
    }
    match uri.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix).then_some((1, prefix.len())),
        None => (uri == path).then_some((0, 0)),
    }
}

fn some<'a>(random: &mut StdRng, choices: &[&'a str], most: usize) -> Vec<&'a str> {
    let count = random.random_range(0..=most);
    choices.choose_multiple(random, count).copied().collect()
}

fn random_path(random: &mut StdRng, pattern: bool) -> String {
    let mut path = String::new();
    for _ in 0..random.random_range(1..=3) {
        path.push('/');
        let words: &[&str] = if pattern {
            &["a", "ab", "b", "a.b", ":x", ":y", "", "c"]
        } else {
            &["a", "ab", "b", "axb", "a.b", "", "c", "ad"]
        };
        path.push_str(words.choose(random).expect("there are words"));
    }
    if pattern {
        path.push_str(
            ["", "", "*", "/*", "/*rest"]
                .choose(random)
                .expect("there are endings"),
        );
    }
    path.replace(":x*", ":x").replace(":y*", ":y")
}

fn random_route(random: &mut StdRng) -> Plain {
    let hosts = [
        "a.test", "b.test", "*.test", "*a.test", "*.a.test", "*", "x.a.test", "*t",
    ];
    let uris = (0..random.random_range(1..=2))
        .map(|_| random_path(random, true))
        .collect();
    Plain {
        uris,
        hosts: some(random, &hosts, 2)
            .into_iter()
            .map(str::to_owned)
            .collect(),
        methods: some(random, &["GET", "POST"], 1),
        remote: some(random, &["192.0.2.1", "192.0.2.2"], 1),
        priority: random.random_range(-1..=1),
        refuses: random.random_bool(0.1),
    }
}

#[test]
fn router_agrees_with_a_naive_one() {
    let seed = rand::rng().random();
    let mut random = StdRng::seed_from_u64(seed);
    let modes = [
        RouterMode::HostUri,
        RouterMode::Uri,
        RouterMode::UriWithParameter,
    ];
    for round in 0..24 {
        let mode = modes[round % modes.len()];
        let count = random.random_range(0..80);
        let routes: Vec<_> = (0..count).map(|_| random_route(&mut random)).collect();
        let table = router(mode, &routes);
        for _ in 0..60 {
            let hosts = [
                "a.test",
                "A.test:80",
                "b.test",
                "x.a.test",
                "xa.test",
                "c.com",
                "",
            ];
            let asked = Asked {
                host: (*hosts.choose(&mut random).expect("hosts")).to_owned(),
                path: random_path(&mut random, false),
                method: [Method::GET, Method::POST][random.random_range(0..2)].clone(),
                client: IpAddr::from([192, 0, 2, random.random_range(1..=2)]),
            };
            let found = table.find(&asked.query());
            let found = found.map(|found| (*found.value, found.uri_pattern.to_string()));
            let expected = naive(mode, &routes, &asked);
            assert_eq!(
                found, expected,
                "seed {seed}, {mode:?}, {asked:?}, {routes:#?}"
            );
        }
    }
}

#[test]
fn exact_beats_prefix_and_priority_is_local() {
    let routes = [
        route(&["/*"], &[], 100),
        route(&["/a/*"], &[], 0),
        route(&["/a/b"], &[], -5),
        route(&["/a/b"], &[], 5),
    ];
    let table = router(RouterMode::HostUri, &routes);
    assert_eq!(found(&table, "h", "/a/b"), Some(3));
    assert_eq!(found(&table, "h", "/a/c"), Some(1));
    assert_eq!(
        found(&table, "h", "/a"),
        Some(0),
        "`/a/*` does not match `/a`"
    );
}

#[test]
fn matching_continues_with_the_next_host() {
    let routes = [
        route(&["/only"], &["a.foo.com"], 0),
        route(&["/w"], &["*.foo.com"], 0),
        route(&["/*"], &[], 0),
        route(&["/*"], &["*"], -1),
    ];
    let table = router(RouterMode::HostUri, &routes);
    assert_eq!(found(&table, "a.foo.com", "/only"), Some(0));
    assert_eq!(found(&table, "A.foo.com:8443", "/w"), Some(1));
    assert_eq!(
        found(&table, "foo.com", "/w"),
        Some(3),
        "`*` comes before routes without host"
    );
    assert_eq!(found(&table, "", "/"), Some(3));
}

#[test]
fn match_names_its_patterns_and_parameters() {
    let routes = [route(&["/u/:id", "/u/:id/*tail"], &["*.a.test"], 0)];
    let table = router(RouterMode::UriWithParameter, &routes);
    let asked = Asked::get("x.a.test", "/u/7/p/q");
    let found = table.find(&asked.query()).expect("the route fits");
    assert_eq!(&**found.uri_pattern, "/u/:id/*tail");
    assert_eq!(found.host_pattern.map(|host| &**host), Some("*.a.test"));
    let params: Vec<_> = found
        .params
        .iter()
        .map(|(name, value)| (&***name, *value))
        .collect();
    assert_eq!(params, [("id", "7"), ("tail", "p/q")]);
}

#[test]
fn literal_segments_beside_parameters_are_no_regex() {
    let table = router(
        RouterMode::UriWithParameter,
        &[route(&["/a.b/:id"], &[], 0)],
    );
    assert_eq!(found(&table, "", "/a.b/1"), Some(0));
    assert_eq!(found(&table, "", "/axb/1"), None);
    assert_eq!(
        found(&table, "", "/a.b/"),
        None,
        "a parameter is never empty"
    );
}

#[test]
fn variables_are_asked_only_of_routes_that_have_conditions() {
    let spec = |uri: &str, vars: Option<Predicate>, value| RouteSpec {
        uris: vec![UriPattern::parse(uri, RouterMode::HostUri).expect("valid")],
        hosts: Vec::new(),
        methods: MethodSet::default(),
        remote_addrs: IpSet::default(),
        priority: 0,
        vars,
        value,
    };
    let never: Predicate = Box::new(|_| panic!("this route was not to be asked"));
    let specs = vec![spec("/a", None, 1), spec("/a", Some(never), 2)];
    let table = Router::build(RouterMode::HostUri, specs);
    assert_eq!(found(&table, "h", "/a"), Some(1));
}
