//! Where results go: lines to standard output, JSON to a file.

use serde::Serialize;
use std::io;
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
