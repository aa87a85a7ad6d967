//! The `claviger` program: hands its arguments to [`claviger::cli`].

use std::process::ExitCode;

/// Pingora's cost is one sixth allocator; mimalloc was the cheapest of those measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    claviger::cli::main(std::env::args_os())
}
