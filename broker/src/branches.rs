//! Branches: topics that are created with the records of another, up to a point.
//!
//! Asked for by configs of CreateTopics, because that is what every client can send:
//! `odradek.branch.of` names the parent, `odradek.branch.at` the point. A topic that was deleted
//! lately can be a parent too, which is how a deletion is undone.

use std::collections::BTreeMap;

use odradek_protocol::ResponseError;
use odradek_protocol::id::{Offset, PartitionIndex, TopicId, TopicPartition};
use odradek_storage::command::Branch;
use odradek_storage::reader::{FetchError, Isolation};
use odradek_storage::state::State;
use odradek_storage::state::topics::Topic;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cluster::as_kafka_writes_it;
use crate::context::Context;
use crate::error;
use crate::topics::{NewTopic, Refusal, look_twice};

/// Names the parent.
pub(crate) const BRANCH_OF: &str = "odradek.branch.of";

/// Says where the branch leaves it.
pub(crate) const BRANCH_AT: &str = "odradek.branch.at";

/// The point at which a branch leaves its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Point {
    /// Where its partitions end now.
    Now,
    /// At this offset of every partition.
    Offset(i64),
    /// At these offsets; partitions that are not named, where they end now.
    Offsets(BTreeMap<PartitionIndex, i64>),
    /// Before the first record of each partition that is not older, in milliseconds since the Unix
    /// epoch.
    Time(i64),
}

/// What a new topic is a branch of, if it is to be one: completed from its parent, which it is like
/// unless it says otherwise.
pub(crate) async fn resolve(
    context: &Context,
    topic: &mut NewTopic,
) -> Result<Option<Branch>, Refusal> {
    let refuse = |message: String| Refusal::new(ResponseError::InvalidConfig, message);
    let Some(of) = topic.configs.get(BRANCH_OF).map(|of| of.trim().to_owned()) else {
        return match topic.configs.get(BRANCH_AT) {
            Some(_) => Err(refuse(format!("{BRANCH_AT} without {BRANCH_OF}"))),
            None => Ok(None),
        };
    };
    let point = point(topic.configs.get(BRANCH_AT).map_or("now", |at| at.trim()))?;
    let parent = look_twice(context.machine(), |state| {
        let parent = parent(state, &of)?;
        Some((parent.id, parent.partitions.len(), parent.configs.clone()))
    });
    let parent = parent
        .await
        .map_err(|error| Refusal::new(ResponseError::RequestTimedOut, error.to_string()))?;
    let Some((parent, partitions, configs)) = parent else {
        let message = format!("{BRANCH_OF}: there is no topic {of}, nor one deleted lately");
        return Err(Refusal::new(ResponseError::UnknownTopicOrPartition, message));
    };
    let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
    if topic.is_counted && topic.partitions != partitions {
        let message = format!("{of} has {partitions} partitions, and so have its branches");
        return Err(Refusal::new(ResponseError::InvalidPartitions, message));
    }
    topic.partitions = partitions;
    for (name, value) in configs {
        if name != BRANCH_OF && name != BRANCH_AT {
            topic.configs.entry(name).or_insert(value);
        }
    }
    let mut ends = Vec::new();
    for partition in 0.. {
        if ends.len() >= usize::try_from(partitions).unwrap_or(usize::MAX) {
            break;
        }
        ends.push(end(context, TopicPartition { topic: parent, partition }, &point).await?);
    }
    if let Point::Offsets(named) = &point
        && let Some(unknown) =
            named.keys().find(|it| u32::try_from(**it).map_or(true, |it| it >= partitions))
    {
        return Err(refuse(format!("{BRANCH_AT}: {of} has no partition {unknown}")));
    }
    Ok(Some(Branch { of: parent, ends }))
}

