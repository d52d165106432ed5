//! Rules between fields.

use super::{Config, Problem, problem};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Room beside a key and a value in an entry of the log.
const ENTRY_OVERHEAD: u64 = 64 << 10;

pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_nodes(config, &mut problems);
    check_addresses(config, &mut problems);
    check_sizes(config, &mut problems);
    problems
}

fn check_nodes(config: &Config, problems: &mut Vec<Problem>) {
    let name = config.cluster.len();
    if !(1..=16).contains(&name) {
        problems.push(problem("cluster", "must be 1 to 16 bytes long"));
    }
    if config.dir.is_empty() {
        problems.push(problem("dir", "must name a folder"));
    }
    if config.own().is_none() {
        problems.push(problem(
            "id",
            format!("must be one of the ids of [[node]]; {} is not", config.id),
        ));
    }
    let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for (place, node) in config.nodes.iter().enumerate() {
        if node.id == 0 {
            problems.push(problem(format!("node[{place}].id"), "must be at least 1"));
        } else if !ids.insert(node.id) {
            problems.push(problem(
                format!("node[{place}].id"),
                format!("must differ from all others; {} is there twice", node.id),
            ));
        }
        let all = [
            ("peer", &node.peer, true),
            ("client", &node.client, true),
            ("http", &node.http, true),
            ("admin", &node.admin, false),
        ];
        for (name, address, needed) in all {
            let field = || format!("node[{place}].{name}");
            if address.is_empty() {
                if needed {
                    problems.push(problem(field(), "must be given, as \"host:port\""));
                }
            } else if !is_address(address) {
                problems.push(problem(field(), "must be an address, as \"host:port\""));
            } else if !addresses.insert(address) {
                problems.push(problem(
                    field(),
                    format!("must differ from all others; {address} is there twice"),
                ));
            }
        }
    }
}

fn check_addresses(config: &Config, problems: &mut Vec<Problem>) {
    let security = &config.security;
    let files = [
        ("security.authorities", &security.authorities),
        ("security.certificate", &security.certificate),
        ("security.key", &security.key),
    ];
    for (field, file) in files {
        if file.is_empty() && files.iter().any(|(_, other)| !other.is_empty()) {
            let rule = "must be given: TLS needs security.authorities, certificate and key";
            problems.push(problem(field, rule));
        }
    }
    let listens = [
        ("listen.peer", config.listen_peer()),
        ("listen.client", config.listen_client()),
        ("listen.http", config.listen_http()),
        ("listen.admin", config.listen_admin()),
    ];
    for (field, address) in &listens {
        if address.is_empty() {
            continue;
        }
        if !is_address(address) {
            problems.push(problem(*field, "must be an address, as \"host:port\""));
            continue;
        }
        if is_loopback(address) {
            continue;
        }
        let encrypted = *field == "listen.peer" && config.security.is_tls();
        if !encrypted && !config.security.plaintext {
            problems.push(problem(
                *field,
                format!(
                    "{address} is no loopback address, and nothing is encrypted: to serve there all \
                     the same, set security.plaintext = true"
                ),
            ));
        }
        if *field == "listen.admin" && !config.security.remote_admin {
            problems.push(problem(
                *field,
                format!(
                    "{address} is no loopback address: to let others change the membership, set \
                     security.remote_admin = true"
                ),
            ));
        }
    }
}

fn check_sizes(config: &Config, problems: &mut Vec<Problem>) {
    let limits = &config.limits;
    let batch = config.raft.batch_bytes_max;
    let mut check = |ok: bool, field: &str, rule: String| {
        if !ok {
            problems.push(problem(field, rule));
        }
    };
    check(
        limits.value_bytes_max + limits.key_bytes_max + ENTRY_OVERHEAD <= batch,
        "limits.value_bytes_max",
        format!(
            "with a key and 64 KiB beside it, must be within raft.batch_bytes_max = {batch} bytes"
        ),
    );
    check(
        limits.request_memory_bytes_max >= batch,
        "limits.request_memory_bytes_max",
        format!("must be at least raft.batch_bytes_max = {batch} bytes"),
    );
    check(
        config.raft.election_ticks >= 3 * config.raft.heartbeat_ticks,
        "raft.election_ticks",
        "must be at least 3 times raft.heartbeat_ticks".into(),
    );
    check(
        config.storage.slot_bytes.is_multiple_of(4096),
        "storage.slot_bytes",
        "must be a multiple of 4 KiB".into(),
    );
    let election = config.raft.tick * u32::try_from(config.raft.election_ticks).unwrap_or(u32::MAX);
    check(
        config.clients.request_timeout >= 4 * election,
        "clients.request_timeout",
        format!(
            "must be at least 4 times raft.election_ticks, {election:?}: an election takes that"
        ),
    );
}

pub(super) fn is_address(text: &str) -> bool {
    match text.rsplit_once(':') {
        Some((host, port)) => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            !bare.is_empty() && !bare.contains(char::is_whitespace) && port.parse::<u16>().is_ok()
        }
        None => false,
    }
}

/// Can only this machine reach it? A name is taken for reachable, unless it is `localhost`.
pub(crate) fn is_loopback(address: &str) -> bool {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
