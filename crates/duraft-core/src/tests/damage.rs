//! Named situations of damaged logs (RULES.md 13 to 18).

use super::rig::*;
use crate::*;
use alloc::vec::Vec;

/// Three nodes hold five entries, all committed and applied; node 1 leads.
fn five_entries() -> Rig {
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    for _ in 0..4 {
        rig.propose(1).unwrap();
        rig.settle().unwrap();
    }
    rig
}

fn damage(rig: &Rig, id: u64) -> DamageStatus {
    rig.raft(id).damage_status().expect("damaged")
}

/// Ticks one node and delivers everything, until it is whole.
fn wait_whole(rig: &mut Rig, id: u64, ticks: u32, cut: &[u64]) -> bool {
    for _ in 0..ticks {
        if rig.raft(id).damage_status().is_none() {
            return true;
        }
        rig.tick(id).unwrap();
        rig.settle_without(cut).unwrap();
    }
    rig.raft(id).damage_status().is_none()
}

fn tell(rig: &mut Rig, from: u64, to: u64, term: u64, message: Message) -> Check {
    rig.deliver(Envelope {
        group: GROUP,
        from: NodeId(from),
        incarnation: rig.raft(from).incarnation(),
        to: NodeId(to),
        term: Term(term),
        message,
    })
}

/// Messages of a kind that a node has sent and nobody has got yet.
fn sent(rig: &Rig, from: u64, kind: impl Fn(&Message) -> bool) -> usize {
    (rig.network.iter())
        .filter(|envelope| envelope.from == NodeId(from) && kind(&envelope.message))
        .count()
}

fn grants(message: &Message) -> bool {
    *message == Message::VoteReply { granted: true }
}

#[test]
fn a_gap_is_filled_by_any_peer_without_a_leader() {
    // What others hold proves by its chain what this node had written; no leader has to vouch for it.
    let mut rig = five_entries();
    rig.crash(1, 0);
    rig.crash_with(3, |disk| disk.lose(2..=3));
    assert_eq!(rig.raft(3).last().index(), Index(1));
    assert_eq!(damage(&rig, 3).missing, Some((Index(2), Index(3))));
    assert_eq!(damage(&rig, 3).waits_for, Awaited::Batches);
    assert!(wait_whole(&mut rig, 3, 20, &[1]));
    assert_eq!(rig.raft(3).last(), rig.raft(2).last());
    assert_eq!(rig.leader(), None);
    assert!(rig.node(3).durable.lost.is_none(), "and it is written down");
}

#[test]
fn a_gap_up_to_a_known_end_is_filled() {
    let mut rig = five_entries();
    let end = rig.raft(3).last();
    rig.crash(1, 0);
    rig.crash_with(3, |disk| disk.lose(4..=5));
    assert_eq!(damage(&rig, 3).missing, Some((Index(4), Index(5))));
    assert!(wait_whole(&mut rig, 3, 20, &[]));
    assert_eq!(rig.raft(3).last(), end);
}

#[test]
fn several_gaps_are_filled_one_after_the_other() {
    let mut rig = five_entries();
    rig.crash_with(3, |disk| {
        disk.lose(2..=2);
        disk.lose(4..=4);
    });
    assert!(wait_whole(&mut rig, 3, 30, &[1]));
    assert_eq!(rig.raft(3).last(), rig.raft(2).last());
}

#[test]
fn a_leaders_appends_fill_a_gap_and_join_what_survives() {
    // C10: a corrupted interior record. Whoever fetches nothing is filled like any log that ends early,
    // and what survives is not sent again.
    let mut rig = five_entries();
    rig.crash_with(3, |disk| disk.lose(2..=3));
    for _ in 0..40 {
        rig.tick(1).unwrap();
        rig.network
            .retain(|e| !matches!(e.message, Message::Fetched { .. }));
        rig.settle().unwrap();
        rig.tick(3).unwrap();
    }
    assert_eq!(rig.raft(3).damage_status(), None);
    assert_eq!(rig.raft(3).last(), rig.raft(1).last());
    assert_eq!(rig.raft(3).applied(), Index(5));
}

