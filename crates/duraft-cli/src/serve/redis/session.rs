//! Commands about the connection and the node: HELLO, CLIENT, CLUSTER, INFO, CONFIG, COMMAND.

use super::commands::COMMANDS;
use crate::serve::config::Peer;
use crate::serve::engine::Engine;
use crate::serve::glob::matches;
use crate::serve::reply::{Dialect, Reply};
use bytes::Bytes;
use duraft::{NodeId, RoleKind};

/// Slots that cluster clients divide keys into.
const SLOTS: u16 = 16_384;

/// What a connection has agreed on.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) id: u64,
    pub(crate) dialect: Dialect,
    pub(crate) stale: bool,
    /// The client wants to be told where to go.
    pub(crate) redirect: bool,
    pub(crate) name: Bytes,
}

impl Terms {
    pub(crate) fn new(id: u64) -> Terms {
        Terms {
            id,
            dialect: Dialect::Resp2,
            stale: false,
            redirect: false,
            name: Bytes::new(),
        }
    }
}

fn word(args: &[Bytes], at: usize) -> String {
    let word = args.get(at).map_or(&[][..], |word| &word[..]);
    String::from_utf8_lossy(word).to_ascii_lowercase()
}

fn no_such(command: &str, args: &[Bytes]) -> Reply {
    let shown: String = word(args, 0).chars().take(64).collect();
    Reply::error(format!("ERR unknown subcommand '{shown}' of {command}"))
}

/// HELLO [2|3] [AUTH user password] [SETNAME name]
pub(super) fn hello(engine: &Engine, terms: &mut Terms, args: &[Bytes]) -> Reply {
    let dialect = match args.first().map(|word| &word[..]) {
        None => terms.dialect,
        Some(b"2") => Dialect::Resp2,
        Some(b"3") => Dialect::Resp3,
        Some(_) => return Reply::error("NOPROTO this server speaks RESP 2 and 3"),
    };
    let mut at = 1;
    while at < args.len() {
        match (&word(args, at)[..], args.get(at + 1)) {
            ("setname", Some(name)) if is_name(name) => {
                terms.name = name.clone();
                at += 2;
            }
            ("auth", _) => return Reply::error("ERR there are no users and passwords here"),
            _ => return Reply::error("ERR syntax error in HELLO"),
        }
    }
    terms.dialect = dialect;
    let proto = match dialect {
        Dialect::Resp2 => 2,
        Dialect::Resp3 => 3,
    };
    let text = |text: &str| Reply::text(text);
    Reply::Map(vec![
        (text("server"), text("duraft")),
        (text("version"), text(env!("CARGO_PKG_VERSION"))),
        (text("proto"), Reply::Int(proto)),
        (text("id"), Reply::Int(i64::try_from(terms.id).unwrap_or(0))),
        (text("mode"), text("standalone")),
        (text("role"), text(role(engine))),
        (text("modules"), Reply::List(Vec::new())),
    ])
}

fn role(engine: &Engine) -> &'static str {
    match engine.lead.borrow().role {
        Some(RoleKind::Leader) => "master",
        Some(RoleKind::Follower | RoleKind::PreCandidate | RoleKind::Candidate) | None => "replica",
    }
}

fn is_name(name: &[u8]) -> bool {
    name.len() <= 256 && name.iter().all(u8::is_ascii_graphic)
}

pub(super) fn client(terms: &mut Terms, args: &[Bytes]) -> Reply {
    match (&word(args, 0)[..], args.len()) {
        ("id", 1) => Reply::Int(i64::try_from(terms.id).unwrap_or(0)),
        ("getname", 1) if terms.name.is_empty() => Reply::Nil,
        ("getname", 1) => Reply::Bulk(terms.name.clone()),
        ("setname", 2) if is_name(&args[1]) => {
            terms.name = args[1].clone();
            Reply::Ok
        }
        ("setname", 2) => Reply::error("ERR names have at most 256 visible characters"),
        ("setinfo", 3) => Reply::Ok,
        ("info", 1) => Reply::text(format!(
            "id={} name={} resp={} readonly={} redirect={}",
            terms.id,
            String::from_utf8_lossy(&terms.name),
            match terms.dialect {
                Dialect::Resp2 => 2,
                Dialect::Resp3 => 3,
            },
            terms.stale,
            terms.redirect,
        )),
        ("capa", 2..) => {
            terms.redirect |= (1..args.len()).any(|at| word(args, at) == "redirect");
            Reply::Ok
        }
        _ => no_such("CLIENT", args),
    }
}

/// Redis's sum of a key, of its part in braces where there is one.
pub(super) fn slot(key: &[u8]) -> u16 {
    let open = key.iter().position(|b| *b == b'{');
    let tagged = open.and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|b| *b == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    let mut sum = 0_u16;
    for byte in tagged.unwrap_or(key) {
        sum ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            sum = if sum & 0x8000 != 0 {
                (sum << 1) ^ 0x1021
            } else {
                sum << 1
            };
        }
    }
    sum % SLOTS
}

