//! How damage ends: filled by peers, replaced by a snapshot, accepted by a person. And what a person
//! can do to a store whose cluster is gone. At every step the process may die and must find the step
//! it was at.

use crate::damage::{filled, lost, repairing, roomy, tail_file, zero_block};
use crate::support::*;
use duraft_core::{
    Batch, GroupId, HardState, Healed, Index, Leave, LogId, MEMBERS_MAX, MEMBERSHIP_BYTES_MAX,
    MemberChange, Membership, NodeId, Position, Promotion, Term, Write,
};
use duraft_disk::{FaultDisk, Survival};
use duraft_storage::{
    ForceError, ForcedVoters, GroupDamage, JoinAs, OnDamage, OpenError, Recovered, RecoveredGroup,
    RepairKind, StoreIdentity, Wal, WalError, WalOptions, WriteProblem, bootstrap_joining,
    force_configuration,
};

/// Six batches of one command, of which the third and fourth are lost; a block each, term 1.
fn holed() -> (FaultDisk, Vec<Batch>) {
    let (disk, mut wal, _, batches) = filled(6, &roomy());
    wal.receipt().expect("a working disk");
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 6);
    zero_block(&disk, &file, 7);
    (disk, batches)
}

/// The last two of five batches are lost, and a receipt's table says where the log ended.
fn cut_off() -> (FaultDisk, Vec<Batch>) {
    let (disk, mut wal, _, batches) = filled(5, &roomy());
    wal.receipt().expect("a working disk");
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 7);
    zero_block(&disk, &file, 8);
    (disk, batches)
}

/// The last of five batches is lost, and the block behind it: nobody knows what it held, but a header
/// says that there was something.
fn cut_short() -> (FaultDisk, Vec<Batch>) {
    let (disk, wal, _, batches) = filled(5, &roomy());
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    disk.make_unreadable(&file, 8 * 4096..9 * 4096);
    (disk, batches)
}

/// The next life after a power loss.
fn next_life(disk: &mut FaultDisk, seed: u64) -> (Wal, Recovered) {
    *disk = disk.power_loss(Survival::Nothing);
    reopen(disk, &repairing(&roomy()), seed).expect("for repair")
}

fn group(recovered: &Recovered) -> &RecoveredGroup {
    &recovered.groups[&GROUP]
}

fn damage(recovered: &Recovered) -> &GroupDamage {
    group(recovered).damage.as_ref().expect("still damaged")
}

fn accepting(range: (u64, u64)) -> WalOptions {
    WalOptions {
        policy: OnDamage::AcceptLoss {
            group: GROUP,
            range: (Index(range.0), Index(range.1)),
        },
        ..roomy()
    }
}

#[test]
fn a_gap_is_filled_from_its_beginning_and_each_step_is_found_again() {
    // A filled part that a crash forgets is only work; a survivor that is forgotten is a lost promise.
    let (mut disk, batches) = holed();
    for (step, missing) in [(2, Some((3, 4))), (3, Some((4, 4))), (4, None)] {
        let (mut wal, recovered) = next_life(&mut disk, step as u64);
        let found = damage(&recovered);
        let ranges: Vec<_> = missing
            .map(|(a, b)| (Index(a), Index(b)))
            .into_iter()
            .collect();
        assert_eq!(found.missing, ranges, "step {step}");
        let behind = if missing.is_some() { 2 } else { 0 };
        assert_eq!(found.survivors.len(), behind, "step {step}");
        assert_eq!(found.end, None, "a survivor ends it");
        let boot = group(&recovered).boot_damage().expect("damaged");
        assert_eq!(
            (boot.missing, boot.floor),
            (ranges, batches[5].header.position().id)
        );
        if let Some(next) = batches.get(step).filter(|_| missing.is_some()) {
            let mut writer = Writer::new(GROUP);
            wal.commit(&[writer.append(vec![next.clone()])])
                .expect("it continues the log before the gap");
        }
    }
    let (mut wal, _) = next_life(&mut disk, 9);
    wal.commit(&[Writer::new(GROUP).heal(Healed::All)])
        .expect("nothing is missing");
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    let (wal, recovered) = reopen(&disk, &roomy(), 10).expect("healed");
    assert_eq!(recovered.damage, None);
    assert_eq!(read_all(&wal, GROUP), batches);
}