#[test]
fn what_survives_of_a_dead_leaders_log_is_cut_away() {
    // A leader that does not have what survives here was elected without it: it was never committed.
    let mut rig = Rig::new(3, 1);
    rig.seed_log(1, 2, &[1, 2]);
    rig.seed_log(2, 2, &[1, 2]);
    rig.seed_log(3, 2, &[1, 1, 1, 1]);
    rig.crash_with(3, |disk| disk.lose(2..=3));
    rig.elect(1).unwrap();
    rig.run(20).unwrap();
    assert_eq!(rig.raft(3).last(), rig.raft(1).last());
    assert_eq!(rig.raft(3).damage_status(), None);
}

#[test]
fn a_leader_that_contradicts_what_survives_in_its_own_term_is_divergence() {
    // One (term, index), two contents: nothing is cut away, nothing is acknowledged.
    let mut rig = Rig::new(3, 1);
    rig.seed_log(3, 3, &[1, 1, 1]);
    rig.crash_with(3, |disk| disk.lose(2..=2));
    let first = *rig.raft(3).headers().next().unwrap();
    let two = Body {
        count: 2,
        bytes: bytes::Bytes::from_static(&[0; 8]),
        ..body(77)
    };
    let other = two.seal(GROUP, &first.position(), Term(1)).unwrap();
    let append = Message::Append {
        prev: first.position(),
        batches: [other.clone()].into(),
        commit: Index(0),
    };
    tell(&mut rig, 1, 3, 3, append).unwrap();
    assert!(rig.node(3).pending.is_empty());
    let told = |m: &Message| matches!(m, Message::AppendReply(AppendReply::Divergence { .. }));
    assert_eq!(sent(&rig, 3, told), 1);
}

#[test]
fn an_answer_of_another_history_is_not_written_into_a_gap() {
    // Who says that its batches belong here must show it: they have to join what survives.
    let mut rig = Rig::new(3, 1);
    for id in [1, 3] {
        rig.seed_log(id, 3, &[1, 1, 2, 2]);
    }
    rig.seed_log(2, 3, &[1, 2, 2, 2]);
    rig.crash_with(3, |disk| disk.lose(2..=3));
    for _ in 0..20 {
        rig.tick(3).unwrap();
        rig.settle_without(&[1]).unwrap();
        assert_eq!(rig.raft(3).last().index(), Index(1));
    }
    assert!(wait_whole(&mut rig, 3, 30, &[]), "node 1 has it");
    assert_eq!(rig.raft(3).last(), rig.raft(1).last());
}

#[test]
fn a_gap_larger_than_memory_allows_is_proven_first_and_fetched_again() {
    // Nothing is believed before the chain joins, and no more is held than the limit says.
    let mut rig = Rig::with(3, &[], |id| Config {
        fetch_bytes_max: 200,
        append_bytes_max: 160,
        ..Config::new(id, GROUP, 1)
    });
    let terms = [1; 30];
    for id in 1..=3 {
        rig.seed_log(id, 1, &terms);
    }
    rig.crash_with(3, |disk| disk.lose(2..=28));
    assert!(wait_whole(&mut rig, 3, 60, &[1]));
    assert_eq!(rig.raft(3).last(), rig.raft(2).last());
}

#[test]
fn a_gap_is_filled_no_faster_than_the_disk_takes_it() {
    // All of it is proven at once, and more than may be on its way to the disk (I8, after every step).
    let mut rig = Rig::with(3, &[], |id| Config {
        unpersisted_bytes_max: 300,
        max_batch_bytes: 200,
        ..Config::new(id, GROUP, 1)
    });
    let terms = [1; 200];
    for id in 1..=3 {
        rig.seed_log(id, 1, &terms);
    }
    rig.crash_with(3, |disk| disk.lose(2..=198));
    assert!(wait_whole(&mut rig, 3, 400, &[1]));
    assert_eq!(rig.raft(3).last(), rig.raft(2).last());
}

