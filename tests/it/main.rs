//! Integration tests.

mod checks;
mod common;
mod crashes;
mod golden;
mod leadership;
mod noise;
mod quorum;
mod reads;
mod rules;
mod scenarios;
mod scenarios_flow;
mod scenarios_members;
mod schedules;
mod seed_chaos;
mod seed_isserge;
mod seed_little_raft;
mod seed_members;
mod seed_raftbare;
mod seed_raftmodel;
mod seed_rast;
mod seed_sims;
mod seed_snapshots;
mod snapshots;
mod swarm;
mod tidy;
mod wal_crash;
