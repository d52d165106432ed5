//! `duraft accept-loss`: gives up what a damaged store has lost.

mod report;

use crate::offline::{StoreArgs, Trouble, entropy, is_usage, rehearsal, say};
use clap::Args;
use duraft_core::{GroupId, Index, LogId};
use duraft_disk::Disk;
use duraft_storage::{Damage, OnDamage, OpenError, RecoveredGroup, WalOptions};
use report::{Report, State};
use std::process::ExitCode;
use std::sync::Arc;

/// Flags of `duraft accept-loss`.
#[derive(Args)]
pub(crate) struct LossArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// First index of the loss, as the report says it.
    #[arg(long, requires = "last", value_name = "INDEX")]
    first: Option<u64>,

    /// Last index of the loss, as the report says it.
    #[arg(long, requires = "first", value_name = "INDEX")]
    last: Option<u64>,

    /// Do it. Without this flag nothing is changed: the report says what is lost.
    #[arg(long, requires = "first")]
    i_accept_that_acknowledged_commands_are_gone: bool,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Trouble(#[from] Trouble),
    #[error("the store has no group {0}")]
    NoGroup(GroupId),
    #[error("group {group} has lost nothing; the store has: {damage}")]
    OtherGroup { group: GroupId, damage: Box<Damage> },
    #[error("what is lost is {} to {}, not {} to {}", .lost.0, .lost.1, .named.0, .named.1)]
    OtherRange {
        lost: (Index, Index),
        named: (Index, Index),
    },
    #[error("the store cannot be used even without what is lost: {0}")]
    Hopeless(OpenError),
}

impl Problem {
    /// 2: asked for in a wrong way. 1: refused because of what the store is like.
    pub(crate) fn code(&self) -> ExitCode {
        let usage = match self {
            Problem::Open(error) => is_usage(error),
            Problem::Trouble(trouble) => trouble.is_usage(),
            Problem::NoGroup(_) | Problem::OtherGroup { .. } | Problem::OtherRange { .. } => true,
            Problem::Hopeless(_) => false,
        };
        ExitCode::from(if usage { 2 } else { 1 })
    }
}

/// Exit codes as the help says.
pub(crate) fn run(args: &LossArgs) -> Result<ExitCode, Problem> {
    let disk = args.store.disk()?;
    let damage = match look(args, &rehearsal(&disk), OnDamage::Refuse) {
        Ok(found) => {
            let mut report = Report::new(args.store.node, args.store.group());
            report.after = Some(State::of(&found));
            args.store.publish(&report)?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(Problem::Open(OpenError::Damaged(damage))) => damage,
        Err(problem) => return Err(problem),
    };
    let group = args.store.group();
    let Some(lost) = damage.groups.get(&group) else {
        // Without any group it is the store itself that says nothing any more.
        return Err(if damage.groups.is_empty() {
            Problem::Hopeless(OpenError::Damaged(damage))
        } else {
            Problem::OtherGroup { group, damage }
        });
    };
    if let Some(named) = args.range()
        && named != lost.loss
    {
        let lost = lost.loss;
        return Err(Problem::OtherRange { lost, named });
    }
    let accept = OnDamage::AcceptLoss {
        group,
        range: lost.loss,
    };
    let (rehearsed, readable) = rehearse(args, &disk, accept)?;
    let done = args.i_accept_that_acknowledged_commands_are_gone;
    let mut report = Report::new(args.store.node, group);
    report.tell_loss(lost, done);
    report.snapshot_readable = readable.map(crate::offline::Entry::of);
    let others = damage.groups.keys().filter(|other| **other != group);
    report.other_groups = others.map(|other| other.0).collect();
    report.after = Some(State::of(&if done {
        look(args, &disk, accept)?
    } else {
        rehearsed
    }));
    args.store.publish(&report)?;
    if !done {
        let (first, last) = lost.loss;
        say(&format_args!(
            "To do it, add --first {first} --last {last} --i-accept-that-acknowledged-commands-are-gone\n"
        ));
    }
    Ok(ExitCode::from(if done { 0 } else { 2 }))
}

impl LossArgs {
    fn range(&self) -> Option<(Index, Index)> {
        Some((Index(self.first?), Index(self.last?)))
    }
}

/// Opens the store and tells what it holds of the group.
fn look(
    args: &LossArgs,
    disk: &Arc<dyn Disk>,
    policy: OnDamage,
) -> Result<RecoveredGroup, Problem> {
    let options = WalOptions {
        policy,
        ..WalOptions::default()
    };
    let identity = args.store.identity();
    let (wal, mut recovered) =
        duraft_storage::open(Arc::clone(disk), &identity, options, entropy())?;
    drop(wal);
    let group = args.store.group();
    let found = recovered.groups.remove(&group);
    found.ok_or(Problem::NoGroup(group))
}

/// Does it without changing anything, and opens what is left as a node would; tells which snapshot
/// that node could start from.
fn rehearse(
    args: &LossArgs,
    disk: &Arc<dyn Disk>,
    accept: OnDamage,
) -> Result<(RecoveredGroup, Option<LogId>), Problem> {
    let over = rehearsal(disk);
    let hopeless = |problem| match problem {
        Problem::Open(error) => Problem::Hopeless(error),
        other @ (Problem::Trouble(_)
        | Problem::NoGroup(_)
        | Problem::OtherGroup { .. }
        | Problem::OtherRange { .. }
        | Problem::Hopeless(_)) => other,
    };
    look(args, &over, accept).map_err(hopeless)?;
    // Other groups that have lost something are opened to be repaired by their peers.
    let found = look(args, &over, OnDamage::RepairFromPeers).map_err(hopeless)?;
    let readable = args.store.readable_snapshot(over, &found)?;
    Ok((found, readable))
}
