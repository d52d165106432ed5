//! The scenarios of the design that need elections only (S1-S5, S7) and the paper's figure 7 (S8).

use duraft_core::{Message, RoleKind, Term};
use duraft_tests::puppet::says;
use duraft_tests::{Chain, Cluster, Kind, N1, N2, N3, N4, N5, N6, N7, Options, any};

#[test]
pub(crate) fn scenario_s01_a_single_voter_leads_and_commits_only_after_its_own_disk() {
    // Could go wrong: leading on a vote, or committing an entry, that a crash would take back.
    let mut c = Cluster::new(1);
    c.hold_disk(N1);
    c.campaign(N1);
    assert_ne!(c.role(N1), RoleKind::Leader, "the vote is not durable");
    assert_eq!(c.pending(N1), 1, "term and vote travel in one write");
    c.complete(N1, 1);
    assert_eq!(c.role(N1), RoleKind::Leader);
    assert_eq!(c.commit(N1), 0, "the no-op is not durable");
    c.complete_all(N1);
    assert_eq!((c.commit(N1), c.applied(N1)), (1, 1));
    let x = c.propose(N1, "x");
    assert_eq!(c.commit(N1), 1);
    assert!(!c.acknowledged(x));
    c.complete_all(N1);
    assert!(c.acknowledged(x));
    assert_eq!(c.log(N1), ["1@1 noop", "2@1 \"x\""]);
}

#[test]
pub(crate) fn scenario_s02_three_nodes_elect_and_an_entry_of_the_new_term_commits_everywhere() {
    // Could go wrong: more hard state writes than one per node and term, or a leader without a
    // committed entry of its own term.
    let mut c = Cluster::new(3);
    c.elect(N1);
    c.heartbeat(N1);
    c.deliver_all();
    for id in [N1, N2, N3] {
        assert_eq!(c.term(id), 1);
        assert_eq!(c.leader_hint(id), Some(N1));
        assert_eq!(c.log(id), ["1@1 noop"]);
        assert_eq!(c.applied(id), 1);
        let hard_states = c.writes(id).iter().filter(|w| w.hard_state.is_some());
        assert_eq!(
            hard_states.count(),
            1,
            "one hard state write per node and term"
        );
    }
}

#[test]
pub(crate) fn scenario_s03_a_stale_log_disturbs_nobody_and_a_fresh_one_wins() {
    // Could go wrong: a node that cannot win drives the term up and unseats the leader.
    let mut c = Cluster::new(3);
    c.elect(N1);
    c.propose(N1, "x");
    c.lose(any().to(N3));
    c.deliver_all();
    assert_eq!(c.log(N3), ["1@1 noop"]);
    c.lose_patience(N2);
    c.campaign(N3);
    c.deliver_all();
    for id in [N1, N2, N3] {
        assert_eq!(c.term(id), 1, "a refused pre-vote changes no term");
    }
    assert_eq!(c.role(N1), RoleKind::Leader);
    c.campaign(N2);
    c.deliver_all();
    assert_eq!(c.leaders(), [N2]);
    assert_eq!(c.term(N2), 2);
    c.converge();
    assert_eq!(c.commands(N3), ["x"]);
}

#[test]
pub(crate) fn scenario_s03_answers_to_another_pre_campaign_do_not_count() {
    // Could go wrong: a yes to an earlier question, asked before the term moved on, starts a campaign.
    let mut c = Cluster::build(Options::new(5).puppets(&[N2, N3, N4, N5]).term(N1, 3));
    c.campaign(N1);
    assert_eq!(c.role(N1), RoleKind::PreCandidate);
    for wanted in [1, 3, 5, u64::MAX] {
        for from in [N2, N3, N4] {
            let reply = Message::PreVoteReply {
                wanted: Term(wanted),
                granted: true,
            };
            c.inject(says(from, N1, 3, reply));
        }
        assert_eq!((c.role(N1), c.term(N1)), (RoleKind::PreCandidate, 3));
    }
    for from in [N2, N3] {
        let reply = Message::PreVoteReply {
            wanted: Term(4),
            granted: true,
        };
        c.inject(says(from, N1, 3, reply));
    }
    assert_eq!((c.role(N1), c.term(N1)), (RoleKind::Candidate, 4));
}

#[test]
pub(crate) fn scenario_s04_a_live_leader_is_defended_until_its_voters_lose_contact() {
    // Could go wrong: a node with a broken clock or link unseats a leader the others hear.
    let mut c = Cluster::new(3);
    c.elect(N1);
    c.heartbeat(N1);
    c.deliver_all();
    c.campaign(N2);
    c.deliver_all();
    for id in [N1, N2, N3] {
        assert_eq!(c.term(id), 1);
    }
    assert_eq!(c.leaders(), [N1]);
    // n2 has now gone one election timeout without contact: it would vote for n3.
    c.campaign(N3);
    c.deliver_all();
    assert_eq!(c.leaders(), [N3]);
    assert_eq!(c.term(N3), 2);
}

