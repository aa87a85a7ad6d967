//! Values that change while the documents stay: what is built anew is what holds one of them, and
//! the outcome is the one a compilation from nothing has.

use std::fmt::Write as _;

use super::*;
use crate::config::Documents;

fn documents(yaml: &str) -> Documents {
    let env: parse::SharedEnv = Arc::new(|_: &str| None);
    parse::parse(yaml, &"apisix.yaml".into(), &env).expect("YAML is valid")
}

fn compiled(
    bench: &Bench,
    documents: &Documents,
    view: &View,
    previous: Option<&Snapshot>,
) -> Snapshot {
    let now = SystemTime::UNIX_EPOCH;
    compile(documents, view, previous, &bench.env, now)
}

fn reference(n: usize) -> String {
    format!("$secret://vault/main/c/d{}/k{}", n / 100, n % 100)
}

/// The keys of so many consumers; `rotated` says whose changed.
fn keys(consumers: usize, rotated: impl Fn(usize) -> bool) -> View {
    let outcomes = (0..consumers).map(|n| {
        let (text, version) = if rotated(n) {
            (format!("new-{n}"), consumers + n)
        } else {
            (format!("key-{n}"), n)
        };
        let resolved = Resolved::new(&Secret::from(text), version as u64);
        (reference(n).into(), Ok(resolved))
    });
    View::new(outcomes.collect())
}

#[test]
fn one_rotated_document_costs_its_consumers_and_nothing_else() {
    const CONSUMERS: usize = 3000;
    let mut yaml = String::from("consumers:\n");
    for n in 0..CONSUMERS {
        let _ = writeln!(
            yaml,
            "- {{username: c{n}, plugins: {{key-auth: {{key: '{}'}}}}}}",
            reference(n)
        );
    }
    yaml.push_str("routes:\n- {id: 1, uri: /a, plugins: {key-auth: {}}}\n#END\n");
    let (bench, documents) = (Bench::new(), documents(&yaml));
    let before = compiled(&bench, &documents, &keys(CONSUMERS, |_| false), None);
    assert_eq!(before.consumers_built, CONSUMERS);
    let rotated = |n: usize| (700..800).contains(&n);
    let after = compiled(&bench, &documents, &keys(CONSUMERS, rotated), Some(&before));

    assert_eq!(after.consumers_built, 100, "the users of one document");
    assert!(
        Arc::ptr_eq(&before.rest, &after.rest),
        "nothing else is even looked at"
    );
    for n in 0..CONSUMERS {
        let (old, new) = (format!("key-{n}"), format!("new-{n}"));
        let (right, wrong) = if rotated(n) { (new, old) } else { (old, new) };
        let found = after.consumers.find("key-auth", right.as_bytes());
        let found = found.expect("the key in force leads to its consumer");
        assert_eq!(*found.consumer.username, *format!("c{n}"));
        assert!(after.consumers.find("key-auth", wrong.as_bytes()).is_none());
    }
    assert!(
        before.consumers.find("key-auth", b"key-700").is_some(),
        "the older snapshot goes on as it was"
    );
    let shared = (0..CONSUMERS).filter(|n| {
        let at = |snapshot: &Snapshot| snapshot.roster.get(*n).map(Arc::as_ptr);
        at(&before) == at(&after)
    });
    assert_eq!(shared.count(), CONSUMERS - 100);
}

