//! The driver: one of the two deterministic loops. It owns the core, gives it what happened and
//! routes what the core wants done.
//!
//! It knows no thread, socket, file or clock: [`Driver::turn`] is told the time and appends
//! [`Effect`]s. The runtime's raft thread and the simulator call the same function.
//!
//! What it adds to the core:
//! - commands that wait are packed into one batch per proposal, body and checksum made once;
//! - completions that belong to another opening of the store are dropped before the core sees them;
//! - every submitted command gets exactly one outcome. A command whose batch has the place `(term,
//!   index)` is *applied* when that very entry is applied, *superseded* when an entry of another
//!   term is applied there, or when an entry of a later term is applied before it: whoever holds the
//!   committed later entry can no longer hold the command behind it (log matching), so it can never
//!   be committed. Until one of these happens the outcome is unknown, also when leadership is lost,
//!   and it stays unknown where a leader's snapshot covers the place;
//! - for reads that a lease vouches for, the time until which it does: counted from when the
//!   heartbeat round was sent, on a clock that counts suspend (RULES.md 26).
//!
//! Bounds: at most [`DriverOptions::commands_max`] commands are unanswered here, at most
//! [`DriverOptions::batches_in_flight_max`] own batches are in the log without being applied; of
//! the reads that wait there are at most as many as the core's configuration says.

mod commands;
mod reads;

use crate::apply::ApplyBatch;
use crate::outcome::{RejectReason, RequestError, StopReason, UnknownReason};
use crate::reads::{ReadJob, ReadRequest, ReadWork};
use crate::responder::Responder;
use crate::sessions::{SessionCommand, SessionId, SessionLimits, Tag};
use crate::stats::Stages;
use bytes::Bytes;
use commands::{Held, Waiter};
use duraft_core::{
    Completion, Envelope, Event, Index, Input, Leave, Load, LogId, MemberChange, NodeId, Output,
    ProposalId, Raft, Response, RoleKind, Snapshot, Term, Write, WriteSeq,
};
use reads::{SentRounds, fail_reads};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// One thing that happened to the node.
#[derive(Debug)]
pub enum DriverInput {
    /// A message whose checksums have been verified.
    Received(Envelope),
    /// A client's command.
    Propose(Proposal),
    /// A client's linearizable read.
    Read(ReadRequest),
    /// A wish about membership or leadership.
    Admin(Admin),
    /// The bulk connection to a peer was lost, and what was sent on it may be.
    Unreachable(NodeId),
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
    command: Bytes,
    tag: Tag,
    /// Tick at which the client stops waiting.
    deadline: Option<u64>,
    responder: Responder,
    /// When the client asked, where that is measured.
    asked: Option<Duration>,
}

impl Proposal {
    /// A command that takes effect as often as it is committed.
    pub fn plain(command: Bytes, deadline: Option<u64>, responder: Responder) -> Proposal {
        Proposal {
            command,
            tag: Tag::Plain,
            deadline,
            responder,
            asked: None,
        }
    }

    /// A command that takes effect at most once, however often it is committed.
    pub fn numbered(
        command: SessionCommand,
        deadline: Option<u64>,
        responder: Responder,
    ) -> Proposal {
        Proposal {
            tag: Tag::Numbered {
                session: command.session,
                number: command.number,
                acknowledged: command.acknowledged,
            },
            command: command.command,
            deadline,
            responder,
            asked: None,
        }
    }

    /// Opens a session, whose id is the index at which this is applied.
    pub fn open_session(
        limits: SessionLimits,
        deadline: Option<u64>,
        responder: Responder,
    ) -> Proposal {
        Proposal {
            command: Bytes::new(),
            tag: Tag::Open(limits),
            deadline,
            responder,
            asked: None,
        }
    }

    /// Closes a session.
    pub fn close_session(
        session: SessionId,
        deadline: Option<u64>,
        responder: Responder,
    ) -> Proposal {
        Proposal {
            command: Bytes::new(),
            tag: Tag::Close(session),
            deadline,
            responder,
            asked: None,
        }
    }

    /// Remembers when the client asked, so that its time in the queue is measured.
    pub(crate) fn asked_at(mut self, asked: Duration) -> Proposal {
        self.asked = Some(asked);
        self
    }

    /// Gives the client its one answer without proposing anything.
    pub(crate) fn refuse(self, error: RequestError) {
        self.responder.answer(Err(error));
    }
}

