//! The lin-kv protocol of Maelstrom on standard input and output, so that its checkers can judge
//! duraft: `maelstrom test -w lin-kv --bin target/release/examples/maelstrom --node-count 3
//! --concurrency 4n --time-limit 60 --rate 100 --nemesis partition`.
//!
//! Each process is one node: the shipped library with its log on disk, and a [`Transport`] whose
//! connections are Maelstrom's messages, so that its network loses, delays and splits what the nodes
//! say to each other. A node that does not lead passes a client's request on and carries the answer
//! back. What has no effect is told as error 11, what nobody can tell as error 0.
//!
//! The log lies in a fresh folder, or below `DURAFT_MAELSTROM_DIR`, where a node that was killed finds it
//! again.

use bytes::Bytes;
use duraft::wire::{Frame, FrameBuffer, decode_frame};
use duraft::{
    ApplyContext, ClusterId, Inbox, Local, Membership, Network, Node, NodeId, NodeOptions, Outcome,
    Parcel, ReadBasis, RequestError, Responder, SnapshotWork, StateMachine, Transport,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Longest wait for an operation.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest frame between nodes.
const FRAME_BYTES_MAX: u64 = 4 << 20;

/// Error codes of Maelstrom: indefinite, and three that are definite.
const TIMEOUT: u64 = 0;
const UNAVAILABLE: u64 = 11;
const NO_KEY: u64 = 20;
const PRECONDITION: u64 = 22;

/// Keys and values are JSON, told apart by their text.
#[derive(Default)]
struct Registers(BTreeMap<String, Value>);

impl Registers {
    fn answer(&mut self, request: &Value) -> Value {
        let key = request["key"].to_string();
        let held = self.0.get(&key);
        match request["type"].as_str() {
            Some("write") => {
                self.0.insert(key, request["value"].clone());
                json!({"type": "write_ok"})
            }
            Some("cas") => {
                let creates = request["create_if_not_exists"] == true;
                match held {
                    None if !creates => error(NO_KEY, "there is no such key"),
                    Some(held) if *held != request["from"] => {
                        error(PRECONDITION, &format!("the key holds {held}"))
                    }
                    Some(_) | None => {
                        self.0.insert(key, request["to"].clone());
                        json!({"type": "cas_ok"})
                    }
                }
            }
            _ => error(10, "not supported"),
        }
    }

    fn look(&self, request: &Value) -> Value {
        match self.0.get(&request["key"].to_string()) {
            Some(value) => json!({"type": "read_ok", "value": value}),
            None => error(NO_KEY, "there is no such key"),
        }
    }
}

fn error(code: u64, text: &str) -> Value {
    json!({"type": "error", "code": code, "text": text})
}

impl StateMachine for Registers {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        let request = serde_json::from_slice(command).unwrap_or(Value::Null);
        Bytes::from(self.answer(&request).to_string())
    }

    fn snapshot(&self) -> SnapshotWork {
        let view = json!(self.0);
        Box::new(move |out| Ok(serde_json::to_writer(out, &view)?))
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        self.0 = serde_json::from_reader(source)?;
        Ok(())
    }
}

/// Writes one line to the network.
type Out = Arc<dyn Fn(String) + Send + Sync>;

/// The nodes' names, and the way out.
struct Wires {
    names: Vec<String>,
    own: String,
    out: Out,
    inbox: OnceLock<Inbox>,
}

fn id_of(names: &[String], name: &str) -> Option<NodeId> {
    let place = names.iter().position(|n| n == name)?;
    Some(NodeId(place as u64 + 1))
}

impl Wires {
    fn name(&self, id: NodeId) -> Option<&String> {
        self.names.get(usize::try_from(id.0).ok()?.checked_sub(1)?)
    }

    fn send(&self, dest: &str, body: &Value) {
        (self.out)(json!({"src": self.own, "dest": dest, "body": body}).to_string());
    }

    fn send_frame(&self, to: NodeId, frame: &Frame) {
        let mut buffer = FrameBuffer::default();
        // What is too large is lost, as anything may be.
        if let (Some(dest), Ok(())) = (self.name(to), buffer.push(frame, FRAME_BYTES_MAX)) {
            let hex: String = buffer
                .to_bytes()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            self.send(dest, &json!({"type": "raft", "frame": hex}));
        }
    }

