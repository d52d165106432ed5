//! Troubles that one node keeps when all others are over: it must not lead on.

use super::{Sim, Step};
use crate::config::{Lasting, SimConfig};
use duraft_core::RoleKind;

/// The trouble befalls whoever leads after so many ticks of the cluster.
const BEGINS: u64 = 100;

impl Sim {
    /// Does nothing of bulk leave this node? Then one more message is lost.
    pub(super) fn loses_data(&mut self, host: usize) -> bool {
        let loses = self.troubled == Some(host) && self.config.lasting == Some(Lasting::LosesData);
        self.report.data_lost += u64::from(loses);
        loses
    }

    /// How long this node's log waits for a sync, where that is not drawn.
    pub(super) fn lasting_sync(&self, host: usize) -> Option<u64> {
        match self.config.lasting? {
            Lasting::SlowDisk { sync } if self.troubled == Some(host) => Some(sync),
            Lasting::SlowDisk { .. } | Lasting::LosesData => None,
        }
    }

    /// Begins the trouble. C9: a leader whose disk stands hands over to one of the others, within the
    /// patience it has with its disk and a few elections.
    pub(super) fn lasting_tick(&mut self) -> Step {
        if self.config.lasting.is_none() || self.cluster_ticks < BEGINS {
            return Ok(());
        }
        let Some(host) = self.troubled else {
            self.troubled = self.leaders().pop_last().map(|(_, leader)| leader);
            return Ok(());
        };
        let stuck = self.hosts[host].life.as_ref().is_some_and(|life| {
            life.driver.raft().role() == RoleKind::Leader && !life.submissions.is_empty()
        });
        self.stuck_since = stuck.then(|| self.stuck_since.unwrap_or(self.now));
        let core = &self.config.core;
        let (Some(since), Some(patience)) = (self.stuck_since, core.stall_ticks) else {
            return Ok(());
        };
        let ticks = (self.now - since) / SimConfig::TICK;
        let most = u64::from(patience + 8 * core.election_ticks);
        if ticks <= most {
            return Ok(());
        }
        Err(format!(
            "C9: node {} leads on for {ticks} ticks in which its disk has done nothing, {most} are allowed",
            host + 1
        ))
    }
}
