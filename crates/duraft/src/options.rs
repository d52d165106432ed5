//! How a node is set up, and the rules its settings must keep together.

use crate::clock::COUNTS_SUSPEND;
use crate::driver::DriverOptions;
use crate::sessions::TAGGED_CODEC;
use crate::transfer::TransferOptions;
#[cfg(feature = "tls")]
use crate::transport::Security;
use crate::transport::{PLAINTEXT_RULE, TcpOptions, Transport};
use crate::wire::{APPEND_OVERHEAD_BYTES, PIECE_OVERHEAD_BYTES};
use duraft_core::{Config, DESCRIPTOR_BYTES, GroupId, Membership, MembershipProblem, NodeId};
use duraft_disk::{Disk, DiskError, RealDisk};
use duraft_storage::{ClusterId, SnapshotOptions, StoreIdentity, WalOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Everything a node needs to be told. Plain fields; [`NodeOptions::validate`] checks them together.
#[derive(Clone)]
pub struct NodeOptions {
    /// Identity of the cluster, the same on all its nodes.
    pub cluster: ClusterId,
    /// The core: this node's id, timeouts in ticks, limits.
    pub core: Config,
    /// The folder of the log.
    pub disk: Arc<dyn Disk>,
    /// The log.
    pub wal: WalOptions,
    /// Take a snapshot when so many bytes of log were applied since the last one; `None`: only when
    /// [`Node::snapshot`](crate::Node::snapshot) asks for it. The log and the memory it takes stay
    /// bounded only where snapshots are taken.
    pub snapshot_log_bytes: Option<u64>,
    /// The files of snapshots.
    pub snapshots: SnapshotOptions,
    /// How snapshots move between nodes.
    pub transfer: TransferOptions,
    /// How peers are reached.
    pub network: Network,
    /// Length of a tick. An election times out after 10 to 20 of them with the default `core`.
    pub tick: Duration,
    /// Number stored with each batch to tell how its commands are encoded; never read here.
    pub codec: u16,
    /// Most commands accepted and not answered; more are `Busy`.
    pub commands_max: usize,
    /// Most bytes of them; one command always fits.
    pub command_bytes_max: usize,
    /// Most batches of this node in the log and not applied; commands beyond are packed together.
    pub batches_in_flight_max: usize,
    /// Longest wait of a proposal made without a time of its own, or none for ever.
    pub propose_timeout: Option<Duration>,
    /// Ticks that a command waits for a leader to be known before it is rejected.
    pub leaderless_ticks_max: u64,
    /// Most bytes of messages that wait for the raft thread; readers of sockets wait beyond.
    pub inbox_bytes_max: u64,
    /// Events kept for slow subscribers.
    pub events_max: usize,
    /// How often what the node measures goes to the recorder of the `metrics` facade, where the
    /// feature of that name is on; `None`: never.
    pub metrics_interval: Option<Duration>,
}

/// How a node reaches its peers.
#[derive(Clone)]
pub enum Network {
    /// No peers: a cluster of one.
    None,
    /// TCP.
    Tcp {
        /// Address to listen on, as `host:port`.
        listen: String,
        /// Peers and limits.
        options: TcpOptions,
    },
    /// The caller's own transport, not started yet.
    Custom(Arc<dyn Transport>),
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::None => f.write_str("None"),
            Network::Tcp { listen, options } => f
                .debug_struct("Tcp")
                .field("listen", listen)
                .field("options", options)
                .finish(),
            Network::Custom(_) => f.write_str("Custom"),
        }
    }
}

/// A field and the rule it breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OptionProblem {
    /// The field, as a path from [`NodeOptions`].
    pub field: String,
    /// What must hold.
    pub rule: String,
}

impl fmt::Display for OptionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.field, self.rule)
    }
}

impl NodeOptions {
    /// The default settings for a node whose log lies on `disk`.
    pub fn new(id: NodeId, cluster: ClusterId, disk: Arc<dyn Disk>) -> NodeOptions {
        let driver = DriverOptions::default();
        NodeOptions {
            cluster,
            core: Config::new(id, GroupId(1), 0),
            disk,
            wal: WalOptions::default(),
            snapshot_log_bytes: Some(256 << 20),
            snapshots: SnapshotOptions::default(),
            transfer: TransferOptions::default(),
            network: Network::None,
            tick: Duration::from_millis(25),
            codec: 0,
            commands_max: driver.commands_max,
            command_bytes_max: 64 << 20,
            batches_in_flight_max: driver.batches_in_flight_max,
            propose_timeout: Some(Duration::from_secs(30)),
            leaderless_ticks_max: driver.leaderless_ticks_max,
            inbox_bytes_max: 32 << 20,
            events_max: 1024,
            metrics_interval: Some(Duration::from_secs(1)),
        }
    }

