//! Upstreams as the proxy uses them.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509Name};
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::{ALPN, H1UpgradePolicy, Peer as _};
use pingora_core::utils::tls::CertKey;

use super::*;
use crate::clock::SystemClock;
use crate::config::resource::UpstreamAlpn;
use crate::expr::{VarSource, Variable};

struct NoVars;

impl VarSource for NoVars {
    fn var(&self, _: &Variable) -> Option<Cow<'_, str>> {
        None
    }
}

struct TwoAddresses;

impl dns::Lookup for TwoAddresses {
    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<dns::Answer, DnsError>> {
        Box::pin(async move {
            match host {
                "two.test" => Ok(dns::Answer {
                    addresses: vec![IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])],
                    ttl: Duration::from_mins(1),
                }),
                _ => Err(DnsError::Empty),
            }
        })
    }
}

struct World {
    kept: Kept,
    resolver: Resolver,
}

impl World {
    fn new() -> Self {
        let (config, clock) = (DnsConfig::default(), Arc::new(SystemClock));
        Self {
            kept: Kept::new(),
            resolver: Resolver::with_lookup(config, clock, Box::new(TwoAddresses)),
        }
    }

    fn try_build(&self, config: &UpstreamConfig, tls: UpstreamTls) -> Result<Upstream, BuildError> {
        let parts = UpstreamParts {
            id: "upstreams/1",
            tls,
            keepalive: KeepalivePoolConfig::default(),
            resolver: &self.resolver,
            kept: &self.kept,
        };
        Upstream::build(config, &parts)
    }

    fn build(&self, config: &UpstreamConfig, tls: UpstreamTls) -> Arc<Upstream> {
        Arc::new(self.try_build(config, tls).expect("the upstream is valid"))
    }
}

fn node(host: &str, weight: u32, priority: i32) -> NodeConfig {
    NodeConfig {
        host: host.to_owned(),
        port: None,
        weight,
        priority,
    }
}

fn config(nodes: Vec<NodeConfig>) -> UpstreamConfig {
    UpstreamConfig {
        nodes,
        ..UpstreamConfig::default()
    }
}

fn https(nodes: Vec<NodeConfig>) -> UpstreamConfig {
    UpstreamConfig {
        scheme: Scheme::Https,
        ..config(nodes)
    }
}

fn pick(upstream: &Upstream, tried: &[SocketAddr]) -> Option<Picked> {
    let ctx = PickCtx {
        client: IpAddr::from([127, 0, 0, 1]),
        vars: &NoVars,
    };
    upstream.pick(tried, &ctx)
}

/// A certificate with a fixed serial number, and its key.
fn certificate() -> (X509, PKey<Private>) {
    let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let mut name = X509Name::builder().expect("a name");
    name.append_entry_by_text("CN", "client").expect("a name");
    let name = name.build();
    let mut builder = X509::builder().expect("a builder");
    builder.set_subject_name(&name).expect("a name");
    builder.set_issuer_name(&name).expect("a name");
    builder.set_pubkey(&key).expect("a key");
    let (from, to) = (Asn1Time::days_from_now(0), Asn1Time::days_from_now(1));
    builder
        .set_not_before(&from.expect("a time"))
        .expect("a time");
    builder.set_not_after(&to.expect("a time")).expect("a time");
    builder
        .sign(&key, MessageDigest::sha256())
        .expect("a signature");
    (builder.build(), key)
}

#[test]
fn a_level_is_used_up_before_the_next() {
    let nodes = vec![
        node("192.0.2.1", 1, 0),
        node("192.0.2.2", 1, 10),
        node("192.0.2.3", 1, 10),
    ];
    let upstream = World::new().build(&config(nodes), UpstreamTls::default());
    let mut tried = Vec::new();
    while let Some(picked) = pick(&upstream, &tried) {
        tried.push(picked.addr);
    }
    tried[..2].sort_unstable();
    let expected = ["192.0.2.2:80", "192.0.2.3:80", "192.0.2.1:80"];
    assert_eq!(
        tried.iter().map(ToString::to_string).collect::<Vec<_>>(),
        expected
    );
    assert_eq!(upstream.retries().retries, 2);
}

