//! Where batches begin: a topic can be cut only there.

use odradek_protocol::id::{Offset, TopicPartition};

use super::batches::Batches;
use super::blocks::Located;
use super::{FetchError, Reader, Watermarks};

impl Reader {
    /// The offset itself, or the end of the batch that it lies in. The partition may be one of a
    /// topic that was deleted and is not purged.
    pub async fn batch_boundary(
        &self,
        partition: TopicPartition,
        offset: Offset,
    ) -> Result<Offset, FetchError> {
        let located = self.machine.read(|state| {
            let found = state.kept_partition(partition);
            let found = found.ok_or(FetchError::UnknownPartition(partition))?;
            if offset < found.log_start || offset > found.high_watermark {
                let watermarks = Watermarks::of(found);
                return Err(FetchError::OutOfRange { offset, watermarks });
            }
            let extent = found.extents_from(offset).next().filter(|extent| extent.base < offset);
            Ok(extent.map(|extent| Located::of(state, partition, found, extent)))
        })?;
        let Some(located) = located else { return Ok(offset) };
        let blocks = self.blocks.load(located.wanted.iter().cloned().collect()).await;
        for batch in Batches::of(&located.extent, &blocks)? {
            let batch = batch?;
            if batch.base < offset && offset < batch.end() {
                return Ok(batch.end());
            }
        }
        Ok(offset)
    }
}
