//! What the interface promises as a whole, checked against its source.

use crate::common::{CLUSTER, DEADLINE, Journal, options, scratch, single};
use bytes::Bytes;
use duraft::{
    Events, EventsError, Network, Node, NodeEvent, NodeId, NodeOptions, RejectReason, RequestError,
    RoleKind, Session, StopReason, TcpOptions,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

#[test]
fn handles_can_be_sent_and_shared() {
    fn handle<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + Sync + 'static>() {}
    handle::<Node>();
    handle::<NodeOptions>();
    handle::<duraft::Status>();
    sent::<Session>();
    sent::<Events>();
    sent::<duraft::ProposeFuture>();
    sent::<duraft::RequestError>();
    sent::<duraft::StartError>();
}

/// A public function: its documentation and its signature.
struct Function {
    name: String,
    doc: String,
    signature: String,
}

/// The public functions of a source file. Knows as much of Rust as rustfmt leaves to know.
fn functions(file: &str) -> Vec<Function> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    let text = fs::read_to_string(path).expect("a source file");
    let mut doc = String::new();
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(words) = line.strip_prefix("///") {
            doc.push_str(words);
        } else if let Some(rest) = line.strip_prefix("pub fn ") {
            let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
            let mut signature = rest.to_owned();
            while !signature.ends_with('{') {
                signature.push_str(lines.next().expect("a body follows"));
            }
            let doc = std::mem::take(&mut doc);
            found.push(Function {
                name,
                doc,
                signature,
            });
        } else if !line.starts_with('#') {
            doc.clear();
        }
    }
    found
}

#[test]
fn every_asynchronous_function_has_a_blocking_twin_and_says_what_dropping_it_does() {
    let files = [
        "node.rs",
        "node/admin.rs",
        "node/sessions.rs",
        "typed.rs",
        "events.rs",
    ];
    let mut asynchronous = 0;
    for file in files {
        let functions = functions(file);
        let names: BTreeSet<&str> = functions.iter().map(|f| f.name.as_str()).collect();
        for function in &functions {
            let Some((_, result)) = function.signature.split_once("->") else {
                continue;
            };
            let futures = ["Pending<", "ProposeFuture", "TypedFuture", "NextEvent"];
            if !futures.iter().any(|future| result.contains(future)) {
                continue;
            }
            asynchronous += 1;
            let name = &function.name;
            assert!(function.doc.contains("Cancel safety:"), "{file}: {name}");
            // The one whose blocking form came first.
            let twin = match name.strip_suffix("_async") {
                Some(blocking) => blocking.to_owned(),
                None => format!("{name}_wait"),
            };
            assert!(
                names.contains(twin.as_str()),
                "{file}: {name} without {twin}"
            );
        }
        for name in names.iter().filter_map(|name| name.strip_suffix("_wait")) {
            assert!(names.contains(name), "{file}: {name}_wait without {name}");
        }
    }
    assert!(asynchronous >= 14, "only {asynchronous} were found");
}

#[test]
fn blocking_twins_do_what_their_futures_do() {
    let dir = scratch();
    let node = Node::start(single(&dir), Box::new(Journal::default())).expect("started");
    node.propose_wait(Bytes::from("x"), DEADLINE)
        .expect("applied");
    let taken = node.snapshot_wait(DEADLINE).expect("taken");
    assert!(taken.bytes > 0);
    let session = node.open_session(duraft::SessionLimits::default());
    let session = session.wait(DEADLINE).expect("open");
    let numbered = session.number(Bytes::from("y"));
    node.propose_numbered_wait(numbered, DEADLINE)
        .expect("applied");
    node.close_session_wait(&session, DEADLINE).expect("closed");
    let gone = node.close_session(&session).wait(DEADLINE);
    let expired = RejectReason::SessionExpired;
    assert!(matches!(gone, Err(RequestError::Rejected { reason, .. }) if reason == expired));
    let rejected = |error: RequestError| match error {
        RequestError::Rejected { reason, .. } => reason,
        other @ (RequestError::Busy { .. } | RequestError::OutcomeUnknown { .. } | _) => {
            panic!("{other}")
        }
    };
    let error = node.transfer_leadership_wait(NodeId(9), DEADLINE);
    assert_eq!(error.map_err(rejected), Err(RejectReason::TransferTarget));
    let error = node.leave_joint_wait(DEADLINE).map(drop);
    assert_eq!(error.map_err(rejected), Err(RejectReason::NotJoint));
    let error = node.change_membership_wait(Vec::new(), DEADLINE).map(drop);
    assert!(matches!(
        error.map_err(rejected),
        Err(RejectReason::Change(_))
    ));
    node.step_down_wait(DEADLINE).expect("it led");
    let ended = node.shutdown_async().wait(DEADLINE);
    assert_eq!(ended, Ok(StopReason::Shutdown));
    assert_eq!(node.shutdown(), StopReason::Shutdown);
}

