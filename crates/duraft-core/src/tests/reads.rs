//! Reads by situation: rounds, batches, followers, leases, and every way a stale answer could come about.

use super::rig::*;
use crate::rng::Rng;
use crate::*;
use alloc::string::String;
use alloc::vec::Vec;

fn config(id: NodeId) -> Config {
    Config::new(id, GROUP, 1)
}

fn leased(id: NodeId) -> Config {
    Config {
        lease: Some(Lease { drift_ppm: 0 }),
        ..config(id)
    }
}

fn cluster(config: impl Fn(NodeId) -> Config) -> Rig {
    let mut rig = Rig::with(3, &[], config);
    // Where leases are on a fresh node keeps quiet for a while.
    for id in 1..=3 {
        for _ in 0..9 {
            rig.tick(id).unwrap();
        }
    }
    rig.elect(1).unwrap();
    rig.run(3).unwrap();
    rig
}

fn plant(rig: &mut Rig, plant: Plant) {
    for id in rig.ids() {
        rig.node_mut(id).raft.plant(plant);
    }
    rig.plant = Some(plant);
}

fn refusal(rig: &Rig, id: u64) -> Option<Reject> {
    match rig.node(id).responses.last()? {
        Response::Rejected { reason, .. } => Some(*reason),
        Response::Appended { .. } | Response::Done { .. } => None,
    }
}

/// Everything in the network, delivered once.
fn deliver(rig: &mut Rig) {
    for envelope in core::mem::take(&mut rig.network) {
        rig.deliver(envelope).unwrap();
    }
}

fn heartbeats(rig: &Rig) -> usize {
    let heartbeat = |e: &&Envelope| matches!(e.message, Message::Heartbeat { .. });
    rig.network.iter().filter(heartbeat).count()
}

#[test]
fn a_read_begins_a_round_at_once_and_a_burst_shares_the_next() {
    // A round per read would be a storm; waiting for the timer would be slow.
    let mut rig = cluster(config);
    for _ in 0..100 {
        rig.read(1, ReadBasis::Quorum).unwrap();
    }
    assert_eq!(heartbeats(&rig), 2, "one round to two peers");
    assert!(rig.node(1).reads.is_empty());
    deliver(&mut rig);
    deliver(&mut rig);
    assert_eq!(rig.node(1).reads.len(), 1, "the others came after it began");
    assert_eq!(heartbeats(&rig), 2);
    deliver(&mut rig);
    deliver(&mut rig);
    assert_eq!(rig.node(1).reads.len(), 100);
    let commit = rig.raft(1).commit();
    assert!(
        rig.node(1)
            .reads
            .iter()
            .all(|(_, at, lease)| *at == commit && lease.is_none())
    );
    assert!(rig.network.is_empty());
}

#[test]
fn an_answer_to_an_earlier_round_confirms_no_read() {
    // etcd 20418, 21399: a context or round that is older than the read is counted for it. The answers
    // to the heartbeats before the read are on their way; another node leads meanwhile.
    for planted in [None, Some(Plant::ReadOldRound)] {
        let mut rig = cluster(config);
        if let Some(planted) = planted {
            plant(&mut rig, planted);
        }
        for _ in 0..2 {
            rig.tick(1).unwrap();
        }
        deliver(&mut rig);
        let late = core::mem::take(&mut rig.network);
        assert_eq!(late.len(), 2, "two answers to the timer's round");
        // Their clocks run on, node 1 hears nothing of it.
        while rig.leader() != Some(2) {
            for id in [2, 3] {
                rig.tick(id).unwrap();
                rig.settle_without(&[1]).unwrap();
            }
        }
        rig.propose(2).unwrap();
        rig.settle_without(&[1]).unwrap();
        rig.read(1, ReadBasis::Quorum).unwrap();
        let answered: Check = late
            .into_iter()
            .try_for_each(|envelope| rig.deliver(envelope));
        if planted.is_some() {
            let why = answered.unwrap_err();
            assert!(why.starts_with("H7"), "{why}");
        } else {
            answered.unwrap();
            assert!(rig.node(1).reads.is_empty());
            rig.run(5).unwrap();
            assert_eq!(refusal(&rig, 1), Some(Reject::LostLeadership));
        }
    }
}

