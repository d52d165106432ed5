//! Configuration of the core, checked as a whole before the first step.

use crate::types::{GroupId, NodeId};
use alloc::vec::Vec;

/// How the core behaves. Times are ticks; the host decides how long a tick is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// The group this core serves.
    pub group: GroupId,
    /// Seed of the election timeouts. Different on every node, or elections may be split for ever.
    pub seed: u64,
    /// Least election timeout. Each timeout is drawn from `election_ticks..2 * election_ticks`.
    pub election_ticks: u32,
    /// Time between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// Ask before campaigning (thesis 9.6), so that a node that cannot win disturbs nobody.
    pub pre_vote: bool,
    /// A leader that hears from no quorum within an election timeout steps down, and voters refuse
    /// (pre-)votes while they hear from a leader (thesis 6.2, 4.2.3).
    pub check_quorum: bool,
    /// Largest body of one batch, in bytes. A constant of the cluster.
    pub max_batch_bytes: u32,
    /// Most bytes of batches in one append, and of what a follower writes at once of a larger one; one
    /// whole batch always fits.
    pub append_bytes_max: u64,
    /// Most appends in flight to one peer.
    pub inflight_messages_max: usize,
    /// Most bytes in flight to one peer; an empty window admits one whole append.
    pub inflight_bytes_max: u64,
    /// Most bytes proposed and not committed; an empty log tail admits one whole batch.
    pub uncommitted_bytes_max: u64,
    /// Most bytes given to the state machine and not reported applied; one whole batch always fits.
    pub unapplied_bytes_max: u64,
    /// Bytes of recent batches kept in memory. Batches that are not durable yet are kept beyond it.
    pub cache_bytes_max: u64,
    /// Most bytes committed and not applied before proposals are refused.
    pub backlog_bytes_max: u64,
    /// Most bytes of writes under way to this node's disk before proposals are refused.
    pub unpersisted_bytes_max: u64,
    /// Bytes of log kept behind the latest snapshot for peers that are a little late.
    pub trailing_bytes_max: u64,
    /// Most bytes of batch headers held in memory. Older ones of the applied log are read back.
    pub shape_bytes_max: u64,
    /// Most reads that wait for a quorum.
    pub reads_max: usize,
    /// Most bytes of batches held while a gap of a damaged log is being filled.
    pub fetch_bytes_max: u64,
    /// How much this node wants to lead: leadership goes to the highest among healthy voters.
    pub priority: u8,
    /// Lease reads (RULES.md 26); `None`: every read asks a quorum.
    pub lease: Option<Lease>,
    /// A write that is under way for longer means that the disk stalls: such a leader hands over, such
    /// a follower does not campaign. `None`: no such policy.
    pub stall_ticks: Option<u32>,
}

/// When a leader may answer reads without asking. The same on every node, or it proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// How much faster or slower any node's clock may run than any other's, in parts per million.
    pub drift_ppm: u32,
}

impl Config {
    /// A configuration with the default limits.
    pub fn new(id: NodeId, group: GroupId, seed: u64) -> Config {
        Config {
            id,
            group,
            seed,
            election_ticks: 10,
            heartbeat_ticks: 2,
            pre_vote: true,
            check_quorum: true,
            max_batch_bytes: 1 << 20,
            append_bytes_max: 1 << 20,
            inflight_messages_max: 256,
            inflight_bytes_max: 16 << 20,
            uncommitted_bytes_max: 64 << 20,
            unapplied_bytes_max: 64 << 20,
            cache_bytes_max: 64 << 20,
            backlog_bytes_max: 256 << 20,
            unpersisted_bytes_max: 128 << 20,
            trailing_bytes_max: 16 << 20,
            shape_bytes_max: 64 << 20,
            reads_max: 4096,
            fetch_bytes_max: 16 << 20,
            priority: 0,
            lease: None,
            stall_ticks: Some(40),
        }
    }

    /// Every problem at once, none if the configuration can be used.
    pub fn validate(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, field: &'static str, rule: &'static str| {
            if !ok {
                problems.push(ConfigProblem { field, rule });
            }
        };
        check(self.heartbeat_ticks >= 1, "heartbeat_ticks", "at least 1");
        check(
            u64::from(self.election_ticks) >= 3 * u64::from(self.heartbeat_ticks),
            "election_ticks",
            "at least 3 times heartbeat_ticks",
        );
        check(
            self.election_ticks <= 1 << 30,
            "election_ticks",
            "at most 2^30",
        );
        check(self.max_batch_bytes >= 16, "max_batch_bytes", "at least 16");
        check(
            self.max_batch_bytes <= 1 << 30,
            "max_batch_bytes",
            "at most 1 GiB",
        );
        check(
            self.inflight_messages_max >= 1,
            "inflight_messages_max",
            "at least 1",
        );
        check(self.reads_max >= 1, "reads_max", "at least 1");
        check(self.stall_ticks != Some(0), "stall_ticks", "at least 1");
        if let Some(lease) = self.lease_ticks() {
            let rule = "used with check_quorum, without which voters promise nothing";
            check(self.check_quorum, "lease", rule);
            let rule = "of so little drift that a lease outlasts two heartbeats";
            let two = 2 * u64::from(self.heartbeat_ticks);
            check(u64::from(lease) > two, "lease", rule);
        }
        problems
    }
}

/// A field and the rule it breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigProblem {
    /// The field.
    pub field: &'static str,
    /// What must hold.
    pub rule: &'static str,
}

impl core::fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} must be {}", self.field, self.rule)
    }
}
