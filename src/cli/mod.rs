//! The commands. Each is one file and one line in `Command`.

pub mod audit;
pub mod check;
pub mod control;
pub mod echo;
pub mod explain;
pub mod quickstart;
pub mod run;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// An edge proxy and API gateway that keeps every credential in a secret manager.
#[derive(Debug, Parser)]
#[command(name = "claviger", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default command).
    Run(run::RunArgs),
    /// Say everything that `run` would refuse or warn about.
    Check(check::CheckArgs),
    /// Show the compiled configuration: who uses which reference. Never a value.
    Explain(explain::ExplainArgs),
    /// Check audit logs.
    Audit(audit::AuditArgs),
    /// An upstream for trying things: answers with the request it got.
    Echo(echo::EchoArgs),
    /// Write a working configuration with fresh credentials into a folder.
    Quickstart(quickstart::QuickstartArgs),
    /// Make the running process read its resources again (SIGHUP).
    Reload(ConfigArgs),
    /// Stop the running process at once (SIGINT).
    Stop(ConfigArgs),
    /// Stop the running process once its requests have ended (SIGTERM).
    Quit(ConfigArgs),
    /// Show the version.
    Version,
}

/// Which configuration a command is about.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// Bootstrap configuration.
    #[arg(short, long, value_name = "FILE", default_value = "conf/config.yaml")]
    pub config: PathBuf,
}

/// Runs the command the arguments name. Exit codes: 0 well, 1 findings or failure, 2 could not
/// run.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version are not failures, and go to standard output.
            drop(usage.print());
            return if usage.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let command = cli.command.unwrap_or(Command::Run(cli.run));
    let done = match command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Echo(args) => echo::run(args).map(|()| ExitCode::SUCCESS),
        Command::Quickstart(args) => quickstart::run(args).map(|()| ExitCode::SUCCESS),
        Command::Reload(args) => control::signal(&args, control::Order::Reload),
        Command::Stop(args) => control::signal(&args, control::Order::Stop),
        Command::Quit(args) => control::signal(&args, control::Order::Quit),
        Command::Version => version(),
    };
    done.unwrap_or_else(|error| {
        // `{:#}` joins the causes; no error of ours holds a value.
        drop(writeln!(std::io::stderr(), "claviger: {error:#}"));
        ExitCode::from(2)
    })
}

fn version() -> anyhow::Result<ExitCode> {
    let openssl = openssl::version::version();
    writeln!(
        std::io::stdout(),
        "claviger {} ({openssl})",
        env!("CARGO_PKG_VERSION")
    )?;
    Ok(ExitCode::SUCCESS)
}
