//! Passing an entry on to the leader: one request at a time on each of a bounded number of
//! connections to the leader's client address, kept for the next.
//!
//! What is told of a failure is what can be known: an entry that was not sent whole has no effect; one
//! that was, and has no answer, may have.

use super::config::Limits;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// The command that carries an entry.
pub(crate) const FORWARD: &str = "DURAFT.FORWARD";
/// First word of the refusal of a node that does not lead.
pub(crate) const NOT_LEADER: &str = "NOTLEADER";

/// A response is at most as long as the values that one entry may tell.
const RESPONSE_BYTES_MAX: usize = 1 << 30;
/// Longest line of an answer.
const LINE_BYTES_MAX: u64 = 4096;

/// Why there is no response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoResponse {
    /// Certainly without effect: it was not sent, or that node does not lead.
    Elsewhere(String),
    /// The leader's words for a client.
    Refused(String),
    /// Nobody can tell.
    Unknown(String),
}

/// See the module documentation.
pub(crate) struct Proxy {
    idle: Mutex<BTreeMap<String, Vec<BufReader<TcpStream>>>>,
    room: Semaphore,
}

impl Proxy {
    pub(crate) fn new(limits: &Limits) -> Proxy {
        let room = usize::try_from(limits.proxy_connections_max).unwrap_or(usize::MAX);
        Proxy {
            idle: Mutex::default(),
            room: Semaphore::new(room.min(Semaphore::MAX_PERMITS)),
        }
    }

    /// Sends an entry to the node at `address` and waits for its response, no longer than `until`.
    pub(crate) async fn ask(
        &self,
        address: &str,
        entry: &Bytes,
        until: Instant,
    ) -> Result<Bytes, NoResponse> {
        let elsewhere = |what: &str| NoResponse::Elsewhere(format!("{address}: {what}"));
        let Ok(Ok(_permit)) = timeout_at(until, self.room.acquire()).await else {
            return Err(elsewhere("no connection is free"));
        };
        let mut stream = match self.idle_stream(address) {
            Some(stream) => stream,
            None => match timeout_at(until, connect(address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return Err(elsewhere(&error.to_string())),
                Err(_) => return Err(elsewhere("no connection in time")),
            },
        };
        match timeout_at(until, send(stream.get_mut(), entry)).await {
            // A request that is not whole is never carried out.
            Err(_) => return Err(elsewhere("it takes nothing")),
            Ok(Err(error)) => return Err(elsewhere(&error.to_string())),
            Ok(Ok(())) => {}
        }
        let unknown = |what: String| Err(NoResponse::Unknown(format!("{address}: {what}")));
        match timeout_at(until, receive(&mut stream)).await {
            Err(_) => unknown("no answer in time".into()),
            Ok(Err(error)) => unknown(format!("no answer: {error}")),
            Ok(Ok(answer)) => {
                let mut idle = self.idle.lock();
                idle.entry(address.to_string()).or_default().push(stream);
                answer
            }
        }
    }

    /// A connection that was used before and seems alive.
    fn idle_stream(&self, address: &str) -> Option<BufReader<TcpStream>> {
        loop {
            let stream = self.idle.lock().get_mut(address)?.pop()?;
            let nothing = stream.get_ref().try_read(&mut [0; 1]);
            if matches!(nothing, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Some(stream);
            }
        }
    }

    /// Closes connections to nodes that do not lead.
    pub(crate) fn keep_only(&self, address: Option<&str>) {
        let kept = |a: &String, _: &mut Vec<_>| Some(a.as_str()) == address;
        self.idle.lock().retain(kept);
    }
}

async fn connect(address: &str) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

async fn send(stream: &mut TcpStream, entry: &[u8]) -> io::Result<()> {
    let head = format!(
        "*2\r\n${}\r\n{FORWARD}\r\n${}\r\n",
        FORWARD.len(),
        entry.len()
    );
    let mut frame = Vec::with_capacity(head.len() + entry.len() + 2);
    frame.extend_from_slice(head.as_bytes());
    frame.extend_from_slice(entry);
    frame.extend_from_slice(b"\r\n");
    stream.write_all(&frame).await
}

/// Reads the answer; an error of the connection is the outer one.
async fn receive(stream: &mut BufReader<TcpStream>) -> io::Result<Result<Bytes, NoResponse>> {
    let mut line = String::new();
    (&mut *stream)
        .take(LINE_BYTES_MAX)
        .read_line(&mut line)
        .await?;
    let Some(line) = line.strip_suffix("\r\n") else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    if let Some(refusal) = line.strip_prefix('-') {
        let refusal = refusal.to_string();
        return Ok(Err(if refusal.starts_with(NOT_LEADER) {
            NoResponse::Elsewhere(refusal)
        } else {
            NoResponse::Refused(refusal)
        }));
    }
    let len = line.strip_prefix('$').and_then(|len| len.parse().ok());
    let Some(len) = len.filter(|len| *len <= RESPONSE_BYTES_MAX) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not an answer of ours",
        ));
    };
    let mut response = Vec::new();
    let wanted = len as u64 + 2;
    (&mut *stream)
        .take(wanted)
        .read_to_end(&mut response)
        .await?;
    if response.len() as u64 != wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    response.truncate(len);
    Ok(Ok(Bytes::from(response)))
}
