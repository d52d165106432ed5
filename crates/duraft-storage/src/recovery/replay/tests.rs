//! Records in blocks made by hand, with holes between them: what is still known, and what is lost.

use super::*;
use crate::encode::BlockBuilder;
use crate::format::checksum::{Seed, commands_body};
use crate::format::payload::{encode_checkpoint, encode_fact, encode_lost, encode_snapshot};
use crate::format::record::Frame;
use crate::repair::{Repair, RepairKind};
use duraft_core::{Batch, Healed, Index, LogId, NodeId, Snapshot, SnapshotFile, Term};
use duraft_disk::{Disk, FaultDisk, FaultOptions};

mod give_way;

const GROUP: GroupId = GroupId(7);
const OTHER: GroupId = GroupId(8);

type Records = Vec<(Frame, Vec<u8>)>;
/// Missing ranges, whether later entries may be lost, whether the vote is uncertain.
type Loss = (Vec<(u64, u64)>, bool, bool);

fn membership() -> Membership {
    Membership::new([NodeId(1), NodeId(2)], []).expect("two voters")
}

fn state(term: u64, vote: Option<u64>) -> HardState {
    HardState {
        term: Term(term),
        vote: vote.map(NodeId),
    }
}

/// Batches of one command, one after another, behind this position.
fn log(after: Position, term: u64, count: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for _ in 0..count {
        let before = batches.last().map_or(after, at);
        let body = commands_body([&b"command"[..]].into_iter(), 0).expect("a small body");
        batches.push(body.seal(GROUP, &before, Term(term)).expect("a place"));
    }
    batches
}

fn at(batch: &Batch) -> Position {
    batch.header.position()
}

fn appended(batches: &[Batch]) -> Records {
    let records = batches.iter();
    records
        .map(|batch| (Frame::of_batch(&batch.header), batch.body.to_vec()))
        .collect()
}

fn vote(term: u64, vote: Option<u64>) -> Records {
    let frame = Frame::of_hard_state(GROUP, state(term, vote), Index(0));
    vec![(frame, Vec::new())]
}

fn echo(term: u64, vote: Option<u64>) -> Records {
    let frame = Frame::of_echo(GROUP, state(term, vote), Index(0));
    vec![(frame, Vec::new())]
}

fn cut(keep: Position) -> Records {
    vec![(Frame::of_truncate(GROUP, &keep), Vec::new())]
}

fn compacted(upto: Position) -> Records {
    let payload = membership().encode();
    vec![(Frame::of_compact(GROUP, &upto, &payload), payload)]
}

fn taken(position: Position) -> Snapshot {
    Snapshot {
        position,
        membership: membership(),
        file: SnapshotFile {
            nonce: 1,
            bytes: 2,
            digest: 3,
        },
    }
}

fn snapshot(position: Position, reset: bool) -> Records {
    let payload = encode_snapshot(&taken(position));
    let frame = Frame::of_snapshot(GROUP, &position, reset, &payload);
    vec![(frame, payload)]
}

fn healed(healed: Healed) -> Records {
    vec![(Frame::of_healed(GROUP, healed), Vec::new())]
}

fn table(since: u64, partial: bool, facts: &[(GroupId, Position, HardState)]) -> Records {
    let mut payload = Vec::new();
    for (group, end, hard_state) in facts.iter().copied() {
        let fact = GroupFact {
            group,
            end,
            hard_state,
        };
        let mut bytes = [0; 56];
        encode_fact(&fact, &mut bytes);
        payload.extend(bytes);
    }
    let count = u32::try_from(facts.len()).expect("a few");
    vec![(Frame::of_table(since, partial, count, &payload), payload)]
}

fn checkpoint_of(group: GroupId, checkpoint: &GroupCheckpoint) -> (Frame, Vec<u8>) {
    let payload = encode_checkpoint(checkpoint);
    (Frame::of_group_state(group, &payload), payload)
}

fn known(start: Position, end: Position, hard_state: HardState) -> GroupCheckpoint {
    GroupCheckpoint {
        hard_state,
        start,
        end,
        last_membership: Index(0),
        membership: membership(),
        snapshot: (start != Position::START).then(|| taken(start)),
    }
}

