//! The network between the nodes: a relay for each ordered pair of nodes, which can hold back what it
//! is given, cut its connections, or be slow. Nodes send on connections that they open themselves, so
//! a relay carries one direction, and each can be broken alone.

use parking_lot::{Condvar, Mutex};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// What a relay does with what it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// Passes it on.
    Open,
    /// Keeps it, and says nothing: a black hole that gives back what it took.
    Held,
    /// Ends all connections and takes no new ones.
    Cut,
    /// Passes each piece on after this time.
    Slow(Duration),
}

/// All relays, by sender and receiver.
pub(super) struct Links {
    relays: Vec<Vec<Arc<Relay>>>,
}

struct Relay {
    /// Where the sender connects.
    address: String,
    /// Where the receiver listens.
    target: String,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    streams: Vec<TcpStream>,
}

impl Links {
    /// Relays between nodes that listen at these addresses, all open.
    pub(super) fn between(targets: &[String]) -> io::Result<Links> {
        let mut relays = Vec::new();
        for _ in targets {
            let row = targets.iter().map(|target| Relay::start(target));
            relays.push(row.collect::<io::Result<Vec<_>>>()?);
        }
        Ok(Links { relays })
    }

    /// How the node at `from` reaches each node.
    pub(super) fn seen_from(&self, from: usize) -> Vec<String> {
        let row = self.relays[from].iter();
        row.map(|relay| relay.address.clone()).collect()
    }

    pub(super) fn set(&self, from: usize, to: usize, mode: Mode) {
        let relay = &self.relays[from][to];
        let mut state = relay.state.lock();
        state.mode = mode;
        if mode == Mode::Cut {
            for stream in state.streams.drain(..) {
                // It may be closed already.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        relay.changed.notify_all();
    }

    pub(super) fn heal(&self) {
        for from in 0..self.relays.len() {
            for to in 0..self.relays.len() {
                self.set(from, to, Mode::Open);
            }
        }
    }
}

impl Relay {
    fn start(target: &str) -> io::Result<Arc<Relay>> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let relay = Arc::new(Relay {
            address: listener.local_addr()?.to_string(),
            target: target.to_owned(),
            state: Mutex::new(State {
                mode: Mode::Open,
                streams: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let serving = Arc::clone(&relay);
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection that cannot be made is one that the sender makes again.
                let _ = serving.connect(&stream);
            }
        });
        Ok(relay)
    }

    fn connect(self: &Arc<Relay>, sender: &TcpStream) -> io::Result<()> {
        if self.state.lock().mode == Mode::Cut {
            return Ok(());
        }
        let receiver = TcpStream::connect(&self.target)?;
        for stream in [sender, &receiver] {
            stream.set_nodelay(true)?;
            self.state.lock().streams.push(stream.try_clone()?);
        }
        let there = (sender.try_clone()?, receiver.try_clone()?);
        let back = (receiver, sender.try_clone()?);
        for (from, to) in [there, back] {
            let relay = Arc::clone(self);
            std::thread::spawn(move || relay.pump(&from, &to));
        }
        Ok(())
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut piece = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut piece) {
            if !self.pass() || to.write_all(&piece[..len]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Waits until a piece may pass; false: never.
    fn pass(&self) -> bool {
        let mut state = self.state.lock();
        while state.mode == Mode::Held {
            self.changed.wait(&mut state);
        }
        if let Mode::Slow(time) = state.mode {
            // Ends early where the mode changes.
            self.changed.wait_for(&mut state, time);
        }
        state.mode != Mode::Cut
    }
}
