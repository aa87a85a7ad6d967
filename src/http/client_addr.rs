//! Who the client is, and what forwarding fields go upstream (`spec/06` §6): decisions only, over
//! addresses and field values.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ::http::HeaderName;

use crate::ip_set::{IpSet, NotAnAddress};

/// Why `real_ip_from`, `real_ip_header` or `trusted_addresses` was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientAddrError {
    /// An entry of a list.
    #[error(transparent)]
    Address(#[from] NotAnAddress),
    /// The header's name.
    #[error("expected a header name, or `proxy_protocol`")]
    Header,
}

/// Where the client's address stands when the peer is a trusted proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// In a request field.
    Field(HeaderName),
    /// In the PROXY protocol header: the listener has put it in the peer's place already.
    ProxyProtocol,
}

/// The `real_ip_*` settings. Applied before routing.
#[derive(Debug, Clone)]
pub struct ClientAddr {
    from: IpSet,
    told: Told,
    recursive: bool,
}

impl ClientAddr {
    /// Reads the settings. `unix:` in `from` is accepted and means nothing: we listen on TCP.
    ///
    /// # Errors
    /// An entry of `from` is no address, or the header no name.
    pub fn build<S: AsRef<str>>(
        from: &[S],
        header: &str,
        recursive: bool,
    ) -> Result<Self, ClientAddrError> {
        let told = if header.eq_ignore_ascii_case("proxy_protocol") {
            Told::ProxyProtocol
        } else {
            Told::Field(HeaderName::from_str(header).map_err(|_| ClientAddrError::Header)?)
        };
        Ok(Self {
            from: addresses(from)?,
            told,
            recursive,
        })
    }

    /// The field to hand to [`Self::resolve`]; `None` where none is read.
    #[must_use]
    pub const fn field(&self) -> Option<&HeaderName> {
        match &self.told {
            Told::Field(name) => Some(name),
            Told::ProxyProtocol => None,
        }
    }

    /// The client's address, from the connection's other end and the values of
    /// [`Self::field`] in order. As nginx: the last address listed, or, when `recursive`, the
    /// last that is not itself trusted. What cannot be read ends the search. The port is 0 where
    /// the field names none.
    pub fn resolve<'v, I>(&self, peer: SocketAddr, values: I) -> SocketAddr
    where
        I: IntoIterator<Item = &'v [u8]>,
        I::IntoIter: DoubleEndedIterator,
    {
        if !self.from.contains(peer.ip()) {
            return peer;
        }
        let mut client = peer;
        let lists = values.into_iter().rev();
        let addresses = lists.flat_map(|value| {
            // A value that is not ASCII yields one text that is no address, which ends the search.
            let text = std::str::from_utf8(value).unwrap_or("?");
            text.rsplit([',', ' ', '\t'])
                .filter(|text| !text.is_empty())
        });
        for text in addresses {
            let Some(address) = address(text) else {
                break;
            };
            client = address;
            if !self.recursive || !self.from.contains(client.ip()) {
                break;
            }
        }
        client
    }
}

/// What to do with the client's forwarding fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarding {
    /// `X-Forwarded-Proto`, `-Host`, `-Port`: keep the client's values where there are any, or
    /// overwrite them with the real ones.
    pub keep_origin: bool,
    /// `X-Forwarded-For`: append the peer to the client's list, or replace the list by the peer.
    pub append_for: bool,
    /// `Forwarded` (RFC 7239): keep it, or remove it.
    pub keep_forwarded: bool,
}

/// `trusted_addresses`.
#[derive(Debug, Clone, Default)]
pub struct ForwardedPolicy(Option<IpSet>);

impl ForwardedPolicy {
    /// Reads the list; `None` where the bootstrap does not set it.
    ///
    /// # Errors
    /// An entry is no address.
    pub fn build<S: AsRef<str>>(trusted: Option<&[S]>) -> Result<Self, ClientAddrError> {
        Ok(Self(trusted.map(addresses).transpose()?))
    }

    /// What the peer's forwarding fields are worth. `peer` is the connection's other end, not the
    /// client that a field names.
    #[must_use]
    pub fn decide(&self, peer: IpAddr) -> Forwarding {
        let (keep, append_for) = match &self.0 {
            None => (false, true),
            Some(trusted) if trusted.contains(peer) => (true, true),
            Some(_) => (false, false),
        };
        Forwarding {
            keep_origin: keep,
            append_for,
            keep_forwarded: keep,
        }
    }
}