#[test]
fn a_known_end_closes_a_gap_that_no_survivor_does() {
    let (mut disk, batches) = cut_off();
    let (mut wal, recovered) = next_life(&mut disk, 3);
    let found = damage(&recovered);
    assert_eq!(found.missing, [(Index(4), Index(5))]);
    assert_eq!(found.end, Some(batches[4].header.position()));
    assert!(!found.lost_suffix && !found.vote_uncertain, "{found:?}");
    let mut writer = Writer::new(GROUP);
    let other = batch(GROUP, &batches[2].header.position(), 1, 2, 7, 9);
    let refused = wal.commit(&[writer.clone().append(vec![other])]);
    assert!(
        matches!(
            refused,
            Err(WalError::Invalid {
                problem: WriteProblem::Gap { .. },
                ..
            })
        ),
        "it ends there with another digest: {refused:?}"
    );
    wal.commit(&[writer.append(batches[3..].to_vec())])
        .expect("it joins the end");
    wal.commit(&[writer.heal(Healed::All)]).expect("whole");
    drop(wal);
    let (wal, recovered) = next_life(&mut disk, 4);
    assert_eq!(recovered.damage, None);
    assert_eq!(read_all(&wal, GROUP), batches);
}

#[test]
fn a_cut_at_the_front_of_a_gap_takes_the_survivors_with_it() {
    // The leader has other entries where this node's survivors stand.
    let (mut disk, batches) = holed();
    let (mut wal, _) = next_life(&mut disk, 3);
    let mut writer = Writer::new(GROUP);
    let keep = batches[1].header.position();
    let theirs = batch(GROUP, &keep, 2, 1, 5, 7);
    let write = writer.write();
    let write = writer.submit(Write {
        hard_state: Some(HardState {
            term: Term(2),
            vote: None,
        }),
        truncate: Some(keep),
        append: vec![theirs.clone()],
        ..write
    });
    wal.commit(&[write]).expect("a cut at a boundary");
    drop(wal);
    let (mut wal, recovered) = next_life(&mut disk, 4);
    let found = damage(&recovered);
    assert_eq!((found.missing.len(), found.survivors.len()), (0, 0));
    let promised = batches[5].header.position().id;
    assert!(found.floor >= promised, "what it promised it still knows");
    wal.commit(&[Writer::new(GROUP).heal(Healed::All)])
        .expect("whole");
    drop(wal);
    let (wal, recovered) = next_life(&mut disk, 5);
    assert_eq!(recovered.damage, None);
    assert_eq!(read_all(&wal, GROUP), [&batches[..2], &[theirs]].concat());
}

#[test]
fn a_snapshot_from_the_leader_ends_what_is_missing_before_it() {
    let (mut disk, batches) = holed();
    let (mut wal, _) = next_life(&mut disk, 3);
    // Short of what this node may have acknowledged: the promise outlives the gap.
    let install = |wal: &mut Wal, at: Position| {
        let mut writer = Writer::new(GROUP);
        let write = writer.write();
        let mut snapshot = taken(at);
        snapshot.reset = true;
        let write = Write {
            snapshot: Some(snapshot),
            ..write
        };
        wal.commit(&[writer.submit(write)])
            .expect("it fits any log");
    };
    install(&mut wal, batches[4].header.position());
    drop(wal);
    let (mut wal, recovered) = next_life(&mut disk, 4);
    let found = damage(&recovered);
    assert_eq!((found.missing.len(), found.survivors.len()), (0, 0));
    assert_eq!(found.floor, batches[5].header.position().id);
    assert_eq!(group(&recovered).start, batches[4].header.position());
    install(&mut wal, batches[5].header.position());
    drop(wal);
    let (_, recovered) = next_life(&mut disk, 5);
    assert_eq!(recovered.damage, None, "the log reaches the promise");
    let snapshot = group(&recovered).snapshot.as_ref().expect("installed");
    assert_eq!(snapshot.position, batches[5].header.position());
    assert_eq!(group(&recovered).membership, snapshot.membership);
}

