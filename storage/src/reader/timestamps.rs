//! Finding offsets by time (ListOffsets).
//!
//! The state knows the largest timestamp of each extent, the batch header that of each batch; only
//! the one batch that decides is opened. A batch that can't be opened (its producer compressed
//! nonsense) is answered by its first offset, which is never too late. Of the first extent, and of
//! the first batch in it, a part may be gone, and of others what a branch does not share: what is
//! not there is never an answer.

use std::ops::Range;

use odradek_protocol::id::{Offset, TopicPartition};

use super::batches::{Batches, PlacedBatch, Unreadable};
use super::blocks::Located;
use super::lane::Lane;
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
    /// What of the partition may be seen: records below are gone, those behind are not stable.
    visible: Range<Offset>,
    extents: Vec<Located>,
}

/// Says where an extent lies.
type Locate<'a> = dyn Fn(&Extent) -> Located + 'a;

/// Extents with something visible, without the markers: those are no records that anybody asks for.
fn with_records<'a>(
    partition: &'a Partition,
    visible: &Range<Offset>,
) -> impl Iterator<Item = &'a Extent> + use<'a> {
    let end = if visible.is_empty() { Offset::ZERO } else { visible.end };
    let visible = partition.extents().take_while(move |extent| extent.base < end);
    visible.filter(|extent| extent.location().is_some())
}

/// Whether all may be seen that the largest timestamp of an extent was taken of.
fn is_whole(partition: &Partition, visible: &Range<Offset>, extent: &Extent) -> bool {
    let is_seen = extent.base >= visible.start && extent.end() <= visible.end;
    is_seen && !partition.is_cut_at(extent.end())
}

impl Reader {
    /// The first record that is not older than `timestamp_ms`; `None` if all that may be seen are.
    pub async fn offset_for_timestamp(
        &self,
        partition: TopicPartition,
        timestamp_ms: i64,
        isolation: Isolation,
    ) -> Result<Option<TimestampOffset>, FetchError> {
        let late_enough = |it: &Partition, visible: Range<Offset>, locate: &Locate<'_>| {
            let mut extents = Vec::new();
            for extent in with_records(it, &visible) {
                if extent.max_timestamp >= timestamp_ms {
                    extents.push(locate(extent));
                    // Of others the part that is late enough may be the one that is missing.
                    if is_whole(it, &visible, extent) {
                        break;
                    }
                }
            }
            Candidates { visible, extents }
        };
        let Candidates { visible, extents } = self.look(partition, isolation, late_enough)?;
        for extent in extents {
            let found = self.search(&extent, timestamp_ms, &visible).await?;
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
        // Some are cut, the first and the last perhaps: what to is known when they were read.
        let latest = |it: &Partition, visible: Range<Offset>, locate: &Locate<'_>| {
            let (mut whole, mut cut) = (None::<Extent>, Vec::new());
            for extent in with_records(it, &visible) {
                let is_later = whole.is_none_or(|best| extent.max_timestamp > best.max_timestamp);
                match is_whole(it, &visible, extent) {
                    true if is_later => whole = Some(*extent),
                    true => {}
                    false => cut.push(locate(extent)),
                }
            }
            (visible, whole.map(|whole| locate(&whole)), cut)
        };
        let (visible, whole, cut) = self.look(partition, isolation, latest)?;
        let mut latest = None;
        if let Some(extent) = whole {
            latest = self.search(&extent, extent.extent.max_timestamp, &visible).await?;
        }
        for extent in cut {
            let max_timestamp = extent.extent.max_timestamp;
            let has_a_chance = latest.is_none_or(|it| max_timestamp >= it.timestamp_ms);
            if has_a_chance && let Some(found) = self.latest_from(&extent, &visible).await? {
                let is_first = |it: TimestampOffset| {
                    (found.timestamp_ms, it.offset) > (it.timestamp_ms, found.offset)
                };
                latest = latest.filter(|it| !is_first(*it)).or(Some(found));
            }
        }
        Ok(latest)
    }

    fn look<T>(
        &self,
        partition: TopicPartition,
        isolation: Isolation,
        find: impl FnOnce(&Partition, Range<Offset>, &Locate<'_>) -> T,
    ) -> Result<T, FetchError> {
        self.machine.read(|state| {
            let found =
                state.kept_partition(partition).ok_or(FetchError::UnknownPartition(partition))?;
            let visible = found.log_start..Watermarks::of(found).limit(isolation);
            let locate = |extent: &Extent| {
                Located::of(state, partition, found, extent).in_lane(Lane::CatchUp)
            };
            Ok(find(found, visible, &locate))
        })
    }

    /// The batches of an extent that may be seen, if only in part.
    async fn batches_from(
        &self,
        located: &Located,
        visible: &Range<Offset>,
    ) -> Result<impl Iterator<Item = Result<PlacedBatch, FetchError>>, FetchError> {
        let read = self.blocks.load(located.wanted.iter().cloned().collect()).await;
        let batches = Batches::of(&located.extent, &read)?;
        let Range { start, end } = *visible;
        let is_seen =
            move |batch: &PlacedBatch| batch.end() > start && batch.base < end && !batch.is_control;
        Ok(batches.filter(move |it| it.as_ref().map_or(true, is_seen)))
    }

    async fn search(
        &self,
        located: &Located,
        timestamp_ms: i64,
        visible: &Range<Offset>,
    ) -> Result<Option<TimestampOffset>, FetchError> {
        let log_start = visible.start;
        for batch in self.batches_from(located, visible).await? {
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
        located: &Located,
        visible: &Range<Offset>,
    ) -> Result<Option<TimestampOffset>, FetchError> {
        let log_start = visible.start;
        let mut latest: Option<TimestampOffset> = None;
        for batch in self.batches_from(located, visible).await? {
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
