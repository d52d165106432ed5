//! `/v1/kv/KEY`: GET, PUT and DELETE of one key.
//!
//! | request | answer |
//! |---|---|
//! | `GET` | 200 and the value, or 404; `?consistency=stale` asks this node alone |
//! | `PUT` | 204, or 412 where `?if=absent`, `?if=present` or `?expected=VALUE` does not hold |
//! | `DELETE` | 204, or 404 where there was no such key |

use super::{Answer, bytes, failed, not_allowed, problem};
use crate::serve::command::{Look, Op, When};
use crate::serve::engine::{Elsewhere, Engine, Freshness};
use crate::serve::reply::Reply;
use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

pub(super) async fn answer(parts: &Parts, value: Bytes, engine: &Engine) -> Answer {
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or("");
    let key = path.strip_prefix("/v1/kv/").and_then(unescape);
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        return problem(StatusCode::BAD_REQUEST, "the path names no key: /v1/kv/KEY");
    };
    let max = engine.config.limits.key_bytes_max;
    if key.len() as u64 > max {
        let text = format!("the key is longer than limits.key_bytes_max = {max}");
        return problem(StatusCode::URI_TOO_LONG, &text);
    }
    match parts.method {
        Method::GET | Method::HEAD => get(key, query, engine).await,
        Method::PUT => put(key, value, query, engine).await,
        Method::DELETE => delete(key, engine).await,
        _ => not_allowed("GET, HEAD, PUT, DELETE"),
    }
}

async fn get(key: Bytes, query: &str, engine: &Engine) -> Answer {
    let freshness = match parameter(query, "consistency").as_deref() {
        None | Some(b"linearizable") => Freshness::Linearizable,
        Some(b"stale") => Freshness::Stale,
        Some(_) => {
            let text = "consistency must be linearizable or stale";
            return problem(StatusCode::BAD_REQUEST, text);
        }
    };
    match engine.read(vec![Look::Get(key)], freshness).await {
        Ok(replies) => match replies.into_iter().next() {
            Some(Reply::Bulk(value)) => bytes(StatusCode::OK, "application/octet-stream", value),
            Some(_) | None => problem(StatusCode::NOT_FOUND, "there is no such key"),
        },
        Err(failure) => failed(&failure),
    }
}

async fn put(key: Bytes, value: Bytes, query: &str, engine: &Engine) -> Answer {
    let expected = parameter(query, "expected");
    let when = match (parameter(query, "if").as_deref(), expected) {
        (None, None) => When::Always,
        (None, Some(expected)) => When::Equal(expected),
        (Some(b"absent"), None) => When::Absent,
        (Some(b"present"), None) => When::Present,
        (Some(_), _) => {
            let text = "if must be absent or present, and does not go with expected";
            return problem(StatusCode::BAD_REQUEST, text);
        }
    };
    let get = false;
    let op = Op::Set {
        key,
        value,
        when,
        get,
    };
    match engine.write(&[op], Elsewhere::Pass).await {
        Ok(replies) if replies == [Reply::Ok] => empty(),
        Ok(_) => problem(
            StatusCode::PRECONDITION_FAILED,
            "the condition does not hold",
        ),
        Err(failure) => failed(&failure),
    }
}

async fn delete(key: Bytes, engine: &Engine) -> Answer {
    match engine.write(&[Op::Del(vec![key])], Elsewhere::Pass).await {
        Ok(replies) if replies == [Reply::Int(1)] => empty(),
        Ok(_) => problem(StatusCode::NOT_FOUND, "there was no such key"),
        Err(failure) => failed(&failure),
    }
}

fn empty() -> Answer {
    bytes(StatusCode::NO_CONTENT, "text/plain", Bytes::new())
}

/// The value of a name in a query.
fn parameter(query: &str, name: &str) -> Option<Bytes> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(n, _)| *n == name);
    named.next().and_then(|(_, value)| unescape(value))
}

/// `%41` and the like as bytes; `None` where an escape is broken.
fn unescape(text: &str) -> Option<Bytes> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        out.push(u8::try_from(16 * high + low).ok()?);
    }
    Some(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_and_broken_ones_refused() {
        let read = |text| unescape(text).map(|b| b.to_vec());
        assert_eq!(read("a%2Fb%00"), Some(b"a/b\0".to_vec()));
        assert_eq!(read("a+b"), Some(b"a+b".to_vec()));
        assert_eq!(read("%2"), None);
        assert_eq!(read("%zz"), None);
        assert_eq!(parameter("a=1&b=%20", "b").as_deref(), Some(&b" "[..]));
        assert_eq!(parameter("ab=1", "b"), None);
    }
}
