//! Programs that `scripts/setup.sh` installs into `.venv`.

use std::path::{Path, PathBuf};

/// The program of that name in `.venv/bin`, else of the path.
pub fn tool(name: &str) -> PathBuf {
    let local = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin");
    let local = local.join(name);
    if local.exists() { local } else { name.into() }
}