    /// The default settings for a node whose log lies in this folder, which is made where missing.
    pub fn in_dir(
        id: NodeId,
        cluster: ClusterId,
        dir: impl AsRef<Path>,
    ) -> Result<NodeOptions, DiskError> {
        let disk = RealDisk::create(dir.as_ref())?;
        Ok(NodeOptions::new(id, cluster, Arc::new(disk)))
    }

    /// With these peers, this node among them, over TCP: it listens at its own address, and the others
    /// reach it there. What else can be set is in [`NodeOptions::network`] afterwards.
    pub fn with_peers<A: Into<String>>(
        mut self,
        peers: impl IntoIterator<Item = (NodeId, A)>,
    ) -> NodeOptions {
        let peers: BTreeMap<NodeId, String> =
            peers.into_iter().map(|(id, at)| (id, at.into())).collect();
        self.network = Network::Tcp {
            // Where it is missing, validation says so.
            listen: peers.get(&self.core.id).cloned().unwrap_or_default(),
            options: TcpOptions::new(peers),
        };
        self
    }

    /// The membership in which this node and all its TCP peers vote: the first one of a new cluster.
    pub fn all_voters(&self) -> Result<Membership, MembershipProblem> {
        let mut voters = BTreeSet::from([self.core.id]);
        if let Network::Tcp { options, .. } = &self.network {
            voters.extend(options.peers.keys());
        }
        Membership::new(voters, [])
    }

    /// Every problem at once, none if a node can be started with these options.
    pub fn validate(&self) -> Vec<OptionProblem> {
        let mut problems: Vec<OptionProblem> = Vec::new();
        for problem in self.core.validate() {
            problems.push(problem_of(&format!("core.{}", problem.field), problem.rule));
        }
        for problem in self.wal.validate_for(&self.identity(), 1) {
            problems.push(problem_of(&format!("wal.{}", problem.field), problem.rule));
        }
        for problem in self.snapshots.validate() {
            let field = format!("snapshots.{}", problem.field);
            problems.push(problem_of(&field, problem.rule));
        }
        for (field, rule) in self.transfer.validate() {
            problems.push(problem_of(&format!("transfer.{field}"), rule));
        }
        let mut check = |ok: bool, field: &str, rule: &str| {
            if !ok {
                problems.push(problem_of(field, rule));
            }
        };
        check(
            self.tick >= Duration::from_millis(1),
            "tick",
            "at least 1 ms",
        );
        check(self.commands_max >= 1, "commands_max", "at least 1");
        check(
            self.batches_in_flight_max >= 1,
            "batches_in_flight_max",
            "at least 1",
        );
        check(self.events_max >= 1, "events_max", "at least 1");
        check(
            self.metrics_interval.is_none_or(|every| !every.is_zero()),
            "metrics_interval",
            "above zero, or none",
        );
        check(self.codec < TAGGED_CODEC, "codec", "below 32768");
        check(
            self.core.lease.is_none() || COUNTS_SUSPEND,
            "core.lease",
            "none on a system without a clock that counts suspend",
        );
        let append = self.largest_append();
        check(
            // Padding to 8 bytes costs a batch at most an eighth of its 64-byte descriptor.
            self.wal.write_bytes_max(1) >= append + append / 8 + 4 * DESCRIPTOR_BYTES,
            "wal.slot_bytes",
            "large enough for one write of core.append_bytes_max",
        );
        if let Network::Tcp { listen, options } = &self.network {
            check(
                is_host_and_port(listen),
                "network.listen",
                "host:port; where peers are named, this node's own entry must be among them",
            );
            check(
                options.peers.values().all(|peer| is_host_and_port(peer)),
                "network.options.peers",
                "host:port each",
            );
            check(
                options.security.allows_named(listen),
                "network.listen",
                PLAINTEXT_RULE,
            );
            let near = |peer: &String| options.security.allows_named(peer);
            check(
                options.peers.values().all(near),
                "network.options.peers",
                PLAINTEXT_RULE,
            );
            #[cfg(feature = "tls")]
            if let Security::Tls(tls) = &options.security
                && let Err(refusal) = tls.check_own(self.cluster, self.core.id)
            {
                let rule = format!("with a certificate for this node and cluster: {refusal}");
                check(false, "network.options.security", &rule);
            }
            check_tcp(options, append, &mut check);
            let piece = PIECE_OVERHEAD_BYTES + u64::from(self.transfer.piece_bytes);
            check(
                options.frame_bytes_max >= piece,
                "network.options.frame_bytes_max",
                "at least transfer.piece_bytes, plus frame overhead",
            );
            check(
                options.transfer_queue_bytes_max >= self.transfer.window_bytes,
                "network.options.transfer_queue_bytes_max",
                "at least transfer.window_bytes",
            );
        }
        problems
    }

