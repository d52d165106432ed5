//! The bank of faults: every way in which somebody's Raft was once wrong, and that this core could be,
//! is planted at run time and found. The table says by which runs; what is not met there by chance has a
//! situation of its own.

use super::divergence::{batches, cluster};
use super::random::{Checks, changing, damaged_runs, does_not_recover, found, run};
use super::rig::*;
use crate::*;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::eprintln;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What kind of random run finds a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Runs {
    /// Crashes, loss, held completions, snapshots.
    Plain,
    /// The same with an even number of voters.
    Even,
    /// The same, and then everything else goes well: does it recover?
    Recovery,
    /// Members, leaders and reads too.
    Changing,
    /// Damaged disks.
    Damaged,
}

/// The fault, the runs, and with which checks. `Disks`: promises against modelled disks and history,
/// without the core's own invariants.
const BANK: [(Plant, Runs, Checks); 31] = [
    (Plant::CommitsOneMore, Runs::Plain, Checks::Disks),
    (Plant::CommitsUnverified, Runs::Plain, Checks::Disks),
    (Plant::CommitsOnRejection, Runs::Plain, Checks::Disks),
    (Plant::CommitsOnStepDown, Runs::Plain, Checks::Disks),
    (Plant::AcksPartOfBatch, Runs::Plain, Checks::All),
    (Plant::AcksOwnTail, Runs::Plain, Checks::Disks),
    (Plant::AcksHeartbeats, Runs::Plain, Checks::Disks),
    (Plant::AcksDuplicatesEarly, Runs::Plain, Checks::Disks),
    (Plant::OwesAcrossTerms, Runs::Plain, Checks::Disks),
    (Plant::CountsCutWrites, Runs::Plain, Checks::Disks),
    (Plant::EarlyTerm, Runs::Plain, Checks::Disks),
    (Plant::VoteBeforeTerm, Runs::Plain, Checks::Disks),
    (Plant::VotesTwice, Runs::Plain, Checks::Disks),
    (Plant::ForgetsVote, Runs::Plain, Checks::Disks),
    (Plant::VotesForStaleLogs, Runs::Plain, Checks::Disks),
    (Plant::LongerLogWins, Runs::Plain, Checks::Disks),
    (Plant::TruncatesOnAppend, Runs::Plain, Checks::Disks),
    (Plant::IgnoresPrevTerm, Runs::Plain, Checks::Disks),
    (Plant::AppliesUndurable, Runs::Plain, Checks::All),
    (Plant::InstallsBackwards, Runs::Plain, Checks::Disks),
    (Plant::InstallDropsSuffix, Runs::Plain, Checks::All),
    (Plant::RestoresEarly, Runs::Plain, Checks::Disks),
    (Plant::HalfIsQuorum, Runs::Even, Checks::Disks),
    (Plant::CreditsLatest, Runs::Plain, Checks::Disks),
    (Plant::InstallLowersTerm, Runs::Plain, Checks::All),
    (Plant::SoloNeverCommits, Runs::Recovery, Checks::Disks),
    (Plant::KeepsOwnTerm, Runs::Recovery, Checks::Disks),
    (Plant::NeverResends, Runs::Recovery, Checks::Disks),
    (Plant::PanicsOnLate, Runs::Recovery, Checks::Disks),
    (Plant::DamagedCampaigns, Runs::Damaged, Checks::All),
    (Plant::NoRollback, Runs::Changing, Checks::All),
];

/// What breaks in this seed, if anything: a check says no, or an assertion of the core does.
fn breaks(plant: Plant, runs: Runs, checks: Checks, seed: u64) -> Option<String> {
    let run = || match runs {
        Runs::Plain => found(plant, checks, 900, seed..seed + 1).map(|(_, why)| why),
        Runs::Even => run(seed, 4, 900, Some(plant), checks).err(),
        Runs::Recovery => does_not_recover(seed, 1 + seed % 3, plant),
        Runs::Changing => changing(seed, Some(plant), checks).err(),
        Runs::Damaged => damaged_runs(seed..seed + 1, true, Some(plant))
            .err()
            .map(|(_, why)| why),
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().map(String::from);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Some(format!("an assertion: {}", text.unwrap_or_default()))
    })
}

