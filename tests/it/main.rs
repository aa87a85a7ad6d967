//! Drives the real program and its parts against real services.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    reason = "a failing helper is a failing test (clippy exempts only functions marked #[test]); \
        pub says what is for other files"
)]

mod harness;

mod managers;
