//! Judges histories of real clients by the rules of the test plan.
//!
//! ```no_run
//! # fn judge() -> Result<(), odradek_tests::history::Malformed> {
//! use odradek_tests::{checker, history::History};
//! let verdict = checker::check(History::read(&["histories".into()])?)?;
//! assert!(verdict.is_good(), "{verdict}");
//! # Ok(())
//! # }
//! ```
//!
//! Only what clients and brokers wrote down is used: what was in flight may have happened or not,
//! and every rule holds in either case. The order of a key's values is what acknowledgements and
//! all reads say about their offsets. Reading histories is [`crate::history`]'s business.
//!
//! Not judged: authorisation (I2), which brokers do not have yet, and anti-dependencies (G-single),
//! for a poll that returns less than there is proves nothing about the rest.

use serde::Serialize;

use crate::history::{History, Malformed};

mod bounds;
mod cycles;
pub mod edn;
mod findings;
mod floor;
mod groups;
mod health;
mod index;
mod order;
mod pipelines;
mod placement;
mod reads;
mod rule;
mod staleness;
mod summary;
#[cfg(test)]
mod tests;
mod transactions;

pub use findings::{Finding, Verdict, Violation};
pub use rule::{Rule, Standing};
pub use summary::{Latencies, Summary};

use findings::Findings;
use index::Index;

/// What a history must have at least: a check of less could not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Enough {
    /// Values that were acknowledged.
    pub acknowledged: usize,
    /// Values that were read.
    pub read: usize,
    /// Processes that polled everything at the end.
    pub finals: usize,
}

impl Default for Enough {
    fn default() -> Self {
        Self { acknowledged: 100, read: 100, finals: 1 }
    }
}

/// Applies all rules to `history`.
///
/// # Errors
/// What can't be a history: see [`Malformed`].
pub fn check(history: History) -> Result<Verdict, Malformed> {
    let files = history.files.clone();
    let index = Index::new(history)?;
    let mut findings = Findings::default();
    order::check(&index, &mut findings);
    reads::check(&index, &mut findings);
    transactions::check(&index, &mut findings);
    pipelines::check(&index, &mut findings);
    cycles::check(&index, &mut findings);
    bounds::check(&index, &mut findings);
    groups::check(&index, &mut findings);
    placement::check(&index, &mut findings);
    health::check(&index, &mut findings);
    staleness::check(&index, &mut findings);
    Ok(findings.into_verdict(summary::summarize(&index), files))
}
