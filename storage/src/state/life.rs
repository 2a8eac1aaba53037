//! The life of data: extents replaced, topics branched, deleted and purged, records expired.

use std::collections::BTreeMap;

use odradek_protocol::id::{Offset, TopicId, TopicPartition};

use super::partition::{Content, Extent, Location, Partition};
use super::segments::Committed;
use super::topics::Topic;
use super::{Applied, State};
use crate::command::{Branch, FooterRef, NewExtent, Outcome, Rejection, Replacement};
use crate::segment::SegmentId;

impl State {
    /// Puts extents of `segment` in the place of others. What has changed since they were rewritten
    /// stays as it is; what nothing came in of waits to be swept.
    pub(super) fn replace_extents(
        &mut self,
        segment: SegmentId,
        bytes: u64,
        level: u8,
        replacements: &[Replacement],
    ) -> Outcome {
        if let Err(rejection) = self.admit_rewritten(segment, bytes) {
            return Outcome::Rejected(rejection);
        }
        let outcomes = self.replace_all(segment, bytes, level, replacements);
        if bytes > 0 {
            let committed = Committed { bytes, level, references: 0, by_footer: false };
            self.segments.commit(segment, committed, self.applied);
        }
        outcomes
    }

    /// Whether the segment is taken shows without the footer; what it replaces, with it alone.
    pub(super) fn replace_by_footer(
        &mut self,
        footer: &FooterRef,
        level: u8,
        replacements: Option<&[Replacement]>,
        applied: &mut Applied,
    ) -> Outcome {
        let FooterRef { segment, segment_bytes: bytes, .. } = *footer;
        if let Err(rejection) = self.admit_rewritten(segment, bytes) {
            return Outcome::Rejected(rejection);
        }
        if replacements.is_none() {
            applied.lacks = Some(segment);
        }
        let replacements = replacements.unwrap_or_default();
        let outcomes = self.replace_all(segment, bytes, level, replacements);
        let committed = Committed { bytes, level, references: 0, by_footer: true };
        self.segments.commit(segment, committed, self.applied);
        outcomes
    }

    fn admit_rewritten(&self, segment: SegmentId, bytes: u64) -> Result<(), Rejection> {
        self.segments.admit(segment, bytes)?;
        match self.segments.inline(segment) {
            Some(_) => {
                Err(Rejection::Malformed("a segment that came with its commit is no object"))
            }
            None => Ok(()),
        }
    }

    fn replace_all(
        &mut self,
        segment: SegmentId,
        bytes: u64,
        level: u8,
        replacements: &[Replacement],
    ) -> Outcome {
        let replace = |replacement| self.replace(segment, bytes, level, replacement);
        Outcome::ExtentsReplaced(replacements.iter().map(replace).collect())
    }

    fn replace(
        &mut self,
        segment: SegmentId,
        bytes: u64,
        level: u8,
        replacement: &Replacement,
    ) -> Result<(), Rejection> {
        let Replacement { from, to, inputs, .. } = *replacement;
        let partition = self.topics.partition_mut(replacement.partition)?;
        if !(from == to && replacement.extents.is_empty()) {
            let extents = placed(segment, bytes, replacement)?;
            let (come, gone) = partition.replace((from, to), inputs, extents)?;
            let references =
                come.iter().filter(|extent| extent.location().is_some()).map(|_| 1).sum();
            if references > 0 {
                // First, because what goes may lie in the same segment.
                let committed = Committed { bytes, level, references, by_footer: false };
                self.segments.commit(segment, committed, self.applied);
            }
            for segment in gone.iter().filter_map(Extent::segment) {
                self.segments.release(segment, self.applied);
            }
        }
        if let Some(cleaned) = replacement.cleaned {
            let partition = self.topics.partition_mut(replacement.partition)?;
            partition.finish_cleaning(cleaned);
        }
        Ok(())
    }

    /// Creates a topic that shares records with another.
    pub(super) fn branch_topic(
        &mut self,
        topic: TopicId,
        name: &str,
        replication_factor: u16,
        configs: &BTreeMap<String, String>,
        branch: &Branch,
    ) -> Result<(), Rejection> {
        let partitions = self.branches(branch)?;
        let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        self.change_topics(|topics| {
            topics.create(topic, name, count, replication_factor, configs)
        })?;
        for segment in partitions.iter().flat_map(segments) {
            self.segments.share(segment);
        }
        if let Some(topic) = self.topics.by_id.get_mut(&topic) {
            topic.partitions = partitions;
        }
        Ok(())
    }

    fn branches(&self, branch: &Branch) -> Result<Vec<Partition>, Rejection> {
        let parent = self.kept_topic(branch.of).ok_or(Rejection::UnknownTopic(branch.of))?;
        if branch.ends.len() != parent.partitions.len() {
            return Err(Rejection::Malformed("a branch has as many partitions as its parent"));
        }
        let ends = branch.ends.iter().zip(&parent.partitions);
        ends.map(|(end, partition)| {
            partition.branch(parent.id, end.unwrap_or(partition.last_stable_offset()))
        })
        .collect()
    }

