//! Durations and sizes as nginx writes them (`60s`, `1h30m`, `500ms`; `8k`, `1m`).

use std::time::Duration;

use crate::config::check::Check;
use crate::config::node::{Node, Tree};

/// A duration; a bare number is seconds.
pub(super) fn duration(check: &mut Check, node: &Node) -> Option<Duration> {
    let parsed = match &node.tree {
        Tree::Int(secs) => u64::try_from(*secs).ok().map(Duration::from_secs),
        Tree::Float(secs) => Duration::try_from_secs_f64(*secs).ok(),
        Tree::Text(text) => parse_duration(text),
        _ => return check.wrong(node, "a duration such as 60s"),
    };
    // What is added to a time must not lead beyond what a clock can say.
    let parsed = parsed.filter(|duration| *duration <= LONGEST);
    if parsed.is_none() {
        check.error(
            node.at,
            "invalid-value",
            "expected a duration such as 500ms, 60s, 5m or 1h30m, at most 36500d",
        );
    }
    parsed
}

const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

/// A number of bytes; `k`, `m` and `g` multiply by 1024 each.
pub(super) fn size(check: &mut Check, node: &Node) -> Option<u64> {
    let parsed = match &node.tree {
        Tree::Int(bytes) => u64::try_from(*bytes).ok(),
        Tree::Text(text) => parse_size(text),
        _ => return check.wrong(node, "a size such as 8k"),
    };
    if parsed.is_none() {
        check.error(
            node.at,
            "invalid-value",
            "expected a size such as 4096, 8k, 64m or 1g",
        );
    }
    parsed
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let millis = match &rest[..letters] {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        rest = rest[letters..].trim_start();
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
    }
    Some(total)
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, factor) = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (&text[..text.len() - 1], 1 << 10),
        b'm' => (&text[..text.len() - 1], 1 << 20),
        b'g' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_nginx_durations() {
        for (text, expected) in [
            ("60s", Some(60_000)),
            ("60", Some(60_000)),
            ("1h30m", Some(5_400_000)),
            ("1h 30m", Some(5_400_000)),
            ("500ms", Some(500)),
            ("2d", Some(172_800_000)),
            ("", None),
            ("s", None),
            ("5y", None),
            ("-5s", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(
                parse_duration(text),
                expected.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    #[test]
    fn sizes_are_nginx_sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("8k", Some(8192)),
            ("1M", Some(1 << 20)),
            ("1g", Some(1 << 30)),
            ("k", None),
            ("1t", None),
            ("99999999999999999g", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }
}
