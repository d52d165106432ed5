//! `duraft completions`, `duraft man` and the reference in docs/reference-cli.md: made from the same description of the flags that the program
//! reads its arguments with, so they are never behind.

use clap::{Args, Command};
use clap_complete::Shell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Flags of `duraft completions`.
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Flags of `duraft man`.
#[derive(Args)]
pub(crate) struct ManArgs {
    /// Write a page per command into this folder instead of the first one to standard output.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("cannot write '{}': {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// The script for a shell, to standard output.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<(), Problem> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "duraft", &mut script);
    output(&script)
}

/// Pages of the manual.
pub(crate) fn man(args: &ManArgs, command: Command) -> Result<(), Problem> {
    let Some(dir) = &args.dir else {
        return output(&page(command)?);
    };
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Problem::File { path, source }
    };
    std::fs::create_dir_all(dir).map_err(failed(dir))?;
    clap_mangen::generate_to(command, dir).map_err(failed(dir))
}

/// Width of the help in the reference, whatever terminal it is made in.
const WIDTH: usize = 100;

/// docs/reference-cli.md, to standard output.
pub(crate) fn reference(command: Command) -> Result<(), Problem> {
    let mut command = command.term_width(WIDTH);
    command.build();
    let mut page = String::from(
        "# Command line\n\nThe help of every command, as `--help` prints it. Written by `duraft reference`; a test \
         compares it with\nthe program.\n",
    );
    describe(&mut page, &command, "duraft");
    output(page.as_bytes())
}

/// The command's help and that of all below it that are shown.
fn describe(page: &mut String, command: &Command, name: &str) {
    let help = command.clone().render_long_help().to_string();
    let lines = help.lines().map(str::trim_end);
    let text: Vec<&str> = lines.collect();
    page.push_str(&format!(
        "\n## {name}\n\n```text\n{}\n```\n",
        text.join("\n").trim_end()
    ));
    for below in command.get_subcommands() {
        if !below.is_hide_set() && below.get_name() != "help" {
            describe(page, below, &format!("{name} {}", below.get_name()));
        }
    }
}

/// Whoever reads the output may have gone.
fn output(bytes: &[u8]) -> Result<(), Problem> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}
