//! One half of `.ci/power-cut`: runs the workload on a mounted file system, or judges what a power
//! cut left there.
//!
//! The workload notes every disk operation and acknowledgement in one sector of the device behind
//! the file system's end, past all caches, so that whoever cuts the record of the device's writes
//! anywhere knows what had been promised there.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use duraft_disk::{Disk, DiskOp, RealDisk};
use duraft_tests::power::{Counted, Moment, Observer, Workload, check};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

const MARK: &[u8; 8] = b"DURAMARK";
const SECTOR: usize = 512;
/// Direct writes want buffers at addresses that are multiples of the device's block.
const ALIGN: usize = 4096;

const USAGE: &str = "\
power_cut work  ROOT SEED COMMITS DEVICE OFFSET [TRIGGER SYNC | skip-syncs N]
    Runs the workload in the folder ROOT, noting its progress in the sector at OFFSET of DEVICE. With
    TRIGGER, this file exists while sync number SYNC of a file runs, for a device that fails then; the
    workload must stop there, and refuse to go on. With skip-syncs, every N-th sync of a file is left
    out: a planted fault.
power_cut check ROOT SEED COMMITS STARTED COMPLETED ACKED
    Exit 0: all that was acknowledged is there, and the fault model allows the files.
    Exit 1: recovery is wrong. Exit 3: recovery is right, the model does not allow the files.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("work") => work(&args[1..]),
        Some("check") => judge(&args[1..]),
        Some(_) | None => Err(USAGE.to_owned()),
    };
    result.unwrap_or_else(|why| {
        eprintln!("{why}");
        ExitCode::from(2)
    })
}

fn number(args: &[String], place: usize) -> Result<u64, String> {
    let text = args.get(place).ok_or(USAGE)?;
    text.parse().map_err(|e| format!("'{text}': {e}"))
}

fn workload(args: &[String]) -> Result<(PathBuf, Workload), String> {
    let root = PathBuf::from(args.first().ok_or(USAGE)?);
    let workload = Workload {
        seed: number(args, 1)?,
        commits: number(args, 2)?,
    };
    Ok((root, workload))
}

fn judge(args: &[String]) -> Result<ExitCode, String> {
    let (root, workload) = workload(args)?;
    let moment = Moment {
        started: number(args, 3)?,
        completed: number(args, 4)?,
        acked: number(args, 5)?,
    };
    let verdict = check(&workload, moment, &root)?;
    if let Err(why) = &verdict.recovery {
        println!("RECOVERY {why}");
        return Ok(ExitCode::from(1));
    }
    if let Err(why) = &verdict.model {
        println!("MODEL {moment:?}: {why}");
        return Ok(ExitCode::from(3));
    }
    Ok(ExitCode::SUCCESS)
}

/// Where progress is noted.
struct Marks {
    device: File,
    offset: u64,
    buffer: Vec<u8>,
    moment: Moment,
}

impl Marks {
    fn write(&mut self) -> io::Result<()> {
        let start = self.buffer.as_ptr().align_offset(ALIGN);
        let sector = &mut self.buffer[start..start + SECTOR];
        let Moment {
            started,
            completed,
            acked,
        } = self.moment;
        sector[..8].copy_from_slice(MARK);
        for (place, value) in [started, completed, acked].into_iter().enumerate() {
            sector[8 + place * 8..16 + place * 8].copy_from_slice(&value.to_le_bytes());
        }
        self.device.write_all_at(sector, self.offset)
    }
}

/// Notes operations, and makes one sync fail.
struct Noting {
    marks: Arc<Mutex<Marks>>,
    trigger: Option<(PathBuf, u64)>,
    syncs: u64,
    /// One of so many syncs is left out: a planted fault.
    skip: Option<u64>,
    failed: bool,
}

impl Observer for Noting {
    fn skips(&mut self, _: DiskOp, _: u64) -> bool {
        self.skip
            .is_some_and(|skip| self.syncs.is_multiple_of(skip))
    }

    fn before(&mut self, op: DiskOp, number: u64) -> io::Result<()> {
        if self.failed {
            // What is done after a failure changes nothing of what was promised before it.
            return Ok(());
        }
        let mut marks = self.marks.lock();
        marks.moment.started = number;
        marks.write()?;
        if op == DiskOp::SyncData {
            self.syncs += 1;
            if let Some((file, _)) = self.trigger.as_ref().filter(|(_, at)| *at == self.syncs) {
                File::create(file)?;
            }
        }
        Ok(())
    }

    fn failed(&mut self, _: DiskOp, _: u64) {
        self.failed = true;
        if let Some((file, _)) = &self.trigger {
            // The device works again: a second sync succeeds and proves nothing.
            drop(std::fs::remove_file(file));
        }
    }

    fn after(&mut self, _: DiskOp, number: u64) -> io::Result<()> {
        if self.failed {
            return Ok(());
        }
        let mut marks = self.marks.lock();
        marks.moment.completed = number;
        marks.write()
    }
}

fn work(args: &[String]) -> Result<ExitCode, String> {
    let (root, workload) = workload(args)?;
    let device = OpenOptions::new()
        .write(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::DIRECT.bits()).map_err(|e| e.to_string())?)
        .open(args.get(3).ok_or(USAGE)?)
        .map_err(|e| format!("cannot open the device: {e}"))?;
    let marks = Arc::new(Mutex::new(Marks {
        device,
        offset: number(args, 4)?,
        buffer: vec![0; 2 * ALIGN],
        moment: Moment::default(),
    }));
    let (trigger, skip) = match args.get(5).map(String::as_str) {
        Some("skip-syncs") => (None, Some(number(args, 6)?.max(1))),
        Some(file) => (Some((PathBuf::from(file), number(args, 6)?)), None),
        None => (None, None),
    };
    let noting = Noting {
        marks: marks.clone(),
        trigger: trigger.clone(),
        syncs: 0,
        skip,
        failed: false,
    };
    let disk = RealDisk::create(&root).map_err(|e| e.to_string())?;
    let door: Arc<dyn Disk> = Arc::new(Counted::new(Arc::new(disk), Box::new(noting)));
    let mut failed = None;
    let ended = workload.run(&door, &mut |_| {
        let mut marks = marks.lock();
        marks.moment.acked += 1;
        failed = marks.write().err().or(failed.take());
    });
    if let Some(error) = failed {
        return Err(format!("cannot note an acknowledgement: {error}"));
    }
    let moment = marks.lock().moment;
    println!("{} {} {}", moment.started, moment.completed, moment.acked);
    match (ended, trigger) {
        (Ok(()), None) => Ok(ExitCode::SUCCESS),
        (Err(why), Some(_)) => {
            println!("stopped: {why}");
            Ok(ExitCode::SUCCESS)
        }
        (Ok(()), Some(_)) => Err("the sync was to fail, and nothing stopped".to_owned()),
        (Err(why), None) => Err(why),
    }
}
