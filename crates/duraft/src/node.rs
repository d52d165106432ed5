//! The node: the driver, the log, the state machine and the transport, each on threads of its own.
//!
//! ```text
//! clients, sockets ─► inbox ─► raft thread (Driver::turn) ─► WAL thread ─► inbox
//!                                   │ ├─► apply thread (the state machine) ─► clients, inbox
//!                                   │ └─► load thread (cold reads) ─► inbox
//!                                   └─► transport ─► peers
//! ```
//!
//! Invariants:
//! - The raft thread never waits for a disk, a socket, a client or the state machine; it sleeps only
//!   on its inbox.
//! - All queues are bounded: commands by the gate, messages by the inbox, batches to apply and reads
//!   by limits of the core, writes by the core's windows and the WAL's queue.
//! - No lock of the library is held while foreign code runs: state machine, callbacks, wakers.
//! - Dropping the last handle is a crash without a power loss: nothing is flushed, nothing is lost
//!   that was answered.

use crate::apply::StateMachine;
use crate::driver::{DriverInput, Proposal};
use crate::events::Events;
use crate::options::{NodeOptions, OptionProblem};
use crate::outcome::{Outcome, ProposeError, RejectReason, StopReason, UnknownReason};
use crate::responder::{ProposeFuture, Responder};
use crate::runtime::{End, Runtime, Shared};
use crate::status::Status;
use bytes::Bytes;
use duraft_core::{BootError, Membership, NodeId};
use duraft_storage::{Damage, Entropy, OpenError};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A handle to a running node. Clones are handles to the same node; when the last one is dropped, the
/// node ends abruptly, as in a crash. See [`Node::shutdown`] for the quiet end.
#[derive(Clone)]
pub struct Node {
    runtime: Arc<Runtime>,
}

/// Why a node cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The options break rules. Change them.
    #[error("the options cannot be used: {}", list(.0))]
    Options(Vec<OptionProblem>),
    /// The store cannot be made or opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store does not hold this node's group.
    #[error("the store does not hold group {0}")]
    NoGroup(duraft_core::GroupId),
    /// The log is damaged; this version does not repair it from peers.
    #[error("the log is damaged: {0}")]
    Damaged(Box<Damage>),
    /// The stored state contradicts itself.
    #[error("the stored state cannot be used: {0}")]
    Boot(BootError),
    /// The store's membership has peers that the network options do not name.
    #[error("no address is known for members {0:?}")]
    UnknownPeers(Vec<NodeId>),
    /// A socket or a thread cannot be made.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
}

fn list(problems: &[OptionProblem]) -> String {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

impl Node {
    /// Makes the store of a new cluster's member, once in its life. Every first member is
    /// bootstrapped with the same membership. Fails where a store exists.
    pub fn bootstrap(options: &NodeOptions, membership: &Membership) -> Result<(), StartError> {
        let problems = options.validate();
        if !problems.is_empty() {
            return Err(StartError::Options(problems));
        }
        duraft_storage::bootstrap(
            &options.disk,
            &options.identity(),
            &options.wal,
            ambient_entropy(),
            &[(options.core.group, membership.clone())],
        )?;
        Ok(())
    }

    /// Opens the store, which must exist, and starts a new life of the node: a follower that applies
    /// its committed log to `machine` from the beginning.
    pub fn start(options: NodeOptions, machine: Box<dyn StateMachine>) -> Result<Node, StartError> {
        let problems = options.validate();
        if !problems.is_empty() {
            return Err(StartError::Options(problems));
        }
        let runtime = Runtime::start(options, machine, ambient_entropy())?;
        Ok(Node {
            runtime: Arc::new(runtime),
        })
    }

    /// Submits a command. The future yields its one outcome and needs no particular executor; the
    /// command goes on whether or not the future is polled. Its time,
    /// [`NodeOptions::propose_timeout`], ends with the commit: what is committed is answered when the
    /// state machine has applied it, however long that takes.
    ///
    /// Cancel safety: dropping the future changes nothing for the command.
    pub fn propose(&self, command: Bytes) -> ProposeFuture {
        let (responder, future) = Responder::future();
        self.submit_until(command, responder, self.shared().propose_timeout);
        future
    }

    /// Submits a command and blocks the calling thread until its outcome is there or `timeout` has
    /// passed, which is an unknown outcome. Not to be called from the state machine or a callback.
    pub fn propose_wait(&self, command: Bytes, timeout: Duration) -> Outcome {
        let (responder, future) = Responder::future();
        let until = Instant::now() + timeout;
        self.submit_until(command, responder, Some(timeout));
        // The driver's deadline comes a tick or so late; the caller's own clock decides.
        future.wait_until(until).unwrap_or({
            Err(ProposeError::OutcomeUnknown {
                why: UnknownReason::Deadline,
            })
        })
    }

    /// Submits a command; `responder` gets its one outcome, on a thread of the node or, where the
    /// node is saturated or stopped, at once. The cheapest way for many commands in flight.
    pub fn submit(&self, command: Bytes, responder: Responder) {
        self.submit_until(command, responder, self.shared().propose_timeout);
    }

    fn submit_until(&self, command: Bytes, responder: Responder, timeout: Option<Duration>) {
        let shared = self.shared();
        let Some(permit) = shared.gate.enter(command.len()) else {
            responder.answer(Err(ProposeError::Busy));
            return;
        };
        let proposal = Proposal {
            command,
            deadline: timeout.map(|timeout| shared.clock.tick_in(timeout)),
            responder: responder.with_permit(permit),
        };
        if let Err(DriverInput::Propose(proposal)) =
            shared.inbox.push_exempt(DriverInput::Propose(proposal))
        {
            proposal.responder.answer(Err(ProposeError::Rejected {
                reason: RejectReason::Stopped,
                leader: None,
            }));
        }
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.shared().id
    }

    /// The node as it was after its last turn.
    pub fn status(&self) -> Status {
        self.shared().status()
    }

    /// Waits until the status satisfies `condition`, at most `timeout`; `None` when it did not.
    /// `condition` is called without locks held, after every turn that changed the status.
    pub fn wait_for(
        &self,
        timeout: Duration,
        mut condition: impl FnMut(&Status) -> bool,
    ) -> Option<Status> {
        self.shared()
            .wait_for(Instant::now() + timeout, &mut condition)
    }

    /// A stream of events from now on.
    pub fn subscribe(&self) -> Events {
        self.shared().events.subscribe()
    }

    /// Ends the node: commands that wait are answered, threads joined, files closed and unlocked.
    /// Idempotent, also from several threads. Returns why the node stopped: this call, or something
    /// before it. Waits for the command that the state machine is applying, if any. Called from a
    /// thread of the node itself (state machine, callback), it does not wait for that thread.
    pub fn shutdown(&self) -> StopReason {
        self.runtime.end(End::Quiet)
    }

    fn shared(&self) -> &Shared {
        self.runtime.shared()
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// The randomness and the wall clock of this process, taken once per opening.
fn ambient_entropy() -> Entropy {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let wallclock_ns = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    Entropy {
        // RandomState is keyed by the system's randomness.
        seed: RandomState::new().hash_one(wallclock_ns),
        wallclock_ns,
    }
}
