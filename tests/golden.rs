//! Golden files: `tests/golden/config/<name>.yaml` beside the findings it must give, in
//! `<name>.expected`. `CLAVIGER_GOLDEN=rewrite` rewrites the latter; read the diff.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use claviger::config::parse::{parse, utf8};
use claviger::diagnostic::Diagnostic;

fn findings(bytes: &[u8], name: &str) -> String {
    let file: Arc<str> = name.into();
    let env: claviger::config::parse::SharedEnv = Arc::new(|_| None);
    let outcome = utf8(bytes, &file).and_then(|text| parse(text, &file, &env));
    let diagnostics: Vec<Diagnostic> = match outcome {
        Ok(documents) => documents.diagnostics,
        Err(refusal) => vec![refusal],
    };
    diagnostics
        .iter()
        .map(|found| format!("{found}\n"))
        .collect()
}

#[test]
fn resource_files_give_the_findings_written_beside_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let mut wrong = Vec::new();
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .expect("the folder exists")
        .map(|entry| entry.expect("can be listed").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension != "expected")
        })
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 5, "the golden files are there");
    for input in inputs {
        let name = input
            .file_name()
            .expect("is a file")
            .to_string_lossy()
            .into_owned();
        let found = findings(&fs::read(&input).expect("can be read"), &name);
        assert!(
            !found.contains("MARKER"),
            "{name}: a finding must not hold a value"
        );
        let expected = input.with_extension("expected");
        if std::env::var_os("CLAVIGER_GOLDEN").is_some() {
            fs::write(&expected, &found).expect("can be written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{name}:\n{found}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "findings differ from the golden files:\n{}",
        wrong.join("\n")
    );
}
