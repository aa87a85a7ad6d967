//! Vectors of other implementations: libxcrypt (through Python's `crypt`), the reference
//! implementation of argon2.

use super::*;

/// Password and hash.
const VECTORS: &[(&str, &str)] = &[
    (
        "hunter2",
        "$6$saltstring$q2.778Y7vt0Ij2OIl01VlxEE6SEh8ZCtgFbyJX8fYkl5S7gx32QO24FVg.rs4DkoAs9t6R19x4z8g69teXFxA0",
    ),
    (
        "p:ä ss",
        "$6$rounds=1000$0123456789abcdef$AgObnK6A87uJswDXfgLaj2aHtzMzf7PFO9GgejnrDf17RxUTTFdLUKKnCl2jfpOo5XOmw31OH.9N.UaCscKgM1",
    ),
    (
        "hunter2",
        "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm",
    ),
    (
        "hunter2",
        "$2a$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm",
    ),
    (
        "p:ä ss",
        "$2y$05$abcdefghijklmnopqrstuudQgLBmbLmYcCgijfmy4.QMlwkqLHibu",
    ),
    (
        "password",
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
    ),
    (
        "password",
        "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc",
    ),
];

/// bcrypt of 72 times `a`.
const LONG: &str = "$2b$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe";

fn hash(text: &str) -> Hash {
    match Hash::parse(text) {
        Some(Ok(hash)) => hash,
        Some(Err(error)) => panic!("{text} {error}"),
        None => panic!("{text} is a hash"),
    }
}

fn refused(text: &str) -> Unusable {
    match Hash::parse(text) {
        Some(Err(error)) => error,
        Some(Ok(_)) => panic!("{text} must be refused"),
        None => panic!("{text} must not be taken for a password"),
    }
}

#[test]
fn hashes_of_other_programs_are_understood() {
    for (password, text) in VECTORS {
        let hash = hash(text);
        assert!(hash.is_of(password.as_bytes()), "{text}");
        let longer = format!("{password} ");
        for wrong in ["", &longer, text] {
            assert!(!hash.is_of(wrong.as_bytes()), "{wrong:?} of {text}");
        }
        let ended = [password.as_bytes(), b"\0"].concat();
        assert!(!hash.is_of(&ended), "a zero byte counts: {text}");
    }
}

#[test]
fn only_one_password_has_a_bcrypt_hash() {
    let (hash, password) = (hash(LONG), "a".repeat(72));
    assert!(hash.is_of(password.as_bytes()));
    assert!(!hash.is_of(format!("{password}a").as_bytes()));
    assert!(!hash.is_of(&password.as_bytes()[..71]));
}

#[test]
fn a_password_of_absurd_length_is_not_computed() {
    // Would take minutes: the cost of sha512-crypt grows with the square of the length.
    let password = vec![b'a'; 1 << 20];
    for (_, text) in VECTORS {
        assert!(!hash(text).is_of(&password));
    }
}

