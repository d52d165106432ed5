//! `duraft kill-sweep`: a node that is killed at its n-th system call of a kind, or whose n-th call
//! fails, for each n in turn, with strace. All lives are of one store.

use super::child::{Plant, TortureChildArgs, bootstrap, folder};
use super::faults::rest;
use super::words::{Answer, Op, OpId, Order, Report, Request, Seen, State};
use crate::bench::{BenchError, Facts, Folder};
use crate::output::say;
use crate::ports::ReservedPorts;
use crate::process::{Process, Said};
use clap::Args;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Flags of `duraft kill-sweep`.
#[derive(Args)]
pub(crate) struct SweepArgs {
    /// The system call, as strace names it.
    #[arg(long, default_value = "fdatasync")]
    call: String,

    /// First count.
    #[arg(long, default_value_t = 1)]
    first: u32,

    /// Last count.
    #[arg(long, default_value_t = 40)]
    last: u32,

    /// Let the call fail so, EIO for example, instead of killing the node.
    #[arg(long)]
    error: Option<String>,

    /// Writes in one life; a life that has seen them all did not reach the count.
    #[arg(long, default_value_t = 400)]
    writes: u64,

    /// Break the service on purpose, to see that it is noticed.
    #[arg(long, value_enum)]
    plant: Option<Plant>,

    /// Folder for the store, new or empty; see `torture`.
    #[arg(long)]
    dir: Option<PathBuf>,
}

const PATIENCE: Duration = Duration::from_secs(30);
/// Writes that a node whose log failed is asked for.
const AFTER_ERROR: u64 = 5;
const SNAPSHOT_LOG_BYTES: u64 = 2048;

/// How one life ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Killed before it served, or it refused to: the call failed while it opened.
    Opening,
    /// Killed while it served.
    Serving,
    /// It stopped by itself, as it should when its log fails.
    Stopped,
    /// It never came to the count, or another thread than the log's saw the error.
    WentOn,
}

/// Runs the sweep.
pub(crate) fn run(args: &SweepArgs) -> Result<ExitCode, BenchError> {
    let found = Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !found.is_ok_and(|status| status.success()) {
        let text = "strace is missing; on Debian: apt-get install strace";
        return Err(BenchError::cluster(text));
    }
    let folder = Folder::prepare(args.dir.as_deref())?;
    let facts = Facts::read(folder.path()).map_err(BenchError::cluster)?;
    let mut sweep = Sweep::begin(args, folder.path())?;
    let mut ends: Vec<End> = Vec::new();
    for count in args.first..=args.last {
        let end = sweep.life(count)?;
        ends.push(end);
        if !sweep.look(count)? || sweep.wrong > 0 {
            break;
        }
    }
    let number = |end: End| ends.iter().filter(|found| **found == end).count();
    let passed = sweep.wrong == 0;
    say(&format!(
        "duraft kill-sweep: {} {} {} to {}\n  machine    {facts}\n  lives      {}: {} ended while opening, \
         {} while serving, {} stopped by themselves, {} went on\n  writes     {} acknowledged of {} asked \
         for\n  verdict    {}",
        args.error.as_deref().unwrap_or("killed at"),
        args.call,
        args.first,
        args.last,
        ends.len(),
        number(End::Opening),
        number(End::Serving),
        number(End::Stopped),
        number(End::WentOn),
        sweep.acknowledged,
        sweep.asked,
        if passed {
            "nothing acknowledged is lost"
        } else {
            "FAILED"
        },
    ));
    if passed {
        return Ok(ExitCode::SUCCESS);
    }
    folder.keep();
    Ok(ExitCode::from(1))
}

struct Sweep<'a> {
    args: &'a SweepArgs,
    dir: PathBuf,
    port: ReservedPorts,
    asked: u64,
    acknowledged: u64,
    /// The last value that was asked for, and the last that was acknowledged.
    last_asked: u64,
    last_acknowledged: Option<u64>,
    wrong: u64,
}

/// A node, and what it says.
struct Life {
    process: Process,
    reports: Receiver<Report>,
}

impl Life {
    fn start(runner: &[String], arguments: &[String]) -> Result<Life, BenchError> {
        let (said, reports) = channel();
        let process = Process::start_under(runner, arguments, move |word| {
            if let Said::Line(line) = word
                && let Ok(report) = serde_json::from_str(&line)
            {
                // The receiver is there until the process is gone.
                let _ = said.send(report);
            }
        });
        let process = process.map_err(BenchError::cluster)?;
        Ok(Life { process, reports })
    }

    /// The next thing it says; `None` where it is gone.
    fn hear(&self) -> Option<Report> {
        self.reports.recv_timeout(PATIENCE).ok()
    }

    /// The answer to an operation; `None` where it is gone.
    fn ask(&mut self, request: Request) -> Option<Answer> {
        let order = serde_json::to_string(&Order::Do(request)).ok()?;
        self.process.say(&order).ok()?;
        loop {
            match self.hear()? {
                Report::Answer(id, answer) if id == request.id => return Some(answer),
                Report::Answer(..) | Report::Ready | Report::State(_) | Report::Snapshot { .. } => {
                }
            }
        }
    }

    fn state(&mut self) -> Option<State> {
        let order = serde_json::to_string(&Order::Tell).ok()?;
        self.process.say(&order).ok()?;
        loop {
            match self.hear()? {
                Report::State(state) => return Some(state),
                Report::Answer(..) | Report::Ready | Report::Snapshot { .. } => {}
            }
        }
    }
}

