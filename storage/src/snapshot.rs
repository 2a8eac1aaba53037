//! Snapshots: the state at one position of the log, as bytes.
//!
//! The payload is canonical: equal states have equal bytes, so that its hash is the state's digest
//! and two snapshots of one position are one object. Writing and finding them is the `machine`'s
//! business.

use std::collections::BTreeMap;

use bytes::Bytes;
use odradek_protocol::id::{NodeId, Offset, ProducerId, TopicId};
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use crate::command::codec::transactions::producer_from_wire;
use crate::command::codec::{CodecError, topic_id, uuid};
use crate::command::{Digest, Endpoint, EntryHash, Incarnation};
use crate::envelope::Format;
use crate::key::ObjectKey;
use crate::lsn::Lsn;
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::brokers::{AppliedCommands, Broker, Brokers};
use crate::state::configs::Configs;
use crate::state::life::Deleted;
use crate::state::partition::{AbortedTransaction, Content, Extent, Location, Marker, Partition};
use crate::state::producers::{Producer, SeenBatch};
use crate::state::segments::{SegmentRefs, Segments, Unreferenced};
use crate::state::topics::{Topic, Topics};

mod groups;
mod transactions;
mod wire;

/// The format of snapshots.
pub const SNAPSHOT_FORMAT: Format = Format { magic: *b"ODRP", version: 1 };

/// Prefix of all snapshots' keys.
pub const SNAPSHOT_PREFIX: &str = "snapshot/";

/// The name of a snapshot: the newest is the last of a listing.
pub fn snapshot_key(lsn: Lsn, digest: Digest) -> ObjectKey {
    let key = format!("{SNAPSHOT_PREFIX}{:020}-{digest}", lsn.get());
    ObjectKey::new(key).expect("digits make a legal key")
}

/// The position that a snapshot's name gives; `None` if it is no snapshot's name.
pub fn snapshot_lsn(key: &ObjectKey) -> Option<Lsn> {
    let (lsn, _) = key.as_str().strip_prefix(SNAPSHOT_PREFIX)?.split_once('-')?;
    lsn.parse().ok().map(Lsn::new)
}

impl State {
    /// Hash over everything in the state.
    pub fn digest(&self) -> Digest {
        Digest(xxh3_64(&self.payload()))
    }

    /// The state as a snapshot, with its digest.
    pub fn to_snapshot(&self) -> (Bytes, Digest) {
        let payload = self.payload();
        (SNAPSHOT_FORMAT.seal(&payload), Digest(xxh3_64(&payload)))
    }

    /// Reads a snapshot back.
    ///
    /// One that would not be written again with the same bytes is refused: it holds something that
    /// this release does not know and would lose.
    pub fn from_snapshot(bytes: &Bytes) -> Result<Self, CodecError> {
        let (_, payload) = SNAPSHOT_FORMAT.open(bytes)?;
        let state = decode(wire::Snapshot::decode(payload.clone())?)?;
        if !state.references_agree() {
            return Err(CodecError::Field("references"));
        }
        if state.payload() != payload {
            return Err(CodecError::NotCanonical);
        }
        Ok(state)
    }

    /// SEG-1, counted again.
    fn references_agree(&self) -> bool {
        let mut counted: BTreeMap<SegmentId, u64> = BTreeMap::new();
        let deleted = self.topics.deleted.values().map(|deleted| &deleted.topic);
        let topics = self.topics.by_id.values().chain(deleted);
        let partitions = topics.flat_map(|topic| &topic.partitions);
        let extents = partitions.flat_map(|partition| &partition.extents);
        for segment in extents.filter_map(Extent::segment) {
            *counted.entry(segment).or_default() += 1;
        }
        let stored = self.segments.referenced.iter().map(|(id, refs)| (id, &refs.references));
        counted.iter().eq(stored)
    }

    fn payload(&self) -> Vec<u8> {
        encode(self).encode_to_vec()
    }
}

