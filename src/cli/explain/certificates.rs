//! The certificates of `ssls` items, as far as their values are at hand: written out, or in the
//! environment.

use std::io::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::unix_secs;
use crate::snapshot::{CertificateReport, Snapshot};
use crate::tls::{CertifiedKey, Moment};

/// The items that are told: all, or the one of that name (`ssls/shop`).
pub(super) fn told<'a>(snapshot: &'a Snapshot, about: Option<&str>) -> Vec<&'a CertificateReport> {
    let ssl = about.map(|about| about.strip_prefix("ssls/"));
    let items = snapshot.certificates.iter();
    items
        .filter(|item| ssl.is_none_or(|ssl| ssl == Some(&*item.ssl)))
        .collect()
}

pub(super) fn write(item: &CertificateReport, out: &mut impl Write) -> std::io::Result<()> {
    let names = match item.names() {
        [] => "for upstreams".to_owned(),
        names => names.join(", "),
    };
    writeln!(out, "ssls/{}: {names}", item.ssl)?;
    for (place, pair) in (1..).zip(item.pairs.iter()) {
        match pair {
            Some(pair) => writeln!(
                out,
                "  pair {place}: {}, {} further in its chain, from {} to {}, sha256 {}",
                pair.algorithm(),
                pair.intermediates().len(),
                Moment(pair.not_before()),
                Moment(pair.not_after()),
                pair.sha256()
            )?,
            None => writeln!(
                out,
                "  pair {place}: its values were not read, or do not fit"
            )?,
        }
    }
    Ok(())
}

pub(super) fn json(item: &CertificateReport) -> Value {
    let pair = |pair: &Option<Arc<CertifiedKey>>| {
        pair.as_ref().map(|pair| {
            json!({
                "key": pair.algorithm().to_string(),
                "chain": pair.intermediates().len(),
                "not_before": unix_secs(pair.not_before()),
                "not_after": unix_secs(pair.not_after()),
                "sha256": pair.sha256(),
            })
        })
    };
    json!({
        "ssl": &*item.ssl,
        "names": item.names(),
        "pairs": item.pairs.iter().map(pair).collect::<Vec<_>>(),
    })
}