fn set(mut records: Records) -> Records {
    let count = u32::try_from(records.len()).expect("a few");
    records.push((Frame::of_checkpoint_end(count), Vec::new()));
    records
}

/// A log as it is read, block by block.
struct Reading {
    replay: Replay,
    segment: Arc<Segment>,
    commit: u64,
}

impl Reading {
    /// The first block says that there are two groups without a log, in term 1.
    fn begun() -> Reading {
        Reading::with(known(Position::START, Position::START, state(1, None)))
    }

    fn with(checkpoint: GroupCheckpoint) -> Reading {
        let mut reading = Reading::empty();
        let other = known(Position::START, Position::START, state(1, None));
        let groups = [(GROUP, checkpoint), (OTHER, other)];
        let groups = groups.map(|(group, state)| checkpoint_of(group, &state));
        reading.first_block(Flags::NONE, set(groups.into()));
        reading
    }

    fn empty() -> Reading {
        let disk = FaultDisk::new(FaultOptions::default());
        let file = disk.create("slot").expect("a working disk");
        Reading {
            replay: Replay::new(true),
            segment: Segment::new(4, 9, file),
            commit: 0,
        }
    }

    /// A reading that holds these batches.
    fn holding(batches: &[Batch]) -> Reading {
        let mut reading = Reading::begun();
        reading.block(appended(batches));
        reading
    }

    fn read(&mut self, block: u32, flags: Flags, records: &Records) -> Result<(), OpenError> {
        self.commit += 1;
        let (bytes, header) = self.made(block, flags, records);
        let items = [Item::Block(header)];
        self.replay.items(&self.segment, &bytes, &items, &[])
    }

    fn made(&self, block: u32, flags: Flags, records: &Records) -> (Vec<u8>, BlockHeader) {
        let mut bytes = vec![0; 16 << 10];
        let slot_at = memory_index(block_offset(block));
        let mut builder = BlockBuilder::new(&mut bytes[slot_at..], slot_at, records.len());
        for (frame, payload) in records {
            builder.push(*frame, payload);
        }
        let mut header = BlockHeader {
            nonce: 1,
            segment: self.segment.seq,
            commit: self.commit,
            durable: self.commit - 1,
            block,
            payload_len: 0,
            records: 0,
            flags,
            generation: 1,
            previous_digest: 0,
            directory_sum: 0,
            payload_sum: 0,
            sum: 0,
        };
        builder.finish(&mut header, Seed::of(&[1; 16]));
        (bytes, header)
    }

    fn first_block(&mut self, flags: Flags, records: Records) {
        let read = self.read(FIRST_COMMIT_BLOCK, flags, &records);
        read.expect("records that can be read");
    }

    fn block(&mut self, records: Records) {
        let read = self.read(FIRST_COMMIT_BLOCK + 1, Flags::NONE, &records);
        read.expect("records that can be read");
    }

    /// So many commits are lost.
    fn lose(&mut self, count: u64) {
        self.lose_under(count, &Vec::new());
    }

    /// So many commits are lost, and this mark's table says what was durable after them.
    fn lose_under(&mut self, count: u64, table: &Records) {
        let first = self.commit + 1;
        self.commit += count;
        let items = [Item::Hole {
            first,
            last: Some(self.commit),
        }];
        // Of the two marks of a slot, the older one speaks of what is before the hole's end.
        let (bytes, header) = self.made(1, Flags::MARK, table);
        let marks = [self.commit - 1, self.commit].map(|at| BlockHeader {
            commit: at,
            durable: at,
            ..header
        });
        let marks = if table.is_empty() { &[] } else { &marks[..] };
        let read = self.replay.items(&self.segment, &bytes, &items, marks);
        read.expect("records that can be read");
    }

    /// The group as it is known now, and what is lost of it.
    fn end(self) -> (GroupIndex, Option<GroupDamage>) {
        let (mut groups, mut damage) = self.replay.finish();
        assert_eq!(damage.contradictions, [], "nothing speaks against it");
        let group = groups.remove(&GROUP).expect("the group");
        (group, damage.groups.remove(&GROUP))
    }

