//! The stored form of an entry: protobuf in an envelope.
//!
//! Tags are never used twice. A field that this release does not know is skipped; a *command* it
//! does not know is an error, and a broker that meets it stops: it is proposed only after the
//! feature level was raised past what this release knows. Tags 21 to 29 of `Command` are reserved
//! for transactions, 36 to 39 for the life of data, 41 to 49 for groups.

use bytes::Bytes;
use odradek_protocol::id::{NodeId, Offset, ProducerId, TopicId, TopicPartition};
use prost::Message;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    BatchProducer, BatchSummary, BatchTransaction, BrokerAddress, Command, CommandId, ConfigChange,
    ConfigOperation, ConfigResource, Digest, Endpoint, Entry, EntryHash, Incarnation, Proposal,
    Run,
};
use crate::envelope::{EnvelopeError, Format};
use crate::lsn::Lsn;
use crate::segment::SegmentId;

mod footer;
pub(crate) mod groups;
mod life;
pub(crate) mod transactions;
pub(crate) mod wire;

pub(crate) use footer::{decode_footer, decode_replacements, encode_footer, encode_replacements};

/// The format of entries.
pub const ENTRY_FORMAT: Format = Format { magic: *b"ODRL", version: 1 };

/// Why the bytes of an entry were not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The envelope is broken.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The payload is no protobuf of ours.
    #[error("payload: {0}")]
    Payload(#[from] prost::DecodeError),
    /// A command of a later release.
    #[error("a command of a kind that this release does not know")]
    UnknownCommand,
    /// Not the bytes that this release would have written.
    #[error("payload holds something that this release does not know")]
    NotCanonical,
    /// A field is missing or out of its range.
    #[error("field {0} makes no sense")]
    Field(&'static str),
}

impl EntryHash {
    /// The hash of an entry's stored bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_64(bytes))
    }
}

impl Entry {
    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let body = wire::Entry {
            log_id: self.log_id.as_bytes().to_vec(),
            lsn: self.lsn.get(),
            previous: self.previous.0,
            append_id: Some(self.append_id.into()),
            level: self.level,
            time_ms: self.time_ms,
            digest: self.digest.map(|digest| digest.0),
            proposals: self.proposals.iter().map(wire::Proposal::from).collect(),
        };
        ENTRY_FORMAT.seal(&body.encode_to_vec())
    }

    /// Reads the stored form.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let (_, payload) = ENTRY_FORMAT.open(bytes)?;
        let body = wire::Entry::decode(payload)?;
        Ok(Self {
            log_id: uuid(&body.log_id, "log_id")?,
            lsn: Lsn::new(body.lsn),
            previous: EntryHash(body.previous),
            append_id: command_id(body.append_id)?,
            level: body.level,
            time_ms: body.time_ms,
            digest: body.digest.map(Digest),
            proposals: body.proposals.into_iter().map(proposal).collect::<Result<_, _>>()?,
        })
    }
}

impl Proposal {
    /// Bytes that the proposal will take in an entry, a few more at most.
    pub fn encoded_bytes(&self) -> usize {
        wire::Proposal::from(self).encoded_len() + 8
    }
}

impl Run {
    /// Bytes that the run will take in an entry, a few more at most.
    pub fn encoded_bytes(&self) -> usize {
        wire::Run::from(self).encoded_len() + 4
    }
}

impl From<CommandId> for wire::CommandId {
    fn from(id: CommandId) -> Self {
        Self { incarnation: id.incarnation.0, counter: id.counter }
    }
}

impl From<SegmentId> for wire::SegmentId {
    fn from(id: SegmentId) -> Self {
        Self { began: id.began.get(), incarnation: id.incarnation.0, counter: id.counter }
    }
}

impl From<wire::SegmentId> for SegmentId {
    fn from(id: wire::SegmentId) -> Self {
        Self {
            began: Lsn::new(id.began),
            incarnation: Incarnation(id.incarnation),
            counter: id.counter,
        }
    }
}

