//! Snapshots between nodes on real files and loopback TCP.

use crate::common::{Cluster, DEADLINE};
use duraft::{NodeId, NodeOptions};
use std::time::Instant;

/// A snapshot every few commands, nothing of the log kept behind it, and pieces so small that a
/// snapshot takes many.
fn eager(options: &mut NodeOptions) {
    options.snapshot_log_bytes = Some(64 << 10);
    options.core.trailing_bytes_max = 0;
    options.snapshots.chunk_bytes = 4 << 10;
    options.transfer.piece_bytes = 3000;
    options.transfer.window_bytes = 20_000;
    options.transfer.burst_bytes_max = 20_000;
}

fn fill(cluster: &Cluster, from: u64, to: u64) {
    for number in from..to {
        cluster.apply(&format!("{number:0>4000}"));
    }
}

/// Which of the running nodes is not the leader, and the others.
fn a_follower(cluster: &Cluster) -> NodeId {
    let leader = cluster.leader();
    let follower = cluster.nodes.keys().find(|id| **id != leader);
    *follower.expect("three nodes")
}

#[test]
fn follower_that_dies_while_it_is_given_a_snapshot_is_given_the_rest() {
    let slow = |options: &mut NodeOptions| {
        eager(options);
        // About two seconds for the whole snapshot.
        options.transfer.bytes_per_tick_max = Some(10_000);
    };
    let mut cluster = Cluster::start_with(3, slow);
    fill(&cluster, 0, 5);
    let follower = a_follower(&cluster);
    cluster.kill(follower);
    fill(&cluster, 5, 200);
    let folder = cluster.dir.path().join(format!("{follower}/snap"));
    for _ in 0..3 {
        cluster.restart(follower);
        // Something of it has come.
        let until = Instant::now() + DEADLINE;
        while !has_some(&folder) {
            assert!(Instant::now() < until, "a snapshot begins to come");
            std::thread::yield_now();
        }
        cluster.kill(follower);
    }
    cluster.restart(follower);
    let last = cluster.apply("last");
    cluster.wait_applied(last.log_id.index);
    let leader = cluster.leader();
    let expected = cluster.journals[&leader].commands();
    assert_eq!(cluster.journals[&follower].commands(), expected);
}

/// Is there any file of more than a few chunks below this folder, whole or not?
fn has_some(folder: &std::path::Path) -> bool {
    let Ok(groups) = std::fs::read_dir(folder) else {
        return false;
    };
    let files = groups
        .flatten()
        .flat_map(|group| std::fs::read_dir(group.path()).into_iter().flatten());
    files
        .flatten()
        .any(|file| file.metadata().is_ok_and(|meta| meta.len() > 20_000))
}
