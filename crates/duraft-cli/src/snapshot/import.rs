//! `duraft snapshot import`: the store of one node of a new cluster that begins with an exported state.
//!
//! The store is made in a folder beside its own, complete, and renamed at the end: whatever ends this
//! on the way, there is either no store or a whole one. The log begins at the snapshot's position with
//! the new membership, as a log does that was compacted there. All members get the same file: its
//! nonce follows from the cluster, the position and the bytes.

use super::Problem;
use super::content::NO_SESSIONS;
use super::export::{Crc, Exported, KIND, facts_path};
use crate::offline::entropy;
use crate::output::say;
use clap::Args;
use duraft_core::{
    Digest, GroupId, HardState, Index, LogId, Membership, NodeId, Position, Snapshot,
    SnapshotWrite, Term, Write as LogWrite, WriteSeq, mix64,
};
use duraft_disk::{Disk, RealDisk};
use duraft_storage::{
    ClusterId, OnDamage, SnapshotStore, StoreIdentity, Submission, WalOptions, bootstrap,
};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

pub(super) const EXAMPLES: &str = "\
Examples:
  for n in 1 2 3; do
    duraft snapshot import state.bin --dir /var/lib/new/node-$n --node $n --voters 1,2,3 \\
      --cluster 'a new cluster 01'
  done

The state may have been changed by hand in between: then say --changed, as it does not fit its
checksum any more.";

/// Flags of `duraft snapshot import`.
#[derive(Args)]
pub(super) struct ImportArgs {
    /// The state that `duraft snapshot export` has written; its facts are read from the same name with
    /// `.json`.
    state: PathBuf,

    /// Folder for the store. It must not be there.
    #[arg(long)]
    dir: PathBuf,

    /// The new cluster: its name, of at most 16 bytes, or its identity in 32 hexadecimal digits. Not
    /// that of the old one.
    #[arg(long, value_parser = crate::offline::cluster_id)]
    cluster: ClusterId,

    /// The node that the store is for.
    #[arg(long)]
    node: u64,

    /// All voters of the new cluster.
    #[arg(long, value_delimiter = ',', required = true, value_name = "NODE,...")]
    voters: Vec<u64>,

    /// The group, where it is not the one that the state is of.
    #[arg(long)]
    group: Option<u64>,

    /// Largest batch of the new cluster.
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES")]
    max_batch_bytes: u32,

    /// The state was changed since its export: its length and checksum are not compared.
    #[arg(long)]
    changed: bool,
}

pub(super) fn run(args: &ImportArgs) -> Result<ExitCode, Problem> {
    let facts = read_facts(&facts_path(&args.state))?;
    if args.dir.exists() {
        return Err(Problem::Exists(args.dir.clone()));
    }
    let old = facts.snapshot["cluster"].as_str().unwrap_or_default();
    if old == args.cluster.to_string() {
        return Err(Problem::Refused(format!(
            "--cluster is that of the old cluster ({old}): a node of the old one that comes back would talk to the \
             new one and neither would notice. Name another"
        )));
    }
    let voters: BTreeSet<u64> = args.voters.iter().copied().collect();
    if !voters.contains(&args.node) {
        return Err(Problem::Refused(format!(
            "--node {} is not among the --voters: a node that joins later needs no import, it starts empty",
            args.node
        )));
    }
    let membership = Membership::new(voters.iter().copied().map(NodeId), []);
    let membership = membership.map_err(|problem| Problem::Refused(problem.to_string()))?;
    let checksum = check_state(args, &facts)?;
    let group = GroupId(args.group.unwrap_or(facts.group));
    let position = position_of(&facts, &facts_path(&args.state))?;
    let nonce = nonce(args.cluster, &position, checksum);
    let making = beside(&args.dir);
    if making.exists() {
        std::fs::remove_dir_all(&making).map_err(failed("cannot remove", &making))?;
    }
    let made = make(args, &facts, &making, (group, position, &membership, nonce));
    let made = made.and_then(|()| publish(&making, &args.dir));
    if made.is_err() {
        let _ = std::fs::remove_dir_all(&making);
    }
    made?;
    say(&format!(
        "THE STORE OF A NEW CLUSTER: node {} of {}, group {group}, in {}\n\
         It begins with the state up to entry {} of term {}; whatever was committed after that in the old cluster \
         is not in it.\nVoters {:?}: import the same file for each of them before any of them starts. Do not let \
         nodes of the old cluster serve the same clients again.",
        args.node,
        args.cluster,
        args.dir.display(),
        position.index(),
        position.term(),
        voters
    ));
    Ok(ExitCode::SUCCESS)
}

fn failed<'a>(op: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> Problem + use<'a> {
    move |source| Problem::File {
        op,
        path: path.to_path_buf(),
        source,
    }
}

fn read_facts(path: &Path) -> Result<Exported, Problem> {
    let text = std::fs::read_to_string(path).map_err(failed("cannot read", path))?;
    let wrong = |problem: String| Problem::Facts {
        path: path.to_path_buf(),
        problem,
    };
    let facts: Exported = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if facts.kind != KIND || facts.schema != super::SCHEMA {
        return Err(wrong(format!(
            "kind '{}', schema {}",
            facts.kind, facts.schema
        )));
    }
    Ok(facts)
}