    fn loss(self) -> Option<Loss> {
        self.end().1.map(|damage| {
            let missing = damage.missing.iter().map(|(a, b)| (a.0, b.0)).collect();
            (missing, damage.lost_suffix, damage.vote_uncertain)
        })
    }

    fn contradictions(self) -> Vec<Contradiction> {
        self.replay.finish().1.contradictions
    }
}

fn held(group: &GroupIndex) -> Vec<u64> {
    let entries = group.log.entries().iter();
    entries.map(|entry| entry.header.first.0).collect()
}

#[test]
fn what_was_read_is_counted() {
    let batches = log(Position::START, 1, 3);
    let mut reading = Reading::begun();
    reading.block(appended(&batches[..2]));
    reading.block(appended(&batches[2..]));
    let replay = &reading.replay;
    assert_eq!((replay.blocks, replay.records), (3, 6));
    assert_eq!(replay.last_commit, 3);
    let (group, damage) = reading.end();
    assert_eq!((held(&group), damage), (vec![1, 2, 3], None));
    assert_eq!(group.log.end(), at(&batches[2]));
    let places = group.log.entries().iter();
    let places: Vec<_> = places.map(|entry| (entry.commit, entry.body_at)).collect();
    let body = |records: u32| 3 * 4096 + 64 + 64 * records;
    assert_eq!(places, [(2, body(2)), (2, body(2) + 16), (3, body(1))]);
}

#[test]
fn records_that_contradict_each_other_are_told_and_never_taken() {
    // Without a hole before it, this is no fault of a disk.
    let batches = log(Position::START, 1, 4);
    let other = log(at(&batches[0]), 1, 1)[0].clone();
    let strange = Position {
        digest: duraft_core::Digest(5),
        ..at(&batches[1])
    };
    let end = at(&batches[2]);
    let begin =
        |start, end, hard_state| set(vec![checkpoint_of(GROUP, &known(start, end, hard_state))]);
    let cases: Vec<(&str, Records)> = vec![
        ("term back", vote(0, None)),
        ("another echo", echo(1, Some(2))),
        ("cut elsewhere", cut(strange)),
        ("compacted elsewhere", compacted(strange)),
        ("snapshot elsewhere", snapshot(strange, false)),
        (
            "a batch behind a gap",
            appended(&log(at(&batches[3]), 1, 1)),
        ),
        ("a batch in a place that is taken", appended(&[other])),
        (
            "another end",
            table(0, false, &[(GROUP, strange, state(1, None))]),
        ),
        (
            "another term",
            table(0, false, &[(GROUP, end, state(2, None))]),
        ),
        (
            "another end at a rotation",
            begin(Position::START, strange, state(1, None)),
        ),
        (
            "another term at a rotation",
            begin(Position::START, end, state(2, None)),
        ),
        ("another snapshot at a rotation", {
            let snapshot = Some(taken(Position::START));
            let state = known(Position::START, end, state(1, None));
            set(vec![checkpoint_of(
                GROUP,
                &GroupCheckpoint { snapshot, ..state },
            )])
        }),
        (
            "another beginning",
            begin(at(&batches[0]), end, state(1, None)),
        ),
    ];
    for (what, records) in cases {
        let mut reading = Reading::holding(&batches[..3]);
        reading.block(records.clone());
        let told = reading.contradictions();
        let found = told.first().unwrap_or_else(|| panic!("{what}"));
        assert_eq!(
            (found.segment, found.commit, found.group),
            (4, 3, GROUP),
            "{what}"
        );
    }
    let agrees = [
        echo(1, None),
        table(0, false, &[(GROUP, end, state(1, None))]),
        begin(Position::START, end, state(1, None)),
    ];
    for records in agrees {
        let mut reading = Reading::holding(&batches[..3]);
        reading.block(records);
        assert_eq!(reading.loss(), None);
    }
}

