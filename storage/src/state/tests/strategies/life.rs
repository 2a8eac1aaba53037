//! The life of data to draw: topics that branch and die, extents that are rewritten, segments that
//! grow old.
//!
//! What is drawn of a partition, a segment or an offset is mostly a number that says which of those
//! there are is meant; [`inform`] makes of it what somebody proposes who sees the state, or who saw
//! it some entries ago.

use std::collections::BTreeMap;

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

use super::{configs, footer_of, partition, segment_id, transactions};
use crate::command::{
    Branch, Command, ConfigChange, ConfigOperation, ConfigResource, NewBlock, NewExtent,
    Replacement, Run,
};
use crate::lsn::Lsn;
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::partition::{Extent, Partition};

/// Names and ids of topics that are ever used, so that they meet.
const TOPICS: u128 = 5;

/// What is drawn above this is meant as it is.
const LITERAL: u128 = 1_000_000;

/// The hash of a replacement says from how many entries ago it is; above this it is wrong.
const AGO_MAX: u64 = 4;

/// A command about the life of data that need not make any sense.
pub(super) fn nonsense() -> impl Strategy<Value = Command> {
    let before = prop_oneof![4 => 0..30_i64, 1 => any::<i64>()].prop_map(Offset);
    let expire = vec((partition(), before), 0..3)
        .prop_map(|partitions| Command::ExpireRecords { partitions });
    prop_oneof![
        3 => branch(option::of(prop_oneof![8 => 0..30_i64, 1 => any::<i64>()])),
        3 => replace_with(prop_oneof![8 => 0..30_i64, 1 => any::<i64>()].boxed()),
        1 => vec(topic(), 0..3).prop_map(|topics| Command::PurgeTopics { topics }),
        2 => inline(segment_id().boxed()),
        1 => prop_oneof![4 => 0..4_u64, 1 => any::<u64>()]
            .prop_map(|to| Command::RaiseHorizon { to: Lsn::new(to) }),
        1 => vec(segment_id(), 0..3).prop_map(|segments| Command::ForgetSegments { segments }),
        1 => expire,
    ]
}

/// A command about the life of data, before it is informed.
pub(super) fn command() -> impl Strategy<Value = Command> {
    let delete = topic().prop_map(|topic| Command::DeleteTopic { topic });
    let grow = topic().prop_map(|topic| Command::CreatePartitions { topic, total: 3 });
    let purge = vec(topic(), 0..3).prop_map(|topics| Command::PurgeTopics { topics });
    let before = (0..8_i64).prop_map(Offset);
    let drop = (partition_here(), option::weighted(0.9, before))
        .prop_map(|(partition, before)| Command::DeleteRecords { partition, before });
    let until = prop_oneof![3 => Just(i64::MAX), 2 => 0..8_i64].prop_map(Offset);
    let expire = vec((partition_here(), until), 1..4)
        .prop_map(|partitions| Command::ExpireRecords { partitions });
    let horizon = prop_oneof![8 => 0..10_u64, 1 => any::<u64>()]
        .prop_map(|back| Command::RaiseHorizon { to: Lsn::new(back) });
    let forget =
        vec(segment_here(), 0..4).prop_map(|segments| Command::ForgetSegments { segments });
    prop_oneof![
        24 => commit(),
        4 => inline(segment_here().boxed()),
        14 => replace_with(prop_oneof![1 => Just(0), 1 => 0..40_i64].boxed()),
        8 => branch(option::of(0..1000_i64)),
        4 => create(),
        3 => delete,
        2 => purge,
        1 => grow,
        5 => drop,
        6 => expire,
        4 => retention(),
        1 => horizon,
        3 => forget,
        12 => transactions::change_transaction(),
    ]
}

fn topic() -> impl Strategy<Value = TopicId> {
    prop_oneof![24 => 0..40_u128, 1 => LITERAL..LITERAL + 4]
        .prop_map(|number| TopicId(Uuid::from_u128(number)))
}

fn partition_here() -> impl Strategy<Value = TopicPartition> {
    let index = prop_oneof![24 => 0..2_i32, 1 => Just(-1), 1 => 2..5_i32];
    (topic(), index).prop_map(|(topic, partition)| TopicPartition { topic, partition })
}

/// `began` says how many entries ago; `counter` 3 stands for one that there is.
fn segment_here() -> impl Strategy<Value = SegmentId> {
    let again = prop_oneof![3 => 0..3_u64, 1 => Just(3)];
    (0..4_u64, 1..20_u64, again).prop_map(|(began, incarnation, counter)| {
        let incarnation = crate::command::Incarnation(incarnation);
        SegmentId { began: Lsn::new(began), incarnation, counter }
    })
}

