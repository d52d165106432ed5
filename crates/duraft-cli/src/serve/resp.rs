//! Requests as they come from a socket: arrays of bulk strings, and lines typed by hand.
//!
//! Lengths are checked before anything is kept for them, so a request takes no more memory than its
//! limits allow, whatever it announces. The parser goes on where it stopped when more bytes come: a
//! request of many arguments that trickles in is not read again and again.
//!
//! The crate `redis-protocol` was judged and serves the tests as another opinion: it reads frames of
//! any type and depth and takes no limits, so that a size could be refused only when the bytes have
//! been gathered (ADR 15).

use bytes::{Buf, Bytes, BytesMut};

/// Longest line: a number, or a request typed by hand.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What a request may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RequestLimits {
    /// Most arguments, the command's name included.
    pub(crate) arguments_max: usize,
    /// Longest argument.
    pub(crate) argument_bytes_max: usize,
    /// Most bytes of all arguments.
    pub(crate) request_bytes_max: usize,
}

/// The bytes are no request that can be served; nothing behind them can be understood either.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("Protocol error: expected '{}', got '{}'", .expected.escape_default(), char::from(*.got).escape_default())]
    Unexpected { expected: char, got: u8 },
    #[error("Protocol error: a length is not a number")]
    Length,
    #[error("Protocol error: a line is longer than {LINE_BYTES_MAX} bytes")]
    Line,
    #[error("Protocol error: quotes are not closed")]
    Quotes,
    #[error("Protocol error: {count} arguments are more than limits.arguments_max = {max}")]
    Arguments { count: u64, max: usize },
    #[error("Protocol error: an argument of {bytes} bytes is over the limit of {max} bytes")]
    Argument { bytes: u64, max: usize },
    #[error("Protocol error: the request is over the limit of {max} bytes")]
    Request { max: usize },
}

/// One request: the command's name and its arguments, never empty.
pub(crate) type Request = Vec<Bytes>;

/// Where the parser stands in the first request of the buffer.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// Arguments of the request, once known.
    count: Option<usize>,
    /// Places of those that are whole.
    spans: Vec<(usize, usize)>,
    /// Bytes of them.
    bytes: usize,
    /// Everything before is understood.
    at: usize,
}

impl Parser {
    /// Takes the next request out of the buffer; `None` where it is not whole yet. After an error
    /// the connection is of no use.
    pub(crate) fn next(
        &mut self,
        buffer: &mut BytesMut,
        limits: &RequestLimits,
    ) -> Result<Option<Request>, BadRequest> {
        loop {
            let Some(count) = self.count else {
                match buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        let Some((number, next)) = number_line(buffer, 0)? else {
                            return Ok(None);
                        };
                        if number <= 0 {
                            // Nothing is asked for.
                            buffer.advance(next);
                            continue;
                        }
                        self.begin(number, next, limits)?;
                    }
                    Some(_) => match typed(buffer, limits)? {
                        Typed::Partial => return Ok(None),
                        Typed::Empty => {}
                        Typed::Request(request) => return Ok(Some(request)),
                    },
                }
                continue;
            };
            while self.spans.len() < count {
                if !self.argument(buffer, limits)? {
                    return Ok(None);
                }
            }
            let whole = buffer.split_to(self.at).freeze();
            let slices = self.spans.iter().map(|(from, to)| whole.slice(*from..*to));
            let request = slices.collect();
            *self = Parser::default();
            return Ok(Some(request));
        }
    }

    fn begin(
        &mut self,
        number: i64,
        next: usize,
        limits: &RequestLimits,
    ) -> Result<(), BadRequest> {
        let max = limits.arguments_max;
        let count = usize::try_from(number).unwrap_or(usize::MAX);
        if count > max {
            return Err(BadRequest::Arguments {
                count: number.unsigned_abs(),
                max,
            });
        }
        self.count = Some(count);
        self.at = next;
        Ok(())
    }

    /// Understands one more argument, if it is whole.
    fn argument(&mut self, buffer: &BytesMut, limits: &RequestLimits) -> Result<bool, BadRequest> {
        match buffer.get(self.at) {
            None => return Ok(false),
            Some(b'$') => {}
            Some(got) => {
                return Err(BadRequest::Unexpected {
                    expected: '$',
                    got: *got,
                });
            }
        }
        let Some((number, start)) = number_line(buffer, self.at)? else {
            return Ok(false);
        };
        let len = usize::try_from(number).map_err(|_| BadRequest::Length)?;
        if len > limits.argument_bytes_max {
            return Err(BadRequest::Argument {
                bytes: number.unsigned_abs(),
                max: limits.argument_bytes_max,
            });
        }
        if self.bytes + len > limits.request_bytes_max {
            return Err(BadRequest::Request {
                max: limits.request_bytes_max,
            });
        }
        let end = start + len;
        let Some(tail) = buffer.get(end..end + 2) else {
            return Ok(false);
        };
        if tail != b"\r\n" {
            return Err(BadRequest::Unexpected {
                expected: '\r',
                got: tail[0],
            });
        }
        self.spans.push((start, end));
        self.bytes += len;
        self.at = end + 2;
        Ok(true)
    }
}

