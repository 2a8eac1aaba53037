//! Simulation: whole clusters on paused time, from a seed.
//!
//! `ODRADEK_SEED=17 cargo test -p odradek-tests --test simulation` runs one seed with its trace
//! printed; `ODRADEK_SEEDS=1000` runs so many random ones ([`odradek_tests::seeds`]). A seed that
//! found something stands in [`seeds::KEPT`], with what it found. What is small enough to be tried
//! in every order is in [`protocol`].

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod appends;
mod crashes;
mod fairness;
mod footers;
mod group_rules;
mod groups;
mod late_messages;
mod life;
mod offices;
mod protocol;
mod seeds;
mod swarm;
mod tail;
mod told;
mod transactions;
mod trims;
mod wire;
