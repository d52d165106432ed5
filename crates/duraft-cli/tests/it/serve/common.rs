//! Clusters of real processes on loopback addresses of their own, and clients.

use crate::common::{duraft, program, scratch, text};
use redis_protocol::resp3::decode::complete::decode;
use redis_protocol::resp3::types::OwnedFrame;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A loopback address that no other process uses: it holds this process's number. Ports below the
/// range that the system gives out by itself are free there.
fn host() -> String {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    format!("127.{}.{middle}.{low}", 0x40 | (high & 0x3f))
}

fn ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    10_000 + 500 * NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) struct Cluster {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) set: Vec<String>,
    nodes: Vec<Option<Running>>,
}

struct Running {
    child: Child,
    log: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    /// Makes and starts so many nodes, with these fields set on all of them.
    pub(crate) fn start(nodes: usize, set: &[&str]) -> Cluster {
        let mut cluster = Cluster::make(nodes, set);
        (1..=nodes).for_each(|id| cluster.restart(id));
        cluster
    }

    /// Makes so many nodes.
    pub(crate) fn make(nodes: usize, set: &[&str]) -> Cluster {
        let dir = scratch();
        let (host, port) = (host(), ports());
        let made = duraft(&[
            "cluster",
            "init",
            "--local",
            &nodes.to_string(),
            "--dir",
            &dir.path().display().to_string(),
            "--host",
            &host,
            "--port",
            &port.to_string(),
        ]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        let set = set.iter().chain(&["storage.slots_ready=1"]);
        Cluster {
            host,
            port,
            dir,
            set: set.map(ToString::to_string).collect(),
            nodes: (0..nodes).map(|_| None).collect(),
        }
    }

    /// Writes another value into a node's file, where there is one.
    pub(crate) fn edit(&self, id: usize, field: &str, value: &str) {
        let text = std::fs::read_to_string(self.file(id)).expect("the file");
        let begin = format!("{field} = ");
        assert_eq!(text.matches(&format!("\n{begin}")).count(), 1, "{field}");
        let line = |line: &str| match line.starts_with(&begin) {
            true => format!("{begin}{value}\n"),
            false => format!("{line}\n"),
        };
        let text: String = text.lines().map(line).collect();
        std::fs::write(self.file(id), text).expect("written");
    }

    pub(crate) fn file(&self, id: usize) -> PathBuf {
        self.dir.path().join(format!("node-{id}/duraft.toml"))
    }

    /// Starts a node that does not run, and waits until it serves.
    pub(crate) fn restart(&mut self, id: usize) {
        let file = self.file(id).display().to_string();
        let set = self.set.iter().flat_map(|set| ["--set", set]);
        let mut serve = program();
        serve.args(["serve", "--config", &file]).args(set);
        let child = serve.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the program runs");
        let (said, log) = channel();
        let err = child.stderr.take().expect("a pipe");
        std::thread::spawn(move || {
            let lines = BufReader::new(err).lines().map_while(Result::ok);
            lines.for_each(|line| drop(said.send(line)));
        });
        let mut ready = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        out.read_line(&mut ready).expect("it says something");
        let running = Running { child, log };
        assert!(
            ready.starts_with("ready "),
            "node {id}: {:?}",
            drain(&running.log)
        );
        if self.nodes.len() < id {
            self.nodes.resize_with(id, || None);
        }
        self.nodes[id - 1] = Some(running);
    }

    pub(crate) fn kill(&mut self, id: usize) {
        drop(self.nodes[id - 1].take().expect("it runs"));
    }

    /// SIGTERM; the exit code.
    pub(crate) fn end(&mut self, id: usize) -> Option<i32> {
        self.signal(id, Signal::TERM);
        let mut running = self.nodes[id - 1].take().expect("it runs");
        running.child.wait().expect("it ends").code()
    }

    pub(crate) fn pid(&self, id: usize) -> u32 {
        self.nodes[id - 1].as_ref().expect("it runs").child.id()
    }

    /// Stops a node where it is. On a busy machine it runs on for milliseconds after the signal.
    pub(crate) fn stop(&self, id: usize) {
        self.signal(id, Signal::STOP);
        let stopped = waitid(WaitId::Pid(self.process(id)), WaitIdOptions::STOPPED);
        let stopped = stopped.expect("a child of this process");
        assert!(stopped.is_some_and(|status| status.stopped()), "node {id}");
    }

    /// Lets a stopped node go on.
    pub(crate) fn go_on(&self, id: usize) {
        self.signal(id, Signal::CONT);
    }

    fn signal(&self, id: usize, signal: Signal) {
        kill_process(self.process(id), signal).expect("it is there");
    }

    fn process(&self, id: usize) -> Pid {
        let pid = i32::try_from(self.pid(id)).ok().and_then(Pid::from_raw);
        pid.expect("a process")
    }

    /// Waits until a node has logged this.
    pub(crate) fn wait_for_log(&self, id: usize, wanted: &str) -> String {
        let running = self.nodes[id - 1].as_ref().expect("it runs");
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = running.log.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("node {id} never logged `{wanted}`"));
            if line.contains(wanted) {
                return line;
            }
        }
    }

    fn at(&self, offset: u16, id: usize) -> String {
        let id = u16::try_from(id).expect("few nodes");
        format!("{}:{}", self.host, self.port + offset + id)
    }

    pub(crate) fn peer(&self, id: usize) -> String {
        self.at(0, id)
    }

    pub(crate) fn client(&self, id: usize) -> String {
        self.at(100, id)
    }

    pub(crate) fn http(&self, id: usize) -> String {
        self.at(200, id)
    }

    pub(crate) fn admin(&self, id: usize) -> String {
        self.at(300, id)
    }

    pub(crate) fn connect(&self, id: usize) -> Redis {
        Redis::connect(&self.client(id))
    }

    /// The leader, once a write was answered.
    pub(crate) fn leader(&self) -> usize {
        let any = self
            .nodes
            .iter()
            .position(Option::is_some)
            .expect("one runs")
            + 1;
        assert_eq!(self.connect(any).ask(&["SET", "leader", "?"]), ok());
        let status: serde_json::Value =
            serde_json::from_str(&self.get(any, "/v1/status").1).expect("JSON");
        usize::try_from(status["leader"].as_u64().expect("a leader")).expect("small")
    }

    /// GET of the public HTTP: status and body.
    pub(crate) fn get(&self, id: usize, path: &str) -> (u16, String) {
        http(&self.http(id), "GET", path, "", "")
    }
}

