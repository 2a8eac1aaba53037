//! The state, and what lies in the store, as documents.

use std::collections::BTreeMap;

use odradek_protocol::id::TopicPartition;
use odradek_storage::fsck::Finding;
use odradek_storage::inspect::{BatchSeen, BlockSeen, SegmentSeen, Standing};
use odradek_storage::look::SnapshotSeen;
use odradek_storage::lsn::Lsn;
use odradek_storage::segment::SegmentId;
use odradek_storage::state::State;
use odradek_storage::state::groups::{Group, Membership};
use odradek_storage::state::life::Deleted;
use odradek_storage::state::partition::{Content, Extent, Partition};
use odradek_storage::state::topics::Topic;
use serde_json::{Map, Value, json};

use super::super::text;
use super::{Names, commands, count, fields};

/// Of how many segments that wait to be swept the times are looked up.
pub(super) const WAITING_NAMED_MAX: usize = 50;

/// What a snapshot holds.
pub(super) fn snapshot(
    state: &State,
    chosen: &SnapshotSeen,
    all: &[SnapshotSeen],
) -> Map<String, Value> {
    let broker = |(node, broker): (&_, &odradek_storage::state::brokers::Broker)| {
        json!({
            "node": odradek_protocol::id::NodeId::to_string(node),
            "address": broker.address.endpoint().to_string(),
            "zone": broker.address.zone,
            "incarnation": broker.incarnation.to_string(),
            "is_draining": broker.is_draining,
            "last_heard": broker.last_heard.get(),
        })
    };
    let other = |seen: &SnapshotSeen| {
        json!({
            "key": seen.key.as_str(),
            "bytes": seen.bytes,
            "damage": seen.judged.as_ref().err(),
        })
    };
    let segments = state.segments();
    fields(json!({
        "key": chosen.key.as_str(),
        "bytes": chosen.bytes,
        "entry": state.applied().get(),
        "digest": chosen.judged.as_ref().ok().map(|head| head.digest.to_string()),
        "cluster_id": state.cluster_id().to_string(),
        "log_id": state.log_id().to_string(),
        "level": state.level(),
        "log_time": text::time(state.log_time_ms()),
        "topics": state.topics().count(),
        "deleted_topics": state.deleted_topics().len(),
        "partitions": state.partitions_total(),
        "groups": state.groups().iter().count(),
        "transactional_ids": state.transactions().iter().count(),
        "segments": segments.referenced().len(),
        "segments_waiting": segments.unreferenced().len(),
        "inline_bytes": segments.inline_bytes(),
        "horizon": segments.horizon().get(),
        "brokers": state.brokers().iter().map(broker).collect::<Vec<_>>(),
        "snapshots": all.iter().map(other).collect::<Vec<_>>(),
    }))
}

/// All topics.
pub(super) fn topics(state: &State) -> Map<String, Value> {
    let one = |topic: &Topic| {
        let sum = |of: fn(&Partition) -> i64| topic.partitions.iter().map(of).sum::<i64>();
        let bytes: u64 = topic.partitions.iter().map(Partition::bytes).sum();
        json!({
            "topic": topic.name,
            "topic_id": topic.id.to_string(),
            "partitions": topic.partitions.len(),
            "offsets": sum(|it| it.high_watermark.0 - it.log_start.0),
            "bytes": bytes,
            "extents": sum(|it| i64::try_from(it.extents().count()).unwrap_or(i64::MAX)),
        })
    };
    let deleted = |deleted: &Deleted| {
        let mut topic = fields(one(&deleted.topic));
        topic.extend(fields(when(deleted)));
        Value::Object(topic)
    };
    fields(json!({
        "entry": state.applied().get(),
        "topics": state.topics().map(one).collect::<Vec<_>>(),
        "deleted": state.deleted_topics().values().map(deleted).collect::<Vec<_>>(),
    }))
}

fn when(deleted: &Deleted) -> Value {
    json!({ "deleted_by": deleted.since.get(), "deleted_at": text::time(deleted.since_ms) })
}

/// One topic, with its partitions or one of them.
pub(super) fn topic(
    state: &State,
    topic: &Topic,
    deleted: Option<&Deleted>,
    only: Option<i32>,
) -> Map<String, Value> {
    let names = Names::of(state);
    let partitions = (0..).zip(&topic.partitions).filter(|(at, _)| only.is_none_or(|it| it == *at));
    let partitions = partitions.map(|(at, it)| {
        partition(state, TopicPartition { topic: topic.id, partition: at }, it, &names)
    });
    let mut document = fields(json!({
        "topic": topic.name,
        "topic_id": topic.id.to_string(),
        "replication_factor": topic.replication_factor,
        "configs": topic.configs,
    }));
    document.extend(deleted.map(|it| fields(when(it))).unwrap_or_default());
    document.insert("partitions".to_owned(), Value::Array(partitions.collect()));
    document
}