#[test]
fn a_fence_says_anew_what_it_replaces() {
    let batches = log(Position::START, 1, 3);
    let mut reading = Reading::holding(&batches);
    let mut records = set(vec![checkpoint_of(
        GROUP,
        &known(Position::START, at(&batches[0]), state(3, Some(2))),
    )]);
    let instead = log(at(&batches[0]), 2, 2);
    records.extend(appended(&instead));
    reading.first_block(Flags::FENCE, records);
    let (group, damage) = reading.end();
    assert_eq!(damage, None);
    assert_eq!(group.log.end(), at(&instead[1]));
    assert_eq!(
        (held(&group), group.hard_state),
        (vec![1, 2, 3], state(3, Some(2)))
    );
}

#[test]
fn a_checkpoint_that_is_not_whole_is_not_read() {
    let group = checkpoint_of(
        GROUP,
        &known(Position::START, Position::START, state(1, None)),
    );
    let note = Repair {
        kind: RepairKind::LossAccepted,
        first: Index(1),
        last: Index(2),
        generation: 1,
        wallclock_ns: 5,
    };
    let note = (Frame::of_repair(GROUP, &note), Vec::new());
    let lost = encode_lost(&LostLog {
        lost_suffix: true,
        vote_uncertain: false,
        floor: LogId::default(),
        missing: Vec::new(),
    });
    let lost = (Frame::of_damage(GROUP, &lost), lost);
    let records = vec![group, lost, note.clone()];
    for (count, whole) in [(2, false), (3, true), (4, false)] {
        let mut reading = Reading::empty();
        let mut records = records.clone();
        records.push((Frame::of_checkpoint_end(count), Vec::new()));
        // What the commit itself notes is no part of the set.
        records.push(note.clone());
        let read = reading.read(FIRST_COMMIT_BLOCK, Flags::NONE, &records);
        assert_eq!(read.is_ok(), whole, "{count}");
        if whole {
            assert_eq!(reading.loss(), Some((vec![], true, false)));
        }
    }
}

#[test]
fn after_one_lost_block_the_next_one_says_every_vote() {
    // It echoes what the lost one changed; a first block has a checkpoint instead.
    let batches = log(Position::START, 1, 3);
    for (lost, first, uncertain) in [(1, false, false), (1, true, true), (2, false, true)] {
        let mut reading = Reading::holding(&batches[..2]);
        reading.lose(lost);
        let records = appended(&batches[2..]);
        if first {
            reading.first_block(Flags::NONE, records);
        } else {
            reading.block(records);
        }
        let expected = uncertain.then(|| (vec![], false, true));
        assert_eq!(reading.loss(), expected, "{lost} {first}");
    }
    // One more block was lost before anything was said.
    let mut reading = Reading::holding(&batches[..2]);
    reading.lose(1);
    reading.lose(1);
    reading.block(appended(&batches[2..]));
    assert_eq!(reading.loss(), Some((vec![], false, true)));
    // Once votes are known again, the next single loss is one.
    let mut reading = Reading::holding(&batches[..2]);
    reading.lose(1);
    reading.block(appended(&batches[2..]));
    reading.lose(1);
    reading.block(table(0, false, &[(GROUP, at(&batches[2]), state(1, None))]));
    assert_eq!(reading.loss(), None);
}

#[test]
fn a_vote_or_echo_behind_a_hole_is_the_one_that_counts() {
    for (records, then) in [
        (vote(4, Some(2)), state(4, Some(2))),
        (echo(4, Some(2)), state(4, Some(2))),
    ] {
        let mut reading = Reading::begun();
        reading.lose(2);
        reading.block(records);
        reading.block(echo(4, Some(2)));
        let (group, damage) = reading.end();
        let damage = damage.expect("the log may have gone on");
        assert_eq!((damage.lost_suffix, damage.vote_uncertain), (true, false));
        assert_eq!(group.hard_state, then);
    }
}

