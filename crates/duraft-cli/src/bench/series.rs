//! Latency and throughput over the time of a run.

use super::summary::{Latencies, Percentiles};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Most points of a series: of longer runs each stands for more than a second.
const POINTS_MAX: u64 = 600;

/// Latencies by the interval in which their command was answered. Time between the rounds does not
/// count.
pub(crate) struct Series {
    interval: Duration,
    points: Vec<Latencies>,
    /// Length of the rounds before the present one.
    before: Duration,
    begun: Instant,
}

/// One interval.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Point {
    /// Seconds of load from the beginning to this interval's.
    pub(crate) at_seconds: u64,
    pub(crate) answers: u64,
    pub(crate) latency: Percentiles,
}

impl Series {
    /// For a run with so many seconds of load.
    pub(crate) fn new(seconds: u64) -> Series {
        Series {
            interval: Duration::from_secs(seconds.div_ceil(POINTS_MAX).max(1)),
            points: Vec::new(),
            before: Duration::ZERO,
            begun: Instant::now(),
        }
    }

    /// An empty one that counts the same time: for another thread of the same round.
    pub(crate) fn alike(&self) -> Series {
        Series {
            points: Vec::new(),
            ..*self
        }
    }

    /// A round begins now.
    pub(crate) fn begin_round(&mut self) {
        self.begun = Instant::now();
    }

    /// The round ends now.
    pub(crate) fn end_round(&mut self) {
        self.before += self.begun.elapsed();
    }

    /// An answer that came now.
    pub(crate) fn record(&mut self, latency: Duration) {
        let at = self.before + self.begun.elapsed();
        let place = usize::try_from(at.as_nanos() / self.interval.as_nanos()).unwrap_or(usize::MAX);
        // Waiting for the last answers may take longer than the load did.
        let place = place.min(2 * usize::try_from(POINTS_MAX).unwrap_or(1200));
        while self.points.len() <= place {
            self.points.push(Latencies::coarse());
        }
        self.points[place].record(latency);
    }

    /// Adds what another thread recorded.
    pub(crate) fn merge(&mut self, other: &Series) {
        while self.points.len() < other.points.len() {
            self.points.push(Latencies::coarse());
        }
        for (own, other) in self.points.iter_mut().zip(&other.points) {
            own.merge(other);
        }
    }

    pub(crate) fn interval_seconds(&self) -> u64 {
        self.interval.as_secs()
    }

    pub(crate) fn points(&self) -> Vec<Point> {
        let seconds = self.interval.as_secs();
        let point = |(place, latencies): (u64, &Latencies)| Point {
            at_seconds: place * seconds,
            answers: latencies.count(),
            latency: latencies.percentiles(),
        };
        (0u64..).zip(&self.points).map(point).collect()
    }
}

/// How long after its time a command of a round may still begin, once the round is over.
pub(crate) const GRACE: Duration = Duration::from_millis(250);

/// Commands that begin at a fixed rate, whatever the answers do.
///
/// A command's latency counts from when it was to begin: if the generator or the system is late, that
/// is part of what a client would have waited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    per_second: f64,
    begun: Instant,
    /// Commands of this time and later ones belong to the next round.
    until: Instant,
    sent: u64,
}

impl Pace {
    /// For the `slice` that begins now.
    pub(crate) fn new(per_second: f64, slice: Duration) -> Pace {
        let begun = Instant::now();
        Pace {
            per_second,
            begun,
            until: begun + slice,
            sent: 0,
        }
    }

    /// When the next command is to begin.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn next_at(&self) -> Instant {
        self.begun + Duration::from_secs_f64(self.sent as f64 / self.per_second)
    }

    /// Is there nothing more to begin, or is it too late for what there is?
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.next_at() >= self.until || now > self.until + GRACE
    }

    /// Commands that were to begin and are given up now, each with the time that it has waited.
    pub(crate) fn give_up(&mut self, now: Instant) -> Vec<Duration> {
        let mut waits = Vec::new();
        while let Some(at) = self.due(now) {
            waits.push(now - at);
        }
        waits
    }

    /// The next command, if its time has come: when it was to begin.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Instant> {
        let at = self.next_at();
        (at <= now && at < self.until).then(|| {
            self.sent += 1;
            at
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_gives_every_command_the_time_it_was_to_begin_at() {
        let mut pace = Pace::new(1000.0, Duration::from_millis(12));
        let begun = pace.begun;
        let late = begun + Duration::from_millis(10);
        let mut starts = Vec::new();
        while let Some(at) = pace.due(late) {
            starts.push((at - begun).as_micros());
        }
        // A generator that comes ten milliseconds late still owes the eleven before, each from its own
        // time: the stall is counted against every one of them.
        assert_eq!(starts, (0..=10).map(|i| i * 1000).collect::<Vec<u128>>());
        assert_eq!((pace.next_at() - begun).as_millis(), 11);
        // What is due in the round may begin a little after it; what is left then is counted, and nothing
        // of the next round is.
        assert!(!pace.is_over(begun + Duration::from_millis(20)));
        let end = begun + Duration::from_secs(1);
        assert!(pace.is_over(end));
        let waits = pace.give_up(end);
        assert_eq!(waits, [Duration::from_millis(989)]);
        assert!(pace.give_up(end).is_empty());
    }

    #[test]
    fn a_series_has_a_point_per_interval_and_loses_no_answer() {
        let mut series = Series::new(6000);
        assert_eq!(series.interval_seconds(), 10);
        series.before = Duration::from_secs(25);
        series.record(Duration::from_micros(100));
        let mut other = series.alike();
        other.record(Duration::from_micros(300));
        other.before = Duration::from_secs(1_000_000_000);
        other.record(Duration::from_micros(300));
        series.merge(&other);
        let points = series.points();
        assert_eq!(points.iter().map(|point| point.answers).sum::<u64>(), 3);
        assert_eq!((points[2].at_seconds, points[2].answers), (20, 2));
        let longest = points[2].latency.max_us;
        assert!((longest - 300.0).abs() < 5.0, "two digits: {longest}");
        assert_eq!(points.len(), 1201, "bounded");
    }
}