    /// A frame of another node. One that is broken is lost.
    fn receive(&self, hex: &str) {
        let pairs = hex.as_bytes().chunks(2);
        let digits = pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        let frame: Option<Vec<u8>> = digits.collect();
        let frame = frame.and_then(|bytes| decode_frame(Bytes::from(bytes)).ok());
        let (Some(frame), Some(inbox)) = (frame, self.inbox.get()) else {
            return;
        };
        match frame {
            // A node that has stopped hears nothing.
            Frame::Message(envelope) => drop(inbox.deliver(envelope)),
            Frame::Transfer(parcel) => inbox.deliver_parcel(parcel),
            Frame::Hello(_) | Frame::Accepted(_) | Frame::Refused(_) => {}
        }
    }
}

impl Transport for Wires {
    fn start(&self, _local: Local, inbox: Inbox) -> io::Result<()> {
        let once = self.inbox.set(inbox);
        once.map_err(|_| io::Error::other("the transport was started before"))
    }

    fn send(&self, envelope: duraft_core::Envelope) {
        self.send_frame(envelope.to, &Frame::Message(envelope));
    }

    fn send_parcel(&self, parcel: Parcel) {
        self.send_frame(parcel.to, &Frame::Transfer(parcel));
    }

    fn stop(&self) {}
}

/// One node, from its first message on.
struct Server {
    node: Node,
    wires: Arc<Wires>,
}

type AnyError = Box<dyn std::error::Error>;

impl Server {
    /// Begins, as the message `init` says.
    fn start(init: &Value, folder: PathBuf, out: Out) -> Result<Server, AnyError> {
        let own = init["node_id"]
            .as_str()
            .ok_or("init names no node")?
            .to_string();
        let names: Vec<String> = serde_json::from_value(init["node_ids"].clone())?;
        let id = id_of(&names, &own).ok_or("init does not name this node")?;
        let members = (1..=names.len() as u64).map(NodeId);
        let wires = Arc::new(Wires {
            names: names.clone(),
            own,
            out,
            inbox: OnceLock::new(),
        });
        let dir = folder.join(&wires.own);
        let mut options = NodeOptions::in_dir(id, ClusterId(*b"maelstrom lin-kv"), &dir)?;
        options.core.seed = id.0;
        options.wal.slot_bytes = 4 << 20;
        options.wal.slots_ready_min = 1;
        options.propose_timeout = Some(PATIENCE);
        let transport: Arc<dyn Transport> = Arc::clone(&wires) as Arc<dyn Transport>;
        options.network = Network::Custom(transport);
        if !dir.join("STORE").exists() {
            Node::bootstrap(&options, &Membership::new(members, [])?)?;
        }
        let node = Node::start(options, Box::<Registers>::default())?;
        Ok(Server { node, wires })
    }

    /// Takes one message that is not `init`.
    fn handle(&self, message: &Value) {
        let (src, body) = (&message["src"], &message["body"]);
        match body["type"].as_str() {
            Some("raft") => self.wires.receive(body["frame"].as_str().unwrap_or("")),
            Some("forward") => {
                let back = Back {
                    wires: Arc::clone(&self.wires),
                    to: text(src),
                    client: Some(text(&body["client"])),
                };
                self.serve(&body["request"], back);
            }
            Some("forwarded") => self.wires.send(&text(&body["client"]), &body["answer"]),
            _ => {
                let back = Back {
                    wires: Arc::clone(&self.wires),
                    to: text(src),
                    client: None,
                };
                self.serve(body, back);
            }
        }
    }

