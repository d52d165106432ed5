//! `duraft serve` and `duraft cluster` as their users meet them: real processes, real sockets.

mod browser;
mod clients;
mod cluster;
mod common;
mod limits;
mod settings;
mod tls;