/// A wish about membership or leadership. Those that leave a batch in the log are answered when it is
/// applied.
#[derive(Debug)]
pub enum Admin {
    /// Change the membership.
    Change {
        /// All of it at once.
        changes: Vec<MemberChange>,
        /// How a joint membership that this leads to is left.
        leave: Leave,
        /// Tick at which the client stops waiting.
        deadline: Option<u64>,
        /// The way back.
        responder: Responder,
    },
    /// Leave a joint membership.
    LeaveJoint {
        /// Tick at which the client stops waiting.
        deadline: Option<u64>,
        /// The way back.
        responder: Responder,
    },
    /// Hand leadership to a voter.
    Transfer {
        /// The voter.
        to: NodeId,
        /// The way back.
        responder: Responder<()>,
    },
    /// Give leadership up.
    StepDown {
        /// The way back.
        responder: Responder<()>,
    },
    /// Forget who leads.
    ForgetLeader,
}

/// One thing to do. Each kind is to be done in order; `Apply`, `Read`, `InstallSnapshot` and `Retire`
/// are one kind, all others are independent of each other.
#[derive(Debug)]
pub enum Effect {
    /// Make this durable after all earlier ones, then report [`Completion::Persisted`].
    Persist(Write),
    /// Send this; it may be lost.
    Send(Envelope),
    /// Apply these committed batches, answer their clients, then report [`Completion::Applied`].
    Apply(Vec<ApplyBatch>),
    /// Read from the state machine when it has applied an index.
    Read(ReadWork),
    /// Read stored batches, then report [`Completion::Loaded`].
    Load(Load),
    /// Send a snapshot, report [`Completion::SnapshotSending`].
    SendSnapshot {
        /// The peer.
        to: NodeId,
        /// The term this node leads.
        term: Term,
        /// What to send.
        snapshot: Snapshot,
    },
    /// Replace the replicated state by this snapshot, then report [`Completion::Applied`].
    InstallSnapshot(Snapshot),
    /// Take a snapshot of the replicated state, unless one is being taken: a peer needs a newer one.
    TakeSnapshot,
    /// A durable record names this snapshot: what it makes superfluous may go when everything that was
    /// given to the apply thread before is done.
    Retire(Snapshot),
    /// Make the bulk connection to this peer anew: nothing moves on it although the peer is there.
    Redial(NodeId),
    /// Tell the client that its command was not applied, or that nobody knows.
    Fail(Responder, RequestError),
    /// Tell the client that nothing was read.
    FailRead(ReadJob, RequestError),
    /// Tell the client how a transfer or step-down ended.
    Answer(Responder<()>, Result<(), RequestError>),
    /// Tell observers.
    Event(Event),
    /// The driver has stopped for good; nothing but failed requests follows.
    Stopped(StopReason),
}

/// What time it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Ticks since some moment. What counts begins with the first turn: no life has waited for what was
    /// before it, and a voter that has forgotten what it promised must wait all of its time (RULES.md 26).
    pub tick: u64,
    /// Time since some moment, on a clock that goes on while the machine is suspended.
    pub boottime: Duration,
}