/// The topic that is meant: one that lives, by name or id, or else the one of these that was
/// deleted last.
fn parent<'a>(state: &'a State, of: &str) -> Option<&'a Topic> {
    let is_meant = |topic: &Topic| topic.name == of || is_id(topic.id, of);
    let lives = state.topic_by_name(of).or_else(|| state.topics().find(|it| is_id(it.id, of)));
    lives.or_else(|| {
        let deleted = state.deleted_topics().values().filter(|it| is_meant(&it.topic));
        deleted.max_by_key(|it| it.since).map(|it| &it.topic)
    })
}

/// Whether a text is this id: as Kafka's tools write it, as librdkafka does, or in hexadecimal.
fn is_id(id: TopicId, text: &str) -> bool {
    let text = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    as_kafka_writes_it(id.0) == text || id.0.to_string() == text
}

fn point(at: &str) -> Result<Point, Refusal> {
    if at == "now" {
        return Ok(Point::Now);
    }
    if let Ok(offset) = at.parse() {
        return Ok(Point::Offset(offset));
    }
    if let Ok(time) = OffsetDateTime::parse(at, &Rfc3339) {
        let ms = time.unix_timestamp_nanos().div_euclid(1_000_000);
        return Ok(Point::Time(i64::try_from(ms).unwrap_or(i64::MAX)));
    }
    let pair = |pair: &str| {
        let (partition, offset) = pair.split_once(':')?;
        Some((partition.trim().parse().ok()?, offset.trim().parse().ok()?))
    };
    let pairs: Option<Vec<(PartitionIndex, i64)>> = at.split(',').map(pair).collect();
    let message = format!(
        "{BRANCH_AT} = {at:?}: takes now, an offset, PARTITION:OFFSET,... or a time like \
         2026-11-21T12:00:00Z"
    );
    let pairs = pairs.ok_or_else(|| Refusal::new(ResponseError::InvalidConfig, &*message))?;
    let count = pairs.len();
    let offsets: BTreeMap<_, _> = pairs.into_iter().collect();
    if offsets.len() == count {
        Ok(Point::Offsets(offsets))
    } else {
        let message = format!("{BRANCH_AT} = {at:?}: names a partition twice");
        Err(Refusal::new(ResponseError::InvalidConfig, message))
    }
}

/// Whether a text says a point; if not, why.
#[cfg(feature = "test-util")]
pub(crate) fn check_point(at: &str) -> Result<(), String> {
    point(at).map(drop).map_err(|refusal| refusal.message)
}

/// Where the branch of a partition ends: where a batch begins, at the point or behind it.
async fn end(
    context: &Context,
    partition: TopicPartition,
    point: &Point,
) -> Result<Option<Offset>, Refusal> {
    let reader = &context.engine.reader;
    let refuse = |error: FetchError| {
        Refusal::new(error::of_branch_point(&error), format!("{BRANCH_AT}: {error}"))
    };
    let offset = match point {
        Point::Now => None,
        Point::Offset(offset) => Some(*offset),
        Point::Offsets(offsets) => offsets.get(&partition.partition).copied(),
        Point::Time(ms) => {
            let found = reader.offset_for_timestamp(partition, *ms, Isolation::ReadCommitted).await;
            found.map_err(refuse)?.map(|found| found.offset.0)
        }
    };
    let Some(offset) = offset else { return Ok(None) };
    reader.batch_boundary(partition, Offset(offset)).await.map(Some).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_now_an_offset_several_or_a_time() {
        assert_eq!(point("now"), Ok(Point::Now));
        assert_eq!(point("12"), Ok(Point::Offset(12)));
        assert_eq!(point("0:12, 3:40"), Ok(Point::Offsets(BTreeMap::from([(0, 12), (3, 40)]))));
        assert_eq!(point("1970-01-01T00:00:01.500Z"), Ok(Point::Time(1500)));
        assert_eq!(point("1970-01-01T01:00:00+01:00"), Ok(Point::Time(0)));
        for nonsense in ["", "then", "0:1,0:2", "0:1,", "1.5", "1970-01-01", ":"] {
            let refused = point(nonsense).unwrap_err();
            assert_eq!(refused.code, ResponseError::InvalidConfig, "{nonsense}");
        }
    }
}
