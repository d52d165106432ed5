//! The driver: one of the two deterministic loops. It owns the core, gives it what happened and
//! routes what the core wants done.
//!
//! It knows no thread, socket, file or clock: [`Driver::turn`] is told the tick count and appends
//! [`Effect`]s. The runtime's raft thread and the simulator call the same function.
//!
//! What it adds to the core:
//! - commands that wait are packed into one batch per proposal, body and checksum made once;
//! - completions that belong to another opening of the store are dropped before the core sees them;
//! - every submitted command gets exactly one outcome. A command whose batch has the place `(term,
//!   index)` is *applied* when that very entry is applied, *superseded* when an entry of another
//!   term is applied there, or when an entry of a later term is applied before it: whoever holds the
//!   committed later entry can no longer hold the command behind it (log matching), so it can never
//!   be committed. Until one of these happens the outcome is unknown, also when leadership is lost.
//!
//! Bounds: at most [`DriverOptions::commands_max`] commands are unanswered here, at most
//! [`DriverOptions::batches_in_flight_max`] own batches are in the log without being applied.

use crate::apply::ApplyBatch;
use crate::outcome::{ProposeError, RejectReason, StopReason, UnknownReason};
use crate::responder::Responder;
use bytes::Bytes;
use duraft_core::{
    Batch, Completion, Envelope, Event, Index, Input, Load, LogId, NodeId, Output, ProposalId,
    Raft, Reject, Response, RoleKind, Term, Write,
};
use duraft_storage::commands_body;
use std::collections::{BTreeMap, VecDeque};

/// One thing that happened to the node.
#[derive(Debug)]
pub enum DriverInput {
    /// A message whose checksums have been verified.
    Received(Envelope),
    /// A client's command.
    Propose(Proposal),
    /// Something the runtime was asked to do is done.
    Completed {
        /// The opening of the store in which it was asked for.
        generation: u64,
        /// What is done.
        completion: Completion,
    },
    /// Stop for good.
    Stop(StopReason),
}

/// A command and the way back to its client.
#[derive(Debug)]
pub struct Proposal {
    /// The command.
    pub command: Bytes,
    /// Tick at which the client stops waiting.
    pub deadline: Option<u64>,
    /// The way back.
    pub responder: Responder,
}

/// One thing to do. Each kind is to be done in order; kinds are independent of each other.
#[derive(Debug)]
pub enum Effect {
    /// Make this durable after all earlier ones, then report [`Completion::Persisted`].
    Persist(Write),
    /// Send this; it may be lost.
    Send(Envelope),
    /// Apply these committed batches, answer their clients, then report [`Completion::Applied`].
    Apply(Vec<ApplyBatch>),
    /// Read stored batches, then report [`Completion::Loaded`].
    Load(Load),
    /// Tell the client that its command was not applied, or that nobody knows.
    Fail(Responder, ProposeError),
    /// Tell observers.
    Event(Event),
    /// The driver has stopped for good; nothing but failed commands follows.
    Stopped(StopReason),
}

/// Limits of the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriverOptions {
    /// Largest batch body, as in the core's configuration.
    pub max_batch_bytes: u32,
    /// Number stored with each batch to tell how its commands are encoded; never read here.
    pub codec: u16,
    /// Most commands without an outcome.
    pub commands_max: usize,
    /// Most own batches given to the core and not applied. Commands beyond wait and are packed
    /// together, so this is what makes batches grow under load.
    pub batches_in_flight_max: usize,
    /// Ticks that a command waits for a leader to be known before it is rejected.
    pub leaderless_ticks_max: u64,
    /// Most ticks given to the core in one turn. What a long pause adds beyond is dropped: the
    /// node's own pause is no proof of anybody's silence.
    pub ticks_per_turn_max: u64,
}

impl Default for DriverOptions {
    fn default() -> DriverOptions {
        DriverOptions {
            max_batch_bytes: 1 << 20,
            codec: 0,
            commands_max: 1 << 16,
            batches_in_flight_max: 16,
            leaderless_ticks_max: 40,
            ticks_per_turn_max: 2,
        }
    }
}

