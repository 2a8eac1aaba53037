//! Produce: batches into the log.
//!
//! A batch's header is checked, and its checksum; where it is not compressed, its records are
//! walked. Compressed records are not opened: that would cost more than all the rest of the path,
//! and nothing on it depends on what is inside, unless the topic is compacted and every record
//! needs a key. A producer that compresses nonsense hurts the consumers of its own topic and nobody
//! else.
//!
//! A request begins when it is read, in the order of its connection, and ends when its batches are
//! in the log. `acks` 1 and all are the same: there is no replica to wait for and nothing sooner to
//! acknowledge.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use odradek_protocol::compression::{self, Records};
use odradek_protocol::id::{ProducerId, TopicId, TopicPartition};
use odradek_protocol::messages::produce_request::TopicProduceData;
use odradek_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use odradek_protocol::messages::{ProduceRequest, ProduceResponse};
use odradek_protocol::record::{Codec, RecordBatch};
use odradek_protocol::{ResponseError, StrBytes};
use odradek_storage::command::{BatchProducer, BatchSummary, BatchTransaction};
use odradek_storage::segment::builder::PendingBatch;
use odradek_storage::state::State;
use odradek_storage::writer::{AppendError, Appended, Appending};

use crate::context::Context;
use crate::error;
use crate::session::Session;
use crate::topic_configs::ProduceRules;
use crate::topics::{Refusal, look_twice};

/// First version in which topics have ids and no names.
const BY_ID: i16 = 13;

/// First version that adds its partitions to the transaction (KIP-890).
const IMPLICIT: i16 = 12;

/// First version in which a client understands that its transaction must be aborted.
const ABORTABLE: i16 = 11;

/// First version in which zstd is known (KIP-110).
const ZSTD_SINCE: i16 = 7;

/// Bounds on how long a client may have us wait.
const TIMEOUT: std::ops::RangeInclusive<i32> = 1..=10 * 60 * 1000;

/// A Produce request that has begun.
pub(crate) enum Begun {
    /// The response is to come.
    Pending(BoxFuture<'static, ProduceResponse>),
    /// The client wants no response.
    Silent,
    /// The client wants no response, and something failed.
    Close,
}

/// How a request asks.
struct Asks<'a> {
    version: i16,
    transactional_id: Option<&'a str>,
}

/// Why the batch of a partition is not taken.
#[derive(Clone)]
struct Flaw {
    refusal: Refusal,
    /// The records that are to blame, if it is only some: their places in the batch.
    records: Vec<i32>,
}

impl From<Refusal> for Flaw {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, records: Vec::new() }
    }
}

/// What is wrong with a record without a key.
const KEYLESS: &str = "a compacted topic takes no record without a key";

/// Most records of a batch that are named as flawed.
const FLAWED_RECORDS_MAX: usize = 10_000;

/// Records of a batch for a compacted topic may unpack to this many bytes: what compaction opens.
const UNPACKED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A partition of the request: what becomes of it.
enum Fate {
    /// It failed already.
    Refused(Flaw),
    /// Its batch is on its way, with this log append time (-1 if it has its producer's).
    Underway(i64),
}

/// A topic of the request, with the fates of its partitions.
struct BegunTopic {
    response: TopicProduceResponse,
    partitions: Vec<(i32, Fate)>,
}

