//! Start, signals, stop: the process as its supervisor sees it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::client::get;
use crate::harness::gateway::{Builder, Running, claviger};
use crate::harness::{Behaviour, Connection, Gateway, Upstream, wait_until};

/// Far below what anything that is waited for in full would take (30 s and more).
const PROMPT: Duration = Duration::from_secs(5);

fn start_with(builder: Builder, behaviour: Behaviour) -> (Upstream, Gateway) {
    let upstream = Upstream::start(behaviour);
    let gateway = builder
        .resources(format!(
            "routes:\n  - id: all\n    uri: /*\n    upstream: {{ type: roundrobin, nodes: \
             {{ \"{}\": 1 }} }}\n",
            upstream.addr
        ))
        .start();
    (upstream, gateway)
}

fn start(behaviour: Behaviour) -> (Upstream, Gateway) {
    start_with(Gateway::builder(), behaviour)
}

/// A connection whose request the upstream has and does not answer yet.
fn under_way(upstream: &Upstream, gateway: &Gateway) -> Connection {
    let before = upstream.count();
    let mut connection = gateway.connect();
    connection.request("GET", "/", &[("Host", "a")]);
    wait_until("the request is under way", || upstream.count() > before);
    connection
}

#[test]
fn ready_means_that_every_listener_accepts() {
    let gateway = Gateway::start("");
    for addr in [gateway.http(), gateway.https(), gateway.metrics()] {
        TcpStream::connect(addr).expect("a ready gateway accepts");
    }
}

#[test]
fn an_address_that_is_taken_ends_the_start_with_a_message() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let one = format!("{{ ip: 127.0.0.1, port: {} }}", addr.port());
    for place in [
        format!("apisix: {{ node_listen: [{one}] }}"),
        format!("apisix: {{ ssl: {{ listen: [{one}] }} }}"),
        format!("apisix: {{ status: {one} }}"),
        format!("plugin_attr: {{ prometheus: {{ export_addr: {one} }} }}"),
    ] {
        let mut gateway = Gateway::builder().bootstrap_last(&place).spawn();
        assert_eq!(gateway.wait_exit().code(), Some(2), "{place}");
        let said = format!("cannot listen on {addr}: Address already in use");
        assert!(gateway.log().contains(&said), "{}", gateway.log());
    }
}

#[test]
fn configuration_that_cannot_be_used_ends_the_start_with_a_message() {
    let missing = claviger(&["run", "--config", "/no/such/config.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(said.contains("/no/such/config.yaml"), "{said}");

    let bad = "nginx_config: { worker_processes: many }";
    let mut gateway = Gateway::builder().bootstrap_last(bad).spawn();
    assert_eq!(gateway.wait_exit().code(), Some(2));
    assert!(gateway.log().contains("worker_processes"));

    let mut gateway = Gateway::builder().resources("routes: [unclosed").spawn();
    assert_eq!(gateway.wait_exit().code(), Some(2));
    assert!(gateway.log().contains("apisix.yaml:"), "{}", gateway.log());
    assert!(!gateway.dir().join("claviger.pid").exists());

    let (_upstream, gateway) = start(Behaviour::ok());
    let command = gateway
        .command(&["run", "--resources", "/no/such.yaml"])
        .output();
    let output = command.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(gateway.is_ready(), "another start must not harm the first");
    assert!(gateway.dir().join("claviger.pid").exists());
}

#[test]
fn a_graceful_stop_refuses_the_new_and_finishes_the_running() {
    let (upstream, mut gateway) = start(Behaviour::ok());
    let mut idle = gateway.connect();
    idle.request("GET", "/", &[("Host", "a")]);
    assert_eq!(idle.expect_reply().status, 200);
    upstream.set(Behaviour::Slow(Duration::from_secs(2)));
    let mut running = under_way(&upstream, &gateway);

    gateway.signal(Signal::TERM);
    wait_until("new connections are refused", || {
        TcpStream::connect(gateway.http()).is_err() && TcpStream::connect(gateway.https()).is_err()
    });
    let ready = get(gateway.status(), "/status/ready", &[("Host", "status")]);
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("draining"), "{}", ready.text());
    assert!(
        idle.is_closed(),
        "an idle connection takes no more requests"
    );

    let reply = running.expect_reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "late"));
    assert_eq!(reply.header("connection"), Some("close"));
    let answered = Instant::now();
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(answered.elapsed() < PROMPT, "{:?}", answered.elapsed());
    assert!(!gateway.dir().join("claviger.pid").exists());
}

