//! What a store has lost, and what is left when that is accepted.

use crate::offline::{Entry, list};
use duraft_core::GroupId;
use duraft_storage::{GroupDamage, RecoveredGroup};
use serde::Serialize;
use std::fmt;

/// Version of the JSON layout.
const SCHEMA: u32 = 1;

/// See the module documentation.
#[derive(Serialize)]
pub(super) struct Report {
    schema: u32,
    node: u64,
    group: u64,
    /// False: nothing was changed.
    done: bool,
    /// None: nothing is lost.
    loss: Option<Loss>,
    /// What the store holds without it; of an undamaged store, what it holds.
    pub(super) after: Option<State>,
    /// The snapshot whose file was read from end to end and from which the node can start.
    pub(super) snapshot_readable: Option<Entry>,
    /// Other groups that have lost something: that is written down, for their peers to repair.
    pub(super) other_groups: Vec<u64>,
}

#[derive(Serialize)]
struct Loss {
    first: u64,
    last: u64,
    /// Entries that are intact and are given up all the same, as they lie behind missing ones.
    intact_given_up: u64,
    later_entries_may_be_lost: bool,
    vote_may_be_lost: bool,
    /// The greatest entry that this node may have acknowledged.
    may_have_acknowledged: Entry,
}

/// What a store holds of the group.
#[derive(Serialize)]
pub(super) struct State {
    last: Entry,
    term: u64,
    snapshot: Option<Entry>,
    voters: Vec<u64>,
    /// What people decided about this group before, and now.
    repairs: Vec<String>,
}

impl State {
    pub(super) fn of(found: &RecoveredGroup) -> State {
        let last = found.batches.last();
        let membership = found.memberships.last();
        let membership = membership.map_or(&found.membership, |(_, latest)| latest);
        let snapshot = found.snapshot.as_ref();
        State {
            last: Entry::of(last.map_or(found.start.id, |header| header.last_id())),
            term: found.hard_state.term.0,
            snapshot: snapshot.map(|snapshot| Entry::of(snapshot.position.id)),
            voters: membership.voters().map(|id| id.0).collect(),
            repairs: found.repairs.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Report {
    pub(super) fn new(node: u64, group: GroupId) -> Report {
        Report {
            schema: SCHEMA,
            node,
            group: group.0,
            done: false,
            loss: None,
            after: None,
            snapshot_readable: None,
            other_groups: Vec::new(),
        }
    }

    pub(super) fn tell_loss(&mut self, damage: &GroupDamage, done: bool) {
        let survivors = damage.survivors.iter();
        self.done = done;
        self.loss = Some(Loss {
            first: damage.loss.0.0,
            last: damage.loss.1.0,
            intact_given_up: survivors.map(|header| u64::from(header.count)).sum(),
            later_entries_may_be_lost: damage.lost_suffix,
            vote_may_be_lost: damage.vote_uncertain,
            may_have_acknowledged: Entry::of(damage.floor),
        });
    }
}

fn yes(word: bool) -> &'static str {
    if word { "yes" } else { "no" }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.loss, self.done) {
            (None, _) => writeln!(f, "NOTHING IS LOST. Nothing was changed.")?,
            (Some(_), false) => writeln!(f, "NOTHING WAS CHANGED. This is what is lost:")?,
            (Some(_), true) => writeln!(f, "THE LOSS WAS ACCEPTED")?,
        }
        writeln!(
            f,
            "  node                 {}, group {}",
            self.node, self.group
        )?;
        if let Some(loss) = &self.loss {
            writeln!(
                f,
                "  lost                 entries {} to {}",
                loss.first, loss.last
            )?;
            writeln!(
                f,
                "  given up with them   {} intact entries behind missing ones",
                loss.intact_given_up
            )?;
            writeln!(
                f,
                "  may be lost, too     later entries: {}; a later term or vote: {}",
                yes(loss.later_entries_may_be_lost),
                yes(loss.vote_may_be_lost)
            )?;
            writeln!(
                f,
                "  acknowledged         perhaps everything up to entry {}",
                loss.may_have_acknowledged
            )?;
        }
        if let Some(after) = &self.after {
            let snapshot = after.snapshot.map_or("none".into(), |e| e.to_string());
            writeln!(
                f,
                "  left: last entry     {}, in term {}",
                after.last, after.term
            )?;
            writeln!(f, "  left: snapshot       {snapshot}")?;
            writeln!(f, "  voters               {}", list(&after.voters))?;
            for repair in &after.repairs {
                writeln!(f, "  written in the log   {repair}")?;
            }
            if self.loss.is_some() && after.voters.len() > 1 {
                writeln!(
                    f,
                    "  THIS NODE HAS PEERS  where one of them has these entries, let it repair this node \
                     instead: what is given up here may be lost for all."
                )?;
            }
        }
        if !self.other_groups.is_empty() {
            writeln!(
                f,
                "  also damaged         groups {}: for their peers to repair",
                list(&self.other_groups)
            )?;
        }
        Ok(())
    }
}
