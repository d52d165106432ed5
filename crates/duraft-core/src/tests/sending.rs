//! Snapshots on their way to a peer: when a transfer is left alone, and when it is begun anew.

use super::rig::*;
use crate::*;
use alloc::vec::Vec;

/// Node 1 leads with a log that begins behind a snapshot, and node 3 has nothing: its transfer begins.
fn sending() -> Rig {
    let mut rig = Rig::new(3, 1);
    rig.set_trailing(0);
    rig.time_out(1).unwrap();
    rig.settle_without(&[3]).unwrap();
    (0..3).for_each(|_| rig.propose(1).unwrap());
    rig.settle_without(&[3]).unwrap();
    rig.take_snapshot(1).unwrap();
    rig.settle_without(&[3]).unwrap();
    assert!(until_sent(&mut rig, 20, |_, _| ()).is_some());
    rig
}

/// Ticks until the next transfer to node 3 begins, while everything but snapshots arrives.
fn until_sent(rig: &mut Rig, most: u32, each: impl Fn(&mut Rig, u32)) -> Option<u32> {
    for tick in 1..=most {
        rig.tick(1).unwrap();
        each(rig, tick);
        for _ in 0..6 {
            for envelope in core::mem::take(&mut rig.network) {
                rig.deliver(envelope).unwrap();
            }
            (1..=3).for_each(|id| rig.flush(id).unwrap());
        }
        if !rig.transfers.is_empty() {
            return Some(tick);
        }
    }
    None
}

fn says(rig: &mut Rig, transfer: &Transfer, progress: SendProgress) {
    rig.report_sending(transfer, progress).unwrap();
}

#[test]
fn a_transfer_is_begun_anew_when_it_leads_nowhere_and_not_before() {
    // Too early, and a slow one never ends; never, and the peer is lost when its host forgets it.
    use SendProgress::{Delivered, Failed, Moving};
    let cases: [(&[SendProgress], Option<u32>); 6] = [
        // Four election timeouts without a sign of it.
        (&[], Some(40)),
        (&[Moving], Some(40)),
        // Two until what was delivered is acknowledged, whatever is said of it later.
        (&[Delivered], Some(20)),
        (&[Delivered, Failed], Some(20)),
        // One where it has failed.
        (&[Failed], Some(10)),
        (&[Failed, Delivered, Moving], Some(10)),
    ];
    for (words, expected) in cases {
        let mut rig = sending();
        let transfer = rig.transfers.pop().unwrap();
        words
            .iter()
            .for_each(|word| says(&mut rig, &transfer, *word));
        let sent = until_sent(&mut rig, 100, |_, _| ());
        let late = sent.zip(expected).map(|(sent, at)| sent.wrapping_sub(at));
        // The next heartbeat after that, and what it leads to.
        assert!(late.is_some_and(|late| late < 5), "{words:?}: {sent:?}");
    }
}

#[test]
fn a_transfer_that_moves_is_left_alone_for_as_long_as_it_takes() {
    let mut rig = sending();
    let transfer = rig.transfers.pop().unwrap();
    let sent = until_sent(&mut rig, 200, |rig, tick| {
        if tick % 30 == 0 {
            says(rig, &transfer, SendProgress::Moving);
        }
    });
    assert_eq!(sent, None);
    let view = rig.raft(1).progress(NodeId(3)).unwrap();
    assert_eq!(view.phase, Phase::Snapshot);
}

#[test]
fn a_word_about_another_transfer_says_nothing_of_this_one() {
    // An older one of the same peer has failed late.
    let mut rig = sending();
    let mut other = rig.transfers.pop().unwrap();
    other.snapshot.position.id.index.0 -= 1;
    says(&mut rig, &other, SendProgress::Failed);
    says(&mut rig, &other, SendProgress::Delivered);
    let sent = until_sent(&mut rig, 100, |_, _| ()).unwrap();
    assert!((40..45).contains(&sent), "{sent}");
}

#[test]
fn a_snapshot_is_asked_for_once_in_an_election_timeout_and_only_where_it_brings_something() {
    // Taking one costs a copy of the whole state.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    (0..3).for_each(|_| rig.propose(1).unwrap());
    rig.settle().unwrap();
    let mut raft = rig.raft(1).clone();
    let mut asked = Vec::new();
    for tick in 0..30 {
        let report = Message::DamageReport {
            lost_suffix: false,
            needs_snapshot: Some(Index(4)),
        };
        let envelope = said(3, 1, 1, report);
        let mut out = Vec::new();
        raft.step(Input::Received(envelope), &mut out);
        if out.contains(&Output::TakeSnapshot) {
            asked.push(tick);
        }
        raft.step(Input::Tick, &mut out);
        // Node 2 is there, so that the leader stays.
        let health = Health::default();
        let alive = said(2, 1, 1, Message::HeartbeatReply { round: 1, health });
        raft.step(Input::Received(alive), &mut out);
    }
    assert_eq!(asked, [0, 10, 20]);
    // All that is applied is in the latest snapshot: another one would not be newer.
    rig.take_snapshot(1).unwrap();
    rig.settle().unwrap();
    let report = Message::DamageReport {
        lost_suffix: false,
        needs_snapshot: Some(Index(9)),
    };
    let envelope = said(3, 1, 1, report);
    rig.deliver(envelope).unwrap();
    assert!(!rig.node(1).snapshot_wanted);
}

#[test]
fn what_nobody_can_read_for_a_peer_is_covered_by_the_snapshot_or_ends_the_leadership() {
    // The snapshot ends behind what the peer needs next, or exactly there, or there is none.
    for (snapshot_at, given) in [
        (None, false),
        (Some(4), false),
        (Some(5), true),
        (Some(7), true),
    ] {
        let mut rig = Rig::with(3, &[], |id| Config {
            cache_bytes_max: 0,
            ..Config::new(id, GROUP, 1)
        });
        rig.elect(1).unwrap();
        (0..3).for_each(|_| rig.propose(1).unwrap());
        rig.settle().unwrap();
        for index in 4..=7 {
            if snapshot_at == Some(index) {
                rig.take_snapshot(1).unwrap();
            }
            rig.propose(1).unwrap();
            rig.settle_without(&[3]).unwrap();
        }
        // Node 3 says where it is; the leader's disk cannot read on, and nobody else is heard.
        rig.tick(1).unwrap();
        rig.tick(1).unwrap();
        while rig.node(1).loads.is_empty() {
            for envelope in core::mem::take(&mut rig.network) {
                if matches!(envelope.to, NodeId(1) | NodeId(3)) {
                    rig.deliver(envelope).unwrap();
                }
            }
            rig.flush(3).unwrap();
        }
        let load = rig.node_mut(1).loads.pop_front().unwrap();
        assert_eq!(load.first, Index(5));
        let failed = Completion::Loaded {
            load: load.id,
            result: Err(LoadError::Io),
        };
        rig.step(1, Input::Completed(failed)).unwrap();
        let mut ticks = 0;
        while rig.raft(1).role() == RoleKind::Leader && rig.transfers.is_empty() && ticks < 60 {
            rig.tick(1).unwrap();
            ticks += 1;
            for envelope in core::mem::take(&mut rig.network) {
                if !matches!(envelope.message, Message::Fetch { .. }) {
                    rig.deliver(envelope).unwrap();
                }
            }
        }
        assert_eq!(!rig.transfers.is_empty(), given, "{snapshot_at:?}");
        let leads = rig.raft(1).role() == RoleKind::Leader;
        assert_eq!(leads, given, "{snapshot_at:?}");
        assert!((20..26).contains(&ticks), "{ticks}");
    }
}
