//! Commands, told so that they can be read.

use odradek_protocol::id::{Offset, TopicPartition};
use odradek_storage::command::groups::{Assignment, ConsumerChange, MemberChange};
use odradek_storage::command::{
    BatchSummary, BrokerAddress, Command, CommittedOffset, Committer, ConfigChange,
    ConfigOperation, ConfigResource, FooterRef, GroupChange, Proposal, Replacement, Run,
    StagedOffsets, TransactionChange,
};
use odradek_storage::segment::SegmentId;
use serde_json::{Map, Value, json};

use super::super::text;
use super::{Names, fields};

/// A command with its identity.
pub(super) fn command(proposal: &Proposal, names: &Names) -> Value {
    let (kind, what) = tell(&proposal.command, names);
    let mut document = fields(json!({ "command": kind, "id": proposal.id.to_string() }));
    document.extend(what);
    Value::Object(document)
}

/// The name of a command, and what it says.
fn tell(command: &Command, names: &Names) -> (&'static str, Map<String, Value>) {
    let (kind, what) = match command {
        Command::Genesis { cluster_id, log_id, level } => (
            "genesis",
            json!({
                "cluster_id": cluster_id.to_string(),
                "log_id": log_id.to_string(),
                "level": level,
            }),
        ),
        Command::ClaimStore => ("claim-store", json!({})),
        Command::RaiseLevel { level } => ("raise-level", json!({ "level": level })),
        Command::RegisterBroker(address) => ("register-broker", broker(address)),
        Command::DrainBroker => ("drain-broker", json!({})),
        Command::ExpireBroker { incarnation, seen } => {
            ("expire-broker", json!({ "incarnation": incarnation.to_string(), "seen": seen.get() }))
        }
        Command::Heartbeat => ("heartbeat", json!({})),
        Command::AllocateProducerIds { count } => {
            ("allocate-producer-ids", json!({ "count": count }))
        }
        Command::AlterConfigs { resource, replace, changes } => {
            ("alter-configs", configs(resource, *replace, changes, names))
        }
        Command::CommitOffsets { group, office, committer, retention_ms, offsets } => (
            "commit-offsets",
            json!({
                "group": group,
                "office": office.get(),
                "member": committer.as_ref().map(member),
                "retention_ms": retention_ms,
                "offsets": positions(offsets, names),
            }),
        ),
        Command::ChangeGroup { group, office, revision, change } => {
            let mut what = json!({ "group": group, "office": office.get(), "revision": revision });
            put(&mut what, group_change(change, names));
            ("change-group", what)
        }
        Command::ChangeTransaction { transactional_id, change } => {
            let mut what = json!({ "transactional_id": transactional_id });
            put(&mut what, transaction_change(change, names));
            ("change-transaction", what)
        }
        data => return tell_of_topics(data, names),
    };
    (kind, fields(what))
}

/// Commands about topics.
fn tell_of_topics(command: &Command, names: &Names) -> (&'static str, Map<String, Value>) {
    let (kind, what) = match command {
        Command::CreateTopic { topic, name, partitions, replication_factor, configs } => (
            "create-topic",
            json!({
                "topic": name,
                "topic_id": topic.to_string(),
                "partitions": partitions,
                "replication_factor": replication_factor,
                "configs": configs,
            }),
        ),
        Command::BranchTopic { topic, name, replication_factor, configs, branch } => (
            "branch-topic",
            json!({
                "topic": name,
                "topic_id": topic.to_string(),
                "of": names.topic(branch.of),
                "ends": branch.ends.iter().map(|end| end.map(|end| end.0)).collect::<Vec<_>>(),
                "replication_factor": replication_factor,
                "configs": configs,
            }),
        ),
        Command::DeleteTopic { topic } => {
            ("delete-topic", json!({ "topic": names.topic(*topic), "topic_id": topic.to_string() }))
        }
        Command::PurgeTopics { topics } => (
            "purge-topics",
            json!({ "topics": topics.iter().map(|it| names.topic(*it)).collect::<Vec<_>>() }),
        ),
        Command::CreatePartitions { topic, total } => {
            ("create-partitions", json!({ "topic": names.topic(*topic), "total": total }))
        }
        records => return tell_of_records(records, names),
    };
    (kind, fields(what))
}

