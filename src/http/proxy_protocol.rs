//! The PROXY protocol's header, versions 1 and 2 (HAProxy, `doc/proxy-protocol.txt` §2.1 and §2.2):
//! text and bytes to addresses. Reads nothing from a socket, allocates nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header says about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The ends of the connection that the sender relays.
    Ends {
        /// Who connected to the sender.
        client: SocketAddr,
        /// Where.
        local: SocketAddr,
    },
    /// Nothing: the ends are those of the socket. The sender speaks for itself (`LOCAL`, as in its
    /// health checks), or relays what has no IP address (`UNKNOWN`, `UNSPEC`, `UNIX`).
    Nothing,
}

/// What came is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no valid PROXY protocol header")]
pub struct Malformed;

/// Bytes that every header has at least, and by which versions are told apart.
pub const COMMON_BYTES: usize = 12;

/// Longest header of version 1, its line end included.
pub const V1_BYTES: usize = 107;

/// The part of a header of version 2 whose length does not vary.
pub const V2_FIXED_BYTES: usize = 16;

/// Most addresses take in a header of version 2: those of Unix sockets.
pub const V2_ADDRESS_BYTES: usize = 216;

/// Begins every header of version 1; a header of at least [`COMMON_BYTES`] follows.
pub const V1_SIGNATURE: &[u8; 6] = b"PROXY ";

/// Begins every header of version 2.
pub const V2_SIGNATURE: &[u8; COMMON_BYTES] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads a header of version 1, from `PROXY` to the line end.
///
/// # Errors
/// It is none, or longer than [`V1_BYTES`].
pub fn parse_v1(line: &[u8]) -> Result<Told, Malformed> {
    let line = line.strip_suffix(b"\r\n").ok_or(Malformed)?;
    if line.len() + 2 > V1_BYTES {
        return Err(Malformed);
    }
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return Err(Malformed);
    }
    let v6 = match words.next() {
        // What follows is to be ignored.
        Some("UNKNOWN") => return Ok(Told::Nothing),
        Some("TCP4") => false,
        Some("TCP6") => true,
        _ => return Err(Malformed),
    };
    let mut word = || words.next().ok_or(Malformed);
    let [client, local] = [word()?, word()?];
    let [client_port, local_port] = [word()?, word()?];
    if words.next().is_some() {
        return Err(Malformed);
    }
    Ok(Told::Ends {
        client: end(v6, client, client_port)?,
        local: end(v6, local, local_port)?,
    })
}

fn end(v6: bool, ip: &str, port: &str) -> Result<SocketAddr, Malformed> {
    let ip = if v6 {
        ip.parse().map(IpAddr::V6)
    } else {
        ip.parse().map(IpAddr::V4)
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (port.len() > 1 && port.starts_with('0')) {
        return Err(Malformed);
    }
    let port = port.parse().map_err(|_| Malformed)?;
    Ok(SocketAddr::new(
        ip.map_err(|_| Malformed)?.to_canonical(),
        port,
    ))
}

/// The fixed part of a header of version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V2 {
    /// How many bytes follow: addresses, then extensions (TLVs).
    pub follow: u16,
    family: Family,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Inet,
    Inet6,
    Unix,
    /// None, or none that counts.
    Nothing,
}

impl V2 {
    /// Reads the fixed part.
    ///
    /// # Errors
    /// It is none of version 2, or what follows is too short for the addresses it announces.
    pub fn parse(fixed: &[u8; V2_FIXED_BYTES]) -> Result<Self, Malformed> {
        let [signature @ .., version, protocol, high, low] = fixed;
        if signature != V2_SIGNATURE {
            return Err(Malformed);
        }
        let follow = u16::from_be_bytes([*high, *low]);
        let family = match (version, protocol) {
            // LOCAL: whatever else it says.
            (0x20, _) => Family::Nothing,
            (0x21, 0x00) => Family::Nothing,
            (0x21, 0x11) => Family::Inet,
            (0x21, 0x21) => Family::Inet6,
            (0x21, 0x31) => Family::Unix,
            // Datagrams do not come over TCP.
            _ => return Err(Malformed),
        };
        let header = Self { follow, family };
        if usize::from(follow) < header.address_bytes() {
            return Err(Malformed);
        }
        Ok(header)
    }

