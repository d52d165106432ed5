use super::super::command::encode;
use super::super::reply::answers;
use super::*;
use duraft::{ClusterId, Disk, Membership, Node, NodeId, NodeOptions};
use parking_lot::Mutex;

fn machine() -> Machine {
    Machine::new(Arc::new(|_| {}))
}

fn run(machine: &mut Machine, ops: &[Op<&'static [u8]>]) -> Vec<Reply> {
    let entry = encode(ops);
    let mut out = Answers::default();
    for op in decode(&entry).expect("just encoded") {
        machine.perform(op, &mut out);
    }
    answers(&out.done(), ops.len()).expect("one answer per operation")
}

fn set(key: &'static str, value: &'static str) -> Op<&'static [u8]> {
    set_when(key, value, When::Always, false)
}

fn set_when(
    key: &'static str,
    value: &'static str,
    when: When<&'static [u8]>,
    get: bool,
) -> Op<&'static [u8]> {
    Op::Set {
        key: key.as_bytes(),
        value: value.as_bytes(),
        when,
        get,
    }
}

fn bulk(text: &'static str) -> Reply {
    Reply::Bulk(Bytes::from_static(text.as_bytes()))
}

#[test]
fn conditions_are_decided_by_what_stands_before() {
    let mut m = machine();
    let replies = run(
        &mut m,
        &[
            set_when("a", "0", When::Present, false),
            set_when("a", "1", When::Absent, false),
            set_when("a", "2", When::Absent, false),
            set_when("a", "3", When::Present, true),
            set_when("a", "4", When::Equal(b"2"), false),
            set_when("a", "5", When::Equal(b"3"), false),
            set_when("b", "6", When::Equal(b""), true),
            Op::Get(b"a"),
            Op::Exists(b"b"),
        ],
    );
    let expected = [
        Reply::Nil,
        Reply::Ok,
        Reply::Nil,
        bulk("1"),
        Reply::Nil,
        Reply::Ok,
        Reply::Nil,
        bulk("5"),
        Reply::Int(0),
    ];
    assert_eq!(replies, expected);
}

#[test]
fn compare_and_set_tells_a_missing_key_from_another_value() {
    let mut m = machine();
    let cas = |expected, new| Op::Cas {
        key: &b"k"[..],
        expected,
        new,
    };
    let replies = run(
        &mut m,
        &[
            cas(b"", b"1"),
            set("k", "1"),
            cas(b"2", b"3"),
            cas(b"1", b"3"),
            Op::GetDel(b"k"),
            Op::GetDel(b"k"),
        ],
    );
    let expected = [
        Reply::Int(-1),
        Reply::Ok,
        Reply::Int(0),
        Reply::Int(1),
        bulk("3"),
        Reply::Nil,
    ];
    assert_eq!(replies, expected);
}

#[test]
fn numbers_do_not_overflow_and_text_is_no_number() {
    let mut m = machine();
    let incr = |key: &'static [u8], by| Op::Incr { key, by };
    let replies = run(
        &mut m,
        &[
            incr(b"n", 5),
            incr(b"n", -7),
            set("n", "9223372036854775807"),
            incr(b"n", 1),
            set("n", "007"),
            incr(b"n", 1),
            set("n", " 1"),
            incr(b"n", 1),
        ],
    );
    let expected = [
        Reply::Int(5),
        Reply::Int(-2),
        Reply::Ok,
        Reply::Refused(Refusal::Overflow),
        Reply::Ok,
        Reply::Refused(Refusal::NotAnInteger),
        Reply::Ok,
        Reply::Refused(Refusal::NotAnInteger),
    ];
    assert_eq!(replies, expected);
}

#[test]
fn append_keeps_the_limit_that_its_entry_carries() {
    let mut m = machine();
    let append = |value| Op::Append {
        key: &b"a"[..],
        value,
        max: 4,
    };
    let replies = run(&mut m, &[append(b"abc"), append(b"de"), append(b"d")]);
    let refused = Reply::Refused(Refusal::TooLong);
    assert_eq!(replies, [Reply::Int(3), refused, Reply::Int(4)]);
}

#[test]
fn counts_of_keys_and_bytes_follow_every_change() {
    // A model in two lines: recount everything after each step of a drawn sequence.
    let mut m = machine();
    let mut state = 7_u64;
    for _ in 0..2000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(11);
        let key = [b'a' + u8::try_from((state >> 40) % 6).expect("small")];
        let value = vec![b'x'; usize::try_from((state >> 50) % 9).expect("small")];
        let op: Op<&[u8]> = match (state >> 33) % 4 {
            0 => Op::Del(vec![&key, b"zz"]),
            1 => Op::Append {
                key: &key,
                value: &value,
                max: 64,
            },
            2 => Op::MSet(vec![(&key, &value), (&key, b"2")]),
            _ => Op::Set {
                key: &key,
                value: &value,
                when: When::Always,
                get: false,
            },
        };
        m.perform(op, &mut Answers::default());
        let all = m.shards.iter().flat_map(|s| s.iter());
        let bytes: usize = all.clone().map(|((_, k), v)| k.len() + v.len()).sum();
        assert_eq!((m.keys, m.bytes), (all.count() as u64, bytes as u64));
    }
}