#[test]
fn damaged_hashes_are_refused_and_never_passwords() {
    let argon =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    for (from, to) in [
        ("v=19", "v=18"),
        ("v=19$", ""),
        ("m=256", "m=+256"),
        ("m=256", "m=0256"),
        ("m=256,t=2", "t=2,m=256"),
        ("p=1", "p=1,x=1"),
        ("p=1", "p=0"),
        ("m=256", "m=7"),
        ("t=2", "t=0"),
        ("m=256", "m=99999999999"),
        ("c29tZXNhbHQ", "c29t"),
        ("c29tZXNhbHQ", "c29tZXNhbHQ="),
        ("$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", ""),
        (
            "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "nf65EOgLrQMR",
        ),
        ("i/4", "i/5"),
        ("i/4", "i/4$"),
        ("i/4", "i/4\n"),
    ] {
        let text = argon.replace(from, to);
        assert_ne!(text, argon);
        assert!(refused(&text).starts_with("is no argon2id hash"), "{text}");
    }
    for text in [
        "$argon2id",
        "$argon2id$",
        "$2b$",
        "$2b$10$short",
        "$6$",
        "$6$salt$short",
    ] {
        assert!(refused(text).starts_with("is no "), "{text}");
    }
    let bcrypt = "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";
    for (from, to) in [
        ("$04$", "$4$"),
        ("$04$", "$03$"),
        ("$04$", "$+4$"),
        ("Vm", "V"),
        ("Vm", "Vm="),
        ("Vm", "V_"),
        ("uuV3", "uvV3"),
    ] {
        let text = bcrypt.replace(from, to);
        assert!(refused(&text).starts_with("is no bcrypt hash"), "{text}");
    }
    let (_, sha) = VECTORS[1];
    for (from, to) in [
        ("rounds=1000", "rounds=999"),
        ("rounds=1000", "rounds=01000"),
        ("rounds=1000", "rounds="),
        ("rounds=1000", "1000"),
        ("0123456789abcdef", "0123456789abcdefg"),
        ("0123456789abcdef", ""),
        ("0123456789abcdef", "salt salt"),
        ("KgM1", "KgM"),
        ("KgM1", "KgM1$"),
    ] {
        let text = sha.replace(from, to);
        assert!(
            refused(&text).starts_with("is no sha512-crypt hash"),
            "{text}"
        );
    }
}

#[test]
fn absurd_costs_are_refused() {
    let argon = |costs: &str| {
        refused(&format!(
            "$argon2id$v=19${costs}$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
        ))
    };
    for text in [
        argon("m=1048577,t=1,p=1"),
        argon("m=4294967295,t=1,p=1"),
        argon("m=1048576,t=5,p=1"),
        argon("m=256,t=4294967295,p=1"),
        argon("m=65536,t=1,p=17"),
        refused("$2b$17$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm"),
        refused("$2b$31$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm"),
        refused(&VECTORS[1].1.replace("1000", "2000001")),
        refused(&VECTORS[1].1.replace("1000", "999999999")),
    ] {
        assert!(text.starts_with("would cost too much"), "{text}");
    }
}

#[test]
fn other_hashes_are_refused_by_name() {
    for text in [
        "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8",
        "$argon2d$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8",
        "$ARGON2ID$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        "$5$saltstring$9JBjAeLRHX/Lm/1Njo98nbLiUsNRFEuARumLKkxJMm7",
        "$1$saltstri$T2/ewcphylZigUqYmbojG.",
        "$y$j9T$abcdefgh$PMO/ybZGzwvHUDcEDrYISVNPmdY1pppLlI6NvjamW79",
        "$2x$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm",
        "$2B$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm",
        "$pbkdf2-sha256$29000$N2YMIWQsBWBMae09x1jrPQ$1t8iyB2A.WF/Z5JZv.lfCIhXXN33N23OSgQYThBYRfk",
        "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD",
        "$7$C6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D",
        "$P$984478476IagS59wHZvyQMArzfx58u.",
        "$apr1$saltsalt$6A1SmzxH.sNXFmVz5QYFd/",
        "$md5,rounds=904$Vc3VgyFx44iS8.Yu$Scf90iLWN6O6mT9TA06NK/",
        "$future-1$x=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
    ] {
        assert_eq!(refused(text), UNSUPPORTED, "{text}");
    }
}

#[test]
fn passwords_that_merely_begin_with_a_dollar_are_passwords() {
    for text in [
        "",
        "$",
        "$$",
        "hunter2",
        "$ecret",
        "$uper$ecret",
        "$1000",
        "$6",
        "$a$b$c",
        "a$6$salt$x",
        "$money$ in the bank",
        "$$6$",
        "$x$short$salt",
        "pa$$word$2b$10$",
    ] {
        assert!(Hash::parse(text).is_none(), "{text} is a password");
    }
}