/// Length and checksum of the state, compared with its facts unless it was changed on purpose.
fn check_state(args: &ImportArgs, facts: &Exported) -> Result<u32, Problem> {
    let mut file = File::open(&args.state).map_err(failed("cannot read", &args.state))?;
    let (mut bytes, mut crc, mut piece) = (0u64, Crc::default(), vec![0; 256 << 10]);
    loop {
        let read = file
            .read(&mut piece)
            .map_err(failed("cannot read", &args.state))?;
        if read == 0 {
            break;
        }
        crc.add(&piece[..read]);
        bytes += read as u64;
    }
    let sum = crc.0.finalize();
    let found = (bytes, format!("{sum:08x}"));
    let expected = (facts.bytes, facts.crc32.clone());
    if found != expected && !args.changed {
        return Err(Problem::State {
            path: args.state.clone(),
            problem: format!(
                "has {} bytes with checksum {}, its facts say {} and {}. If it was changed on purpose: --changed",
                found.0, found.1, expected.0, expected.1
            ),
        });
    }
    Ok(sum)
}

fn position_of(facts: &Exported, path: &Path) -> Result<Position, Problem> {
    let digest = u64::from_str_radix(&facts.log_digest, 16);
    let digest = digest.map_err(|error| Problem::Facts {
        path: path.to_path_buf(),
        problem: format!("log_digest: {error}"),
    })?;
    Ok(Position {
        id: LogId {
            term: Term(facts.term),
            index: Index(facts.index),
        },
        digest: Digest(digest),
    })
}

fn nonce(cluster: ClusterId, position: &Position, checksum: u32) -> u64 {
    let (words, _) = cluster.0.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let more = [
        position.index().0,
        position.term().0,
        position.digest.0,
        checksum.into(),
    ];
    words.chain(more).fold(0, |state, word| mix64(state ^ word))
}

/// The folder in which the store is made: beside its own, on the same file system.
fn beside(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".importing");
    PathBuf::from(name)
}

fn make(
    args: &ImportArgs,
    facts: &Exported,
    making: &Path,
    (group, position, membership, nonce): (GroupId, Position, &Membership, u64),
) -> Result<(), Problem> {
    let disk_failed = |source| Problem::Disk {
        path: making.to_path_buf(),
        source,
    };
    let store_failed = |source| Problem::Store {
        path: making.to_path_buf(),
        source,
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::create(making).map_err(disk_failed)?);
    let identity = StoreIdentity {
        cluster: args.cluster,
        node: NodeId(args.node),
        max_batch_bytes: args.max_batch_bytes,
    };
    let options = WalOptions {
        policy: OnDamage::Refuse,
        ..WalOptions::default()
    };
    let groups = [(group, membership.clone())];
    bootstrap(&disk, &identity, &options, entropy(), &groups).map_err(store_failed)?;
    // The file first: a record may name only what is durable.
    let snapshots = SnapshotStore::open(Arc::clone(&disk), args.cluster, group)?;
    let mut writer = snapshots.create(position, membership, nonce)?;
    let mut state = File::open(&args.state).map_err(failed("cannot read", &args.state))?;
    let copied = if facts.whole {
        Ok(())
    } else {
        writer.write_all(&NO_SESSIONS)
    };
    let copied = copied.and_then(|()| std::io::copy(&mut state, &mut writer));
    copied.map_err(failed("cannot copy", &args.state))?;
    let snapshot = writer.finish()?;
    let (mut wal, _) =
        duraft_storage::open(disk, &identity, options, entropy()).map_err(store_failed)?;
    let committed = wal.commit(&[Submission {
        group,
        write: beginning(snapshot, position),
    }]);
    let closed = committed.and_then(|()| wal.close());
    closed.map_err(|error| Problem::Refused(format!("cannot write the log: {error}")))
}

/// The log begins and ends at the snapshot, in its term, without a vote.
fn beginning(snapshot: Snapshot, position: Position) -> LogWrite {
    LogWrite {
        seq: WriteSeq(1),
        hard_state: Some(HardState {
            term: position.term(),
            vote: None,
        }),
        snapshot: Some(SnapshotWrite {
            snapshot,
            reset: true,
        }),
        truncate: None,
        append: Vec::new(),
        compact: None,
        healed: None,
    }
}

/// Gives the whole store its name, durably.
fn publish(making: &Path, dir: &Path) -> Result<(), Problem> {
    let renamed = std::fs::rename(making, dir);
    renamed.map_err(failed("cannot rename", making))?;
    let parent = std::path::absolute(dir).map_err(failed("cannot find", dir))?;
    let parent = parent.parent().unwrap_or(Path::new("/"));
    let synced = File::open(parent).and_then(|folder| folder.sync_all());
    synced.map_err(failed("cannot sync", parent))
}
