//! From a configuration to a store and to a node that runs.

use super::book::Book;
use super::command::CODEC;
use super::config::Config;
use super::engine::Lead;
use super::machine::Machine;
use duraft::{
    ClusterId, EventsError, JoinAs, Lease, Membership, Network, Node, NodeEvent, NodeId,
    NodeOptions, OnDamage, RealDisk, Security, StartError, TcpOptions, TlsOptions,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Why there is no node, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("{dir} cannot be used: {source}")]
    Folder {
        dir: String,
        source: duraft_disk::DiskError,
    },
    #[error(
        "there is no store in {dir}. On the first members of a new cluster, once: `duraft cluster \
         init --config FILE`. On a node that joins a cluster: the same with `--join`. On a member \
         that lost its disk: with `--wiped`, never without"
    )]
    NoStore { dir: String },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("security.authorities, certificate and key cannot be used: {0}")]
    Tls(#[from] duraft::TlsSetupError),
    #[error("the members in [[node]] make no membership: {0}")]
    Membership(duraft::MembershipProblem),
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The library's options. Whatever they break is told by [`Node::start`].
fn options(config: &Config, peers: BTreeMap<NodeId, String>) -> Result<NodeOptions, SetupError> {
    let disk = RealDisk::create(Path::new(&config.dir)).map_err(|source| SetupError::Folder {
        dir: config.dir.clone(),
        source,
    })?;
    let cluster = ClusterId(config.cluster_id());
    let mut options = NodeOptions::new(NodeId(config.id), cluster, Arc::new(disk));
    let batch = config.raft.batch_bytes_max;
    options.codec = CODEC;
    options.core.seed = config.id;
    options.core.election_ticks = small(config.raft.election_ticks);
    options.core.heartbeat_ticks = small(config.raft.heartbeat_ticks);
    options.core.max_batch_bytes = small(batch);
    options.core.append_bytes_max = options.core.append_bytes_max.max(batch);
    options.core.priority = u8::try_from(config.raft.priority).unwrap_or(u8::MAX);
    options.core.lease = match small(config.raft.lease_drift_ppm) {
        0 => None,
        drift_ppm => Some(Lease { drift_ppm }),
    };
    options.tick = config.raft.tick;
    options.propose_timeout = Some(config.clients.request_timeout);
    options.wal.slot_bytes = config.storage.slot_bytes;
    options.wal.slots_ready_min = size(config.storage.slots_ready);
    options.wal.policy = match &config.storage.on_damage[..] {
        "repair-from-peers" => OnDamage::RepairFromPeers,
        _ => OnDamage::Refuse,
    };
    options.snapshot_log_bytes = Some(config.storage.snapshot_log_bytes);
    options.command_bytes_max = options.command_bytes_max.max(4 * size(batch));
    let mut tcp = TcpOptions::new(peers);
    let security = &config.security;
    tcp.security = if security.is_tls() {
        let (authorities, certificate) = (&security.authorities, &security.certificate);
        Security::Tls(TlsOptions::from_pem_files(
            authorities,
            certificate,
            &security.key,
        )?)
    } else if security.plaintext {
        Security::InsecurePlaintext
    } else {
        Security::LoopbackOnly
    };
    tcp.frame_bytes_max = tcp.frame_bytes_max.max(2 * batch);
    tcp.bulk_queue_bytes_max = tcp.bulk_queue_bytes_max.max(2 * tcp.frame_bytes_max);
    options.network = Network::Tcp {
        listen: config.listen_peer(),
        options: tcp,
    };
    Ok(options)
}

/// How a node's store begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begin {
    /// With the membership that the configuration names.
    First,
    Join,
    Wiped,
}

