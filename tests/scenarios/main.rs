//! Scenarios: brokers in this process, real sockets, and what must come back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod admin_tools;
mod bad_input;
mod delete_records;
mod fetch_sessions;
mod membership;
mod neighbours;
mod produce_fetch;
mod restart;
mod stale_broker;
mod versions;
