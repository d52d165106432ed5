//! `duraft bench compare`: is the second result better, worse, or the same within its own noise?
//!
//! The answer is as good as the spread: a difference counts only where the ranges of the rounds do not
//! touch. Results of other machines, settings or versions of the layout are not compared unless that is
//! asked for, and then every line says so.

use super::error::BenchError;
use crate::output::say;
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) const EXAMPLES: &str = "\
Examples:
  duraft bench cluster --json before.json
  duraft bench cluster --json after.json
  duraft bench compare before.json after.json

A difference counts where the ranges of the rounds do not touch, with at least three rounds in each. If
the raw disk itself differs by more than a fifth, the disk was in another mood: then latencies as a
multiple of the raw disk's are the ones to read.";

/// Rounds that a spread needs.
const ROUNDS_MIN: usize = 3;
/// The raw disk's medians may differ by this much.
const MOOD: f64 = 0.2;

/// Flags of `duraft bench compare`.
#[derive(Args)]
pub(crate) struct CompareArgs {
    /// The result to compare with.
    before: PathBuf,

    /// The result that is judged.
    after: PathBuf,

    /// Compare results of unlike machines or settings all the same.
    #[arg(long)]
    unlike: bool,

    /// Write the comparison as JSON to this file, too.
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
}

/// What is compared: name, place in `summary`, and whether more is better.
const METRICS: [(&str, &str, bool); 6] = [
    ("commands/s", "commands_per_second", true),
    ("p50 us", "p50_us", false),
    ("p99 us", "p99_us", false),
    ("p50 / raw p50", "latency_ratio", false),
    ("commits / raw syncs", "rate_ratio", true),
    ("commands per fsync", "commands_per_sync", true),
];

/// A verdict on one metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Better,
    Worse,
    /// The ranges touch.
    Noise,
    /// Too few rounds to know the noise.
    Unknown,
}

#[derive(Serialize)]
struct Comparison {
    schema: u32,
    unlike: Vec<String>,
    moods_differ: bool,
    metrics: Vec<Metric>,
}

#[derive(Serialize)]
struct Metric {
    name: &'static str,
    before: Range,
    after: Range,
    change_percent: f64,
    verdict: Verdict,
}

#[derive(Clone, Copy, Serialize)]
struct Range {
    median: f64,
    min: f64,
    max: f64,
}

/// Exit codes: 0 nothing is worse beyond the noise; 1 something is; 2 the results are not alike, or
/// cannot be read.
pub(crate) fn run(args: &CompareArgs) -> Result<ExitCode, BenchError> {
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let unlike = differences(&before, &after);
    if !unlike.is_empty() && !args.unlike {
        return Err(BenchError::Unlike(unlike));
    }
    let comparison = compare(&before, &after, unlike).ok_or_else(|| BenchError::NoResult {
        path: args.after.clone(),
        problem: String::from("a figure is missing"),
    })?;
    say(comparison.text().trim_end());
    if let Some(path) = &args.result {
        let written = crate::output::write_json(path, &comparison);
        written.map_err(|source| BenchError::Json {
            path: path.clone(),
            source,
        })?;
    }
    let worse = comparison
        .metrics
        .iter()
        .any(|metric| metric.verdict == Verdict::Worse);
    Ok(ExitCode::from(u8::from(worse)))
}

fn read(path: &Path) -> Result<Value, BenchError> {
    let wrong = |problem: String| BenchError::NoResult {
        path: path.to_path_buf(),
        problem,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let schema = value["schema"].as_u64();
    if schema != Some(super::report::SCHEMA.into()) {
        let found = schema.map_or(String::from("no schema"), |schema| {
            format!("schema {schema}")
        });
        return Err(wrong(format!(
            "{found}, this version reads {}",
            super::report::SCHEMA
        )));
    }
    Ok(value)
}

/// Everything that makes two results no comparison. The seed and the version of duraft may differ: to
/// compare those is what this is for.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let places = [
        (
            "facts",
            &[
                "cpu",
                "cores",
                "memory_bytes",
                "kernel",
                "file_system",
                "mount_options",
            ][..],
        ),
        ("facts", &["write_cache", "durable", "debug_build"][..]),
        (
            "workload",
            &["what", "nodes", "clients", "batch", "value_bytes", "rate"][..],
        ),
    ];
    let mut found = Vec::new();
    for (part, fields) in places {
        for field in fields {
            let (one, other) = (&before[part][field], &after[part][field]);
            if one != other {
                found.push(format!("{field}: {one} and {other}"));
            }
        }
    }
    found
}

