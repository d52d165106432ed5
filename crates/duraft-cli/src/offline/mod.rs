//! What the commands have in common that change a store by hand, while no node runs on it.
//!
//! Everything is done on an [`Overlay`] first, which changes nothing: that tells whether it can be
//! done, what it would do, and whether a node could start afterwards. Only when the flag that spells
//! the danger out is there, it is done to the store itself.

mod overlay;

use clap::Args;
use duraft_core::{GroupId, LogId, NodeId, Position};
use duraft_disk::{Disk, RealDisk};
use duraft_storage::{
    ClusterId, Entropy, OpenError, RecoveredGroup, SnapshotFileKind, SnapshotStore, StoreIdentity,
};
use overlay::Overlay;
use serde::Serialize;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Which store, and who it must belong to.
#[derive(Args)]
pub(crate) struct StoreArgs {
    /// Folder of the node's store. Nothing may have it open.
    #[arg(long)]
    dir: PathBuf,

    /// The cluster: its name, of at most 16 bytes, or its identity in 32 hexadecimal digits.
    #[arg(long, value_parser = cluster_id)]
    pub(crate) cluster: ClusterId,

    /// The node that the store belongs to.
    #[arg(long)]
    pub(crate) node: u64,

    /// The group.
    #[arg(long, default_value_t = 1)]
    group: u64,

    /// Largest batch of the cluster, where it is not the default.
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES")]
    max_batch_bytes: u32,

    /// Write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What keeps any of these commands from being done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("cannot open the folder '{}': {source}", path.display())]
    Folder {
        path: PathBuf,
        source: duraft_disk::DiskError,
    },
    #[error(
        "the state before entry {before} is lost: no snapshot of it can be read ({}); with this store no \
         node can start", .tried.join("; ")
    )]
    StateLost { before: u64, tried: Vec<String> },
    #[error("cannot write the report to '{}': {source}", path.display())]
    Json {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl Trouble {
    /// Was it asked for in a wrong way?
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Trouble::Folder { .. } | Trouble::Json { .. } => true,
            Trouble::StateLost { .. } => false,
        }
    }
}

/// Was a store asked for that this is not?
pub(crate) fn is_usage(error: &OpenError) -> bool {
    matches!(
        error,
        OpenError::NoStore
            | OpenError::ForeignCluster { .. }
            | OpenError::ForeignNode { .. }
            | OpenError::MaxBatch { .. }
            | OpenError::Options(_)
    )
}

impl StoreArgs {
    /// The store's disk.
    pub(crate) fn disk(&self) -> Result<Arc<dyn Disk>, Trouble> {
        let disk = RealDisk::open(&self.dir).map_err(|source| Trouble::Folder {
            path: self.dir.clone(),
            source,
        })?;
        Ok(Arc::new(disk))
    }

    pub(crate) fn identity(&self) -> StoreIdentity {
        StoreIdentity {
            cluster: self.cluster,
            node: NodeId(self.node),
            max_batch_bytes: self.max_batch_bytes,
        }
    }

    pub(crate) fn group(&self) -> GroupId {
        GroupId(self.group)
    }

    /// The newest snapshot that can be read from end to end and that the log goes on from. A node that
    /// needs one and has none cannot start.
    pub(crate) fn readable_snapshot(
        &self,
        disk: Arc<dyn Disk>,
        found: &RecoveredGroup,
    ) -> Result<Option<LogId>, Trouble> {
        let begins = found.start;
        let mut tried = Vec::new();
        let Some(latest) = &found.snapshot else {
            return no_snapshot(begins, tried);
        };
        let store = match SnapshotStore::open(disk, self.cluster, self.group()) {
            Ok(store) => store,
            Err(error) => return no_snapshot(begins, vec![error.to_string()]),
        };
        let mut candidates = vec![latest.clone()];
        for name in store.list().unwrap_or_default().iter().rev() {
            let whole = name.kind == SnapshotFileKind::Whole;
            if !whole || name.index >= latest.position.index() || name.index < begins.index() {
                continue;
            }
            match store.inspect(&name.to_string()) {
                Ok(info) => candidates.push(info.snapshot),
                Err(error) => tried.push(error.to_string()),
            }
        }
        for snapshot in candidates {
            let read = store.read(&snapshot).map_err(|error| error.to_string());
            let read = read.and_then(|mut reader| {
                std::io::copy(&mut reader, &mut std::io::sink()).map_err(|error| error.to_string())
            });
            match read {
                Ok(_) => return Ok(Some(snapshot.position.id)),
                Err(error) => tried.push(error),
            }
        }
        no_snapshot(begins, tried)
    }

