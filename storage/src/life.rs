//! The life of data after its commit: tasks that move, expire and delete it.
//!
//! All of them only propose; `apply` decides. Each looks at the state, does its work aside, and
//! says what is to be changed and what it rests on. None of them is needed for a broker to serve,
//! and all can be killed at any moment: what they leave behind is an object that nothing refers to.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::counts::{LifeCounts, ago};
use crate::engine::Ports;
use crate::machine::Machine;

pub mod compactor;
pub mod merger;
pub mod retention;
pub(crate) mod rewriting;
pub mod sweeper;

use compactor::{Compactor, CompactorConfig};
use merger::{Merger, MergerConfig};
use retention::{Retention, RetentionConfig};
use sweeper::{Sweeper, SweeperConfig};

/// How the tasks behave.
#[derive(Clone, Debug, Default)]
pub struct LifeConfig {
    /// What keeps the latest record of every key.
    pub compactor: CompactorConfig,
    /// What makes few large segments of many small ones.
    pub merger: MergerConfig,
    /// What lets go of what is due.
    pub retention: RetentionConfig,
    /// What deletes objects.
    pub sweeper: SweeperConfig,
}

/// The tasks, as long as this lives.
#[derive(Debug)]
pub struct Life {
    tasks: Vec<JoinHandle<()>>,
    counts: Arc<LifeCounts>,
    clock: Arc<dyn Clock>,
}

impl Life {
    /// Starts them.
    pub fn start(machine: &Machine, ports: &Ports, config: LifeConfig, seed: u64) -> Self {
        let Ports { objects, clock, .. } = ports;
        let counts = Arc::new(LifeCounts::default());
        let (machine, objects, time, count) = (
            || machine.clone(),
            || Arc::clone(objects),
            || Arc::clone(clock),
            || Arc::clone(&counts),
        );
        let compactor = Compactor::new(machine(), objects(), config.compactor, seed, count());
        let merger = Merger::new(machine(), objects(), config.merger, count());
        let retention = Retention::new(machine(), time(), config.retention, count());
        let sweeper = Sweeper::new(machine(), objects(), time(), config.sweeper, count());
        Self {
            tasks: vec![
                tokio::spawn(compactor.run()),
                tokio::spawn(merger.run()),
                tokio::spawn(retention.run()),
                tokio::spawn(sweeper.run()),
            ],
            clock: time(),
            counts,
        }
    }

    /// What they have done.
    pub fn counts(&self) -> &LifeCounts {
        &self.counts
    }

    /// For how long the oldest of the segments that wait to be swept has done so, as far as the
    /// sweeper of this process has seen: it looks once in its interval, and whatever was there when
    /// the process began has waited since then.
    pub fn longest_wait(&self) -> Duration {
        ago(self.clock.uptime(), &self.counts.waiting_since).unwrap_or_default()
    }

    /// Ends them at once, as a killed process would.
    pub fn kill(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.kill();
    }
}
