//! Where the fields of the log stand: `docs/wal-format.md`'s tables, by the page's own words.

use super::layout::{Page, number};
use std::collections::BTreeMap;
use std::ops::Range;

/// Where the fields stand, as the page's tables say.
#[derive(Clone, Debug)]
pub struct Tables {
    pub(super) store: Layout,
    pub(super) segment: Layout,
    pub(super) block: Layout,
    pub(super) descriptor: Layout,
    pub(super) checkpoint: Layout,
}

/// Fields by the words of the page.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) magic: Vec<u8>,
    fields: BTreeMap<&'static str, Range<usize>>,
}

impl Layout {
    fn of(page: &Page, title: &str, magic: bool, names: &[(&'static str, &str)]) -> Layout {
        let table = page.table(title);
        let fields = names
            .iter()
            .map(|(name, text)| (*name, table.field(text)))
            .collect();
        let magic = if magic {
            table.magic("magic")
        } else {
            Vec::new()
        };
        Layout { magic, fields }
    }

    pub(super) fn get(&self, bytes: &[u8], name: &str) -> u64 {
        number(bytes, &self.fields[name])
    }

    pub(super) fn raw<'a>(&self, bytes: &'a [u8], name: &str) -> &'a [u8] {
        &bytes[self.fields[name].clone()]
    }
}

impl Tables {
    /// Looks the places up.
    ///
    /// # Panics
    /// Where the page has no such table or field.
    #[must_use]
    pub fn of(page: &Page) -> Tables {
        let store = [
            ("major", "format major"),
            ("features", "incompatible features"),
            ("store", "store identity"),
            ("cluster", "cluster identity"),
            ("node", "node"),
            ("slot bytes", "slot size in bytes"),
            ("batch", "largest batch body"),
            ("shift", "block shift"),
            ("sums", "checksum kind"),
            ("clock", "wall clock"),
            ("sum", "checksum of the bytes before"),
        ];
        let segment = [
            ("nonce", "life nonce"),
            ("segment", "segment number"),
            ("major", "format major"),
            ("features", "incompatible features"),
            ("slot", "slot number"),
            ("store", "store identity"),
            ("blocks", "blocks of the slot"),
            ("shift", "block shift"),
            ("sums", "checksum kind"),
            ("previous", "number of the segment before"),
            ("previous nonce", "its life nonce"),
            ("previous block", "the block after its last one"),
            ("previous commit", "its last commit"),
            ("previous sum", "header checksum of its last block"),
            ("generation", "open generation"),
            ("first live", "first live segment"),
            ("first commit", "number of the first commit"),
            ("clock", "wall clock at the open"),
            ("sum", "checksum of the bytes before"),
        ];
        let block = [
            ("nonce", "life nonce"),
            ("segment", "segment number"),
            ("commit", "commit number"),
            ("watermark", "watermark"),
            ("block", "block number in the slot"),
            ("payload", "length of the payload region"),
            ("records", "number of records"),
            ("flags", "flags"),
            ("generation", "open generation"),
            ("before", "header checksum of the block before"),
            ("directory sum", "checksum of the directory"),
            ("payload sum", "checksum of the payload region"),
            ("sum", "checksum of bytes 0..60"),
        ];
        let descriptor = [
            ("type", "1 |"),
            ("kind", "kind: 1"),
            ("codec", "codec"),
            ("flags", "flags"),
            ("count", "count"),
            ("length", "body length"),
            ("group", "group"),
            ("index", "first index"),
            ("term", "term"),
            ("digest", "chain digest"),
            ("body sum", "checksum of the body"),
            ("position", "position"),
            ("sum", "checksum of bytes 0..56"),
        ];
        let checkpoint = [
            ("term", "term"),
            ("vote", "vote"),
            ("start", "position before"),
            ("end", "position at the end"),
            ("membership", "length of the membership"),
            ("flags", "bit 0"),
        ];
        Tables {
            store: Layout::of(page, "STORE", true, &store),
            segment: Layout::of(page, "Segment header", true, &segment),
            block: Layout::of(page, "Commit block", true, &block),
            descriptor: Layout::of(page, "Descriptor", false, &descriptor),
            checkpoint: Layout::of(page, "Group checkpoint", false, &checkpoint),
        }
    }
}
