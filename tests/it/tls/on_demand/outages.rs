//! Managers that are away or slow.

use std::time::Instant;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_stops_ends_no_known_name_and_heals_the_others() {
    let setting = Setting {
        manager: "ttl: 1, neg_ttl: 1, timeout: 1",
        ..Setting::default()
    };
    let mut stage = setting.start_with(OpenBao::start_server().await);
    let known = stage.write("known.demand.test").await;
    stage.write("new.demand.test").await;
    stage.shake("known.demand.test").unwrap();
    stage.bao.stop();
    // Longer than the ttl: values that are overdue serve on.
    let silent = "claviger_secret_circuit_state{manager=\"vault/main\"}";
    wait_until("the manager is silent", || {
        let shown = stage
            .shake("known.demand.test")
            .expect("known names serve on");
        assert_eq!(shown.serial, serial(&known));
        stage.metric(silent) >= 1.0
    });
    let began = Instant::now();
    stage.shake("new.demand.test").unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        stage.shake("known.demand.test").unwrap().serial,
        serial(&known)
    );

    stage.bao.restart().await;
    stage.bao.unseal().await;
    wait_until("unknown names heal", || {
        stage.shake("new.demand.test").is_ok()
    });
    let renewed = stage.write("known.demand.test").await;
    wait_until("rotations arrive again", || {
        stage.shake("known.demand.test").unwrap().serial == serial(&renewed)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_manager_costs_a_handshake_its_time_limit_and_the_next_nothing() {
    let setting = Setting {
        on_demand: "{ timeout: 0.3 }",
        ..Setting::default()
    };
    let stage = setting.start().await;
    stage.write("a.demand.test").await;
    stage.relay.set(Relaying::Late(Duration::from_secs(2)));
    let began = Instant::now();
    stage.shake("a.demand.test").unwrap_err();
    let took = began.elapsed();
    assert!((0.3..2.0).contains(&took.as_secs_f64()), "{took:?}");
    // The fetch went on without it.
    let held = "claviger_on_demand_names{ssl=\"demand\"}";
    wait_until("it is there", || stage.metric(held) == 1.0);
    stage.shake("a.demand.test").unwrap();
    assert_eq!(stage.reads(), 1);
    let late = "claviger_on_demand_refusals_total{ssl=\"demand\",reason=\"timeout\"}";
    assert_eq!(stage.metric(late), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_wait_are_bounded() {
    let setting = Setting {
        on_demand: "{ timeout: 10, waiting: 4, concurrency: 2 }",
        ..Setting::default()
    };
    let stage = setting.start().await;
    stage.write("known.demand.test").await;
    stage.shake("known.demand.test").unwrap();
    stage.relay.set(Relaying::Late(Duration::from_secs(3)));
    let names: Vec<_> = (0..12).map(|n| format!("w{n}.demand.test")).collect();
    let quick = AtomicUsize::new(0);
    in_threads(12, &names, |name| {
        let began = Instant::now();
        stage.shake(name).unwrap_err();
        if began.elapsed() < Duration::from_secs(2) {
            quick.fetch_add(1, Ordering::Relaxed);
        }
        stage
            .shake("known.demand.test")
            .expect("known names wait for nobody");
    });
    // Twelve asked; on a busy machine some ask when others are through.
    let quick = quick.into_inner();
    assert!(
        (4..=8).contains(&quick),
        "beyond four they are refused at once: {quick}"
    );
    assert_eq!(
        stage.metric("claviger_on_demand_waiting{ssl=\"demand\"}"),
        0.0
    );
}
