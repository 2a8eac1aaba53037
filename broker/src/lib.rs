//! Who is talking: sockets, sessions and handlers over the engine of `odradek-storage`.
//!
//! A request's way: [`server`] accepts, `connection` cuts frames and keeps replies in order,
//! `dispatch` finds the handler, `handlers` ask the engine and translate its answer. [`broker`]
//! puts everything together, [`config`] says how. [`commands`] look at what brokers leave behind.

mod answers;
mod asked_offsets;
mod branches;
pub mod broker;
mod broker_configs;
mod cluster;
pub mod commands;
pub mod config;
mod configs;
mod connection;
mod context;
mod crowds;
mod directory;
mod dispatch;
#[cfg(feature = "test-util")]
pub mod doors;
mod entrance;
mod error;
mod fetch_session;
pub mod group;
mod group_configs;
mod group_settings;
mod handlers;
mod leadership;
mod memory;
mod metrics;
mod operations;
mod peers;
mod resources;
mod server;
mod session;
mod stalls;
mod switch;
pub mod telemetry;
mod topic_configs;
mod topics;
pub mod transactions;
