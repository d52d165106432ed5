//! Snapshot files: `docs/snapshot-format.md`.

use super::layout::{Page, Table, number};
use super::records::Place;
use super::sums::{crc32, mix64};

const EMPTY: u64 = 0x6475_7261_6674_3031;

/// What a snapshot file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotContent {
    /// Cluster identity.
    pub cluster: Vec<u8>,
    /// The group.
    pub group: u64,
    /// It covers the log up to here.
    pub place: Place,
    /// Nonce.
    pub nonce: u64,
    /// Bytes of a chunk's data.
    pub chunk_bytes: u64,
    /// The membership there, encoded.
    pub membership: Vec<u8>,
    /// The digest.
    pub digest: u64,
    /// The data of all chunks.
    pub data: Vec<u8>,
}

/// The tables of the page.
struct Tables {
    header: Table,
    chunk: Table,
    footer: Table,
}

impl SnapshotContent {
    /// Reads a whole file, with the places that the page's tables name.
    pub fn read(page: &Page, file: &[u8]) -> Result<SnapshotContent, String> {
        let tables = Tables {
            header: page.table("Header"),
            chunk: page.table("Chunk"),
            footer: page.table("Footer"),
        };
        let header = file.get(..4096).ok_or("too short for a header")?;
        let table = &tables.header;
        let get = |name| number(header, &table.field(name));
        if !header.starts_with(&table.magic("magic")) {
            return Err("no magic".into());
        }
        let sum = number(header, &(4092..4096));
        if sum != u64::from(crc32(&[&header[..4092]])) {
            return Err("the header's checksum".into());
        }
        if (
            get("format major"),
            get("incompatible"),
            get("checksum kind"),
        ) != (1, 0, 1)
        {
            return Err("another format".into());
        }
        let position = &header[table.field("position")];
        let length = number(header, &table.field("length of the membership"));
        let membership = usize::try_from(length)
            .ok()
            .and_then(|n| header.get(80..80 + n));
        let membership = membership.ok_or("a long membership")?;
        let mut content = SnapshotContent {
            cluster: header[table.field("cluster")].to_vec(),
            group: get("group"),
            place: Place {
                index: number(position, &(0..8)),
                term: number(position, &(8..16)),
                digest: number(position, &(16..24)),
            },
            nonce: get("nonce"),
            chunk_bytes: get("chunk size"),
            membership: membership.to_vec(),
            digest: 0,
            data: Vec::new(),
        };
        content.chunks(&tables, file)?;
        Ok(content)
    }

    fn chunks(&mut self, tables: &Tables, file: &[u8]) -> Result<(), String> {
        let length = file.len() as u64;
        let parts = length.checked_sub(4136).ok_or("too short for a footer")?;
        let chunks = parts.div_ceil(12 + self.chunk_bytes);
        let bytes = parts - 12 * chunks;
        let mut digest = EMPTY;
        let mut take = |word: u64| digest = mix64(digest ^ word);
        for word in file[..4092].chunks(8) {
            take(number(word, &(0..word.len())));
        }
        let mut at = 4096;
        let mut left = bytes;
        for chunk in 0..chunks {
            let size = left.min(self.chunk_bytes);
            let end = at + 12 + usize::try_from(size).map_err(|_| "a large chunk")?;
            let part = &file[at..end];
            let get = |name| number(part, &tables.chunk.field(name));
            let data = &part[tables.chunk.start("data")..];
            let (number, sum) = (get("number"), get("checksum"));
            let nonce = self.nonce.to_le_bytes();
            if number != chunk || get("bytes of data") != size {
                return Err(format!("the head of chunk {chunk}"));
            }
            if sum != u64::from(crc32(&[&nonce, &part[..4], data])) {
                return Err(format!("the checksum of chunk {chunk}"));
            }
            take(number << 32 | size);
            take(sum);
            self.data.extend_from_slice(data);
            (at, left) = (end, left - size);
        }
        take(bytes);
        self.digest = digest;
        let footer = &file[at..];
        let get = |name| number(footer, &tables.footer.field(name));
        let good = footer.len() == 40
            && footer.starts_with(&tables.footer.magic("magic"))
            && footer.ends_with(&tables.footer.magic("trailer"))
            && get("checksum") == u64::from(crc32(&[&footer[..32]]))
            && get("number of chunks") == chunks
            && get("bytes of content") == bytes
            && get("digest") == digest;
        if good {
            Ok(())
        } else {
            Err("the footer".into())
        }
    }
}
