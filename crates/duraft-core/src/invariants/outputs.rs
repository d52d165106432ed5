//! What a node puts out, held against its state: the release table, and what is given to the state
//! machine.

use super::{Verdict, Violation, ensure};
use crate::batch::Batch;
use crate::log::Boundary;
use crate::message::{AppendReply, Envelope, Message};
use crate::raft::Raft;
use crate::role::Leader;
use crate::snapshot::Snapshot;
use crate::types::{HardState, Index, LogId, Position};
use alloc::format;
use alloc::string::String;

/// The release table (module documentation of `raft.rs`), row by row. Judged by the state after the
/// step, in which only completed writes count as durable. A step that changes the term sends nothing
/// in the old one, so every envelope can be held against that state.
pub(super) fn check_send(before: &Raft, raft: &Raft, envelope: &Envelope) -> Verdict {
    let leader = leader_in(before, raft);
    let durable = raft.disk.hard_state();
    let found = || format!("{envelope:?} with {durable:?} durable");
    let own = HardState {
        term: envelope.term,
        vote: Some(raft.me.id),
    };
    match &envelope.message {
        // They promise nothing; but the term they travel under is believed.
        Message::PreVote { .. } | Message::PreVoteReply { .. } | Message::TermQuery => {
            return ensure(
                envelope.term <= durable.term,
                "I4 an envelope's term is durable",
                found,
            );
        }
        // A candidate that forgets could ask again in the same term with another log (F2, F3).
        Message::Vote { last, .. } => ensure(
            durable == own && raft.disk.log() == raft.log.end() && *last == raft.log.last().id,
            "I4 RequestVote leaves when term, vote and log are durable",
            found,
        )?,
        // A voter that forgets could vote twice.
        Message::VoteReply { granted: true } => ensure(
            durable.vote == Some(envelope.to) && !raft.abstains(),
            "I4 a grant leaves when the vote is durable",
            found,
        )?,
        // The content need not be durable here: the leader's disk is one peer among others. That this
        // node leads, and what, must be.
        Message::Append {
            prev,
            batches,
            commit,
        } => {
            // The step may have given back the page of headers that the message was made with.
            let holder = match raft.log.boundary_after(prev.index()) {
                None => before,
                Some(_) => raft,
            };
            let first = holder.log.boundary_after(prev.index());
            // Or the page came with this step, and went with what a snapshot made superfluous.
            let gone =
                (before.log.start().index()..raft.log.start().index()).contains(&prev.index());
            ensure(
                durable == own
                    && leader.is_some()
                    && first.map_or(gone, |at| are_in_log(holder, at, prev, batches))
                    && *commit <= raft.commit(),
                "I4 a leader sends its own log",
                found,
            )?;
        }
        // The one promise that clients stand on.
        Message::AppendReply(AppendReply::Accepted { matched }) => ensure(
            !raft.is_uncertain()
                && (raft.log.boundary_after(*matched))
                    .is_some_and(|at| at <= raft.disk.log() && at <= raft.verified),
            "I4 an acknowledged batch is durable and verified",
            found,
        )?,
        // A commit index that the peer could misread for its own tail is not sent.
        Message::Heartbeat { commit, .. } => {
            let matched = leader
                .and_then(|leader| leader.progress.get(&envelope.to))
                .map(|progress| progress.matched_id.index);
            ensure(
                durable == own
                    && *commit <= raft.commit()
                    && matched.is_some_and(|matched| *commit <= matched),
                "I4 a heartbeat commits what the peer holds",
                found,
            )?;
        }
        // Who campaigns on this is voted for in spite of every promise to this leader: so it leads, and
        // no read may rest on its lease any more. And it is asked when it can win.
        Message::TimeoutNow => {
            let ready = raft.role.leader().is_none_or(|leader| {
                let target = leader.progress.get(&envelope.to);
                leader.lease.given_up && target.is_some_and(|t| t.matched == raft.log.end())
            });
            ensure(
                durable == own && leader.is_some() && ready,
                "I4 a leader asks for a campaign that can win, and gives its lease up first",
                found,
            )?;
        }
        // A read index is committed, in a log that holds everything committed before this term.
        Message::ReadIndexReply { index, .. } => {
            let shown = |index| leader.is_some_and(|leader| shows_own_term(raft, leader, index));
            let told = index.is_none_or(|index| index <= raft.commit() && shown(index));
            ensure(
                durable == own && leader.is_some() && told,
                "I4 a leader tells what it has committed, in its own term",
                found,
            )?;
        }
        // Somebody else stakes its vote on this.
        Message::TermReply { .. } => ensure(
            raft.damage.is_none(),
            "R14 only a whole node tells its term",
            found,
        )?,
        Message::HeartbeatReply { .. } => ensure(
            !raft.is_uncertain(),
            "R14 a node that may have lost a vote answers no heartbeat",
            found,
        )?,
        // Others build on these bytes as on proven ones.
        Message::Fetched { after, batches } => {
            let first = raft.log.boundary_after(after.index());
            let held =
                batches.is_empty() || first.is_some_and(|at| are_in_log(raft, at, after, batches));
            let durable = (batches.last()).is_none_or(|last| {
                (raft.log.boundary_after(last.header.last()))
                    .is_some_and(|at| at <= raft.disk.log())
            });
            ensure(
                held && durable,
                "I4 what others fetch is durable here",
                found,
            )?;
        }
        // These carry the term and nothing else that must be kept.
        Message::VoteReply { granted: false }
        | Message::AppendReply(AppendReply::Rejected { .. } | AppendReply::Divergence { .. })
        | Message::ReadIndex { .. }
        | Message::Fetch { .. }
        | Message::DamageReport { .. }
        | Message::Heal { .. }
        | Message::RolledBack { .. } => {}
    }
    ensure(
        envelope.term == durable.term && envelope.term == raft.hard.term,
        "I4 an envelope's term is durable",
        found,
    )
}

