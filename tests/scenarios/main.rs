//! Scenarios: brokers in this process, real sockets, and what must come back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod bad_input;
mod membership;
mod produce_fetch;
mod restart;
mod versions;