#[test]
fn a_gap_that_a_snapshot_covers_is_compacted_away() {
    let (mut disk, batches) = holed();
    let (mut wal, _) = next_life(&mut disk, 3);
    let mut writer = Writer::new(GROUP);
    // Behind the gap, nobody knows the membership but a snapshot.
    let mut short = writer.clone().compact(batches[5].header.position());
    short.write.compact = Some(batches[4].header.position());
    let refused = wal.commit(&[short]);
    assert!(
        matches!(
            refused,
            Err(WalError::Invalid {
                problem: WriteProblem::Compact { .. },
                ..
            })
        ),
        "{refused:?}"
    );
    let compact = writer.compact(batches[4].header.position());
    wal.commit(&[compact]).expect("the snapshot knows it");
    wal.commit(&[writer.heal(Healed::All)]).expect("whole");
    drop(wal);
    let (wal, recovered) = next_life(&mut disk, 4);
    assert_eq!(recovered.damage, None);
    assert_eq!(read_all(&wal, GROUP), batches[5..]);
}

#[test]
fn a_vote_becomes_certain_before_the_log_is_whole() {
    // Asking every voter again after each crash would need all of them each time.
    let (mut disk, wal, _, _) = filled(5, &roomy());
    drop(wal);
    let file = tail_file(&disk);
    disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 3);
    zero_block(&disk, &file, 4);
    let (mut wal, recovered) = next_life(&mut disk, 3);
    assert!(damage(&recovered).vote_uncertain);
    let mut writer = Writer::new(GROUP);
    let mut known = writer.vote(7, Some(1));
    known.write.healed = Some(Healed::Vote);
    wal.commit(&[known]).expect("a later term");
    drop(wal);
    let (mut wal, recovered) = next_life(&mut disk, 4);
    let found = damage(&recovered);
    assert!(!found.vote_uncertain, "{found:?}");
    assert_eq!(found.missing, [(Index(1), Index(1))]);
    assert_eq!(group(&recovered).hard_state.term, Term(7));
    let unhealed = wal.commit(&[Writer::new(GROUP).heal(Healed::All)]);
    assert_eq!(
        unhealed,
        Err(WalError::Invalid {
            group: GROUP,
            problem: WriteProblem::NotHealed
        })
    );
}

#[test]
fn an_accepted_loss_must_be_named_as_it_is() {
    let (disk, batches) = holed();
    assert_eq!(
        lost(&disk, &roomy()).groups[&GROUP].loss,
        (Index(3), Index(6))
    );
    let before = disk.fingerprint();
    for range in [(3, 4), (2, 6), (3, 5), (3, 7), (4, 6)] {
        match reopen(&disk, &accepting(range), 3) {
            Err(OpenError::LossNotAccepted { group, damage, .. }) => {
                assert_eq!(
                    (group, damage.groups[&GROUP].loss),
                    (GROUP, (Index(3), Index(6)))
                );
            }
            other => panic!("{range:?}: {other:?}"),
        }
    }
    let stranger = WalOptions {
        policy: OnDamage::AcceptLoss {
            group: GroupId(99),
            range: (Index(3), Index(6)),
        },
        ..roomy()
    };
    assert!(matches!(
        reopen(&disk, &stranger, 3),
        Err(OpenError::LossNotAccepted { .. })
    ));
    assert_eq!(disk.fingerprint(), before, "nothing was touched");
    let (wal, recovered) = reopen(&disk, &accepting((3, 6)), 3).expect("named");
    assert_eq!(recovered.damage, None);
    assert_eq!(read_all(&wal, GROUP), batches[..2]);
}

#[test]
fn an_accepted_loss_is_remembered_in_every_later_segment() {
    let (mut disk, batches) = holed();
    drop(reopen(&disk, &accepting((3, 6)), 3).expect("named"));
    for life in 0..4 {
        disk = disk.power_loss(Survival::Nothing);
        // The same policy again finds nothing to accept, and says nothing.
        let (mut wal, recovered) = reopen(&disk, &accepting((3, 6)), 4 + life).expect("healthy");
        assert_eq!(recovered.damage, None, "life {life}");
        let [note] = &group(&recovered).repairs[..] else {
            panic!("life {life}: {:?}", group(&recovered).repairs);
        };
        assert_eq!(note.kind, RepairKind::LossAccepted);
        assert_eq!((note.first, note.last), (Index(3), Index(6)));
        assert_eq!(u64::from(note.generation), recovered.generation - 1 - life);
        // Enough to begin new segments and let the old ones go.
        let mut writer = Writer::new(GROUP);
        let held = read_all(&wal, GROUP);
        let mut end = held
            .last()
            .map_or(group(&recovered).start, |b| b.header.position());
        for _ in 0..40 {
            let next = batch(GROUP, &end, 1, 1, 400, 1);
            end = next.header.position();
            wal.commit(&[writer.append(vec![next])])
                .expect("a working disk");
            wal.commit(&[writer.compact(end)]).expect("a working disk");
        }
        assert!(wal.stats().rotations > 1, "{:?}", wal.stats());
    }
    assert_eq!(batches.len(), 6);
}

