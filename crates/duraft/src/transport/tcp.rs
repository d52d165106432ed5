//! The TCP transport: plain blocking sockets and threads.
//!
//! Each node opens two connections to each peer and only writes on them: *control* for votes and
//! heartbeats, *bulk* for appends, so that bulk data cannot delay a heartbeat. Each has a bounded
//! queue and a writer thread; a peer that is dead or slow fills its own queue and nothing else. What
//! arrives comes in on the connections that peers opened, one reader thread each.

use super::inbound::{self, Inbound};
use super::outbound::Outbound;
use super::security::{PLAINTEXT_RULE, Security, TlsCounters, TlsStats};
use super::{Inbox, Local, Transport};
use crate::wire::{APPEND_OVERHEAD_BYTES, Class, Parcel};
use duraft_core::{Envelope, Incarnation, NodeId};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// How the TCP transport behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpOptions {
    /// Addresses of the peers, as `host:port`. An entry for this node itself is ignored.
    pub peers: BTreeMap<NodeId, String>,
    /// How connections are protected.
    pub security: Security,
    /// Largest frame, header included, that is sent or accepted.
    pub frame_bytes_max: u64,
    /// Most bytes of appends that wait for one peer; the newest is dropped when full.
    pub bulk_queue_bytes_max: u64,
    /// Most bytes of a snapshot's transfer that wait for one peer; the newest is dropped when full.
    pub transfer_queue_bytes_max: u64,
    /// Most control messages that wait for one peer; the oldest is dropped when full.
    pub control_queue_max: usize,
    /// Longest wait for a connection, for a greeting and for a blocked write.
    pub patience: Duration,
    /// First pause before connecting again; doubles up to `backoff_max`.
    pub backoff_min: Duration,
    /// Longest pause before connecting again.
    pub backoff_max: Duration,
    /// Most connections that others may have open to this node.
    pub inbound_max: usize,
    /// Seed of the pauses' jitter.
    pub seed: u64,
}

impl TcpOptions {
    /// The default limits for these peers.
    pub fn new(peers: BTreeMap<NodeId, String>) -> TcpOptions {
        TcpOptions {
            peers,
            security: Security::default(),
            frame_bytes_max: 4 << 20,
            bulk_queue_bytes_max: 32 << 20,
            transfer_queue_bytes_max: 6 << 20,
            control_queue_max: 64,
            patience: Duration::from_secs(3),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
            inbound_max: 256,
            seed: 0,
        }
    }
}

/// Counts of what the transport did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct TcpStats {
    /// Frames handed to the system.
    pub frames_sent: u64,
    /// Bytes handed to the system.
    pub bytes_sent: u64,
    /// Calls that handed them over.
    pub writes: u64,
    /// Frames delivered to the node.
    pub frames_received: u64,
    /// Messages dropped because a queue was full or no connection stood.
    pub dropped: u64,
    /// Connections this node opened.
    pub connects: u64,
    /// Hellos this node refused.
    pub refusals: u64,
    /// Connections that were refused for a certificate.
    pub tls: TlsStats,
}

/// See the module documentation.
pub struct TcpTransport {
    shared: Arc<Shared>,
    listener: Mutex<Option<TcpListener>>,
    local_address: SocketAddr,
    threads: Mutex<Vec<JoinHandle<()>>>,
    inbox: OnceLock<Inbox>,
}

