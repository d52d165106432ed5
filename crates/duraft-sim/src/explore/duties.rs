//! What a core owes when it hears something. The specification says what a node may do, and doing nothing
//! is always allowed; these are the few things that a node must do at once, or a cluster that is never
//! wrong may never get anywhere either. They hold as written where check-quorum, leases and damage are off.

use duraft_core::{AppendReply, Envelope, LogId, Message, Raft, RoleKind};

/// Has the core done what this message obliges it to?
pub(super) fn check(
    before: &Raft,
    after: &Raft,
    heard: &Envelope,
    sent: &[Envelope],
) -> Result<(), String> {
    match &heard.message {
        Message::Append { .. } | Message::Heartbeat { .. } => follows(after, heard),
        Message::Vote { last, .. } => {
            stays(before, after, heard)?;
            votes(before, after, heard, *last)
        }
        Message::AppendReply(AppendReply::Rejected { prev, hint }) => {
            searches(before, heard, (*prev, *hint), sent)
        }
        Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::VoteReply { .. }
        | Message::AppendReply(AppendReply::Accepted { .. } | AppendReply::Divergence { .. })
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
        | Message::RolledBack { .. } => Ok(()),
    }
}

/// Whoever hears the leader of its term follows it (paper, 5.2).
fn follows(after: &Raft, heard: &Envelope) -> Result<(), String> {
    if heard.term < after.term() || after.leader() == Some(heard.from) {
        return Ok(());
    }
    Err(format!(
        "duty: node {} has heard the leader of term {}, node {}, and is a {:?}",
        after.id(),
        heard.term,
        heard.from,
        after.role()
    ))
}

/// A request for a vote does not unseat who leads or stands in that term (paper, 5.2: it has voted for
/// itself).
fn stays(before: &Raft, after: &Raft, heard: &Envelope) -> Result<(), String> {
    let stands = matches!(before.role(), RoleKind::Candidate | RoleKind::Leader);
    if !stands || heard.term != before.term() || before.role() == after.role() {
        return Ok(());
    }
    Err(format!(
        "duty: node {}, a {:?}, was asked for its vote in its own term and is a {:?}",
        after.id(),
        before.role(),
        after.role()
    ))
}

/// A vote that is free, in a term of which no leader is known, is given to a log that is at least as up to
/// date (paper, 5.4.1).
fn votes(before: &Raft, after: &Raft, heard: &Envelope, last: LogId) -> Result<(), String> {
    let own_term = heard.term == before.term();
    let free = heard.term > before.term()
        || own_term && before.vote().is_none() && before.leader().is_none();
    let fresh = last >= before.last().id;
    if !free || !fresh || after.vote() == Some(heard.from) {
        return Ok(());
    }
    Err(format!(
        "duty: node {}, whose log ends with {}, refuses its vote to {last}",
        after.id(),
        before.last().id
    ))
}

/// After a refusal a leader asks for the last place that both logs may share (paper, 5.3, the search by
/// terms): for nothing that the refusal has ruled out, and not for less, least of all for what the peer
/// has acknowledged.
fn searches(
    before: &Raft,
    heard: &Envelope,
    (prev, hint): (LogId, LogId),
    sent: &[Envelope],
) -> Result<(), String> {
    let known = before.progress(heard.from).map(|peer| peer.matched);
    let possible = |id: &LogId| {
        let ruled_out =
            id.term > prev.term.min(hint.term) || id.index >= prev.index || id.index > hint.index;
        !ruled_out || Some(id.index) <= known
    };
    let mut ends = before.headers().rev().map(|header| header.last_id());
    let shared = ends.find(possible).unwrap_or(before.start().id);
    let questions = sent.iter().filter(|envelope| envelope.to == heard.from);
    for question in questions {
        let Message::Append { prev: asked, .. } = &question.message else {
            continue;
        };
        if asked.id != shared {
            return Err(format!(
                "duty: node {} has no {prev}, but perhaps {shared}, and is asked for {}",
                heard.from, asked.id
            ));
        }
    }
    Ok(())
}
