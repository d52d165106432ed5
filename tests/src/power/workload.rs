//! Lives of one log: appends, votes, truncations, snapshots with compaction, closes and restarts,
//! all drawn from a seed.

use bytes::Bytes;
use duraft_core::{
    Batch, BatchHeader, GroupId, HardState, Membership, NodeId, Position, Snapshot, SnapshotWrite,
    Term, Write, WriteSeq,
};
use duraft_disk::{Disk, SplitMix64};
use duraft_storage::{
    ClusterId, Entropy, OpenError, Recovered, SnapshotOptions, SnapshotStore, StoreIdentity,
    Submission, Wal, WalOptions, bootstrap, commands_body, open,
};
use std::io::Write as _;
use std::sync::Arc;

const GROUP: GroupId = GroupId(1);

/// What the log holds, in what recovery returns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Term and vote.
    pub hard_state: HardState,
    /// The boundary before the first batch.
    pub start: Position,
    /// The batches.
    pub batches: Vec<BatchHeader>,
    /// The latest snapshot.
    pub snapshot: Option<Snapshot>,
}

impl Held {
    /// What recovery found of the workload's group.
    pub fn of(recovered: &Recovered) -> Option<Held> {
        let group = recovered.groups.get(&GROUP)?;
        Some(Held {
            hard_state: group.hard_state,
            start: group.start,
            batches: group.batches.clone(),
            snapshot: group.snapshot.clone(),
        })
    }

    fn end(&self) -> Position {
        self.batches
            .last()
            .map_or(self.start, BatchHeader::position)
    }
}

/// A workload: the same seed does the same things.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Where all choices come from.
    pub seed: u64,
    /// How many commits it makes.
    pub commits: u64,
}

impl Workload {
    /// Runs on an empty disk until it is done or the disk fails. `acked` is called with what is held
    /// once it is durable: first with the empty log of the new store, then after each commit. Returns
    /// why it ended early.
    pub fn run(&self, disk: &Arc<dyn Disk>, acked: &mut dyn FnMut(&Held)) -> Result<(), String> {
        let voters = Membership::new([NodeId(1)], []).expect("one voter");
        bootstrap(
            disk,
            &identity(),
            &options(),
            self.entropy(0),
            &[(GROUP, voters)],
        )
        .map_err(|e| e.to_string())?;
        let (mut life, held) = Life::open(disk, self.entropy(1)).map_err(|e| e.to_string())?;
        let mut held = held.ok_or("the new store has no group")?;
        acked(&held);
        let mut rng = SplitMix64::new(self.seed);
        for lives in 2..=self.commits + 1 {
            let (write, after) = life.next_write(&mut rng, &held)?;
            life.commit(write)?;
            held = after;
            acked(&held);
            if let Some(snapshot) = &held.snapshot {
                life.files.retire(snapshot).map_err(|e| e.to_string())?;
            }
            match rng.below(12) {
                0 => life.wal.receipt().map_err(|e| e.to_string())?,
                1 => {
                    let mut preparer = life.wal.preparer();
                    while preparer.turn().map_err(|e| e.to_string())? {}
                }
                2 => {
                    if rng.below(2) == 0 {
                        life.wal.close().map_err(|e| e.to_string())?;
                    } else {
                        drop(life);
                    }
                    let (next, found) =
                        Life::open(disk, self.entropy(lives)).map_err(|e| e.to_string())?;
                    if found.as_ref() != Some(&held) {
                        return Err(format!("reopened: {found:?} instead of {held:?}"));
                    }
                    life = next;
                }
                _ => {}
            }
        }
        life.wal.close().map_err(|e| e.to_string())
    }

    fn entropy(&self, life: u64) -> Entropy {
        Entropy {
            seed: duraft_core::mix64(self.seed ^ (life << 32)),
            wallclock_ns: 1_000_000_000,
        }
    }

    /// Opens what is left on a disk, as a life that the workload has not had.
    pub fn reopen(&self, disk: &Arc<dyn Disk>) -> Result<Option<Held>, OpenError> {
        let (life, held) = Life::open(disk, self.entropy(u64::from(u32::MAX)))?;
        if let Some(snapshot) = held.as_ref().and_then(|held| held.snapshot.as_ref()) {
            life.files
                .verify(snapshot)
                .map_err(|_| OpenError::NoStore)?;
        }
        Ok(held)
    }
}

fn identity() -> StoreIdentity {
    StoreIdentity {
        cluster: ClusterId([9; 16]),
        node: NodeId(1),
        max_batch_bytes: 4096,
    }
}