fn encode(state: &State) -> wire::Snapshot {
    let segments: Vec<SegmentId> = state.segments.referenced.keys().copied().collect();
    wire::Snapshot {
        cluster_id: state.cluster_id.as_bytes().to_vec(),
        log_id: state.log_id.as_bytes().to_vec(),
        level: state.level,
        applied: state.applied.get(),
        last_hash: state.last_hash.0,
        log_time_ms: state.log_time_ms,
        next_producer_id: state.next_producer_id,
        last_node_id: state.brokers.last_node_id,
        offices_changed: state.brokers.changed.get(),
        brokers: state.brokers.by_node.iter().map(broker_to_wire).collect(),
        topics: state.topics.by_id.values().map(|topic| topic_to_wire(topic, &segments)).collect(),
        segments: state.segments.referenced.iter().map(referenced_to_wire).collect(),
        unreferenced: state.segments.unreferenced.iter().map(unreferenced_to_wire).collect(),
        cluster_configs: state.configs.cluster.clone(),
        broker_configs: state
            .configs
            .brokers
            .iter()
            .map(|(node, configs)| wire::BrokerConfigs { node: node.0, configs: configs.clone() })
            .collect(),
        groups: groups::to_wire(&state.groups),
        last_group_revision: state.groups.last_revision,
        topics_changed: state.topics.changed.get(),
        group_configs: named_to_wire(&state.configs.groups),
        client_metrics_configs: named_to_wire(&state.configs.client_metrics),
        left_incarnations: state.brokers.left.iter().map(|left| left.0).collect(),
        departed: state.brokers.departed.iter().map(departed_to_wire).collect(),
        has_claimed_store: state.has_claimed_store,
        transactions: transactions::to_wire(&state.transactions),
        last_transaction: state.transactions.last_number,
        purge_transactions_at: state.transactions.purge_at,
        purge_producers_at: state.topics.purge_producers_at,
        horizon: state.segments.horizon().get(),
        deleted: state.topics.deleted.values().map(|it| deleted_to_wire(it, &segments)).collect(),
    }
}

fn named_to_wire(all: &BTreeMap<String, BTreeMap<String, String>>) -> Vec<wire::NamedConfigs> {
    let one = |(name, configs): (&String, &BTreeMap<String, String>)| wire::NamedConfigs {
        name: name.clone(),
        configs: configs.clone(),
    };
    all.iter().map(one).collect()
}

fn broker_to_wire((node, broker): (&NodeId, &Broker)) -> wire::Broker {
    wire::Broker {
        node: node.0,
        incarnation: broker.incarnation.0,
        address: Some((&broker.address).into()),
        is_draining: broker.is_draining,
        last_heard: broker.last_heard.get(),
        commands_floor: broker.commands.floor,
        commands_above: broker.commands.above.iter().copied().collect(),
    }
}

fn departed_to_wire((node, at): &(NodeId, Endpoint)) -> wire::Departed {
    wire::Departed { node: node.0, at: Some(at.into()) }
}

fn referenced_to_wire((id, refs): (&SegmentId, &SegmentRefs)) -> wire::Segment {
    wire::Segment {
        id: Some((*id).into()),
        bytes: refs.bytes,
        references: refs.references,
        since: 0,
        level: u32::from(refs.level),
        inline: refs.inline.clone(),
        by_footer: refs.by_footer,
    }
}

fn unreferenced_to_wire((id, unreferenced): (&SegmentId, &Unreferenced)) -> wire::Segment {
    wire::Segment {
        id: Some((*id).into()),
        bytes: unreferenced.bytes,
        references: 0,
        since: unreferenced.since.get(),
        level: 0,
        inline: None,
        by_footer: unreferenced.by_footer,
    }
}

fn topic_to_wire(topic: &Topic, segments: &[SegmentId]) -> wire::Topic {
    wire::Topic {
        id: topic.id.as_bytes().to_vec(),
        name: topic.name.clone(),
        replication_factor: u32::from(topic.replication_factor),
        configs: topic.configs.clone(),
        partitions: topic.partitions.iter().map(|it| partition_to_wire(it, segments)).collect(),
    }
}

fn deleted_to_wire(deleted: &Deleted, segments: &[SegmentId]) -> wire::Deleted {
    wire::Deleted {
        topic: Some(topic_to_wire(&deleted.topic, segments)),
        since: deleted.since.get(),
        since_ms: deleted.since_ms,
    }
}

fn partition_to_wire(partition: &Partition, segments: &[SegmentId]) -> wire::Partition {
    wire::Partition {
        log_start: partition.log_start.0,
        high_watermark: partition.high_watermark.0,
        first_base: partition.extents.front().map_or(0, |extent| extent.base.0),
        extents: partition.extents.iter().map(|it| extent_to_wire(it, segments)).collect(),
        producers: partition.producers.by_id.iter().map(producer_to_wire).collect(),
        aborted: partition.aborted.iter().map(aborted_to_wire).collect(),
        cleaned: partition.cleaned.0,
        origins: partition.origins.iter().map(origin_to_wire).collect(),
    }
}

