//! A sorted map in shards whose copies share what did not change: a copy costs one count, a change
//! copies one shard. What a rotated secret touches among 100 000 consumers is changed at its own
//! cost, and the older snapshot goes on reading what it had.

use std::sync::Arc;

/// A key whose values are spread evenly, such as a digest. Entries may share a key.
pub trait Key: Copy + Ord {
    /// The leading bits, in the order of the keys.
    fn head(&self) -> u64;
}

impl Key for u64 {
    fn head(&self) -> u64 {
        *self
    }
}

impl Key for [u8; 16] {
    fn head(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Entries by key. Without slack: a hash table keeps up to half its places free.
#[derive(Debug)]
pub struct Sharded<K, V> {
    /// 2^`bits` shards, by the leading bits of the key.
    shards: Arc<Vec<Shard<K, V>>>,
    bits: u32,
    len: usize,
}

/// Entries of one map, and what another has in their place.
#[derive(Debug)]
pub struct Unshared<'a, K, V> {
    /// The entries.
    pub new: &'a [(K, V)],
    /// The other map's.
    pub old: &'a [(K, V)],
}

/// Sorted by key; entries of one key in the order they came.
type Shard<K, V> = Arc<Vec<(K, V)>>;

impl<K: Key, V: Clone> Sharded<K, V> {
    /// A map of these entries; of one key they keep their order.
    #[must_use]
    pub fn of(mut entries: Vec<(K, V)>) -> Self {
        entries.sort_by_key(|(key, _)| *key);
        let len = entries.len();
        let bits = bits_for(len);
        let mut shards: Vec<Vec<(K, V)>> = Vec::with_capacity(1 << bits);
        let mut rest = entries.into_iter().peekable();
        for index in 0..1 << bits {
            let mut shard = Vec::new();
            while let Some(entry) = rest.next_if(|(key, _)| shard_of(key, bits) == index) {
                shard.push(entry);
            }
            shard.shrink_to_fit();
            shards.push(shard);
        }
        Self {
            shards: Arc::new(shards.into_iter().map(Arc::new).collect()),
            bits,
            len,
        }
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries of a key, in the order they came.
    #[must_use]
    pub fn at(&self, key: &K) -> &[(K, V)] {
        let Some(shard) = self.shards.get(shard_of(key, self.bits)) else {
            return &[];
        };
        let from = shard.partition_point(|(other, _)| other < key);
        let rest = &shard[from..];
        // Nearly always one, so a second search would cost more.
        let count = rest.iter().take_while(|(other, _)| other == key).count();
        &rest[..count]
    }

    /// Some entry near the key, always the same while nothing changes; `None` in an empty map.
    #[must_use]
    pub fn near(&self, key: &K) -> Option<&(K, V)> {
        let from = shard_of(key, self.bits);
        let count = self.shards.len();
        let shards = (0..count).filter_map(|step| self.shards.get((from + step) % count));
        let shard = shards.into_iter().find(|shard| !shard.is_empty())?;
        let at = shard.partition_point(|(other, _)| other < key);
        shard.get(at).or_else(|| shard.first())
    }

    /// Puts an entry behind those of its key for which `before` holds.
    pub fn insert(&mut self, key: K, value: V, before: impl Fn(&V) -> bool) {
        if self.len >= self.shards.len() * MOST {
            self.split();
        }
        let shard = self.shard_mut(&key);
        let at =
            shard.partition_point(|(other, value)| *other < key || *other == key && before(value));
        // Growing by doubling would leave half of every shard unused.
        if shard.len() == shard.capacity() {
            shard.reserve_exact(GROWTH);
        }
        shard.insert(at, (key, value));
        self.len += 1;
    }

    /// Puts `value` in the place of the first entry of the key for which `is` holds.
    ///
    /// # Errors
    /// There is no such entry; the value comes back.
    pub fn replace(&mut self, key: &K, value: V, is: impl Fn(&V) -> bool) -> Result<(), V> {
        if !self.at(key).iter().any(|(_, value)| is(value)) {
            return Err(value);
        }
        let shard = self.shard_mut(key);
        let found = shard
            .iter_mut()
            .find(|(other, value)| other == key && is(value));
        if let Some((_, old)) = found {
            *old = value;
        }
        Ok(())
    }

    /// Takes the first entry of the key for which `is` holds out. Says whether there was one.
    pub fn remove(&mut self, key: &K, is: impl Fn(&V) -> bool) -> bool {
        if !self.at(key).iter().any(|(_, value)| is(value)) {
            return false;
        }
        let shard = self.shard_mut(key);
        let at = shard
            .iter()
            .position(|(other, value)| other == key && is(value));
        if let Some(at) = at {
            shard.remove(at);
            self.len -= 1;
        }
        true
    }

    /// All entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// What `self` does not share with `other`, shard by shard. All there is where the two were
    /// not made from each other.
    pub fn unshared<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Unshared<'a, K, V>> {
        let alike = self.bits == other.bits;
        let pairs = self.shards.iter().zip(other.shards.iter());
        let pairs = pairs.filter(move |(new, old)| alike && !Arc::ptr_eq(new, old));
        let pairs = pairs.map(|(new, old)| Unshared { new, old });
        // Of different numbers of shards each side is told alone.
        let own = self.shards.iter().filter(move |_| !alike);
        let own = own.map(|new| Unshared { new, old: &[] });
        let others = other.shards.iter().filter(move |_| !alike);
        let others = others.map(|old| Unshared { new: &[], old });
        pairs.chain(own).chain(others)
    }

