//! Drives the real program: each test starts it with a real configuration and talks to it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a failing helper is a failing test (clippy exempts only functions marked #[test]); \
        pub says what is for other files"
)]

mod harness;

mod audit;
mod bad_requests;
mod chaos;
mod check;
mod consumers;
mod everywhere;
mod examples;
mod fail_closed;
mod heap_scan;
mod hot_reload;
mod layers;
mod leaks;
mod lifecycle;
mod managers;
mod observability;
mod plugins;
mod protocols;
mod proxy_protocol;
mod quickstart;
mod resolve;
mod scale;
mod secret_rotation;
mod smoke;
mod tls;
mod tokens;
mod upstream;
