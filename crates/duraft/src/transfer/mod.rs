//! Moving snapshots between nodes: two deterministic state machines, without threads, sockets or
//! clocks.
//!
//! [`Transfers`] is all of one node: a [`Sender`] for each peer that is being sent to and one
//! [`Receiver`]. It is called on a thread of its own, because it reads and writes files: never on the
//! raft thread. Frames may be lost, delayed, repeated and reordered on the way; what arrives has
//! passed its frame's checksum.
//!
//! ```text
//! leader                                     follower
//! Output::SendSnapshot ─► Sender ── offer ─►  Receiver ─► SnapshotStore::receive
//!                                ◄── ack ───  (resumes: says what it holds)
//!                                ── pieces ─► SnapshotReceiver::write, checked part by part
//!                         Moving ◄── acks ──
//!                                             SnapshotReceiver::finish: sync, rename, sync
//!                      Delivered ◄── ack, durable
//!                                             Completion::SnapshotReceived ─► core
//! ```
//!
//! Memory per transfer is a window of pieces and a few chunks on each side, whatever the size of the
//! snapshot. A transfer that ends early, by whichever side's crash, goes on where it was.
//!
//! This module does not know who leads, what is committed, or whether the snapshot will be installed.

mod frame;
mod options;
mod receiver;
mod sender;

pub use frame::{
    Attempt, PIECE_BYTES_MAX, PIECE_HEAD_BYTES, TRANSFER_BODY_BYTES_MAX, TransferFrame,
    TransferFrameError, TransferId, TransferKind, TransferRefusal,
};
pub use options::TransferOptions;
pub use receiver::{Receiver, ReceiverOutput};
pub use sender::{Sender, SenderOutput};

use duraft_core::{Completion, Incarnation, Index, NodeId, SendProgress, Snapshot, Term};
use duraft_storage::{SnapshotError, SnapshotFileKind, SnapshotName, SnapshotStore};
use std::collections::BTreeMap;

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransferInput {
    /// The clock moved on by one tick.
    Tick,
    /// The core wants a peer to have this snapshot ([`duraft_core::Output::SendSnapshot`]).
    Send {
        /// The peer.
        to: NodeId,
        /// The term this node leads.
        term: Term,
        /// What to send.
        snapshot: Snapshot,
    },
    /// A frame came.
    Frame {
        /// The peer that sent it.
        from: NodeId,
        /// What it says.
        frame: TransferFrame,
    },
}

/// Something to do.
#[derive(Clone, Debug)]
pub enum TransferOutput {
    /// Send this on the bulk connection, or lose it.
    Frame {
        /// The peer.
        to: NodeId,
        /// What to send.
        frame: TransferFrame,
    },
    /// Give this to the core.
    Completed(Completion),
    /// A snapshot of this node cannot be read, or is not what it was: take another one.
    Damaged {
        /// Index of the snapshot.
        at: Index,
        /// What is wrong.
        error: SnapshotError,
    },
}

/// All transfers of one node's group; see the module documentation.
pub struct Transfers {
    options: TransferOptions,
    life: Incarnation,
    store: SnapshotStore,
    /// Kept when idle: their attempts must go on increasing.
    senders: BTreeMap<NodeId, Sender>,
    receiver: Receiver,
}

impl Transfers {
    /// No transfers yet, in this life of the node.
    pub fn new(options: TransferOptions, life: Incarnation, store: SnapshotStore) -> Transfers {
        Transfers {
            options,
            life,
            receiver: Receiver::new(options, store.clone()),
            store,
            senders: BTreeMap::new(),
        }
    }

