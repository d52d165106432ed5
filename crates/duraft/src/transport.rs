//! Carrying messages between nodes.
//!
//! A [`Transport`] may lose, delay, duplicate and reorder messages; it must not change them, and
//! [`Transport::send`] must not block, because the raft thread calls it. What it delivers has passed
//! its checksums.

mod channel;
mod inbound;
mod outbound;
mod security;
mod tcp;
#[cfg(feature = "tls")]
mod tls;

use crate::driver::DriverInput;
use crate::queue::Queue;
use crate::transfer::TransferInput;
use crate::wire::batches_of;
use duraft_core::{Batch, Envelope, Incarnation, NodeId};
use std::io;
use std::sync::Arc;

pub use crate::wire::Parcel;

pub(crate) use security::PLAINTEXT_RULE;
pub use security::{Names, Security, TlsRefusal, TlsStats};
pub use tcp::{TcpOptions, TcpStats, TcpTransport};
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub use tls::{TlsOptions, TlsSetupError, tls_name};

/// See the module documentation.
pub trait Transport: Send + Sync {
    /// Begins to deliver messages to `inbox`. Called once, before the first `send`.
    fn start(&self, local: Local, inbox: Inbox) -> io::Result<()>;
    /// Sends a message or loses it. Never blocks.
    fn send(&self, envelope: Envelope);
    /// Sends a word of a snapshot's transfer or loses it. Never blocks. Such words must not delay
    /// messages more than their own length does.
    fn send_parcel(&self, parcel: Parcel);
    /// From now on `peer` can be reached at `address`, or not at all. False where the transport has
    /// its peers from elsewhere.
    fn set_peer(&self, peer: NodeId, address: Option<String>) -> bool {
        let _ = (peer, address);
        false
    }
    /// Nothing that is sent to `peer` gets an answer although the peer is there: connections to it
    /// that may be broken without anybody noticing are to be made anew.
    fn redial(&self, peer: NodeId) {
        let _ = peer;
    }
    /// What was done so far, as far as it is counted.
    fn stats(&self) -> TcpStats {
        TcpStats::default()
    }
    /// Ends all threads and connections. Nothing is delivered after it returned. Idempotent.
    fn stop(&self);
}

/// Who this node is to its peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Local {
    /// The cluster's identity.
    pub cluster: [u8; 16],
    /// This node.
    pub node: NodeId,
    /// This node's life.
    pub incarnation: Incarnation,
    /// The cluster's largest batch body.
    pub max_batch_bytes: u32,
    /// Most bytes of batches, descriptors included, in one message of this node. A transport that
    /// cannot carry them refuses to start.
    pub append_bytes_max: u64,
}

/// Where a transport delivers messages.
#[derive(Clone, Debug)]
pub struct Inbox {
    queue: Arc<Queue<DriverInput>>,
    transfers: Arc<Queue<TransferInput>>,
}

/// The node has stopped and takes no messages any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InboxClosed;

impl Inbox {
    pub(crate) fn new(
        queue: Arc<Queue<DriverInput>>,
        transfers: Arc<Queue<TransferInput>>,
    ) -> Inbox {
        Inbox { queue, transfers }
    }

    /// Hands a word of a transfer to the node, or drops it while the node's queue for such is full.
    pub fn deliver_parcel(&self, parcel: Parcel) {
        let cost = parcel.frame.cost();
        let input = TransferInput::Frame {
            from: parcel.from,
            frame: parcel.frame,
        };
        // What is dropped is offered again.
        let _ = self.transfers.push_or_drop(input, cost);
    }

    /// Says that a connection to `peer` was lost, and what was sent on it may be.
    pub fn unreachable(&self, peer: NodeId) {
        let _ = self.queue.push_exempt(DriverInput::Unreachable(peer));
    }

    /// Hands a message to the node, waiting while the node's queue is full.
    pub fn deliver(&self, envelope: Envelope) -> Result<(), InboxClosed> {
        let cost = cost_of(&envelope);
        self.queue
            .push_wait(DriverInput::Received(envelope), cost)
            .map_err(|_| InboxClosed)
    }
}

/// Bytes that a message weighs in a queue.
pub(crate) fn cost_of(envelope: &Envelope) -> u64 {
    const FIXED: u64 = 128;
    FIXED + batches_of(envelope).iter().map(Batch::cost).sum::<u64>()
}
