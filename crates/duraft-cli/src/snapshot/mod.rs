//! `duraft snapshot`: what a snapshot is of, whether all of it can be read, its content out of the
//! file, and a new cluster that begins with it.

mod content;
mod export;
mod import;

pub(crate) use content::skip_sessions;

use crate::output::Out;
use crate::wal::folder::ReadFolder;
use crate::wal::text::{Members, bytes};
use clap::{Args, Subcommand};
use duraft_disk::{Disk, DiskError};
use duraft_storage::inspect::View;
use duraft_storage::{
    OpenError, SnapshotError, SnapshotFileFacts, SnapshotFileKind, SnapshotName,
    inspect_snapshot_file, read_snapshot_file,
};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES_LOOK: &str = "\
Examples:
  duraft snapshot verify /var/lib/app/node-1
  duraft snapshot inspect /var/lib/app/node-1/snap/0000000000000001/*.snap --json

PATH is a snapshot file, or a store's folder: then all whole snapshots of all its groups.";

/// Version of the JSON layouts.
const SCHEMA: u32 = 1;

/// Flags of `duraft snapshot`.
#[derive(Args)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Subcommand)]
enum SnapshotCommand {
    /// Show what a snapshot is of: cluster, group, position, members, size. Reads header and footer only.
    ///
    /// Exit codes: 0 shown; 1 header or footer is damaged, or the snapshot that the log counts on is
    /// missing; 2 cannot tell, or wrong usage.
    #[command(after_help = EXAMPLES_LOOK)]
    Inspect(LookArgs),
    /// Read a snapshot from end to end and compare every checksum and the digest.
    ///
    /// Exit codes: 0 clean; 1 damaged, or the snapshot that the log counts on is missing; 2 cannot
    /// tell, or wrong usage.
    #[command(after_help = EXAMPLES_LOOK)]
    Verify(LookArgs),
    /// Write a snapshot's content, the state machine's bytes, to a file, and its facts beside it.
    ///
    /// Every byte is checked on its way. The table of client sessions that stands before the state
    /// machine's own bytes is left out, unless --whole is there. Exit codes: 0 done; 1 the snapshot is
    /// damaged, and no file is left; 2 cannot tell, or wrong usage.
    #[command(after_help = export::EXAMPLES)]
    Export(export::ExportArgs),
    /// Make the store of one node of a NEW cluster that begins with an exported state.
    ///
    /// This is no repair of a cluster: the new one has another identity, its log begins where the
    /// snapshot was taken, and what was committed after that is not in it. Client sessions end. Do it
    /// once for each member of the new cluster, with the same file, cluster and voters; start the
    /// nodes; and never start a node of the old cluster for the same clients again, or there are two
    /// states that both go on.
    ///
    /// Exit codes: 0 done; 1 the file does not fit its facts; 2 refused, or wrong usage: a folder
    /// that is there already is never touched.
    #[command(after_help = import::EXAMPLES)]
    Import(import::ImportArgs),
}

/// Flags of `inspect` and `verify`.
#[derive(Args)]
struct LookArgs {
    /// Snapshot files, or folders of stores.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Why a command could not do what it is for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("cannot read '{}': {source}", path.display())]
    Disk { path: PathBuf, source: DiskError },
    #[error("'{}': {source}", path.display())]
    Store { path: PathBuf, source: OpenError },
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
    #[error("{op} '{}': {source}", path.display())]
    File {
        op: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("'{}' is there already; name a place that is not", .0.display())]
    Exists(PathBuf),
    #[error("'{}' holds no snapshot", .0.display())]
    NoSnapshot(PathBuf),
    #[error(
        "the content does not begin with sessions ({0}): it was not written by a duraft node. Use --whole"
    )]
    Sessions(String),
    #[error("'{}' is no file of facts that `duraft snapshot export` writes: {problem}", path.display())]
    Facts { path: PathBuf, problem: String },
    #[error("'{}' {problem}", path.display())]
    State { path: PathBuf, problem: String },
    #[error("{0}")]
    Refused(String),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl Problem {
    /// 1: the data is at fault. 2: anything else.
    pub(crate) fn code(&self) -> ExitCode {
        let damage = match self {
            Problem::Snapshot(error) => error.is_damage(),
            Problem::State { .. } => true,
            Problem::Disk { .. }
            | Problem::Store { .. }
            | Problem::File { .. }
            | Problem::Exists(_)
            | Problem::NoSnapshot(_)
            | Problem::Sessions(_)
            | Problem::Facts { .. }
            | Problem::Refused(_)
            | Problem::Output(_) => false,
        };
        ExitCode::from(if damage { 1 } else { 2 })
    }
}

/// Exit codes as the help of each command says.
pub(crate) fn run(args: &SnapshotArgs) -> Result<ExitCode, Problem> {
    match &args.command {
        SnapshotCommand::Inspect(args) => look(args, false),
        SnapshotCommand::Verify(args) => look(args, true),
        SnapshotCommand::Export(args) => export::run(args),
        SnapshotCommand::Import(args) => import::run(args),
    }
}

/// A snapshot file: the folder it is opened from, and its name there.
pub(crate) struct Place {
    pub(crate) disk: ReadFolder,
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The log of the store that holds it counts on it; `None` where there is no store around it.
    pub(crate) counted_on: Option<bool>,
}

impl Place {
    fn of_file(path: &Path) -> Result<Place, Problem> {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Place {
            disk: open(folder)?,
            name,
            path: path.to_path_buf(),
            counted_on: None,
        })
    }
}

fn open(folder: &Path) -> Result<ReadFolder, Problem> {
    ReadFolder::open(folder).map_err(|source| Problem::Disk {
        path: folder.to_path_buf(),
        source,
    })
}

/// The snapshots of a store's folder, or the one file; and the names of those that the log counts on
/// and that are not there.
pub(crate) fn places(path: &Path) -> Result<(Vec<Place>, Vec<PathBuf>), Problem> {
    if !path.is_dir() {
        return Ok((vec![Place::of_file(path)?], Vec::new()));
    }
    let disk = open(path)?;
    let (view, _) = View::settled(&disk, 8).map_err(|source| Problem::Store {
        path: path.to_path_buf(),
        source,
    })?;
    let wanted: BTreeSet<String> = view
        .groups
        .iter()
        .filter_map(|(group, facts)| Some((group, facts.snapshot.as_ref()?)))
        .map(|(group, snapshot)| format!("snap/{:016x}/{}", group.0, SnapshotName::of(snapshot)))
        .collect();
    let mut found = Vec::new();
    for group in view.groups.keys() {
        let folder = format!("snap/{:016x}", group.0);
        // A store whose node was never started has no such folder.
        for name in disk.list(&folder).unwrap_or_default() {
            let whole =
                SnapshotName::parse(&name).is_some_and(|name| name.kind == SnapshotFileKind::Whole);
            let name = format!("{folder}/{name}");
            if whole {
                found.push(Place {
                    disk: open(path)?,
                    path: path.join(&name),
                    counted_on: Some(wanted.contains(&name)),
                    name,
                });
            }
        }
    }
    let there: BTreeSet<&String> = found.iter().map(|place| &place.name).collect();
    let missing = wanted.iter().filter(|name| !there.contains(name));
    let missing = missing.map(|name| path.join(name)).collect();
    Ok((found, missing))
}

/// What is said of one file.
#[derive(Serialize)]
struct Finding {
    file: PathBuf,
    verdict: &'static str,
    /// The log of its store counts on it.
    counted_on: Option<bool>,
    facts: Option<Facts>,
    problem: Option<String>,
}

/// A snapshot's facts, as `inspect` shows and `export` writes them.
#[derive(Serialize)]
pub(crate) struct Facts {
    cluster: String,
    group: u64,
    index: u64,
    term: u64,
    log_digest: String,
    members: Members,
    content_bytes: u64,
    file_bytes: u64,
    chunks: u32,
    chunk_bytes: u32,
    nonce: String,
    digest: String,
}

impl Facts {
    pub(crate) fn of(facts: &SnapshotFileFacts) -> Facts {
        let info = &facts.info;
        let snapshot = &info.snapshot;
        Facts {
            cluster: facts.cluster.to_string(),
            group: facts.group.0,
            index: snapshot.position.index().0,
            term: snapshot.position.term().0,
            log_digest: format!("{:016x}", snapshot.position.digest.0),
            members: Members::of(&snapshot.membership),
            content_bytes: info.content_bytes,
            file_bytes: snapshot.file.bytes,
            chunks: info.chunks,
            chunk_bytes: info.chunk_bytes,
            nonce: format!("{:016x}", snapshot.file.nonce),
            digest: format!("{:016x}", snapshot.file.digest),
        }
    }
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "  of       group {} of cluster {}",
            self.group, self.cluster
        )?;
        writeln!(
            f,
            "  covers   everything up to entry {} of term {} (log digest {})",
            self.index, self.term, self.log_digest
        )?;
        writeln!(f, "  members  {}", self.members)?;
        writeln!(
            f,
            "  content  {} in {} chunks of {}; digest {}",
            bytes(self.content_bytes),
            self.chunks,
            bytes(self.chunk_bytes.into()),
            self.digest
        )
    }
}

fn look(args: &LookArgs, read: bool) -> Result<ExitCode, Problem> {
    let mut findings = Vec::new();
    for path in &args.paths {
        let (places, missing) = places(path)?;
        if places.is_empty() && missing.is_empty() {
            return Err(Problem::NoSnapshot(path.clone()));
        }
        findings.extend(places.iter().map(|place| examine(place, read)));
        findings.extend(missing.into_iter().map(|file| Finding {
            file,
            verdict: "missing",
            counted_on: Some(true),
            facts: None,
            problem: Some(String::from(
                "the log counts on this file, and it is not there",
            )),
        }));
    }
    let worst = findings.iter().map(|finding| rank(finding.verdict)).max();
    let code = match worst {
        None | Some(0) => 0,
        // Damage is certain, whatever else cannot be told.
        Some(2) => 1,
        Some(_) => 2,
    };
    let mut out = Out::new();
    if args.json {
        #[derive(Serialize)]
        struct Report<'a> {
            schema: u32,
            read: bool,
            exit: u8,
            snapshots: &'a [Finding],
        }
        out.json_pretty(&Report {
            schema: SCHEMA,
            read,
            exit: code,
            snapshots: &findings,
        })?;
    } else {
        for finding in &findings {
            say(&mut out, finding)?;
        }
    }
    out.done()?;
    Ok(ExitCode::from(code))
}

fn rank(verdict: &str) -> u8 {
    match verdict {
        "clean" | "not read" => 0,
        "damaged" | "missing" => 2,
        _ => 1,
    }
}

fn examine(place: &Place, read: bool) -> Finding {
    let (facts, outcome) = match inspect_snapshot_file(&place.disk, &place.name) {
        Ok(facts) => {
            let outcome = if read { read_through(place) } else { Ok(()) };
            (Some(Facts::of(&facts)), outcome)
        }
        Err(error) => (None, Err(error)),
    };
    let verdict = match &outcome {
        Ok(()) if read => "clean",
        Ok(()) => "not read",
        Err(error) if error.is_damage() => "damaged",
        Err(_) => "cannot tell",
    };
    Finding {
        file: place.path.clone(),
        verdict,
        counted_on: place.counted_on,
        facts,
        problem: outcome.err().map(|error| error.to_string()),
    }
}

fn read_through(place: &Place) -> Result<(), SnapshotError> {
    let (_, mut reader) = read_snapshot_file(&place.disk, &place.name)?;
    match io::copy(&mut reader, &mut io::sink()) {
        Ok(_) => Ok(()),
        Err(error) => Err(cause_of(&error, &place.name)),
    }
}

/// The snapshot's own error inside one of reading.
pub(crate) fn cause_of(error: &io::Error, name: &str) -> SnapshotError {
    let source = error.get_ref();
    let cause = source.and_then(|source| source.downcast_ref::<SnapshotError>());
    cause.cloned().unwrap_or_else(|| SnapshotError::Name {
        name: format!("{name}: {error}"),
    })
}

fn say(out: &mut Out, finding: &Finding) -> io::Result<()> {
    let word = match finding.counted_on {
        Some(true) => ", the one that the log counts on",
        Some(false) => ", an older or a newer one than the log counts on",
        None => "",
    };
    let verdict = finding.verdict.to_uppercase();
    out.line(format_args!("{verdict}  {}{word}", finding.file.display()))?;
    if let Some(facts) = &finding.facts {
        out.line(facts.to_string().trim_end())?;
    }
    if let Some(problem) = &finding.problem {
        out.line(format_args!("  what     {problem}"))?;
        out.line(
            "  do       keep a node from starting on it alone: with peers it asks them for a snapshot; else an \
             older one and the log behind it may do. See `duraft wal verify`",
        )?;
    }
    Ok(())
}
