//! The command line of duraft.
#![forbid(unsafe_code)]

mod bench;
mod cert;
mod cluster;
mod completions;
mod doctor;
mod force;
mod loss;
mod offline;
mod output;
mod ports;
mod process;
mod serve;
mod sim;
mod snapshot;
mod torture;
mod wal;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// A durable Raft: benchmarks and tools.
#[derive(Parser)]
#[command(name = "duraft", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve keys and values to Redis and HTTP clients, as one node of a cluster.
    ///
    /// Answers a client when its command is committed and applied; refuses what certainly has no
    /// effect; closes the connection where nobody can tell. Reads are linearizable on every node
    /// unless a connection asks for stale ones (READONLY). Followers pass writes on to the leader.
    /// The store is made once, by `duraft cluster init`.
    ///
    /// Ends on SIGTERM or SIGINT. Exit codes: 0 asked to end; 1 the node has stopped by itself; 2 wrong
    /// configuration, or could not start.
    #[command(verbatim_doc_comment)]
    Serve(serve::ServeArgs),
    /// Make and administer a cluster of `duraft serve`.
    ///
    /// Exit codes: 0 done; 1 refused, without effect; 2 wrong usage, or the node cannot be asked; 3
    /// nobody can tell whether it took effect.
    #[command(verbatim_doc_comment)]
    Cluster(cluster::ClusterArgs),
    /// Measure a cluster, the log alone or the disk below it, next to raw fdatasync figures.
    Bench(bench::BenchArgs),
    /// Is this folder a place for a log? File system, write cache, sync latency, clock, limits.
    ///
    /// Writes a file of 16 MiB there for some seconds and removes it. Exit codes: 0 fit, perhaps with
    /// warnings; 1 not fit: acknowledged commands could be lost; 2 cannot tell, or wrong usage.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorArgs),
    /// DANGEROUS: make one survivor of a lost quorum the beginning of a new cluster.
    ///
    /// For a cluster whose majority is gone and WILL NOT COME BACK, so that nobody can be elected any
    /// more. Works on the store of one survivor, offline, and asks nobody. Choose the survivor with
    /// the last entry of the highest term and, of those, the highest index.
    ///
    /// COMMANDS THAT WERE ACKNOWLEDGED TO CLIENTS MAY BE LOST: all that the lost voters held and this
    /// node does not. Commands that were never acknowledged may become committed. And IF ANY OLD NODE
    /// THAT IS NOT AMONG THE NEW VOTERS EVER COMES BACK WITH ITS OLD DISK, THERE ARE TWO CLUSTERS that
    /// both acknowledge commands: destroy those disks first.
    ///
    /// Without --i-accept-that-acknowledged-commands-may-be-lost it changes nothing: it reports what it
    /// would do and exits with 2. Exit codes: 0 done; 1 refused, the store is damaged, in use or cannot
    /// serve; 2 wrong usage, or only a report.
    #[command(verbatim_doc_comment)]
    ForceNewConfiguration(force::ForceArgs),
    /// DANGEROUS: give up for good what a damaged store has lost.
    ///
    /// For a store whose durable records cannot be read and cannot be had from anywhere else: of a
    /// single node, or where no peer has them. A node of a cluster whose peers live is repaired by
    /// them: start it with the policy to repair from peers, or empty, as joining. WHERE A MAJORITY
    /// ACCEPTS ITS LOSSES, COMMANDS THAT WERE ACKNOWLEDGED ARE GONE FOR ALL.
    ///
    /// The log ends before the first missing entry, WHATEVER SURVIVES BEHIND IT; later entries that may
    /// have been lost, and a later term or vote, are taken for never written. A note of it stays in
    /// the log and is told by this command ever after.
    ///
    /// Without --i-accept-that-acknowledged-commands-are-gone it changes nothing: it reports what is
    /// lost and exits with 2. To do it, name exactly that range with --first and --last. Exit codes: 0
    /// done, or nothing is lost; 1 refused, the store is in use or cannot serve even so; 2 wrong
    /// usage, or only a report.
    #[command(verbatim_doc_comment)]
    AcceptLoss(loss::LossArgs),
    /// Look into a store's log: show it, check it, count it, copy what is left of it.
    Wal(wal::WalArgs),
    /// Look into snapshots: show, check, write out; and begin a new cluster with one.
    Snapshot(snapshot::SnapshotArgs),
    /// Simulate whole clusters from seeds: the shipped code on simulated disks, networks and clocks.
    Sim(sim::SimArgs),
    /// Kill, stop and cut off node processes while clients use them, and check what they were told.
    ///
    /// Faults drawn from the seed: SIGKILL of one node, of the leader, of all at once; SIGSTOP for up
    /// to three seconds; nodes cut off in both directions or in one, with connections that end or that
    /// swallow everything; a minority split off; slow links. Clients put, swap and read registers. At
    /// the end their history must be linearizable (porcupine-rs decides; writes without an answer may
    /// have happened or not), and every acknowledged write must be in the committed logs of a quorum,
    /// read from the files after all processes were killed.
    ///
    /// Exit codes: 0 nothing wrong; 1 a violation; 2 could not run; 3 void: fewer than 500 operations
    /// were acknowledged, or the search for an order did not end.
    #[command(verbatim_doc_comment)]
    Torture(torture::TortureArgs),
    /// Kill a node at each of its system calls of a kind in turn, or let the call fail. Needs strace.
    ///
    /// One node of its own with small slots and many snapshots runs under strace, which kills it with
    /// SIGKILL at its n-th call, n = --first to --last, counted in each thread by itself, while a
    /// client writes ever larger numbers. Then it runs without strace and is asked: it must hold the
    /// last number that was acknowledged, or a later one that was asked for. All lives are of one
    /// store. With --error the call fails once instead: where that is the log's own thread, the node
    /// must stop, and acknowledge nothing more in this life.
    ///
    /// Exit codes: 0 nothing is lost; 1 something is; 2 could not run, strace is missing, for example.
    #[command(verbatim_doc_comment)]
    KillSweep(torture::SweepArgs),
    /// Make certificates for trying out TLS between nodes.
    Cert(cert::CertArgs),
    /// Print the script that completes this program's commands and flags in a shell.
    ///
    /// Example: duraft completions bash > /etc/bash_completion.d/duraft
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write all pages into a folder.
    ///
    /// Example: duraft man --dir /usr/local/share/man/man1
    Man(completions::ManArgs),
    /// Print docs/reference-cli.md.
    #[command(hide = true)]
    Reference,
    /// One node of `torture`, spoken to over standard input and output.
    #[command(hide = true)]
    TortureNode(torture::TortureChildArgs),
    /// One node of `bench cluster --processes`, spoken to over standard input and output.
    #[command(hide = true)]
    BenchNode(bench::ChildArgs),
    /// One node of `bench snapshot`, likewise.
    #[command(hide = true)]
    BenchSnapshotNode(bench::SnapshotChildArgs),
    /// One node of `bench stuck`, likewise.
    #[command(hide = true)]
    BenchStuckNode(bench::StuckChildArgs),
}

