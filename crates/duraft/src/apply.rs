//! Applying committed batches to the user's state machine.
//!
//! [`Applier`] is deterministic and runs no user code but the state machine itself and the closures
//! of reads; the apply thread and the simulator call it and then deliver the answers, so no callback
//! runs inside it. A panic of the state machine is caught and stops the node: the log is not touched
//! by it, and every other node that applies the same command will meet the same panic.
//!
//! The replicated state is more than the state machine's: the table of [sessions](crate::sessions),
//! the position, and the membership there. All of it is in a snapshot.
//!
//! A state machine may keep its own durable state and say at start which index it has applied. It is
//! not given those commands again; the table of sessions still learns of them, without their answers,
//! from the snapshot and the log behind it ([`Applier::catch_up`]).

use crate::outcome::{
    Applied, BusyReason, Outcome, RejectReason, RequestError, StopReason, UnknownReason,
};
use crate::reads::{ReadDone, ReadWork};
use crate::responder::Responder;
use crate::sessions::{Admission, Sessions, TAGGED_CODEC, Tag};
use bytes::Bytes;
use duraft_core::{Batch, BatchHeader, BatchKind, Commands, Index, LogId, Membership, Position};
use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The user's deterministic service: commands in, answers out.
///
/// Every node calls `apply` with the same commands in the same order. A life of a node begins with
/// the latest snapshot, if there is one, and the commands behind it.
///
/// ```
/// use bytes::Bytes;
/// use duraft::{ApplyContext, SnapshotWork, StateMachine};
/// use std::io::{self, Read};
///
/// struct Register(Bytes);
///
/// impl StateMachine for Register {
///     fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
///         std::mem::replace(&mut self.0, Bytes::copy_from_slice(command))
///     }
///
///     fn snapshot(&self) -> SnapshotWork {
///         let view = self.0.clone(); // cheap: shares the bytes
///         Box::new(move |out| out.write_all(&view))
///     }
///
///     fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
///         let mut bytes = Vec::new();
///         source.read_to_end(&mut bytes)?;
///         self.0 = Bytes::from(bytes);
///         Ok(())
///     }
/// }
/// ```
pub trait StateMachine: Any + Send {
    /// Takes in one committed command and returns the answer for its client. Must depend on nothing
    /// but the commands applied before and this one.
    fn apply(&mut self, context: ApplyContext, command: &[u8]) -> Bytes;

    /// A consistent view of the state as it is now. Called on the apply thread, which waits for it,
    /// so it should be cheap; the work it returns runs on the snapshot thread while commands go on.
    fn snapshot(&self) -> SnapshotWork;

    /// Replaces the whole state by one that [`StateMachine::snapshot`] wrote, on this or another
    /// node. After an error the node stops.
    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()>;

    /// For a state machine that keeps its own durable state: the last index in it, which survives
    /// power loss. Asked once, before anything is applied or restored. `None`: the state lives in
    /// memory and begins empty.
    ///
    /// Such a state machine finds the index of each command in [`ApplyContext::log_id`]. It must
    /// not have restored a snapshot half when it answers here after a crash.
    fn applied(&self) -> Option<Index> {
        None
    }
}

/// Writes a view of a state machine's state.
pub type SnapshotWork = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// What a state machine is told about a command besides its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ApplyContext {
    /// The command's place in the log.
    pub log_id: LogId,
    /// The number stored with the batch to tell how its commands are encoded.
    pub codec: u16,
}

/// A committed batch and the clients of this node that wait for its commands.
#[derive(Debug)]
pub struct ApplyBatch {
    /// The batch.
    pub batch: Batch,
    /// One place per command, or empty where nobody here waits.
    pub responders: Vec<Option<Responder>>,
}

/// An answer that is due to a client.
#[derive(Debug)]
pub struct Answer {
    /// The way back.
    pub responder: Responder,
    /// What to say.
    pub outcome: Outcome,
}

impl Answer {
    /// Tells the client.
    pub fn deliver(self) {
        self.responder.answer(self.outcome);
    }
}

/// A view of the replicated state, to be written into a snapshot file.
pub struct SnapshotView {
    /// It covers the log up to here.
    pub position: Position,
    /// The membership there.
    pub membership: Membership,
    /// Writes the content.
    pub work: SnapshotWork,
}

