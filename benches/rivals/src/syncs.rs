//! How many calls of the system a durable batch costs: the difference of two runs under strace, divided by
//! the batches between them.

use crate::logs::RIVALS;
use crate::{Options, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const FEW: u64 = 64;
const MANY: u64 = 264;
const SYNCS: &[&str] = &["fdatasync", "fsync", "sync_file_range", "msync"];
const WRITES: &[&str] = &["write", "pwrite64", "writev", "pwritev", "pwritev2"];

/// Prints a table.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!(
        "| | fdatasync | fsync | sync_file_range | msync | writes |\n|---|---|---|---|---|---|"
    );
    for rival in RIVALS
        .iter()
        .filter(|rival| Options::wants(&options.only, rival.name))
    {
        let few = count(rival.name, &options.dir, FEW)?;
        let many = count(rival.name, &options.dir, MANY)?;
        let per_batch = |calls: &[&str]| {
            let of = |run: &BTreeMap<String, f64>| {
                calls.iter().filter_map(|call| run.get(*call)).sum::<f64>()
            };
            format!("{:.2}", (of(&many) - of(&few)) / (MANY - FEW) as f64)
        };
        let mut cells: Vec<String> = SYNCS.iter().map(|call| per_batch(&[call])).collect();
        cells.push(per_batch(WRITES));
        println!("| {} | {} |", rival.name, cells.join(" | "));
    }
    Ok(())
}

/// Calls of a run that appends so many batches of one entry of 256 bytes.
fn count(rival: &str, dir: &Path, batches: u64) -> Result<BTreeMap<String, f64>> {
    let dir = tempfile::Builder::new().prefix("rivals").tempdir_in(dir)?;
    let counts = dir.path().join("counts");
    let traced = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&counts)
        .arg("-e")
        .arg(format!("trace={},{}", SYNCS.join(","), WRITES.join(",")))
        .arg(std::env::current_exe()?)
        .args(["fill", rival])
        .arg(dir.path().join("log"))
        .args([&batches.to_string(), "1", "256"])
        .status()
        .map_err(|error| format!("strace: {error}"))?;
    if !traced.success() {
        return Err(format!("{rival} under strace: {traced}").into());
    }
    // Columns: share of time, seconds, microseconds per call, calls, errors if any, name.
    let table = std::fs::read_to_string(&counts)?;
    let rows = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some((words.last()?.to_string(), words.get(3)?.parse().ok()?))
    });
    Ok(rows.collect())
}
