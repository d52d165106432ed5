//! Damage at rest: disks that have changed, or are gone, when their node starts again.
//!
//! Never more than what leaves a quorum of whole nodes. What is required of a damaged node: it says
//! so, nothing that it promises is without ground, and it becomes whole with the help of the others.

use super::{Sim, Step};
use crate::fault::FaultKind;
use duraft_core::{Awaited, Index, NodeId};
use duraft_disk::{Disk, FaultDisk, FaultOptions};
use duraft_storage::JoinAs;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Sim {
    /// A node is about to start: is its disk still what it was?
    pub(super) fn rot(&mut self, host: usize) -> Step {
        let armed = self.hosts[host].armed;
        if armed || !self.may_rot(host) {
            return Ok(());
        }
        if self.strikes(FaultKind::Damage, self.config.forge) {
            return self.forge(host);
        }
        if !self.strikes(FaultKind::Damage, self.config.damage) {
            return Ok(());
        }
        if self.strikes(FaultKind::Wipe, self.config.wipe) {
            return self.wipe(host);
        }
        let entropy = self.entropy();
        let node = &mut self.hosts[host];
        node.rot(&self.config, entropy, &mut self.dice.shape())?;
        if self.config.damage_places > 1 {
            self.history.loses_own_votes(node.id);
        }
        self.report.damages += 1;
        Ok(())
    }

    /// Gives an entry that all others hold, and others behind it, another content: so there is somebody to
    /// contradict it.
    fn forge(&mut self, host: usize) -> Step {
        let mut end = Index(u64::MAX);
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            end = end.min(self.hosts[other].recovered(&self.config)?.0.last.index());
        }
        let entropy = self.entropy();
        let forged = self.hosts[host].forge(&self.config, entropy, end)?;
        self.report.forged += u64::from(forged);
        Ok(())
    }

    /// May this node be damaged, too? Not while the membership changes, and only if those that are
    /// neither damaged nor this one decide.
    fn may_rot(&self, host: usize) -> bool {
        let node = &self.hosts[host];
        let members = self.history.latest_membership();
        // A log that is down may hold a change that comes back with it.
        let settled = |host: &crate::host::Host| {
            let life = host.life.as_ref();
            let in_use = life.map(|life| life.driver.raft().membership());
            let in_use = in_use.or(host.membership.as_ref());
            !members.contains(host.id) || in_use.is_none_or(|in_use| in_use == members)
        };
        let whole = self.hosts.iter().filter(|h| !h.damaged && h.id != node.id);
        let whole: BTreeSet<NodeId> = whole.map(|h| h.id).collect();
        !node.damaged
            && members.contains(node.id)
            && !members.is_joint()
            && members.promotions().next().is_none()
            && self.hosts.iter().all(settled)
            && members.is_quorum(whole)
    }

    /// The disk is lost; the node begins with an empty one, which says so.
    pub(super) fn wipe(&mut self, host: usize) -> Step {
        let entropy = self.entropy();
        let disk = FaultDisk::new(FaultOptions {
            sector_bytes: self.config.disk.sector_bytes,
            ..FaultOptions::default()
        });
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let node = &mut self.hosts[host];
        let group = self.config.core.group;
        let made = duraft_storage::bootstrap_joining(
            &shared,
            &node.identity,
            &self.config.wal,
            entropy,
            &[group],
            JoinAs::Wiped,
        );
        made.map_err(|error| format!("node {} cannot begin anew: {error}", host + 1))?;
        node.replaced_by_empty(disk);
        self.history.loses_own_votes(node.id);
        self.report.wipes += 1;
        Ok(())
    }

    /// A node has started on a disk that was damaged. If it does not say so, then nothing may be
    /// missing.
    pub(super) fn check_rotten(&mut self, host: usize) -> Step {
        let node = &mut self.hosts[host];
        let Some(before) = node.rotten.take() else {
            return Ok(());
        };
        if node.damaged {
            self.report.damages_reported += 1;
            return Ok(());
        }
        let now = node.recovered(&self.config)?.0;
        if !before.damaged && (!now.holds(&before.last) || now.hard_state != before.hard_state) {
            return Err(format!(
                "B12: node {} silently lost something: {:?} and a log up to {} became {:?} and {}",
                host + 1,
                before.hard_state,
                before.last,
                now.hard_state,
                now.last
            ));
        }
        Ok(())
    }

    /// R15: who may have lost the end of its log is whole only on a leader's word to this very life: what
    /// was told to an earlier one may lie before what that has acknowledged since.
    pub(super) fn check_healed(&self, host: usize) -> Step {
        let node = &self.hosts[host];
        let Some(life) = node.life.as_ref().filter(|life| life.lacks_suffix) else {
            return Ok(());
        };
        let incarnation = life.driver.raft().incarnation();
        if self.history.was_told_to_heal(node.id, incarnation) {
            return Ok(());
        }
        Err(format!(
            "R15: node {} is whole in a life, {incarnation:?}, that no leader has told up to where",
            node.id
        ))
    }

    /// Which damaged nodes have become whole? R15: they hold again whatever they have acknowledged in any
    /// life and was committed.
    pub(super) fn look_for_healed(&mut self) -> Step {
        for host in &mut self.hosts {
            if !host.is_healed(&self.config)? {
                continue;
            }
            self.report.healed += 1;
            let id = host.id;
            let committed = (host.acked.values()).filter(|at| self.history.is_committed(at));
            let owed = committed.max_by_key(|at| at.index()).copied();
            let disk = host.recovered(&self.config)?.0;
            if let Some(owed) = owed
                && !disk.holds(&owed)
            {
                return Err(format!(
                    "R15: node {id} is whole again with a log up to {}, and had acknowledged {owed}",
                    disk.last
                ));
            }
        }
        Ok(())
    }

    /// Is a change of the members under way that takes more than the nodes that are whole? An operator has
    /// asked to remove one of them just as another was damaged, and must decide what to do now.
    pub(super) fn change_lacks_whole_nodes(&self) -> bool {
        let whole = || self.hosts.iter().filter(|host| !host.damaged);
        let lives = whole().filter_map(|host| host.life.as_ref());
        lives
            .map(|life| life.driver.raft().membership())
            .any(|members| !members.is_unknown() && !members.is_quorum(whole().map(|host| host.id)))
    }

    /// L3: everybody else has converged and some members are still damaged. The only reason that there is
    /// (ADR 11): a node that may have lost a vote waits for every other voter, and one of these waits too,
    /// or there are so few voters that nobody is left to ask.
    pub(super) fn check_wait_for_operator(&self) -> Step {
        let members = self.history.latest_membership();
        let damaged = (self.hosts.iter()).filter(|host| host.damaged && members.contains(host.id));
        let waits = |host: &crate::host::Host| {
            let status = host.life.as_ref()?.driver.raft().damage_status()?;
            matches!(status.waits_for, Awaited::Terms { .. }).then_some(host.id)
        };
        let waiting: BTreeSet<NodeId> = damaged.clone().filter_map(waits).collect();
        let explained = |id: &NodeId| waiting.contains(id) && (waiting.len() > 1);
        match damaged.map(|host| host.id).find(|id| !explained(id)) {
            None => Ok(()),
            Some(id) => Err(format!(
                "L3: node {id} is still damaged and nothing is in its way: {}",
                self.describe()
            )),
        }
    }
}