pub(crate) async fn begin(
    context: &Context,
    _: &Session,
    version: i16,
    request: ProduceRequest,
) -> Begun {
    let acks = request.acks;
    let whole = refuse(context, &request);
    let transactional_id = request.transactional_id;
    let asks = Asks { version, transactional_id: transactional_id.as_ref().map(|it| it.as_str()) };
    let mut topics = Vec::with_capacity(request.topic_data.len());
    let mut batches = Vec::new();
    for topic in request.topic_data {
        topics.push(begin_topic(context, &asks, topic, whole.as_ref(), &mut batches).await);
    }
    let refused = topics.iter().flat_map(|topic| &topic.partitions);
    let refused = refused.into_iter().any(|(_, fate)| matches!(fate, Fate::Refused(_)));
    for batch in &batches {
        context.metrics.bytes_in.add_len(batch.1.bytes.len());
        context.metrics.records_in.add(u64::from(batch.1.summary.records));
    }
    let appending = context.engine.writer.append(batches).await;
    if acks == 0 {
        return match appending {
            Ok(_) if !refused => Begun::Silent,
            _ => Begun::Close,
        };
    }
    let timeout = request.timeout_ms.clamp(*TIMEOUT.start(), *TIMEOUT.end());
    let timeout = Duration::from_millis(u64::try_from(timeout).unwrap_or(0));
    Begun::Pending(complete(version, topics, appending, timeout).boxed())
}

fn refuse(context: &Context, request: &ProduceRequest) -> Option<Refusal> {
    if !(-1..=1).contains(&request.acks) {
        let message = format!("acks is {}, not -1, 0 or 1", request.acks);
        return Some(Refusal::new(ResponseError::InvalidRequiredAcks, message));
    }
    // Without acks there is no answer that would send the client elsewhere.
    if context.is_leaving() && request.acks != 0 {
        let message = "this broker is about to stop".to_owned();
        return Some(Refusal::new(ResponseError::NotLeaderOrFollower, message));
    }
    let names_id = request.transactional_id.as_ref().is_some_and(|id| !id.is_empty());
    if !names_id && has_transactional_batch(request) {
        let message = "a transactional batch without a transactional id";
        return Some(Refusal::new(ResponseError::TransactionalIdAuthorizationFailed, message));
    }
    None
}

fn has_transactional_batch(request: &ProduceRequest) -> bool {
    let partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    let mut batches = partitions.filter_map(|partition| partition.records.as_ref());
    batches.any(|records| {
        RecordBatch::split_first(records).is_some_and(|(batch, _)| batch.is_transactional())
    })
}

async fn begin_topic(
    context: &Context,
    asks: &Asks<'_>,
    topic: TopicProduceData,
    whole: Option<&Refusal>,
    batches: &mut Vec<(TopicPartition, PendingBatch)>,
) -> BegunTopic {
    let version = asks.version;
    let defaults = context.broker_configs();
    let find = |state: &State| {
        let found = match version {
            BY_ID.. => state.topic(TopicId(topic.topic_id)),
            _ => state.topic_by_name(topic.name.as_str()),
        }?;
        let rules = ProduceRules::of(state, found, defaults.message_max_bytes);
        Some((found.id, found.partitions.len(), rules))
    };
    let found = match whole {
        Some(refusal) => Err(refusal.clone()),
        None => match look_twice(context.machine(), find).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) if version >= BY_ID => {
                Err(Refusal::new(ResponseError::UnknownTopicId, "there is no such topic"))
            }
            Ok(None) => {
                Err(Refusal::new(ResponseError::UnknownTopicOrPartition, "there is no such topic"))
            }
            Err(error) => Err(Refusal::new(ResponseError::NotLeaderOrFollower, error.to_string())),
        },
    };
    let now_ms = context.clock.now_ms();
    let mut fates = Vec::with_capacity(topic.partition_data.len());
    for partition in topic.partition_data {
        let index = partition.index;
        let checked = found.clone().map_err(Flaw::from).and_then(|(id, partitions, rules)| {
            if usize::try_from(index).is_ok_and(|index| index < partitions) {
                let batch = check(version, &rules, now_ms, partition.records.as_ref())?;
                check_owner(context, asks, &batch)?;
                Ok((TopicPartition { topic: id, partition: index }, batch, rules))
            } else {
                let message = format!("the topic has {partitions} partitions");
                Err(Refusal::new(ResponseError::UnknownTopicOrPartition, message).into())
            }
        });
        fates.push(match checked {
            Ok((partition, batch, rules)) => {
                batches.push((partition, batch));
                (index, Fate::Underway(if rules.log_append_time { now_ms } else { -1 }))
            }
            Err(flaw) => (index, Fate::Refused(flaw)),
        });
    }
    let response = TopicProduceResponse::default();
    let response = match version {
        BY_ID.. => response.with_topic_id(topic.topic_id),
        _ => response.with_name(topic.name),
    };
    BegunTopic { response, partitions: fates }
}

