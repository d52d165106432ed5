//! One HTTP request over a plain socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A little more than the node itself waits.
const PATIENCE: Duration = Duration::from_secs(40);
const BODY_BYTES_MAX: u64 = 16 << 20;
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(
        "{address} cannot be asked: {source}. Is `duraft serve` running, and is this its admin address (listen.admin)?"
    )]
    Io { address: String, source: io::Error },
    #[error("what {0} answers is no HTTP of `duraft serve`")]
    NotHttp(String),
    #[error("the answer cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

/// What came back.
pub(crate) struct Asked {
    pub(crate) status: u16,
    pub(crate) text: String,
}

/// GET, or POST of a JSON body.
pub(crate) fn ask(address: &str, path: &str, body: Option<&str>) -> Result<Asked, AskError> {
    let failed = |source| AskError::Io {
        address: address.into(),
        source,
    };
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.unwrap_or("");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).map_err(failed)?;
    stream.write_all(body.as_bytes()).map_err(failed)?;
    let mut answer = BufReader::new(stream);
    let first = line(&mut answer).map_err(failed)?;
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| AskError::NotHttp(address.into()))?;
    let mut length = 0;
    loop {
        let header = line(&mut answer).map_err(failed)?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or((&header, ""));
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    if length > BODY_BYTES_MAX {
        return Err(AskError::NotHttp(address.into()));
    }
    let mut text = String::new();
    answer
        .take(length)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 != length {
        return Err(failed(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Asked { status, text })
}

fn line(answer: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    answer.take(LINE_BYTES_MAX).read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_string())
}
