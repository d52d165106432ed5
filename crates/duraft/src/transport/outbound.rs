//! One outgoing connection: a bounded queue and the thread that writes it out.
//!
//! The writer takes everything that waits, encodes it into one buffer and writes it with one call. Of
//! a snapshot's transfer it takes one piece at a time, so that messages wait for one piece at most.
//! While no connection stands, what waits is stale and is dropped at each failed attempt: the core
//! repeats what matters. Attempts are spaced by a backoff with jitter; a greeting from the peer ends
//! the pause at once, and one from a new life of the peer also ends a connection to its old life.

use super::channel::{Channel, ChannelError};
use super::inbound::{FrameReader, HELLO_FRAME_BYTES_MAX, ReadError};
use super::security::{PLAINTEXT_RULE, TlsRefusal};
use super::tcp::{Shared, TcpOptions};
use super::{Inbox, Local, cost_of};
use crate::wire::{Class, Frame, FrameBuffer, Hello, PROTOCOL_VERSION, Parcel, Refusal, WireError};
use duraft_core::{Envelope, Incarnation, NodeId, mix64};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Frames are gathered up to about this size before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// See the module documentation.
pub(super) struct Outbound {
    peer: NodeId,
    class: Class,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    address: String,
    waiting: VecDeque<Envelope>,
    bytes: u64,
    /// Words of a transfer.
    parcels: VecDeque<Parcel>,
    parcel_bytes: u64,
    writer_sleeps: bool,
    /// The life of the peer that has greeted since the last attempt to connect.
    nudged: Option<Incarnation>,
    /// The life of the peer that the standing connection reaches.
    connected_to: Option<Incarnation>,
    /// The standing connection is not to be trusted any more.
    redial: bool,
    closed: bool,
}

/// Why a connection cannot be made or used.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsRefusal),
    #[error("the address has no place to connect to")]
    NoAddress,
    #[error("plain text must be {PLAINTEXT_RULE}")]
    Plaintext,
    #[error("the peer refused: {0}")]
    Refused(Refusal),
    #[error("the peer's life {seen} was seen before: its disk was rolled back")]
    RolledBack { seen: Incarnation },
    #[error("the peer answered the hello wrongly")]
    Protocol,
    #[error("the peer's answer is not a frame: {0}")]
    Wire(#[from] WireError),
    #[error("the transport is stopping")]
    Stopping,
}

impl ConnectError {
    /// A refusal of our certificate comes after the handshake, with whatever is done first.
    fn with_refusal(self) -> ConnectError {
        #[cfg(feature = "tls")]
        if let ConnectError::Io(error) = &self
            && let Some(refusal) = TlsRefusal::of(error)
        {
            return ConnectError::Tls(refusal);
        }
        self
    }
}

impl From<ReadError> for ConnectError {
    fn from(error: ReadError) -> ConnectError {
        match error {
            ReadError::Io(error) => ConnectError::Io(error),
            ReadError::Wire(error) => ConnectError::Wire(error),
        }
    }
}

impl From<ChannelError> for ConnectError {
    fn from(error: ChannelError) -> ConnectError {
        match error {
            ChannelError::Io(error) => ConnectError::Io(error),
            ChannelError::Tls(refusal) => ConnectError::Tls(refusal),
        }
    }
}

impl Outbound {
    pub(super) fn new(peer: NodeId, address: &str, class: Class) -> Outbound {
        Outbound {
            peer,
            class,
            state: Mutex::new(State {
                address: address.to_string(),
                ..State::default()
            }),
            changed: Condvar::new(),
        }
    }

    /// Queues a message; returns how many messages were dropped for it or with it.
    pub(super) fn push(&self, envelope: Envelope, options: &TcpOptions) -> u64 {
        let cost = cost_of(&envelope);
        let mut state = self.state.lock();
        if state.closed {
            return 1;
        }
        let mut dropped = 0;
        match self.class {
            // The newest heartbeat or vote says more than the oldest.
            Class::Control => {
                if state.waiting.len() >= options.control_queue_max.max(1) {
                    state.waiting.pop_front();
                    dropped = 1;
                }
            }
            // A gap in a run of appends makes all that follow it useless: keep the front.
            Class::Bulk => {
                if state.bytes > 0 && state.bytes + cost > options.bulk_queue_bytes_max {
                    return 1;
                }
            }
        }
        state.bytes += cost;
        state.waiting.push_back(envelope);
        self.wake(&mut state);
        dropped
    }

