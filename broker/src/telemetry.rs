//! Telemetry: what the broker says about itself. For now, logs.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

/// A message that clients can provoke is said once in this time.
const QUIET: Duration = Duration::from_secs(1);

/// Keeps clients from filling the log: lets one message through in a while, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// When a message last passed, and how many were held back since.
    last: Mutex<(Option<Instant>, u64)>,
}

impl Throttle {
    /// Whether to say something now: if so, how often it was not said since the last time.
    pub(crate) fn pass(&self) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.is_some_and(|said| said.elapsed() < QUIET) {
            last.1 += 1;
            return None;
        }
        let held_back = last.1;
        *last = (Some(Instant::now()), 0);
        Some(held_back)
    }
}

/// Sends logs to standard error. `filter` is a level or a list of `target=level`.
pub fn init(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| format!("log-level {filter:?} is no filter: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_messages_is_one_message_and_a_number() {
        let throttle = Throttle::default();
        assert_eq!(throttle.pass(), Some(0));
        assert_eq!((throttle.pass(), throttle.pass()), (None, None));
        tokio::time::advance(QUIET).await;
        assert_eq!(throttle.pass(), Some(2));
        assert_eq!(throttle.pass(), None);
    }
}