fn scan(m: &Machine, cursor: u64, limit: usize) -> (u64, Vec<Bytes>) {
    let look = Look::Scan {
        cursor,
        count: limit,
        pattern: None,
    };
    let Reply::List(parts) = m.look(&look, usize::MAX) else {
        panic!("a scan answers with a list");
    };
    let [Reply::Bulk(next), Reply::List(keys)] = &parts[..] else {
        panic!("a cursor and keys");
    };
    let next = std::str::from_utf8(next)
        .expect("digits")
        .parse()
        .expect("a number");
    let keys = keys.iter().map(|key| {
        let Reply::Bulk(key) = key else {
            panic!("{key:?} is no key");
        };
        key.clone()
    });
    (next, keys.collect())
}

#[test]
fn a_scan_sees_every_key_that_stays_while_others_come_and_go() {
    let mut m = machine();
    let stays: Vec<String> = (0..500).map(|n| format!("stays:{n}")).collect();
    for key in &stays {
        m.put(key.as_bytes(), Bytes::new());
    }
    let mut seen = std::collections::BTreeSet::new();
    let (mut cursor, mut steps) = (0, 0);
    loop {
        let (next, keys) = scan(&m, cursor, 7);
        assert!(next == 0 || next > cursor, "a scan goes on");
        for key in keys {
            assert!(seen.insert(key.clone()), "{key:?} twice");
        }
        m.put(format!("comes:{steps}").as_bytes(), Bytes::new());
        m.remove(format!("comes:{}", steps / 2).as_bytes());
        steps += 1;
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    assert!(steps > 50, "it went in steps: {steps}");
    assert!(stays.iter().all(|key| seen.contains(key.as_bytes())));
    assert_eq!(scan(&m, u64::MAX, 7), (0, vec![]), "a cursor of nobody");
}

fn snapshot_of(m: &Machine) -> Vec<u8> {
    let mut bytes = Vec::new();
    m.snapshot()(&mut bytes).expect("memory does not fail");
    bytes
}

#[test]
fn a_snapshot_shows_the_state_when_it_was_taken() {
    // Writes that go on while the view is written must not show in it.
    let mut m = machine();
    run(&mut m, &[set("a", "1"), set("b", "2")]);
    let view = m.snapshot();
    let before = snapshot_of(&m);
    run(&mut m, &[set("a", "9"), Op::Del(vec![b"b"]), set("c", "3")]);
    let mut written = Vec::new();
    view(&mut written).expect("memory does not fail");
    assert_eq!(written, before);
    assert_ne!(snapshot_of(&m), before);
}

#[test]
fn a_snapshot_restores_keys_members_and_counts() {
    let told = Arc::new(Mutex::new(Members::new()));
    let hears = Arc::clone(&told);
    let mut m = machine();
    run(&mut m, &[set("a", "1"), set("b", "")]);
    let member = Op::Member {
        id: 4,
        text: &b"{}"[..],
    };
    run(&mut m, &[member]);
    let bytes = snapshot_of(&m);
    let mut other = Machine::new(Arc::new(move |members| *hears.lock() = members.clone()));
    other.put(b"gone", Bytes::new());
    other.restore(&mut &bytes[..]).expect("a whole snapshot");
    assert_eq!(snapshot_of(&other), bytes);
    assert_eq!((other.keys(), other.bytes()), (m.keys(), m.bytes()));
    assert_eq!(told.lock().keys().copied().collect::<Vec<_>>(), [4]);
}

#[test]
fn a_snapshot_that_is_cut_or_not_ours_is_refused_and_changes_nothing() {
    let mut m = machine();
    run(&mut m, &[set("a", "1"), set("b", "22")]);
    let bytes = snapshot_of(&m);
    let mut other = machine();
    other.put(b"old", Bytes::new());
    for cut in 0..bytes.len() {
        assert!(other.restore(&mut &bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut announced = bytes[..16].to_vec();
    announced.extend_from_slice(&1_u64.to_le_bytes());
    announced.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(other.restore(&mut &announced[..]).is_err());
    assert_eq!(other.keys(), 1, "what was there is still there");
}

#[test]
fn an_entry_of_a_later_version_stops_the_node_and_says_so() {
    // To skip it would let the nodes differ; to guess would be worse.
    let disk: Arc<dyn Disk> = Arc::new(duraft_disk::FaultDisk::new(Default::default()));
    let mut options = NodeOptions::new(NodeId(1), ClusterId(*b"machine-tests..."), disk);
    options.codec = CODEC;
    options.wal.slot_bytes = 4 << 20;
    let membership = Membership::new([NodeId(1)], []).expect("one voter");
    Node::bootstrap(&options, &membership).expect("a fresh disk");
    let node = Node::start(options, Box::new(machine())).expect("a store");
    let patience = std::time::Duration::from_secs(30);
    let entry = encode(&[set("a", "1")]);
    node.propose_wait(entry, patience)
        .expect("an entry of this version");
    let refused = node.propose_wait(Bytes::from_static(b"\x09"), patience);
    assert!(refused.is_err(), "{refused:?}");
    let stopped = node.wait_for(patience, |status| status.stopped.is_some());
    let reason = stopped
        .and_then(|s| s.stopped)
        .expect("it stops")
        .to_string();
    assert!(reason.contains("upgrade this node"), "{reason}");
}