fn create() -> impl Strategy<Value = Command> {
    (topic(), 0..TOPICS, 1..3_u32, retention_configs()).prop_map(
        |(topic, name, partitions, configs)| Command::CreateTopic {
            topic,
            name: format!("t{name}"),
            partitions,
            replication_factor: 1,
            configs,
        },
    )
}

fn branch(end: impl Strategy<Value = Option<i64>>) -> impl Strategy<Value = Command> {
    let ends = vec(end.prop_map(|end| end.map(Offset)), 0..4);
    (topic(), 0..TOPICS, configs(), topic(), ends).prop_map(|(topic, name, configs, of, ends)| {
        Command::BranchTopic {
            topic,
            name: format!("t{name}"),
            replication_factor: 2,
            configs,
            branch: Branch { of, ends },
        }
    })
}

fn commit() -> impl Strategy<Value = Command> {
    (segment_here(), vec(run(4000), 1..4)).prop_map(|(segment, runs)| Command::CommitSegment {
        segment,
        bytes: 5000,
        runs,
    })
}

fn run(position: u64) -> impl Strategy<Value = Run> {
    let batches = vec(transactions::batch(), 1..4);
    (partition_here(), 0..position, 37..100_u32, batches).prop_map(
        |(partition, position, stored_bytes, batches)| Run {
            partition,
            position,
            stored_bytes,
            batches,
        },
    )
}

fn inline(segment: BoxedStrategy<SegmentId>) -> impl Strategy<Value = Command> {
    let content = (100..200_usize, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]);
    (segment, content, vec(run(150), 0..3)).prop_map(|(segment, content, runs)| {
        Command::CommitInline { segment, content: Bytes::from(content), runs }
    })
}

/// `from` and `to` say which of the extents there are; their hash, when they were seen.
fn replace_with(offset: BoxedStrategy<i64>) -> impl Strategy<Value = Command> {
    let offset = || offset.clone().prop_map(Offset);
    let inputs = prop_oneof![12 => Just(0), 6 => 1..=AGO_MAX, 1 => any::<u64>()];
    let cleaned = option::weighted(0.3, offset());
    let head = (prop_oneof![12 => partition_here(), 1 => partition()], offset(), offset());
    let replacement = (head, inputs, vec(new_extent(), 0..5), cleaned).prop_map(
        |((partition, from, to), inputs, extents, cleaned)| Replacement {
            partition,
            from,
            to,
            inputs,
            extents,
            cleaned,
        },
    );
    let segment = prop_oneof![24 => segment_here(), 1 => segment_id()];
    (segment, 1..3_u8, vec(replacement, 1..4), prop::bool::weighted(0.3)).prop_map(
        |(segment, level, replacements, is_by_footer)| {
            if is_by_footer {
                let footer = footer_of(segment, 5000);
                Command::ReplaceByFooter { footer, level, replacements: Some(replacements) }
            } else {
                Command::ReplaceExtents { segment, bytes: 5000, level, replacements }
            }
        },
    )
}

fn new_extent() -> impl Strategy<Value = NewExtent> {
    let position = prop_oneof![24 => 0..4000_u64, 1 => any::<u64>()];
    let stored_bytes = prop_oneof![24 => 37..1000_u32, 1 => Just(0)];
    let bytes = prop_oneof![24 => 61..200_u32, 1 => Just(0)];
    let block = (position, stored_bytes, bytes)
        .prop_map(|(position, stored_bytes, bytes)| NewBlock { position, stored_bytes, bytes });
    let records = prop_oneof![24 => 1..8_u32, 1 => Just(0), 1 => any::<u32>()];
    let max_timestamp = prop_oneof![8 => 0..100_i64, 1 => Just(-1)];
    (records, max_timestamp, option::weighted(0.8, block))
        .prop_map(|(records, max_timestamp, block)| NewExtent { records, max_timestamp, block })
}

fn retention_configs() -> impl Strategy<Value = BTreeMap<String, String>> {
    vec(retention_config(), 0..3).prop_map(|configs| configs.into_iter().collect())
}

fn retention_config() -> impl Strategy<Value = (String, String)> {
    let value = |name: &'static str, values: &'static [&'static str]| {
        prop::sample::select(values).prop_map(move |value| (name.to_owned(), value.to_owned()))
    };
    prop_oneof![
        4 => value("retention.ms", &["0", "1000", "3000", "10000", "-1", "x"]),
        3 => value("retention.bytes", &["0", "150", "400", "-1", "x"]),
        1 => value("cleanup.policy", &["delete", "compact", "compact, delete"]),
    ]
}

fn retention() -> impl Strategy<Value = Command> {
    (option::weighted(0.8, topic()), retention_config(), prop::bool::weighted(0.8)).prop_map(
        |(topic, (name, value), is_set)| {
            let name = if topic.is_some() { name } else { format!("log.{name}") };
            let resource = topic.map_or(ConfigResource::Cluster, ConfigResource::Topic);
            let operation =
                if is_set { ConfigOperation::Set(value) } else { ConfigOperation::Delete };
            let changes = vec![ConfigChange { name, operation }];
            Command::AlterConfigs { resource, replace: false, changes }
        },
    )
}

