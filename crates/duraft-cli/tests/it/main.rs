//! The program as its users meet it: real processes, real files, real sockets. One test binary, so
//! that the tree is linked once.

mod bench;
mod book;
mod cert;
mod cli;
mod common;
mod doctor;
mod nodes;
mod offline;
mod serve;
mod sim;
mod snapshot;
mod stuck;
mod torture;
mod wal;
