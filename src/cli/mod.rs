//! The commands.

pub mod echo;
pub mod quickstart;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command the arguments name.
pub fn main(_args: impl Iterator<Item = OsString>) -> ExitCode {
    ExitCode::SUCCESS
}
