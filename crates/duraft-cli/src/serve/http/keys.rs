//! `/v1/kv/KEY`: GET, PUT and DELETE of one key.
//!
//! | request | answer |
//! |---|---|
//! | `GET` | 200 and the value, or 404; `?consistency=stale` asks this node alone |
//! | `PUT` | 204, or 412 where `?if=absent`, `?if=present` or `?expected=VALUE` does not hold |
//! | `DELETE` | 204, or 404 where there was no such key |
//!
//! 307 where another node leads to which nothing may be passed on.

use super::{Answer, bytes, failed, not_allowed, problem};
use crate::serve::command::{Look, Op, When};
use crate::serve::engine::{Elsewhere, Engine, Failure, Freshness};
use crate::serve::reply::Reply;
use bytes::Bytes;
use hyper::header::{HeaderValue, LOCATION};
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
    let answered = match parts.method {
        Method::GET | Method::HEAD => get(key, query, engine).await,
        Method::PUT => put(key, value, query, engine).await,
        Method::DELETE => delete(key, engine).await,
        _ => Ok(not_allowed("GET, HEAD, PUT, DELETE")),
    };
    answered.unwrap_or_else(|failure| redirect(&failure, parts, engine))
}

/// Where the client is to go itself, or what is wrong.
fn redirect(failure: &Failure, parts: &Parts, engine: &Engine) -> Answer {
    let leader = match failure {
        Failure::Moved(leader) => engine.book.find(leader.0),
        Failure::Refused(_) | Failure::NotLeader(_) | Failure::Unknown(_) => None,
    };
    let place = leader.and_then(|peer| {
        let place = format!("http://{}{}", peer.http, parts.uri);
        HeaderValue::from_str(&place).ok()
    });
    let Some(place) = place else {
        return failed(failure);
    };
    let text = "another node leads, and nodes with certificates pass nothing on in plain text";
    let mut answer = problem(StatusCode::TEMPORARY_REDIRECT, text);
    answer.headers_mut().insert(LOCATION, place);
    answer
}

async fn get(key: Bytes, query: &str, engine: &Engine) -> Result<Answer, Failure> {
    let freshness = match parameter(query, "consistency").as_deref() {
        None | Some(b"linearizable") => Freshness::Linearizable,
        Some(b"stale") => Freshness::Stale,
        Some(_) => {
            let text = "consistency must be linearizable or stale";
            return Ok(problem(StatusCode::BAD_REQUEST, text));
        }
    };
    let replies = engine.read(vec![Look::Get(key)], freshness).await?;
    Ok(match replies.into_iter().next() {
        Some(Reply::Bulk(value)) => bytes(StatusCode::OK, "application/octet-stream", value),
        Some(_) | None => problem(StatusCode::NOT_FOUND, "there is no such key"),
    })
}

async fn put(key: Bytes, value: Bytes, query: &str, engine: &Engine) -> Result<Answer, Failure> {
    let expected = parameter(query, "expected");
    let when = match (parameter(query, "if").as_deref(), expected) {
        (None, None) => When::Always,
        (None, Some(expected)) => When::Equal(expected),
        (Some(b"absent"), None) => When::Absent,
        (Some(b"present"), None) => When::Present,
        (Some(_), _) => {
            let text = "if must be absent or present, and does not go with expected";
            return Ok(problem(StatusCode::BAD_REQUEST, text));
        }
    };
    let get = false;
    let op = Op::Set {
        key,
        value,
        when,
        get,
    };
    let replies = engine.write(&[op], Elsewhere::Pass).await?;
    Ok(if replies == [Reply::Ok] {
        empty()
    } else {
        let text = "the condition does not hold";
        problem(StatusCode::PRECONDITION_FAILED, text)
    })
}

async fn delete(key: Bytes, engine: &Engine) -> Result<Answer, Failure> {
    let op = Op::Del(vec![key]);
    let replies = engine.write(&[op], Elsewhere::Pass).await?;
    Ok(if replies == [Reply::Int(1)] {
        empty()
    } else {
        problem(StatusCode::NOT_FOUND, "there was no such key")
    })
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
