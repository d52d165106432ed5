//! Named situations of elections and replication on the rig.

use super::rig::*;
use crate::*;

#[test]
fn three_nodes_elect_replicate_and_commit() {
    // The happy path: nothing that follows means anything if this fails.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    for _ in 0..10 {
        rig.propose(1).unwrap();
    }
    rig.settle().unwrap();
    for id in 1..=3 {
        assert_eq!(rig.raft(id).commit(), Index(11), "node {id}");
        assert_eq!(rig.raft(id).applied(), Index(11), "node {id}");
        assert!(rig.raft(id).is_quiet());
    }
}

#[test]
fn a_single_voter_leads_and_commits_only_what_is_durable() {
    // A lone voter needs nobody's word, so nothing but its own gate keeps it from acting early (F4).
    let mut rig = Rig::new(1, 1);
    for _ in 0..20 {
        rig.tick(1).unwrap();
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Candidate);
    rig.sync(1, 1);
    rig.report(1).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::Leader);
    rig.propose(1).unwrap();
    assert_eq!(rig.raft(1).commit(), Index(0));
    rig.sync(1, 1);
    rig.report(1).unwrap();
    assert_eq!(rig.raft(1).commit(), Index(1));
    rig.flush(1).unwrap();
    assert_eq!(rig.raft(1).commit(), Index(2));
}