    /// Takes in what happened and appends what is to be done. Blocks for as long as the disk takes.
    pub fn step(&mut self, input: TransferInput, out: &mut Vec<TransferOutput>) {
        match input {
            TransferInput::Tick => {
                self.receiver.tick();
                let peers: Vec<NodeId> = self.senders.keys().copied().collect();
                for to in peers {
                    self.with_sender(to, out, |sender, outputs| sender.tick(outputs));
                }
            }
            TransferInput::Send { to, term, snapshot } => match self.store.source(&snapshot) {
                Ok(source) => {
                    let (options, life) = (self.options, self.life);
                    let sender = self.senders.entry(to);
                    sender.or_insert_with(|| Sender::new(options, life));
                    self.with_sender(to, out, |sender, outputs| {
                        sender.start(term, source, outputs);
                    });
                }
                Err(error) => {
                    let at = snapshot.position.index();
                    if !self.is_superseded(&snapshot, &error) {
                        out.push(TransferOutput::Damaged { at, error });
                    }
                    let progress = SendProgress::Failed;
                    let failed = Completion::SnapshotSending { to, at, progress };
                    out.push(TransferOutput::Completed(failed));
                }
            },
            TransferInput::Frame { from, frame } => self.on_frame(from, frame, out),
        }
    }

    /// The receiving side, for status and tests.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Is nothing being sent or received? Then ticks change nothing.
    pub fn is_idle(&self) -> bool {
        self.receiver.is_idle() && self.senders.values().all(Sender::is_idle)
    }

    /// Bytes sent to all peers and not acknowledged.
    pub fn in_flight_bytes(&self) -> u64 {
        self.senders.values().map(Sender::in_flight_bytes).sum()
    }

    /// Was the file removed because a later one has taken its place since the core asked? The core
    /// will ask for that one.
    fn is_superseded(&self, snapshot: &Snapshot, error: &SnapshotError) -> bool {
        let missing = matches!(error, SnapshotError::Missing { .. });
        let later = |name: &SnapshotName| {
            name.kind == SnapshotFileKind::Whole && name.index > snapshot.position.index()
        };
        missing && self.store.list().is_ok_and(|names| names.iter().any(later))
    }

    fn on_frame(&mut self, from: NodeId, frame: TransferFrame, out: &mut Vec<TransferOutput>) {
        let mut received = Vec::new();
        match frame {
            TransferFrame::Offer {
                attempt,
                term,
                snapshot,
            } => {
                let receiver = &mut self.receiver;
                receiver.on_offer(from, attempt, term, &snapshot, &mut received);
            }
            TransferFrame::Piece { id, offset, bytes } => {
                self.receiver
                    .on_piece(from, id, offset, bytes, &mut received);
            }
            TransferFrame::Ack {
                id,
                received,
                durable,
            } => self.with_sender(from, out, |sender, outputs| {
                sender.on_ack(id, received, durable, outputs);
            }),
            TransferFrame::Refused { id, reason } => {
                self.with_sender(from, out, |sender, outputs| {
                    sender.on_refused(id, reason, outputs);
                });
            }
        }
        out.extend(received.into_iter().map(|output| match output {
            ReceiverOutput::Frame { to, frame } => TransferOutput::Frame { to, frame },
            ReceiverOutput::Received {
                from,
                term,
                snapshot,
            } => TransferOutput::Completed(Completion::SnapshotReceived {
                from,
                term,
                snapshot,
            }),
        }));
    }

    fn with_sender(
        &mut self,
        to: NodeId,
        out: &mut Vec<TransferOutput>,
        act: impl FnOnce(&mut Sender, &mut Vec<SenderOutput>),
    ) {
        // A peer that nothing was ever sent to has nothing to answer.
        let Some(sender) = self.senders.get_mut(&to) else {
            return;
        };
        let mut outputs = Vec::new();
        act(sender, &mut outputs);
        for output in outputs {
            out.push(match output {
                SenderOutput::Frame(frame) => TransferOutput::Frame { to, frame },
                SenderOutput::Progress { at, progress } => {
                    TransferOutput::Completed(Completion::SnapshotSending { to, at, progress })
                }
                SenderOutput::SourceDamaged { at, error } => TransferOutput::Damaged { at, error },
            });
        }
    }
}
