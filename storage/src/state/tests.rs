//! The state under test: scripts that read like a story, and properties against a model that is too
//! simple to be wrong.
//!
//! `chain` makes entries that follow each other, `strategies` draws commands from a world small
//! enough that they meet, `happenings` counts whether they do, `recount` recounts what the state
//! claims about itself.

pub(crate) mod chain;
mod edges;
mod gauges;
mod happenings;
mod lives;
mod model;
mod properties;
mod script;
mod script_groups;
mod script_life;
mod script_text;
mod script_transactions;
pub(crate) mod strategies;
