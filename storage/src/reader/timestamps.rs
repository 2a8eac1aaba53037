//! Finding offsets by time (ListOffsets).
//!
//! The state knows the largest timestamp of each extent, the batch header that of each batch; only
//! the one batch that decides is opened. A batch that can't be opened (its producer compressed
//! nonsense) is answered by its first offset, which is never too late. Of the first extent, and of
//! the first batch in it, a part may be gone: what is gone is never an answer.

use odradek_protocol::id::{Offset, TopicPartition};

use super::batches::{Batches, PlacedBatch, Unreadable};
use super::blocks::{self, Wanted};
use super::{FetchError, Isolation, Reader, Watermarks};
use crate::state::partition::{Extent, Partition};

/// A record's offset and timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// Where to look for a record by its time.
struct Candidates {
    /// Records below are gone.
    log_start: Offset,
    extents: Vec<Extent>,
}

impl Reader {
    /// The first record that is not older than `timestamp_ms`; `None` if all that may be seen are.
    pub async fn offset_for_timestamp(
        &self,
        partition: TopicPartition,
        timestamp_ms: i64,
        isolation: Isolation,
    ) -> Result<Option<TimestampOffset>, FetchError> {
        let late_enough = |it: &Partition, limit: Offset| {
            let extents = it.extents().take_while(|extent| extent.base < limit);
            let extents = extents.filter(|extent| extent.max_timestamp >= timestamp_ms);
            // Of the first extent the part that is late enough may be gone.
            Candidates { log_start: it.log_start, extents: extents.take(2).copied().collect() }
        };
        let Candidates { log_start, extents } = self.look(partition, isolation, late_enough)?;
        for extent in extents {
            let found = self.search(partition, extent, timestamp_ms, log_start).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first of the records with the largest timestamp (KIP-734); `None` if there are none.
    pub async fn offset_of_max_timestamp(
        &self,
        partition: TopicPartition,
        isolation: Isolation,
    ) -> Result<Option<TimestampOffset>, FetchError> {
        let latest = |it: &Partition, limit: Offset| {
            let mut extents = it.extents().take_while(|extent| extent.base < limit).peekable();
            let cut = extents.next_if(|extent| extent.base < it.log_start);
            let whole = extents.reduce(|best, extent| {
                if extent.max_timestamp > best.max_timestamp { extent } else { best }
            });
            (it.log_start, cut.copied(), whole.copied())
        };
        let (log_start, cut, whole) = self.look(partition, isolation, latest)?;
        let wins = |timestamp_ms: i64| whole.is_none_or(|it| timestamp_ms >= it.max_timestamp);
        // Only if it has a chance: what an extent was cut to is known when it was read.
        if let Some(extent) = cut.filter(|extent| wins(extent.max_timestamp)) {
            let found = self.latest_from(partition, extent, log_start).await?;
            if found.is_some_and(|found| wins(found.timestamp_ms)) {
                return Ok(found);
            }
        }
        let Some(extent) = whole else { return Ok(None) };
        self.search(partition, extent, extent.max_timestamp, log_start).await
    }

    fn look<T>(
        &self,
        partition: TopicPartition,
        isolation: Isolation,
        find: impl FnOnce(&Partition, Offset) -> T,
    ) -> Result<T, FetchError> {
        self.machine.read(|state| {
            let found =
                state.partition(partition).ok_or(FetchError::UnknownPartition(partition))?;
            Ok(find(found, Watermarks::of(found).limit(isolation)))
        })
    }

    /// The batches of an extent that are not gone altogether.
    async fn batches_from(
        &self,
        partition: TopicPartition,
        extent: Extent,
        log_start: Offset,
    ) -> Result<impl Iterator<Item = Result<PlacedBatch, FetchError>>, FetchError> {
        let read = self.blocks.load(vec![Wanted::new(partition, &extent)]).await;
        let batches = Batches::of(&extent, blocks::content(&read, &extent)?);
        Ok(batches.filter(move |it| it.as_ref().map_or(true, |batch| batch.end() > log_start)))
    }

    async fn search(
        &self,
        partition: TopicPartition,
        extent: Extent,
        timestamp_ms: i64,
        log_start: Offset,
    ) -> Result<Option<TimestampOffset>, FetchError> {
        for batch in self.batches_from(partition, extent, log_start).await? {
            let batch = batch?;
            if batch.max_timestamp < timestamp_ms {
                continue;
            }
            match batch.first_not_older(timestamp_ms, log_start) {
                Ok(Some(found)) => return Ok(Some(found)),
                // The one that was late enough is gone.
                Ok(None) if batch.base < log_start => {}
                Ok(None) | Err(Unreadable) => return Ok(Some(batch.unopened(log_start))),
            }
        }
        Ok(None)
    }

    /// The first of the records with the largest timestamp of an extent that was cut.
    async fn latest_from(
        &self,
        partition: TopicPartition,
        extent: Extent,
        log_start: Offset,
    ) -> Result<Option<TimestampOffset>, FetchError> {
        let mut latest: Option<TimestampOffset> = None;
        for batch in self.batches_from(partition, extent, log_start).await? {
            let batch = batch?;
            let is_later = |ms: i64| latest.is_none_or(|latest| ms > latest.timestamp_ms);
            if !is_later(batch.max_timestamp) {
                continue;
            }
            let found = batch.latest(log_start);
            let found = found.unwrap_or_else(|Unreadable| Some(batch.unopened(log_start)));
            latest = found.filter(|found| is_later(found.timestamp_ms)).or(latest);
        }
        Ok(latest)
    }
}
