//! The server as a whole: node, listeners, and how it ends.

use super::book::Book;
use super::config::Config;
use super::engine::Engine;
use super::proxy::Proxy;
use super::setup::{SetupError, follow_lead, start};
use super::stats::{Sample, Stats, micros};
use super::{http, redis};
use duraft::{Histogram, Stage};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Longest wait for clients' tasks when the process ends.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Why there is no server, or why it ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("cannot listen on {address}, which {field} names: {source}")]
    Listen {
        field: &'static str,
        address: String,
        source: io::Error,
    },
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    #[error("the node has stopped: {0}")]
    Stopped(String),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::System { what, source }
}

/// Where a server listens, with ports that the system chose.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) client: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
}

/// A server that has begun.
pub(crate) struct Server {
    runtime: Runtime,
    engine: Arc<Engine>,
    pub(crate) listening: Listening,
}

struct Listeners {
    client: TcpListener,
    http: TcpListener,
    admin: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Listeners, ServeError> {
        let admin = config.listen_admin();
        Ok(Listeners {
            client: bind("listen.client", config.listen_client()).await?,
            http: bind("listen.http", config.listen_http()).await?,
            admin: if admin.is_empty() {
                None
            } else {
                Some(bind("listen.admin", admin).await?)
            },
        })
    }

    fn addresses(&self) -> io::Result<Listening> {
        let admin = self.admin.as_ref();
        Ok(Listening {
            client: self.client.local_addr()?,
            http: self.http.local_addr()?,
            admin: admin.map(TcpListener::local_addr).transpose()?,
        })
    }
}

async fn bind(field: &'static str, address: String) -> Result<TcpListener, ServeError> {
    TcpListener::bind(&address)
        .await
        .map_err(|source| ServeError::Listen {
            field,
            address,
            source,
        })
}

impl Server {
    /// Binds all addresses, starts the node, and begins to serve.
    pub(crate) fn start(config: Config) -> Result<Server, ServeError> {
        raise_open_files();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(usize::try_from(config.clients.threads).unwrap_or(1))
            .thread_name("serve")
            .enable_all()
            .build()
            .map_err(system("start threads"))?;
        let listeners = runtime.block_on(Listeners::bind(&config))?;
        let listening = listeners.addresses().map_err(system("listen"))?;
        let book = Arc::new(Book::open(&config));
        let node = start(&config, &book)?;
        let engine = Arc::new(Engine {
            lead: follow_lead(&node).map_err(system("start threads"))?,
            proxy: Proxy::new(&config.limits),
            stats: Arc::new(Stats::default()),
            node,
            config,
            book,
        });
        runtime.spawn(redis::serve(listeners.client, Arc::clone(&engine)));
        runtime.spawn(http::serve(
            listeners.http,
            Arc::clone(&engine),
            http::Doors::Public,
        ));
        if let Some(admin) = listeners.admin {
            runtime.spawn(http::serve(admin, Arc::clone(&engine), http::Doors::Admin));
        }
        runtime.spawn(watch(Arc::clone(&engine)));
        Ok(Server {
            runtime,
            engine,
            listening,
        })
    }

    /// Serves until a signal asks for the end or the node stops by itself, which is an error.
    pub(crate) fn run(self) -> Result<(), ServeError> {
        let ended = self.runtime.block_on(until_end(&self.engine));
        if ended.is_ok() {
            // Whoever takes over now need not wait for an election timeout.
            let leaving = self.engine.node.step_down();
            let in_time = async { tokio::time::timeout(LAST_WAIT, leaving).await };
            let _ = self.runtime.block_on(in_time);
        }
        let reason = self.engine.node.shutdown();
        tracing::info!("the node has ended: {reason}");
        self.runtime.shutdown_timeout(LAST_WAIT);
        ended
    }
}

async fn until_end(engine: &Engine) -> Result<(), ServeError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("wait for signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("wait for signals"))?;
    let mut stopped = std::pin::pin!(engine.stopped());
    std::future::poll_fn(|context| {
        if let std::task::Poll::Ready(reason) = stopped.as_mut().poll(context) {
            return std::task::Poll::Ready(Err(ServeError::Stopped(reason)));
        }
        let asked =
            interrupt.poll_recv(context).is_ready() || terminate.poll_recv(context).is_ready();
        if asked {
            std::task::Poll::Ready(Ok(()))
        } else {
            std::task::Poll::Pending
        }
    })
    .await
}

/// Once a second: a sample of history; connections to nodes that do not lead are closed.
async fn watch(engine: Arc<Engine>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut commands = 0;
    let mut syncs = Histogram::default();
    loop {
        tick.tick().await;
        let status = engine.node.status();
        let all = engine.node.stats().stage(Stage::Sync).clone();
        let recent = all.since(&syncs);
        syncs = all;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let total = engine.stats.commands.get();
        engine.stats.remember(Sample {
            at: now.as_secs(),
            term: status.term.0,
            commit: status.commit.0,
            applied: status.applied.0,
            syncs: recent.count(),
            sync_p50_us: micros(recent.quantile(0.5)),
            sync_p99_us: micros(recent.quantile(0.99)),
            sync_max_us: micros(recent.quantile(1.0)),
            commands: total - commands,
        });
        commands = total;
        let leader = status.leader.and_then(|id| engine.book.find(id.0));
        engine
            .proxy
            .keep_only(leader.as_ref().map(|peer| peer.client.as_str()));
    }
}

/// As many open files as the system lets this process have: each connection is one.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!("the number of open files cannot be raised: {error}");
    }
}
