//! What a damaged log is taken for when a life begins, and what may go into its gaps.

use super::rig::*;
use crate::damage::{ASKED_MAX, Edge, Fit};
use crate::fetch::SERVING_MAX;
use crate::*;
use alloc::vec::Vec;

/// A batch of `count` entries behind `prev`.
fn batch(prev: &Position, term: u64, count: u32, content: u32) -> BatchHeader {
    let body = Body {
        count,
        checksum: content,
        ..body(1)
    };
    body.seal(GROUP, prev, Term(term)).unwrap().header
}

/// Nine batches, the first three of term 1, the others of term 2.
fn nine() -> Vec<BatchHeader> {
    let mut end = Position::START;
    (1..=9)
        .map(|i| {
            let header = batch(&end, if i < 4 { 1 } else { 2 }, 1, i);
            end = header.position();
            header
        })
        .collect()
}

/// A disk that holds the first three of nine, and `damage`.
fn boot(all: &[BatchHeader], damage: Damage) -> Boot {
    let hard_state = HardState {
        term: Term(2),
        vote: None,
    };
    let voters = Membership::new([1, 2, 3].map(NodeId), []).unwrap();
    let front = all[..3].to_vec();
    Boot {
        damage: Some(damage),
        ..Boot::healthy(Incarnation(1), hard_state, Position::START, front, voters)
    }
}

fn begin(boot: Boot) -> Result<Raft, BootError> {
    Raft::new(Config::new(NodeId(1), GROUP, 1), boot)
}

#[test]
fn survivors_that_do_not_hang_together_are_no_part_of_a_log() {
    // They are joined without being read again: what is wrong here would be wrong for ever.
    let all = nine();
    let survive = |survivors: &[BatchHeader]| {
        let missing = [(Index(4), Index(5))].into();
        let damage = Damage {
            missing,
            survivors: survivors.to_vec(),
            ..Damage::default()
        };
        begin(boot(&all, damage))
    };
    assert!(survive(&all[5..]).is_ok());
    let two_gaps = [all[5], all[8]];
    assert!(survive(&two_gaps).is_ok());
    let other = batch(&all[3].position(), 2, 1, 99);
    let old = batch(&all[4].position(), 0, 1, 6);
    let mut foreign = all[5];
    foreign.group = GroupId(GROUP.0 + 1);
    let mut odd = all[5];
    (odd.kind, odd.count) = (BatchKind::Noop, 2);
    let mut last = all[5];
    last.first = Index(u64::MAX - 1);
    for (what, wrong) in [
        ("no gap before the first", &all[3..6]),
        ("the same twice", &[all[5], all[5]]),
        ("backwards", &[all[6], all[5]]),
        ("side by side and no chain", &[other, all[5]]),
        ("a term that goes back", &[old]),
        ("another group", &[foreign]),
        ("an impossible count", &[odd]),
        ("no index left", &[last]),
    ] {
        assert_eq!(
            survive(wrong).err(),
            Some(BootError::BrokenDamage),
            "{what}"
        );
    }
}

#[test]
fn the_end_that_is_known_of_lies_behind_everything_that_survives() {
    let all = nine();
    let known = |survivors: &[BatchHeader], end: Position| {
        let damage = Damage {
            missing: [(Index(4), Index(5))].into(),
            survivors: survivors.to_vec(),
            end: Some(end),
            ..Damage::default()
        };
        begin(boot(&all, damage)).err()
    };
    let broken = Some(BootError::BrokenDamage);
    let at = |place: usize| all[place - 1].position();
    let other = Position {
        digest: Digest(1),
        ..at(9)
    };
    let mut old = batch(&at(8), 2, 2, 5).position();
    old.id.term = Term(1);
    let mut later = old;
    later.id.term = Term(3);
    later.id.index = Index(12);
    assert_eq!(known(&all[5..], at(9)), None);
    assert_eq!(known(&all[5..8], at(9)), None);
    assert_eq!(known(&all[5..], at(7)), broken);
    assert_eq!(known(&all[5..], other), broken);
    assert_eq!(known(&all[5..], old), broken);
    let hard = |end| {
        let damage = Damage {
            missing: [(Index(4), Index(12))].into(),
            end: Some(end),
            vote_uncertain: true,
            ..Damage::default()
        };
        begin(boot(&all, damage)).err()
    };
    assert_eq!(hard(later), None, "a term that goes on is no fault");
}

