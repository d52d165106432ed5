//! Which segments stay, which batches move, and what the moved ones go on from.

use super::*;
use crate::errors::Damage;
use crate::format::checksum::{Seed, commands_body};
use crate::format::payload::GroupCheckpoint;
use crate::recovery::RecoveryReport;
use duraft_core::{Body, HardState, Membership, NodeId, Term};
use duraft_disk::{FaultDisk, FaultOptions};

const GROUP: GroupId = GroupId(7);
/// Where the only command of a batch ends: so many bytes stand before it.
const COMMAND_END: u64 = 4;

fn segment(seq: u64) -> Arc<Segment> {
    let disk = FaultDisk::new(FaultOptions::default());
    let file = disk.create("slot").expect("a working disk");
    Segment::new(seq, 0, file)
}

/// A segment that ends after this commit for its successor, or of which nothing is proven.
fn told(seq: u64, end: Option<u64>) -> Told {
    let end = end.map(|commit| SegmentEnd {
        seq,
        nonce: 1,
        block: 3,
        commit,
        digest: 0,
    });
    Told {
        segment: segment(seq),
        end,
        begins: true,
        loose: Vec::new(),
    }
}

/// A group whose log holds nothing yet.
fn group() -> GroupIndex {
    GroupIndex::from_checkpoint(&GroupCheckpoint {
        hard_state: HardState {
            term: Term(1),
            vote: None,
        },
        start: Position::START,
        end: Position::START,
        last_membership: Index(0),
        membership: Membership::new([NodeId(1)], []).expect("a voter"),
        snapshot: None,
    })
}

/// A batch at the end of the log, stored in this segment by this commit, that takes so many bytes.
fn append(group: &mut GroupIndex, segment: &Arc<Segment>, commit: u64, bytes: u64) {
    let body = match bytes.checked_sub(64 + COMMAND_END) {
        None => Body::noop(),
        Some(len) => {
            let command = vec![0; usize::try_from(len).expect("a small batch")];
            commands_body([command.as_slice()].into_iter(), 0).expect("a small body")
        }
    };
    let batch = body
        .seal(GROUP, &group.log.end(), Term(1))
        .expect("a place");
    let entry = Entry {
        header: batch.header,
        segment: Arc::clone(segment),
        commit,
        descriptor_at: 0,
        body_at: 0,
        body: None,
    };
    assert_eq!(entry.stored_bytes(), bytes);
    group.log.append(entry, true).expect("it follows");
}

fn story(group: GroupIndex, segments: Vec<Told>) -> Story {
    Story {
        groups: BTreeMap::from([(GROUP, group)]),
        damage: Damage::default(),
        segments,
        report: RecoveryReport::default(),
    }
}

fn options() -> WalOptions {
    WalOptions {
        slot_bytes: 64 << 10,
        ..WalOptions::default()
    }
}

/// How many segments stay where there are so many bytes of batches in each, and how many batches move.
fn kept(segments: &[&[u64]], options: &WalOptions, slots_max: usize) -> (usize, usize) {
    let mut log = group();
    let mut all = Vec::new();
    let mut commit = 0;
    for (seq, batches) in (1..).zip(segments) {
        let mut told = told(seq, None);
        for bytes in *batches {
            commit += 1;
            append(&mut log, &told.segment, commit, *bytes);
        }
        told.end = Some(SegmentEnd {
            seq,
            nonce: 1,
            block: 3,
            commit,
            digest: 0,
        });
        all.push(told);
    }
    let disk = Arc::new(FaultDisk::new(FaultOptions::default()));
    let pool = Pool::new(disk, Seed::of(&[0; 16]), options.slot_bytes, slots_max);
    let moves = moves(&story(log, all), &pool, options);
    (moves.kept, moves.copied.len())
}

#[test]
fn a_segment_is_absorbed_up_to_a_quarter_of_what_fits() {
    let fits = records_bytes_max(options().slot_bytes, 1);
    let quarter = fits / 4 / 8 * 8;
    let large = quarter + 8;
    assert_eq!(kept(&[&[large], &[quarter]], &options(), 64), (1, 1));
    assert_eq!(kept(&[&[large], &[large]], &options(), 64), (2, 0));
    // All that is absorbed counts, batch by batch and segment by segment.
    let half = quarter / 16 * 8;
    let more = half + 8;
    assert_eq!(kept(&[&[large], &[half, half]], &options(), 64), (1, 2));
    assert_eq!(
        kept(&[&[large], &[half, more, more]], &options(), 64),
        (2, 0)
    );
    assert_eq!(kept(&[&[large], &[half], &[half]], &options(), 64), (1, 2));
    assert_eq!(kept(&[&[large], &[more], &[half]], &options(), 64), (2, 1));
    // What holds nothing costs nothing.
    assert_eq!(
        kept(&[&[large], &[], &[quarter], &[]], &options(), 64),
        (1, 1)
    );
    // Where slots are scarce, as much as fits.
    let all = fits / 8 * 8;
    assert_eq!(kept(&[&[large], &[all - 64], &[64]], &options(), 3), (1, 2));
    assert_eq!(kept(&[&[large], &[all], &[64]], &options(), 3), (2, 1));
}

#[test]
fn a_segment_of_many_batches_stays() {
    // A block holds so many records and no more.
    let options = WalOptions {
        slot_bytes: 16 << 20,
        ..options()
    };
    let half = RECORDS_MAX / 2;
    let large = records_bytes_max(options.slot_bytes, 1) / 4 / 8 * 8 + 8;
    let noops = vec![64; half];
    assert_eq!(kept(&[&[large], &noops], &options, 64), (2, 0));
    assert_eq!(kept(&[&[large], &noops[1..]], &options, 64), (1, half - 1));
    let (some, rest) = noops.split_at(half - 1000);
    assert_eq!(kept(&[&[large], rest, some], &options, 64), (2, some.len()));
    assert_eq!(
        kept(&[&[large], &rest[1..], some], &options, 64),
        (1, half - 1)
    );
}

