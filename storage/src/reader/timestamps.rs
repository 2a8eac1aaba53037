//! Finding offsets by time (ListOffsets).
//!
//! The state knows the largest timestamp of each extent, the batch header that of each batch; only
//! the one batch that decides is opened. A batch that can't be opened (its producer compressed
//! nonsense) is answered by its first offset, which is never too late.

use odradek_protocol::id::{Offset, TopicPartition};

use super::batches::{Batches, PlacedBatch};
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

impl Reader {
    /// The first record that is not older than `timestamp_ms`; `None` if all that may be seen are.
    pub async fn offset_for_timestamp(
        &self,
        partition: TopicPartition,
        timestamp_ms: i64,
        isolation: Isolation,
    ) -> Result<Option<TimestampOffset>, FetchError> {
        let late_enough = |it: &Partition, limit: Offset| {
            let mut extents = it.extents().take_while(|extent| extent.base < limit);
            extents.find(|extent| extent.max_timestamp >= timestamp_ms).copied()
        };
        let Some(extent) = self.look(partition, isolation, late_enough)? else { return Ok(None) };
        self.search(partition, extent, timestamp_ms).await
    }

    /// The first of the records with the largest timestamp (KIP-734); `None` if there are none.
    pub async fn offset_of_max_timestamp(
        &self,
        partition: TopicPartition,
        isolation: Isolation,
    ) -> Result<Option<TimestampOffset>, FetchError> {
        let latest = |it: &Partition, limit: Offset| {
            let extents = it.extents().take_while(|extent| extent.base < limit);
            extents.copied().reduce(|best, extent| {
                if extent.max_timestamp > best.max_timestamp { extent } else { best }
            })
        };
        let Some(extent) = self.look(partition, isolation, latest)? else { return Ok(None) };
        self.search(partition, extent, extent.max_timestamp).await
    }

    fn look<T>(
        &self,
        partition: TopicPartition,
        isolation: Isolation,
        find: impl FnOnce(&Partition, Offset) -> Option<T>,
    ) -> Result<Option<T>, FetchError> {
        self.machine.read(|state| {
            let found =
                state.partition(partition).ok_or(FetchError::UnknownPartition(partition))?;
            Ok(find(found, Watermarks::of(found).limit(isolation)))
        })
    }

    async fn search(
        &self,
        partition: TopicPartition,
        extent: Extent,
        timestamp_ms: i64,
    ) -> Result<Option<TimestampOffset>, FetchError> {
        let read = self.blocks.load(vec![Wanted::new(partition, &extent)]).await;
        let content = blocks::content(&read, &extent)?;
        for batch in Batches::of(&extent, content) {
            let batch = batch?;
            if batch.max_timestamp >= timestamp_ms {
                return Ok(Some(first_in(&batch, timestamp_ms)));
            }
        }
        Ok(None)
    }
}

/// The first record of a batch that is not older than `timestamp_ms`.
fn first_in(batch: &PlacedBatch, timestamp_ms: i64) -> TimestampOffset {
    batch
        .first_not_older(timestamp_ms)
        .unwrap_or(TimestampOffset { offset: batch.base, timestamp_ms: batch.max_timestamp })
}
