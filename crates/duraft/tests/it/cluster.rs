//! Three nodes on real files and loopback TCP.

use crate::common::{Cluster, DEADLINE, submit};
use bytes::Bytes;
use duraft::{NodeEvent, NodeId, RejectReason, RequestError, RoleKind, Stage};
use std::collections::BTreeSet;
use std::time::Instant;

#[test]
fn acknowledged_commands_survive_the_loss_of_leaders() {
    // Kill the leader under load three times; nothing that was acknowledged may be missing anywhere.
    let mut cluster = Cluster::start(3);
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        let leader = cluster.leader();
        let node = cluster.nodes[&leader].clone();
        let waiting: Vec<_> = (0..200)
            .map(|i| format!("{round}/{i}"))
            .map(|command| (submit(&node, command.as_bytes()), command))
            .collect();
        let mut waiting = waiting.into_iter();
        for (receiver, command) in waiting.by_ref().take(100) {
            if receiver
                .recv_timeout(DEADLINE)
                .expect("every command ends")
                .is_ok()
            {
                acknowledged.insert(command);
            }
        }
        drop(node);
        cluster.kill(leader);
        for (receiver, command) in waiting {
            if receiver
                .recv_timeout(DEADLINE)
                .expect("every command ends")
                .is_ok()
            {
                acknowledged.insert(command);
            }
        }
        cluster.apply(&format!("{round}/without {leader}"));
        cluster.restart(leader);
    }
    let last = cluster.apply("last");
    cluster.wait_applied(last.log_id.index);
    assert!(
        acknowledged.len() >= 100,
        "{} acknowledged",
        acknowledged.len()
    );
    let first = cluster.journals[&NodeId(1)].commands();
    for journal in cluster.journals.values() {
        let commands = journal.commands();
        assert_eq!(commands, first, "state machines agree");
        let texts: BTreeSet<&[u8]> = commands.iter().map(|c| &c[..]).collect();
        for command in &acknowledged {
            assert!(texts.contains(command.as_bytes()), "{command} is lost");
        }
    }
}

#[test]
fn follower_redirects_to_the_leader() {
    let cluster = Cluster::start(3);
    cluster.apply("so that all know the leader");
    let leader = cluster.leader();
    let (_, follower) = cluster
        .nodes
        .iter()
        .find(|(id, _)| **id != leader)
        .expect("two others");
    follower
        .wait_for(DEADLINE, |s| s.leader == Some(leader))
        .expect("the leader is known");
    let error = follower
        .propose_wait(Bytes::from("x"), DEADLINE)
        .expect_err("followers do not propose");
    assert!(
        matches!(
            error,
            RequestError::Rejected {
                reason: RejectReason::NotLeader,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.leader(), Some(leader));
}

#[test]
fn whole_cluster_stops_and_starts_with_everything() {
    let mut cluster = Cluster::start(3);
    for i in 0..50 {
        cluster.apply(&i.to_string());
    }
    for node in cluster.nodes.values() {
        node.shutdown();
    }
    cluster.nodes.clear();
    for id in [3, 1, 2] {
        cluster.restart(NodeId(id));
    }
    let last = cluster.apply("50");
    cluster.wait_applied(last.log_id.index);
    let expected: Vec<Bytes> = (0..=50).map(|i| Bytes::from(i.to_string())).collect();
    for journal in cluster.journals.values() {
        assert_eq!(journal.commands(), expected);
    }
}

#[test]
fn dead_follower_does_not_hold_up_the_others() {
    // Queues to a dead peer fill and drop; nobody waits for them.
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let dead = *cluster
        .nodes
        .keys()
        .find(|id| **id != leader)
        .expect("two others");
    cluster.kill(dead);
    let large = "x".repeat(100_000);
    let node = cluster.nodes[&leader].clone();
    let waiting: Vec<_> = (0..200).map(|_| submit(&node, large.as_bytes())).collect();
    let applied = waiting
        .into_iter()
        .filter(|receiver| receiver.recv_timeout(DEADLINE).expect("an outcome").is_ok())
        .count();
    assert!(applied > 0);
    let last = cluster.apply("after 20 MB");
    cluster.restart(dead);
    cluster.wait_applied(last.log_id.index);
}

#[test]
fn events_tell_of_elections_and_commits_in_order() {
    let cluster = Cluster::start(3);
    let mut events = cluster.nodes[&NodeId(1)].subscribe();
    let until = Instant::now() + DEADLINE;
    cluster.apply("one");
    let last = cluster.apply("two");
    let mut committed = duraft::LogId::default();
    let mut position = None;
    while committed.index < last.log_id.index {
        let event = events
            .next_until(until)
            .expect("events until the last commit");
        assert!(position.is_none_or(|p| event.position == p + 1), "no gap");
        position = Some(event.position);
        if let NodeEvent::Committed { upto } = event.event {
            assert!(upto > committed);
            committed = upto;
        }
    }
    assert_ne!(cluster.nodes[&NodeId(1)].status().role, RoleKind::Candidate);
}

#[test]
fn every_stage_of_a_command_is_timed() {
    let cluster = Cluster::start(3);
    let before = cluster.leader();
    for i in 0..50 {
        cluster.apply(&i.to_string());
    }
    // Another leader is possible on a loaded machine: then the one that has led is among them.
    let all: Vec<_> = cluster.nodes.values().map(duraft::Node::stats).collect();
    for stage in Stage::ALL {
        let timed = all
            .iter()
            .map(|stats| stats.stage(stage).count())
            .sum::<u64>();
        assert!(timed >= 50, "{stage:?} was timed {timed} times");
        for stats in &all {
            let histogram = stats.stage(stage);
            assert!(histogram.quantile(0.5) <= histogram.max(), "{stage:?}");
            assert!(histogram.sum() >= histogram.max(), "{stage:?}");
        }
    }
    // A follower places nothing and sends no append; every node writes and applies.
    let (follower, _) = cluster
        .nodes
        .iter()
        .find(|(id, _)| **id != before)
        .expect("two others");
    let stats = cluster.nodes[follower].stats();
    assert!(stats.stage(Stage::Sync).count() >= 1);
    assert!(stats.stage(Stage::Apply).count() >= 1);
    assert!(cluster.nodes[&before].stats().transport.frames_sent > 0);
}
