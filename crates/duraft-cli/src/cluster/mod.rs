//! `duraft cluster`: making a cluster's stores, and asking a running one over the HTTP of its admin
//! address.

mod ask;
mod init;
mod status;

use crate::output::say;
use crate::serve::config::{Config, Peer};
use crate::serve::http::{AdminRequest, AdminResponse};
use crate::serve::{ServeFailure, read_config};
use ask::{AskError, Asked, ask};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Flags of `duraft cluster`.
#[derive(Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Make a node's store, once in its life, before its first `duraft serve`.
    ///
    /// With --config: of the node that the file describes. As one of the first members of a new
    /// cluster, all of which begin with the same [[node]] tables; with --join for a node that a
    /// cluster which lives already will `add`; with --wiped for a member that has lost its disk, which
    /// must never begin as new.
    ///
    /// With --local N: N folders with stores and configuration files for a cluster on this machine,
    /// to try things out.
    #[command(verbatim_doc_comment)]
    Init(init::InitArgs),
    /// What every node says of itself, and how far behind the leader it is.
    ///
    /// Exit codes: 0 a leader is known and all members answer; 1 not so; 2 the node cannot be asked.
    #[command(verbatim_doc_comment)]
    Status(AskArgs),
    /// Add a node: it learns the log without voting. Make its store first: `cluster init --join`.
    Add(AddArgs),
    /// Make a learner a voter.
    Promote(OneArgs),
    /// Remove a voter or learner. Stop its process afterwards.
    Remove(OneArgs),
    /// Put a new node in the place of a voter: it learns, then votes, and the old one does not any
    /// more. Make its store first: `cluster init --join`.
    Replace(ReplaceArgs),
    /// Hand leadership to another voter.
    Transfer(OneArgs),
    /// Let the node that is asked take a snapshot now.
    Snapshot(AskArgs),
}

/// Whom to ask.
#[derive(Args)]
struct AskArgs {
    /// Admin address of a node. Where it does not lead, the leader's is asked next.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "config")]
    admin: Option<String>,
    /// Take the admin address from a configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct OneArgs {
    /// The node's id.
    id: u64,
    #[command(flatten)]
    ask: AskArgs,
}

/// A node that is not in the configuration.
#[derive(Args)]
struct NewNode {
    /// Where other nodes reach it.
    #[arg(long, value_name = "HOST:PORT")]
    peer: String,
    /// Where Redis clients reach it.
    #[arg(long, value_name = "HOST:PORT")]
    client: String,
    /// Where HTTP clients reach it.
    #[arg(long, value_name = "HOST:PORT")]
    http: String,
    /// Where `duraft cluster` reaches it.
    #[arg(long, value_name = "HOST:PORT", default_value = "")]
    new_admin: String,
}

impl NewNode {
    fn with_id(&self, id: u64) -> Peer {
        Peer {
            id,
            peer: self.peer.clone(),
            client: self.client.clone(),
            http: self.http.clone(),
            admin: self.new_admin.clone(),
        }
    }
}

#[derive(Args)]
struct AddArgs {
    /// The new node's id, which no node ever had.
    id: u64,
    #[command(flatten)]
    node: NewNode,
    /// Make it a voter as soon as it has caught up.
    #[arg(long)]
    promote: bool,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
struct ReplaceArgs {
    /// The voter that goes.
    old: u64,
    /// The new node's id, which no node ever had.
    new: u64,
    #[command(flatten)]
    node: NewNode,
    #[command(flatten)]
    ask: AskArgs,
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterFailure {
    #[error(transparent)]
    Config(#[from] ServeFailure),
    #[error("{0} names no admin address for its own node: give --admin HOST:PORT")]
    NoAdmin(String),
    #[error(transparent)]
    Init(#[from] init::InitError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("refused: {0}")]
    Refused(String),
    #[error(
        "it may have taken effect or still take effect: {0}. Look at `duraft cluster status` before \
         trying again"
    )]
    Unknown(String),
}

impl ClusterFailure {
    /// 1 refused, 2 could not be asked, 3 unknown.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            ClusterFailure::Refused(_) => 1,
            ClusterFailure::Config(_)
            | ClusterFailure::NoAdmin(_)
            | ClusterFailure::Init(_)
            | ClusterFailure::Ask(_) => 2,
            ClusterFailure::Unknown(_) => 3,
        })
    }
}

/// Does what was asked for.
pub(crate) fn run(args: &ClusterArgs) -> Result<ExitCode, ClusterFailure> {
    match &args.command {
        ClusterCommand::Init(args) => {
            init::run(args)?;
            Ok(ExitCode::SUCCESS)
        }
        ClusterCommand::Status(args) => status::run(&address(args)?, args.json),
        ClusterCommand::Add(args) => {
            let request = AdminRequest {
                peer: Some(args.node.with_id(args.id)),
                promote: args.promote,
                ..AdminRequest::default()
            };
            act("add", &request, &args.ask)
        }
        ClusterCommand::Promote(args) => act("promote", &about(args.id), &args.ask),
        ClusterCommand::Remove(args) => act("remove", &about(args.id), &args.ask),
        ClusterCommand::Replace(args) => {
            let request = AdminRequest {
                id: args.old,
                peer: Some(args.node.with_id(args.new)),
                ..AdminRequest::default()
            };
            act("replace", &request, &args.ask)
        }
        ClusterCommand::Transfer(args) => act("transfer", &about(args.id), &args.ask),
        ClusterCommand::Snapshot(args) => act("snapshot", &about(0), args),
    }
}

fn about(id: u64) -> AdminRequest {
    AdminRequest {
        id,
        ..AdminRequest::default()
    }
}

fn address(args: &AskArgs) -> Result<String, ClusterFailure> {
    if let Some(admin) = &args.admin {
        return Ok(admin.clone());
    }
    let config: Config = read_config(args.config.as_ref(), &[])?;
    let admin = config.listen_admin();
    if admin.is_empty() {
        let file = args.config.as_ref().map(|file| file.display().to_string());
        return Err(ClusterFailure::NoAdmin(file.unwrap_or_default()));
    }
    Ok(admin)
}

/// Asks for a change, of the leader where the node that was named does not lead.
fn act(action: &str, request: &AdminRequest, args: &AskArgs) -> Result<ExitCode, ClusterFailure> {
    const HOPS_MAX: usize = 3;
    let mut at = address(args)?;
    let path = format!("/v1/cluster/{action}");
    let body = serde_json::to_string(request).map_err(AskError::Json)?;
    for _ in 0..HOPS_MAX {
        let Asked { text, .. } = ask(&at, &path, Some(&body))?;
        let response: AdminResponse = serde_json::from_str(&text).map_err(AskError::Json)?;
        if let Some(admin) = response.leader_admin.clone().filter(|admin| *admin != at) {
            at = admin;
            continue;
        }
        if args.json {
            say(text.trim_end());
        } else if response.error.is_empty() {
            say(&response.done);
        }
        return match &response.outcome[..] {
            "done" => Ok(ExitCode::SUCCESS),
            "unknown" => Err(ClusterFailure::Unknown(response.error)),
            _ => Err(ClusterFailure::Refused(response.error)),
        };
    }
    Err(ClusterFailure::Refused(
        "leadership keeps changing; try again".into(),
    ))
}
