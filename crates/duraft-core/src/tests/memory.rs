//! Memory stays bounded when something stands still: a peer, a disk, a state machine (I8, L5).

use super::rig::*;
use crate::batch::DESCRIPTOR_BYTES;
use crate::*;
use alloc::vec::Vec;
use bytes::Bytes;
use std::eprintln;

/// Bytes of a proposal's body, and what its batch costs.
const BODY: usize = 1_000;
const COST: u64 = BODY as u64 + DESCRIPTOR_BYTES;

fn config(id: NodeId) -> Config {
    Config {
        // A leader that stays whatever happens.
        stall_ticks: None,
        check_quorum: false,
        max_batch_bytes: 4_096,
        append_bytes_max: 4_096,
        inflight_messages_max: 8,
        inflight_bytes_max: 16_384,
        uncommitted_bytes_max: 40_000,
        unapplied_bytes_max: 20_000,
        cache_bytes_max: 30_000,
        backlog_bytes_max: 80_000,
        unpersisted_bytes_max: 60_000,
        ..Config::new(id, GROUP, 1)
    }
}

/// What stands still for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stuck {
    Nothing,
    FollowersOut,
    FollowerDisk,
    LeaderDisk,
    FollowerMachine,
    LeaderMachine,
}

/// The most of each buffer that was held anywhere.
#[derive(Clone, Copy, Default, Debug)]
struct Peaks {
    uncommitted: u64,
    writing: u64,
    writes: usize,
    cached: u64,
    backlog: u64,
    unapplied: u64,
    inflight: u64,
    messages: usize,
}

impl Peaks {
    fn see(&mut self, raft: &Raft) {
        let (writes, _) = raft.disk.under_way();
        self.uncommitted = self.uncommitted.max(raft.uncommitted_bytes().unwrap_or(0));
        self.writing = self.writing.max(raft.disk.bytes());
        self.writes = self.writes.max(writes);
        self.cached = self.cached.max(raft.log.cached_bytes());
        self.backlog = self.backlog.max(raft.backlog_bytes());
        self.unapplied = self.unapplied.max(raft.unapplied_bytes);
        for peer in [2, 3] {
            if let Some(progress) = raft.progress(NodeId(peer)) {
                self.inflight = self.inflight.max(progress.inflight_bytes);
                self.messages = self.messages.max(progress.inflight_messages);
            }
        }
    }
}

fn commands(number: u64) -> Body {
    let len = u32::try_from(BODY - 4).expect("small");
    let mut bytes = Vec::from(len.to_le_bytes());
    bytes.resize(BODY, 0);
    Body {
        bytes: Bytes::from(bytes),
        ..body(number)
    }
}

/// Node 1 leads, something stops, and proposals keep coming. What was refused, and the peaks.
fn stuck(what: Stuck, plant: Option<Plant>) -> (Vec<Reject>, Peaks, Index) {
    let mut rig = Rig::with(3, &[], config);
    rig.plant = plant;
    for id in 1..=3 {
        if let Some(plant) = plant {
            rig.node_mut(id).raft.plant(plant);
        }
    }
    rig.local_checks = plant.is_none();
    rig.elect(1).unwrap();
    let (disk, machine) = match what {
        Stuck::Nothing | Stuck::FollowersOut => (0, 0),
        Stuck::FollowerDisk => (2, 0),
        Stuck::LeaderDisk => (1, 0),
        Stuck::FollowerMachine => (0, 2),
        Stuck::LeaderMachine => (0, 1),
    };
    let mut peaks = Peaks::default();
    for round in 0..400u64 {
        for i in 0..4 {
            let id = ProposalId(10_000 + 4 * round + i);
            let body = commands(id.0);
            rig.step(1, Input::Propose { id, body }).unwrap();
        }
        if round % 2 == 0 {
            (1..=3).for_each(|id| rig.tick(id).unwrap());
        }
        for envelope in core::mem::take(&mut rig.network) {
            if what != Stuck::FollowersOut || round < 1 {
                rig.deliver(envelope).unwrap();
            }
        }
        (1..=3).for_each(|id| peaks.see(rig.raft(id)));
        for id in 1..=3 {
            if id != disk {
                rig.flush(id).unwrap();
            }
            rig.answer_load(id).unwrap();
            if id != machine {
                rig.report_applied(id).unwrap();
            }
        }
    }
    let mut reasons: Vec<Reject> = Vec::new();
    for response in &rig.node(1).responses {
        if let Response::Rejected { reason, .. } = response
            && !reasons.contains(reason)
        {
            reasons.push(*reason);
        }
    }
    (reasons, peaks, rig.raft(1).commit())
}

