//! `duraft wal verify`.

use super::text::hex;
use super::{Problem, folder, look, slot_file};
use crate::output::publish;
use clap::Args;
use duraft_core::{Batch, GroupId, Snapshot};
use duraft_disk::Disk;
use duraft_storage::inspect::{GroupFacts, LogRecord, Settled, Sight, SlotUse, View};
use duraft_storage::{GroupDamage, OpenError, SnapshotName};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(super) const EXAMPLES: &str = "\
Examples:
  duraft wal verify /var/lib/app/node-1
  duraft wal verify /var/lib/app/node-1 --json | jq '.findings[] | select(.level == \"damage\")'

What is damage: whatever was proven durable and cannot be read any more. What is not: a last write
that did not get to its end, a segment whose beginning was never finished, a slot that was being made,
and a slot that the node used anew while this command was reading.";

/// Version of the JSON layout.
const SCHEMA: u32 = 1;

/// Flags of `duraft wal verify`.
#[derive(Args)]
pub(super) struct VerifyArgs {
    /// Folder of the node's store.
    dir: PathBuf,

    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Good to know; nothing is wrong.
    Note,
    /// It may be wrong; this command cannot tell.
    Unsure,
    /// Something that was durable cannot be read.
    Damage,
}

/// Something that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    #[serde(rename = "where")]
    pub(crate) place: String,
    pub(crate) what: String,
    pub(crate) means: String,
    #[serde(rename = "do")]
    pub(crate) advice: String,
}

/// The whole answer.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    schema: u32,
    verdict: &'static str,
    exit: u8,
    store: Option<String>,
    node: Option<u64>,
    cluster: Option<String>,
    checked: Checked,
    pub(crate) findings: Vec<Finding>,
}

#[derive(Default, Serialize)]
struct Checked {
    slots: usize,
    segments: usize,
    commits: u64,
    records: u64,
    batches: u64,
    commands: u64,
    bytes: u64,
}

pub(super) fn run(args: &VerifyArgs) -> Result<ExitCode, Problem> {
    let report = check(&args.dir)?;
    publish(&report, args.json)?;
    Ok(ExitCode::from(report.exit))
}

/// Everything there is to say about the store in this folder.
pub(crate) fn check(dir: &Path) -> Result<Report, Problem> {
    let mut report = Report {
        schema: SCHEMA,
        ..Report::default()
    };
    match look(dir) {
        Ok((mut view, settled)) => {
            report.view(dir, &mut view, settled)?;
        }
        Err(Problem::Store { source, .. }) => report.findings.push(unreadable(dir, &source)),
        Err(problem) => return Err(problem),
    }
    report
        .findings
        .sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let worst = report.findings.first().map(|finding| finding.level);
    (report.verdict, report.exit) = match worst {
        None | Some(Level::Note) => ("clean", 0),
        Some(Level::Damage) => ("damaged", 1),
        Some(Level::Unsure) => ("cannot tell", 2),
    };
    Ok(report)
}

impl Report {
    fn view(&mut self, dir: &Path, view: &mut View, settled: Settled) -> Result<(), Problem> {
        self.store = Some(hex(&view.store.store));
        self.node = Some(view.store.node.0);
        self.cluster = Some(view.store.cluster.to_string());
        self.checked.slots = view.slots.len();
        self.checked.segments = view.segments.len();
        if settled == Settled::Restless {
            self.findings.push(restless());
            return Ok(());
        }
        self.contents(dir, view);
        self.damage(view);
        self.notes(view);
        let groups: Vec<GroupId> = view.groups.keys().copied().collect();
        for group in groups {
            self.snapshot(dir, view, group)?;
        }
        Ok(())
    }

    /// Walks along the log: what is inside the batches, and where the holes are.
    fn contents(&mut self, dir: &Path, view: &mut View) {
        let lossless = view.damage.is_none();
        let mut found = Vec::new();
        let checked = &mut self.checked;
        let walked = view.walk(|sight| match sight {
            Sight::Segment(_) => {}
            Sight::Block(block) => {
                checked.commits += 1;
                checked.bytes += block.bytes;
            }
            Sight::Record(block, record, body) => {
                checked.records += 1;
                if let LogRecord::Batch { header, .. } = record {
                    checked.batches += 1;
                    checked.commands += u64::from(header.count);
                    let batch = Batch {
                        header: *header,
                        body: bytes::Bytes::copy_from_slice(body),
                    };
                    if let Err(problem) = duraft_storage::verify(&batch) {
                        let place = format!("{}, commit {}", slot_file(block.slot), block.commit);
                        found.push(misshapen(place, header.first.0, &problem.to_string()));
                    }
                }
            }
            Sight::Hole(hole, place) => found.push(hole_finding(&hole, place, lossless)),
            Sight::Reused(segment) => found.push(Finding {
                level: Level::Note,
                place: slot_file(segment.slot),
                what: format!("segment {} is not there any more", segment.segment),
                means: String::from(
                    "the node has begun to use its slot anew while this command was reading: the log needs \
                     that segment no more. What it held was checked when the command began",
                ),
                advice: String::from("nothing"),
            }),
        });
        self.findings.extend(found);
        if let Err(error) = walked {
            self.findings.push(unreadable(dir, &error));
        }
    }

