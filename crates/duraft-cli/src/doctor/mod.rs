//! `duraft doctor`: is this a place for a log? What the file system, the device, the clock and the
//! limits say, and what a sync costs.

mod judge;
mod machine;
mod probe;

use crate::output::publish;
use clap::Args;
use duraft_disk::FileSystem;
use judge::{Facts, Finding, Level};
use machine::{Device, DirectIo, Mount};
use probe::{Measured, Probe};
use serde::Serialize;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub(crate) const EXAMPLES: &str = "\
Examples:
  duraft doctor /var/lib/app
  duraft doctor /var/lib/app --seconds 20 --json | jq .election_timeout_ms

The election timeout that it suggests is the greatest of 150 ms, ten times the 99th percentile of a
write with its sync, and three times the longest seen, rounded up to 50 ms: a follower must not give
its leader up because a disk was slow for once. Measure on a machine under its usual load.";

/// Version of the JSON layout.
const SCHEMA: u32 = 1;

/// Flags of `duraft doctor`.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// The folder that a store is in or is to be made in.
    dir: PathBuf,

    /// Seconds of writing and syncing a file of 16 MiB in the folder, which is removed afterwards.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Write nothing: only say what the system says.
    #[arg(long)]
    no_write: bool,

    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("cannot look at '{}': {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot write a file in '{}': {source}. With --no-write nothing is written", path.display())]
    Probe { path: PathBuf, source: io::Error },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

#[derive(Serialize)]
struct Report {
    schema: u32,
    folder: PathBuf,
    verdict: &'static str,
    exit: u8,
    facts: crate::bench::Facts,
    mount: Option<Mount>,
    device: Option<Device>,
    direct_io: Option<DirectIo>,
    measured: Option<Measured>,
    clock: Clock,
    free_bytes: u64,
    free_inodes: u64,
    open_files_soft: Option<u64>,
    open_files_hard: Option<u64>,
    /// `None` where nothing was measured.
    election_timeout_ms: Option<u64>,
    findings: Vec<Finding>,
}

/// The clocks over the time that the command took.
#[derive(Clone, Serialize)]
struct Clock {
    source: Option<String>,
    /// By how much the wall clock went ahead of the steady one; behind it, where negative.
    wall_step_ns: i64,
    watched_seconds: f64,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode, Problem> {
    let report = examine(args)?;
    publish(&report, args.json)?;
    Ok(ExitCode::from(report.exit))
}

fn examine(args: &DoctorArgs) -> Result<Report, Problem> {
    let failed = |source| Problem::Folder {
        path: args.dir.clone(),
        source,
    };
    let not_written = |source| Problem::Probe {
        path: args.dir.clone(),
        source,
    };
    let folder = args.dir.canonicalize().map_err(failed)?;
    if !folder.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let watch = Watch::start();
    let file_system = FileSystem::of(&folder).map_err(failed)?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = machine::mount_of(&mounts, &folder);
    let probe = if args.no_write {
        None
    } else {
        Some(Probe::create(&folder).map_err(not_written)?)
    };
    // Limits of direct I/O are those of a file.
    let subject = probe.as_ref().map_or(folder.as_path(), Probe::path);
    let ((major, minor), direct_io) = machine::statx(subject).map_err(failed)?;
    let device = machine::device_of(Path::new("/sys"), major, minor);
    let time = Duration::from_secs(args.seconds);
    let measured = probe.as_ref().map(|probe| probe.measure(time));
    let measured = measured.transpose().map_err(not_written)?;
    let (free_bytes, free_inodes) = machine::free_space(&folder).map_err(failed)?;
    let (open_files_soft, open_files_hard) = machine::open_files();
    let clock = watch.stop();
    let findings = judge::judge(&Facts {
        in_memory: file_system.in_memory,
        file_system: &file_system.type_name,
        mount: mount.as_ref(),
        device: device.as_ref(),
        measured: measured.as_ref(),
        clock: (clock.source.as_deref(), clock.wall_step_ns),
        free: (free_bytes, free_inodes),
        open_files: open_files_soft,
    });
    let worst = findings.iter().map(|finding| finding.level).max();
    let (verdict, exit) = match worst {
        Some(Level::Bad) => ("not fit for a log", 1),
        Some(Level::Warning) => ("fit, with warnings", 0),
        Some(Level::Good) | None => ("fit", 0),
    };
    Ok(Report {
        schema: SCHEMA,
        facts: crate::bench::Facts::read(&folder).map_err(failed)?,
        folder,
        verdict,
        exit,
        mount,
        device,
        direct_io,
        election_timeout_ms: measured.as_ref().map(judge::election_timeout_ms),
        measured,
        clock,
        free_bytes,
        free_inodes,
        open_files_soft,
        open_files_hard,
        findings,
    })
}

/// Options of the mount that holds this folder, as the kernel writes them.
pub(crate) fn mount_options(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    Some(machine::mount_of(&mounts, &folder)?.options.join(","))
}

struct Watch {
    wall: i128,
    steady: i128,
}

impl Watch {
    fn start() -> Watch {
        Watch {
            wall: machine::clock_ns(rustix::time::ClockId::Realtime),
            steady: machine::clock_ns(rustix::time::ClockId::Boottime),
        }
    }