#[test]
fn a_gap_is_filled_with_writes_no_larger_than_an_append() {
    // A log has room for one append in one write; what is proven at once may be more.
    let mut rig = Rig::with(3, &[], |id| Config {
        append_bytes_max: 300,
        ..Config::new(id, GROUP, 1)
    });
    rig.seed_log(1, 1, &[1; 20]);
    let raft = rig.raft(1);
    let batches: Vec<Batch> = (raft.headers())
        .map(|header| Batch {
            header: *header,
            body: bytes::Bytes::new(),
        })
        .collect();
    let count = raft.fits_one_write(&batches);
    let cost = |count: usize| batches[..count].iter().map(Batch::cost).sum::<u64>();
    assert!(cost(count) <= 300 && cost(count + 1) > 300, "{count}");
    rig.set_config(1, |config| config.append_bytes_max = 1);
    assert_eq!(rig.raft(1).fits_one_write(&batches), 1, "one always fits");
}

#[test]
fn a_vote_is_for_no_less_than_what_was_acknowledged() {
    // Node 3 has lost the copy that made entry 5 committed. Whoever lacks it must not lead.
    let mut rig = Rig::new(3, 1);
    rig.seed_log(1, 1, &[1, 1, 1, 1, 1]);
    rig.seed_log(2, 1, &[1, 1, 1]);
    rig.seed_log(3, 1, &[1, 1, 1, 1, 1]);
    rig.crash_with(3, |disk| disk.lose(3..=5));
    let ask = |rig: &mut Rig, last: LogId| {
        let vote = Message::Vote { last, forced: true };
        tell(rig, 2, 3, 2, vote).unwrap();
        rig.flush(3).unwrap();
        sent(rig, 3, grants)
    };
    let id = |index| LogId {
        term: Term(1),
        index: Index(index),
    };
    assert_eq!(ask(&mut rig, id(3)), 0);
    assert_eq!(ask(&mut rig, id(5)), 1, "the end is known, so is this");
}

#[test]
fn who_may_have_lost_the_end_abstains_until_a_leader_has_made_up_for_it() {
    let mut rig = five_entries();
    rig.crash_with(3, |disk| disk.lose_end(2));
    assert_eq!(damage(&rig, 3).waits_for, Awaited::Leader);
    let vote = Message::Vote {
        last: LogId {
            term: Term(9),
            index: Index(99),
        },
        forced: true,
    };
    tell(&mut rig, 2, 3, 10, vote.clone()).unwrap();
    rig.flush(3).unwrap();
    assert_eq!(sent(&rig, 3, grants), 0);
    rig.network.clear();
    rig.run(60).unwrap();
    assert_eq!(rig.raft(3).damage_status(), None);
    assert_eq!(rig.raft(3).last(), rig.raft(rig.leader().unwrap()).last());
    let term = rig.raft(3).term().0 + 1;
    let vote = Message::Vote {
        last: rig.raft(3).last().id,
        forced: true,
    };
    tell(&mut rig, 2, 3, term, vote).unwrap();
    rig.flush(3).unwrap();
    assert_eq!(sent(&rig, 3, grants), 1);
}

#[test]
fn a_new_leader_begins_the_healing_anew() {
    // RULES.md 15: what one leader promised says nothing of another one's log.
    let mut rig = five_entries();
    rig.crash_with(3, |disk| disk.lose_end(2));
    let (asker, term) = (rig.raft(3).incarnation(), 1);
    let heartbeat = |round| Message::Heartbeat {
        commit: Index(0),
        round,
    };
    tell(&mut rig, 1, 3, term, heartbeat(90)).unwrap();
    let to = Index(2);
    tell(&mut rig, 1, 3, term, Message::Heal { asker, to }).unwrap();
    // Node 2 leads now. Its log may be longer than what node 1 had.
    tell(&mut rig, 2, 3, term + 1, heartbeat(1)).unwrap();
    let prev = rig.raft(3).last();
    let append = Message::Append {
        prev,
        batches: Vec::new(),
        commit: Index(0),
    };
    tell(&mut rig, 2, 3, term + 1, append).unwrap();
    rig.flush(3).unwrap();
    assert!(damage(&rig, 3).lost_suffix);
    rig.network.clear();
    rig.tick(3).unwrap();
    rig.tick(3).unwrap();
    let reports = |m: &Message| matches!(m, Message::DamageReport { .. });
    assert_eq!(sent(&rig, 3, reports), 1, "it tells the new one");
    let healed = Message::Heal { asker, to };
    tell(&mut rig, 2, 3, term + 1, healed).unwrap();
    rig.flush(3).unwrap();
    assert_eq!(rig.raft(3).damage_status(), None);
}