    fn damage(&mut self, view: &View) {
        if !view.store.whole {
            self.findings.push(Finding {
                level: Level::Damage,
                place: String::from("STORE"),
                what: String::from("one of the two copies of the file's content cannot be read"),
                means: String::from("nothing is lost: the other copy says whose store this is"),
                advice: String::from(
                    "start the node: an open writes the file anew. Look at the disk, which has lost a sector",
                ),
            });
        }
        for (slot, at) in &view.unreadable {
            self.findings.push(Finding {
                level: Level::Damage,
                place: format!("{}, bytes {at} to {}", slot_file(*slot), at + 4096),
                what: String::from("the disk refuses to read these bytes"),
                means: String::from(
                    "a bad sector or a failing device. Whether anything is lost by it, the other findings \
                     say",
                ),
                advice: String::from(
                    "look at the kernel's messages and the device's own report (smartctl -a), and move the \
                     node to another disk",
                ),
            });
        }
        let placed = |hole: &&duraft_storage::Hole| {
            let segments = &view.segments;
            !segments
                .iter()
                .any(|segment| segment.segment == hole.segment)
        };
        // Those inside a segment that can be read were found on the way along the log.
        for hole in view.holes.iter().filter(placed) {
            self.findings
                .push(hole_finding(hole, None, view.damage.is_none()));
        }
        let Some(damage) = &view.damage else { return };
        if damage.no_checkpoint {
            self.findings.push(no_checkpoint());
        }
        for (group, lost) in &damage.groups {
            self.findings
                .push(group_finding(*group, lost, view.groups.get(group)));
        }
        for contradiction in &damage.contradictions {
            self.findings.push(Finding {
                level: Level::Damage,
                place: format!("segment {}, commit {}", contradiction.segment, contradiction.commit),
                what: format!(
                    "group {}: a record does not fit what came before it: {}",
                    contradiction.group, contradiction.problem
                ),
                means: String::from(
                    "it passes its checksums, so this is no fault of the disk: files of two stores were \
                     mixed, or a program wrote what it must not. No policy opens the store",
                ),
                advice: String::from(
                    "keep a copy of the folder. Replace the node: start it in an empty folder, joining as one \
                     that has lost its disk",
                ),
            });
        }
    }

    fn notes(&mut self, view: &View) {
        let mut note = |place: String, what: String, means: &str, advice: &str| {
            self.findings.push(Finding {
                level: Level::Note,
                place,
                what,
                means: means.to_owned(),
                advice: advice.to_owned(),
            });
        };
        if let Some(tail) = &view.tail {
            if let Some((commit, at)) = tail.torn {
                note(
                    format!("{}, byte {at}", slot_file(tail.slot)),
                    format!("torn tail: the write of commit {commit} did not get to its end"),
                    "no damage: it was never acknowledged. On a store in use it may be on its way just now",
                    "nothing: the next open drops it",
                );
            }
            if tail.last > tail.proven {
                note(
                    slot_file(tail.slot),
                    format!(
                        "commit {}, the last one, is whole but not proven yet",
                        tail.last
                    ),
                    "nothing later says that its sync had returned. Were it damaged, that would look like a torn \
                     tail",
                    "nothing: the next commit, a moment of idleness or the next open proves it",
                );
            }
            if tail.abandoned > 0 {
                note(
                    slot_file(tail.slot),
                    format!("{} segments never came to be", tail.abandoned),
                    "their first write did not get to its end, so nothing in them was acknowledged",
                    "nothing: their slots are used again",
                );
            }
        }
        for slot in &view.slots {
            if slot.state == SlotUse::Unknown {
                note(
                    slot_file(slot.slot),
                    String::from("the slot has no header of this store"),
                    "it was being made when its process ended, or is being made now; if its header had held \
                     anything durable, that would be reported as damage",
                    "nothing: it is made again",
                );
            }
        }
        for (group, facts) in &view.groups {
            for repair in &facts.repairs {
                note(
                    format!("group {group}"),
                    format!("people decided: {repair}"),
                    "what the log holds rests on that decision",
                    "nothing",
                );
            }
        }
    }