#[test]
fn an_upstream_without_usable_nodes_picks_none() {
    let world = World::new();
    for nodes in [
        vec![],
        vec![node("192.0.2.1", 0, 0)],
        vec![node("never.test", 1, 0)],
    ] {
        let upstream = world.build(&config(nodes), UpstreamTls::default());
        assert!(pick(&upstream, &[]).is_none());
    }
}

#[tokio::test]
async fn a_name_with_two_addresses_takes_turns_and_each_is_tried_once() {
    let world = World::new();
    let upstream = world.build(
        &config(vec![node("TWO.test", 1, 0)]),
        UpstreamTls::default(),
    );
    world.resolver.settle(Duration::from_secs(5)).await;
    let first = pick(&upstream, &[]).expect("a node").addr;
    let second = pick(&upstream, &[]).expect("a node").addr;
    assert_ne!(first, second);
    assert_eq!(pick(&upstream, &[first]).expect("a node").addr, second);
    assert!(pick(&upstream, &[first, second]).is_none());
}

#[test]
fn the_host_sent_follows_pass_host() {
    let world = World::new();
    for (scheme, pass_host, host, port, expected) in [
        (Scheme::Http, PassHost::Pass, "a.test", None, None),
        (Scheme::Http, PassHost::Node, "a.test", None, Some("a.test")),
        (
            Scheme::Http,
            PassHost::Node,
            "a.test",
            Some(8080),
            Some("a.test:8080"),
        ),
        (
            Scheme::Https,
            PassHost::Node,
            "a.test",
            Some(443),
            Some("a.test"),
        ),
        (
            Scheme::Https,
            PassHost::Node,
            "a.test",
            Some(80),
            Some("a.test:80"),
        ),
        (
            Scheme::Http,
            PassHost::Node,
            "2001:db8::1",
            Some(81),
            Some("[2001:db8::1]:81"),
        ),
        (
            Scheme::Http,
            PassHost::Rewrite,
            "a.test",
            None,
            Some("other.test"),
        ),
    ] {
        let config = UpstreamConfig {
            scheme,
            pass_host,
            upstream_host: Some("other.test".to_owned()),
            ..config(vec![NodeConfig {
                port,
                ..node(host, 1, 0)
            }])
        };
        let upstream = world.build(&config, UpstreamTls::default());
        let node = upstream.nodes().next().expect("it has a node");
        let sent = upstream
            .host_for(node)
            .map(|host| host.to_str().expect("ASCII"));
        assert_eq!(sent, expected);
    }
}

#[test]
fn a_peer_asks_for_the_host_sent_and_never_skips_verification() {
    let world = World::new();
    let nodes = || vec![node("192.0.2.1", 1, 0)];
    let lax = world.build(&https(nodes()), UpstreamTls::default());
    let verify = || UpstreamTls {
        verify: true,
        ..UpstreamTls::default()
    };
    let strict = world.build(&https(nodes()), verify());
    let picked = pick(&lax, &[]).expect("a node");
    let peer = strict
        .peer(&picked, "a.test:8443", Wish::Any)
        .expect("a name can be verified");
    assert_eq!(
        (peer.sni(), peer.verify_cert(), peer.verify_hostname()),
        ("a.test", true, true)
    );
    for host in ["", ":443", "."] {
        assert_eq!(
            strict.peer(&picked, host, Wish::Any).err(),
            Some(PeerError::NothingToVerify),
            "{host}"
        );
    }
    for host in ["192.0.2.1", "192.0.2.1:443", "[2001:db8::1]:443", ""] {
        let peer = lax
            .peer(&picked, host, Wish::Any)
            .expect("nothing is verified here");
        assert_eq!((peer.sni(), peer.verify_cert()), ("", false));
        assert!(AddressProof::holds(&peer, None));
    }
    let plain = world.build(&config(nodes()), verify());
    assert!(
        plain.peer(&picked, "192.0.2.1", Wish::Any).is_ok(),
        "plain connections verify nothing"
    );
}