#[test]
fn what_nothing_proves_moves_whatever_it_takes() {
    // And takes the room that segments would have been absorbed into.
    let fits = records_bytes_max(options().slot_bytes, 1);
    let quarter = fits / 4 / 8 * 8;
    for (unproven, expected) in [(64, (1, 2)), (quarter, (2, 1)), (3 * quarter, (2, 1))] {
        let mut log = group();
        let segments = vec![told(1, Some(1)), told(2, Some(2)), told(3, None)];
        append(&mut log, &segments[0].segment, 1, quarter);
        append(&mut log, &segments[1].segment, 2, quarter - 64);
        append(&mut log, &segments[2].segment, 3, unproven);
        let disk = Arc::new(FaultDisk::new(FaultOptions::default()));
        let pool = Pool::new(disk, Seed::of(&[0; 16]), options().slot_bytes, 64);
        let moves = moves(&story(log, segments), &pool, &options());
        assert_eq!((moves.kept, moves.copied.len()), expected, "{unproven}");
        let last = moves.previous.expect("a segment stays");
        assert_eq!(last.commit, expected.0 as u64);
    }
}

#[test]
fn a_segment_without_batches_stays_for_none_however_much_moves() {
    let mut log = group();
    let segments = vec![told(1, Some(1)), told(2, Some(1)), told(3, None)];
    append(&mut log, &segments[0].segment, 1, 64);
    append(&mut log, &segments[2].segment, 3, 40_000);
    let disk = Arc::new(FaultDisk::new(FaultOptions::default()));
    let pool = Pool::new(disk, Seed::of(&[0; 16]), options().slot_bytes, 64);
    let moves = moves(&story(log, segments), &pool, &options());
    assert_eq!((moves.kept, moves.copied.len()), (1, 1));
}

#[test]
fn unproven_batches_are_among_the_many() {
    let options = WalOptions {
        slot_bytes: 16 << 20,
        ..options()
    };
    for (more, expected) in [(0, 1), (1, 2)] {
        let mut log = group();
        let segments = vec![told(1, Some(1)), told(2, Some(2)), told(3, None)];
        append(&mut log, &segments[0].segment, 1, 5 << 20);
        let half = RECORDS_MAX / 4;
        (0..half + more).for_each(|_| append(&mut log, &segments[1].segment, 2, 64));
        let rest = RECORDS_MAX / 2 - 1 - half;
        (0..rest).for_each(|_| append(&mut log, &segments[2].segment, 3, 64));
        let disk = Arc::new(FaultDisk::new(FaultOptions::default()));
        let pool = Pool::new(disk, Seed::of(&[0; 16]), options.slot_bytes, 64);
        let moves = moves(&story(log, segments), &pool, &options);
        assert_eq!(moves.kept, expected);
    }
}

#[test]
fn the_newest_checkpoint_stays_where_no_other_would() {
    let kept = |begins: [bool; 3]| {
        let mut segments = vec![told(1, Some(1)), told(2, Some(2)), told(3, Some(3))];
        for (told, begins) in segments.iter_mut().zip(begins) {
            told.begins = begins;
        }
        let disk = Arc::new(FaultDisk::new(FaultOptions::default()));
        let pool = Pool::new(disk, Seed::of(&[0; 16]), options().slot_bytes, 64);
        moves(&story(group(), segments), &pool, &options()).kept
    };
    assert_eq!(kept([true, true, true]), 3);
    assert_eq!(kept([true, true, false]), 2);
    assert_eq!(kept([true, false, false]), 1);
    assert_eq!(kept([false, false, false]), 0);
}

#[test]
fn around_gaps_what_moves_goes_on_from_what_it_joins_and_stays() {
    // An end that what stays contradicts would leave nothing of the log that is sure.
    let at = segment(1);
    let mut whole = group();
    (0..6).for_each(|i| append(&mut whole, &at, i, 80));
    let positions: Vec<Position> = std::iter::once(Position::START)
        .chain(
            whole
                .log
                .entries()
                .iter()
                .map(|entry| entry.header.position()),
        )
        .collect();
    let end = |lost: &[u64], moved: &[u64]| {
        let mut group = whole.clone();
        for index in lost {
            group.log.drop_range(Index(*index), Index(*index));
        }
        let end = end_of_kept(&group, |entry| moved.contains(&entry.header.first.0));
        positions
            .iter()
            .position(|at| *at == end)
            .expect("a boundary")
    };
    // Nothing is lost: what moves goes on from what stays.
    assert_eq!(end(&[], &[]), 6);
    assert_eq!(end(&[], &[5, 6]), 4);
    assert_eq!(end(&[], &[1, 2, 3, 4, 5, 6]), 0);
    // A gap before: the same, as far as it joins.
    assert_eq!(end(&[2], &[]), 6);
    assert_eq!(end(&[2], &[6]), 5);
    assert_eq!(end(&[2], &[4, 5, 6]), 3);
    assert_eq!(end(&[2], &[3, 4, 5, 6]), 6);
    assert_eq!(end(&[2], &[1, 3]), 6);
    assert_eq!(end(&[1, 2], &[3, 4, 5, 6]), 6);
    // The end is missing: it is kept.
    assert_eq!(end(&[6], &[5]), 6);
    assert_eq!(end(&[2, 6], &[1, 3, 4, 5]), 6);
}