/// Commands about records and what they lie in.
fn tell_of_records(command: &Command, names: &Names) -> (&'static str, Map<String, Value>) {
    let (kind, what) = match command {
        Command::CommitSegment { segment, bytes, runs } => (
            "commit-segment",
            json!({
                "segment": segment.to_string(),
                "key": segment.key().as_str(),
                "bytes": bytes,
                "runs": runs.iter().map(|it| run(it, names)).collect::<Vec<_>>(),
            }),
        ),
        Command::CommitByFooter { footer, .. } => ("commit-by-footer", footer_ref(footer)),
        Command::CommitInline { segment, content, runs } => (
            "commit-inline",
            json!({
                "segment": segment.to_string(),
                "bytes": content.len(),
                "runs": runs.iter().map(|it| run(it, names)).collect::<Vec<_>>(),
            }),
        ),
        Command::ReplaceExtents { segment, bytes, level, replacements } => (
            "replace-extents",
            json!({
                "segment": segment.to_string(),
                "bytes": bytes,
                "level": level,
                "replaced":
                    replacements.iter().map(|it| replacement(it, names)).collect::<Vec<_>>(),
            }),
        ),
        Command::ReplaceByFooter { footer, level, .. } => {
            let mut what = footer_ref(footer);
            put(&mut what, json!({ "level": level }));
            ("replace-by-footer", what)
        }
        Command::RaiseHorizon { to } => ("raise-horizon", json!({ "to": to.get() })),
        Command::ForgetSegments { segments } => (
            "forget-segments",
            json!({ "segments": segments.iter().map(SegmentId::to_string).collect::<Vec<_>>() }),
        ),
        Command::DeleteRecords { partition, before } => {
            ("delete-records", below(*partition, *before, names))
        }
        Command::ExpireRecords { partitions } => {
            let told = partitions.iter().map(|(at, before)| below(*at, Some(*before), names));
            ("expire-records", json!({ "partitions": told.collect::<Vec<_>>() }))
        }
        other => ("unknown", json!({ "what": format!("{other:?}") })),
    };
    (kind, fields(what))
}

fn footer_ref(footer: &FooterRef) -> Value {
    json!({
        "segment": footer.segment.to_string(),
        "key": footer.segment.key().as_str(),
        "bytes": footer.segment_bytes,
        "footer_position": footer.position,
        "footer_bytes": footer.bytes,
        "footer_hash": format!("{:016x}", footer.hash),
    })
}

fn put(document: &mut Value, more: Value) {
    if let Value::Object(document) = document {
        document.extend(fields(more));
    }
}

fn broker(address: &BrokerAddress) -> Value {
    let listeners =
        address.zone_listeners.iter().map(|(zone, at)| (zone.clone(), json!(at.to_string())));
    json!({
        "address": address.endpoint().to_string(),
        "zone": address.zone,
        "peer_address": address.peer_endpoint().to_string(),
        "zone_listeners": Value::Object(listeners.collect()),
    })
}

fn configs(
    resource: &ConfigResource,
    replace: bool,
    changes: &[ConfigChange],
    names: &Names,
) -> Value {
    let of = match resource {
        ConfigResource::Topic(topic) => format!("topic {}", names.topic(*topic)),
        ConfigResource::Broker(node) => format!("broker {node}"),
        ConfigResource::Cluster => "all brokers".to_owned(),
        ConfigResource::Group(group) => format!("group {group}"),
        ConfigResource::ClientMetrics(name) => format!("client metrics {name}"),
    };
    let change = |change: &ConfigChange| match &change.operation {
        ConfigOperation::Set(value) => json!({ "config": change.name, "value": value }),
        ConfigOperation::Delete => json!({ "config": change.name, "value": null }),
    };
    let changes: Vec<Value> = changes.iter().map(change).collect();
    json!({ "of": of, "replace": replace, "changes": changes })
}

fn run(run: &Run, names: &Names) -> Value {
    let records: u64 = run.batches.iter().map(|it| u64::from(it.records)).sum();
    let latest = run.batches.iter().map(|it| it.max_timestamp).max();
    let producer = |batch: &BatchSummary| {
        let producer = batch.producer?;
        Some(format!("{}/{}:{}", producer.id, producer.epoch, producer.base_sequence))
    };
    let producers: Vec<String> = run.batches.iter().filter_map(producer).collect();
    json!({
        "partition": names.partition(run.partition),
        "position": run.position,
        "stored_bytes": run.stored_bytes,
        "batches": run.batches.len(),
        "records": records,
        "latest": latest.map(text::time),
        "producers": producers,
    })
}

fn replacement(replacement: &Replacement, names: &Names) -> Value {
    let positions = replacement.extents.iter().filter_map(|extent| extent.block);
    json!({
        "partition": names.partition(replacement.partition),
        "from": replacement.from.0,
        "to": replacement.to.0,
        "inputs": format!("{:016x}", replacement.inputs),
        "extents": replacement.extents.len(),
        "positions": positions.map(|block| block.position).collect::<Vec<_>>(),
        "cleaned": replacement.cleaned.map(|offset| offset.0),
    })
}

fn below(at: TopicPartition, before: Option<Offset>, names: &Names) -> Value {
    json!({ "partition": names.partition(at), "before": before.map(|before| before.0) })
}

fn member(committer: &Committer) -> String {
    format!("{} in {}", committer.member, committer.generation)
}

fn positions(offsets: &[CommittedOffset], names: &Names) -> Vec<Value> {
    let position = |it: &CommittedOffset| {
        json!({
            "partition": names.partition(it.partition),
            "offset": it.offset.0,
            "leader_epoch": Some(it.leader_epoch).filter(|epoch| *epoch >= 0),
            "metadata": it.metadata,
        })
    };
    offsets.iter().map(position).collect()
}