#[test]
fn a_node_asked_for_by_address_must_prove_it() {
    let world = World::new();
    let strict = world.build(
        &https(vec![node("192.0.2.1", 1, 0)]),
        UpstreamTls {
            verify: true,
            ..UpstreamTls::default()
        },
    );
    let picked = pick(&strict, &[]).expect("a node");
    let peer = |host: &str| strict.peer(&picked, host, Wish::Any).expect("a peer");
    for host in ["192.0.2.1", "192.0.2.1:443", "[2001:db8::1]:443"] {
        let peer = peer(host);
        assert_eq!(peer.sni(), "", "an address is no server name");
        assert!(!AddressProof::holds(&peer, None), "{host}");
        assert!(!AddressProof::holds(&peer, Some(&Digest::default())));
    }
    let key = |host: &str| peer(host).reuse_hash();
    assert_eq!(key("192.0.2.1"), key("192.0.2.1:443"));
    assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    assert!(AddressProof::holds(&peer("a.test"), None), "Pingora does");
}

#[test]
fn what_is_offered_follows_the_scheme_and_may_be_narrowed() {
    use UpstreamAlpn::{Both, Http1, Http2};
    let world = World::new();
    for (scheme, narrowed, offered, websocket) in [
        (Scheme::Http, None, ALPN::H1, ALPN::H1),
        (Scheme::Http, Some(Http2), ALPN::H1, ALPN::H1),
        (Scheme::Https, None, ALPN::H2H1, ALPN::H1),
        (Scheme::Https, Some(Both), ALPN::H2H1, ALPN::H1),
        (Scheme::Https, Some(Http2), ALPN::H2, ALPN::H1),
        (Scheme::Https, Some(Http1), ALPN::H1, ALPN::H1),
        (Scheme::Grpcs, None, ALPN::H2, ALPN::H1),
        (Scheme::Grpc, None, ALPN::H2, ALPN::H2),
    ] {
        let config = UpstreamConfig {
            scheme,
            ..config(vec![node("192.0.2.1", 1, 0)])
        };
        let tls = UpstreamTls {
            alpn: narrowed,
            ..UpstreamTls::default()
        };
        let upstream = world.build(&config, tls);
        let picked = pick(&upstream, &[]).expect("a node");
        let peer = |wish| upstream.peer(&picked, "a.test", wish).expect("a peer");
        let (plain, upgrade) = (peer(Wish::Any), peer(Wish::Http1));
        let narrow = peer(Wish::Http1IfOffered).options.alpn;
        let both = offered == ALPN::H2H1;
        assert_eq!(narrow == ALPN::H1, both || offered == ALPN::H1);
        let single = || peer(Wish::Single).reuse_hash();
        assert!(single() != single() && single() != plain.reuse_hash());
        assert_eq!(plain.options.alpn, offered, "{scheme:?} {narrowed:?}");
        assert_eq!(upgrade.options.alpn, websocket, "{scheme:?} {narrowed:?}");
        assert_eq!(
            plain.reuse_hash() == upgrade.reuse_hash(),
            offered == websocket,
            "what was offered differently is not shared"
        );
    }
}

