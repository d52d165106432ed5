//! `duraft bench snapshot`: how much memory a snapshot takes on its way from one node to another.
//!
//! Two nodes in processes of their own, over loopback TCP. The first takes a snapshot and forgets the
//! log before it; the second joins with an empty store and needs it. The state machine holds nothing of
//! the content, so what the processes take beyond what they held just before is the transfer's:
//! reading, sending, receiving, checking, writing, and restoring.

mod child;
mod machine;

pub(crate) use child::{SnapshotChildArgs, run as run_child};

use super::args::{LoadArgs, SnapshotArgs};
use super::error::BenchError;
use super::facts::Facts;
use super::folder::Folder;
use super::memory::{Memory, mib, mib_of};
use crate::output::write_json;
use crate::ports::ReservedPorts;
use child::{FOLLOWER, LEADER};
use duraft::NodeId;
use serde::Serialize;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Instant;

const SCHEMA: u32 = 1;
/// Most memory that the transfer may take on each side.
const EXTRA_BYTES_MAX: u64 = 16 << 20;

#[derive(Serialize)]
struct Report {
    schema: u32,
    title: &'static str,
    facts: Facts,
    snapshot_bytes: u64,
    file_bytes: u64,
    seconds: f64,
    bytes_per_second: f64,
    /// Bytes that the sender's process handed to its sockets meanwhile.
    sent_bytes: u64,
    extra_bytes_max: u64,
    sender: Side,
    receiver: Side,
}

/// Resident memory of one process.
#[derive(Clone, Copy, Serialize)]
struct Side {
    before_bytes: u64,
    peak_bytes: u64,
    extra_bytes: u64,
}

/// Runs the benchmark.
pub(crate) fn run(load: &LoadArgs, args: &SnapshotArgs) -> Result<ExitCode, BenchError> {
    let folder = Folder::prepare(load.dir.as_deref())?;
    let facts = super::facts(folder.path())?;
    let ports = ReservedPorts::new(2).map_err(BenchError::cluster)?;
    let start = |id| Peer::start(id, folder.path(), ports.addresses(), args.bytes);
    let mut sender = start(LEADER)?;
    let prepared = sender.ask("prepare")?;
    let [file_bytes, upto] = prepared[..] else {
        return Err(sender.nonsense());
    };
    let mut receiver = start(FOLLOWER)?;
    let sent_before = sender.number("sent")?;
    let before = (sender.mark()?, receiver.mark()?);
    let begun = Instant::now();
    let added = sender.number("add")?;
    let installed = receiver.number(&format!("applied {added}"))?;
    let seconds = begun.elapsed().as_secs_f64();
    if installed != upto {
        let text = format!("the follower counts on snapshot {installed}, not {upto}");
        return Err(BenchError::Cluster(text));
    }
    let report = Report {
        schema: SCHEMA,
        title: "duraft bench snapshot",
        facts,
        snapshot_bytes: args.bytes,
        file_bytes,
        seconds,
        bytes_per_second: file_bytes as f64 / seconds,
        sent_bytes: sender.number("sent")? - sent_before,
        extra_bytes_max: EXTRA_BYTES_MAX,
        sender: sender.side(before.0)?,
        receiver: receiver.side(before.1)?,
    };
    report.publish(load)?;
    Ok(ExitCode::from(u8::from(!report.passed())))
}

/// A node in a process of its own.
struct Peer {
    id: NodeId,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start(id: NodeId, dir: &Path, addresses: &[String], bytes: u64) -> Result<Peer, BenchError> {
        let failed = |source| BenchError::Child { node: id.0, source };
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("bench-snapshot-node")
            .arg(format!("--node={id}"))
            .arg(format!("--dir={}", dir.display()))
            .arg(format!("--addresses={}", addresses.join(",")))
            .arg(format!("--bytes={bytes}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(io::Error::other("its pipes are missing")));
        };
        let mut peer = Peer {
            id,
            child,
            orders,
            answers: BufReader::new(answers),
        };
        peer.answer()?;
        Ok(peer)
    }

    fn failed(&self, source: io::Error) -> BenchError {
        BenchError::Child {
            node: self.id.0,
            source,
        }
    }

    fn nonsense(&self) -> BenchError {
        self.failed(io::Error::other("it answered something else"))
    }

    fn ask(&mut self, order: &str) -> Result<Vec<u64>, BenchError> {
        let sent = writeln!(self.orders, "{order}").and_then(|()| self.orders.flush());
        sent.map_err(|error| self.failed(error))?;
        self.answer()
    }

    fn number(&mut self, order: &str) -> Result<u64, BenchError> {
        match self.ask(order)?[..] {
            [number] => Ok(number),
            _ => Err(self.nonsense()),
        }
    }

    fn answer(&mut self) -> Result<Vec<u64>, BenchError> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        read.map_err(|error| self.failed(error))?;
        let line = line.trim();
        let Some(numbers) = line.strip_prefix("ok") else {
            let text = if line.is_empty() { "it ended" } else { line };
            return Err(self.failed(io::Error::other(text.to_owned())));
        };
        let numbers = numbers.split_whitespace().map(str::parse);
        let numbers: Result<_, _> = numbers.collect();
        numbers.map_err(|_| self.nonsense())
    }

    /// Begins to measure: what the process holds now.
    fn mark(&self) -> Result<u64, BenchError> {
        let process = self.child.id().to_string();
        Memory::forget_peak(&process)?;
        Ok(Memory::of(&process)?.now)
    }

    fn side(&self, before_bytes: u64) -> Result<Side, BenchError> {
        let peak_bytes = Memory::of(&self.child.id().to_string())?.peak;
        Ok(Side {
            before_bytes,
            peak_bytes,
            extra_bytes: peak_bytes.saturating_sub(before_bytes),
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Nothing is left to report to.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Report {
    fn passed(&self) -> bool {
        let worst = self.sender.extra_bytes.max(self.receiver.extra_bytes);
        worst <= self.extra_bytes_max
    }

    /// Results go to standard output.
    #[allow(clippy::print_stdout)]
    fn publish(&self, load: &LoadArgs) -> Result<(), BenchError> {
        println!("{}", self.title);
        println!("  machine     {}", self.facts);
        println!(
            "  snapshot    {} ({} in its file), from one process to another over loopback TCP",
            mib(self.snapshot_bytes),
            mib(self.file_bytes)
        );
        println!(
            "  moved       in {:.2} s, {}/s, restored; {} sent",
            self.seconds,
            mib_of(self.bytes_per_second),
            mib(self.sent_bytes)
        );
        for (name, side) in [("sender", self.sender), ("receiver", self.receiver)] {
            println!(
                "  {name:<10}  {} before, {} at the peak: {} extra",
                mib(side.before_bytes),
                mib(side.peak_bytes),
                mib(side.extra_bytes)
            );
        }
        let verdict = if self.passed() { "within" } else { "FAILED:" };
        println!("  verdict     {verdict} {} per side", mib(EXTRA_BYTES_MAX));
        let Some(path) = &load.json else {
            return Ok(());
        };
        write_json(path, self).map_err(|source| BenchError::Json {
            path: path.clone(),
            source,
        })
    }
}
