//! The driver's commands: held, packed into batches, placed in the log, applied or failed.

use super::{Audience, Driver, Effect, Proposal, earlier, rejected, unknown};
use crate::apply::ApplyBatch;
use crate::outcome::{BusyReason, RejectReason, RequestError, UnknownReason};
use crate::responder::Responder;
use crate::sessions::{TAGGED_CODEC, Tag};
use crate::stats::Stage;
use bytes::Bytes;
use duraft_core::{Batch, Body, Index, Input, LogId, ProposalId, Term};
use duraft_storage::commands_body;
use std::collections::VecDeque;
use std::time::Duration;

/// A command that the core does not have yet.
#[derive(Debug)]
pub(super) struct Held {
    command: Bytes,
    tag: Tag,
    since: u64,
    asked: Option<Duration>,
    pub(super) waiter: Waiter,
}

/// A client that waits; `None` once it was told that its time is over.
#[derive(Debug)]
pub(super) struct Waiter {
    responder: Option<Responder>,
    deadline: Option<u64>,
}

/// Bytes of one command's entry in the offset table of a batch body.
const OFFSET_BYTES: u64 = 4;

/// Commands on their way into one batch.
#[derive(Default)]
struct Packing {
    commands: Vec<(Tag, Bytes)>,
    /// Bytes of commands and offsets.
    bytes: u64,
    /// Bytes of tags, if the batch is tagged.
    tag_bytes: u64,
    tagged: bool,
}

impl Packing {
    /// Does the batch fit into `max` bytes with this command, too?
    fn fits(&self, held: &Held, max: u64) -> bool {
        let bytes = self.bytes + OFFSET_BYTES + held.command.len() as u64;
        let tags = self.tag_bytes + held.tag.len();
        let tagged = self.tagged || held.tag != Tag::Plain;
        bytes + if tagged { tags } else { 0 } <= max
    }

    fn add(&mut self, tag: Tag, command: Bytes) {
        self.bytes += OFFSET_BYTES + command.len() as u64;
        self.tag_bytes += tag.len();
        self.tagged |= tag != Tag::Plain;
        self.commands.push((tag, command));
    }

    fn body(self, codec: u16) -> Body {
        let body = if self.tagged {
            let tagged: Vec<Bytes> = self
                .commands
                .iter()
                .map(|(tag, command)| tag.prefix(command))
                .collect();
            commands_body(tagged.iter().map(|c| &c[..]), codec | TAGGED_CODEC)
        } else {
            commands_body(self.commands.iter().map(|(_, c)| &c[..]), codec)
        };
        body.expect("commands were packed within max_batch_bytes, at least one of them")
    }
}

impl Driver {
    /// Queues a command, or refuses it with certainty.
    pub(super) fn hold(&mut self, proposal: Proposal, effects: &mut Vec<Effect>) {
        let len = proposal.command.len() as u64;
        let around = OFFSET_BYTES
            + match proposal.tag {
                Tag::Plain => 0,
                tag @ (Tag::Numbered { .. } | Tag::Open(_) | Tag::Close(_)) => tag.len(),
            };
        let max = u64::from(self.options.max_batch_bytes).saturating_sub(around);
        let refusal = if self.stopped.is_some() {
            Some(rejected(RejectReason::Stopped, None))
        } else if len > max {
            Some(rejected(RejectReason::TooLarge { len, max }, None))
        } else if self.waiting >= self.options.commands_max {
            let why = BusyReason::Requests;
            Some(RequestError::Busy { why })
        } else {
            None
        };
        if let Some(error) = refusal {
            effects.push(Effect::Fail(proposal.responder, error));
            return;
        }
        self.waiting += 1;
        self.note_deadline(proposal.deadline);
        self.held.push_back(Held {
            command: proposal.command,
            tag: proposal.tag,
            since: self.now.tick,
            asked: proposal.asked,
            waiter: Waiter {
                responder: Some(proposal.responder),
                deadline: proposal.deadline,
            },
        });
    }

    /// A client waits for a batch that the core is about to make.
    pub(super) fn await_place(
        &mut self,
        id: ProposalId,
        responder: Responder,
        deadline: Option<u64>,
        effects: &mut Vec<Effect>,
    ) {
        if self.stopped.is_some() {
            effects.push(Effect::Fail(
                responder,
                rejected(RejectReason::Stopped, None),
            ));
            return;
        }
        self.waiting += 1;
        self.note_deadline(deadline);
        let waiter = Waiter {
            responder: Some(responder),
            deadline,
        };
        self.proposed.insert(id, vec![waiter]);
    }

    /// A command that found no leader for long is rejected: it was never given to the core.
    pub(super) fn end_leaderless_waits(&mut self, effects: &mut Vec<Effect>) {
        if !matches!(self.audience(), Audience::Nobody) {
            return;
        }
        let patience = self.options.leaderless_ticks_max;
        while self
            .held
            .front()
            .is_some_and(|h| self.now.tick - h.since >= patience)
        {
            if let Some(held) = self.held.pop_front() {
                self.fail(
                    held.waiter,
                    rejected(RejectReason::NotLeader, None),
                    effects,
                );
            }
        }
    }

