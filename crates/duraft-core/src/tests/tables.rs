//! Tables: the pure functions of membership against definitions that were written down independently, in
//! other terms, over all small cases.

use crate::role::Ballot;
use crate::*;
use alloc::vec;
use alloc::vec::Vec;

/// Nodes of the tables are 1 to 4; a set of them is four bits.
const NODES: u32 = 4;
const SETS: u32 = 1 << NODES;

fn node(i: u32) -> NodeId {
    NodeId(u64::from(i) + 1)
}

fn set(bits: u32) -> Vec<NodeId> {
    (0..NODES)
        .filter(|i| bits >> i & 1 == 1)
        .map(node)
        .collect()
}

/// More than half of `of`, by counting.
fn majority(of: u32, yes: u32) -> bool {
    2 * (of & yes).count_ones() > of.count_ones()
}

/// The bytes of a membership as its documentation lays them out.
fn bytes(leave: u8, lists: [&[NodeId]; 3], promotions: &[(NodeId, NodeId)]) -> Vec<u8> {
    let mut out = vec![1, leave];
    for count in lists
        .map(<[NodeId]>::len)
        .into_iter()
        .chain([promotions.len()])
    {
        out.extend((count as u16).to_le_bytes());
    }
    let promoted = promotions.iter().flat_map(|(id, old)| [*id, *old]);
    for id in lists.concat().into_iter().chain(promoted) {
        out.extend(id.0.to_le_bytes());
    }
    out
}

fn joint(incoming: u32, outgoing: u32) -> Membership {
    let encoded = bytes(1, [&set(incoming), &set(outgoing), &[]], &[]);
    Membership::decode(&encoded).unwrap()
}

/// All joint memberships of four nodes, and the sides they are of.
fn joints() -> impl Iterator<Item = (u32, u32, Membership)> {
    let pairs = (1..SETS).flat_map(|incoming| (1..SETS).map(move |outgoing| (incoming, outgoing)));
    pairs.map(|(incoming, outgoing)| (incoming, outgoing, joint(incoming, outgoing)))
}

#[test]
fn a_joint_quorum_is_a_majority_of_both_sides() {
    for (incoming, outgoing, membership) in joints() {
        for yes in 0..SETS {
            let expected = majority(incoming, yes) && majority(outgoing, yes);
            assert_eq!(
                membership.is_quorum(set(yes)),
                expected,
                "{membership:?}, {yes:b}"
            );
        }
        for (i, id) in (0..NODES).map(|i| (i, node(i))) {
            assert_eq!(membership.is_voter(id), (incoming | outgoing) >> i & 1 == 1);
        }
        assert_eq!(
            membership.voters().count() as u32,
            (incoming | outgoing).count_ones(),
            "each voter once"
        );
    }
}

#[test]
fn what_a_joint_quorum_has_reached_equals_its_definition() {
    // The largest value such that those who have reached it are a majority of both sides.
    for (incoming, outgoing, membership) in joints() {
        for table in 0..3u64.pow(NODES) {
            let value = |i: u32| table / 3u64.pow(i) % 3;
            let reached = |v: u64| {
                (0..NODES)
                    .filter(|i| value(*i) >= v)
                    .fold(0, |s, i| s | 1 << i)
            };
            let decides =
                |v: &u64| majority(incoming, reached(*v)) && majority(outgoing, reached(*v));
            let expected = (0..3).rev().find(decides).unwrap();
            let found = membership.quorum_value(0, |id| value(id.0 as u32 - 1));
            assert_eq!(found, expected, "{membership:?}, {table}");
        }
    }
}

#[test]
fn a_ballot_is_won_by_a_quorum_and_lost_when_none_can_come_about() {
    for (incoming, outgoing, membership) in joints() {
        let decides = |yes| majority(incoming, yes) && majority(outgoing, yes);
        for granted in 0..SETS {
            for refused in (0..SETS).filter(|refused| refused & granted == 0) {
                let ballot = Ballot {
                    granted: set(granted).into_iter().collect(),
                    refused: set(refused).into_iter().collect(),
                };
                // Whatever those say who have not spoken.
                let possible = (0..SETS).any(|more| more & refused == 0 && decides(granted | more));
                assert_eq!(ballot.is_won(&membership), decides(granted));
                assert_eq!(ballot.is_lost(&membership), !possible);
            }
        }
    }
}

