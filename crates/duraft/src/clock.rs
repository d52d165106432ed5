//! The clocks of a node: ticks for the core, and the clock that leases are counted on.

use std::time::{Duration, Instant};

/// Ticks since the node's start, from the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    tick: Duration,
}

impl Clock {
    pub(crate) fn new(tick: Duration) -> Clock {
        Clock {
            start: Instant::now(),
            tick,
        }
    }

    /// Time that has passed.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whole ticks that have passed.
    pub(crate) fn now(&self) -> u64 {
        self.ticks_in(self.elapsed())
    }

    /// Whole ticks in this time.
    pub(crate) fn ticks_in(&self, elapsed: Duration) -> u64 {
        let ticks = elapsed.as_nanos() / self.tick.as_nanos();
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// The first tick that is at least `wait` away.
    pub(crate) fn tick_in(&self, wait: Duration) -> u64 {
        let ticks = wait.as_nanos().div_ceil(self.tick.as_nanos());
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        self.now().saturating_add(ticks).saturating_add(1)
    }

    /// When this tick comes; far ones are put at a day from the start, which only wakes early.
    pub(crate) fn instant_of(&self, tick: u64) -> Instant {
        const DAY: Duration = Duration::from_secs(86_400);
        let offset = u32::try_from(tick)
            .ok()
            .and_then(|tick| self.tick.checked_mul(tick))
            .unwrap_or(DAY);
        self.start.checked_add(offset).unwrap_or(self.start + DAY)
    }
}

/// Can leases be used here?
///
/// They need a clock that goes on while the machine is suspended: a leader that slept must not
/// believe that its lease has not run out.
pub(crate) const COUNTS_SUSPEND: bool = cfg!(target_os = "linux");

/// Time since some moment, on the monotonic clock.
pub(crate) fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

/// Time on a clock that counts suspend, where the system has one.
pub(crate) fn boottime() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}
