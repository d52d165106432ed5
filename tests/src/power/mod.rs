//! A workload for the log that runs on any disk, does the same thing every time, and knows what must
//! be found after the power has failed in it: for real file systems on devices that record what they
//! are asked to write (`.ci/power-cut`).
//!
//! The same workload runs on the fault disk to say which images the fault model allows at that
//! moment. An image of a real kernel that it does not allow would mean that the model is too kind.

mod counted;
mod found;
mod workload;

pub use counted::{Counted, Observer};
pub use found::{Moment, Verdict, check, files_of};
pub use workload::{Held, Workload};
