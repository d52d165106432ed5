//! One core with its disk, and its steps, each run once.

use super::canonical::words;
use super::duties;
use super::world::Options;
use crate::spec::refine::{Names, is_told, may_say, path};
use crate::spec::walk::{Twice, hash128};
use crate::spec::{Action, Log, Node, Part, Record};
use duraft_core::{
    Batch, BatchKind, Body, Boot, Completion, Envelope, GroupId, HardState, Incarnation, Input,
    Load, Membership, Message, NodeId, Output, Position, ProposalId, Raft, RoleKind, Term, Write,
    invariants, mix64,
};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

/// A step of one core that must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The rule, and how it is broken.
    pub what: String,
}

fn fail<T>(what: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { what: what.into() })
}

/// The name of a core's state, disk and writes under way included.
pub(super) type StateId = u32;
/// The name of a message.
pub(super) type MessageId = u32;

/// What happens to one core.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Happening {
    Deliver(MessageId),
    Done,
    EarlyReport,
    Crash,
    Timeout,
    Beat,
    Propose(u8),
}

/// What a disk holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Image {
    hard_state: HardState,
    batches: Vec<Batch>,
}

impl Image {
    fn write(&mut self, write: &Write) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(at) = write.truncate {
            self.batches
                .retain(|batch| batch.header.last() <= at.index());
        }
        self.batches.extend(write.append.iter().cloned());
    }
}

/// A core with its disk.
#[derive(Clone, Debug)]
pub(super) struct Core {
    raft: Raft,
    durable: Image,
    written: Image,
    pending: VecDeque<Write>,
    /// As the specification sees it.
    pub(super) seen: Node,
}

/// What a step of a core leads to.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) to: StateId,
    pub(super) sent: Vec<MessageId>,
    /// As the specification sees it; the states include the one before.
    pub(super) actions: Vec<(Action, Node)>,
}

/// All states of cores, all messages, all steps.
pub(super) struct Locals {
    options: Options,
    membership: Membership,
    pub(super) names: Names,
    pub(super) cores: Vec<Core>,
    by_words: HashMap<u128, StateId>,
    pub(super) messages: Vec<Envelope>,
    by_content: HashMap<u128, MessageId>,
    steps: HashMap<(StateId, Happening), Option<Step>, BuildHasherDefault<Twice>>,
    /// Steps of cores that were run.
    pub(super) run: u64,
    /// Pairs of states that are called equal and differ in times, for the check that they may be.
    doubles: Vec<(StateId, Box<Core>)>,
}

const GROUP: GroupId = GroupId(7);
/// More doubles than these are not kept.
const DOUBLES: usize = 4_000;
/// A clock that runs for longer than this leads to nothing.
const TICKS: u32 = 200;

impl Locals {
    pub(super) fn new(options: Options) -> Locals {
        let voters = (1..=options.nodes).map(NodeId);
        Locals {
            options,
            membership: Membership::new(voters, []).expect("a few voters"),
            names: Names::default(),
            cores: Vec::new(),
            by_words: HashMap::new(),
            messages: Vec::new(),
            by_content: HashMap::new(),
            steps: HashMap::default(),
            run: 0,
            doubles: Vec::new(),
        }
    }

    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// A node as it begins: fresh, or with the log that the options give it.
    pub(super) fn first(&mut self, id: NodeId) -> Result<StateId, Failure> {
        let logs = &self.options.logs;
        let own = usize::try_from(id.0 - 1).ok().and_then(|at| logs.get(at));
        let own = own.cloned().unwrap_or_default();
        let matches = |other: &Vec<u64>| {
            let mut same = (0..own.len()).filter(|at| own.get(*at) == other.get(*at));
            same.next_back().is_none_or(|at| own[..=at] == other[..=at])
        };
        if !own.is_sorted() || !logs.iter().all(matches) {
            return fail("logs that no cluster can have");
        }
        let term = logs.iter().flatten().max().copied().unwrap_or(0);
        let mut image = Image::default();
        image.hard_state.term = Term(term);
        let mut end = Position::START;
        for (number, term) in (1..).zip(own) {
            let body = command(term << 32 | number);
            let Ok(batch) = body.seal(GROUP, &end, Term(term)) else {
                return fail("a log of too many entries");
            };
            end = batch.header.position();
            image.batches.push(batch);
        }
        let core = self.boot(id, Incarnation(1), image)?;
        Ok(self.intern(core))
    }

