//! Where results go: lines to standard output, JSON to a file.

use serde::Serialize;
use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Prints a line.
#[allow(clippy::print_stdout)]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Writes a result as indented JSON with a newline at its end.
pub(crate) fn write_json(path: &Path, result: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(result)?;
    text.push('\n');
    std::fs::write(path, text)
}

/// Prints a report, as indented JSON where that is asked for.
pub(crate) fn publish(report: &(impl Serialize + Display), json: bool) -> io::Result<()> {
    let mut out = Out::new();
    if json {
        out.json_pretty(report)?;
    } else {
        out.line(report)?;
    }
    out.done()
}

/// Standard output, in large pieces. Unlike `println!`, a reader that goes away is an error and no
/// panic.
pub(crate) struct Out(BufWriter<io::Stdout>);

impl Out {
    pub(crate) fn new() -> Out {
        Out(BufWriter::new(io::stdout()))
    }

    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.0, "{text}")
    }

    /// One value on one line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, value)?;
        self.0.write_all(b"\n")
    }

    /// One value, indented.
    pub(crate) fn json_pretty(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.0, value)?;
        self.0.write_all(b"\n")
    }

    pub(crate) fn done(mut self) -> io::Result<()> {
        self.0.flush()
    }
}
