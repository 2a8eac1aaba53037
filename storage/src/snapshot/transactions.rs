//! Transactions in a snapshot.

use std::collections::BTreeMap;

use odradek_protocol::id::{Offset, TopicPartition};

use super::wire;
use crate::command::CommittedOffset;
use crate::command::codec::transactions::producer_from_wire;
use crate::command::codec::wire::CommittedOffset as StoredOffset;
use crate::command::codec::{CodecError, topic_id};
use crate::state::topics::Topics;
use crate::state::transactions::{Ongoing, Phase, Transactional, Transactions};

pub(super) fn to_wire(transactions: &Transactions) -> Vec<wire::Transactional> {
    transactions.iter().map(transactional_to_wire).collect()
}

fn transactional_to_wire((id, it): (&String, &Transactional)) -> wire::Transactional {
    wire::Transactional {
        id: id.clone(),
        producer: Some(it.producer.into()),
        previous: it.previous.map(Into::into),
        timeout_ms: it.timeout_ms,
        transaction: it.transaction,
        last_ms: it.last_ms,
        phase: match it.phase {
            Phase::Empty => 0,
            Phase::Ongoing(_) => 1,
            Phase::Committed => 2,
            Phase::Aborted => 3,
        },
        ongoing: it.ongoing().map(ongoing_to_wire),
    }
}

fn ongoing_to_wire(ongoing: &Ongoing) -> wire::Ongoing {
    let partition = |(at, first): (&TopicPartition, &Option<Offset>)| wire::OngoingPartition {
        topic: at.topic.as_bytes().to_vec(),
        partition: at.partition,
        first: first.map(|offset| offset.0),
    };
    let group = |(group, offsets): (&String, &BTreeMap<_, CommittedOffset>)| wire::OngoingGroup {
        group: group.clone(),
        offsets: offsets.values().map(Into::into).collect(),
    };
    wire::Ongoing {
        started_ms: ongoing.started_ms,
        partitions: ongoing.partitions.iter().map(partition).collect(),
        groups: ongoing.groups.iter().map(group).collect(),
    }
}

/// Reads transactions back, and tells partitions which of them are open there.
pub(super) fn from_wire(
    stored: Vec<wire::Transactional>,
    topics: &mut Topics,
) -> Result<Transactions, CodecError> {
    let mut transactions = Transactions::default();
    for stored in stored {
        let transactional = transactional(&stored)?;
        let producer = transactional.producer.id;
        if transactions.of_producer(producer).is_some() {
            return Err(CodecError::Field("producer"));
        }
        for (at, first) in transactional.ongoing().into_iter().flat_map(|it| &it.partitions) {
            let partition =
                topics.partition_mut(*at).map_err(|_| CodecError::Field("partition"))?;
            let Some(first) = *first else { continue };
            let is_taken = partition.open.insert(first, producer).is_some();
            if is_taken || first >= partition.high_watermark {
                return Err(CodecError::Field("first"));
            }
        }
        transactions.insert(stored.id, transactional);
    }
    Ok(transactions)
}

fn transactional(stored: &wire::Transactional) -> Result<Transactional, CodecError> {
    Ok(Transactional {
        producer: producer_from_wire(stored.producer)?,
        previous: stored.previous.map(TryInto::try_into).transpose()?,
        timeout_ms: stored.timeout_ms,
        transaction: stored.transaction,
        phase: match (stored.phase, &stored.ongoing) {
            (0, None) => Phase::Empty,
            (1, Some(stored)) => Phase::Ongoing(ongoing(stored)?),
            (2, None) => Phase::Committed,
            (3, None) => Phase::Aborted,
            _ => return Err(CodecError::Field("phase")),
        },
        last_ms: stored.last_ms,
    })
}

fn ongoing(stored: &wire::Ongoing) -> Result<Ongoing, CodecError> {
    let mut ongoing = Ongoing { started_ms: stored.started_ms, ..Ongoing::default() };
    for stored in &stored.partitions {
        let topic = topic_id(&stored.topic)?;
        let at = TopicPartition { topic, partition: stored.partition };
        ongoing.partitions.insert(at, stored.first.map(Offset));
    }
    for stored in &stored.groups {
        let offset = |it: &StoredOffset| {
            let offset: CommittedOffset = it.clone().try_into()?;
            Ok((offset.partition, offset))
        };
        let offsets = stored.offsets.iter().map(offset).collect::<Result<_, CodecError>>()?;
        ongoing.groups.insert(stored.group.clone(), offsets);
    }
    Ok(ongoing)
}