#[test]
pub(crate) fn scenario_s05_a_quorum_that_lost_contact_elects_though_the_leader_lives() {
    // Could go wrong: check-quorum that defends a leader whom a quorum no longer hears.
    let mut c = Cluster::new(3);
    c.elect(N3);
    c.heartbeat(N3);
    c.deliver_all();
    c.campaign(N1);
    c.campaign(N2);
    for _ in 0..20 * c.options().config.election_ticks {
        c.deliver_all();
        if c.leaders() != [N3] {
            break;
        }
        c.tick(N1, 1);
        c.tick(N2, 1);
    }
    let leaders = c.leaders();
    assert!(
        leaders == [N1] || leaders == [N2],
        "{leaders:?}\n{}",
        c.story()
    );
    c.converge();
}

#[test]
pub(crate) fn scenario_s07_a_leader_without_contact_steps_down_and_late_heartbeats_change_nothing()
{
    // Could go wrong: a leader that nobody hears goes on, or its last words unseat the next one.
    let mut c = Cluster::new(3);
    c.elect(N1);
    c.heartbeat(N1);
    c.deliver_all();
    let mut ticks = 0;
    while c.role(N1) == RoleKind::Leader {
        c.tick(N1, 1);
        ticks += 1;
    }
    assert!(ticks <= 2 * c.options().config.election_ticks);
    assert_eq!(c.role(N1), RoleKind::Follower);
    assert_eq!(c.term(N1), 1, "stepping down changes no term");
    // Its heartbeats arrive late, at n3 only.
    c.lose(any().to(N2));
    assert!(c.deliver(any().to(N3).kind(Kind::Heartbeat)) > 0);
    c.lose(any());
    assert_eq!((c.term(N3), c.leader_hint(N3)), (1, Some(N1)));
    c.campaign(N2);
    c.deliver_all();
    assert_eq!(c.leaders(), [N2], "n1 and n2 are a quorum");
    assert_eq!(c.term(N2), 2);
    c.converge();
}

/// The logs of the paper's figure 7, entry terms: leader, then followers a to f.
const FIGURE_7: [&[u64]; 7] = [
    &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
    &[1, 1, 1, 4, 4, 5, 5, 6, 6],
    &[1, 1, 1, 4],
    &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 7, 7, 7],
    &[1, 1, 1, 4, 4, 4, 4],
    &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
];

#[test]
pub(crate) fn scenario_s08_figure_7_logs_become_the_leaders_within_few_probes() {
    // Could go wrong: wrong refusals, conflicting tails that stay, repair entry by entry.
    let nodes = [N1, N2, N3, N4, N5, N6, N7];
    let mut options = Options::new(7);
    for (id, terms) in nodes.into_iter().zip(FIGURE_7) {
        options = options.log(id, Chain::of_terms(terms)).term(id, 7);
    }
    let mut c = Cluster::build(options);
    c.campaign(N1);
    c.deliver_only(any().kind(Kind::PreVote));
    c.deliver_only(any().kind(Kind::PreVoteReply));
    c.deliver_only(any().kind(Kind::Vote));
    let grants: Vec<_> = c
        .net
        .waiting(any().kind(Kind::VoteReply))
        .into_iter()
        .filter(|e| e.message == Message::VoteReply { granted: true })
        .map(|e| e.from)
        .collect();
    assert_eq!(grants, [N2, N3, N6, N7], "n4 and n5 have the fresher logs");
    c.deliver_all();
    assert_eq!(c.leaders(), [N1]);
    c.heartbeat(N1);
    c.deliver_all();
    let leader = c.issued(N1).last();
    assert_eq!(c.log_terms(N1), [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8]);
    for (id, terms) in nodes.into_iter().zip(FIGURE_7) {
        assert_eq!(c.issued(id).last(), leader, "n{id} equals the leader");
        assert_eq!(c.applied(id), 11);
        let mut conflicting: Vec<u64> = terms.to_vec();
        conflicting.retain(|term| ![1, 4, 5, 6].contains(term) || id == N6);
        conflicting.dedup();
        let refusals = c
            .sent(any().from(id).kind(Kind::AppendReply))
            .into_iter()
            .filter(|e| {
                matches!(
                    e.message,
                    Message::AppendReply(duraft_core::AppendReply::Rejected { .. })
                )
            });
        let refusals = refusals.count();
        assert!(
            refusals <= conflicting.len() + 1,
            "n{id} refused {refusals} probes, its conflicting terms are {conflicting:?}"
        );
    }
}
