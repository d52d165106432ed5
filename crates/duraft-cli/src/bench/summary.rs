//! Numbers of one measurement and their spread over rounds.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// Latencies in nanoseconds, three significant digits, up to ten minutes.
pub(crate) struct Latencies(Histogram<u64>);

const HIGHEST_NS: u64 = 600_000_000_000;

impl Latencies {
    pub(crate) fn new() -> Latencies {
        let histogram = Histogram::new_with_bounds(1, HIGHEST_NS, 3);
        Latencies(histogram.expect("1 < bound, three digits: valid bounds"))
    }

    /// With two digits and as little memory as its values need: for one of very many.
    pub(crate) fn coarse() -> Latencies {
        Latencies(Histogram::new(2).expect("two digits are valid"))
    }

    /// A number that is no latency.
    pub(crate) fn record_number(&mut self, number: u64) {
        // Within the bounds of one that has bounds; the others grow.
        let recorded = self.0.record(number.clamp(1, HIGHEST_NS));
        debug_assert!(recorded.is_ok(), "{number} is within the bounds");
    }

    /// Eight bins for each doubling, from the first one that holds something to the last; the numbers
    /// are divided by `unit`.
    pub(crate) fn bins(&self, unit: f64) -> Vec<Bin> {
        let mut bins: Vec<Bin> = Vec::new();
        for value in self.0.iter_recorded() {
            let at = value.value_iterated_to();
            let octave = at.max(1).ilog2();
            let base = 1u64 << octave;
            let eighth = (at - base).saturating_mul(8) / base;
            let edge = |eighths: u64| (base as f64) * (1.0 + eighths as f64 / 8.0) / unit;
            let (from, to) = (edge(eighth), edge(eighth + 1));
            let count = value.count_since_last_iteration();
            match bins.last_mut() {
                Some(last) if last.from == from => last.count += count,
                Some(_) | None => bins.push(Bin { from, to, count }),
            }
        }
        bins
    }

    /// Latency in microseconds below which so many of a hundred thousand stay.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let quantiles = [
            0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 0.995,
            0.999, 0.9995, 0.9999, 0.99999,
        ];
        // Beyond one in as many as there are, every quantile is the greatest.
        let known = quantiles
            .iter()
            .filter(|q| self.count() as f64 * (1.0 - **q) >= 1.0);
        let point = |q: &f64| (*q, self.0.value_at_quantile(*q) as f64 / 1e3);
        known.map(point).collect()
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(HIGHEST_NS);
        self.record_number(ns);
    }

    /// The same latency, so many times.
    pub(crate) fn record_many(&mut self, latency: Duration, count: u64) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(HIGHEST_NS);
        let recorded = self.0.record_n(ns.clamp(1, HIGHEST_NS), count);
        debug_assert!(recorded.is_ok(), "{ns} is within the bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn merge(&mut self, other: &Latencies) {
        // Values fit the bounds of both: they are the same, or grow.
        self.0 += &other.0;
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let us = |ns: u64| ns as f64 / 1e3;
        Percentiles {
            p50_us: us(self.0.value_at_quantile(0.50)),
            p90_us: us(self.0.value_at_quantile(0.90)),
            p99_us: us(self.0.value_at_quantile(0.99)),
            p999_us: us(self.0.value_at_quantile(0.999)),
            p9999_us: us(self.0.value_at_quantile(0.9999)),
            max_us: us(self.0.max()),
        }
    }
}

/// How many values are from `from` to below `to`.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Bin {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) count: u64,
}

/// Latency percentiles in microseconds.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) p9999_us: f64,
    pub(crate) max_us: f64,
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  p99.99 {:.0}  max {:.0} us",
            self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.p9999_us, self.max_us
        )
    }
}

/// The median of the rounds and their range.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of these values; all zero where there are none.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |i: usize| sorted.get(i).copied().unwrap_or(0.0);
        let n = sorted.len();
        let median = if n % 2 == 1 {
            at(n / 2)
        } else {
            (at((n / 2).max(1) - 1) + at(n / 2)) / 2.0
        };
        Spread {
            median,
            min: at(0),
            max: at(n.saturating_sub(1)),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = if self.median < 10.0 { 3 } else { 0 };
        write!(
            f,
            "{:.digits$} ({:.digits$} to {:.digits$})",
            self.median, self.min, self.max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even_counts_and_of_nothing() {
        let spread = Spread::of([3.0, 1.0, 2.0].into_iter());
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0].into_iter()).median, 2.5);
        assert_eq!(Spread::of([7.0].into_iter()).median, 7.0);
        assert_eq!(Spread::of(std::iter::empty()).median, 0.0);
    }

    #[test]
    fn percentiles_are_microseconds_of_the_recorded_nanoseconds() {
        let mut latencies = Latencies::new();
        for us in 1..=100 {
            latencies.record(Duration::from_micros(us));
        }
        let p = latencies.percentiles();
        assert!((p.p50_us - 50.0).abs() < 0.1, "{p}");
        assert!((p.max_us - 100.0).abs() < 0.2, "{p}");
        assert_eq!(latencies.count(), 100);
        let bins = latencies.bins(1e3);
        assert_eq!(bins.iter().map(|bin| bin.count).sum::<u64>(), 100);
        assert!(bins.windows(2).all(|two| two[0].to <= two[1].from));
        let curve = latencies.curve();
        assert!(curve.windows(2).all(|two| two[0].1 <= two[1].1));
        assert_eq!(
            curve.last().map(|(q, _)| *q),
            Some(0.99),
            "one of a hundred"
        );
    }
}