#[test]
fn an_answer_to_an_earlier_life_heals_nothing() {
    let mut rig = five_entries();
    rig.crash_with(3, |disk| disk.lose_end(2));
    let asker = Incarnation(rig.raft(3).incarnation().0 - 1);
    let to = Index(0);
    let prev = rig.raft(3).last();
    let append = Message::Append {
        prev,
        batches: Vec::new(),
        commit: Index(0),
    };
    tell(&mut rig, 1, 3, 1, append).unwrap();
    tell(&mut rig, 1, 3, 1, Message::Heal { asker, to }).unwrap();
    rig.flush(3).unwrap();
    assert!(damage(&rig, 3).lost_suffix);
}

/// Node 3 has granted its vote of term 2 to node 1 and lost the record.
fn forgotten_vote(plant: Option<Plant>) -> Check {
    let mut rig = Rig::new(3, 1);
    rig.local_checks = plant.is_none();
    let vote = Message::Vote {
        last: LogId::default(),
        forced: true,
    };
    tell(&mut rig, 1, 3, 2, vote.clone())?;
    rig.flush(3)?;
    assert_eq!(sent(&rig, 3, grants), 1);
    rig.plant = plant;
    rig.crash_losing_vote(3);
    tell(&mut rig, 2, 3, 2, vote)?;
    rig.flush(3)?;
    assert_eq!(sent(&rig, 3, grants), 1, "no second one");
    Ok(())
}

#[test]
fn a_forgotten_vote_is_not_given_again() {
    forgotten_vote(None).unwrap();
    let why = forgotten_vote(Some(Plant::TrustsLostVote)).unwrap_err();
    assert!(why.contains("votes twice"), "{why}");
}

#[test]
fn a_node_whose_term_is_uncertain_says_nothing_that_counts() {
    let mut rig = five_entries();
    rig.crash_losing_vote(3);
    rig.network.clear();
    let heartbeat = Message::Heartbeat {
        commit: Index(0),
        round: 99,
    };
    tell(&mut rig, 1, 3, 1, heartbeat).unwrap();
    let prev = rig.raft(3).last();
    let append = Message::Append {
        prev,
        batches: Vec::new(),
        commit: Index(5),
    };
    tell(&mut rig, 1, 3, 1, append).unwrap();
    rig.flush(3).unwrap();
    let counts = |m: &Message| {
        matches!(
            m,
            Message::HeartbeatReply { .. } | Message::AppendReply(_) | Message::VoteReply { .. }
        )
    };
    assert_eq!(sent(&rig, 3, counts), 0);
    for _ in 0..50 {
        rig.tick(3).unwrap();
        assert_eq!(rig.raft(3).role(), RoleKind::Follower);
    }
    assert_eq!(damage(&rig, 3).waits_for, Awaited::Terms { missing: 2 });
    rig.run(20).unwrap();
    assert_eq!(rig.raft(3).damage_status(), None);
}

