//! Every state of small clusters of real cores; and the forbidden optimisations, each of which is found.

use duraft_core::Plant;
use duraft_sim::explore::{Explorer, Found, Options, Stop};
use std::sync::Arc;

fn walk(options: Options) -> Result<Found, Box<Stop>> {
    let explorer = Explorer::new(options);
    explorer.expect("fresh nodes are sound").run()
}

/// The walk is complete and not much smaller than it was when this was written: a move that is lost
/// shows.
fn is_clean(options: Options, least: usize) {
    let name = format!("{options:?}");
    let found = walk(options).unwrap_or_else(|stop| panic!("{name}: {stop}"));
    assert!(found.complete && found.doubles > 0, "{name}: {found:?}");
    assert!(found.worlds >= least, "{name}: {found:?}");
}

fn deep(mut options: Options) -> Options {
    options.deep = true;
    options
}

#[test]
fn two_nodes_two_terms_one_command_one_crash() {
    is_clean(deep(Options::new(2, 2, 1, 1)), 15_000);
}

#[test]
fn three_nodes_one_term_one_command_one_crash() {
    is_clean(deep(Options::new(3, 1, 1, 1)), 70_000);
}

#[test]
fn three_nodes_two_terms() {
    is_clean(deep(Options::new(3, 2, 0, 0)), 120_000);
}

#[test]
fn two_nodes_that_ask_before_they_campaign() {
    let mut options = deep(Options::new(2, 2, 0, 1));
    options.pre_vote = true;
    options.beats = 1;
    is_clean(options, 150_000);
}

/// Walks until the fault is found, without the core's own invariants: what finds it is what can be seen
/// from outside.
fn found(mut options: Options, plant: Option<Plant>) -> String {
    options.own_checks = false;
    options.worlds_max = 400_000;
    if let Some(plant) = plant {
        options.prepare = Arc::new(move |raft| raft.plant(plant));
    }
    match walk(options) {
        Ok(found) => panic!("{plant:?} was not found in {} worlds", found.worlds),
        Err(stop) => stop.to_string(),
    }
}

/// The switches of the specification as faults of the core: each is found, and as what it is.
#[test]
fn every_forbidden_optimisation_is_no_action_of_the_specification() {
    let table = [
        (Plant::EarlyVote, "a message of a term that is not durable"),
        (
            Plant::EarlyAck,
            "an acknowledgement of what is not verified and durable",
        ),
        (
            Plant::AcksDuplicatesEarly,
            "an acknowledgement of what is not verified and durable",
        ),
        (Plant::LeaderEarly, "a commit that no quorum holds"),
        (
            Plant::LeaderRestore,
            "a new life begins with more than its disk holds",
        ),
        (
            Plant::EarlyRequestVote,
            "a message of a term that is not durable",
        ),
        (Plant::EarlyTerm, "a message of a term that is not durable"),
        (
            Plant::CommitOldTerm,
            "a commit of an older term by counting",
        ),
        (Plant::TruncatesOnAppend, "a write that changes nothing"),
    ];
    for (plant, what) in table {
        let schedule = found(Options::new(3, 2, 0, 1), Some(plant));
        let named =
            schedule.starts_with("no action of the specification") && schedule.contains(what);
        assert!(named, "{plant:?} was found as something else: {schedule}");
    }
}

/// The pipeline reports the second write while the first is under way.
#[test]
fn a_write_that_is_reported_before_the_one_before_it_is_found() {
    let mut options = Options::new(3, 2, 0, 0);
    options.early_reports = true;
    let schedule = found(options, None);
    assert!(
        schedule.starts_with("no action of the specification"),
        "{schedule}"
    );
    assert!(schedule.contains("is reported first"), "{schedule}");
}

/// Logs as in figure 7 of the paper: of one term more, and of more entries.
fn uneven() -> Options {
    let mut options = Options::new(2, 3, 0, 1);
    options.logs = vec![vec![1, 2, 2, 2], vec![1, 1, 1, 1, 1]];
    options
}

#[test]
fn two_nodes_with_uneven_logs() {
    is_clean(deep(uneven()), 1_300);
}

/// What breaks nothing that was promised and leads nowhere.
#[test]
fn every_neglected_duty_is_found() {
    let small = || Options::new(3, 2, 0, 0);
    let table = [
        (
            Plant::CandidateIgnoresLeader,
            small(),
            "has heard the leader",
        ),
        (
            Plant::SameTermVoteDeposes,
            small(),
            "asked for its vote in its own term",
        ),
        (Plant::VoteNeedsBoth, uneven(), "refuses its vote to 4@2"),
        (
            Plant::ResendsFromStart,
            uneven(),
            "perhaps 1@1, and is asked for 0@0",
        ),
        (
            Plant::SearchesEntryByEntry,
            uneven(),
            "perhaps 1@1, and is asked for 3@2",
        ),
    ];
    for (plant, options, what) in table {
        let schedule = found(options, Some(plant));
        let named = schedule.starts_with("duty: ") && schedule.contains(what);
        assert!(named, "{plant:?} was found as something else: {schedule}");
    }
}

#[test]
fn logs_that_no_cluster_can_have_are_refused() {
    for logs in [vec![vec![2, 1]], vec![vec![1, 3], vec![2, 3]]] {
        let mut options = Options::new(2, 3, 0, 0);
        options.logs = logs;
        assert!(Explorer::new(options).is_err());
    }
}
