//! The stored form of what commands about the life of data carry.

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicId, TopicPartition};

use super::{CodecError, topic_id, wire};
use crate::command::life::{Branch, NewBlock, NewExtent, Replacement};
use crate::command::{Command, FooterRef, Run};
use crate::segment::SegmentId;

pub(super) fn replace_to_wire(
    segment: SegmentId,
    bytes: u64,
    level: u8,
    replacements: &[Replacement],
) -> wire::ReplaceExtents {
    wire::ReplaceExtents {
        segment: Some(segment.into()),
        bytes,
        level: u32::from(level),
        replacements: replacements.iter().map(Into::into).collect(),
    }
}

pub(super) fn replace_from_wire(replace: wire::ReplaceExtents) -> Result<Command, CodecError> {
    Ok(Command::ReplaceExtents {
        segment: replace.segment.ok_or(CodecError::Field("segment"))?.into(),
        bytes: replace.bytes,
        level: u8::try_from(replace.level).map_err(|_| CodecError::Field("level"))?,
        replacements: replace
            .replacements
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<_, _>>()?,
    })
}

pub(super) fn by_footer_to_wire(footer: FooterRef, level: u8) -> wire::ReplaceByFooter {
    wire::ReplaceByFooter { footer: Some(footer.into()), level: u32::from(level) }
}

pub(super) fn by_footer_from_wire(replace: wire::ReplaceByFooter) -> Result<Command, CodecError> {
    Ok(Command::ReplaceByFooter {
        footer: replace.footer.ok_or(CodecError::Field("footer"))?.try_into()?,
        level: u8::try_from(replace.level).map_err(|_| CodecError::Field("level"))?,
        replacements: None,
    })
}

pub(super) fn inline_to_wire(
    segment: SegmentId,
    content: &Bytes,
    runs: &[Run],
) -> wire::CommitInline {
    let (segment, content) = (Some(segment.into()), content.clone());
    wire::CommitInline { segment, content, runs: runs.iter().map(Into::into).collect() }
}

pub(super) fn inline_from_wire(commit: wire::CommitInline) -> Result<Command, CodecError> {
    Ok(Command::CommitInline {
        segment: commit.segment.ok_or(CodecError::Field("segment"))?.into(),
        content: commit.content,
        runs: commit.runs.into_iter().map(super::run).collect::<Result<_, _>>()?,
    })
}

pub(super) fn branch_to_wire(
    topic: TopicId,
    name: &str,
    replication_factor: u16,
    configs: &std::collections::BTreeMap<String, String>,
    branch: &Branch,
) -> wire::BranchTopic {
    wire::BranchTopic {
        topic: topic.as_bytes().to_vec(),
        name: name.to_owned(),
        replication_factor: u32::from(replication_factor),
        configs: configs.clone(),
        of: branch.of.as_bytes().to_vec(),
        ends: branch.ends.iter().map(|end| wire::BranchEnd { at: end.map(|end| end.0) }).collect(),
    }
}

pub(super) fn branch_from_wire(branch: wire::BranchTopic) -> Result<Command, CodecError> {
    Ok(Command::BranchTopic {
        topic: topic_id(&branch.topic)?,
        name: branch.name,
        replication_factor: u16::try_from(branch.replication_factor)
            .map_err(|_| CodecError::Field("replication_factor"))?,
        configs: branch.configs,
        branch: Branch {
            of: topic_id(&branch.of)?,
            ends: branch.ends.into_iter().map(|end| end.at.map(Offset)).collect(),
        },
    })
}

pub(super) fn delete_to_wire(
    partition: TopicPartition,
    before: Option<Offset>,
) -> wire::DeleteRecords {
    let TopicPartition { topic, partition } = partition;
    let topic = topic.as_bytes().to_vec();
    wire::DeleteRecords { topic, partition, before: before.map(|offset| offset.0) }
}

pub(super) fn expire_to_wire(partitions: &[(TopicPartition, Offset)]) -> wire::ExpireRecords {
    let one =
        |(partition, before): &(TopicPartition, Offset)| delete_to_wire(*partition, Some(*before));
    wire::ExpireRecords { partitions: partitions.iter().map(one).collect() }
}

pub(super) fn expire_from_wire(expire: wire::ExpireRecords) -> Result<Command, CodecError> {
    let one = |it: wire::DeleteRecords| {
        let topic = topic_id(&it.topic)?;
        let before = it.before.ok_or(CodecError::Field("before"))?;
        Ok((TopicPartition { topic, partition: it.partition }, Offset(before)))
    };
    let partitions = expire.partitions.into_iter().map(one).collect::<Result<_, CodecError>>()?;
    Ok(Command::ExpireRecords { partitions })
}

impl From<&Replacement> for wire::Replacement {
    fn from(replacement: &Replacement) -> Self {
        Self {
            topic: replacement.partition.topic.as_bytes().to_vec(),
            partition: replacement.partition.partition,
            from: replacement.from.0,
            to: replacement.to.0,
            inputs: replacement.inputs,
            extents: replacement.extents.iter().map(Into::into).collect(),
            cleaned: replacement.cleaned.map(|offset| offset.0),
        }
    }
}

impl TryFrom<wire::Replacement> for Replacement {
    type Error = CodecError;

    fn try_from(stored: wire::Replacement) -> Result<Self, CodecError> {
        Ok(Self {
            partition: TopicPartition {
                topic: topic_id(&stored.topic)?,
                partition: stored.partition,
            },
            from: Offset(stored.from),
            to: Offset(stored.to),
            inputs: stored.inputs,
            extents: stored.extents.into_iter().map(Into::into).collect(),
            cleaned: stored.cleaned.map(Offset),
        })
    }
}

impl From<&NewExtent> for wire::NewExtent {
    fn from(extent: &NewExtent) -> Self {
        Self {
            records: extent.records,
            max_timestamp: extent.max_timestamp,
            block: extent.block.map(|block| wire::NewBlock {
                position: block.position,
                stored_bytes: block.stored_bytes,
                bytes: block.bytes,
            }),
        }
    }
}

impl From<wire::NewExtent> for NewExtent {
    fn from(stored: wire::NewExtent) -> Self {
        Self {
            records: stored.records,
            max_timestamp: stored.max_timestamp,
            block: stored.block.map(|block| NewBlock {
                position: block.position,
                stored_bytes: block.stored_bytes,
                bytes: block.bytes,
            }),
        }
    }
}
