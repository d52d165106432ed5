//! Golden scripts: tests/golden/*.txt tell protocol situations message by message. `UPDATE=1 cargo test`
//! rewrites them; the diff is the change of behaviour under review.

use duraft_tests::script;
use std::path::{Path, PathBuf};

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder of scripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    found.sort();
    found
}

#[test]
fn golden_scripts_tell_what_the_core_does() {
    let update = std::env::var("UPDATE").is_ok_and(|value| value == "1");
    let mut changed = Vec::new();
    let scripts = scripts();
    assert!(scripts.len() >= 12, "{} scripts", scripts.len());
    for path in scripts {
        let text = std::fs::read_to_string(&path).expect("a script");
        let now = match script::run(&text) {
            Ok(now) => now,
            Err(why) => panic!("{}: {why}", path.display()),
        };
        if now == text {
            continue;
        }
        if update {
            std::fs::write(&path, now).expect("the script can be rewritten");
            continue;
        }
        let first = now.lines().zip(text.lines()).find(|(a, b)| a != b);
        let (ours, told) = first.unwrap_or(("(more lines)", "(fewer lines)"));
        changed.push(format!("{}:\n  now  {ours}\n  told {told}", path.display()));
    }
    assert!(
        changed.is_empty(),
        "UPDATE=1 rewrites:\n{}",
        changed.join("\n")
    );
}

#[test]
fn golden_scripts_refuse_what_they_do_not_understand() {
    // A misspelt command that is skipped would leave a script that tests nothing.
    for text in [
        "> clutser 3\n",
        "> cluster 3\n> start\n> delvier all\n",
        "> cluster x\n",
    ] {
        assert!(script::run(text).is_err(), "{text}");
    }
}
