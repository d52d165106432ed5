//! `duraft serve`: a replicated key-value server that Redis and HTTP clients talk to.
//!
//! ```text
//! Redis client ─► Connection ─► plan ─┬─ writes ─► Engine ─► Node::propose, or Proxy ─► the leader
//! HTTP client ──► http ───────────────┤
//!                                     └─ reads ──► Engine ─► Node::read (any node)
//! ```
//!
//! The state machine is [`machine::Machine`]; what stands in the log is in [`command`]. A client is
//! answered when its command is committed and applied, refused when it certainly has no effect, and
//! cut off when nobody can tell.

mod book;
mod command;
pub(crate) mod config;
mod engine;
mod glob;
pub(crate) mod http;
mod machine;
mod proxy;
mod redis;
mod reply;
mod resp;
mod server;
pub(crate) mod setup;
mod stats;

use crate::output::say;
use clap::Args;
use config::{Config, Problem};
use server::{ServeError, Server};
use std::path::PathBuf;
use std::process::ExitCode;

/// Flags of `duraft serve`.
#[derive(Args)]
pub(crate) struct ServeArgs {
    /// The configuration file; docs/config.md names its fields.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a field, whatever the file says: `--set limits.connections_max=100`. May be repeated.
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// Print the whole configuration as it would be used, and start nothing.
    #[arg(long)]
    print_config: bool,
    /// Print the reference of all fields, and start nothing.
    #[arg(long, hide = true)]
    print_reference: bool,
}

/// Why `duraft serve` did not serve, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeFailure {
    #[error("{} cannot be read: {source}", .file.display())]
    File {
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("the configuration cannot be used:\n  {}", lines(.0))]
    Config(Vec<Problem>),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl ServeFailure {
    /// The program's exit code.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            ServeFailure::Serve(ServeError::Stopped(_)) => ExitCode::from(1),
            ServeFailure::Serve(_) | ServeFailure::File { .. } | ServeFailure::Config(_) => {
                ExitCode::from(2)
            }
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n  ")
}

/// Reads a configuration file, and flags that win over it.
pub(crate) fn read_config(
    file: Option<&PathBuf>,
    flags: &[String],
) -> Result<Config, ServeFailure> {
    let text = match file {
        None => String::new(),
        Some(file) => std::fs::read_to_string(file).map_err(|source| ServeFailure::File {
            file: file.clone(),
            source,
        })?,
    };
    config::from_text(&text, flags).map_err(ServeFailure::Config)
}

/// Serves until it is told to end.
pub(crate) fn run(args: &ServeArgs) -> Result<ExitCode, ServeFailure> {
    if args.print_reference {
        say(config::reference().trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let config = read_config(args.config.as_ref(), &args.set)?;
    if args.print_config {
        say(config::print(&config).trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    begin_log(&config);
    let id = config.id;
    let server = Server::start(config)?;
    let listening = &server.listening;
    let admin = listening
        .admin
        .map_or(String::new(), |admin| format!(" admin={admin}"));
    say(&format!(
        "ready node={id} client={} http={}{admin}",
        listening.client, listening.http
    ));
    server.run()?;
    Ok(ExitCode::SUCCESS)
}

/// What happens is written to standard error.
fn begin_log(config: &Config) {
    let level = config.log.parse().unwrap_or(tracing::Level::INFO);
    // A second call, in tests, changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