    /// Ends the waits whose deadline has come: certainly without effect where the core does not have
    /// the command yet, unknown where it has.
    pub(super) fn end_expired_waits(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now.tick;
        let expired = |waiter: &Waiter| waiter.deadline.is_some_and(|at| at <= now);
        let mut kept = VecDeque::with_capacity(self.held.len());
        for held in std::mem::take(&mut self.held) {
            if expired(&held.waiter) {
                self.fail(held.waiter, rejected(RejectReason::Expired, None), effects);
            } else {
                kept.push_back(held);
            }
        }
        self.held = kept;
        let mut earliest = self.end_expired_reads(effects);
        let in_log = self.proposed.values_mut().chain(self.placed.values_mut());
        for waiter in in_log.flatten() {
            if waiter.responder.is_none() {
                continue;
            }
            if expired(waiter) {
                let responder = waiter.responder.take();
                self.waiting -= 1;
                effects
                    .extend(responder.map(|r| Effect::Fail(r, unknown(UnknownReason::Deadline))));
            } else {
                earliest = earlier(earliest, waiter.deadline);
            }
        }
        for held in &self.held {
            earliest = earlier(earliest, held.waiter.deadline);
        }
        self.earliest_deadline = earliest;
    }

    /// Packs held commands into batches and proposes them, as far as the window allows.
    pub(super) fn propose_held(&mut self, effects: &mut Vec<Effect>) {
        while !self.held.is_empty() {
            match self.audience() {
                Audience::Here => {
                    let in_flight = self.proposed.len() + self.placed.len();
                    if in_flight >= self.options.batches_in_flight_max.max(1) {
                        return;
                    }
                    self.propose_batch(effects);
                }
                Audience::At(leader) => {
                    let error = rejected(RejectReason::NotLeader, Some(leader));
                    for held in std::mem::take(&mut self.held) {
                        self.fail(held.waiter, error.clone(), effects);
                    }
                }
                Audience::Nobody => return,
            }
        }
    }

    /// Proposes one batch of as many held commands as fit.
    fn propose_batch(&mut self, effects: &mut Vec<Effect>) {
        let max = u64::from(self.options.max_batch_bytes);
        let mut packing = Packing::default();
        let mut waiters = Vec::new();
        while self
            .held
            .front()
            .is_some_and(|held| packing.fits(held, max))
        {
            if let Some(held) = self.held.pop_front() {
                if let (Some(asked), Some((stages, now))) = (held.asked, &self.stages) {
                    // Asked in the course of this turn is asked at its beginning.
                    stages.record(Stage::Queue, now.saturating_sub(asked));
                }
                packing.add(held.tag, held.command);
                waiters.push(held.waiter);
            }
        }
        assert!(
            !waiters.is_empty(),
            "hold() refuses a command that fits no batch"
        );
        let body = packing.body(self.options.codec);
        let id = self.take_id();
        self.proposed.insert(id, waiters);
        self.step(Input::Propose { id, body }, effects);
    }

    /// A batch of ours has a place in the log.
    pub(super) fn place(&mut self, id: ProposalId, first: LogId, count: u32) {
        let Some(waiters) = self.proposed.remove(&id) else {
            return;
        };
        assert_eq!(
            waiters.len(),
            count as usize,
            "one waiter per entry of the batch"
        );
        let before = self.placed.insert((first.index, first.term), waiters);
        assert!(before.is_none(), "a leader gives a place once per term");
    }

    /// Joins committed batches with the clients that wait for them, and ends the waits that these
    /// batches decide the other way.
    pub(super) fn apply(&mut self, batches: Vec<Batch>, effects: &mut Vec<Effect>) {
        let mut work = Vec::with_capacity(batches.len());
        for batch in batches {
            let header = batch.header;
            assert_eq!(
                header.first,
                self.applied_or_before(header.first).next(),
                "committed entries come without a gap"
            );
            let waiters = self.placed.remove(&(header.first, header.term));
            self.supersede(header.last_id(), effects);
            let waiters = waiters.unwrap_or_default();
            assert!(
                waiters.is_empty() || waiters.len() == header.count as usize,
                "(term, index) names one batch"
            );
            self.waiting -= waiters.iter().filter(|w| w.responder.is_some()).count();
            work.push(ApplyBatch {
                batch,
                responders: waiters.into_iter().map(|w| w.responder).collect(),
            });
            self.applied = header.last_id();
        }
        effects.push(Effect::Apply(work));
    }

    /// The last applied index; before the first apply of a life, whatever precedes `first`.
    fn applied_or_before(&self, first: Index) -> Index {
        if self.applied == LogId::default() {
            first.previous()
        } else {
            self.applied.index
        }
    }

    /// Rejects what the committed batch that ends at `last` makes impossible: other terms' places
    /// inside it, and earlier terms' places behind it.
    fn supersede(&mut self, last: LogId, effects: &mut Vec<Effect>) {
        let leader = self.raft.leader();
        for waiter in self.take_places(|index, term| index <= last.index || term < last.term) {
            self.fail(waiter, rejected(RejectReason::Superseded, leader), effects);
        }
    }

    /// The state machine goes on behind a snapshot that covers the log up to `last`. Nobody here sees
    /// what was applied before; what earlier terms have behind it is impossible, as in
    /// [`Driver::supersede`].
    pub(super) fn pass_over(&mut self, last: LogId, effects: &mut Vec<Effect>) {
        for waiter in self.take_places(|index, _| index <= last.index) {
            self.fail(waiter, unknown(UnknownReason::PassedBySnapshot), effects);
        }
        self.supersede(last, effects);
        self.applied = last;
    }

    fn take_places(&mut self, gone: impl Fn(Index, Term) -> bool) -> Vec<Waiter> {
        let places = self.placed.keys().copied();
        let gone: Vec<_> = places.filter(|(index, term)| gone(*index, *term)).collect();
        let taken = gone.iter().filter_map(|place| self.placed.remove(place));
        taken.flatten().collect()
    }

    pub(super) fn fail(&mut self, waiter: Waiter, error: RequestError, effects: &mut Vec<Effect>) {
        if let Some(responder) = waiter.responder {
            self.waiting -= 1;
            effects.push(Effect::Fail(responder, error));
        }
    }
}