/// Limits of the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriverOptions {
    /// Largest batch body, as in the core's configuration.
    pub max_batch_bytes: u32,
    /// Number stored with each batch to tell how its commands are encoded; never read here. Below
    /// [`TAGGED_CODEC`](crate::TAGGED_CODEC).
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
    /// How long a heartbeat round that a quorum answered vouches for reads, counted from when it was
    /// sent; none where leases are off.
    pub lease: Option<Duration>,
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
            lease: None,
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
    now: Now,
    /// The first turn was.
    begun: bool,
    /// No connection is asked to be made anew before this tick.
    redial_at: u64,
    /// Commands that have not been given to the core, oldest first.
    held: VecDeque<Held>,
    /// Batches given to the core that have no place yet.
    proposed: BTreeMap<ProposalId, Vec<Waiter>>,
    /// Batches with a place in the log, by their first entry; not applied yet.
    placed: BTreeMap<(Index, Term), Vec<Waiter>>,
    /// Reads that came in this turn; the core is asked for all of them at once.
    gathered: Vec<ReadRequest>,
    /// Reads that the core has not answered, by the question that stands for them.
    reads: BTreeMap<ProposalId, Vec<ReadRequest>>,
    /// When the heartbeat rounds of this leader were sent.
    rounds: SentRounds,
    /// Transfers and step-downs that the core has not answered.
    handovers: BTreeMap<ProposalId, Responder<()>>,
    /// Writes under way that name a snapshot.
    naming: VecDeque<(WriteSeq, Snapshot)>,
    next_proposal: ProposalId,
    /// Commands in the first three collections above whose clients wait.
    waiting: usize,
    /// No deadline is earlier than this.
    earliest_deadline: Option<u64>,
    /// The last applied entry.
    applied: LogId,
    stopped: Option<StopReason>,
    outputs: Vec<Output>,
    observer: Option<Box<dyn StepObserver>>,
    /// Where the commands' times in the queue go, and the time at which this turn began.
    stages: Option<(Arc<Stages>, Duration)>,
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
            now: Now::default(),
            begun: false,
            redial_at: 0,
            held: VecDeque::new(),
            proposed: BTreeMap::new(),
            placed: BTreeMap::new(),
            gathered: Vec::new(),
            reads: BTreeMap::new(),
            rounds: SentRounds::default(),
            handovers: BTreeMap::new(),
            naming: VecDeque::new(),
            next_proposal: ProposalId(1),
            waiting: 0,
            earliest_deadline: None,
            applied: LogId::default(),
            stopped: None,
            outputs: Vec::new(),
            observer: None,
            stages: None,
        }
    }

    /// The next turn begins at `at`, on the clock of [`Proposal::asked_at`]: from then on the time
    /// that commands spend in the queue is measured. It decides nothing.
    pub(crate) fn measure(&mut self, stages: &Arc<Stages>, at: Duration) {
        match &mut self.stages {
            Some((_, now)) => *now = at,
            None => self.stages = Some((Arc::clone(stages), at)),
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

    /// The opening of the store that the core was started from.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Why the driver stopped, if it has.
    pub fn stopped(&self) -> Option<&StopReason> {
        self.stopped.as_ref()
    }

    /// Commands whose clients wait here. Those handed over for applying are not counted.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Reads whose clients wait here. Those handed over for reading are not counted.
    pub fn waiting_reads(&self) -> usize {
        self.gathered.len() + self.reads.values().map(Vec::len).sum::<usize>()
    }

    /// Takes in everything that happened, then lets time pass up to `now`, then proposes what can be
    /// proposed. Messages come before ticks so that a heartbeat that waited in the queue while this
    /// node was paused counts before the pause does.
    ///
    /// `now` is the time at which the turn begins or earlier, so that nothing is sent before it.
    pub fn turn(
        &mut self,
        now: Now,
        inputs: &mut VecDeque<DriverInput>,
        effects: &mut Vec<Effect>,
    ) {
        self.now.boottime = self.now.boottime.max(now.boottime);
        if !self.begun {
            self.begun = true;
            self.now.tick = now.tick;
        }
        while let Some(input) = inputs.pop_front() {
            self.take(input, effects);
        }
        self.ask_gathered(effects);
        self.pass_time(now.tick, effects);
        self.propose_held(effects);
    }

    fn take(&mut self, input: DriverInput, effects: &mut Vec<Effect>) {
        match input {
            DriverInput::Received(envelope) => self.step(Input::Received(envelope), effects),
            DriverInput::Propose(proposal) => self.hold(proposal, effects),
            DriverInput::Read(request) => self.gathered.push(request),
            DriverInput::Admin(admin) => self.administer(admin, effects),
            DriverInput::Unreachable(peer) => self.step(Input::Unreachable { peer }, effects),
            DriverInput::Completed {
                generation,
                completion,
            } => {
                // What another opening of the store wrote says nothing about this one's writes.
                if generation == self.generation {
                    let durable = match completion {
                        Completion::Persisted { upto } => Some(upto),
                        Completion::WriteFailed
                        | Completion::Applied { .. }
                        | Completion::Loaded { .. }
                        | Completion::SnapshotTaken { .. }
                        | Completion::SnapshotReceived { .. }
                        | Completion::SnapshotSending { .. } => None,
                    };
                    self.retire(durable, effects);
                    self.step(Input::Completed(completion), effects);
                }
            }
            DriverInput::Stop(reason) => self.stop(reason, effects),
        }
    }

    /// Of the snapshots whose records have become durable, the latest makes others superfluous.
    fn retire(&mut self, durable: Option<WriteSeq>, effects: &mut Vec<Effect>) {
        let Some(durable) = durable else {
            return;
        };
        let mut latest = None;
        while self.naming.front().is_some_and(|(seq, _)| *seq <= durable) {
            latest = self.naming.pop_front();
        }
        effects.extend(latest.map(|(_, snapshot)| Effect::Retire(snapshot)));
    }

    fn pass_time(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let elapsed = now.saturating_sub(self.now.tick);
        self.now.tick = self.now.tick.max(now);
        for _ in 0..elapsed.min(self.options.ticks_per_turn_max) {
            self.step(Input::Tick, effects);
        }
        if elapsed > 0 {
            self.end_leaderless_waits(effects);
            self.redial_stalled(effects);
        }
        if self.earliest_deadline.is_some_and(|at| at <= self.now.tick) {
            self.end_expired_waits(effects);
        }
    }

    /// Heartbeats come back and the log does not move: the bulk connection may be a black hole
    /// (RULES.md 12). A new one is asked for once in an election timeout.
    fn redial_stalled(&mut self, effects: &mut Vec<Effect>) {
        let patience = u64::from(self.raft.config().election_ticks);
        if self.now.tick < self.redial_at {
            return;
        }
        let stalled: Vec<NodeId> = self.raft.stalled_peers().collect();
        if stalled.is_empty() {
            return;
        }
        self.redial_at = self.now.tick.saturating_add(patience);
        for peer in stalled {
            effects.push(Effect::Redial(peer));
            self.step(Input::Unreachable { peer }, effects);
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

    fn administer(&mut self, admin: Admin, effects: &mut Vec<Effect>) {
        let id = self.take_id();
        match admin {
            Admin::Change {
                changes,
                leave,
                deadline,
                responder,
            } => {
                self.await_place(id, responder, deadline, effects);
                let input = Input::ChangeMembership { id, changes, leave };
                self.step(input, effects);
            }
            Admin::LeaveJoint {
                deadline,
                responder,
            } => {
                self.await_place(id, responder, deadline, effects);
                self.step(Input::LeaveJoint { id }, effects);
            }
            Admin::Transfer { to, responder } => {
                self.await_handover(id, responder, effects);
                self.step(Input::TransferLeadership { id, to }, effects);
            }
            Admin::StepDown { responder } => {
                self.await_handover(id, responder, effects);
                self.step(Input::StepDown { id }, effects);
            }
            Admin::ForgetLeader => self.step(Input::ForgetLeader, effects),
        }
    }

    fn await_handover(
        &mut self,
        id: ProposalId,
        responder: Responder<()>,
        effects: &mut Vec<Effect>,
    ) {
        if self.stopped.is_some() {
            let stopped = Err(rejected(RejectReason::Stopped, None));
            effects.push(Effect::Answer(responder, stopped));
        } else {
            self.handovers.insert(id, responder);
        }
    }

    fn take_id(&mut self) -> ProposalId {
        let id = self.next_proposal;
        self.next_proposal = ProposalId(id.0 + 1);
        id
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
            Output::Persist(write) => {
                if let Some(named) = &write.snapshot {
                    self.naming.push_back((write.seq, named.snapshot.clone()));
                }
                effects.push(Effect::Persist(write));
            }
            Output::Send(envelope) => {
                if self.options.lease.is_some() {
                    self.rounds.note(&envelope, self.now.boottime);
                }
                effects.push(Effect::Send(envelope));
            }
            Output::Apply(batches) => self.apply(batches, effects),
            Output::Load(load) => effects.push(Effect::Load(load)),
            Output::ReadReady { id, index, lease } => self.ready(id, index, lease, effects),
            Output::SendSnapshot { to, term, snapshot } => {
                effects.push(Effect::SendSnapshot { to, term, snapshot });
            }
            Output::InstallSnapshot(snapshot) => {
                self.pass_over(snapshot.position.id, effects);
                effects.push(Effect::InstallSnapshot(snapshot));
            }
            Output::TakeSnapshot => effects.push(Effect::TakeSnapshot),
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
            Response::Appended { id, first, count } => self.place(id, first, count),
            Response::Done { id } => {
                if let Some(responder) = self.handovers.remove(&id) {
                    effects.push(Effect::Answer(responder, Ok(())));
                }
            }
            Response::Rejected { id, reason, leader } => {
                let error = RequestError::refused(reason, leader);
                for waiter in self.proposed.remove(&id).into_iter().flatten() {
                    self.fail(waiter, error.clone(), effects);
                }
                if let Some(requests) = self.reads.remove(&id) {
                    fail_reads(requests, &error, effects);
                }
                if let Some(responder) = self.handovers.remove(&id) {
                    effects.push(Effect::Answer(responder, Err(error)));
                }
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
        let stopped = rejected(RejectReason::Stopped, None);
        let asked = std::mem::take(&mut self.reads).into_values().flatten();
        fail_reads(asked, &stopped, effects);
        for responder in std::mem::take(&mut self.handovers).into_values() {
            let stopped = Err(unknown(UnknownReason::Stopped));
            effects.push(Effect::Answer(responder, stopped));
        }
        effects.push(Effect::Stopped(reason));
    }

    fn note_deadline(&mut self, deadline: Option<u64>) {
        self.earliest_deadline = earlier(self.earliest_deadline, deadline);
    }
}

fn rejected(reason: RejectReason, leader: Option<NodeId>) -> RequestError {
    RequestError::Rejected { reason, leader }
}

fn unknown(why: UnknownReason) -> RequestError {
    RequestError::OutcomeUnknown { why }
}

/// The earlier of two deadlines, where none is later than all.
fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