/// How many batches of a request are taken by topics that take the most.
#[cfg(feature = "test-util")]
pub(crate) fn taken(version: i16, request: &ProduceRequest) -> usize {
    let rules = ProduceRules {
        max_message_bytes: usize::MAX,
        log_append_time: false,
        needs_keys: false,
        before_max_ms: i64::MAX,
        after_max_ms: i64::MAX,
    };
    let partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    let checked = partitions.map(|it| check(version, &rules, 0, it.records.as_ref()));
    checked.filter(Result::is_ok).count()
}

/// Checks the records of a partition, in the order in which Kafka does.
fn check(
    version: i16,
    rules: &ProduceRules,
    now_ms: i64,
    records: Option<&Bytes>,
) -> Result<PendingBatch, Flaw> {
    let (batch, codec) = check_header(version, rules, records)?;
    check_records(rules, &batch, codec)?;
    let batch = if rules.log_append_time {
        batch.with_log_append_time(now_ms)
    } else {
        check_timestamp(rules, now_ms, batch.max_timestamp())?;
        batch
    };
    let producer = (batch.producer_id() >= 0).then(|| BatchProducer {
        id: ProducerId(batch.producer_id()),
        epoch: batch.producer_epoch(),
        base_sequence: batch.base_sequence(),
        transaction: match version {
            _ if !batch.is_transactional() => BatchTransaction::None,
            IMPLICIT.. => BatchTransaction::Implicit,
            _ => BatchTransaction::Added,
        },
    });
    let summary = BatchSummary {
        bytes: u32::try_from(batch.bytes().len()).unwrap_or(u32::MAX),
        records: batch.offsets(),
        max_timestamp: batch.max_timestamp(),
        producer,
    };
    Ok(PendingBatch { bytes: batch.bytes().clone(), summary, compressed: codec != Codec::None })
}

fn check_header(
    version: i16,
    rules: &ProduceRules,
    records: Option<&Bytes>,
) -> Result<(RecordBatch, Codec), Refusal> {
    let empty = Bytes::new();
    let records = records.unwrap_or(&empty);
    if records.len() > rules.max_message_bytes {
        let message = format!("{} bytes, at most {}", records.len(), rules.max_message_bytes);
        return Err(Refusal::new(ResponseError::MessageTooLarge, message));
    }
    let batch = RecordBatch::from_producer(records)
        .map_err(|error| Refusal::new(error::of_batch(&error), error.to_string()))?;
    let codec =
        batch.codec().map_err(|error| Refusal::new(error::of_batch(&error), error.to_string()))?;
    if codec == Codec::Zstd && version < ZSTD_SINCE {
        let message = "zstd needs Produce version 7";
        return Err(Refusal::new(ResponseError::UnsupportedCompressionType, message));
    }
    if batch.is_transactional() && batch.producer_id() < 0 {
        let message = "a transactional batch without a producer id";
        return Err(Refusal::new(ResponseError::InvalidRecord, message));
    }
    Ok((batch, codec))
}

/// Walks the records, if they are to be seen.
fn check_records(rules: &ProduceRules, batch: &RecordBatch, codec: Codec) -> Result<(), Flaw> {
    if codec != Codec::None && !rules.needs_keys {
        return Ok(());
    }
    let invalid = |message: String| Refusal::new(ResponseError::InvalidRecord, message);
    let unpacked = compression::unpack(batch, UNPACKED_BYTES_MAX.max(batch.bytes().len()))
        .map_err(|error| invalid(error.to_string()))?;
    let mut keyless = Vec::new();
    for (index, record) in (0..).zip(Records::of(batch, unpacked)) {
        let record = record.map_err(|error| invalid(error.to_string()))?;
        let is_keyless = rules.needs_keys && !record.has_key;
        if is_keyless && keyless.len() < FLAWED_RECORDS_MAX {
            keyless.push(index);
        }
    }
    if keyless.is_empty() {
        return Ok(());
    }
    Err(Flaw { refusal: invalid(KEYLESS.to_owned()), records: keyless })
}