/// Sees the core after each of its steps. The simulator checks invariants here.
pub trait StepObserver: Send {
    /// The core has taken one input and emitted `outputs`.
    fn stepped(&mut self, raft: &Raft, outputs: &[Output]);
}

/// See the module documentation.
pub struct Driver {
    raft: Raft,
    generation: u64,
    options: DriverOptions,
    now: u64,
    /// Commands that have not been given to the core, oldest first.
    held: VecDeque<Held>,
    /// Batches given to the core that have no place yet.
    proposed: BTreeMap<ProposalId, Vec<Waiter>>,
    /// Batches with a place in the log, by their first entry; not applied yet.
    placed: BTreeMap<(Index, Term), Vec<Waiter>>,
    next_proposal: ProposalId,
    /// Commands in the three collections above whose clients wait.
    waiting: usize,
    /// No deadline is earlier than this.
    earliest_deadline: Option<u64>,
    /// The last applied entry.
    applied: LogId,
    stopped: Option<StopReason>,
    outputs: Vec<Output>,
    observer: Option<Box<dyn StepObserver>>,
}

#[derive(Debug)]
struct Held {
    command: Bytes,
    since: u64,
    waiter: Waiter,
}

/// A client that waits; `None` once it was told that its time is over.
#[derive(Debug)]
struct Waiter {
    responder: Option<Responder>,
    deadline: Option<u64>,
}

/// What can be done with commands now.
enum Audience {
    /// This node leads.
    Here,
    /// Another node leads.
    At(NodeId),
    /// Nobody is known to lead.
    Nobody,
}

impl Driver {
    /// A driver around a core that was started from the store's opening number `generation`.
    ///
    /// # Panics
    /// Where `options` allow larger batches than the core's configuration.
    pub fn new(raft: Raft, generation: u64, options: DriverOptions) -> Driver {
        assert!(
            options.max_batch_bytes <= raft.config().max_batch_bytes,
            "the driver's batches fit the core's limit"
        );
        Driver {
            raft,
            generation,
            options,
            now: 0,
            held: VecDeque::new(),
            proposed: BTreeMap::new(),
            placed: BTreeMap::new(),
            next_proposal: ProposalId(1),
            waiting: 0,
            earliest_deadline: None,
            applied: LogId::default(),
            stopped: None,
            outputs: Vec::new(),
            observer: None,
        }
    }

    /// Calls `observer` after every step of the core.
    pub fn observe_steps(&mut self, observer: Box<dyn StepObserver>) {
        self.observer = Some(observer);
    }

    /// The core, for looking at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Why the driver stopped, if it has.
    pub fn stopped(&self) -> Option<&StopReason> {
        self.stopped.as_ref()
    }

    /// Commands whose clients wait here. Those handed over for applying are not counted.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes in everything that happened, then lets time pass up to tick `now`, then proposes what
    /// can be proposed. Messages come before ticks so that a heartbeat that waited in the queue
    /// while this node was paused counts before the pause does.
    pub fn turn(
        &mut self,
        now: u64,
        inputs: &mut VecDeque<DriverInput>,
        effects: &mut Vec<Effect>,
    ) {
        while let Some(input) = inputs.pop_front() {
            self.take(input, effects);
        }
        self.pass_time(now, effects);
        self.propose_held(effects);
    }

    fn take(&mut self, input: DriverInput, effects: &mut Vec<Effect>) {
        match input {
            DriverInput::Received(envelope) => self.step(Input::Received(envelope), effects),
            DriverInput::Propose(proposal) => self.hold(proposal, effects),
            DriverInput::Completed {
                generation,
                completion,
            } => {
                // What another opening of the store wrote says nothing about this one's writes.
                if generation == self.generation {
                    self.step(Input::Completed(completion), effects);
                }
            }
            DriverInput::Stop(reason) => self.stop(reason, effects),
        }
    }

