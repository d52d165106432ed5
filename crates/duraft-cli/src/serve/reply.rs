//! Answers: as the state machine gives them, as they travel between nodes, and as RESP.

use bytes::{BufMut, Bytes, BytesMut};
use std::borrow::Cow;

/// An answer to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    Ok,
    Int(i64),
    Bulk(Bytes),
    Nil,
    /// A word that is no data, as PONG.
    Word(&'static str),
    /// The first word of the text is the code.
    Error(Cow<'static, str>),
    List(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    /// What the state machine refuses.
    Refused(Refusal),
}

/// What the state machine refuses, by number: the answer is the same on every node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Refusal {
    NotAnInteger = 1,
    Overflow = 2,
    TooLong = 3,
}

impl Refusal {
    fn text(self) -> &'static str {
        match self {
            Refusal::NotAnInteger => "ERR value is not an integer or out of range",
            Refusal::Overflow => "ERR increment or decrement would overflow",
            Refusal::TooLong => "ERR the value would be longer than limits.value_bytes_max allows",
        }
    }

    fn of(number: u8) -> Option<Refusal> {
        [Refusal::NotAnInteger, Refusal::Overflow, Refusal::TooLong]
            .into_iter()
            .find(|refusal| *refusal as u8 == number)
    }
}

/// Which dialect of RESP a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    Resp2,
    Resp3,
}

impl Reply {
    pub(crate) fn error(text: impl Into<Cow<'static, str>>) -> Reply {
        Reply::Error(text.into())
    }

    pub(crate) fn text(text: impl Into<String>) -> Reply {
        Reply::Bulk(Bytes::from(text.into()))
    }

    /// Bytes that the client will be sent, about.
    pub(crate) fn cost(&self) -> usize {
        16 + match self {
            Reply::Ok | Reply::Int(_) | Reply::Nil | Reply::Word(_) | Reply::Refused(_) => 0,
            Reply::Bulk(bytes) => bytes.len(),
            Reply::Error(text) => text.len(),
            Reply::List(items) => items.iter().map(Reply::cost).sum(),
            Reply::Map(pairs) => pairs.iter().map(|(k, v)| k.cost() + v.cost()).sum(),
        }
    }

    /// Writes it for a client.
    pub(crate) fn write(&self, dialect: Dialect, out: &mut BytesMut) {
        match self {
            Reply::Ok => out.put_slice(b"+OK\r\n"),
            Reply::Int(number) => line(out, b':', *number),
            Reply::Bulk(bytes) => {
                line(out, b'$', as_i64(bytes.len()));
                out.put_slice(bytes);
                out.put_slice(b"\r\n");
            }
            Reply::Nil => out.put_slice(match dialect {
                Dialect::Resp2 => b"$-1\r\n",
                Dialect::Resp3 => b"_\r\n",
            }),
            Reply::Word(word) => text_line(out, b'+', word),
            Reply::Error(text) => text_line(out, b'-', text),
            Reply::Refused(refusal) => text_line(out, b'-', refusal.text()),
            Reply::List(items) => {
                line(out, b'*', as_i64(items.len()));
                items.iter().for_each(|item| item.write(dialect, out));
            }
            Reply::Map(pairs) => {
                match dialect {
                    Dialect::Resp2 => line(out, b'*', as_i64(2 * pairs.len())),
                    Dialect::Resp3 => line(out, b'%', as_i64(pairs.len())),
                }
                for (key, value) in pairs {
                    key.write(dialect, out);
                    value.write(dialect, out);
                }
            }
        }
    }
}

