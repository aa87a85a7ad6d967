use super::*;
use crate::clock::ManualClock;

const LIFETIME: Duration = Duration::from_secs(600);

fn value(keys: &[u8]) -> SharedKeys {
    let texts: Vec<_> = keys
        .iter()
        .map(|key| format!("{key:02x}").repeat(32))
        .collect();
    SharedKeys::parse(&texts.join("\n")).expect("keys")
}

fn name(key: u8) -> [u8; KEY_NAME] {
    *value(&[key]).keys()[0].name()
}

fn shared() -> (Arc<ManualClock>, TicketKeys) {
    let clock = Arc::new(ManualClock::new());
    (clock.clone(), TicketKeys::shared(LIFETIME, clock))
}

/// The keys that open tickets, of these; the one that seals first.
fn window(keys: &TicketKeys, of: &[u8]) -> Vec<u8> {
    let sealing = keys.seal().map(|key| key.name);
    let mut open: Vec<_> = of
        .iter()
        .copied()
        .filter(|key| keys.open(&name(*key)).is_some())
        .collect();
    open.sort_by_key(|key| sealing != Some(name(*key)));
    open
}

#[test]
fn without_a_value_no_ticket_is_sealed_or_opened() {
    let (_, keys) = shared();
    assert!(keys.seal().is_none() && keys.open(&name(1)).is_none());
    keys.adopt(Some(&value(&[1])));
    assert_eq!(window(&keys, &[1, 2]), [1]);
    keys.adopt(None);
    assert!(keys.seal().is_none() && keys.open(&name(1)).is_none());
    assert_eq!(
        keys.report(),
        TicketReport {
            keys: 0,
            age: None,
            generation: 1
        }
    );
}

#[test]
fn the_two_keys_before_a_single_one_open_until_their_tickets_are_over() {
    let (clock, keys) = shared();
    for key in 1..=4 {
        keys.adopt(Some(&value(&[key])));
    }
    assert_eq!(window(&keys, &[1, 2, 3, 4]), [4, 2, 3]);
    // The same again changes nothing, and prolongs nothing.
    clock.advance(LIFETIME);
    keys.adopt(Some(&value(&[4])));
    assert_eq!(window(&keys, &[1, 2, 3, 4]), [4, 2, 3]);
    assert_eq!(keys.report().generation, 4);
    assert_eq!(keys.report().age, Some(LIFETIME));
    clock.advance(LATECOMERS);
    assert_eq!(window(&keys, &[1, 2, 3, 4]), [4]);
    assert_eq!(keys.report().keys, 3, "nobody has looked yet");
    keys.turn();
    assert_eq!(keys.report().keys, 1);
    assert_eq!(keys.due(), None);
}

#[test]
fn a_value_of_several_keys_is_the_whole_window() {
    let (_, keys) = shared();
    keys.adopt(Some(&value(&[1])));
    keys.adopt(Some(&value(&[3, 2])));
    assert_eq!(window(&keys, &[1, 2, 3]), [3, 2]);
    keys.adopt(Some(&value(&[2, 3, 4])));
    assert_eq!(window(&keys, &[1, 2, 3, 4]), [2, 3, 4]);
    assert_eq!(keys.report().generation, 3);
    keys.adopt(Some(&value(&[2])));
    assert_eq!(keys.report().generation, 3, "the same seals");
    assert_eq!(window(&keys, &[2, 3, 4]), [2, 3, 4]);
}

#[test]
fn a_key_that_comes_back_stays() {
    let (clock, keys) = shared();
    for key in [1, 2, 1] {
        keys.adopt(Some(&value(&[key])));
    }
    assert_eq!(window(&keys, &[1, 2]), [1, 2]);
    clock.advance(LIFETIME + LATECOMERS);
    keys.turn();
    assert_eq!(window(&keys, &[1, 2]), [1]);
}

#[test]
fn only_tickets_of_the_newest_key_are_not_replaced() {
    let (_, keys) = shared();
    keys.adopt(Some(&value(&[2, 1])));
    let newest = |key| keys.open(&name(key)).map(|(_, newest)| newest);
    assert_eq!(
        [newest(2), newest(1), newest(3)],
        [Some(true), Some(false), None]
    );
    let counts = keys.counts();
    let counts =
        [&counts.newest, &counts.older, &counts.unknown].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [1, 1, 1]);
}

