//! What a new life refuses to begin with.

use super::rig::*;
use crate::boot::check_chain;
use crate::*;
use alloc::vec::Vec;

fn boot(start: Position, batches: &[Batch]) -> Boot {
    let last = batches.last().map_or(start, |b| b.header.position());
    let hard_state = HardState {
        term: last.term(),
        vote: None,
    };
    let headers = batches.iter().map(|batch| batch.header).collect();
    let voters = Membership::new([NodeId(1)], []).unwrap();
    Boot::healthy(Incarnation(1), hard_state, start, headers, voters)
}

fn begin(boot: Boot) -> Result<Raft, BootError> {
    Raft::new(Config::new(NodeId(1), GROUP, 1), boot)
}

#[test]
fn batches_of_another_group_are_no_log_of_this_one() {
    // A directory that was mixed up: every digest fits, and nothing of it was said to this group.
    let foreign = chain(GroupId(GROUP.0 + 1), Position::START, 2);
    let refused = begin(boot(Position::START, &foreign)).unwrap_err();
    assert_eq!(refused, BootError::BrokenChain { at: 0 });
}

#[test]
fn a_batch_of_an_impossible_count_is_no_part_of_a_log() {
    let mut batches = chain(GROUP, Position::START, 2);
    let end = batches[0].header.position();
    let header = &mut batches[1].header;
    (header.kind, header.count) = (BatchKind::Noop, 2);
    header.digest = end.digest.extend(header.link());
    assert!(header.follows(&end));
    let refused = begin(boot(Position::START, &batches)).unwrap_err();
    assert_eq!(refused, BootError::BrokenChain { at: 1 });
}

#[test]
fn a_log_ends_where_one_more_index_is_left() {
    // The last index of all has none behind it: nobody could append, or even say so.
    for (index, fits) in [(u64::MAX - 2, true), (u64::MAX - 1, false)] {
        let id = LogId {
            term: Term(1),
            index: Index(index),
        };
        let digest = Digest(1);
        let start = Position { id, digest };
        let low = Position {
            id: LogId {
                index: Index(7),
                ..id
            },
            digest,
        };
        let mut batches = chain(GROUP, low, 1);
        let header = &mut batches[0].header;
        header.first = Index(index + 1);
        header.digest = digest.extend(header.link());
        let mut boot = boot(start, &[]);
        boot.batches.push(*header);
        let checked = check_chain(GROUP, &boot);
        assert_eq!(checked.is_ok(), fits, "{checked:?}");
    }
}

#[test]
fn a_life_whose_state_is_nowhere_does_not_begin() {
    // It would apply from the middle on, or twice, and nobody would ever know.
    let batches = chain(GROUP, Position::START, 8);
    let at = |place: usize| batches[place - 1].header.position();
    let snapshot = |position| Snapshot {
        position,
        membership: Membership::new([NodeId(1)], []).unwrap(),
        file: SnapshotFile {
            nonce: 1,
            bytes: 100,
            digest: 0,
        },
    };
    let rest = |from: usize| boot(at(from), &batches[from..]);
    // The log begins at index 6 and ends at 8.
    assert_eq!(begin(rest(5)).unwrap_err(), BootError::StateMissing);
    for applied in [0, 4, 5, 8, 9] {
        let applied = Index(applied);
        let raft = begin(Boot {
            applied: Some(applied),
            ..rest(5)
        });
        let error = raft.err();
        if applied > Index(8) {
            let last = Index(8);
            assert_eq!(error, Some(BootError::AppliedAheadOfLog { applied, last }));
        } else {
            let missing = (applied < Index(5)).then_some(BootError::StateMissing);
            assert_eq!(error, missing, "{applied}");
        }
    }
    for place in [4, 5, 7, 8] {
        let raft = begin(Boot {
            snapshot: Some(snapshot(at(place))),
            ..rest(5)
        });
        match raft {
            Ok(raft) => assert_eq!(raft.applied(), Index(place as u64)),
            Err(error) => {
                assert_eq!(error, BootError::SnapshotOutsideLog);
                assert_eq!(place, 4);
            }
        }
    }
    let other = Position {
        digest: Digest(1),
        ..at(7)
    };
    let raft = begin(Boot {
        snapshot: Some(snapshot(other)),
        ..rest(5)
    });
    assert_eq!(raft.unwrap_err(), BootError::SnapshotOutsideLog);
}

#[test]
fn a_term_behind_the_log_is_made_up_for_only_where_the_vote_is_known_to_be_uncertain() {
    // A node that began in an old term would vote again in one in which it has voted.
    for vote_uncertain in [false, true] {
        let mut behind = boot(Position::START, &chain(GROUP, Position::START, 2));
        behind.damage = Some(Damage {
            lost_suffix: true,
            vote_uncertain,
            floor: LogId {
                term: Term(5),
                index: Index(9),
            },
            ..Damage::default()
        });
        match begin(behind) {
            Ok(raft) => {
                assert!(vote_uncertain);
                assert_eq!((raft.term(), raft.vote()), (Term(5), None));
            }
            Err(error) => {
                assert!(!vote_uncertain);
                assert_eq!(error, BootError::TermBehindLog);
            }
        }
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused_at_its_edge() {
    let fields = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::new(NodeId(1), GROUP, 1);
        change(&mut config);
        let problems = config.validate();
        problems.iter().map(|p| p.field).collect::<Vec<_>>()
    };
    for heartbeat in 1..6 {
        // Two heartbeats can be lost before anybody campaigns.
        for election in 1..20 {
            let found = fields(&|c| (c.heartbeat_ticks, c.election_ticks) = (heartbeat, election));
            assert_eq!(found.is_empty(), election >= 3 * heartbeat);
        }
        // A lease of as many ticks as election timeouts have but one.
        for election in 3 * heartbeat..20 {
            let found = fields(&|c| {
                (c.heartbeat_ticks, c.election_ticks) = (heartbeat, election);
                c.lease = Some(Lease { drift_ppm: 0 });
            });
            assert_eq!(found.is_empty(), election - 1 > 2 * heartbeat);
        }
        let found = fields(&|c| {
            // Half as fast: a lease of half of that, and two heartbeats are the whole of it.
            (c.heartbeat_ticks, c.election_ticks) = (heartbeat, 4 * heartbeat + 1);
            c.lease = Some(Lease { drift_ppm: 500_000 });
        });
        assert_eq!(found, ["lease"], "{heartbeat}");
    }
}
