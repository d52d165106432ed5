//! Three durable nodes in one process that speak over channels, and clients with one command each.
//!
//! The channels leave out sockets and the encoding of messages, for everybody alike: what is compared is
//! the Raft, its log and how the two are put together. A command counts as done when the leader has
//! applied it.

mod duraft;
mod openraft;
mod raft_rs;

use crate::table::{Figure, Table, write_json};
use crate::{Options, Result, machine};
use bytes::Bytes;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

pub(crate) const NODES: u64 = 3;
const VALUE_BYTES: usize = 256;
/// Longest wait for an answer: an election fits in.
const PATIENCE: Duration = Duration::from_secs(20);

/// Three nodes with a leader.
pub(crate) trait Cluster {
    /// Proposes a command of a client at the leader, and says so to `done` when it is applied there.
    fn propose(&self, client: u32, command: Bytes, done: &Sender<u32>) -> Result<()>;
}

struct Rival {
    name: &'static str,
    start: fn(&Path) -> Result<Box<dyn Cluster>>,
}

const RIVALS: &[Rival] = &[
    Rival {
        name: "duraft",
        start: duraft::start,
    },
    Rival {
        name: "duraft-tcp",
        start: duraft::start_tcp,
    },
    Rival {
        name: "raft-rs+raft-engine",
        start: raft_rs::start_on_raft_engine,
    },
    Rival {
        name: "raft-rs+duraft-log",
        start: raft_rs::start_on_duraft,
    },
    Rival {
        name: "openraft+duraft-log",
        start: openraft::start_on_duraft,
    },
];

const FIGURES: &[Figure] = &[
    Figure {
        name: "commands/s",
        digits: 0,
    },
    Figure {
        name: "p50 us",
        digits: 0,
    },
    Figure {
        name: "p99 us",
        digits: 0,
    },
];

const WORKLOADS: &[(&str, &str, u32)] = &[
    ("clients-1", "1 client, commands of 256 B", 1),
    ("clients-64", "64 clients, commands of 256 B", 64),
    ("clients-1024", "1024 clients, commands of 256 B", 1024),
];

/// Runs everything that is asked for, and prints a table per number of clients.
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
    let workloads = WORKLOADS
        .iter()
        .filter(|w| Options::wants(&options.workload, w.0));
    let mut tables: Vec<(u32, Table)> = workloads
        .map(|(name, title, clients)| {
            let rows = rivals().map(|rival| (rival.name, Vec::new())).collect();
            (
                *clients,
                Table {
                    name,
                    title,
                    figures: FIGURES,
                    rows,
                },
            )
        })
        .collect();
    for round in 1..=options.rounds {
        eprintln!("round {round}");
        for (place, rival) in rivals().enumerate() {
            let dir = tempfile::Builder::new()
                .prefix("rivals")
                .tempdir_in(&options.dir)?;
            let failed = |error| format!("{}: {error}", rival.name);
            let cluster = (rival.start)(dir.path()).map_err(failed)?;
            for (clients, table) in &mut tables {
                let slice = Duration::from_secs_f64(options.seconds);
                load(&*cluster, *clients, slice / 3).map_err(failed)?;
                let figures = load(&*cluster, *clients, slice).map_err(failed)?;
                table.rows[place].1.push(Some(figures));
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

/// Keeps every client busy for a while; commands per second, and latencies.
fn load(cluster: &dyn Cluster, clients: u32, slice: Duration) -> Result<Vec<f64>> {
    let (done, answers) = channel();
    let (mut begun, mut latencies) = (vec![Instant::now(); clients as usize], Vec::new());
    let started = Instant::now();
    let mut count = 0u64;
    let mut propose = |client: u32, begun: &mut Vec<Instant>| {
        begun[client as usize] = Instant::now();
        count += 1;
        cluster.propose(client, value(client, count), &done)
    };
    for client in 0..clients {
        propose(client, &mut begun)?;
    }
    let (mut under_way, mut last) = (clients, started);
    while under_way > 0 {
        let client = next(&answers)?;
        last = Instant::now();
        latencies.push(last.duration_since(begun[client as usize]));
        if last.duration_since(started) < slice {
            propose(client, &mut begun)?;
        } else {
            under_way -= 1;
        }
    }
    let seconds = last.duration_since(started).as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    Ok(vec![
        latencies.len() as f64 / seconds,
        micros(at(0.5)),
        micros(at(0.99)),
    ])
}

fn next(answers: &Receiver<u32>) -> Result<u32> {
    Ok(answers
        .recv_timeout(PATIENCE)
        .map_err(|_| "a command got no answer")?)
}

/// Bytes that do not compress.
fn value(client: u32, count: u64) -> Bytes {
    let mut word = (u64::from(client) << 40) ^ count;
    let words = std::iter::repeat_with(|| {
        word = duraft_core::mix64(word);
        word.to_le_bytes()
    });
    words.flatten().take(VALUE_BYTES).collect()
}

/// Waits for something that takes an election or so.
pub(crate) fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if begun.elapsed() > PATIENCE {
            return Err("no leader was elected".into());
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
