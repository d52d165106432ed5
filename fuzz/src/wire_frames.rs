//! Any bytes as a frame: an error or a message, never a panic; and what decodes encodes back to the
//! very same bytes.
//!
//! With an even first byte the checksums of the input are made right before decoding, so that what
//! lies behind them is reached too.

use duraft::wire::{self, FrameBuffer};

const HEADER: usize = wire::HEADER_BYTES;
const SEALED_APPEND: usize = wire::APPEND_OVERHEAD_BYTES as usize - HEADER;
/// As in an append, without the commit index.
const SEALED_FETCHED: usize = SEALED_APPEND - 8;
const SEALED_PIECE: usize = wire::PIECE_OVERHEAD_BYTES as usize - HEADER;
const DESCRIPTOR: usize = 64;

/// Where a descriptor keeps the length of its body and the checksums of body and descriptor.
const BODY_LEN: std::ops::Range<usize> = 12..16;
const BODY_CHECKSUM: std::ops::Range<usize> = 48..52;
const DESCRIPTOR_CHECKSUM: std::ops::Range<usize> = 60..64;
/// The types of the frames that carry batches.
const APPEND: u8 = 20;
const FETCHED: u8 = 28;
/// The type of the frame that carries bytes of a snapshot's file.
const PIECE: u8 = 41;

fn u32_at(bytes: &[u8], at: std::ops::Range<usize>) -> u32 {
    u32::from_le_bytes(bytes[at].try_into().expect("four bytes"))
}

/// Gives the frame a header that fits its length and checksums that fit its content.
fn seal(frame: &mut [u8]) {
    if frame.len() < HEADER {
        return;
    }
    frame[..4].copy_from_slice(&wire::MAGIC);
    frame[4] = wire::FRAME_VERSION;
    frame[6..8].fill(0);
    let body_len = (frame.len() - HEADER) as u32;
    frame[8..12].copy_from_slice(&body_len.to_le_bytes());
    let (head, body) = frame.split_at_mut(HEADER);
    let carries = match head[5] {
        APPEND => Some(SEALED_APPEND),
        FETCHED => Some(SEALED_FETCHED),
        _ => None,
    };
    if let Some(len) = carries.filter(|len| body.len() >= *len) {
        let (sealed, batches) = body.split_at_mut(len);
        let count = u64::from_le_bytes(sealed[len - 8..].try_into().expect("eight"));
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if let Some(table) = count
            .checked_mul(DESCRIPTOR)
            .filter(|len| *len <= batches.len())
        {
            let (descriptors, bodies) = batches.split_at_mut(table);
            let mut rest = &*bodies;
            for descriptor in descriptors.chunks_mut(DESCRIPTOR) {
                let len = (u32_at(descriptor, BODY_LEN) as usize).min(rest.len());
                let (body, after) = rest.split_at(len);
                rest = after;
                descriptor[BODY_CHECKSUM].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
                let sum = duraft_storage::descriptor_checksum(
                    (&*descriptor).try_into().expect("64 bytes"),
                );
                descriptor[DESCRIPTOR_CHECKSUM].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
    let piece = (head[5] == PIECE).then_some(SEALED_PIECE);
    let sealed = carries.or(piece).unwrap_or(usize::MAX).min(body.len());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[..12]);
    crc.update(&body[..sealed]);
    head[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
}

/// Takes one input.
pub fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let mut frame = rest.to_vec();
    if choice % 2 == 0 {
        seal(&mut frame);
    }
    // The length check that readers make before they allocate.
    let _ = wire::frame_bytes(&frame, 1 << 20);
    if let Ok(decoded) = wire::decode(&frame) {
        let mut again = FrameBuffer::default();
        again
            .push(&decoded, u64::from(u32::MAX))
            .expect("what was decoded can be encoded");
        assert_eq!(
            again.to_bytes(),
            frame,
            "decoding and encoding are each other's inverse"
        );
    }
}
