//! Offsets that a request asks to commit: which can be, and what the others are answered.

use std::collections::BTreeMap;

use odradek_protocol::id::{Offset, PartitionIndex, TopicPartition};
use odradek_protocol::{ResponseError, StrBytes};
use odradek_storage::command::CommittedOffset;

use crate::context::Context;
use crate::topics::look_twice;

/// An offset as it was asked for.
pub(crate) struct AskedOffset<'a> {
    /// The partition's index.
    pub(crate) partition: PartitionIndex,
    /// The next record to read.
    pub(crate) offset: i64,
    /// Leader epoch of the last record read, -1 if unknown.
    pub(crate) leader_epoch: i32,
    /// What the client wants kept with it.
    pub(crate) metadata: Option<&'a StrBytes>,
}

/// Offsets that can be committed, and error codes for the others, by topic and partition as they
/// stand in the request.
#[derive(Default)]
pub(crate) struct CheckedOffsets {
    /// Those that can be committed.
    pub(crate) offsets: Vec<CommittedOffset>,
    codes: BTreeMap<(usize, usize), i16>,
}

impl CheckedOffsets {
    /// Looks whether the partitions exist and the metadata is short enough, unless all is
    /// `refused`.
    pub(crate) async fn of(
        context: &Context,
        topics: Vec<(&str, Vec<AskedOffset<'_>>)>,
        refused: Option<ResponseError>,
    ) -> Self {
        let metadata_bytes_max = context.broker_configs().offset_metadata_max_bytes;
        let mut checked = Self::default();
        for (topic_at, (name, partitions)) in topics.into_iter().enumerate() {
            let found = look_twice(context.machine(), |state| {
                state.topic_by_name(name).map(|topic| (topic.id, topic.partitions.len()))
            });
            let found = if refused.is_some() { Ok(None) } else { found.await };
            for (at, asked) in partitions.into_iter().enumerate() {
                let metadata = asked.metadata.map_or("", |it| it.as_str());
                let index = asked.partition;
                let exists =
                    |partitions| usize::try_from(index).is_ok_and(|index| index < partitions);
                let code = match (refused, &found) {
                    (Some(code), _) => code,
                    (None, Err(_)) => ResponseError::CoordinatorNotAvailable,
                    (None, _) if metadata.len() > metadata_bytes_max => {
                        ResponseError::OffsetMetadataTooLarge
                    }
                    (None, Ok(Some((topic, partitions)))) if exists(*partitions) => {
                        checked.offsets.push(CommittedOffset {
                            partition: TopicPartition { topic: *topic, partition: index },
                            offset: Offset(asked.offset.max(-1)),
                            leader_epoch: asked.leader_epoch,
                            metadata: metadata.to_owned(),
                        });
                        continue;
                    }
                    (None, Ok(_)) => ResponseError::UnknownTopicOrPartition,
                };
                checked.codes.insert((topic_at, at), code.code());
            }
        }
        checked
    }

    /// The code for the partition at this place; `committed` if it could be committed.
    pub(crate) fn code(&self, topic_at: usize, at: usize, committed: i16) -> i16 {
        self.codes.get(&(topic_at, at)).copied().unwrap_or(committed)
    }
}
