//! A disk on which nothing is changed: reads come from the disk below, writes stay in memory.
//!
//! What a change of a store would do is found out by doing it here. The bytes below are never
//! written; of their files only the lock is taken, and only where there is one already.

use duraft_disk::{Disk, DiskError, DiskFile, DiskLock, DiskOp, Map};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

const PAGE_BYTES: usize = 4096;

/// See the module documentation.
pub(crate) struct Overlay {
    below: Arc<dyn Disk>,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    /// Files that were opened or made here; `None`: removed here.
    files: BTreeMap<String, Option<Arc<OverlayFile>>>,
    /// Folders that were made here.
    folders: BTreeSet<String>,
}

impl Overlay {
    pub(crate) fn over(below: Arc<dyn Disk>) -> Overlay {
        Overlay {
            below,
            names: Mutex::default(),
        }
    }
}

/// The folder of a name, and its name there.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

fn error(op: DiskOp, name: &str, kind: io::ErrorKind) -> DiskError {
    DiskError::new(op, name, kind.into())
}

impl Disk for Overlay {
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let names = self.names.lock();
        let mut found: BTreeSet<String> = match self.below.list(dir) {
            Ok(found) => found.into_iter().collect(),
            Err(_) if names.folders.contains(dir) => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        for (name, file) in &names.files {
            let (folder, name) = split(name);
            if folder == dir && file.is_some() {
                found.insert(name.to_owned());
            } else if folder == dir {
                found.remove(name);
            }
        }
        let here = names.folders.iter().map(|name| split(name));
        found.extend(
            here.filter(|(folder, _)| *folder == dir)
                .map(|(_, name)| name.to_owned()),
        );
        Ok(found.into_iter().collect())
    }

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        if self.below.list(dir).is_err() {
            self.names.lock().folders.insert(dir.to_owned());
        }
        Ok(())
    }

    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        if self.open(name).is_ok() {
            return Err(error(DiskOp::Create, name, io::ErrorKind::AlreadyExists));
        }
        let file = Arc::new(OverlayFile::new(None, 0));
        let entry = Some(Arc::clone(&file));
        self.names.lock().files.insert(name.to_owned(), entry);
        Ok(file)
    }

    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        let mut names = self.names.lock();
        match names.files.get(name) {
            Some(Some(file)) => Ok(Arc::clone(file) as Arc<dyn DiskFile>),
            Some(None) => Err(error(DiskOp::Open, name, io::ErrorKind::NotFound)),
            None => {
                let below = self.below.open(name)?;
                let len = below.len()?;
                let file = Arc::new(OverlayFile::new(Some(below), len));
                names.files.insert(name.to_owned(), Some(Arc::clone(&file)));
                Ok(file)
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.open(from)?;
        let mut names = self.names.lock();
        let file = names.files.insert(from.to_owned(), None).flatten();
        names.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.open(name)?;
        self.names.lock().files.insert(name.to_owned(), None);
        Ok(())
    }

    fn sync_dir(&self, _dir: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn lock(&self, name: &str) -> Result<Box<dyn DiskLock>, DiskError> {
        let (folder, file) = split(name);
        if self.below.list(folder)?.iter().any(|there| there == file) {
            return self.below.lock(name);
        }
        // To make the file would be a change; and where it is missing nobody has the store open.
        Ok(Box::new(NoLock))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.below.free_bytes()
    }
}

struct NoLock;

impl DiskLock for NoLock {}

struct OverlayFile {
    below: Option<Arc<dyn DiskFile>>,
    content: Mutex<Content>,
}

struct Content {
    len: u64,
    /// Bytes of the file below that still show.
    shows: u64,
    /// Pages written here, by their number.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl OverlayFile {
    fn new(below: Option<Arc<dyn DiskFile>>, len: u64) -> OverlayFile {
        let content = Content {
            len,
            shows: len,
            pages: BTreeMap::new(),
        };
        OverlayFile {
            below,
            content: Mutex::new(content),
        }
    }

    /// Bytes from below, zeros where nothing shows.
    fn read_below(&self, shows: u64, buf: &mut [u8], offset: u64) -> Result<(), DiskError> {
        buf.fill(0);
        let Some(below) = &self.below else {
            return Ok(());
        };
        let len = shows.saturating_sub(offset).min(buf.len() as u64);
        let len = usize::try_from(len).expect("at most the buffer's length");
        let mut done = 0;
        while done < len {
            match below.read_at(&mut buf[done..len], offset + done as u64)? {
                0 => break,
                read => done += read,
            }
        }
        Ok(())
    }
}

/// The pieces of a range, page by page: the page, where the piece begins in it, its place in the
/// range.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let page = at / PAGE_BYTES as u64;
        let begins = usize::try_from(at % PAGE_BYTES as u64).expect("within a page");
        let step = (PAGE_BYTES - begins).min(len - done);
        let piece = done..done + step;
        done += step;
        (step > 0).then_some((page, begins, piece))
    })
}

