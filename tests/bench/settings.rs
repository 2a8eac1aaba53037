//! What of a benchmark can be changed from outside.

/// A number that a variable of the environment may set.
pub(crate) fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |it| it.parse().unwrap())
}
