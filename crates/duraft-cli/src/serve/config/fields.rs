//! The table of fields.

use super::{Config, units};
use std::time::Duration;

/// One field of the configuration file.
pub(crate) struct Field {
    /// Its name with its table's, as `limits.connections_max`.
    pub(crate) path: &'static str,
    pub(crate) default: &'static str,
    /// What it must be, for the reference and for who breaks it.
    pub(crate) rule: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) slot: fn(&mut Config) -> Slot<'_>,
}

/// Where a field's value lies, by its type.
pub(crate) enum Slot<'a> {
    /// Any text.
    Text(&'a mut String),
    /// One of these words.
    Word(&'a mut String, &'static [&'static str]),
    Switch(&'a mut bool),
    /// A number and its least and greatest value.
    Count(&'a mut u64, u64, u64),
    Bytes(&'a mut u64, u64, u64),
    Time(&'a mut Duration, Duration, Duration),
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Slot<'_> {
    /// Takes a value as it is written in a flag or, with or without quotes, in a file. The error says
    /// what it must be.
    pub(crate) fn set_text(self, text: &str) -> Result<(), String> {
        match self {
            Slot::Text(slot) => *slot = text.to_string(),
            Slot::Word(slot, words) => {
                if !words.contains(&text) {
                    return Err(format!("must be one of {}", words.join(", ")));
                }
                *slot = text.to_string();
            }
            Slot::Switch(slot) => *slot = text.parse().map_err(|_| "must be true or false")?,
            Slot::Count(slot, min, max) => {
                let number: u64 = text.parse().map_err(|_| "must be a whole number")?;
                *slot = within(number, min, max, |n| n.to_string())?;
            }
            Slot::Bytes(slot, min, max) => {
                let bytes = units::bytes(text).ok_or("must be a size, as 65536 or 64 KiB")?;
                *slot = within(bytes, min, max, units::show_bytes)?;
            }
            Slot::Time(slot, min, max) => {
                let time = units::time(text).ok_or("must be a time, as 250ms or 10s")?;
                *slot = within(time, min, max, units::show_time)?;
            }
        }
        Ok(())
    }

    /// The value as it is written in a file.
    pub(crate) fn show(self) -> String {
        match self {
            Slot::Text(text) | Slot::Word(text, _) => units::quoted(text),
            Slot::Switch(on) => on.to_string(),
            Slot::Count(number, ..) => number.to_string(),
            Slot::Bytes(bytes, ..) => units::quoted(&units::show_bytes(*bytes)),
            Slot::Time(time, ..) => units::quoted(&units::show_time(*time)),
        }
    }

    /// What the type allows, in words.
    pub(crate) fn range(self) -> String {
        match self {
            Slot::Text(_) => "text".into(),
            Slot::Word(_, words) => words.join(", "),
            Slot::Switch(_) => "true or false".into(),
            Slot::Count(_, min, max) => format!("{min} to {max}"),
            Slot::Bytes(_, min, max) => {
                format!("{} to {}", units::show_bytes(min), units::show_bytes(max))
            }
            Slot::Time(_, min, max) => {
                format!("{} to {}", units::show_time(min), units::show_time(max))
            }
        }
    }
}

fn within<T: PartialOrd>(
    value: T,
    min: T,
    max: T,
    show: impl Fn(T) -> String,
) -> Result<T, String> {
    if value < min || value > max {
        return Err(format!("must be {} to {}", show(min), show(max)));
    }
    Ok(value)
}

macro_rules! field {
    ($path:literal, $default:literal, $rule:literal, $doc:literal, $slot:expr) => {
        Field {
            path: $path,
            default: $default,
            rule: $rule,
            doc: $doc,
            slot: $slot,
        }
    };
}

/// Every field but the list of `[[node]]`, in the order in which they are printed.
#[rustfmt::skip]
pub(crate) const FIELDS: &[Field] = &[
    field!("id", "1", "one of the ids of [[node]]",
        "This node's number. It belongs to its folder and to nothing else, for ever: a node that lost its disk and a replacement must not be confused.",
        |c| Slot::Count(&mut c.id, 1, u64::MAX)),
    field!("cluster", "duraft", "1 to 16 bytes",
        "The cluster's name, the same on all its nodes. Nodes of clusters with other names refuse each other.",
        |c| Slot::Text(&mut c.cluster)),
    field!("dir", "duraft-data", "a folder on a disk that keeps what was synced",
        "Folder of the log and the snapshots. One node per folder; a lock keeps a second process out.",
        |c| Slot::Text(&mut c.dir)),
    field!("log", "info", "",
        "What is written to standard error: problems only, or also what happens.",
        |c| Slot::Word(&mut c.log, &["error", "warn", "info", "debug", "trace"])),
    field!("listen.peer", "", "empty, or host:port",
        "Where other nodes connect. Empty: the address that [[node]] gives for this node.",
        |c| Slot::Text(&mut c.listen.peer)),
    field!("listen.client", "", "empty, or host:port",
        "Where Redis clients connect. Empty: as in [[node]].",
        |c| Slot::Text(&mut c.listen.client)),
    field!("listen.http", "", "empty, or host:port",
        "HTTP: keys, status, metrics and the status page. Empty: as in [[node]].",
        |c| Slot::Text(&mut c.listen.http)),
    field!("listen.admin", "", "empty, or host:port; a loopback address, or security.remote_admin = true",
        "HTTP of `duraft cluster`: membership, leadership, snapshots. Empty: as in [[node]].",
        |c| Slot::Text(&mut c.listen.admin)),
    field!("security.authorities", "", "empty, or a PEM file; together with certificate and key",
        "The authorities whose certificates other nodes must show. With these three fields nodes talk to each other by mutual TLS, and each certificate is for one node of one cluster.",
        |c| Slot::Text(&mut c.security.authorities)),
    field!("security.certificate", "", "empty, or a PEM file",
        "This node's certificate.",
        |c| Slot::Text(&mut c.security.certificate)),
    field!("security.key", "", "empty, or a PEM file that nobody else can read",
        "The certificate's key.",
        |c| Slot::Text(&mut c.security.key)),
    field!("security.plaintext", "false", "true where an address without TLS to listen on is no loopback address",
        "Serve on addresses of a network although what goes there is not encrypted and nobody has to show who they are. Whoever reaches the client address can read and write every key; whoever reaches a peer address without TLS can do anything. Clients are always served without TLS. A follower without TLS passes writes on to the leader's client address in plain text too; one with TLS does that on its own machine only, and otherwise tells clients where the leader is.",
        |c| Slot::Switch(&mut c.security.plaintext)),
    field!("security.remote_admin", "false", "true where the admin address is no loopback address",
        "Let whoever reaches the admin address change the membership.",
        |c| Slot::Switch(&mut c.security.remote_admin)),
    field!("limits.connections_max", "20000", "",
        "Most Redis connections. More are told so and closed.",
        |c| Slot::Count(&mut c.limits.connections_max, 1, 1_000_000)),
    field!("limits.http_connections_max", "1000", "",
        "Most HTTP connections, each of the two HTTP addresses.",
        |c| Slot::Count(&mut c.limits.http_connections_max, 1, 1_000_000)),
    field!("limits.key_bytes_max", "4 KiB", "",
        "Longest key. A longer one is refused; the connection goes on.",
        |c| Slot::Bytes(&mut c.limits.key_bytes_max, 1, 64 * KIB)),
    field!("limits.value_bytes_max", "512 KiB", "with a key and 64 KiB beside it, within raft.batch_bytes_max",
        "Longest value, also as the result of APPEND. A longer one is refused; the connection goes on where the whole request is within raft.batch_bytes_max, and ends otherwise.",
        |c| Slot::Bytes(&mut c.limits.value_bytes_max, 1, 512 * MIB)),
    field!("limits.arguments_max", "65536", "",
        "Most arguments of one request. One request with more ends the connection.",
        |c| Slot::Count(&mut c.limits.arguments_max, 8, 1 << 20)),
    field!("limits.pipeline_max", "1024", "",
        "Most requests of one connection that are worked on at once. More wait in the socket; nothing is refused.",
        |c| Slot::Count(&mut c.limits.pipeline_max, 1, 1 << 16)),
    field!("limits.request_memory_bytes_max", "256 MiB", "at least raft.batch_bytes_max",
        "Most bytes of requests that are not whole yet, all connections together, beyond 64 KiB each. Whoever needs more is told so and closed.",
        |c| Slot::Bytes(&mut c.limits.request_memory_bytes_max, MIB, 64 * GIB)),
    field!("limits.reply_bytes_max", "64 MiB", "",
        "Longest reply to one MGET.",
        |c| Slot::Bytes(&mut c.limits.reply_bytes_max, KIB, 4 * GIB)),
    field!("limits.proxy_connections_max", "256", "",
        "Most connections that a follower opens to the leader to pass on writes. Writes beyond wait.",
        |c| Slot::Count(&mut c.limits.proxy_connections_max, 1, 65_536)),
    field!("clients.request_timeout", "10s", "longer than an election takes: 4 times raft.election_ticks",
        "Longest wait for a request. What is certainly without effect by then is refused; where nobody can tell, the connection is closed.",
        |c| Slot::Time(&mut c.clients.request_timeout, Duration::from_millis(10), DAY)),
    field!("clients.slow_client_timeout", "10s", "",
        "A client that does not take 64 KiB of its replies in this time is cut off, and the log says so.",
        |c| Slot::Time(&mut c.clients.slow_client_timeout, MS, DAY)),
    field!("clients.partial_request_timeout", "30s", "",
        "Longest wait for the rest of a request that has begun. A connection that is silent between requests may stay for ever.",
        |c| Slot::Time(&mut c.clients.partial_request_timeout, MS, DAY)),
    field!("clients.redirect", "when-asked", "",
        "Whether a follower answers writes with MOVED: to connections that have sent CLUSTER SLOTS, SHARDS or NODES, or CLIENT CAPA REDIRECT; always; or never. Otherwise it passes them on to the leader, where that may be done without TLS: see security.plaintext.",
        |c| Slot::Word(&mut c.clients.redirect, &["when-asked", "always", "never"])),
    field!("clients.threads", "2", "",
        "Threads that serve clients, beside those of the log.",
        |c| Slot::Count(&mut c.clients.threads, 1, 256)),
    field!("raft.tick", "25ms", "the same on all nodes",
        "The unit of the times below.",
        |c| Slot::Time(&mut c.raft.tick, MS, Duration::from_secs(10))),
    field!("raft.election_ticks", "20", "at least 3 times raft.heartbeat_ticks",
        "Ticks without a leader after which a node may campaign; up to twice as many, drawn by lot. Several times the 99th percentile of a disk's sync.",
        |c| Slot::Count(&mut c.raft.election_ticks, 3, 1 << 20)),
    field!("raft.heartbeat_ticks", "2", "",
        "Ticks between a leader's signs of life.",
        |c| Slot::Count(&mut c.raft.heartbeat_ticks, 1, 1 << 20)),
    field!("raft.batch_bytes_max", "1 MiB", "a constant of the cluster, set when it is made",
        "Most bytes of commands that are written, sent and applied as one.",
        |c| Slot::Bytes(&mut c.raft.batch_bytes_max, 128 * KIB, 512 * MIB)),
    field!("raft.priority", "0", "",
        "How much this node wants to lead: leadership goes to the highest among healthy voters.",
        |c| Slot::Count(&mut c.raft.priority, 0, 255)),
    field!("raft.lease_drift_ppm", "0", "the same on all nodes",
        "Other than 0: the leader answers reads without asking anybody, for as long as a majority that it has heard from cannot have elected another. That rests on clocks: no node's may run faster or slower than another's by more than so many millionths. Where one does, reads may be old. 0: every read asks a majority, and no clock matters.",
        |c| Slot::Count(&mut c.raft.lease_drift_ppm, 0, 100_000)),
    field!("storage.slot_bytes", "16 MiB", "a multiple of 4 KiB with room for raft.batch_bytes_max",
        "Size of the log's files. Fixed when the store is made.",
        |c| Slot::Bytes(&mut c.storage.slot_bytes, 64 * KIB, GIB)),
    field!("storage.slots_ready", "3", "",
        "Files of the log that are made ready ahead of time.",
        |c| Slot::Count(&mut c.storage.slots_ready, 1, 64)),
    field!("storage.snapshot_log_bytes", "256 MiB", "",
        "A snapshot is taken when so many bytes of log were applied since the last one. The log that stays, and the time a start takes, grow with it.",
        |c| Slot::Bytes(&mut c.storage.snapshot_log_bytes, 64 * KIB, 1 << 40)),
    field!("storage.on_damage", "refuse", "",
        "What to do where acknowledged log cannot be read: refuse to start and say what is lost, or let peers repair it. `duraft accept-loss` is for where no peer can.",
        |c| Slot::Word(&mut c.storage.on_damage, &["refuse", "repair-from-peers"])),
];