#[test]
fn a_new_leader_reads_nothing_before_its_first_commit() {
    // etcd 7331: its commit index may be behind what the leader before it has committed.
    for planted in [None, Some(Plant::ReadBeforeTerm)] {
        let mut rig = cluster(config);
        if let Some(planted) = planted {
            plant(&mut rig, planted);
        }
        rig.propose(1).unwrap();
        // Node 1 commits with node 2, which does not learn of the commit.
        rig.flush(1).unwrap();
        deliver(&mut rig);
        rig.flush(2).unwrap();
        deliver(&mut rig);
        rig.network.clear();
        assert!(rig.raft(1).commit() > rig.raft(2).commit());
        // Node 2 leads; no append of it arrives anywhere.
        for _ in 0..400 {
            if rig.raft(2).role() == RoleKind::Leader {
                break;
            }
            for id in [2, 3] {
                rig.tick(id).unwrap();
                rig.flush(id).unwrap();
            }
            let appends = |e: &Envelope| matches!(e.message, Message::Append { .. });
            rig.network
                .retain(|e| !appends(e) && e.to != NodeId(1) && e.from != NodeId(1));
            deliver(&mut rig);
        }
        assert_eq!(rig.raft(2).role(), RoleKind::Leader);
        rig.network.clear();
        rig.read(2, ReadBasis::Quorum).unwrap();
        let answered = rig.run_without(&[1], 5);
        if planted.is_some() {
            assert!(answered.is_err(), "the read misses a committed entry");
        } else {
            answered.unwrap();
            let (_, index, _) = rig.node(2).reads[0];
            assert_eq!(index, rig.raft(2).commit(), "its own entry");
        }
    }
}

#[test]
fn a_single_voter_reads_at_once() {
    let mut rig = Rig::with(1, &[2], leased);
    rig.run(25).unwrap();
    for basis in [ReadBasis::Quorum, ReadBasis::Lease] {
        rig.node_mut(1).reads.clear();
        rig.read(1, basis).unwrap();
        let commit = rig.raft(1).commit();
        assert_eq!(rig.node(1).reads[0].1, commit);
        assert_eq!(
            rig.node(1).reads[0].2,
            None,
            "nobody could have elected another"
        );
        assert_eq!(heartbeats(&rig), 0);
    }
}

#[test]
fn a_follower_asks_its_leader_one_question_at_a_time() {
    let mut rig = cluster(config);
    for _ in 0..50 {
        rig.read(2, ReadBasis::Quorum).unwrap();
    }
    assert_eq!(rig.network.len(), 1);
    rig.settle().unwrap();
    let commit = rig.raft(1).commit();
    assert_eq!(rig.node(2).reads.len(), 50);
    assert!(
        rig.node(2)
            .reads
            .iter()
            .all(|(_, at, lease)| *at == commit && lease.is_none())
    );
    assert!(rig.node(2).responses.is_empty());
}