    fn boot(&mut self, id: NodeId, life: Incarnation, image: Image) -> Result<Core, Failure> {
        let batches = image.batches.iter().map(|batch| batch.header).collect();
        let (start, hard) = (Position::START, image.hard_state);
        let boot = Boot::healthy(life, hard, start, batches, self.membership.clone());
        let mut raft = match Raft::new(self.options.core_config(id, GROUP), boot) {
            Ok(raft) => raft,
            Err(error) => return fail(format!("a disk that cannot be booted: {error}")),
        };
        (self.options.prepare)(&mut raft);
        let headers = image.batches.iter().map(|batch| &batch.header);
        let log = self.names.name(&start, headers).unwrap_or(Log::EMPTY);
        let durable = Record {
            term: hard.term.0,
            vote: hard.vote.map(|id| id.0),
            log,
        };
        let seen = Node::booted(durable);
        if self.names.observe(&raft, durable, Vec::new()).as_ref() != Some(&seen) {
            return fail(
                "no action of the specification: a new life begins with more than its disk holds",
            );
        }
        Ok(Core {
            raft,
            durable: image.clone(),
            written: image,
            pending: VecDeque::new(),
            seen,
        })
    }

    /// The name of a state.
    fn intern(&mut self, core: Core) -> StateId {
        let kept = (&core.raft, &core.durable, &core.pending);
        let key = hash128(&words(&kept, core.raft.last_durable()));
        let next = StateId::try_from(self.cores.len()).expect("few states of a core");
        let id = *self.by_words.entry(key).or_insert(next);
        if id == next {
            self.cores.push(core);
        } else if self.doubles.len() < DOUBLES
            && core.raft.fingerprint() != self.cores[id as usize].raft.fingerprint()
        {
            self.doubles.push((id, Box::new(core)));
        }
        id
    }

    fn message(&mut self, envelope: Envelope) -> MessageId {
        let key = hash128(&format!("{envelope:?}"));
        let next = MessageId::try_from(self.messages.len()).expect("few messages");
        let id = *self.by_content.entry(key).or_insert(next);
        if id == next {
            self.messages.push(envelope);
        }
        id
    }

    /// What `happening` makes of a core; `None` if it cannot happen, or changes nothing.
    pub(super) fn step(
        &mut self,
        from: StateId,
        happening: Happening,
    ) -> Result<Option<Step>, Failure> {
        if let Some(known) = self.steps.get(&(from, happening)) {
            return Ok(known.clone());
        }
        self.run += 1;
        let core = self.cores[from as usize].clone();
        let step = self.run(core, happening)?.map(|(core, sent, actions)| {
            let sent: Vec<MessageId> = sent.into_iter().map(|m| self.message(m)).collect();
            let to = self.intern(core);
            Step { to, sent, actions }
        });
        let step = step.filter(|step| step.to != from || !step.sent.is_empty());
        self.steps.insert((from, happening), step.clone());
        Ok(step)
    }

