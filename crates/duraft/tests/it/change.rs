//! Nodes that fall behind, come, go and hand over, on real files and loopback TCP.

use crate::common::{Cluster, DEADLINE, Journal, submit};
use bytes::Bytes;
use duraft::{
    JoinAs, MemberChange, Node, NodeId, NodeOptions, ReadBasis, RoleKind, Session, SessionLimits,
};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

/// Snapshots after little, and next to no log behind them: whoever is away for long needs one.
fn eager(options: &mut NodeOptions) {
    options.snapshot_log_bytes = Some(64 << 10);
    options.core.trailing_bytes_max = 4 << 10;
    options.core.cache_bytes_max = 64 << 10;
}

/// Many commands, `name` and a number, padded; applied everywhere they can be.
fn fill(cluster: &Cluster, name: &str, count: usize) {
    let node = cluster.nodes[&cluster.leader()].clone();
    let padding = "x".repeat(1000);
    let waiting: Vec<_> = (0..count)
        .map(|i| submit(&node, format!("{name}/{i}/{padding}").as_bytes()))
        .collect();
    for receiver in waiting {
        receiver
            .recv_timeout(DEADLINE)
            .expect("an outcome")
            .expect("applied: nobody disturbs");
    }
}

fn others(cluster: &Cluster, than: NodeId) -> Vec<NodeId> {
    let ids = cluster.nodes.keys().copied();
    ids.filter(|id| *id != than).collect()
}

fn assert_equal_journals(cluster: &Cluster) {
    let mut journals = cluster.journals.iter();
    let (first, expected) = journals.next().expect("a node");
    for (id, journal) in journals {
        let equal = journal.commands() == expected.commands();
        assert!(equal, "nodes {first} and {id} applied different commands");
    }
}

#[test]
fn node_that_was_away_for_long_gets_a_snapshot_and_then_the_log() {
    // The log it needs is gone; without the transfer it would stay behind for ever.
    let mut cluster = Cluster::start_with(3, eager);
    cluster.apply("before");
    let leader = cluster.leader();
    let away = others(&cluster, leader)[0];
    cluster.kill(away);
    fill(&cluster, "meanwhile", 400);
    // Whoever leads when it comes back has one; not the same one.
    for node in cluster.nodes.values() {
        node.wait_for(DEADLINE, |status| status.snapshot.is_some())
            .expect("400 kB make snapshots");
    }
    cluster.restart(away);
    let last = cluster.apply("after");
    cluster.wait_applied(last.log_id.index);
    let got = cluster.nodes[&away].status().snapshot;
    assert!(got.is_some(), "the log alone does not reach back to it");
    assert_equal_journals(&cluster);
    // What it was given is durable: it begins with it again.
    cluster.kill(away);
    cluster.restart(away);
    let last = cluster.apply("again");
    cluster.wait_applied(last.log_id.index);
    assert_equal_journals(&cluster);
}

#[test]
fn dead_voter_is_replaced_by_a_new_node_under_load() {
    let mut cluster = Cluster::start_with(3, eager);
    fill(&cluster, "before", 200);
    let leader = cluster.leader();
    let dead = others(&cluster, leader)[0];
    cluster.kill(dead);
    cluster.journals.remove(&dead);
    let new = NodeId(4);
    cluster.join(new, JoinAs::New);
    let node = cluster.nodes[&leader].clone();
    let stop = AtomicBool::new(false);
    let acknowledged = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut acknowledged = BTreeSet::new();
            for i in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let command = format!("load/{i}");
                if node
                    .propose_wait(Bytes::from(command.clone()), DEADLINE)
                    .is_ok()
                {
                    acknowledged.insert(command);
                }
            }
            acknowledged
        });
        let replaced = node.replace_wait(dead, new, DEADLINE);
        stop.store(true, Ordering::Relaxed);
        replaced.expect("the new node catches up");
        load.join().expect("the load ends")
    });
    drop(node);
    let last = cluster.apply("last");
    cluster.wait_applied(last.log_id.index);
    assert_equal_journals(&cluster);
    assert!(!acknowledged.is_empty());
    let commands: BTreeSet<Bytes> = cluster.journals[&new].commands().into_iter().collect();
    for command in &acknowledged {
        assert!(commands.contains(command.as_bytes()), "{command} is lost");
    }
    let membership = cluster.nodes[&new].status().membership;
    assert!(membership.is_voter(new) && !membership.contains(dead));
    // The new voter counts: with one of the two old ones gone, the other and it are a quorum.
    let old = others(&cluster, new)[0];
    cluster.kill(old);
    cluster.journals.remove(&old);
    let last = cluster.apply("with the new one");
    cluster.wait_applied(last.log_id.index);
    assert_equal_journals(&cluster);
}