#[test]
fn events_are_ordered_and_name_everything_that_changes() {
    let dir = scratch();
    let mut settings = single(&dir);
    settings.core.trailing_bytes_max = 0;
    let node = Node::start(settings, Box::new(Journal::default())).expect("started");
    let mut events = node.subscribe();
    let applied = node
        .propose_wait(Bytes::from("x"), DEADLINE)
        .expect("applied");
    node.snapshot_wait(DEADLINE).expect("taken");
    let learner = duraft::MemberChange::AddLearner {
        id: NodeId(2),
        promotion: duraft::Promotion::Never,
    };
    node.change_membership_wait(vec![learner], DEADLINE)
        .expect("committed");
    node.wait_for(DEADLINE, |s| s.snapshot.is_some())
        .expect("the log counts on it");
    node.step_down_wait(DEADLINE).expect("it led");
    node.shutdown();
    let (mut next, mut roles, mut committed) = (None, Vec::new(), duraft::LogId::default());
    let (mut memberships, mut snapshots, mut stopped) = (Vec::new(), 0, None);
    loop {
        let positioned = match events.next_wait(DEADLINE) {
            Ok(positioned) => positioned,
            Err(EventsError::Closed) => break,
            Err(other) => panic!("{other}"),
        };
        assert!(
            next.is_none_or(|next| next == positioned.position),
            "no gap"
        );
        next = Some(positioned.position + 1);
        assert_eq!(stopped, None, "nothing follows the end");
        match positioned.event {
            NodeEvent::Role { role, leader, .. } => roles.push((role, leader)),
            NodeEvent::Committed { upto } => {
                assert!(upto > committed, "commits only grow");
                committed = upto;
            }
            NodeEvent::Membership { at, committed } => memberships.push((at, committed)),
            NodeEvent::SnapshotDurable { upto } => {
                assert!(upto <= committed, "a snapshot holds what is committed");
                snapshots += 1;
            }
            NodeEvent::Stopped(reason) => stopped = Some(reason),
            other @ (NodeEvent::SnapshotFailed { .. }
            | NodeEvent::SnapshotUnreadable { .. }
            | NodeEvent::SnapshotInstalled { .. }
            | NodeEvent::Damaged
            | NodeEvent::Healed
            | NodeEvent::StorageLow
            | _) => panic!("{other:?}"),
        }
    }
    let led = roles.contains(&(RoleKind::Leader, Some(NodeId(1))));
    assert!(led || roles.is_empty(), "{roles:?}");
    assert!(
        roles.iter().any(|(role, _)| *role == RoleKind::Follower),
        "{roles:?}"
    );
    assert!(committed > applied.log_id);
    assert_eq!(
        memberships.last().map(|(_, committed)| *committed),
        Some(true)
    );
    assert_eq!(snapshots, 1);
    assert_eq!(stopped, Some(StopReason::Shutdown));
}

/// Rules that compare two fields: where both are spoilt, they may agree.
const RELATIVE: [&str; 3] = [
    "core.election_ticks",
    "transfer.window_bytes",
    "network.options.transfer_queue_bytes_max",
];

type Spoil = fn(&mut NodeOptions, &mut TcpOptions);

