//! A snapshot file, patched by any bytes at any places or made of any bytes: reading, showing,
//! receiving and resuming it gives an error or the snapshot, never a panic; and nothing passes for a
//! snapshot whose content it does not have.
//!
//! An input is a byte of choices and then patches: place (two bytes), length, bytes. Of the choices,
//! bit 0 unset makes all checksums right after patching, bit 1 takes the input as the whole file, bits
//! 2 to 4 choose the steps of the receiver.

use duraft_core::{Digest, GroupId, Index, LogId, Membership, NodeId, Position, Snapshot, Term};
use duraft_disk::{Disk, FaultDisk, FaultOptions};
use duraft_storage::{
    ClusterId, SnapshotError, SnapshotName, SnapshotOptions, SnapshotStore, fuzzing,
};
use std::cell::OnceCell;
use std::io::{Read, Write};
use std::sync::Arc;

const GROUP: GroupId = GroupId(3);
const CONTENT_BYTES: usize = 1800;

fn store(disk: &FaultDisk) -> SnapshotStore {
    let options = SnapshotOptions {
        chunk_bytes: 512,
        sync_bytes: 1024,
        ..Default::default()
    };
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    SnapshotStore::open_with(door, ClusterId([9; 16]), GROUP, options).expect("the disk works")
}

fn content() -> Vec<u8> {
    (0..CONTENT_BYTES)
        .map(|i| (i * 31 + i / 256) as u8)
        .collect()
}

struct Start {
    disk: FaultDisk,
    snapshot: Snapshot,
    bytes: Vec<u8>,
}

fn start() -> Start {
    let disk = FaultDisk::new(FaultOptions::default());
    let store = store(&disk);
    let id = LogId {
        index: Index(77),
        term: Term(5),
    };
    let members = Membership::new([1, 2, 3].map(NodeId), [NodeId(4)]).expect("valid");
    let position = Position {
        id,
        digest: Digest(0xABCD),
    };
    let mut writer = store.create(position, &members, 0x1234).expect("begun");
    writer.write_all(&content()).expect("written");
    let snapshot = writer.finish().expect("whole");
    let bytes = store
        .source(&snapshot)
        .and_then(|s| s.read(0, u32::MAX))
        .expect("readable");
    Start {
        bytes: bytes.to_vec(),
        disk,
        snapshot,
    }
}

fn patched(choices: u8, data: &[u8], bytes: &[u8]) -> Vec<u8> {
    if choices & 2 != 0 {
        return data.to_vec();
    }
    let mut file = bytes.to_vec();
    let mut program = data;
    while let [high, low, len, rest @ ..] = program {
        let patch = &rest[..usize::from(*len).min(rest.len())];
        program = &rest[patch.len()..];
        let at = usize::from(u16::from_be_bytes([*high, *low])) % (file.len() + 1);
        let end = (at + patch.len()).min(file.len());
        file[at..end].copy_from_slice(&patch[..end - at]);
    }
    file
}

fn read(store: &SnapshotStore, snapshot: &Snapshot) -> Result<Vec<u8>, ()> {
    let mut bytes = Vec::new();
    let mut reader = store.read(snapshot).map_err(|_| ())?;
    let result = reader.read_to_end(&mut bytes);
    result.map_err(|_| ())?;
    assert_eq!(bytes.len() as u64, reader.content_bytes());
    Ok(bytes)
}

/// Receives these bytes as this snapshot, in two sittings.
fn receive(
    announced: &Snapshot,
    bytes: &[u8],
    step: usize,
) -> Result<SnapshotStore, SnapshotError> {
    let disk = FaultDisk::new(FaultOptions {
        capacity_bytes: 1 << 20,
        ..Default::default()
    });
    let store = store(&disk);
    for upto in [bytes.len() / 2, bytes.len()] {
        let mut receiver = store.receive(announced)?;
        while (receiver.received() as usize) < upto {
            let at = receiver.received() as usize;
            receiver.write(at as u64, &bytes[at..upto.min(at + step)])?;
        }
        if upto == bytes.len() {
            receiver.finish()?;
        }
    }
    Ok(store)
}

/// Takes one input.
pub fn run(data: &[u8]) {
    thread_local! { static START: OnceCell<Start> = const { OnceCell::new() }; }
    let Some((choices, program)) = data.split_first() else {
        return;
    };
    START.with(|cell| {
        let start = cell.get_or_init(start);
        let mut file = patched(*choices, program, &start.bytes);
        if choices & 1 == 0 {
            fuzzing::reseal_snapshot(&mut file);
        }
        let disk = start.disk.fork();
        let store = store(&disk);
        let name = SnapshotName::of(&start.snapshot).to_string();
        let path = format!("snap/{:016x}/{name}", GROUP.0);
        disk.remove(&path).expect("there");
        let made = disk.create(&path).expect("made");
        made.write_at(&file, 0).expect("written");

        // Under its own identity: what was written, or an error.
        match read(&store, &start.snapshot) {
            Ok(bytes) => {
                assert_eq!(bytes, content());
                assert_eq!(file, start.bytes, "two files of one identity");
            }
            Err(()) => assert_ne!(file, start.bytes, "an untouched file is read"),
        }
        // Under the identity that it claims: all ways to look at it agree.
        let claimed = store.inspect(&name).map(|info| info.snapshot);
        let announced = claimed.as_ref().unwrap_or(&start.snapshot);
        let good = store.verify(announced).is_ok();
        assert_eq!(read(&store, announced).is_ok(), good);
        let step = 1 << (4 + (choices >> 2 & 7));
        match receive(announced, &file, step) {
            Ok(received) => {
                assert!(good, "received what cannot be read");
                let copy = received.source(announced).and_then(|s| s.read(0, u32::MAX));
                assert_eq!(copy.expect("whole"), file);
            }
            Err(_) => assert!(!good, "what can be read can be sent"),
        }
    });
}
