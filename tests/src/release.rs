//! The release table (CONSENSUS.md 3, VERIFICATION.md 4.B1-B6), checked at each message and each
//! applied batch against what the disk holds at that moment, not against the core's own counters.

use crate::history::History;
use crate::{Broken, Disk};
use duraft_core::{AppendReply, Batch, Envelope, Message, NodeId};

const B1: &str = "B1 a message's term is durable";
const B2: &str = "B2 a granted vote is durable";
const B3: &str = "B3 a candidate's vote and advertised log are durable";
const B4: &str = "B4 an acknowledged log is durable and the leader's";
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
            let held = |batch: &Batch| {
                let position = batch.header.position();
                disk.durable.holds(&position) && position.index() <= disk.safe_up_to()
            };
            Broken::unless(batches.iter().all(held), FETCHED, story)
        }
    }
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