/// Five voters. Node 4 campaigns in term 2; node 5 grants, and forgets it; the grant is slow. Node 1
/// leads term 1 and has its first entry on node 2. Node 5 hears terms from all but node 4, then what
/// node 1 has to say. At last the grant arrives, and node 3, which lacks the entry, grants too.
fn lost_grant(plant: Option<Plant>) -> Check {
    let mut rig = Rig::with(5, &[], |id| Config {
        check_quorum: false,
        pre_vote: false,
        ..Config::new(id, GROUP, 1)
    });
    rig.local_checks = plant.is_none();
    while rig.raft(4).term() < Term(2) {
        rig.tick(4)?;
        rig.flush(4)?;
    }
    let asked = |e: &Envelope, to| e.to == NodeId(to) && e.term == Term(2);
    let requests: Vec<Envelope> = rig.network.drain(..).collect();
    let request = |to| requests.iter().find(|e| asked(e, to)).cloned().unwrap();
    rig.deliver(request(5))?;
    rig.flush(5)?;
    let grant = rig.network.pop().expect("granted");
    rig.plant = plant;
    rig.crash_losing_vote(5);
    rig.time_out(1)?;
    rig.flush(1)?;
    for _ in 0..2 {
        for envelope in core::mem::take(&mut rig.network) {
            if [1, 2, 3].contains(&envelope.to.0) {
                rig.deliver(envelope)?;
            }
        }
        rig.flush(2)?;
        rig.flush(3)?;
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Leader);
    rig.settle_without(&[3, 4, 5])?;
    assert_eq!(rig.raft(1).commit(), Index(0));
    for _ in 0..4 {
        rig.tick(5)?;
        rig.settle_without(&[4])?;
    }
    for _ in 0..6 {
        rig.tick(1)?;
        rig.settle_without(&[3, 4])?;
    }
    let committed = rig.raft(1).commit();
    assert_eq!(committed, Index(u64::from(plant.is_some())));
    rig.deliver(grant)?;
    rig.deliver(request(3))?;
    rig.flush(3)?;
    rig.settle_without(&[1, 2])
}

#[test]
fn the_terms_of_a_majority_are_not_enough() {
    // RULES.md 14 as decided: a candidate outside of the majority may hold this node's lost grant.
    lost_grant(None).unwrap();
    let why = lost_grant(Some(Plant::AsksMajority)).unwrap_err();
    assert!(why.contains("H4"), "{why}");
}

#[test]
fn every_voter_that_anybody_knows_of_is_asked_for_its_term() {
    let mut rig = Rig::new(5, 1);
    rig.crash_losing_vote(5);
    let asker = rig.raft(5).incarnation();
    for id in [1, 2, 3] {
        let voters = (1..=5).map(NodeId).collect();
        tell(&mut rig, id, 5, 0, Message::TermReply { asker, voters }).unwrap();
        rig.flush(5).unwrap();
        assert!(damage(&rig, 5).vote_uncertain, "node 4 has not answered");
    }
    let voters = (1..=6).map(NodeId).collect();
    let reply = Message::TermReply { asker, voters };
    tell(&mut rig, 4, 5, 7, reply).unwrap();
    rig.flush(5).unwrap();
    assert!(damage(&rig, 5).vote_uncertain, "and names one more voter");
    let late = Message::TermReply {
        asker: Incarnation(asker.0 - 1),
        voters: Vec::new(),
    };
    rig.join(Config::new(NodeId(6), GROUP, 1));
    tell(&mut rig, 6, 5, 7, late).unwrap();
    rig.flush(5).unwrap();
    assert!(
        damage(&rig, 5).vote_uncertain,
        "that was asked in another life"
    );
    let reply = Message::TermReply {
        asker,
        voters: Vec::new(),
    };
    tell(&mut rig, 6, 5, 7, reply).unwrap();
    rig.flush(5).unwrap();
    rig.flush(5).unwrap();
    assert_eq!(rig.raft(5).damage_status(), None);
    let spent = HardState {
        term: Term(7),
        vote: Some(NodeId(5)),
    };
    assert_eq!(rig.raft(5).durable_hard_state(), spent);
}

#[test]
fn a_wiped_voter_comes_back_and_votes_and_leads_again() {
    let mut rig = five_entries();
    rig.crash_wiped(3);
    assert!(rig.raft(3).membership().is_unknown());
    rig.run(40).unwrap();
    assert_eq!(rig.raft(3).damage_status(), None);
    assert_eq!(rig.raft(3).last(), rig.raft(1).last());
    rig.elect(3).unwrap();
}

