//! Digests of several brokers: the same log must make the same state of everybody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use odradek_storage::engine::Engine;
use odradek_storage::state::State;

/// Digests by the position of the log, with how often each was seen. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Digests {
    seen: Arc<Mutex<BTreeMap<u64, BTreeMap<u64, usize>>>>,
}

impl Digests {
    /// Notes a broker's digest at each position it stops at, as long as it lives; of them only at
    /// those that this number divides, because a digest is of the whole state.
    ///
    /// # Panics
    ///
    /// If another broker had another digest there.
    pub async fn compare(self, engine: Engine, seed: u64, every: u64) {
        let mut applied = engine.machine.applied();
        loop {
            if applied.borrow_and_update().get().is_multiple_of(every) {
                self.note(&engine, seed);
            }
            if applied.changed().await.is_err() {
                return;
            }
        }
    }

    fn note(&self, engine: &Engine, seed: u64) {
        let look = |state: &State| (state.applied().get(), state.digest().0);
        let (lsn, digest) = engine.machine.read(look);
        let mut seen = self.seen.lock().unwrap();
        let digests = seen.entry(lsn).or_default();
        *digests.entry(digest).or_default() += 1;
        assert_eq!(digests.len(), 1, "seed {seed}: brokers differ at {lsn}");
    }

    /// Positions at which several brokers were compared.
    pub fn compared(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.values().filter(|digests| digests.values().sum::<usize>() > 1).count()
    }
}
