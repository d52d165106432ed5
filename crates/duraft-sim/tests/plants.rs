//! Tests of the simulator: planted faults are found, and by the check that is made for them.

use duraft_core::{Plant, Raft};
use duraft_sim::{KeyValue, Recover, Sim, SimConfig};
use duraft_storage::SnapshotAblation;

/// Runs seeds with a fault until it is found. Returns what was found and after how many seeds.
fn find(change: impl Fn(&mut SimConfig), seeds: u64) -> (String, u64) {
    for seed in 0..seeds {
        let mut config = SimConfig::from_seed(seed);
        change(&mut config);
        if let Err(violation) = Sim::new(config).run(700) {
            return (violation.what, seed + 1);
        }
    }
    panic!("the planted fault was not found within {seeds} seeds");
}

/// A fault of the core, found without the help of the core's own invariants.
fn planted(prepare: fn(&mut Raft)) -> String {
    let change = |config: &mut SimConfig| {
        config.check_invariants = false;
        config.check_spec = false;
        config.prepare = Some(prepare);
    };
    find(change, 30).0
}

#[track_caller]
fn assert_found(what: &str, checks: &[&str]) {
    assert!(checks.iter().any(|check| what.starts_with(check)), "{what}");
}

#[test]
fn vote_before_the_disk_is_found() {
    assert_found(&planted(|raft| raft.plant(Plant::EarlyVote)), &["B1", "B2"]);
}

#[test]
fn candidacy_before_the_disk_is_found() {
    assert_found(
        &planted(|raft| raft.plant(Plant::EarlyRequestVote)),
        &["B1", "B3"],
    );
}

#[test]
fn acknowledgement_before_the_disk_is_found() {
    assert_found(&planted(|raft| raft.plant(Plant::EarlyAck)), &["B4"]);
}

#[test]
fn leader_that_counts_itself_early_is_found() {
    assert_found(
        &planted(|raft| raft.plant(Plant::LeaderEarly)),
        &["B5", "B7"],
    );
}

#[test]
fn leader_that_goes_on_after_a_restart_is_found() {
    assert_found(&planted(|raft| raft.plant(Plant::LeaderRestore)), &["A1"]);
}

#[test]
fn commit_of_an_older_term_by_counting_is_found() {
    assert_found(&planted(|raft| raft.plant(Plant::CommitOldTerm)), &["A6"]);
}

#[test]
fn core_invariants_find_the_faults_as_well() {
    let change = |config: &mut SimConfig| {
        config.recover = Recover::Never;
        config.prepare = Some(|raft| raft.plant(Plant::EarlyAck));
    };
    assert!(find(change, 30).0.contains("I4"));
}

#[test]
fn lying_disk_is_found() {
    // A disk whose syncs do nothing: the core and the log believe it, recovery does not.
    let change = |config: &mut SimConfig| config.disk.lies = true;
    assert_found(
        &find(change, 5).0,
        &["B1", "B2", "B3", "B4", "B5", "B7", "B12"],
    );
}

/// A fault of the core that only clusters meet whose members change or whose clients read.
fn planted_in(prepare: fn(&mut Raft), change: fn(&mut SimConfig)) -> String {
    let change = |config: &mut SimConfig| {
        config.check_invariants = false;
        config.check_spec = false;
        config.prepare = Some(prepare);
        change(config);
    };
    find(change, 600).0
}

fn many_changes(config: &mut SimConfig) {
    config.pool = 6;
    config.core.pre_vote = true;
    config.clients.change = 2_000;
}

fn many_reads(config: &mut SimConfig) {
    config.nodes = 3;
    config.pool = 3;
    // Few clients per key, or judging them would take longer than finding the fault.
    config.clients.plain = 30;
    config.workload = std::sync::Arc::new(KeyValue { keys: 15 });
    config.clients.read = 9_000;
    config.clients.handover = 300;
    config.network.repartition = 300;
}

#[test]
fn two_membership_changes_at_a_time_are_found() {
    let found = planted_in(|raft| raft.plant(Plant::ChangesOverlap), many_changes);
    assert_found(&found, &["D6"]);
}

#[test]
fn read_before_an_entry_of_the_term_is_found() {
    let found = planted_in(|raft| raft.plant(Plant::ReadBeforeTerm), many_reads);
    assert_found(&found, &["D4"]);
}

#[test]
fn read_confirmed_by_an_old_round_is_found() {
    let found = planted_in(|raft| raft.plant(Plant::ReadOldRound), late_answers);
    assert_found(&found, &["D4"]);
}

/// Answers to heartbeats are under way for as long as an election takes, and nothing else goes wrong: a
/// driver asks for its reads after what has arrived with them, so only an answer that comes a turn later
/// can be taken for one to them.
fn late_answers(config: &mut SimConfig) {
    many_reads(config);
    config.one_hears_late();
    config.core.lease = None;
}

fn many_snapshots(config: &mut SimConfig) {
    config.snapshot_bytes = Some(1_000);
    config.core.trailing_bytes_max = 0;
}

#[test]
fn snapshot_renamed_before_its_sync_is_found() {
    let change = |config: &mut SimConfig| {
        many_snapshots(config);
        config.snapshot.ablation = Some(SnapshotAblation::NoSyncBeforeRename);
    };
    assert_found(&find(change, 30).0, &["B8"]);
}

#[test]
fn snapshot_whose_name_is_not_synced_is_found() {
    let change = |config: &mut SimConfig| {
        many_snapshots(config);
        config.snapshot.ablation = Some(SnapshotAblation::NoDirSync);
    };
    assert_found(&find(change, 30).0, &["B8"]);
}