    /// Queues a command, or refuses it with certainty.
    fn hold(&mut self, proposal: Proposal, effects: &mut Vec<Effect>) {
        let len = proposal.command.len() as u64;
        let max = u64::from(self.options.max_batch_bytes).saturating_sub(OFFSET_BYTES);
        let refusal = if self.stopped.is_some() {
            Some(rejected(RejectReason::Stopped, None))
        } else if len > max {
            Some(rejected(RejectReason::TooLarge { len, max }, None))
        } else if self.waiting >= self.options.commands_max {
            Some(ProposeError::Busy)
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
            since: self.now,
            waiter: Waiter {
                responder: Some(proposal.responder),
                deadline: proposal.deadline,
            },
        });
    }

    fn pass_time(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let elapsed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        for _ in 0..elapsed.min(self.options.ticks_per_turn_max) {
            self.step(Input::Tick, effects);
        }
        if elapsed > 0 {
            self.end_leaderless_waits(effects);
        }
        if self.earliest_deadline.is_some_and(|at| at <= self.now) {
            self.end_expired_waits(effects);
        }
    }

    /// A command that found no leader for long is rejected: it was never given to the core.
    fn end_leaderless_waits(&mut self, effects: &mut Vec<Effect>) {
        if !matches!(self.audience(), Audience::Nobody) {
            return;
        }
        let patience = self.options.leaderless_ticks_max;
        while self
            .held
            .front()
            .is_some_and(|h| self.now - h.since >= patience)
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
    fn end_expired_waits(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now;
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
        let in_log = self.proposed.values_mut().chain(self.placed.values_mut());
        let mut earliest = None;
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
    fn propose_held(&mut self, effects: &mut Vec<Effect>) {
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

    fn audience(&self) -> Audience {
        match (self.raft.role(), self.raft.leader()) {
            (RoleKind::Leader, _) => Audience::Here,
            (RoleKind::Follower | RoleKind::PreCandidate | RoleKind::Candidate, Some(leader)) => {
                Audience::At(leader)
            }
            (RoleKind::Follower | RoleKind::PreCandidate | RoleKind::Candidate, None) => {
                Audience::Nobody
            }
        }
    }

    /// Proposes one batch of as many held commands as fit.
    fn propose_batch(&mut self, effects: &mut Vec<Effect>) {
        let max = u64::from(self.options.max_batch_bytes);
        let mut body_len = 0;
        let mut commands = Vec::new();
        let mut waiters = Vec::new();
        while let Some(held) = self.held.front() {
            body_len += cost_of(&held.command);
            if body_len > max {
                break;
            }
            if let Some(held) = self.held.pop_front() {
                commands.push(held.command);
                waiters.push(held.waiter);
            }
        }
        assert!(
            !commands.is_empty(),
            "hold() refuses a command that fits no batch"
        );
        let body = commands_body(commands.iter().map(|c| &c[..]), self.options.codec)
            .expect("commands were packed within max_batch_bytes, at least one of them");
        let id = self.next_proposal;
        self.next_proposal = ProposalId(id.0 + 1);
        self.proposed.insert(id, waiters);
        self.step(Input::Propose { id, body }, effects);
    }

    /// Gives the core one input and routes what it wants done.
    fn step(&mut self, input: Input, effects: &mut Vec<Effect>) {
        if self.stopped.is_some() {
            return;
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        self.raft.step(input, &mut outputs);
        if let Some(observer) = &mut self.observer {
            observer.stepped(&self.raft, &outputs);
        }
        for output in outputs.drain(..) {
            self.route(output, effects);
        }
        self.outputs = outputs;
    }

    fn route(&mut self, output: Output, effects: &mut Vec<Effect>) {
        match output {
            Output::Persist(write) => effects.push(Effect::Persist(write)),
            Output::Send(envelope) => effects.push(Effect::Send(envelope)),
            Output::Apply(batches) => self.apply(batches, effects),
            Output::Load(load) => effects.push(Effect::Load(load)),
            Output::ReadReady { .. } | Output::SendSnapshot { .. } | Output::InstallSnapshot(_) => {
                unreachable!("the core does not send this yet")
            }
            Output::Respond(response) => self.respond(response, effects),
            Output::Changed(event) => {
                effects.push(Effect::Event(event));
                if let Event::Halted(fault) = event {
                    self.stop(StopReason::Halted(fault), effects);
                }
            }
        }
    }

    fn respond(&mut self, response: Response, effects: &mut Vec<Effect>) {
        match response {
            Response::Done { .. } => unreachable!("the core does not send this yet"),
            Response::Appended { id, first, count } => {
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
            Response::Rejected { id, reason, leader } => {
                let error = match reason {
                    Reject::NotLeader => rejected(RejectReason::NotLeader, leader),
                    Reject::UncommittedLimit => ProposeError::Busy,
                    Reject::IndexExhausted => rejected(RejectReason::IndexExhausted, None),
                    Reject::Halted => rejected(RejectReason::Stopped, leader),
                    Reject::Unsupported => rejected(RejectReason::Unsupported, None),
                    Reject::TransferInProgress
                    | Reject::TransferTimedOut
                    | Reject::TransferTarget
                    | Reject::LostLeadership
                    | Reject::MembershipInFlight
                    | Reject::NotYetCommittedInTerm
                    | Reject::Change(_)
                    | Reject::NotJoint
                    | Reject::StorageSaturated
                    | Reject::UnappliedLimit
                    | Reject::ReadLimit => ProposeError::Busy,
                    Reject::TooLarge | Reject::Malformed => {
                        panic!("the driver proposed a batch that breaks the rules: {reason:?}")
                    }
                };
                for waiter in self.proposed.remove(&id).into_iter().flatten() {
                    self.fail(waiter, error.clone(), effects);
                }
            }
        }
    }

    /// Joins committed batches with the clients that wait for them, and ends the waits that these
    /// batches decide the other way.
    fn apply(&mut self, batches: Vec<Batch>, effects: &mut Vec<Effect>) {
        let mut work = Vec::with_capacity(batches.len());
        for batch in batches {
            let header = batch.header;
            assert_eq!(
                header.first,
                self.applied_or_before(header.first).next(),
                "committed entries come without a gap"
            );
            let waiters = self.placed.remove(&(header.first, header.term));
            self.supersede(&batch, effects);
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

    /// Rejects what `batch` makes impossible: other terms' places inside it, and earlier terms'
    /// places behind it.
    fn supersede(&mut self, batch: &Batch, effects: &mut Vec<Effect>) {
        let (last, term) = (batch.header.last(), batch.header.term);
        if self.placed.is_empty() {
            return;
        }
        let lost: Vec<(Index, Term)> = self
            .placed
            .keys()
            .filter(|(index, placed_term)| *index <= last || *placed_term < term)
            .copied()
            .collect();
        let leader = self.raft.leader();
        for key in lost {
            for waiter in self.placed.remove(&key).into_iter().flatten() {
                self.fail(waiter, rejected(RejectReason::Superseded, leader), effects);
            }
        }
    }

    /// Ends every wait and stops for good.
    fn stop(&mut self, reason: StopReason, effects: &mut Vec<Effect>) {
        if self.stopped.is_some() {
            return;
        }
        self.stopped = Some(reason.clone());
        for held in std::mem::take(&mut self.held) {
            self.fail(held.waiter, rejected(RejectReason::Stopped, None), effects);
        }
        let proposed = std::mem::take(&mut self.proposed).into_values();
        let placed = std::mem::take(&mut self.placed).into_values();
        for waiter in proposed.chain(placed).flatten() {
            self.fail(waiter, unknown(UnknownReason::Stopped), effects);
        }
        assert_eq!(self.waiting, 0, "every command has got its outcome");
        effects.push(Effect::Stopped(reason));
    }

    fn fail(&mut self, waiter: Waiter, error: ProposeError, effects: &mut Vec<Effect>) {
        if let Some(responder) = waiter.responder {
            self.waiting -= 1;
            effects.push(Effect::Fail(responder, error));
        }
    }

    fn note_deadline(&mut self, deadline: Option<u64>) {
        self.earliest_deadline = earlier(self.earliest_deadline, deadline);
    }
}

/// Bytes of one command's entry in the offset table of a batch body.
const OFFSET_BYTES: u64 = 4;

fn cost_of(command: &Bytes) -> u64 {
    OFFSET_BYTES + command.len() as u64
}

fn rejected(reason: RejectReason, leader: Option<NodeId>) -> ProposeError {
    ProposeError::Rejected { reason, leader }
}

fn unknown(why: UnknownReason) -> ProposeError {
    ProposeError::OutcomeUnknown { why }
}

/// The earlier of two deadlines, where none is later than all.
fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