    /// Runs a step and checks it.
    #[allow(
        clippy::type_complexity,
        reason = "what a step is, before it has a name"
    )]
    fn run(
        &mut self,
        mut core: Core,
        happening: Happening,
    ) -> Result<Option<(Core, Vec<Envelope>, Vec<(Action, Node)>)>, Failure> {
        if happening == Happening::Crash {
            let id = core.raft.id();
            let life = Incarnation(core.raft.incarnation().0 + 1);
            let before = core.seen;
            let new = self.boot(id, life, core.durable)?;
            let (kept, commit) = (0, 0);
            let action = Action::Crash { kept, commit };
            if before.act(id.0, action, &self.names.logs).as_ref() != Some(&new.seen) {
                return fail(
                    "no action of the specification: a crash that changes what is durable",
                );
            }
            let after = new.seen.clone();
            return Ok(Some((new, Vec::new(), vec![(action, after)])));
        }
        let mut heard = None;
        let inputs = match happening {
            Happening::Deliver(id) => {
                let envelope = self.messages[id as usize].clone();
                heard = Some(envelope.clone());
                vec![Input::Received(envelope)]
            }
            Happening::Done => {
                let Some(write) = core.pending.pop_front() else {
                    return Ok(None);
                };
                core.durable.write(&write);
                let upto = write.seq;
                vec![Input::Completed(Completion::Persisted { upto })]
            }
            // Only a broken host does this: the disk has neither write yet.
            Happening::EarlyReport => {
                let Some(write) = core.pending.get(1) else {
                    return Ok(None);
                };
                let upto = write.seq;
                vec![Input::Completed(Completion::Persisted { upto })]
            }
            Happening::Propose(number) => vec![Input::Propose {
                id: ProposalId(u64::from(number)),
                body: command(u64::from(number)),
            }],
            Happening::Timeout | Happening::Beat => Vec::new(),
            Happening::Crash => return Ok(None),
        };
        let mut outputs = Vec::new();
        let before = core.raft.clone();
        match happening {
            Happening::Timeout | Happening::Beat => {
                if !run_clock(&mut core.raft, happening, &mut outputs) {
                    return Ok(None);
                }
            }
            Happening::Deliver(_)
            | Happening::Done
            | Happening::EarlyReport
            | Happening::Propose(_)
            | Happening::Crash => {
                for input in inputs {
                    core.raft.step(input, &mut outputs);
                }
                if self.options.own_checks
                    && let Err(violation) = invariants::check_delta(&before, &core.raft, &outputs)
                {
                    return fail(format!("{violation:?}"));
                }
            }
        }
        if self.options.own_checks
            && let Err(violation) = invariants::check(&core.raft)
        {
            return fail(format!("{violation:?}"));
        }
        let (sent, issued) = self.perform(&mut core, outputs)?;
        let actions = self.check(&mut core, &issued, happening, heard.as_ref(), &sent)?;
        if let Some(heard) = &heard
            && let Err(what) = duties::check(&before, &core.raft, heard, &sent)
        {
            return fail(what);
        }
        Ok(Some((core, sent, actions)))
    }

    /// Does what the core wants done: writes are queued, the state machine and old batches are there at
    /// once.
    fn perform(
        &mut self,
        core: &mut Core,
        outputs: Vec<Output>,
    ) -> Result<(Vec<Envelope>, Vec<Write>), Failure> {
        let (mut sent, mut issued) = (Vec::new(), Vec::new());
        let mut todo = VecDeque::from(outputs);
        while let Some(output) = todo.pop_front() {
            let mut more = Vec::new();
            match output {
                Output::Persist(write) => {
                    core.written.write(&write);
                    core.pending.push_back(write.clone());
                    issued.push(write);
                }
                Output::Send(envelope) => sent.push(envelope),
                Output::Apply(batches) => {
                    if let Some(batch) = batches.last() {
                        let upto = batch.header.last();
                        let applied = Completion::Applied { upto };
                        core.raft.step(Input::Completed(applied), &mut more);
                    }
                }
                Output::Load(load) => {
                    let loaded = Completion::Loaded {
                        load: load.id,
                        result: Ok(stored(&core.written, &load)),
                    };
                    core.raft.step(Input::Completed(loaded), &mut more);
                }
                Output::Respond(_) | Output::Changed(_) => {
                    if let Some(fault) = core.raft.halted() {
                        return fail(format!("a node halts: {fault:?}"));
                    }
                }
                Output::ReadReady { .. }
                | Output::SendSnapshot { .. }
                | Output::InstallSnapshot(_)
                | Output::TakeSnapshot => return fail("nobody has asked for this"),
            }
            todo.extend(more);
        }
        Ok((sent, issued))
    }

    /// The step as the specification sees it.
    fn check(
        &mut self,
        core: &mut Core,
        issued: &[Write],
        happening: Happening,
        heard: Option<&Envelope>,
        sent: &[Envelope],
    ) -> Result<Vec<(Action, Node)>, Failure> {
        let me = core.raft.id().0;
        let mut writes = core.seen.writes.clone();
        let mut durable = core.seen.durable;
        if happening == Happening::Done {
            durable = writes.remove(0);
        }
        for write in issued {
            let record = writes.last().copied().unwrap_or(durable);
            let Some(after) = self.names.written(record, write) else {
                return fail("a write that follows nothing known");
            };
            if after == record {
                return fail("no action of the specification: a write that changes nothing");
            }
            writes.push(after);
        }
        let Some(after) = self.names.observe(&core.raft, durable, writes) else {
            return fail("a log that follows nothing known");
        };
        let before = std::mem::replace(&mut core.seen, after.clone());
        let allowed = |node: &Node, action: Action| is_told(node, action, heard, &self.names);
        let steps = path(me, (&before, &after), 2, &self.names.logs, &allowed);
        let Some(steps) = steps else {
            return fail(format!(
                "no action of the specification: {before:?} became {after:?}"
            ));
        };
        for envelope in sent {
            let states = std::iter::once(&before).chain(steps.iter().map(|(_, node)| node));
            let mut last = Ok(());
            for state in states {
                last = may_say(me, state, envelope, &self.names);
                if last.is_ok() {
                    break;
                }
            }
            if let Err(why) = last {
                return fail(format!(
                    "no action of the specification says this: {why}: {envelope:?}"
                ));
            }
        }
        Ok(steps)
    }

    /// States that are called equal take every step that was taken, and must remain equal. Returns how
    /// many steps were compared.
    pub(super) fn check_doubles(&mut self) -> Result<u64, Failure> {
        let mut compared = 0;
        let mut happenings: HashMap<StateId, Vec<Happening>> = HashMap::new();
        for (state, happening) in self.steps.keys() {
            happenings.entry(*state).or_default().push(*happening);
        }
        for (id, double) in std::mem::take(&mut self.doubles) {
            for happening in happenings.get(&id).into_iter().flatten() {
                let known = self.steps.get(&(id, *happening)).cloned().flatten();
                let again = self
                    .run((*double).clone(), *happening)?
                    .map(|(core, sent, _)| {
                        let sent: Vec<MessageId> =
                            sent.into_iter().map(|m| self.message(m)).collect();
                        (self.intern(core), sent)
                    });
                let again = again.filter(|(to, sent)| *to != id || !sent.is_empty());
                compared += 1;
                if known.map(|step| (step.to, step.sent)) != again {
                    return fail(format!(
                        "two states that are called equal differ after {happening:?}"
                    ));
                }
            }
        }
        Ok(compared)
    }

    /// Can this message never change anything again for a core that is in this state? An answer to a
    /// question of a term that is durably over, or to a campaign or a leadership that is over and, its
    /// term being durable, never comes again. That such an answer changes nothing now is checked.
    pub(super) fn is_dead(&mut self, state: StateId, id: MessageId) -> Result<bool, Failure> {
        let seen = &self.cores[state as usize].seen;
        let Envelope { term, message, .. } = &self.messages[id as usize];
        let current = term.0 == seen.record.term;
        let waits = match message {
            Message::VoteReply { .. } => current && seen.part == Part::Candidate,
            Message::AppendReply(_) | Message::HeartbeatReply { .. } => {
                current && seen.part != Part::Follower
            }
            Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::Vote { .. }
            | Message::Append { .. }
            | Message::Heartbeat { .. }
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
        if waits || term.0 > seen.durable.term {
            return Ok(false);
        }
        if self.step(state, Happening::Deliver(id))?.is_some() {
            return fail("an answer that was thought to mean nothing means something");
        }
        Ok(true)
    }

    /// Are writes under way?
    pub(super) fn is_writing(&self, id: StateId) -> bool {
        !self.cores[id as usize].pending.is_empty()
    }

    /// Which life it is.
    pub(super) fn life(&self, id: StateId) -> u64 {
        self.cores[id as usize].raft.incarnation().0
    }

    /// Its part and its term.
    pub(super) fn role(&self, id: StateId) -> (RoleKind, u64) {
        let raft = &self.cores[id as usize].raft;
        (raft.role(), raft.term().0)
    }

    /// A message in a few words.
    pub(super) fn describe(&self, id: MessageId) -> String {
        let Envelope {
            from,
            to,
            term,
            message,
            ..
        } = &self.messages[id as usize];
        let what = if let Message::Append {
            prev,
            batches,
            commit,
        } = message
        {
            let ends = batches.iter().map(|b| b.header.last_id().to_string());
            let ends: Vec<String> = ends.collect();
            let ends = ends.join(" ");
            format!("Append after {}: [{ends}], commit {commit}", prev.id)
        } else {
            format!("{message:?}")
        };
        format!("{from} -> {to} in term {term}: {what}")
    }
}

/// Lets a clock run until something comes of it.
fn run_clock(raft: &mut Raft, happening: Happening, outputs: &mut Vec<Output>) -> bool {
    let leads = raft.role() == RoleKind::Leader;
    if leads != (happening == Happening::Beat) {
        return false;
    }
    let before = (raft.term(), raft.role());
    for _ in 0..TICKS {
        raft.step(Input::Tick, outputs);
        let sends = outputs
            .iter()
            .any(|output| matches!(output, Output::Send(_)));
        if (raft.term(), raft.role()) != before || (leads && sends) {
            return true;
        }
    }
    false
}

/// A body of one command.
fn command(number: u64) -> Body {
    let mut bytes = Vec::from(8_u32.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    Body {
        kind: BatchKind::Commands,
        codec: 0,
        count: 1,
        // The core never computes it; any value that differs with the content will do.
        checksum: u32::try_from(mix64(number) >> 32).expect("the upper half of a word"),
        bytes: bytes.into(),
    }
}

fn stored(image: &Image, load: &Load) -> Vec<Batch> {
    let wanted = image
        .batches
        .iter()
        .filter(|batch| batch.header.first >= load.first && batch.header.last() <= load.last);
    wanted.cloned().collect()
}