#[test]
fn an_accepted_loss_of_what_nobody_knows_ends_with_the_log() {
    let (disk, batches) = cut_short();
    let damaged = match reopen(&disk, &accepting((9, 9)), 3) {
        Err(OpenError::LossNotAccepted { damage, .. }) => damage.groups[&GROUP].clone(),
        other => panic!("{other:?}"),
    };
    assert!(damaged.lost_suffix && damaged.vote_uncertain, "{damaged:?}");
    assert_eq!(damaged.loss, (Index(5), Index(5)));
    let (wal, recovered) = reopen(&disk, &accepting((5, 5)), 3).expect("named");
    assert_eq!(recovered.damage, None);
    let state = group(&recovered).hard_state;
    assert_eq!(
        state,
        HardState {
            term: Term(2),
            vote: None
        },
        "it votes for nobody twice in a term it knows of"
    );
    assert_eq!(read_all(&wal, GROUP), batches[..4]);
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    let (_, again) = reopen(&disk, &roomy(), 4).expect("healthy");
    assert_eq!(again.groups, recovered.groups);
}

#[test]
fn what_is_missing_before_a_snapshot_is_not_missing() {
    // Lost: entries 3 and 4, with a snapshot at 5 behind them. Only the log before it can go.
    let (mut disk, batches) = holed();
    let (mut wal, _) = next_life(&mut disk, 3);
    let mut snapshot = Writer::new(GROUP).compact(batches[4].header.position());
    snapshot.write.compact = None;
    wal.commit(&[snapshot]).expect("it fits the log");
    drop(wal);
    let (mut wal, recovered) = next_life(&mut disk, 4);
    let found = damage(&recovered);
    assert_eq!(
        (&found.missing[..], &found.survivors[..]),
        (&[][..], &[][..])
    );
    assert_eq!(group(&recovered).start, batches[4].header.position());
    wal.commit(&[Writer::new(GROUP).heal(Healed::All)])
        .expect("nothing is missing");
    drop(wal);
    disk = disk.power_loss(Survival::Nothing);
    let (wal, recovered) = reopen(&disk, &roomy(), 4).expect("healed");
    assert_eq!(recovered.damage, None);
    assert_eq!(read_all(&wal, GROUP), batches[5..]);
}

#[test]
fn a_hole_before_a_snapshot_loses_nothing() {
    // The snapshot was taken before the block went bad: everything that is needed is there.
    let (disk, mut wal, mut writer, batches) = filled(6, &roomy());
    let mut snapshot = writer.compact(batches[4].header.position());
    snapshot.write.compact = None;
    wal.commit(&[snapshot]).expect("a working disk");
    wal.receipt().expect("a working disk");
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 6);
    let (wal, recovered) = reopen(&disk, &roomy(), 4).expect("nothing is lost");
    assert_eq!(recovered.report.holes.len(), 1, "it is told all the same");
    assert_eq!(group(&recovered).start, batches[4].header.position());
    assert_eq!(read_all(&wal, GROUP), batches[5..]);
}

fn joined(join: JoinAs) -> FaultDisk {
    let disk = disk();
    bootstrap_joining(
        &shared(&disk),
        &identity(),
        &roomy(),
        entropy(1),
        &[GROUP],
        join,
    )
    .expect("a fresh store");
    disk
}

#[test]
fn a_node_that_joins_anew_knows_nothing_and_has_promised_nothing() {
    let disk = joined(JoinAs::New);
    let (_, recovered) = reopen(&disk, &roomy(), 2).expect("healthy");
    let group = group(&recovered);
    assert!(group.membership.is_unknown());
    assert_eq!((group.start, group.batches.len()), (Position::START, 0));
    assert_eq!(group.damage, None);
}