/// Owns the state machine.
pub struct Applier {
    machine: Box<dyn StateMachine>,
    sessions: Sessions,
    /// Everything up to here is in the replicated state.
    position: Position,
    /// The log begins behind a state that is lost; a snapshot of a peer will bring it.
    lacks_state: bool,
    /// The membership there.
    membership: Membership,
    /// Commands up to here are in the state machine's own durable state.
    machine_has: Index,
    /// Reads that wait until their index is applied.
    reads: BTreeMap<Index, Vec<ReadWork>>,
    /// Bytes of batches applied since the last snapshot was taken or restored.
    bytes_since_snapshot: u64,
}

impl Applier {
    /// An applier around a state machine, at the start of a log that begins at `start` with
    /// `membership`. Where a snapshot is the start, [`Applier::restore`] comes next.
    pub fn new(machine: Box<dyn StateMachine>, start: Position, membership: Membership) -> Applier {
        Applier {
            machine_has: machine.applied().unwrap_or_default(),
            machine,
            sessions: Sessions::default(),
            position: start,
            lacks_state: false,
            membership,
            reads: BTreeMap::new(),
            bytes_since_snapshot: 0,
        }
    }

    /// What the log begins behind cannot be read any more: nothing counts as applied until
    /// [`Applier::restore`] brings another node's state. Until then reads wait, those that take any
    /// state are refused, and no snapshot can be taken.
    pub fn lose_state(&mut self) {
        self.position = Position::START;
        self.lacks_state = true;
    }

    /// The last applied index of a state machine that keeps its own durable state.
    pub fn machine_has(&self) -> Option<Index> {
        self.machine.applied()
    }

    /// Everything up to here has been applied.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The membership of the last membership batch that was applied, or of the start.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes of batches applied since the last snapshot was taken or restored.
    pub fn bytes_since_snapshot(&self) -> u64 {
        self.bytes_since_snapshot
    }

    /// Applies one batch, appends the answers that are due, and returns the last applied index.
    /// After an error nothing more may be applied.
    pub fn apply(
        &mut self,
        work: ApplyBatch,
        answers: &mut Vec<Answer>,
    ) -> Result<Index, StopReason> {
        let header = work.batch.header;
        self.take_in(&header);
        self.check_body(&work.batch)?;
        match header.kind {
            BatchKind::Commands => self.apply_commands(work, answers)?,
            BatchKind::Membership => {
                self.adopt_membership(&work.batch)?;
                answer_all(&header, work.responders, answers);
            }
            // Its index counts, but it is none of anybody's business.
            BatchKind::Noop => {}
        }
        self.position = header.position();
        Ok(header.last())
    }

    /// Lets the table of sessions and the membership learn of a batch that the state machine has
    /// in its own durable state; see [`Applier::has_to_catch_up`].
    pub fn catch_up(&mut self, batch: &Batch) -> Result<(), StopReason> {
        assert!(
            batch.header.last() <= self.machine_has,
            "the state machine has the whole batch"
        );
        let work = ApplyBatch {
            batch: batch.clone(),
            responders: Vec::new(),
        };
        self.apply(work, &mut Vec::new()).map(|_| ())
    }

    /// Passes a batch whose commands the state machine has and nobody else needs to see.
    pub fn pass(&mut self, header: &BatchHeader) {
        assert!(
            !Applier::has_to_catch_up(header),
            "somebody needs to see it"
        );
        assert!(
            header.last() <= self.machine_has,
            "the state machine has the whole batch"
        );
        self.take_in(header);
        self.position = header.position();
    }

    /// Must [`Applier::catch_up`] see this batch although the state machine has it?
    pub fn has_to_catch_up(header: &BatchHeader) -> bool {
        match header.kind {
            BatchKind::Commands => header.codec & TAGGED_CODEC != 0,
            BatchKind::Membership => true,
            BatchKind::Noop => false,
        }
    }

    fn take_in(&mut self, header: &BatchHeader) {
        assert_eq!(
            header.first,
            self.position.index().next(),
            "committed entries come once, in order, without a gap"
        );
        self.bytes_since_snapshot += header.cost();
    }

