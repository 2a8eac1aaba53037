//! The life of data, in the most naive way: what is shared is copied, and what is replaced is
//! looked at piece by piece.

use std::collections::BTreeMap;

use odradek_protocol::id::{Offset, TopicId, TopicPartition};

use super::{Model, ModelPartition, ModelSegment, ModelTopic, compare_partition, find, malformed};
use crate::command::{Branch, Command, FooterRef, NewExtent, Outcome, Rejection, Replacement};
use crate::lsn::Lsn;
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::partition::{Content, Extent, Location, Partition};

const WEEK_MS: i64 = 604_800_000;

/// A topic that was deleted, with what was stable in it.
#[derive(Clone, Debug)]
pub(super) struct ModelDeleted {
    pub(super) topic: ModelTopic,
    since: Lsn,
    since_ms: i64,
}

/// What lay in partitions from some offset to another when somebody looked, by the hash that he was
/// given.
pub(super) type Looked = BTreeMap<(TopicPartition, Offset, Offset, u64), Vec<Extent>>;

impl ModelPartition {
    fn is_empty(&self) -> bool {
        self.end() <= self.log_start
    }

    /// What lies from some offset to another.
    fn between(&self, from: Offset, to: Offset) -> Vec<Extent> {
        let inside = self.stay().filter(|piece| piece.base >= from && piece.end() <= to);
        inside.copied().collect()
    }

    /// Where the oldest record is that must not go yet.
    fn due(&self, stable: i64, keep_ms: Option<i64>, keep_bytes: Option<u64>, now_ms: i64) -> i64 {
        let pieces: Vec<&Extent> = self.stay().collect();
        let mut due = self.log_start;
        for (index, piece) in pieces.iter().enumerate() {
            // Of what was cut off the bytes may be the parent's alone.
            let counted = |it: &&&Extent| !self.cuts.contains(&it.end().0);
            let behind = pieces[index + 1..].iter().filter(counted);
            let behind: u64 = behind.map(|it| u64::from(it.bytes())).sum();
            let is_too_much = keep_bytes.is_some_and(|keep| behind >= keep);
            let has_time = piece.max_timestamp >= 0;
            let is_old = keep_ms.is_some_and(|keep| {
                i128::from(now_ms) - i128::from(piece.max_timestamp) > i128::from(keep)
            });
            if piece.end().0 > stable {
                break;
            }
            match (is_too_much, has_time, is_old) {
                (true, ..) | (false, true, true) => due = piece.end().0,
                (false, false, _) => {}
                (false, true, false) => break,
            }
        }
        due
    }
}