    /// Queues a word of a transfer, or drops it.
    pub(super) fn push_parcel(&self, parcel: Parcel, options: &TcpOptions) -> u64 {
        let cost = parcel.frame.cost();
        let mut state = self.state.lock();
        let full =
            state.parcel_bytes > 0 && state.parcel_bytes + cost > options.transfer_queue_bytes_max;
        if state.closed || full {
            return 1;
        }
        state.parcel_bytes += cost;
        state.parcels.push_back(parcel);
        self.wake(&mut state);
        0
    }

    fn wake(&self, state: &mut State) {
        if state.writer_sleeps {
            state.writer_sleeps = false;
            self.changed.notify_one();
        }
    }

    /// The peer is reached at another address from now on.
    pub(super) fn set_address(&self, address: &str) {
        let mut state = self.state.lock();
        if state.address != address {
            state.address = address.to_string();
            state.redial = true;
            self.wake(&mut state);
        }
    }

    /// Makes the connection anew, where one stands.
    pub(super) fn redial(&self) {
        let mut state = self.state.lock();
        if state.connected_to.is_some() {
            state.redial = true;
            self.wake(&mut state);
        }
    }

    /// The peer's life `incarnation` has greeted us.
    pub(super) fn nudge(&self, incarnation: Incarnation) {
        let mut state = self.state.lock();
        if state.connected_to != Some(incarnation) {
            state.nudged = Some(incarnation);
            state.writer_sleeps = false;
            self.changed.notify_one();
        }
    }

    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.clear();
        state.parcels.clear();
        self.changed.notify_all();
    }

    /// Connects and writes until the transport stops or the peer is taken away.
    pub(super) fn run(&self, shared: &Shared, local: Local, inbox: &Inbox) {
        let mut backoff = Backoff::new(&shared.options, self.peer, self.class);
        let mut last_failure = String::new();
        while !shared.stop.is_raised() && !self.state.lock().closed {
            self.state.lock().nudged = None;
            let ended = match self.connect(shared, local) {
                Ok((channel, id)) => {
                    backoff.reset();
                    last_failure.clear();
                    tracing::debug!(peer = self.peer.0, class = ?self.class, "connected");
                    let ended = self.write_frames(shared, channel);
                    shared.streams.lock().end(id);
                    if self.class == Class::Bulk {
                        inbox.unreachable(self.peer);
                    }
                    ended.map_err(ConnectError::Io)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                let error = error.with_refusal();
                if let ConnectError::Tls(refusal) = &error {
                    shared.counters.tls.count(refusal);
                }
                self.report(shared, &error.to_string(), &mut last_failure, &error);
            }
            self.pause(shared, backoff.next());
        }
    }

    /// Says once why the peer cannot be reached, until the reason changes.
    fn report(&self, shared: &Shared, text: &str, last: &mut String, error: &ConnectError) {
        if shared.stop.is_raised() || last == text {
            return;
        }
        last.clear();
        last.push_str(text);
        let (peer, address, class) = (self.peer.0, self.state.lock().address.clone(), self.class);
        let grave = matches!(
            error,
            ConnectError::Refused(_)
                | ConnectError::Protocol
                | ConnectError::RolledBack { .. }
                | ConnectError::Plaintext
                | ConnectError::Tls(_)
        );
        if grave {
            tracing::warn!(peer, address, ?class, "cannot use the connection: {text}");
        } else {
            tracing::info!(peer, address, ?class, "no connection: {text}");
        }
    }

    /// Drops what is stale and waits for the end of the pause, a nudge or the end.
    fn pause(&self, shared: &Shared, pause: Duration) {
        let mut state = self.state.lock();
        let stale = state.waiting.len() as u64;
        state.waiting.clear();
        state.bytes = 0;
        state.parcels.clear();
        state.parcel_bytes = 0;
        state.connected_to = None;
        state.redial = false;
        shared.counters.dropped.fetch_add(stale, Ordering::Relaxed);
        if state.nudged.is_none() && !state.closed {
            self.changed.wait_for(&mut state, pause);
        }
    }

    /// Opens a connection and exchanges greetings.
    fn connect(&self, shared: &Shared, local: Local) -> Result<(Channel, u64), ConnectError> {
        let patience = shared.options.patience;
        let mut failure = ConnectError::NoAddress;
        let mut connected = None;
        let address = self.state.lock().address.clone();
        for address in address.to_socket_addrs()? {
            if !shared.options.security.allows(address.ip()) {
                failure = ConnectError::Plaintext;
                continue;
            }
            match TcpStream::connect_timeout(&address, patience) {
                Ok(stream) => {
                    connected = Some(stream);
                    break;
                }
                Err(error) => failure = ConnectError::Io(error),
            }
        }
        let stream = connected.ok_or(failure)?;
        let id = shared
            .streams
            .lock()
            .add(&stream)?
            .ok_or(ConnectError::Stopping)?;
        let greeted =
            Channel::connect(&shared.options.security, stream, patience, local, self.peer)
                .map_err(ConnectError::from)
                .and_then(|mut channel| Ok((self.greet(shared, &mut channel, local)?, channel)));
        match greeted {
            Ok((incarnation, channel)) => {
                shared.counters.connects.fetch_add(1, Ordering::Relaxed);
                let mut state = self.state.lock();
                state.connected_to = Some(incarnation);
                // The life that greeted in the meantime is the one we have reached.
                state.nudged = state.nudged.filter(|life| *life != incarnation);
                Ok((channel, id))
            }
            Err(error) => {
                shared.streams.lock().end(id);
                Err(error)
            }
        }
    }

    /// Says who we are and hears whether we are welcome.
    fn greet(
        &self,
        shared: &Shared,
        channel: &mut Channel,
        local: Local,
    ) -> Result<Incarnation, ConnectError> {
        let hello = Frame::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            class: self.class,
            max_batch_bytes: local.max_batch_bytes,
            cluster: local.cluster,
            node: local.node,
            incarnation: local.incarnation,
            to: self.peer,
        });
        let mut buffer = FrameBuffer::default();
        buffer.push(&hello, HELLO_FRAME_BYTES_MAX)?;
        buffer.write_to(channel)?;
        channel.flush()?;
        let mut reader = FrameReader::new(channel);
        match reader.next(HELLO_FRAME_BYTES_MAX)? {
            Some(Frame::Accepted(accepted)) if accepted.node == self.peer => {
                match shared.note_life(self.peer, accepted.incarnation) {
                    Ok(()) => Ok(accepted.incarnation),
                    Err(seen) => Err(ConnectError::RolledBack { seen }),
                }
            }
            Some(Frame::Refused(refusal)) => Err(ConnectError::Refused(refusal)),
            Some(Frame::Accepted(_) | Frame::Hello(_) | Frame::Message(_) | Frame::Transfer(_))
            | None => Err(ConnectError::Protocol),
        }
    }

    /// Writes what is queued until the connection fails, the peer begins a new life, or the end.
    fn write_frames(&self, shared: &Shared, mut channel: Channel) -> io::Result<()> {
        let mut taken = VecDeque::new();
        let mut buffer = FrameBuffer::default();
        while self.take(&mut taken) {
            while !taken.is_empty() {
                buffer.clear();
                let mut frames = 0;
                while buffer.len() < WRITE_BYTES {
                    let Some(frame) = taken.pop_front() else {
                        break;
                    };
                    match buffer.push(&frame, shared.options.frame_bytes_max) {
                        Ok(()) => frames += 1,
                        Err(error) => {
                            shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
                            tracing::error!(peer = self.peer.0, "a message was dropped: {error}");
                        }
                    }
                }
                buffer.write_to(&mut channel)?;
                // Under TLS a write tells of a failure only with the next one; this tells now.
                channel.flush()?;
                let counters = &shared.counters;
                counters.frames_sent.fetch_add(frames, Ordering::Relaxed);
                counters
                    .bytes_sent
                    .fetch_add(buffer.len() as u64, Ordering::Relaxed);
                counters.writes.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Moves all messages that wait, and one word of a transfer, into `taken`, waiting for a first.
    /// False when the connection shall end.
    fn take(&self, taken: &mut VecDeque<Frame>) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.closed || state.nudged.is_some() || state.redial {
                return false;
            }
            taken.extend(state.waiting.drain(..).map(Frame::Message));
            state.bytes = 0;
            if let Some(parcel) = state.parcels.pop_front() {
                state.parcel_bytes -= parcel.frame.cost();
                taken.push_back(Frame::Transfer(parcel));
            }
            if !taken.is_empty() {
                return true;
            }
            state.writer_sleeps = true;
            self.changed.wait(&mut state);
            state.writer_sleeps = false;
        }
    }
}