impl DiskFile for OverlayFile {
    fn len(&self) -> Result<u64, DiskError> {
        Ok(self.content.lock().len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        let content = self.content.lock();
        let len = content.len.saturating_sub(offset).min(buf.len() as u64);
        let len = usize::try_from(len).expect("at most the buffer's length");
        self.read_below(content.shows, &mut buf[..len], offset)?;
        for (page, begins, piece) in pieces(offset, len) {
            if let Some(bytes) = content.pages.get(&page) {
                let step = piece.len();
                buf[piece].copy_from_slice(&bytes[begins..begins + step]);
            }
        }
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let mut content = self.content.lock();
        for (page, begins, piece) in pieces(offset, bytes.len()) {
            if !content.pages.contains_key(&page) {
                let mut fresh = vec![0; PAGE_BYTES];
                self.read_below(content.shows, &mut fresh, page * PAGE_BYTES as u64)?;
                content.pages.insert(page, fresh);
            }
            let target = content.pages.get_mut(&page).expect("inserted above");
            target[begins..begins + piece.len()].copy_from_slice(&bytes[piece]);
        }
        content.len = content.len.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn fill_zero(&self, len: u64) -> Result<(), DiskError> {
        let mut content = self.content.lock();
        content.pages.clear();
        content.shows = 0;
        content.len = len;
        Ok(())
    }

    fn map(&self) -> Result<Option<Map>, DiskError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duraft_disk::{FaultDisk, FaultOptions};

    fn names(disk: &dyn Disk, dir: &str) -> Vec<String> {
        disk.list(dir).unwrap()
    }

    fn content(disk: &dyn Disk, name: &str) -> Vec<u8> {
        let file = disk.open(name).unwrap();
        let mut bytes = vec![0xEE; usize::try_from(file.len().unwrap()).unwrap() + 7];
        let read = file.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(read);
        bytes
    }

    #[test]
    fn an_overlay_shows_every_change_and_makes_none() {
        let below = Arc::new(FaultDisk::new(FaultOptions::default()));
        below.create_dir("a").unwrap();
        let old: Vec<u8> = (0..10_000).map(|i| (i % 251) as u8).collect();
        for name in ["a/one", "a/two", "a/three"] {
            below.create(name).unwrap().write_at(&old, 0).unwrap();
        }
        let mutations = below.mutations();
        let over = Overlay::over(Arc::clone(&below) as Arc<dyn Disk>);
        assert_eq!(content(&over, "a/one"), old);

        let mut new = old.clone();
        new[4000..4200].fill(9);
        over.open("a/one")
            .unwrap()
            .write_at(&[9; 200], 4000)
            .unwrap();
        assert_eq!(content(&over, "a/one"), new, "across the end of a page");
        over.open("a/one")
            .unwrap()
            .write_at(b"end", 12_000)
            .unwrap();
        new.resize(12_000, 0);
        new.extend_from_slice(b"end");
        assert_eq!(content(&over, "a/one"), new, "with a gap of zeros");

        over.rename("a/one", "a/two").unwrap();
        over.remove("a/three").unwrap();
        over.create_dir("b").unwrap();
        over.create("b/four").unwrap().fill_zero(5000).unwrap();
        over.open("b/four").unwrap().write_at(&[7], 4999).unwrap();
        assert_eq!(names(&over, "a"), ["two"]);
        assert_eq!(names(&over, ""), ["a", "b"]);
        assert_eq!(names(&over, "b"), ["four"]);
        assert_eq!(content(&over, "a/two"), new);
        let four = content(&over, "b/four");
        assert_eq!((four.len(), four[4998], four[4999]), (5000, 0, 7));
        assert!(over.open("a/one").is_err());
        assert!(over.create("a/two").is_err());
        over.open("a/two").unwrap().fill_zero(6000).unwrap();
        assert_eq!(content(&over, "a/two"), vec![0; 6000]);

        assert_eq!(below.mutations(), mutations, "nothing changed below");
        assert_eq!(names(&*below, "a"), ["one", "three", "two"]);
        assert_eq!(content(&*below, "a/one"), old);
    }

    #[test]
    fn an_overlay_takes_the_lock_below_but_makes_none() {
        let below: Arc<dyn Disk> = Arc::new(FaultDisk::new(FaultOptions::default()));
        let over = Overlay::over(Arc::clone(&below));
        drop(over.lock("LOCK").unwrap());
        assert_eq!(names(&*below, ""), Vec::<String>::new());
        let held = below.lock("LOCK").unwrap();
        if names(&*below, "").is_empty() {
            below.create("LOCK").unwrap();
        }
        assert!(over.lock("LOCK").is_err(), "somebody has the store open");
        drop(held);
        drop(over.lock("LOCK").unwrap());
    }
}