#[test]
fn a_wiped_node_never_looks_new() {
    let mut disk = joined(JoinAs::Wiped);
    for life in 0..3 {
        let found = lost(&disk, &roomy()).groups[&GROUP].clone();
        assert!(
            found.lost_suffix && found.vote_uncertain,
            "life {life}: {found:?}"
        );
        assert_eq!(found.missing, []);
        let (wal, recovered) = next_life(&mut disk, 3 + life);
        assert_eq!(damage(&recovered), &found);
        assert!(group(&recovered).membership.is_unknown());
        drop(wal);
    }
}

fn force(
    disk: &FaultDisk,
    options: WalOptions,
    voters: &[u64],
) -> Result<duraft_storage::ForcedReport, ForceError> {
    let wanted = ForcedVoters {
        group: GROUP,
        voters: voters.iter().copied().map(NodeId).collect(),
    };
    force_configuration(shared(disk), &identity(), options, entropy(77), &wanted)
}

#[test]
fn a_forced_membership_is_the_last_entry_of_the_next_term() {
    let (disk, wal, _, batches) = filled(5, &roomy());
    drop(wal);
    let disk = disk.process_crash();
    let report = force(&disk, roomy(), &[1, 9]).expect("a healthy store");
    let disk = disk.power_loss(Survival::Nothing);
    let (wal, recovered) = reopen(&disk, &roomy(), 3).expect("healthy");
    let group = group(&recovered);
    assert_eq!(
        group.hard_state,
        HardState {
            term: Term(2),
            vote: None
        }
    );
    let held = read_all(&wal, GROUP);
    assert_eq!(held[..5], batches);
    let forced = held[5].header.position().id;
    assert_eq!(
        forced,
        LogId {
            term: Term(2),
            index: Index(6)
        }
    );
    let membership = Membership::new([NodeId(1), NodeId(9)], []).expect("two voters");
    assert_eq!(group.memberships, [(Index(6), membership)]);
    let [note] = &group.repairs[..] else {
        panic!("{:?}", group.repairs);
    };
    assert_eq!(
        (note.kind, note.first),
        (RepairKind::ConfigurationForced, Index(6))
    );
    assert_eq!(
        (report.forced, report.last),
        (forced, batches[4].header.position().id)
    );
    assert_eq!(
        (report.before.clone(), report.accepted),
        (crate::support::membership(), None)
    );
    assert_eq!(report.banned().collect::<Vec<_>>(), [NodeId(2), NodeId(3)]);
    let text = report.to_string();
    assert!(
        text.contains("Must never come back with the disks they have: 2, 3."),
        "{text}"
    );
}

#[test]
fn a_membership_is_forced_on_nobody_who_cannot_bear_it() {
    let (disk, wal, _, _) = filled(2, &roomy());
    assert!(matches!(
        force(&disk, roomy(), &[1]),
        Err(ForceError::Open(OpenError::Locked { .. }))
    ));
    drop(wal);
    assert!(matches!(
        force(&disk, roomy(), &[]),
        Err(ForceError::Membership(_))
    ));
    assert!(matches!(
        force(&disk, roomy(), &[2, 3]),
        Err(ForceError::NotAmongVoters(NodeId(1)))
    ));
    let other = StoreIdentity {
        node: NodeId(2),
        ..identity()
    };
    let wanted = ForcedVoters {
        group: GROUP,
        voters: vec![NodeId(2)],
    };
    let refused = force_configuration(shared(&disk), &other, roomy(), entropy(5), &wanted);
    assert!(matches!(
        refused,
        Err(ForceError::Open(OpenError::ForeignNode { .. }))
    ));
    let joined = joined(JoinAs::New);
    assert!(matches!(
        force(&joined, roomy(), &[1]),
        Err(ForceError::NeverMember(GROUP))
    ));
    let (disk, batches) = holed();
    // Even the policy that lets peers repair: there are none.
    for options in [roomy(), repairing(&roomy())] {
        assert!(matches!(
            force(&disk, options, &[1]),
            Err(ForceError::Open(OpenError::Damaged(_)))
        ));
    }
    let report = force(&disk, accepting((3, 6)), &[1]).expect("the loss was named");
    assert_eq!(report.accepted, Some((Index(3), Index(6))));
    assert_eq!(report.last, batches[1].header.position().id);
    let (_, recovered) = reopen(&disk, &roomy(), 9).expect("healthy");
    let kinds: Vec<_> = group(&recovered)
        .repairs
        .iter()
        .map(|note| note.kind)
        .collect();
    assert_eq!(
        kinds,
        [RepairKind::LossAccepted, RepairKind::ConfigurationForced]
    );
}