#[test]
fn a_batch_behind_a_hole_says_what_is_missing_before_it() {
    let batches = log(Position::START, 1, 6);
    // It follows: nothing of the log was lost.
    let mut reading = Reading::holding(&batches[..3]);
    reading.lose(1);
    reading.block(appended(&batches[3..4]));
    assert_eq!(reading.loss(), None);
    // It lies behind: so much is missing.
    let mut reading = Reading::holding(&batches[..2]);
    reading.lose(1);
    reading.block(appended(&batches[4..]));
    let (group, damage) = reading.end();
    let damage = damage.expect("entries are missing");
    assert_eq!(damage.missing, [(Index(3), Index(4))]);
    assert_eq!(
        (held(&group), damage.lost_suffix),
        (vec![1, 2, 5, 6], false)
    );
    assert_eq!(damage.loss, (Index(3), Index(6)));
    assert_eq!(damage.floor, at(&batches[5]).id);
    let survivors: Vec<u64> = damage
        .survivors
        .iter()
        .map(|header| header.first.0)
        .collect();
    assert_eq!((survivors, damage.end), (vec![5, 6], None));
    // It stands in the place of others: these were cut off in the hole, and all it follows stay.
    let instead = log(at(&batches[0]), 2, 1);
    let mut reading = Reading::holding(&batches[..3]);
    reading.lose(1);
    let mut records = echo(2, None);
    records.extend(appended(&instead));
    reading.block(records);
    let (group, damage) = reading.end();
    assert_eq!((group.log.end(), damage), (at(&instead[0]), None));
    assert_eq!(held(&group), [1, 2]);
}

#[test]
fn nobody_heard_of_behind_a_hole_keeps_what_may_be_a_beginning() {
    let batches = log(Position::START, 1, 2);
    let mut reading = Reading::holding(&batches);
    reading.lose(1);
    let (group, damage) = reading.end();
    let damage = damage.expect("anything may be lost");
    assert_eq!(held(&group), [1, 2]);
    assert!(damage.lost_suffix && damage.vote_uncertain);
    assert_eq!(
        (damage.loss, damage.missing),
        ((Index(3), Index(3)), vec![])
    );
    assert_eq!(damage.floor, at(&batches[1]).id);
}

#[test]
fn until_a_checkpoint_finds_it_whole_a_log_gives_way_to_what_contradicts_it() {
    // The log was cut and went on as another one in the hole, which the first batch behind it, far on,
    // does not show.
    let batches = log(Position::START, 1, 4);
    let instead = log(at(&batches[0]), 2, 6);
    let mut reading = Reading::holding(&batches);
    reading.lose(1);
    let mut records = echo(2, None);
    records.extend(appended(&instead[5..]));
    reading.block(records);
    reading.block(appended(&instead[1..2]));
    let (group, damage) = reading.end();
    let damage = damage.expect("entries are missing");
    // What held the place of the one that was filled in is gone, with what does not join it.
    assert_eq!(held(&group), [1, 3, 7]);
    assert_eq!(damage.missing, [(Index(2), Index(2)), (Index(4), Index(6))]);
    // Behind its end, though the hole is told of already.
    let far = log(at(&instead[5]), 2, 3);
    let mut reading = Reading::holding(&batches);
    reading.lose(1);
    let mut records = echo(2, None);
    records.extend(appended(&instead[5..]));
    reading.block(records);
    reading.block(appended(&far[1..2]));
    assert_eq!(reading.loss(), Some((vec![(5, 6), (8, 8)], false, false)));
    // A checkpoint that finds it whole ends that.
    let mut reading = Reading::holding(&batches);
    reading.lose(1);
    let whole = known(Position::START, at(&batches[3]), state(1, None));
    reading.first_block(Flags::NONE, set(vec![checkpoint_of(GROUP, &whole)]));
    reading.block(appended(&instead[1..2]));
    assert_eq!(reading.contradictions().len(), 1);
}

