//! What must be true of a cluster at rest: everything healed, everybody has everything, nobody waits.

use super::{Sim, Step, host_of};
use crate::config::Recover;
use crate::life::Life;
use duraft_core::{Index, NodeId};
use duraft_disk::Disk;
use std::collections::BTreeSet;

/// Ticks for which a cluster at rest is left alone to see how much it talks.
pub(super) const REST_TICKS: u64 = 20;

/// Names that the documents of the formats do not know are nobody's.
fn is_documented(name: &str) -> bool {
    let hex =
        |text: &str, len: usize| text.len() == len && text.chars().all(|c| c.is_ascii_hexdigit());
    if let Some(slot) = name.strip_prefix("wal/") {
        return slot
            .strip_suffix(".slot")
            .is_some_and(|number| hex(number, 8));
    }
    if let Some(rest) = name.strip_prefix("snap/") {
        let Some((group, file)) = rest.split_once('/') else {
            return hex(rest, 16);
        };
        let ending = [".snap", ".snap.tmp", ".snap.part"];
        return hex(group, 16) && ending.iter().any(|ending| file.ends_with(ending));
    }
    matches!(name, "STORE" | "LOCK" | "wal" | "snap")
}

impl Sim {
    /// The nodes that are whole members and live.
    fn whole_members(&self) -> Vec<usize> {
        let members = self.history.latest_membership();
        let whole = members.members().map(host_of);
        whole
            .filter(|host| !self.hosts[*host].damaged && self.hosts[*host].life.is_some())
            .collect()
    }

    /// C3, C6, C9, L5: what is in memory is what is on the disk; what is on the disk is what the
    /// format documents name, and no more than the log needs; all hold the same state, byte for byte.
    pub(super) fn check_at_rest(&mut self) -> Step {
        let mut states: Vec<(NodeId, Index, Vec<u8>)> = Vec::new();
        for host in self.whole_members() {
            self.check_memory_is_disk(host)?;
            self.check_files(host)?;
            let id = self.hosts[host].id;
            let Some(life) = &mut self.hosts[host].life else {
                continue;
            };
            let state = state_of(life).map_err(|error| format!("node {id}: {error}"))?;
            states.push((id, life.applier.position().index(), state));
        }
        for pair in states.windows(2) {
            let [(a, at, state), (b, other_at, other)] = pair else {
                continue;
            };
            if at == other_at && state != other {
                return Err(format!(
                    "A5: nodes {a} and {b} have applied up to {at} and hold different bytes"
                ));
            }
        }
        self.report.rests_checked += 1;
        Ok(())
    }

    /// C6: every batch that a core has in its log is the one on its disk.
    fn check_memory_is_disk(&mut self, host: usize) -> Step {
        if self.config.recover == Recover::Never {
            return Ok(());
        }
        let Some(life) = &self.hosts[host].life else {
            return Ok(());
        };
        let raft = life.driver.raft();
        if raft.durable() != raft.last().index() {
            return Ok(());
        }
        let headers: Vec<_> = raft
            .headers()
            .map(|header| (header.last(), header.digest))
            .collect();
        let disk = self.hosts[host].recovered(&self.config)?.0;
        for (at, digest) in headers {
            if at > disk.start.index() && disk.digest_at(at) != Some(digest) {
                return Err(format!(
                    "C6: node {} has {digest:?} at {at} in memory and {:?} on disk",
                    host + 1,
                    disk.digest_at(at)
                ));
            }
        }
        Ok(())
    }

    /// C9: no file that no document names. C6, L5: slots and snapshots are given back.
    fn check_files(&self, host: usize) -> Step {
        let disk = &self.hosts[host].disk;
        let mut folders = vec![String::new()];
        let mut names: BTreeSet<String> = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for name in disk.list(&folder).map_err(|error| error.to_string())? {
                let path = if folder.is_empty() {
                    name
                } else {
                    format!("{folder}/{name}")
                };
                if disk.list(&path).is_ok() {
                    folders.push(path.clone());
                }
                names.insert(path);
            }
        }
        if let Some(stranger) = names.iter().find(|name| !is_documented(name)) {
            return Err(format!("C9: node {} has a file '{stranger}'", host + 1));
        }
        let count =
            |ending: &str| names.iter().filter(|name| name.ends_with(ending)).count() as u64;
        let snapshots = count(".snap");
        if snapshots > 4 {
            return Err(format!("C6: node {} keeps {snapshots} snapshots", host + 1));
        }
        Ok(())
    }

    /// L6: what an idle cluster says in a while is a few messages per node and heartbeat. A node that has
    /// left may still be brought up to the change that says so: a few messages per batch.
    pub(super) fn check_storm(&self) -> Step {
        let (among, with_others) = self.at_rest;
        let members = self.history.latest_membership();
        let peers = members.members().count() as u64 - 1;
        let rounds = REST_TICKS.div_ceil(u64::from(self.config.core.heartbeat_ticks)) + 1;
        // Heartbeats and their answers, and half of that for the odd read or transfer that ends. A change
        // of the members may still go its way, with an election at its end.
        let entries = self.history.committed_end().index().0 - self.rest_began.0;
        let most = 3 * peers * rounds + 10 + 10 * (peers + 1) * entries;
        let others = self.hosts.len() as u64 - 1 - peers;
        let most_with_others = 3 * others * (rounds + self.history.committed_end().index().0);
        if among > most || with_others > most_with_others {
            return Err(format!(
                "L6: {among} messages in {REST_TICKS} ticks of rest, at most {most} make sense, \
                 and {with_others} with others than members, at most {most_with_others}: {}",
                self.describe()
            ));
        }
        Ok(())
    }
}

/// The whole replicated state: sessions, history and the workload's state machine.
fn state_of(life: &mut Life) -> Result<Vec<u8>, String> {
    let view = life
        .applier
        .snapshot()
        .map_err(|reason| reason.to_string())?
        .ok_or("a node without a state at rest")?;
    let mut bytes = Vec::new();
    (view.work)(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}
