//! `duraft force-new-configuration`: recovery of a cluster that has lost its quorum for good.
//!
//! Everything is done on an [`Overlay`] first, which changes nothing: that tells whether it can be
//! done, what it would do, and whether the node could start afterwards. Only when the flag that spells
//! the danger out is there, it is done to the store itself.

mod overlay;
mod report;

use clap::Args;
use duraft_core::{GroupId, LogId, Membership, NodeId, Position};
use duraft_disk::{Disk, RealDisk};
use duraft_storage::{
    ClusterId, Entropy, ForceError, ForcedReport, ForcedVoters, OpenError, RecoveredGroup,
    SnapshotFileKind, SnapshotStore, StoreIdentity, WalOptions, force_configuration,
};
use overlay::Overlay;
use report::Report;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Flags of `duraft force-new-configuration`.
#[derive(Args)]
pub(crate) struct ForceArgs {
    /// Folder of the surviving node's store. Nothing may have it open.
    #[arg(long)]
    dir: PathBuf,

    /// The cluster's identity: 16 characters, or 32 hexadecimal digits.
    #[arg(long, value_parser = cluster_id)]
    cluster: ClusterId,

    /// The surviving node.
    #[arg(long)]
    node: u64,

    /// All voters from now on, the surviving node among them. The others must be new, empty nodes.
    #[arg(long, value_delimiter = ',', required = true, value_name = "ID,ID,...")]
    voters: Vec<u64>,

    /// The group.
    #[arg(long, default_value_t = 1)]
    group: u64,

    /// Largest batch of the cluster, where it is not the default.
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES")]
    max_batch_bytes: u32,

    /// Do it. Without this flag nothing is changed: the report says what would happen.
    #[arg(long)]
    i_accept_that_acknowledged_commands_may_be_lost: bool,