impl TcpTransport {
    /// A transport that will accept connections on `listener`.
    pub fn new(listener: TcpListener, options: TcpOptions) -> io::Result<TcpTransport> {
        let local_address = listener.local_addr()?;
        if !options.security.allows(local_address.ip()) {
            let text = format!("plain text must be {PLAINTEXT_RULE}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let outbound = options
            .peers
            .iter()
            .flat_map(|(id, address)| outbound_to(*id, address))
            .collect();
        Ok(TcpTransport {
            shared: Arc::new(Shared {
                options,
                outbound: RwLock::new(outbound),
                lives: Mutex::default(),
                local: OnceLock::new(),
                stop: StopSignal::default(),
                streams: Mutex::default(),
                counters: Counters::default(),
            }),
            listener: Mutex::new(Some(listener)),
            local_address,
            threads: Mutex::default(),
            inbox: OnceLock::new(),
        })
    }

    /// The address that peers can reach.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// What the transport did so far.
    pub fn stats(&self) -> TcpStats {
        self.shared.counters.read()
    }

    /// Starts the thread of one outgoing connection.
    fn start_outbound(
        &self,
        peer: NodeId,
        class: Class,
        outbound: Arc<Outbound>,
        local: Local,
        inbox: Inbox,
    ) -> io::Result<()> {
        if peer == local.node {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        // The system shows 15 bytes of a thread's name.
        let name = match class {
            Class::Control => format!("duraft-ctl-{peer}"),
            Class::Bulk => format!("duraft-bulk-{peer}"),
        };
        let thread = spawn(name, move || {
            outbound.run(&shared, local, &inbox);
        })?;
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Wakes the acceptor out of its blocking call: a connection to ourselves does.
    fn wake_acceptor(&self) {
        let mut address = self.local_address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        // A failure means that the acceptor's backlog is full: then it is awake already.
        let _ = TcpStream::connect_timeout(&address, Duration::from_secs(1));
    }
}

impl Transport for TcpTransport {
    fn start(&self, local: Local, inbox: Inbox) -> io::Result<()> {
        let largest = local.append_bytes_max + APPEND_OVERHEAD_BYTES;
        if self.shared.options.frame_bytes_max < largest {
            let text = format!("frame_bytes_max must be at least {largest}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        #[cfg(feature = "tls")]
        if let Security::Tls(tls) = &self.shared.options.security {
            let own = tls.check_own(duraft_storage::ClusterId(local.cluster), local.node);
            own.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        }
        let Some(listener) = self.listener.lock().take() else {
            return Err(io::Error::other("the transport was started before"));
        };
        if self.shared.local.set(local).is_err() {
            return Err(io::Error::other("the transport was started before"));
        }
        let _ = self.inbox.set(inbox.clone());
        let outbound = self.shared.outbound.read().clone();
        for ((peer, class), outbound) in outbound {
            self.start_outbound(peer, class, outbound, local, inbox.clone())?;
        }
        let inbound = Inbound::new(Arc::clone(&self.shared), local, inbox);
        let acceptor = spawn("duraft-accept".into(), move || {
            inbound::accept(&listener, inbound);
        })?;
        self.threads.lock().push(acceptor);
        Ok(())
    }

    fn send(&self, envelope: Envelope) {
        let class = Class::of(&envelope.message);
        let dropped = match self.shared.outbound.read().get(&(envelope.to, class)) {
            Some(outbound) => outbound.push(envelope, &self.shared.options),
            None => 1,
        };
        self.shared.count_dropped(dropped);
    }

    fn send_parcel(&self, parcel: Parcel) {
        let dropped = match self.shared.outbound.read().get(&(parcel.to, Class::Bulk)) {
            Some(outbound) => outbound.push_parcel(parcel, &self.shared.options),
            None => 1,
        };
        self.shared.count_dropped(dropped);
    }

    fn set_peer(&self, peer: NodeId, address: Option<String>) -> bool {
        let Some(address) = address else {
            let mut outbound = self.shared.outbound.write();
            for class in [Class::Control, Class::Bulk] {
                if let Some(gone) = outbound.remove(&(peer, class)) {
                    gone.close();
                }
            }
            return true;
        };
        let mut new = Vec::new();
        {
            let mut outbound = self.shared.outbound.write();
            for (key, made) in outbound_to(peer, &address) {
                match outbound.get(&key) {
                    Some(known) => known.set_address(&address),
                    None => {
                        outbound.insert(key, Arc::clone(&made));
                        new.push((key, made));
                    }
                }
            }
        }
        let started = self.shared.local.get().zip(self.inbox.get());
        let Some((local, inbox)) = started else {
            return true;
        };
        new.into_iter().all(|((peer, class), outbound)| {
            let begun = self.start_outbound(peer, class, outbound, *local, inbox.clone());
            begun
                .inspect_err(|error| tracing::error!("cannot reach out to {peer}: {error}"))
                .is_ok()
        })
    }

    fn redial(&self, peer: NodeId) {
        if let Some(outbound) = self.shared.outbound.read().get(&(peer, Class::Bulk)) {
            tracing::info!(peer = peer.0, "nothing moves on the bulk connection");
            outbound.redial();
        }
    }

    fn stats(&self) -> TcpStats {
        self.shared.counters.read()
    }

    fn stop(&self) {
        self.shared.stop.raise();
        for outbound in self.shared.outbound.read().values() {
            outbound.close();
        }
        self.shared.streams.lock().close();
        let threads = std::mem::take(&mut *self.threads.lock());
        let started = self.shared.local.get().is_some();
        if started && !threads.is_empty() {
            self.wake_acceptor();
        }
        for thread in threads {
            // A panicked thread has said so on its way; there is nothing left to end.
            let _ = thread.join();
        }
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.stop();
    }
}

fn outbound_to(peer: NodeId, address: &str) -> [((NodeId, Class), Arc<Outbound>); 2] {
    [Class::Control, Class::Bulk]
        .map(|class| ((peer, class), Arc::new(Outbound::new(peer, address, class))))
}

type Connections = BTreeMap<(NodeId, Class), Arc<Outbound>>;

/// What all threads of one transport share.
pub(super) struct Shared {
    pub(super) options: TcpOptions,
    pub(super) outbound: RwLock<Connections>,
    /// The latest life seen of each peer.
    lives: Mutex<BTreeMap<NodeId, Incarnation>>,
    pub(super) local: OnceLock<Local>,
    pub(super) stop: StopSignal,
    pub(super) streams: Mutex<Streams>,
    pub(super) counters: Counters,
}

impl Shared {
    fn count_dropped(&self, dropped: u64) {
        self.counters.dropped.fetch_add(dropped, Ordering::Relaxed);
    }

    /// Is this node one of those that this one talks to?
    pub(super) fn knows(&self, peer: NodeId) -> bool {
        self.outbound.read().contains_key(&(peer, Class::Control))
    }

    /// A life of a peer shows itself. A life after which a later one was seen has lost what happened
    /// in between (RULES.md 18): the later one is returned.
    pub(super) fn note_life(&self, peer: NodeId, life: Incarnation) -> Result<(), Incarnation> {
        let mut lives = self.lives.lock();
        let seen = lives.entry(peer).or_insert(life);
        if life < *seen {
            return Err(*seen);
        }
        *seen = life;
        Ok(())
    }

    /// A peer has greeted: it is alive, so connect to it now if that is still to be done.
    pub(super) fn nudge(&self, peer: NodeId, incarnation: Incarnation) {
        for class in [Class::Control, Class::Bulk] {
            if let Some(outbound) = self.outbound.read().get(&(peer, class)) {
                outbound.nudge(incarnation);
            }
        }
    }
}

/// Set once; threads that pause wait on it.
#[derive(Default)]
pub(super) struct StopSignal {
    raised: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl StopSignal {
    pub(super) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        let _guard = self.lock.lock();
        self.changed.notify_all();
    }

    /// Waits for `pause`, or less if the signal is raised.
    pub(super) fn pause(&self, pause: Duration) {
        let mut guard = self.lock.lock();
        if !self.is_raised() {
            self.changed.wait_for(&mut guard, pause);
        }
    }
}

/// The open sockets, so that stopping can end the calls that block on them.
#[derive(Default)]
pub(super) struct Streams {
    open: BTreeMap<u64, TcpStream>,
    next: u64,
    closed: bool,
}

impl Streams {
    /// Remembers a socket; `None` when the transport is stopping.
    pub(super) fn add(&mut self, stream: &TcpStream) -> io::Result<Option<u64>> {
        if self.closed {
            return Ok(None);
        }
        let id = self.next;
        self.next += 1;
        self.open.insert(id, stream.try_clone()?);
        Ok(Some(id))
    }

    /// Ends all calls on a socket and forgets it.
    pub(super) fn end(&mut self, id: u64) {
        if let Some(stream) = self.open.remove(&id) {
            // It may be closed by the peer already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn close(&mut self) {
        self.closed = true;
        while let Some((_, stream)) = self.open.pop_first() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) frames_sent: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) frames_received: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) connects: AtomicU64,
    pub(super) refusals: AtomicU64,
    pub(super) tls: TlsCounters,
}

impl Counters {
    fn read(&self) -> TcpStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TcpStats {
            frames_sent: read(&self.frames_sent),
            bytes_sent: read(&self.bytes_sent),
            writes: read(&self.writes),
            frames_received: read(&self.frames_received),
            dropped: read(&self.dropped),
            connects: read(&self.connects),
            refusals: read(&self.refusals),
            tls: self.tls.read(),
        }
    }
}

pub(super) fn spawn(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(body)
}