#[test]
fn random_keys_change_and_go_with_their_tickets() {
    let clock = Arc::new(ManualClock::new());
    let rotate = Duration::from_secs(3600);
    let keys = TicketKeys::random(rotate, LIFETIME, clock.clone()).expect("random bytes");
    let sealing = || keys.seal().expect("a key").name;
    let first = sealing();
    keys.turn();
    assert_eq!(sealing(), first, "not yet");
    keys.adopt(None);
    assert_eq!(sealing(), first, "no reference has a say");
    clock.advance(rotate);
    keys.turn();
    let second = sealing();
    assert_ne!(first, second);
    assert!(matches!(keys.open(&first), Some((_, false))));
    assert_eq!(keys.due(), Some(clock.now() + LIFETIME));
    clock.advance(LIFETIME);
    assert!(keys.open(&first).is_none());
    keys.turn();
    assert_eq!(
        keys.report(),
        TicketReport {
            keys: 1,
            age: Some(LIFETIME),
            generation: 2
        }
    );
    assert_eq!(sealing(), second);
}

#[test]
fn random_keys_that_change_often_are_three_at_most() {
    let clock = Arc::new(ManualClock::new());
    let rotate = Duration::from_secs(1);
    let keys = TicketKeys::random(rotate, LIFETIME, clock.clone()).expect("random bytes");
    let mut names = Vec::new();
    for _ in 0..5 {
        names.push(keys.seal().expect("a key").name);
        clock.advance(rotate);
        keys.turn();
    }
    names.push(keys.seal().expect("a key").name);
    let open: Vec<_> = names.iter().map(|name| keys.open(name).is_some()).collect();
    assert_eq!(open, [false, false, false, true, true, true]);
}

#[test]
fn equal_secrets_are_equal_keys_however_they_are_written() {
    let secret: Vec<u8> = (0..48_u8).map(|n| n.wrapping_mul(5) ^ 0xa5).collect();
    let hex: String = secret.iter().map(|byte| format!("{byte:02X}")).collect();
    let alphabets = [
        base64::engine::general_purpose::STANDARD,
        base64::engine::general_purpose::STANDARD_NO_PAD,
        base64::engine::general_purpose::URL_SAFE,
        base64::engine::general_purpose::URL_SAFE_NO_PAD,
    ];
    let of = |text: &str| {
        let parsed = SharedKeys::parse(text).expect("a key");
        let key = parsed.keys()[0].open().expect("it is whole");
        (key.name, *key.cipher, *key.mac)
    };
    let expected = of(&hex);
    for engine in alphabets {
        let text = base64::Engine::encode(&engine, &secret);
        assert_eq!(of(&format!(" {text}\r\n")), expected, "{text}");
    }
    assert_ne!(expected.1, expected.2);
    assert_ne!(of(&"00".repeat(32)).0, of(&"00".repeat(33)).0);
}

#[test]
fn what_is_no_key_is_told_by_its_number_and_never_repeated() {
    let good = "ab".repeat(32);
    let told = |text: &str| match SharedKeys::parse(text) {
        Ok(keys) => format!("{} keys", keys.keys().len()),
        Err(error) => error.to_string(),
    };
    for (text, expected) in [
        (format!("{good},{good}\n{good}"), "1 keys"),
        (format!("{good}, {}", "cd".repeat(256)), "2 keys"),
        (String::new(), "one to three"),
        (" \n,".to_owned(), "one to three"),
        (format!("{good} {good} {good} {good}"), "one to three"),
        ("ab".repeat(31), "key 1"),
        (format!("{good}\n{}", "ab".repeat(257)), "key 2"),
        (
            format!("{good}\nhunter2-hunter2-hunter2-hunter2-hunter2-hunter2!"),
            "key 2",
        ),
        ("-+".repeat(32), "key 1"),
    ] {
        let told = told(&text);
        assert!(told.contains(expected), "{text}: {told}");
        assert!(!told.contains("hunter2"));
    }
}
