//! What the facts mean. No I/O: tests go through the cases.

use super::machine::{Device, Mount};
use super::probe::Measured;
use serde::Serialize;
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Good,
    /// It works, and may hurt.
    Warning,
    /// What was acknowledged may be lost, or nothing can be written.
    Bad,
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) what: String,
    #[serde(rename = "do")]
    pub(super) advice: &'static str,
}

/// What there is to judge by.
pub(super) struct Facts<'a> {
    pub(super) in_memory: bool,
    pub(super) file_system: &'a str,
    pub(super) mount: Option<&'a Mount>,
    pub(super) device: Option<&'a Device>,
    pub(super) measured: Option<&'a Measured>,
    /// The clock source, and the step of the wall clock in nanoseconds.
    pub(super) clock: (Option<&'a str>, i64),
    /// Bytes and inodes.
    pub(super) free: (u64, u64),
    pub(super) open_files: Option<u64>,
}

/// A sync below this many microseconds has not waited for any device: a system call and a
/// request through the block layer take longer.
const SYNC_US_MIN: f64 = 5.0;
/// A disk that turns 15 000 times a minute needs two milliseconds for half a turn.
const TURNING_SYNC_US_MIN: f64 = 1000.0;
/// From here on elections suffer before throughput does.
const SYNC_P99_US_SLOW: f64 = 10_000.0;
const FREE_BYTES_LITTLE: u64 = 1 << 30;
const INODES_LITTLE: u64 = 1000;
const OPEN_FILES_LITTLE: u64 = 1024;
const STEP_NS: i64 = 10_000_000;
/// Across a network the sync is the server's, with rules of its own.
const REMOTE: [&str; 8] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "fuse.sshfs",
    "ceph",
    "virtiofs",
];
const TESTED: [&str; 2] = ["ext4", "xfs"];

/// The rule stands in the command's help.
pub(super) fn election_timeout_ms(measured: &Measured) -> u64 {
    let sync = &measured.write_and_sync;
    let wanted_us = (10.0 * sync.p99_us).max(3.0 * sync.max_us).max(150_000.0);
    // Latencies are capped at ten minutes, so this is a small number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let fifties = (wanted_us / 50_000.0).ceil() as u64;
    fifties * 50
}

/// Everything worth saying, the worst first.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    place(facts, &mut findings);
    barriers(facts, &mut findings);
    honesty(facts, &mut findings);
    surroundings(facts, &mut findings);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

fn place(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let mut say = |level, what: String, advice| {
        findings.push(Finding {
            level,
            what,
            advice,
        });
    };
    let name = facts.file_system;
    if facts.in_memory {
        say(
            Level::Bad,
            format!("{name}: the folder is in memory, a sync makes nothing durable"),
            "use a folder on a disk",
        );
        return;
    }
    if REMOTE.contains(&name) {
        say(
            Level::Warning,
            format!(
                "{name}: the files are on another machine, and so is the promise that a sync makes"
            ),
            "use a local disk; else make sure that the server exports synchronously",
        );
    } else if name == "overlay" {
        say(
            Level::Warning,
            String::from(
                "overlay: the folder is in a container's own layer, which goes with the container",
            ),
            "mount a volume for the store",
        );
    } else if !TESTED.contains(&name) {
        say(
            Level::Warning,
            format!("{name}: duraft is tested on ext4 and xfs"),
            "use one of them where you can; copy-on-write file systems write more for each sync",
        );
    }
    let read_only = facts
        .mount
        .is_some_and(|mount| mount.options.iter().any(|o| o == "ro"));
    if read_only {
        say(
            Level::Bad,
            String::from("the file system is mounted read-only"),
            "mount it for writing; the kernel's messages say why, if it was not you",
        );
    }
}

fn barriers(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let Some(mount) = facts.mount else { return };
    let off = ["nobarrier", "barrier=0"];
    let off = mount
        .options
        .iter()
        .find(|option| off.contains(&option.as_str()));
    let cache = facts
        .device
        .and_then(|device| device.write_cache.as_deref());
    if let Some(option) = off {
        let level = if cache == Some("write through") {
            Level::Warning
        } else {
            Level::Bad
        };
        findings.push(Finding {
            level,
            what: format!(
                "mounted with {option}: a sync does not flush the device's cache ({})",
                cache.unwrap_or("the kernel does not say whether it has one")
            ),
            advice: "mount without that option, unless the cache survives a loss of power",
        });
    }
    if let Some(option) = mount.options.iter().find(|o| *o == "data=writeback") {
        findings.push(Finding {
            level: Level::Good,
            what: format!(
                "mounted with {option}: harmless, as the log writes only inside filled files"
            ),
            advice: "nothing",
        });
    }
}

