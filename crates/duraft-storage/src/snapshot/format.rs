//! The bytes of a snapshot file. Written down once more in `docs/snapshot-format.md`; a golden test
//! holds the two together.
//!
//! Nothing in the file differs between nodes: a copy on another node is the same bytes and has the
//! same identity. So no checksum is seeded with a store; the cluster stands in the header. What binds
//! a chunk to its file is the nonce, which goes into the chunk's checksum before the data.

use super::error::SnapshotPart;
use crate::format::{CHECKSUM_KIND, FEATURES_KNOWN, FORMAT_MAJOR, FORMAT_MINOR, FormatError};
use crate::options::ClusterId;
use byteorder::{ByteOrder, LittleEndian as LE};
use crc32fast::Hasher;
use duraft_core::{
    Digest, GroupId, Index, LogId, MEMBERSHIP_BYTES_MAX, Membership, Position, SnapshotFile, Term,
    mix64,
};

/// Bytes of the header.
pub const SNAPSHOT_HEADER_BYTES: usize = 4096;
/// Bytes before the data of each chunk.
pub const SNAPSHOT_CHUNK_HEAD_BYTES: usize = 12;
/// Bytes of the footer.
pub const SNAPSHOT_FOOTER_BYTES: usize = 40;
/// Smallest chunk.
pub const SNAPSHOT_CHUNK_BYTES_MIN: u32 = 512;
/// Largest chunk.
pub const SNAPSHOT_CHUNK_BYTES_MAX: u32 = 1 << 20;

/// Bytes of a file without content.
pub(super) const FILE_BYTES_MIN: u64 = (SNAPSHOT_HEADER_BYTES + SNAPSHOT_FOOTER_BYTES) as u64;

const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"DSN1");
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"DSE1");
const TRAILER_MAGIC: u32 = u32::from_le_bytes(*b"DST1");
/// Where the header's checksum stands, in every version.
const HEADER_CHECKSUM_AT: usize = SNAPSHOT_HEADER_BYTES - 4;
const MEMBERSHIP_AT: usize = 80;
const _: () = assert!(MEMBERSHIP_AT + MEMBERSHIP_BYTES_MAX <= HEADER_CHECKSUM_AT);