impl Model {
    /// Somebody may look at `state`, which is what the model has come to, and replace later what he
    /// has seen.
    pub(in super::super) fn look<'a>(
        &mut self,
        state: &State,
        replacements: impl IntoIterator<Item = &'a Replacement>,
    ) {
        for &Replacement { partition, from, to, inputs, .. } in replacements {
            let hash = state.partition(partition).and_then(|it| it.hash_between(from, to));
            if hash == Some(inputs) {
                let seen = find(&mut self.topics, partition).unwrap().between(from, to);
                self.looked.insert((partition, from, to, inputs), seen);
            }
        }
    }

    pub(super) fn live(&mut self, command: &Command) -> Outcome {
        match command {
            Command::BranchTopic { topic, name, replication_factor, configs, branch } => {
                match self.branches(*topic, branch) {
                    Ok(partitions) => {
                        let count = u32::try_from(partitions.len()).unwrap();
                        let rest = (*replication_factor, configs);
                        let created = self.create_with(*topic, name, count, rest);
                        if created == Outcome::Done {
                            self.topics.get_mut(topic).unwrap().partitions = partitions;
                        }
                        created
                    }
                    Err(rejection) => Outcome::Rejected(rejection),
                }
            }
            Command::PurgeTopics { topics } => {
                self.deleted.retain(|id, _| !topics.contains(id));
                Outcome::Done
            }
            Command::CommitInline { segment, content, runs } => {
                if self.segments.contains_key(segment) {
                    return malformed();
                }
                let bytes = u64::try_from(content.len()).unwrap();
                let inline = Some(content.clone());
                self.segments.insert(*segment, ModelSegment { inline, ..self.fresh(bytes, 0) });
                self.commit_runs(*segment, bytes, runs)
            }
            Command::ReplaceExtents { segment, bytes, level, replacements } => {
                self.replace(*segment, *bytes, *level, replacements)
            }
            Command::ReplaceByFooter { footer, level, replacements } => {
                let FooterRef { segment, segment_bytes: bytes, .. } = *footer;
                let outcome = self.replace(segment, bytes, *level, replacements.as_ref().unwrap());
                self.note_footer(segment, &outcome);
                outcome
            }
            Command::RaiseHorizon { to } => {
                self.horizon = self.horizon.max(*to.min(&self.lsn));
                Outcome::Done
            }
            Command::ForgetSegments { segments } => {
                self.segments.retain(|id, segment| {
                    segment.references || id.began >= self.horizon || !segments.contains(id)
                });
                Outcome::Done
            }
            Command::ExpireRecords { partitions } => {
                partitions.iter().for_each(|(at, before)| self.expire_one(*at, before.0));
                Outcome::Done
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn fresh(&self, bytes: u64, offered_level: u8) -> ModelSegment {
        let (since, inline) = (self.lsn, None);
        let by_footer = false;
        ModelSegment { bytes, references: false, since, level: 0, offered_level, inline, by_footer }
    }

    /// A segment is named by a commit, or by what is replaced: a reason why it can't be.
    pub(super) fn name_segment(&mut self, id: SegmentId, bytes: u64, level: u8) -> Option<Outcome> {
        let (began, horizon) = (id.began, self.horizon);
        if began < horizon {
            return Some(Outcome::Rejected(Rejection::SegmentTooOld { began, horizon }));
        }
        let fresh = self.fresh(bytes, level);
        let known = self.segments.entry(id).or_insert(fresh);
        if known.bytes != bytes {
            return Some(malformed());
        }
        known.offered_level = level;
        None
    }

    /// A command has left what it says to a footer of a segment: it is kept for that.
    pub(super) fn note_footer(&mut self, id: SegmentId, outcome: &Outcome) {
        if let Outcome::SegmentCommitted(_) | Outcome::ExtentsReplaced(_) = outcome {
            let lsn = self.lsn;
            let segment = self.segments.get_mut(&id).unwrap();
            segment.by_footer = true;
            if !segment.references {
                segment.since = lsn;
            }
        }
    }

    pub(super) fn delete(&mut self, id: TopicId) -> Outcome {
        let Some(mut topic) = self.topics.remove(&id) else {
            return Outcome::Rejected(Rejection::UnknownTopic(id));
        };
        for partition in &mut topic.partitions {
            let stable = self.transactions.stable(partition);
            *partition = self.transactions.branch(id, partition, stable);
        }
        if !topic.partitions.iter().all(ModelPartition::is_empty) {
            let deleted = ModelDeleted { topic, since: self.lsn, since_ms: self.now_ms };
            self.deleted.insert(id, deleted);
        }
        self.groups.forget_topic(id);
        self.transactions.forget_topic(id);
        Outcome::Done
    }

    fn branches(&self, own: TopicId, branch: &Branch) -> Result<Vec<ModelPartition>, Rejection> {
        let deleted = self.deleted.get(&branch.of).map(|it| &it.topic);
        let parent = self.topics.get(&branch.of).or(deleted);
        let parent = parent.ok_or(Rejection::UnknownTopic(branch.of))?;
        if branch.ends.len() != parent.partitions.len() {
            return Err(Rejection::Malformed(""));
        }
        let mut partitions = Vec::new();
        for (partition, end) in parent.partitions.iter().zip(&branch.ends) {
            let (first, last) = (partition.log_start, self.transactions.stable(partition));
            let end = end.map_or(last, |end| end.0);
            if !(first..=last).contains(&end) {
                let [offset, first, last] = [end, first, last].map(Offset);
                return Err(Rejection::OffsetOutOfRange { offset, first, last });
            }
            partitions.push(self.transactions.branch(own, partition, end));
        }
        Ok(partitions)
    }

    fn replace(
        &mut self,
        segment: SegmentId,
        bytes: u64,
        level: u8,
        replacements: &[Replacement],
    ) -> Outcome {
        let is_new = !self.segments.contains_key(&segment);
        if let Some(rejected) = self.name_segment(segment, bytes, level) {
            return rejected;
        }
        if self.segments.get(&segment).is_some_and(|known| known.inline.is_some()) {
            return malformed();
        }
        if bytes == 0 && is_new {
            self.segments.remove(&segment);
        }
        let mut outcomes = Vec::new();
        for replacement in replacements {
            outcomes.push(self.replace_one(segment, bytes, replacement));
            self.count_references();
        }
        if bytes > 0 {
            // Whatever was held of that name before: now there is an object.
            let fresh = self.fresh(bytes, level);
            self.segments.entry(segment).or_insert(fresh);
        }
        Outcome::ExtentsReplaced(outcomes)
    }

    fn replace_one(
        &mut self,
        segment: SegmentId,
        segment_bytes: u64,
        replacement: &Replacement,
    ) -> Result<(), Rejection> {
        let &Replacement { partition: at, from, to, inputs, .. } = replacement;
        let partition = find(&mut self.topics, at)?;
        if from != to || !replacement.extents.is_empty() {
            let mut come = Vec::new();
            let mut base = i128::from(from.0);
            for &NewExtent { records, max_timestamp, block } in &replacement.extents {
                let content = match block {
                    None => Content::Gap,
                    Some(block) => {
                        let end = u128::from(block.position) + u128::from(block.stored_bytes);
                        let fits = end <= u128::from(segment_bytes);
                        if !fits || block.bytes == 0 || block.stored_bytes == 0 {
                            return Err(Rejection::Malformed(""));
                        }
                        Content::Merged(Location {
                            segment,
                            position: block.position,
                            stored_bytes: block.stored_bytes,
                            skip: 0,
                            bytes: block.bytes,
                        })
                    }
                };
                if records == 0 {
                    return Err(Rejection::Malformed(""));
                }
                let first = Offset(i64::try_from(base).unwrap_or(i64::MAX));
                come.push(Extent { base: first, records, max_timestamp, content });
                base += i128::from(records);
            }
            if base != i128::from(to.0) {
                return Err(Rejection::Malformed(""));
            }
            let seen = self.looked.get(&(at, from, to, inputs));
            if seen != Some(&partition.between(from, to)) {
                return Err(Rejection::ExtentsChanged { from, to });
            }
            partition.pieces.retain(|piece| piece.end() <= from || piece.base >= to);
            partition.pieces.extend(come);
            partition.pieces.sort_by_key(|piece| piece.base);
        }
        if let Some(cleaned) = replacement.cleaned {
            let partition = find(&mut self.topics, at)?;
            let cleaned = cleaned.0.min(self.transactions.stable(partition));
            partition.cleaned = partition.cleaned.max(cleaned);
            self.transactions.forget_aborted(partition);
        }
        Ok(())
    }

    fn expire_one(&mut self, at: TopicPartition, before: i64) {
        let Some(topic) = self.topics.get(&at.topic) else { return };
        let config = |name: &str| {
            let cluster = self.cluster_configs.get(&format!("log.{name}"));
            topic.configs.get(name).or(cluster)
        };
        let policy = config("cleanup.policy").map_or("delete", |it| it.as_str());
        if policy.split(',').all(|it| it.trim() != "delete") {
            return;
        }
        let keep_ms = config("retention.ms").and_then(|it| it.parse::<i64>().ok());
        let keep_ms = Some(keep_ms.unwrap_or(WEEK_MS)).filter(|ms| *ms >= 0);
        let keep_bytes = config("retention.bytes").and_then(|it| it.parse::<u64>().ok());
        let Ok(partition) = find(&mut self.topics, at) else { return };
        let stable = self.transactions.stable(partition);
        let due = partition.due(stable, keep_ms, keep_bytes, self.now_ms);
        partition.log_start = partition.log_start.max(due.min(before));
    }

    pub(super) fn compare_deleted(&self, state: &State) {
        assert_eq!(state.deleted_topics().len(), self.deleted.len());
        for (id, expected) in &self.deleted {
            let found = &state.deleted_topics()[id];
            assert_eq!((found.since, found.since_ms), (expected.since, expected.since_ms));
            assert_eq!(found.topic.name, expected.topic.name);
            assert_eq!(found.topic.configs, expected.topic.configs);
            assert_eq!(found.topic.replication_factor, expected.topic.replication_factor);
            assert_eq!(found.topic.partitions.len(), expected.topic.partitions.len());
            let pairs = found.topic.partitions.iter().zip(&expected.topic.partitions);
            for (partition, (found, expected)) in (0..).zip(pairs) {
                compare_partition(found, expected);
                compare_owners(found, TopicPartition { topic: *id, partition }, expected);
                self.transactions.compare_partition(found, expected);
            }
        }
    }

    pub(super) fn compare_segments(&self, state: &State) {
        let segments = state.segments();
        assert_eq!(segments.horizon(), self.horizon);
        for (id, expected) in &self.segments {
            let found = segments.referenced().get(id);
            let found = found.map(|it| (it.bytes, it.level, it.inline.clone(), it.by_footer));
            let ModelSegment { bytes, references, since, level, inline, by_footer, .. } =
                expected.clone();
            let referenced = references.then(|| (bytes, level, inline.clone(), by_footer));
            assert_eq!(found, referenced, "{id}");
            let waiting = segments.unreferenced().get(id);
            let waiting = waiting.map(|it| (it.bytes, it.since, it.by_footer));
            assert_eq!(waiting, (!references).then_some((bytes, since, by_footer)), "{id}");
            assert_eq!(segments.inline(*id), inline.as_ref(), "{id}");
        }
        let known = segments.referenced().len() + segments.unreferenced().len();
        assert_eq!(known, self.segments.len());
        let inline = self.segments.values().filter_map(|it| it.inline.as_ref());
        let inline: u64 = inline.map(|it| u64::try_from(it.len()).unwrap()).sum();
        assert_eq!(segments.inline_bytes(), inline);
    }
}

/// Whether the state knows whose every batch was that may still lie somewhere.
pub(super) fn compare_owners(found: &Partition, own: TopicPartition, expected: &ModelPartition) {
    let first = found.extents().next().map_or(expected.log_start, |extent| extent.base.0);
    for batch in expected.history.iter().filter(|batch| batch.base >= first) {
        let owner = TopicPartition { topic: batch.owner, ..own };
        assert_eq!(found.owner(own, Offset(batch.base)), owner, "at {}", batch.base);
    }
}
