//! Batches from whoever has them: whom to ask and when, what is told, and what is held meanwhile.

use super::rig::*;
use crate::*;
use alloc::vec::Vec;

/// What each batch here costs.
const COST: u64 = 76;

/// Three nodes hold ten batches, none leads, and node 3 has lost all but the first and the last.
fn gap(change: impl Fn(&mut Config)) -> Rig {
    let mut rig = Rig::with(3, &[], |id| {
        let mut config = Config::new(id, GROUP, 1);
        change(&mut config);
        config
    });
    (1..=3).for_each(|id| rig.seed_log(id, 1, &[1; 10]));
    rig.crash_with(3, |disk| disk.lose(2..=9));
    rig
}

/// Questions on their way: whom to, and what they follow.
fn questions(rig: &Rig) -> Vec<(u64, Position)> {
    let mut found = Vec::new();
    for envelope in &rig.network {
        if let Message::Fetch { after } = envelope.message {
            found.push((envelope.to.0, after));
        }
    }
    found
}

fn position(rig: &Rig, id: u64, count: usize) -> Position {
    let before = count.checked_sub(1);
    before.map_or(Position::START, |at| {
        rig.raft(id).headers().nth(at).unwrap().position()
    })
}

/// Lets node 1 answer a question: the batches it tells.
fn told(rig: &mut Rig, after: Position) -> Vec<Index> {
    rig.network.clear();
    rig.deliver(said(3, 1, 1, Message::Fetch { after }))
        .unwrap();
    rig.answer_load(1).unwrap();
    let answer = rig.network.pop().expect("an answer");
    let Message::Fetched { after: to, batches } = answer.message else {
        panic!("{answer:?}");
    };
    assert_eq!((to, answer.to), (after, NodeId(3)));
    batches.iter().map(|batch| batch.header.first).collect()
}

#[test]
fn who_does_not_answer_is_followed_by_the_next_after_two_heartbeat_intervals() {
    // Too often, and a slow disk is asked by everybody at once; never, and one dead node is enough.
    let mut rig = gap(|_| ());
    let mut asked = Vec::new();
    for tick in 1..=9 {
        rig.tick(3).unwrap();
        asked.extend(questions(&rig).into_iter().map(|(to, _)| (tick, to)));
        rig.network.clear();
        if rig.raft(3).role() != RoleKind::Follower {
            panic!("a damaged node does not campaign");
        }
    }
    assert_eq!(asked, [(1, 1), (5, 2), (9, 1)]);
    // Its leader is asked first.
    let mut rig = gap(|_| ());
    let commit = Index(0);
    rig.deliver(said(2, 3, 1, Message::Heartbeat { commit, round: 1 }))
        .unwrap();
    rig.tick(3).unwrap();
    assert_eq!(questions(&rig)[0].0, 2);
}

#[test]
fn where_nobody_has_it_each_is_asked_once_until_time_passes() {
    // A gap that nobody can fill must not keep everybody busy.
    let mut rig = gap(|_| ());
    for _ in 0..3 {
        (0..4).for_each(|_| rig.tick(3).unwrap());
        let mut asked = 0;
        for _ in 0..10 {
            let open = questions(&rig);
            rig.network.clear();
            asked += open.len();
            for (from, after) in open {
                let batches = Vec::new();
                rig.deliver(said(from, 3, 1, Message::Fetched { after, batches }))
                    .unwrap();
            }
        }
        assert_eq!(asked, 2);
    }
}

#[test]
fn a_question_is_answered_from_where_the_contents_agree_and_with_what_fits() {
    for (limit, count) in [
        (1, 1),
        (COST, 1),
        (2 * COST - 1, 1),
        (2 * COST, 2),
        (4 * COST, 4),
    ] {
        // From memory, and from disk.
        for cache in [1 << 20, 0] {
            let mut rig = Rig::with(3, &[], |id| Config {
                append_bytes_max: limit,
                cache_bytes_max: cache,
                ..Config::new(id, GROUP, 1)
            });
            rig.elect(1).unwrap();
            (0..6).for_each(|_| rig.propose(1).unwrap());
            rig.settle().unwrap();
            rig.run(3).unwrap();
            let after = position(&rig, 1, 1);
            let all: Vec<Index> = (2..2 + count).map(Index).collect();
            assert_eq!(told(&mut rig, after), all, "{limit} {cache}");
            let wrong = Position {
                digest: Digest(1),
                ..after
            };
            assert_eq!(told(&mut rig, wrong), [], "another log");
            let end = rig.raft(1).last();
            assert_eq!(told(&mut rig, end), [], "nothing behind it");
        }
    }
}

#[test]
fn what_is_not_durable_is_told_to_nobody() {
    // It would be written into a gap and could be gone here after the next crash.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    rig.run(2).unwrap();
    let after = rig.raft(1).last();
    (0..3).for_each(|_| rig.propose(1).unwrap());
    rig.sync(1, 2);
    rig.report(1).unwrap();
    assert_eq!(told(&mut rig, after), [Index(2), Index(3)]);
}

#[test]
fn what_the_disk_gives_back_wrongly_is_told_to_nobody() {
    let mut rig = Rig::new(3, 1);
    rig.seed_log(1, 1, &[1; 6]);
    let good = rig.node(1).durable.batches.clone();
    let mut short = good.clone();
    short[3].body = short[3].body.slice(1..);
    let mut other = good.clone();
    other[3].header.digest = Digest(1);
    for (what, batches, count) in [
        ("as it is", &good[1..], 5),
        ("a body cut short", &short[1..], 2),
        ("another content", &other[1..], 2),
        ("from another place", &good[2..], 0),
    ] {
        let after = good[0].header.position();
        rig.network.clear();
        rig.deliver(said(3, 1, 1, Message::Fetch { after }))
            .unwrap();
        let load = rig.node_mut(1).loads.pop_front().unwrap();
        let loaded = Completion::Loaded {
            load: load.id,
            result: Ok(batches.to_vec()),
        };
        rig.step(1, Input::Completed(loaded)).unwrap();
        let Some(Message::Fetched { batches, .. }) = rig.network.pop().map(|e| e.message) else {
            panic!("an answer");
        };
        assert_eq!(batches.len(), count, "{what}");
    }
}

#[test]
fn while_a_batch_for_the_state_machine_is_fetched_the_disk_is_not_asked_again() {
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    (0..3).for_each(|_| rig.propose(1).unwrap());
    rig.run(3).unwrap();
    rig.crash(3, 0);
    while rig.node(3).loads.is_empty() {
        rig.tick(1).unwrap();
        for envelope in core::mem::take(&mut rig.network) {
            rig.deliver(envelope).unwrap();
        }
        rig.flush(3).unwrap();
    }
    let load = rig.node_mut(3).loads.pop_front().unwrap();
    let failed = Completion::Loaded {
        load: load.id,
        result: Err(LoadError::Io),
    };
    rig.step(3, Input::Completed(failed)).unwrap();
    assert_eq!(questions(&rig).len(), 1);
    rig.tick(3).unwrap();
    assert!(rig.node(3).loads.is_empty());
    assert_eq!(rig.raft(3).fetches.held(), (0, 0, 1));
    rig.run(3).unwrap();
    assert_eq!(rig.raft(3).applied(), Index(4));
    assert_eq!(rig.raft(3).fetches.held(), (0, 0, 0));
}