/// A producer id belongs to one transactional id for ever; if it is not known here to whom, the
/// state will say.
fn check_owner(context: &Context, asks: &Asks<'_>, batch: &PendingBatch) -> Result<(), Refusal> {
    let producer = batch.summary.producer;
    let Some(producer) = producer.filter(|it| it.transaction != BatchTransaction::None) else {
        return Ok(());
    };
    let is_anothers = context.machine().read(|state| {
        let owner = state.transactions().of_producer(producer.id);
        owner.is_some_and(|(id, _)| Some(id.as_str()) != asks.transactional_id)
    });
    if is_anothers {
        let message = "the producer id belongs to another transactional id";
        return Err(Refusal::new(ResponseError::InvalidProducerIdMapping, message));
    }
    Ok(())
}

fn check_timestamp(rules: &ProduceRules, now_ms: i64, timestamp: i64) -> Result<(), Refusal> {
    // Producers that send no timestamps send -1.
    let too_late = timestamp.saturating_sub(now_ms) > rules.after_max_ms;
    let too_early = timestamp >= 0 && now_ms.saturating_sub(timestamp) > rules.before_max_ms;
    if too_late || too_early {
        let message = format!("timestamp {timestamp} is too far from the broker's {now_ms}");
        return Err(Refusal::new(ResponseError::InvalidTimestamp, message));
    }
    Ok(())
}

async fn complete(
    version: i16,
    topics: Vec<BegunTopic>,
    appending: Result<Appending, AppendError>,
    timeout: Duration,
) -> ProduceResponse {
    let mut answers = match appending {
        // Out of time is out of knowledge: the batches may still get there.
        Ok(appending) => match tokio::time::timeout(timeout, appending).await {
            Ok(answers) => Ok(answers.into_iter()),
            Err(_) => Err(AppendError::Unknown),
        },
        Err(error) => Err(error),
    };
    let mut next = || match &mut answers {
        Ok(answers) => answers.next().unwrap_or(Err(AppendError::Unknown)),
        Err(error) => Err(error.clone()),
    };
    let topics = topics.into_iter().map(|BegunTopic { response, partitions }| {
        let partitions = partitions.into_iter().map(|(index, fate)| {
            let response = PartitionProduceResponse::default().with_index(index);
            match fate {
                Fate::Refused(flaw) => failed(response, version, flaw),
                Fate::Underway(time_ms) => match next() {
                    Ok(appended) => succeeded(response, version, appended, time_ms),
                    Err(error) => {
                        let code = error::of_append(&error, version >= ABORTABLE);
                        failed(response, version, Refusal::new(code, error.to_string()).into())
                    }
                },
            }
        });
        let partitions = partitions.collect();
        response.with_partition_responses(partitions)
    });
    ProduceResponse::default().with_responses(topics.collect())
}

fn succeeded(
    response: PartitionProduceResponse,
    version: i16,
    appended: Appended,
    log_append_time_ms: i64,
) -> PartitionProduceResponse {
    let response = response
        .with_base_offset(appended.base_offset.0)
        .with_log_append_time_ms(log_append_time_ms);
    if version >= 5 { response.with_log_start_offset(appended.log_start.0) } else { response }
}

fn failed(
    response: PartitionProduceResponse,
    version: i16,
    flaw: Flaw,
) -> PartitionProduceResponse {
    let Flaw { refusal, records } = flaw;
    let response = response
        .with_error_code(refusal.code.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1);
    if version < 8 {
        return response;
    }
    let records = records.into_iter().map(|index| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(index)
            .with_batch_index_error_message(Some(StrBytes::from_static_str(KEYLESS)))
    });
    response.with_error_message(Some(refusal.message.into())).with_record_errors(records.collect())
}