/// Does a sync take as long as it must?
fn honesty(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let Some(measured) = facts.measured else {
        return;
    };
    let sync = &measured.write_and_sync;
    let added = sync.p50_us - measured.write_only.p50_us;
    let rotational = facts.device.and_then(|device| device.rotational);
    let cache = facts
        .device
        .and_then(|device| device.write_cache.as_deref());
    if facts.in_memory {
        return;
    }
    if added < SYNC_US_MIN {
        findings.push(Finding {
            level: Level::Bad,
            what: format!(
                "a sync adds {added:.1} us to a write: no device can answer so fast, so it is not asked"
            ),
            advice: "look for what swallows syncs: a hypervisor's cache mode 'unsafe', a library like eatmydata, a \
                     mount option. Power loss will lose acknowledged commands",
        });
    } else if rotational == Some(true) && sync.p50_us < TURNING_SYNC_US_MIN {
        findings.push(Finding {
            level: Level::Warning,
            what: format!(
                "half of the syncs take less than {:.0} us on a disk that is said to turn",
                sync.p50_us
            ),
            advice: "fine where a controller with a battery, or a virtual disk on flash, is behind it; else the disk \
                     answers from its cache: hdparm -W 0",
        });
    } else {
        findings.push(Finding {
            level: Level::Good,
            what: format!(
                "a sync adds {added:.0} us to a write, which is what a device can do{}",
                match cache {
                    Some("write back") => "; its cache is volatile, and the kernel flushes it",
                    Some("write through") => "; the kernel knows of no volatile cache",
                    Some(_) | None => "",
                }
            ),
            advice: "nothing. Whether the device keeps what it says, only pulling the plug tells",
        });
    }
    if sync.p99_us > SYNC_P99_US_SLOW {
        findings.push(Finding {
            level: Level::Warning,
            what: format!("one sync in a hundred takes more than {:.0} ms", sync.p99_us / 1e3),
            advice: "every commit waits for a sync on a majority. A faster disk, or one that nobody else uses, helps \
                     most; the election timeout below allows for it",
        });
    }
}

