//! The examples: as short as promised, and they do what they say.
//!
//! Processes get a loopback host of their own, 127.x.y.1 by the test's process id, so fixed ports
//! collide with nobody.

use crate::common::{DEADLINE, scratch};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn lines_of(example: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{example}.rs"));
    let text = std::fs::read_to_string(path).expect("the example's source");
    text.lines().filter(|line| !line.trim().is_empty()).count()
}

#[test]
fn examples_are_as_short_as_promised() {
    // What the README and issue say: comments count, blank lines do not.
    for (example, max) in [("kv", 60), ("core_only", 40)] {
        let lines = lines_of(example);
        assert!(lines > 20 && lines <= max, "{example} has {lines} lines");
    }
}

/// `cargo test` builds the examples before it runs the tests; where only one test binary is asked
/// for, `cargo build -p duraft --examples` does.
fn program(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("deps is inside");
    let path = profile.join("examples").join(example);
    assert!(path.exists(), "{} is built with the tests", path.display());
    path
}

/// A loopback address that no other test process uses.
fn host(third: u8) -> String {
    let id = std::process::id();
    format!("127.{}.{}.{third}", 1 + id / 256 % 254, id % 256)
}

/// Ends its process however the test ends.
struct Process(Child);

impl Process {
    /// SIGKILL: no chance to say goodbye.
    fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Service {
    host: String,
    dir: tempfile::TempDir,
}

impl Service {
    fn start(&self, id: u64, new: bool) -> Process {
        let mut command = Command::new(program("kv"));
        command.arg(id.to_string()).args(new.then_some("new"));
        command
            .current_dir(self.dir.path())
            .env("KV_HOST", &self.host);
        Process(command.spawn().expect("the example runs"))
    }

    /// One line to a node, and its answer; none where the node does not answer.
    fn ask(&self, id: u64, line: &str) -> Option<String> {
        let stream = TcpStream::connect(format!("{}:{}", self.host, 7200 + id)).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        writeln!(&stream, "{line}").ok()?;
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).ok()?;
        Some(answer.trim_end().to_owned())
    }

    /// Asks these nodes in turn until one gives this answer.
    fn until(&self, nodes: &[u64], line: &str, wanted: &str) {
        let until = Instant::now() + DEADLINE;
        let mut heard = Vec::new();
        while Instant::now() < until {
            heard.clear();
            for id in nodes {
                let answer = self.ask(*id, line);
                if answer.as_deref() == Some(wanted) {
                    return;
                }
                heard.push(answer);
            }
            // Nobody listens yet, or nobody leads. There is nothing to wait on from outside, so give
            // the processes time before asking again.
            std::thread::park_timeout(Duration::from_millis(5));
        }
        panic!("`{line}` was never answered by `{wanted}`; last: {heard:?}");
    }
}

#[test]
fn three_processes_of_kv_survive_a_killed_one() {
    let service = Service {
        host: host(1),
        dir: scratch(),
    };
    let mut processes: Vec<Process> = (1..=3).map(|id| service.start(id, true)).collect();
    service.until(&[1, 2, 3], "set color green", "ok");
    for id in 1..=3 {
        service.until(&[id], "get color", "green");
    }
    processes.remove(0).kill();
    assert_eq!(service.ask(1, "get color"), None, "it is dead");
    service.until(&[2, 3], "set color blue", "ok");
    service.until(&[2], "get color", "blue");
    // Its folder is all it has; it learns what it missed.
    processes.push(service.start(1, false));
    service.until(&[1], "get color", "blue");
    // All killed at once: what was acknowledged is on the disks.
    processes.drain(..).for_each(Process::kill);
    let processes: Vec<Process> = (1..=3).map(|id| service.start(id, false)).collect();
    service.until(&[3], "get color", "blue");
    service.until(&[1], "nonsense", "`set key value` or `get key`");
    drop(processes);
}

#[test]
fn a_second_beginning_of_a_kv_node_is_refused() {
    // `new` on a node that lives already would forget what it promised.
    let service = Service {
        host: host(2),
        dir: scratch(),
    };
    for wanted in [true, false] {
        let process = service.start(1, true);
        if wanted {
            // It opens its port when it has its store.
            service.until(&[1], "nonsense", "`set key value` or `get key`");
            process.kill();
        } else {
            let mut process = process;
            assert!(!process.0.wait().expect("it ends").success());
        }
    }
}

#[test]
fn calculator_calculates() {
    let dir = scratch();
    let mut command = Command::new(program("calculator"));
    command
        .current_dir(dir.path())
        .env("CALCULATOR_HOST", host(3));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the example runs");
    let mut input = child.stdin.take().expect("piped");
    input
        .write_all(b"+ 2\n* 21\n- x\n/ 4\n")
        .expect("it listens");
    drop(input);
    let done = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&done.stdout);
    let told = "write an operator, a blank and a number";
    assert_eq!(said.lines().collect::<Vec<_>>(), ["2", "42", told, "10.5"]);
}

#[test]
fn core_alone_agrees_on_a_command() {
    let done = Command::new(program("core_only"))
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&done.stdout);
    let applied = said.lines().filter(|line| line.contains("hello"));
    assert_eq!(applied.count(), 3, "every node applies it once: {said}");
}
