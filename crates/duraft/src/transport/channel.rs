//! One connection, in plain text or under TLS.
//!
//! The threads that use it see a `Read` and a `Write`. Until the greeting is over all its reads
//! together get as long as one greeting may take, so that nobody can hold a thread by sending a byte
//! now and then.

use super::security::{Security, TlsRefusal};
use crate::transport::Local;
use duraft_core::NodeId;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A socket with a time until which the greeting must be over.
pub(super) struct Socket {
    stream: TcpStream,
    until: Option<Instant>,
}

impl Socket {
    /// A socket whose greeting may take so long, and whose writes may block as long.
    fn new(stream: TcpStream, patience: Duration) -> io::Result<Socket> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(patience))?;
        give_up_after(&stream, patience);
        Ok(Socket {
            stream,
            until: Some(Instant::now() + patience),
        })
    }

    fn settle(&mut self) -> io::Result<()> {
        self.until = None;
        self.stream.set_read_timeout(None)
    }
}

impl Read for Socket {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Some(until) = self.until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
        }
        self.stream.read(out)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// See the module documentation.
pub(super) enum Channel {
    Plain(Socket),
    #[cfg(feature = "tls")]
    Client(Box<rustls::StreamOwned<rustls::ClientConnection, Socket>>),
    #[cfg(feature = "tls")]
    Server(Box<rustls::StreamOwned<rustls::ServerConnection, Socket>>),
}

/// Why a connection cannot be made secure.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsRefusal),
}

impl Channel {
    /// Our side of a connection that we opened to `peer`.
    pub(super) fn connect(
        security: &Security,
        stream: TcpStream,
        patience: Duration,
        local: Local,
        peer: NodeId,
    ) -> Result<Channel, ChannelError> {
        let socket = Socket::new(stream, patience)?;
        match security {
            Security::LoopbackOnly | Security::InsecurePlaintext => {
                let _ = (local, peer);
                Ok(Channel::Plain(socket))
            }
            #[cfg(feature = "tls")]
            Security::Tls(tls) => {
                let stream = tls.connect(socket, local.cluster, peer)?;
                Ok(Channel::Client(Box::new(stream)))
            }
        }
    }

    /// Our side of a connection that somebody opened to us.
    pub(super) fn accept(
        security: &Security,
        stream: TcpStream,
        patience: Duration,
    ) -> Result<Channel, ChannelError> {
        let socket = Socket::new(stream, patience)?;
        match security {
            Security::LoopbackOnly | Security::InsecurePlaintext => Ok(Channel::Plain(socket)),
            #[cfg(feature = "tls")]
            Security::Tls(tls) => Ok(Channel::Server(Box::new(tls.accept(socket)?))),
        }
    }

    /// Does the other side's certificate speak for this node of our cluster? In plain text everybody
    /// is taken at their word.
    pub(super) fn check_peer(&self, cluster: [u8; 16], node: NodeId) -> Result<(), TlsRefusal> {
        match self {
            Channel::Plain(_) => {
                let _ = (cluster, node);
                Ok(())
            }
            #[cfg(feature = "tls")]
            Channel::Client(stream) => {
                super::tls::check_names(stream.conn.peer_certificates(), cluster, node)
            }
            #[cfg(feature = "tls")]
            Channel::Server(stream) => {
                super::tls::check_names(stream.conn.peer_certificates(), cluster, node)
            }
        }
    }

    /// The greeting is over: what comes next may take as long as it likes.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        match self {
            Channel::Plain(socket) => socket.settle(),
            #[cfg(feature = "tls")]
            Channel::Client(stream) => stream.sock.settle(),
            #[cfg(feature = "tls")]
            Channel::Server(stream) => stream.sock.settle(),
        }
    }
}

impl Read for Channel {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Channel::Plain(socket) => socket.read(out),
            #[cfg(feature = "tls")]
            Channel::Client(stream) => super::tls::end_is_end(stream.read(out)),
            #[cfg(feature = "tls")]
            Channel::Server(stream) => super::tls::end_is_end(stream.read(out)),
        }
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Channel::Plain(socket) => socket.write_vectored(slices),
            #[cfg(feature = "tls")]
            Channel::Client(stream) => stream.write_vectored(slices),
            #[cfg(feature = "tls")]
            Channel::Server(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Channel::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Channel::Client(stream) => stream.flush(),
            #[cfg(feature = "tls")]
            Channel::Server(stream) => stream.flush(),
        }
    }
}

/// A connection whose bytes nobody acknowledges for so long is as good as lost, though the system
/// would go on trying for many minutes. Where it cannot be set, the write timeout alone remains.
fn give_up_after(stream: &TcpStream, patience: Duration) {
    #[cfg(target_os = "linux")]
    {
        let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, millis) {
            tracing::debug!("no timeout for unacknowledged bytes: {error}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, patience);
}
