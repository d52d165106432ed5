//! HTTP beside the Redis protocol, on two addresses: keys, status, metrics and a page for people on
//! one; membership, leadership and snapshots on the other, which is for operators alone.

mod admin;
mod client;
mod keys;
mod metrics;
mod status;

use super::engine::{Engine, Failure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub(crate) use admin::{AdminRequest, AdminResponse};
pub(crate) use status::ClusterStatus;

/// Longest wait for a request's head and for its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Which requests are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doors {
    Public,
    Admin,
}

type Answer = Response<Full<Bytes>>;

/// Accepts connections for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, engine: Arc<Engine>, doors: Doors) {
    let max = usize::try_from(engine.config.limits.http_connections_max).unwrap_or(usize::MAX);
    let room = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("no HTTP connection can be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(%peer, "closed: limits.http_connections_max connections are open");
            continue;
        };
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            connection(stream, engine, doors).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, engine: Arc<Engine>, doors: Doors) {
    let service = service_fn(move |request| {
        let engine = Arc::clone(&engine);
        async move {
            engine.stats.http_requests.add(1);
            Ok::<_, Infallible>(answer(request, &engine, doors).await)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("an HTTP connection ended: {error}");
    }
}

async fn answer(request: Request<Incoming>, engine: &Engine, doors: Doors) -> Answer {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_string();
    let get = parts.method == Method::GET || parts.method == Method::HEAD;
    match (doors, &path[..]) {
        (Doors::Public, path) if path.starts_with("/v1/kv/") => {
            let limit = usize::try_from(engine.config.limits.value_bytes_max).unwrap_or(usize::MAX);
            match read_body(body, limit).await {
                Ok(value) => keys::answer(&parts, value, engine).await,
                Err(refusal) => *refusal,
            }
        }
        (Doors::Admin, path)
            if path.starts_with("/v1/cluster/") && parts.method == Method::POST =>
        {
            match read_body(body, HEAD_BYTES_MAX).await {
                Ok(text) => admin::answer(&parts, &text, engine).await,
                Err(refusal) => *refusal,
            }
        }
        (_, "/v1/status") if get => json(StatusCode::OK, &status::of(engine).await),
        (_, "/v1/cluster/status") if get => json(StatusCode::OK, &status::of_all(engine).await),
        (_, "/healthz") if get => status::health(engine),
        (_, "/readyz") if get => status::ready(engine).await,
        (_, "/metrics") if get => text(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::render(engine).await,
        ),
        (Doors::Public, "/") if get => page(),
        (_, "/v1/status" | "/v1/cluster/status" | "/healthz" | "/readyz" | "/metrics" | "/") => {
            not_allowed("GET")
        }
        (Doors::Public, path) if path.starts_with("/v1/cluster/") => problem(
            StatusCode::FORBIDDEN,
            "the cluster is administered at the address that listen.admin names",
        ),
        (Doors::Admin, path) if path.starts_with("/v1/cluster/") => not_allowed("POST"),
        (_, _) => problem(StatusCode::NOT_FOUND, "there is nothing at this path"),
    }
}

/// The page asks for what this server has, and for nothing else.
fn page() -> Answer {
    let mut page = text(
        StatusCode::OK,
        "text/html; charset=utf-8",
        include_str!("page.html").into(),
    );
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                  connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    let headers = page.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    page
}

/// The whole body within a limit and in time, or what to answer instead.
async fn read_body(body: Incoming, limit: usize) -> Result<Bytes, Box<Answer>> {
    match timeout(PATIENCE, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let what = format!("the body is over the limit of {limit} bytes");
            Err(Box::new(problem(StatusCode::PAYLOAD_TOO_LARGE, &what)))
        }
        Ok(Err(error)) => {
            let what = format!("the body cannot be read: {error}");
            Err(Box::new(problem(StatusCode::BAD_REQUEST, &what)))
        }
        Err(_) => {
            let what = "the body did not come in time";
            Err(Box::new(problem(StatusCode::REQUEST_TIMEOUT, what)))
        }
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Answer {
    bytes(status, kind, Bytes::from(body))
}

fn bytes(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(body) => text(status, "application/json", body + "\n"),
        Err(error) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain",
            format!("the answer cannot be written: {error}\n"),
        ),
    }
}

/// What a client is told that gets no answer.
#[derive(Serialize)]
struct Problem<'a> {
    error: &'a str,
    /// `none`: the request has no effect; `unknown`: nobody can tell.
    outcome: &'static str,
}

fn problem(status: StatusCode, error: &str) -> Answer {
    let outcome = "none";
    json(status, &Problem { error, outcome })
}

fn not_allowed(method: &'static str) -> Answer {
    let mut answer = problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path takes another method",
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(method));
    answer
}

fn failed(failure: &Failure) -> Answer {
    let (status, error, outcome) = match failure {
        Failure::Refused(text) => (StatusCode::SERVICE_UNAVAILABLE, text.clone(), "none"),
        Failure::Moved(_) | Failure::NotLeader(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no leader is known".into(),
            "none",
        ),
        Failure::Unknown(why) => (
            StatusCode::GATEWAY_TIMEOUT,
            format!("the request may have taken effect: {why}"),
            "unknown",
        ),
    };
    json(
        status,
        &Problem {
            error: &error,
            outcome,
        },
    )
}
