//! Applying committed batches to the user's state machine.
//!
//! [`Applier::apply`] is deterministic and runs no user code but the state machine itself; the apply
//! thread and the simulator call it and then deliver the answers, so no callback runs inside it. A
//! panic of the state machine is caught and stops the node: the log is not touched by it, and every
//! other node that applies the same command will meet the same panic.

use crate::outcome::{Applied, Outcome, StopReason};
use crate::responder::Responder;
use bytes::Bytes;
use duraft_core::{Batch, BatchKind, Commands, Index, LogId};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The user's deterministic service: commands in, answers out.
///
/// Every node calls `apply` with the same commands in the same order, once per life. In this version
/// a node that starts applies its whole log again; snapshots come later.
pub trait StateMachine: Send + 'static {
    /// Takes in one committed command and returns the answer for its client. Must depend on nothing
    /// but the commands applied before and this one.
    fn apply(&mut self, context: ApplyContext, command: &[u8]) -> Bytes;
}

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

/// Owns the state machine.
pub struct Applier {
    machine: Box<dyn StateMachine>,
}

impl Applier {
    /// An applier around a state machine that has applied nothing.
    pub fn new(machine: Box<dyn StateMachine>) -> Applier {
        Applier { machine }
    }

    /// Applies one batch, appends the answers that are due, and returns the last applied index.
    /// After an error nothing more may be applied.
    pub fn apply(
        &mut self,
        work: ApplyBatch,
        answers: &mut Vec<Answer>,
    ) -> Result<Index, StopReason> {
        let header = work.batch.header;
        match header.kind {
            BatchKind::Commands => self.apply_commands(work, answers)?,
            // Indices stay contiguous, but these entries are none of the state machine's business.
            BatchKind::Noop | BatchKind::Membership => {}
        }
        Ok(header.last())
    }

    fn apply_commands(
        &mut self,
        work: ApplyBatch,
        answers: &mut Vec<Answer>,
    ) -> Result<(), StopReason> {
        let header = work.batch.header;
        let damaged = |message: String| StopReason::BatchDamaged {
            first: header.first,
            message,
        };
        if crc32fast::hash(&work.batch.body) != header.body_checksum {
            return Err(damaged("the body fails its checksum".into()));
        }
        let commands = Commands::parse(work.batch.body, header.count)
            .map_err(|error| damaged(error.to_string()))?;
        let mut responders = work.responders.into_iter();
        let mut index = header.first;
        for command in commands.iter() {
            let log_id = LogId {
                term: header.term,
                index,
            };
            let context = ApplyContext {
                log_id,
                codec: header.codec,
            };
            let machine = &mut self.machine;
            // The machine is never used again after a panic, so no broken state can be seen.
            let response = catch_unwind(AssertUnwindSafe(|| machine.apply(context, &command)))
                .map_err(|panic| StopReason::StateMachinePanicked {
                    index,
                    message: panic_message(panic.as_ref()),
                })?;
            if let Some(responder) = responders.next().flatten() {
                answers.push(Answer {
                    responder,
                    outcome: Ok(Applied { log_id, response }),
                });
            }
            index = index.next();
        }
        Ok(())
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