#[test]
fn the_end_may_be_lost_where_nothing_says_what_it_was() {
    // A node that takes its log for whole would vote for one that lacks what it acknowledged.
    let all = nine();
    let end = Some(all[8].position());
    let id = |index| LogId {
        term: Term(2),
        index: Index(index),
    };
    for (what, missing, survivors, end, floor, lost) in [
        ("a gap", (4, 5), &all[5..], None, id(9), false),
        ("up to a known end", (4, 9), &[][..], end, id(9), false),
        ("behind it", (10, 11), &all[5..], None, id(9), true),
        ("acknowledged more", (4, 5), &all[5..], None, id(10), true),
        ("acknowledged less", (4, 5), &all[5..], None, id(8), false),
    ] {
        let mut ranges: Vec<(Index, Index)> = [(Index(4), Index(5))].into();
        if missing != (4, 5) {
            ranges.push((Index(missing.0), Index(missing.1)));
        }
        let damage = Damage {
            missing: ranges,
            survivors: survivors.to_vec(),
            end,
            floor,
            ..Damage::default()
        };
        let raft = begin(boot(&all, damage)).unwrap();
        let status = raft.damage_status().unwrap();
        assert_eq!(status.lost_suffix, lost, "{what}");
        assert_eq!(raft.abstains(), lost, "{what}");
        let last = if survivors.is_empty() { 9 } else { 5 };
        assert_eq!(status.missing, Some((Index(4), Index(last))));
    }
}

#[test]
fn a_gap_up_to_where_the_snapshot_ends_is_none_and_what_survives_behind_it_goes_on() {
    let all = nine();
    let voters = Membership::new([1, 2, 3].map(NodeId), []).unwrap();
    for (snapshot_at, start, last) in [(3, 0, 3), (5, 5, 9), (6, 6, 9), (9, 9, 9)] {
        let damage = Damage {
            missing: [(Index(4), Index(5))].into(),
            survivors: all[5..].to_vec(),
            ..Damage::default()
        };
        let raft = begin(Boot {
            snapshot: Some(Snapshot {
                position: all[snapshot_at - 1].position(),
                membership: voters.clone(),
                file: SnapshotFile {
                    nonce: 1,
                    bytes: 100,
                    digest: 0,
                },
            }),
            ..boot(&all, damage)
        })
        .unwrap();
        assert_eq!(raft.start().index(), Index(start), "{snapshot_at}");
        assert_eq!(raft.last().index(), Index(last), "{snapshot_at}");
        let missing = raft.damage_status().unwrap().missing;
        assert_eq!(missing.is_some(), snapshot_at == 3);
    }
}

#[test]
fn a_lost_snapshot_is_missed_unless_a_later_one_has_come() {
    let all = nine();
    let voters = Membership::new([1, 2, 3].map(NodeId), []).unwrap();
    for (snapshot_at, lost) in [
        (None, true),
        (Some(1), true),
        (Some(2), false),
        (Some(3), false),
    ] {
        let damage = Damage {
            snapshot_lost: true,
            ..Damage::default()
        };
        let mut boot = boot(&all, damage);
        boot.start = all[1].position();
        boot.batches.drain(..2);
        boot.snapshot = snapshot_at.map(|at: usize| Snapshot {
            position: all[at - 1].position(),
            membership: voters.clone(),
            file: SnapshotFile {
                nonce: 1,
                bytes: 100,
                digest: 0,
            },
        });
        // One from before the log began stands at no boundary of it.
        match begin(boot) {
            Ok(raft) => assert_eq!(raft.damage_status().unwrap().snapshot_lost, lost),
            Err(error) => {
                assert_eq!(error, BootError::SnapshotOutsideLog);
                assert_eq!(snapshot_at, Some(1));
            }
        }
    }
}