fn extent_to_wire(extent: &Extent, segments: &[SegmentId]) -> wire::Extent {
    let (records, max_timestamp) = (extent.records, extent.max_timestamp);
    match &extent.content {
        Content::Batches(location) | Content::Merged(location) => wire::Extent {
            records,
            max_timestamp,
            segment: segments
                .binary_search(&location.segment)
                .ok()
                .and_then(|index| u32::try_from(index).ok())
                .expect("SEG-1: extents lie in segments that are referenced"),
            position: location.position,
            stored_bytes: location.stored_bytes,
            skip: location.skip,
            bytes: location.bytes,
            is_merged: matches!(extent.content, Content::Merged(_)),
            ..wire::Extent::default()
        },
        Content::Gap => {
            wire::Extent { records, max_timestamp, is_gap: true, ..wire::Extent::default() }
        }
        Content::Marker(marker) => {
            let (producer, commits) = (Some(marker.producer.into()), marker.commits);
            let marker = Some(wire::Marker { producer, commits });
            wire::Extent { records, max_timestamp, marker, ..wire::Extent::default() }
        }
    }
}

fn origin_to_wire((until, topic): &(Offset, TopicId)) -> wire::Origin {
    wire::Origin { until: until.0, topic: topic.as_bytes().to_vec() }
}

fn aborted_to_wire(aborted: &AbortedTransaction) -> wire::Aborted {
    wire::Aborted {
        producer: aborted.producer.0,
        first: aborted.first.0,
        last: aborted.last.0,
        stable: aborted.stable.0,
    }
}

fn producer_to_wire((id, producer): (&ProducerId, &Producer)) -> wire::Producer {
    let batch = |batch: &SeenBatch| wire::SeenBatch {
        first: batch.first,
        last: batch.last,
        base: batch.base.0,
    };
    wire::Producer {
        id: id.0,
        epoch: i32::from(producer.epoch),
        last_ms: producer.last_ms,
        batches: producer.batches.iter().map(batch).collect(),
    }
}

fn decode(snapshot: wire::Snapshot) -> Result<State, CodecError> {
    let mut segments = segments(snapshot.segments, snapshot.unreferenced)?;
    segments.horizon = Lsn::new(snapshot.horizon);
    let ids: Vec<SegmentId> = segments.referenced.keys().copied().collect();
    let mut topics = Topics::default();
    for stored in snapshot.topics {
        topics.insert(topic(stored, &ids)?);
    }
    topics.count_partitions();
    for stored in snapshot.deleted {
        let topic = topic(stored.topic.ok_or(CodecError::Field("deleted"))?, &ids)?;
        topics.keep(topic, Lsn::new(stored.since), stored.since_ms);
    }
    topics.changed = Lsn::new(snapshot.topics_changed);
    topics.purge_producers_at = snapshot.purge_producers_at;
    let mut transactions = transactions::from_wire(snapshot.transactions, &mut topics)?;
    transactions.last_number = snapshot.last_transaction;
    transactions.purge_at = snapshot.purge_transactions_at;
    let mut brokers = Brokers {
        last_node_id: snapshot.last_node_id,
        changed: Lsn::new(snapshot.offices_changed),
        left: snapshot.left_incarnations.into_iter().map(Incarnation).collect(),
        ..Brokers::default()
    };
    for stored in snapshot.departed {
        let at = stored.at.ok_or(CodecError::Field("departed"))?.try_into()?;
        brokers.departed.push_back((NodeId(stored.node), at));
    }
    for stored in snapshot.brokers {
        let (node, broker) = broker(stored)?;
        brokers.by_incarnation.insert(broker.incarnation, node);
        brokers.by_node.insert(node, broker);
    }
    let broker_configs =
        snapshot.broker_configs.into_iter().map(|it| (NodeId(it.node), it.configs)).collect();
    Ok(State {
        cluster_id: uuid(&snapshot.cluster_id, "cluster_id")?,
        log_id: uuid(&snapshot.log_id, "log_id")?,
        has_claimed_store: snapshot.has_claimed_store,
        level: snapshot.level,
        applied: Lsn::new(snapshot.applied),
        last_hash: EntryHash(snapshot.last_hash),
        log_time_ms: snapshot.log_time_ms,
        next_producer_id: snapshot.next_producer_id,
        brokers,
        topics,
        segments,
        configs: Configs {
            cluster: snapshot.cluster_configs,
            brokers: broker_configs,
            groups: named(snapshot.group_configs),
            client_metrics: named(snapshot.client_metrics_configs),
        },
        groups: groups::from_wire(snapshot.groups, snapshot.last_group_revision)?,
        transactions,
    })
}

fn named(stored: Vec<wire::NamedConfigs>) -> BTreeMap<String, BTreeMap<String, String>> {
    stored.into_iter().map(|it| (it.name, it.configs)).collect()
}

fn broker(stored: wire::Broker) -> Result<(NodeId, Broker), CodecError> {
    let commands = AppliedCommands {
        floor: stored.commands_floor,
        above: stored.commands_above.into_iter().collect(),
    };
    let broker = Broker {
        incarnation: Incarnation(stored.incarnation),
        address: stored.address.ok_or(CodecError::Field("address"))?.try_into()?,
        is_draining: stored.is_draining,
        last_heard: Lsn::new(stored.last_heard),
        commands,
    };
    Ok((NodeId(stored.node), broker))
}