fn as_i64(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

/// A line of a type and a number; numbers are most of what is written here.
fn line(out: &mut BytesMut, kind: u8, number: i64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_u8(kind);
    if number < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

/// A line of text; what would end it early is left out.
fn text_line(out: &mut BytesMut, kind: u8, text: &str) {
    out.put_u8(kind);
    for byte in text.bytes() {
        out.put_u8(if byte == b'\r' || byte == b'\n' {
            b' '
        } else {
            byte
        });
    }
    out.put_slice(b"\r\n");
}

mod tag {
    pub(super) const OK: u8 = 0;
    pub(super) const INT: u8 = 1;
    pub(super) const BULK: u8 = 2;
    pub(super) const NIL: u8 = 3;
    pub(super) const REFUSED: u8 = 4;
}

/// Collects the answers to an entry's operations, as the state machine returns them.
#[derive(Default)]
pub(crate) struct Answers(BytesMut);

impl Answers {
    pub(crate) fn ok(&mut self) {
        self.0.put_u8(tag::OK);
    }

    pub(crate) fn int(&mut self, number: i64) {
        self.0.put_u8(tag::INT);
        self.0.put_i64_le(number);
    }

    pub(crate) fn bulk(&mut self, bytes: &[u8]) {
        self.0.put_u8(tag::BULK);
        let len = u32::try_from(bytes.len()).expect("values are far below 4 GiB");
        self.0.put_u32_le(len);
        self.0.put_slice(bytes);
    }

    pub(crate) fn nil(&mut self) {
        self.0.put_u8(tag::NIL);
    }

    pub(crate) fn bulk_or_nil(&mut self, bytes: Option<&Bytes>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.nil(),
        }
    }

    pub(crate) fn refused(&mut self, refusal: Refusal) {
        self.0.put_u8(tag::REFUSED);
        self.0.put_u8(refusal as u8);
    }

    pub(crate) fn done(self) -> Bytes {
        self.0.freeze()
    }
}

/// Takes an entry's answers apart; `None` where they are not what [`Answers`] writes, or not `count`.
pub(crate) fn answers(response: &Bytes, count: usize) -> Option<Vec<Reply>> {
    let mut replies = Vec::with_capacity(count);
    let mut at = 0;
    while at < response.len() {
        let (reply, next) = answer(response, at)?;
        replies.push(reply);
        at = next;
    }
    (replies.len() == count).then_some(replies)
}

fn answer(response: &Bytes, at: usize) -> Option<(Reply, usize)> {
    let body = at + 1;
    Some(match *response.get(at)? {
        tag::OK => (Reply::Ok, body),
        tag::NIL => (Reply::Nil, body),
        tag::INT => {
            let number = response.get(body..body + 8)?;
            (
                Reply::Int(i64::from_le_bytes(number.try_into().ok()?)),
                body + 8,
            )
        }
        tag::BULK => {
            let len = response.get(body..body + 4)?;
            let len = usize::try_from(u32::from_le_bytes(len.try_into().ok()?)).ok()?;
            let end = (body + 4).checked_add(len)?;
            response.get(body + 4..end)?;
            (Reply::Bulk(response.slice(body + 4..end)), end)
        }
        tag::REFUSED => (Reply::Refused(Refusal::of(*response.get(body)?)?), body + 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis_protocol::resp2::types::{OwnedFrame as Frame2, Resp2Frame};
    use redis_protocol::resp3::types::{OwnedFrame as Frame3, Resp3Frame};

    fn written(reply: &Reply, dialect: Dialect) -> Vec<u8> {
        let mut out = BytesMut::new();
        reply.write(dialect, &mut out);
        out.to_vec()
    }

    fn samples() -> Vec<Reply> {
        vec![
            Reply::Ok,
            Reply::Int(0),
            Reply::Int(i64::MIN),
            Reply::Int(1234),
            Reply::Bulk(Bytes::from_static(b"a\r\nb")),
            Reply::Bulk(Bytes::new()),
            Reply::Nil,
            Reply::Word("PONG"),
            Reply::error("ERR bad\r\nline"),
            Reply::List(vec![Reply::Int(1), Reply::Nil, Reply::List(vec![])]),
            Reply::Map(vec![(Reply::text("k"), Reply::Int(3))]),
            Reply::Refused(Refusal::Overflow),
        ]
    }

    #[test]
    fn a_decoder_of_others_reads_every_reply_whole() {
        // A reply that ends early or late puts every later one at a wrong place.
        for reply in samples() {
            let two = written(&reply, Dialect::Resp2);
            let decoded = redis_protocol::resp2::decode::decode(&two).expect("valid RESP2");
            let (frame, used) = decoded.expect("a whole frame");
            assert_eq!(used, two.len(), "{reply:?}");
            let nil = matches!(reply, Reply::Nil);
            assert_eq!(matches!(frame, Frame2::Null), nil, "{:?}", frame.kind());
            let three = written(&reply, Dialect::Resp3);
            let decoded = redis_protocol::resp3::decode::complete::decode(&three);
            let (frame, used) = decoded.expect("valid RESP3").expect("a whole frame");
            assert_eq!(used, three.len(), "{reply:?}");
            assert_eq!(matches!(frame, Frame3::Null), nil, "{:?}", frame.kind());
            if let (Reply::Int(number), Frame3::Number { data, .. }) = (&reply, &frame) {
                assert_eq!(number, data);
            }
        }
    }

    #[test]
    fn answers_of_an_entry_read_back() {
        let mut out = Answers::default();
        out.ok();
        out.int(-7);
        out.bulk(b"value");
        out.nil();
        out.refused(Refusal::TooLong);
        let response = out.done();
        let expected = vec![
            Reply::Ok,
            Reply::Int(-7),
            Reply::Bulk(Bytes::from_static(b"value")),
            Reply::Nil,
            Reply::Refused(Refusal::TooLong),
        ];
        assert_eq!(answers(&response, 5), Some(expected));
        assert_eq!(answers(&response, 4), None, "one answer too many");
        for cut in 0..response.len() {
            assert_eq!(answers(&response.slice(..cut), 5), None, "cut at {cut}");
        }
    }
}