#[test]
fn a_lost_question_is_asked_anew_and_a_late_answer_counts_for_no_later_read() {
    // An answer that is older than the read may miss what was committed between.
    let mut rig = cluster(config);
    rig.read(2, ReadBasis::Quorum).unwrap();
    let question = rig.network.remove(0);
    rig.propose(1).unwrap();
    // The first question is answered before the proposal commits; the answer travels for long.
    rig.network.clear();
    rig.deliver(question).unwrap();
    deliver(&mut rig);
    deliver(&mut rig);
    let answer = rig.network.pop().unwrap();
    assert!(matches!(
        answer.message,
        Message::ReadIndexReply { id: 1, .. }
    ));
    rig.network.clear();
    rig.run(2).unwrap();
    assert_eq!(rig.raft(1).commit(), Index(2));
    let answered = rig.node(2).reads.len();
    assert_eq!(answered, 1, "asked anew");
    rig.read(2, ReadBasis::Quorum).unwrap();
    rig.network.clear();
    rig.deliver(answer.clone()).unwrap();
    assert_eq!(rig.node(2).reads.len(), answered, "not by the old answer");
    // Nor by one that was meant for another life.
    let mut foreign = answer;
    foreign.message = Message::ReadIndexReply {
        id: 3,
        asker: Incarnation(7),
        index: Some(Index(1)),
    };
    rig.deliver(foreign).unwrap();
    assert_eq!(rig.node(2).reads.len(), answered);
    rig.run(2).unwrap();
    assert_eq!(rig.node(2).reads.len(), answered + 1);
}

#[test]
fn reads_end_with_the_leadership_they_wait_under() {
    let mut rig = cluster(config);
    rig.read(1, ReadBasis::Quorum).unwrap();
    rig.read(3, ReadBasis::Quorum).unwrap();
    rig.network.clear();
    rig.run_without(&[1], 60).unwrap();
    assert_eq!(
        refusal(&rig, 1),
        Some(Reject::LostLeadership),
        "check-quorum"
    );
    assert_eq!(
        refusal(&rig, 3),
        Some(Reject::LostLeadership),
        "another leads"
    );
    assert!(rig.node(1).reads.is_empty() && rig.node(3).reads.is_empty());
    rig.read(1, ReadBasis::Quorum).unwrap();
    assert_eq!(
        refusal(&rig, 1),
        Some(Reject::NotLeader),
        "and none is known"
    );
}

#[test]
fn reads_that_wait_are_bounded() {
    for planted in [None, Some(Plant::ReadsUnbounded)] {
        let mut rig = cluster(|id| Config {
            reads_max: 3,
            ..config(id)
        });
        if let Some(planted) = planted {
            plant(&mut rig, planted);
        }
        let mut found = Ok(());
        for node in [1, 2] {
            for _ in 0..4 {
                found = found.and_then(|()| rig.read(node, ReadBasis::Quorum));
            }
            let refused = Some(Reject::ReadLimit);
            assert!(planted.is_some() || refusal(&rig, node) == refused);
        }
        assert_eq!(found.is_err(), planted.is_some());
        if planted.is_some() {
            continue;
        }
        // Node 1 is full: node 2's question is answered with "cannot say" and asked anew.
        rig.settle().unwrap();
        rig.run(4).unwrap();
        assert_eq!(rig.node(1).reads.len(), 3);
        assert_eq!(rig.node(2).reads.len(), 3);
    }
}

#[test]
fn a_lease_read_asks_nobody_and_names_its_round() {
    let mut rig = cluster(leased);
    rig.read(1, ReadBasis::Lease).unwrap();
    assert!(rig.network.is_empty());
    let (_, index, lease) = rig.node(1).reads[0];
    assert_eq!(index, rig.raft(1).commit());
    assert!(lease.is_some_and(|round| round > 0));
    // Cut off, the lease runs out before anybody else can lead.
    for tick in 0..20 {
        rig.tick(1).unwrap();
        rig.network.clear();
        rig.node_mut(1).reads.clear();
        if rig.raft(1).role() == RoleKind::Leader {
            rig.read(1, ReadBasis::Lease).unwrap();
        }
        let held = rig
            .node(1)
            .reads
            .iter()
            .any(|(_, _, lease)| lease.is_some());
        // Its round went out one tick before the first of these.
        assert_eq!(held, tick + 2 < 9, "tick {tick}");
    }
    // Followers and clusters without leases ask.
    rig.run(40).unwrap();
    let follower = if rig.leader() == Some(2) { 3 } else { 2 };
    rig.read(follower, ReadBasis::Lease).unwrap();
    assert!(matches!(rig.network[0].message, Message::ReadIndex { .. }));
}

