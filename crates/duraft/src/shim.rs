//! Stand-ins for duraft-storage's batch functions.
use bytes::Bytes;
use duraft_core::*;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchDamage {
    #[error("checksum")]
    Checksum,
    #[error("{0}")]
    Body(BodyError),
}

pub fn commands_body<'a>(
    commands: impl Iterator<Item = &'a [u8]> + Clone,
    codec: u16,
) -> Result<Body, BodyError> {
    let mut bytes = Vec::new();
    let mut end = 0u32;
    let mut count = 0;
    for c in commands.clone() {
        end += c.len() as u32;
        count += 1;
        bytes.extend_from_slice(&end.to_le_bytes());
    }
    for c in commands {
        bytes.extend_from_slice(c);
    }
    Ok(Body {
        kind: BatchKind::Commands,
        codec,
        count,
        checksum: crc32fast::hash(&bytes),
        bytes: Bytes::from(bytes),
    })
}

pub fn verify(batch: &Batch) -> Result<(), BatchDamage> {
    if crc32fast::hash(&batch.body) != batch.header.body_checksum {
        return Err(BatchDamage::Checksum);
    }
    check_count(batch.header.kind, batch.header.count).map_err(BatchDamage::Body)?;
    if batch.header.kind == BatchKind::Commands {
        Commands::parse(batch.body.clone(), batch.header.count).map_err(BatchDamage::Body)?;
    }
    Ok(())
}

pub fn encode_descriptor(h: &BatchHeader, _position: u32, d: &mut [u8; 64]) {
    d.fill(0);
    d[0] = 1;
    d[1] = h.kind.number();
    d[2..4].copy_from_slice(&h.codec.to_le_bytes());
    d[8..12].copy_from_slice(&h.count.to_le_bytes());
    d[12..16].copy_from_slice(&h.body_len.to_le_bytes());
    d[16..24].copy_from_slice(&h.group.0.to_le_bytes());
    d[24..32].copy_from_slice(&h.first.0.to_le_bytes());
    d[32..40].copy_from_slice(&h.term.0.to_le_bytes());
    d[48..52].copy_from_slice(&h.body_checksum.to_le_bytes());
    d[56..64].copy_from_slice(&h.digest.0.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&d[..40]);
    crc.update(&d[56..]);
    d[52..56].copy_from_slice(&crc.finalize().to_le_bytes());
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    #[error("checksum")]
    Checksum,
}

pub fn decode_descriptor(d: &[u8; 64]) -> Result<(BatchHeader, u32), DescriptorError> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&d[..40]);
    crc.update(&d[56..]);
    let u32_at = |i: usize| u32::from_le_bytes(d[i..i + 4].try_into().unwrap());
    let u64_at = |i: usize| u64::from_le_bytes(d[i..i + 8].try_into().unwrap());
    if crc.finalize() != u32_at(52) || d[0] != 1 {
        return Err(DescriptorError::Checksum);
    }
    let h = BatchHeader {
        kind: BatchKind::from_number(d[1]).ok_or(DescriptorError::Checksum)?,
        codec: u16::from_le_bytes([d[2], d[3]]),
        count: u32_at(8),
        body_len: u32_at(12),
        body_checksum: u32_at(48),
        group: GroupId(u64_at(16)),
        first: Index(u64_at(24)),
        term: Term(u64_at(32)),
        digest: Digest(u64_at(56)),
    };
    if h.count == 0 || h.first.0.checked_add(u64::from(h.count)).is_none() {
        return Err(DescriptorError::Checksum);
    }
    Ok((h, 0))
}
