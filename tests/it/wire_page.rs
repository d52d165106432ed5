//! `docs/wire-protocol.md` against the encoder: what the page's tables say stands where is compared with
//! frames of the shipped code.

use bytes::Bytes;
use duraft::transfer::{Attempt, TransferFrame, TransferId};
use duraft::wire::{Class, Frame, FrameBuffer, Hello, PROTOCOL_VERSION, Parcel};
use duraft_core::{
    Body, Envelope, GroupId, Incarnation, Index, Message, NodeId, Position, SnapshotFile, Term,
};
use duraft_tests::from_text::layout::number;
use duraft_tests::from_text::{Page, crc32};
use std::path::Path;

fn text() -> String {
    let name = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/wire-protocol.md");
    std::fs::read_to_string(name).expect("a page of the book")
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut buffer = FrameBuffer::default();
    buffer.push(frame, u64::MAX).expect("a small frame");
    let mut bytes = Vec::new();
    buffer.write_to(&mut bytes).expect("memory takes it");
    bytes
}

/// Checks the frame's own fields and returns its body.
fn body_of<'a>(page: &Page, bytes: &'a [u8], name: &str, sealed: Option<usize>) -> &'a [u8] {
    let table = page.table("Frame");
    let get = |field| number(bytes, &table.field(field));
    let body = &bytes[table.start("the body")..];
    assert!(bytes.starts_with(&table.magic("magic")));
    assert_eq!(get("frame version"), 1);
    assert_eq!(get("zero"), 0);
    assert_eq!(get("length of the body"), body.len() as u64);
    let row = |line: &&str| {
        line.split('|')
            .nth(2)
            .is_some_and(|cell| cell.trim() == name)
    };
    let page = text();
    let line = page
        .lines()
        .find(row)
        .unwrap_or_else(|| panic!("no type {name}"));
    let wanted = line.split('|').nth(1).map(str::trim);
    assert_eq!(wanted, Some(get("type").to_string().as_str()), "{name}");
    let sum = crc32(&[&bytes[..12], &body[..sealed.unwrap_or(body.len())]]);
    assert_eq!(get("checksum"), u64::from(sum), "{name}");
    body
}

fn envelope(message: Message) -> Frame {
    Frame::Message(Envelope {
        group: GroupId(0x11),
        from: NodeId(0x22),
        incarnation: Incarnation(0x33),
        to: NodeId(0x44),
        term: Term(0x55),
        message,
    })
}

/// Checks the envelope and returns what comes after it.
fn after_envelope<'a>(page: &Page, body: &'a [u8]) -> &'a [u8] {
    let table = page.table("Envelope");
    let fields = ["group", "sender", "its incarnation", "receiver", "term"];
    let found = fields.map(|field| number(body, &table.field(field)));
    assert_eq!(found, [0x11, 0x22, 0x33, 0x44, 0x55]);
    &body[table.end()..]
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.as_chunks::<8>().0.iter();
    words.map(|word| u64::from_le_bytes(*word)).collect()
}

#[test]
fn greeting_is_what_the_page_says() {
    // Whoever writes a tool from the page must be understood by a node.
    let page = Page::parse(&text());
    let bytes = encoded(&Frame::Hello(Hello {
        protocol: PROTOCOL_VERSION,
        class: Class::Bulk,
        max_batch_bytes: 0x66,
        cluster: *b"sixteen bytes, x",
        node: NodeId(0x77),
        incarnation: Incarnation(0x88),
        to: NodeId(0x99),
    }));
    let body = body_of(&page, &bytes, "hello", None);
    let table = page.table("Hello");
    let get = |field| number(body, &table.field(field));
    assert_eq!(get("protocol version"), u64::from(PROTOCOL_VERSION));
    assert!(text().contains(&format!("which the hello carries, is {PROTOCOL_VERSION};")));
    assert_eq!((get("class of the connection"), get("zero")), (2, 0));
    assert_eq!(get("largest batch body"), 0x66);
    assert_eq!(&body[table.field("cluster identity")], b"sixteen bytes, x");
    let nodes = [
        get("sender"),
        get("its incarnation"),
        get("the node that it means"),
    ];
    assert_eq!(nodes, [0x77, 0x88, 0x99]);
    assert_eq!(body.len(), table.end());
}

#[test]
fn messages_are_what_the_page_says() {
    // The same, for what follows the greeting: a short message, and one that carries batches.
    let page = Page::parse(&text());
    let beat = Message::Heartbeat {
        commit: Index(7),
        round: 8,
    };
    let bytes = encoded(&envelope(beat));
    let body = body_of(&page, &bytes, "heartbeat", None);
    assert_eq!(words(after_envelope(&page, body)), [7, 8]);

    let prev = Position::START;
    let batch = Body::noop().seal(GroupId(0x11), &prev, Term(5));
    let batch = batch.expect("a place in the log");
    let append = Message::Append {
        prev,
        batches: vec![batch.clone()],
        commit: Index(9),
    };
    let bytes = encoded(&envelope(append));
    let fixed = 40 + 24 + 8 + 8;
    let body = body_of(&page, &bytes, "append", Some(fixed));
    let after = after_envelope(&page, body);
    assert_eq!(words(&after[..40]), [0, 0, prev.digest.0, 9, 1]);
    let descriptor = &after[40..104];
    assert_eq!(after.len(), 104 + batch.body.len());
    // As on disk, with position 0.
    assert_eq!((descriptor[0], descriptor[1]), (1, 3));
    assert_eq!(number(descriptor, &(40..48)), batch.header.digest.0);
    assert_eq!(number(descriptor, &(56..60)), 0);
    assert_eq!(
        number(descriptor, &(60..64)),
        u64::from(crc32(&[&descriptor[..56]]))
    );
}

#[test]
fn frames_are_what_the_page_says() {
    // Snapshots on their way; and no table with a seam.
    let page = Page::parse(&text());
    let id = TransferId {
        attempt: Attempt {
            life: Incarnation(3),
            number: 4,
        },
        file: SnapshotFile {
            nonce: 5,
            bytes: 600,
            digest: 7,
        },
    };
    let parcel = |frame| {
        Frame::Transfer(Parcel {
            group: GroupId(1),
            from: NodeId(2),
            incarnation: Incarnation(3),
            to: NodeId(9),
            frame,
        })
    };
    let piece = TransferFrame::Piece {
        id,
        offset: 512,
        bytes: Bytes::from_static(b"bytes of the file"),
    };
    let bytes = encoded(&parcel(piece));
    let table = page.table("Transfer");
    let sealed = 32 + table.end() + 8;
    let body = body_of(&page, &bytes, "transfer piece", Some(sealed));
    assert_eq!(words(&body[..32]), [1, 2, 3, 9]);
    let fields = ["the sender's", "number of", "nonce", "length", "digest"];
    let found = fields.map(|field| number(&body[32..], &table.field(field)));
    assert_eq!(found, [3, 4, 5, 600, 7]);
    assert_eq!(words(&body[32 + table.end()..sealed]), [512]);
    assert_eq!(&body[sealed..], b"bytes of the file");

    let ack = TransferFrame::Ack {
        id,
        received: 600,
        durable: true,
    };
    let bytes = encoded(&parcel(ack));
    let body = body_of(&page, &bytes, "transfer ack", None);
    assert_eq!(words(&body[32 + table.end()..]), [600, 1]);

    for table in page.tables() {
        assert_eq!(table.seam(), None);
    }
    assert_eq!(page.tables().count(), 4);
}
