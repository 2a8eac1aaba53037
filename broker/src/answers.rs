//! The budget of bytes that records in answers may take until they are written.
//!
//! An answer is kept until its client has taken it, and who is slow takes long. Nobody can be made
//! to wait for memory that slow readers hold, or they would stop the others; so nobody is: of what
//! is left of the budget a fetch takes as much as it needs, and once it is spent each gets one
//! batch at a time, as a consumer must that asks for fewer bytes than a batch has (KIP-74). Memory
//! is bounded by the budget and a batch for each connection.
//!
//! A claim is attached to the last bytes of the answer, and given back when those are dropped:
//! written, or their connection is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// The budget of one broker. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct AnswerBudget {
    total: usize,
    taken: Arc<AtomicUsize>,
}

/// What an answer takes of the budget, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    bytes: usize,
    taken: Arc<AtomicUsize>,
}

impl AnswerBudget {
    /// A budget of so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { total: bytes, taken: Arc::default() }
    }

    /// Bytes that are taken, which may be more than there are by a batch for each connection, and
    /// how many there are.
    pub(crate) fn used_bytes(&self) -> (usize, usize) {
        (self.taken.load(Ordering::Relaxed), self.total)
    }

    /// Takes so many bytes, or those that are left.
    pub(crate) fn claim(&self, bytes: usize) -> Claim {
        let left = |taken: usize| bytes.min(self.total.saturating_sub(taken));
        let take = |taken: usize| Some(taken.saturating_add(left(taken)));
        let updated = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let (Ok(before) | Err(before)) = updated;
        Claim { bytes: left(before), taken: Arc::clone(&self.taken) }
    }
}

impl Claim {
    /// How many bytes it is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it what the answer really has: less, or one batch more than was left.
    pub(crate) fn settle(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.taken.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.taken.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// The same bytes, with which the claim lives on.
    pub(crate) fn attach(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Attached { bytes, _claim: self })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Attached {
    bytes: Bytes,
    _claim: Claim,
}

impl AsRef<[u8]> for Attached {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_given_and_comes_back_when_the_bytes_are_gone() {
        let budget = AnswerBudget::new(100);
        let mut first = budget.claim(80);
        let second = budget.claim(80);
        assert_eq!((first.bytes(), second.bytes(), budget.claim(1).bytes()), (80, 20, 0));
        first.settle(50);
        assert_eq!((budget.used_bytes(), budget.claim(80).bytes()), ((70, 100), 30));
        let mut bytes = first.attach(Bytes::from_static(b"records"));
        let head = bytes.split_to(3);
        drop(second);
        drop(bytes);
        assert_eq!(budget.used_bytes().0, 50);
        assert_eq!(head, &b"rec"[..]);
        drop(head);
        assert_eq!(budget.used_bytes().0, 0);
    }

    #[test]
    fn one_batch_more_than_is_left_is_counted() {
        let budget = AnswerBudget::new(100);
        let _all = budget.claim(100);
        let mut over = budget.claim(10);
        assert_eq!(over.bytes(), 0);
        over.settle(60);
        assert_eq!(budget.used_bytes(), (160, 100));
        drop(over);
        assert_eq!(budget.used_bytes(), (100, 100));
    }
}