#[test]
fn leases_need_check_quorum_and_a_span_to_live_in() {
    let problems = |change: fn(&mut Config)| {
        let mut config = leased(NodeId(1));
        change(&mut config);
        let problems = config.validate();
        problems.iter().filter(|p| p.field == "lease").count()
    };
    assert_eq!(problems(|_| ()), 0);
    assert_eq!(problems(|c| c.check_quorum = false), 1);
    assert_eq!(
        problems(|c| c.lease = Some(Lease { drift_ppm: 600_000 })),
        1
    );
    assert_eq!(
        problems(|c| c.lease = Some(Lease {
            drift_ppm: 2_000_000
        })),
        1
    );
}

/// A cluster whose clocks drift as far as stated and whose messages take up to an election timeout. A
/// node may be cut off at any moment: what it has sent, and what was sent to it, still arrives. Every
/// node reads by lease in every tick. `members`: a fourth node has joined, and members come and go.
/// Returns the reads by lease and the terms.
pub(super) fn f5(
    seed: u64,
    drift_ppm: u32,
    members: bool,
    planted: Option<Plant>,
) -> Result<(usize, u64), String> {
    let mut rng = Rng::new(seed);
    let config = |id| Config {
        lease: Some(Lease { drift_ppm }),
        election_ticks: 12,
        pre_vote: seed.is_multiple_of(2),
        ..Config::new(id, GROUP, seed)
    };
    let mut rig = Rig::with(3, &[], config);
    rig.local_checks = false;
    let nodes = if members {
        rig.join(config(NodeId(4)));
        4
    } else {
        3
    };
    if let Some(planted) = planted {
        plant(&mut rig, planted);
    }
    // One node's clock is slow by the stated drift, the others' are true.
    let slow = 1 + u64::from(rng.below(3));
    let mut owed = [0; 5];
    let mut post: Vec<(u64, Envelope)> = Vec::new();
    let (mut cut, mut far, mut delay) = (0, 0, 0);
    for now in 0..400u64 {
        match rng.below(30) {
            0 | 1 => cut = u64::from(rng.below(4)),
            2 => (far, delay) = (u64::from(rng.below(4)), rng.below(12)),
            // Power fails on one node, which comes back at once.
            3 => rig.crash(1 + u64::from(rng.below(3)), 9),
            _ => {}
        }
        for id in 1..=nodes {
            let lost = if id == slow { drift_ppm } else { 0 };
            owed[id as usize] += 1_000_000 - lost;
            if owed[id as usize] >= 1_000_000 {
                owed[id as usize] -= 1_000_000;
                rig.tick(id)?;
            }
            let leads = rig.raft(id).role() == RoleKind::Leader;
            if leads && now % 3 == 0 {
                rig.propose(id)?;
            }
            if leads && rng.below(40) == 0 {
                rig.transfer(id, 1 + id % 3)?;
            }
            if members && leads && rng.below(10) == 0 {
                let other = NodeId(1 + u64::from(rng.below(4)));
                let change = match rng.below(3) {
                    0 => MemberChange::Remove(other),
                    _ => MemberChange::AddVoter(other),
                };
                rig.change(id, &[change], Leave::Automatic)?;
            }
        }
        // A few exchanges fit into a tick.
        for _ in 0..3 {
            for envelope in core::mem::take(&mut rig.network) {
                if envelope.from == NodeId(cut) || envelope.to == NodeId(cut) {
                    continue;
                }
                let late = far == 0 || envelope.to == NodeId(far);
                let due = if late { rng.below(1 + delay) } else { 0 };
                post.push((now + u64::from(due), envelope));
            }
            let (due, later) = post.into_iter().partition(|(at, _)| *at <= now);
            post = later;
            let due: Vec<(u64, Envelope)> = due;
            due.into_iter()
                .try_for_each(|(_, envelope)| rig.deliver(envelope))?;
            for id in 1..=nodes {
                rig.flush(id)?;
                rig.answer_load(id)?;
                rig.report_applied(id)?;
                rig.read(id, ReadBasis::Lease)?;
            }
        }
    }
    let answered = rig.nodes.values().flat_map(|node| &node.reads);
    let leases = answered.filter(|(_, _, lease)| lease.is_some()).count();
    Ok((leases, rig.raft(1).term().0))
}

