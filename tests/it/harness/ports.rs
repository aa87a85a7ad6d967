//! Ports that no other test takes at the same time.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the kernel's ephemeral range, so that no outgoing connection takes one.
const FIRST: u32 = 10_000;
const LAST: u32 = 32_000;
/// Ports a runner's slot has to itself.
const PER_SLOT: u32 = 100;
/// Slots a checkout has to itself, so that two checkouts can run their tests at once.
const SLOTS: u32 = 20;

/// The next number to try in this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A free TCP port on the loopback address.
pub fn free() -> u16 {
    let start = slot_start();
    for _ in 0..1000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + step) % (LAST - FIRST);
        let port = u16::try_from(port).expect("range ends below 65536");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Under nextest every test is a process with a slot; under `cargo test` tests are threads of
/// one process, which share `NEXT`.
fn slot_start() -> u32 {
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT")
        .ok()
        .and_then(|slot| slot.parse().ok())
        .unwrap_or_else(std::process::id);
    let mut hasher = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
    let checkout = (hasher.finish() % 11) as u32;
    (checkout * SLOTS + slot % SLOTS) * PER_SLOT
}
