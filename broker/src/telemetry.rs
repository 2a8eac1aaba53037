//! Telemetry: what the broker says about itself. For now, logs.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

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