fn partition(state: &State, own: TopicPartition, partition: &Partition, names: &Names) -> Value {
    let extents = partition.extents().map(|it| extent(state, own, partition, it, names));
    let open = partition.open_transactions().iter();
    let open = open.map(|(from, producer)| json!({ "from": from.0, "producer": producer.0 }));
    json!({
        "partition": own.partition,
        "log_start": partition.log_start.0,
        "last_stable_offset": partition.last_stable_offset().0,
        "high_watermark": partition.high_watermark.0,
        "bytes": partition.bytes(),
        "cleaned": Some(partition.cleaned().0).filter(|it| *it > 0),
        "producers": partition.producers().by_id().len(),
        "open_transactions": open.collect::<Vec<_>>(),
        "extents": extents.collect::<Vec<_>>(),
    })
}

fn extent(
    state: &State,
    own: TopicPartition,
    partition: &Partition,
    extent: &Extent,
    names: &Names,
) -> Value {
    let is_inline = extent.segment().is_some_and(|it| state.segments().inline(it).is_some());
    let holds = match &extent.content {
        Content::Batches(_) if is_inline => "inline",
        Content::Batches(_) => "batches",
        Content::Merged(_) => "merged",
        Content::Marker(marker) if marker.commits => "commit",
        Content::Marker(_) => "abort",
        Content::Gap => "gap",
    };
    let owner = partition.owner(own, extent.base);
    let location = extent.location();
    json!({
        "from": extent.base.0,
        "to": extent.end().0,
        "latest": text::time(extent.max_timestamp),
        "holds": holds,
        "bytes": extent.bytes(),
        "segment": extent.segment().map(|it| it.to_string()),
        "position": location.map(|it| it.position),
        "stored_bytes": location.map(|it| it.stored_bytes),
        "skip": location.map(|it| it.skip).filter(|skip| *skip > 0),
        "written_to": Some(owner).filter(|it| *it != own).map(|it| names.partition(it)),
    })
}

/// How many segments there are; and those that wait to be swept, with the times of entries.
pub(super) fn segments(state: &State, times: &BTreeMap<Lsn, Value>) -> Map<String, Value> {
    let segments = state.segments();
    let mut levels: BTreeMap<u8, (u64, u64, u64)> = BTreeMap::new();
    for refs in segments.referenced().values().filter(|it| it.inline.is_none()) {
        let (objects, bytes, references) = levels.entry(refs.level).or_default();
        *objects += 1;
        *bytes += refs.bytes;
        *references += refs.references;
    }
    let level = |(level, of): (&u8, &(u64, u64, u64))| {
        let (objects, bytes, references) = of;
        json!({ "level": level, "segments": objects, "bytes": bytes, "extents": references })
    };
    let waiting = |(id, waits): (&SegmentId, &odradek_storage::state::segments::Unreferenced)| {
        json!({
            "segment": id.to_string(),
            "key": id.key().as_str(),
            "bytes": waits.bytes,
            "since": waits.since.get(),
            "time": times.get(&waits.since),
            "may_be_swept": id.began < segments.horizon(),
        })
    };
    let inline = segments.referenced().values().filter(|it| it.inline.is_some()).count();
    fields(json!({
        "entry": state.applied().get(),
        "horizon": segments.horizon().get(),
        "levels": levels.iter().map(level).collect::<Vec<_>>(),
        "inline": { "segments": count(inline), "bytes": segments.inline_bytes() },
        "waiting": segments.unreferenced().iter().map(waiting).collect::<Vec<_>>(),
    }))
}

/// What is in a segment.
pub(super) fn segment(id: SegmentId, seen: &SegmentSeen, names: &Names) -> Map<String, Value> {
    let mut document = fields(json!({
        "segment": id.to_string(),
        "key": id.key().as_str(),
        "bytes": seen.bytes,
        "began": id.began.get(),
        "incarnation": id.incarnation.to_string(),
        "counter": id.counter,
    }));
    document.extend(fields(match seen.standing {
        Standing::Referenced { references, level, is_inline } => json!({
            "standing": if is_inline { "inline" } else { "referenced" },
            "extents": references,
            "level": level,
        }),
        Standing::Waiting(since) => json!({ "standing": "waiting", "since": since.get() }),
        Standing::Unknown => json!({ "standing": "unknown" }),
    }));
    let finding = |it: &Finding| {
        let (kind, what) = (it.damage.kind(), it.damage.to_string());
        json!({ "kind": kind, "what": what })
    };
    document.extend(fields(json!({
        "is_whole": seen.findings.is_empty(),
        "findings": seen.findings.iter().map(finding).collect::<Vec<_>>(),
        "blocks": seen.blocks.iter().map(|it| block(it, names)).collect::<Vec<_>>(),
    })));
    document
}