    /// Prints a report and, where asked for, writes it as JSON.
    pub(crate) fn publish<R: fmt::Display + Serialize>(&self, report: &R) -> Result<(), Trouble> {
        say(report);
        match &self.json {
            Some(path) => write_json(path, report),
            None => Ok(()),
        }
    }
}

/// Results go to standard output.
#[allow(clippy::print_stdout)]
pub(crate) fn say(text: &dyn fmt::Display) {
    print!("{text}");
}

fn write_json<R: Serialize>(path: &Path, report: &R) -> Result<(), Trouble> {
    crate::output::write_json(path, report).map_err(|source| Trouble::Json {
        path: path.to_path_buf(),
        source,
    })
}

/// A disk on which what is done to this one is found out.
pub(crate) fn rehearsal(disk: &Arc<dyn Disk>) -> Arc<dyn Disk> {
    Arc::new(Overlay::over(Arc::clone(disk)))
}

/// Fine where the log is there from its first entry on.
fn no_snapshot(begins: Position, tried: Vec<String>) -> Result<Option<LogId>, Trouble> {
    if begins == Position::START {
        return Ok(None);
    }
    Err(Trouble::StateLost {
        before: begins.index().0,
        tried,
    })
}

/// An entry in a report.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

impl Entry {
    pub(crate) fn of(id: LogId) -> Entry {
        Entry {
            term: id.term.0,
            index: id.index.0,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of term {}", self.index, self.term)
    }
}

/// Numbers of nodes in a report.
pub(crate) fn list(ids: &[u64]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    if ids.is_empty() {
        String::from("none")
    } else {
        ids.join(", ")
    }
}

/// A cluster's identity as it is written on a command line: 32 hexadecimal digits, or a name that is
/// filled up with zeros.
pub(crate) fn cluster_id(text: &str) -> Result<ClusterId, String> {
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if digits {
        let number = u128::from_str_radix(text, 16).map_err(|error| error.to_string())?;
        return Ok(ClusterId(number.to_be_bytes()));
    }
    let mut id = [0; 16];
    match id.get_mut(..text.len()) {
        Some(place) if !text.is_empty() => place.copy_from_slice(text.as_bytes()),
        Some(_) | None => {
            return Err("must be a name of 1 to 16 bytes, or 32 hexadecimal digits".into());
        }
    }
    Ok(ClusterId(id))
}

/// The randomness and the wall clock of this process.
pub(crate) fn entropy() -> Entropy {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let wallclock_ns = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    Entropy {
        // RandomState is keyed by the system's randomness.
        seed: RandomState::new().hash_one(wallclock_ns),
        wallclock_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_its_name_or_its_digits() {
        let mut padded = [0; 16];
        padded[..4].copy_from_slice(b"shop");
        assert_eq!(cluster_id("shop"), Ok(ClusterId(padded)));
        let full = ClusterId(*b"my first cluster");
        assert_eq!(cluster_id("my first cluster"), Ok(full));
        let digits = full.to_string();
        assert_eq!(cluster_id(&digits), Ok(full));
        for wrong in [
            "",
            "a name that is too long",
            &digits[1..],
            "+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1",
        ] {
            assert!(cluster_id(wrong).is_err(), "{wrong}");
        }
    }
}
