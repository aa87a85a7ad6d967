//! The environment as it was at start. Its values are taken out of the memory that the kernel shows
//! as `/proc/<pid>/environ`, so that neither root nor a debugger reads there what `$env://` and
//! `${{…}}` stand for. Never logs a name or a value.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::config::parse::SharedEnv;
use crate::sealed::Sealed;

/// Variables taken out of the process's environment; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Environment(Arc<Vec<(String, Arc<Sealed>)>>);

impl Environment {
    /// Takes the values and leaves the names, but for variables that libraries read while the
    /// process runs: of those only `AWS_*` may be secrets, and they stay where they are.
    ///
    /// Call it before anything reads the environment on another thread, and before the process
    /// stops being dumpable: its memory is then closed to itself, too. Where the kernel does not
    /// let a process write its own memory, less is taken, and the second half says why.
    pub fn take() -> (Self, io::Result<()>) {
        let mut taken = Vec::new();
        let done = take_into(&mut taken);
        (Self(Arc::new(taken)), done)
    }

    /// Answers as the process's environment did before it was taken.
    #[must_use]
    pub fn shared(&self) -> SharedEnv {
        let taken = Arc::clone(&self.0);
        Arc::new(
            move |name| match taken.iter().find(|(taken, _)| taken == name) {
                Some((_, value)) => value.open().as_str().map(str::to_owned),
                None => std::env::var(name).ok(),
            },
        )
    }

    /// What was taken.
    pub fn variables(&self) -> impl Iterator<Item = (String, Arc<Sealed>)> {
        self.0.iter().cloned()
    }
}

fn take_into(taken: &mut Vec<(String, Arc<Sealed>)>) -> io::Result<()> {
    let block = Zeroizing::new(fs::read("/proc/self/environ")?);
    let start = env_start(&fs::read_to_string("/proc/self/stat")?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no env_start in stat"))?;
    let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
    for (name, at, value) in entries(&block) {
        if value.is_empty() || is_kept(name) {
            continue;
        }
        memory.write_all_at(&vec![0; value.len()], start + at)?;
        taken.push((name.to_owned(), Arc::new(Sealed::new(value))));
    }
    Ok(())
}

/// Name, place of the value in the block, and value of each variable whose name is UTF-8.
fn entries(block: &[u8]) -> impl Iterator<Item = (&str, u64, &[u8])> {
    let mut next = 0;
    let entries = block.split(|byte| *byte == 0).map(move |entry| {
        let at = next;
        next += entry.len() + 1;
        (at, entry)
    });
    entries.filter_map(|(at, entry)| {
        let equals = memchr::memchr(b'=', entry)?;
        let name = std::str::from_utf8(&entry[..equals]).ok()?;
        let value = u64::try_from(at + equals + 1).ok()?;
        Some((name, value, &entry[equals + 1..]))
    })
}

/// Field 50 of `/proc/<pid>/stat` (`proc_pid_stat(5)`); the second may hold spaces and brackets.
fn env_start(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let start = fields.split_ascii_whitespace().nth(50 - 3)?.parse().ok()?;
    Some(start).filter(|start| *start > 0)
}

/// Whether a library reads it while the process runs.
fn is_kept(name: &str) -> bool {
    KEPT.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "TZ",
    "LANG",
    "TMPDIR",
    "NOTIFY_SOCKET",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RES_OPTIONS",
    "LOCALDOMAIN",
    "HOSTALIASES",
    "GCE_METADATA_HOST",
];
const KEPT_PREFIXES: &[&str] = &[
    "AWS_",
    "LC_",
    "LISTEN_",
    "MALLOC_",
    "MIMALLOC_",
    "OPENSSL_",
    "RUST_",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_where_they_stand() {
        let block = b"A=1\0NO_EQUALS\0EMPTY=\0B=two=2\0\xff=x\0";
        let found: Vec<_> = entries(block).collect();
        assert_eq!(
            found,
            [("A", 2, &b"1"[..]), ("EMPTY", 20, b""), ("B", 23, b"two=2"),]
        );
        for (_, at, value) in found {
            let at = usize::try_from(at).expect("small");
            assert_eq!(&block[at..at + value.len()], value);
        }
    }

    #[test]
    fn the_block_is_found_behind_any_name() {
        let numbers: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a ) b) S {}", numbers.join(" "));
        assert_eq!(env_start(&stat), Some(50));
        assert_eq!(env_start("7 (a) S 1 2"), None);
        assert_eq!(env_start(""), None);
        let hidden = format!("7 (a) S {}", vec!["0"; 49].join(" "));
        assert_eq!(env_start(&hidden), None, "hidden from us");
    }

    #[test]
    fn what_was_taken_is_still_answered() {
        let taken = vec![("TOKEN".to_owned(), Arc::new(Sealed::new(b"t")))];
        let environment = Environment(Arc::new(taken));
        assert_eq!(environment.shared()("TOKEN").as_deref(), Some("t"));
        assert_eq!(environment.shared()("PATH"), std::env::var("PATH").ok());
        assert_eq!(environment.shared()("NO_SUCH_VARIABLE_OF_TESTS"), None);
    }
}
