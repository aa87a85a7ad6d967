//! Who imports whom (`ARCHITECTURE.md`, style §3): a room knows only rooms below its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by layer, lowest first. A room may import from lower layers only, so that two rooms of
/// one layer stay strangers; the last layer may import everything.
const LAYERS: [&[&str]; 9] = [
    &[
        "clock",
        "diagnostic",
        "ip_set",
        "kept",
        "sealed",
        "sharded",
        "wipe",
    ],
    &["http", "callout", "expr", "jwt", "telemetry"],
    &["secrets", "config"],
    &["tls", "ldap", "upstream", "consumer", "routing"],
    &["plugins"],
    &["snapshot"],
    &["reload"],
    &["proxy", "admin"],
    &["server", "cli"],
];

/// Rooms of one layer that know each other all the same, and why.
const EXCEPTIONS: [(&str, &str, &str); 1] = [(
    "telemetry",
    "expr",
    "access log formats and metric labels are templates over request variables",
)];

/// Longest file of shipped code, tests at its end not counted.
const MAX_LINES: usize = 600;

#[test]
fn rooms_import_downwards_only() {
    let mut wrong = Vec::new();
    for file in sources() {
        let room = room_of(&file);
        if matches!(room.as_str(), "lib" | "main") {
            continue;
        }
        let own = layer(&room).unwrap_or_else(|| panic!("{room} has no layer in the table"));
        for other in imports(&shipped(&file)) {
            let allowed = match layer(&other) {
                _ if other == room || own == LAYERS.len() - 1 => true,
                Some(layer) if layer < own => true,
                Some(_) => EXCEPTIONS
                    .iter()
                    .any(|(from, to, _)| *from == room && *to == other),
                None => false,
            };
            if !allowed {
                wrong.push(format!("{}: {room} imports {other}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_of_the_table_exists() {
    for room in LAYERS.concat() {
        let file = root().join(format!("{room}.rs"));
        let folder = root().join(room).join("mod.rs");
        assert!(file.is_file() || folder.is_file(), "{room} is gone");
    }
}

#[test]
fn every_file_says_what_it_is_and_stays_short() {
    for file in sources() {
        let text = shipped(&file);
        let name = file.display();
        assert!(text.starts_with("//!"), "{name} must open with //!");
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{name} has {lines} lines; split it");
    }
}

#[test]
fn only_the_clock_reads_the_clock() {
    for file in sources() {
        let text = shipped(&file);
        for call in ["Instant::now()", "SystemTime::now()"] {
            let named = text.contains(call) && room_of(&file) != "clock";
            assert!(!named, "{}: take a Clock, not {call}", file.display());
        }
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::a::B;\n// crate::no::C\nuse crate::{\n c::D,\n e::{f, g},\n};\n\
        fn x() { crate::h::i(); }\nuse crate::j as k;";
    let found: Vec<String> = imports(text).into_iter().collect();
    assert_eq!(found, ["a", "c", "e", "h", "j"]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs")
                && !path.to_string_lossy().ends_with("tests.rs")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn room_of(file: &Path) -> String {
    let inside = file.strip_prefix(root()).unwrap();
    let first = inside.components().next().unwrap();
    let name = Path::new(first.as_os_str()).file_stem().unwrap();
    name.to_string_lossy().into_owned()
}

/// The file without the tests at its end.
fn shipped(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    match text.find("#[cfg(test)]\nmod ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// Rooms named after `crate::`, in comments excepted.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(first_names(group)),
            None => rooms.extend(ident(rest)),
        }
    }
    rooms
}

/// First names of the entries of a brace group whose `{` is already read.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut fresh, mut names) = (0, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                names.extend(ident(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn ident(text: &str) -> Option<String> {
    let name: String = text
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}