/// Where clients reach a node, as host and port.
pub(super) fn host_and_port(peer: &Peer) -> (String, i64) {
    let (host, port) = peer.client.rsplit_once(':').unwrap_or((&peer.client, "0"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host.into(), port.parse().unwrap_or(0))
}

/// A node's name of 40 hexadecimal digits, as cluster clients expect one.
fn name(id: u64) -> String {
    format!("{id:040x}")
}

pub(super) fn cluster(engine: &Engine, terms: &mut Terms, args: &[Bytes]) -> Reply {
    let membership = engine.node.status().membership;
    let leader = engine.lead.borrow().leader;
    let peers = engine.book.all();
    let members = membership.members().filter_map(|id| peers.get(&id.0));
    let mut members: Vec<&Peer> = members.collect();
    members.sort_by_key(|peer| (Some(NodeId(peer.id)) != leader, peer.id));
    match &word(args, 0)[..] {
        "keyslot" if args.len() == 2 => Reply::Int(i64::from(slot(&args[1]))),
        "myid" => Reply::text(name(engine.node.id().0)),
        "info" => Reply::text(format!(
            "cluster_enabled:1\r\ncluster_state:{}\r\ncluster_slots_assigned:{SLOTS}\r\n\
             cluster_slots_ok:{SLOTS}\r\ncluster_known_nodes:{}\r\ncluster_size:1\r\n",
            if leader.is_some() { "ok" } else { "fail" },
            members.len(),
        )),
        "slots" | "shards" | "nodes" if leader.is_none() => {
            Reply::error("CLUSTERDOWN no leader is known")
        }
        "slots" => {
            terms.redirect = true;
            slots(&members)
        }
        "shards" => {
            terms.redirect = true;
            shards(&members)
        }
        "nodes" => {
            terms.redirect = true;
            Reply::text(nodes(&members, engine.node.id().0))
        }
        _ => no_such("CLUSTER", args),
    }
}

/// The leader has all slots, the others are its replicas.
fn slots(members: &[&Peer]) -> Reply {
    let mut entry = vec![Reply::Int(0), Reply::Int(i64::from(SLOTS) - 1)];
    entry.extend(members.iter().map(|peer| {
        let (host, port) = host_and_port(peer);
        Reply::List(vec![
            Reply::text(host),
            Reply::Int(port),
            Reply::text(name(peer.id)),
            Reply::List(Vec::new()),
        ])
    }));
    Reply::List(vec![Reply::List(entry)])
}

fn shards(members: &[&Peer]) -> Reply {
    let nodes = members.iter().enumerate().map(|(place, peer)| {
        let (host, port) = host_and_port(peer);
        Reply::Map(vec![
            (Reply::text("id"), Reply::text(name(peer.id))),
            (Reply::text("port"), Reply::Int(port)),
            (Reply::text("ip"), Reply::text(host.clone())),
            (Reply::text("endpoint"), Reply::text(host)),
            (
                Reply::text("role"),
                Reply::text(if place == 0 { "master" } else { "replica" }),
            ),
            (Reply::text("replication-offset"), Reply::Int(0)),
            (Reply::text("health"), Reply::text("online")),
        ])
    });
    let range = vec![Reply::Int(0), Reply::Int(i64::from(SLOTS) - 1)];
    Reply::List(vec![Reply::Map(vec![
        (Reply::text("slots"), Reply::List(range)),
        (Reply::text("nodes"), Reply::List(nodes.collect())),
    ])])
}

fn nodes(members: &[&Peer], own: u64) -> String {
    let mut text = String::new();
    for (place, peer) in members.iter().enumerate() {
        let (host, port) = host_and_port(peer);
        let myself = if peer.id == own { "myself," } else { "" };
        let (role, master, slots) = if place == 0 {
            ("master", "-".to_string(), format!(" 0-{}", SLOTS - 1))
        } else {
            ("slave", name(members[0].id), String::new())
        };
        text.push_str(&format!(
            "{} {host}:{port}@{port} {myself}{role} {master} 0 0 1 connected{slots}\n",
            name(peer.id),
        ));
    }
    text
}

pub(super) fn info(engine: &Engine, keys: u64, bytes: u64, args: &[Bytes]) -> Reply {
    let status = engine.node.status();
    let stats = &engine.stats;
    let leader = status.leader.map_or("none".into(), |id| id.to_string());
    let sections = [
        (
            "server",
            format!(
                "server_name:duraft\r\nduraft_version:{}\r\nredis_version:7.0.0\r\n\
                 redis_mode:standalone\r\nprocess_id:{}\r\nnode_id:{}\r\n",
                env!("CARGO_PKG_VERSION"),
                std::process::id(),
                status.id,
            ),
        ),
        (
            "clients",
            format!(
                "connected_clients:{}\r\nmaxclients:{}\r\n",
                stats.connections.get(),
                engine.config.limits.connections_max,
            ),
        ),
        (
            "persistence",
            "loading:0\r\naof_enabled:1\r\naof_last_write_status:ok\r\n".into(),
        ),
        (
            "stats",
            format!(
                "total_connections_received:{}\r\ntotal_commands_processed:{}\r\n\
                 rejected_connections:{}\r\nduraft_entries:{}\r\nduraft_passed_on:{}\r\n\
                 duraft_unknown_outcomes:{}\r\n",
                stats.accepted.get(),
                stats.commands.get(),
                stats.refused_connections.get(),
                stats.entries.get(),
                stats.passed_on.get(),
                stats.unknown.get(),
            ),
        ),
        (
            "replication",
            format!(
                "role:{}\r\nraft_leader:{leader}\r\nraft_term:{}\r\nraft_last:{}\r\n\
                 raft_durable:{}\r\nraft_commit:{}\r\nraft_applied:{}\r\nraft_voters:{}\r\n",
                role(engine),
                status.term.0,
                status.last.index.0,
                status.durable.0,
                status.commit.0,
                status.applied.0,
                status.membership.voters().count(),
            ),
        ),
        (
            "keyspace",
            format!("db0:keys={keys},expires=0,avg_ttl=0\r\nduraft_key_value_bytes:{bytes}\r\n"),
        ),
    ];
    let wanted: Vec<String> = (0..args.len()).map(|at| word(args, at)).collect();
    let all = ["all", "everything", "default"];
    let is_all = wanted.is_empty() || wanted.iter().any(|w| all.contains(&w.as_str()));
    let mut out = String::new();
    for (title, text) in sections {
        if is_all || wanted.iter().any(|w| w == title) {
            let (first, rest) = title.split_at(1);
            out.push_str(&format!("# {}{rest}\r\n{text}\r\n", first.to_uppercase()));
        }
    }
    Reply::text(out)
}

/// CONFIG GET: a few names that tools ask for.
pub(super) fn config(engine: &Engine, args: &[Bytes]) -> Reply {
    if word(args, 0) != "get" || args.len() < 2 {
        return Reply::error("ERR only CONFIG GET is served: change the configuration file");
    }
    let known = [
        ("save", String::new()),
        ("appendonly", "yes".into()),
        ("appendfsync", "always".into()),
        (
            "maxclients",
            engine.config.limits.connections_max.to_string(),
        ),
        ("databases", "1".into()),
        ("maxmemory", "0".into()),
        ("dir", engine.config.dir.clone()),
        (
            "proto-max-bulk-len",
            engine.config.limits.value_bytes_max.to_string(),
        ),
        ("timeout", "0".into()),
    ];
    let patterns: Vec<String> = (1..args.len()).map(|at| word(args, at)).collect();
    let is_wanted = |name: &str| {
        patterns
            .iter()
            .any(|p| matches(p.as_bytes(), name.as_bytes()))
    };
    let found = known.into_iter().filter(|(name, _)| is_wanted(name));
    Reply::Map(
        found
            .map(|(name, value)| (Reply::text(name), Reply::text(value)))
            .collect(),
    )
}

pub(super) fn command(args: &[Bytes]) -> Reply {
    let about = |(name, arity, flags, keys): &(&str, i64, &[&'static str], [i64; 3])| {
        let flags = flags.iter().map(|flag| Reply::Word(flag));
        let mut entry = vec![
            Reply::text(*name),
            Reply::Int(*arity),
            Reply::List(flags.collect()),
        ];
        entry.extend(keys.iter().map(|key| Reply::Int(*key)));
        Reply::List(entry)
    };
    match &word(args, 0)[..] {
        "" => Reply::List(COMMANDS.iter().map(about).collect()),
        "count" => Reply::Int(i64::try_from(COMMANDS.len()).unwrap_or(0)),
        "list" => Reply::List(
            COMMANDS
                .iter()
                .map(|(name, ..)| Reply::text(*name))
                .collect(),
        ),
        "docs" => Reply::Map(Vec::new()),
        "info" => {
            let find = |at| COMMANDS.iter().find(|(name, ..)| *name == word(args, at));
            let found = (1..args.len()).map(|at| find(at).map_or(Reply::Nil, about));
            Reply::List(found.collect())
        }
        _ => no_such("COMMAND", args),
    }
}

#[cfg(test)]
mod tests {
    use super::slot;

    #[test]
    fn slots_are_those_of_redis() {
        // Figures of the CRC16 in use there: "123456789" is its check value 0x31C3.
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{foo}.bar"), slot(b"foo"));
        assert_eq!(slot(b"{}.bar"), slot(b"{}.bar"));
        assert_ne!(slot(b"{}.bar"), slot(b""));
        assert_eq!(slot(b""), 0);
    }
}