    /// Who the store belongs to.
    pub(crate) fn identity(&self) -> StoreIdentity {
        StoreIdentity {
            cluster: self.cluster,
            node: self.core.id,
            max_batch_bytes: self.core.max_batch_bytes,
        }
    }

    pub(crate) fn driver(&self) -> DriverOptions {
        DriverOptions {
            max_batch_bytes: self.core.max_batch_bytes,
            codec: self.codec,
            commands_max: self.commands_max,
            batches_in_flight_max: self.batches_in_flight_max,
            leaderless_ticks_max: self.leaderless_ticks_max,
            ticks_per_turn_max: u64::from(self.core.heartbeat_ticks),
            lease: self
                .core
                .lease
                .map(|lease| self.lease_time(lease.drift_ppm)),
        }
    }

    /// How long no voter of a heartbeat round can elect anybody else, counted from its sending
    /// (RULES.md 26).
    ///
    /// A voter that answered refuses to vote until its own clock has counted `election_ticks` ticks
    /// since. Up to a turn's worth of them may have passed before it took the heartbeat in, and the
    /// next may be about to pass; the rest takes real time, in which this node's clock may have run
    /// faster by `drift_ppm`.
    fn lease_time(&self, drift_ppm: u32) -> Duration {
        let lost = self.core.heartbeat_ticks.saturating_add(1);
        let ticks = self.core.election_ticks.saturating_sub(lost);
        let nanos = self.tick.as_nanos() * u128::from(ticks);
        let sure = nanos * 1_000_000u128.saturating_sub(u128::from(drift_ppm)) / 1_000_000;
        Duration::from_nanos(u64::try_from(sure).unwrap_or(u64::MAX))
    }

    /// Bytes of the batches of the largest append: whatever the limit, one batch always fits.
    pub(crate) fn largest_append(&self) -> u64 {
        let one_batch = DESCRIPTOR_BYTES + u64::from(self.core.max_batch_bytes);
        self.core.append_bytes_max.max(one_batch)
    }
}

impl fmt::Debug for NodeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeOptions")
            .field("cluster", &self.cluster)
            .field("core", &self.core)
            .field("wal", &self.wal)
            .field("network", &self.network)
            .field("tick", &self.tick)
            .finish_non_exhaustive()
    }
}

fn problem_of(field: &str, rule: &str) -> OptionProblem {
    OptionProblem {
        field: field.to_string(),
        rule: rule.to_string(),
    }
}

/// Looks like an address; whether its host has one is known when it is used.
fn is_host_and_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// The rules of the TCP transport, given the bytes of the largest append.
fn check_tcp(options: &TcpOptions, append: u64, check: &mut dyn FnMut(bool, &str, &str)) {
    check(
        options.frame_bytes_max >= append + APPEND_OVERHEAD_BYTES,
        "network.options.frame_bytes_max",
        "at least the larger of core.append_bytes_max and one batch, plus frame overhead",
    );
    check(
        options.frame_bytes_max <= u64::from(u32::MAX),
        "network.options.frame_bytes_max",
        "below 4 GiB",
    );
    check(
        options.bulk_queue_bytes_max >= options.frame_bytes_max,
        "network.options.bulk_queue_bytes_max",
        "at least frame_bytes_max",
    );
    check(
        options.control_queue_max >= 1,
        "network.options.control_queue_max",
        "at least 1",
    );
    check(
        !options.backoff_min.is_zero() && options.backoff_min <= options.backoff_max,
        "network.options.backoff_min",
        "above zero and at most backoff_max",
    );
    check(
        !options.patience.is_zero(),
        "network.options.patience",
        "above zero",
    );
    check(
        options.inbound_max >= 2 * options.peers.len(),
        "network.options.inbound_max",
        "at least two per peer",
    );
}