    fn serve(&self, request: &Value, back: Back) {
        let asked = request.clone();
        if request["type"] == "read" {
            let look = {
                let asked = asked.clone();
                move |registers: &Registers| registers.look(&asked)
            };
            let (node, wires) = (self.node.clone(), Arc::clone(&self.wires));
            // Few are under way at once: Maelstrom's clients wait for their answers.
            let read = move || {
                let answer = node.read_wait(ReadBasis::Quorum, PATIENCE, look);
                // A read has no effect, so it may be told that it has none.
                let told = answer.unwrap_or_else(|e| error(UNAVAILABLE, &e.to_string()));
                drop(wires);
                back.answer(&asked, told);
            };
            std::thread::spawn(read);
            return;
        }
        let wires = Arc::clone(&self.wires);
        let responder = Responder::call(move |outcome: Outcome| match outcome {
            Ok(applied) => {
                let told = serde_json::from_slice(&applied.response);
                back.answer(
                    &asked,
                    told.unwrap_or_else(|e| error(TIMEOUT, &e.to_string())),
                );
            }
            Err(RequestError::Rejected {
                leader: Some(leader),
                ..
            }) if back.client.is_none() && wires.name(leader).is_some_and(|n| *n != wires.own) => {
                let dest = wires.name(leader).cloned().unwrap_or_default();
                let body = json!({"type": "forward", "client": back.to, "request": asked});
                wires.send(&dest, &body);
            }
            Err(e @ (RequestError::Busy { .. } | RequestError::Rejected { .. })) => {
                back.answer(&asked, error(UNAVAILABLE, &e.to_string()));
            }
            Err(e) => back.answer(&asked, error(TIMEOUT, &e.to_string())),
        });
        self.node
            .submit(Bytes::from(request.to_string()), responder);
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_string()
}

/// The way back to a client, straight or by way of the node that it asked.
struct Back {
    wires: Arc<Wires>,
    to: String,
    client: Option<String>,
}

impl Back {
    fn answer(&self, request: &Value, mut answer: Value) {
        answer["in_reply_to"] = request["msg_id"].clone();
        match &self.client {
            None => self.wires.send(&self.to, &answer),
            Some(client) => {
                let body = json!({"type": "forwarded", "client": client, "answer": answer});
                self.wires.send(&self.to, &body);
            }
        }
    }
}

/// Feeds messages to a node, which the first one starts.
struct Feed {
    folder: PathBuf,
    out: Out,
    server: Option<Server>,
}

impl Feed {
    fn line(&mut self, line: &str) -> Result<(), AnyError> {
        let message: Value = serde_json::from_str(line)?;
        let body = &message["body"];
        if body["type"] != "init" {
            if let Some(server) = &self.server {
                server.handle(&message);
            }
            return Ok(());
        }
        let server = Server::start(body, self.folder.clone(), Arc::clone(&self.out))?;
        let answer = json!({"type": "init_ok", "in_reply_to": body["msg_id"]});
        server.wires.send(&text(&message["src"]), &answer);
        self.server = Some(server);
        Ok(())
    }
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), AnyError> {
    let fresh = tempfile::tempdir()?;
    let told = std::env::var_os("DURAFT_MAELSTROM_DIR").map(PathBuf::from);
    let lock = Mutex::new(());
    let mut feed = Feed {
        folder: told.unwrap_or_else(|| fresh.path().to_path_buf()),
        out: Arc::new(move |line| {
            let _whole_lines = lock.lock();
            println!("{line}");
        }),
        server: None,
    };
    for line in io::stdin().lock().lines() {
        feed.line(&line?)?;
    }
    if let Some(server) = feed.server {
        server.node.shutdown();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Maelstrom's part: carries lines between three nodes and one client.
    struct World {
        lines: Receiver<String>,
        feeds: BTreeMap<String, Feed>,
        cut_off: BTreeSet<String>,
        _folder: tempfile::TempDir,
    }

    impl World {
        fn begin() -> World {
            let folder = tempfile::tempdir().expect("a folder");
            let (out, lines): (Sender<String>, _) = channel();
            let names = ["n0", "n1", "n2"];
            let feeds = names.map(|name| {
                let out = out.clone();
                let feed = Feed {
                    folder: folder.path().to_path_buf(),
                    out: Arc::new(move |line| drop(out.send(line))),
                    server: None,
                };
                (name.to_string(), feed)
            });
            let mut world = World {
                lines,
                feeds: BTreeMap::from(feeds),
                cut_off: BTreeSet::new(),
                _folder: folder,
            };
            for name in names {
                let body = json!({"type": "init", "node_id": name, "node_ids": names});
                assert_eq!(world.ask(name, body)["type"], "init_ok");
            }
            world
        }

        /// Asks a node, and carries lines until it answers.
        fn ask(&mut self, node: &str, mut body: Value) -> Value {
            static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
            let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            body["msg_id"] = json!(number);
            let line = json!({"src": "c1", "dest": node, "body": body}).to_string();
            let feed = self.feeds.get_mut(node).expect("a node");
            feed.line(&line).expect("a good line");
            loop {
                if let Some(message) = self.carry_one()
                    && message["body"]["in_reply_to"] == json!(number)
                {
                    assert_eq!(
                        text(&message["src"]),
                        node,
                        "the node that was asked answers"
                    );
                    return message["body"].clone();
                }
            }
        }

        /// Carries one line; what is for the client is returned.
        fn carry_one(&mut self) -> Option<Value> {
            let wait = Duration::from_secs(60);
            let line = self.lines.recv_timeout(wait).expect("a line in time");
            let message: Value = serde_json::from_str(&line).expect("JSON");
            let (src, dest) = (text(&message["src"]), text(&message["dest"]));
            if dest == "c1" {
                return Some(message);
            }
            if !self.cut_off.contains(&src) && !self.cut_off.contains(&dest) {
                let feed = self.feeds.get_mut(&dest).expect("a node");
                feed.line(&line).expect("a good line");
            }
            None
        }

        /// Carries lines until this node follows or is another leader than `old`: a request that is
        /// passed on to one that is cut off is lost, as any message may be.
        fn carry_until_others_lead(&mut self, node: &str, old: &str) {
            loop {
                let server = self.feeds[node].server.as_ref().expect("started");
                let leader = server.node.status().leader;
                if leader.is_some_and(|id| server.wires.name(id).is_some_and(|n| n != old)) {
                    return;
                }
                self.carry_one();
            }
        }

        /// Asks until the cluster can answer.
        fn ask_until_served(&mut self, node: &str, body: &Value) -> Value {
            loop {
                let answer = self.ask(node, body.clone());
                if answer["code"] != json!(UNAVAILABLE) {
                    return answer;
                }
            }
        }

        fn leader(&self) -> String {
            let leads = |feed: &Feed| {
                let server = feed.server.as_ref().expect("started");
                server.node.status().role == duraft::RoleKind::Leader
            };
            let found = self.feeds.iter().find(|(_, feed)| leads(feed));
            found.expect("somebody leads").0.clone()
        }
    }

    #[test]
    fn clients_read_write_and_swap_at_every_node() {
        let mut world = World::begin();
        let write = json!({"type": "write", "key": 1, "value": 3});
        assert_eq!(world.ask_until_served("n0", &write)["type"], "write_ok");
        for node in ["n0", "n1", "n2"] {
            let read = world.ask(node, json!({"type": "read", "key": 1}));
            assert_eq!(
                (&read["type"], &read["value"]),
                (&json!("read_ok"), &json!(3))
            );
            let none = world.ask(node, json!({"type": "read", "key": 9}));
            assert_eq!(none["code"], json!(NO_KEY));
            let cas = |from: u64, to: u64| json!({"type": "cas", "key": 1, "from": from, "to": to});
            assert_eq!(world.ask(node, cas(4, 5))["code"], json!(PRECONDITION));
            assert_eq!(world.ask(node, cas(3, 4))["type"], "cas_ok");
            assert_eq!(world.ask(node, cas(4, 3))["type"], "cas_ok");
            let missing = json!({"type": "cas", "key": 9, "from": 1, "to": 2});
            assert_eq!(world.ask(node, missing)["code"], json!(NO_KEY));
        }
    }

    #[test]
    fn a_leader_that_is_cut_off_answers_no_read_with_old_values() {
        // The others elect another and write; the old one must not vouch for what it had.
        let mut world = World::begin();
        let write = |value: u64| json!({"type": "write", "key": 1, "value": value});
        assert_eq!(world.ask_until_served("n1", &write(1))["type"], "write_ok");
        let old = world.leader();
        world.cut_off.insert(old.clone());
        let names = ["n0", "n1", "n2"];
        let other = names
            .into_iter()
            .find(|name| *name != old)
            .expect("two others");
        world.carry_until_others_lead(other, &old);
        assert_eq!(world.ask_until_served(other, &write(2))["type"], "write_ok");
        let read = json!({"type": "read", "key": 1});
        assert_eq!(world.ask(&old, read.clone())["code"], json!(UNAVAILABLE));
        world.cut_off.clear();
        world.carry_until_others_lead(&old, &old);
        let read = world.ask_until_served(&old, &read);
        assert_eq!(read["value"], json!(2));
    }
}