/// Makes of what was drawn what somebody proposes who sees the last of `states`.
pub(super) fn inform(command: &mut Command, states: &[State]) {
    let Some(now) = states.last() else { return };
    match command {
        Command::CreateTopic { topic, .. } => *topic = unused(*topic, now),
        Command::BranchTopic { topic, branch, .. } => {
            *topic = unused(*topic, now);
            inform_branch(branch, now);
        }
        Command::DeleteTopic { topic } | Command::CreatePartitions { topic, .. } => {
            *topic = living(*topic, now);
        }
        Command::AlterConfigs { resource: ConfigResource::Topic(topic), .. } => {
            *topic = living(*topic, now);
        }
        Command::PurgeTopics { topics } => {
            for topic in topics {
                let deleted: Vec<_> = now.deleted_topics().keys().copied().collect();
                *topic = pick(topic.0.as_u128(), &deleted).unwrap_or(*topic);
            }
        }
        Command::CommitSegment { segment, bytes, runs } => {
            *segment = segment_of(*segment, now);
            *bytes = now.segments().bytes_of(*segment).unwrap_or(*bytes);
            inform_runs(runs, now);
        }
        Command::CommitInline { segment, runs, .. } => {
            *segment = segment_of(*segment, now);
            inform_runs(runs, now);
        }
        Command::ReplaceExtents { segment, bytes, replacements, .. } => {
            *segment = segment_of(*segment, now);
            *bytes = now.segments().bytes_of(*segment).unwrap_or(*bytes);
            replacements.iter_mut().for_each(|replacement| inform_replacement(replacement, states));
            let is_object = |it: &Replacement| it.extents.iter().any(|it| it.block.is_some());
            if !replacements.iter().any(is_object) {
                *bytes = 0;
            }
        }
        Command::ReplaceByFooter { footer, replacements: Some(replacements), .. } => {
            footer.segment = segment_of(footer.segment, now);
            footer.segment_bytes =
                now.segments().bytes_of(footer.segment).unwrap_or(footer.segment_bytes);
            replacements.iter_mut().for_each(|replacement| inform_replacement(replacement, states));
        }
        Command::RaiseHorizon { to } => {
            *to = Lsn::new(now.applied().get().wrapping_sub(to.get()));
        }
        Command::ForgetSegments { segments } => {
            for segment in segments {
                let waiting: Vec<_> = now.segments().unreferenced().keys().copied().collect();
                let number = u128::from(segment.incarnation.0);
                *segment = pick(number, &waiting).unwrap_or_else(|| segment_of(*segment, now));
            }
        }
        Command::DeleteRecords { partition, before } => {
            *partition = filled(*partition, now);
            if let Some((before, found)) = before.as_mut().zip(now.partition(*partition)) {
                before.0 += found.log_start.0;
            }
        }
        Command::ExpireRecords { partitions } => {
            for (partition, before) in partitions {
                *partition = filled(*partition, now);
                let first = now.partition(*partition).map_or(0, |it| it.log_start.0);
                before.0 = before.0.saturating_add(first);
            }
        }
        _ => {}
    }
}

fn pick<T: Copy>(number: u128, from: &[T]) -> Option<T> {
    let count = u128::try_from(from.len()).ok().filter(|count| *count > 0)?;
    let index = usize::try_from(number % count).ok()?;
    (number < LITERAL).then(|| from[index])
}

/// The least id that no topic has.
fn unused(topic: TopicId, now: &State) -> TopicId {
    let is_free = |id: &TopicId| now.topic(*id).is_none() && !now.deleted_topics().contains_key(id);
    let free = (1..1000).map(|number| TopicId(Uuid::from_u128(number))).find(is_free);
    free.filter(|_| topic.0.as_u128() > 1).unwrap_or(topic)
}

fn living(topic: TopicId, now: &State) -> TopicId {
    let living: Vec<_> = now.topics().map(|topic| topic.id).collect();
    pick(topic.0.as_u128(), &living).unwrap_or(topic)
}

fn partition_of(partition: TopicPartition, now: &State) -> TopicPartition {
    TopicPartition { topic: living(partition.topic, now), ..partition }
}

/// One that has something in it.
fn filled(partition: TopicPartition, now: &State) -> TopicPartition {
    let all = now.topics().flat_map(|topic| {
        let indexes = (0..).zip(&topic.partitions);
        let filled = indexes.filter(|(_, it)| it.extents().next().is_some());
        filled.map(|(partition, _)| TopicPartition { topic: topic.id, partition })
    });
    let all: Vec<_> = all.filter(|it| it.partition == partition.partition).collect();
    pick(partition.topic.0.as_u128(), &all).unwrap_or_else(|| partition_of(partition, now))
}

