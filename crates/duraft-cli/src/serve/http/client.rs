//! One request to another node's HTTP, for the view of the whole cluster.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(2);
const BODY_BYTES_MAX: usize = 1 << 20;

/// The body of what is at `path` there; the error is for people.
pub(super) async fn get(address: &str, path: &str) -> Result<Bytes, String> {
    match timeout(PATIENCE, get_whole(address, path)).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn get_whole(address: &str, path: &str) -> Result<Bytes, AnyError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path).header(HOST, address);
    let response = sender
        .send_request(request.body(Empty::<Bytes>::new())?)
        .await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
        .collect()
        .await?;
    driver.abort();
    if status != StatusCode::OK {
        return Err(format!("it answered {status}").into());
    }
    Ok(body.to_bytes())
}
