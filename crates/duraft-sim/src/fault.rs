//! The kinds of trouble that a run can have: each can be switched off by itself, and each single
//! occurrence has a number, by which a run without it can be asked for.

use crate::config::{Clients, SimConfig};
use duraft_core::mix64;
use duraft_disk::SplitMix64;
use std::fmt;
use std::str::FromStr;

macro_rules! kinds {
    ($($(#[$doc:meta])+ $kind:ident = $name:literal,)+) => {
        /// A kind of trouble.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum FaultKind {
            $($(#[$doc])+ $kind,)+
        }

        impl FaultKind {
            /// All kinds.
            pub const ALL: &[FaultKind] = &[$(FaultKind::$kind,)+];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(FaultKind::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// Messages are lost.
    Loss = "loss",
    /// Messages come twice.
    Duplicate = "duplicate",
    /// Messages take long and overtake each other.
    Delay = "delay",
    /// Some links are slow.
    SlowLinks = "slow-links",
    /// The network is cut, in both directions or in one.
    Partition = "partition",
    /// Syncs take long.
    SlowDisk = "slow-disk",
    /// Now and then one takes a hundred times as long.
    Stall = "stall",
    /// The core hears late of a sync.
    LateReport = "late-report",
    /// Writes and syncs fail.
    DiskError = "disk-error",
    /// Disks are full for a while.
    NoSpace = "no-space",
    /// Nodes crash: between any two steps, in a disk operation, or after a message.
    Crash = "crash",
    /// Other nodes crash along with one.
    CrashTogether = "crash-together",
    /// A crash takes what was not synced.
    PowerLoss = "power-loss",
    /// All nodes crash at once.
    Blackout = "blackout",
    /// Processes stand still.
    Pause = "pause",
    /// Clocks run at different rates.
    ClockDrift = "clock-drift",
    /// Clocks jump ahead.
    ClockJump = "clock-jump",
    /// Completions of the disk come again, late, or in another life.
    StaleCompletion = "stale-completion",
    /// Disks rot while their node is down.
    Damage = "damage",
    /// Disks are lost whole.
    Wipe = "wipe",
    /// The membership changes.
    Membership = "membership",
    /// The leadership is moved.
    Handover = "handover",
    /// Snapshots are taken and the log is compacted.
    Snapshots = "snapshots",
    /// Clients read.
    Reads = "reads",
    /// Clients have sessions and send again.
    Sessions = "sessions",
    /// Limits are tiny.
    Limits = "limits",
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FaultKind {
    type Err = String;

    fn from_str(name: &str) -> Result<FaultKind, String> {
        let kind = FaultKind::ALL.iter().find(|kind| kind.name() == name);
        kind.copied().ok_or_else(|| {
            let names: Vec<&str> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
            format!("no kind of fault; there are: {}", names.join(", "))
        })
    }
}

impl SimConfig {
    /// The same run without one kind of trouble.
    #[must_use]
    pub fn without(mut self, kind: FaultKind) -> SimConfig {
        let calm = SimConfig::calm(self.seed);
        match kind {
            FaultKind::Loss => self.network.loss = 0,
            FaultKind::Duplicate => self.network.duplicate = 0,
            FaultKind::Delay => {
                self.network.delay_min = calm.network.delay_min;
                self.network.delay_max = calm.network.delay_max;
            }
            FaultKind::SlowLinks => (self.network.slow_max, self.network.late_max) = (0, 0),
            FaultKind::Partition => self.network.repartition = 0,
            FaultKind::SlowDisk => self.disk.sync_max = calm.disk.sync_max,
            FaultKind::Stall => self.disk.stall = 0,
            FaultKind::LateReport => self.disk.report_max = 0,
            FaultKind::DiskError => self.disk.failure = 0,
            FaultKind::NoSpace => self.disk.no_space = 0,
            FaultKind::Crash => self.crash = 0,
            FaultKind::CrashTogether => self.crash_together = 0,
            FaultKind::PowerLoss => self.power_loss = 0,
            FaultKind::Blackout => self.blackout = 0,
            FaultKind::Pause => self.pause = 0,
            FaultKind::ClockDrift => self.clock_drift_ppm = 0,
            FaultKind::ClockJump => self.clock_jump = 0,
            FaultKind::StaleCompletion => self.stale_completion = 0,
            FaultKind::Damage => self.damage = 0,
            FaultKind::Wipe => self.wipe = 0,
            FaultKind::Membership => self.clients.change = 0,
            FaultKind::Handover => self.clients.handover = 0,
            FaultKind::Snapshots => self.snapshot_bytes = None,
            FaultKind::Reads => self.clients.read = 0,
            FaultKind::Sessions => self.clients.sessions = 0,
            FaultKind::Limits => {
                let command_bytes_max = self.clients.command_bytes_max;
                self.clients = Clients {
                    command_bytes_max: command_bytes_max.min(calm.clients.command_bytes_max),
                    ..self.clients
                };
                self.driver = calm.driver;
                self.wal = duraft_storage::WalOptions {
                    policy: self.wal.policy,
                    ablation: self.wal.ablation,
                    ..calm.wal
                };
                self.core = duraft_core::Config {
                    election_ticks: self.core.election_ticks,
                    pre_vote: self.core.pre_vote,
                    check_quorum: self.core.check_quorum,
                    lease: self.core.lease,
                    trailing_bytes_max: self.core.trailing_bytes_max,
                    ..calm.core
                };
            }
        }
        self
    }
}

/// Where each kind of choice comes from: a stream of its own for each, so that leaving one out does
/// not change what the others draw.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    seed: u64,
    faults: Vec<SplitMix64>,
    /// Occurrences of trouble so far, left out ones included.
    pub(crate) drawn: u64,
    /// Delays of messages.
    pub(crate) network: SplitMix64,
    /// Delays of disks and threads.
    pub(crate) disk: SplitMix64,
    /// What clients want.
    pub(crate) clients: SplitMix64,
    /// Everything else.
    pub(crate) other: SplitMix64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        let stream = |number: u64| SplitMix64::new(mix64(mix64(seed) ^ mix64(number)));
        Dice {
            seed: mix64(mix64(seed) ^ mix64(4)),
            faults: (0..FaultKind::ALL.len() as u64)
                .map(|kind| stream(kind + 100))
                .collect(),
            drawn: 0,
            network: stream(1),
            disk: stream(2),
            clients: stream(3),
            other: stream(5),
        }
    }

    pub(crate) fn of(&mut self, kind: FaultKind) -> &mut SplitMix64 {
        &mut self.faults[kind as usize]
    }

    /// Choices for the trouble that was drawn last: what it looks like does not depend on what others
    /// before it looked like.
    pub(crate) fn shape(&self) -> SplitMix64 {
        SplitMix64::new(mix64(self.seed ^ mix64(self.drawn)))
    }
}

/// A number from `min` to `max`.
pub(crate) fn between(rng: &mut SplitMix64, min: u64, max: u64) -> u64 {
    min + rng.below(max.saturating_sub(min) + 1)
}

/// A place among `n`, at least one.
pub(crate) fn place(rng: &mut SplitMix64, n: usize) -> usize {
    usize::try_from(rng.below(n.max(1) as u64)).expect("below a usize")
}
