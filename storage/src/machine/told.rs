//! Entries that others sent along when they told of a slot that they had won.
//!
//! The log has decided each of them before it was sent, so whoever has the one that comes next need
//! not read it. It is still no more than a favour: it may be missing, late or not what it says it
//! is, and then the log is read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::lsn::Lsn;
use crate::peer::SentEntry;

/// Longest entry that is sent along, in bytes with its footers. Longer ones are read: what many
/// brokers send each other takes their memory, and between zones it is paid for.
/// Nor are longer ones kept, should somebody send them.
pub(super) const TOLD_BYTES_MAX: usize = 32 * 1024;

/// How many are kept while those before them are missing.
const TOLD_MAX: usize = 64;

/// Entries that may come next, or soon.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<BTreeMap<Lsn, SentEntry>>);

impl Told {
    /// Keeps what is said to be the entry at `lsn`; of too many those that come last go.
    pub(super) fn put(&self, lsn: Lsn, entry: SentEntry) {
        if entry.len() > TOLD_BYTES_MAX {
            return;
        }
        let mut entries = self.lock();
        entries.insert(lsn, entry);
        if entries.len() > TOLD_MAX {
            entries.pop_last();
        }
    }

    /// Takes out what is said to be the entry at `lsn`, and forgets what came before it.
    pub(super) fn take(&self, lsn: Lsn) -> Option<SentEntry> {
        let mut entries = self.lock();
        let later = entries.split_off(&lsn);
        *entries = later;
        entries.remove(&lsn)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Lsn, SentEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn entries_are_taken_in_turn_and_few_are_kept() {
        let told = Told::default();
        let entry = |number: u64| SentEntry {
            bytes: Bytes::from(number.to_string()),
            ..SentEntry::default()
        };
        for number in (1..=100).rev() {
            told.put(Lsn::new(number), entry(number));
        }
        assert_eq!(told.take(Lsn::new(1)), Some(entry(1)));
        assert_eq!(told.take(Lsn::new(1)), None);
        assert_eq!(told.take(Lsn::new(10)), Some(entry(10)));
        assert_eq!(told.take(Lsn::new(9)), None, "that was passed");
        assert_eq!(told.take(Lsn::new(64)), Some(entry(64)));
        assert_eq!(told.take(Lsn::new(65)), None, "that was too many");
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let told = Told::default();
        let entry = |bytes: usize, footer: usize| SentEntry {
            bytes: Bytes::from(vec![0; bytes]),
            footers: vec![Bytes::from(vec![0; footer])],
        };
        told.put(Lsn::new(1), entry(1, TOLD_BYTES_MAX - 1));
        told.put(Lsn::new(2), entry(2, TOLD_BYTES_MAX - 1));
        assert!(told.take(Lsn::new(1)).is_some());
        assert_eq!(told.take(Lsn::new(2)), None);
    }
}