    /// Is the file there that the log counts on? On a store in use another snapshot may take its place
    /// at any time, so a missing one is looked for again.
    fn snapshot(&mut self, dir: &Path, view: &View, group: GroupId) -> Result<(), Problem> {
        let mut wanted = snapshot_of(view, group).cloned();
        for _ in 0..super::LOOKS {
            let Some(snapshot) = &wanted else {
                return Ok(());
            };
            let Some(problem) = missing_file(dir, group, snapshot)? else {
                return Ok(());
            };
            let (later, _) = look(dir)?;
            let now = snapshot_of(&later, group).cloned();
            if now == wanted {
                let start = view
                    .groups
                    .get(&group)
                    .map_or(0, |facts| facts.start.index().0);
                self.findings
                    .push(lost_snapshot(group, snapshot, &problem, start));
                return Ok(());
            }
            wanted = now;
        }
        self.findings.push(restless());
        Ok(())
    }
}

fn snapshot_of(view: &View, group: GroupId) -> Option<&Snapshot> {
    view.groups.get(&group)?.snapshot.as_ref()
}

/// The name of a snapshot's file in the store's folder.
pub(crate) fn snapshot_file(group: GroupId, snapshot: &Snapshot) -> String {
    format!("snap/{:016x}/{}", group.0, SnapshotName::of(snapshot))
}