/// The leader's part of a step that sends as one: it may give the office up in the same step, when what
/// it sends is what commits its own removal.
pub(super) fn leader_in<'a>(before: &'a Raft, after: &'a Raft) -> Option<&'a Leader> {
    let left = before.hard.term == after.hard.term;
    (after.role.leader()).or_else(|| before.role.leader().filter(|_| left))
}

/// Are these the log's own batches, from the boundary after `prev` on?
fn are_in_log(raft: &Raft, first: Boundary, prev: &Position, batches: &[Batch]) -> bool {
    let mut at = first;
    raft.log.position(at) == *prev
        && batches.iter().all(|batch| {
            let same = raft.log.header(at) == Some(&batch.header);
            at = at.next();
            same
        })
}

/// A state machine is given a snapshot that would be there again after a crash, and nothing else is
/// handed over before.
pub(super) fn check_install(raft: &Raft, snapshot: &Snapshot) -> Verdict {
    let due = raft.install.as_ref().is_some_and(|install| {
        install.told
            && install.snapshot == *snapshot
            && (install.seq).is_some_and(|seq| seq <= raft.disk.completed())
    });
    ensure(
        due && raft.log.start() == snapshot.position && raft.log.begin() <= raft.disk.log(),
        "I4 a snapshot is restored when it is durable",
        || format!("{snapshot:?}"),
    )
}

/// A read that a leader answers shows everything committed before its term, and what it has committed
/// itself. Only a leader has a lease; a follower repeats what its leader said.
pub(super) fn check_read(before: &Raft, after: &Raft, index: Index, lease: Option<u64>) -> Verdict {
    let found = || format!("{index}, lease {lease:?}");
    match leader_in(before, after) {
        Some(leader) => ensure(
            index <= after.commit() && shows_own_term(after, leader, index),
            "I8 a read shows what is committed, an entry of the own term among it",
            found,
        )?,
        None => ensure(
            lease.is_none() && after.leader().is_some(),
            "I8 a follower's read is vouched for by its leader",
            found,
        )?,
    }
    ensure(
        lease.is_none() || after.config.lease.is_some(),
        "I8 leases are used where they are configured",
        found,
    )
}

/// Does the state at `index` hold an entry of the leader's own term?
fn shows_own_term(raft: &Raft, leader: &Leader, index: Index) -> bool {
    let begun = raft.log.position_in(leader.term_begin);
    begun.is_none_or(|before| index > before.index())
}

/// What is handed to the state machine, held against commit, disk and log. Returns where it ends.
pub(super) fn check_apply(
    raft: &Raft,
    from: Boundary,
    batches: &[Batch],
) -> Result<Boundary, Violation> {
    let mut at = from;
    for batch in batches {
        ensure(
            at < raft.commit.min(raft.disk.log()) && raft.log.header(at) == Some(&batch.header),
            "I1 only committed and durable batches are applied, in order",
            || {
                let expected: Option<LogId> = raft.log.header(at).map(|header| header.last_id());
                format!("{:?} where {expected:?} was due", batch.header)
            },
        )?;
        at = at.next();
    }
    ensure(
        !batches.is_empty(),
        "I1 an apply hands something over",
        || String::from("nothing"),
    )?;
    Ok(at)
}
