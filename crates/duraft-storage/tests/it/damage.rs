//! Damage at rest: what was proven is reported, what was not may go, and nothing looks healthy before
//! it is healed.

use crate::support::*;
use duraft_core::{Batch, GroupId, Healed, Index, LogId, Position, Term};
use duraft_disk::{Damage as Rot, Disk, DiskOp, FaultDisk, Survival};
use duraft_storage::{
    GroupDamage, OnDamage, OpenError, ReadError, Wal, WalError, WalOptions, WriteProblem,
};

const BLOCK: u64 = 4096;
const SECTORS: u64 = BLOCK / 512;

pub(crate) fn roomy() -> WalOptions {
    WalOptions {
        slot_bytes: 64 << 10,
        mark_every_commits: 1000,
        ..options()
    }
}

pub(crate) fn repairing(options: &WalOptions) -> WalOptions {
    WalOptions {
        policy: OnDamage::RepairFromPeers,
        ..options.clone()
    }
}

/// The slot file that the log is being written to.
pub(crate) fn tail_file(disk: &FaultDisk) -> String {
    let writes = disk
        .trace()
        .into_iter()
        .filter(|op| op.len > 0 && op.name.ends_with(".slot"));
    writes
        .last()
        .expect("the log was written to")
        .name
        .to_string()
}

/// The slot files of the segments that were begun, in order.
fn segment_files(disk: &FaultDisk) -> Vec<String> {
    let begins = |op: &duraft_disk::TraceEntry| op.op == DiskOp::Write && op.len > BLOCK;
    let trace = disk.trace().into_iter().filter(begins);
    trace
        .filter(|op| op.offset == 0)
        .map(|op| op.name.to_string())
        .collect()
}

pub(crate) fn zero_block(disk: &FaultDisk, file: &str, block: u64) {
    for sector in block * SECTORS..(block + 1) * SECTORS {
        disk.damage(file, &Rot::ZeroSector { sector })
            .expect("a place in the file");
    }
}

/// A log with a vote in term 1 and `count` batches of one command, each a commit of its own. The
/// vote stands in block 3 of the tail (2 is the fence), batch `i` in block `3 + i`.
pub(crate) fn filled(count: usize, options: &WalOptions) -> (FaultDisk, Wal, Writer, Vec<Batch>) {
    let (disk, mut wal) = fresh(options);
    disk.start_trace();
    let mut writer = Writer::new(GROUP);
    wal.commit(&[writer.vote(1, Some(1))])
        .expect("a working disk");
    let mut batches: Vec<Batch> = Vec::new();
    for i in 0..count {
        let end = batches
            .last()
            .map_or(Position::START, |batch| batch.header.position());
        batches.push(batch(GROUP, &end, 1, 1, 20, i as u8));
        wal.commit(&[writer.append(vec![batches[i].clone()])])
            .expect("a working disk");
    }
    (disk, wal, writer, batches)
}

pub(crate) fn lost(disk: &FaultDisk, options: &WalOptions) -> Box<duraft_storage::Damage> {
    match reopen(disk, options, 99) {
        Err(OpenError::Damaged(damage)) => damage,
        Err(other) => panic!("{other}"),
        Ok((_, recovered)) => panic!("opened: {recovered:#?}"),
    }
}

#[test]
fn the_last_commit_goes_without_a_word_when_nothing_proves_it() {
    // One commit after the last watermark is the ambiguity that every log has.
    let (disk, wal, _, batches) = filled(5, &roomy());
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 8);
    let (_, recovered) = reopen(&disk, &roomy(), 3).expect("no proof, no damage");
    assert_eq!(recovered.groups[&GROUP].batches.len(), batches.len() - 1);
    assert_eq!(recovered.damage, None);
}

#[test]
pub(crate) fn a_receipt_takes_the_ambiguity_away() {
    let (disk, mut wal, _, batches) = filled(5, &roomy());
    wal.receipt().expect("a working disk");
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 8);
    let damage = lost(&disk, &roomy());
    // The receipt's table says exactly what is missing.
    assert_eq!(
        damage.groups[&GROUP],
        GroupDamage {
            missing: vec![(Index(5), Index(5))],
            survivors: Vec::new(),
            lost_suffix: false,
            vote_uncertain: false,
            floor: LogId {
                term: Term(1),
                index: Index(5)
            },
            last_membership: Index(0),
            end: Some(batches[4].header.position()),
            snapshot_lost: false,
            loss: (Index(5), Index(5)),
        }
    );
}