fn compare(before: &Value, after: &Value, unlike: Vec<String>) -> Option<Comparison> {
    let rounds = |value: &Value| value["rounds"].as_array().map_or(0, Vec::len);
    let enough = rounds(before).min(rounds(after)) >= ROUNDS_MIN;
    let raw = |value: &Value| value["summary"]["raw_p50_us"]["median"].as_f64();
    let (old, new) = (raw(before)?, raw(after)?);
    let mut metrics = Vec::new();
    for (name, field, more_is_better) in METRICS {
        let (before, after) = (range(before, field)?, range(after, field)?);
        metrics.push(Metric {
            name,
            before,
            after,
            change_percent: 100.0 * (after.median / before.median - 1.0),
            verdict: if enough {
                verdict(before, after, more_is_better)
            } else {
                Verdict::Unknown
            },
        });
    }
    Some(Comparison {
        schema: 1,
        unlike,
        moods_differ: (new / old - 1.0).abs() > MOOD,
        metrics,
    })
}

fn range(value: &Value, field: &str) -> Option<Range> {
    let spread = &value["summary"][field];
    Some(Range {
        median: spread["median"].as_f64()?,
        min: spread["min"].as_f64()?,
        max: spread["max"].as_f64()?,
    })
}

fn verdict(before: Range, after: Range, more_is_better: bool) -> Verdict {
    let more = after.min > before.max;
    let less = after.max < before.min;
    match (more, less, more_is_better) {
        (true, _, true) | (_, true, false) => Verdict::Better,
        (true, _, false) | (_, true, true) => Verdict::Worse,
        (false, false, _) => Verdict::Noise,
    }
}

impl Comparison {
    fn text(&self) -> String {
        let mut text = String::new();
        if !self.unlike.is_empty() {
            let _ = writeln!(text, "UNLIKE MACHINES OR SETTINGS, compared as asked:");
            for difference in &self.unlike {
                let _ = writeln!(text, "  {difference}");
            }
        }
        let _ = writeln!(
            text,
            "{:<20} {:>28} {:>28} {:>9}",
            "", "before", "after", "change"
        );
        let shown = |range: Range| {
            let digits = if range.median < 10.0 { 2 } else { 0 };
            format!(
                "{:.digits$} ({:.digits$} to {:.digits$})",
                range.median, range.min, range.max
            )
        };
        for metric in &self.metrics {
            let verdict = match metric.verdict {
                Verdict::Better => "BETTER",
                Verdict::Worse => "WORSE",
                Verdict::Noise => "within the noise",
                Verdict::Unknown => "fewer than 3 rounds: noise unknown",
            };
            let _ = writeln!(
                text,
                "{:<20} {:>28} {:>28} {:>8.1}%  {verdict}",
                metric.name,
                shown(metric.before),
                shown(metric.after),
                metric.change_percent
            );
        }
        if self.moods_differ {
            let _ = writeln!(
                text,
                "THE RAW DISK DIFFERS by more than {:.0} %: it was in another mood. Read the ratios to raw, or measure \
                 again",
                100.0 * MOOD
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(rate: [f64; 3], raw: f64) -> Value {
        let spread = |m: f64, lo: f64, hi: f64| json!({"median": m, "min": lo, "max": hi});
        let one = spread(1.0, 1.0, 1.0);
        json!({
            "facts": {"cpu": "x", "cores": 2}, "workload": {"what": "wal", "clients": 1},
            "rounds": [1, 2, 3],
            "summary": {
                "commands_per_second": spread(rate[0], rate[1], rate[2]),
                "p50_us": spread(100.0, 90.0, 110.0), "p99_us": one, "latency_ratio": one,
                "rate_ratio": one, "commands_per_sync": one, "raw_p50_us": spread(raw, raw, raw),
            }
        })
    }

    fn first(before: &Value, after: &Value) -> Verdict {
        compare(before, after, Vec::new()).expect("figures").metrics[0].verdict
    }

    #[test]
    fn only_ranges_that_do_not_touch_are_a_difference() {
        let base = result([100.0, 90.0, 110.0], 50.0);
        assert_eq!(
            first(&base, &result([120.0, 111.0, 130.0], 50.0)),
            Verdict::Better
        );
        assert_eq!(
            first(&base, &result([120.0, 110.0, 130.0], 50.0)),
            Verdict::Noise
        );
        assert_eq!(
            first(&base, &result([80.0, 70.0, 89.0], 50.0)),
            Verdict::Worse
        );
        assert_eq!(first(&base, &base), Verdict::Noise);
        let mut few = base.clone();
        few["rounds"] = json!([1, 2]);
        assert_eq!(first(&base, &few), Verdict::Unknown);
    }

    #[test]
    fn another_mood_of_the_disk_and_other_settings_are_noticed() {
        let base = result([100.0, 90.0, 110.0], 50.0);
        let slow = result([100.0, 90.0, 110.0], 61.0);
        assert!(
            compare(&base, &slow, Vec::new())
                .expect("figures")
                .moods_differ
        );
        assert!(differences(&base, &slow).is_empty());
        let mut other = base.clone();
        other["facts"]["cores"] = json!(64);
        other["workload"]["clients"] = json!(9);
        assert_eq!(differences(&base, &other).len(), 2);
    }
}
