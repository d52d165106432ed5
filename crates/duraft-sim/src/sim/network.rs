//! The network: what is sent, lost, doubled, late, and arrives.
//!
//! Each link, from one node to another, is cut or not and slow or not by itself, so that partitions can
//! be of any shape: two sides, one node alone, one that hears and is not heard, a chain.

use super::{Happening, Sim, host_of};
use crate::config::Network;
use crate::fault::{FaultKind, between, place};
use crate::trace::{TraceEvent, TraceKind};
use duraft::DriverInput;
use duraft::transfer::{TransferFrame, TransferInput};
use duraft_core::{Envelope, Message, NodeId, mix64};
use duraft_disk::SplitMix64;

/// The state of all links.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    nodes: usize,
    cut: Vec<bool>,
    /// What a slow link may add to a delay.
    slow: Vec<u64>,
}

impl Links {
    pub(super) fn new(nodes: usize, network: Network, seed: u64, rng: &mut SplitMix64) -> Links {
        let slow_max = network.slow_max;
        let slow = |_| {
            if slow_max > 0 && rng.below(3) == 0 {
                rng.below(slow_max + 1)
            } else {
                0
            }
        };
        let mut links = Links {
            nodes,
            cut: vec![false; nodes * nodes],
            slow: (0..nodes * nodes).map(slow).collect(),
        };
        let mut other = SplitMix64::new(mix64(seed ^ 0x6C61_7465));
        let (late, by) = (place(&mut other, nodes), other.below(network.late_max + 1));
        for from in (0..nodes).filter(|from| *from != late) {
            links.slow[from * nodes + late] += by;
        }
        links
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.nodes + to]
    }

    fn slow(&self, from: usize, to: usize) -> u64 {
        self.slow[from * self.nodes + to]
    }

    pub(super) fn heal(&mut self) {
        self.cut.fill(false);
        self.slow.fill(0);
    }

    /// Cuts the links that `cut` names, from one node to another, and joins the others.
    fn shape(&mut self, cut: impl Fn(usize, usize) -> bool) {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                self.cut[from * self.nodes + to] = from != to && cut(from, to);
            }
        }
    }

    fn any_cut(&self) -> bool {
        self.cut.contains(&true)
    }
}

impl Sim {
    /// Divides the nodes anew. Returns in words how.
    pub(super) fn cut(&mut self) {
        let mut rng = self.dice.shape();
        let nodes = self.hosts.len();
        let leader = self.leaders().last_key_value().map(|(_, leader)| *leader);
        let one = leader
            .filter(|_| rng.below(2) == 0)
            .unwrap_or_else(|| place(&mut rng, nodes));
        let sides: Vec<bool> = (0..nodes).map(|_| rng.below(2) == 0).collect();
        let drawn: Vec<bool> = (0..nodes * nodes).map(|_| rng.below(3) == 0).collect();
        let shape = rng.below(8);
        let links = &mut self.links;
        match shape {
            0 | 1 => links.shape(|_, _| false),
            2 => links.shape(|from, to| sides[from] != sides[to]),
            3 => links.shape(|from, to| (from == one) != (to == one)),
            // It hears and is not heard, or is heard and does not hear.
            4 => links.shape(|from, _| from == one),
            5 => links.shape(|_, to| to == one),
            // All can speak to one only.
            6 => links.shape(|from, to| from != one && to != one),
            // Any links, each in its own direction.
            _ => links.shape(|from, to| drawn[from * nodes + to]),
        }
        let one_way = matches!(shape, 4 | 5 | 7);
        self.report.one_way_partitions += u64::from(one_way);
        self.report.partitions += 1;
        if !self.links.any_cut() {
            self.report.partitions_healed += 1;
        }
    }

    pub(super) fn arrive(&mut self, message: u64, envelope: Envelope) {
        let (from, to) = (host_of(envelope.from), host_of(envelope.to));
        let passes = !self.links.is_cut(from, to) && self.hosts[to].life.is_some();
        self.trace(|| {
            let (kind, at, other) = if passes {
                (TraceKind::Arrived, to, from)
            } else {
                (TraceKind::Lost, from, to)
            };
            let text = format!("{:?} from {}", envelope.message, envelope.from);
            TraceEvent::new(kind, text).host(at).message(message, other)
        });
        if passes {
            self.input(to, DriverInput::Received(envelope));
        }
    }

    pub(super) fn send(&mut self, envelope: Envelope) {
        self.report.messages += 1;
        let members = self.history.latest_membership();
        if members.contains(envelope.from) && members.contains(envelope.to) {
            self.at_rest.0 += 1;
        } else {
            self.at_rest.1 += 1;
        }
        let number = self.report.messages;
        let (from, to) = (host_of(envelope.from), host_of(envelope.to));
        self.trace(|| {
            let text = format!(
                "{:?} to {}, term {}",
                envelope.message, envelope.to, envelope.term
            );
            TraceEvent::new(TraceKind::Sent, text)
                .host(from)
                .message(number, to)
                .value(envelope.term.0)
        });
        let data =
            matches!(&envelope.message, Message::Append { batches, .. } if !batches.is_empty());
        // Who holds what nobody wrote is to be contradicted, not to lead: the history would take its log for
        // a leader's.
        let stands = matches!(
            envelope.message,
            Message::Vote { .. } | Message::PreVote { .. }
        );
        if data && self.loses_data(from)
            || stands && self.hosts[from].forged
            || self.strikes(FaultKind::Loss, self.config.network.loss)
        {
            return;
        }
        if let Some(delay) = self.twice(from, to) {
            let envelope = envelope.clone();
            let message = number;
            self.plan(delay, Happening::Arrive { message, envelope });
        }
        let delay = self.delay(from, to);
        let message = number;
        self.plan(delay, Happening::Arrive { message, envelope });
    }

    /// A frame of a transfer goes out; it shares the network's troubles.
    pub(super) fn send_frame(&mut self, from: NodeId, to: NodeId, frame: TransferFrame) {
        self.report.frames += 1;
        if self.loses_data(host_of(from)) || self.strikes(FaultKind::Loss, self.config.network.loss)
        {
            return;
        }
        if let Some(delay) = self.twice(host_of(from), host_of(to)) {
            let frame = frame.clone();
            self.plan(delay, Happening::Frame { from, to, frame });
        }
        let delay = self.delay(host_of(from), host_of(to));
        self.plan(delay, Happening::Frame { from, to, frame });
    }

    pub(super) fn frame_arrives(&mut self, from: NodeId, to: NodeId, frame: TransferFrame) {
        let host = host_of(to);
        if !self.links.is_cut(host_of(from), host) {
            self.give_transfer(host, TransferInput::Frame { from, frame });
        }
    }

    fn delay(&mut self, from: usize, to: usize) -> u64 {
        let network = self.config.network;
        let slow = self.links.slow(from, to);
        between(
            &mut self.dice.network,
            network.delay_min + slow / 2,
            network.delay_max + slow,
        )
    }

    /// The delay of a message's second copy, if there is one.
    fn twice(&mut self, from: usize, to: usize) -> Option<u64> {
        let again = self.strikes(FaultKind::Duplicate, self.config.network.duplicate);
        again.then(|| {
            let late = 3 * self.config.network.delay_max;
            self.delay(from, to) + between(&mut self.dice.network, 0, late)
        })
    }
}
