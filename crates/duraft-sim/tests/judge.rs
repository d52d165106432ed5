//! Every step of every core of a simulated cluster is an action of the specification; steps of a core
//! with a planted fault are none.

use duraft_core::{Plant, Raft};
use duraft_sim::{Recover, Sim, SimConfig};

type Prepare = fn(&mut Raft);

/// What is found first in the first seeds, if only the specification is asked.
fn found(prepare: Prepare) -> String {
    for seed in 0..30 {
        let mut config = SimConfig::from_seed(seed);
        config.check_invariants = false;
        config.recover = Recover::Never;
        config.damage = 0;
        config.prepare = Some(prepare);
        // Where a core's own assertion is quicker, another seed must show that the specification
        // sees it too.
        let run = || Sim::new(config).run(700).map(drop);
        if let Ok(Err(violation)) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            return violation.what;
        }
    }
    "nothing".into()
}

#[test]
fn steps_are_actions_and_there_are_enough_of_them() {
    let mut config = SimConfig::from_seed(3);
    config.damage = 0;
    let report = match Sim::new(config).run(1_000) {
        Ok(report) => report,
        Err(violation) => panic!("{violation}"),
    };
    assert!(
        report.spec_steps > 10_000 && report.spec_actions > 1_000,
        "{report:?}"
    );
}

#[test]
fn planted_faults_are_no_actions() {
    let faults: [(&str, Prepare); 10] = [
        ("EarlyVote", |raft| raft.plant(Plant::EarlyVote)),
        ("EarlyAck", |raft| raft.plant(Plant::EarlyAck)),
        ("AcksDuplicatesEarly", |raft| {
            raft.plant(Plant::AcksDuplicatesEarly)
        }),
        ("LeaderEarly", |raft| raft.plant(Plant::LeaderEarly)),
        ("LeaderRestore", |raft| raft.plant(Plant::LeaderRestore)),
        ("EarlyRequestVote", |raft| {
            raft.plant(Plant::EarlyRequestVote)
        }),
        ("AcksOwnTail", |raft| raft.plant(Plant::AcksOwnTail)),
        ("CommitOldTerm", |raft| raft.plant(Plant::CommitOldTerm)),
        ("CommitsUnverified", |raft| {
            raft.plant(Plant::CommitsUnverified)
        }),
        ("TruncatesOnAppend", |raft| {
            raft.plant(Plant::TruncatesOnAppend)
        }),
    ];
    let mut wrong = Vec::new();
    for (name, prepare) in faults {
        let what = found(prepare);
        if !what.contains("spec: ") {
            wrong.push(format!("{name}: {what}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