#[test]
fn contiguous_damage_takes_commit_and_receipt_but_not_the_far_mark() {
    let (disk, mut wal, _, _) = filled(5, &roomy());
    wal.receipt().expect("a working disk");
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    for block in 7..12 {
        zero_block(&disk, &file, block);
    }
    let damage = lost(&disk, &roomy());
    let group = &damage.groups[&GROUP];
    assert_eq!(
        group.missing,
        vec![(Index(4), Index(5))],
        "the mark's table is exact"
    );
    assert!(!group.lost_suffix && !group.vote_uncertain, "{group:?}");
}

#[test]
pub(crate) fn a_lost_commit_in_the_middle_leaves_survivors_behind_the_hole() {
    let (disk, wal, _, batches) = filled(6, &roomy());
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 6);
    let damage = lost(&disk, &roomy());
    let group = &damage.groups[&GROUP];
    assert_eq!(group.missing, vec![(Index(3), Index(3))]);
    let survivors: Vec<_> = batches[3..].iter().map(|batch| batch.header).collect();
    assert_eq!(group.survivors, survivors);
    assert_eq!((group.lost_suffix, group.vote_uncertain), (false, false));
    assert_eq!(damage.holes.len(), 1);
}

#[test]
fn a_lost_vote_is_echoed_by_the_next_commit() {
    // One damaged block must not make a node forget whom it voted for.
    let (disk, wal, _, _) = filled(3, &roomy());
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 3);
    let (_, recovered) = reopen(&disk, &roomy(), 3).expect("nothing is lost");
    assert_eq!(recovered.groups[&GROUP].hard_state.term, Term(1));
    assert!(recovered.groups[&GROUP].hard_state.vote.is_some());
    assert_eq!(recovered.report.holes.len(), 1, "it is told all the same");
}

#[test]
fn a_vote_lost_with_its_echo_is_uncertain() {
    let (disk, wal, _, _) = filled(5, &roomy());
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 3);
    zero_block(&disk, &file, 4);
    let damage = lost(&disk, &roomy());
    let group = &damage.groups[&GROUP];
    assert!(group.vote_uncertain, "{group:?}");
    assert_eq!(group.missing, vec![(Index(1), Index(1))]);
}

#[test]
fn a_group_not_heard_of_after_the_hole_may_have_lost_its_end() {
    let (quiet, busy) = (GroupId(1), GroupId(2));
    let disk = disk();
    make(&disk, &roomy(), &[quiet, busy]);
    let (mut wal, _) = reopen(&disk, &roomy(), 2).expect("a fresh store");
    disk.start_trace();
    let mut writers = [Writer::new(quiet), Writer::new(busy)];
    let votes = writers.each_mut().map(|writer| writer.vote(1, None));
    wal.commit(&votes).expect("a working disk");
    let mut ends = [Position::START; 2];
    for i in [0, 1, 1] {
        let next = batch(writers[i].group, &ends[i], 1, 1, 9, 0);
        ends[i] = next.header.position();
        wal.commit(&[writers[i].append(vec![next])])
            .expect("a working disk");
    }
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 4);
    let damage = lost(&disk, &roomy());
    assert_eq!(damage.groups.keys().collect::<Vec<_>>(), [&quiet]);
    assert!(damage.groups[&quiet].lost_suffix);
}

#[test]
fn a_lost_header_of_a_proven_tail_is_damage() {
    // Without its header the newest segment must not pass for one that never was.
    let (disk, wal, _, _) = filled(3, &roomy());
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    for sector in 0..SECTORS {
        let rotten = disk.fork();
        rotten
            .damage(
                &file,
                &Rot::GarbageSector {
                    sector,
                    seed: sector,
                },
            )
            .expect("in the file");
        let damage = lost(&rotten, &roomy());
        assert!(damage.groups[&GROUP].lost_suffix, "{damage}");
    }
}

#[test]
fn a_lost_header_of_a_sealed_segment_is_damage_with_exact_ranges() {
    let (disk, wal, _, _) = filled(4, &options());
    // Slots of one block: every commit is a segment, batch 2 the one before the last but one.
    drop(wal);
    let files = segment_files(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    let file = &files[files.len() - 3];
    disk.damage(
        file,
        &Rot::FlipBit {
            offset: 100,
            bit: 1,
        },
    )
    .expect("in the file");
    let damage = lost(&disk, &options());
    assert_eq!(
        damage.groups[&GROUP].missing,
        vec![(Index(2), Index(2))],
        "{damage}"
    );
    assert!(!damage.groups[&GROUP].lost_suffix);
}

#[test]
fn refusing_touches_nothing() {
    let (disk, mut wal, _, _) = filled(5, &roomy());
    wal.receipt().expect("a working disk");
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 5);
    let before = disk.fingerprint();
    lost(&disk, &roomy());
    assert_eq!(disk.fingerprint(), before);
}