    fn shard_mut(&mut self, key: &K) -> &mut Vec<(K, V)> {
        let index = shard_of(key, self.bits);
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[index])
    }

    /// Twice as many shards.
    fn split(&mut self) {
        let bits = self.bits + 1;
        let halves = |shard: &Shard<K, V>| {
            let middle = shard.partition_point(|(key, _)| shard_of(key, bits).is_multiple_of(2));
            let (low, high) = shard.split_at(middle);
            [Arc::new(low.to_vec()), Arc::new(high.to_vec())]
        };
        self.shards = Arc::new(self.shards.iter().flat_map(halves).collect());
        self.bits = bits;
    }
}

impl<K, V> Clone for Sharded<K, V> {
    fn clone(&self) -> Self {
        Self {
            shards: Arc::clone(&self.shards),
            bits: self.bits,
            len: self.len,
        }
    }
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Self {
            shards: Arc::new(vec![Arc::default()]),
            bits: 0,
            len: 0,
        }
    }
}

fn shard_of<K: Key>(key: &K, bits: u32) -> usize {
    // A shift by all 64 bits is none.
    let index = key.head().checked_shr(u64::BITS - bits).unwrap_or_default();
    usize::try_from(index).unwrap_or_default()
}

/// So that a shard has about [`USUAL`] entries.
fn bits_for(len: usize) -> u32 {
    len.div_ceil(USUAL).next_power_of_two().trailing_zeros()
}

/// A changed shard is copied whole, and every shard costs some words of its own.
const USUAL: usize = 32;
/// Average length of the shards at which they are split.
const MOST: usize = 64;
/// Places a full shard grows by.
const GROWTH: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn found(map: &Sharded<u64, u64>, n: u64) -> Vec<u64> {
        map.at(&key(n)).iter().map(|(_, value)| *value).collect()
    }

    #[test]
    fn what_was_put_in_is_found_however_it_came() {
        let whole = Sharded::of((0..5000).map(|n| (key(n), n)).collect());
        let mut grown = Sharded::default();
        (0..5000).for_each(|n| grown.insert(key(n), n, |_| true));
        for map in [&whole, &grown] {
            assert_eq!(map.len(), 5000);
            assert_eq!(map.iter().count(), 5000);
            assert!((0..5000).all(|n| found(map, n) == [n]));
            assert!(found(map, 5000).is_empty());
        }
        assert!(Sharded::<u64, u64>::default().at(&7).is_empty());
    }

    #[test]
    fn entries_of_one_key_stand_in_order_and_go_alone() {
        let mut map = Sharded::of(vec![(1, 10), (1, 30)]);
        map.insert(1, 20, |value| *value < 20);
        assert_eq!(map.at(&1), [(1, 10), (1, 20), (1, 30)]);
        assert!(map.remove(&1, |value| *value == 30));
        assert!(!map.remove(&1, |value| *value == 30));
        assert_eq!(map.replace(&1, 25, |value| *value == 20), Ok(()));
        assert_eq!(map.replace(&2, 25, |_| true), Err(25));
        assert_eq!(map.at(&1), [(1, 10), (1, 25)]);
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn a_change_copies_one_shard_and_leaves_older_copies_alone() {
        let older = Sharded::of((0..5000).map(|n| (key(n), n)).collect::<Vec<_>>());
        let mut newer = older.clone();
        assert_eq!(newer.unshared(&older).count(), 0);
        assert_eq!(newer.replace(&key(7), 70, |_| true), Ok(()));
        assert_eq!((found(&older, 7), found(&newer, 7)), (vec![7], vec![70]));
        assert_eq!(newer.unshared(&older).count(), 1);
        let unshared = newer.unshared(&older).next().expect("one shard differs");
        assert_eq!(unshared.new.len(), unshared.old.len());
        assert!(unshared.new.len() < 2 * MOST);
    }

    #[test]
    fn something_is_near_every_key_unless_there_is_nothing() {
        assert!(Sharded::<u64, u64>::default().near(&7).is_none());
        let mut map = Sharded::of((0..5000).map(|n| (key(n), n)).collect::<Vec<_>>());
        assert_eq!(map.near(&key(7)).map(|(_, n)| *n), Some(7));
        assert!((5000..6000).all(|n| map.near(&key(n)).is_some()));
        (1..5000).for_each(|n| assert!(map.remove(&key(n), |_| true)));
        assert!((0..6000).all(|n| map.near(&key(n)).is_some_and(|(_, n)| *n == 0)));
    }

    #[test]
    fn maps_of_different_size_share_nothing() {
        let one = Sharded::of(vec![(1_u64, 1)]);
        let many = Sharded::of((0..5000).map(|n| (key(n), n)).collect::<Vec<_>>());
        let told = |a: &Sharded<u64, u64>, b: &Sharded<u64, u64>| {
            let (mut own, mut others) = (0, 0);
            for unshared in a.unshared(b) {
                own += unshared.new.len();
                others += unshared.old.len();
            }
            (own, others)
        };
        assert_eq!(told(&many, &one), (5000, 1));
        assert_eq!(told(&one, &many), (1, 5000));
    }

    #[test]
    fn digests_are_ordered_by_their_leading_bits() {
        let mut digests: Vec<[u8; 16]> = (0..200_u8).map(|n| [n.wrapping_mul(37); 16]).collect();
        digests.sort_unstable();
        assert!(digests.is_sorted_by_key(Key::head));
        let map = Sharded::of(digests.iter().map(|digest| (*digest, ())).collect());
        assert!(digests.iter().all(|digest| map.at(digest).len() == 1));
    }
}
