//! Files that change while the gateway serves.

use std::fs;

use crate::harness::{Behaviour, Gateway, Upstream, wait_until};

fn routes(upstream: &Upstream, hosts: &[&str]) -> String {
    let node = upstream.addr;
    let route = |host: &&str| {
        format!(
            "  - id: {host}\n    host: {host}\n    uri: /*\n    upstream: \
             {{ type: roundrobin, nodes: {{ \"{node}\": 1 }} }}\n"
        )
    };
    let routes: String = hosts.iter().map(route).collect();
    format!("routes:\n{routes}#END\n")
}

fn serves(gateway: &Gateway, host: &str) -> bool {
    gateway.get(host, "/", &[]).status == 200
}

#[test]
fn a_connection_lives_through_a_reload() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(routes(&upstream, &["a.test"]));
    let mut connection = gateway.connect();
    connection.request("GET", "/", &[("Host", "a.test")]);
    assert_eq!(connection.expect_reply().status, 200);
    gateway.write_resources(&routes(&upstream, &["a.test", "b.test"]));
    wait_until("the second host is served", || serves(&gateway, "b.test"));
    connection.request("GET", "/", &[("Host", "b.test")]);
    assert_eq!(connection.expect_reply().status, 200);
}

#[test]
fn one_wrong_item_refuses_alone() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(routes(&upstream, &["a.test", "b.test"]));
    let wrong = routes(&upstream, &["a.test", "b.test"]).replacen("uri: /*", "uri: 7", 1);
    gateway.write_resources(&wrong);
    wait_until("the wrong route refuses", || {
        gateway.get("a.test", "/", &[]).status == 404
    });
    assert!(serves(&gateway, "b.test"), "its neighbour must live");
}

#[test]
fn a_half_written_file_is_not_taken() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(routes(&upstream, &["a.test"]));
    let whole = routes(&upstream, &["a.test", "b.test"]);
    let path = gateway.dir().join("apisix.yaml");
    fs::write(&path, &whole[..whole.len() / 2 + 3]).unwrap();
    assert!(serves(&gateway, "a.test"));
    fs::write(&path, &whole).unwrap();
    wait_until("the whole file is in force", || serves(&gateway, "b.test"));
    assert!(serves(&gateway, "a.test"));
}

#[test]
fn a_hang_up_signal_reads_the_file_again() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(routes(&upstream, &["a.test"]));
    gateway.write_resources(&routes(&upstream, &["b.test"]));
    gateway.signal(rustix::process::Signal::HUP);
    wait_until("the new host is served", || serves(&gateway, "b.test"));
}

#[test]
fn a_swapped_link_counts_as_a_change() {
    // A Kubernetes ConfigMap: apisix.yaml -> ..data/apisix.yaml, and ..data -> a dated folder.
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(routes(&upstream, &["a.test"]));
    let dir = gateway.dir();
    let link = |target: &str, name: &str| {
        let fresh = dir.join(format!("{name}.link"));
        std::os::unix::fs::symlink(target, &fresh).unwrap();
        fs::rename(fresh, dir.join(name)).unwrap();
    };
    for (folder, host) in [("..1", "b.test"), ("..2", "c.test")] {
        fs::create_dir(dir.join(folder)).unwrap();
        fs::write(
            dir.join(folder).join("apisix.yaml"),
            routes(&upstream, &[host]),
        )
        .unwrap();
        link(folder, "..data");
        if host == "b.test" {
            link("..data/apisix.yaml", "apisix.yaml");
        }
        wait_until("the folder linked last is in force", || {
            serves(&gateway, host)
        });
    }
}