impl From<&Proposal> for wire::Proposal {
    fn from(proposal: &Proposal) -> Self {
        Self { id: Some(proposal.id.into()), command: Some((&proposal.command).into()) }
    }
}

impl From<&BrokerAddress> for wire::RegisterBroker {
    fn from(address: &BrokerAddress) -> Self {
        let listeners = address.zone_listeners.iter();
        Self {
            host: address.host.clone(),
            port: u32::from(address.port),
            zone: address.zone.clone(),
            peer: address.peer.as_ref().map(Into::into),
            zone_listeners: listeners.map(|(zone, at)| (zone.clone(), at.into())).collect(),
        }
    }
}

impl TryFrom<wire::RegisterBroker> for BrokerAddress {
    type Error = CodecError;

    fn try_from(stored: wire::RegisterBroker) -> Result<Self, CodecError> {
        let listeners = stored.zone_listeners.into_iter();
        Ok(Self {
            host: stored.host,
            port: u16::try_from(stored.port).map_err(|_| CodecError::Field("port"))?,
            zone: stored.zone,
            peer: stored.peer.map(TryInto::try_into).transpose()?,
            zone_listeners: listeners
                .map(|(zone, at)| Ok((zone, at.try_into()?)))
                .collect::<Result<_, CodecError>>()?,
        })
    }
}

impl From<&Endpoint> for wire::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self { host: endpoint.host.clone(), port: u32::from(endpoint.port) }
    }
}

impl TryFrom<wire::Endpoint> for Endpoint {
    type Error = CodecError;

    fn try_from(stored: wire::Endpoint) -> Result<Self, CodecError> {
        let port = u16::try_from(stored.port).map_err(|_| CodecError::Field("port"))?;
        Ok(Self { host: stored.host, port })
    }
}

