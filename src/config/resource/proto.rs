//! Protobuf definitions, for `grpc-transcode`.

use super::shape::{Head, Shared, fields};
use crate::config::check::Check;
use crate::config::node::{At, Entry};

/// A `protos` item.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProtoConfig {
    /// Source text, or a base64-encoded descriptor set.
    pub content: String,
}

pub(super) fn parse(check: &mut Check, entries: Vec<Entry>, at: At) -> (Head, ProtoConfig) {
    let (mut head, mut proto) = (Head::default(), ProtoConfig::default());
    let mut given = false;
    fields(check, entries, |check, key, mut node| {
        if key == "content" {
            given = true;
            proto.content = check.text_of(node, 1..=1 << 20).unwrap_or_default();
            return true;
        }
        head.take(check, Shared::All, key, &mut node)
    });
    if !given {
        check.error(at, "missing-field", "property \"content\" is required");
    }
    if head.id.is_none() && !check.refused() {
        check.error(at, "missing-field", "property \"id\" is required");
    }
    (head, proto)
}
