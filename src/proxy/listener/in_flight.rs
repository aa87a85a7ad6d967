//! Handshakes in flight per client address, so that no single one holds all there may be. The table
//! is as large as the handshakes in flight, and split so that cores rarely meet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;

/// Counts what is under way for each address, up to a limit.
pub struct PerAddress {
    limit: usize,
    hasher: RandomState,
    shards: Box<[Shard]>,
}

/// On a cache line of its own: a lock held for some tens of nanoseconds, which a core finds taken
/// only where another has an address of the same shard at that moment.
#[repr(align(64))]
struct Shard(Mutex<HashMap<Source, usize, RandomState>>);

/// What is counted as one address: for IPv6 the network that one subscriber gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4(u32),
    /// The upper 64 bits.
    V6(u64),
}

/// One handshake under way, counted out when dropped.
pub struct Place<'t> {
    /// `None` where nothing is counted.
    counted: Option<(&'t PerAddress, Source)>,
}

impl PerAddress {
    /// So many per address; zero is no limit, and counts nothing.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let hasher = RandomState::new();
        let shard = || Shard(Mutex::new(HashMap::with_hasher(hasher.clone())));
        let shards = if limit == 0 { 0 } else { SHARDS };
        Self {
            limit,
            shards: std::iter::repeat_with(shard).take(shards).collect(),
            hasher,
        }
    }

    /// Counts one in; `None` where the address has as many as it may have.
    #[must_use]
    pub fn enter(&self, address: IpAddr) -> Option<Place<'_>> {
        if self.limit == 0 {
            return Some(Place { counted: None });
        }
        let source = Source::of(address);
        let mut shard = self.shard(source);
        let count = shard.entry(source).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Place {
            counted: Some((self, source)),
        })
    }

    fn leave(&self, source: Source) {
        let mut shard = self.shard(source);
        if let Entry::Occupied(mut entry) = shard.entry(source) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        // After a flood from many addresses.
        if shard.capacity() > ROOM && shard.len() < shard.capacity() / 8 {
            let half = shard.capacity() / 2;
            shard.shrink_to(half);
        }
    }

    fn shard(&self, source: Source) -> MutexGuard<'_, HashMap<Source, usize, RandomState>> {
        // The upper bits: the map within takes the lower ones.
        let shard = self.hasher.hash_one(source) >> (u64::BITS - SHARDS.trailing_zeros());
        let shard = &self.shards[usize::try_from(shard).unwrap_or_default()];
        shard.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments().map(u64::from);
                Self::V6(a << 48 | b << 32 | c << 16 | d)
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some((table, source)) = self.counted {
            table.leave(source);
        }
    }
}

/// A power of two.
const SHARDS: usize = 256;
/// Entries that a shard keeps room for.
const ROOM: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn entries(table: &PerAddress) -> usize {
        let shards = table.shards.iter();
        shards
            .map(|shard| shard.0.lock().expect("whole").len())
            .sum()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn an_address_has_so_many_places_and_others_have_their_own() {
        let table = PerAddress::new(2);
        let a = ip("192.0.2.1");
        let (one, two) = (table.enter(a), table.enter(a));
        assert!(one.is_some() && two.is_some());
        assert!(table.enter(a).is_none());
        assert!(table.enter(ip("192.0.2.2")).is_some());
        assert!(
            table.enter(ip("::ffff:192.0.2.1")).is_none(),
            "the same address"
        );
        drop(one);
        let again = table.enter(a);
        assert!(again.is_some() && table.enter(a).is_none());
        drop((two, again));
        assert_eq!(entries(&table), 0, "nothing is kept");
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let table = PerAddress::new(1);
        let _held = table.enter(ip("2001:db8::1")).expect("free");
        assert!(table.enter(ip("2001:db8::ffff:2")).is_none());
        assert!(table.enter(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn zero_is_no_limit() {
        let table = PerAddress::new(0);
        let held: Vec<_> = (0..1000).map(|_| table.enter(ip("::1"))).collect();
        assert!(held.iter().all(Option::is_some));
    }

    #[test]
    fn a_flood_leaves_no_memory_behind() {
        let table = PerAddress::new(1);
        let held: Vec<_> = (0..200_000)
            .map(|n| table.enter(Ipv4Addr::from_bits(n).into()).expect("free"))
            .collect();
        assert_eq!(entries(&table), 200_000);
        drop(held);
        assert_eq!(entries(&table), 0);
        let shards = table.shards.iter();
        let capacity = shards.map(|shard| shard.0.lock().expect("whole").capacity());
        assert!(capacity.max().expect("shards") <= 2 * ROOM);
    }

    #[test]
    fn threads_never_exceed_the_limit_nor_lose_a_place() {
        let table = PerAddress::new(3);
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..20_000_u128 {
                        let address = Ipv6Addr::from_bits(n % 2).into();
                        let Some(_place) = table.enter(address) else {
                            continue;
                        };
                        use std::sync::atomic::Ordering::SeqCst;
                        assert!(inside.fetch_add(1, SeqCst) < 3);
                        inside.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(entries(&table), 0);
    }
}