impl From<&Command> for wire::Command {
    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    fn from(command: &Command) -> Self {
        match command {
            Command::Genesis { cluster_id, log_id, level } => Self::Genesis(wire::Genesis {
                cluster_id: cluster_id.as_bytes().to_vec(),
                log_id: log_id.as_bytes().to_vec(),
                level: *level,
            }),
            Command::RaiseLevel { level } => Self::RaiseLevel(wire::RaiseLevel { level: *level }),
            Command::RegisterBroker(address) => Self::RegisterBroker(address.into()),
            Command::DrainBroker => Self::DrainBroker(wire::DrainBroker {}),
            Command::ClaimStore => Self::ClaimStore(wire::ClaimStore {}),
            Command::ExpireBroker { incarnation, seen } => Self::ExpireBroker(wire::ExpireBroker {
                incarnation: incarnation.0,
                seen: seen.get(),
            }),
            Command::Heartbeat => Self::Heartbeat(wire::Heartbeat {}),
            Command::CreateTopic { topic, name, partitions, replication_factor, configs } => {
                Self::CreateTopic(wire::CreateTopic {
                    topic: topic.as_bytes().to_vec(),
                    name: name.clone(),
                    partitions: *partitions,
                    replication_factor: u32::from(*replication_factor),
                    configs: configs.clone(),
                })
            }
            Command::BranchTopic { topic, name, replication_factor, configs, branch } => {
                let replicas = *replication_factor;
                Self::BranchTopic(life::branch_to_wire(*topic, name, replicas, configs, branch))
            }
            Command::PurgeTopics { topics } => Self::PurgeTopics(wire::PurgeTopics {
                topics: topics.iter().map(|topic| topic.as_bytes().to_vec()).collect(),
            }),
            Command::CommitByFooter { footer, .. } => Self::CommitByFooter((*footer).into()),
            Command::ReplaceByFooter { footer, level, .. } => {
                Self::ReplaceByFooter(life::by_footer_to_wire(*footer, *level))
            }
            Command::CommitInline { segment, content, runs } => {
                Self::CommitInline(life::inline_to_wire(*segment, content, runs))
            }
            Command::ReplaceExtents { segment, bytes, level, replacements } => {
                Self::ReplaceExtents(life::replace_to_wire(*segment, *bytes, *level, replacements))
            }
            Command::RaiseHorizon { to } => Self::RaiseHorizon(wire::RaiseHorizon { to: to.get() }),
            Command::ForgetSegments { segments } => Self::ForgetSegments(wire::ForgetSegments {
                segments: segments.iter().map(|segment| (*segment).into()).collect(),
            }),
            Command::ExpireRecords { partitions } => {
                Self::ExpireRecords(life::expire_to_wire(partitions))
            }
            Command::DeleteTopic { topic } => {
                Self::DeleteTopic(wire::DeleteTopic { topic: topic.as_bytes().to_vec() })
            }
            Command::CreatePartitions { topic, total } => {
                Self::CreatePartitions(wire::CreatePartitions {
                    topic: topic.as_bytes().to_vec(),
                    total: *total,
                })
            }
            Command::AlterConfigs { resource, replace, changes } => {
                Self::AlterConfigs(wire::AlterConfigs {
                    resource: Some(resource.into()),
                    replace: *replace,
                    changes: changes.iter().map(Into::into).collect(),
                })
            }
            Command::CommitSegment { segment, bytes, runs } => {
                Self::CommitSegment(wire::CommitSegment {
                    segment: Some((*segment).into()),
                    bytes: *bytes,
                    runs: runs.iter().map(Into::into).collect(),
                })
            }
            Command::AllocateProducerIds { count } => {
                Self::AllocateProducerIds(wire::AllocateProducerIds { count: *count })
            }
            Command::CommitOffsets { group, office, committer, retention_ms, offsets } => {
                Self::CommitOffsets(wire::CommitOffsets {
                    group: group.clone(),
                    offsets: offsets.iter().map(Into::into).collect(),
                    committer: committer.as_ref().map(Into::into),
                    retention_ms: *retention_ms,
                    office: office.get(),
                })
            }
            Command::ChangeGroup { group, office, revision, change } => {
                Self::ChangeGroup(groups::to_wire(group, *office, *revision, change))
            }
            Command::DeleteRecords { partition, before } => {
                Self::DeleteRecords(life::delete_to_wire(*partition, *before))
            }
            Command::ChangeTransaction { transactional_id, change } => {
                Self::ChangeTransaction(transactions::to_wire(transactional_id, change))
            }
        }
    }
}

impl From<&ConfigResource> for wire::ConfigResource {
    fn from(resource: &ConfigResource) -> Self {
        Self {
            resource: Some(match resource {
                ConfigResource::Topic(topic) => wire::Resource::Topic(topic.as_bytes().to_vec()),
                ConfigResource::Broker(node) => wire::Resource::Broker(node.0),
                ConfigResource::Cluster => wire::Resource::Cluster(true),
                ConfigResource::Group(name) => wire::Resource::Group(name.clone()),
                ConfigResource::ClientMetrics(name) => wire::Resource::ClientMetrics(name.clone()),
            }),
        }
    }
}

impl From<&ConfigChange> for wire::ConfigChange {
    fn from(change: &ConfigChange) -> Self {
        let value = match &change.operation {
            ConfigOperation::Set(value) => Some(value.clone()),
            ConfigOperation::Delete => None,
        };
        Self { name: change.name.clone(), value }
    }
}

impl From<&Run> for wire::Run {
    fn from(run: &Run) -> Self {
        Self {
            topic: run.partition.topic.as_bytes().to_vec(),
            partition: run.partition.partition,
            position: run.position,
            stored_bytes: run.stored_bytes,
            batches: run.batches.iter().map(Into::into).collect(),
        }
    }
}