/// The first 4 KiB: whose snapshot this is, of what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) cluster: ClusterId,
    pub(super) group: GroupId,
    pub(super) position: Position,
    pub(super) nonce: u64,
    pub(super) chunk_bytes: u32,
    pub(super) membership: Membership,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut b = vec![0; SNAPSHOT_HEADER_BYTES];
        LE::write_u32(&mut b[0..], HEADER_MAGIC);
        LE::write_u16(&mut b[4..], FORMAT_MAJOR);
        LE::write_u16(&mut b[6..], FORMAT_MINOR);
        LE::write_u32(&mut b[8..], FEATURES_KNOWN);
        LE::write_u16(&mut b[12..], CHECKSUM_KIND);
        b[16..32].copy_from_slice(&self.cluster.0);
        LE::write_u64(&mut b[32..], self.group.0);
        LE::write_u64(&mut b[40..], self.position.index().0);
        LE::write_u64(&mut b[48..], self.position.term().0);
        LE::write_u64(&mut b[56..], self.position.digest.0);
        LE::write_u64(&mut b[64..], self.nonce);
        LE::write_u32(&mut b[72..], self.chunk_bytes);
        let membership = self.membership.encode();
        let len = u32::try_from(membership.len()).expect("at most MEMBERSHIP_BYTES_MAX");
        LE::write_u32(&mut b[76..], len);
        b[MEMBERSHIP_AT..MEMBERSHIP_AT + membership.len()].copy_from_slice(&membership);
        let sum = crc32fast::hash(&b[..HEADER_CHECKSUM_AT]);
        LE::write_u32(&mut b[HEADER_CHECKSUM_AT..], sum);
        b
    }

    /// The checksum is checked before the version, so a damaged file is not taken for a newer one.
    pub(super) fn decode(b: &[u8]) -> Result<Header, FormatError> {
        need(b, SNAPSHOT_HEADER_BYTES)?;
        check_magic(b, HEADER_MAGIC)?;
        check_sum(
            &b[..HEADER_CHECKSUM_AT],
            LE::read_u32(&b[HEADER_CHECKSUM_AT..]),
        )?;
        let (major, minor) = (LE::read_u16(&b[4..]), LE::read_u16(&b[6..]));
        let features = LE::read_u32(&b[8..]);
        if major > FORMAT_MAJOR || features & !FEATURES_KNOWN != 0 {
            return Err(FormatError::Newer {
                major,
                minor,
                features,
            });
        }
        let kind = LE::read_u16(&b[12..]);
        if kind != CHECKSUM_KIND {
            return Err(field("checksum kind", kind.into()));
        }
        let chunk_bytes = LE::read_u32(&b[72..]);
        if !(SNAPSHOT_CHUNK_BYTES_MIN..=SNAPSHOT_CHUNK_BYTES_MAX).contains(&chunk_bytes) {
            return Err(field("chunk size", chunk_bytes.into()));
        }
        let len = LE::read_u32(&b[76..]);
        let bytes = usize::try_from(len)
            .ok()
            .filter(|len| *len <= MEMBERSHIP_BYTES_MAX)
            .map(|len| &b[MEMBERSHIP_AT..MEMBERSHIP_AT + len]);
        let membership = bytes.and_then(|bytes| Membership::decode(bytes).ok());
        Ok(Header {
            cluster: ClusterId(array(&b[16..])),
            group: GroupId(LE::read_u64(&b[32..])),
            position: Position {
                id: LogId {
                    index: Index(LE::read_u64(&b[40..])),
                    term: Term(LE::read_u64(&b[48..])),
                },
                digest: Digest(LE::read_u64(&b[56..])),
            },
            nonce: LE::read_u64(&b[64..]),
            chunk_bytes,
            membership: membership.ok_or_else(|| field("membership", len.into()))?,
        })
    }
}

/// The head of a chunk, followed by its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ChunkHead {
    pub(super) seq: u32,
    pub(super) len: u32,
    pub(super) checksum: u32,
}

impl ChunkHead {
    pub(super) fn of(nonce: u64, seq: u32, data: &[u8]) -> ChunkHead {
        let len = u32::try_from(data.len()).expect("a chunk is at most 1 MiB");
        ChunkHead {
            seq,
            len,
            checksum: chunk_checksum(nonce, seq, data),
        }
    }

    pub(super) fn encode(&self, b: &mut [u8]) {
        LE::write_u32(&mut b[0..], self.seq);
        LE::write_u32(&mut b[4..], self.len);
        LE::write_u32(&mut b[8..], self.checksum);
    }

    /// Reads the head of a whole chunk and checks it against its data, its place and its length.
    pub(super) fn check(
        b: &[u8],
        nonce: u64,
        seq: u32,
        sums: bool,
    ) -> Result<ChunkHead, FormatError> {
        need(b, SNAPSHOT_CHUNK_HEAD_BYTES + 1)?;
        let (head, data) = b.split_at(SNAPSHOT_CHUNK_HEAD_BYTES);
        let found = ChunkHead {
            seq: LE::read_u32(&head[0..]),
            len: LE::read_u32(&head[4..]),
            checksum: LE::read_u32(&head[8..]),
        };
        if found.seq != seq {
            return Err(field("chunk number", found.seq.into()));
        }
        if u64::from(found.len) != data.len() as u64 {
            return Err(field("chunk length", found.len.into()));
        }
        let computed = chunk_checksum(nonce, seq, data);
        if sums && found.checksum != computed {
            return Err(FormatError::Checksum {
                found: found.checksum,
                computed,
            });
        }
        Ok(found)
    }
}

fn chunk_checksum(nonce: u64, seq: u32, data: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&nonce.to_le_bytes());
    hasher.update(&seq.to_le_bytes());
    hasher.update(data);
    hasher.finalize()
}