/// Consumers that contest a key, a credential, a group, metadata: all that one value may move.
const MANIFOLD: &str = "
consumer_groups:
  - { id: g, plugins: { mocking: { response_example: $env://GROUP } } }
plugin_metadata:
  - { id: prometheus, note: $env://META }
consumers:
  - { username: alice, plugins: { key-auth: { key: $env://ALICE } } }
  - { id: alice/credentials/c, plugins: { key-auth: { key: $env://CRED } } }
  - { username: bob, plugins: { key-auth: { key: $env://BOB }, mocking: { response_example: $env://BODY } } }
  - { id: bob/credentials/c, plugins: { key-auth: { key: literal } } }
  - { username: carol, group_id: g, plugins: { key-auth: { key: $env://CAROL } } }
  - { username: dave, plugins: { key-auth: { key: daves }, prometheus: {} } }
routes:
  - { id: 1, uri: /a, plugins: { mocking: { response_example: $env://ROUTE } } }
";

const NAMES: [&str; 8] = [
    "ALICE", "CRED", "BOB", "BODY", "CAROL", "GROUP", "META", "ROUTE",
];

/// What anyone could see of a snapshot.
fn seen(snapshot: &Snapshot) -> (Vec<String>, Vec<String>, Vec<ItemCount>) {
    let keys = ["1", "2", "3", "1-", "2-", "3-", "literal", "daves"];
    let found = keys.iter().map(|key| {
        let entry = snapshot.consumers.find("key-auth", key.as_bytes());
        let entry = entry.map(|entry| {
            let consumer = &entry.consumer;
            let named = snapshot.consumers.named(&consumer.username);
            let same = named.is_some_and(|named| Arc::ptr_eq(named, consumer));
            (
                consumer.username.clone(),
                entry.credential_id().cloned(),
                same,
            )
        });
        format!("{key}: {entry:?}")
    });
    let findings = snapshot.diagnostics.iter().map(ToString::to_string);
    let mut counts: Vec<_> = snapshot.counts.iter().collect();
    counts.sort_unstable_by_key(|(kind, _)| **kind);
    let counts = counts.into_iter().map(|(_, count)| *count);
    (found.collect(), findings.collect(), counts.collect())
}

#[test]
fn any_walk_through_values_ends_where_a_compilation_from_nothing_does() {
    let (bench, documents) = (Bench::new(), documents(MANIFOLD));
    // Small numbers, so that keys collide; a simple generator, so that a failure can be repeated.
    let mut state = 42_u64;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    let mut values: Vec<Option<String>> = vec![Some("1".to_owned()); NAMES.len()];
    let mut previous: Option<Snapshot> = None;
    for step in 0..200 {
        for _ in 0..=random(2) {
            let which = usize::try_from(random(NAMES.len() as u64)).expect("it is small");
            values[which] = match random(4) {
                0 => None,
                n => Some(format!("{n}{}", "-".repeat(usize::from(random(2) == 1)))),
            };
        }
        let outcomes = NAMES.iter().zip(&values).map(|(name, value)| {
            let outcome = match value {
                Some(text) => {
                    let version = text.bytes().fold(0, |sum, b| sum * 256 + u64::from(b));
                    Ok(Resolved::new(&Secret::from(text.clone()), version))
                }
                None => Err(Unresolved::because("gone")),
            };
            (format!("$env://{name}").into(), outcome)
        });
        let view = View::new(outcomes.collect());
        let walked = compiled(&bench, &documents, &view, previous.as_ref());
        let anew = compiled(&bench, &documents, &view, None);
        assert_eq!(seen(&walked), seen(&anew), "step {step}: {values:?}");
        previous = Some(walked);
    }
}

#[test]
fn other_credentials_leave_the_consumer_itself_alone() {
    let (bench, documents) = (Bench::new(), documents(MANIFOLD));
    let with = |alice: &'static str, body: &'static str| {
        let others = ["CRED", "BOB", "CAROL", "GROUP", "META", "ROUTE"];
        let names = others.map(|name| format!("$env://{name}"));
        let mut all: Vec<(&str, Option<&str>)> =
            names.iter().map(|name| (&**name, Some("x"))).collect();
        all.push(("$env://ALICE", Some(alice)));
        all.push(("$env://BODY", Some(body)));
        view(&all)
    };
    let before = compiled(&bench, &documents, &with("a", "b"), None);
    let named = |snapshot: &Snapshot, name: &str| {
        Arc::clone(snapshot.consumers.named(name).expect("it is there"))
    };
    let rotated = compiled(&bench, &documents, &with("aa", "b"), Some(&before));
    assert!(Arc::ptr_eq(
        &named(&before, "alice"),
        &named(&rotated, "alice")
    ));
    assert_eq!(rotated.consumers_built, 1, "not even its other credential");
    let plugin = compiled(&bench, &documents, &with("a", "bb"), Some(&before));
    assert!(!Arc::ptr_eq(&named(&before, "bob"), &named(&plugin, "bob")));
    assert_eq!(
        plugin.consumers_built, 2,
        "bob, and the credential that leads to him"
    );
}
