//! A state machine whose snapshot is as large as one likes, and which itself holds nothing: the
//! content is made when it is written, and checked and forgotten when it is read.

use bytes::Bytes;
use duraft::{ApplyContext, SnapshotWork, StateMachine};
use duraft_core::mix64;
use std::io::{self, Read};

const PIECE_BYTES: usize = 64 << 10;

/// See the module documentation.
pub(super) struct Stream {
    pub(super) bytes: u64,
}

/// The content, one piece after another.
struct Content {
    word: u64,
    left: u64,
}

impl Content {
    fn new(bytes: u64) -> Content {
        Content {
            word: bytes,
            left: bytes,
        }
    }

    /// Fills the front of `piece`; how much of it, 0 at the end.
    fn next(&mut self, piece: &mut [u8]) -> usize {
        let len = self.left.min(piece.len() as u64);
        let len = usize::try_from(len).expect("at most the piece's length");
        for place in piece[..len].chunks_mut(8) {
            self.word = mix64(self.word);
            place.copy_from_slice(&self.word.to_le_bytes()[..place.len()]);
        }
        self.left -= len as u64;
        len
    }
}

impl StateMachine for Stream {
    fn apply(&mut self, _context: ApplyContext, _command: &[u8]) -> Bytes {
        Bytes::new()
    }

    fn snapshot(&self) -> SnapshotWork {
        let mut content = Content::new(self.bytes);
        Box::new(move |out| {
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                match content.next(&mut piece) {
                    0 => return Ok(()),
                    len => out.write_all(&piece[..len])?,
                }
            }
        })
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut content = Content::new(self.bytes);
        let (mut piece, mut found) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
        loop {
            let len = content.next(&mut piece);
            if len == 0 {
                return Ok(());
            }
            source.read_exact(&mut found[..len])?;
            if found[..len] != piece[..len] {
                return Err(io::Error::other("another content was read"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_knows_its_own_content_and_no_other() {
        let mut content = Vec::new();
        Stream { bytes: 200_003 }.snapshot()(&mut content).unwrap();
        assert_eq!(content.len(), 200_003);
        let mut other = Stream { bytes: 200_003 };
        other.restore(&mut &content[..]).unwrap();
        content[150_000] ^= 1;
        other.restore(&mut &content[..]).unwrap_err();
    }
}