impl From<&BatchSummary> for wire::Batch {
    fn from(batch: &BatchSummary) -> Self {
        Self {
            bytes: batch.bytes,
            records: batch.records,
            max_timestamp: batch.max_timestamp,
            producer: batch.producer.map(|producer| wire::Producer {
                id: producer.id.0,
                epoch: i32::from(producer.epoch),
                base_sequence: producer.base_sequence,
                transaction: match producer.transaction {
                    BatchTransaction::None => 0,
                    BatchTransaction::Added => 1,
                    BatchTransaction::Implicit => 2,
                },
            }),
        }
    }
}

pub(crate) fn uuid(bytes: &[u8], field: &'static str) -> Result<Uuid, CodecError> {
    Uuid::from_slice(bytes).map_err(|_| CodecError::Field(field))
}

pub(crate) fn topic_id(bytes: &[u8]) -> Result<TopicId, CodecError> {
    TopicId::from_slice(bytes).ok_or(CodecError::Field("topic"))
}

fn command_id(id: Option<wire::CommandId>) -> Result<CommandId, CodecError> {
    let id = id.ok_or(CodecError::Field("id"))?;
    Ok(CommandId { incarnation: Incarnation(id.incarnation), counter: id.counter })
}

pub(crate) fn proposal(proposal: wire::Proposal) -> Result<Proposal, CodecError> {
    Ok(Proposal {
        id: command_id(proposal.id)?,
        command: command(proposal.command.ok_or(CodecError::UnknownCommand)?)?,
    })
}

#[expect(clippy::too_many_lines, reason = "one arm for each command")]
fn command(command: wire::Command) -> Result<Command, CodecError> {
    Ok(match command {
        wire::Command::Genesis(genesis) => Command::Genesis {
            cluster_id: uuid(&genesis.cluster_id, "cluster_id")?,
            log_id: uuid(&genesis.log_id, "log_id")?,
            level: genesis.level,
        },
        wire::Command::RaiseLevel(raise) => Command::RaiseLevel { level: raise.level },
        wire::Command::RegisterBroker(address) => Command::RegisterBroker(address.try_into()?),
        wire::Command::DrainBroker(_) => Command::DrainBroker,
        wire::Command::ClaimStore(_) => Command::ClaimStore,
        wire::Command::ExpireBroker(expire) => Command::ExpireBroker {
            incarnation: Incarnation(expire.incarnation),
            seen: Lsn::new(expire.seen),
        },
        wire::Command::Heartbeat(_) => Command::Heartbeat,
        wire::Command::CreateTopic(create) => Command::CreateTopic {
            topic: topic_id(&create.topic)?,
            name: create.name,
            partitions: create.partitions,
            replication_factor: u16::try_from(create.replication_factor)
                .map_err(|_| CodecError::Field("replication_factor"))?,
            configs: create.configs,
        },
        wire::Command::BranchTopic(branch) => life::branch_from_wire(branch)?,
        wire::Command::PurgeTopics(purge) => Command::PurgeTopics {
            topics: purge.topics.iter().map(|it| topic_id(it)).collect::<Result<_, _>>()?,
        },
        wire::Command::CommitByFooter(footer) => {
            Command::CommitByFooter { footer: footer.try_into()?, runs: None }
        }
        wire::Command::ReplaceByFooter(replace) => life::by_footer_from_wire(replace)?,
        wire::Command::CommitInline(commit) => life::inline_from_wire(commit)?,
        wire::Command::ReplaceExtents(replace) => life::replace_from_wire(replace)?,
        wire::Command::RaiseHorizon(raise) => Command::RaiseHorizon { to: Lsn::new(raise.to) },
        wire::Command::ForgetSegments(forget) => Command::ForgetSegments {
            segments: forget.segments.into_iter().map(Into::into).collect(),
        },
        wire::Command::ExpireRecords(expire) => life::expire_from_wire(expire)?,
        wire::Command::DeleteTopic(delete) => {
            Command::DeleteTopic { topic: topic_id(&delete.topic)? }
        }
        wire::Command::CreatePartitions(create) => {
            Command::CreatePartitions { topic: topic_id(&create.topic)?, total: create.total }
        }
        wire::Command::AlterConfigs(alter) => Command::AlterConfigs {
            resource: config_resource(alter.resource)?,
            replace: alter.replace,
            changes: alter.changes.into_iter().map(config_change).collect(),
        },
        wire::Command::CommitSegment(commit) => Command::CommitSegment {
            segment: commit.segment.ok_or(CodecError::Field("segment"))?.into(),
            bytes: commit.bytes,
            runs: commit.runs.into_iter().map(run).collect::<Result<_, _>>()?,
        },
        wire::Command::AllocateProducerIds(allocate) => {
            Command::AllocateProducerIds { count: allocate.count }
        }
        wire::Command::CommitOffsets(commit) => Command::CommitOffsets {
            group: commit.group,
            committer: commit.committer.map(Into::into),
            retention_ms: commit.retention_ms,
            office: Lsn::new(commit.office),
            offsets: commit.offsets.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        },
        wire::Command::ChangeGroup(change) => Command::ChangeGroup {
            group: change.group,
            office: Lsn::new(change.office),
            revision: change.revision,
            change: change.change.ok_or(CodecError::UnknownCommand)?.try_into()?,
        },
        wire::Command::DeleteRecords(delete) => Command::DeleteRecords {
            partition: TopicPartition {
                topic: topic_id(&delete.topic)?,
                partition: delete.partition,
            },
            before: delete.before.map(Offset),
        },
        wire::Command::ChangeTransaction(change) => Command::ChangeTransaction {
            transactional_id: change.transactional_id,
            change: change.change.ok_or(CodecError::UnknownCommand)?.try_into()?,
        },
    })
}

