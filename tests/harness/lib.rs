//! What we promise: the harness.
//!
//! A scenario starts a [`cluster::Cluster`] of brokers in this process, talks to it through real
//! sockets with a [`client::Client`], and says what must come back:
//!
//! ```no_run
//! # async fn scenario() {
//! use odradek_tests::{client::Client, cluster::Cluster};
//! let cluster = Cluster::in_memory(2).await;
//! let mut client = Client::connect(cluster.address(0)).await;
//! client.create_topic("orders", 3).await;
//! # }
//! ```

#![expect(clippy::unwrap_used, reason = "a harness fails by panicking")]

pub mod alone;
pub mod batches;
pub mod checker;
pub mod client;
pub mod cluster;
pub mod digests;
mod door;
pub mod fault_proxy;
pub mod groups;
pub mod hasty;
pub mod history;
pub mod life;
pub mod process;
pub mod proof;
pub mod seeds;
pub mod servers;
pub mod swarm;
pub mod transactions;
pub mod world;
