//! What clients make up: unknown names, floods of them, names that are none.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_name_is_asked_for_once_and_again_when_the_refusal_is_over() {
    let setting = Setting {
        on_demand: "{ neg_ttl: 2 }",
        ..Setting::default()
    };
    let stage = setting.start().await;
    for _ in 0..5 {
        stage.shake("a.demand.test").unwrap_err();
    }
    assert_eq!(stage.reads(), 1);
    assert_eq!(
        stage.metric("claviger_on_demand_refused_names{ssl=\"demand\"}"),
        1.0
    );
    stage.write("a.demand.test").await;
    wait_until("the name is served", || {
        stage.shake("a.demand.test").is_ok()
    });
    assert_eq!(stage.reads(), 2);
    let refused = "claviger_on_demand_refused_names{ssl=\"demand\"}";
    wait_until("the refusal is forgotten", || stage.metric(refused) == 0.0);
    assert_eq!(
        stage.metric("claviger_on_demand_names{ssl=\"demand\"}"),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_name_is_none() {
    let stage = Setting::default().start().await;
    let issued = certs::server(&stage.authority, &["b.demand.test"]);
    let fields = json!({"cert": issued.cert_pem, "key": certs::key_text(&issued)});
    stage.bao.put_v2("edge/tls/a.demand.test", fields).await;
    for _ in 0..3 {
        stage.shake("a.demand.test").unwrap_err();
    }
    assert_eq!(stage.reads(), 1);
    let log = stage.gateway.log();
    assert!(
        log.contains("a.demand.test: the certificate does not cover the name"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unknown_names_reaches_the_manager_no_more_often_than_the_cap() {
    let setting = Setting {
        manager: "ttl: 1, neg_ttl: 1",
        on_demand: "{ unknown_per_second: 10, unknown_burst: 20, timeout: 1 }",
        ..Setting::default()
    };
    let stage = setting.start().await;
    let known = stage.write("known.demand.test").await;
    let shown = stage.shake("known.demand.test").unwrap();
    assert_eq!(shown.serial, serial(&known));
    let memory = resident(&stage.gateway);
    let flood: Vec<_> = (0..many()).map(|n| format!("x{n}.demand.test")).collect();
    let began = std::time::Instant::now();
    let served = AtomicUsize::new(0);
    in_threads(8, &flood, |name| {
        stage.shake(name).unwrap_err();
        if name.ends_with("0.demand.test") {
            stage
                .shake("known.demand.test")
                .expect("a known name is served");
            served.fetch_add(1, Ordering::Relaxed);
        }
    });
    let elapsed = began.elapsed();
    let reads = stage.relay.paths();
    let reads = reads.iter().filter(|path| path.contains("/tls/x")).count();
    let most = 20 + 10 * (elapsed.as_secs() as usize + 1);
    println!(
        "{} names in {elapsed:?}: {reads} reads of at most {most}",
        flood.len()
    );
    assert!((20..=most).contains(&reads), "{reads} reads in {elapsed:?}");
    assert!(served.into_inner() > 0);
    // And it is refreshed meanwhile, or right after.
    let renewed = stage.write("known.demand.test").await;
    wait_until("the rotation arrives", || {
        stage.shake("known.demand.test").unwrap().serial == serial(&renewed)
    });
    let grown = resident(&stage.gateway).saturating_sub(memory);
    assert!(grown < 64 * 1024, "{grown} KiB");
    let capped = "claviger_on_demand_refusals_total{ssl=\"demand\",reason=\"cap\"}";
    assert!(stage.metric(capped) > 0.0);
    for event in ["adopted", "refused", "refused_many", "in_use"] {
        assert_eq!(stage.audited(event, "/tls/x"), 0, "{event}");
    }
    let lines = stage.gateway.log();
    let lines = lines
        .lines()
        .filter(|line| line.contains(".demand.test"))
        .count();
    assert!(
        lines < 100 + 4 * elapsed.as_secs() as usize,
        "{lines} lines of log"
    );
}

fn resident(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_none_reach_nobody() {
    let stage = Setting::default().start().await;
    for name in [
        &b"a/b.demand.test"[..],
        b"..demand.test",
        b"a%2fb.demand.test",
        b"a_b.demand.test",
        b"-a.demand.test",
        b"{sni}.demand.test",
        b"*.demand.test",
        b"a#b.demand.test",
        b"a?version=1.demand.test",
        b"a\\b.demand.test",
    ] {
        let answer = answer_to(stage.gateway.https(), &hello(Some(&server_name(name))));
        let text = String::from_utf8_lossy(name);
        assert_eq!((answer[0], answer[6]), (21, 112), "{text}: {answer:?}");
    }
    let long = format!("{}.demand.test", "a".repeat(64));
    stage.shake(&long).unwrap_err();
    assert_eq!(stage.reads(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_names_than_may_be_kept_push_out_the_ones_used_longest_ago() {
    let setting = Setting {
        on_demand: "{ max_names: 2 }",
        ..Setting::default()
    };
    let stage = setting.start().await;
    let names = ["a", "b", "c", "d"].map(|label| format!("{label}.demand.test"));
    for name in &names {
        stage.write(name).await;
        stage.shake(name).unwrap();
    }
    assert_eq!(
        stage.metric("claviger_on_demand_names{ssl=\"demand\"}"),
        2.0
    );
    assert_eq!(stage.reads(), 4);
    stage.shake(&names[3]).unwrap();
    assert_eq!(stage.reads(), 4, "the newest is in memory");
    stage.shake(&names[0]).unwrap();
    assert_eq!(stage.reads(), 5, "the oldest was fetched again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_nobody_asks_for_are_forgotten() {
    let setting = Setting {
        on_demand: "{ idle: 1 }",
        ..Setting::default()
    };
    let stage = setting.start().await;
    stage.write("a.demand.test").await;
    stage.shake("a.demand.test").unwrap();
    let dropped = "claviger_on_demand_dropped_total{ssl=\"demand\"}";
    wait_until("it is forgotten", || stage.metric(dropped) == 1.0);
    assert_eq!(
        stage.metric("claviger_on_demand_names{ssl=\"demand\"}"),
        0.0
    );
    stage.shake("a.demand.test").unwrap();
    assert_eq!(stage.reads(), 2, "and fetched again");
}
