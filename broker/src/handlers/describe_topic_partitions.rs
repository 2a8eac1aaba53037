//! DescribeTopicPartitions: topics and their partitions, a page at a time (KIP-966).
//!
//! What is said of a partition is what Metadata says. Topics come in the order of their names, and
//! a page ends in the middle of one if it must: the cursor tells where the next begins.

use std::collections::BTreeSet;
use std::ops::Range;

use odradek_protocol::ResponseError;
use odradek_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use odradek_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use odradek_storage::state::State;
use odradek_storage::state::topics::Topic;

use crate::context::Context;
use crate::directory::{self, Listed};
use crate::leadership;
use crate::operations;
use crate::session::Session;
use crate::topics::{catch_up_unless, is_legal_name};

/// Most partitions of one page: the default of Kafka's `max.request.partition.size.limit`.
const PAGE_PARTITIONS_MAX: usize = 2000;

pub(crate) async fn handle(
    context: &Context,
    session: &Session,
    _: i16,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let names: BTreeSet<String> =
        request.topics.iter().map(|topic| topic.name.as_str().to_owned()).collect();
    let cursor = request.cursor.unwrap_or_default();
    let Ok(first) = usize::try_from(cursor.partition_index) else {
        let refused = names.iter().map(|name| failed(name, ResponseError::InvalidRequest));
        return DescribeTopicPartitionsResponse::default().with_topics(refused.collect());
    };
    let start = (cursor.topic_name.as_str(), first);
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let limit = limit.clamp(1, PAGE_PARTITIONS_MAX);

    let all_known = |state: &State| {
        names.iter().all(|name| !is_legal_name(name) || state.topic_by_name(name).is_some())
    };
    let missing = match catch_up_unless(context.machine(), all_known).await {
        Ok(()) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::LeaderNotAvailable,
    };
    context.machine().read(|state| {
        let brokers = directory::listed(state, session);
        let zone = session.zone.as_deref();
        let page = if names.is_empty() {
            page(state.topics().map(|topic| (topic.name.as_str(), Some(topic))), start, limit)
        } else {
            page(names.iter().map(|name| (name.as_str(), state.topic_by_name(name))), start, limit)
        };
        let show = |(name, part): (&str, Option<Part<'_>>)| match part {
            Some(part) => describe(&brokers, part, zone),
            None if is_legal_name(name) => failed(name, missing),
            None => failed(name, ResponseError::InvalidTopicException),
        };
        let cursor = page.next.map(|(name, first)| {
            Cursor::default()
                .with_topic_name(topic_name(name))
                .with_partition_index(i32::try_from(first).unwrap_or(i32::MAX))
        });
        DescribeTopicPartitionsResponse::default()
            .with_topics(page.topics.into_iter().map(show).collect())
            .with_next_cursor(cursor)
    })
}

/// Some partitions of a topic.
type Part<'a> = (&'a Topic, Range<usize>);

/// What one response holds.
#[derive(Debug)]
struct Page<'a> {
    /// Names, each with what there is of it.
    topics: Vec<(&'a str, Option<Part<'a>>)>,
    /// Where the next page begins: a topic, and a partition of it.
    next: Option<(&'a str, usize)>,
}

/// Cuts a page of `limit` partitions out of topics in the order of their names, from the topic and
/// the partition on that `start` names. What does not exist takes no space.
fn page<'a>(
    topics: impl Iterator<Item = (&'a str, Option<&'a Topic>)>,
    start: (&str, usize),
    limit: usize,
) -> Page<'a> {
    let mut page = Page { topics: Vec::new(), next: None };
    let mut left = limit;
    for (name, topic) in topics.skip_while(|(name, _)| *name < start.0) {
        if left == 0 {
            page.next = Some((name, 0));
            break;
        }
        let Some(topic) = topic else {
            page.topics.push((name, None));
            continue;
        };
        let total = topic.partitions.len();
        let first = if name == start.0 { start.1.min(total) } else { 0 };
        let end = total.min(first.saturating_add(left));
        page.topics.push((name, Some((topic, first..end))));
        if end < total {
            page.next = Some((name, end));
            break;
        }
        left -= end - first;
    }
    page
}

fn describe(
    brokers: &[Listed],
    (topic, part): Part<'_>,
    zone: Option<&str>,
) -> DescribeTopicPartitionsResponseTopic {
    let partition = |index: usize| {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        let nodes = leadership::named(brokers, topic, index, zone);
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(nodes.first().copied().unwrap_or(BrokerId(-1)))
            .with_leader_epoch(0)
            .with_replica_nodes(nodes.clone())
            .with_isr_nodes(nodes)
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_topic_authorized_operations(operations::of_topic(true))
        .with_partitions(part.map(partition).collect())
}

fn failed(name: &str, code: ResponseError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(code.code())
        .with_name(Some(topic_name(name)))
}

fn topic_name(name: &str) -> TopicName {
    TopicName(name.to_owned().into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use odradek_protocol::id::TopicId;
    use odradek_storage::command::{BrokerAddress, Command};
    use uuid::Uuid;

    use super::*;
    use crate::directory::tests::state_of;

    /// Topics a with three partitions, b with one, and d with four.
    fn state() -> State {
        let create = |(id, (name, partitions)): (u128, (&str, u32))| Command::CreateTopic {
            topic: TopicId(Uuid::from_u128(id)),
            name: name.to_owned(),
            partitions,
            replication_factor: 1,
            configs: BTreeMap::new(),
        };
        let topics = (1..).zip([("a", 3), ("b", 1), ("d", 4)]);
        let register = Command::RegisterBroker(BrokerAddress::default());
        let commands = std::iter::once(register).chain(topics.map(create));
        state_of(commands.map(|command| (2, command)).collect())
    }

    /// A page as text, and where the next begins.
    fn cut(
        names: &[&str],
        start: (&str, usize),
        limit: usize,
    ) -> (String, Option<(String, usize)>) {
        let state = state();
        let topics = names.iter().map(|name| (*name, state.topic_by_name(name)));
        let page = page(topics, start, limit);
        let show = |(name, part): &(&str, Option<Part<'_>>)| match part {
            Some((_, part)) => format!("{name}{part:?}"),
            None => format!("{name}?"),
        };
        let shown: Vec<String> = page.topics.iter().map(show).collect();
        (shown.join(" "), page.next.map(|(name, first)| (name.to_owned(), first)))
    }

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let names = ["a", "b", "c", "d"];
        let next = |name: &str, first| Some((name.to_owned(), first));
        assert_eq!(cut(&names, ("", 0), 100), ("a0..3 b0..1 c? d0..4".to_owned(), None));
        assert_eq!(cut(&names, ("", 0), 2), ("a0..2".to_owned(), next("a", 2)));
        assert_eq!(cut(&names, ("a", 2), 2), ("a2..3 b0..1".to_owned(), next("c", 0)));
        assert_eq!(cut(&names, ("c", 0), 2), ("c? d0..2".to_owned(), next("d", 2)));
        assert_eq!(cut(&names, ("d", 2), 2), ("d2..4".to_owned(), None));
    }

    #[test]
    fn a_cursor_at_what_has_gone_goes_on_behind_it() {
        let names = ["a", "b", "d"];
        assert_eq!(cut(&names, ("c", 7), 9), ("d0..4".to_owned(), None));
        assert_eq!(cut(&names, ("b", 7), 9), ("b1..1 d0..4".to_owned(), None));
        assert_eq!(cut(&names, ("e", 0), 9), (String::new(), None));
    }
}
