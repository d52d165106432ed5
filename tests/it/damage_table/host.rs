//! A node of the table: a real core on a real write-ahead log on a simulated disk. Everything the core
//! asks of its disk is done at once, so each write is a commit of its own.

use duraft_core::{
    Batch, Boot, Completion, Config, Envelope, Event, Fault, GroupId, Incarnation, Index, Input,
    Load, LoadError, Membership, NodeId, Output, Raft, RoleKind,
};
use duraft_disk::{Disk, FaultDisk};
use duraft_storage::{
    Ablation, ClusterId, Entropy, OnDamage, OpenError, ReadError, StoreIdentity, Submission, Wal,
    WalOptions,
};
use duraft_tests::planted;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

pub(super) const GROUP: GroupId = GroupId(7);

pub(super) fn membership() -> Membership {
    Membership::new([NodeId(1), NodeId(2), NodeId(3)], []).expect("usable")
}

fn identity(id: NodeId) -> StoreIdentity {
    StoreIdentity {
        cluster: ClusterId([7; 16]),
        node: id,
        max_batch_bytes: 512,
    }
}

thread_local! {
    static ABLATED: Cell<Option<Ablation>> = const { Cell::new(None) };
}

/// Does this with stores that are weakened so.
pub(super) fn ablated<R>(ablation: Ablation, act: impl FnOnce() -> R) -> R {
    ABLATED.set(Some(ablation));
    let result = act();
    ABLATED.set(None);
    result
}

fn options(policy: OnDamage) -> WalOptions {
    WalOptions {
        slot_bytes: 64 << 10,
        slots_ready_min: 2,
        slots_max: 64,
        // Everything is read back from the disk.
        cache_bytes_max: 0,
        policy,
        ablation: ABLATED.get(),
        ..WalOptions::default()
    }
}

fn entropy(seed: u64) -> Entropy {
    Entropy {
        seed,
        wallclock_ns: 0,
    }
}

/// A disk with a fresh store for this node.
pub(super) fn fresh_disk(id: NodeId) -> FaultDisk {
    let disk = FaultDisk::new(duraft_disk::FaultOptions::default());
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let groups = [(GROUP, membership())];
    duraft_storage::bootstrap(
        &door,
        &identity(id),
        &options(OnDamage::Refuse),
        entropy(id.0),
        &groups,
    )
    .expect("an empty disk");
    disk
}

/// See the module documentation.
pub(super) struct Host {
    pub(super) id: NodeId,
    pub(super) raft: Raft,
    wal: Wal,
    /// Recovery said that something is lost.
    pub(super) reported: bool,
    /// What the state machine was given, in order.
    pub(super) applied: Vec<Batch>,
    pub(super) halted: Option<Fault>,
    pub(super) healed: bool,
    /// Writes that healed something.
    pub(super) rejected: Option<String>,
}

impl Host {
    /// Opens the store and starts a core with what recovery found.
    pub(super) fn open(
        disk: &FaultDisk,
        id: NodeId,
        seed: u64,
        policy: OnDamage,
    ) -> Result<Host, OpenError> {
        let door: Arc<dyn Disk> = Arc::new(disk.clone());
        let (wal, mut recovered) =
            duraft_storage::open(door, &identity(id), options(policy), entropy(seed ^ id.0))?;
        let found = recovered.groups.remove(&GROUP).expect("the group is there");
        let damage = found.boot_damage();
        let reported = recovered.damage.is_some();
        let boot = Boot {
            incarnation: Incarnation(recovered.generation),
            hard_state: found.hard_state,
            start: found.start,
            batches: found.batches,
            membership: found.membership,
            memberships: found.memberships,
            snapshot: found.snapshot,
            applied: None,
            damage,
        };
        let mut config = Config::new(id, GROUP, seed);
        config.max_batch_bytes = 512;
        let mut raft = Raft::new(config, boot).expect("what recovery found can be started");
        if let Some(plant) = planted() {
            raft.plant(plant);
        }
        let mut preparer = wal.preparer();
        while preparer.turn().expect("the disk works") {}
        Ok(Host {
            id,
            raft,
            wal,
            reported,
            applied: Vec::new(),
            halted: None,
            healed: false,
            rejected: None,
        })
    }

    pub(super) fn leads(&self) -> bool {
        self.halted.is_none() && self.raft.role() == RoleKind::Leader
    }

    /// One input, and everything that follows from it but messages, which are returned.
    pub(super) fn step(&mut self, input: Input) -> Vec<Envelope> {
        let mut sent = Vec::new();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut out = Vec::new();
            self.raft.step(input, &mut out);
            for output in out {
                if let Output::Send(envelope) = output {
                    sent.push(envelope);
                } else {
                    inputs.extend(self.perform(output));
                }
            }
        }
        sent
    }

    fn perform(&mut self, output: Output) -> Option<Input> {
        let completion = match output {
            Output::Persist(write) => {
                let upto = write.seq;
                let submission = Submission {
                    group: GROUP,
                    write,
                };
                if let Err(error) = self.wal.commit(&[submission]) {
                    self.rejected = Some(error.to_string());
                    return Some(Input::Completed(Completion::WriteFailed));
                }
                Completion::Persisted { upto }
            }
            Output::Apply(batches) => {
                let upto = batches.last().map(|batch| batch.header.last())?;
                self.applied.extend(batches);
                Completion::Applied { upto }
            }
            Output::Load(load) => Completion::Loaded {
                load: load.id,
                result: self.read(&load),
            },
            Output::Changed(Event::Halted(fault)) => {
                self.halted = Some(fault);
                return None;
            }
            Output::Changed(Event::Healed) => {
                self.healed = true;
                return None;
            }
            Output::Changed(Event::Role { .. } | Event::Membership { .. })
            | Output::Respond(_)
            | Output::TakeSnapshot
            | Output::ReadReady { .. } => return None,
            Output::SendSnapshot { .. } | Output::InstallSnapshot(_) | Output::Send(_) => {
                unreachable!("nobody takes snapshots here, and messages are taken before")
            }
        };
        Some(Input::Completed(completion))
    }

    fn read(&self, load: &Load) -> Result<Vec<Batch>, LoadError> {
        let reader = self.wal.reader();
        let found = reader.read(GROUP, load.first, load.last, load.bytes_max);
        found.map_err(|error| match error {
            ReadError::Compacted { .. } => LoadError::Compacted,
            ReadError::Corrupt { .. } | ReadError::Missing(_) => LoadError::Corrupt,
            error @ (ReadError::UnknownGroup(_)
            | ReadError::PastEnd { .. }
            | ReadError::NotABoundary(_)
            | ReadError::Disk(_)
            | _) => panic!("n{}: {error}", self.id),
        })
    }

    /// The last commit is proven by a block of its own, as after a moment of idleness.
    pub(super) fn receipt(&mut self) {
        self.wal.receipt().expect("the disk works");
    }

    /// Entries given to the state machine, by index.
    pub(super) fn applied_to(&self) -> Index {
        self.applied
            .last()
            .map_or(Index(0), |batch| batch.header.last())
    }
}
