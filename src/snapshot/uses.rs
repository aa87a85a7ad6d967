//! Which objects hold which references, so that a changed value costs its users only. By hash: two
//! references of one hash make a piece be looked at in vain, and change nothing.

use std::sync::Arc;

use super::references;
use crate::config::Documents;
use crate::config::bootstrap::TICKET_KEYS;

/// Every reference of some documents and who holds it.
#[derive(Default)]
pub(super) struct Uses(Box<[(u32, Holder)]>);

/// Who holds a reference: the row of a consumer or credential, or one of the words below.
type Holder = u32;

/// Anything that no consumer stands on.
const REST: Holder = u32::MAX;
/// Consumer groups, plugin metadata, settings of `config.yaml`: every consumer may stand on them.
const BASE: Holder = u32::MAX - 1;

/// Who holds references that changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// Rows of the consumers and credentials, in order. See [`super::roster::Roster`].
    pub(super) rows: Vec<usize>,
    /// Something else does.
    pub(super) rest: bool,
    /// Something that consumers stand on does.
    pub(super) base: bool,
}

impl Uses {
    /// The references of these documents.
    pub(super) fn of(documents: &Documents) -> Self {
        let mut uses = Vec::with_capacity(documents.consumers.len() + documents.credentials.len());
        references::consumer_holders(documents, &mut |row, _, holder| {
            let row = u32::try_from(row).unwrap_or(BASE);
            holder.references(&mut |reference| uses.push((hash(reference), row)));
        });
        references::other_holders(documents, &mut |owner, holder| {
            // Asked for at each compilation, and nothing stands on them.
            if owner.id == TICKET_KEYS {
                return;
            }
            let place = match owner.kind {
                "consumer_groups" | "plugin_metadata" | "config.yaml" => BASE,
                _ => REST,
            };
            holder.references(&mut |reference| uses.push((hash(reference), place)));
        });
        uses.sort_unstable();
        uses.dedup();
        Self(uses.into())
    }

    /// Who holds one of these.
    pub(super) fn touched_by(&self, references: &[Arc<str>]) -> Touched {
        let mut touched = Touched::default();
        for reference in references {
            let hash = hash(reference);
            let from = self.0.partition_point(|(other, _)| *other < hash);
            let holders = self.0[from..]
                .iter()
                .take_while(|(other, _)| *other == hash);
            for (_, holder) in holders {
                match *holder {
                    REST => touched.rest = true,
                    BASE => touched.base = true,
                    row => touched.rows.extend(usize::try_from(row)),
                }
            }
        }
        // Metadata is read by whatever has the plugin.
        touched.rest |= touched.base;
        touched.rows.sort_unstable();
        touched.rows.dedup();
        touched
    }
}

fn hash(reference: &str) -> u32 {
    let hash = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(reference);
    u32::try_from(hash >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::{SharedEnv, parse};

    #[test]
    fn a_changed_reference_touches_its_holders_and_nobody_else() {
        let text = "
consumers:
  - { username: a, plugins: { key-auth: { key: $env://A } } }
  - { username: b, plugins: { key-auth: { key: $env://B } } }
  - { id: b/credentials/c, plugins: { key-auth: { key: $env://A } } }
consumer_groups:
  - { id: g, plugins: { mocking: { response_example: $env://G } } }
routes:
  - { id: 1, uri: /a, plugins: { mocking: { response_example: $env://R } } }
";
        let env: SharedEnv = Arc::new(|_| None);
        let documents = parse(text, &"test.yaml".into(), &env).expect("it is sound");
        let uses = Uses::of(&documents);
        let touched = |names: &[&str]| {
            let names: Vec<Arc<str>> = names.iter().map(|name| (*name).into()).collect();
            uses.touched_by(&names)
        };
        let of = |rows: &[usize], rest, base| Touched {
            rows: rows.to_vec(),
            rest,
            base,
        };
        assert_eq!(touched(&["$env://A"]), of(&[0, 2], false, false));
        assert_eq!(touched(&["$env://B", "$env://B"]), of(&[1], false, false));
        assert_eq!(touched(&["$env://R"]), of(&[], true, false));
        assert_eq!(touched(&["$env://G"]), of(&[], true, true));
        assert_eq!(touched(&["$env://X"]), of(&[], false, false));
    }
}