#[test]
fn a_graceful_stop_has_a_bound() {
    let builder = Gateway::builder().bootstrap("nginx_config: { worker_shutdown_timeout: 1s }");
    let (upstream, mut gateway) = start_with(builder, Behaviour::Never);
    let _running = under_way(&upstream, &gateway);
    let began = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < 2 * PROMPT,
        "{took:?}"
    );
    assert!(
        gateway
            .log()
            .contains("connections outlived 1s and are cut")
    );
}

#[test]
fn a_second_signal_and_sigint_end_it_at_once() {
    for signals in [
        &[Signal::INT][..],
        &[Signal::TERM, Signal::TERM],
        &[Signal::QUIT, Signal::INT],
    ] {
        let (upstream, mut gateway) = start(Behaviour::Never);
        let mut running = under_way(&upstream, &gateway);
        let (last, first) = signals.split_last().unwrap();
        for signal in first {
            gateway.signal(*signal);
            wait_until("it drains", || gateway.log().contains("draining: "));
        }
        let began = Instant::now();
        gateway.signal(*last);
        assert_eq!(gateway.wait_exit().code(), Some(0), "{signals:?}");
        assert!(began.elapsed() < PROMPT, "{signals:?}");
        assert!(
            !matches!(running.reply(), Ok(Some(_))),
            "the request is cut"
        );
    }
}

/// Configurations read since the start, as the metrics count them.
fn reloads(gateway: &Gateway) -> f64 {
    let start = "claviger_config_reloads_total{result=\"unchanged\"} ";
    let page = gateway.metrics_page();
    let sample = page.lines().find_map(|line| line.strip_prefix(start));
    sample.expect("counted").parse().unwrap()
}

