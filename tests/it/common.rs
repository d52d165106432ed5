//! Short words that several test files share.

use duraft_core::{AppendReply, Envelope, Message, NodeId, RoleKind};
use duraft_tests::{Cluster, Kind, N1, Options, any};

/// A cluster led by n1 in which everybody has applied what there is.
pub(crate) fn led(options: Options) -> Cluster {
    let mut c = Cluster::build(options);
    if c.options().config.lease.is_some() {
        // A life begins with the silence that a lease may count on.
        for id in c.ids() {
            if id != N1 {
                c.lose_patience(id);
            }
        }
    }
    c.elect(N1);
    c.heartbeat(N1);
    c.deliver_all();
    assert_eq!(c.leaders(), [N1]);
    c
}

/// Everything committed is told and applied everywhere.
pub(crate) fn settle(c: &mut Cluster) {
    for _ in 0..3 {
        for leader in c.leaders() {
            c.heartbeat(leader);
        }
        c.deliver_all();
    }
}

/// Makes `id` lead whoever leads now, with the voters' patience lost.
pub(crate) fn usurp(c: &mut Cluster, id: NodeId) {
    for other in c.living() {
        if other != id && c.role(other) != RoleKind::Leader {
            c.lose_patience(other);
        }
    }
    c.lose(any());
    c.campaign(id);
    c.deliver_all();
    assert!(c.leaders().contains(&id), "n{id} takes over\n{}", c.story());
}

/// The boundary acknowledged by this message, if it acknowledges one.
pub(crate) fn acceptance(envelope: &Envelope) -> Option<u64> {
    match envelope.message {
        Message::AppendReply(AppendReply::Accepted { matched }) => Some(matched.0),
        Message::AppendReply(AppendReply::Rejected { .. } | AppendReply::Divergence { .. })
        | Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::Vote { .. }
        | Message::VoteReply { .. }
        | Message::Append { .. }
        | Message::Heartbeat { .. }
        | Message::HeartbeatReply { .. }
        | Message::TimeoutNow
        | Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. }
        | Message::Fetch { .. }
        | Message::Fetched { .. }
        | Message::DamageReport { .. }
        | Message::Heal { .. }
        | Message::TermQuery
        | Message::TermReply { .. }
        | Message::RolledBack { .. } => None,
    }
}

/// Acknowledgements that `id` has sent so far.
pub(crate) fn acceptances(c: &Cluster, id: NodeId) -> Vec<u64> {
    let replies = c.sent(any().from(id).kind(Kind::AppendReply));
    replies.into_iter().filter_map(acceptance).collect()
}

/// Is this an answer that refuses an append?
pub(crate) fn is_refusal(envelope: &Envelope) -> bool {
    Kind::of(&envelope.message) == Kind::AppendReply && acceptance(envelope).is_none()
}

/// Refusals of appends that `id` has sent so far.
pub(crate) fn refusals(c: &Cluster, id: NodeId) -> usize {
    let replies = c.sent(any().from(id).kind(Kind::AppendReply));
    replies.into_iter().filter(|e| is_refusal(e)).count()
}

/// Who granted a vote among these messages.
pub(crate) fn grants<'a>(envelopes: impl IntoIterator<Item = &'a Envelope>) -> Vec<NodeId> {
    envelopes
        .into_iter()
        .filter(|e| e.message == Message::VoteReply { granted: true })
        .map(|e| e.from)
        .collect()
}

/// Appends that `from` has sent to `to` so far.
pub(crate) fn appends(c: &Cluster, from: NodeId, to: NodeId) -> usize {
    c.sent(any().from(from).to(to).kind(Kind::Append)).len()
}