    fn check_body(&self, batch: &Batch) -> Result<(), StopReason> {
        if crc32fast::hash(&batch.body) == batch.header.body_checksum {
            Ok(())
        } else {
            Err(damaged(&batch.header, "the body fails its checksum"))
        }
    }

    fn adopt_membership(&mut self, batch: &Batch) -> Result<(), StopReason> {
        self.membership = Membership::decode(&batch.body)
            .map_err(|problem| damaged(&batch.header, &problem.to_string()))?;
        Ok(())
    }

    fn apply_commands(
        &mut self,
        work: ApplyBatch,
        answers: &mut Vec<Answer>,
    ) -> Result<(), StopReason> {
        let header = work.batch.header;
        let commands = Commands::parse(work.batch.body, header.count)
            .map_err(|error| damaged(&header, &error.to_string()))?;
        let tagged = header.codec & TAGGED_CODEC != 0;
        let mut responders = work.responders.into_iter();
        let mut log_id = LogId {
            term: header.term,
            index: header.first,
        };
        for command in commands.iter() {
            let context = ApplyContext {
                log_id,
                codec: header.codec & !TAGGED_CODEC,
            };
            let outcome = if tagged {
                let (tag, command) = Tag::parse(&command)
                    .ok_or_else(|| damaged(&header, "a command has no valid tag"))?;
                self.apply_tagged(context, tag, command)?
            } else {
                self.apply_plain(context, &command)?
            };
            if let Some(responder) = responders.next().flatten() {
                answers.push(Answer { responder, outcome });
            }
            log_id.index = log_id.index.next();
        }
        Ok(())
    }

    fn apply_plain(
        &mut self,
        context: ApplyContext,
        command: &[u8],
    ) -> Result<Outcome, StopReason> {
        let answer = self.run(context, command)?;
        Ok(answer.ok_or(RequestError::OutcomeUnknown {
            why: UnknownReason::AnswerLost,
        }))
    }

    fn apply_tagged(
        &mut self,
        context: ApplyContext,
        tag: Tag,
        command: &[u8],
    ) -> Result<Outcome, StopReason> {
        let index = context.log_id.index;
        let rejected = |reason| {
            Err(RequestError::Rejected {
                reason,
                leader: None,
            })
        };
        let done = || {
            Ok(Applied {
                log_id: context.log_id,
                response: Bytes::new(),
            })
        };
        let lost = RequestError::OutcomeUnknown {
            why: UnknownReason::AnswerLost,
        };
        Ok(match tag {
            Tag::Plain => self.apply_plain(context, command)?,
            Tag::Open(limits) => {
                self.sessions.open(index, limits);
                done()
            }
            Tag::Close(session) => {
                if self.sessions.close(index, session) {
                    done()
                } else {
                    rejected(RejectReason::SessionExpired)
                }
            }
            Tag::Numbered {
                session,
                number,
                acknowledged,
            } => match self.sessions.admit(index, session, number, acknowledged) {
                Admission::New => {
                    let answer = self.run(context, command)?;
                    self.sessions.record(session, number, answer.clone());
                    answer.ok_or(lost)
                }
                Admission::Repeated(answer) => answer.ok_or(lost),
                Admission::Expired => rejected(RejectReason::SessionExpired),
                Admission::Acknowledged => rejected(RejectReason::SessionAcknowledged),
                Admission::Window => rejected(RejectReason::SessionWindow),
            },
        })
    }

    /// Gives the state machine a command; `None` where it has it already.
    fn run(
        &mut self,
        context: ApplyContext,
        command: &[u8],
    ) -> Result<Option<Applied>, StopReason> {
        let log_id = context.log_id;
        if log_id.index <= self.machine_has {
            return Ok(None);
        }
        let machine = &mut self.machine;
        // The machine is never used again after a panic, so no broken state can be seen.
        let response = catch_unwind(AssertUnwindSafe(|| machine.apply(context, command))).map_err(
            |panic| StopReason::StateMachinePanicked {
                index: log_id.index,
                message: panic_message(panic.as_ref()),
            },
        )?;
        Ok(Some(Applied { log_id, response }))
    }