#[test]
fn the_membership_of_a_batch_behind_a_gap_is_not_in_use_before_it_is_joined() {
    // It may be of a dead leader's log: its quorums would be others than everybody else's.
    let all = nine();
    let seal = |prev: &BatchHeader, voters: &[u64]| {
        let voters = Membership::new(voters.iter().copied().map(NodeId), []).unwrap();
        let body = Body {
            kind: BatchKind::Membership,
            codec: 0,
            count: 1,
            checksum: 0,
            bytes: voters.encode().into(),
        };
        let batch = body.seal(GROUP, &prev.position(), Term(2)).unwrap();
        (batch.header, (batch.header.first, voters))
    };
    let (front, first) = seal(&all[1], &[1, 2]);
    let gap = batch(&front.position(), 2, 1, 4);
    let (survivor, second) = seal(&gap, &[1, 2, 4]);
    let damage = Damage {
        missing: [(Index(4), Index(4))].into(),
        survivors: [survivor].into(),
        ..Damage::default()
    };
    let mut boot = boot(&all, damage);
    boot.batches[2] = front;
    boot.memberships = [first.clone(), second.clone()].into();
    let mut raft = begin(boot).unwrap();
    assert_eq!(raft.membership(), &first.1);
    let lost = Batch {
        header: gap,
        body: body(1).bytes,
    };
    let append = said(
        2,
        1,
        2,
        Message::Append {
            prev: front.position(),
            batches: [lost].into(),
            commit: Index(0),
        },
    );
    raft.step(Input::Received(append), &mut Vec::new());
    assert_eq!(raft.last(), survivor.position());
    assert_eq!(raft.membership(), &second.1);
}

#[test]
fn a_batch_goes_into_a_gap_joins_contradicts_or_diverges() {
    let all = nine();
    let at = |place: usize| all[place - 1].position();
    // Index 6 survives, and 4 and 5 are missing.
    let edge = Edge::Batch(all[5]);
    let ours = all[5].position();
    for (what, header, fit) in [
        ("one of two", all[3], Fit::Inside),
        ("a later leader's", batch(&at(3), 3, 1, 1), Fit::Contradicts),
        ("the other one", all[4], Fit::Joins),
        ("another content", batch(&at(4), 2, 1, 99), Fit::Contradicts),
        (
            "into its place",
            batch(&at(4), 2, 2, 5),
            Fit::Diverges { ours },
        ),
        ("of an older one", batch(&at(4), 1, 2, 5), Fit::Contradicts),
    ] {
        assert_eq!(edge.fit(&header), fit, "{what}");
    }
    // The log is known to have ended with 6.
    let edge = Edge::End(ours);
    for (what, header, fit) in [
        ("one of three", all[3], Fit::Inside),
        ("the last one", all[5], Fit::Joins),
        (
            "another last one",
            batch(&at(5), 2, 1, 99),
            Fit::Diverges { ours },
        ),
        ("beyond", batch(&at(5), 2, 2, 5), Fit::Diverges { ours }),
        ("of an older one", batch(&at(5), 1, 1, 5), Fit::Contradicts),
    ] {
        assert_eq!(edge.fit(&header), fit, "{what}");
    }
}

#[test]
fn there_is_room_for_the_answers_of_any_two_memberships() {
    // One that is left out is one whose word is missing for ever.
    let most = 2 * MEMBERS_MAX;
    for room in [ASKED_MAX, SERVING_MAX] {
        assert!(room > most, "{room}");
    }
}