#[test]
pub(crate) fn damage_is_durable_until_it_is_healed() {
    // A second open must not look healthy because the first one began a new segment.
    let options = roomy();
    let (mut disk, wal, _, batches) = filled(6, &options);
    drop(wal);
    let file = tail_file(&disk);
    disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 6);
    for life in 0..3 {
        let (wal, recovered) = reopen(&disk, &repairing(&options), life).expect("for repair");
        let group = &recovered.groups[&GROUP];
        let damage = group.damage.as_ref().expect("still damaged");
        assert_eq!(damage.missing, vec![(Index(3), Index(3))], "life {life}");
        assert_eq!(damage.survivors.len(), 3, "life {life}");
        assert_eq!(group.batches.len(), 2, "up to the hole");
        drop(wal);
        disk = disk.power_loss(Survival::Nothing);
        lost(&disk, &options);
    }
    let (mut wal, _) = reopen(&disk, &repairing(&options), 10).expect("for repair");
    let mut writer = Writer::new(GROUP);
    let wrong = batch(GROUP, &batches[1].header.position(), 1, 1, 20, 99);
    let refused = wal.commit(&[writer.clone().append(vec![wrong])]);
    let problem = WriteProblem::Gap {
        first: Index(3),
        last: Index(3),
    };
    assert_eq!(
        refused,
        Err(WalError::Invalid {
            group: GROUP,
            problem
        }),
        "it does not join"
    );
    let unhealed = WalError::Invalid {
        group: GROUP,
        problem: WriteProblem::NotHealed,
    };
    let heal = writer.clone().heal(Healed::All);
    assert_eq!(wal.commit(&[heal]), Err(unhealed));
    let missing = wal.reader().read(GROUP, Index(3), Index(9), u64::MAX);
    assert!(
        matches!(missing, Err(ReadError::Missing(Index(3)))),
        "{missing:?}"
    );

    wal.commit(&[writer.append(vec![batches[2].clone()])])
        .expect("the missing batch fits");
    drop(wal);
    disk = disk.power_loss(Survival::Nothing);
    lost(&disk, &options);
    let (mut wal, recovered) = reopen(&disk, &repairing(&options), 11).expect("for repair");
    let damage = recovered.groups[&GROUP]
        .damage
        .as_ref()
        .expect("filled, not healed");
    assert_eq!(damage.missing, Vec::new());
    assert_eq!(recovered.groups[&GROUP].batches.len(), 6);
    let heal = Writer::new(GROUP).heal(Healed::All);
    wal.commit(&[heal]).expect("filled");
    drop(wal);
    disk = disk.power_loss(Survival::Nothing);
    let (wal, recovered) = reopen(&disk, &options, 12).expect("healed");
    assert_eq!(recovered.damage, None);
    assert_eq!(read_all(&wal, GROUP), batches);
}

#[test]
fn rot_in_a_sealed_segment_is_found_by_the_read_that_needs_it() {
    let options = WalOptions {
        cache_bytes_max: 0,
        ..options()
    };
    let (disk, wal, _, batches) = filled(4, &options);
    // The vote's, the first batch's, the second's.
    let file = segment_files(&disk).swap_remove(2);
    // Behind header, checkpoint and descriptors of the first block stand the payloads.
    for offset in 2 * BLOCK..3 * BLOCK {
        let rotten = disk.fork();
        drop(rotten);
        disk.damage(&file, &Rot::FlipBit { offset, bit: 0 })
            .expect("in the file");
        let found = wal.reader().read(GROUP, Index(2), Index(2), u64::MAX);
        match found {
            Ok(read) => assert_eq!(read, vec![batches[1].clone()], "offset {offset}"),
            Err(ReadError::Corrupt { group, first, .. }) => {
                assert_eq!((group, first), (GROUP, Index(2)));
            }
            Err(other) => panic!("offset {offset}: {other}"),
        }
        disk.damage(&file, &Rot::FlipBit { offset, bit: 0 })
            .expect("in the file");
    }
}