/// The number in the line that begins with a type byte at `from`, and where the next line begins.
fn number_line(buffer: &BytesMut, from: usize) -> Result<Option<(i64, usize)>, BadRequest> {
    // The longest number has a sign and 19 digits.
    const DIGITS_MAX: usize = 20;
    let rest = &buffer[from + 1..];
    let Some(end) = rest.iter().take(DIGITS_MAX + 2).position(|b| *b == b'\n') else {
        return if rest.len() > DIGITS_MAX + 1 {
            Err(BadRequest::Length)
        } else {
            Ok(None)
        };
    };
    let digits = rest[..end].strip_suffix(b"\r").ok_or(BadRequest::Length)?;
    let text = std::str::from_utf8(digits).map_err(|_| BadRequest::Length)?;
    let number = text.parse().map_err(|_| BadRequest::Length)?;
    Ok(Some((number, from + 1 + end + 1)))
}

enum Typed {
    Partial,
    Empty,
    Request(Request),
}

/// A request as a person types it: words in a line, quoted where they hold spaces.
fn typed(buffer: &mut BytesMut, limits: &RequestLimits) -> Result<Typed, BadRequest> {
    let Some(end) = buffer.iter().take(LINE_BYTES_MAX).position(|b| *b == b'\n') else {
        return if buffer.len() >= LINE_BYTES_MAX {
            Err(BadRequest::Line)
        } else {
            Ok(Typed::Partial)
        };
    };
    let line = buffer.split_to(end + 1);
    let words = words(&line)?;
    if words.len() > limits.arguments_max {
        return Err(BadRequest::Arguments {
            count: words.len() as u64,
            max: limits.arguments_max,
        });
    }
    if let Some(word) = words.iter().find(|w| w.len() > limits.argument_bytes_max) {
        return Err(BadRequest::Argument {
            bytes: word.len() as u64,
            max: limits.argument_bytes_max,
        });
    }
    Ok(if words.is_empty() {
        Typed::Empty
    } else {
        Typed::Request(words)
    })
}