#[test]
fn a_table_behind_a_hole_says_exactly_what_was_there() {
    let batches = log(Position::START, 1, 4);
    let fact = (GROUP, at(&batches[3]), state(2, Some(1)));
    let mut reading = Reading::holding(&batches[..2]);
    reading.lose(2);
    reading.block(table(2, false, &[fact]));
    let (group, damage) = reading.end();
    let damage = damage.expect("entries are missing");
    assert_eq!(damage.missing, [(Index(3), Index(4))]);
    assert!(!damage.lost_suffix && !damage.vote_uncertain);
    assert_eq!((damage.end, group.hard_state), (Some(fact.1), fact.2));
    assert_eq!(damage.loss, (Index(3), Index(4)));
    // The same from a mark, which states what was durable where the hole ends.
    let mut reading = Reading::holding(&batches[..2]);
    reading.lose_under(2, &table(2, false, &[fact]));
    assert_eq!(reading.loss(), Some((vec![(3, 4)], false, false)));
    // Before a compacted log's beginning nothing ends.
    let mut reading = Reading::with(known(at(&batches[1]), at(&batches[1]), state(1, None)));
    reading.lose(1);
    reading.block(table(1, false, &[(GROUP, at(&batches[0]), state(1, None))]));
    assert_eq!(reading.contradictions().len(), 1);
}

#[test]
fn a_table_clears_who_is_not_in_it_only_back_to_the_one_before() {
    // Commits 3 and 4 are lost. A table that covers what was written since commit 2 leaves out whoever
    // was not written in them.
    let other = (OTHER, Position::START, state(1, None));
    for (since, partial, cleared) in [
        (2, false, true),
        (3, false, false),
        (1, false, true),
        (2, true, false),
    ] {
        let mut reading = Reading::holding(&log(Position::START, 1, 2));
        reading.lose(2);
        reading.block(table(since, partial, &[other]));
        assert_eq!(reading.loss().is_none(), cleared, "{since} {partial}");
    }
    // After a second hole, the first one is still the one that counts.
    let mut reading = Reading::holding(&log(Position::START, 1, 2));
    reading.lose(1);
    reading.block(Vec::new());
    reading.lose(1);
    reading.block(table(4, false, &[other]));
    assert_eq!(reading.loss(), Some((vec![], true, false)));
}

#[test]
fn a_cut_behind_a_hole_says_where_the_log_goes_on() {
    let batches = log(Position::START, 1, 5);
    let mut reading = Reading::holding(&batches[..2]);
    reading.lose(1);
    reading.block(cut(at(&batches[3])));
    assert_eq!(reading.loss(), Some((vec![(3, 4)], false, false)));
    let mut reading = Reading::holding(&batches[..3]);
    reading.lose(1);
    reading.block(cut(at(&batches[1])));
    let (group, damage) = reading.end();
    assert_eq!((held(&group), damage), (vec![1, 2], None));
}

#[test]
fn a_compaction_behind_a_hole_says_where_the_log_begins() {
    let batches = log(Position::START, 1, 5);
    // Taken and compacted in commits behind the hole, of entries that it took.
    let mut reading = Reading::holding(&batches[..2]);
    reading.lose(1);
    let mut records = snapshot(at(&batches[3]), false);
    records.extend(compacted(at(&batches[3])));
    records.extend(appended(&batches[4..]));
    reading.block(records);
    let (group, damage) = reading.end();
    assert_eq!((held(&group), damage), (vec![5], None));
    assert_eq!(group.log.start(), at(&batches[3]));
    // The snapshot it names is lost too.
    let mut reading = Reading::holding(&batches[..2]);
    reading.lose(1);
    let mut records = compacted(at(&batches[3]));
    records.extend(appended(&batches[4..]));
    reading.block(records);
    let (group, damage) = reading.end();
    assert_eq!(held(&group), [5]);
    assert!(damage.expect("its snapshot is lost").snapshot_lost);
}

#[test]
fn a_compaction_inside_what_is_there_keeps_its_end() {
    // The boundary is of a log that the hole took; what is known to end the log ends it.
    let batches = log(Position::START, 1, 2);
    let instead = log(Position::START, 2, 6);
    let mut reading = Reading::holding(&batches);
    reading.lose(1);
    let mut records = echo(2, None);
    records.extend(appended(&instead[4..5]));
    reading.block(records);
    let mut records = snapshot(at(&instead[1]), false);
    records.extend(compacted(at(&instead[1])));
    reading.block(records);
    let (group, damage) = reading.end();
    assert_eq!(
        (group.log.start(), group.log.end()),
        (at(&instead[1]), at(&instead[4]))
    );
    assert_eq!(
        damage.expect("entries are missing").missing,
        [(Index(3), Index(4))]
    );
    assert_eq!(held(&group), [5]);
}

