//! Several writes of one group in one commit: each is checked against what the ones before it make of
//! the log, and what comes back is what they say.

use crate::damage::{filled, roomy};
use crate::support::*;
use duraft_core::{Batch, HardState, Index, Membership, NodeId, Position, Term};
use duraft_disk::Survival;
use duraft_storage::{Submission, WalError, WriteProblem};

/// Batches of two commands behind this position.
fn chain(after: Position, count: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for _ in 0..count {
        let before = batches.last().map_or(after, |b| b.header.position());
        batches.push(batch(GROUP, &before, 1, 2, 10, 4));
    }
    batches
}

fn at(batch: &Batch) -> Position {
    batch.header.position()
}

/// What one commit of these writes comes to in a log of three batches: what is wrong with it, or the
/// first indices of the batches that are left after the next open.
fn after(
    writes: impl FnOnce(&mut Writer, &[Batch], &[Batch]) -> Vec<Submission>,
) -> Result<Vec<u64>, WriteProblem> {
    let (disk, mut wal, mut writer, held) = filled(3, &roomy());
    let added = chain(at(&held[2]), 3);
    let submissions = writes(&mut writer, &held, &added);
    match wal.commit(&submissions) {
        Ok(()) => {}
        Err(WalError::Invalid { problem, .. }) => return Err(problem),
        Err(other) => panic!("{other}"),
    }
    let told = read_all(&wal, GROUP);
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    let (wal, recovered) = reopen(&disk, &roomy(), 7).expect("a healthy store");
    assert_eq!(recovered.damage, None);
    assert_eq!(read_all(&wal, GROUP), told);
    Ok(told.iter().map(|batch| batch.header.first.0).collect())
}

#[test]
fn a_cut_may_end_in_what_the_same_commit_appended() {
    let all = after(|w, _, added| vec![w.append(added.to_vec())]);
    assert_eq!(all, Ok(vec![1, 2, 3, 4, 6, 8]));
    for (keep, left) in [(0, vec![1, 2, 3, 4]), (1, vec![1, 2, 3, 4, 6])] {
        let cut = after(|w, _, added| vec![w.append(added.to_vec()), w.truncate(at(&added[keep]))]);
        assert_eq!(cut, Ok(left));
    }
    // Before it: nothing of it is left, and what follows goes on from there.
    for keep in 0..3 {
        let cut = after(|w, held, added| {
            let to = at(&held[keep]);
            vec![
                w.append(added.to_vec()),
                w.truncate(to),
                w.append(chain(to, 1)),
            ]
        });
        let left = (1..=keep as u64 + 2).collect();
        assert_eq!(cut, Ok(left), "{keep}");
    }
    // What was cut off is no boundary any more, nor is the middle of a batch.
    for (first, then) in [(0, 1), (0, 2), (1, 2)] {
        let gone = after(|w, _, added| {
            let appended = w.append(added.to_vec());
            let cut = w.truncate(at(&added[first]));
            vec![appended, cut, w.truncate(at(&added[then]))]
        });
        assert!(
            matches!(gone, Err(WriteProblem::Truncate { .. })),
            "{gone:?}"
        );
    }
    let gone = after(|w, held, added| {
        let appended = w.append(added.to_vec());
        let cut = w.truncate(at(&held[0]));
        vec![appended, cut, w.truncate(at(&added[0]))]
    });
    assert!(
        matches!(gone, Err(WriteProblem::Truncate { .. })),
        "{gone:?}"
    );
    let middle = after(|w, _, added| {
        let mut inside = at(&added[1]);
        inside.id.index = Index(inside.id.index.0 - 1);
        vec![w.append(added.to_vec()), w.truncate(inside)]
    });
    assert!(
        matches!(middle, Err(WriteProblem::Truncate { .. })),
        "{middle:?}"
    );
}

#[test]
fn a_cut_to_a_place_that_was_cut_off_before_is_refused() {
    for index in [1, 2] {
        let refused =
            after(|w, held, _| vec![w.truncate(at(&held[0])), w.truncate(at(&held[index]))]);
        let keep = match refused {
            Err(WriteProblem::Truncate { keep }) => keep.index().0,
            other => panic!("{index}: {other:?}"),
        };
        assert_eq!(keep, index as u64 + 1);
    }
}

#[test]
fn a_log_is_cut_to_its_snapshot_and_not_behind_it() {
    for (keep, fits) in [(0, false), (1, true), (2, true)] {
        let cut = after(|w, held, _| {
            let mut taking = w.compact(at(&held[1]));
            taking.write.compact = None;
            vec![taking, w.truncate(at(&held[keep]))]
        });
        assert_eq!(cut.is_ok(), fits, "{keep}: {cut:?}");
    }
}

