//! Facts about the place of a folder: which file system, on which device, and whether what is
//! synced there outlives the machine's power at all. For reports; no decision of safety rests on
//! it.

use std::io;
use std::path::{Path, PathBuf};

/// Where a folder lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileSystem {
    /// Name of the file system's type, such as `ext4`; `unknown` where the system does not say.
    pub type_name: String,
    /// What is mounted there: usually a device, such as `/dev/nvme0n1p2`.
    pub source: Option<String>,
    /// Where it is mounted.
    pub mount_point: Option<PathBuf>,
    /// Content lives in memory: a sync there makes nothing durable. For an overlay, whether its
    /// writable layer does.
    pub in_memory: bool,
    /// What the kernel believes of the device's volatile write cache: `write back` has one, so that
    /// a sync needs a flush; `write through` has none. `None` where there is no single device.
    pub write_cache: Option<String>,
}

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const OVERLAY: u64 = 0x794c_7630;

/// Longest chain of overlays on overlays that is followed.
const OVERLAY_DEPTH_MAX: u32 = 4;

impl FileSystem {
    /// The file system of this folder or file, which must exist.
    pub fn of(path: &Path) -> io::Result<FileSystem> {
        let path = path.canonicalize()?;
        let magic = magic(&path)?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mount = mount_of(&mounts, &path);
        let type_name = match (&mount, magic) {
            (Some(mount), _) => mount.type_name.clone(),
            (None, TMPFS) => "tmpfs".to_owned(),
            (None, RAMFS) => "ramfs".to_owned(),
            (None, OVERLAY) => "overlay".to_owned(),
            (None, _) => "unknown".to_owned(),
        };
        Ok(FileSystem {
            type_name,
            in_memory: in_memory(&mounts, &path, magic, OVERLAY_DEPTH_MAX),
            write_cache: write_cache(&path),
            source: mount.as_ref().map(|mount| mount.source.clone()),
            mount_point: mount.map(|mount| mount.point),
        })
    }
}

/// The number by which the kernel names the file system's type. Its width differs between targets.
#[allow(clippy::useless_conversion, clippy::cast_sign_loss)]
fn magic(path: &Path) -> io::Result<u64> {
    let magic = rustix::fs::statfs(path)?.f_type;
    // Only the low 32 bits carry the number; some targets sign-extend them.
    Ok(magic as u64 & 0xffff_ffff)
}

fn in_memory(mounts: &str, path: &Path, magic: u64, depth: u32) -> bool {
    match magic {
        TMPFS | RAMFS => true,
        OVERLAY => {
            let upper = mount_of(mounts, path).and_then(|mount| mount.upper);
            match upper {
                // The writable layer may lie outside what this process can see: then it is not
                // known to be in memory.
                Some(upper) if depth > 0 => self::magic(&upper)
                    .is_ok_and(|magic| in_memory(mounts, &upper, magic, depth - 1)),
                Some(_) | None => false,
            }
        }
        _ => false,
    }
}

struct Mount {
    point: PathBuf,
    type_name: String,
    source: String,
    /// The writable layer of an overlay.
    upper: Option<PathBuf>,
}

/// The mount that a path belongs to: the longest mount point above it, of equals the latest.
fn mount_of(mounts: &str, path: &Path) -> Option<Mount> {
    let mut best: Option<Mount> = None;
    for mount in mounts.lines().filter_map(parse_mount) {
        if !path.starts_with(&mount.point) {
            continue;
        }
        let longer = best
            .as_ref()
            .is_none_or(|best| mount.point.components().count() >= best.point.components().count());
        if longer {
            best = Some(mount);
        }
    }
    best
}

/// One line of mountinfo: `id parent dev root point options [fields] - type source super-options`.
fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let point = left.split(' ').nth(4)?;
    let mut right = right.split(' ');
    let type_name = right.next()?.to_owned();
    let source = unescape(right.next()?);
    let upper = right.next().and_then(|options| {
        let upper = options
            .split(',')
            .find_map(|o| o.strip_prefix("upperdir="))?;
        Some(PathBuf::from(unescape(upper)))
    });
    Some(Mount {
        point: PathBuf::from(unescape(point)),
        type_name,
        source,
        upper,
    })
}

/// Blanks in mountinfo are written as three octal digits after a backslash.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let code = escape
            .get(1..4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &escape[4..];
            }
            None => {
                out.push('\\');
                rest = &escape[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn write_cache(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let dev = std::fs::metadata(path).ok()?.dev();
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    let block = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition has no queue of its own: its disk is the folder above.
    let block = block.canonicalize().ok()?;
    let queue = [Some(block.as_path()), block.parent()]
        .into_iter()
        .flatten()
        .map(|folder| folder.join("queue/write_cache"))
        .find_map(|file| std::fs::read_to_string(file).ok())?;
    Some(queue.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /run rw - tmpfs tmpfs rw,size=10k
31 22 0:27 / /data\\040disk rw - xfs /dev/vdb rw
32 22 0:28 / /merged rw - overlay overlay rw,lowerdir=/l,upperdir=/run/upper,workdir=/run/work
33 22 0:29 / /data\\040disk rw - btrfs /dev/vdc rw
";

    #[test]
    fn longest_and_latest_mount_point_owns_the_path() {
        let mount = |path: &str| mount_of(MOUNTS, Path::new(path)).map(|mount| mount.type_name);
        assert_eq!(mount("/home/x").as_deref(), Some("ext4"));
        assert_eq!(mount("/run/x/y").as_deref(), Some("tmpfs"));
        assert_eq!(mount("/runner").as_deref(), Some("ext4"));
        assert_eq!(mount("/data disk/a").as_deref(), Some("btrfs"));
    }

    #[test]
    fn overlay_names_its_writable_layer() {
        let mount = mount_of(MOUNTS, Path::new("/merged/x")).expect("there is such a mount");
        assert_eq!(mount.upper.as_deref(), Some(Path::new("/run/upper")));
    }

    #[test]
    fn lines_of_another_shape_are_skipped() {
        assert!(mount_of("nonsense\n1 2 - \n \\9 - x", Path::new("/")).is_none());
        assert_eq!(unescape("a\\040b\\x\\"), "a b\\x\\");
    }

    #[test]
    fn shared_memory_is_called_in_memory_and_this_crate_is_described() {
        // Calling RAM durable is the one answer that must never be given.
        let shm = Path::new("/dev/shm");
        if shm.is_dir() {
            let facts = FileSystem::of(shm).expect("an existing folder");
            assert!(facts.in_memory, "{facts:?}");
        }
        let here = FileSystem::of(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("it exists");
        assert!(!here.type_name.is_empty());
        assert!(FileSystem::of(Path::new("/no/such/folder")).is_err());
    }
}
