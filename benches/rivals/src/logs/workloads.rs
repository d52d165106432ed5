//! What the logs are asked to do.

use super::{Does, Log, RIVALS, Rival};
use crate::table::{Figure, Table, write_json};
use crate::{FillArgs, Options, Result, machine};
use std::path::Path;
use std::process::{Command, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const VALUE_BYTES: usize = 256;
const APPENDERS: u64 = 64;
/// Of the logs that are opened and cut.
const FILL_BATCHES: u64 = 1024;
const FILL_BATCH: usize = 128;
const ENTRIES: u64 = FILL_BATCHES * FILL_BATCH as u64;
/// What is cut from the end.
const CUT: u64 = 1000;

struct Workload {
    name: &'static str,
    title: &'static str,
    figures: &'static [Figure],
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Append {
        appenders: u64,
        batch: usize,
        bytes: usize,
    },
    Reopen,
    Cut,
}

const fn figure(name: &'static str, digits: usize) -> Figure {
    Figure { name, digits }
}

const RATES: &[Figure] = &[
    figure("batches/s", 0),
    figure("p50 us", 0),
    figure("p99 us", 0),
];

const fn append(
    name: &'static str,
    title: &'static str,
    appenders: u64,
    batch: usize,
    bytes: usize,
) -> Workload {
    Workload {
        name,
        title,
        figures: RATES,
        kind: Kind::Append {
            appenders,
            batch,
            bytes,
        },
    }
}

const WORKLOADS: &[Workload] = &[
    append(
        "append-1",
        "One appender, batches of 1 entry of 256 B",
        1,
        1,
        VALUE_BYTES,
    ),
    append(
        "append-16",
        "One appender, batches of 16 entries of 256 B",
        1,
        16,
        VALUE_BYTES,
    ),
    append(
        "append-128",
        "One appender, batches of 128 entries of 256 B",
        1,
        128,
        VALUE_BYTES,
    ),
    append(
        "append-16k",
        "One appender, batches of 1 entry of 16 KiB",
        1,
        1,
        16 << 10,
    ),
    append(
        "many",
        "64 appenders, batches of 1 entry of 256 B",
        APPENDERS,
        1,
        VALUE_BYTES,
    ),
    Workload {
        name: "reopen",
        title: "Opening a log of 131,072 entries of 256 B after a crash of its process, then reading all",
        figures: &[figure("open ms", 1), figure("read ms", 1)],
        kind: Kind::Reopen,
    },
    Workload {
        name: "cut",
        title: "Cutting 1,000 entries off the end of such a log, then forgetting half of it",
        figures: &[figure("cut ms", 2), figure("purge ms", 2)],
        kind: Kind::Cut,
    },
];

/// Runs everything that is asked for, and prints a table per workload.
pub(crate) fn run(options: &Options) -> Result<()> {
    let facts = machine::facts(&options.dir)?;
    println!(
        "{facts}; {} rounds, slices of {} s",
        options.rounds, options.seconds
    );
    let rivals = || {
        RIVALS
            .iter()
            .filter(|rival| Options::wants(&options.only, rival.name))
    };
    let mut tables: Vec<(&Workload, Table)> = WORKLOADS
        .iter()
        .filter(|workload| Options::wants(&options.workload, workload.name))
        .map(|workload| {
            let Workload {
                name,
                title,
                figures,
                ..
            } = *workload;
            let rows = rivals().map(|rival| (rival.name, Vec::new())).collect();
            (
                workload,
                Table {
                    name,
                    title,
                    figures,
                    rows,
                },
            )
        })
        .collect();
    for round in 1..=options.rounds {
        for (workload, table) in &mut tables {
            eprintln!("round {round}: {}", workload.name);
            for (rival, row) in rivals().zip(&mut table.rows) {
                let figures = if does(rival, workload.kind) {
                    let dir = tempfile::Builder::new()
                        .prefix("rivals")
                        .tempdir_in(&options.dir)?;
                    let done = measure(rival, dir.path(), workload.kind, options);
                    Some(done.map_err(|error| format!("{}: {error}", rival.name))?)
                } else {
                    None
                };
                row.1.push(figures);
            }
        }
    }
    let tables: Vec<Table> = tables.into_iter().map(|(_, table)| table).collect();
    tables.iter().for_each(Table::print);
    match &options.json {
        Some(path) => write_json(path, &facts, &tables),
        None => Ok(()),
    }
}

fn does(rival: &Rival, kind: Kind) -> bool {
    match kind {
        Kind::Append { .. } => true,
        Kind::Reopen => rival.does != Does::AppendAlone,
        Kind::Cut => rival.does == Does::All,
    }
}

fn measure(rival: &Rival, dir: &Path, kind: Kind, options: &Options) -> Result<Vec<f64>> {
    match kind {
        Kind::Append {
            appenders,
            batch,
            bytes,
        } => {
            let log = (rival.open)(dir)?;
            let slice = Duration::from_secs_f64(options.seconds);
            load(&*log, appenders, &values(batch, bytes), slice / 3)?;
            load(&*log, appenders, &values(batch, bytes), slice)
        }
        Kind::Reopen => {
            let (log, opened) = reopened(rival, dir)?;
            let begun = Instant::now();
            let bytes = log.read(1, ENTRIES)?;
            if bytes != ENTRIES * VALUE_BYTES as u64 {
                return Err(format!("read {bytes} bytes").into());
            }
            Ok(vec![millis(opened), millis(begun.elapsed())])
        }
        Kind::Cut => cut(&*reopened(rival, dir)?.0),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Values that do not compress, and differ.
fn values(batch: usize, bytes: usize) -> Vec<Vec<u8>> {
    let mut word = 1;
    let mut value = || {
        let words = std::iter::repeat_with(|| {
            word = duraft_core::mix64(word);
            word.to_le_bytes()
        });
        words.flatten().take(bytes).collect()
    };
    (0..batch).map(|_| value()).collect()
}

/// Appends for a while: batches per second, and latencies.
fn load(log: &dyn Log, appenders: u64, values: &[Vec<u8>], slice: Duration) -> Result<Vec<f64>> {
    let batch: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let (batch, stop) = (Arc::new(batch), AtomicBool::new(false));
    let begun = Instant::now();
    let (stop, batch) = (&stop, &batch);
    let append = move |appender| -> Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let one = Instant::now();
            log.append(appender, batch)?;
            latencies.push(one.elapsed());
            if begun.elapsed() >= slice {
                stop.store(true, Ordering::Relaxed);
            }
        }
        Ok(latencies)
    };
    let mut latencies = if appenders == 1 {
        append(0)?
    } else {
        std::thread::scope(|scope| -> Result<Vec<Duration>> {
            let threads: Vec<_> = (0..appenders)
                .map(|a| scope.spawn(move || append(a)))
                .collect();
            let mut all = Vec::new();
            for thread in threads {
                all.extend(thread.join().map_err(|_| "an appender panicked")??);
            }
            Ok(all)
        })?
    };
    let seconds = begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    Ok(vec![
        latencies.len() as f64 / seconds,
        micros(at(0.5)),
        micros(at(0.99)),
    ])
}

/// Fills a log in another process, which ends without a word, and opens it: every entry must be there.
/// How long opening took, until the bounds of the log are known.
fn reopened(rival: &Rival, dir: &Path) -> Result<(Box<dyn Log>, Duration)> {
    let filled = Command::new(std::env::current_exe()?)
        .args(["fill", rival.name])
        .arg(dir)
        .args([FILL_BATCHES, FILL_BATCH as u64, VALUE_BYTES as u64].map(|n| n.to_string()))
        .status()?;
    if !filled.success() {
        return Err(format!("filling the log: {filled}").into());
    }
    let begun = Instant::now();
    let log = (rival.open)(dir)?;
    let bounds = log.bounds()?;
    let opened = begun.elapsed();
    if bounds != (1, ENTRIES) {
        return Err(format!("acknowledged 1 to {ENTRIES}, there are {bounds:?}").into());
    }
    Ok((log, opened))
}

fn cut(log: &dyn Log) -> Result<Vec<f64>> {
    let begun = Instant::now();
    log.truncate(ENTRIES - CUT + 1)?;
    let truncated = begun.elapsed();
    let begun = Instant::now();
    log.purge(ENTRIES / 2)?;
    let purged = begun.elapsed();
    let (first, last) = log.bounds()?;
    // raft-engine cuts by writing an entry in the place of the first that goes.
    let last_is_right = (ENTRIES - CUT..=ENTRIES - CUT + 1).contains(&last);
    if first != ENTRIES / 2 + 1 || !last_is_right {
        return Err(format!("{first} to {last} after the cuts").into());
    }
    Ok(vec![millis(truncated), millis(purged)])
}

/// In a process of its own: appends, and ends without closing anything.
pub(crate) fn fill(args: &FillArgs) -> Result<()> {
    let rival = RIVALS
        .iter()
        .find(|rival| rival.name == args.rival)
        .ok_or("no such rival")?;
    let values = values(args.batch, args.value_bytes);
    let batch: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    std::fs::create_dir_all(&args.dir)?;
    let log = (rival.open)(&args.dir)?;
    for _ in 0..args.batches {
        log.append(0, &batch)?;
    }
    exit(0)
}