#[test]
fn removed_leader_lets_another_lead() {
    let mut cluster = Cluster::start(3);
    cluster.apply("before");
    let leader = cluster.leader();
    let node = cluster.nodes[&leader].clone();
    let removed = node.change_membership(vec![MemberChange::Remove(leader)]);
    removed
        .wait_until(Instant::now() + DEADLINE)
        .expect("two others agree");
    node.wait_for(DEADLINE, |status| status.role != RoleKind::Leader)
        .expect("it stops leading when it is out");
    drop(node);
    cluster.kill(leader);
    cluster.journals.remove(&leader);
    let last = cluster.apply("after");
    cluster.wait_applied(last.log_id.index);
    assert_equal_journals(&cluster);
}

#[test]
fn leadership_is_handed_to_the_node_that_was_named() {
    let cluster = Cluster::start(3);
    cluster.apply("before");
    let end = Instant::now() + DEADLINE;
    let heir = loop {
        let leader = cluster.leader();
        let heir = others(&cluster, leader)[1];
        let asked = cluster.nodes[&leader].transfer_leadership(heir);
        match asked.wait_until(end) {
            Ok(_) => break heir,
            // A disk that stands still longer than an election timeout costs an attempt.
            Err(error) => assert!(error.is_retryable() && Instant::now() < end, "{error}"),
        }
    };
    cluster.nodes[&heir]
        .wait_for(DEADLINE, |status| status.role == RoleKind::Leader)
        .expect("the named node leads");
    cluster.apply("after");
}

#[test]
fn read_at_any_node_sees_every_acknowledged_command() {
    // A follower behind the leader, or a leader that was deposed, must not answer from its own state.
    let mut cluster = Cluster::start(3);
    let count = |journal: &Journal| journal.commands().len();
    let mut acknowledged = 0;
    for round in 0..3 {
        for i in 0..10 {
            cluster.apply(&format!("{round}/{i}"));
            acknowledged += 1;
            for node in cluster.nodes.values() {
                let seen = node.read_wait(ReadBasis::Quorum, DEADLINE, count);
                // Right after a change of leaders a node may not know whom to ask.
                if let Ok(seen) = seen {
                    assert!(seen >= acknowledged, "{seen} of {acknowledged}");
                }
            }
        }
        let leader = cluster.leader();
        let seen = cluster.nodes[&leader].read_wait(ReadBasis::Quorum, DEADLINE, count);
        assert!(seen.expect("a leader can tell") >= acknowledged);
        cluster.kill(leader);
        cluster.leader();
        cluster.restart(leader);
    }
}

#[test]
fn session_command_takes_effect_once_though_leaders_die_under_it() {
    let mut cluster = Cluster::start(3);
    let nodes = |cluster: &Cluster| cluster.nodes.values().cloned().collect::<Vec<Node>>();
    let session = Session::open(&nodes(&cluster), SessionLimits::default(), DEADLINE)
        .expect("a cluster that works");
    let mut sent = Vec::new();
    for round in 0..4 {
        let leader = cluster.leader();
        let (all, session) = (nodes(&cluster), &session);
        thread::scope(|scope| {
            let client = scope.spawn(move || {
                let commands = (0..20).map(|i| format!("{round}/{i}"));
                for command in commands {
                    let outcome = session.propose(&all, Bytes::from(command), DEADLINE);
                    outcome.expect("some leader takes it");
                }
            });
            let until = Instant::now() + DEADLINE;
            let enough = cluster.journals[&leader].commands().len() + 5;
            while cluster.journals[&leader].commands().len() < enough && Instant::now() < until {
                thread::yield_now();
            }
            cluster.nodes[&leader].shutdown();
            client.join().expect("all are answered");
        });
        sent.extend((0..20).map(|i| Bytes::from(format!("{round}/{i}"))));
        cluster.kill(leader);
        cluster.restart(leader);
    }
    let last = cluster.apply("last");
    cluster.wait_applied(last.log_id.index);
    sent.push(Bytes::from("last"));
    for journal in cluster.journals.values() {
        assert_eq!(journal.commands(), sent, "each once, in order");
    }
}