#[test]
fn what_stands_still_fills_nothing_without_end() {
    for (what, reason) in [
        (Stuck::Nothing, None),
        (Stuck::FollowersOut, Some(Reject::UncommittedLimit)),
        (Stuck::FollowerDisk, None),
        (Stuck::LeaderDisk, Some(Reject::StorageSaturated)),
        (Stuck::FollowerMachine, None),
        (Stuck::LeaderMachine, Some(Reject::UnappliedLimit)),
    ] {
        let (reasons, peaks, commit) = stuck(what, None);
        let c = config(NodeId(1));
        eprintln!("{what:?}: refused for {reasons:?}, {commit} committed, peaks {peaks:?}");
        assert!(
            reason.is_none_or(|reason| reasons.contains(&reason)),
            "{what:?}: {reasons:?}"
        );
        // The limit, or a batch more where the last one was let in below it; writes weigh 64 bytes more.
        let small = c.unpersisted_bytes_max / COST;
        assert!(
            peaks.uncommitted <= c.uncommitted_bytes_max + COST,
            "{what:?}"
        );
        assert!(peaks.writing <= c.unpersisted_bytes_max + 64 * small + COST);
        assert!(peaks.cached <= c.cache_bytes_max.max(c.unpersisted_bytes_max) + COST);
        assert!(peaks.unapplied <= c.unapplied_bytes_max);
        assert!(peaks.inflight <= c.inflight_bytes_max && peaks.messages <= 8);
        let unlimited = c.backlog_bytes_max + c.uncommitted_bytes_max;
        assert!(
            peaks.backlog <= unlimited + COST,
            "{what:?} {}",
            peaks.backlog
        );
        let goes_on = matches!(
            what,
            Stuck::Nothing | Stuck::FollowerDisk | Stuck::FollowerMachine
        );
        assert_eq!(commit > Index(500), goes_on, "{what:?}: {commit}");
    }
}

#[test]
fn a_node_without_limits_is_found() {
    let c = config(NodeId(1));
    let of = |what| stuck(what, Some(Plant::TakesEverything)).1;
    assert!(of(Stuck::FollowersOut).uncommitted > 10 * c.uncommitted_bytes_max);
    assert!(of(Stuck::LeaderDisk).writing > 10 * c.unpersisted_bytes_max);
    assert!(of(Stuck::LeaderMachine).backlog > 10 * c.backlog_bytes_max);
    assert!(of(Stuck::FollowerMachine).backlog > 10 * c.backlog_bytes_max);
}

#[test]
fn limits_below_one_batch_admit_one_at_a_time() {
    // RULES.md 6: a limit that refuses the first refuses for ever.
    let tiny = |id| Config {
        append_bytes_max: 1,
        inflight_bytes_max: 1,
        uncommitted_bytes_max: 1,
        unapplied_bytes_max: 1,
        cache_bytes_max: 1,
        backlog_bytes_max: 1,
        unpersisted_bytes_max: 1,
        fetch_bytes_max: 1,
        ..config(id)
    };
    let mut rig = Rig::with(3, &[], tiny);
    rig.elect(1).unwrap();
    for i in 0..10 {
        let id = ProposalId(10_000 + i);
        let body = commands(id.0);
        rig.step(1, Input::Propose { id, body }).unwrap();
        rig.run(5).unwrap();
        for id in 1..=3 {
            assert_eq!(rig.raft(id).applied(), Index(i + 2), "node {id}");
        }
    }
    assert!(
        !rig.node(1)
            .responses
            .iter()
            .any(|r| matches!(r, Response::Rejected { .. }))
    );
}

#[test]
fn a_follower_writes_no_more_at_once_than_its_own_appends_hold() {
    // Its log has room for one such write; a leader with a larger limit knows nothing of that.
    let mut rig = Rig::with(3, &[], config);
    rig.set_config(3, |config| config.append_bytes_max = 2 * COST);
    rig.elect(1).unwrap();
    for i in 0..20 {
        let id = ProposalId(10_000 + i);
        let body = commands(1);
        rig.step(1, Input::Propose { id, body }).unwrap();
        rig.settle_without(&[3]).unwrap();
    }
    let mut largest = 0;
    for _ in 0..100 {
        rig.tick(1).unwrap();
        for _ in 0..4 {
            for envelope in core::mem::take(&mut rig.network) {
                rig.deliver(envelope).unwrap();
            }
            let cost = |write: &Write| write.append.iter().map(Batch::cost).sum();
            let written = rig.node(3).pending.iter().map(cost).max();
            largest = written.unwrap_or(0).max(largest);
            for id in 1..=3 {
                rig.flush(id).unwrap();
                rig.report_applied(id).unwrap();
            }
        }
    }
    assert_eq!(largest, 2 * COST, "all that fits, and nothing beyond");
    assert_eq!(rig.raft(3).commit(), Index(21));
}

#[test]
fn a_node_whose_disk_stands_still_learns_of_few_terms() {
    let mut rig = Rig::new(3, 1);
    for term in 1..100 {
        let envelope = said(2, 1, term, Message::VoteReply { granted: false });
        rig.deliver(envelope).unwrap();
    }
    let pending = rig.node(1).pending.len();
    assert!(pending <= 8, "{pending} writes under way");
    assert_eq!(rig.raft(1).term(), Term(pending as u64));
    rig.flush(1).unwrap();
    let envelope = said(2, 1, 100, Message::VoteReply { granted: false });
    rig.deliver(envelope).unwrap();
    assert_eq!(
        rig.raft(1).term(),
        Term(100),
        "and of any other when it moves again"
    );
}
