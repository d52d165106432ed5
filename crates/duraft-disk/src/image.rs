//! The content of one simulated file: copy-on-write pages.
//!
//! Crash tests copy whole disks millions of times, so a copy shares all pages and a page is copied
//! when it is first changed. A page of zeros is not stored. Each page remembers its hash, so naming
//! a crash state costs no more than hashing the pages that make it different.
//!
//! Invariants: there are exactly as many pages as the length needs; bytes past the length are zero.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of one page. Sectors are this long or a power of two shorter, so none spans two pages.
pub(crate) const PAGE_BYTES: usize = 4096;

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// Offsets on a simulated disk are bounded by its capacity, which fits the memory of this machine.
pub(crate) fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("the capacity limit keeps offsets inside the address space")
}

struct Page {
    bytes: [u8; PAGE_BYTES],
    /// 0 while unknown.
    hash: AtomicU64,
}

impl Clone for Page {
    /// A copy is made in order to be changed: it does not take the hash along.
    fn clone(&self) -> Page {
        Page {
            bytes: self.bytes,
            hash: AtomicU64::new(0),
        }
    }
}

impl Page {
    fn hash(&self) -> u64 {
        let known = self.hash.load(Ordering::Relaxed);
        if known != 0 {
            return known;
        }
        let hash = hash_page(&self.bytes);
        self.hash.store(hash, Ordering::Relaxed);
        hash
    }
}

/// Content and length of one file.
#[derive(Clone, Default)]
pub(crate) struct Image {
    pages: Vec<Option<Arc<Page>>>,
    len: u64,
}

impl Image {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Reads from `offset`, fewer bytes than asked for only at the end.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        if offset >= self.len {
            return 0;
        }
        let wanted = buf.len().min(at(self.len - offset));
        let mut done = 0;
        let mut place = at(offset);
        while done < wanted {
            let inside = place % PAGE_BYTES;
            let step = (PAGE_BYTES - inside).min(wanted - done);
            let page = self.page(place / PAGE_BYTES);
            buf[done..done + step].copy_from_slice(&page[inside..inside + step]);
            done += step;
            place += step;
        }
        wanted
    }

    /// Writes all of `bytes`, growing the file where needed.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) {
        let end = offset + bytes.len() as u64;
        if end > self.len {
            self.set_len(end);
        }
        let mut done = 0;
        let mut place = at(offset);
        while done < bytes.len() {
            let inside = place % PAGE_BYTES;
            let step = (PAGE_BYTES - inside).min(bytes.len() - done);
            self.patch(place / PAGE_BYTES, inside, &bytes[done..done + step]);
            done += step;
            place += step;
        }
    }

    /// Changes the length; what is cut off is gone, what is added is zero.
    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let tail = at(len) % PAGE_BYTES;
            if tail != 0 {
                self.patch(at(len) / PAGE_BYTES, tail, &ZEROS[tail..]);
            }
        }
        self.pages.resize(at(len).div_ceil(PAGE_BYTES), None);
        self.len = len;
    }

    /// The bytes of one sector; zeros past the end.
    pub(crate) fn sector(&self, size: usize, number: u64) -> &[u8] {
        let start = at(number) * size;
        let inside = start % PAGE_BYTES;
        &self.page(start / PAGE_BYTES)[inside..inside + size]
    }

    /// Replaces the part of one sector that lies before the end of the file.
    pub(crate) fn put_sector(&mut self, size: usize, number: u64, bytes: &[u8]) {
        let start = number * size as u64;
        if start >= self.len {
            return;
        }
        let kept = bytes.len().min(at(self.len - start));
        let inside = at(start) % PAGE_BYTES;
        self.patch(at(start) / PAGE_BYTES, inside, &bytes[..kept]);
    }

    /// The whole content in one piece.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; at(self.len)];
        self.read(&mut bytes, 0);
        bytes
    }

    /// A name for length and content: equal files have equal hashes, however they came to be.
    pub(crate) fn hash(&self) -> u64 {
        let zero = hash_of_zeros();
        self.pages.iter().fold(self.len, |state, page| {
            mix(state ^ page.as_ref().map_or(zero, |page| page.hash()))
        })
    }

    fn page(&self, number: usize) -> &[u8; PAGE_BYTES] {
        match self.pages.get(number) {
            Some(Some(page)) => &page.bytes,
            Some(None) | None => &ZEROS,
        }
    }

    fn patch(&mut self, number: usize, inside: usize, bytes: &[u8]) {
        let slot = &mut self.pages[number];
        if slot.is_none() && bytes.iter().all(|byte| *byte == 0) {
            return;
        }
        let page = slot.get_or_insert_with(|| {
            Arc::new(Page {
                bytes: ZEROS,
                hash: AtomicU64::new(0),
            })
        });
        let page = Arc::make_mut(page);
        page.bytes[inside..inside + bytes.len()].copy_from_slice(bytes);
        // A page that nobody shared was changed in place.
        *page.hash.get_mut() = 0;
    }
}

/// The finaliser of SplitMix64: a bijection that spreads every bit.
pub(crate) fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A hash for telling crash states apart. It withstands accidents, not adversaries.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut lanes = [bytes.len() as u64, 1, 2, 3];
    // Four lanes, so that the multiplications of one need not wait for those of another.
    let (rows, rest) = bytes.as_chunks::<32>();
    for row in rows {
        let (words, _) = row.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = absorb(*lane, *word);
        }
    }
    for (lane, chunk) in lanes.iter_mut().zip(rest.chunks(8)) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        *lane = absorb(*lane, word);
    }
    lanes.into_iter().fold(0, |state, lane| mix(state ^ lane))
}

fn absorb(lane: u64, word: [u8; 8]) -> u64 {
    (lane ^ u64::from_le_bytes(word))
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(29)
}

fn hash_page(bytes: &[u8; PAGE_BYTES]) -> u64 {
    // 0 stands for 'unknown' in the page.
    hash_bytes(bytes).max(1)
}

fn hash_of_zeros() -> u64 {
    static HASH: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *HASH.get_or_init(|| hash_page(&ZEROS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_bytes_do_not_come_back() {
        // A file that shrinks and grows again must read zeros where it was cut.
        let mut image = Image::default();
        image.write(&[7; 6000], 0);
        image.set_len(100);
        image.set_len(6000);
        let bytes = image.to_vec();
        assert!(bytes[..100].iter().all(|byte| *byte == 7));
        assert!(bytes[100..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn equal_content_has_equal_hash_however_it_came_to_be() {
        // Deduplicating crash states by history instead of content would hide nothing but time;
        // by a stale page hash it would skip states.
        let mut one = Image::default();
        one.write(&[1; 5000], 0);
        let before = one.hash();
        one.write(&[0; 5000], 0);
        let mut two = Image::default();
        two.set_len(5000);
        assert_ne!(before, one.hash());
        assert_eq!(one.hash(), two.hash());
        two.set_len(5001);
        assert_ne!(one.hash(), two.hash());
    }

    #[test]
    fn copies_do_not_see_each_others_writes() {
        let mut one = Image::default();
        one.write(b"first", 4090);
        let mut two = one.clone();
        two.write(b"other", 4090);
        assert_eq!(one.sector(512, 7)[506..], *b"first\0"[..6].as_ref());
        assert_eq!(&two.to_vec()[4090..], b"other");
    }
}
