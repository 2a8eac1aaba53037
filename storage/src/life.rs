//! The life of data after its commit: tasks that move, expire and delete it.
//!
//! All of them only propose; `apply` decides. Each looks at the state, does its work aside, and
//! says what is to be changed and what it rests on. None of them is needed for a broker to serve,
//! and all can be killed at any moment: what they leave behind is an object that nothing refers to.

use std::sync::Arc;

use tokio::task::JoinHandle;

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
}

impl Life {
    /// Starts them.
    pub fn start(machine: &Machine, ports: &Ports, config: LifeConfig, seed: u64) -> Self {
        let Ports { objects, clock, .. } = ports;
        let (machine, objects, clock) =
            (|| machine.clone(), || Arc::clone(objects), || Arc::clone(clock));
        let compactor = Compactor::new(machine(), objects(), config.compactor, seed);
        let merger = Merger::new(machine(), objects(), config.merger, seed);
        let retention = Retention::new(machine(), clock(), config.retention);
        let sweeper = Sweeper::new(machine(), objects(), clock(), config.sweeper);
        Self {
            tasks: vec![
                tokio::spawn(compactor.run()),
                tokio::spawn(merger.run()),
                tokio::spawn(retention.run()),
                tokio::spawn(sweeper.run()),
            ],
        }
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