/// What a node is, in the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Stranger,
    Voter,
    Learner,
    /// A learner that becomes a voter, and whom it replaces.
    Coming(Option<u32>),
}

type Model = [Part; NODES as usize];

fn voters(model: &Model) -> u32 {
    let voting = (0..NODES).filter(|i| model[*i as usize] == Part::Voter);
    voting.fold(0, |s, i| s | 1 << i)
}

fn encode(model: &Model, outgoing: Option<u32>) -> Vec<u8> {
    let learns = |i: &u32| matches!(model[*i as usize], Part::Learner | Part::Coming(_));
    let learners: Vec<NodeId> = (0..NODES).filter(learns).map(node).collect();
    let promotions: Vec<(NodeId, NodeId)> = (0..NODES)
        .filter_map(|i| match model[i as usize] {
            Part::Coming(old) => Some((node(i), node(old.unwrap_or(i)))),
            Part::Stranger | Part::Voter | Part::Learner => None,
        })
        .collect();
    let old = set(outgoing.unwrap_or(0));
    let leave = if outgoing.is_some() { 2 } else { 0 };
    bytes(leave, [&set(voters(model)), &old, &learners], &promotions)
}

/// One change, as what it makes of a node.
fn parts() -> Vec<Part> {
    let replacing = (0..NODES).map(|old| Part::Coming(Some(old)));
    let others = [
        Part::Stranger,
        Part::Voter,
        Part::Learner,
        Part::Coming(None),
    ];
    others.into_iter().chain(replacing).collect()
}

fn in_words(i: u32, part: Part) -> MemberChange {
    let id = node(i);
    match part {
        Part::Stranger => MemberChange::Remove(id),
        Part::Voter => MemberChange::AddVoter(id),
        Part::Learner => MemberChange::AddLearner {
            id,
            promotion: Promotion::Never,
        },
        Part::Coming(old) => MemberChange::AddLearner {
            id,
            promotion: Promotion::WhenCaughtUp {
                replacing: old.map(node),
            },
        },
    }
}

/// What the list makes of the cluster, or the first thing that is wrong with it.
fn expect(before: &Model, list: &[(u32, Part)]) -> Result<(Model, Option<u32>), ChangeError> {
    let mut after = *before;
    for (n, (i, part)) in list.iter().enumerate() {
        if list[..n].iter().any(|(earlier, _)| earlier == i) {
            return Err(ChangeError::NamedTwice(node(*i)));
        }
        let was = after[*i as usize];
        if *part == Part::Stranger && was == Part::Stranger {
            return Err(ChangeError::NotMember(node(*i)));
        }
        // A voter that becomes a learner is none any more: it cannot be replaced, not by itself either.
        after[*i as usize] = Part::Learner;
        if let Part::Coming(Some(old)) = part
            && after[*old as usize] != Part::Voter
        {
            return Err(ChangeError::NotVoter(node(*old)));
        }
        after[*i as usize] = *part;
    }
    for i in 0..NODES as usize {
        if let Part::Coming(Some(old)) = after[i]
            && after[old as usize] != Part::Voter
        {
            after[i] = Part::Coming(None);
        }
    }
    if after == *before {
        return Err(ChangeError::Nothing);
    }
    if voters(&after) == 0 {
        return Err(ChangeError::NoVoters);
    }
    let old = voters(before);
    Ok((after, (voters(&after) != old).then_some(old)))
}

/// All memberships of four nodes that are not joint and can decide.
fn models() -> Vec<Model> {
    let kinds = parts();
    let count = kinds.len().pow(NODES);
    let all = (0..count).map(|n| {
        let mut model = [Part::Stranger; NODES as usize];
        for (i, part) in model.iter_mut().enumerate() {
            *part = kinds[n / kinds.len().pow(i as u32) % kinds.len()];
        }
        model
    });
    let sound = |model: &Model| {
        voters(model) != 0
            && model.iter().all(|part| match part {
                Part::Coming(Some(old)) => model[*old as usize] == Part::Voter,
                Part::Stranger | Part::Voter | Part::Learner | Part::Coming(None) => true,
            })
    };
    all.filter(sound).collect()
}

