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

mod admin;
mod sessions;

use crate::apply::StateMachine;
use crate::driver::{Admin, DriverInput, Proposal};
use crate::events::Events;
use crate::options::{NodeOptions, OptionProblem};
use crate::outcome::{BusyReason, Outcome, RejectReason, RequestError, StopReason};
use crate::reads::{ReadJob, ReadRequest};
use crate::responder::{Pending, ProposeFuture, Responder};
use crate::runtime::{End, Runtime, Shared};
use crate::stats::Stats;
use crate::status::Status;
use bytes::Bytes;
use duraft_core::{BootError, Index, Membership, NodeId, ReadBasis, Snapshot};
use duraft_storage::{Entropy, JoinAs, OpenError, ReadError, SnapshotError};
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
    /// The snapshots cannot be listed or tidied up.
    #[error("the snapshots cannot be used: {0}")]
    Snapshots(#[from] SnapshotError),
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Read(#[from] ReadError),
    /// The log begins behind the first entry, and no snapshot can be read that holds what came
    /// before. [`OnDamage::RepairFromPeers`](duraft_storage::OnDamage) gets one from the leader.
    #[error("the state before index {before} is lost: {}", unreadable_list(.unreadable))]
    StateLost {
        /// Where the log begins.
        before: Index,
        /// The snapshots that were tried, and why they do not serve.
        unreadable: Vec<(Snapshot, SnapshotError)>,
    },
    /// The state machine did not take its snapshot or log in.
    #[error("{0}")]
    Restore(StopReason),
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

fn unreadable_list(snapshots: &[(Snapshot, SnapshotError)]) -> String {
    let texts: Vec<String> = snapshots.iter().map(|(_, e)| e.to_string()).collect();
    if texts.is_empty() {
        "there is no snapshot".into()
    } else {
        texts.join("; ")
    }
}

fn list(problems: &[OptionProblem]) -> String {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// The node has no room for another request.
const FULL: RequestError = RequestError::Busy {
    why: BusyReason::Requests,
};
/// The node takes no requests any more.
const STOPPED: RequestError = RequestError::Rejected {
    reason: RejectReason::Stopped,
    leader: None,
};

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

    /// Makes the store of a node that joins a cluster which lives already, once in its life. The node
    /// learns who the members are when the leader of one that added it sends the log. Fails where a
    /// store exists.
    ///
    /// A member that has lost its disk joins as [`JoinAs::Wiped`] and must not say that it is new:
    /// acknowledged commands could be lost.
    pub fn bootstrap_joining(options: &NodeOptions, join: JoinAs) -> Result<(), StartError> {
        let problems = options.validate();
        if !problems.is_empty() {
            return Err(StartError::Options(problems));
        }
        duraft_storage::bootstrap_joining(
            &options.disk,
            &options.identity(),
            &options.wal,
            ambient_entropy(),
            &[options.core.group],
            join,
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
        let _span = tracing::info_span!("duraft_start", node = options.core.id.0).entered();
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
        self.submit(command, responder);
        future
    }

    /// Submits a command and blocks the calling thread until its outcome is there or `timeout` has
    /// passed, which is an unknown outcome. Not to be called from the state machine or a callback.
    pub fn propose_wait(&self, command: Bytes, timeout: Duration) -> Outcome {
        self.wait(timeout, |deadline, responder| {
            self.enter(command.len(), responder, |responder| {
                Proposal::plain(command, deadline, responder)
            });
        })
    }

    /// Submits a command; `responder` gets its one outcome, on a thread of the node or, where the
    /// node is saturated or stopped, at once. The cheapest way for many commands in flight.
    pub fn submit(&self, command: Bytes, responder: Responder) {
        let deadline = self.deadline();
        self.enter(command.len(), responder, |responder| {
            Proposal::plain(command, deadline, responder)
        });
    }

    /// Reads the state machine, of type `M`, with a closure that sees a state at least as new as
    /// everything that was answered to anybody before this call. It runs on the apply thread, so it
    /// should be quick, and it may run more than once. Answered by leader and followers; who does not
    /// know a leader rejects.
    ///
    /// With [`ReadBasis::Lease`], and leases in the configuration, the leader answers without asking
    /// anybody; see [`Lease`](crate::Lease) for what that rests on.
    ///
    /// Cancel safety: dropping the future changes nothing but that nobody hears the answer.
    pub fn read<M, R>(
        &self,
        basis: ReadBasis,
        read: impl FnMut(&M) -> R + Send + 'static,
    ) -> Pending<R>
    where
        M: StateMachine,
        R: Send + 'static,
    {
        let (responder, future) = Responder::future();
        self.ask(basis, self.deadline(), read, responder);
        future
    }

    /// As [`Node::read`]; blocks the calling thread until the answer is there or `timeout` has passed.
    pub fn read_wait<M, R>(
        &self,
        basis: ReadBasis,
        timeout: Duration,
        read: impl FnMut(&M) -> R + Send + 'static,
    ) -> Result<R, RequestError>
    where
        M: StateMachine,
        R: Send + 'static,
    {
        self.wait(timeout, |deadline, responder| {
            self.ask(basis, deadline, read, responder);
        })
    }

    /// Reads whatever this node has applied, which may be old, also where no leader is known. A node
    /// that has lost its state to damage refuses with [`RequestError::Busy`] until it has a peer's.
    ///
    /// Cancel safety: dropping the future changes nothing but that nobody hears the answer.
    pub fn read_stale<M, R>(&self, read: impl FnMut(&M) -> R + Send + 'static) -> Pending<R>
    where
        M: StateMachine,
        R: Send + 'static,
    {
        let (responder, future) = Responder::future();
        self.look(read, responder);
        future
    }

    /// As [`Node::read_stale`]; blocks the calling thread.
    pub fn read_stale_wait<M, R>(
        &self,
        timeout: Duration,
        read: impl FnMut(&M) -> R + Send + 'static,
    ) -> Result<R, RequestError>
    where
        M: StateMachine,
        R: Send + 'static,
    {
        self.wait(timeout, |_, responder| self.look(read, responder))
    }

    /// The tick at which a request made now without a time of its own has waited long enough.
    fn deadline(&self) -> Option<u64> {
        let timeout = self.shared().propose_timeout?;
        Some(self.shared().clock.tick_in(timeout))
    }

    /// Makes a request and blocks until it is answered or its time is over.
    fn wait<T>(
        &self,
        timeout: Duration,
        request: impl FnOnce(Option<u64>, Responder<T>),
    ) -> Result<T, RequestError> {
        let (responder, future) = Responder::future();
        let until = Instant::now() + timeout;
        request(Some(self.shared().clock.tick_in(timeout)), responder);
        future.wait_until(until)
    }

    /// Gives the driver a command, if there is room.
    fn enter(
        &self,
        len: usize,
        responder: Responder,
        proposal: impl FnOnce(Responder) -> Proposal,
    ) {
        let _span = tracing::trace_span!("duraft_propose", node = self.id().0, len).entered();
        let Some(permit) = self.shared().gate.enter(len) else {
            responder.answer(Err(FULL));
            return;
        };
        let proposal = proposal(responder.with_permit(permit));
        let input = DriverInput::Propose(proposal.asked_at(self.shared().clock.elapsed()));
        if let Err(DriverInput::Propose(proposal)) = self.shared().inbox.push_exempt(input) {
            proposal.refuse(STOPPED);
        }
    }

    fn ask<M, R>(
        &self,
        basis: ReadBasis,
        deadline: Option<u64>,
        read: impl FnMut(&M) -> R + Send + 'static,
        responder: Responder<R>,
    ) where
        M: StateMachine,
        R: Send + 'static,
    {
        let Some(responder) = self.admit(responder) else {
            return;
        };
        let request = ReadRequest {
            basis,
            deadline,
            job: ReadJob::new(read, responder),
        };
        let input = DriverInput::Read(request);
        if let Err(DriverInput::Read(request)) = self.shared().inbox.push_exempt(input) {
            request.job.fail(STOPPED);
        }
    }

    fn look<M, R>(&self, read: impl FnMut(&M) -> R + Send + 'static, responder: Responder<R>)
    where
        M: StateMachine,
        R: Send + 'static,
    {
        if let Some(responder) = self.admit(responder) {
            self.shared().read_stale(ReadJob::new(read, responder));
        }
    }

    fn administer<T>(&self, responder: Responder<T>, admin: impl FnOnce(Responder<T>) -> Admin) {
        if let Some(responder) = self.admit(responder) {
            // A closed inbox drops the wish, which answers its client.
            let wish = DriverInput::Admin(admin(responder));
            self.shared().tell_driver(wish);
        }
    }

    /// Takes a place among the requests that wait, or answers that there is none.
    fn admit<T>(&self, responder: Responder<T>) -> Option<Responder<T>> {
        let Some(permit) = self.shared().gate.enter(0) else {
            responder.answer(Err(FULL));
            return None;
        };
        Some(responder.with_permit(permit))
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.shared().id
    }

    /// The node as it was after its last turn.
    pub fn status(&self) -> Status {
        self.shared().status()
    }

    /// What the node has measured of itself so far.
    pub fn stats(&self) -> Stats {
        self.runtime.stats()
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

    /// A stream of events from now on: leader, role, membership, commits, snapshots, damage, the end.
    pub fn subscribe(&self) -> Events {
        self.shared().events.subscribe()
    }

    /// A stream of events from this position on; 0 is where this life began. Events that are not kept
    /// any more are reported as lost; see [`NodeOptions::events_max`].
    pub fn subscribe_from(&self, position: u64) -> Events {
        self.shared().events.subscribe_from(position)
    }

    /// Ends the node: commands that wait are answered, threads joined, files closed and unlocked.
    /// Idempotent, also from several threads. Returns why the node stopped: this call, or something
    /// before it. Waits for the command that the state machine is applying, if any. Called from a
    /// thread of the node itself (state machine, callback), it does not wait for that thread.
    pub fn shutdown(&self) -> StopReason {
        let _span = tracing::info_span!("duraft_shutdown", node = self.id().0).entered();
        self.runtime.end(End::Quiet)
    }

    /// As [`Node::shutdown`], on a thread of its own: the future is there when the node has ended.
    /// Where the system gives no thread, the node ends before this returns.
    ///
    /// Cancel safety: dropping the future changes nothing; the node ends.
    pub fn shutdown_async(&self) -> Pending<StopReason> {
        let (responder, future) = Responder::future();
        let node = self.clone();
        let end = move || responder.answer(Ok(node.shutdown()));
        let spawned = std::thread::Builder::new().name("duraft-end".into());
        if spawned.spawn(end).is_err() {
            self.shutdown();
        }
        future
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
