//! The Redis protocol: connections, and what they may take up.

mod commands;
mod connection;
mod plan;
mod session;

use super::engine::Engine;
use super::reply::{Dialect, Reply};
use bytes::BytesMut;
use connection::Connection;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// Pause after a connection could not be accepted: the process may be out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, engine: Arc<Engine>) {
    let budget = Arc::new(Budget::new(engine.config.limits.request_memory_bytes_max));
    let ids = AtomicU64::new(1);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("no connection can be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let stats = &engine.stats;
        let max = engine.config.limits.connections_max;
        if stats.connections.get() >= max {
            stats.refused_connections.add(1);
            tracing::warn!(%peer, "refused: limits.connections_max = {max} connections are open");
            refuse(stream, "ERR max number of clients reached");
            continue;
        }
        stats.connections.add(1);
        stats.accepted.add(1);
        let id = ids.fetch_add(1, Ordering::Relaxed);
        let open = Open(Arc::clone(&engine));
        let budget = Arc::clone(&budget);
        tokio::spawn(async move {
            run(&open.0, stream, peer, id, budget).await;
            drop(open);
        });
    }
}

/// Counts an open connection for as long as it lives, however it ends.
struct Open(Arc<Engine>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.stats.connections.sub(1);
    }
}

fn refuse(mut stream: TcpStream, text: &'static str) {
    tokio::spawn(async move {
        let mut out = BytesMut::new();
        Reply::error(text).write(Dialect::Resp2, &mut out);
        // Whoever is gone already needs no reason.
        let _ = stream.write_all(&out).await;
    });
}

async fn run(engine: &Engine, stream: TcpStream, peer: SocketAddr, id: u64, budget: Arc<Budget>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, "{error}");
        return;
    }
    let ended = Connection::new(engine, stream, id, budget).run().await;
    if let Err(end) = ended {
        end.note(engine, peer);
    }
}

/// The bytes that requests under way may take up, all connections together.
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    fn new(max: u64) -> Budget {
        Budget {
            used: AtomicUsize::new(0),
            max: usize::try_from(max).unwrap_or(usize::MAX),
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.max);
        let order = Ordering::Relaxed;
        self.used.fetch_update(order, order, taken).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One connection's part of the budget.
struct Share {
    budget: Arc<Budget>,
    held: usize,
}

/// What every connection may take up without asking.
const FREE_BYTES: usize = 64 << 10;

impl Share {
    fn new(budget: Arc<Budget>) -> Share {
        Share { budget, held: 0 }
    }

    /// Holds what a buffer of this size takes beyond what is free; false where there is no room.
    fn hold(&mut self, size: usize) -> bool {
        let wanted = size.saturating_sub(FREE_BYTES);
        if wanted > self.held {
            if !self.budget.take(wanted - self.held) {
                return false;
            }
        } else {
            self.budget.give(self.held - wanted);
        }
        self.held = wanted;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_and_come_back() {
        let budget = Arc::new(Budget::new(100_000));
        let mut one = Share::new(Arc::clone(&budget));
        let mut two = Share::new(Arc::clone(&budget));
        assert!(one.hold(FREE_BYTES) && two.hold(FREE_BYTES), "free");
        assert!(one.hold(FREE_BYTES + 60_000));
        assert!(!two.hold(FREE_BYTES + 60_000));
        assert!(one.hold(FREE_BYTES + 10_000), "less is always possible");
        assert!(two.hold(FREE_BYTES + 60_000));
        drop((one, two));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
