//! The network: what is sent, lost, doubled, late, and arrives.

use super::{Happening, Sim, host_of};
use duraft::DriverInput;
use duraft::transfer::{TransferFrame, TransferInput};
use duraft_core::{Envelope, NodeId};

impl Sim {
    pub(super) fn arrive(&mut self, envelope: Envelope) {
        let to = host_of(envelope.to);
        if self.sides[host_of(envelope.from)] == self.sides[to] {
            self.input(to, DriverInput::Received(envelope));
        }
    }

    pub(super) fn send(&mut self, envelope: Envelope) {
        self.report.messages += 1;
        if self.chance(self.config.network.loss) {
            return;
        }
        let network = self.config.network;
        if self.chance(network.duplicate) {
            let delay = self.between(network.delay_min, 4 * network.delay_max);
            self.plan(delay, Happening::Arrive(envelope.clone()));
        }
        let delay = self.between(network.delay_min, network.delay_max);
        self.plan(delay, Happening::Arrive(envelope));
    }

    /// A frame of a transfer goes out; it shares the network's troubles.
    pub(super) fn send_frame(&mut self, from: NodeId, to: NodeId, frame: TransferFrame) {
        self.report.frames += 1;
        if self.chance(self.config.network.loss) {
            return;
        }
        let network = self.config.network;
        if self.chance(network.duplicate) {
            let delay = self.between(network.delay_min, 4 * network.delay_max);
            let frame = frame.clone();
            self.plan(delay, Happening::Frame { from, to, frame });
        }
        let delay = self.between(network.delay_min, network.delay_max);
        self.plan(delay, Happening::Frame { from, to, frame });
    }

    pub(super) fn frame_arrives(&mut self, from: NodeId, to: NodeId, frame: TransferFrame) {
        let host = host_of(to);
        if self.sides[host_of(from)] == self.sides[host] {
            self.give_transfer(host, TransferInput::Frame { from, frame });
        }
    }
}
