//! Files that change while the gateway serves.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::{Behaviour, Connection, Gateway, Upstream, wait_until};

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

fn sample(gateway: &Gateway, series: &str) -> f64 {
    let page = gateway.metrics_page();
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

fn rejected(gateway: &Gateway) -> f64 {
    sample(
        gateway,
        "claviger_config_reloads_total{result=\"rejected\"}",
    )
}

fn revision(gateway: &Gateway) -> f64 {
    sample(gateway, "claviger_config_revision")
}

#[test]
fn a_bad_file_keeps_the_old_one_and_says_where() {
    let upstream = Upstream::start(Behaviour::ok());
    let good = routes(&upstream, &["a.test"]);
    let gateway = Gateway::start(good.clone());
    for (bad, place) in [
        (
            "routes:\n\t- id: 1\n#END\n",
            "apisix.yaml:2:2: error[syntax]",
        ),
        ("routes:\n  - id: 1\n    uri: \"/\n#END\n", "apisix.yaml:"),
        (
            "routes: [{id: 1, uri: ${{NOT_SET_HERE}}}]\n#END\n",
            "apisix.yaml:1:",
        ),
    ] {
        let before = rejected(&gateway);
        gateway.write_resources(bad);
        wait_until("it is rejected", || rejected(&gateway) > before);
        let log = gateway.log();
        let said = log
            .lines()
            .rfind(|line| line.contains("configuration rejected"));
        assert!(
            said.is_some_and(|line| line.contains(place)),
            "{place}: {said:?}"
        );
        assert!(serves(&gateway, "a.test"), "the old one must serve on");
    }
    assert!(sample(&gateway, "claviger_config_last_reload_success") < 0.5);
    // The file that is in force comes back: nothing is made anew, and all is well again.
    gateway.write_resources(&good);
    wait_until("all is well again", || {
        sample(&gateway, "claviger_config_last_reload_success") > 0.5
    });
    assert!(
        (revision(&gateway) - 1.0).abs() < 0.5,
        "nothing has changed"
    );
}

#[test]
fn a_missing_file_keeps_the_old_one_until_it_is_back() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(routes(&upstream, &["a.test"]));
    fs::remove_file(gateway.dir().join("apisix.yaml")).unwrap();
    wait_until("it is rejected", || rejected(&gateway) > 0.5);
    assert!(serves(&gateway, "a.test"));
    gateway.write_resources(&routes(&upstream, &["b.test"]));
    wait_until("the new file is in force", || serves(&gateway, "b.test"));
}

#[test]
fn a_file_written_in_place_is_taken() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(routes(&upstream, &["a.test"]));
    let path = gateway.dir().join("apisix.yaml");
    fs::write(&path, routes(&upstream, &["b.test"])).unwrap();
    wait_until("the new host is served", || serves(&gateway, "b.test"));
    // Without the line #END it is taken once it is still.
    let unmarked = routes(&upstream, &["c.test"]).replace("#END\n", "");
    fs::write(&path, unmarked).unwrap();
    wait_until("the new host is served", || serves(&gateway, "c.test"));
}

#[test]
fn an_equal_file_changes_nothing() {
    // References in use: their first values must not count as a change of secrets either.
    let upstream = Upstream::start(Behaviour::ok());
    let keys = "consumers:\n  - username: a\n    plugins: { key-auth: { key: $env://KEY } }\n";
    let resources = |hosts: &[&str]| format!("{keys}{}", routes(&upstream, hosts));
    let gateway = Gateway::builder()
        .env("KEY", "open-sesame")
        .resources(resources(&["a.test"]))
        .start();
    gateway.write_resources(&resources(&["a.test"]));
    wait_until("the equal file was looked at", || {
        gateway.log().contains("configuration unchanged")
    });
    gateway.write_resources(&resources(&["b.test"]));
    wait_until("the new host is served", || serves(&gateway, "b.test"));
    assert!(
        (revision(&gateway) - 2.0).abs() < 0.5,
        "{}",
        revision(&gateway)
    );
}

