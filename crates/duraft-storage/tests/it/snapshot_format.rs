//! Golden bytes of a snapshot file. `docs/snapshot-format.md` describes them; they were computed from
//! that description by other code. A change here is a change of the format.

use super::snapshot::{CHUNK, disk, membership, position, raw, read_all, store};
use duraft_core::{Digest, Index, LogId, Position, Snapshot, SnapshotFile, Term};
use std::io::Write;

const HEAD: &str = "44534e3101000000 0000000001000000 \
    612074657374277320636c7573746572 0500000000000000 \
    1817161514131211 0300000000000000 2827262524232221 \
    3837363534333231 000200002a000000 \
    01000300000001000000 0100000000000000 0200000000000000 0300000000000000 0900000000000000";
const HEAD_CHECKSUM: &str = "db7c0342";
const CHUNKS: [&str; 2] = ["0000000000020000c41516de", "01000000bc00000035608115"];
const FOOTER: &str = "4453453102000000 bc02000000000000 e0395c47d186fe8c 0000000000000000 \
    3684945444535431";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|digit| *digit != b' ').collect();
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("hexadecimal digits");
        u8::from_str_radix(text, 16).expect("hexadecimal digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn golden() -> (Snapshot, Vec<u8>, Vec<u8>) {
    let content: Vec<u8> = (0..700_usize).map(|i| (i * 7 + i / 256) as u8).collect();
    let mut file = bytes(HEAD);
    file.resize(4092, 0);
    file.extend(bytes(HEAD_CHECKSUM));
    for (head, data) in CHUNKS.iter().zip(content.chunks(CHUNK)) {
        file.extend(bytes(head));
        file.extend(data);
    }
    file.extend(bytes(FOOTER));
    let snapshot = Snapshot {
        position: Position {
            id: LogId {
                index: Index(0x1112_1314_1516_1718),
                term: Term(3),
            },
            digest: Digest(0x2122_2324_2526_2728),
        },
        membership: membership(),
        file: SnapshotFile {
            nonce: 0x3132_3334_3536_3738,
            bytes: 4860,
            digest: 0x8cfe_86d1_475c_39e0,
        },
    };
    (snapshot, file, content)
}

#[test]
fn golden_bytes() {
    let (snapshot, file, content) = golden();
    let disk = disk();
    let store = store(&disk);
    let nonce = snapshot.file.nonce;
    let mut writer = store
        .create(snapshot.position, &snapshot.membership, nonce)
        .expect("begun");
    writer.write_all(&content).expect("written");
    assert_eq!(writer.finish().expect("whole"), snapshot);
    assert_eq!(raw(&store, &snapshot), file);
}

#[test]
fn a_file_of_this_version_is_read_for_ever() {
    let (snapshot, file, content) = golden();
    let disk = disk();
    let store = store(&disk);
    let mut receiver = store.receive(&snapshot).expect("begun");
    receiver.write(0, &file).expect("good bytes");
    receiver.finish().expect("whole");
    assert_eq!(read_all(&store, &snapshot).expect("whole"), content);
}

#[test]
fn a_snapshot_of_the_largest_membership_is_read() {
    let disk = disk();
    let store = store(&disk);
    let members = crate::repair::largest();
    let mut writer = store.create(position(9), &members, 7).expect("begun");
    writer.write_all(b"content").expect("the disk works");
    let snapshot = writer.finish().expect("the disk works");
    assert_eq!(snapshot.membership, members);
    assert_eq!(read_all(&store, &snapshot).expect("whole"), b"content");
}
