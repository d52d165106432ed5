//! Tests of the core as a whole: a rig with modelled disks, named situations, and seeds.

mod garbage;
mod membership;
mod random;
mod release;
mod rig;
mod situations;
