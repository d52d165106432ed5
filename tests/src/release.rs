//! The release table (CONSENSUS.md 3, VERIFICATION.md 4.B1-B6), checked at each message and each
//! applied batch against what the disk holds at that moment, not against the core's own counters.

use crate::history::History;
use crate::{Broken, Disk};
use duraft_core::{AppendReply, Batch, Envelope, Message, NodeId};

const B1: &str = "B1 a message's term is durable";
const B2: &str = "B2 a granted vote is durable";
const B3: &str = "B3 a candidate's vote and advertised log are durable";
const B4: &str = "B4 an acknowledged log is durable and the leader's";
const DAMAGED: &str = "R13-R16 a damaged node promises nothing it may not keep";
const FETCHED: &str = "fetched batches are durable at the sender";
const APPLY: &str = "B5 an applied batch is durable here";

/// May this message leave the node that has this disk?
pub fn check_send(disk: &Disk, history: &History, envelope: &Envelope) -> Result<(), Broken> {
    let hard = disk.durable.hard_state;
    let term = envelope.term;
    let story = || {
        format!(
            "{} leaves while {hard:?} and log {} are durable",
            crate::show::envelope(envelope),
            disk.durable.last()
        )
    };
    check_damaged(disk, history, envelope)?;
    match &envelope.message {
        // Promises nothing; the wanted term is in a field of its own.
        Message::PreVote { .. } | Message::PreVoteReply { .. } => Ok(()),
        Message::Vote { last, .. } => {
            Broken::unless(
                hard.term == term && hard.vote == Some(envelope.from),
                B3,
                story,
            )?;
            let held = disk
                .durable
                .boundary(last.index)
                .is_some_and(|position| position.id == *last);
            Broken::unless(held && last.index <= disk.safe_up_to(), B3, story)
        }
        Message::VoteReply { granted: true } => {
            let kept = hard.term > term || (hard.term == term && hard.vote == Some(envelope.to));
            Broken::unless(kept, B2, story)
        }
        Message::AppendReply(AppendReply::Accepted { matched }) => {
            Broken::unless(hard.term >= term, B1, story)?;
            let held = disk.durable.boundary(*matched);
            let held = held.filter(|_| *matched <= disk.safe_up_to());
            let leaders = held.is_some_and(|position| {
                // What is committed is in every later leader's log, or below its start.
                history.in_leader_log(term, &position) || history.is_committed(&position)
            });
            Broken::unless(leaders, B4, story)
        }
        Message::VoteReply { granted: false }
        | Message::Append { .. }
        | Message::AppendReply(AppendReply::Rejected { .. } | AppendReply::Divergence { .. })
        | Message::Heartbeat { .. }
        | Message::HeartbeatReply { .. }
        | Message::TimeoutNow
        | Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. }
        | Message::Fetch { .. }
        | Message::DamageReport { .. }
        | Message::Heal { .. }
        | Message::TermQuery
        | Message::TermReply { .. }
        | Message::RolledBack { .. } => Broken::unless(hard.term >= term, B1, story),
        // Others build on these bytes as on proven ones: they are on this disk.
        Message::Fetched { batches, .. } => {
            Broken::unless(hard.term >= term, B1, story)?;
            let held = |batch: &Batch| disk.durable.readable().any(|own| own == batch);
            Broken::unless(batches.iter().all(held), FETCHED, story)
        }
    }
}

/// What a node whose log is damaged must not say (RULES.md 13 to 16): no candidacy while anything is
/// open, no grant below what it may have acknowledged or where that is unknown, nothing that counts
/// while its term is uncertain.
fn check_damaged(disk: &Disk, history: &History, envelope: &Envelope) -> Result<(), Broken> {
    let Some(wounds) = &disk.durable.wounds else {
        return Ok(());
    };
    let open = wounds.is_open(disk.durable.last().index());
    let holds = match &envelope.message {
        Message::PreVote { .. } | Message::Vote { .. } => !open,
        Message::VoteReply { granted: true } => {
            let asked = history.asked(envelope.term, envelope.to);
            let known = asked.is_some_and(|last| last >= wounds.floor);
            !wounds.lost_suffix && !wounds.vote_uncertain && known
        }
        Message::PreVoteReply { granted: true, .. } => {
            !wounds.lost_suffix && !wounds.vote_uncertain
        }
        Message::AppendReply(AppendReply::Accepted { .. }) => !wounds.vote_uncertain,
        Message::PreVoteReply { granted: false, .. }
        | Message::VoteReply { granted: false }
        | Message::AppendReply(AppendReply::Rejected { .. } | AppendReply::Divergence { .. })
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
        | Message::RolledBack { .. } => true,
    };
    Broken::unless(holds, DAMAGED, || {
        format!("{} leaves with {wounds:?}", crate::show::envelope(envelope))
    })
}

/// May this batch be applied by the node that has this disk? By default only what is durable here.
pub fn check_apply(disk: &Disk, node: NodeId, batch: &Batch) -> Result<(), Broken> {
    let position = batch.header.position();
    let held = disk.durable.holds(&position) && position.index() <= disk.safe_up_to();
    Broken::unless(held, APPLY, || {
        format!(
            "node {node} applies {position} while its durable log ends at {}",
            disk.durable.last()
        )
    })
}