impl Sweep<'_> {
    fn begin<'a>(args: &'a SweepArgs, dir: &Path) -> Result<Sweep<'a>, BenchError> {
        let sweep = Sweep {
            args,
            dir: dir.to_path_buf(),
            port: ReservedPorts::new(1).map_err(BenchError::cluster)?,
            asked: 0,
            acknowledged: 0,
            last_asked: 0,
            last_acknowledged: None,
            wrong: 0,
        };
        bootstrap(&TortureChildArgs {
            place: 0,
            dir: folder(dir, 0),
            listen: sweep.address().into(),
            peers: vec![sweep.address().into()],
            seed: 1,
            plant: None,
            snapshot_log_bytes: Some(SNAPSHOT_LOG_BYTES),
        })?;
        Ok(sweep)
    }

    fn address(&self) -> &str {
        &self.port.addresses()[0]
    }

    fn arguments(&self) -> Vec<String> {
        vec![
            String::from("torture-node"),
            String::from("--place=0"),
            format!("--dir={}", folder(&self.dir, 0).display()),
            format!("--listen={}", self.address()),
            format!("--peers={}", self.address()),
            String::from("--seed=1"),
            format!("--snapshot-log-bytes={SNAPSHOT_LOG_BYTES}"),
        ]
    }

    fn trace(&self) -> PathBuf {
        self.dir.join("trace")
    }

    /// One life under strace.
    fn life(&mut self, count: u32) -> Result<End, BenchError> {
        let call = &self.args.call;
        let what = match &self.args.error {
            Some(error) => format!("error={error}"),
            None => String::from("signal=KILL"),
        };
        let runner = [
            String::from("strace"),
            String::from("-f"),
            String::from("-qq"),
            format!("--output={}", self.trace().display()),
            format!("--trace={call},prctl"),
            format!("--inject={call}:{what}:when={count}"),
        ];
        let mut arguments = self.arguments();
        arguments.extend(self.args.plant.map(Plant::flag));
        let mut life = Life::start(&runner, &arguments)?;
        if !matches!(life.hear(), Some(Report::Ready)) {
            return Ok(End::Opening);
        }
        let mut end = End::WentOn;
        let mut failed = 0;
        for _ in 0..self.args.writes {
            match self.write(&mut life) {
                None => {
                    end = End::Serving;
                    break;
                }
                Some(Answer::Done(_)) if failed > 0 => {
                    // It had failed before: then this must not have been acknowledged.
                    self.complain(count, "acknowledged after its log had failed");
                    break;
                }
                Some(Answer::Done(_)) => {}
                // Without an error, only what comes before the election is refused.
                Some(Answer::Refused { .. } | Answer::Unknown) => {
                    let stopped = life.state().is_some_and(|state| state.stopped.is_some());
                    if stopped {
                        end = End::Stopped;
                        failed += 1;
                    }
                    if failed == AFTER_ERROR {
                        break;
                    }
                }
            }
        }
        drop(life);
        if self.args.error.is_some() && end != End::Stopped && self.log_thread_failed() {
            self.complain(count, "the log's thread saw the error and the node went on");
        }
        Ok(end)
    }

    /// Writes a number that is larger than all before.
    fn write(&mut self, life: &mut Life) -> Option<Answer> {
        self.asked += 1;
        self.last_asked += 1;
        let value = self.last_asked;
        let id = OpId {
            client: 1,
            number: self.asked,
        };
        let op = Op::Put { value };
        let answer = life.ask(Request { id, key: 0, op });
        if let Some(Answer::Done(_)) = answer {
            self.acknowledged += 1;
            self.last_acknowledged = Some(value);
        }
        answer
    }

    /// Opens the store without strace and compares; false where it does not even open.
    fn look(&mut self, count: u32) -> Result<bool, BenchError> {
        let mut life = Life::start(&[], &self.arguments())?;
        if !matches!(life.hear(), Some(Report::Ready)) {
            self.complain(count, "the store does not open again");
            return Ok(false);
        }
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            self.asked += 1;
            let id = OpId {
                client: 1,
                number: self.asked,
            };
            let request = Request {
                id,
                key: 0,
                op: Op::Get,
            };
            let Some(Answer::Done(Seen::Value(value))) = life.ask(request) else {
                rest(Duration::from_millis(10));
                continue;
            };
            let lost = value < self.last_acknowledged;
            let invented = value.is_some_and(|value| value > self.last_asked);
            if lost || invented {
                let last = self.last_acknowledged;
                let text = format!("it holds {value:?}, {last:?} was acknowledged");
                self.complain(count, &text);
            }
            return Ok(true);
        }
        self.complain(count, "the store opens and serves nothing");
        Ok(false)
    }

    fn complain(&mut self, count: u32, text: &str) {
        self.wrong += 1;
        say(&format!("  at {} {count}: {text}", self.args.call));
    }

    /// Was the failed call made by the thread that writes the log?
    fn log_thread_failed(&self) -> bool {
        let trace = std::fs::read_to_string(self.trace()).unwrap_or_default();
        let thread_of = |line: &str| line.split_whitespace().next().map(str::to_owned);
        let log: BTreeSet<String> = trace
            .lines()
            .filter(|line| line.contains("PR_SET_NAME, \"duraft-wal"))
            .filter_map(thread_of)
            .collect();
        let mut injected = trace.lines().filter(|line| line.contains("(INJECTED)"));
        injected.any(|line| thread_of(line).is_some_and(|thread| log.contains(&thread)))
    }
}