    /// Takes a read: its closure runs when its index is applied.
    pub fn read(&mut self, work: ReadWork, done: &mut Vec<ReadDone>) {
        if self.lacks_state && work.index == Index(0) {
            // Any state would do for it, but there is none; that of an unfinished restore is no state.
            let why = BusyReason::Snapshot;
            work.request.job.fail(RequestError::Busy { why });
        } else if work.index <= self.position.index() {
            done.push(work.run(&*self.machine));
        } else {
            self.reads.entry(work.index).or_default().push(work);
        }
    }

    /// Do reads wait here for their index?
    pub fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Ends the waits of reads whose client waits no longer than until tick `now`: this node may be
    /// cut off, and never apply up to their index.
    pub fn expire_reads(&mut self, now: u64) {
        let is_late = |work: &ReadWork| work.request.deadline.is_some_and(|at| at <= now);
        self.reads.retain(|_, works| {
            let (late, waiting): (Vec<_>, Vec<_>) =
                std::mem::take(works).into_iter().partition(is_late);
            *works = waiting;
            for work in late {
                work.request.job.fail(RequestError::Rejected {
                    reason: RejectReason::Expired,
                    leader: None,
                });
            }
            !works.is_empty()
        });
    }

    /// Lets the reads run whose index has been applied.
    pub fn run_reads(&mut self, done: &mut Vec<ReadDone>) {
        while let Some(first) = self.reads.first_entry()
            && *first.key() <= self.position.index()
        {
            let works = first.remove();
            done.extend(works.into_iter().map(|work| work.run(&*self.machine)));
        }
    }

    /// A consistent view of the replicated state; none of one that is lost, and none as long as a node
    /// that has joined does not know who the members are: with such a snapshot nobody could go on, and
    /// no log would record it.
    pub fn snapshot(&mut self) -> Result<Option<SnapshotView>, StopReason> {
        if self.lacks_state || self.membership.is_unknown() {
            return Ok(None);
        }
        let machine = &mut self.machine;
        let own = catch_unwind(AssertUnwindSafe(|| machine.snapshot())).map_err(|panic| {
            StopReason::StateMachinePanicked {
                index: self.position.index(),
                message: panic_message(panic.as_ref()),
            }
        })?;
        let sessions = self.sessions.clone();
        self.bytes_since_snapshot = 0;
        Ok(Some(SnapshotView {
            position: self.position,
            membership: self.membership.clone(),
            work: Box::new(move |out| {
                sessions.write(out)?;
                own(out)
            }),
        }))
    }

    /// Replaces the replicated state by a snapshot's. A state machine whose own durable state is as
    /// new as the snapshot keeps it. After an error nothing more may be applied.
    pub fn restore(
        &mut self,
        position: Position,
        membership: Membership,
        source: &mut dyn Read,
    ) -> Result<(), StopReason> {
        let failed = |message: String| StopReason::RestoreFailed {
            index: position.index(),
            message,
        };
        let sessions = Sessions::read(source).map_err(|error| failed(error.to_string()))?;
        if self.machine_has < position.index() {
            let machine = &mut self.machine;
            catch_unwind(AssertUnwindSafe(|| machine.restore(source)))
                .map_err(|panic| failed(panic_message(panic.as_ref())))?
                .map_err(|error| failed(error.to_string()))?;
        }
        self.sessions = sessions;
        self.position = position;
        self.lacks_state = false;
        self.membership = membership;
        self.bytes_since_snapshot = 0;
        Ok(())
    }
}

/// Answers the clients of a batch that means nothing to the state machine.
fn answer_all(header: &BatchHeader, responders: Vec<Option<Responder>>, answers: &mut Vec<Answer>) {
    for responder in responders.into_iter().flatten() {
        let applied = Applied {
            log_id: header.last_id(),
            response: Bytes::new(),
        };
        answers.push(Answer {
            responder,
            outcome: Ok(applied),
        });
    }
}

fn damaged(header: &BatchHeader, message: &str) -> StopReason {
    StopReason::BatchDamaged {
        first: header.first,
        message: message.into(),
    }
}

/// What a panic said, as far as it said it in words.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}