#[test]
fn an_unreadable_block_of_the_tail_is_not_taken_for_a_torn_one() {
    let (disk, wal, _, _) = filled(5, &roomy());
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    disk.make_unreadable(&file, 8 * BLOCK..9 * BLOCK);
    assert!(
        matches!(reopen(&disk, &roomy(), 3), Err(OpenError::Disk(_))),
        "refused"
    );
    let (_, recovered) = reopen(&disk, &repairing(&roomy()), 3).expect("for repair");
    let damage = recovered.groups[&GROUP]
        .damage
        .as_ref()
        .expect("what it held is lost");
    assert!(damage.lost_suffix);
}

#[test]
fn a_store_without_any_checkpoint_is_damaged_whatever_the_policy() {
    let (disk, wal) = fresh(&roomy());
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    for name in disk.list("wal").expect("the slots") {
        zero_block(&disk, &format!("wal/{name}"), 2);
    }
    let refused = reopen(&disk, &repairing(&roomy()), 3).map(|_| ());
    assert!(
        matches!(&refused, Err(OpenError::Damaged(d)) if d.no_checkpoint),
        "{refused:?}"
    );
}

#[test]
fn a_table_clears_no_group_that_an_older_lost_table_spoke_of() {
    // The second receipt's table is whole, but only about what was written since the first.
    let (disk, mut wal, mut writers) = voted(&roomy());
    for i in [0, 1] {
        let next = batch(PAIR[i], &Position::START, 1, 1, 9, 0);
        wal.commit(&[writers[i].append(vec![next])])
            .expect("a working disk");
        wal.receipt().expect("a working disk");
    }
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    // 2 fence, 3 votes, 4 receipt, 5 first batch, 6 receipt, 7 second batch, 8 receipt.
    zero_block(&disk, &file, 5);
    zero_block(&disk, &file, 6);
    let damage = lost(&disk, &roomy());
    assert_eq!(damage.groups.keys().collect::<Vec<_>>(), [&PAIR[0]]);
}

const PAIR: [GroupId; 2] = [GroupId(1), GroupId(2)];

/// Two groups that have voted, as a receipt says.
fn voted(options: &WalOptions) -> (FaultDisk, Wal, [Writer; 2]) {
    let disk = disk();
    make(&disk, options, &PAIR);
    let (mut wal, _) = reopen(&disk, options, 2).expect("a fresh store");
    disk.start_trace();
    let mut writers = PAIR.map(Writer::new);
    let votes = writers.each_mut().map(|writer| writer.vote(1, None));
    wal.commit(&votes).expect("a working disk");
    wal.receipt().expect("a working disk");
    (disk, wal, writers)
}

/// The same, then one batch of each of these, and a receipt.
fn written_by(groups: &[usize], options: &WalOptions) -> (FaultDisk, [Position; 2]) {
    let (disk, mut wal, mut writers) = voted(options);
    let mut ends = [Position::START; 2];
    for i in groups {
        let next = batch(PAIR[*i], &ends[*i], 1, 1, 9, 0);
        ends[*i] = next.header.position();
        wal.commit(&[writers[*i].append(vec![next])])
            .expect("a working disk");
    }
    wal.receipt().expect("a working disk");
    drop(wal);
    (disk, ends)
}

/// The loss of block 5, the first batch, is that of the first group alone, and known.
fn assert_only_the_first_batch_is_lost(disk: &FaultDisk, ends: &[Position], options: &WalOptions) {
    let file = tail_file(disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 5);
    let damage = lost(&disk, options);
    assert_eq!(damage.groups.keys().collect::<Vec<_>>(), [&PAIR[0]]);
    let group = &damage.groups[&PAIR[0]];
    assert_eq!(group.missing, [(Index(1), Index(1))]);
    assert!(!group.lost_suffix && !group.vote_uncertain, "{group:?}");
    assert_eq!(group.end, Some(ends[0]));
}

#[test]
fn a_mark_tells_what_the_mark_it_replaces_told() {
    let options = WalOptions {
        mark_every_commits: 1,
        ..roomy()
    };
    // 2 fence, 3 votes, 4 receipt, 5 to 8 batches, 9 receipt. A mark told of the first batch, and was
    // replaced.
    let (disk, ends) = written_by(&[0, 1, 1, 1], &options);
    assert_only_the_first_batch_is_lost(&disk, &ends, &options);
}

#[test]
fn a_mark_in_place_of_a_receipt_tells_of_a_loss_before_the_last_commit() {
    // 2 fence, 3 votes, 4 receipt, 5 and 6 batches, and no room but for the mark in 7.
    let options = WalOptions {
        slot_bytes: 8 * BLOCK,
        ..roomy()
    };
    let (disk, ends) = written_by(&[0, 1], &options);
    assert_only_the_first_batch_is_lost(&disk, &ends, &options);
}
