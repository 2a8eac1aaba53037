//! Which seeds a random test runs, as its environment says.
//!
//! - `ODRADEK_SEED=17`: this one, with its trace.
//! - `ODRADEK_FIRST_SEED=1000 ODRADEK_SEEDS=200`: these, and the first that finds something ends
//!   the test.
//! - `ODRADEK_SEEDS=1000`: those that are run every time, and so many that nobody has run before.

use rand::TryRngCore;

/// What the environment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// One seed, with its trace.
    One(u64),
    /// These and no others.
    Only(std::ops::Range<u64>),
    /// The usual ones, and these.
    Usual(Vec<u64>),
}

/// What the environment asks for, with `fresh` new seeds if it does not say how many.
///
/// # Panics
///
/// If a variable is set and is no number.
pub fn asked(fresh: usize) -> Asked {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    if let Some(seed) = number("ODRADEK_SEED") {
        return Asked::One(seed);
    }
    let count = number("ODRADEK_SEEDS");
    if let Some(first) = number("ODRADEK_FIRST_SEED") {
        return Asked::Only(first..first.saturating_add(count.unwrap_or(100)));
    }
    let count = count.map_or(fresh, |it| usize::try_from(it).unwrap_or(usize::MAX));
    let mut entropy = rand::rngs::OsRng;
    Asked::Usual((0..count).map(|_| entropy.try_next_u64().expect("entropy")).collect())
}
