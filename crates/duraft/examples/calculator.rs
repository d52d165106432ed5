//! A calculator whose display is replicated: `cargo run -p duraft --example calculator`, then lines
//! as `+ 2`, `* 21` or `- 0.5`. Three nodes in one process; see the `kv` example for processes.
#![allow(clippy::print_stdout)]
use duraft::{ApplyContext, Bytes, ClusterId, Node, NodeId, NodeOptions};
use duraft::{Session, SessionLimits, SnapshotWork, StateMachine};
use std::error::Error;
use std::io::{self, BufRead, Read};
use std::time::Duration;

// Step 1: implement the state machine. A command is a line; the answer is the new display.
#[derive(Default)]
struct Calculator(f64);

impl StateMachine for Calculator {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        let line = String::from_utf8_lossy(command);
        let Some((operator, Ok(number))) = line.split_once(' ').map(|(o, n)| (o, n.parse::<f64>()))
        else {
            return Bytes::from("write an operator, a blank and a number");
        };
        match operator {
            "+" => self.0 += number,
            "-" => self.0 -= number,
            "*" => self.0 *= number,
            "/" => self.0 /= number,
            _ => return Bytes::from("the operators are + - * /"),
        }
        Bytes::from(self.0.to_string())
    }

    fn snapshot(&self) -> SnapshotWork {
        let display = self.0.to_le_bytes();
        Box::new(move |out| out.write_all(&display))
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut display = [0; 8];
        source.read_exact(&mut display)?;
        self.0 = f64::from_le_bytes(display);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // Step 2: name the peers.
    let host = std::env::var("CALCULATOR_HOST").unwrap_or("127.0.0.1".into());
    let peers = [1, 2, 3].map(|id| (NodeId(id), format!("{host}:{}", 7300 + id)));

    // Step 3: start.
    let folder = tempfile::tempdir_in(".")?;
    let mut nodes = Vec::new();
    for (id, _) in &peers {
        let cluster = ClusterId(*b"calculator.sampl");
        let options = NodeOptions::in_dir(*id, cluster, folder.path().join(id.to_string()))?
            .with_peers(peers.clone());
        Node::bootstrap(&options, &options.all_voters()?)?;
        nodes.push(Node::start(options, Box::<Calculator>::default())?);
    }

    // That was all. A session finds the leader, and sees to it that no line is counted twice.
    let patience = Duration::from_secs(10);
    let session = Session::open(&nodes, SessionLimits::default(), patience)?;
    for line in io::stdin().lock().lines() {
        let done = session.propose(&nodes, Bytes::from(line?), patience)?;
        println!("{}", String::from_utf8_lossy(&done.response));
    }
    nodes.iter().for_each(|node| drop(node.shutdown()));
    Ok(())
}
