//! Secret bytes that are kept for later, in no form in which they could be found: who searches
//! memory, a core dump or swapped pages for a value finds none. This is no encryption. Whoever reads
//! all of the memory and knows this file can put the halves together.

use std::fmt;
use std::ops::Deref;

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use zeroize::{Zeroize as _, Zeroizing};

/// A value as two halves that each look random: a pad, and the value under it. Of a long value the
/// pad is grown out of a seed when it is needed, so that a certificate takes its length once and
/// not twice. The halves stand apart from each other, and are wiped when dropped. There is no `Display`, `Serialize` or
/// `PartialEq`.
pub struct Sealed {
    /// As long as the value; or a seed, where the value is longer than that.
    pad: Box<[u8]>,
    masked: Box<[u8]>,
}

impl Sealed {
    /// Seals a copy; the original is the caller's to wipe.
    #[must_use]
    pub fn new(plain: &[u8]) -> Self {
        let mut pad = vec![0; plain.len().min(SEED)].into_boxed_slice();
        rand::rng().fill(&mut *pad);
        Self {
            masked: under(&pad, plain).collect(),
            pad,
        }
    }

    /// The value, for the moment of its use.
    #[must_use]
    pub fn open(&self) -> Opened {
        Opened(Zeroizing::new(self.bytes().collect()))
    }

    /// Whether this is the value. Takes as long for any other of its length.
    #[must_use]
    pub fn is(&self, plain: &[u8]) -> bool {
        let differences = self.bytes().zip(plain).fold(0, |all, (a, b)| all | (a ^ b));
        self.len() == plain.len() && differences == 0
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.masked.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.masked.is_empty()
    }

    fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        under(&self.pad, &self.masked)
    }
}

/// A value under its pad; from under it again.
fn under<'a>(pad: &'a [u8], value: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
    let mut grown = Zeroizing::new(Vec::new());
    if value.len() > SEED {
        let mut seed = Zeroizing::new([0; SEED]);
        seed.copy_from_slice(pad);
        grown.resize(value.len(), 0);
        StdRng::from_seed(*seed).fill_bytes(&mut grown);
    }
    let masked = value.iter().enumerate();
    masked.map(move |(place, byte)| byte ^ grown.get(place).unwrap_or_else(|| &pad[place]))
}

impl Clone for Sealed {
    /// Under a pad of its own.
    fn clone(&self) -> Self {
        Self::new(&self.open())
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.pad.zeroize();
        self.masked.zeroize();
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}

/// A value that was opened. Wiped when dropped: keep it no longer than its use.
pub struct Opened(Zeroizing<Box<[u8]>>);

impl Opened {
    /// The value as text, when it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self).ok()
    }
}

impl Deref for Opened {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened(…)")
    }
}

/// Length of a seed. Values up to it have a pad as long as they are.
const SEED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_comes_out_again_and_stands_nowhere_meanwhile() {
        let plain = b"correct horse battery staple";
        let (one, other) = (Sealed::new(plain), Sealed::new(plain));
        for sealed in [&one, &other, &one.clone()] {
            assert_eq!(&*sealed.open(), plain);
            assert_eq!(sealed.len(), plain.len());
            for half in [&sealed.pad, &sealed.masked] {
                let alike = half.iter().zip(plain).filter(|(a, b)| a == b).count();
                assert!(alike < plain.len() / 2, "no half is the value");
            }
        }
        assert_ne!(one.masked, other.masked, "two pads");
        assert_eq!(format!("{one:?} {:?}", one.open()), "Sealed(…) Opened(…)");
    }

    #[test]
    fn a_long_value_takes_its_length_once() {
        let plain: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let (one, other) = (Sealed::new(&plain), Sealed::new(&plain));
        assert_eq!(one.pad.len() + one.masked.len(), plain.len() + SEED);
        assert_eq!(*one.open(), *plain);
        assert!(one.is(&plain) && !one.is(&plain[1..]));
        let alike = |half: &[u8]| half.iter().zip(&plain).filter(|(a, b)| a == b).count();
        assert!(alike(&one.masked) < 50, "as random bytes are");
        assert_ne!(one.masked, other.masked, "two seeds");
        for length in SEED - 1..=SEED + 1 {
            let plain = &plain[..length];
            assert_eq!(*Sealed::new(plain).open(), *plain);
        }
    }

    #[test]
    fn a_value_is_itself_and_nothing_else() {
        let sealed = Sealed::new(b"value");
        assert!(sealed.is(b"value"));
        for other in [&b"valuE"[..], b"valu", b"values", b""] {
            assert!(!sealed.is(other), "{other:?}");
        }
        assert!(Sealed::new(b"").is(b"") && Sealed::new(b"").is_empty());
    }
}
