//! What machine a figure was measured on.

use duraft_disk::FileSystem;
use serde::Serialize;
use std::path::Path;

/// Facts that a figure means nothing without.
#[derive(Clone, Serialize)]
pub(crate) struct Facts {
    pub(crate) duraft: &'static str,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    pub(crate) mount_options: Option<String>,
    /// How the log makes its commits durable.
    pub(crate) sync: &'static str,
    pub(crate) direct_io: bool,
    /// Built without optimisation, or with checks that a release does not have.
    pub(crate) debug_build: bool,
    /// What the kernel says of the device's write cache, where it says anything.
    pub(crate) write_cache: Option<String>,
    /// False where the folder is in memory: a sync there makes nothing durable.
    pub(crate) durable: bool,
}

impl Facts {
    /// Reads the facts of this machine and of the file system that holds `dir`.
    pub(crate) fn read(dir: &Path) -> std::io::Result<Facts> {
        let file_system = FileSystem::of(dir)?;
        let uname = rustix::system::uname();
        Ok(Facts {
            duraft: env!("CARGO_PKG_VERSION"),
            cpu: cpu_model(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory(),
            mount_options: crate::doctor::mount_options(dir),
            sync: "pwrite, then fdatasync, for each group commit",
            direct_io: false,
            debug_build: cfg!(debug_assertions),
            kernel: format!(
                "{} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy()
            ),
            durable: !file_system.in_memory,
            write_cache: file_system.write_cache,
            file_system: match file_system.source {
                Some(source) => format!("{} on {source}", file_system.type_name),
                None => file_system.type_name,
            },
        })
    }
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}, {} cores, {}, {} ({}), write cache: {}",
            self.cpu,
            self.cores,
            self.kernel,
            self.file_system,
            self.mount_options
                .as_deref()
                .unwrap_or("mount options not known"),
            self.write_cache.as_deref().unwrap_or("not known")
        )
    }
}

/// Bytes of memory of the machine.
fn memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    model.map_or_else(
        || String::from("unknown CPU"),
        |rest| rest.trim_start_matches([' ', '\t', ':']).to_string(),
    )
}
