//! A program of the user's that says what a command means.
//!
//! It is started once. For each command it gets one line, the command's bytes in hexadecimal digits,
//! and answers with one line. It is not trusted: an answer has a time and a length limit, and whatever
//! goes wrong with it is reported with the command it was about.

use super::Problem;
use super::text::hex;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Longest answer.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// See the module documentation.
pub(crate) struct Decoder {
    command: String,
    child: Child,
    patience: Duration,
    asks: Option<SyncSender<String>>,
    answers: Receiver<Result<String, String>>,
}

impl Decoder {
    /// Starts the program, by `sh -c`.
    pub(crate) fn start(command: &str, patience: Duration) -> Result<Decoder, Problem> {
        let failed = |problem: String| Problem::Decoder {
            command: command.to_owned(),
            problem,
        };
        let spawned = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|error| failed(format!("cannot be started: {error}")))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(String::from("has no standard input and output")));
        };
        // One thread each, as a program may read nothing, answer nothing, or both. They end when the
        // pipes do, and those end with the child.
        let (asks, to_write) = sync_channel(1);
        let (answered, answers) = sync_channel(1);
        std::thread::spawn(move || feed(stdin, &to_write));
        std::thread::spawn(move || collect(stdout, &answered));
        Ok(Decoder {
            command: command.to_owned(),
            child,
            patience,
            asks: Some(asks),
            answers,
        })
    }

    /// What the program says of this command.
    pub(crate) fn decode(&mut self, index: u64, command: &[u8]) -> Result<String, Problem> {
        // There is room: whoever has answered the line before has read it. To wait would be to wait for
        // ever for one that answers without reading.
        let asked = self.asks.as_ref().map(|asks| asks.try_send(hex(command)));
        let answer = match asked {
            Some(Ok(())) => self.answers.recv_timeout(self.patience),
            Some(Err(TrySendError::Full(_))) => {
                Ok(Err(String::from("answers more than it is asked")))
            }
            Some(Err(TrySendError::Disconnected(_))) | None => Err(RecvTimeoutError::Disconnected),
        };
        let problem = match answer {
            Ok(Ok(line)) => return Ok(line),
            Ok(Err(problem)) => problem,
            Err(RecvTimeoutError::Timeout) => {
                format!("did not answer within {:?}", self.patience)
            }
            Err(RecvTimeoutError::Disconnected) => self.ended(),
        };
        Err(Problem::Decoder {
            command: self.command.clone(),
            problem: format!("{problem}, at entry {index}"),
        })
    }

    fn ended(&mut self) -> String {
        match self.child.wait() {
            Ok(status) => format!("ended ({status})"),
            Err(error) => format!("ended: {error}"),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.asks = None;
        // It may hang; what it had to say has been said.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn feed(mut stdin: ChildStdin, asks: &Receiver<String>) {
    for line in asks {
        if writeln!(stdin, "{line}")
            .and_then(|()| stdin.flush())
            .is_err()
        {
            return;
        }
    }
}

fn collect(stdout: ChildStdout, answered: &SyncSender<Result<String, String>>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let answer = match reader
            .by_ref()
            .take(ANSWER_BYTES_MAX)
            .read_until(b'\n', &mut line)
        {
            Ok(0) => return,
            Ok(_) if line.last() == Some(&b'\n') => {
                line.pop();
                Ok(String::from_utf8_lossy(&line).into_owned())
            }
            Ok(_) if line.len() as u64 == ANSWER_BYTES_MAX => {
                Err(format!("answered with more than {ANSWER_BYTES_MAX} bytes"))
            }
            Ok(_) => Err(String::from("ended within a line")),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        let over = answer.is_err();
        if answered.send(answer).is_err() || over {
            return;
        }
    }
}
