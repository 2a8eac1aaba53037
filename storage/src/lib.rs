//! What is true: two storage ports, one deterministic state machine, one writer, one reader.

mod ages;
mod aws;
pub mod clock;
pub mod command;
mod counted;
pub mod counts;
mod disk;
pub mod engine;
pub mod envelope;
mod footers;
pub mod fsck;
#[cfg(test)]
mod golden;
pub mod inspect;
pub mod invariant;
pub mod key;
pub mod life;
pub mod location;
pub mod log;
pub mod look;
pub mod lsn;
pub mod machine;
mod names;
pub mod object;
mod offload;
pub mod peer;
pub mod port;
pub mod reader;
mod replica;
pub mod segment;
pub mod snapshot;
pub mod state;
pub mod writer;
