//! A store with a history, patched by any bytes at any places: opening it gives an error or a log,
//! never a panic; what it gives can be read, written to and opened again without loss.
//!
//! An input is a byte of choices and then patches: slot, block, place in the block, length, bytes.
//! With an even first byte all checksums are made right after patching, so that what lies behind
//! them is reached too.

use duraft_core::{
    GroupId, HardState, Index, Membership, NodeId, Position, Snapshot, SnapshotFile, SnapshotWrite,
    Term, Write, WriteSeq,
};
use duraft_disk::{Disk, FaultDisk, FaultOptions};
use duraft_storage::{
    ClusterId, Entropy, OnDamage, OpenError, Recovered, StoreIdentity, Submission, Wal, WalOptions,
    bootstrap, commands_body, fuzzing, open,
};
use std::cell::OnceCell;
use std::sync::Arc;

const SLOT_BYTES: u64 = 24 << 10;
const GROUPS: [GroupId; 2] = [GroupId(1), GroupId(2)];

fn identity() -> StoreIdentity {
    StoreIdentity {
        cluster: ClusterId([7; 16]),
        node: NodeId(1),
        max_batch_bytes: 512,
    }
}

fn options(policy: OnDamage) -> WalOptions {
    WalOptions {
        slot_bytes: SLOT_BYTES,
        policy,
        ..WalOptions::default()
    }
}

fn entropy(seed: u64) -> Entropy {
    Entropy {
        seed,
        wallclock_ns: 0,
    }
}

/// What a write does beside appending.
#[derive(Clone, Copy)]
enum Also {
    Nothing,
    /// A snapshot of all before it, and a compaction.
    Take,
    /// A snapshot in the place of the log, before it.
    Install,
}

fn append(wal: &mut Wal, group: GroupId, seq: &mut u64, end: &mut Position, term: u64, also: Also) {
    let before = *end;
    if let Also::Install = also {
        end.id.index = end.id.index.next();
    }
    let at = *end;
    let snapshot = Snapshot {
        position: at,
        membership: Membership::new([NodeId(1)], [NodeId(2)]).expect("one voter"),
        file: SnapshotFile {
            nonce: *seq,
            bytes: 4200,
            digest: 7,
        },
    };
    let body = commands_body([&b"one"[..], &[*seq as u8; 90]].into_iter(), 0).expect("a body");
    let batch = body.seal(group, end, Term(term)).expect("a batch");
    *end = batch.header.position();
    *seq += 1;
    let write = Write {
        seq: WriteSeq(*seq),
        hard_state: Some(HardState {
            term: Term(term),
            vote: Some(NodeId(1)),
        }),
        snapshot: match also {
            Also::Nothing => None,
            Also::Take => Some(SnapshotWrite {
                snapshot,
                reset: false,
            }),
            Also::Install => Some(SnapshotWrite {
                snapshot,
                reset: true,
            }),
        },
        truncate: None,
        append: vec![batch],
        compact: if let Also::Take = also {
            Some(before)
        } else {
            None
        },
        healed: None,
    };
    wal.commit(&[Submission { group, write }])
        .expect("the disk works");
}

/// Three lives with rotations, two groups, snapshots taken and installed, a compaction and receipts.
fn history() -> FaultDisk {
    let mut disk = FaultDisk::new(FaultOptions::default());
    let member = Membership::new([NodeId(1)], []).expect("one voter");
    let groups = GROUPS.map(|group| (group, member.clone()));
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    bootstrap(
        &door,
        &identity(),
        &options(OnDamage::Refuse),
        entropy(1),
        &groups,
    )
    .expect("new");
    let mut ends = [Position::START; 2];
    for life in 0..3 {
        let door: Arc<dyn Disk> = Arc::new(disk.clone());
        let (mut wal, _) = open(
            door,
            &identity(),
            options(OnDamage::Refuse),
            entropy(10 + life),
        )
        .expect("opens");
        let mut seqs = [0; 2];
        for i in 0..5 {
            let g = (i % 2) as usize;
            let also = match (life, i) {
                (1, 2) => Also::Take,
                (1, 3) | (2, 0) => Also::Install,
                _ => Also::Nothing,
            };
            append(
                &mut wal,
                GROUPS[g],
                &mut seqs[g],
                &mut ends[g],
                1 + life,
                also,
            );
            if i == 3 {
                wal.receipt().expect("the disk works");
            }
        }
        drop(wal);
        disk = disk.process_crash();
    }
    disk
}

