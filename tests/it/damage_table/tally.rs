//! What came of the cells.

use super::world::Verdict;

/// Counts of cells, and the names of those that were not as they should be.
#[derive(Clone, Default, Debug)]
pub(super) struct Tally {
    runs: u64,
    serves: u64,
    possible: u64,
    lost_for_good: u64,
    /// Possible and not served.
    pub(super) missed: Vec<String>,
    pub(super) wrong: Vec<String>,
}

impl Tally {
    /// One verdict, where any protocol could serve or none.
    pub(super) fn count(
        &mut self,
        name: &str,
        possible: bool,
        verdict: &Verdict,
        story: impl Fn() -> String,
    ) {
        self.runs += 1;
        self.possible += u64::from(possible);
        self.lost_for_good += u64::from(!possible);
        match verdict {
            Verdict::Serves => {
                self.serves += 1;
                if !possible {
                    self.wrong.push(format!("{name}: served what nobody has"));
                }
            }
            Verdict::Unavailable if possible => self.missed.push(format!("{name}: {}", story())),
            Verdict::Unavailable => {}
            Verdict::Wrong(why) => self.wrong.push(format!("{name}: {why}")),
        }
    }

    pub(super) fn add(&mut self, other: Tally) {
        self.runs += other.runs;
        self.serves += other.serves;
        self.possible += other.possible;
        self.lost_for_good += other.lost_for_good;
        self.missed.extend(other.missed);
        self.wrong.extend(other.wrong);
    }

    pub(super) fn print(&self, what: &str) {
        println!(
            "{what}: {} verdicts, served in {}, any protocol could in {} ({:.2} %), no copy of an entry within reach in {}; {} wrong",
            self.runs,
            self.serves,
            self.possible,
            100.0 * self.serves as f64 / self.possible.max(1) as f64,
            self.lost_for_good,
            self.wrong.len()
        );
        for line in self.missed.iter().take(10) {
            println!("  did not serve: {line}");
        }
        for line in self.wrong.iter().take(10) {
            println!("  WRONG: {line}");
        }
    }
}