#[test]
fn a_membership_is_forced_on_no_damaged_store_and_nothing_is_touched() {
    // Whatever an open would do to have it filled by peers: there are none.
    let (disk, _) = holed();
    let before = disk.fingerprint();
    let refused = force(&disk, repairing(&roomy()), &[1]);
    assert!(
        matches!(refused, Err(ForceError::Open(OpenError::Damaged(_)))),
        "{refused:?}"
    );
    assert_eq!(disk.fingerprint(), before);
}

/// A membership whose encoding is as long as can be: the voters of the change before go, and each is a
/// learner that waits to come back in place of another.
pub(crate) fn largest() -> Membership {
    let members = u64::try_from(MEMBERS_MAX).expect("a few");
    let before = Membership::new((0..members).map(NodeId), []).expect("voters");
    let changes: Vec<MemberChange> = (1..members)
        .map(|id| MemberChange::AddLearner {
            id: NodeId(id),
            promotion: if id <= 16 {
                Promotion::WhenCaughtUp { replacing: None }
            } else {
                Promotion::Never
            },
        })
        .collect();
    let largest = before
        .change(&changes, Leave::Explicit)
        .expect("one voter stays");
    assert_eq!(largest.encode().len(), MEMBERSHIP_BYTES_MAX);
    largest
}

#[test]
fn the_smallest_slot_holds_the_largest_membership() {
    // A store that could not rotate because its checkpoint is too large would never write again.
    let large = largest();
    let (mut disk, mut wal) = fresh(&options());
    let mut writer = Writer::new(GROUP);
    wal.commit(&[writer.vote(1, Some(1))])
        .expect("a working disk");
    let mut end = Position::START;
    for round in 0..20u64 {
        let change = membership_batch(GROUP, &end, 1, &large);
        end = change.header.position();
        wal.commit(&[writer.append(vec![change])])
            .expect("a working disk");
        let mut snapshot = writer.compact(end);
        let write = snapshot.write.snapshot.as_mut().expect("a snapshot");
        write.snapshot.membership = large.clone();
        snapshot.write.hard_state = Some(HardState {
            term: Term(1 + round),
            vote: Some(NodeId(1)),
        });
        wal.commit(&[snapshot]).expect("it fits");
        if round % 5 == 4 {
            drop(wal);
            disk = disk.power_loss(Survival::Nothing);
            let (next, recovered) = reopen(&disk, &options(), round).expect("healthy");
            assert_eq!(group(&recovered).membership, large);
            wal = next;
            writer = Writer::new(GROUP);
        }
    }
}

#[test]
fn a_segment_without_its_checkpoint_keeps_the_one_before_it() {
    // The older segment holds nothing that lives but the word on which groups there are. Were it
    // freed, the batches behind the lost checkpoint would be lost by the next open.
    let options = WalOptions {
        slot_bytes: 32 << 10,
        ..options()
    };
    let (disk, mut wal) = fresh(&options);
    let mut writer = Writer::new(GROUP);
    wal.commit(&[writer.vote(1, Some(1))])
        .expect("a working disk");
    let mut batches: Vec<Batch> = Vec::new();
    disk.start_trace();
    for i in 0..5 {
        if i == 3 {
            // Does not fit any more: it begins the next segment, beside the checkpoint.
            wal.commit(&[writer.vote(2, Some(1))])
                .expect("a working disk");
        }
        let end = batches
            .last()
            .map_or(Position::START, |batch| batch.header.position());
        batches.push(batch(GROUP, &end, 1 + i / 3, 1, 3000, 1));
        wal.commit(&[writer.append(vec![batches[i as usize].clone()])])
            .expect("a working disk");
    }
    wal.commit(&[writer.compact(batches[2].header.position())])
        .expect("a working disk");
    wal.receipt().expect("a working disk");
    assert_eq!(wal.stats().rotations, 1);
    drop(wal);
    let file = tail_file(&disk);
    let mut disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 2);
    for life in 0..3 {
        let (wal, recovered) = reopen(&disk, &options, life).expect("nothing is lost");
        assert_eq!(recovered.report.holes.len(), 1, "life {life}");
        assert_eq!(read_all(&wal, GROUP), batches[3..], "life {life}");
        drop(wal);
        disk = disk.power_loss(Survival::Nothing);
    }
}