#[test]
fn sighup_and_the_reload_command_read_the_configuration_again() {
    let (_upstream, gateway) = start(Behaviour::ok());
    // The file stays as it is, so nothing else makes it look.
    let before = reloads(&gateway);
    gateway.signal(Signal::HUP);
    wait_until("it was read again", || reloads(&gateway) > before);
    let before = reloads(&gateway);
    let output = gateway.command(&["reload"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    wait_until("it was read again", || reloads(&gateway) > before);
}

#[test]
fn sigusr1_opens_rotated_logs_again() {
    let (_upstream, gateway) = start(Behaviour::ok());
    let logs = gateway.dir().join("logs");
    let read = |name: &str| fs::read_to_string(logs.join(name)).unwrap_or_default();
    get(gateway.http(), "/before", &[("Host", "a")]);
    wait_until("the line is written", || {
        read("access.log").contains("/before")
    });
    for name in ["access.log", "error.log"] {
        fs::rename(logs.join(name), logs.join(format!("{name}.1"))).unwrap();
    }
    gateway.signal(Signal::USR1);
    wait_until("there is a new file", || {
        ["access.log", "error.log"].map(|name| logs.join(name).exists()) == [true; 2]
    });
    get(gateway.http(), "/after", &[("Host", "a")]);
    gateway.signal(Signal::HUP);
    wait_until("lines go to the new files", || {
        read("access.log").contains("/after")
            && read("error.log").contains("configuration unchanged")
    });
    assert!(!read("access.log.1").contains("/after"));
}

#[test]
fn commands_signal_the_running_process_by_its_pid_file() {
    for (command, said) in [("quit", "drained: the last"), ("stop", "")] {
        let (_upstream, mut gateway) = start(Behaviour::ok());
        let pid = fs::read_to_string(gateway.dir().join("claviger.pid")).unwrap();
        assert_eq!(pid, format!("{}\n", gateway.pid()));
        let output = gateway.command(&[command]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(gateway.wait_exit().code(), Some(0), "{command}");
        assert!(gateway.log().contains(said), "{command}");
        let again = gateway.command(&[command]).output().unwrap();
        assert_eq!(again.status.code(), Some(2), "nobody is there");
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(said.contains("no running gateway"), "{said}");
    }
    let version = claviger(&["version"]);
    assert_eq!(version.status.code(), Some(0));
    let said = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(
        said.starts_with(concat!("claviger ", env!("CARGO_PKG_VERSION"))),
        "{said}"
    );
    assert_eq!(claviger(&["dance"]).status.code(), Some(2));
}

#[test]
fn a_pid_file_of_a_killed_process_signals_nobody_else() {
    let (_upstream, gateway) = start(Behaviour::ok());
    let pid_file = gateway.dir().join("claviger.pid");
    // A number no process has: the kernel's limit is 2^22.
    fs::write(&pid_file, "4194305\n").unwrap();
    assert_eq!(gateway.command(&["stop"]).status().unwrap().code(), Some(2));
    for nonsense in ["-1", "0", "", "1 2"] {
        fs::write(&pid_file, nonsense).unwrap();
        assert_eq!(gateway.command(&["stop"]).status().unwrap().code(), Some(2));
    }
    assert!(gateway.is_ready());
}

#[test]
fn it_has_as_many_workers_as_configured() {
    let builder = Gateway::builder().bootstrap("nginx_config: { worker_processes: 3 }");
    let (_upstream, gateway) = start_with(builder, Behaviour::ok());
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    let workers = names.filter(|name| name.contains("proxy")).count();
    assert_eq!(workers, 3);
}

/// Asks again and again until told to stop; counts what failed.
fn load(gateway: &Gateway, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<(usize, usize)> {
    let (addr, stop) = (gateway.http(), Arc::clone(stop));
    std::thread::spawn(move || {
        let (mut asked, mut failed) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            asked += 1;
            let answered = TcpStream::connect(addr).is_ok_and(|stream| {
                let mut connection = Connection::over_stream(stream);
                connection.request("GET", "/", &[("Host", "a")]);
                matches!(connection.reply(), Ok(Some(reply)) if reply.status == 200)
            });
            failed += usize::from(!answered);
        }
        (asked, failed)
    })
}

#[test]
fn a_successor_takes_over_without_a_failed_request() {
    let (_upstream, mut gateway) = start(Behaviour::ok());
    let stop = Arc::new(AtomicBool::new(false));
    let clients = [(); 4].map(|()| load(&gateway, &stop));

    let mut command = gateway.command(&["run", "--upgrade", "--resources", "apisix.yaml"]);
    let _successor = Running::start(&mut command);
    let socket = gateway.dir().join("upgrade.sock");
    wait_until("the successor waits for the sockets", || socket.exists());
    gateway.signal(Signal::QUIT);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(gateway.is_ready(), "the successor serves");
    for _ in 0..20 {
        assert_eq!(get(gateway.http(), "/", &[("Host", "a")]).status, 200);
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let (asked, failed) = client.join().unwrap();
        assert!(asked > 0);
        assert_eq!(failed, 0, "of {asked}");
    }
    let pid = fs::read_to_string(gateway.dir().join("claviger.pid")).unwrap();
    assert_ne!(pid, format!("{}\n", gateway.pid()));
}

#[test]
fn an_upgrade_that_nobody_answers_ends_with_a_message() {
    let gateway = Gateway::start("");
    let mut command = gateway.command(&["run", "--upgrade", "--resources", "apisix.yaml"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no listening sockets came over"), "{said}");
    assert!(gateway.is_ready(), "the running one goes on");
}