    /// Deletes a topic: its name is free, and what is stable in it is kept until it is purged.
    pub(super) fn delete_topic(
        &mut self,
        id: TopicId,
        touched: &mut Vec<TopicPartition>,
    ) -> Result<(), Rejection> {
        let mut topic = self.change_topics(|topics| topics.delete(id))?;
        for (index, partition) in (0..).zip(&mut topic.partitions) {
            touched.push(TopicPartition { topic: id, partition: index });
            let stable = partition.last_stable_offset();
            // There is a branch there.
            let kept = partition.branch(id, stable).unwrap_or_default();
            for segment in segments(&kept) {
                self.segments.share(segment);
            }
            for segment in segments(partition) {
                self.segments.release(segment, self.applied);
            }
            *partition = kept;
        }
        if topic.partitions.iter().any(|partition| !partition.extents.is_empty()) {
            self.topics.keep(topic, self.applied, self.log_time_ms);
        }
        self.groups.forget_topic(id);
        self.transactions.forget_topic(id);
        Ok(())
    }

    /// Gives up what was kept of deleted topics.
    pub(super) fn purge_topics(&mut self, topics: &[TopicId]) {
        for topic in topics {
            let Some(deleted) = self.topics.deleted.remove(topic) else { continue };
            for segment in deleted.topic.partitions.iter().flat_map(segments) {
                self.segments.release(segment, self.applied);
            }
        }
    }

    /// Lets go of what is due, up to these offsets.
    pub(super) fn expire_records(
        &mut self,
        partitions: &[(TopicPartition, Offset)],
        touched: &mut Vec<TopicPartition>,
    ) {
        for (at, before) in partitions {
            let Some(topic) = self.topics.get(at.topic) else { continue };
            let retention = self.retention(topic);
            let now_ms = self.log_time_ms;
            let Ok(partition) = self.topics.partition_mut(*at) else { continue };
            let before = partition.due_before(&retention, now_ms).min(*before);
            if before <= partition.log_start {
                continue;
            }
            let Ok(gone) = partition.delete_records(Some(before)) else { continue };
            touched.push(*at);
            for segment in gone.iter().filter_map(Extent::segment) {
                self.segments.release(segment, self.applied);
            }
        }
    }

    /// A topic that lives, or was deleted and is not purged.
    pub fn kept_topic(&self, topic: TopicId) -> Option<&Topic> {
        let deleted = || self.topics.deleted.get(&topic).map(|deleted| &deleted.topic);
        self.topics.get(topic).or_else(deleted)
    }

    /// A partition of such a topic.
    pub fn kept_partition(&self, at: TopicPartition) -> Option<&Partition> {
        let index = usize::try_from(at.partition).ok()?;
        self.kept_topic(at.topic)?.partitions.get(index)
    }

    /// Topics that were deleted and are not purged, by id.
    pub fn deleted_topics(&self) -> &BTreeMap<TopicId, Deleted> {
        &self.topics.deleted
    }
}

/// A topic that was deleted: a branch of it brings back what was in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The topic, up to its last stable offsets.
    pub topic: Topic,
    /// The entry that deleted it.
    pub since: crate::lsn::Lsn,
    /// When that was, in milliseconds of log time.
    pub since_ms: i64,
}

fn segments(partition: &Partition) -> impl Iterator<Item = SegmentId> {
    partition.extents.iter().filter_map(Extent::segment)
}

/// The extents of a replacement, where they will be.
fn placed(
    segment: SegmentId,
    segment_bytes: u64,
    replacement: &Replacement,
) -> Result<Vec<Extent>, Rejection> {
    let mut next = replacement.from;
    let mut extents = Vec::with_capacity(replacement.extents.len());
    for NewExtent { records, max_timestamp, block } in replacement.extents.iter().copied() {
        if records == 0 || replacement.to.0.checked_sub(next.0).is_none_or(|it| it < 0) {
            return Err(Rejection::Malformed("a new extent is empty, or lies too far behind"));
        }
        let content = match block {
            None => Content::Gap,
            Some(block) => {
                let end = block.position.checked_add(u64::from(block.stored_bytes));
                let is_empty = block.stored_bytes == 0 || block.bytes == 0;
                if end.is_none_or(|end| end > segment_bytes) || is_empty {
                    let text = "a block is empty, or lies outside its segment";
                    return Err(Rejection::Malformed(text));
                }
                let (position, stored_bytes, bytes) =
                    (block.position, block.stored_bytes, block.bytes);
                Content::Merged(Location { segment, position, stored_bytes, skip: 0, bytes })
            }
        };
        extents.push(Extent { base: next, records, max_timestamp, content });
        next = next.advanced_by(records);
    }
    if next == replacement.to {
        Ok(extents)
    } else {
        Err(Rejection::Malformed("new extents take other offsets than those they replace"))
    }
}