#[test]
fn a_snapshot_in_the_place_of_the_log_ends_what_was_missing() {
    let batches = log(Position::START, 1, 6);
    let mut reading = Reading::holding(&batches[..2]);
    reading.lose(1);
    reading.block(snapshot(at(&batches[5]), true));
    let (group, damage) = reading.end();
    assert_eq!((held(&group), damage), (vec![], None));
    assert_eq!(
        (group.log.start(), group.log.end()),
        (at(&batches[5]), at(&batches[5]))
    );
    // One that leaves the log does not say where it ends.
    let mut reading = Reading::holding(&batches[..2]);
    reading.lose(1);
    reading.block(snapshot(at(&batches[5]), false));
    assert_eq!(reading.loss(), Some((vec![], true, false)));
}

#[test]
fn what_was_lost_stays_so_until_it_is_healed() {
    let batches = log(Position::START, 1, 2);
    let lost = |suffix, vote| {
        let floor = LogId {
            term: Term(1),
            index: Index(9),
        };
        let payload = encode_lost(&LostLog {
            lost_suffix: suffix,
            vote_uncertain: vote,
            floor,
            missing: vec![(Index(1), Index(1))],
        });
        vec![(Frame::of_damage(GROUP, &payload), payload)]
    };
    for (suffix, vote) in [(false, false), (true, false), (false, true)] {
        let mut reading = Reading::holding(&batches);
        reading.block(lost(suffix, vote));
        assert_eq!(reading.loss(), Some((vec![(1, 1)], suffix, vote)));
        // Another hole takes what was sure.
        let mut reading = Reading::holding(&batches);
        reading.block(lost(suffix, vote));
        reading.lose(2);
        let damage = reading.end().1.expect("still lost");
        assert!(damage.lost_suffix && damage.vote_uncertain);
        assert_eq!(
            (damage.floor.index, damage.loss),
            (Index(9), (Index(1), Index(9)))
        );
    }
    let mut reading = Reading::holding(&batches);
    reading.block(lost(true, true));
    reading.block(healed(Healed::Vote));
    assert_eq!(reading.loss(), Some((vec![(1, 1)], true, false)));
    let mut reading = Reading::holding(&batches);
    reading.block(lost(true, true));
    reading.block(appended(&batches[..1]));
    reading.block(healed(Healed::All));
    assert_eq!(reading.loss(), None);
}

#[test]
fn a_log_that_begins_behind_every_snapshot_is_no_healthy_one() {
    let batches = log(Position::START, 1, 2);
    let uncovered = GroupCheckpoint {
        snapshot: None,
        ..known(at(&batches[1]), at(&batches[1]), state(1, None))
    };
    let reading = Reading::with(uncovered.clone());
    let problem = reading.contradictions().remove(0).problem;
    assert!(
        matches!(problem, WriteProblem::Uncovered { .. }),
        "{problem:?}"
    );
    let mut reading = Reading::with(uncovered);
    reading.lose(1);
    reading.block(echo(1, None));
    assert!(reading.end().1.expect("damaged").snapshot_lost);
    // Nor one whose entries are of a later term than its vote.
    let mut reading = Reading::begun();
    reading.block(appended(&log(Position::START, 2, 1)));
    let problem = reading.contradictions().remove(0).problem;
    assert!(
        matches!(problem, WriteProblem::TermBehindLog { .. }),
        "{problem:?}"
    );
}

#[test]
fn without_a_checkpoint_nobody_knows_which_groups_there_are() {
    let mut reading = Reading::empty();
    reading.block(appended(&log(Position::START, 1, 1)));
    assert!(!reading.replay.has_groups());
    assert!(reading.replay.finish().1.no_checkpoint);
    assert!(Reading::begun().replay.has_groups());
}
