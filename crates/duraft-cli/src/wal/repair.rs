//! `duraft wal repair`: a copy of a damaged store that opens without what is lost.
//!
//! It does what `duraft accept-loss` does, for every damaged group, on a copy. First on an overlay that
//! changes nothing; only where that ends in a store that opens, and only with `--to`, the folder is
//! copied and it is done there.

use super::folder::ReadFolder;
use super::{Problem, folder, look, verify};
use crate::offline::{entropy, rehearsal};
use crate::output::publish;
use clap::Args;
use duraft_core::{GroupId, Index};
use duraft_disk::{Disk, RealDisk};
use duraft_storage::inspect::View;
use duraft_storage::{
    Damage, GroupDamage, OnDamage, OpenError, Recovered, StoreIdentity, WalOptions,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

pub(super) const EXAMPLES: &str = "\
Examples:
  duraft wal repair /var/lib/app/node-1                    # says what could be done, and changes nothing
  duraft wal repair /var/lib/app/node-1 --to /mnt/repaired

Before you use the copy: a peer that has the missing entries repairs this node without any loss. Start
the node with the policy to repair from peers instead.";

/// Version of the JSON layout.
const SCHEMA: u32 = 1;

/// Flags of `duraft wal repair`.
#[derive(Args)]
pub(super) struct RepairArgs {
    /// Folder of the damaged store. It is only read.
    dir: PathBuf,

    /// Make the repaired copy in this folder, which must be empty or not there.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,

    /// Only say what would be done, even with --to.
    #[arg(long)]
    dry_run: bool,

    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    schema: u32,
    node: u64,
    /// A repaired copy stands in this folder.
    copied_to: Option<PathBuf>,
    /// Why nothing can be made of the store.
    hopeless: Option<String>,
    groups: Vec<Loss>,
    findings: Vec<verify::Finding>,
}

/// What is given up of a group.
#[derive(Serialize)]
struct Loss {
    group: u64,
    first: u64,
    last: u64,
    /// Entries that are intact and dropped all the same, as they lie behind missing ones.
    intact_dropped: u64,
    later_entries_may_be_lost: bool,
    vote_may_be_lost: bool,
    may_have_acknowledged: String,
    /// The last entry of the copy.
    ends_at: Option<String>,
    voters: usize,
    guarantees_lost: Vec<String>,
}

pub(super) fn run(args: &RepairArgs) -> Result<ExitCode, Problem> {
    let source = folder(&args.dir)?;
    // Held until the copy is made: no node can start meanwhile.
    let lock = source.lock("LOCK").map_err(|source| {
        let path = args.dir.clone();
        if source.kind() == io::ErrorKind::WouldBlock {
            Problem::InUse { path }
        } else {
            Problem::Folder { path, source }
        }
    })?;
    let wanted = args.to.as_deref().filter(|_| !args.dry_run);
    if let Some(to) = wanted
        && fs::read_dir(to).is_ok_and(|mut names| names.next().is_some())
    {
        return Err(Problem::Exists {
            path: to.to_path_buf(),
        });
    }
    let report = repair(args, source, wanted)?;
    drop(lock);
    publish(&report, args.json)?;
    let fine =
        report.hopeless.is_none() && (report.groups.is_empty() || report.copied_to.is_some());
    Ok(ExitCode::from(u8::from(!fine)))
}

fn repair(args: &RepairArgs, source: ReadFolder, to: Option<&Path>) -> Result<Report, Problem> {
    let (view, _) = look(&args.dir)?;
    let mut report = Report {
        schema: SCHEMA,
        node: view.store.node.0,
        copied_to: None,
        hopeless: None,
        groups: Vec::new(),
        findings: verify::check(&args.dir)?.findings,
    };
    report
        .findings
        .retain(|finding| finding.level > verify::Level::Note);
    let identity = identity(&view);
    let damage = view.damage.clone().unwrap_or_default();
    if let Some(reason) = hopeless(&damage) {
        report.hopeless = Some(reason);
        return Ok(report);
    }
    if damage.groups.is_empty() {
        return Ok(report);
    }
    let below: Arc<dyn Disk> = Arc::new(source);
    match accept_all(&rehearsal(&below), &identity, &damage) {
        Ok(after) => report.groups = losses(&damage, &after),
        Err(error) => {
            report.hopeless = Some(error.to_string());
            return Ok(report);
        }
    }
    let Some(to) = to else { return Ok(report) };
    copy(&args.dir, to)?;
    let failed = |source| Problem::Store {
        path: to.to_path_buf(),
        source,
    };
    let copy = RealDisk::open(to).map_err(|source| Problem::Folder {
        path: to.to_path_buf(),
        source,
    })?;
    let copy: Arc<dyn Disk> = Arc::new(copy);
    let after = accept_all(&copy, &identity, &damage).map_err(failed)?;
    report.groups = losses(&damage, &after);
    report.copied_to = Some(to.to_path_buf());
    Ok(report)
}

fn identity(view: &View) -> StoreIdentity {
    StoreIdentity {
        cluster: view.store.cluster,
        node: view.store.node,
        max_batch_bytes: view.store.max_batch_bytes,
    }
}

fn hopeless(damage: &Damage) -> Option<String> {
    if damage.no_checkpoint {
        return Some(String::from("no checkpoint of the groups is left"));
    }
    let first = damage.contradictions.first()?;
    Some(format!("its records contradict each other: {first}"))
}

/// Accepts the loss of each damaged group, one open after the other; then opens the store as a node
/// would.
fn accept_all(
    disk: &Arc<dyn Disk>,
    identity: &StoreIdentity,
    damage: &Damage,
) -> Result<Recovered, OpenError> {
    let open = |policy| {
        let options = WalOptions {
            policy,
            ..WalOptions::default()
        };
        let (wal, recovered) =
            duraft_storage::open(Arc::clone(disk), identity, options, entropy())?;
        // An open proves what it wrote; nothing is left to be closed.
        drop(wal);
        Ok(recovered)
    };
    for (group, lost) in &damage.groups {
        open(OnDamage::AcceptLoss {
            group: *group,
            range: lost.loss,
        })?;
    }
    open(OnDamage::Refuse)
}

fn losses(damage: &Damage, after: &Recovered) -> Vec<Loss> {
    damage
        .groups
        .iter()
        .map(|(group, lost)| loss(*group, lost, after))
        .collect()
}

fn loss(group: GroupId, lost: &GroupDamage, after: &Recovered) -> Loss {
    let found = after.groups.get(&group);
    let ends_at = found.map(|found| {
        let last = found.batches.last();
        last.map_or(found.start.id, |header| header.last_id())
    });
    let voters = found.map_or(0, |found| {
        let last = found.memberships.last();
        last.map_or(&found.membership, |(_, membership)| membership)
            .voters()
            .count()
    });
    let (first, last): (Index, Index) = lost.loss;
    let mut guarantees = vec![if lost.floor.index >= first {
        format!(
            "durability of acknowledged commands: entries {first} to {} may have been acknowledged, and the copy \
             does not have them",
            lost.floor.index.max(last)
        )
    } else {
        String::from("durability of acknowledged commands after the last entry of the copy")
    }];
    if lost.vote_uncertain {
        guarantees.push(String::from(
            "one vote per term: this node may have voted in a term that the copy does not know. The copy begins \
             a new term, which keeps it from voting twice in one that it knows",
        ));
    }
    if voters > 1 {
        guarantees.push(String::from(
            "election safety of what is committed: a majority of nodes that have each given up the same entries \
             can elect a leader without them",
        ));
    }
    Loss {
        group: group.0,
        first: first.0,
        last: last.0,
        intact_dropped: lost
            .survivors
            .iter()
            .map(|header| u64::from(header.count))
            .sum(),
        later_entries_may_be_lost: lost.lost_suffix,
        vote_may_be_lost: lost.vote_uncertain,
        may_have_acknowledged: lost.floor.to_string(),
        ends_at: ends_at.map(|id| id.to_string()),
        voters,
        guarantees_lost: guarantees,
    }
}

/// Copies every file of the store but the lock, and makes the copy durable.
fn copy(from: &Path, to: &Path) -> Result<(), Problem> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Problem::Copy { path, source }
    };
    fs::create_dir_all(to).map_err(failed(to))?;
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let source = from.join(&folder);
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(&source).map_err(failed(&source))? {
            let entry = entry.map_err(failed(&source))?;
            let kind = entry.file_type().map_err(failed(&entry.path()))?;
            names.insert(entry.file_name(), kind);
        }
        for (name, kind) in names {
            let relative = folder.join(&name);
            let (source, copy) = (from.join(&relative), to.join(&relative));
            if kind.is_dir() {
                fs::create_dir(&copy).map_err(failed(&copy))?;
                folders.push(relative);
            } else if kind.is_file() && name != "LOCK" {
                fs::copy(&source, &copy).map_err(failed(&source))?;
                let file = fs::File::open(&copy).map_err(failed(&copy))?;
                file.sync_all().map_err(failed(&copy))?;
            }
        }
        let copied = to.join(&folder);
        let handle = fs::File::open(&copied).map_err(failed(&copied))?;
        handle.sync_all().map_err(failed(&copied))?;
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            write!(f, "{finding}")?;
        }
        if let Some(reason) = &self.hopeless {
            return write!(
                f,
                "NOTHING CAN BE MADE OF THIS STORE: {reason}. Replace the node: start it in an empty folder, \
                 joining as one that has lost its disk"
            );
        }
        if self.groups.is_empty() {
            return write!(
                f,
                "NOTHING TO REPAIR: nothing is lost{}",
                if self.findings.is_empty() {
                    ""
                } else {
                    ". What was found above, the next open of the store sets right by itself"
                }
            );
        }
        let done = self.copied_to.is_some();
        for loss in &self.groups {
            let word = if done { "dropped" } else { "would be dropped" };
            writeln!(f, "group {}", loss.group)?;
            writeln!(
                f,
                "  {word}: entries {} to {}, {} of them intact behind missing ones; the copy ends at {}",
                loss.first,
                loss.last,
                loss.intact_dropped,
                loss.ends_at.as_deref().unwrap_or("nothing")
            )?;
            writeln!(
                f,
                "  may have been acknowledged: up to {}",
                loss.may_have_acknowledged
            )?;
            for guarantee in &loss.guarantees_lost {
                writeln!(f, "  GUARANTEE LOST: {guarantee}")?;
            }
            if loss.voters > 1 {
                writeln!(
                    f,
                    "  BETTER: this node has peers. Start it on the damaged store with the policy to repair from \
                     peers: whatever one of them has is not lost"
                )?;
            }
        }
        match &self.copied_to {
            None => write!(
                f,
                "NOTHING WAS WRITTEN. To make such a copy: --to DIR. To do it to the store itself: duraft accept-loss"
            ),
            Some(to) => write!(
                f,
                "REPAIRED COPY in {}. It opens; the store itself is as it was. Never start both",
                to.display()
            ),
        }
    }
}
