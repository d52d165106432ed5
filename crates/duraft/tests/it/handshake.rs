//! What a node answers to those who connect, friend or not.

use duraft::wire::{Accepted, Class, Frame, FrameBuffer, Hello, PROTOCOL_VERSION, Refusal, decode};
use duraft::{NodeId, TcpOptions, TcpTransport, Transport};
use duraft_core::{Envelope, GroupId, Incarnation, Message, Term};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const CLUSTER: [u8; 16] = *b"the same cluster";

mod rig {
    //! A node with an inbox that only counts.
    use super::*;
    use duraft::{ApplyContext, ClusterId, Membership, Network, Node, NodeOptions};
    use duraft::{SnapshotWork, StateMachine};
    use std::io::{self, Read};
    use std::sync::Arc;

    pub(crate) struct Idle;

    impl StateMachine for Idle {
        fn apply(&mut self, _context: ApplyContext, _command: &[u8]) -> bytes::Bytes {
            bytes::Bytes::new()
        }

        fn snapshot(&self) -> SnapshotWork {
            Box::new(|_| Ok(()))
        }

        fn restore(&mut self, _source: &mut dyn Read) -> io::Result<()> {
            Ok(())
        }
    }

    /// Node 1 of two; node 2 never runs.
    pub(crate) fn node(dir: &std::path::Path) -> (Node, SocketAddr, Arc<TcpTransport>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let peers = BTreeMap::from([
            (NodeId(1), address.to_string()),
            // Nobody listens there.
            (NodeId(2), "127.0.0.1:1".to_string()),
        ]);
        let transport = TcpTransport::new(listener, TcpOptions::new(peers)).expect("bound");
        let transport = Arc::new(transport);
        let mut options =
            NodeOptions::in_dir(NodeId(1), ClusterId(CLUSTER), dir).expect("a folder");
        options.wal.slot_bytes = 4 << 20;
        options.network = Network::Custom(Arc::clone(&transport) as Arc<dyn Transport>);
        let membership = Membership::new([NodeId(1), NodeId(2)], []).expect("valid");
        Node::bootstrap(&options, &membership).expect("bootstrapped");
        let node = Node::start(options, Box::new(Idle)).expect("started");
        (node, address, transport)
    }
}

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        class: Class::Control,
        max_batch_bytes: 1 << 20,
        cluster: CLUSTER,
        node: NodeId(2),
        incarnation: Incarnation(1),
        to: NodeId(1),
    }
}

/// Says something and returns all that comes back until the other side closes.
fn talk(address: SocketAddr, say: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("set");
    stream.write_all(say).expect("written");
    let mut heard = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = stream.read_to_end(&mut heard);
    heard
}

fn frame(frame: &Frame) -> Vec<u8> {
    let mut buffer = FrameBuffer::default();
    buffer.push(frame, 1000).expect("small");
    buffer.to_bytes()
}

/// A message, and after it what ends any connection.
fn spoiled(envelope: Envelope) -> Vec<u8> {
    let mut say = frame(&Frame::Message(envelope));
    say.extend_from_slice(b"garbage garbage garbage");
    say
}

fn message(from: NodeId, incarnation: Incarnation) -> Envelope {
    Envelope {
        group: GroupId(1),
        from,
        incarnation,
        to: NodeId(1),
        term: Term(1),
        message: Message::TermQuery,
    }
}

#[test]
fn strangers_are_refused_with_the_reason() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("scratch");
    let (node, address, transport) = rig::node(dir.path());
    let cases = [
        (
            Hello {
                protocol: 9,
                ..hello()
            },
            Refusal::Protocol {
                ours: PROTOCOL_VERSION,
            },
        ),
        (
            Hello {
                cluster: *b"another cluster!",
                ..hello()
            },
            Refusal::Cluster,
        ),
        (
            Hello {
                to: NodeId(3),
                ..hello()
            },
            Refusal::WrongNode { actual: NodeId(1) },
        ),
        (
            Hello {
                node: NodeId(77),
                ..hello()
            },
            Refusal::UnknownPeer,
        ),
        (
            Hello {
                node: NodeId(1),
                ..hello()
            },
            Refusal::UnknownPeer,
        ),
        (
            Hello {
                max_batch_bytes: 5,
                ..hello()
            },
            Refusal::MaxBatch { ours: 1 << 20 },
        ),
    ];
    let count = cases.len() as u64;
    for (hello, refusal) in cases {
        let heard = talk(address, &frame(&Frame::Hello(hello)));
        assert_eq!(decode(&heard), Ok(Frame::Refused(refusal)), "{hello:?}");
    }
    assert_eq!(transport.stats().refusals, count);
    node.shutdown();
}

#[test]
fn nonsense_ends_the_connection_and_nothing_else() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("scratch");
    let (node, address, transport) = rig::node(dir.path());
    let mut over_limit = frame(&Frame::Hello(hello()));
    over_limit[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let accepted = Frame::Accepted(Accepted {
        node: NodeId(2),
        incarnation: Incarnation(1),
    });
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &over_limit,
        &frame(&accepted),
    ] {
        assert_eq!(talk(address, nonsense), b"", "no answer to nonsense");
    }
    // After a good hello: a frame with someone else's address, and garbage.
    for bad in [
        frame(&Frame::Hello(hello())),
        b"garbage garbage garbage".to_vec(),
        // A sound message of a node that did not greet, and one of a life that did not.
        spoiled(message(NodeId(3), hello().incarnation)),
        spoiled(message(NodeId(2), Incarnation(99))),
    ] {
        let mut say = frame(&Frame::Hello(hello()));
        say.extend_from_slice(&bad);
        let heard = talk(address, &say);
        assert!(
            matches!(decode(&heard), Ok(Frame::Accepted(_))),
            "{heard:?}"
        );
    }
    assert_eq!(transport.stats().frames_received, 0);
    assert!(node.status().stopped.is_none());
    node.shutdown();
}

#[test]
fn life_that_is_older_than_one_that_was_seen_is_refused() {
    // Whoever comes back from before has lost what it promised in between (RULES.md 18).
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("scratch");
    let (node, address, transport) = rig::node(dir.path());
    let greet = |life: u64| {
        let incarnation = Incarnation(life);
        let hello = Frame::Hello(Hello {
            incarnation,
            ..hello()
        });
        // What follows ends the connection.
        let mut say = frame(&hello);
        say.extend_from_slice(b"garbage garbage garbage");
        decode(&talk(address, &say))
    };
    assert!(matches!(greet(7), Ok(Frame::Accepted(_))));
    let seen = Incarnation(7);
    assert_eq!(greet(6), Ok(Frame::Refused(Refusal::RolledBack { seen })));
    assert!(
        matches!(greet(7), Ok(Frame::Accepted(_))),
        "it may come again"
    );
    assert!(matches!(greet(8), Ok(Frame::Accepted(_))));
    assert_eq!(transport.stats().refusals, 1);
    let said = Refusal::RolledBack { seen }.to_string();
    assert!(said.contains('7'), "{said}");
    node.shutdown();
}
