//! How values are written out: numbers, times, header values.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use time::{Month, OffsetDateTime};

/// A header's value as text; bytes that are not UTF-8 are replaced.
pub(super) fn header_text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

pub(super) fn number(number: u64) -> Cow<'static, str> {
    Cow::Owned(itoa::Buffer::new().format(number).to_owned())
}

/// A status in three digits, `000` while there is none.
pub(super) fn status(status: u16) -> Cow<'static, str> {
    match status {
        0 => Cow::Borrowed("000"),
        200 => Cow::Borrowed("200"),
        _ => number(status.into()),
    }
}

/// Seconds with milliseconds.
pub(super) fn seconds(time: Duration) -> String {
    let mut out = String::with_capacity(8);
    push_seconds(time, &mut out);
    out
}

pub(super) fn push_seconds(time: Duration, out: &mut String) {
    push_number(time.as_secs(), out);
    let millis = time.subsec_millis();
    out.push_str(match millis {
        0..10 => ".00",
        10..100 => ".0",
        _ => ".",
    });
    push_number(millis.into(), out);
}

pub(super) fn push_number(number: u64, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// An address, without the detour of the formatter where it is of version 4.
pub(super) fn ip(ip: IpAddr) -> Cow<'static, str> {
    let mut out = String::with_capacity(16);
    push_ip(ip, &mut out);
    Cow::Owned(out)
}

/// Address and port.
pub(super) fn push_address(address: SocketAddr, out: &mut String) {
    match address {
        SocketAddr::V4(address) => {
            push_ip(IpAddr::V4(*address.ip()), out);
            out.push(':');
            push_number(address.port().into(), out);
        }
        SocketAddr::V6(_) => out.push_str(&address.to_string()),
    }
}

fn push_ip(ip: IpAddr, out: &mut String) {
    match ip {
        IpAddr::V4(ip) => {
            for (index, octet) in ip.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push('.');
                }
                push_number(octet.into(), out);
            }
        }
        IpAddr::V6(ip) => out.push_str(&ip.to_string()),
    }
}

/// Seconds since the epoch with milliseconds.
pub(super) fn epoch_millis(wall: SystemTime) -> String {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH);
    seconds(since.unwrap_or(Duration::ZERO))
}

/// `22/Nov/2026:02:50:20 +0000`. Always UTC.
pub(super) fn time_local(wall: SystemTime) -> String {
    let time = OffsetDateTime::from(wall);
    let month = match time.month() {
        Month::January => "Jan",
        Month::February => "Feb",
        Month::March => "Mar",
        Month::April => "Apr",
        Month::May => "May",
        Month::June => "Jun",
        Month::July => "Jul",
        Month::August => "Aug",
        Month::September => "Sep",
        Month::October => "Oct",
        Month::November => "Nov",
        Month::December => "Dec",
    };
    let (year, day) = (time.year(), time.day());
    let (hour, minute, second) = time.to_hms();
    format!("{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000")
}

/// `2026-11-22T02:50:20+00:00`. Always UTC.
pub(super) fn time_iso8601(wall: SystemTime) -> String {
    let time = OffsetDateTime::from(wall);
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = time.to_hms();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00")
}

/// User name of a `Basic` authorization. Never the password.
pub(super) fn basic_user(authorization: &HeaderValue) -> Option<String> {
    let (scheme, credentials) = authorization.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(credentials.trim()).ok()?;
    let decoded = zeroize::Zeroizing::new(decoded);
    let user = decoded.split(|byte| *byte == b':').next()?;
    if user.len() == decoded.len() {
        // Without a colon this may be anything, also a secret.
        return None;
    }
    Some(String::from_utf8_lossy(user).into_owned()).filter(|user| !user.is_empty())
}

/// The machine's name.
pub(super) fn hostname() -> String {
    let names = rustix::system::uname();
    names.nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_nginx_does() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_045);
        assert_eq!(time_local(wall), "14/Nov/2023:22:13:20 +0000");
        assert_eq!(time_iso8601(wall), "2023-11-14T22:13:20+00:00");
        assert_eq!(epoch_millis(wall), "1700000000.045");
        assert_eq!(seconds(Duration::from_micros(1_234_567)), "1.234");
    }

    #[test]
    fn numbers_and_addresses_are_written_as_the_library_does() {
        for millis in [0, 7, 45, 999, 12_034_567] {
            let time = Duration::from_millis(millis);
            let expected = format!("{}.{:03}", time.as_secs(), time.subsec_millis());
            assert_eq!(seconds(time), expected);
        }
        for address in ["127.0.0.1:80", "255.10.0.99:65535", "[2001:db8::1]:443"] {
            let parsed: SocketAddr = address.parse().expect("an address");
            let mut out = String::new();
            push_address(parsed, &mut out);
            assert_eq!(out, address);
            assert_eq!(ip(parsed.ip()), parsed.ip().to_string());
        }
    }

    #[test]
    fn only_the_user_comes_out_of_basic_credentials() {
        for (value, expected) in [
            ("Basic YWxpY2U6c2VjcmV0", Some("alice")),
            ("basic  YWxpY2U6c2VjcmV0 ", Some("alice")),
            ("Basic c2VjcmV0", None),
            ("Basic OnNlY3JldA==", None),
            ("Basic ???", None),
            ("Bearer YWxpY2U6c2VjcmV0", None),
            ("Basic", None),
        ] {
            let user = basic_user(&HeaderValue::from_static(value));
            assert_eq!(user.as_deref(), expected, "{value}");
        }
    }
}