fn surroundings(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let mut warn = |what: String, advice| {
        findings.push(Finding {
            level: Level::Warning,
            what,
            advice,
        });
    };
    let (source, step) = facts.clock;
    if let Some(source) =
        source.filter(|source| matches!(*source, "jiffies" | "refined-jiffies" | "pit"))
    {
        warn(
            format!("the clock source is {source}: its steps are milliseconds"),
            "choose tsc, kvm-clock or hpet; leases need a clock that is not coarse",
        );
    }
    if step.abs() > STEP_NS {
        warn(
            format!("the wall clock jumped by {} ms meanwhile", step / 1_000_000),
            "duraft does not use it for decisions; logs and certificates do. Let NTP slew instead of step",
        );
    }
    let (bytes, inodes) = facts.free;
    if bytes < FREE_BYTES_LITTLE {
        warn(
            format!("only {} are free", crate::wal::text::bytes(bytes)),
            "a log needs its slots, two snapshots and room to write a third",
        );
    }
    // Some file systems have no fixed number and say 0.
    if inodes != 0 && inodes < INODES_LITTLE {
        warn(
            format!("only {inodes} inodes are free"),
            "remove small files",
        );
    }
    if let Some(limit) = facts.open_files.filter(|limit| *limit <= OPEN_FILES_LITTLE) {
        warn(
            format!("a process may open {limit} files"),
            "each slot, peer and client needs one: ulimit -n 65536, or LimitNOFILE= in the unit",
        );
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Good => "good",
            Level::Warning => "WARNING",
            Level::Bad => "BAD",
        };
        writeln!(f, "{level}  {}", self.what)?;
        if self.level > Level::Good {
            writeln!(f, "  do  {}", self.advice)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Percentiles;
    use std::path::PathBuf;

    fn latency(p50_us: f64, p99_us: f64, max_us: f64) -> Percentiles {
        Percentiles {
            p50_us,
            p90_us: p99_us,
            p99_us,
            p999_us: max_us,
            p9999_us: max_us,
            max_us,
        }
    }

    fn measured(p50_us: f64, p99_us: f64, max_us: f64) -> Measured {
        Measured {
            syncs: 1000,
            seconds: 1.0,
            write_only: latency(2.0, 3.0, 9.0),
            write_and_sync: latency(p50_us, p99_us, max_us),
        }
    }

    fn mount(options: &[&str]) -> Mount {
        Mount {
            point: PathBuf::from("/data"),
            file_system: String::from("ext4"),
            source: String::from("/dev/sda1"),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        }
    }

    fn device(write_cache: &str, rotational: bool) -> Device {
        Device {
            name: String::from("sda"),
            write_cache: Some(write_cache.to_owned()),
            rotational: Some(rotational),
            ..Device::default()
        }
    }

    /// A good place, changed in one respect; the worst level and what is said of it.
    fn worst(change: impl FnOnce(&mut Facts<'_>)) -> (Level, String) {
        let (mount, device) = (mount(&["rw"]), device("write back", false));
        let measured = measured(400.0, 900.0, 2000.0);
        let mut facts = Facts {
            in_memory: false,
            file_system: "ext4",
            mount: Some(&mount),
            device: Some(&device),
            measured: Some(&measured),
            clock: (Some("tsc"), 1000),
            free: (1 << 40, 1 << 20),
            open_files: Some(65_536),
        };
        // The facts outlive what the change puts in, as it leaks a little.
        change(&mut facts);
        let found = judge(&facts);
        let first = found.first().expect("something is said");
        (first.level, first.what.clone())
    }

    fn leak<T>(value: T) -> &'static T {
        Box::leak(Box::new(value))
    }

    #[test]
    fn a_good_place_is_good_and_each_flaw_is_named() {
        assert_eq!(worst(|_| {}).0, Level::Good);
        type Change = fn(&mut Facts<'_>);
        let cases: &[(Change, Level, &str)] = &[
            (|f| f.in_memory = true, Level::Bad, "in memory"),
            (
                |f| f.file_system = "nfs4",
                Level::Warning,
                "another machine",
            ),
            (|f| f.file_system = "overlay", Level::Warning, "container"),
            (|f| f.file_system = "btrfs", Level::Warning, "tested on"),
            (
                |f| f.mount = Some(leak(mount(&["ro"]))),
                Level::Bad,
                "read-only",
            ),
            (
                |f| f.mount = Some(leak(mount(&["nobarrier"]))),
                Level::Bad,
                "write back",
            ),
            (
                |f| f.mount = Some(leak(mount(&["barrier=0"]))),
                Level::Bad,
                "barrier=0",
            ),
            (
                |f| {
                    f.mount = Some(leak(mount(&["nobarrier"])));
                    f.device = Some(leak(device("write through", false)));
                },
                Level::Warning,
                "write through",
            ),
            (
                |f| f.measured = Some(leak(measured(4.0, 9.0, 50.0))),
                Level::Bad,
                "is not asked",
            ),
            (
                |f| f.device = Some(leak(device("write back", true))),
                Level::Warning,
                "said to turn",
            ),
            (
                |f| f.measured = Some(leak(measured(4000.0, 20_000.0, 90_000.0))),
                Level::Warning,
                "20 ms",
            ),
            (
                |f| f.clock = (Some("jiffies"), 0),
                Level::Warning,
                "jiffies",
            ),
            (
                |f| f.clock = (Some("tsc"), -2_000_000_000),
                Level::Warning,
                "-2000 ms",
            ),
            (|f| f.free = (1 << 20, 1 << 20), Level::Warning, "1 MiB"),
            (|f| f.free = (1 << 40, 5), Level::Warning, "5 inodes"),
            (|f| f.open_files = Some(256), Level::Warning, "256 files"),
        ];
        for (change, level, word) in cases {
            let (found, what) = worst(change);
            assert_eq!(found, *level, "{what}");
            assert!(what.contains(word), "{word}: {what}");
        }
    }

    #[test]
    fn the_election_timeout_follows_its_rule() {
        assert_eq!(election_timeout_ms(&measured(400.0, 900.0, 2000.0)), 150);
        assert_eq!(
            election_timeout_ms(&measured(400.0, 20_000.0, 21_000.0)),
            200
        );
        assert_eq!(
            election_timeout_ms(&measured(400.0, 20_100.0, 21_000.0)),
            250
        );
        assert_eq!(
            election_timeout_ms(&measured(400.0, 900.0, 400_000.0)),
            1200
        );
    }
}
