//! What was done to a store by force, or would be, and what it may cost.

use crate::offline::{Entry, list};
use duraft_core::{LogId, Membership, NodeId};
use duraft_storage::ForcedReport;
use serde::Serialize;
use std::fmt;

/// Version of the JSON layout.
const SCHEMA: u32 = 1;

/// See the module documentation.
#[derive(Serialize)]
pub(super) struct Report {
    schema: u32,
    /// False: nothing was changed, this is what would happen.
    pub(super) done: bool,
    cluster: String,
    group: u64,
    node: u64,
    voters_before: Vec<u64>,
    learners_before: Vec<u64>,
    /// The membership before was a joint one, in the middle of a change.
    joint_before: bool,
    voters_after: Vec<u64>,
    /// The last entry before.
    last: Entry,
    /// The latest snapshot: what it covers was committed.
    snapshot: Option<Entry>,
    /// The snapshot whose file was read from end to end and from which the node can start.
    snapshot_readable: Option<Entry>,
    /// The entry of the new membership.
    forced: Entry,
    must_never_come_back: Vec<u64>,
}

impl Report {
    pub(super) fn new(
        done: bool,
        cluster: String,
        forced: &ForcedReport,
        readable: Option<LogId>,
    ) -> Report {
        let numbers = |ids: &mut dyn Iterator<Item = NodeId>| ids.map(|id| id.0).collect();
        let before: &Membership = &forced.before;
        Report {
            schema: SCHEMA,
            done,
            cluster,
            group: forced.group.0,
            node: forced.node.0,
            voters_before: numbers(&mut before.voters()),
            learners_before: numbers(&mut before.learners()),
            joint_before: before.is_joint(),
            voters_after: numbers(&mut forced.voters.iter().copied()),
            last: Entry::of(forced.last),
            snapshot: forced.snapshot.map(Entry::of),
            snapshot_readable: readable.map(Entry::of),
            forced: Entry::of(forced.forced),
            must_never_come_back: numbers(&mut forced.banned()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joint = if self.joint_before {
            " (in the middle of a change)"
        } else {
            ""
        };
        let entry = |entry: Option<Entry>| entry.map_or("none".to_owned(), |e| e.to_string());
        let certain = entry(self.snapshot);
        let new = self
            .voters_after
            .iter()
            .filter(|id| **id != self.node)
            .copied()
            .collect::<Vec<_>>();
        if self.done {
            writeln!(f, "A NEW CONFIGURATION WAS FORCED")?;
        } else {
            writeln!(f, "NOTHING WAS CHANGED. This is what would happen:")?;
        }
        writeln!(f, "  cluster              {}", self.cluster)?;
        writeln!(f, "  group                {}", self.group)?;
        writeln!(f, "  node                 {}", self.node)?;
        writeln!(
            f,
            "  members before       voters {}, learners {}{joint}",
            list(&self.voters_before),
            list(&self.learners_before)
        )?;
        writeln!(
            f,
            "  members after        voters {}, learners none, as of entry {}",
            list(&self.voters_after),
            self.forced
        )?;
        writeln!(f, "  last entry           {}", self.last)?;
        writeln!(
            f,
            "  latest snapshot      {certain}; readable: {}",
            entry(self.snapshot_readable)
        )?;
        writeln!(
            f,
            "  may be lost          every command behind entry {} that the other voters had acknowledged",
            self.last.index
        )?;
        writeln!(
            f,
            "  may become committed entries {} to {}, also those that never were",
            self.snapshot.map_or(0, |s| s.index) + 1,
            self.last.index
        )?;
        writeln!(
            f,
            "  must never come back nodes {} with the disks they have: there would be two clusters. \
             Destroy their disks.",
            list(&self.must_never_come_back)
        )?;
        if !new.is_empty() {
            writeln!(
                f,
                "  other voters         {} begin with empty stores made to join, never with old ones",
                list(&new)
            )?;
        }
        Ok(())
    }
}