/// What is wrong with the file by its length, if anything.
fn missing_file(
    dir: &Path,
    group: GroupId,
    snapshot: &Snapshot,
) -> Result<Option<String>, Problem> {
    let file = match folder(dir)?.open(&snapshot_file(group, snapshot)) {
        Ok(file) => file,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let expected = snapshot.file.bytes;
    Ok(match file.len() {
        Ok(found) if found == expected => None,
        Ok(found) => Some(format!("it has {found} bytes, the log says {expected}")),
        Err(error) => Some(error.to_string()),
    })
}

fn lost_snapshot(group: GroupId, snapshot: &Snapshot, problem: &str, start: u64) -> Finding {
    let index = snapshot.position.index().0;
    let (level, means) = if start == 0 {
        (
            Level::Damage,
            format!(
                "nothing is lost: the log holds all entries from the first one on, {index} and more"
            ),
        )
    } else {
        (
            Level::Damage,
            format!(
                "the state up to entry {index} is lost on this node, unless the snapshot before it is there \
                 and the log, which begins after entry {start}, reaches back to it"
            ),
        )
    };
    Finding {
        level,
        place: snapshot_file(group, snapshot),
        what: format!("the snapshot that the log counts on is not there: {problem}"),
        means,
        advice: String::from(
            "if there are peers, start the node with the policy to repair from peers: it asks them for the \
             snapshot. `duraft snapshot verify` says which snapshots can be read",
        ),
    }
}

fn misshapen(place: String, first: u64, problem: &str) -> Finding {
    Finding {
        level: Level::Damage,
        place,
        what: format!("the batch at entry {first} is not what a batch is: {problem}"),
        means: String::from(
            "it passes its checksums, so it was written like this: no fault of the disk. Its commands cannot \
             be applied",
        ),
        advice: String::from("keep a copy of the folder and report it"),
    }
}

fn hole_finding(hole: &duraft_storage::Hole, place: Option<(u64, u64)>, lossless: bool) -> Finding {
    let file = hole.slot.map_or_else(|| String::from("no slot"), slot_file);
    let bytes = place.map_or(String::new(), |(from, to)| {
        format!(", within bytes {from} to {to}")
    });
    let last = hole
        .last
        .map_or(String::from("an unknown one"), |last| last.to_string());
    let what = if hole.last == Some(hole.first) {
        format!("commit {} was durable and cannot be read", hole.first)
    } else {
        format!(
            "commits {} to {last} were durable and cannot be read",
            hole.first
        )
    };
    Finding {
        level: Level::Damage,
        place: format!("{file}, segment {}{bytes}", hole.segment),
        what,
        means: String::from(if lossless {
            "nothing is lost by it: what these commits held is written elsewhere too, or needed no more"
        } else {
            "what is lost by it stands below, group by group"
        }),
        advice: String::from(if lossless {
            "start the node: it writes what it needs anew. Look at the disk, which has lost or changed bytes"
        } else {
            "see the groups. Look at the disk, which has lost or changed bytes"
        }),
    }
}

fn group_finding(group: GroupId, lost: &GroupDamage, facts: Option<&GroupFacts>) -> Finding {
    let membership = facts.map(|facts| {
        let last = facts.memberships.last();
        last.map_or(&facts.membership, |(_, membership)| membership)
    });
    let alone = membership.is_some_and(|m| m.voters().count() == 1 && !m.is_joint());
    let (first, last) = lost.loss;
    let mut means = Vec::new();
    if let Some((first, _)) = lost.missing.first() {
        let behind: u64 = lost
            .survivors
            .iter()
            .map(|batch| u64::from(batch.count))
            .sum();
        means.push(format!(
            "the node cannot apply anything from entry {first} on; {behind} entries behind that are intact"
        ));
    }
    if lost.lost_suffix {
        means.push(String::from(
            "entries after the last known one may have been acknowledged and lost",
        ));
    }
    if lost.vote_uncertain {
        means.push(String::from(
            "it may have voted, or seen a later term: it must not vote before a majority has told it the term",
        ));
    }
    if lost.snapshot_lost {
        means.push(String::from(
            "the state before the log's beginning is not there",
        ));
    }
    means.push(format!(
        "this node may have acknowledged up to entry {}",
        lost.floor
    ));
    let advice = if alone {
        format!(
            "there is no peer. If no copy of the disk exists: `duraft accept-loss` gives up {first} to {last} for \
             good; `duraft wal repair` tries that on a copy first"
        )
    } else {
        format!(
            "start the node with the policy to repair from peers (OnDamage::RepairFromPeers): it gets what is \
             missing from them and neither votes nor acknowledges before. Only where no peer has it: \
             `duraft accept-loss` gives up {first} to {last}; `duraft wal repair` tries that on a copy first"
        )
    };
    Finding {
        level: Level::Damage,
        place: format!("group {group}"),
        what: lost.to_string(),
        means: means.join("; "),
        advice,
    }
}

fn no_checkpoint() -> Finding {
    Finding {
        level: Level::Damage,
        place: String::from("wal"),
        what: String::from("no segment begins with a checkpoint that can be read"),
        means: String::from(
            "nobody can say which groups there were, or what they held. No policy opens the store",
        ),
        advice: String::from(
            "replace the node: start it in an empty folder, joining as one that has lost its disk, and let its \
             peers fill it. Keep a copy of this folder",
        ),
    }
}

fn restless() -> Finding {
    Finding {
        level: Level::Unsure,
        place: String::from("the whole store"),
        what: format!("{} looks at the store all differed", super::LOOKS),
        means: String::from(
            "a node writes faster than this command reads, so that what seems to be missing may have been \
             written meanwhile",
        ),
        advice: String::from("try again, or stop the node, or check a snapshot of the file system"),
    }
}

/// A store that cannot be looked at.
fn unreadable(dir: &Path, error: &OpenError) -> Finding {
    let place = dir.display().to_string();
    let finding = |level, means: &str, advice: &str| Finding {
        level,
        place,
        what: error.to_string(),
        means: means.to_owned(),
        advice: advice.to_owned(),
    };
    if matches!(error, OpenError::StoreFile(_)) {
        return finding(
            Level::Damage,
            "nobody can say whose store this is, and without its identity no block can be checked. No policy \
             opens the store",
            "replace the node: start it in an empty folder, joining as one that has lost its disk. Keep a copy \
             of this folder",
        );
    }
    let (means, advice) = if matches!(error, OpenError::NoStore) {
        (
            "the folder is no store, or one that was never finished",
            "name the folder that holds the file STORE",
        )
    } else if matches!(error, OpenError::Newer { .. }) {
        (
            "a later version wrote this",
            "use that version, or a later one",
        )
    } else if matches!(error, OpenError::Record { .. }) {
        (
            "a block passes every checksum and holds a record that this version cannot read",
            "use the version that wrote it; if this is it, keep a copy of the folder and report it",
        )
    } else {
        (
            "the store cannot be looked at",
            "look at the reason, the permissions and the kernel's messages",
        )
    };
    finding(Level::Unsure, means, advice)
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Note => "note",
            Level::Unsure => "UNSURE",
            Level::Damage => "DAMAGE",
        };
        writeln!(f, "{level}  {}", self.place)?;
        writeln!(f, "  what   {}", self.what)?;
        writeln!(f, "  means  {}", self.means)?;
        writeln!(f, "  do     {}", self.advice)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(store), Some(node), Some(cluster)) = (&self.store, self.node, &self.cluster) {
            writeln!(f, "store {store} of node {node}, cluster {cluster}")?;
            let c = &self.checked;
            writeln!(
                f,
                "read: {} slots; checked: {} segments, {} commits ({}), {} records, {} batches with {} entries",
                c.slots,
                c.segments,
                c.commits,
                super::text::bytes(c.bytes),
                c.records,
                c.batches,
                c.commands
            )?;
        }
        for finding in &self.findings {
            write!(f, "{finding}")?;
        }
        write!(f, "{}", self.verdict.to_uppercase())
    }
}
