//! The memory of a running program as others could see it: every page it may write to, searched for
//! marks in the forms they are likely to stand in.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem::Finder;

/// A mark that was found.
pub struct Hit {
    /// Such as `base64`.
    form: &'static str,
    /// Address, and what the page belongs to, such as `[heap]`.
    place: String,
    /// What stands around it.
    around: String,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {:?}", self.form, self.place, self.around)
    }
}

/// Every place where the mark stands. Reading takes what a debugger needs: root, or a program that
/// stays dumpable.
pub fn search(pid: u32, mark: &str) -> Vec<Hit> {
    let needles = forms(mark);
    let finders: Vec<_> = needles
        .iter()
        .map(|(form, needle)| (*form, Finder::new(needle)))
        .collect();
    let memory = File::open(format!("/proc/{pid}/mem")).expect("we may read its memory");
    let pages = File::open(format!("/proc/{pid}/pagemap")).expect("and its page table");
    let mut hits = Vec::new();
    for mapping in writable(pid) {
        for (start, end) in present(&pages, &mapping) {
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            // A page may go between our looking at the table and our reading it.
            if memory.read_exact_at(&mut bytes, start).is_err() {
                continue;
            }
            for (form, finder) in &finders {
                hits.extend(finder.find_iter(&bytes).map(|at| Hit {
                    form,
                    place: format!("{:x} {}", start + at as u64, mapping.name),
                    around: around(&bytes, at),
                }));
            }
        }
    }
    hits
}

/// How many hits there are in each form.
pub fn summary(hits: &[Hit]) -> BTreeMap<&'static str, usize> {
    let mut forms = BTreeMap::new();
    for hit in hits {
        *forms.entry(hit.form).or_default() += 1;
    }
    forms
}

struct Mapping {
    start: u64,
    end: u64,
    name: String,
}

fn writable(pid: u32) -> Vec<Mapping> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mapping = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (range, access) = (words.next()?, words.next()?);
        let (start, end) = range.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        access.starts_with("rw").then_some(Mapping {
            start: address(start)?,
            end: address(end)?,
            name: words.nth(3).unwrap_or("anonymous").to_owned(),
        })
    };
    let writable: Vec<_> = maps.lines().filter_map(mapping).collect();
    assert!(writable.len() > 10, "a program has stacks, a heap, data");
    writable
}

/// The parts of a mapping that stand in memory, most of which do not: allocators reserve a lot.
fn present(pages: &File, mapping: &Mapping) -> Vec<(u64, u64)> {
    let count = (mapping.end - mapping.start) / PAGE;
    let mut entries = vec![0; usize::try_from(count * 8).unwrap()];
    let at = mapping.start / PAGE * 8;
    pages.read_exact_at(&mut entries, at).unwrap();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (page, entry) in (0..).zip(entries.chunks_exact(8)) {
        // Bits 63 and 62: in memory, swapped out.
        if entry[7] >> 6 == 0 {
            continue;
        }
        let start = mapping.start + page * PAGE;
        match runs.last_mut() {
            Some((_, end)) if *end == start => *end += PAGE,
            _ => runs.push((start, start + PAGE)),
        }
    }
    runs
}

/// The mark as it is, and inside what is encoded: base64 has it in one of three shapes, but for the
/// letters at its edges.
fn forms(mark: &str) -> Vec<(&'static str, Vec<u8>)> {
    let hex = mark.bytes().map(|byte| format!("{byte:02x}"));
    let mut forms = vec![
        ("plain", mark.as_bytes().to_vec()),
        ("hex", hex.collect::<String>().into_bytes()),
    ];
    for skip in 0..3 {
        let padded = [&b"\0\0"[..skip], mark.as_bytes()].concat();
        let whole = padded.len() / 3 * 3;
        let mut shapes = Vec::new();
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded[..whole]);
            shapes.push(text.as_bytes()[[0, 2, 3][skip]..].to_vec());
        }
        shapes.dedup();
        forms.extend(shapes.into_iter().map(|shape| ("base64", shape)));
    }
    forms
}

fn around(bytes: &[u8], at: usize) -> String {
    let part = &bytes[at.saturating_sub(64)..(at + 64).min(bytes.len())];
    String::from_utf8_lossy(part).into_owned()
}

const PAGE: u64 = 4096;