#[test]
fn every_small_change_leads_where_its_definition_says() {
    let single: Vec<(u32, Part)> = (0..NODES)
        .flat_map(|i| parts().into_iter().map(move |part| (i, part)))
        .collect();
    let mut lists: Vec<Vec<(u32, Part)>> = vec![vec![]];
    for a in &single {
        lists.push(vec![*a]);
        for b in &single {
            lists.push(vec![*a, *b]);
        }
    }
    let longest: Vec<Vec<(u32, Part)>> = (lists.iter().filter(|list| list.len() == 2))
        .flat_map(|list| single.iter().map(|c| [&list[..], &[*c]].concat()))
        .collect();
    let models = models();
    let (mut changed, mut refused) = (0u32, 0u32);
    for (n, model) in models.iter().enumerate() {
        let before = Membership::decode(&encode(model, None)).unwrap();
        // Every membership meets every list of two, and every list of three a seventh of them.
        let share = longest.iter().skip(n % 7).step_by(7);
        for list in lists.iter().chain(share) {
            let words: Vec<MemberChange> =
                list.iter().map(|(i, part)| in_words(*i, *part)).collect();
            let found = before.change(&words, Leave::Explicit);
            match expect(model, list) {
                Ok((after, outgoing)) => {
                    let after_bytes = encode(&after, outgoing);
                    let found = found.unwrap_or_else(|e| panic!("{before:?}, {words:?}: {e}"));
                    assert_eq!(found.encode(), after_bytes, "{before:?}, {words:?}");
                    assert_eq!(Membership::decode(&after_bytes).as_ref(), Ok(&found));
                    assert_eq!(found.is_joint(), outgoing.is_some());
                    let left = found.left().map(|left| left.encode());
                    assert_eq!(left, outgoing.map(|_| encode(&after, None)));
                    let again = found.change(&words, Leave::Explicit);
                    assert!(outgoing.is_none() || again == Err(ChangeError::Joint));
                    changed += 1;
                }
                Err(error) => {
                    assert_eq!(found, Err(error), "{before:?}, {words:?}");
                    refused += 1;
                }
            }
        }
    }
    std::eprintln!(
        "{} memberships, {changed} changes, {refused} refusals",
        models.len()
    );
    assert!(changed > 200_000 && refused > 2_000_000);
}

#[test]
fn any_two_consecutive_memberships_share_a_voter_in_any_two_quorums() {
    // Old and joint, joint and new: there is no moment in which two halves could decide apart.
    for (incoming, outgoing, joint) in joints() {
        for yes in 0..SETS {
            let others = !yes & (SETS - 1);
            if joint.is_quorum(set(yes)) {
                assert!(!majority(outgoing, others) && !majority(incoming, others));
            }
        }
    }
}

#[test]
fn one_membership_has_one_encoding() {
    // Two encodings of one membership would be two contents for one entry.
    let sample = models().into_iter().step_by(23);
    for (n, model) in sample.enumerate() {
        let outgoing = (n % 2 == 0).then_some(1 + n as u32 % (SETS - 1));
        let good = encode(&model, outgoing);
        assert_eq!(Membership::decode(&good).unwrap().encode(), good);
        for at in 0..good.len() {
            for delta in [1, 2, 255] {
                let mut bad = good.clone();
                bad[at] = bad[at].wrapping_add(delta);
                if let Ok(membership) = Membership::decode(&bad) {
                    assert_eq!(membership.encode(), bad, "byte {at} of {good:?}");
                }
            }
        }
        for len in 0..good.len() {
            assert!(Membership::decode(&good[..len]).is_err());
        }
        let long = [&good[..], &[0]].concat();
        assert!(Membership::decode(&long).is_err());
    }
}
