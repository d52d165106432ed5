//! Membership: nodes that join, are promoted, replaced and removed.

use super::clients::Told;
use super::{Happening, Sim, host_of};
use crate::fault::between;
use duraft::{Admin, DriverInput, Responder};
use duraft_core::{Leave, MemberChange, Membership, NodeId, Promotion};
use duraft_disk::Disk;
use duraft_storage::JoinAs;
use std::sync::Arc;

impl Sim {
    /// Somebody asks a leader for another membership, or to leave a joint one.
    pub(super) fn change_membership(&mut self, host: usize) {
        let Some(life) = &self.hosts[host].life else {
            return;
        };
        if self.hosts.iter().any(|host| host.damaged) {
            // Fewer voters could make too many of the damaged ones.
            return;
        }
        let membership = life.driver.raft().membership().clone();
        let answers = self.answers.clone();
        let responder = Responder::call(move |outcome| {
            answers.lock().push(Told::Change(outcome));
        });
        let deadline = self.deadline(host);
        self.requests_made();
        if membership.is_joint() {
            let admin = Admin::LeaveJoint {
                deadline,
                responder,
            };
            self.input(host, DriverInput::Admin(admin));
            return;
        }
        let changes = self.draw_changes(&membership);
        for change in &changes {
            match change {
                MemberChange::AddVoter(id) | MemberChange::AddLearner { id, .. } => self.found(*id),
                MemberChange::Remove(_) => {}
            }
        }
        let leave = if self.dice.clients.below(4) == 0 {
            Leave::Explicit
        } else {
            Leave::Automatic
        };
        let admin = Admin::Change {
            changes,
            leave,
            deadline,
            responder,
        };
        self.input(host, DriverInput::Admin(admin));
    }

    /// A change of this membership. At least two voters stay.
    fn draw_changes(&mut self, membership: &Membership) -> Vec<MemberChange> {
        let all = (1..=self.hosts.len() as u64).map(NodeId);
        let strangers: Vec<NodeId> = all.filter(|id| !membership.contains(*id)).collect();
        let voters: Vec<NodeId> = membership.voters().collect();
        let learners: Vec<NodeId> = membership.learners().collect();
        let (stranger, voter, learner) = (
            self.pick(&strangers),
            self.pick(&voters),
            self.pick(&learners),
        );
        let few = voters.len() <= 2;
        let add = |id, promotion| MemberChange::AddLearner { id, promotion };
        let caught_up = |replacing| Promotion::WhenCaughtUp { replacing };
        let drawn = match self.dice.clients.below(9) {
            0 => vec![stranger.map(|id| add(id, Promotion::Never))],
            1 => vec![stranger.map(|id| add(id, caught_up(None)))],
            2 => vec![stranger.map(|id| add(id, caught_up(voter)))],
            3 => vec![stranger.map(MemberChange::AddVoter)],
            4 => vec![learner.map(MemberChange::AddVoter)],
            5 => vec![learner.map(MemberChange::Remove)],
            6 if !few => vec![voter.map(MemberChange::Remove)],
            7 if !few => vec![voter.map(|id| add(id, Promotion::Never))],
            _ => vec![
                stranger.map(MemberChange::AddVoter),
                voter
                    .filter(|_| !few || stranger.is_some())
                    .map(MemberChange::Remove),
            ],
        };
        drawn.into_iter().flatten().collect()
    }

    fn pick(&mut self, of: &[NodeId]) -> Option<NodeId> {
        let at = self.dice.clients.below(of.len().max(1) as u64);
        of.get(usize::try_from(at).ok()?).copied()
    }

    /// Makes the store of a node that is to join, if it has none.
    fn found(&mut self, id: NodeId) {
        let host = host_of(id);
        if self.hosts[host].exists {
            return;
        }
        let entropy = self.entropy();
        let shared: Arc<dyn Disk> = Arc::new(self.hosts[host].disk.clone());
        duraft_storage::bootstrap_joining(
            &shared,
            &self.hosts[host].identity,
            &self.config.wal,
            entropy,
            &[self.config.core.group],
            JoinAs::New,
        )
        .expect("an empty disk without faults takes a store");
        self.hosts[host].exists = true;
        self.report.joined += 1;
        let delay = between(&mut self.dice.other, 0, 50);
        self.plan(delay, Happening::Start(host));
    }
}
