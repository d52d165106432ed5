//! Snapshots that arrive: whose are taken, what becomes of the log, and when the state machine hears.

use super::rig::*;
use crate::*;
use alloc::vec::Vec;

/// Node 1 leads and has eight entries, committed and in a snapshot that drops nothing; node 3 has the
/// first `held` of them.
fn behind(held: u64) -> (Rig, Snapshot) {
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    for _ in 1..held {
        rig.propose(1).unwrap();
        rig.settle().unwrap();
    }
    for _ in held..8 {
        rig.propose(1).unwrap();
        rig.settle_without(&[3]).unwrap();
    }
    let snapshot = rig.make_snapshot(1).unwrap();
    assert_eq!(snapshot.position.index(), Index(8));
    rig.network.clear();
    (rig, snapshot)
}

fn received(rig: &mut Rig, id: u64, from: u64, term: u64, snapshot: &Snapshot) {
    let received = Completion::SnapshotReceived {
        from: NodeId(from),
        term: Term(term),
        snapshot: snapshot.clone(),
    };
    rig.step(id, Input::Completed(received)).unwrap();
}

/// Does a node restore it, or wait for its disk to be able to?
fn installs(rig: &Rig, id: u64) -> bool {
    rig.raft(id).install.is_some()
}

fn accepted(rig: &Rig) -> Vec<Index> {
    let mut accepted = Vec::new();
    for envelope in &rig.network {
        if let Message::AppendReply(AppendReply::Accepted { matched }) = envelope.message {
            accepted.push(matched);
        }
    }
    accepted
}

#[test]
fn a_snapshot_that_cannot_be_is_not_even_heard() {
    // It speaks for a leader, as an append does: its term would be taken, and its state.
    let (_, good) = behind(1);
    let with = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = good.clone();
        change(&mut snapshot);
        snapshot
    };
    let bad = [
        (2, with(&|s| s.position.id.term = Term(6))),
        (2, with(&|s| s.position = Position::START)),
        (2, with(&|s| s.position.id.index = Index(u64::MAX - 1))),
        (2, with(&|s| s.membership = Membership::unknown())),
        (3, good.clone()),
    ];
    for (from, snapshot) in bad {
        let mut rig = Rig::new(3, 1);
        received(&mut rig, 3, from, 5, &snapshot);
        assert_eq!(rig.raft(3).term(), Term(0), "{snapshot:?}");
        assert!(!installs(&rig, 3) && rig.node(3).pending.is_empty());
    }
}

#[test]
fn a_snapshot_is_taken_from_whoever_leads_the_present_term_or_a_later_one() {
    // From anybody else it may hold what was never committed in this log.
    for (from, term, taken) in [
        (1, 1, true),
        (1, 2, true),
        (2, 2, true),
        (2, 1, false),
        (1, 0, false),
        (2, 0, false),
    ] {
        let (mut rig, mut snapshot) = behind(1);
        rig.disk_checks = false;
        if term == 0 {
            // What it holds is old enough; it was sent in a term that is over.
            snapshot.position.id.term = Term(0);
        }
        received(&mut rig, 3, from, term, &snapshot);
        assert_eq!(installs(&rig, 3), taken, "{from} in {term}");
        let leader = if taken { from } else { 1 };
        assert_eq!(rig.raft(3).leader(), Some(NodeId(leader)));
        assert_eq!(rig.raft(3).term(), Term(term.max(1)));
    }
}

#[test]
fn a_snapshot_tells_a_node_without_a_leader_whom_to_follow() {
    // In its own term, be it that it waits or campaigns: only a leader sends snapshots.
    for campaigns in [false, true] {
        let (mut rig, snapshot) = behind(1);
        rig.time_out(3).unwrap();
        if !campaigns {
            rig.crash(3, 0);
        }
        assert_eq!((rig.raft(3).term(), rig.raft(3).leader()), (Term(1), None));
        received(&mut rig, 3, 1, 1, &snapshot);
        assert_eq!(rig.raft(3).leader(), Some(NodeId(1)));
        assert!(installs(&rig, 3));
    }
    // Who leads itself follows nobody in its term.
    let (mut rig, snapshot) = behind(8);
    received(&mut rig, 1, 2, 1, &snapshot);
    assert_eq!(rig.raft(1).role(), RoleKind::Leader);
    assert!(!installs(&rig, 1));
}

#[test]
fn a_snapshot_of_what_is_committed_here_is_ignored_and_its_leader_told_so() {
    // Installed, it would take the state machine back.
    for held in [8, 5] {
        let (mut rig, mut snapshot) = behind(8);
        rig.run(4).unwrap();
        if held == 5 {
            let header = *rig.raft(1).headers().nth(4).unwrap();
            snapshot.position = header.position();
        }
        rig.network.clear();
        received(&mut rig, 3, 1, 1, &snapshot);
        assert!(!installs(&rig, 3) && rig.node(3).pending.is_empty());
        assert_eq!(accepted(&rig), [Index(8)], "how far it is");
        assert_eq!(rig.raft(3).log.start(), Position::START);
    }
}