#[test]
fn a_lost_snapshot_is_sent_again() {
    let mut rig = five_entries();
    rig.set_trailing(0);
    for id in 1..=3 {
        rig.take_snapshot(id).unwrap();
        rig.settle().unwrap();
    }
    rig.crash_with(3, |disk| {
        disk.snapshot = None;
        disk.lost = Some(Default::default());
        disk.lost.as_mut().unwrap().snapshot = true;
    });
    assert!(damage(&rig, 3).snapshot_lost);
    assert_eq!(rig.raft(3).commit(), rig.raft(3).start().index());
    rig.run(20).unwrap();
    assert_eq!(rig.raft(3).damage_status(), None);
    assert_eq!(rig.node(3).machine, rig.node(1).machine);
}

#[test]
fn a_snapshot_that_nobody_has_yet_is_asked_for() {
    // An idle leader would never take one by itself.
    let mut rig = five_entries();
    rig.set_trailing(0);
    rig.take_snapshot(3).unwrap();
    rig.settle().unwrap();
    assert_eq!(rig.raft(1).snapshot(), None);
    rig.crash_with(3, |disk| {
        disk.snapshot = None;
        disk.lost = Some(Default::default());
        disk.lost.as_mut().unwrap().snapshot = true;
    });
    rig.run(30).unwrap();
    assert!(rig.raft(1).snapshot().is_some());
    assert_eq!(rig.node(3).machine, rig.node(1).machine);
}

#[test]
fn a_gap_that_a_snapshot_covers_is_none() {
    let mut rig = five_entries();
    rig.take_snapshot(3).unwrap();
    rig.settle().unwrap();
    rig.propose(1).unwrap();
    rig.settle().unwrap();
    assert_eq!(rig.raft(3).start(), Position::START, "all of it is kept");
    rig.crash_with(3, |disk| disk.lose(2..=4));
    assert_eq!(rig.raft(3).start().index(), Index(5));
    assert_eq!(rig.raft(3).last(), rig.raft(2).last());
    assert_eq!(damage(&rig, 3).waits_for, Awaited::Disk);
    rig.tick(3).unwrap();
    rig.flush(3).unwrap();
    assert_eq!(rig.raft(3).damage_status(), None);
    assert_eq!(rig.node(3).durable.start.index(), Index(5));
}

#[test]
fn what_the_state_machine_needs_and_the_disk_cannot_read_comes_from_others() {
    let mut rig = five_entries();
    rig.crash(3, 0);
    rig.settle().unwrap();
    rig.tick(1).unwrap();
    rig.tick(1).unwrap();
    while rig.node(3).loads.is_empty() {
        for envelope in core::mem::take(&mut rig.network) {
            rig.deliver(envelope).unwrap();
        }
        rig.flush(3).unwrap();
    }
    let load = rig.node_mut(3).loads.pop_front().unwrap().id;
    let result = Err(LoadError::Corrupt);
    rig.step(3, Input::Completed(Completion::Loaded { load, result }))
        .unwrap();
    rig.settle().unwrap();
    assert_eq!(rig.raft(3).applied(), Index(5));
    assert_eq!(rig.raft(3).halted(), None);
}

#[test]
fn a_single_voter_that_has_lost_something_waits_for_the_operator() {
    // RULES.md 17: nobody else can say what it was.
    let mut rig = Rig::new(1, 1);
    rig.seed_log(1, 1, &[1, 1, 1]);
    rig.crash_with(1, |disk| disk.lose(2..=2));
    for _ in 0..100 {
        rig.tick(1).unwrap();
        rig.settle().unwrap();
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Follower);
    let status = rig.raft(1).status().damage.unwrap();
    assert_eq!(status.waits_for, Awaited::Operator);
    assert_eq!(status.missing, Some((Index(2), Index(2))));
}

