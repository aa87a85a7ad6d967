//! The process itself: its pid file, and what others may see of its memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

use super::environment::Environment;
use crate::config::bootstrap::Bootstrap;

/// The pid file, removed when dropped.
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes this process's pid.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, format!("{}\n", std::process::id()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A successor may have written its own by now.
        if pid_of(&self.0).is_ok_and(|pid| pid.unsigned_abs() == std::process::id()) {
            drop(fs::remove_file(&self.0));
        }
    }
}

/// The pid in a pid file.
///
/// # Errors
/// The file cannot be read, or holds no pid.
pub fn pid_of(path: &Path) -> io::Result<i32> {
    let text = fs::read_to_string(path)?;
    text.trim()
        .parse()
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no pid in the file"))
}

/// Keeps secrets out of core dumps, debuggers of the same user and `/proc/<pid>/environ`, unless
/// asked not to, and raises the limit of open files. Failures are logged: none is a reason not to
/// serve. Returns what was taken out of the environment.
#[must_use]
pub fn harden(bootstrap: &Bootstrap) -> Environment {
    let mut environment = Environment::default();
    if !bootstrap.claviger.allow_core_dump {
        let (taken, done) = Environment::take();
        environment = taken;
        if let Err(error) = done {
            log::warn!("the environment stays in /proc/self/environ: {error}");
        }
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            log::warn!("the process stays dumpable: {error}");
        }
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        if let Err(error) = setrlimit(Resource::Core, none) {
            log::warn!("core dumps stay possible: {error}");
        }
    }
    if let Some(wanted) = bootstrap.nginx_config.worker_rlimit_nofile {
        let now = getrlimit(Resource::Nofile);
        let reachable = now.maximum.map_or(wanted, |maximum| wanted.min(maximum));
        let raised = Rlimit {
            current: Some(reachable),
            maximum: now.maximum,
        };
        if now.current.is_some_and(|current| current < reachable)
            && let Err(error) = setrlimit(Resource::Nofile, raised)
        {
            log::warn!("the limit of open files stays as it is: {error}");
        }
    }
    environment
}
