//! What the system says of a folder, its device, its clock and its limits. Everything is read from
//! files of the kernel; what it does not say is `None`, and no guess.

use rustix::fs::{AtFlags, StatxFlags};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A line of /proc/self/mountinfo.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    pub(super) file_system: String,
    pub(super) source: String,
    /// Options of the mount and of the file system, as the kernel writes them.
    pub(super) options: Vec<String>,
}

/// The mount that holds this path, which must be absolute: of several on top of each other, the last.
pub(super) fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(parse_mount);
    let holding = mounts.filter(|mount| path.starts_with(&mount.point));
    // `max_by_key` takes the last of equals, which is the one on top.
    holding.max_by_key(|mount| mount.point.components().count())
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(4);
    let point = unescape(fields.next()?);
    let own = fields.next()?;
    let mut rest = after.split(' ');
    let file_system = rest.next()?.to_owned();
    let source = unescape(rest.next()?);
    let options = own.split(',').chain(rest.next().unwrap_or("").split(','));
    Some(Mount {
        point: PathBuf::from(point),
        file_system,
        source,
        options: options
            .filter(|o| !o.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

/// The kernel writes blanks in names as three octal digits.
fn unescape(text: &str) -> String {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    escapes.iter().fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

/// A block device, as /sys tells of it.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) model: Option<String>,
    /// `write back`: it has a volatile cache that a sync must flush. `write through`: it has none.
    pub(super) write_cache: Option<String>,
    /// Turns; a sync cannot be faster than a part of a turn.
    pub(super) rotational: Option<bool>,
    pub(super) physical_block_bytes: Option<u64>,
    pub(super) scheduler: Option<String>,
}

/// The device below this folder; `None` where there is no single one.
pub(super) fn device_of(sys: &Path, major: u32, minor: u32) -> Option<Device> {
    let link = sys.join(format!("dev/block/{major}:{minor}"));
    let own = link.canonicalize().ok()?;
    // Of a partition, the disk has the queue.
    let disk = if own.join("queue").is_dir() {
        own
    } else {
        own.parent()
            .filter(|disk| disk.join("queue").is_dir())?
            .to_path_buf()
    };
    let read = |name: &str| {
        let text = std::fs::read_to_string(disk.join(name)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let scheduler = read("queue/scheduler").map(|text| {
        let chosen = text.split(['[', ']']).nth(1).map(str::to_owned);
        chosen.unwrap_or(text)
    });
    Some(Device {
        name: disk.file_name()?.to_string_lossy().into_owned(),
        model: read("device/model"),
        write_cache: read("queue/write_cache"),
        rotational: read("queue/rotational").map(|text| text != "0"),
        physical_block_bytes: read("queue/physical_block_size").and_then(|text| text.parse().ok()),
        scheduler,
    })
}

/// What direct I/O on a file asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct DirectIo {
    pub(super) memory_align: u32,
    pub(super) offset_align: u32,
}

/// Numbers of the device that holds the file, and its limits of direct I/O where the kernel tells.
pub(super) fn statx(file: &Path) -> std::io::Result<((u32, u32), Option<DirectIo>)> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::DIOALIGN;
    let found = rustix::fs::statx(rustix::fs::CWD, file, AtFlags::empty(), flags)?;
    let told = found.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    let direct = told.then_some(DirectIo {
        memory_align: found.stx_dio_mem_align,
        offset_align: found.stx_dio_offset_align,
    });
    Ok(((found.stx_dev_major, found.stx_dev_minor), direct))
}

/// The clock source in use.
pub(super) fn clock_source(sys: &Path) -> Option<String> {
    let path = "devices/system/clocksource/clocksource0/current_clocksource";
    let text = std::fs::read_to_string(sys.join(path)).ok()?;
    Some(text.trim().to_owned())
}

/// Nanoseconds on this clock.
pub(super) fn clock_ns(clock: rustix::time::ClockId) -> i128 {
    let now = rustix::time::clock_gettime(clock);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

/// Soft and hard limit of open files; `None`: none.
pub(super) fn open_files() -> (Option<u64>, Option<u64>) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (limit.current, limit.maximum)
}

/// Free bytes for users and free inodes.
pub(super) fn free_space(folder: &Path) -> std::io::Result<(u64, u64)> {
    let found = rustix::fs::statvfs(folder)?;
    Ok((
        found.f_bavail.saturating_mul(found.f_frsize),
        found.f_favail,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:25 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=64k
31 22 8:17 / /var/lib/my\\040data rw,noatime - xfs /dev/sdb1 rw,attr2,nobarrier
32 22 8:33 / /var/lib/my\\040data rw - ext4 /dev/sdc1 rw";

    #[test]
    fn the_mount_of_a_folder_is_the_deepest_and_of_those_the_topmost() {
        let of = |path: &str| mount_of(MOUNTS, Path::new(path)).expect("a mount");
        assert_eq!(of("/home/x").source, "/dev/vda");
        assert_eq!(of("/dev/shm/x").file_system, "tmpfs");
        assert_eq!(of("/var/lib/my data/store").source, "/dev/sdc1");
        assert_eq!(of("/var/lib/my dataset").source, "/dev/vda");
        assert_eq!(of("/").options, ["rw", "relatime", "rw", "discard"]);
        assert_eq!(mount_of("nonsense\n", Path::new("/")), None);
    }

    #[test]
    fn a_device_is_read_from_the_disk_of_its_partition() {
        let sys = tempfile::tempdir().expect("a folder");
        let disk = sys.path().join("devices/sda");
        let part = disk.join("sda1");
        for folder in [&disk.join("queue"), &disk.join("device"), &part] {
            std::fs::create_dir_all(folder).expect("made");
        }
        std::fs::create_dir_all(sys.path().join("dev/block")).expect("made");
        let put = |name: &str, text: &str| std::fs::write(disk.join(name), text).expect("written");
        put("queue/write_cache", "write back\n");
        put("queue/rotational", "1\n");
        put("queue/physical_block_size", "4096\n");
        put("queue/scheduler", "none [mq-deadline] bfq\n");
        put("device/model", "OLD DISK  \n");
        let link = sys.path().join("dev/block/8:1");
        std::os::unix::fs::symlink(&part, link).expect("linked");
        let device = device_of(sys.path(), 8, 1).expect("a device");
        assert_eq!(device.name, "sda");
        assert_eq!(device.write_cache.as_deref(), Some("write back"));
        assert_eq!(device.rotational, Some(true));
        assert_eq!(device.physical_block_bytes, Some(4096));
        assert_eq!(device.scheduler.as_deref(), Some("mq-deadline"));
        assert_eq!(device.model.as_deref(), Some("OLD DISK"));
        assert_eq!(device_of(sys.path(), 0, 25), None);
    }
}