/// Makes a store, once in a node's life.
pub(crate) fn make_store(config: &Config, begin: Begin) -> Result<(), SetupError> {
    let peers = config
        .nodes
        .iter()
        .map(|peer| (NodeId(peer.id), peer.peer.clone()));
    let options = options(config, peers.collect())?;
    match begin {
        Begin::First => {
            let voters = config.nodes.iter().map(|peer| NodeId(peer.id));
            let membership = Membership::new(voters, []).map_err(SetupError::Membership)?;
            Node::bootstrap(&options, &membership)?;
        }
        Begin::Join => Node::bootstrap_joining(&options, JoinAs::New)?,
        Begin::Wiped => Node::bootstrap_joining(&options, JoinAs::Wiped)?,
    }
    Ok(())
}

/// An address that nobody listens on, for a peer whose own will be learned from the log.
const NOWHERE: &str = "127.0.0.1:1";

/// Opens the store and starts the node.
pub(crate) fn start(config: &Config, book: &Arc<Book>) -> Result<Node, SetupError> {
    if !Path::new(&config.dir).join("STORE").exists() {
        return Err(SetupError::NoStore {
            dir: config.dir.clone(),
        });
    }
    let known = book.all().into_iter();
    let mut peers: BTreeMap<NodeId, String> =
        known.map(|(id, peer)| (NodeId(id), peer.peer)).collect();
    let start = |peers: &BTreeMap<NodeId, String>| {
        let learns = Arc::clone(book);
        let machine = Machine::new(Arc::new(move |members| learns.learn(members)));
        let options = options(config, peers.clone())?;
        Ok::<_, SetupError>(Node::start(options, Box::new(machine)))
    };
    let node = match start(&peers)? {
        Err(StartError::UnknownPeers(unknown)) => {
            tracing::warn!(?unknown, "the addresses of members are not known yet");
            peers.extend(unknown.into_iter().map(|id| (id, NOWHERE.to_string())));
            start(&peers)??
        }
        started => started?,
    };
    let reaches = node.clone();
    book.on_change(Box::new(move |id, address| {
        // The node that is ending needs no addresses.
        let _ = reaches.set_peer_address(NodeId(id), Some(address.into()));
    }));
    Ok(node)
}

/// Follows who leads, on a thread of its own, which ends with the node.
pub(crate) fn follow_lead(node: &Node) -> std::io::Result<watch::Receiver<Lead>> {
    let mut events = node.subscribe();
    let now = |node: &Node| {
        let status = node.status();
        Lead {
            leader: status.leader,
            role: Some(status.role),
            stopped: status.stopped.map(|reason| reason.to_string()),
        }
    };
    let (tell, lead) = watch::channel(now(node));
    let node = node.clone();
    let follow = move || {
        loop {
            let next = match events.next_until(Instant::now() + Duration::from_secs(1)) {
                Ok(positioned) => match positioned.event {
                    NodeEvent::Role { role, leader, .. } => Lead {
                        leader,
                        role: Some(role),
                        stopped: None,
                    },
                    NodeEvent::Stopped(_) => now(&node),
                    NodeEvent::Committed { .. }
                    | NodeEvent::Membership { .. }
                    | NodeEvent::SnapshotFailed { .. }
                    | NodeEvent::SnapshotUnreadable { .. }
                    | NodeEvent::SnapshotDurable { .. }
                    | NodeEvent::SnapshotInstalled { .. }
                    | NodeEvent::Damaged
                    | NodeEvent::Healed
                    | NodeEvent::StorageLow
                    | _ => continue,
                },
                Err(EventsError::Lagged { .. } | EventsError::TimedOut) => now(&node),
                Err(EventsError::Closed) => {
                    let mut last = now(&node);
                    last.stopped
                        .get_or_insert_with(|| "the node has ended".into());
                    let _ = tell.send(last);
                    return;
                }
            };
            tell.send_if_modified(|lead| {
                let changed = *lead != next;
                *lead = next;
                changed
            });
        }
    };
    std::thread::Builder::new()
        .name("serve-lead".into())
        .spawn(follow)?;
    Ok(lead)
}