#[test]
fn a_compaction_may_end_in_what_the_same_commit_appended() {
    for (upto, left) in [(0, vec![6, 8]), (1, vec![8]), (2, vec![])] {
        let compacted =
            after(|w, _, added| vec![w.append(added.to_vec()), w.compact(at(&added[upto]))]);
        assert_eq!(compacted, Ok(left));
    }
    let cut_before = after(|w, _, added| {
        let appended = w.append(added.to_vec());
        let cut = w.truncate(at(&added[1]));
        vec![appended, cut, w.compact(at(&added[0]))]
    });
    assert_eq!(cut_before, Ok(vec![6]));
    let other = after(|w, _, added| {
        let mut strange = at(&added[0]);
        strange.digest = duraft_core::Digest(3);
        vec![w.append(added.to_vec()), w.compact(strange)]
    });
    assert!(
        matches!(other, Err(WriteProblem::Snapshot { .. })),
        "{other:?}"
    );
}

#[test]
fn the_membership_where_a_log_begins_is_the_one_in_force_there() {
    // Lost with the batch that set it, it would be that of another time: a node that counts the wrong
    // voters.
    let voters = |id: u64| Membership::new([NodeId(1), NodeId(id)], []).expect("two voters");
    // The log: member 10, a command, member 20, a command, member 30.
    let mut batches: Vec<Batch> = Vec::new();
    for i in 0..5u64 {
        let end = batches.last().map_or(Position::START, at);
        batches.push(if i % 2 == 0 {
            membership_batch(GROUP, &end, 1, &voters(10 + 5 * i))
        } else {
            batch(GROUP, &end, 1, 1, 10, 0)
        });
    }
    let in_force = [10, 10, 20, 20, 30].map(voters);
    for before in 0..=5 {
        // The first of them are in the log already; the others are appended in the same commit.
        for upto in 0..5 {
            let (disk, mut wal) = fresh(&roomy());
            let mut writer = Writer::new(GROUP);
            wal.commit(&[writer.vote(1, None)]).expect("a working disk");
            if before > 0 {
                wal.commit(&[writer.append(batches[..before].to_vec())])
                    .expect("a working disk");
            }
            let position = at(&batches[upto]);
            // The snapshot is of the end, so that it does not say what was in force where the log begins.
            let mut submissions = Vec::new();
            if before < 5 {
                submissions.push(writer.append(batches[before..].to_vec()));
            }
            let mut compacting = writer.compact(position);
            let mut taken = taken(at(&batches[4]));
            taken.snapshot.membership = in_force[4].clone();
            compacting.write.snapshot = Some(taken);
            submissions.push(compacting);
            wal.commit(&submissions).expect("it fits the log");
            drop(wal);
            let disk = disk.power_loss(Survival::Nothing);
            let (_, recovered) = reopen(&disk, &roomy(), 4).expect("a healthy store");
            let group = &recovered.groups[&GROUP];
            assert_eq!(group.start, position);
            assert_eq!(group.membership, in_force[upto], "{before} {upto}");
        }
    }
}

#[test]
fn the_membership_of_a_snapshot_in_the_place_of_the_log_is_its_own() {
    let voters = Membership::new([NodeId(1), NodeId(9)], []).expect("two voters");
    let (disk, mut wal, mut writer, held) = filled(3, &roomy());
    let position = at(&held[2]);
    let mut taken = taken(position);
    taken.reset = true;
    taken.snapshot.membership = voters.clone();
    let mut installing = writer.append(Vec::new());
    installing.write.snapshot = Some(taken);
    let next = chain(position, 2);
    let going_on = writer.append(next.clone());
    wal.commit(&[installing, going_on]).expect("it fits");
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    let (wal, recovered) = reopen(&disk, &roomy(), 4).expect("a healthy store");
    let group = &recovered.groups[&GROUP];
    assert_eq!((group.start, &group.membership), (position, &voters));
    assert_eq!(read_all(&wal, GROUP), next);
    let state = HardState {
        term: Term(1),
        vote: Some(NodeId(1)),
    };
    assert_eq!(group.hard_state, state);
}

#[test]
fn a_membership_that_was_cut_off_in_the_same_commit_is_in_force_nowhere() {
    let voters = Membership::new([NodeId(1), NodeId(9)], []).expect("two voters");
    for stays in [true, false] {
        let (disk, mut wal, mut writer, held) = filled(3, &roomy());
        let change = membership_batch(GROUP, &at(&held[2]), 1, &voters);
        let behind = chain(at(&change), 1);
        let appended = writer.append(vec![change.clone(), behind[0].clone()]);
        let keep = at(if stays { &change } else { &held[2] });
        let cut = writer.truncate(keep);
        let next = chain(keep, 2);
        let goes_on = writer.append(next.clone());
        let mut compacting = writer.compact(at(&next[1]));
        compacting.write.compact = Some(at(&next[0]));
        wal.commit(&[appended, cut, goes_on, compacting])
            .expect("it fits the log");
        drop(wal);
        let disk = disk.power_loss(Survival::Nothing);
        let (_, recovered) = reopen(&disk, &roomy(), 4).expect("a healthy store");
        let group = &recovered.groups[&GROUP];
        let expected = if stays { voters.clone() } else { membership() };
        assert_eq!((group.start, &group.membership), (at(&next[0]), &expected));
    }
}
