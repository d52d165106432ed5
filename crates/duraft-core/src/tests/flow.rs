//! Where a node takes no more: each limit at its last byte.

use super::rig::*;
use crate::*;

/// What a batch of the rig costs, and what a write weighs beside it.
const COST: u64 = 76;
const WRITE: u64 = 64;

/// A leader of `voters` takes proposals until it refuses one: how many, and why.
fn taken(
    voters: u64,
    limit: impl Fn(&mut Config),
    each: impl Fn(&mut Rig),
) -> (usize, Option<Reject>) {
    let mut rig = Rig::with(voters, &[], |id| {
        let mut config = Config::new(id, GROUP, 1);
        limit(&mut config);
        config
    });
    rig.elect(1).unwrap();
    rig.settle().unwrap();
    for count in 0..10 {
        rig.propose(1).unwrap();
        if let Some(Response::Rejected { reason, .. }) = rig.node(1).responses.last() {
            return (count, Some(*reason));
        }
        each(&mut rig);
    }
    (10, None)
}

#[test]
fn a_leader_takes_what_fits_its_limits_to_the_last_byte() {
    // One less, and a limit that is set to a batch admits none of two; one more, and it is no limit.
    let nothing = |_: &mut Rig| ();
    for (fits, bytes) in [
        (1, 0),
        (1, COST),
        (1, 2 * COST - 1),
        (2, 2 * COST),
        (4, 4 * COST),
    ] {
        let reason = Some(Reject::UncommittedLimit);
        let uncommitted = taken(3, |c| c.uncommitted_bytes_max = bytes, nothing);
        assert_eq!(uncommitted, (fits, reason), "{bytes} bytes uncommitted");
        // Committed and never applied.
        let reason = Some(Reject::UnappliedLimit);
        let flush = |rig: &mut Rig| rig.flush(1).unwrap();
        let unapplied = taken(1, |c| c.backlog_bytes_max = bytes, flush);
        assert_eq!(unapplied, (fits, reason), "{bytes} bytes unapplied");
    }
    let under_way = |writes: u64| writes * (COST + WRITE) + COST;
    for (fits, bytes) in [
        (1, under_way(1) - 1),
        (2, under_way(1)),
        (2, under_way(2) - 1),
        (3, under_way(2)),
    ] {
        let reason = Some(Reject::StorageSaturated);
        let written = taken(1, |c| c.unpersisted_bytes_max = bytes, nothing);
        assert_eq!(written, (fits, reason), "{bytes} bytes written");
    }
}

#[test]
fn a_follower_takes_no_more_while_its_state_machine_is_too_far_behind() {
    for (limit, takes) in [(1, false), (2 * COST, false), (2 * COST + 1, true)] {
        let mut rig = Rig::with(3, &[], |id| Config {
            backlog_bytes_max: limit,
            ..Config::new(id, GROUP, 1)
        });
        rig.disk_checks = false;
        let batches = chain(GROUP, Position::START, 3);
        // One where nothing else is held, whatever the limit; the second comes with it.
        rig.append(1, Position::START, &batches[..2], 2);
        rig.flush(1).unwrap();
        assert_eq!(rig.raft(1).commit(), Index(2));
        let prev = batches[1].header.position();
        rig.append(1, prev, &batches[2..], 2);
        let last = rig.raft(1).last().index();
        assert_eq!(last, Index(if takes { 3 } else { 2 }), "{limit}");
        rig.report_applied(1).unwrap();
        rig.append(1, prev, &batches[2..], 2);
        assert_eq!(rig.raft(1).last().index(), Index(3));
    }
}

#[test]
fn a_follower_takes_no_more_while_its_disk_is_too_far_behind() {
    // A write of 76 and 64 bytes is under way, and a largest batch must fit: 64 and 64.
    let held = COST + WRITE + WRITE;
    for (limit, takes) in [(held + 127, false), (held + 128, true)] {
        let mut rig = Rig::with(3, &[], |id| Config {
            max_batch_bytes: 64,
            unpersisted_bytes_max: limit,
            ..Config::new(id, GROUP, 1)
        });
        let batches = chain(GROUP, Position::START, 2);
        // The term goes first, in a write of its own.
        rig.append(1, Position::START, &[], 0);
        rig.append(1, Position::START, &batches[..1], 0);
        assert_eq!(rig.raft(1).disk.bytes(), held);
        rig.append(1, batches[0].header.position(), &batches[1..], 0);
        let last = rig.raft(1).last().index();
        assert_eq!(last, Index(if takes { 2 } else { 1 }), "{limit}");
    }
}
