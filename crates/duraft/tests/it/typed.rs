//! The typed layer: commands, answers and snapshots as types.

use crate::common::{DEADLINE, scratch, single};
use bytes::Bytes;
use duraft::{
    ApplyContext, Node, ReadBasis, RejectReason, RequestErrorKind, Session, SessionLimits, Typed,
    TypedError, TypedMachine,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};

#[derive(Default)]
struct Stock(BTreeMap<String, u32>);

#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
enum Order {
    Add(String, u32),
    Take(String, u32),
}

#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
enum Answer {
    Left(u32),
    Short { wanted: u32, there: u32 },
}

impl TypedMachine for Stock {
    type Command = Order;
    type Response = Answer;
    type Snapshot = BTreeMap<String, u32>;

    fn apply(&mut self, _context: ApplyContext, order: Order) -> Answer {
        match order {
            Order::Add(name, count) => {
                let there = self.0.entry(name).or_default();
                *there += count;
                Answer::Left(*there)
            }
            Order::Take(name, wanted) => {
                let there = self.0.entry(name).or_default();
                if wanted > *there {
                    let there = *there;
                    return Answer::Short { wanted, there };
                }
                *there -= wanted;
                Answer::Left(*there)
            }
        }
    }

    fn snapshot(&self) -> BTreeMap<String, u32> {
        self.0.clone()
    }

    fn restore(&mut self, snapshot: BTreeMap<String, u32>) {
        self.0 = snapshot;
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The least of executors.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park_timeout(DEADLINE),
        }
    }
}

#[test]
fn commands_answers_and_snapshots_are_types() {
    let dir = scratch();
    let options = single(&dir);
    let node = Node::start(options.clone(), Box::<Typed<Stock>>::default()).expect("started");
    let stock = node.typed::<Stock>();
    let add = Order::Add("nails".into(), 7);
    let added = stock.propose_wait(&add, DEADLINE).expect("applied");
    assert_eq!(added.response, Answer::Left(7));
    let take = Order::Take("nails".into(), 9);
    let taken = block_on(stock.propose(&take)).expect("applied");
    let (wanted, there) = (9, 7);
    assert_eq!(taken.response, Answer::Short { wanted, there });
    assert!(taken.log_id > added.log_id);
    block_on(node.snapshot()).expect("taken");
    stock.propose_wait(&add, DEADLINE).expect("applied");
    node.shutdown();
    // Snapshot and log come back as types.
    let node = Node::start(options, Box::<Typed<Stock>>::default()).expect("started again");
    let stock = node.typed::<Stock>();
    let count = |stock: &Stock| stock.0.get("nails").copied();
    node.wait_for(DEADLINE, |s| s.role == duraft::RoleKind::Leader)
        .expect("it leads");
    let read = stock.read_wait(ReadBasis::Quorum, DEADLINE, count);
    assert_eq!(read, Ok(Some(14)));
    assert_eq!(block_on(stock.read(ReadBasis::Quorum, count)), Ok(Some(14)));
    // In a session, with the same bytes.
    let nodes = [node];
    let session = Session::open(&nodes, SessionLimits::default(), DEADLINE).expect("open");
    let bytes = Typed::<Stock>::encode(&Order::Take("nails".into(), 4)).expect("it is plain data");
    let applied = session.propose(&nodes, bytes, DEADLINE).expect("applied");
    let answer = Typed::<Stock>::decode(&applied).expect("typed");
    assert_eq!(answer.response, Answer::Left(10));
    nodes[0].shutdown();
}

#[test]
fn command_that_is_not_understood_has_no_effect_and_says_so() {
    let dir = scratch();
    let node = Node::start(single(&dir), Box::<Typed<Stock>>::default()).expect("started");
    let good = Typed::<Stock>::encode(&Order::Add("a".into(), 1)).expect("encoded");
    let mut longer = good.to_vec();
    longer.push(0);
    let unknown_variant = Bytes::from_static(&[9, 1, b'a', 1]);
    for bad in [Bytes::new(), longer.into(), unknown_variant] {
        let applied = node.propose_wait(bad, DEADLINE).expect("it is committed");
        let error = Typed::<Stock>::decode(&applied).expect_err("not understood");
        let at = applied.log_id;
        assert!(matches!(&error, TypedError::NotUnderstood { log_id, .. } if *log_id == at));
        assert_eq!(error.kind(), RequestErrorKind::Rejected);
        assert!(!error.is_retryable());
    }
    let empty = node.typed::<Stock>();
    let count = empty.read_wait(ReadBasis::Quorum, DEADLINE, |stock: &Stock| stock.0.len());
    assert_eq!(count, Ok(0), "nothing reached the state machine");
    node.shutdown();
}

#[test]
fn typed_errors_keep_what_the_node_said() {
    let dir = scratch();
    let node = Node::start(single(&dir), Box::<Typed<Stock>>::default()).expect("started");
    node.shutdown();
    let stock = node.typed::<Stock>();
    let error = block_on(stock.propose(&Order::Add("a".into(), 1))).expect_err("it has stopped");
    let TypedError::Request(inner) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(error.kind(), inner.kind());
    assert_eq!(error.is_retryable(), inner.is_retryable());
    assert_eq!(error.leader_hint(), None);
    assert!(error.to_string().contains("stopped"), "{error}");
    assert!(matches!(
        inner,
        duraft::RequestError::Rejected {
            reason: RejectReason::Stopped,
            ..
        }
    ));
}

#[test]
fn answers_of_a_machine_without_types_are_not_misread() {
    let applied = |response: &'static [u8]| duraft::Applied {
        log_id: duraft::LogId::default(),
        response: Bytes::from_static(response),
    };
    for response in [&b""[..], b"\x07", b"\x00\x63", b"\x00\x00\x05\x05"] {
        let error = Typed::<Stock>::decode(&applied(response)).expect_err("no answer of ours");
        assert!(matches!(error, TypedError::Decode { .. }), "{response:?}");
        // It was applied: nobody may conclude that it was not.
        assert_eq!(error.kind(), RequestErrorKind::OutcomeUnknown);
    }
}
