//! Nodes of which a part sticks while clients ask for more than there is room for: what waits for the
//! part stays within the limits, and each refusal says which limit it was.

use crate::hosts::{
    APPEND_BYTES, BACKLOG_BYTES, COMMAND_BYTES, COMMANDS_MAX, Cluster, INFLIGHT_BYTES, ONE_BATCH,
    UNAPPLIED_BYTES, UNCOMMITTED_BYTES, UNPERSISTED_BYTES,
};

#[test]
fn silent_follower_is_sent_one_window_and_no_more() {
    let (mut cluster, leader) = Cluster::elected();
    let silent = (leader + 1) % 3;
    cluster.silent = Some(silent);
    cluster.load(leader);
    let bound = INFLIGHT_BYTES + APPEND_BYTES + ONE_BATCH;
    assert!(cluster.sent_to_silent > 0, "it was spoken to");
    assert!(
        cluster.sent_to_silent <= bound,
        "{}",
        cluster.sent_to_silent
    );
    assert_eq!(cluster.hosts[leader].answered("done"), 1000, "two go on");
    cluster.silent = None;
    cluster.settle_in(200);
}

#[test]
fn leader_without_followers_says_that_too_much_is_not_committed() {
    // Both followers are deaf for a while that is shorter than the leader's patience.
    let (mut cluster, leader) = Cluster::elected();
    for follower in (0..3).filter(|place| *place != leader) {
        cluster.hosts[follower].disk_sticks = true;
    }
    cluster.load(leader);
    let host = &cluster.hosts[leader];
    let held = host.driver.raft().uncommitted_bytes().expect("it leads");
    assert!(held <= UNCOMMITTED_BYTES + ONE_BATCH, "{held}");
    assert!(host.answered("uncommitted") > 0, "{:?}", host.answers);
    assert_eq!(host.answered("done"), 0);
    for host in &cluster.hosts {
        let bound = UNCOMMITTED_BYTES + ONE_BATCH;
        assert!(host.most_written <= bound, "{}", host.most_written);
    }
    cluster
        .hosts
        .iter_mut()
        .for_each(|host| host.disk_sticks = false);
    cluster.settle_in(200);
}

#[test]
fn stuck_state_machine_is_given_one_window() {
    for on_leader in [true, false] {
        let (mut cluster, leader) = Cluster::elected();
        let stuck = (leader + usize::from(!on_leader)) % 3;
        cluster.hosts[stuck].machine_sticks = true;
        cluster.load(leader);
        let handed = cluster.hosts[stuck].most_handed;
        assert!(handed > 0, "it was given work");
        assert!(handed <= UNAPPLIED_BYTES + ONE_BATCH, "{handed}");
        let waiting = cluster.hosts[leader].driver.waiting();
        assert!(waiting <= COMMANDS_MAX, "{waiting}");
        if on_leader {
            let host = &cluster.hosts[leader];
            assert_eq!(host.answered("done"), 0);
            assert!(host.answered("unapplied") > 0, "{:?}", host.answers);
        } else {
            assert_eq!(cluster.hosts[leader].answered("done"), 1000, "two go on");
        }
        // What is committed and not applied, on the disk as in memory.
        let raft = cluster.hosts[stuck].driver.raft();
        let behind = raft.last().index().0 - raft.applied().0;
        let most = (BACKLOG_BYTES + UNCOMMITTED_BYTES + ONE_BATCH) / COMMAND_BYTES as u64;
        assert!(behind <= most, "{behind} commands of {most}");
        cluster.hosts[stuck].machine_sticks = false;
        cluster.settle_in(200);
    }
}

#[test]
fn stuck_disk_is_given_so_much_and_the_leader_says_that_it_is_behind() {
    for on_leader in [true, false] {
        let (mut cluster, leader) = Cluster::elected();
        let stuck = (leader + usize::from(!on_leader)) % 3;
        cluster.hosts[stuck].disk_sticks = true;
        cluster.load(leader);
        let written = cluster.hosts[stuck].most_written;
        assert!(written > 0, "it was given work");
        assert!(written <= UNPERSISTED_BYTES + ONE_BATCH, "{written}");
        let host = &cluster.hosts[leader];
        if on_leader {
            // Others have it, but what is not durable here is not applied here.
            assert_eq!(host.answered("done"), 0);
            assert!(host.answered("storage") > 0, "{:?}", host.answers);
        } else {
            assert_eq!(host.answered("done"), 1000, "two go on");
        }
        cluster.hosts[stuck].disk_sticks = false;
        cluster.settle_in(300);
    }
}
