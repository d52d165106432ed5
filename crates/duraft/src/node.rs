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
use crate::driver::{Admin, DriverInput, Proposal};
use crate::events::Events;
use crate::options::{NodeOptions, OptionProblem};
use crate::outcome::{BusyReason, Outcome, RejectReason, RequestError, StopReason, UnknownReason};
use crate::reads::{ReadJob, ReadRequest};
use crate::responder::{Pending, ProposeFuture, Responder};
use crate::runtime::{End, Runtime, Shared};
use crate::session::Session;
use crate::sessions::{SessionCommand, SessionId, SessionLimits};
use crate::status::{SnapshotStatus, Status};
use bytes::Bytes;
use duraft_core::{
    BootError, Index, Leave, MemberChange, Membership, NodeId, Promotion, ReadBasis, Snapshot,
};
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

    /// Opens a session, in which commands take effect exactly once. Open one per client that has one
    /// command after another to send, not one per command.
    pub fn open_session(
        &self,
        limits: SessionLimits,
        timeout: Duration,
    ) -> Result<Session, RequestError> {
        let opened = self.wait(timeout, |deadline, responder| {
            self.enter(0, responder, |responder| {
                Proposal::open_session(limits, deadline, responder)
            });
        })?;
        Ok(Session::new(SessionId(opened.log_id.index.0)))
    }

    /// Ends a session; blocks until the cluster has forgotten it.
    pub fn close_session(&self, session: &Session, timeout: Duration) -> Outcome {
        let session = session.id();
        self.wait(timeout, |deadline, responder| {
            self.enter(0, responder, |responder| {
                Proposal::close_session(session, deadline, responder)
            });
        })
    }

    /// Submits a numbered command of a session, once. To be sent again after an unknown outcome,
    /// here or at another node; [`Session::propose`] does all of that.
    pub fn propose_numbered(&self, command: SessionCommand) -> ProposeFuture {
        let (responder, future) = Responder::future();
        let deadline = self.deadline();
        self.enter(command.command.len(), responder, |responder| {
            Proposal::numbered(command, deadline, responder)
        });
        future
    }

    /// As [`Node::propose_numbered`]; blocks as [`Node::propose_wait`].
    pub fn propose_numbered_wait(&self, command: SessionCommand, timeout: Duration) -> Outcome {
        self.wait(timeout, |deadline, responder| {
            self.enter(command.command.len(), responder, |responder| {
                Proposal::numbered(command, deadline, responder)
            });
        })
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

    /// Reads whatever this node has applied, which may be old, also where no leader is known.
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

    /// Takes a snapshot of what this node has applied, besides those that the options ask for.
    /// Answered when its file is durable; the log counts on it soon after.
    pub fn snapshot(&self) -> Pending<SnapshotStatus> {
        let (responder, future) = Responder::future();
        if let Some(responder) = self.admit(responder) {
            self.shared().take_snapshot(responder);
        }
        future
    }

    /// Changes the membership, all of `changes` at once, at the leader. Answered when the change is
    /// committed: where voters change, the joint membership is in force then, and is left by itself
    /// soon after. New members need [`Node::set_peer_address`] on every member, and a store made
    /// by [`Node::bootstrap_joining`].
    pub fn change_membership(&self, changes: Vec<MemberChange>) -> ProposeFuture {
        self.change_membership_leaving(changes, Leave::Automatic)
    }

    /// As [`Node::change_membership`], with a choice of how a joint membership is left.
    pub fn change_membership_leaving(
        &self,
        changes: Vec<MemberChange>,
        leave: Leave,
    ) -> ProposeFuture {
        let (responder, future) = Responder::future();
        let deadline = self.deadline();
        self.administer(responder, |responder| Admin::Change {
            changes,
            leave,
            deadline,
            responder,
        });
        future
    }

    /// Leaves a joint membership whose change asked for [`Leave::Explicit`].
    pub fn leave_joint(&self) -> ProposeFuture {
        let (responder, future) = Responder::future();
        let deadline = self.deadline();
        self.administer(responder, |responder| Admin::LeaveJoint {
            deadline,
            responder,
        });
        future
    }

    /// Replaces a voter by another node, as one operation that survives changes of the leader: the
    /// new node learns, and when it has caught up whoever leads makes it a voter in the place of the
    /// old one. Answered when that plan is committed; [`Node::replace_wait`] waits for the end.
    pub fn replace(&self, old: NodeId, new: NodeId) -> ProposeFuture {
        self.change_membership(vec![MemberChange::AddLearner {
            id: new,
            promotion: Promotion::WhenCaughtUp {
                replacing: Some(old),
            },
        }])
    }

    /// As [`Node::replace`]; blocks until the new node votes and the old one does not, as this node
    /// knows it. An unknown outcome means that it goes on.
    pub fn replace_wait(
        &self,
        old: NodeId,
        new: NodeId,
        timeout: Duration,
    ) -> Result<(), RequestError> {
        let until = Instant::now() + timeout;
        self.replace(old, new).wait_until(until)?;
        let left = until.saturating_duration_since(Instant::now());
        let done = self.wait_for(left, |status| {
            let membership = &status.membership;
            membership.is_voter(new) && !membership.contains(old) && !membership.is_joint()
        });
        done.map(drop).ok_or(RequestError::OutcomeUnknown {
            why: UnknownReason::Deadline,
        })
    }

    /// Hands leadership to another voter: this node takes no commands until the other has caught up
    /// and campaigns. Answered when this node does not lead any more.
    pub fn transfer_leadership(&self, to: NodeId) -> Pending<()> {
        let (responder, future) = Responder::future();
        self.administer(responder, |responder| Admin::Transfer { to, responder });
        future
    }

    /// Gives leadership up, whoever comes next.
    pub fn step_down(&self) -> Pending<()> {
        let (responder, future) = Responder::future();
        self.administer(responder, |responder| Admin::StepDown { responder });
        future
    }

    /// Tells the transport where a peer can be reached from now on; `None`: nowhere any more.
    pub fn set_peer_address(
        &self,
        peer: NodeId,
        address: Option<String>,
    ) -> Result<(), RequestError> {
        self.runtime.set_peer_address(peer, address)
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
        let Some(permit) = self.shared().gate.enter(len) else {
            responder.answer(Err(FULL));
            return;
        };
        let input = DriverInput::Propose(proposal(responder.with_permit(permit)));
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