#[test]
fn what_follows_the_snapshot_stays_where_the_log_holds_it_and_the_rest_is_replaced() {
    // Node 3 has entries up to 9 of the leader's term; or of a dead leader's; or none so far.
    for (of_leader, held, last) in [(true, 9, 9), (true, 8, 8), (false, 9, 8), (false, 7, 8)] {
        let mut rig = Rig::new(3, 1);
        let (term, other) = (2, 1);
        for id in [1, 2] {
            rig.seed_log(id, 2, &[term; 9]);
        }
        let terms = if of_leader { [term; 9] } else { [other; 9] };
        rig.seed_log(3, 2, &terms[..held]);
        let at = *rig.raft(1).headers().nth(7).unwrap();
        let snapshot = Snapshot {
            position: at.position(),
            membership: rig.raft(1).membership().clone(),
            file: SnapshotFile {
                nonce: 1,
                bytes: 100,
                digest: 0,
            },
        };
        rig.committed.insert(Index(8), (at.last_id(), at.digest));
        received(&mut rig, 3, 1, 3, &snapshot);
        let raft = rig.raft(3);
        assert_eq!(raft.log.start(), snapshot.position);
        assert_eq!(raft.last().index(), Index(last), "{of_leader} {held}");
        assert_eq!(raft.commit(), Index(8));
        let write = rig.node(3).pending.back().unwrap();
        let staged = write.snapshot.as_ref().unwrap();
        assert_eq!(staged.reset, !of_leader);
        let dropped = of_leader.then_some(snapshot.position);
        assert_eq!(write.compact, dropped);
    }
}

#[test]
fn a_snapshot_with_another_content_for_an_entry_is_divergence() {
    let (mut rig, mut snapshot) = behind(8);
    rig.crash(3, 0);
    assert_eq!(rig.raft(3).commit(), Index(0));
    snapshot.position.digest = Digest(1);
    received(&mut rig, 3, 1, 1, &snapshot);
    assert!(!installs(&rig, 3));
    assert_eq!(
        rig.raft(3).last(),
        rig.raft(1).last(),
        "nothing is replaced"
    );
    rig.flush(3).unwrap();
    let told = |e: &Envelope| {
        matches!(
            e.message,
            Message::AppendReply(AppendReply::Divergence { .. })
        )
    };
    assert!(rig.network.iter().any(told) || rig.raft(3).halted().is_some());
}

#[test]
fn the_state_machine_hears_of_a_snapshot_when_it_is_durable_and_what_it_says_before_is_void() {
    // One that keeps its own disk must not run ahead of the log.
    let (mut rig, snapshot) = behind(3);
    let applied = |rig: &mut Rig, upto: u64| {
        let upto = Index(upto);
        let applied = Input::Completed(Completion::Applied { upto });
        rig.step(3, applied).unwrap();
        (rig.raft(3).applied(), installs(rig, 3))
    };
    let before = rig.raft(3).applied();
    received(&mut rig, 3, 1, 1, &snapshot);
    assert_eq!((rig.installed, accepted(&rig)), (0, Vec::new()));
    // A state machine that says that it holds all of it before it was told to, and one that speaks of
    // what came before.
    for upto in [8, 3] {
        assert_eq!(applied(&mut rig, upto), (before, true));
    }
    rig.flush(3).unwrap();
    assert_eq!((rig.installed, accepted(&rig)), (1, [Index(8)].into()));
    assert_eq!(applied(&mut rig, 3), (before, true), "of before");
    assert_eq!(applied(&mut rig, 8), (Index(8), false));
    assert_eq!(rig.raft(3).halted(), None);
}

#[test]
fn a_snapshot_waits_for_a_disk_that_does_not_come_along() {
    // No room for its write: the leader asks again.
    let mut rig = Rig::with(3, &[], |id| Config {
        max_batch_bytes: 64,
        unpersisted_bytes_max: 190,
        ..Config::new(id, GROUP, 1)
    });
    rig.elect(1).unwrap();
    (0..7).for_each(|_| {
        rig.propose(1).unwrap();
        rig.settle_without(&[3]).unwrap();
    });
    let snapshot = rig.make_snapshot(1).unwrap();
    let refused = Message::VoteReply { granted: false };
    let later = |term| said(2, 3, term, refused.clone());
    rig.deliver(later(2)).unwrap();
    received(&mut rig, 3, 1, 2, &snapshot);
    assert!(!installs(&rig, 3), "64 bytes wait, 128 are reserved");
    rig.flush(3).unwrap();
    received(&mut rig, 3, 1, 2, &snapshot);
    assert!(installs(&rig, 3));
}

#[test]
fn a_node_that_hears_of_no_more_terms_takes_a_snapshot_in_its_own() {
    for (term, taken) in [(9, true), (10, false)] {
        let (mut rig, snapshot) = behind(1);
        for term in 2..=9 {
            let refused = said(2, 3, term, Message::VoteReply { granted: false });
            rig.deliver(refused).unwrap();
        }
        assert_eq!(rig.raft(3).term(), Term(9));
        received(&mut rig, 3, 1, term, &snapshot);
        assert_eq!(installs(&rig, 3), taken);
    }
}