fn drain(log: &Receiver<String>) -> Vec<String> {
    std::iter::from_fn(|| log.recv_timeout(Duration::from_secs(2)).ok()).collect()
}

/// One HTTP request; `headers` are whole lines. Status and body.
pub(crate) fn http(
    address: &str,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (u16, String) {
    let answer = http_answer(address, method, path, headers, body);
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_string());
    (status.expect("a status"), body.expect("a body"))
}

/// The whole answer to a request.
pub(crate) fn http_answer(
    address: &str,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> String {
    let mut stream = TcpStream::connect(address).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("it takes it");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    text(&answer)
}

pub(crate) fn ok() -> OwnedFrame {
    word("OK")
}

pub(crate) fn word(text: &str) -> OwnedFrame {
    OwnedFrame::SimpleString {
        data: text.into(),
        attributes: None,
    }
}

pub(crate) fn bulk(text: &str) -> OwnedFrame {
    OwnedFrame::BlobString {
        data: text.into(),
        attributes: None,
    }
}

pub(crate) fn int(number: i64) -> OwnedFrame {
    OwnedFrame::Number {
        data: number,
        attributes: None,
    }
}

pub(crate) fn is_error(frame: &OwnedFrame, wanted: &str) -> bool {
    matches!(frame, OwnedFrame::SimpleError { data, .. } if data.contains(wanted))
}

/// A client with another project's decoder.
pub(crate) struct Redis {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
}

impl Redis {
    pub(crate) fn connect(address: &str) -> Redis {
        let stream = TcpStream::connect(address).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        let mut redis = Redis {
            stream,
            input: Vec::new(),
        };
        let hello = redis.ask(&["HELLO", "3"]);
        assert!(matches!(hello, OwnedFrame::Map { .. }), "{hello:?}");
        redis
    }

    pub(crate) fn send(&mut self, words: &[&str]) {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream
            .write_all(request.as_bytes())
            .expect("it takes it");
    }

    /// The next reply; `None` where the connection has ended.
    pub(crate) fn receive(&mut self) -> Option<OwnedFrame> {
        loop {
            if let Some((frame, used)) = decode(&self.input).expect("RESP3") {
                self.input.drain(..used);
                return Some(frame);
            }
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(n) => self.input.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply: {error}"),
            }
        }
    }

    pub(crate) fn ask(&mut self, words: &[&str]) -> OwnedFrame {
        self.send(words);
        self.receive().expect("a reply")
    }
}
