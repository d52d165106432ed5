//! Replays the records of the chain, oldest first, and keeps account of what holes took.
//!
//! A hole leaves every group *pending*: something of it may be lost. What comes after says what: a
//! checkpoint or table says it exactly; a batch that follows the log by digest shows that nothing of
//! the log is lost, one that does not shows what is missing; the echo in the block after a single
//! lost block restores its hard states. Who is still pending at the end may have lost anything after
//! the last known batch.
//!
//! What a group held before the hole may have been cut off or replaced in it, though what comes after
//! lies far behind and shows no seam. So until a checkpoint finds the log whole, a record that does not
//! fit what the group holds makes that give way.
//!
//! Without a hole before it, a record that does not fit what it follows is a contradiction: it passed
//! its checksums, so this is no disk fault but ours.

use super::scan::Item;
use crate::errors::{Contradiction, Damage, GroupDamage, Hole, OpenError, WriteProblem};
use crate::format::block::{BlockHeader, Flags, HEADER_LEN};
use crate::format::payload::{GroupCheckpoint, GroupFact, LostLog};
use crate::format::record::{DESCRIPTOR_LEN, DescriptorError, Record};
use crate::format::{FIRST_COMMIT_BLOCK, block_offset, memory_index};
use crate::index::{GroupIndex, Lost, membership_in, snapshot_index};
use crate::plan::{check_hard_state, check_term};
use crate::segment::{Entry, Segment};
use duraft_core::{BatchHeader, GroupId, HardState, Membership, Position, SnapshotWrite};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    log: bool,
    vote: bool,
}

#[derive(Debug)]
struct Group {
    index: GroupIndex,
    pending: Pending,
    /// Since the last hole, no checkpoint has made the log whole: what it held before may be of another
    /// log.
    loose: bool,
}

/// The state built so far.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    groups: BTreeMap<GroupId, Group>,
    pub(crate) holes: Vec<Hole>,
    pub(crate) contradictions: Vec<Contradiction>,
    /// The last commit before the hole that is pending.
    intact_upto: u64,
    /// Exactly one block was lost right before the next one.
    lost_one: bool,
    pub(crate) last_commit: u64,
    pub(crate) blocks: u64,
    pub(crate) records: u64,
    check_bodies: bool,
}

/// Where a record stands.
struct Site<'a> {
    segment: &'a Arc<Segment>,
    header: &'a BlockHeader,
    bytes: &'a [u8],
}

impl Replay {
    pub(crate) fn new(check_bodies: bool) -> Replay {
        Replay {
            check_bodies,
            ..Replay::default()
        }
    }

