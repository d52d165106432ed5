//! The transfer thread: moves snapshots between nodes, so that neither the raft thread nor the one that
//! takes snapshots waits for files and peers.

use super::Shared;
use super::applying::ApplyWork;
use crate::events::NodeEvent;
use crate::queue::Taken;
use crate::transfer::{TransferInput, TransferOutput, Transfers};
use crate::transport::{Local, Parcel, Transport};
use duraft_core::GroupId;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// See the module documentation.
pub(super) struct TransferLoop {
    shared: Arc<Shared>,
    generation: u64,
    group: GroupId,
    local: Local,
    transfers: Transfers,
    transport: Arc<dyn Transport>,
}

impl TransferLoop {
    pub(super) fn new(
        shared: Arc<Shared>,
        generation: u64,
        group: GroupId,
        local: Local,
        transfers: Transfers,
        transport: Arc<dyn Transport>,
    ) -> TransferLoop {
        TransferLoop {
            shared,
            generation,
            group,
            local,
            transfers,
            transport,
        }
    }

    /// Runs until the queue is closed. While nothing moves, time does not matter.
    pub(super) fn run(mut self) {
        let mut taken = VecDeque::new();
        let mut outputs = Vec::new();
        let mut tick = self.shared.clock.now();
        loop {
            let idle = self.transfers.is_idle();
            let wake = (!idle).then(|| self.shared.clock.instant_of(tick + 1));
            if self.shared.transfers.take_all(&mut taken, wake) == Taken::Closed
                || self.shared.ending.load(Ordering::Relaxed)
            {
                return;
            }
            for input in taken.drain(..) {
                self.transfers.step(input, &mut outputs);
                self.perform(&mut outputs);
            }
            // Ticks that were missed while a file was read or written are nobody's silence.
            let now = self.shared.clock.now();
            if now > tick {
                tick = now;
                self.transfers.step(TransferInput::Tick, &mut outputs);
                self.perform(&mut outputs);
            }
        }
    }

    fn perform(&self, outputs: &mut Vec<TransferOutput>) {
        for output in outputs.drain(..) {
            match output {
                TransferOutput::Frame { to, frame } => self.transport.send_parcel(Parcel {
                    group: self.group,
                    from: self.local.node,
                    incarnation: self.local.incarnation,
                    to,
                    frame,
                }),
                TransferOutput::Completed(completion) => {
                    self.shared.complete_for(self.generation, completion);
                }
                TransferOutput::Damaged { at, error } => {
                    tracing::error!(node = self.local.node.0, %at, "a snapshot is lost: {error}");
                    let message = error.to_string();
                    let event = NodeEvent::SnapshotUnreadable { at, message };
                    self.shared.events.publish(event);
                    let _ = self.shared.work.push_exempt(ApplyWork::Snapshot(None));
                }
            }
        }
    }
}