fn segments(
    referenced: Vec<wire::Segment>,
    unreferenced: Vec<wire::Segment>,
) -> Result<Segments, CodecError> {
    let mut segments = Segments::default();
    for stored in referenced {
        let id = stored.id.ok_or(CodecError::Field("segment"))?.into();
        let refs = SegmentRefs {
            bytes: stored.bytes,
            references: stored.references,
            level: u8::try_from(stored.level).map_err(|_| CodecError::Field("level"))?,
            inline: stored.inline,
            by_footer: stored.by_footer,
        };
        segments.insert(id, refs);
    }
    for stored in unreferenced {
        let id = stored.id.ok_or(CodecError::Field("segment"))?.into();
        let wire::Segment { bytes, by_footer, .. } = stored;
        let waits = Unreferenced { bytes, since: Lsn::new(stored.since), by_footer };
        segments.unreferenced.insert(id, waits);
    }
    Ok(segments)
}

fn topic(stored: wire::Topic, segments: &[SegmentId]) -> Result<Topic, CodecError> {
    let partitions = stored.partitions.into_iter().map(|it| partition(it, segments));
    Ok(Topic {
        id: topic_id(&stored.id)?,
        name: stored.name,
        replication_factor: u16::try_from(stored.replication_factor)
            .map_err(|_| CodecError::Field("replication_factor"))?,
        configs: stored.configs,
        partitions: partitions.collect::<Result<_, _>>()?,
    })
}

fn partition(stored: wire::Partition, segments: &[SegmentId]) -> Result<Partition, CodecError> {
    let mut partition = Partition {
        log_start: Offset(stored.log_start),
        high_watermark: Offset(stored.first_base),
        ..Partition::default()
    };
    for stored in stored.extents {
        let content = content(&stored, segments)?;
        if stored.records == 0 {
            return Err(CodecError::Field("records"));
        }
        partition.push(Extent {
            base: partition.high_watermark,
            records: stored.records,
            max_timestamp: stored.max_timestamp,
            content,
        });
    }
    let end = Offset(stored.high_watermark);
    if !partition.extents.is_empty() && partition.high_watermark != end {
        return Err(CodecError::Field("high_watermark"));
    }
    partition.high_watermark = end;
    if !partition.begins_in_its_first_extent() {
        return Err(CodecError::Field("log_start"));
    }
    partition.cleaned = Offset(stored.cleaned);
    for origin in stored.origins {
        partition.origins.push_back((Offset(origin.until), topic_id(&origin.topic)?));
    }
    let aborted = stored.aborted.into_iter().map(|it| AbortedTransaction {
        producer: ProducerId(it.producer),
        first: Offset(it.first),
        last: Offset(it.last),
        stable: Offset(it.stable),
    });
    partition.aborted = aborted.collect();
    if !partition.aborted.iter().is_sorted_by_key(|it| it.last) {
        return Err(CodecError::Field("aborted"));
    }
    for stored in stored.producers {
        let (id, producer) = producer(stored)?;
        partition.producers.by_id.insert(id, producer);
    }
    Ok(partition)
}

fn content(stored: &wire::Extent, segments: &[SegmentId]) -> Result<Content, CodecError> {
    if let Some(marker) = &stored.marker {
        let producer = producer_from_wire(marker.producer)?;
        return Ok(Content::Marker(Marker { producer, commits: marker.commits }));
    }
    if stored.is_gap {
        return Ok(Content::Gap);
    }
    let index = usize::try_from(stored.segment).map_err(|_| CodecError::Field("segment"))?;
    let location = Location {
        segment: *segments.get(index).ok_or(CodecError::Field("segment"))?,
        position: stored.position,
        stored_bytes: stored.stored_bytes,
        skip: stored.skip,
        bytes: stored.bytes,
    };
    Ok(if stored.is_merged { Content::Merged(location) } else { Content::Batches(location) })
}

fn producer(stored: wire::Producer) -> Result<(ProducerId, Producer), CodecError> {
    let batch = |batch: wire::SeenBatch| SeenBatch {
        first: batch.first,
        last: batch.last,
        base: Offset(batch.base),
    };
    let producer = Producer {
        epoch: i16::try_from(stored.epoch).map_err(|_| CodecError::Field("epoch"))?,
        last_ms: stored.last_ms,
        batches: stored.batches.into_iter().map(batch).collect(),
    };
    Ok((ProducerId(stored.id), producer))
}

#[cfg(test)]
mod tests;