#[test]
fn schedule_f5_no_lease_read_is_stale() {
    // F5: etcd/raft, raft-rs with equal clocks. Here with equal ones and at the stated drift.
    let (mut leases, mut terms) = (0, 0);
    for seed in 0..400 {
        for drift_ppm in [0, 100_000] {
            let (read, term) = f5(seed, drift_ppm, false, None)
                .unwrap_or_else(|why| panic!("seed {seed}, drift {drift_ppm}: {why}"));
            leases += read;
            terms += term;
        }
    }
    assert!(leases > 50_000, "{leases} reads by lease");
    assert!(terms > 3_000, "{terms} terms");
}

#[test]
fn no_lease_read_is_stale_while_members_come_and_go() {
    // A lease counts answers in the membership in use; the next leader is elected in that or the next.
    let mut leases = 0;
    for seed in 50_000..50_400 {
        let (read, _) = f5(seed, 0, true, None).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        leases += read;
    }
    assert!(leases > 15_000, "{leases} reads by lease");
}

#[test]
fn every_part_of_the_lease_rule_is_needed() {
    // RULES.md 26: each part taken out by itself leads to a stale read. The seeds are where a search
    // from 0 has found one; when a change shifts them, the search goes on from there.
    for (planted, known) in [
        (Plant::LeaseFromReceipt, 2_283),
        (Plant::RestartedVoterGrants, 3_550),
        (Plant::TransferKeepsLease, 24),
        (Plant::PromiseEndsWithTerm, 8_061),
        (Plant::ReadOldRound, 71),
        (Plant::ReadBeforeTerm, 0),
    ] {
        let stale = (known..known + 10_000).find_map(|seed| {
            let why = f5(seed, 0, false, Some(planted)).err()?;
            why.starts_with("H7").then_some((seed, why))
        });
        let (seed, why) = stale.unwrap_or_else(|| panic!("{planted:?} does no harm"));
        std::eprintln!("{planted:?}: seed {seed}: {why}");
    }
}

#[test]
fn crash_c08_a_voter_that_restarts_inside_a_lease_grants_nothing() {
    let mut rig = cluster(leased);
    rig.run(2).unwrap();
    rig.crash(2, 9);
    for forced in [false, true] {
        let last = rig.raft(1).last().id;
        let vote = Envelope {
            group: GROUP,
            from: NodeId(3),
            incarnation: Incarnation(1),
            to: NodeId(2),
            term: Term(rig.raft(2).term().0 + 1),
            message: Message::Vote { last, forced },
        };
        rig.deliver(vote).unwrap();
        rig.flush(2).unwrap();
        let answers: Vec<&Message> = rig.network.iter().map(|e| &e.message).collect();
        assert_eq!(answers, [&Message::VoteReply { granted: false }]);
        rig.network.clear();
    }
}

#[test]
fn a_quorum_read_asks_a_quorum_where_leases_are_on_too() {
    // Whoever asks for it does not trust clocks.
    let mut rig = cluster(leased);
    rig.run(20).unwrap();
    rig.network.clear();
    rig.read(1, ReadBasis::Lease).unwrap();
    assert_eq!(rig.node(1).reads.len(), 1, "a lease is held");
    rig.read(1, ReadBasis::Quorum).unwrap();
    assert_eq!(rig.node(1).reads.len(), 1);
    assert_eq!(heartbeats(&rig), 2);
    rig.settle().unwrap();
    assert_eq!(rig.node(1).reads.len(), 2);
    assert_eq!(rig.node(1).reads[1].2, None);
}

