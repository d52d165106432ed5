//! Connections that peers opened: the acceptor, and one reader thread per connection.
//!
//! A connection begins with a hello. It is refused, with the reason sent back, unless it speaks our
//! protocol version, belongs to our cluster, means this node, comes from a peer we know, has our
//! `max_batch_bytes` and is not an earlier life of the peer than one that was seen. A newer connection of the same peer and class ends the older one, so half-open
//! connections cannot pile up. Until the hello is accepted a stranger can make us hold a few hundred
//! bytes for a few seconds, on at most `inbound_max` connections.

use super::channel::{Channel, ChannelError};
use super::security::TlsRefusal;
use super::tcp::{Shared, spawn};
use super::{Inbox, Local};
use crate::wire::{
    Accepted, Class, Frame, FrameBuffer, HEADER_BYTES, Hello, PROTOCOL_VERSION, Refusal, WireError,
    decode_frame, frame_bytes,
};
use bytes::BytesMut;
use duraft_core::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Largest frame during the exchange of greetings.
pub(super) const HELLO_FRAME_BYTES_MAX: u64 = 512;
/// Bytes asked from the system at once.
const READ_BYTES: usize = 64 << 10;
/// A chunk with less room than this is left for a new one.
const READ_BYTES_MIN: usize = 4 << 10;

/// The accepting side of one transport.
pub(super) struct Inbound {
    shared: Arc<Shared>,
    local: Local,
    inbox: Inbox,
    /// The newest connection of each peer and class, by its stream's number.
    newest: Arc<Mutex<BTreeMap<(NodeId, Class), u64>>>,
    open: Arc<AtomicUsize>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsRefusal),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the first frame is not a hello")]
    NoHello,
    #[error("the hello was refused: {0}")]
    Refused(Refusal),
    #[error("a frame of the wrong kind or with wrong addresses came in")]
    WrongFrame,
}

impl From<ChannelError> for Ended {
    fn from(error: ChannelError) -> Ended {
        match error {
            ChannelError::Io(error) => Ended::Io(error),
            ChannelError::Tls(refusal) => Ended::Tls(refusal),
        }
    }
}

impl Inbound {
    pub(super) fn new(shared: Arc<Shared>, local: Local, inbox: Inbox) -> Inbound {
        Inbound {
            shared,
            local,
            inbox,
            newest: Arc::default(),
            open: Arc::default(),
        }
    }
}

/// Accepts connections until the transport stops, then waits for their readers.
pub(super) fn accept(listener: &TcpListener, inbound: Inbound) {
    let inbound = Arc::new(inbound);
    let stop = &inbound.shared.stop;
    let mut readers: Vec<JoinHandle<()>> = Vec::new();
    while !stop.is_raised() {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Usually too many open files: give the system time instead of spinning.
                tracing::warn!("cannot accept a connection: {error}");
                stop.pause(Duration::from_millis(50));
                continue;
            }
        };
        readers.retain(|reader| !reader.is_finished());
        if stop.is_raised()
            || inbound.open.load(Ordering::SeqCst) >= inbound.shared.options.inbound_max
        {
            continue;
        }
        inbound.open.fetch_add(1, Ordering::SeqCst);
        let serving = Arc::clone(&inbound);
        match spawn("duraft-read".into(), move || serving.serve(stream)) {
            Ok(reader) => readers.push(reader),
            Err(error) => {
                inbound.open.fetch_sub(1, Ordering::SeqCst);
                tracing::warn!("cannot start a reader: {error}");
            }
        }
    }
    for reader in readers {
        let _ = reader.join();
    }
}

