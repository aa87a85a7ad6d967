//! Sets of addresses: single ones and networks in CIDR notation, looked up by binary search.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// A set of addresses. IPv4-mapped IPv6 addresses count as IPv4.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

/// A text that is neither an address nor a network. Does not quote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an IP address or a network in CIDR notation")]
pub struct NetworkError {
    /// Position of the text in the list, from 0.
    pub index: usize,
}

impl Networks {
    /// The set of all these. Host bits of a network are ignored.
    ///
    /// # Errors
    /// One of the texts is not an address or network.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, NetworkError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (index, text) in texts.into_iter().enumerate() {
            match network(text).ok_or(NetworkError { index })? {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => {
                    let (first, last) = (net.network(), net.broadcast());
                    match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
                        (Some(first), Some(last)) => v4.push((first.to_bits(), last.to_bits())),
                        _ => v6.push((first.to_bits(), last.to_bits())),
                    }
                }
            }
        }
        Ok(Self {
            v4: merged(v4),
            v6: merged(v6),
        })
    }

    /// Whether the address is in the set.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => within(&self.v4, Ipv4Addr::to_bits(address)),
            IpAddr::V6(address) => within(&self.v6, address.to_bits()),
        }
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse().ok().map(|address: IpAddr| address.into()))
}

/// Ranges in order, none overlapping.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlaps = next.0 <= kept.1;
        if overlaps {
            kept.1 = kept.1.max(next.1);
        }
        overlaps
    });
    ranges.into()
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after > 0 && address <= ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_overlapping_networks() {
        let set = Networks::parse([
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.0.2.1",
            "192.0.2.9/30",
            "2001:db8::/32",
            "::ffff:198.51.100.0/120",
        ])
        .expect("networks are valid");
        for (address, expected) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("192.0.2.11", true),
            ("192.0.2.12", false),
            ("::ffff:10.2.3.4", true),
            ("198.51.100.7", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::", false),
        ] {
            let address = address.parse().expect("address is valid");
            assert_eq!(set.contains(address), expected, "{address}");
        }
    }

    #[test]
    fn everything_and_nothing_are_sets_too() {
        let address = "192.0.2.1".parse().expect("address is valid");
        let all = Networks::parse(["0.0.0.0/0"]).expect("network is valid");
        assert!(all.contains(address), "every IPv4 address is in it");
        assert!(
            !all.contains(std::net::Ipv6Addr::LOCALHOST.into()),
            "no IPv6 address is"
        );
        assert!(
            !Networks::default().contains(address),
            "nothing is in an empty set"
        );
    }

    #[test]
    fn other_texts_are_refused_by_position() {
        for texts in [["1.1.1.1", "x"], ["::/0", "1.1.1.1/33"], ["1.1.1.1", ""]] {
            let error = Networks::parse(texts).expect_err("second is wrong");
            assert_eq!(error.index, 1, "{texts:?}");
        }
    }
}