    fn stop(&self) -> Clock {
        let now = Watch::start();
        let steady = now.steady - self.steady;
        let step = now.wall - self.wall - steady;
        let milliseconds = u32::try_from(steady / 1_000_000).unwrap_or(u32::MAX);
        Clock {
            source: machine::clock_source(Path::new("/sys")),
            wall_step_ns: i64::try_from(step).unwrap_or(i64::MAX),
            watched_seconds: f64::from(milliseconds) / 1e3,
        }
    }
}

/// In the place of what the kernel does not tell.
fn unknown() -> String {
    String::from("not told by the kernel")
}

impl Report {
    fn device_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            None => writeln!(
                f,
                "device          no single block device below this folder"
            )?,
            Some(device) => writeln!(
                f,
                "device          {}{}, write cache: {}, {}, scheduler {}",
                device.name,
                device
                    .model
                    .as_ref()
                    .map_or(String::new(), |model| format!(" ({model})")),
                device.write_cache.clone().unwrap_or_else(unknown),
                match device.rotational {
                    Some(true) => "turns",
                    Some(false) => "does not turn",
                    None => "not known whether it turns",
                },
                device.scheduler.clone().unwrap_or_else(unknown),
            )?,
        }
        match self.direct_io {
            None => writeln!(f, "direct I/O      {}", unknown()),
            Some(DirectIo {
                offset_align: 0, ..
            }) => writeln!(f, "direct I/O      not possible on this file system"),
            Some(direct) => writeln!(
                f,
                "direct I/O      memory aligned to {}, offsets to {} bytes",
                direct.memory_align, direct.offset_align
            ),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "folder          {}", self.folder.display())?;
        writeln!(f, "machine         {}", self.facts)?;
        if let Some(mount) = &self.mount {
            writeln!(
                f,
                "mount           {} on {}, {}",
                mount.file_system,
                mount.source,
                mount.options.join(",")
            )?;
        }
        self.device_text(f)?;
        if let Some(measured) = &self.measured {
            writeln!(f, "4 KiB write     {}", measured.write_only)?;
            writeln!(
                f,
                "  + fdatasync   {}; {} in {:.1} s",
                measured.write_and_sync, measured.syncs, measured.seconds
            )?;
        }
        writeln!(
            f,
            "clock           {}; the wall clock moved by {:.3} ms against the steady one in {:.1} s",
            self.clock.source.clone().unwrap_or_else(unknown),
            milliseconds(self.clock.wall_step_ns),
            self.clock.watched_seconds
        )?;
        writeln!(
            f,
            "free            {}, {} inodes",
            crate::wal::text::bytes(self.free_bytes),
            self.free_inodes
        )?;
        let limit = |limit: Option<u64>| limit.map_or(String::from("no limit"), |n| n.to_string());
        writeln!(
            f,
            "open files      {}, at most {}",
            limit(self.open_files_soft),
            limit(self.open_files_hard)
        )?;
        for finding in &self.findings {
            write!(f, "{finding}")?;
        }
        if let Some(timeout) = self.election_timeout_ms {
            writeln!(
                f,
                "election timeout {timeout} ms at least: the greatest of 150 ms, ten times the 99th percentile and \
                 three times the longest write with its sync, rounded up to 50 ms"
            )?;
        }
        write!(f, "{}", self.verdict.to_uppercase())
    }
}

#[allow(clippy::cast_precision_loss)]
fn milliseconds(ns: i64) -> f64 {
    ns as f64 / 1e6
}