fn segment_of(segment: SegmentId, now: &State) -> SegmentId {
    let known = now.segments().referenced().keys().chain(now.segments().unreferenced().keys());
    let known: Vec<_> = known.copied().collect();
    let number = u128::from(segment.incarnation.0);
    if segment.counter == 3
        && let Some(known) = pick(number, &known)
    {
        return known;
    }
    let began = now.applied().get().saturating_sub(segment.began.get());
    SegmentId { began: Lsn::new(began), ..segment }
}

/// Records have the times of the last seconds, or none.
fn inform_runs(runs: &mut [Run], now: &State) {
    for run in runs {
        run.partition = partition_of(run.partition, now);
        for batch in &mut run.batches {
            batch.max_timestamp = time(batch.max_timestamp, now);
        }
    }
}

fn time(drawn: i64, now: &State) -> i64 {
    if drawn < 8 { -1 } else { now.log_time_ms() + 500 - drawn * 50 }
}

fn inform_branch(branch: &mut Branch, now: &State) {
    let number = branch.of.0.as_u128();
    let deleted: Vec<_> = now.deleted_topics().keys().copied().collect();
    let dead = pick(number / 3, &deleted).filter(|_| number.is_multiple_of(3));
    branch.of = dead.unwrap_or_else(|| living(branch.of, now));
    let of = branch.of;
    let deleted = now.deleted_topics().get(&of).map(|it| &it.topic);
    let Some(parent) = now.topic(of).or(deleted) else { return };
    let drawn = branch.ends.clone();
    let end = |(index, partition): (usize, &Partition)| {
        let drawn = drawn.get(index % drawn.len().max(1)).copied().flatten();
        drawn.map(|drawn| cut(drawn.0, partition))
    };
    let ends = parent.partitions.iter().enumerate().map(end);
    branch.ends = ends.skip(usize::from(drawn.len() == 3 && number == 7)).collect();
}

/// Somewhere in what is stable, mostly where an extent begins.
fn cut(drawn: i64, partition: &Partition) -> Offset {
    let (first, last) = (partition.log_start, partition.last_stable_offset());
    let inside = Offset(first.0 + drawn % (last.0 - first.0 + 1));
    match drawn {
        950.. => Offset(last.0 + 1),
        930.. => Offset(first.0 - 1),
        500.. => inside,
        _ => {
            let bases = partition.extents().map(|extent| extent.base);
            bases.filter(|base| *base <= inside).last().unwrap_or(inside).max(first)
        }
    }
}

fn inform_replacement(replacement: &mut Replacement, states: &[State]) {
    let Some(now) = states.last() else { return };
    replacement.partition = filled(replacement.partition, now);
    let ago = replacement.inputs;
    let back = usize::try_from(ago.min(AGO_MAX)).unwrap_or(0);
    let seen = &states[states.len().saturating_sub(1 + back)];
    let Some(partition) = seen.partition(replacement.partition) else { return };
    let extents: Vec<&Extent> = partition.extents().collect();
    if extents.is_empty() {
        return;
    }
    let nth = |drawn: Offset, count: usize| usize::try_from(drawn.0).unwrap_or(0) % count;
    let first = nth(replacement.from, extents.len());
    let last = first + nth(replacement.to, (extents.len() - first).min(4));
    if replacement.extents.is_empty() {
        replacement.to = extents[first].base;
        replacement.from = replacement.to;
        return;
    }
    (replacement.from, replacement.to) = (extents[first].base, extents[last].end());
    let hash = partition.hash_between(replacement.from, replacement.to);
    replacement.inputs = if ago <= AGO_MAX { hash.unwrap_or(ago) } else { ago };
    replacement.extents = tiled(&replacement.extents, replacement.from, replacement.to, now);
    if let Some(cleaned) = replacement.cleaned.as_mut().filter(|cleaned| cleaned.0 < 30) {
        *cleaned = replacement.to;
    }
}

/// As many extents as it takes, the last of which goes to the end.
fn tiled(drawn: &[NewExtent], from: Offset, to: Offset, now: &State) -> Vec<NewExtent> {
    let mut left = u32::try_from(to.0 - from.0).unwrap_or(u32::MAX);
    let mut tiles = Vec::new();
    for (index, extent) in drawn.iter().enumerate() {
        let is_last = index + 1 == drawn.len();
        let is_sound = extent.records > 0;
        let records = if is_last && is_sound { left } else { extent.records.min(left) };
        if left > 0 {
            let max_timestamp = time(extent.max_timestamp, now);
            tiles.push(NewExtent { records, max_timestamp, ..*extent });
            left -= records;
        }
    }
    tiles
}
