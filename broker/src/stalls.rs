//! Stalls: a process that was stopped for seconds, with all its timers, and goes on.
//!
//! Its clients have turned to other brokers, its registration may have expired, and what it was
//! about to do is old. Nothing of that can do harm, because only the log decides; but a client must
//! not be answered from a memory that is minutes old. So such a broker closes every connection,
//! forgets what it had buffered, and follows the log to its tail before it serves again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::context::Context;
use crate::server::Gate;

/// How often the clock is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A look that comes this late was no look that was delayed by much work.
const STALL: Duration = Duration::from_secs(5);

/// Watches for stalls as long as the broker lives.
pub(crate) async fn watch(context: Arc<Context>, gate: Gate) {
    let mut looked = context.clock.uptime();
    loop {
        sleep(LOOK_INTERVAL).await;
        let now = context.clock.uptime();
        let gap = now.saturating_sub(looked);
        looked = now;
        if gap < STALL {
            continue;
        }
        let seconds = gap.as_secs();
        tracing::warn!(seconds, "this process was asleep: dropping all connections");
        gate.shut();
        context.groups.forget();
        context.engine.wake().await;
        gate.open();
        looked = context.clock.uptime();
    }
}