/// Exit codes of the benchmarks: 0 done and nothing lost, 1 an acknowledged command is missing or a
/// stated bound was passed, 2 could not run.
fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(args) => bench::run(args),
        Command::BenchNode(args) => bench::run_child(args),
        Command::BenchSnapshotNode(args) => bench::run_snapshot_child(&args),
        Command::Torture(args) => torture::run(&args),
        Command::KillSweep(args) => torture::run_sweep(&args),
        Command::TortureNode(args) => torture::run_child(&args),
        Command::BenchStuckNode(args) => bench::run_stuck_child(&args),
        Command::AcceptLoss(args) => {
            return loss::run(&args).unwrap_or_else(|problem| {
                complain(&problem);
                problem.code()
            });
        }
        Command::Cert(args) => {
            return cert::run(&args).unwrap_or_else(|problem| {
                complain(&problem);
                ExitCode::from(2)
            });
        }
        Command::Wal(args) => {
            return wal::run(&args).unwrap_or_else(|problem| {
                complain(&problem);
                ExitCode::from(2)
            });
        }
        Command::Snapshot(args) => {
            return snapshot::run(&args).unwrap_or_else(|problem| {
                complain(&problem);
                problem.code()
            });
        }
        Command::Doctor(args) => {
            return doctor::run(&args).unwrap_or_else(|problem| {
                complain(&problem);
                ExitCode::from(2)
            });
        }
        Command::Completions(args) => {
            return finish(completions::completions(&args, Cli::command()));
        }
        Command::Reference => return finish(completions::reference(Cli::command())),
        Command::Man(args) => return finish(completions::man(&args, Cli::command())),
        Command::Sim(args) => {
            return sim::run(&args).unwrap_or_else(|error| {
                complain(&error);
                ExitCode::from(2)
            });
        }
        Command::Serve(args) => {
            return serve::run(&args).unwrap_or_else(|failure| {
                complain(&failure);
                failure.code()
            });
        }
        Command::Cluster(args) => {
            return cluster::run(&args).unwrap_or_else(|failure| {
                complain(&failure);
                failure.code()
            });
        }
        Command::ForceNewConfiguration(args) => {
            return force::run(&args).unwrap_or_else(|problem| {
                complain(&problem);
                problem.code()
            });
        }
    };
    outcome.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::from(2)
    })
}

/// Done, or 2 with the reason.
fn finish(outcome: Result<(), completions::Problem>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            complain(&problem);
            ExitCode::from(2)
        }
    }
}

/// The one place where the program speaks of failure; results go to standard output.
#[allow(clippy::print_stderr)]
fn complain(error: &dyn std::error::Error) {
    eprintln!("duraft: {error}");
}