fn block(block: &BlockSeen, names: &Names) -> Value {
    let extents = block.extents.iter().map(|it| {
        json!({
            "partition": format!("{}-{}", it.name, it.partition.partition),
            "from": it.from.0,
            "to": it.to.0,
        })
    });
    let batches = block.batches.as_ref();
    json!({
        "position": block.position,
        "stored_bytes": block.stored_bytes,
        "partition": names.partition(block.owner),
        "damage": batches.err().map(ToString::to_string),
        "extents": extents.collect::<Vec<_>>(),
        "batches": batches.map(|it| it.iter().map(batch).collect::<Vec<_>>()).unwrap_or_default(),
    })
}

fn batch(batch: &BatchSeen) -> Value {
    let has_producer = batch.producer_id >= 0;
    let codec = match &batch.codec {
        Ok(codec) => format!("{codec:?}").to_lowercase(),
        Err(cause) => cause.to_string(),
    };
    json!({
        "position": batch.position,
        "bytes": batch.bytes,
        "base_offset": batch.base_offset,
        "offsets": batch.offsets,
        "records": batch.records,
        "latest": text::time(batch.max_timestamp),
        "codec": codec,
        "producer": has_producer.then_some(batch.producer_id),
        "epoch": has_producer.then_some(batch.producer_epoch),
        "sequence": has_producer.then_some(batch.base_sequence),
        "transactional": batch.is_transactional,
        "control": batch.is_control,
        "crc": match &batch.checked {
            Ok(()) => "good".to_owned(),
            Err(cause) => cause.to_string(),
        },
    })
}

/// A consumer group.
pub(super) fn group(state: &State, name: &str, group: &Group) -> Map<String, Value> {
    let names = Names::of(state);
    let mut document = fields(json!({
        "group": name,
        "revision": group.revision,
        "coordinator": state.coordinator_of(name).map(|node| node.to_string()),
    }));
    document.extend(fields(membership(&group.membership, &names)));
    let positions = group.positions.iter().map(|(at, position)| {
        let end = state.high_watermark(*at);
        json!({
            "partition": names.partition(*at),
            "offset": position.offset.0,
            "lag": end.map(|end| end.0.saturating_sub(position.offset.0)),
            "committed": text::time(position.committed_ms),
            "expires": position.expires_ms.map(text::time),
            "metadata": position.metadata,
        })
    });
    document.insert("offsets".to_owned(), Value::Array(positions.collect()));
    document
}

fn membership(membership: &Membership, names: &Names) -> Value {
    match membership {
        Membership::None => json!({ "protocol": "none" }),
        Membership::Classic(group) => {
            let members = group.members.iter().map(|(id, member)| {
                json!({
                    "member": id,
                    "instance_id": member.instance_id,
                    "client_id": member.client_id,
                    "client_host": member.client_host,
                    "assignment_bytes": member.assignment.len(),
                })
            });
            json!({
                "protocol": "classic",
                "protocol_type": group.protocol_type,
                "generation": group.generation,
                "assignor": group.protocol,
                "leader": group.leader,
                "is_assigned": group.is_assigned,
                "members": members.collect::<Vec<_>>(),
            })
        }
        Membership::Consumer(group) => {
            let members = group.members().iter().map(|(id, member)| {
                json!({
                    "member": id,
                    "instance_id": member.subscription.instance_id,
                    "client_id": member.subscription.client_id,
                    "client_host": member.subscription.client_host,
                    "topics": member.subscription.topics,
                    "regex": member.subscription.regex,
                    "epoch": member.current.epoch,
                    "assigned": commands::assignment(&member.current.assigned, names),
                    "revoking": commands::assignment(&member.current.revoking, names),
                    "target": commands::assignment(&member.target, names),
                })
            });
            json!({
                "protocol": "consumer",
                "phase": group.phase(),
                "epoch": group.epoch,
                "target_epoch": group.target_epoch,
                "members": members.collect::<Vec<_>>(),
            })
        }
    }
}