/// The last 40 bytes: what all that comes before must add up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Footer {
    pub(super) chunks: u32,
    pub(super) content_bytes: u64,
    pub(super) digest: u64,
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; SNAPSHOT_FOOTER_BYTES] {
        let mut b = [0; SNAPSHOT_FOOTER_BYTES];
        LE::write_u32(&mut b[0..], FOOTER_MAGIC);
        LE::write_u32(&mut b[4..], self.chunks);
        LE::write_u64(&mut b[8..], self.content_bytes);
        LE::write_u64(&mut b[16..], self.digest);
        let sum = crc32fast::hash(&b[..32]);
        LE::write_u32(&mut b[32..], sum);
        LE::write_u32(&mut b[36..], TRAILER_MAGIC);
        b
    }

    pub(super) fn decode(b: &[u8]) -> Result<Footer, FormatError> {
        need(b, SNAPSHOT_FOOTER_BYTES)?;
        check_magic(&b[36..], TRAILER_MAGIC)?;
        check_magic(b, FOOTER_MAGIC)?;
        check_sum(&b[..32], LE::read_u32(&b[32..]))?;
        let zero = LE::read_u64(&b[24..]);
        if zero != 0 {
            return Err(field("reserved", zero));
        }
        Ok(Footer {
            chunks: LE::read_u32(&b[4..]),
            content_bytes: LE::read_u64(&b[8..]),
            digest: LE::read_u64(&b[16..]),
        })
    }
}

/// The digest over everything: the header without its checksum, the head of each chunk, the length.
/// Each word is mixed in before the next is added, so words in exchanged places give another digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileDigest(u64);

impl FileDigest {
    pub(super) fn begin(header: &[u8]) -> FileDigest {
        let covered = &header[..HEADER_CHECKSUM_AT];
        let words = covered.chunks(8).map(|piece| {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            u64::from_le_bytes(word)
        });
        FileDigest(words.fold(Digest::EMPTY.0, |state, word| mix64(state ^ word)))
    }

    pub(super) fn add(&mut self, head: &ChunkHead) {
        let place = u64::from(head.seq) << 32 | u64::from(head.len);
        self.0 = mix64(mix64(self.0 ^ place) ^ u64::from(head.checksum));
    }

    pub(super) fn end(self, content_bytes: u64) -> u64 {
        mix64(self.0 ^ content_bytes)
    }
}

/// Where everything stands in a file of this length and chunk size: all chunks but the last are full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Geometry {
    pub(super) chunks: u32,
    pub(super) content_bytes: u64,
    chunk_bytes: u32,
    /// Bytes of data in the last chunk; 0 where there is none.
    last_bytes: u32,
}

impl Geometry {
    /// `None` for a length that no file of this chunk size has.
    pub(super) fn of(file_bytes: u64, chunk_bytes: u32) -> Option<Geometry> {
        let body = file_bytes.checked_sub(FILE_BYTES_MIN)?;
        let head = SNAPSHOT_CHUNK_HEAD_BYTES as u64;
        let stride = head + u64::from(chunk_bytes);
        let chunks = u32::try_from(body.div_ceil(stride)).ok()?;
        let last_bytes = match chunks {
            0 => 0,
            n => {
                let last = body - stride * u64::from(n - 1);
                last.checked_sub(head).filter(|bytes| *bytes > 0)?
            }
        };
        Some(Geometry {
            chunks,
            content_bytes: body - head * u64::from(chunks),
            chunk_bytes,
            last_bytes: u32::try_from(last_bytes).ok()?,
        })
    }

    /// Bytes of a file with this content. `None` where the format cannot hold it.
    pub(super) fn file_bytes(chunks: u32, content_bytes: u64) -> Option<u64> {
        let heads = SNAPSHOT_CHUNK_HEAD_BYTES as u64 * u64::from(chunks);
        content_bytes
            .checked_add(FILE_BYTES_MIN)?
            .checked_add(heads)
    }

    /// Bytes of the chunk `seq` with its head.
    fn chunk_unit(&self, seq: u32) -> usize {
        let data = if seq + 1 == self.chunks {
            self.last_bytes
        } else {
            self.chunk_bytes
        };
        SNAPSHOT_CHUNK_HEAD_BYTES + data as usize
    }
}