impl Inbound {
    fn serve(&self, stream: TcpStream) {
        let registered = self.shared.streams.lock().add(&stream);
        if let Ok(Some(id)) = registered {
            let from = stream.peer_addr();
            let ended = self.read(stream, id);
            if let Err(Ended::Tls(refusal)) = &ended {
                self.shared.counters.tls.count(refusal);
            }
            self.shared.streams.lock().end(id);
            self.newest.lock().retain(|_, newest| *newest != id);
            if let Err(error) = ended
                && !self.shared.stop.is_raised()
            {
                let from = from.map_or_else(|e| e.to_string(), |a| a.to_string());
                match error {
                    Ended::Io(error) => tracing::debug!(from, "connection lost: {error}"),
                    error @ (Ended::Tls(_)
                    | Ended::Wire(_)
                    | Ended::NoHello
                    | Ended::Refused(_)
                    | Ended::WrongFrame) => tracing::warn!(from, "connection closed: {error}"),
                }
            }
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// Greets, then delivers messages until the connection ends.
    fn read(&self, stream: TcpStream, id: u64) -> Result<(), Ended> {
        let options = &self.shared.options;
        let channel = Channel::accept(&options.security, stream, options.patience)?;
        let mut reader = FrameReader::new(channel);
        let Some(Frame::Hello(hello)) = reader.next(HELLO_FRAME_BYTES_MAX)? else {
            return Err(Ended::NoHello);
        };
        let named = reader
            .source
            .check_peer(self.local.cluster, hello.node)
            .map_err(|refusal| (Refusal::Certificate, Ended::Tls(refusal)));
        let judged = named.and_then(|()| {
            let judged = self.judge(&hello);
            judged.map_err(|refusal| (refusal, Ended::Refused(refusal)))
        });
        let answer = match &judged {
            Ok(()) => Frame::Accepted(Accepted {
                node: self.local.node,
                incarnation: self.local.incarnation,
            }),
            Err((refusal, _)) => Frame::Refused(*refusal),
        };
        let mut buffer = FrameBuffer::default();
        buffer.push(&answer, HELLO_FRAME_BYTES_MAX)?;
        buffer.write_to(&mut reader.source)?;
        reader.source.flush()?;
        if let Err((_, ended)) = judged {
            self.shared
                .counters
                .refusals
                .fetch_add(1, Ordering::Relaxed);
            return Err(ended);
        }
        if let Some(older) = self.newest.lock().insert((hello.node, hello.class), id) {
            self.shared.streams.lock().end(older);
        }
        self.shared.nudge(hello.node, hello.incarnation);
        reader.source.settle()?;
        self.deliver(&mut reader, &hello)
    }

    /// Is this connection meant for us, and can we work with the sender?
    fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        let local = &self.local;
        if hello.protocol != PROTOCOL_VERSION {
            return Err(Refusal::Protocol {
                ours: PROTOCOL_VERSION,
            });
        }
        if hello.cluster != local.cluster {
            return Err(Refusal::Cluster);
        }
        if hello.to != local.node {
            return Err(Refusal::WrongNode { actual: local.node });
        }
        if hello.node == local.node || !self.shared.knows(hello.node) {
            return Err(Refusal::UnknownPeer);
        }
        if hello.max_batch_bytes != local.max_batch_bytes {
            return Err(Refusal::MaxBatch {
                ours: local.max_batch_bytes,
            });
        }
        self.shared
            .note_life(hello.node, hello.incarnation)
            .map_err(|seen| Refusal::RolledBack { seen })
    }

    fn deliver(&self, reader: &mut FrameReader<Channel>, hello: &Hello) -> Result<(), Ended> {
        while let Some(frame) = reader.next(self.shared.options.frame_bytes_max)? {
            let addresses = match &frame {
                Frame::Message(envelope) => (envelope.from, envelope.incarnation, envelope.to),
                Frame::Transfer(parcel) => (parcel.from, parcel.incarnation, parcel.to),
                Frame::Hello(_) | Frame::Accepted(_) | Frame::Refused(_) => {
                    return Err(Ended::WrongFrame);
                }
            };
            if addresses != (hello.node, hello.incarnation, self.local.node) {
                return Err(Ended::WrongFrame);
            }
            self.shared
                .counters
                .frames_received
                .fetch_add(1, Ordering::Relaxed);
            match frame {
                Frame::Message(envelope) => {
                    if self.inbox.deliver(envelope).is_err() {
                        return Ok(());
                    }
                }
                Frame::Transfer(parcel) => self.inbox.deliver_parcel(parcel),
                Frame::Hello(_) | Frame::Accepted(_) | Frame::Refused(_) => {}
            }
        }
        Ok(())
    }
}

/// Takes frames off a socket. A frame's bytes are read into a chunk that following frames share, so
/// that small bodies that are kept for long do not each hold a chunk of their own.
pub(super) struct FrameReader<S> {
    source: S,
    buffer: BytesMut,
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Ended {
        match error {
            ReadError::Io(error) => Ended::Io(error),
            ReadError::Wire(error) => Ended::Wire(error),
        }
    }
}

impl<S: Read> FrameReader<S> {
    pub(super) fn new(source: S) -> FrameReader<S> {
        FrameReader {
            source,
            buffer: BytesMut::new(),
        }
    }

    /// The next frame; `None` when the peer has ended the connection between two frames.
    pub(super) fn next(&mut self, frame_bytes_max: u64) -> Result<Option<Frame>, ReadError> {
        loop {
            let len = frame_bytes(&self.buffer, frame_bytes_max)?;
            if let Some(len) = len
                && self.buffer.len() >= len
            {
                let frame = self.buffer.split_to(len).freeze();
                return Ok(Some(decode_frame(frame)?));
            }
            if !self.fill(len.unwrap_or(HEADER_BYTES))? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(WireError::Short.into())
                };
            }
        }
    }

    /// Reads some more bytes of a frame of `frame_len` bytes. False at the end of the stream.
    fn fill(&mut self, frame_len: usize) -> io::Result<bool> {
        let missing = frame_len.saturating_sub(self.buffer.len());
        if self.buffer.capacity() - self.buffer.len() < missing.max(READ_BYTES_MIN) {
            self.buffer.reserve(missing.max(READ_BYTES));
        }
        let start = self.buffer.len();
        let room = (self.buffer.capacity() - start).min(missing.max(READ_BYTES));
        self.buffer.resize(start + room, 0);
        let read = loop {
            match self.source.read(&mut self.buffer[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let read = read.inspect_err(|_| self.buffer.truncate(start))?;
        self.buffer.truncate(start + read);
        Ok(read > 0)
    }
}
