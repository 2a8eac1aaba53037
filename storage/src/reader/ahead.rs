//! Reading ahead for those who read a partition through from far behind its end.
//!
//! Who asks for what follows on what it was last given goes on like that, and what it will ask for
//! next is on its way when it does: twice as much each time, within what all of them have together.
//! Without that each answer costs a whole round trip to the store, whatever the store could give.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use odradek_protocol::id::{Offset, TopicPartition};
use tokio::time::Instant;

/// Bytes that are read ahead for somebody who was given something for the first time.
const FIRST_BYTES: u64 = 1024 * 1024;

/// Bytes that are read ahead for one reader at most.
const WINDOW_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Who has not asked for so long may have gone.
const QUIET_MAX: Duration = Duration::from_secs(10);

/// How many readers are remembered.
const STREAMS_MAX: usize = 4096;

/// Who reads what through.
#[derive(Debug)]
pub(super) struct ReadAhead {
    /// What all of them have together.
    bytes_max: u64,
    streams: Mutex<BTreeMap<(TopicPartition, Offset), Stream>>,
}

/// Somebody, under the offset that it will ask for next.
#[derive(Clone, Copy, Debug)]
struct Stream {
    window: u64,
    seen: Instant,
}

impl ReadAhead {
    /// For readers who have `bytes_max` bytes together.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, streams: Mutex::default() }
    }

    /// How many bytes behind its answer are read ahead for one who asks for `offset`.
    pub(super) fn window(&self, partition: TopicPartition, offset: Offset) -> u64 {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stream) = streams.get(&(partition, offset)) else { return 0 };
        let share = self.bytes_max / u64::try_from(streams.len()).unwrap_or(u64::MAX).max(1);
        stream.window.min(share)
    }

    /// Notes that one who had asked for `from` was given all there is up to `to`, where there is
    /// more.
    pub(super) fn advance(&self, partition: TopicPartition, from: Offset, to: Offset) {
        let now = Instant::now();
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let known = streams.remove(&(partition, from));
        let window = known.map_or(FIRST_BYTES, |stream| stream.window * 2).min(WINDOW_BYTES_MAX);
        if streams.len() >= STREAMS_MAX || known.is_none() {
            streams.retain(|_, stream| now.duration_since(stream.seen) < QUIET_MAX);
        }
        if streams.len() < STREAMS_MAX {
            let stream = streams.entry((partition, to)).or_insert(Stream { window, seen: now });
            *stream = Stream { window: stream.window.max(window), seen: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use odradek_protocol::id::TopicId;

    use super::*;

    fn partition(partition: i32) -> TopicPartition {
        TopicPartition { topic: TopicId::NIL, partition }
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_doubles_as_long_as_somebody_reads_on() {
        let ahead = ReadAhead::new(u64::MAX);
        let mut windows = Vec::new();
        for place in 0..8 {
            windows.push(ahead.window(partition(0), Offset(place)) / FIRST_BYTES);
            ahead.advance(partition(0), Offset(place), Offset(place + 1));
        }
        assert_eq!(windows, [0, 1, 2, 4, 8, 16, 32, 32]);
        // Where it is no longer nobody goes on.
        assert_eq!(ahead.window(partition(0), Offset(7)), 0);
        assert_eq!(ahead.window(partition(1), Offset(8)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn all_windows_together_stay_within_what_there_is() {
        let ahead = ReadAhead::new(8 * FIRST_BYTES);
        let windows = |count: i32, place: i64| -> u64 {
            (0..count).map(|it| ahead.window(partition(it), Offset(place))).sum()
        };
        for place in 0..6 {
            for it in 0..10 {
                ahead.advance(partition(it), Offset(place), Offset(place + 1));
            }
            let all = windows(10, place + 1);
            assert!(0 < all && all <= 8 * FIRST_BYTES, "{all}");
        }
        // Nine are gone for long when another comes.
        tokio::time::advance(2 * QUIET_MAX).await;
        ahead.advance(partition(0), Offset(6), Offset(7));
        ahead.advance(partition(11), Offset(0), Offset(1));
        assert_eq!(ahead.window(partition(0), Offset(7)), 4 * FIRST_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_remembered() {
        let ahead = ReadAhead::new(u64::MAX);
        for it in 0..i32::try_from(2 * STREAMS_MAX).unwrap() {
            ahead.advance(partition(it), Offset(0), Offset(1));
        }
        assert_eq!(ahead.streams.lock().unwrap().len(), STREAMS_MAX);
    }
}