#[test]
fn pools_never_mix_what_differs() {
    let world = World::new();
    let config = https(vec![node("192.0.2.1", 1, 0)]);
    let plain = world.build(&config, UpstreamTls::default());
    let picked = pick(&plain, &[]).expect("a node");
    let key = |upstream: &Upstream| {
        upstream
            .peer(&picked, "a.test", Wish::Any)
            .expect("a peer")
            .reuse_hash()
    };
    let ca = |certificate: X509| UpstreamTls {
        ca: Some(Arc::new(vec![certificate].into_boxed_slice())),
        ..UpstreamTls::default()
    };
    let client = |(certificate, key): (X509, PKey<Private>)| UpstreamTls {
        client: Some(Arc::new(CertKey::new(vec![certificate], key))),
        ..UpstreamTls::default()
    };
    let timeout = TimeoutConfig {
        read: Duration::from_secs(1),
        ..TimeoutConfig::default()
    };
    let keys = [
        key(&plain),
        key(&world.build(
            &config,
            UpstreamTls {
                verify: true,
                ..UpstreamTls::default()
            },
        )),
        key(&world.build(&config, ca(certificate().0))),
        key(&world.build(&config, ca(certificate().0))),
        // The same serial number, another certificate: Pingora alone would take them for one.
        key(&world.build(&config, client(certificate()))),
        key(&world.build(&config, client(certificate()))),
        key(&world.build(
            &UpstreamConfig {
                scheme: Scheme::Grpcs,
                ..config.clone()
            },
            UpstreamTls::default(),
        )),
    ];
    let mut distinct = keys.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(
        distinct.len(),
        keys.len(),
        "each differs in what it trusts, shows or expects"
    );
    assert_eq!(
        key(&plain),
        key(&world.build(&config, UpstreamTls::default())),
        "reloads reuse"
    );
    assert_eq!(
        key(&plain),
        key(&plain.for_route(Some(&timeout), true)),
        "a request's own settings do not split the pool"
    );
}

#[test]
fn a_pool_that_keeps_none_never_reuses() {
    let config = UpstreamConfig {
        keepalive_pool: Some(KeepalivePoolConfig {
            idle_timeout: Duration::ZERO,
            ..KeepalivePoolConfig::default()
        }),
        ..config(vec![node("192.0.2.1", 1, 0)])
    };
    let upstream = World::new().build(&config, UpstreamTls::default());
    let picked = pick(&upstream, &[]).expect("a node");
    let key = || {
        upstream
            .peer(&picked, "a", Wish::Any)
            .expect("a peer")
            .reuse_hash()
    };
    assert_ne!(key(), key());
}

#[test]
fn routes_change_timeouts_and_upgrades() {
    let upstream = World::new().build(&config(vec![node("::1", 1, 0)]), UpstreamTls::default());
    let second = Duration::from_secs(1);
    let timeout = TimeoutConfig {
        connect: second,
        send: second * 2,
        read: second * 3,
    };
    let route = upstream.for_route(Some(&timeout), false);
    let picked = pick(&route, &[]).expect("a node");
    assert_eq!(picked.addr.to_string(), "[::1]:80");
    let options = route.peer(&picked, "a", Wish::Any).expect("a peer").options;
    assert_eq!(options.connection_timeout, Some(second));
    assert_eq!(options.total_connection_timeout, Some(second));
    assert_eq!(options.write_timeout, Some(second * 2));
    assert_eq!(options.read_timeout, Some(second * 3));
    assert_eq!(
        options.http_upstream_request_policy.h1_upgrade,
        H1UpgradePolicy::Deny
    );
}

#[test]
fn what_cannot_run_is_refused() {
    let world = World::new();
    let good = || config(vec![node("a.test", 1, 0)]);
    for (config, field) in [
        (
            UpstreamConfig {
                balancer: "chash".to_owned(),
                ..good()
            },
            "type",
        ),
        (
            UpstreamConfig {
                pass_host: PassHost::Rewrite,
                ..good()
            },
            "upstream_host",
        ),
        (
            UpstreamConfig {
                service_name: Some("s".to_owned()),
                ..good()
            },
            "discovery_type",
        ),
        (config(vec![node("a b", 1, 0)]), "nodes"),
    ] {
        let refused = world.try_build(&config, UpstreamTls::default()).err();
        assert_eq!(refused.map(|error| error.field()), Some(field));
    }
}