fn options() -> WalOptions {
    WalOptions {
        slot_bytes: 64 << 10,
        slots_ready_min: 1,
        slots_max: 24,
        mark_every_commits: 4,
        ..WalOptions::default()
    }
}

struct Life {
    wal: Wal,
    files: SnapshotStore,
    written: WriteSeq,
}

impl Life {
    fn open(disk: &Arc<dyn Disk>, entropy: Entropy) -> Result<(Life, Option<Held>), OpenError> {
        let (wal, recovered) = open(disk.clone(), &identity(), options(), entropy)?;
        let held = Held::of(&recovered);
        let small = SnapshotOptions {
            chunk_bytes: 512,
            ..SnapshotOptions::default()
        };
        let files = SnapshotStore::open_with(disk.clone(), identity().cluster, GROUP, small)
            .and_then(|files| {
                let kept = held.as_ref().and_then(|held| held.snapshot.as_ref());
                files.reconcile(&kept.into_iter().collect::<Vec<_>>())?;
                Ok(files)
            })
            .map_err(|_| OpenError::NoStore)?;
        let life = Life {
            wal,
            files,
            written: WriteSeq(0),
        };
        Ok((life, held))
    }

    fn commit(&mut self, mut write: Write) -> Result<(), String> {
        self.written = self.written.next();
        write.seq = self.written;
        let group = GROUP;
        self.wal
            .commit(&[Submission { group, write }])
            .map_err(|e| e.to_string())
    }

    /// The next write, and what is held once it is durable. The file of a snapshot is made here.
    fn next_write(&self, rng: &mut SplitMix64, held: &Held) -> Result<(Write, Held), String> {
        let mut write = Write {
            seq: WriteSeq(0),
            hard_state: None,
            snapshot: None,
            truncate: None,
            append: Vec::new(),
            compact: None,
            healed: None,
        };
        let mut after = held.clone();
        match rng.below(16) {
            0..3 => {
                after.hard_state = HardState {
                    term: Term(held.hard_state.term.0 + 1),
                    vote: (rng.below(2) == 0).then_some(NodeId(1)),
                };
                write.hard_state = Some(after.hard_state);
            }
            3 if held.batches.len() > 4 => {
                let cut = held.batches.len() - 1 - at(rng.below(3));
                after.batches.truncate(cut);
                write.truncate = Some(after.end());
                after.hard_state.term = Term(held.hard_state.term.0 + 1);
                after.hard_state.vote = None;
                write.hard_state = Some(after.hard_state);
                write.append = vec![batch(rng, &after)?];
            }
            4 if held.batches.len() > 8 => {
                let covered = 1 + at(rng.below(held.batches.len() as u64 - 1));
                let position = held.batches[covered - 1].position();
                let snapshot = self.snapshot(rng, position)?;
                after.start = position;
                after.batches.drain(..covered);
                after.snapshot = Some(snapshot.clone());
                write.snapshot = Some(SnapshotWrite {
                    snapshot,
                    reset: false,
                });
                write.compact = Some(position);
            }
            _ => {
                for _ in 0..=rng.below(3) {
                    let next = batch(rng, &after)?;
                    after.batches.push(next.header);
                    write.append.push(next);
                }
                return Ok((write, after));
            }
        }
        after
            .batches
            .extend(write.append.iter().map(|batch| batch.header));
        Ok((write, after))
    }

    fn snapshot(&self, rng: &mut SplitMix64, position: Position) -> Result<Snapshot, String> {
        let voters = Membership::new([NodeId(1)], []).expect("one voter");
        let made = self.files.create(position, &voters, rng.next());
        let mut writer = made.map_err(|e| e.to_string())?;
        let content = vec![7; at(rng.below(2000))];
        writer.write_all(&content).map_err(|e| e.to_string())?;
        writer.finish().map_err(|e| e.to_string())
    }
}

fn batch(rng: &mut SplitMix64, held: &Held) -> Result<Batch, String> {
    let commands: Vec<Bytes> = (0..=rng.below(3))
        .map(|_| {
            Bytes::from(vec![
                u8::try_from(rng.below(255)).expect("below 255");
                at(rng.below(900))
            ])
        })
        .collect();
    let body = commands_body(commands.iter().map(|c| &c[..]), 0).map_err(|e| e.to_string())?;
    let end = held.end();
    let term = held.hard_state.term.max(end.term());
    body.seal(GROUP, &end, term).map_err(|e| e.to_string())
}

fn at(number: u64) -> usize {
    usize::try_from(number).expect("drawn small")
}
