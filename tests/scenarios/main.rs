//! Scenarios: brokers in this process, real sockets, and what must come back.

mod admin;
mod bad_input;
mod produce_fetch;
mod restart;
mod versions;
