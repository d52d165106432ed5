//! Child processes of this program, each serving one node: orders go in line by line on standard
//! input, what the child says comes back line by line on its standard output.
//!
//! A child ends when its standard input does, so none outlives its parent, however that ends; but for
//! one that is stopped by a signal, which [`Process`] kills when it is dropped.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::JoinHandle;

/// A running child.
pub(crate) struct Process {
    child: Child,
    /// Taken when it ends.
    orders: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
}

/// What comes from a child.
#[derive(Debug)]
pub(crate) enum Said {
    /// One line, without its end.
    Line(String),
    /// Nothing more will come.
    End,
}

impl Process {
    /// Starts this program with `arguments`; what it says is handed to `hear` on a thread of its own.
    pub(crate) fn start(
        arguments: &[String],
        hear: impl FnMut(Said) + Send + 'static,
    ) -> io::Result<Process> {
        Process::start_under(&[], arguments, hear)
    }

    /// As [`Process::start`], as an argument of another program, which runs it with the same standard
    /// input and output.
    pub(crate) fn start_under(
        runner: &[String],
        arguments: &[String],
        hear: impl FnMut(Said) + Send + 'static,
    ) -> io::Result<Process> {
        let program = std::env::current_exe()?;
        let mut command = match runner {
            [] => Command::new(program),
            [runner, options @ ..] => {
                let mut command = Command::new(runner);
                command.args(options).arg(program);
                command
            }
        };
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(orders), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the pipes of a child are missing"));
        };
        let mut hear = hear;
        let reader = std::thread::spawn(move || {
            // A child that is killed may leave half a line behind, which nobody can use.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                hear(Said::Line(line));
            }
            hear(Said::End);
        });
        Ok(Process {
            child,
            orders: Some(orders),
            reader: Some(reader),
        })
    }

    /// The child's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives the child an order.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        let Some(orders) = &mut self.orders else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        orders.write_all(format!("{line}\n").as_bytes())?;
        orders.flush()
    }

    /// Stops all of its threads until [`Process::resume`]. Its sockets stay open.
    pub(crate) fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGKILL; then waits until the process is gone and everything it said was heard.
    pub(crate) fn kill(mut self) -> io::Result<()> {
        self.end()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::other("a child without a number"))?;
        Ok(kill_process(id, signal)?)
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(reader) = self.reader.take() else {
            return Ok(());
        };
        self.child.kill()?;
        self.child.wait()?;
        // Who ran under another program ends with its standard input.
        self.orders = None;
        reader
            .join()
            .map_err(|_| io::Error::other("the reader of a child panicked"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to report to.
        let _ = self.end();
    }
}
