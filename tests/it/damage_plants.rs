//! Tests of the tests of damage: each rule that a damaged node keeps is taken out of the core, and the
//! situations of `damage.rs`, the damage table or the swarm must notice.

use crate::damage;
use crate::damage_table::first_wrong;
use duraft_core::Plant;
use duraft_tests::sim::options;
use duraft_tests::swarm::{Rot, Swarm};
use duraft_tests::{quietly, with_plant};

/// What the situation says when this fault is planted.
fn fails_with(plant: Plant, situation: fn(), word: &str) {
    situation();
    let said = quietly(|| with_plant(plant, situation));
    let said = said.expect_err("the fault is not noticed");
    assert!(said.contains(word), "{plant:?}: {said}");
}

#[test]
fn checks_each_rule_of_damage_fails_a_situation_when_it_is_taken_out() {
    const PROMISE: &str = "R13-R16 a damaged node promises nothing it may not keep";
    fails_with(
        Plant::ForgetsFloor,
        damage::rule_15_a_damaged_node_votes_for_no_less_than_it_may_have_acknowledged,
        PROMISE,
    );
    fails_with(
        Plant::VotesWithLostSuffix,
        damage::rule_15_a_node_with_an_unknown_end_abstains_until_a_leader_has_made_it_whole,
        PROMISE,
    );
    fails_with(
        Plant::VotesWithLostSuffix,
        damage::seed_raftbare_a12_a_wiped_voter_rejoins_and_never_votes_as_new,
        PROMISE,
    );
    fails_with(
        Plant::TrustsLostVote,
        damage::rule_14_a_node_that_lost_its_vote_asks_every_other_voter_first,
        PROMISE,
    );
    fails_with(
        Plant::AsksMajority,
        damage::rule_14_the_terms_of_a_majority_are_not_enough_with_five_voters,
        "H4 leader completeness",
    );
    fails_with(
        Plant::FillsUnproven,
        damage::rule_16_what_does_not_join_fills_no_gap,
        "R13 survivors lie behind the gap",
    );
}

#[test]
fn checks_a_forgotten_floor_is_found_by_the_damage_table() {
    // With real logs: n1 and n3 elect a leader that lacks what n1 had acknowledged.
    let wrong = with_plant(Plant::ForgetsFloor, || first_wrong(61));
    let wrong = wrong.expect("an acknowledged entry is lost");
    assert!(wrong.contains("has applied"), "{wrong}");
}

#[test]
fn checks_faults_of_damage_are_found_by_the_swarm() {
    for plant in [
        Plant::ForgetsFloor,
        Plant::VotesWithLostSuffix,
        Plant::TrustsLostVote,
        Plant::FillsUnproven,
    ] {
        let found = (0..300).find_map(|seed| {
            let make = |voters, seed| options(voters, seed).fast().planted(plant, true);
            let life = || Swarm::new(seed, Rot::Any, make).first_broken(250);
            quietly(life).unwrap_or_else(Some).map(|why| (seed, why))
        });
        assert!(found.is_some(), "{plant:?} is missed");
    }
}