/// Partitions by topic.
pub(super) fn assignment(assignment: &Assignment, names: &Names) -> Value {
    let topic = |(topic, partitions): (&_, &std::collections::BTreeSet<i32>)| {
        (names.topic(*topic), json!(partitions.iter().collect::<Vec<_>>()))
    };
    Value::Object(assignment.iter().map(topic).collect())
}

fn group_change(change: &GroupChange, names: &Names) -> Value {
    match change {
        GroupChange::StageMembers { is_first, members } => json!({
            "change": "stage-members",
            "is_first": is_first,
            "members": members.iter().map(member_change).collect::<Vec<_>>(),
        }),
        GroupChange::BeginGeneration { protocol_type, protocol, leader, with_staged, members } => {
            json!({
                "change": "begin-generation",
                "protocol_type": protocol_type,
                "protocol": protocol,
                "leader": leader,
                "with_staged": with_staged,
                "members": members.iter().map(member_change).collect::<Vec<_>>(),
            })
        }
        GroupChange::AssignGeneration { assignments, is_last } => {
            let told =
                assignments.iter().map(|(id, it)| json!({ "member": id, "bytes": it.len() }));
            let told = told.collect::<Vec<_>>();
            json!({ "change": "assign-generation", "is_last": is_last, "assignments": told })
        }
        GroupChange::ReplaceMember { old, new, .. } => {
            json!({ "change": "replace-member", "old": old, "new": new })
        }
        GroupChange::ChangeConsumers(changes) => json!({
            "change": "change-consumers",
            "changes": changes.iter().map(|it| consumer_change(it, names)).collect::<Vec<_>>(),
        }),
        GroupChange::DeleteOffsets { partitions, expired_ms } => json!({
            "change": "delete-offsets",
            "partitions": partitions.iter().map(|it| names.partition(*it)).collect::<Vec<_>>(),
            "expired": expired_ms.map(text::time),
        }),
        GroupChange::DeleteGroup => json!({ "change": "delete-group" }),
    }
}

fn member_change(change: &MemberChange) -> Value {
    match change {
        MemberChange::Put { id, member } => json!({
            "member": id,
            "instance_id": member.instance_id,
            "client_id": member.client_id,
            "client_host": member.client_host,
        }),
        MemberChange::Remove { id } => json!({ "member": id, "is_gone": true }),
    }
}

fn consumer_change(change: &ConsumerChange, names: &Names) -> Value {
    match change {
        ConsumerChange::SetEpoch { epoch, .. } => json!({ "what": "epoch", "epoch": epoch }),
        ConsumerChange::PutMember { id, subscription } => json!({
            "what": "member",
            "member": id,
            "client_id": subscription.client_id,
            "topics": subscription.topics,
            "regex": subscription.regex,
        }),
        ConsumerChange::RemoveMember { id } => json!({ "what": "member-gone", "member": id }),
        ConsumerChange::SetTarget { id, target } => {
            json!({ "what": "target", "member": id, "target": assignment(target, names) })
        }
        ConsumerChange::SetTargetEpoch { epoch } => {
            json!({ "what": "target-epoch", "epoch": epoch })
        }
        ConsumerChange::SetCurrent { id, current } => json!({
            "what": "current",
            "member": id,
            "epoch": current.epoch,
            "state": format!("{:?}", current.state),
            "assigned": assignment(&current.assigned, names),
            "revoking": assignment(&current.revoking, names),
        }),
    }
}

fn transaction_change(change: &TransactionChange, names: &Names) -> Value {
    let who = |it: &odradek_storage::command::ProducerIdAndEpoch| format!("{}/{}", it.id, it.epoch);
    match change {
        TransactionChange::InitProducer { timeout_ms, expected } => json!({
            "change": "init-producer",
            "timeout_ms": timeout_ms,
            "expected": expected.as_ref().map(who),
        }),
        TransactionChange::Add { producer, transaction, partitions, groups } => json!({
            "change": "add",
            "producer": who(producer),
            "transaction": transaction,
            "partitions": assignment(partitions, names),
            "groups": groups,
        }),
        TransactionChange::StageOffsets(staged) => {
            let StagedOffsets { producer, transaction, group, committer, offsets, .. } = staged;
            json!({
                "change": "stage-offsets",
                "producer": who(producer),
                "transaction": transaction,
                "group": group,
                "member": committer.as_ref().map(member),
                "offsets": positions(offsets, names),
            })
        }
        TransactionChange::End { producer, transaction, commits, bumps_epoch } => json!({
            "change": if *commits { "commit" } else { "abort" },
            "producer": who(producer),
            "transaction": transaction,
            "bumps_epoch": bumps_epoch,
        }),
        TransactionChange::Abort { transaction } => {
            json!({ "change": "abort-unasked", "transaction": transaction })
        }
    }
}
