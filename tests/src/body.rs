//! Bodies of batches: made from text, read back as text.

use bytes::Bytes;
use duraft_core::{Batch, BatchKind, Body, Commands};

/// CRC-32/IEEE, bit by bit: a second implementation, slow and obvious.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc >>= 1;
            if low == 1 {
                crc ^= 0xEDB8_8320;
            }
        }
    }
    !crc
}

/// A batch body of these commands.
pub fn commands_body<T: AsRef<[u8]>>(commands: &[T]) -> Body {
    let mut table = Vec::new();
    let mut data = Vec::new();
    for command in commands {
        data.extend_from_slice(command.as_ref());
        let end = u32::try_from(data.len()).expect("test bodies are small");
        table.extend_from_slice(&end.to_le_bytes());
    }
    table.extend_from_slice(&data);
    Body {
        kind: BatchKind::Commands,
        codec: 0,
        count: u32::try_from(commands.len()).expect("test bodies are small"),
        checksum: crc32(&table),
        bytes: Bytes::from(table),
    }
}

/// A batch body of one command.
pub fn command_body(command: &str) -> Body {
    commands_body(&[command])
}

/// The user commands of a batch as text; none for a batch of another kind.
pub fn commands_of(batch: &Batch) -> Vec<String> {
    match batch.header.kind {
        BatchKind::Commands => Commands::parse(batch.body.clone(), batch.header.count)
            .expect("bodies made by this rig parse")
            .iter()
            .map(|command| String::from_utf8_lossy(&command).into_owned())
            .collect(),
        BatchKind::Membership | BatchKind::Noop => Vec::new(),
    }
}
