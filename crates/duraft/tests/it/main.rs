//! Integration tests of the node crate, in one binary.

mod api;
mod change;
mod cluster;
mod common;
mod driver;
mod examples;
mod handshake;
mod hosts;
mod metrics;
mod node;
mod rules;
mod sessions;
mod snapshots;
mod stuck;
mod tls;
mod transfer;
mod transfer_cluster;
mod transfer_frames;
mod transfer_world;
mod typed;
mod wire;
