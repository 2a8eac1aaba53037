//! An object store whose calls go wrong, by chance or by script, and whose bytes can't be trusted.
//!
//! Owns what can be wrong with the answer to a read. What can become of a call is `port::fate`;
//! what a store must keep in spite of it is `object::conformance`.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;

use super::{ObjectKey, ObjectMeta, ObjectStore, Put};
use crate::port::PortError;
pub use crate::port::fate::{CallFaults, Control, Fate, Oddities};

/// How likely each fault is, from 0 to 1. Default: none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// What becomes of calls.
    pub calls: CallFaults,
    /// One bit of the bytes read is wrong.
    pub bit_flip: f64,
    /// The bytes read lack some at their end.
    pub truncated: f64,
    /// The bytes read are those one further on.
    pub wrong_range: f64,
    /// An object that is there is reported as absent.
    pub not_found: f64,
}

/// A store between a caller and another store. Clones share the dice and the switches.
#[derive(Clone, Debug)]
pub struct FaultyObjectStore {
    inner: Arc<dyn ObjectStore>,
    control: Control<Faults>,
}

/// What is wrong with the answer to one read.
#[derive(Clone, Copy, Debug)]
struct Damage {
    bit_flip: bool,
    truncated: bool,
    wrong_range: bool,
    not_found: bool,
    /// Where in the bytes, from 0 to 1.
    place: f64,
}

impl FaultyObjectStore {
    /// Puts faults, drawn from `seed`, in front of `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64, faults: Faults) -> Self {
        Self { inner, control: Control::new(seed, faults) }
    }

    /// The switches. A script decides puts and deletes.
    pub fn control(&self) -> Control<Faults> {
        self.control.clone()
    }
}

impl Damage {
    fn draw(faults: &Faults, rng: &mut StdRng) -> Self {
        Self {
            bit_flip: rng.random_bool(faults.bit_flip),
            truncated: rng.random_bool(faults.truncated),
            wrong_range: rng.random_bool(faults.wrong_range),
            not_found: rng.random_bool(faults.not_found),
            place: rng.random(),
        }
    }

    fn range(&self, range: Range<u64>) -> Range<u64> {
        if !self.wrong_range {
            return range;
        }
        range.start.saturating_add(1)..range.end.saturating_add(1)
    }

    fn inflict(&self, found: Option<Bytes>) -> Option<Bytes> {
        let mut bytes = found.filter(|_| !self.not_found)?;
        let bits = bytes.len() * 8;
        let (bit, kept) = (self.pick(bits), self.pick(bytes.len()));
        if self.bit_flip && bits > 0 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            bytes = flipped.into();
        }
        if self.truncated {
            bytes.truncate(kept);
        }
        Some(bytes)
    }

    /// One of `count` places.
    #[expect(
        clippy::as_conversions,
        reason = "lengths of objects are exact in f64, and the product is cut off on purpose"
    )]
    fn pick(&self, count: usize) -> usize {
        ((count as f64 * self.place) as usize).min(count.saturating_sub(1))
    }
}

#[async_trait]
impl ObjectStore for FaultyObjectStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: Bytes) -> Result<Put, PortError> {
        let drawn = self.control.draw(|faults| &faults.calls);
        let (conflict, own_retry) =
            self.control.odd(|odd, dice| (dice.happens(odd.conflict), dice.happens(odd.own_retry)));
        if conflict {
            return Err(PortError::determinate("in conflict with another put, on purpose"));
        }
        let (inner, again) = (Arc::clone(&self.inner), Arc::clone(&self.inner));
        let (key, copy) = (key.clone(), (key.clone(), bytes.clone()));
        let put = async move { inner.put_if_absent(&key, bytes).await };
        let answer = self.control.meet(drawn, put).await;
        self.control.repeat(&answer, async move {
            drop(again.put_if_absent(&copy.0, copy.1).await);
        });
        if own_retry { answer.map(|_| Put::Exists) } else { answer }
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, PortError> {
        let (drawn, damage) = self.control.draw_read(|faults| &faults.calls, Damage::draw);
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        let range = damage.range(range);
        let call = async move { inner.get_range(&key, range).await };
        self.control.meet(drawn, call).await.map(|found| damage.inflict(found))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> Result<Vec<ObjectMeta>, PortError> {
        let (drawn, ()) = self.control.draw_read(|faults| &faults.calls, |_, _| ());
        let inner = Arc::clone(&self.inner);
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        let slow = self.control.odd(|odd, dice| dice.after(odd.slow_list, odd.slow_list_max));
        if let Some(longer) = slow {
            tokio::time::sleep(longer).await;
        }
        let call = async move { inner.list(&prefix, after.as_ref(), limit).await };
        self.control.meet(drawn, call).await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError> {
        let drawn = self.control.draw(|faults| &faults.calls);
        let (inner, keys) = (Arc::clone(&self.inner), keys.to_vec());
        self.control.meet(drawn, async move { inner.delete(&keys).await }).await
    }
}

#[cfg(test)]
mod tests;
