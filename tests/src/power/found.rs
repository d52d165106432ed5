//! What was found after a power cut, held against what was promised and what the model allows.

use super::counted::{Counted, Observer};
use super::workload::{Held, Workload};
use duraft_disk::{CrashPoint, Disk, DiskOp, FaultDisk, FaultOptions, NotAllowed, RealDisk};
use duraft_storage::OpenError;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The last thing a workload had noted when the power failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moment {
    /// Disk operations that had begun.
    pub started: u64,
    /// Disk operations that had returned.
    pub completed: u64,
    /// What the log had acknowledged: 0 for not even the empty store, then one for each commit.
    pub acked: u64,
}

/// What is to be said of one found disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Recovery returned what was acknowledged, or that and the commit under way.
    pub recovery: Result<(), String>,
    /// The fault model allows these files at this moment.
    pub model: Result<(), NotAllowed>,
}

/// Judges the store in this folder. Recovery writes to it.
pub fn check(workload: &Workload, moment: Moment, root: &Path) -> Result<Verdict, String> {
    let files = files_of(root).map_err(|e| format!("cannot read {}: {e}", root.display()))?;
    let (point, held) = replay(workload, moment)?;
    let disk = RealDisk::create(root).map_err(|e| e.to_string())?;
    Ok(Verdict {
        model: point.allows(&files),
        recovery: recovers(workload, moment, &held, &(Arc::new(disk) as Arc<dyn Disk>)),
    })
}

fn recovers(
    workload: &Workload,
    moment: Moment,
    held: &[Held],
    disk: &Arc<dyn Disk>,
) -> Result<(), String> {
    let found = match workload.reopen(disk) {
        Ok(found) => found,
        Err(OpenError::NoStore | OpenError::StoreFileMissing) if moment.acked == 0 => return Ok(()),
        Err(error) => return Err(format!("{moment:?}: recovery refused: {error}")),
    };
    // Commits 0..=acked+1 of the model; the last is the one that may have been under way.
    let first = usize::try_from(moment.acked.saturating_sub(1)).unwrap_or(usize::MAX);
    let allowed = held.get(first..).unwrap_or_default();
    let allowed = &allowed[..allowed.len().min(2)];
    match &found {
        Some(found) if allowed.contains(found) => {}
        None if moment.acked == 0 => {}
        Some(_) | None => {
            let last = allowed.first().map(|held| held.batches.last());
            let got = found.as_ref().map(|held| held.batches.last());
            return Err(format!("{moment:?}: promised {last:?}, found {got:?}"));
        }
    }
    match workload.reopen(disk) {
        Ok(again) if again == found => Ok(()),
        Ok(_) => Err(format!(
            "{moment:?}: the second recovery found something else"
        )),
        Err(error) => Err(format!("{moment:?}: the second recovery refused: {error}")),
    }
}

/// The same workload on the fault disk up to this moment: what may be left, and what was held after
/// each acknowledgement of the whole run.
fn replay(workload: &Workload, moment: Moment) -> Result<(CrashPoint, Vec<Held>), String> {
    let whole = FaultDisk::new(FaultOptions::default());
    let mut held = Vec::new();
    let door: Arc<dyn Disk> = Arc::new(Counted::new(Arc::new(whole), Box::new(Until(u64::MAX))));
    workload.run(&door, &mut |state| held.push(state.clone()))?;

    let disk = FaultDisk::new(FaultOptions::default());
    if moment.started > moment.completed {
        disk.crash_at(moment.started);
    }
    let observer = Box::new(Until(moment.started));
    let door: Arc<dyn Disk> = Arc::new(Counted::new(Arc::new(disk.clone()), observer));
    // It ends with an error wherever the moment is not past the end.
    drop(workload.run(&door, &mut |_| {}));
    Ok((disk.crash_point(), held))
}

/// Lets so many operations pass.
struct Until(u64);

impl Observer for Until {
    fn before(&mut self, _: DiskOp, number: u64) -> io::Result<()> {
        if number > self.0 {
            return Err(io::Error::other("past the moment of the crash"));
        }
        Ok(())
    }

    fn after(&mut self, _: DiskOp, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// All files below a folder, by their names relative to it; none where there is no such folder.
pub fn files_of(root: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(root.join(&folder)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound && folder.is_empty() => break,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let name = if folder.is_empty() {
                name
            } else {
                format!("{folder}/{name}")
            };
            if entry.file_type()?.is_dir() {
                folders.push(name);
            } else {
                files.insert(name, fs::read(entry.path())?);
            }
        }
    }
    Ok(files)
}
