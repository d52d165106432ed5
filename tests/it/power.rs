//! The workload of the power-cut rig, and its judge, without a device: crash states of the fault disk
//! are written to real folders and judged.

use duraft_disk::{Disk, FaultDisk, FaultOptions, Survival};
use duraft_tests::power::{Counted, Moment, Observer, Verdict, Workload, check};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

const WORK: Workload = Workload {
    seed: 11,
    commits: 40,
};

/// Notes progress up to the first failure.
struct Note(Arc<Mutex<Moment>>, bool);

impl Observer for Note {
    fn before(&mut self, _: duraft_disk::DiskOp, number: u64) -> io::Result<()> {
        if !self.1 {
            self.0.lock().expect("no panics").started = number;
        }
        Ok(())
    }

    fn after(&mut self, _: duraft_disk::DiskOp, number: u64) -> io::Result<()> {
        if !self.1 {
            self.0.lock().expect("no panics").completed = number;
        }
        Ok(())
    }

    fn failed(&mut self, _: duraft_disk::DiskOp, _: u64) {
        self.1 = true;
    }
}

/// Runs the workload until the power fails within this operation, and writes what is left to a
/// folder. Returns the moment as a rig would know it.
fn cut(at: u64, seed: u64, root: &Path) -> Moment {
    let disk = FaultDisk::new(FaultOptions::default());
    disk.crash_at(at);
    let moment = Arc::new(Mutex::new(Moment::default()));
    let note = Box::new(Note(moment.clone(), false));
    let door: Arc<dyn Disk> = Arc::new(Counted::new(Arc::new(disk.clone()), note));
    let ended = WORK.run(&door, &mut |_| moment.lock().expect("no panics").acked += 1);
    assert_eq!(ended.is_err(), disk.crashed());
    write_out(&disk.power_loss(Survival::Drawn(seed)), "", root);
    *moment.lock().expect("no panics")
}

fn write_out(disk: &FaultDisk, folder: &str, root: &Path) {
    std::fs::create_dir_all(root.join(folder)).expect("the folder of the test works");
    for name in disk.list(folder).expect("a folder of the disk") {
        let name = if folder.is_empty() {
            name
        } else {
            format!("{folder}/{name}")
        };
        match disk.open(&name) {
            Ok(file) => {
                let bytes = file
                    .map()
                    .expect("the disk works")
                    .expect("views are offered");
                std::fs::write(root.join(&name), &bytes[..]).expect("the folder of the test works");
            }
            Err(_) => write_out(disk, &name, root),
        }
    }
}

fn judged(at: u64, change: impl Fn(&mut Moment)) -> (Moment, Verdict) {
    let folder = tempfile::tempdir().expect("the folder of the test works");
    let mut moment = cut(at, at, folder.path());
    change(&mut moment);
    let verdict = check(&WORK, moment, folder.path()).expect("the folder of the test works");
    (moment, verdict)
}

#[test]
fn what_the_fault_disk_leaves_is_judged_right() {
    let mut acked = 0;
    for at in (1..240).step_by(7) {
        let (moment, verdict) = judged(at, |_| {});
        assert_eq!(verdict.recovery, Ok(()), "operation {at}");
        assert_eq!(verdict.model, Ok(()), "operation {at}");
        acked = acked.max(moment.acked);
    }
    assert!(acked > 25, "{acked} commits");
}

#[test]
fn promise_that_was_not_kept_is_told() {
    let (_, verdict) = judged(150, |moment| moment.acked += 3);
    let why = verdict.recovery.unwrap_err();
    assert!(why.contains("promised"), "{why}");
}

#[test]
fn content_that_no_crash_leaves_is_told() {
    // What was written later than the moment says cannot be there.
    let (_, verdict) = judged(150, |moment| {
        moment.started -= 40;
        moment.completed -= 40;
    });
    assert!(verdict.model.is_err());
}
