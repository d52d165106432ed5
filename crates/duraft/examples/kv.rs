//! A durable key-value service of three nodes, each a process: `kv 1 new`, `kv 2 new`, `kv 3 new`.
//! `new` only the first time; after a stop or a crash it is `kv 1`. Clients: `nc 127.0.0.1 7201`.
use duraft::{ApplyContext, Bytes, ClusterId, Node, NodeId, NodeOptions, ReadBasis, RequestError};
use duraft::{SnapshotWork, StateMachine};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::{collections::BTreeMap, env, error::Error, thread, time::Duration};

const WAIT: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Store(BTreeMap<String, String>);

impl StateMachine for Store {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        let command = String::from_utf8_lossy(command);
        let (key, value) = command.split_once(' ').unwrap_or((&command, ""));
        Bytes::from(self.0.insert(key.into(), value.into()).unwrap_or_default())
    }
    fn snapshot(&self) -> SnapshotWork {
        let view = self.0.clone();
        Box::new(move |out| view.iter().try_for_each(|(k, v)| writeln!(out, "{k} {v}")))
    }
    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let text = io::read_to_string(source)?;
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        self.0 = pairs.map(|(k, v)| (k.into(), v.into())).collect();
        Ok(())
    }
}

fn answer(node: &Node, line: &str) -> Result<String, RequestError> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.to_owned();
    match verb {
        "set" => node.propose_wait(rest.into(), WAIT).map(|_| "ok".into()),
        "get" => node.read_wait(ReadBasis::Quorum, WAIT, move |store: &Store| {
            store.0.get(&rest).cloned().unwrap_or_default()
        }),
        _ => Ok("`set key value` or `get key`".into()),
    }
}

fn serve(node: &Node, mut client: &TcpStream) -> io::Result<()> {
    BufReader::new(client).lines().try_for_each(|line| {
        let answer = answer(node, &line?).unwrap_or_else(|error| format!("error: {error}"));
        writeln!(client, "{answer}")
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let id: u64 = env::args().nth(1).ok_or("usage: kv 1|2|3 [new]")?.parse()?;
    let host = env::var("KV_HOST").unwrap_or("127.0.0.1".into());
    let peers = (1..=3).map(|id| (NodeId(id), format!("{host}:{}", 7100 + id)));
    let (cluster, folder) = (ClusterId(*b"key-value sample"), format!("kv-{id}"));
    let options = NodeOptions::in_dir(NodeId(id), cluster, folder)?.with_peers(peers);
    if env::args().nth(2).is_some_and(|word| word == "new") {
        Node::bootstrap(&options, &options.all_voters()?)?;
    }
    let node = Node::start(options, Box::<Store>::default())?;
    for client in TcpListener::bind(format!("{host}:{}", 7200 + id))?.incoming() {
        let (node, client) = (node.clone(), client?);
        thread::spawn(move || serve(&node, &client));
    }
    Ok(())
}