/// Node 3's disk is exchanged for an older copy of itself, and nobody is told.
fn roll_back(plant: Option<Plant>) -> Rig {
    let mut rig = five_entries();
    if let Some(plant) = plant {
        rig.node_mut(1).raft.plant(plant);
    }
    rig.crash_with(3, |disk| {
        disk.batches.truncate(2);
        disk.end = disk.batches[1].header.position();
    });
    rig.run(10).unwrap();
    rig
}

#[test]
fn a_disk_that_was_rolled_back_is_found_by_its_leader() {
    // RULES.md 18. It would vote for a log without what it has acknowledged.
    let rig = roll_back(None);
    let last = rig.raft(1).last().id;
    assert_eq!(rig.raft(3).halted(), Some(Fault::RolledBack { seen: last }));
    assert_eq!(rig.raft(1).role(), RoleKind::Leader);
    let rig = roll_back(Some(Plant::IgnoresRollback));
    assert_eq!(rig.raft(3).halted(), None);
}

#[test]
fn a_suspicion_that_is_wrong_harms_nobody() {
    // A rejection that was delayed looks like one. Who holds the entry knows better; so does who is
    // damaged and has said so.
    let mut rig = five_entries();
    let seen = rig.raft(3).last().id;
    tell(&mut rig, 1, 3, 1, Message::RolledBack { seen }).unwrap();
    assert_eq!(rig.raft(3).halted(), None);
    rig.crash_with(3, |disk| disk.lose(4..=5));
    let heartbeat = Message::Heartbeat {
        commit: Index(0),
        round: 90,
    };
    tell(&mut rig, 1, 3, 1, heartbeat).unwrap();
    tell(&mut rig, 1, 3, 1, Message::RolledBack { seen }).unwrap();
    assert_eq!(rig.raft(3).halted(), None);
}

#[test]
fn damage_that_does_not_hang_together_is_refused() {
    let mut rig = Rig::new(1, 1);
    rig.seed_log(1, 1, &[1, 1, 1, 1]);
    let mut image = rig.node(1).durable.clone();
    image.lose(2..=2);
    let good = image.boot(Incarnation(1), None);
    let config = Config::new(NodeId(1), GROUP, 1);
    let refused = |change: &dyn Fn(&mut Damage)| {
        let mut boot = good.clone();
        change(boot.damage.as_mut().unwrap());
        Raft::new(config.clone(), boot).err()
    };
    assert_eq!(refused(&|_| {}), None);
    let broken = Some(BootError::BrokenDamage);
    assert_eq!(refused(&|d| d.survivors.reverse()), broken);
    assert_eq!(refused(&|d| d.survivors[1].digest = Digest(1)), broken);
    assert_eq!(refused(&|d| d.survivors[0].first = Index(2)), broken);
    assert_eq!(refused(&|d| d.survivors[0].count = 0), broken);
    assert_eq!(refused(&|d| d.survivors[0].group = GroupId(1)), broken);
    let early = |d: &mut Damage| d.end.as_mut().unwrap().id.index = Index(3);
    assert_eq!(refused(&early), broken);
}

#[test]
fn what_waited_for_a_certain_vote_leaves_when_that_is_durable() {
    // Not with the next input, whatever that may be: nothing might come for long.
    let mut rig = five_entries();
    rig.crash_losing_vote(3);
    let prev = rig.raft(3).last();
    let append = Message::Append {
        prev,
        batches: Vec::new(),
        commit: Index(0),
    };
    tell(&mut rig, 1, 3, 1, append).unwrap();
    rig.flush(3).unwrap();
    let acknowledges =
        |m: &Message| matches!(m, Message::AppendReply(AppendReply::Accepted { .. }));
    rig.network.clear();
    let asker = rig.raft(3).incarnation();
    for from in [1, 2] {
        let voters = [1, 2, 3].map(NodeId).into();
        tell(&mut rig, from, 3, 1, Message::TermReply { asker, voters }).unwrap();
    }
    assert_eq!(sent(&rig, 3, acknowledges), 0);
    rig.sync(3, 1);
    rig.report(3).unwrap();
    assert!(!damage(&rig, 3).vote_uncertain);
    assert_eq!(sent(&rig, 3, acknowledges), 1);
}