    /// How many of the bytes that follow are addresses.
    #[must_use]
    pub const fn address_bytes(&self) -> usize {
        match self.family {
            Family::Inet => 12,
            Family::Inet6 => 36,
            Family::Unix => V2_ADDRESS_BYTES,
            Family::Nothing => 0,
        }
    }

    /// Reads the addresses.
    ///
    /// # Errors
    /// There are not [`Self::address_bytes`].
    pub fn addresses(&self, bytes: &[u8]) -> Result<Told, Malformed> {
        let (client, local, ports) = match self.family {
            Family::Nothing | Family::Unix => return Ok(Told::Nothing),
            Family::Inet => {
                let (client, rest) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
                let (local, ports) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
                let ip = |bytes: &[u8; 4]| IpAddr::V4(Ipv4Addr::from(*bytes));
                (ip(client), ip(local), ports)
            }
            Family::Inet6 => {
                let (client, rest) = bytes.split_first_chunk::<16>().ok_or(Malformed)?;
                let (local, ports) = rest.split_first_chunk::<16>().ok_or(Malformed)?;
                let ip = |bytes: &[u8; 16]| IpAddr::V6(Ipv6Addr::from(*bytes)).to_canonical();
                (ip(client), ip(local), ports)
            }
        };
        let &[a, b, c, d] = ports else {
            return Err(Malformed);
        };
        Ok(Told::Ends {
            client: SocketAddr::new(client, u16::from_be_bytes([a, b])),
            local: SocketAddr::new(local, u16::from_be_bytes([c, d])),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, local: &str) -> Told {
        Told::Ends {
            client: client.parse().expect("address"),
            local: local.parse().expect("address"),
        }
    }

    /// A whole header of version 2 as its bytes stand in a buffer.
    fn v2(bytes: &[u8]) -> Result<Told, Malformed> {
        let (fixed, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
        let header = V2::parse(fixed)?;
        header.addresses(rest.get(..header.address_bytes()).ok_or(Malformed)?)
    }

    fn bytes(version: u8, protocol: u8, content: &[u8]) -> Vec<u8> {
        let follow = u16::try_from(content.len()).expect("short").to_be_bytes();
        [&V2_SIGNATURE[..], &[version, protocol], &follow, content].concat()
    }

    const INET: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 9, 0x30, 0x39, 1, 187];

    #[test]
    fn version_one_names_both_ends() {
        for (line, told) in [
            (
                "PROXY TCP4 192.0.2.1 10.0.0.9 12345 443",
                ends("192.0.2.1:12345", "10.0.0.9:443"),
            ),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 0",
                ends("255.255.255.255:65535", "255.255.255.255:0"),
            ),
            (
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 2",
                ends("[2001:db8::1]:1", "[2001:db8::2]:2"),
            ),
            (
                "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2",
                ends("192.0.2.1:1", "[::1]:2"),
            ),
            ("PROXY UNKNOWN", Told::Nothing),
            ("PROXY UNKNOWN whatever else", Told::Nothing),
            (
                "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
                Told::Nothing,
            ),
        ] {
            assert_eq!(
                parse_v1(format!("{line}\r\n").as_bytes()),
                Ok(told),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_not_version_one_is_refused() {
        let whole = "PROXY TCP4 192.0.2.1 10.0.0.9 12345 443\r\n";
        for end in 0..whole.len() {
            assert_eq!(parse_v1(&whole.as_bytes()[..end]), Err(Malformed), "{end}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES - 15));
        for line in [
            "PROXY TCP4 192.0.2.1 10.0.0.9 12345 443\n",
            "PROXY TCP4 192.0.2.1 10.0.0.9 12345 443 \r\n",
            "PROXY  TCP4 192.0.2.1 10.0.0.9 12345 443\r\n",
            "proxy TCP4 192.0.2.1 10.0.0.9 12345 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.9 12345\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.9 12345 65536\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.9 12345 -1\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.9 12345 +443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.9 12345 0443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.9 12345 \r\n",
            "PROXY TCP4 192.0.2.256 10.0.0.9 12345 443\r\n",
            "PROXY TCP4 ::1 ::1 12345 443\r\n",
            "PROXY TCP6 192.0.2.1 10.0.0.9 12345 443\r\n",
            "PROXY TCP5 192.0.2.1 10.0.0.9 12345 443\r\n",
            "PROXY UNKNOWN\u{e9}",
            "\r\n",
            &long,
        ] {
            assert_eq!(parse_v1(line.as_bytes()), Err(Malformed), "{line:?}");
        }
        assert_eq!(parse_v1(b"PROXY UNKNOWN \xff\r\n"), Err(Malformed));
    }

    #[test]
    fn version_two_names_both_ends() {
        let told = ends("192.0.2.1:12345", "10.0.0.9:443");
        assert_eq!(v2(&bytes(0x21, 0x11, &INET)), Ok(told));
        let with_extensions = [&INET[..], &[4, 0, 3, 1, 2, 3]].concat();
        assert_eq!(v2(&bytes(0x21, 0x11, &with_extensions)), Ok(told));
        let [client, local] = ["2001:db8::1", "::ffff:10.0.0.9"].map(|text| {
            let ip: Ipv6Addr = text.parse().expect("address");
            ip.octets()
        });
        let inet6 = [&client[..], &local, &[0, 1, 0, 2]].concat();
        let told = ends("[2001:db8::1]:1", "10.0.0.9:2");
        assert_eq!(v2(&bytes(0x21, 0x21, &inet6)), Ok(told));
        for (version, protocol, content) in [
            (0x20, 0x00, &[][..]),
            (0x20, 0x11, &INET),
            (0x20, 0x77, &[1, 2, 3]),
            (0x21, 0x00, &[]),
            (0x21, 0x00, &[9; 40]),
            (0x21, 0x31, &[b'/'; 216]),
        ] {
            let header = bytes(version, protocol, content);
            assert_eq!(v2(&header), Ok(Told::Nothing), "{version:x} {protocol:x}");
        }
    }

    #[test]
    fn what_is_not_version_two_is_refused() {
        let whole = bytes(0x21, 0x11, &INET);
        for end in 0..whole.len() {
            assert_eq!(v2(&whole[..end]), Err(Malformed), "{end}");
        }
        for at in 0..COMMON_BYTES {
            let mut wrong = whole.clone();
            wrong[at] ^= 1;
            assert_eq!(v2(&wrong), Err(Malformed), "byte {at}");
        }
        let known = [0x00, 0x11, 0x21, 0x31];
        for first in 0..=u8::MAX {
            let local = v2(&bytes(first, 0x11, &INET));
            assert_eq!(local.is_ok(), matches!(first, 0x20 | 0x21), "{first:x}");
            let family = v2(&bytes(0x21, first, &[0; 216]));
            assert_eq!(family.is_ok(), known.contains(&first), "{first:x}");
        }
        // Shorter than the addresses that are announced.
        assert_eq!(v2(&bytes(0x21, 0x11, &INET[..11])), Err(Malformed));
        assert_eq!(v2(&bytes(0x21, 0x21, &[0; 35])), Err(Malformed));
        assert_eq!(v2(&bytes(0x21, 0x31, &[0; 215])), Err(Malformed));
    }

    #[test]
    fn random_bytes_never_panic() {
        for _ in 0..20_000 {
            let mut noise: Vec<u8> = (0..rand::random_range(0..300))
                .map(|_| rand::random())
                .collect();
            assert_eq!(
                (parse_v1(&noise), v2(&noise)),
                (Err(Malformed), Err(Malformed))
            );
            noise.extend(b"\r\n");
            let _ = parse_v1(&[V1_SIGNATURE, &noise[..]].concat());
            let _ = v2(&[V2_SIGNATURE, &noise[..]].concat());
        }
    }
}
