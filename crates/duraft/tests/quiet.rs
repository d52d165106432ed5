//! A node that has ended leaves nothing behind. A test binary of its own: it looks at all threads of
//! the process.
#![cfg(target_os = "linux")]

use duraft::{ApplyContext, Bytes, ClusterId, Node, NodeId, NodeOptions, RoleKind};
use duraft::{SnapshotWork, StateMachine, StopReason};
use std::io::{self, Read};
use std::time::Duration;

struct Deaf;

impl StateMachine for Deaf {
    fn apply(&mut self, _context: ApplyContext, _command: &[u8]) -> Bytes {
        Bytes::new()
    }

    fn snapshot(&self) -> SnapshotWork {
        Box::new(|_| Ok(()))
    }

    fn restore(&mut self, _source: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

/// Names of this process's threads that are ours and have not ended.
fn threads() -> Vec<String> {
    /// In the flags of a task: it runs nothing more. Who joins a thread is woken after this is set and
    /// before the kernel has taken the task off its list.
    const PF_EXITING: u64 = 4;
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
    let name = |task: io::Result<std::fs::DirEntry>| {
        // A thread may end while it is looked at.
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (before, after) = stat.rsplit_once(')').expect("a name in brackets");
        let (_, name) = before.split_once('(').expect("a name in brackets");
        let flags = after.split_whitespace().nth(6).expect("nine fields");
        let flags: u64 = flags.parse().expect("flags are a number");
        (flags & PF_EXITING == 0).then(|| name.to_owned())
    };
    let names = tasks.filter_map(name);
    names.filter(|name| name.starts_with("duraft")).collect()
}

#[test]
fn nothing_is_left_of_a_node_that_has_ended() {
    const DEADLINE: Duration = Duration::from_secs(60);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("scratch");
    let id = std::process::id();
    // A loopback host of this process's own.
    let host = format!("127.{}.{}.9", 1 + id / 256 % 254, id % 256);
    let peers = [1, 2, 3].map(|id| (NodeId(id), format!("{host}:{}", 7400 + id)));
    let start = |id: u64, new: bool| {
        let folder = dir.path().join(id.to_string());
        let cluster = ClusterId(*b"quiet at the end");
        let options = NodeOptions::in_dir(NodeId(id), cluster, folder).expect("a folder");
        let mut options = options.with_peers(peers.clone());
        options.wal.slot_bytes = 4 << 20;
        options.wal.slots_ready_min = 1;
        if new {
            let voters = options.all_voters().expect("three");
            Node::bootstrap(&options, &voters).expect("new");
        }
        Node::start(options, Box::new(Deaf)).expect("started")
    };
    assert_eq!(threads(), Vec::<String>::new());
    for round in 0..3 {
        let nodes = [1, 2, 3].map(|id| start(id, round == 0));
        let leads = |node: &Node| node.status().role == RoleKind::Leader;
        nodes[0]
            .wait_for(DEADLINE, |status| status.leader.is_some())
            .expect("a leader");
        assert!(threads().len() >= 3 * 6, "{:?}", threads());
        let mut events = nodes.each_ref().map(Node::subscribe);
        if let Some(leader) = nodes.iter().find(|node| leads(node)) {
            let _ = leader.propose_wait(Bytes::from("x"), DEADLINE);
        }
        if round < 2 {
            for node in &nodes {
                assert_eq!(node.shutdown(), StopReason::Shutdown);
                assert_eq!(node.shutdown(), StopReason::Shutdown);
            }
            assert_eq!(threads(), Vec::<String>::new(), "shutdown joins them all");
            for events in &mut events {
                while events.next_wait(Duration::ZERO).is_ok() {}
                let end = events.next_wait(Duration::ZERO);
                assert_eq!(end, Err(duraft::EventsError::Closed));
            }
        }
        drop(nodes);
        assert_eq!(threads(), Vec::<String>::new(), "so does dropping");
    }
}