/// What is wrong with a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PartProblem {
    /// It is not what was written.
    Damaged(FormatError),
    /// It is whole and belongs to another snapshot.
    Foreign(&'static str),
    /// A newer version wrote it.
    Newer(FormatError),
    /// The footer is good, and the chunks before it are not those that it counted.
    Content(FormatError),
}

impl PartProblem {
    /// What it means that a header cannot be decoded.
    pub(super) fn of_header(problem: FormatError) -> PartProblem {
        match problem {
            FormatError::Newer { .. } => PartProblem::Newer(problem),
            FormatError::Short { .. }
            | FormatError::Magic { .. }
            | FormatError::Checksum { .. }
            | FormatError::Field { .. } => PartProblem::Damaged(problem),
        }
    }
}

/// Checks the parts of a file one after another against the snapshot it is said to be. Reader,
/// receiver and resumption all pass through here: there is one definition of a good file.
pub(super) struct Checker {
    cluster: ClusterId,
    group: GroupId,
    position: Position,
    membership: Membership,
    file: SnapshotFile,
    next: Next,
    /// Leave out these checks, to show that tests notice.
    pub(super) no_chunk_sums: bool,
    pub(super) no_digest: bool,
}

#[derive(Clone, Copy)]
enum Next {
    Header,
    Body(Body),
    Nothing,
}

#[derive(Clone, Copy)]
struct Body {
    geometry: Geometry,
    seq: u32,
    digest: FileDigest,
}

impl Checker {
    pub(super) fn new(
        cluster: ClusterId,
        group: GroupId,
        snapshot: &duraft_core::Snapshot,
    ) -> Checker {
        Checker {
            cluster,
            group,
            position: snapshot.position,
            membership: snapshot.membership.clone(),
            file: snapshot.file,
            next: Next::Header,
            no_chunk_sums: false,
            no_digest: false,
        }
    }

    /// The next part and its length; `None` at the end.
    pub(super) fn expects(&self) -> Option<(SnapshotPart, usize)> {
        match &self.next {
            Next::Header => Some((SnapshotPart::Header, SNAPSHOT_HEADER_BYTES)),
            Next::Body(body) if body.seq < body.geometry.chunks => Some((
                SnapshotPart::Chunk(body.seq),
                body.geometry.chunk_unit(body.seq),
            )),
            Next::Body(_) => Some((SnapshotPart::Footer, SNAPSHOT_FOOTER_BYTES)),
            Next::Nothing => None,
        }
    }

    /// Takes the next part if it is good. Otherwise nothing changes and it may be offered again.
    pub(super) fn accept(&mut self, part: &[u8]) -> Result<(), PartProblem> {
        self.next = match self.next {
            Next::Header => Next::Body(self.accept_header(part)?),
            Next::Body(body) if body.seq < body.geometry.chunks => {
                need(part, body.geometry.chunk_unit(body.seq)).map_err(PartProblem::Damaged)?;
                let head = ChunkHead::check(part, self.file.nonce, body.seq, !self.no_chunk_sums)
                    .map_err(PartProblem::Damaged)?;
                let mut digest = body.digest;
                digest.add(&head);
                Next::Body(Body {
                    seq: body.seq + 1,
                    digest,
                    ..body
                })
            }
            Next::Body(body) => {
                self.accept_footer(&body, part)?;
                Next::Nothing
            }
            Next::Nothing => Next::Nothing,
        };
        Ok(())
    }

    fn accept_header(&self, part: &[u8]) -> Result<Body, PartProblem> {
        let header = Header::decode(part).map_err(PartProblem::of_header)?;
        let differs = [
            (header.cluster != self.cluster, "cluster"),
            (header.group != self.group, "group"),
            (header.position != self.position, "position"),
            (header.nonce != self.file.nonce, "nonce"),
            (header.membership != self.membership, "membership"),
        ];
        if let Some((_, field)) = differs.into_iter().find(|(differs, _)| *differs) {
            return Err(PartProblem::Foreign(field));
        }
        let geometry = Geometry::of(self.file.bytes, header.chunk_bytes)
            .ok_or(PartProblem::Foreign("length"))?;
        Ok(Body {
            geometry,
            seq: 0,
            digest: FileDigest::begin(part),
        })
    }

