//! Quorums as pure functions, compared with their definitions over every small case.

use duraft_core::{Membership, NodeId};
use std::collections::BTreeSet;

fn members(n: u64) -> Vec<NodeId> {
    // Sparse, and with both ends of the range.
    let sparse = [0, 3, 7, 11, 500, 1 << 40, u64::MAX - 1, u64::MAX, 42];
    sparse
        .into_iter()
        .take(usize::try_from(n).expect("small"))
        .map(NodeId)
        .collect()
}

#[test]
fn quorum_all_sizes() {
    // Every subset of 1 to 9 voters: a quorum exactly if it has more than half of them; repeats and
    // strangers change nothing.
    for n in 1..=9_u64 {
        let voters = members(n);
        let membership = Membership::new(voters.clone(), [NodeId(77)]).expect("usable");
        for set in 0..1_u32 << n {
            let yes: Vec<NodeId> = (0..voters.len())
                .filter(|bit| set & (1 << bit) != 0)
                .map(|bit| voters[bit])
                .collect();
            let majority = u64::from(set.count_ones()) * 2 > n;
            assert_eq!(
                membership.is_quorum(yes.clone()),
                majority,
                "{yes:?} of {n}"
            );
            let noisy = yes
                .iter()
                .chain(&yes)
                .copied()
                .chain([NodeId(77), NodeId(78)]);
            assert_eq!(membership.is_quorum(noisy), majority);
        }
    }
}

#[test]
fn quorum_any_two_quorums_share_a_voter() {
    for n in 1..=7_u64 {
        let voters = members(n);
        let membership = Membership::new(voters.clone(), []).expect("usable");
        let quorums: Vec<BTreeSet<NodeId>> = (0..1_u32 << n)
            .map(|set| {
                let in_set = (0..voters.len()).filter(|bit| set & (1 << bit) != 0);
                in_set.map(|bit| voters[bit]).collect::<BTreeSet<NodeId>>()
            })
            .filter(|set| membership.is_quorum(set.iter().copied()))
            .collect();
        for a in &quorums {
            for b in &quorums {
                assert!(a.intersection(b).next().is_some());
            }
        }
    }
}

/// The definition: the largest value that more than half of the voters have reached.
fn commit_by_definition(matched: &[u64]) -> u64 {
    (0..=*matched.iter().max().expect("voters"))
        .rev()
        .find(|index| matched.iter().filter(|m| *m >= index).count() * 2 > matched.len())
        .expect("all have reached 0")
}

#[test]
fn quorum_commit_index_equals_its_definition_in_all_small_cases() {
    // Every vector of match indices 0..=3 for 1 to 6 voters, 0..=2 for 7, 0..=1 for 8 and 9.
    for n in 1..=9_usize {
        let values: u64 = match n {
            1..=6 => 4,
            7 => 3,
            _ => 2,
        };
        let voters = members(n as u64);
        let membership = Membership::new(voters.clone(), []).expect("usable");
        for case in 0..values.pow(u32::try_from(n).expect("small")) {
            let matched: Vec<u64> = (0..n)
                .map(|i| case / values.pow(u32::try_from(i).expect("small")) % values)
                .collect();
            let value_of = |id| {
                let at = voters.iter().position(|voter| *voter == id);
                matched[at.expect("a voter")]
            };
            let found = membership.quorum_value(0, value_of);
            assert_eq!(found, commit_by_definition(&matched), "{matched:?}");
        }
    }
}
