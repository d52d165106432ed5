//! A storage engine that is not ours, tested with the fault disk and nothing else of duraft.
//!
//! The engine keeps one number per key. Each `put` appends a record with a checksum to `log` and syncs
//! it; a checkpoint writes all numbers to `table.new`, syncs it, renames it to `table`, and begins an
//! empty log. There are three ways to get the checkpoint wrong; each passes every test that only kills
//! the process, and each is found here in well under a second.
//!
//! ```sh
//! cargo run -p duraft-disk --example tiny_store
//! ```
#![allow(clippy::print_stdout)]

use duraft_disk::{Disk, DiskError, FaultDisk, FaultOptions, Subsets, Tally, Violation, explore};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

/// What the engine's author forgot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    /// The new table is renamed before it is synced.
    TableNotSynced,
    /// The folder is not synced after the renaming, and the log is emptied all the same.
    FolderNotSynced,
    /// The log's records have no checksum.
    NoChecksum,
}

type Numbers = BTreeMap<u32, u32>;

/// The engine. It knows the disk by its trait only, so it runs on `RealDisk` as well.
struct TinyStore<'a> {
    disk: &'a dyn Disk,
    bug: Option<Bug>,
    numbers: Numbers,
    log: Arc<dyn duraft_disk::DiskFile>,
    log_len: u64,
}

const RECORD: usize = 12;

fn record(key: u32, number: u32) -> [u8; RECORD] {
    let sum = key.wrapping_mul(31).wrapping_add(number).rotate_left(7) ^ 0x5eed_cafe;
    let mut bytes = [0; RECORD];
    for (place, word) in bytes.chunks_mut(4).zip([key, number, sum]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn content(disk: &dyn Disk, name: &str) -> Result<Vec<u8>, DiskError> {
    let file = match disk.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; usize::try_from(file.len()?).expect("a small file")];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

impl<'a> TinyStore<'a> {
    /// Opens what is there: the table, then the records of the log up to the first bad one.
    fn open(disk: &'a dyn Disk, bug: Option<Bug>) -> Result<TinyStore<'a>, DiskError> {
        let mut numbers = Numbers::new();
        for pair in words(&content(disk, "table")?).chunks_exact(2) {
            numbers.insert(pair[0], pair[1]);
        }
        let mut log_len = 0;
        for bytes in content(disk, "log")?.chunks_exact(RECORD) {
            let [key, number, _] = words(bytes)[..] else {
                break;
            };
            let good = bytes == record(key, number);
            let trusted = bug == Some(Bug::NoChecksum) && bytes != [0; RECORD];
            if !good && !trusted {
                break;
            }
            numbers.insert(key, number);
            log_len += RECORD as u64;
        }
        let log = match disk.open("log") {
            Ok(log) => log,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let log = disk.create("log")?;
                disk.sync_dir("")?;
                log
            }
            Err(error) => return Err(error),
        };
        Ok(TinyStore {
            disk,
            bug,
            numbers,
            log,
            log_len,
        })
    }

    /// Durable when it returns.
    fn put(&mut self, key: u32, number: u32) -> Result<(), DiskError> {
        self.log.write_at(&record(key, number), self.log_len)?;
        self.log.sync_data()?;
        self.log_len += RECORD as u64;
        self.numbers.insert(key, number);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), DiskError> {
        // A crash may have left an unfinished one.
        match self.disk.remove("table.new") {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let table = self.disk.create("table.new")?;
        let bytes: Vec<u8> = self
            .numbers
            .iter()
            .flat_map(|(key, number)| [key.to_le_bytes(), number.to_le_bytes()].concat())
            .collect();
        table.write_at(&bytes, 0)?;
        if self.bug != Some(Bug::TableNotSynced) {
            table.sync_data()?;
        }
        self.disk.rename("table.new", "table")?;
        if self.bug != Some(Bug::FolderNotSynced) {
            self.disk.sync_dir("")?;
        }
        self.log.fill_zero(0)?;
        self.log.sync_all()?;
        self.log_len = 0;
        Ok(())
    }
}

/// What the workload was promised: every number that a `put` returned for, and the one under way.
#[derive(Default)]
struct Promised {
    numbers: Numbers,
    under_way: Option<(u32, u32)>,
}

fn workload(disk: &FaultDisk, bug: Option<Bug>) -> Promised {
    let mut promised = Promised::default();
    let mut run = || -> Result<(), DiskError> {
        let mut store = TinyStore::open(disk, bug)?;
        for round in 1..=6 {
            // Large enough that a table spans sectors.
            let key = round % 3 * 100;
            promised.under_way = Some((key, round));
            store.put(key, round)?;
            promised.under_way = None;
            promised.numbers.insert(key, round);
            if round % 3 == 0 {
                store.checkpoint()?;
            }
        }
        Ok(())
    };
    // The error is the power failing; what was promised until then must hold.
    drop(run());
    promised
}

fn check(promised: &Promised, disk: &FaultDisk, bug: Option<Bug>) -> Result<(), String> {
    let store = TinyStore::open(disk, bug).map_err(|error| format!("does not open: {error}"))?;
    let mut with = promised.numbers.clone();
    with.extend(promised.under_way);
    if store.numbers == promised.numbers || store.numbers == with {
        return Ok(());
    }
    Err(format!(
        "promised {:?}, found {:?}",
        promised.numbers, store.numbers
    ))
}

fn search(bug: Option<Bug>) -> Result<Tally, Box<Violation>> {
    let start = FaultDisk::new(FaultOptions::default());
    // The engine relies on checksums, not on whole sectors: torn ones are fair.
    let subsets = Subsets {
        torn: 50,
        ..Subsets::default()
    };
    explore(
        &start,
        &subsets,
        |disk| workload(disk, bug),
        |promised, state| check(promised, &state.disk, bug),
    )
}

fn main() {
    match search(None) {
        Ok(tally) => println!("as intended: {} crash states, all well\n", tally.visited),
        Err(violation) => println!("as intended: {violation}\n"),
    }
    for bug in [Bug::TableNotSynced, Bug::FolderNotSynced, Bug::NoChecksum] {
        match search(Some(bug)) {
            Ok(tally) => println!("{bug:?}: not found in {} crash states\n", tally.visited),
            Err(violation) => println!("{bug:?}: {violation}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_survives_every_crash() {
        let tally = search(None).expect("no violation");
        assert!(tally.visited > 100, "{tally:?}");
    }

    #[test]
    fn each_bug_is_found() {
        let told = |bug| search(Some(bug)).expect_err("a planted bug").message;
        assert!(told(Bug::TableNotSynced).contains("found {"));
        assert!(told(Bug::FolderNotSynced).contains("found {"));
        assert!(told(Bug::NoChecksum).contains("found {"));
    }
}