fn words(line: &[u8]) -> Result<Vec<Bytes>, BadRequest> {
    let mut words = Vec::new();
    let mut rest = line.iter().copied().peekable();
    loop {
        while rest.next_if(u8::is_ascii_whitespace).is_some() {}
        let Some(first) = rest.peek().copied() else {
            return Ok(words);
        };
        let mut word = Vec::new();
        if first == b'"' || first == b'\'' {
            rest.next();
            loop {
                match rest.next() {
                    None => return Err(BadRequest::Quotes),
                    Some(byte) if byte == first => break,
                    Some(b'\\') if first == b'"' => {
                        let byte = rest.next().ok_or(BadRequest::Quotes)?;
                        word.push(match byte {
                            b'n' => b'\n',
                            b'r' => b'\r',
                            b't' => b'\t',
                            other => other,
                        });
                    }
                    Some(byte) => word.push(byte),
                }
            }
        } else {
            while let Some(byte) = rest.next_if(|b| !b.is_ascii_whitespace()) {
                word.push(byte);
            }
        }
        words.push(Bytes::from(word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis_protocol::resp2::types::OwnedFrame;

    const LIMITS: RequestLimits = RequestLimits {
        arguments_max: 8,
        argument_bytes_max: 64,
        request_bytes_max: 128,
    };

    /// All requests in these bytes, given to the parser in pieces.
    fn requests(bytes: &[u8], piece: usize) -> Result<Vec<Request>, BadRequest> {
        let (mut parser, mut buffer) = (Parser::default(), BytesMut::new());
        let mut found = Vec::new();
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Some(request) = parser.next(&mut buffer, &LIMITS)? {
                found.push(request);
            }
        }
        Ok(found)
    }

    fn request(words: &[&'static str]) -> Request {
        words
            .iter()
            .map(|w| Bytes::from_static(w.as_bytes()))
            .collect()
    }

    #[test]
    fn requests_written_by_others_are_read_whatever_the_pieces() {
        // A request cut at any byte must be read once, whole, and the next one behind it.
        let mut bytes = Vec::new();
        let expected = [
            request(&["SET", "key", "a\r\nb"]),
            request(&["PING"]),
            request(&["GET", ""]),
        ];
        for request in &expected {
            let words = request.iter().map(|w| OwnedFrame::BulkString(w.to_vec()));
            let frame = OwnedFrame::Array(words.collect());
            let mut out = vec![0; 256];
            let used = redis_protocol::resp2::encode::encode(&mut out, &frame, false);
            bytes.extend_from_slice(&out[..used.expect("room for it")]);
        }
        bytes.extend_from_slice(b"*0\r\n\r\n set  \"a b\" 'c' \r\n");
        for piece in 1..bytes.len() {
            let mut all = expected.to_vec();
            all.push(request(&["set", "a b", "c"]));
            assert_eq!(requests(&bytes, piece), Ok(all), "pieces of {piece}");
        }
    }

    #[test]
    fn what_breaks_a_limit_is_refused_before_its_bytes_come() {
        let cases: &[(&[u8], &str)] = &[
            (b"*9\r\n", "9 arguments"),
            (b"*1\r\n$65\r\n", "65 bytes"),
            (b"*3\r\n$64\r\n", ""),
            (b"*1\r\n$-1\r\n", "not a number"),
            (b"*1\r\n$1x\r\n", "not a number"),
            (b"*1\r\n$99999999999999999999999", "not a number"),
            (b"*1\r\n:1\r\n", "expected '$'"),
            (b"*1\r\n$1\r\nabc", "expected '\\r'"),
            (b"*x\r\n", "not a number"),
            (b"a b c d e f g h i\r\n", "9 arguments"),
            (b"\"never closed\r\n", "quotes"),
        ];
        for (bytes, named) in cases {
            match requests(bytes, 1) {
                Ok(found) => assert!(named.is_empty() && found.is_empty(), "{bytes:?}"),
                Err(error) => assert!(
                    !named.is_empty() && error.to_string().contains(named),
                    "{bytes:?}: {error}"
                ),
            }
        }
        let mut three = b"*3\r\n".to_vec();
        for _ in 0..2 {
            three.extend_from_slice(b"$60\r\n");
            three.extend_from_slice(&[b'x'; 60]);
            three.extend_from_slice(b"\r\n");
        }
        three.extend_from_slice(b"$9\r\n");
        assert_eq!(requests(&three, 7), Err(BadRequest::Request { max: 128 }));
        assert_eq!(
            requests(&[b'a'; LINE_BYTES_MAX], 4096),
            Err(BadRequest::Line)
        );
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        // Sentences of a little grammar and noise, drawn from a fixed seed.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = |n: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(state >> 33).expect("31 bits") % n
        };
        let parts: [&[u8]; 12] = [
            b"*", b"$", b"1", b"2", b"-", b"\r\n", b"\n", b"\r", b"abc", b"\"", b" ", b"\xff\0",
        ];
        for _ in 0..50_000 {
            let bytes: Vec<u8> = (0..draw(24))
                .flat_map(|_| parts[draw(12)].to_vec())
                .collect();
            let piece = 1 + draw(8);
            let _ = requests(&bytes, piece);
        }
    }
}