#[test]
fn the_parts_of_a_folder_change_alone() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::builder()
        .folder()
        .part("10.yaml", &routes(&upstream, &["a.test"]))
        .part("20.yaml", &routes(&upstream, &["b.test"]))
        .start();
    assert!(serves(&gateway, "a.test") && serves(&gateway, "b.test"));
    let part = |name: &str| gateway.dir().join("resources").join(name);
    fs::write(part("30.yaml"), routes(&upstream, &["c.test"])).unwrap();
    wait_until("a new part is taken", || serves(&gateway, "c.test"));
    fs::remove_file(part("20.yaml")).unwrap();
    wait_until("a part that is gone is gone", || {
        !serves(&gateway, "b.test")
    });
    assert!(serves(&gateway, "a.test"));
}

#[test]
fn many_writes_end_with_the_last() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(routes(&upstream, &["h0.test"]));
    for n in 1..=50 {
        gateway.write_resources(&routes(&upstream, &[&format!("h{n}.test")]));
    }
    wait_until("the last one is in force", || serves(&gateway, "h50.test"));
    assert!(!serves(&gateway, "h0.test"));
}

#[test]
fn no_request_fails_while_configurations_change() {
    let upstream = Upstream::start(Behaviour::ok());
    let gateway = Gateway::start(routes(&upstream, &["a.test"]));
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = Connection::open(gateway.http());
                while !stop.load(Ordering::Relaxed) {
                    connection.request("GET", "/", &[("Host", "a.test")]);
                    assert_eq!(connection.expect_reply().status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 1..=20 {
            let fresh = format!("h{n}.test");
            gateway.write_resources(&routes(&upstream, &["a.test", &fresh]));
            wait_until("it is in force", || serves(&gateway, &fresh));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > 20, "there was load");
    assert!((rejected(&gateway)).abs() < 0.5);
}

#[test]
fn what_did_not_change_goes_on_where_it_was() {
    let nodes = [
        Upstream::start(Behaviour::ok()),
        Upstream::start(Behaviour::ok()),
    ];
    let resources = |more: &str| {
        let [one, two] = nodes.each_ref().map(|node| node.addr);
        format!(
            "routes:\n  - id: kept\n    host: kept.test\n    uri: /*\n    plugins: {{ prometheus: {{}} }}\n    \
             upstream: {{ type: roundrobin, nodes: {{ \"{one}\": 1, \"{two}\": 1 }} }}\n{more}#END\n"
        )
    };
    let gateway = Gateway::start(resources(""));
    for n in 1..=5 {
        assert!(serves(&gateway, "kept.test"));
        let host = format!("more{n}.test");
        let more = format!(
            "  - id: more\n    host: {host}\n    uri: /*\n    plugins: {{ mocking: {{ response_example: hi }} }}\n"
        );
        gateway.write_resources(&resources(&more));
        wait_until("the other route is in force", || serves(&gateway, &host));
    }
    assert!(serves(&gateway, "kept.test"));
    // A balancer made anew at each reload would have begun with the same node each time.
    assert_eq!(nodes.each_ref().map(Upstream::count), [3, 3]);
    wait_until("all six requests stand in one series", || {
        let page = gateway.metrics_page();
        let mut series = page
            .lines()
            .filter(|line| line.starts_with("apisix_http_status{"));
        series.any(|line| line.contains("route=\"kept\"") && line.ends_with(" 6"))
    });
}

#[test]
fn a_route_with_a_wrong_condition_refuses_as_a_whole() {
    let upstream = Upstream::start(Behaviour::ok());
    let node = upstream.addr;
    let upstream = format!("upstream: {{ nodes: {{ \"{node}\": 1 }} }}");
    let gateway = Gateway::start(format!(
        "routes:\n  - {{ id: broad, uri: /*, {upstream} }}\n  - {{ id: guarded, uri: /guarded/*, vars: \
         [[arg_a, \"~!!\", x]], {upstream} }}\n"
    ));
    assert_eq!(gateway.get("a.test", "/open", &[]).status, 200);
    assert_eq!(gateway.get("a.test", "/guarded/x", &[]).status, 404);
    let refused = sample(&gateway, "claviger_config_refused_items{kind=\"routes\"}");
    assert!((refused - 1.0).abs() < 0.5, "{refused}");
    assert!(
        gateway
            .log()
            .contains("failed to validate the 'vars' expression")
    );
}