fn config_resource(resource: Option<wire::ConfigResource>) -> Result<ConfigResource, CodecError> {
    match resource.and_then(|resource| resource.resource) {
        Some(wire::Resource::Topic(topic)) => Ok(ConfigResource::Topic(topic_id(&topic)?)),
        Some(wire::Resource::Broker(node)) => Ok(ConfigResource::Broker(NodeId(node))),
        Some(wire::Resource::Cluster(_)) => Ok(ConfigResource::Cluster),
        Some(wire::Resource::Group(name)) => Ok(ConfigResource::Group(name)),
        Some(wire::Resource::ClientMetrics(name)) => Ok(ConfigResource::ClientMetrics(name)),
        None => Err(CodecError::Field("resource")),
    }
}

fn config_change(change: wire::ConfigChange) -> ConfigChange {
    let operation = change.value.map_or(ConfigOperation::Delete, ConfigOperation::Set);
    ConfigChange { name: change.name, operation }
}

fn run(run: wire::Run) -> Result<Run, CodecError> {
    Ok(Run {
        partition: TopicPartition { topic: topic_id(&run.topic)?, partition: run.partition },
        position: run.position,
        stored_bytes: run.stored_bytes,
        batches: run.batches.into_iter().map(batch).collect::<Result<_, _>>()?,
    })
}

fn batch(batch: wire::Batch) -> Result<BatchSummary, CodecError> {
    let producer = batch.producer.map(|producer| {
        Ok::<_, CodecError>(BatchProducer {
            id: ProducerId(producer.id),
            epoch: i16::try_from(producer.epoch).map_err(|_| CodecError::Field("epoch"))?,
            base_sequence: producer.base_sequence,
            transaction: match producer.transaction {
                0 => BatchTransaction::None,
                1 => BatchTransaction::Added,
                2 => BatchTransaction::Implicit,
                _ => return Err(CodecError::Field("transaction")),
            },
        })
    });
    Ok(BatchSummary {
        bytes: batch.bytes,
        records: batch.records,
        max_timestamp: batch.max_timestamp,
        producer: producer.transpose()?,
    })
}

#[cfg(test)]
mod tests;