/// The value of `X-Forwarded-For` to send: the client's lists, if they are kept, and the peer.
pub fn forwarded_for<'v>(
    received: impl IntoIterator<Item = &'v [u8]>,
    forwarding: Forwarding,
    peer: IpAddr,
) -> Vec<u8> {
    use std::io::Write as _;

    let mut value = Vec::with_capacity(48);
    if forwarding.append_for {
        for list in received {
            let list = list.trim_ascii();
            if !list.is_empty() {
                value.extend_from_slice(list);
                value.extend_from_slice(b", ");
            }
        }
    }
    write!(value, "{}", peer.to_canonical()).expect("writing into a vector cannot fail");
    value
}

fn addresses<S: AsRef<str>>(texts: &[S]) -> Result<IpSet, NotAnAddress> {
    let texts = texts.iter().map(AsRef::as_ref);
    IpSet::parse(texts.filter(|text: &&str| *text != "unix:"))
}

/// `address`, `address:port`, `[v6]` or `[v6]:port`.
fn address(text: &str) -> Option<SocketAddr> {
    let canonical = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(canonical(ip, 0));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(canonical(address.ip(), address.port()));
    }
    let ip = text.strip_prefix('[')?.strip_suffix(']')?;
    Some(canonical(ip.parse().ok()?, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(recursive: bool, peer: &str, values: &[&str]) -> String {
        let from = ["10.0.0.0/8", "unix:"];
        let settings = ClientAddr::build(&from, "X-Forwarded-For", recursive).expect("valid");
        let peer = SocketAddr::new(peer.parse().expect("an address"), 5000);
        settings
            .resolve(peer, values.iter().map(|value| value.as_bytes()))
            .to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client() {
        assert_eq!(
            resolve(true, "192.0.2.1", &["198.51.100.1"]),
            "192.0.2.1:5000"
        );
    }

    #[test]
    fn a_trusted_peer_names_the_client() {
        for (recursive, values, expected) in [
            (false, &[][..], "10.0.0.1:5000"),
            (false, &["198.51.100.1"], "198.51.100.1:0"),
            (false, &["1.1.1.1, 10.0.0.2"], "10.0.0.2:0"),
            (
                true,
                &["1.1.1.1, 198.51.100.1 , 10.0.0.2"],
                "198.51.100.1:0",
            ),
            (true, &["1.1.1.1", "10.0.0.3"], "1.1.1.1:0"),
            (true, &["10.0.0.9, 10.0.0.2"], "10.0.0.9:0"),
            (true, &["1.1.1.1, nonsense, 10.0.0.2"], "10.0.0.2:0"),
            (true, &["[2001:db8::1]:77"], "[2001:db8::1]:77"),
            (true, &["198.51.100.1:81"], "198.51.100.1:81"),
            (true, &["::ffff:198.51.100.1"], "198.51.100.1:0"),
            (true, &["nonsense"], "10.0.0.1:5000"),
        ] {
            assert_eq!(
                resolve(recursive, "10.0.0.1", values),
                expected,
                "{values:?}"
            );
        }
    }

    #[test]
    fn forwarding_follows_trust() {
        let peer = IpAddr::from([10, 0, 0, 1]);
        let list = ["10.0.0.0/8"];
        let unset = ForwardedPolicy::default();
        let set = ForwardedPolicy::build(Some(&list[..])).expect("valid");
        let received = || [b"1.1.1.1 ".as_slice(), b"2.2.2.2"];
        for (policy, peer, keep, expected) in [
            (&unset, peer, false, "1.1.1.1, 2.2.2.2, 10.0.0.1"),
            (&set, peer, true, "1.1.1.1, 2.2.2.2, 10.0.0.1"),
            (&set, IpAddr::from([11, 0, 0, 1]), false, "11.0.0.1"),
        ] {
            let forwarding = policy.decide(peer);
            assert_eq!(
                (forwarding.keep_origin, forwarding.keep_forwarded),
                (keep, keep)
            );
            let value = forwarded_for(received(), forwarding, peer);
            assert_eq!(value, expected.as_bytes());
        }
    }

    #[test]
    fn bad_settings_are_refused() {
        let none: [&str; 0] = [];
        assert_eq!(
            ClientAddr::build(&none, "not a name", false).err(),
            Some(ClientAddrError::Header)
        );
        assert!(ClientAddr::build(&["nonsense"], "X-Real-IP", false).is_err());
    }
}
