//! The program, what it says, and folders for it.

use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

/// Runs a program to its end; an error is that there is none.
pub(crate) fn try_run(command: &mut Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).output()
}

pub(crate) fn run(command: &mut Command) -> Output {
    try_run(command).expect("the program runs")
}

pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_duraft"))
}

pub(crate) fn duraft<I>(args: I) -> Output
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    run(program().args(args))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All that it said, on both outputs.
pub(crate) fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

pub(crate) fn json_file(path: impl AsRef<Path>) -> Value {
    let text = std::fs::read_to_string(path).expect("the JSON file is there");
    serde_json::from_str(&text).expect("it is JSON")
}

/// A folder on the disk that holds the build, not in the system's temporary folder.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch folder")
}

/// A folder in memory, where this machine has a place for one.
pub(crate) fn memory() -> Option<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let folder = || tempfile::tempdir_in(memory).expect("a folder in memory");
    memory.is_dir().then(folder)
}

pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}

pub(crate) fn path(folder: &Path, name: &str) -> String {
    shown(&folder.join(name))
}

/// What a folder holds.
pub(crate) type Image = BTreeMap<PathBuf, (Vec<u8>, SystemTime)>;

/// Every file below a folder, with its bytes and the time of its last change.
pub(crate) fn image(dir: &Path) -> Image {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let entry = entry.expect("an entry");
        let meta = entry.metadata().expect("metadata");
        let mut bytes = Vec::new();
        if meta.is_dir() {
            found.extend(image(&entry.path()));
        } else {
            bytes = std::fs::read(entry.path()).expect("readable");
        }
        found.insert(entry.path(), (bytes, meta.modified().expect("a time")));
    }
    found
}

pub(crate) fn unchanged(dir: &Path, before: &Image) {
    let after = image(dir);
    let names = |image: &Image| image.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(before));
    for (name, content) in before {
        assert!(after[name] == *content, "{} was changed", name.display());
    }
}

/// Flips a bit of these bytes wherever a file of the folder holds them; the last such file.
pub(crate) fn flip(folder: &Path, wanted: &[u8]) -> PathBuf {
    let mut flipped = None;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let mut bytes = std::fs::read(&path).expect("readable");
        let mut windows = bytes.windows(wanted.len());
        if let Some(at) = windows.position(|window| window == wanted) {
            bytes[at + 3] ^= 4;
            std::fs::write(&path, bytes).expect("written");
            flipped = Some(path);
        }
    }
    flipped.expect("the bytes stand somewhere")
}