/// Each rule of the options by what breaks it, and the field that is named for it.
const RULES: [(&str, Spoil); 24] = [
    ("core.election_ticks", |o, _| o.core.election_ticks = 0),
    ("core.heartbeat_ticks", |o, _| o.core.heartbeat_ticks = 0),
    ("core.max_batch_bytes", |o, _| o.core.max_batch_bytes = 0),
    ("core.inflight_messages_max", |o, _| {
        o.core.inflight_messages_max = 0
    }),
    ("core.reads_max", |o, _| o.core.reads_max = 0),
    ("wal.slot_bytes", |o, _| o.wal.slot_bytes = 5000),
    ("wal.slots_ready_min", |o, _| o.wal.slots_ready_min = 0),
    ("wal.mark_every_commits", |o, _| {
        o.wal.mark_every_commits = 0
    }),
    ("snapshots.chunk_bytes", |o, _| o.snapshots.chunk_bytes = 1),
    ("transfer.piece_bytes", |o, _| o.transfer.piece_bytes = 0),
    ("transfer.window_bytes", |o, _| o.transfer.window_bytes = 0),
    ("tick", |o, _| o.tick = Duration::ZERO),
    ("commands_max", |o, _| o.commands_max = 0),
    ("batches_in_flight_max", |o, _| o.batches_in_flight_max = 0),
    ("events_max", |o, _| o.events_max = 0),
    ("codec", |o, _| o.codec = u16::MAX),
    ("network.options.peers", |_, tcp| {
        tcp.peers.insert(NodeId(2), "nowhere".into());
    }),
    ("network.options.frame_bytes_max", |_, tcp| {
        tcp.frame_bytes_max = 1000
    }),
    ("network.options.bulk_queue_bytes_max", |_, tcp| {
        tcp.bulk_queue_bytes_max = 10
    }),
    ("network.options.transfer_queue_bytes_max", |_, tcp| {
        tcp.transfer_queue_bytes_max = 0
    }),
    ("network.options.control_queue_max", |_, tcp| {
        tcp.control_queue_max = 0
    }),
    ("network.options.backoff_min", |_, tcp| {
        tcp.backoff_min = Duration::ZERO
    }),
    ("network.options.patience", |_, tcp| {
        tcp.patience = Duration::ZERO
    }),
    ("network.options.inbound_max", |_, tcp| tcp.inbound_max = 0),
];

#[test]
fn each_rule_of_the_options_is_told_by_field_and_all_at_once() {
    let dir = scratch();
    let sound = || {
        let mut settings = options(1, &dir);
        settings.cluster = CLUSTER;
        let peers = [1, 2].map(|id| (NodeId(id), format!("127.0.0.1:{id}")));
        (settings, TcpOptions::new(BTreeMap::from(peers)))
    };
    let problems = |(mut settings, tcp): (NodeOptions, TcpOptions)| {
        settings.network = Network::Tcp {
            listen: "127.0.0.1:0".into(),
            options: tcp,
        };
        settings.validate()
    };
    assert_eq!(problems(sound()), []);
    let (mut all, mut all_tcp) = sound();
    for (field, spoil) in RULES {
        let (mut settings, mut tcp) = sound();
        spoil(&mut settings, &mut tcp);
        if !RELATIVE.contains(&field) {
            spoil(&mut all, &mut all_tcp);
        }
        let found = problems((settings, tcp));
        assert!(found.iter().any(|p| p.field == field), "{field}: {found:?}");
        assert!(found.iter().all(|p| !p.rule.is_empty()), "{found:?}");
    }
    let found = problems((all, all_tcp));
    for (field, _) in RULES.iter().filter(|(field, _)| !RELATIVE.contains(field)) {
        assert!(
            found.iter().any(|p| p.field == *field),
            "{field} is drowned: {found:?}"
        );
    }
    let mut settings = options(1, &dir).with_peers([(NodeId(2), "127.0.0.1:2")]);
    let listen = settings.validate();
    assert_eq!(
        listen.first().map(|p| p.field.as_str()),
        Some("network.listen")
    );
    settings = settings.with_peers([(NodeId(1), "127.0.0.1:1"), (NodeId(2), "127.0.0.1:2")]);
    assert_eq!(settings.validate(), []);
    let voters = settings.all_voters().expect("two voters");
    assert!(voters.is_voter(NodeId(1)) && voters.is_voter(NodeId(2)));
}
