//! The machine that a table was measured on.

use crate::Result;
use duraft_disk::FileSystem;
use std::path::Path;

/// One line, and a warning where nothing is durable there.
pub(crate) fn facts(dir: &Path) -> Result<String> {
    let file_system = FileSystem::of(dir)?;
    if file_system.in_memory {
        eprintln!("warning: NOT DURABLE: {} is in memory", dir.display());
    }
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("unknown".into(), |rest| {
            rest.trim_matches([' ', '\t', ':']).to_string()
        })
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(format!(
        "{}{}, {} cores, Linux {}, {}, write cache: {}",
        if file_system.in_memory {
            "NOT DURABLE: "
        } else {
            ""
        },
        field("/proc/cpuinfo", "model name"),
        std::thread::available_parallelism().map_or(1, usize::from),
        kernel.trim(),
        file_system.type_name,
        file_system.write_cache.as_deref().unwrap_or("unknown"),
    ))
}
