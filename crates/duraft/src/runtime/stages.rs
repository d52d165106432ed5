//! When what was sent, written and committed began, so that its end can be timed. Owned by the raft
//! thread, which takes the time once per turn.

use crate::driver::DriverInput;
use crate::stats::{Stage, Stages};
use duraft_core::{AppendReply, Batch, Envelope, Index, Message, NodeId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Most beginnings remembered of one kind; what is beyond is not measured.
const OPEN_MAX: usize = 4096;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Beginnings {
    /// Appends to each peer: the last index in each, and when it was sent.
    sent: BTreeMap<NodeId, VecDeque<(Index, Duration)>>,
    /// Batches of this leader: the last index of each, and when it was placed.
    placed: VecDeque<(Index, Duration)>,
}

impl Beginnings {
    /// An append goes out.
    pub(super) fn sent(&mut self, envelope: &Envelope, now: Duration) {
        let Message::Append { batches, .. } = &envelope.message else {
            return;
        };
        let Some(last) = batches.last().map(|batch| batch.header.last()) else {
            return;
        };
        let sent = self.sent.entry(envelope.to).or_default();
        // Sent again from further back: what was on its way may be lost.
        while sent.back().is_some_and(|(index, _)| *index >= last) {
            sent.pop_back();
        }
        if sent.len() < OPEN_MAX {
            sent.push_back((last, now));
        }
    }

    /// Looks for the ends of appends in what comes in.
    pub(super) fn received(&mut self, input: &DriverInput, now: Duration, stages: &Stages) {
        if let DriverInput::Received(envelope) = input
            && let Message::AppendReply(AppendReply::Accepted { matched }) = &envelope.message
            && let Some(sent) = self.sent.get_mut(&envelope.from)
        {
            finish(sent, *matched, now, |took| {
                stages.record(Stage::Replicate, took)
            });
        }
    }

    /// A leader gives batches a place in its log.
    pub(super) fn placed(&mut self, batches: &[Batch], now: Duration) {
        for batch in batches {
            if self.placed.len() < OPEN_MAX {
                self.placed.push_back((batch.header.last(), now));
            }
        }
    }

    /// Everything up to `upto` is committed.
    pub(super) fn committed(&mut self, upto: Index, now: Duration, stages: &Stages) {
        finish(&mut self.placed, upto, now, |took| {
            stages.record(Stage::Commit, took)
        });
    }

    /// This node does not lead any more: what was begun may end in another way.
    pub(super) fn forget(&mut self) {
        self.sent.clear();
        self.placed.clear();
    }
}

/// Ends everything up to `upto`.
fn finish(
    open: &mut VecDeque<(Index, Duration)>,
    upto: Index,
    now: Duration,
    mut record: impl FnMut(Duration),
) {
    while let Some((index, begun)) = open.front()
        && *index <= upto
    {
        record(now.saturating_sub(*begun));
        open.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Stats;
    use duraft_core::{Body, GroupId, Incarnation, Position, Term};

    fn batches(count: u64) -> Vec<Batch> {
        let mut end = Position::START;
        let mut all = Vec::new();
        for _ in 0..count {
            let batch = Body::noop()
                .seal(GroupId(1), &end, Term(1))
                .expect("it fits");
            end = batch.header.position();
            all.push(batch);
        }
        all
    }

    fn envelope(from: u64, to: u64, message: Message) -> Envelope {
        Envelope {
            group: GroupId(1),
            from: NodeId(from),
            incarnation: Incarnation(1),
            to: NodeId(to),
            term: Term(1),
            message,
        }
    }

    fn append(to: u64, batches: &[Batch]) -> Envelope {
        let message = Message::Append {
            prev: Position::START,
            batches: batches.to_vec(),
            commit: Index(0),
        };
        envelope(1, to, message)
    }

    fn accepted(from: u64, matched: u64) -> DriverInput {
        let reply = AppendReply::Accepted {
            matched: Index(matched),
        };
        DriverInput::Received(envelope(from, 1, Message::AppendReply(reply)))
    }

    fn counts(stages: &Stages) -> (u64, u64, Duration) {
        let stats = Stats {
            stages: stages.read(),
            ..Stats::default()
        };
        let replicate = stats.stage(Stage::Replicate);
        (
            replicate.count(),
            stats.stage(Stage::Commit).count(),
            replicate.max(),
        )
    }

    #[test]
    fn appends_end_with_the_word_of_their_peer_and_batches_with_the_commit() {
        let (stages, mut open) = (Stages::default(), Beginnings::default());
        let all = batches(3);
        let at = Duration::from_millis;
        open.placed(&all, at(0));
        open.sent(&append(2, &all[..1]), at(1));
        open.sent(&append(2, &all[..2]), at(2));
        open.sent(&append(3, &all[..2]), at(2));
        open.received(&accepted(2, 2), at(5), &stages);
        assert_eq!(counts(&stages), (2, 0, at(4)));
        open.received(&accepted(2, 2), at(50), &stages);
        assert_eq!(
            counts(&stages),
            (2, 0, at(4)),
            "an answer again ends nothing again"
        );
        open.committed(Index(2), at(6), &stages);
        assert_eq!(counts(&stages).1, 2);
        // Sent again: counted from the last time.
        open.sent(&append(3, &all[..1]), at(7));
        open.received(&accepted(3, 1), at(8), &stages);
        assert_eq!(counts(&stages), (3, 2, at(4)));
        // Of another leader's time nothing is known.
        open.forget();
        open.committed(Index(3), at(9), &stages);
        assert_eq!(counts(&stages).1, 2);
    }
}
