//! Sets of addresses and networks (`spec/00` §1.4: IPv4, IPv6 and their CIDR forms), built at
//! load and asked per request.

use std::net::IpAddr;

use ipnet::IpNet;

/// A text that is neither an address nor a network. Does not quote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an IP address or a network in CIDR notation, such as 10.0.0.0/8")]
pub struct NotAnAddress {
    /// Position of the text in the list, from 0.
    pub index: usize,
}

/// A set of addresses, kept as disjoint sorted ranges: asking costs one binary search however
/// many networks were listed. IPv4-mapped IPv6 addresses count as the IPv4 address they carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl IpSet {
    /// Reads addresses and networks. Host bits of a network are ignored, as nginx does.
    ///
    /// # Errors
    /// One of the texts is neither.
    pub fn parse<I>(texts: I) -> Result<Self, NotAnAddress>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let texts = texts.into_iter().enumerate();
        let nets: Result<Vec<IpNet>, _> = texts
            .map(|(index, text)| network(text.as_ref()).ok_or(NotAnAddress { index }))
            .collect();
        Ok(Self::from_nets(nets?))
    }

    /// The set of all addresses in these networks.
    #[must_use]
    pub fn from_nets(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match net {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()))),
                IpNet::V6(net) => {
                    let (first, last) = (net.network(), net.broadcast());
                    match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
                        (Some(first), Some(last)) => v4.push((first.into(), last.into())),
                        _ => v6.push((first.into(), last.into())),
                    }
                }
            }
        }
        Self {
            v4: disjoint(v4, |end| end.checked_add(1)),
            v6: disjoint(v6, |end| end.checked_add(1)),
        }
    }

    /// Whether nothing is in it. Users decide what an empty list means; here it holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether the address is in the set.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => holds(&self.v4, u32::from(address)),
            IpAddr::V6(address) => holds(&self.v6, u128::from(address)),
        }
    }
}

fn network(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical().into());
    }
    text.parse().ok()
}

fn holds<N: Ord + Copy>(ranges: &[(N, N)], address: N) -> bool {
    let after = ranges.partition_point(|&(start, _)| start <= address);
    after > 0 && address <= ranges[after - 1].1
}

/// Sorts ranges and joins those that overlap or touch.
fn disjoint<N: Ord + Copy>(
    mut ranges: Vec<(N, N)>,
    next: impl Fn(N) -> Option<N>,
) -> Box<[(N, N)]> {
    ranges.sort_unstable();
    let mut joined: Vec<(N, N)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match joined.last_mut() {
            Some(last) if next(last.1).is_none_or(|next| start <= next) => {
                last.1 = last.1.max(end);
            }
            _ => joined.push((start, end)),
        }
    }
    joined.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> IpSet {
        IpSet::parse(texts).expect("the list is valid")
    }

    #[test]
    fn addresses_and_networks_are_found() {
        let set = set(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.0.2.7",
            "2001:db8::/32",
            "::1",
            "::ffff:198.51.100.0/120",
        ]);
        for (address, expected) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::ffff:10.2.3.4", true),
            ("2001:db8:1::", true),
            ("2001:db9::", false),
            ("::1", true),
            ("::2", false),
            ("198.51.100.7", true),
            ("198.51.101.7", false),
        ] {
            let address = address.parse().expect("a test address");
            assert_eq!(set.contains(address), expected, "{address}");
        }
    }

    #[test]
    fn the_whole_space_has_no_end_to_step_over() {
        let all = set(&["0.0.0.0/0", "::/0", "255.255.255.255"]);
        assert!(all.contains(IpAddr::from([255, 255, 255, 255])));
        assert!(all.contains(IpAddr::from([0xffff_u16; 8])));
    }

    #[test]
    fn an_empty_set_holds_nothing() {
        assert!(set(&[]).is_empty());
        assert!(!set(&[]).contains(IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "localhost",
            "10.0.0.0/33",
            "10.0.0",
            "1.2.3.4:80",
            "::1/129",
        ] {
            assert_eq!(
                IpSet::parse(["::1", text]),
                Err(NotAnAddress { index: 1 }),
                "{text}"
            );
        }
    }
}
