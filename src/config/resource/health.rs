//! Shape of `checks` (`spec/00` §4.2). The value itself is kept as JSON for the health room.

use super::shape::{inner_fields, seconds};
use crate::config::check::Check;
use crate::config::node::Node;

/// Reports what is wrong with a `checks` object.
pub(super) fn check(check: &mut Check, node: Node) {
    let at = node.at;
    let mut has_active = false;
    inner_fields(check, node, |check, key, node| {
        match key {
            "active" => {
                has_active = true;
                active(check, node);
            }
            "passive" => passive(check, node),
            _ => return false,
        }
        true
    });
    if !has_active {
        check.error(at, "missing-field", "property \"active\" is required");
    }
}

fn active(check: &mut Check, node: Node) {
    inner_fields(check, node, |check, key, node| {
        match key {
            "type" => ignore(check.word(node, TYPES)),
            "timeout" => ignore(seconds(check, &node, false)),
            "concurrency" => ignore(check.int(&node, 1..=i64::MAX)),
            "port" => ignore(check.int(&node, 1..=65535)),
            "host" | "http_path" | "http_req_body" => ignore(check.text(node)),
            "http_method" => ignore(check.word(node, METHODS)),
            "https_verify_certificate" => ignore(check.boolean(&node)),
            "req_headers" => headers(check, node),
            "healthy" => thresholds(check, node, &["successes"], 1, true),
            "unhealthy" => thresholds(
                check,
                node,
                &["http_failures", "tcp_failures", "timeouts"],
                1,
                true,
            ),
            _ => return false,
        }
        true
    });
}

fn passive(check: &mut Check, node: Node) {
    inner_fields(check, node, |check, key, node| {
        match key {
            "type" => ignore(check.word(node, TYPES)),
            "healthy" => thresholds(check, node, &["successes"], 0, false),
            "unhealthy" => thresholds(
                check,
                node,
                &["http_failures", "tcp_failures", "timeouts"],
                0,
                false,
            ),
            _ => return false,
        }
        true
    });
}

fn thresholds(check: &mut Check, node: Node, counts: &[&str], min: i64, interval: bool) {
    inner_fields(check, node, |check, key, node| {
        match key {
            "interval" if interval => ignore(check.int(&node, 1..=i64::MAX)),
            "http_statuses" => statuses(check, node),
            _ if counts.contains(&key) => ignore(check.int(&node, min..=254)),
            _ => return false,
        }
        true
    });
}

fn statuses(check: &mut Check, node: Node) {
    let at = node.at;
    let nodes = check.list(node).unwrap_or_default();
    let mut statuses = check.each(nodes, |check, node| check.int(&node, 200..=599));
    let count = statuses.len();
    statuses.sort_unstable();
    statuses.dedup();
    if statuses.len() != count {
        check.error(
            at,
            "invalid-value",
            "expected entries that differ from each other",
        );
    }
}

fn headers(check: &mut Check, node: Node) {
    let at = node.at;
    let Some(nodes) = check.list(node) else {
        return;
    };
    if nodes.is_empty() {
        check.error(at, "invalid-value", "expected at least 1 entry");
    }
    check.each(nodes, |check, node| {
        let at = node.at;
        let header = check.text(node)?;
        if !header
            .split_once(':')
            .is_some_and(|(name, _)| !name.trim().is_empty())
        {
            check.error(at, "invalid-value", "expected Name: value");
        }
        Some(())
    });
}

/// The check already reported what is wrong; the value itself stays in the JSON.
fn ignore<T>(_checked: Option<T>) {}

const TYPES: &[&str] = &["http", "https", "tcp"];

const METHODS: &[&str] = &[
    "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE",
];