#[test]
fn a_new_leader_with_a_lease_reads_nothing_before_its_first_commit() {
    // Heartbeats go through and appends do not: it has a lease, and all that it holds was committed by
    // the leader before it. It does not know that.
    for basis in [ReadBasis::Lease, ReadBasis::Quorum] {
        let mut rig = cluster(leased);
        rig.run(2).unwrap();
        rig.transfer(1, 2).unwrap();
        let mut rounds = 0;
        for tick in 0..8 {
            for _ in 0..6 {
                for envelope in core::mem::take(&mut rig.network) {
                    let append = matches!(envelope.message, Message::Append { .. });
                    if !(append && envelope.from == NodeId(2)) {
                        rig.deliver(envelope).unwrap();
                    }
                }
                (1..=3).for_each(|id| rig.flush(id).unwrap());
            }
            if tick == 4 {
                assert_eq!(rig.leader(), Some(2));
                assert_eq!(rig.raft(2).commit(), rig.raft(1).commit());
                rig.read(2, basis).unwrap();
            }
            if tick > 4 {
                rounds += heartbeats(&rig) / 2;
            }
            (1..=3).for_each(|id| rig.tick(id).unwrap());
        }
        assert!(rig.node(2).reads.is_empty(), "{basis:?}");
        assert!(
            rounds <= 3,
            "{rounds} rounds: a read that waits is no storm"
        );
        rig.run(4).unwrap();
        assert_eq!(rig.node(2).reads.len(), 1);
        let own = rig.raft(2).last().index();
        assert_eq!(
            rig.node(2).reads[0].1,
            own,
            "the entry that begins the term"
        );
    }
}

#[test]
fn a_question_is_asked_again_after_a_heartbeat_interval_and_counts_once() {
    let mut rig = cluster(config);
    rig.network.clear();
    rig.read(2, ReadBasis::Quorum).unwrap();
    let questions = |rig: &mut Rig| {
        let found = rig.network.drain(..);
        let ask = |e: &Envelope| matches!(e.message, Message::ReadIndex { .. });
        found.filter(ask).collect::<Vec<_>>()
    };
    let first = questions(&mut rig);
    assert_eq!(first.len(), 1);
    // The same question comes twice; one of another term is of another leadership.
    for (envelope, waiting) in [(&first[0], 1), (&first[0], 1)] {
        rig.deliver(envelope.clone()).unwrap();
        assert_eq!(rig.raft(1).reads_waiting(), waiting);
    }
    let mut other = first[0].clone();
    other.from = NodeId(3);
    let early = Envelope {
        term: Term(0),
        ..other.clone()
    };
    rig.deliver(early).unwrap();
    assert_eq!(rig.raft(1).reads_waiting(), 1);
    rig.deliver(other).unwrap();
    assert_eq!(rig.raft(1).reads_waiting(), 2, "another node asks too");
    rig.network.clear();
    for (tick, asked) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        rig.tick(2).unwrap();
        assert_eq!(questions(&mut rig).len(), asked, "{tick}");
    }
}

#[test]
fn a_read_ends_when_another_leader_speaks_before_the_old_one_is_given_up() {
    // The next leader may have committed more; its answers are to other questions.
    let mut rig = cluster(config);
    rig.read(2, ReadBasis::Quorum).unwrap();
    let commit = Index(0);
    let heartbeat = said(3, 2, 9, Message::Heartbeat { commit, round: 1 });
    rig.deliver(heartbeat).unwrap();
    assert_eq!(rig.raft(2).leader(), Some(NodeId(3)));
    assert_eq!(rig.raft(2).reads_waiting(), 0);
    assert_eq!(refusal(&rig, 2), Some(Reject::LostLeadership));
}