fn patch(disk: &FaultDisk, choices: u8, mut program: &[u8]) -> bool {
    let slots = disk.list("wal").expect("listed");
    let mut patched = false;
    while let [slot, block, at_high, at_low, len, rest @ ..] = program {
        let bytes = &rest[..usize::from(*len).min(rest.len())];
        program = &rest[bytes.len()..];
        let name = format!("wal/{}", slots[usize::from(*slot) % slots.len()]);
        let within = u64::from(u16::from_be_bytes([*at_high, *at_low]) % 4096);
        let at = u64::from(*block) % (SLOT_BYTES / 4096) * 4096 + within;
        let bytes = &bytes[..bytes.len().min((SLOT_BYTES - at) as usize)];
        let file = disk.open(&name).expect("a slot");
        file.write_at(bytes, at).expect("written");
        patched = true;
    }
    if patched && choices.is_multiple_of(2) {
        let mut store = vec![0; 4096];
        disk.open("STORE")
            .and_then(|file| file.read_at(&mut store, 0))
            .expect("read");
        let id = fuzzing::store_id(&store).expect("the STORE file is whole");
        for slot in slots {
            let file = disk.open(&format!("wal/{slot}")).expect("a slot");
            let mut image = vec![0; SLOT_BYTES as usize];
            let read = file.read_at(&mut image, 0).expect("read");
            fuzzing::reseal(&id, &mut image[..read]);
            file.write_at(&image[..read], 0).expect("written");
        }
    }
    patched
}

/// The policy that accepts what a first open says is lost.
fn accepting(disk: &FaultDisk) -> OnDamage {
    let door: Arc<dyn Disk> = Arc::new(disk.fork());
    let opened = open(
        door,
        &identity(),
        options(OnDamage::RepairFromPeers),
        entropy(98),
    );
    let Ok((_, recovered)) = opened else {
        return OnDamage::RepairFromPeers;
    };
    let damaged = recovered
        .groups
        .iter()
        .find_map(|(id, group)| Some((id, group.damage.as_ref()?)));
    match damaged {
        Some((group, damage)) => OnDamage::AcceptLoss {
            group: *group,
            range: damage.loss,
        },
        None => OnDamage::Refuse,
    }
}

type Shape = Vec<(GroupId, HardState, Position, Position)>;

fn shape(recovered: &Recovered) -> Shape {
    let mut shape = Vec::new();
    for (id, group) in &recovered.groups {
        let end = group
            .batches
            .last()
            .map_or(group.start, |header| header.position());
        shape.push((*id, group.hard_state, group.start, end));
    }
    shape
}

/// Takes one input.
pub fn run(data: &[u8]) {
    thread_local! { static HISTORY: OnceCell<FaultDisk> = const { OnceCell::new() }; }
    let disk = HISTORY.with(|cell| cell.get_or_init(history).fork());
    let Some((choices, program)) = data.split_first() else {
        return;
    };
    let patched = patch(&disk, *choices, program);
    let policy = match choices >> 1 & 3 {
        0 | 1 => OnDamage::Refuse,
        2 => OnDamage::RepairFromPeers,
        _ => accepting(&disk),
    };
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let (mut wal, recovered) = match open(door, &identity(), options(policy), entropy(99)) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(patched, "an untouched store opens: {error}");
            return;
        }
    };
    let reader = wal.reader();
    for (id, group) in &recovered.groups {
        if let Some(first) = group.batches.first() {
            let read = reader.read(*id, first.first, Index(u64::MAX), u64::MAX);
            if recovered.damage.is_none() {
                let read = read.expect("what recovery found can be read");
                assert_eq!(read.len(), group.batches.len());
            }
        }
    }
    let before = shape(&recovered);
    wal.receipt().expect("the disk works");
    drop((wal, reader));
    let door: Arc<dyn Disk> = Arc::new(disk.process_crash());
    // One loss at a time is accepted: another group may be damaged still.
    let policy = match policy {
        OnDamage::AcceptLoss { .. } => OnDamage::RepairFromPeers,
        same @ (OnDamage::Refuse | OnDamage::RepairFromPeers) => same,
    };
    match open(door, &identity(), options(policy), entropy(100)) {
        Ok((_, again)) => {
            assert_eq!(
                shape(&again),
                before,
                "the second open finds what the first found"
            );
            assert_eq!(
                again.damage.is_none(),
                recovered.damage.is_none(),
                "damage is not forgotten"
            );
        }
        // A number of an open next to the last leaves one open. Only a forged checksum tells of one.
        Err(OpenError::CountersExhausted) if choices.is_multiple_of(2) => (),
        Err(error) => panic!("what was opened once opens again: {error}"),
    }
}
