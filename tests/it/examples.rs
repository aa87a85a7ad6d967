//! What stands under `conf/` is true: it passes `check`, and the program starts with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::Gateway;
use crate::harness::gateway::program;

fn conf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("conf")
        .join(name)
}

fn passes(config: &Path, resources: &Path) {
    let (config, resources) = (config.to_str().unwrap(), resources.to_str().unwrap());
    let checked = Command::new(program())
        .args(["check", "--config", config, "--resources", resources])
        .env("VAULT_TOKEN", "token-of-the-example")
        .env("AWS_ACCESS_KEY_ID", "key-of-the-example")
        .env("AWS_SECRET_ACCESS_KEY", "key-of-the-example")
        .output()
        .unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success(), "{resources}: {said}");
    assert!(
        said.ends_with("0 error(s), 0 warning(s)\n"),
        "{resources}: {said}"
    );
}

#[test]
fn the_configuration_that_comes_along_passes_check() {
    passes(&conf("config.yaml"), &conf("apisix.yaml"));
    Gateway::builder()
        .resources(fs::read_to_string(conf("apisix.yaml")).unwrap())
        .env("JACK_KEY", "open-sesame")
        .start();
}

#[test]
fn every_example_starts() {
    let mut started = 0;
    for entry in fs::read_dir(conf("examples")).unwrap() {
        let path = entry.unwrap().path();
        passes(&conf("config.yaml"), &path);
        // Their managers are not here, so what needs them refuses; the program serves.
        let builder = Gateway::builder()
            .env("VAULT_TOKEN", "token-of-the-example")
            .env("AWS_ACCESS_KEY_ID", "key-of-the-example")
            .env("AWS_SECRET_ACCESS_KEY", "key-of-the-example")
            .unready();
        if path.is_dir() {
            let mut builder = builder.folder();
            for part in fs::read_dir(&path).unwrap() {
                let part = part.unwrap();
                let name = part.file_name().into_string().unwrap();
                builder = builder.part(&name, &fs::read_to_string(part.path()).unwrap());
            }
            builder.start();
        } else {
            builder
                .resources(fs::read_to_string(&path).unwrap())
                .start();
        }
        started += 1;
    }
    assert!(started >= 5, "the examples are there");
}