#[test]
fn every_fault_of_the_bank_is_found() {
    let mut missed = Vec::new();
    for (plant, runs, checks) in BANK {
        let broken = (0..3_000).find_map(|seed| Some((seed, breaks(plant, runs, checks, seed)?)));
        match broken {
            Some((seed, why)) => {
                let why: String = why.chars().take(160).collect();
                eprintln!("{plant:?}, {runs:?}, {checks:?}: found at seed {seed}: {why}");
            }
            None => missed.push(plant),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// A message of this node's present life.
fn say(rig: &mut Rig, from: u64, to: u64, term: u64, message: Message) -> Check {
    let incarnation = rig.raft(from).incarnation();
    rig.deliver(of_life(incarnation, from, to, term, message))
}

/// Nodes 1 to `nodes`, node 1 leads, and all hold `entries` entries.
fn led(nodes: u64, entries: u64, plant: Option<Plant>) -> Rig {
    let mut rig = Rig::new(nodes, 1);
    rig.elect(1).unwrap();
    for _ in 1..entries {
        rig.propose(1).unwrap();
        rig.settle().unwrap();
    }
    rig.run(3).unwrap();
    // The fault is planted in a cluster that works, and in every later life.
    rig.plant = plant;
    rig.local_checks = plant.is_none();
    if let Some(plant) = plant {
        (1..=nodes).for_each(|id| rig.node_mut(id).raft.plant(plant));
    }
    rig
}

/// Does the situation go wrong with the fault, and only with it?
fn finds(plant: Plant, situation: impl Fn(Option<Plant>) -> Check) {
    situation(None).unwrap_or_else(|why| panic!("without {plant:?}: {why}"));
    let broken = catch_unwind(AssertUnwindSafe(|| situation(Some(plant))));
    match broken {
        Ok(Ok(())) => panic!("{plant:?} is not found"),
        Ok(Err(why)) => eprintln!("{plant:?}: {why}"),
        Err(_) => eprintln!("{plant:?}: an assertion of the core"),
    }
}

fn ensure(holds: bool, what: &str) -> Check {
    if holds {
        Ok(())
    } else {
        Err(String::from(what))
    }
}

#[test]
fn an_acknowledgement_of_an_earlier_term_counts_for_nothing() {
    // What a follower held under another leader may be cut off by now.
    finds(Plant::CountsEarlierTerms, |plant| {
        let mut rig = led(3, 3, plant);
        rig.network.clear();
        rig.propose(1)?;
        rig.network.clear();
        rig.flush(1)?;
        let (earlier, last) = (rig.raft(1).term().0 - 1, rig.raft(1).last().index());
        let held = AppendReply::Accepted { matched: last };
        say(&mut rig, 2, 1, earlier, Message::AppendReply(held))
    });
}

#[test]
fn a_vote_of_an_earlier_term_elects_nobody() {
    finds(Plant::GrantsOfEarlierTerms, |plant| {
        let mut rig = led(3, 2, plant);
        rig.time_out(2)?;
        while rig.raft(2).role() != RoleKind::Candidate {
            let wanted = Term(rig.raft(2).term().0 + 1);
            let granted = true;
            let reply = Message::PreVoteReply { wanted, granted };
            say(&mut rig, 3, 2, wanted.0 - 1, reply)?;
        }
        rig.flush(2)?;
        let earlier = rig.raft(2).term().0 - 1;
        let grant = Message::VoteReply { granted: true };
        say(&mut rig, 3, 2, earlier, grant)?;
        ensure(rig.raft(2).role() == RoleKind::Candidate, "it leads")
    });
}

#[test]
fn another_content_under_an_id_is_never_joined() {
    // RULES.md 7 and 8: of batches and of the boundary before them.
    finds(Plant::IgnoresPrevDigest, |plant| {
        let mut rig = cluster(3, &[2], plant);
        rig.local_checks = plant.is_none();
        rig.time_out(1)?;
        rig.run(20)
    });
    finds(Plant::OverlooksDivergence, |plant| {
        let mut rig = cluster(3, &[2], plant);
        rig.local_checks = plant.is_none();
        rig.time_out(1)?;
        rig.settle_without(&[2])?;
        let chain = batches(6, 6);
        let append = Message::Append {
            prev: chain[1].header.position(),
            batches: chain[2..].to_vec(),
            commit: Index(6),
        };
        say(&mut rig, 1, 2, 2, append)?;
        rig.flush(2)?;
        ensure(rig.raft(2).commit() < Index(3), "it commits what it holds")
    });
}

#[test]
fn rule_09_a_load_that_is_not_of_the_log_is_dropped() {
    finds(Plant::TakesAnyLoad, |plant| {
        let mut rig = led(3, 4, plant);
        rig.crash(2, 0);
        rig.tick(1)?;
        rig.tick(1)?;
        let prev = *rig.raft(2).headers().next().expect("four entries");
        let other = body(99)
            .seal(GROUP, &prev.position(), Term(1))
            .expect("room");
        for _ in 0..20 {
            for envelope in core::mem::take(&mut rig.network) {
                rig.deliver(envelope)?;
            }
            if let Some(load) = rig.node_mut(2).loads.pop_front() {
                let result = Ok([other.clone()].into());
                let load = load.id;
                rig.step(2, Input::Completed(Completion::Loaded { load, result }))?;
            }
        }
        Ok(())
    });
}

#[test]
fn rule_18_a_wiped_node_does_not_vote_as_new() {
    // Node 3 has acknowledged what node 2 lacks, and forgets it with its disk.
    finds(Plant::WipedVotesAsNew, |plant| {
        let mut rig = led(3, 2, plant);
        rig.propose(1)?;
        rig.settle_without(&[2])?;
        rig.crash_wiped(3);
        rig.network.clear();
        for _ in 0..60 {
            for id in [2, 3] {
                rig.tick(id)?;
            }
            rig.settle_without(&[1])?;
        }
        Ok(())
    });
}

#[test]
fn rule_15_a_leader_forgets_what_a_damaged_node_has_acknowledged() {
    // Below a match nothing is ever asked for: what is lost there would not come back.
    finds(Plant::KeepsLostMatch, |plant| {
        let mut rig = led(3, 5, plant);
        rig.crash_with(3, |disk| disk.lose_end(2));
        rig.run(100)?;
        ensure(rig.raft(3).damage_status().is_none(), "never whole again")
    });
}

#[test]
fn rule_15_an_earlier_lifes_word_counts_no_more() {
    finds(Plant::CountsEarlierLives, |plant| {
        let mut rig = led(3, 5, plant);
        let life = rig.raft(3).incarnation();
        rig.crash_with(3, |disk| disk.lose_end(2));
        let report = Message::DamageReport {
            lost_suffix: true,
            needs_snapshot: None,
        };
        say(&mut rig, 3, 1, 1, report)?;
        let held = AppendReply::Accepted { matched: Index(5) };
        rig.deliver(of_life(life, 3, 1, 1, Message::AppendReply(held)))?;
        let matched = rig.raft(1).progress(NodeId(3)).expect("a member").matched;
        ensure(matched == Index(0), "what is lost counts again")
    });
}

#[test]
fn rule_15_what_one_leader_said_says_nothing_of_anothers_log() {
    finds(Plant::HealsUnderAnyLeader, |plant| {
        let mut rig = led(3, 5, plant);
        rig.crash_with(3, |disk| disk.lose_end(2));
        let (asker, to) = (rig.raft(3).incarnation(), Index(2));
        let round = 90;
        let commit = Index(0);
        let heartbeat = Message::Heartbeat { commit, round };
        say(&mut rig, 1, 3, 1, heartbeat.clone())?;
        say(&mut rig, 1, 3, 1, Message::Heal { asker, to })?;
        say(&mut rig, 2, 3, 2, heartbeat)?;
        let probe = Message::Append {
            prev: rig.raft(3).last(),
            batches: Vec::new(),
            commit,
        };
        say(&mut rig, 2, 3, 2, probe)?;
        rig.flush(3)?;
        let still = rig.raft(3).damage_status().is_some_and(|d| d.lost_suffix);
        ensure(still, "whole under a leader that was not asked")
    });
}

#[test]
fn rule_15_what_an_earlier_life_was_told_heals_nothing() {
    finds(Plant::TakesOldHeal, |plant| {
        let mut rig = led(3, 5, plant);
        rig.crash_with(3, |disk| disk.lose_end(2));
        let asker = Incarnation(rig.raft(3).incarnation().0 - 1);
        let probe = Message::Append {
            prev: rig.raft(3).last(),
            batches: Vec::new(),
            commit: Index(0),
        };
        say(&mut rig, 1, 3, 1, probe)?;
        let to = Index(0);
        say(&mut rig, 1, 3, 1, Message::Heal { asker, to })?;
        rig.flush(3)?;
        let still = rig.raft(3).damage_status().is_some_and(|d| d.lost_suffix);
        ensure(still, "whole by an answer that was not for this life")
    });
}

#[test]
fn rule_26_an_answer_to_an_earlier_life_answers_no_read() {
    finds(Plant::ReadsOfEarlierLives, |plant| {
        let mut rig = led(3, 2, plant);
        rig.read(2, ReadBasis::Quorum)?;
        // The leader confirms itself with node 3; the answer travels for long.
        let mut answer = None;
        while answer.is_none() {
            for envelope in core::mem::take(&mut rig.network) {
                if matches!(envelope.message, Message::ReadIndexReply { .. }) {
                    answer = Some(envelope);
                } else {
                    rig.deliver(envelope)?;
                }
            }
        }
        rig.propose(1)?;
        rig.settle()?;
        rig.crash(2, 0);
        rig.run(4)?;
        rig.read(2, ReadBasis::Quorum)?;
        rig.network.clear();
        rig.deliver(answer.expect("taken above"))
    });
}

/// A node that campaigns in term 1 and whose request is on its way.
fn campaigning(nodes: u64, plant: Option<Plant>) -> Result<Rig, String> {
    let mut rig = Rig::with(nodes, &[], |id| Config {
        pre_vote: false,
        ..Config::new(id, GROUP, 1)
    });
    rig.plant = plant;
    rig.local_checks = plant.is_none();
    if let Some(plant) = plant {
        (1..=nodes).for_each(|id| rig.node_mut(id).raft.plant(plant));
    }
    rig.time_out(1)?;
    rig.flush(1)?;
    Ok(rig)
}

#[test]
fn a_grant_that_comes_twice_counts_once() {
    finds(Plant::CountsVotesTwice, |plant| {
        let mut rig = campaigning(5, plant)?;
        for _ in 0..2 {
            say(&mut rig, 2, 1, 1, Message::VoteReply { granted: true })?;
        }
        ensure(rig.raft(1).role() == RoleKind::Candidate, "it leads")
    });
}

#[test]
fn a_candidate_follows_the_leader_of_its_term() {
    finds(Plant::CandidateIgnoresLeader, |plant| {
        let mut rig = campaigning(3, plant)?;
        let round = 1;
        let commit = Index(0);
        say(&mut rig, 2, 1, 1, Message::Heartbeat { commit, round })?;
        ensure(rig.raft(1).leader() == Some(NodeId(2)), "it campaigns on")
    });
}

#[test]
fn whoever_is_asked_for_a_vote_in_its_own_term_stays_what_it_is() {
    finds(Plant::SameTermVoteDeposes, |plant| {
        let mut rig = led(3, 2, plant);
        let last = rig.raft(2).last().id;
        let term = rig.raft(1).term().0;
        let last = LogId {
            term: Term(term - 1),
            ..last
        };
        let forced = true;
        say(&mut rig, 2, 1, term, Message::Vote { last, forced })?;
        ensure(rig.raft(1).role() == RoleKind::Leader, "it follows")
    });
}

#[test]
fn a_later_term_wins_over_a_longer_log() {
    // With both asked for, each of two nodes refuses the other for ever.
    finds(Plant::VoteNeedsBoth, |plant| {
        let mut rig = Rig::new(2, 1);
        rig.plant = plant;
        rig.seed_log(1, 2, &[1, 1, 1]);
        rig.seed_log(2, 2, &[2]);
        rig.run(300)?;
        ensure(rig.leader() == Some(2), "nobody leads")
    });
}

#[test]
fn a_new_leader_speaks_at_once() {
    finds(Plant::SilentWin, |plant| {
        let mut rig = campaigning(3, plant)?;
        rig.network.clear();
        say(&mut rig, 2, 1, 1, Message::VoteReply { granted: true })?;
        let appends = |e: &Envelope| matches!(e.message, Message::Append { .. });
        ensure(rig.network.iter().any(appends), "it is silent")
    });
}

#[test]
fn a_refusal_leads_back_to_what_may_be_shared_not_to_the_beginning() {
    finds(Plant::ResendsFromStart, |plant| {
        let mut rig = Rig::new(2, 1);
        rig.plant = plant;
        rig.seed_log(1, 3, &[&[1; 30][..], &[3]].concat());
        rig.seed_log(2, 3, &[&[1; 30][..], &[2]].concat());
        rig.time_out(1)?;
        let mut sent = 0;
        for _ in 0..40 {
            for envelope in core::mem::take(&mut rig.network) {
                if let Message::Append { batches, .. } = &envelope.message {
                    sent += batches.len();
                }
                rig.deliver(envelope)?;
            }
            for id in [1, 2] {
                rig.flush(id)?;
                rig.answer_load(id)?;
            }
        }
        if rig.raft(2).last() != rig.raft(1).last() {
            return Err(String::from("the logs never agree"));
        }
        ensure(sent <= 4, "all of it again")
    });
}