    /// Does any checkpoint say which groups there are?
    pub(crate) fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    pub(crate) fn items(
        &mut self,
        segment: &Arc<Segment>,
        bytes: &[u8],
        items: &[Item],
        marks: &[BlockHeader],
    ) -> Result<(), OpenError> {
        for item in items {
            let upto = match item {
                Item::Block(header) => {
                    self.block(&Site {
                        segment,
                        header,
                        bytes,
                    })?;
                    Some(header.commit)
                }
                Item::Hole { first, last } => {
                    self.hole(Hole {
                        segment: segment.seq,
                        slot: Some(segment.slot),
                        first: *first,
                        last: *last,
                    });
                    *last
                }
            };
            // A mark states what was durable at a commit: where something is lost before, it counts as
            // a table in the chain would.
            for header in marks.iter().filter(|mark| Some(mark.durable) == upto) {
                if self.is_unresolved() {
                    self.records_of(&Site {
                        segment,
                        header,
                        bytes,
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Is it unknown of any group what became of it?
    fn is_unresolved(&self) -> bool {
        let unresolved = |group: &Group| group.pending.log || group.pending.vote;
        self.groups.values().any(unresolved)
    }

    /// Commits are lost: every group may have lost something.
    pub(crate) fn hole(&mut self, hole: Hole) {
        if !self.groups.values().any(|group| group.pending.log) {
            self.intact_upto = hole.first.saturating_sub(1);
        }
        let votes_known = !self.groups.values().any(|group| group.pending.vote);
        self.lost_one = votes_known && hole.last == Some(hole.first);
        for group in self.groups.values_mut() {
            group.pending = Pending {
                log: true,
                vote: true,
            };
            group.loose = true;
        }
        self.holes.push(hole);
    }

    fn block(&mut self, site: &Site<'_>) -> Result<(), OpenError> {
        self.last_commit = site.header.commit;
        self.blocks += 1;
        self.records += u64::from(site.header.records);
        self.records_of(site)?;
        // The block after a lost one echoes the hard states the lost one changed: all of them.
        if std::mem::take(&mut self.lost_one) && site.header.block != FIRST_COMMIT_BLOCK {
            self.groups
                .values_mut()
                .for_each(|group| group.pending.vote = false);
        }
        Ok(())
    }

    fn records_of(&mut self, site: &Site<'_>) -> Result<(), OpenError> {
        let at = block_offset(site.header.block);
        let block = &site.bytes[memory_index(at)..];
        let payload_at = site.header.payload_at();
        let payloads = &block[payload_at..payload_at + site.header.payload_len as usize];
        let mut in_set = 0;
        let mut set_over = false;
        for descriptor in block[HEADER_LEN..payload_at].chunks_exact(DESCRIPTOR_LEN) {
            let position = at + payload_at as u64;
            let record = Record::decode(descriptor, payloads, position, self.check_bodies);
            let record = record.map_err(|problem| OpenError::Record {
                segment: site.segment.seq,
                block: site.header.block,
                problem,
            })?;
            match &record {
                Record::GroupState { .. } | Record::Damage { .. } => in_set += 1,
                Record::CheckpointEnd { count } if *count != in_set => {
                    return Err(OpenError::Record {
                        segment: site.segment.seq,
                        block: site.header.block,
                        problem: DescriptorError::Count {
                            count: *count,
                            body_len: 0,
                        }
                        .into(),
                    });
                }
                // In a set they repeat what was decided before.
                Record::Repair { .. } if !set_over => in_set += 1,
                Record::CheckpointEnd { .. } => set_over = true,
                Record::Batch { .. }
                | Record::HardState { .. }
                | Record::Echo { .. }
                | Record::Truncate { .. }
                | Record::Compact { .. }
                | Record::Snapshot { .. }
                | Record::Healed { .. }
                | Record::Repair { .. }
                | Record::Table { .. } => {}
            }
            let descriptor_at = at
                + HEADER_LEN as u64
                + (descriptor.as_ptr().addr() - block[HEADER_LEN..].as_ptr().addr()) as u64;
            self.record(site, record, descriptor_at);
        }
        Ok(())
    }

    fn record(&mut self, site: &Site<'_>, record: Record, descriptor_at: u64) {
        match record {
            Record::Batch { header, body_at } => self.batch(site, header, descriptor_at, body_at),
            Record::HardState {
                group,
                state,
                membership,
            } => self.with(site, group, |group| {
                let checked = check_hard_state(group.index.hard_state, state);
                let lost = group.pending.vote;
                group.index.hard_state = state;
                group.index.membership_hint = group.index.membership_hint.max(membership);
                group.pending.vote = false;
                if lost { Ok(()) } else { checked }
            }),
            Record::Echo {
                group,
                state,
                membership,
            } => self.with(site, group, |group| {
                let before = group.index.hard_state;
                if !group.pending.vote && before != state {
                    return Err(WriteProblem::HardState {
                        before,
                        found: state,
                    });
                }
                group.index.hard_state = state;
                group.index.membership_hint = group.index.membership_hint.max(membership);
                group.pending.vote = false;
                Ok(())
            }),
            Record::Truncate { group, keep } => self.with(site, group, |group| group.cut(&keep)),
            Record::Compact {
                group,
                upto,
                membership,
            } => {
                self.with(site, group, |group| group.compact(&upto, membership));
            }
            Record::GroupState { group, checkpoint } => self.checkpoint(site, group, &checkpoint),
            Record::CheckpointEnd { .. } => {}
            Record::Damage { group, lost } => self.with(site, group, |group| {
                group.damaged(&lost);
                Ok(())
            }),
            Record::Snapshot {
                group,
                snapshot,
                reset,
            } => self.with(site, group, |group| {
                group.snapshot(&SnapshotWrite { snapshot, reset })
            }),
            Record::Healed { group, healed } => self.with(site, group, |group| {
                group.index.healed(healed);
                Ok(())
            }),
            Record::Repair { group, note } => self.with(site, group, |group| {
                group.index.repaired(note);
                Ok(())
            }),
            Record::Table {
                since,
                partial,
                facts,
            } => self.table(site, since, partial, &facts),
        }
    }

    /// Changes one group; a problem is a contradiction. Records of groups nobody knows any more
    /// belong to a checkpoint that a hole took.
    fn with(
        &mut self,
        site: &Site<'_>,
        id: GroupId,
        change: impl FnOnce(&mut Group) -> Result<(), WriteProblem>,
    ) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        if let Err(problem) = change(group) {
            self.contradictions.push(Contradiction {
                segment: site.segment.seq,
                commit: site.header.commit,
                group: id,
                problem,
            });
        }
    }

    fn batch(&mut self, site: &Site<'_>, header: BatchHeader, descriptor_at: u64, body_at: u64) {
        let body = memory_index(body_at);
        let body = &site.bytes[body..body + header.body_len as usize];
        let membership = membership_in(&header, body);
        let entry = Entry {
            header,
            segment: Arc::clone(site.segment),
            commit: site.header.commit,
            // Offsets inside a slot of at most 1 GiB.
            descriptor_at: u32::try_from(descriptor_at).expect("an offset inside a slot"),
            body_at: u32::try_from(body_at).expect("an offset inside a slot"),
            body: None,
        };
        self.with(site, header.group, |group| {
            let membership = membership?;
            let end = group.index.log.end();
            if site.header.flags.has(Flags::FENCE) && header.first <= end.index() {
                // A fence copies what was the log when it was written. What kept segments hold in its
                // place was cut off in blocks that the fence has replaced.
                group.index.log.make_way(&header);
            }
            match group.index.log.append(entry.clone(), false) {
                Ok(()) if header.first > end.index() => group.pending.log = false,
                Ok(()) => {}
                Err(_) if group.pending.log => {
                    group.index.log.append_after_loss(entry);
                    group
                        .index
                        .forget_memberships_after(header.first.previous());
                    group.pending.log = false;
                }
                Err(_) if group.loose && header.first > end.index() => {
                    group.index.log.append_after_loss(entry);
                }
                Err(_) if group.loose => {
                    group.index.log.make_way(&header);
                    group.index.log.append(entry, false)?;
                }
                Err(problem) => return Err(problem),
            }
            group.index.note_membership(header.first, membership);
            Ok(())
        });
    }

    fn checkpoint(&mut self, site: &Site<'_>, id: GroupId, checkpoint: &GroupCheckpoint) {
        let Some(group) = self.groups.get_mut(&id) else {
            let index = GroupIndex::from_checkpoint(checkpoint);
            self.groups.insert(
                id,
                Group {
                    index,
                    pending: Pending::default(),
                    loose: false,
                },
            );
            return;
        };
        let known = &group.index;
        let same_end =
            known.log.end() == checkpoint.end && known.hard_state == checkpoint.hard_state;
        // A hole may have taken these without taking anything else: who goes on does not show it.
        let same_start =
            known.log.start() == checkpoint.start && known.snapshot == checkpoint.snapshot;
        let unsure = group.pending.log || group.loose;
        let contradicts = !same_end && !unsure || !same_start && self.holes.is_empty();
        if site.header.flags.has(Flags::FENCE) {
            // Who wrote the fence has judged all that is older, and would not have gone on with a
            // contradiction: a hole explained it that is no part of the log any more.
            self.contradictions.retain(|found| found.group != id);
        } else if contradicts {
            self.contradictions.push(Contradiction {
                segment: site.segment.seq,
                commit: site.header.commit,
                group: id,
                problem: WriteProblem::Checkpoint {
                    checkpoint: checkpoint.end,
                    log: known.log.end(),
                },
            });
        }
        group.settle(checkpoint.start, checkpoint.end, checkpoint.hard_state);
        // A whole log is proven by its digests from the end on; around a gap nothing is.
        group.loose &= !group.index.log.is_whole();
        group.index.membership = checkpoint.membership.clone();
        group.index.membership_hint = checkpoint.last_membership;
        group.index.snapshot = checkpoint.snapshot.clone();
        group.index.lost = None;
        group.index.repairs.clear();
    }

    fn table(&mut self, site: &Site<'_>, since: u64, partial: bool, facts: &[GroupFact]) {
        for fact in facts {
            self.with(site, fact.group, |group| {
                let known = &group.index;
                let same = known.log.end() == fact.end && known.hard_state == fact.hard_state;
                let pending = group.pending.log || group.pending.vote || group.loose;
                if !same && !pending || fact.end.index() < known.log.start().index() {
                    return Err(WriteProblem::Checkpoint {
                        checkpoint: fact.end,
                        log: known.log.end(),
                    });
                }
                if pending {
                    group.settle(group.index.log.start(), fact.end, fact.hard_state);
                }
                Ok(())
            });
        }
        // Groups that are not in a whole table were not written since the last one.
        if !partial && since <= self.intact_upto {
            for (id, group) in &mut self.groups {
                if facts.iter().all(|fact| fact.group != *id) {
                    group.pending = Pending::default();
                }
            }
        }
    }

    /// The groups as they are known now, and what is lost of them.
    pub(crate) fn finish(mut self) -> (BTreeMap<GroupId, GroupIndex>, Damage) {
        let mut damage = Damage {
            no_checkpoint: self.groups.is_empty(),
            ..Damage::default()
        };
        let holes = !self.holes.is_empty();
        let mut groups = BTreeMap::new();
        for (id, mut group) in std::mem::take(&mut self.groups) {
            if holes {
                group.index.log.drop_contradicted();
            }
            if holes || group.index.lost.is_some() {
                group.index.begin_at_snapshot();
            }
            group.index.match_memberships();
            group.note_loss(holes);
            let state = &group.index;
            match state.lost {
                Some(lost) => {
                    damage.groups.insert(id, damage_of(state, lost));
                }
                None => {
                    let problem = check_term(state.log.end(), state.hard_state);
                    if let Err(problem) = problem.and_then(|()| covered(state)) {
                        self.contradictions.push(Contradiction {
                            segment: 0,
                            commit: self.last_commit,
                            group: id,
                            problem,
                        });
                    }
                }
            }
            groups.insert(id, group.index);
        }
        damage.contradictions = self.contradictions;
        if !damage.is_none() {
            damage.holes = self.holes;
        }
        (groups, damage)
    }
}

impl Group {
    /// Takes on what is known for certain.
    fn settle(&mut self, start: Position, end: Position, hard_state: HardState) {
        self.index.log.settle(start, end);
        self.index.take_memberships_upto(start.index());
        self.index.forget_memberships_after(end.index());
        self.index.hard_state = hard_state;
        self.pending = Pending::default();
    }

    fn cut(&mut self, keep: &Position) -> Result<(), WriteProblem> {
        match self.index.truncate(keep) {
            Err(_) if self.pending.log || self.loose => {
                let start = self.index.log.start();
                self.index.log.settle(start, *keep);
                self.index.forget_memberships_after(keep.index());
            }
            Ok(_) => {}
            Err(problem) => return Err(problem),
        }
        self.pending.log = false;
        Ok(())
    }

    fn snapshot(&mut self, write: &SnapshotWrite) -> Result<(), WriteProblem> {
        let at = write.snapshot.position;
        let log = &self.index.log;
        let misfit = at.index() >= log.start().index() && !log.agrees_with(&at) && !write.reset;
        let inside = at.index() < log.end().index();
        if misfit && self.loose && !self.pending.log && inside {
            // What leads to the end of the log is known to be of it, what leads here is not.
            self.index.log.drop_upto(at.index());
        } else if misfit && (self.pending.log || self.loose) {
            // The log had this boundary, so what is known of it was cut in the hole.
            let start = self.index.log.start();
            self.index.log.settle(start, at);
            self.index.forget_memberships_after(at.index());
        }
        self.index.snapshot(write)?;
        if write.reset {
            // Whatever a hole took of the log, it is empty now: what follows must join it.
            (self.pending.log, self.loose) = (false, false);
        }
        Ok(())
    }

    fn compact(&mut self, upto: &Position, membership: Membership) -> Result<(), WriteProblem> {
        let compacted = match self.index.compact(upto) {
            Ok(_) => Ok(()),
            Err(_) if self.pending.log || self.loose => {
                let end = self.index.log.end();
                let end = if end.index() > upto.index() {
                    end
                } else {
                    *upto
                };
                self.index.log.settle(*upto, end);
                self.index.take_memberships_upto(upto.index());
                Ok(())
            }
            Err(problem) => Err(problem),
        };
        self.index.membership = membership;
        compacted
    }

    fn damaged(&mut self, lost: &LostLog) {
        for (first, last) in &lost.missing {
            self.index.log.drop_range(*first, *last);
        }
        self.index.lost = Some(Lost {
            suffix: lost.lost_suffix,
            vote: lost.vote_uncertain,
            floor: lost.floor,
        });
    }

    /// Writes down as loss what nothing has resolved.
    fn note_loss(&mut self, holes: bool) {
        let snapshot = holes && self.index.is_uncovered();
        let unresolved = self.pending.log || self.pending.vote || snapshot;
        if self.index.lost.is_none() && !unresolved && self.index.log.is_whole() {
            return;
        }
        let end = self.index.log.end().id;
        let before = self.index.lost;
        self.index.lost = Some(Lost {
            suffix: self.pending.log || before.is_some_and(|lost| lost.suffix),
            vote: self.pending.vote || before.is_some_and(|lost| lost.vote),
            floor: before.map_or(end, |lost| lost.floor.max(end)),
        });
    }
}

/// What a log leaves out, a snapshot holds.
fn covered(state: &GroupIndex) -> Result<(), WriteProblem> {
    if !state.is_uncovered() {
        return Ok(());
    }
    Err(WriteProblem::Uncovered {
        upto: state.log.start().index(),
        snapshot: snapshot_index(state.snapshot.as_ref()),
    })
}

/// The report on a damaged group.
pub(crate) fn damage_of(state: &GroupIndex, lost: Lost) -> GroupDamage {
    let missing = state.log.gaps();
    let survivors = match missing.first() {
        None => Vec::new(),
        Some((first, _)) => {
            let entries = state.log.entries().iter().map(|entry| entry.header);
            entries.filter(|header| header.first > *first).collect()
        }
    };
    let first = missing.first().map(|(first, _)| *first);
    let first = first.unwrap_or(state.log.end().index().next());
    let known = state.log.end().index().max(lost.floor.index);
    GroupDamage {
        loss: (first, first.max(known)),
        missing,
        survivors,
        lost_suffix: lost.suffix,
        vote_uncertain: lost.vote,
        floor: lost.floor,
        last_membership: state.last_membership(),
        end: state.log.lost_end(),
        snapshot_lost: state.is_uncovered(),
    }
}

#[cfg(test)]
mod tests;