/// Pauses that double up to a maximum, each shortened by up to a half at random.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    fn new(options: &TcpOptions, peer: NodeId, class: Class) -> Backoff {
        Backoff {
            min: options.backoff_min,
            max: options.backoff_max,
            next: options.backoff_min,
            random: mix64(options.seed ^ mix64(peer.0 << 2 | class as u64)),
        }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    fn next(&mut self) -> Duration {
        self.random = mix64(self.random);
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.max);
        let parts = u32::try_from(self.random % 512).expect("less than 512");
        whole - whole * parts / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duraft_core::{GroupId, Index, Message, Term};
    use std::collections::BTreeMap;

    fn heartbeat(round: u64) -> Envelope {
        Envelope {
            group: GroupId(1),
            from: NodeId(1),
            incarnation: Incarnation(1),
            to: NodeId(2),
            term: Term(1),
            message: Message::Heartbeat {
                commit: Index(0),
                round,
            },
        }
    }

    #[test]
    fn full_control_queue_drops_the_oldest() {
        let mut options = TcpOptions::new(BTreeMap::new());
        options.control_queue_max = 2;
        let outbound = Outbound::new(NodeId(2), "", Class::Control);
        let dropped: Vec<u64> = (1..=4)
            .map(|i| outbound.push(heartbeat(i), &options))
            .collect();
        assert_eq!(dropped, [0, 0, 1, 1]);
        let mut taken = VecDeque::new();
        assert!(outbound.take(&mut taken));
        assert_eq!(taken, [3, 4].map(|i| Frame::Message(heartbeat(i))));
    }

    #[test]
    fn full_bulk_queue_drops_the_newest_but_admits_one() {
        let mut options = TcpOptions::new(BTreeMap::new());
        options.bulk_queue_bytes_max = 1;
        let outbound = Outbound::new(NodeId(2), "", Class::Bulk);
        let dropped: Vec<u64> = (1..=3)
            .map(|i| outbound.push(heartbeat(i), &options))
            .collect();
        assert_eq!(dropped, [0, 1, 1]);
        let mut taken = VecDeque::new();
        assert!(outbound.take(&mut taken));
        assert_eq!(taken, [Frame::Message(heartbeat(1))]);
        assert_eq!(outbound.push(heartbeat(4), &options), 0, "room is back");
    }

    #[test]
    fn backoff_doubles_to_its_cap_with_jitter_below_a_half() {
        let options = TcpOptions::new(BTreeMap::new());
        let mut backoff = Backoff::new(&options, NodeId(1), Class::Bulk);
        let mut whole = options.backoff_min;
        for _ in 0..20 {
            let pause = backoff.next();
            assert!(
                pause <= whole && pause >= whole / 2,
                "{pause:?} of {whole:?}"
            );
            whole = (whole * 2).min(options.backoff_max);
        }
        backoff.reset();
        assert!(backoff.next() <= options.backoff_min);
    }
}
