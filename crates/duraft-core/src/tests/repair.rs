//! How long it takes to make a divergent follower's log the leader's: counted in round trips of the
//! append exchange. A search that goes back entry by entry takes one for each entry; ours leaves out at
//! least one whole term of one of the logs each time.

use super::rig::*;
use crate::*;
use alloc::vec::Vec;
use std::eprintln;

/// So many divergent entries.
const ENTRIES: u64 = 10_000;

/// `entries` in terms that change where `term` says so, in batches of at most `size`. What is in a log
/// depends on the term only, so that two logs agree where their terms do.
fn log(entries: u64, size: u64, term: impl Fn(u64) -> u64) -> Vec<Batch> {
    let mut end = Position::START;
    let mut batches = Vec::new();
    while end.index().0 < entries {
        let first = end.index().0;
        let here = term(first);
        let count = (1..size)
            .take_while(|i| first + i < entries && term(first + i) == here)
            .count();
        let count = u32::try_from(1 + count).expect("small");
        let body = Body {
            kind: BatchKind::Commands,
            codec: 0,
            count,
            checksum: 7,
            bytes: bytes::Bytes::from(alloc::vec![0; 4 * count as usize]),
        };
        let batch = body.seal(GROUP, &end, Term(here)).expect("room");
        end = batch.header.position();
        batches.push(batch);
    }
    batches
}

/// A leader and a follower with these logs: round trips until the follower's is the leader's.
fn round_trips(ours: &[Batch], theirs: &[Batch], plant: Option<Plant>) -> u64 {
    let mut rig = Rig::new(2, 1);
    rig.plant = plant;
    // The logs are large, and every step of theirs is checked elsewhere.
    rig.local_checks = false;
    let newest = |batches: &[Batch]| batches.last().map_or(Term(0), |batch| batch.header.term);
    for (id, batches) in [(1, ours), (2, theirs)] {
        let config = rig.node(id).config.clone();
        let mut image = rig.node(id).durable.clone();
        image.batches = batches.to_vec();
        image.end = (batches.last()).map_or(Position::START, |batch| batch.header.position());
        image.hard_state.term = newest(ours).max(newest(theirs));
        rig.boot(config, image, Incarnation(1));
    }
    rig.time_out(1).unwrap();
    let mut trips = 0;
    let mut waves = 0;
    while rig.raft(2).durable() < rig.raft(1).last().index() || rig.raft(1).commit() == Index(0) {
        waves += 1;
        assert!(waves < 10_000, "the logs never agree");
        // What the leader has to say goes there; what the follower answers comes back.
        rig.flush(1).unwrap();
        while !rig.node(1).loads.is_empty() {
            rig.answer_load(1).unwrap();
        }
        let (to_follower, to_leader): (Vec<_>, Vec<_>) = (core::mem::take(&mut rig.network))
            .into_iter()
            .partition(|envelope| envelope.to == NodeId(2));
        let appends = |e: &&Envelope| matches!(e.message, Message::Append { .. });
        trips += u64::from(to_follower.iter().any(|e| appends(&e)));
        (to_follower.into_iter()).for_each(|envelope| rig.deliver(envelope).unwrap());
        rig.flush(2).unwrap();
        (to_leader.into_iter()).for_each(|envelope| rig.deliver(envelope).unwrap());
    }
    assert_eq!(rig.raft(2).last(), rig.raft(1).last());
    trips
}

/// What the two logs look like behind what they have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// The follower has k terms the leader has never seen; the leader goes on in a later one.
    FollowersTerms,
    /// The follower has k terms, the leader nothing.
    Cut,
    /// k terms on each side, each between two of the other.
    Interleaved,
    /// One entry of each of the k terms, then the rest in the last.
    Short,
    /// The follower has one term, the leader k later ones.
    LeadersTerms,
}

/// Both logs: `common` entries of term 1 and then as the shape says.
fn logs(shape: Shape, k: u64, size: u64) -> (Vec<Batch>, Vec<Batch>) {
    let common = 25;
    let all = common + ENTRIES;
    // The i-th of k equal parts.
    let part = move |at: u64| (at - common) * k / ENTRIES;
    let behind = |at: u64, term: &dyn Fn(u64) -> u64| if at < common { 1 } else { term(at) };
    let even = |at| behind(at, &|at| 2 + 2 * part(at));
    let odd = |at| behind(at, &|at| 3 + 2 * part(at));
    match shape {
        Shape::FollowersTerms => (
            log(all, size, |at| behind(at, &|_| 2 * k + 4)),
            log(all, size, even),
        ),
        Shape::Cut => {
            // Elected by its term: the follower's entries are of dead leaders.
            let mut ours = log(common, size, |_| 1);
            let last = ours.last().expect("common entries").header.position();
            ours.push(body(1).seal(GROUP, &last, Term(2 * k + 4)).expect("room"));
            (ours, log(all, size, even))
        }
        Shape::Interleaved => (log(all, size, odd), log(all, size, even)),
        Shape::Short => {
            let few = |at| behind(at, &|at| 2 + 2 * (at - common).min(k - 1));
            let fewer = |at| behind(at, &|at| 3 + 2 * (at - common).min(k - 1));
            (log(all, size, fewer), log(all, size, few))
        }
        Shape::LeadersTerms => (log(all, size, odd), log(all, size, |at| behind(at, &|_| 2))),
    }
}

#[test]
fn ten_thousand_divergent_entries_in_k_terms_take_at_most_k_and_two_round_trips() {
    for shape in [
        Shape::FollowersTerms,
        Shape::Cut,
        Shape::Interleaved,
        Shape::Short,
        Shape::LeadersTerms,
    ] {
        // Batches of one entry are many: there, the largest k alone.
        let every: Vec<u64> = (1..=20).collect();
        for (size, ks) in [(1, &[20][..]), (7, &[1, 5, 13]), (100, &every)] {
            let mut line = alloc::string::String::new();
            for k in ks.iter().copied() {
                let (ours, theirs) = logs(shape, k, size);
                let trips = round_trips(&ours, &theirs, None);
                line += &alloc::format!(" {trips}");
                assert!(
                    trips <= k + 2,
                    "{shape:?}, batches of {size}, {k} terms: {trips}"
                );
            }
            eprintln!("{shape:?}, batches of {size}: round trips for k in {ks:?}:{line}");
        }
    }
}

#[test]
fn a_search_entry_by_entry_is_found() {
    let (ours, theirs) = logs(Shape::Interleaved, 2, 1_000);
    assert_eq!(round_trips(&ours, &theirs, None), 4);
    let trips = round_trips(&ours, &theirs, Some(Plant::SearchesEntryByEntry));
    assert!(trips > 10, "{trips} for ten batches of two terms");
}
