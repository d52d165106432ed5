//! The configuration of `duraft serve`: one table of fields, from which the file is read, flags are
//! applied, everything is checked, the result is printed and the reference page is written.
//!
//! All problems are found in one pass: a file with five mistakes is told five, each with its field and
//! the rule it breaks. An unknown name is a mistake, not a silent nothing.

mod fields;
mod page;
mod read;
mod rules;
mod units;

use fields::FIELDS;
pub(crate) use page::reference;
pub(crate) use read::{from_text, print};

use std::fmt;
use std::time::Duration;

/// What a node needs to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Config {
    pub(crate) id: u64,
    pub(crate) cluster: String,
    pub(crate) dir: String,
    pub(crate) log: String,
    pub(crate) nodes: Vec<Peer>,
    pub(crate) listen: Listen,
    pub(crate) security: Security,
    pub(crate) limits: Limits,
    pub(crate) clients: Clients,
    pub(crate) raft: Raft,
    pub(crate) storage: Storage,
}

/// One node of the cluster, as others reach it.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Peer {
    pub(crate) id: u64,
    /// Other nodes.
    pub(crate) peer: String,
    /// Redis clients, and followers that pass on writes.
    pub(crate) client: String,
    /// HTTP.
    pub(crate) http: String,
    /// Membership changes and the like.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) admin: String,
}

/// Where this node listens; empty: where `[[node]]` says that it is reached.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Listen {
    pub(crate) peer: String,
    pub(crate) client: String,
    pub(crate) http: String,
    pub(crate) admin: String,
}

/// What must be said to open the node to a network.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Security {
    /// PEM files of mutual TLS between nodes; all three or none.
    pub(crate) authorities: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) plaintext: bool,
    pub(crate) remote_admin: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    pub(crate) connections_max: u64,
    pub(crate) http_connections_max: u64,
    pub(crate) key_bytes_max: u64,
    pub(crate) value_bytes_max: u64,
    pub(crate) arguments_max: u64,
    pub(crate) pipeline_max: u64,
    pub(crate) request_memory_bytes_max: u64,
    pub(crate) reply_bytes_max: u64,
    pub(crate) proxy_connections_max: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Clients {
    pub(crate) request_timeout: Duration,
    pub(crate) slow_client_timeout: Duration,
    pub(crate) partial_request_timeout: Duration,
    pub(crate) redirect: String,
    pub(crate) threads: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Raft {
    pub(crate) tick: Duration,
    pub(crate) election_ticks: u64,
    pub(crate) heartbeat_ticks: u64,
    pub(crate) batch_bytes_max: u64,
    pub(crate) priority: u64,
    pub(crate) lease_drift_ppm: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Storage {
    pub(crate) slot_bytes: u64,
    pub(crate) slots_ready: u64,
    pub(crate) snapshot_log_bytes: u64,
    pub(crate) on_damage: String,
}

/// A field and the rule it breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    pub(crate) field: String,
    pub(crate) rule: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.rule)
    }
}

pub(super) fn problem(field: impl Into<String>, rule: impl Into<String>) -> Problem {
    Problem {
        field: field.into(),
        rule: rule.into(),
    }
}

impl Default for Config {
    fn default() -> Config {
        let mut config = Config {
            id: 0,
            cluster: String::new(),
            dir: String::new(),
            log: String::new(),
            nodes: Vec::new(),
            listen: Listen::default(),
            security: Security::default(),
            limits: Limits {
                connections_max: 0,
                http_connections_max: 0,
                key_bytes_max: 0,
                value_bytes_max: 0,
                arguments_max: 0,
                pipeline_max: 0,
                request_memory_bytes_max: 0,
                reply_bytes_max: 0,
                proxy_connections_max: 0,
            },
            clients: Clients {
                request_timeout: Duration::ZERO,
                slow_client_timeout: Duration::ZERO,
                partial_request_timeout: Duration::ZERO,
                redirect: String::new(),
                threads: 0,
            },
            raft: Raft {
                tick: Duration::ZERO,
                election_ticks: 0,
                heartbeat_ticks: 0,
                batch_bytes_max: 0,
                priority: 0,
                lease_drift_ppm: 0,
            },
            storage: Storage {
                slot_bytes: 0,
                slots_ready: 0,
                snapshot_log_bytes: 0,
                on_damage: String::new(),
            },
        };
        for field in FIELDS {
            (field.slot)(&mut config)
                .set_text(field.default)
                .expect("a test sets every default");
        }
        config
    }
}

impl Security {
    /// Do nodes talk to each other by TLS?
    pub(crate) fn is_tls(&self) -> bool {
        !self.certificate.is_empty()
    }
}

impl Config {
    /// This node's own entry.
    pub(crate) fn own(&self) -> Option<&Peer> {
        self.nodes.iter().find(|peer| peer.id == self.id)
    }

    /// Where this node listens for what `pick` says.
    pub(crate) fn listen_on(
        &self,
        own: fn(&Listen) -> &String,
        told: fn(&Peer) -> &String,
    ) -> String {
        let own = own(&self.listen);
        let told = || self.own().map(told).cloned().unwrap_or_default();
        if own.is_empty() { told() } else { own.clone() }
    }

    pub(crate) fn listen_peer(&self) -> String {
        self.listen_on(|l| &l.peer, |p| &p.peer)
    }

    pub(crate) fn listen_client(&self) -> String {
        self.listen_on(|l| &l.client, |p| &p.client)
    }

    pub(crate) fn listen_http(&self) -> String {
        self.listen_on(|l| &l.http, |p| &p.http)
    }

    pub(crate) fn listen_admin(&self) -> String {
        self.listen_on(|l| &l.admin, |p| &p.admin)
    }

    /// May a client's commands go to another node's client address, which is without TLS?
    ///
    /// Nodes that have certificates say nothing to each other in plain text beyond their own machine;
    /// those that have none do so where the whole cluster does.
    pub(crate) fn may_pass_on_to(&self, address: &str) -> bool {
        let plaintext = self.security.plaintext && !self.security.is_tls();
        plaintext || rules::is_loopback(address)
    }

    /// Every rule that it breaks.
    pub(crate) fn validate(&self) -> Vec<Problem> {
        rules::check(self)
    }

    /// The cluster's 16 bytes: its name, filled up with zeros.
    pub(crate) fn cluster_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        for (place, byte) in id.iter_mut().zip(self.cluster.bytes()) {
            *place = byte;
        }
        id
    }
}

#[cfg(test)]
use fields::Slot;

#[cfg(test)]
mod tests;
