//! Tests of the core as a whole: a rig with modelled disks, named situations, and seeds.

mod apply;
mod bank;
mod boot;
mod compaction;
mod damage;
mod divergence;
mod elections;
mod few;
mod follower;
mod garbage;
mod leases;
mod membership;
mod memory;
mod partitions;
mod progress;
mod random;
mod reads;
mod release;
mod repair;
mod rig;
mod shape;
mod situations;
mod slow_disks;
mod tables;
mod transfer;
