//! One node in a process of its own: orders come in on standard input, answers go out on standard
//! output. The process ends when its standard input does, so it never outlives its parent.

use super::load::Answer;
use super::local::{counters_of, submit_to};
use super::protocol::{Order, Report, flush};
use super::setup::Setup;
use crate::bench::error::BenchError;
use crate::bench::stages::StageCounts;
use clap::Args;
use std::io::{self, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What the parent tells its child.
#[derive(Args)]
pub(crate) struct ChildArgs {
    #[arg(long)]
    node: usize,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, value_delimiter = ',')]
    addresses: Vec<String>,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    value_bytes: usize,
}

impl ChildArgs {
    /// The arguments that start a node of this set-up.
    pub(crate) fn of(setup: &Setup, node: usize) -> Vec<String> {
        vec![
            format!("--node={node}"),
            format!("--dir={}", setup.dir.display()),
            format!("--addresses={}", setup.addresses.join(",")),
            format!("--seed={}", setup.seed),
            format!("--value-bytes={}", setup.value_bytes),
        ]
    }
}

/// Runs the node.
pub(crate) fn run(args: ChildArgs) -> Result<ExitCode, BenchError> {
    let place = args.node;
    let setup = Setup {
        dir: args.dir,
        addresses: args.addresses,
        seed: args.seed,
        value_bytes: args.value_bytes,
        watches: Vec::new(),
    };
    if place >= setup.addresses.len() {
        return Err(BenchError::Cluster(format!(
            "no address was given for node place {place}"
        )));
    }
    let (node, _ledger) = setup.start(place)?;
    let (reports, outgoing) = channel();
    let (answers, incoming) = channel::<Answer>();
    // Nobody reads any more once the parent is gone: then sending fails and nothing is left to do.
    let _ = reports.send(Report::Ready);
    let from_answers = reports.clone();
    std::thread::spawn(move || forward(incoming, from_answers));
    std::thread::spawn(move || write_out(outgoing));
    let mut orders = BufReader::new(io::stdin().lock());
    let broken = |source| BenchError::Child {
        node: place as u64 + 1,
        source,
    };
    while let Some(order) = Order::read(&mut orders).map_err(broken)? {
        match order {
            Order::Submit(id) => submit_to(Some(&node), place, id, &setup, &answers),
            Order::Count => {
                let _ = reports.send(Report::Counters(counters_of(&node)));
            }
            Order::Stages => {
                for (place, end, count) in StageCounts::of(&node).iter() {
                    let _ = reports.send(Report::Stage { place, end, count });
                }
                let _ = reports.send(Report::StagesEnd);
            }
        }
    }
    node.shutdown();
    Ok(ExitCode::SUCCESS)
}

fn forward(answers: Receiver<Answer>, reports: Sender<Report>) {
    for answer in answers {
        if reports.send(Report::Answer(answer)).is_err() {
            return;
        }
    }
}

/// Writes whatever has gathered, in one go.
fn write_out(reports: Receiver<Report>) {
    let mut out = Vec::new();
    let mut to = io::stdout().lock();
    while let Ok(first) = reports.recv() {
        first.encode(&mut out);
        while let Ok(next) = reports.try_recv() {
            next.encode(&mut out);
        }
        if flush(&mut to, &mut out).is_err() {
            return;
        }
    }
}
