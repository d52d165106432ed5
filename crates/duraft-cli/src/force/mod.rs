//! `duraft force-new-configuration`: recovery of a cluster that has lost its quorum for good.

mod report;

use crate::offline::{StoreArgs, Trouble, entropy, is_usage, rehearsal, say};
use clap::Args;
use duraft_core::{LogId, Membership, NodeId};
use duraft_disk::Disk;
use duraft_storage::{ForceError, ForcedReport, ForcedVoters, WalOptions, force_configuration};
use report::Report;
use std::process::ExitCode;
use std::sync::Arc;

/// Flags of `duraft force-new-configuration`.
#[derive(Args)]
pub(crate) struct ForceArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// All voters from now on, the surviving node among them. The others must be new, empty nodes.
    #[arg(long, value_delimiter = ',', required = true, value_name = "ID,ID,...")]
    voters: Vec<u64>,

    /// Do it. Without this flag nothing is changed: the report says what would happen.
    #[arg(long)]
    i_accept_that_acknowledged_commands_may_be_lost: bool,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error(transparent)]
    Force(#[from] ForceError),
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl Problem {
    /// 2: asked for in a wrong way. 1: refused because of what the store is like.
    pub(crate) fn code(&self) -> ExitCode {
        let usage = match self {
            Problem::Trouble(trouble) => trouble.is_usage(),
            Problem::Force(ForceError::Open(error)) => is_usage(error),
            Problem::Force(error) => matches!(
                error,
                ForceError::Membership(_)
                    | ForceError::NotAmongVoters(_)
                    | ForceError::UnknownGroup(_)
            ),
        };
        ExitCode::from(if usage { 2 } else { 1 })
    }
}

/// Exit codes: 0 done; 1 refused, the store is damaged or cannot be used; 2 nothing asked for that
/// could be done, or only a report.
pub(crate) fn run(args: &ForceArgs) -> Result<ExitCode, Problem> {
    let disk = args.store.disk()?;
    let (mut forced, readable) = rehearse(args, &disk)?;
    let done = args.i_accept_that_acknowledged_commands_may_be_lost;
    if done {
        forced = force(args, disk)?;
    }
    let report = Report::new(done, args.store.cluster.to_string(), &forced, readable);
    args.store.publish(&report)?;
    if !done {
        say(&"To do it, add --i-accept-that-acknowledged-commands-may-be-lost\n");
    }
    Ok(ExitCode::from(if done { 0 } else { 2 }))
}

impl ForceArgs {
    fn wanted(&self) -> ForcedVoters {
        ForcedVoters {
            group: self.store.group(),
            voters: self.voters.iter().copied().map(NodeId).collect(),
        }
    }
}

/// Does it without changing anything; tells which snapshot a node could start from.
fn rehearse(
    args: &ForceArgs,
    disk: &Arc<dyn Disk>,
) -> Result<(ForcedReport, Option<LogId>), Problem> {
    // What is wrong with the wish itself comes first.
    Membership::new(args.wanted().voters, []).map_err(ForceError::from)?;
    let over = rehearsal(disk);
    let forced = force(args, Arc::clone(&over))?;
    let (wal, recovered) = duraft_storage::open(
        Arc::clone(&over),
        &args.store.identity(),
        WalOptions::default(),
        entropy(),
    )
    .map_err(ForceError::from)?;
    drop(wal);
    let group = args.store.group();
    let found = recovered.groups.get(&group);
    let found = found.ok_or(ForceError::UnknownGroup(group))?;
    let readable = args.store.readable_snapshot(over, found)?;
    Ok((forced, readable))
}

fn force(args: &ForceArgs, disk: Arc<dyn Disk>) -> Result<ForcedReport, ForceError> {
    let options = WalOptions::default();
    let identity = args.store.identity();
    force_configuration(disk, &identity, options, entropy(), &args.wanted())
}
