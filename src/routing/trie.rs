//! A compressed trie over bytes, built once from sorted keys: finds all keys that are prefixes of
//! a text in one walk over the text, whatever the number of keys.

use smallvec::SmallVec;

/// Keys and their values; read-only once built.
#[derive(Debug)]
pub(super) struct Trie<V> {
    /// The root is the first; children of one node stand together, sorted by first byte.
    nodes: Vec<Node>,
    /// All labels, one after the other.
    labels: Vec<u8>,
    values: Vec<V>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    label: u32,
    label_len: u32,
    children: u32,
    value: u32,
    child_count: u16,
    first: u8,
}

/// Positions of values on one path from the root; sixteen nested prefixes fit without the heap.
pub(super) type Found = SmallVec<[u32; 16]>;

const NO_VALUE: u32 = u32::MAX;

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            labels: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<V> Trie<V> {
    /// Builds from keys in any order; equal keys must have been joined before.
    pub(super) fn build(mut entries: Vec<(Box<[u8]>, V)>) -> Self {
        if entries.is_empty() {
            return Self::default();
        }
        entries.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        let (keys, values): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        let mut trie = Self {
            nodes: vec![Node::EMPTY],
            labels: Vec::new(),
            values,
        };
        // The queue holds (node, keys below it, bytes of those keys already spent).
        let mut queue = vec![(0_usize, 0_usize..keys.len(), 0_usize)];
        while let Some((node, mut range, depth)) = queue.pop() {
            if keys[range.start].len() == depth {
                trie.nodes[node].value = index(range.start);
                range.start += 1;
            }
            let first_child = trie.nodes.len();
            trie.nodes[node].children = index(first_child);
            while range.start < range.end {
                let first = keys[range.start][depth];
                let same = keys[range.clone()].partition_point(|key| key[depth] == first);
                let group = range.start..range.start + same;
                let shared = shared_prefix(&keys[group.start], &keys[group.end - 1], depth);
                let label = &keys[group.start][depth..shared];
                trie.nodes.push(Node {
                    label: index(trie.labels.len()),
                    label_len: index(label.len()),
                    first,
                    ..Node::EMPTY
                });
                trie.labels.extend_from_slice(label);
                trie.nodes[node].child_count += 1;
                queue.push((trie.nodes.len() - 1, group.clone(), shared));
                range.start = group.end;
            }
        }
        trie
    }

    /// Whether there are no keys.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds the positions of all keys that are prefixes of `text`, shortest first.
    pub(super) fn prefixes_of(&self, text: &[u8], found: &mut Found) {
        let Some(mut node) = self.nodes.first() else {
            return;
        };
        let mut rest = text;
        loop {
            if node.value != NO_VALUE {
                found.push(node.value);
            }
            let Some((&first, _)) = rest.split_first() else {
                return;
            };
            let children = node.children as usize;
            let children = &self.nodes[children..children + usize::from(node.child_count)];
            let Ok(child) = children.binary_search_by_key(&first, |child| child.first) else {
                return;
            };
            node = &children[child];
            let label = node.label as usize;
            let label = &self.labels[label..label + node.label_len as usize];
            match rest.strip_prefix(label) {
                Some(after) => rest = after,
                None => return,
            }
        }
    }

    /// The value at a position that [`Self::prefixes_of`] gave.
    pub(super) fn value(&self, position: u32) -> &V {
        &self.values[position as usize]
    }
}

impl Node {
    const EMPTY: Self = Self {
        label: 0,
        label_len: 0,
        children: 0,
        value: NO_VALUE,
        child_count: 0,
        first: 0,
    };
}

fn index(position: usize) -> u32 {
    u32::try_from(position).expect("a table's keys take less than 4 GiB")
}

/// How many bytes two keys share, at least `from`. In a sorted group the first and the last key
/// share what all share.
fn shared_prefix(first: &[u8], last: &[u8], from: usize) -> usize {
    let pairs = first[from..].iter().zip(&last[from..]);
    from + pairs.take_while(|(left, right)| left == right).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_prefixes_are_found_shortest_first() {
        let keys = ["/", "/a", "/ab/", "/ab/c", "/b", "", "/abx", "/é"];
        let trie = Trie::build(
            keys.iter()
                .map(|key| (Box::from(key.as_bytes()), *key))
                .collect(),
        );
        for text in ["", "/", "/ab/cd", "/abx", "/aby", "/é!", "b", "/c"] {
            let mut found = Found::new();
            trie.prefixes_of(text.as_bytes(), &mut found);
            let found: Vec<_> = found
                .iter()
                .map(|&position| *trie.value(position))
                .collect();
            let mut expected: Vec<_> = keys
                .into_iter()
                .filter(|key| text.starts_with(key))
                .collect();
            expected.sort_by_key(|key| key.len());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn an_empty_trie_finds_nothing() {
        let mut found = Found::new();
        Trie::<()>::build(Vec::new()).prefixes_of(b"/", &mut found);
        assert!(found.is_empty());
    }
}
