//! `duraft snapshot export`.

use super::content::skip_sessions;
use super::{Facts, Place, Problem, SCHEMA, cause_of, places};
use crate::output::{say, write_json};
use clap::Args;
use duraft_storage::{SnapshotFileFacts, SnapshotReader, read_snapshot_file};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(super) const EXAMPLES: &str = "\
Examples:
  duraft snapshot export /var/lib/app/node-1 --to state.bin
  duraft snapshot export some-file.snap --to state.bin --whole

Writes state.bin and state.bin.json. From a store's folder it takes the snapshot that the log counts
on; --group says which one, where there are several groups.";

/// Flags of `duraft snapshot export`.
#[derive(Args)]
pub(super) struct ExportArgs {
    /// A snapshot file, or a store's folder.
    path: PathBuf,

    /// File for the content; its facts go to the same name with `.json`. Neither may be there.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,

    /// The group, where the path is a store's folder.
    #[arg(long, default_value_t = 1)]
    group: u64,

    /// The content as it is, with the table of client sessions at its front.
    #[arg(long)]
    whole: bool,
}

/// What stands beside an exported state.
#[derive(Serialize, Deserialize)]
pub(super) struct Exported {
    pub(super) schema: u32,
    /// Always `duraft exported state`.
    pub(super) kind: String,
    pub(super) group: u64,
    pub(super) index: u64,
    pub(super) term: u64,
    /// Of the log up to there, 16 hexadecimal digits.
    pub(super) log_digest: String,
    /// Bytes of the exported file.
    pub(super) bytes: u64,
    /// Its CRC-32/IEEE, 8 hexadecimal digits.
    pub(super) crc32: String,
    /// The table of client sessions stands at its front.
    pub(super) whole: bool,
    /// Sessions that were left out, where they were.
    pub(super) sessions_left_out: Option<u32>,
    /// All that the snapshot says of itself.
    pub(super) snapshot: serde_json::Value,
}

pub(super) const KIND: &str = "duraft exported state";

/// Name of the file of facts that belongs to a state.
pub(super) fn facts_path(state: &Path) -> PathBuf {
    let mut name = state.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

pub(super) fn run(args: &ExportArgs) -> Result<ExitCode, Problem> {
    let place = the_one(args)?;
    let facts_to = facts_path(&args.to);
    for path in [&args.to, &facts_to] {
        if path.exists() {
            return Err(Problem::Exists(path.clone()));
        }
    }
    let (facts, mut reader) = read_snapshot_file(&place.disk, &place.name)?;
    let written = write_content(args, &place, &mut reader);
    let (sessions, bytes, crc) = written.inspect_err(|_| {
        // Half a state must not be taken for a whole one.
        let _ = std::fs::remove_file(&args.to);
    })?;
    let exported = exported(&facts, args, sessions, bytes, crc)?;
    write_json(&facts_to, &exported).map_err(|source| Problem::File {
        op: "cannot write",
        path: facts_to.clone(),
        source,
    })?;
    say(&format!(
        "{bytes} bytes of state up to entry {} of term {} in {}, facts in {}{}",
        exported.index,
        exported.term,
        args.to.display(),
        facts_to.display(),
        sessions.map_or(String::new(), |count| format!(
            "; {count} client sessions left out"
        ))
    ));
    Ok(ExitCode::SUCCESS)
}

fn the_one(args: &ExportArgs) -> Result<Place, Problem> {
    let folder = format!("snap/{:016x}/", args.group);
    let (found, missing) = places(&args.path)?;
    if let Some(missing) = missing
        .iter()
        .find(|path| path.to_string_lossy().contains(&folder))
    {
        let name = missing.display().to_string();
        return Err(duraft_storage::SnapshotError::Missing { name }.into());
    }
    let wanted = |place: &Place| match place.counted_on {
        None => true,
        Some(counted_on) => counted_on && place.name.starts_with(&folder),
    };
    let found = found.into_iter().find(wanted);
    found.ok_or_else(|| Problem::NoSnapshot(args.path.clone()))
}

/// Writes the content and makes it durable: sessions left out, bytes, checksum.
fn write_content(
    args: &ExportArgs,
    place: &Place,
    reader: &mut SnapshotReader,
) -> Result<(Option<u32>, u64, u32), Problem> {
    let failed = |source| Problem::File {
        op: "cannot write",
        path: args.to.clone(),
        source,
    };
    let sessions = if args.whole {
        None
    } else {
        Some(skip_sessions(reader)?)
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&args.to);
    let mut out = BufWriter::with_capacity(1 << 20, file.map_err(failed)?);
    let (mut bytes, mut piece) = (0, vec![0; 256 << 10]);
    let mut crc = Crc::default();
    loop {
        let read = reader.read(&mut piece);
        let read = read.map_err(|error| cause_of(&error, &place.name))?;
        if read == 0 {
            break;
        }
        crc.add(&piece[..read]);
        out.write_all(&piece[..read]).map_err(failed)?;
        bytes += read as u64;
    }
    let file: File = out
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok((sessions, bytes, crc.0.finalize()))
}

/// CRC-32/IEEE of bytes that come in pieces.
#[derive(Default)]
pub(super) struct Crc(pub(super) crc32fast::Hasher);

impl Crc {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

fn exported(
    facts: &SnapshotFileFacts,
    args: &ExportArgs,
    sessions_left_out: Option<u32>,
    bytes: u64,
    crc: u32,
) -> Result<Exported, Problem> {
    let position = facts.info.snapshot.position;
    let snapshot = serde_json::to_value(Facts::of(facts)).map_err(std::io::Error::from)?;
    Ok(Exported {
        schema: SCHEMA,
        kind: KIND.to_owned(),
        group: facts.group.0,
        index: position.index().0,
        term: position.term().0,
        log_digest: format!("{:016x}", position.digest.0),
        bytes,
        crc32: format!("{crc:08x}"),
        whole: args.whole,
        sessions_left_out,
        snapshot,
    })
}