    /// Write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error(transparent)]
    Force(#[from] ForceError),
    #[error("cannot open the folder '{}': {source}", path.display())]
    Folder {
        path: PathBuf,
        source: duraft_disk::DiskError,
    },
    #[error(
        "the state before entry {before} is lost: no snapshot of it can be read ({}); with this store no \
         node can start", .tried.join("; ")
    )]
    StateLost { before: u64, tried: Vec<String> },
    #[error("cannot write the report to '{}': {source}", path.display())]
    Json {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl Problem {
    /// 2: asked for in a wrong way. 1: refused because of what the store is like.
    pub(crate) fn code(&self) -> ExitCode {
        let usage = match self {
            Problem::Folder { .. } | Problem::Json { .. } => true,
            Problem::StateLost { .. } => false,
            Problem::Force(error) => is_usage(error),
        };
        ExitCode::from(if usage { 2 } else { 1 })
    }
}

fn is_usage(error: &ForceError) -> bool {
    matches!(
        error,
        ForceError::Membership(_)
            | ForceError::NotAmongVoters(_)
            | ForceError::UnknownGroup(_)
            | ForceError::Open(
                OpenError::NoStore
                    | OpenError::ForeignCluster { .. }
                    | OpenError::ForeignNode { .. }
                    | OpenError::MaxBatch { .. }
                    | OpenError::Options(_)
            )
    )
}

/// Exit codes: 0 done; 1 refused, the store is damaged or cannot be used; 2 nothing asked for that
/// could be done, or only a report.
pub(crate) fn run(args: &ForceArgs) -> Result<ExitCode, Problem> {
    let disk = RealDisk::open(&args.dir).map_err(|source| Problem::Folder {
        path: args.dir.clone(),
        source,
    })?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let (mut forced, readable) = rehearse(args, &disk)?;
    let done = args.i_accept_that_acknowledged_commands_may_be_lost;
    if done {
        forced = force(args, disk)?;
    }
    let report = Report::new(done, args.cluster.to_string(), &forced, readable);
    publish(args, &report)?;
    Ok(ExitCode::from(if done { 0 } else { 2 }))
}

impl ForceArgs {
    fn identity(&self) -> StoreIdentity {
        StoreIdentity {
            cluster: self.cluster,
            node: NodeId(self.node),
            max_batch_bytes: self.max_batch_bytes,
        }
    }

    fn wanted(&self) -> ForcedVoters {
        ForcedVoters {
            group: GroupId(self.group),
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
    let over: Arc<dyn Disk> = Arc::new(Overlay::over(Arc::clone(disk)));
    let forced = force(args, Arc::clone(&over))?;
    let (wal, recovered) = duraft_storage::open(
        Arc::clone(&over),
        &args.identity(),
        WalOptions::default(),
        entropy(),
    )
    .map_err(ForceError::from)?;
    drop(wal);
    let group = GroupId(args.group);
    let found = recovered.groups.get(&group);
    let found = found.ok_or(ForceError::UnknownGroup(group))?;
    let readable = readable_snapshot(args, over, found)?;
    Ok((forced, readable))
}

fn force(args: &ForceArgs, disk: Arc<dyn Disk>) -> Result<ForcedReport, ForceError> {
    let options = WalOptions::default();
    force_configuration(disk, &args.identity(), options, entropy(), &args.wanted())
}

/// The newest snapshot that can be read from end to end and that the log goes on from. A node that
/// needs one and has none cannot start.
fn readable_snapshot(
    args: &ForceArgs,
    disk: Arc<dyn Disk>,
    found: &RecoveredGroup,
) -> Result<Option<LogId>, Problem> {
    let begins = found.start;
    let mut tried = Vec::new();
    let Some(latest) = &found.snapshot else {
        return no_snapshot(begins, tried);
    };
    let store = match SnapshotStore::open(disk, args.cluster, GroupId(args.group)) {
        Ok(store) => store,
        Err(error) => return no_snapshot(begins, vec![error.to_string()]),
    };
    let mut candidates = vec![latest.clone()];
    for name in store.list().unwrap_or_default().iter().rev() {
        let whole = name.kind == SnapshotFileKind::Whole;
        if !whole || name.index >= latest.position.index() || name.index < begins.index() {
            continue;
        }
        match store.inspect(&name.to_string()) {
            Ok(info) => candidates.push(info.snapshot),
            Err(error) => tried.push(error.to_string()),
        }
    }
    for snapshot in candidates {
        let read = store.read(&snapshot).map_err(|error| error.to_string());
        let read = read.and_then(|mut reader| {
            std::io::copy(&mut reader, &mut std::io::sink()).map_err(|error| error.to_string())
        });
        match read {
            Ok(_) => return Ok(Some(snapshot.position.id)),
            Err(error) => tried.push(error),
        }
    }
    no_snapshot(begins, tried)
}

/// Fine where the log is there from its first entry on.
fn no_snapshot(begins: Position, tried: Vec<String>) -> Result<Option<LogId>, Problem> {
    if begins == Position::START {
        return Ok(None);
    }
    Err(Problem::StateLost {
        before: begins.index().0,
        tried,
    })
}

/// Results go to standard output.
#[allow(clippy::print_stdout)]
fn publish(args: &ForceArgs, report: &Report) -> Result<(), Problem> {
    print!("{report}");
    if !report.done {
        println!("To do it, add --i-accept-that-acknowledged-commands-may-be-lost");
    }
    let Some(path) = &args.json else {
        return Ok(());
    };
    let write = || -> std::io::Result<()> {
        let mut text = serde_json::to_string_pretty(report)?;
        text.push('\n');
        std::fs::write(path, text)
    };
    write().map_err(|source| Problem::Json {
        path: path.clone(),
        source,
    })
}

fn cluster_id(text: &str) -> Result<ClusterId, String> {
    if let Ok(bytes) = <[u8; 16]>::try_from(text.as_bytes()) {
        return Ok(ClusterId(bytes));
    }
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|pair| {
            let text = std::str::from_utf8(pair).ok()?;
            let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
        })
        .collect();
    let bytes = bytes.filter(|_| rest.is_empty());
    let bytes = bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    bytes
        .map(ClusterId)
        .ok_or_else(|| String::from("16 characters or 32 hexadecimal digits"))
}

/// The randomness and the wall clock of this process.
fn entropy() -> Entropy {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let wallclock_ns = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    Entropy {
        // RandomState is keyed by the system's randomness.
        seed: RandomState::new().hash_one(wallclock_ns),
        wallclock_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_by_its_characters_or_its_digits() {
        let bytes = *b"my first cluster";
        assert_eq!(cluster_id("my first cluster"), Ok(ClusterId(bytes)));
        let digits = ClusterId(bytes).to_string();
        assert_eq!(cluster_id(&digits), Ok(ClusterId(bytes)));
        for wrong in [
            "",
            "short",
            &digits[1..],
            "+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1",
        ] {
            assert!(cluster_id(wrong).is_err(), "{wrong}");
        }
    }
}