    fn accept_footer(&self, body: &Body, part: &[u8]) -> Result<(), PartProblem> {
        let footer = Footer::decode(part).map_err(PartProblem::Damaged)?;
        let geometry = &body.geometry;
        if footer.chunks != geometry.chunks || footer.content_bytes != geometry.content_bytes {
            return Err(PartProblem::Foreign("length"));
        }
        if self.no_digest {
            return Ok(());
        }
        // The footer is the one announced, and the chunks are those that it counted.
        if footer.digest != self.file.digest {
            return Err(PartProblem::Foreign("digest"));
        }
        let computed = body.digest.end(geometry.content_bytes);
        if footer.digest != computed {
            return Err(PartProblem::Content(field("digest", footer.digest)));
        }
        Ok(())
    }

    /// Bytes of content, known once the header is accepted.
    pub(super) fn content_bytes(&self) -> Option<u64> {
        match &self.next {
            Next::Body(body) => Some(body.geometry.content_bytes),
            Next::Header | Next::Nothing => None,
        }
    }
}

/// Makes every checksum and the digest of a file image right, as far as its header says where they
/// are: for fuzzing, to reach what lies behind them.
#[doc(hidden)]
pub fn reseal_snapshot(file: &mut [u8]) {
    if (file.len() as u64) < FILE_BYTES_MIN {
        return;
    }
    let sum = crc32fast::hash(&file[..HEADER_CHECKSUM_AT]);
    LE::write_u32(&mut file[HEADER_CHECKSUM_AT..], sum);
    let (header, rest) = file.split_at_mut(SNAPSHOT_HEADER_BYTES);
    let (body, footer) = rest.split_at_mut(rest.len() - SNAPSHOT_FOOTER_BYTES);
    let nonce = LE::read_u64(&header[64..]);
    let chunk_bytes = LE::read_u32(&header[72..]);
    let file_bytes = FILE_BYTES_MIN + body.len() as u64;
    let sizes = SNAPSHOT_CHUNK_BYTES_MIN..=SNAPSHOT_CHUNK_BYTES_MAX;
    if let Some(geometry) = Geometry::of(file_bytes, chunk_bytes)
        && sizes.contains(&chunk_bytes)
    {
        let mut digest = FileDigest::begin(header);
        let mut at = 0;
        for seq in 0..geometry.chunks {
            let unit = &mut body[at..at + geometry.chunk_unit(seq)];
            let found_seq = LE::read_u32(&unit[0..]);
            let mut head = ChunkHead::of(nonce, seq, &unit[SNAPSHOT_CHUNK_HEAD_BYTES..]);
            head.seq = found_seq;
            LE::write_u32(&mut unit[8..], head.checksum);
            digest.add(&head);
            at += unit.len();
        }
        LE::write_u64(&mut footer[16..], digest.end(geometry.content_bytes));
    }
    let sum = crc32fast::hash(&footer[..32]);
    LE::write_u32(&mut footer[32..], sum);
}

fn need(bytes: &[u8], needed: usize) -> Result<(), FormatError> {
    if bytes.len() >= needed {
        return Ok(());
    }
    Err(FormatError::Short {
        needed: needed as u64,
        found: bytes.len() as u64,
    })
}

fn check_magic(bytes: &[u8], expected: u32) -> Result<(), FormatError> {
    match LE::read_u32(bytes) {
        found if found == expected => Ok(()),
        found => Err(FormatError::Magic { expected, found }),
    }
}

fn check_sum(bytes: &[u8], found: u32) -> Result<(), FormatError> {
    match crc32fast::hash(bytes) {
        computed if computed == found => Ok(()),
        computed => Err(FormatError::Checksum { found, computed }),
    }
}

fn field(field: &'static str, value: u64) -> FormatError {
    FormatError::Field { field, value }
}

fn array(bytes: &[u8]) -> [u8; 16] {
    let mut array = [0; 16];
    array.copy_from_slice(&bytes[..16]);
    array
}
