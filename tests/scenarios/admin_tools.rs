//! What admin tools ask for: sizes, leaders, reassignments, access, configs of groups.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::*;
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{Client, topic};
use odradek_tests::cluster::Cluster;

/// Resource types.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

async fn brokers(count: usize) -> (Cluster, Vec<Client>) {
    let cluster = Cluster::in_memory(count).await;
    let mut clients = Vec::new();
    for place in 0..count {
        let mut client = Client::connect(cluster.address(place)).await;
        // All are up, and every one knows all others.
        while client.call(12, &MetadataRequest::default()).await.brokers.len() < count {}
        clients.push(client);
    }
    (cluster, clients)
}

/// What Metadata says of a topic.
async fn metadata(client: &mut Client, name: &str) -> MetadataResponseTopic {
    let asked = MetadataRequestTopic::default().with_name(Some(topic(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    client.call(12, &request).await.topics.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_of_all_brokers_add_up_to_what_was_produced() {
    let (_cluster, mut clients) = brokers(3).await;
    clients[0].create_topic("sized", 12).await;
    clients[0].create_topic("other", 1).await;
    let mut produced = BTreeMap::new();
    for partition in 0..12_i32 {
        let batch = BatchSpec::of(vec![vec![7_u8; 100]; usize::try_from(partition).unwrap() + 1]);
        clients[0].produce("sized", partition, &batch).await;
        produced.insert(partition, i64::try_from(batch.encode().len()).unwrap());
    }
    for ask_for_all in [true, false] {
        let asked = DescribableLogDirTopic::default()
            .with_topic(topic("sized"))
            .with_partitions((0..20).collect());
        let nobody =
            DescribableLogDirTopic::default().with_topic(topic("nobody")).with_partitions(vec![0]);
        let asked = if ask_for_all { None } else { Some(vec![asked, nobody]) };
        let request = DescribeLogDirsRequest::default().with_topics(asked);
        let mut sizes = BTreeMap::new();
        for client in &mut clients {
            // A look at the log's tail: sizes need not be of this instant.
            client.list_offset(7, "no such topic", 0, -1).await;
            let response = client.call(4, &request).await;
            let [dir] = &response.results[..] else { panic!("{response:?}") };
            assert_eq!((response.error_code, dir.error_code), (0, 0));
            assert_eq!((dir.total_bytes, dir.usable_bytes), (-1, -1));
            for described in dir.topics.iter().filter(|it| it.name == topic("sized")) {
                for partition in &described.partitions {
                    assert_eq!((partition.offset_lag, partition.is_future_key), (0, false));
                    let twice = sizes.insert(partition.partition_index, partition.partition_size);
                    assert_eq!(twice, None, "shown by two brokers");
                }
            }
            let shows_other = dir.topics.iter().any(|it| it.name == topic("other"));
            assert!(ask_for_all || !shows_other);
        }
        assert_eq!(sizes, produced);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_leader_needs_to_be_elected() {
    let (_cluster, mut clients) = brokers(1).await;
    let client = &mut clients[0];
    client.create_topic("t", 2).await;
    let asked = |name: &str, partitions: &[i32]| {
        TopicPartitions::default().with_topic(topic(name)).with_partitions(partitions.to_vec())
    };
    for election in [0, 1] {
        let request = ElectLeadersRequest::default()
            .with_election_type(election)
            .with_topic_partitions(Some(vec![asked("t", &[0, 1, 2, -1]), asked("u", &[0])]));
        let response = client.call(2, &request).await;
        let codes: Vec<(i32, i16)> = response
            .replica_election_results
            .iter()
            .flat_map(|it| it.partition_result.iter().map(|it| (it.partition_id, it.error_code)))
            .collect();
        assert_eq!(response.error_code, 0);
        assert_eq!(codes, [(0, 84), (1, 84), (2, 3), (-1, 3), (0, 3)]);
    }
    let all = ElectLeadersRequest::default().with_topic_partitions(None);
    let response = client.call(2, &all).await;
    assert_eq!((response.error_code, response.replica_election_results.len()), (0, 0));
    let odd = ElectLeadersRequest::default().with_election_type(2);
    assert_eq!(client.call(2, &odd).await.error_code, 42);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reassignment_is_granted_if_it_is_so_already() {
    let (_cluster, mut clients) = brokers(3).await;
    let client = &mut clients[0];
    client.create_topic("t", 1).await;
    let now = metadata(client, "t").await.partitions.remove(0).replica_nodes;
    let elsewhere = if now == [BrokerId(1)] { BrokerId(2) } else { BrokerId(1) };
    let mut ask = async |name: &str, partition: i32, replicas: Option<Vec<BrokerId>>| {
        let asked = ReassignablePartition::default()
            .with_partition_index(partition)
            .with_replicas(replicas);
        let asked =
            ReassignableTopic::default().with_name(topic(name)).with_partitions(vec![asked]);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![asked]);
        let mut response = client.call(1, &request).await;
        assert_eq!(response.error_code, 0);
        let answer = response.responses.remove(0).partitions.remove(0);
        (answer.error_code, answer.error_message.map_or(String::new(), |it| it.to_string()))
    };
    assert_eq!(ask("t", 0, Some(now)).await, (0, String::new()));
    let (code, message) = ask("t", 0, Some(vec![elsewhere])).await;
    assert!(code == 39 && message.contains("object store"), "{code} {message}");
    let (code, message) = ask("t", 0, Some(vec![BrokerId(99)])).await;
    assert!(code == 39 && message.contains("99"), "{code} {message}");
    assert_eq!(ask("t", 0, None).await.0, 85);
    assert_eq!(ask("t", 1, Some(vec![elsewhere])).await.0, 3);
    assert_eq!(ask("u", 0, None).await.0, 3);
    let request = ListPartitionReassignmentsRequest::default().with_topics(None);
    let response = client.call(0, &request).await;
    assert_eq!((response.error_code, response.topics.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_nobody_to_grant_or_limit_access() {
    let (_cluster, mut clients) = brokers(1).await;
    let client = &mut clients[0];
    let described = client.call(3, &DescribeAclsRequest::default()).await;
    assert_eq!((described.error_code, described.resources.len()), (54, 0));
    assert_eq!(described.error_message.as_deref(), Some("no authorizer is configured"));
    let request = CreateAclsRequest::default().with_creations(vec![AclCreation::default(); 2]);
    let created = client.call(3, &request).await;
    assert_eq!(created.results.iter().map(|it| it.error_code).collect::<Vec<_>>(), [54, 54]);
    let request = DeleteAclsRequest::default().with_filters(vec![DeleteAclsFilter::default(); 2]);
    let deleted = client.call(3, &request).await;
    let codes: Vec<i16> = deleted.filter_results.iter().map(|it| it.error_code).collect();
    assert_eq!(codes, [54, 54]);

    let quotas = client.call(1, &DescribeClientQuotasRequest::default()).await;
    assert_eq!((quotas.error_code, quotas.entries), (0, Some(Vec::new())));
    let all = DescribeUserScramCredentialsRequest::default();
    assert_eq!(client.call(0, &all).await.results, []);
    let user = |name: &'static str| UserName::default().with_name(name.into());
    let request = DescribeUserScramCredentialsRequest::default().with_users(Some(vec![
        user("b"),
        user("a"),
        user("b"),
    ]));
    let credentials = client.call(0, &request).await;
    let codes: Vec<(&str, i16)> =
        credentials.results.iter().map(|it| (it.user.as_str(), it.error_code)).collect();
    assert_eq!((credentials.error_code, codes), (0, vec![("a", 91), ("b", 92)]));
}

/// Sets a config, or goes back to its default; the code and the sentence.
async fn alter(
    client: &mut Client,
    (kind, name): (i8, &str),
    config: &str,
    value: Option<&str>,
) -> (i16, String) {
    let config = AlterableConfig::default()
        .with_name(config.to_owned().into())
        .with_config_operation(i8::from(value.is_none()))
        .with_value(value.map(|it| it.to_owned().into()));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(name.to_owned().into())
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.call(1, &request).await.responses.remove(0);
    (answer.error_code, answer.error_message.map_or(String::new(), |it| it.to_string()))
}

async fn describe(client: &mut Client, kind: i8, name: &str) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(name.to_owned().into())
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    client.call(4, &request).await.results.remove(0)
}

/// Value and source of a config.
fn shown<'a>(described: &'a DescribeConfigsResult, name: &str) -> (&'a str, i8) {
    let config = described.configs.iter().find(|it| it.name.as_str() == name).unwrap();
    (config.value.as_deref().unwrap(), config.config_source)
}

/// The resources of these types that there are.
async fn listed(client: &mut Client, version: i16, types: &[i8]) -> (i16, Vec<(i8, String)>) {
    let request = ListConfigResourcesRequest::default().with_resource_types(types.to_vec());
    let response = client.call(version, &request).await;
    let resources = response.config_resources.into_iter();
    let resources = resources.map(|it| (it.resource_type, it.resource_name.to_string()));
    (response.error_code, resources.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_has_configs_before_it_exists() {
    let (_cluster, mut clients) = brokers(2).await;
    let [first, second] = &mut clients[..] else { panic!() };
    let session = "consumer.session.timeout.ms";
    let heartbeat = "consumer.heartbeat.interval.ms";
    let described = describe(first, GROUP, "readers").await;
    assert_eq!(shown(&described, session), ("45000", 5));
    assert_eq!(shown(&described, heartbeat), ("5000", 5));

    assert_eq!(alter(first, (GROUP, "readers"), session, Some("50000")).await.0, 0);
    let inherited = "group.consumer.heartbeat.interval.ms";
    assert_eq!(alter(first, (BROKER, ""), inherited, Some("7000")).await.0, 0);
    second.list_offset(7, "no such topic", 0, -1).await;
    let described = describe(second, GROUP, "readers").await;
    assert_eq!(shown(&described, session), ("50000", 8));
    assert_eq!(shown(&described, heartbeat), ("7000", 3));
    let group = (GROUP, "readers".to_owned());
    assert_eq!(listed(second, 1, &[GROUP]).await, (0, vec![group]));

    assert_eq!(alter(second, (GROUP, "readers"), session, None).await.0, 0);
    assert_eq!(shown(&describe(second, GROUP, "readers").await, session), ("45000", 5));
    assert_eq!(listed(second, 1, &[GROUP]).await, (0, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn configs_that_can_not_be_honoured_are_refused_with_a_sentence() {
    let (_cluster, mut clients) = brokers(1).await;
    let client = &mut clients[0];
    let refusals = [
        ((GROUP, "g"), "consumer.session.timeout.ms", "1000", 40, "45000 to 60000"),
        ((GROUP, "g"), "share.session.timeout.ms", "50000", 40, "share groups come later"),
        ((GROUP, "g"), "streams.num.standby.replicas", "1", 40, "streams groups come later"),
        ((GROUP, "g"), "no.such.config", "1", 40, "not a config"),
        ((GROUP, ""), "consumer.session.timeout.ms", "50000", 42, "needs a name"),
        ((CLIENT_METRICS, "m"), "interval.ms", "1000", 40, "not collected"),
        ((BROKER_LOGGER, "1"), "root", "DEBUG", 42, "when it is started"),
        ((BROKER, ""), "group.max.size", "0", 40, "1 to"),
    ];
    for (resource, config, value, code, sentence) in refusals {
        let (found, message) = alter(client, resource, config, Some(value)).await;
        assert!(found == code && message.contains(sentence), "{resource:?} {found} {message}");
    }
    let metrics = describe(client, CLIENT_METRICS, "m").await;
    assert_eq!((metrics.error_code, metrics.configs.len()), (0, 0));
    assert_eq!(describe(client, BROKER_LOGGER, "1").await.error_code, 42);
    assert_eq!(describe(client, GROUP, "").await.error_code, 42);
    assert_eq!(listed(client, 1, &[GROUP, CLIENT_METRICS]).await, (0, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_has_configs_can_be_listed() {
    let (_cluster, mut clients) = brokers(2).await;
    let client = &mut clients[0];
    client.create_topic("b", 1).await;
    client.create_topic("a", 1).await;
    alter(client, (GROUP, "readers"), "consumer.session.timeout.ms", Some("50000")).await;
    let resource = |kind: i8, name: &str| (kind, name.to_owned());
    let topics = [resource(TOPIC, "a"), resource(TOPIC, "b")];
    let nodes = [resource(BROKER, "1"), resource(BROKER, "2")];
    let group = [resource(GROUP, "readers")];
    let all = [&topics[..], &nodes[..], &group[..]].concat();
    assert_eq!(listed(client, 1, &[]).await, (0, all));
    assert_eq!(listed(client, 1, &[TOPIC]).await, (0, topics.to_vec()));
    assert_eq!(listed(client, 1, &[GROUP, BROKER]).await, (0, [&nodes[..], &group[..]].concat()));
    assert_eq!(listed(client, 1, &[BROKER_LOGGER, CLIENT_METRICS]).await, (0, vec![]));
    assert_eq!(listed(client, 0, &[]).await, (0, vec![]));
    assert_eq!(listed(client, 1, &[TOPIC, 3]).await, (35, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_partitions_say_what_metadata_says() {
    let (_cluster, mut clients) = brokers(3).await;
    let client = &mut clients[0];
    client.create_topic("many", 5).await;
    client.create_topic("one", 1).await;
    let asked = |name: &str| TopicRequest::default().with_name(topic(name));
    for ask_for_all in [true, false] {
        let names = ["one", "nobody", "many", "not/legal"];
        let topics = if ask_for_all { vec![] } else { names.map(asked).to_vec() };
        let mut request = DescribeTopicPartitionsRequest::default()
            .with_topics(topics)
            .with_response_partition_limit(2);
        let mut seen: BTreeMap<String, Vec<_>> = BTreeMap::new();
        let mut failed = Vec::new();
        loop {
            let response = client.call(0, &request).await;
            let partitions: usize = response.topics.iter().map(|it| it.partitions.len()).sum();
            assert!(partitions <= 2);
            for described in response.topics {
                let name = described.name.unwrap().to_string();
                if described.error_code != 0 {
                    failed.push((name, described.error_code));
                    continue;
                }
                assert_eq!(described.topic_id, metadata(client, &name).await.topic_id);
                let partitions = described
                    .partitions
                    .into_iter()
                    .map(|it| (it.partition_index, it.leader_id, it.replica_nodes, it.isr_nodes));
                seen.entry(name).or_default().extend(partitions);
            }
            let Some(next) = response.next_cursor else { break };
            let cursor = Cursor::default()
                .with_topic_name(next.topic_name)
                .with_partition_index(next.partition_index);
            request = request.with_cursor(Some(cursor));
        }
        for name in ["many", "one"] {
            let expected = metadata(client, name)
                .await
                .partitions
                .into_iter()
                .map(|it| (it.partition_index, it.leader_id, it.replica_nodes, it.isr_nodes));
            assert_eq!(seen.remove(name), Some(expected.collect()));
        }
        assert!(seen.is_empty());
        let expected = [("nobody".to_owned(), 3), ("not/legal".to_owned(), 17)];
        assert_eq!(failed, if ask_for_all { vec![] } else { expected.to_vec() });
    }
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![asked("one")])
        .with_cursor(Some(Cursor::default().with_partition_index(-1)));
    assert_eq!(client.call(0, &request).await.topics[0].error_code, 42);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_many_partitions_are_all_described_in_the_order_asked_for() {
    let (_cluster, mut clients) = brokers(1).await;
    let client = &mut clients[0];
    // More than are described at once, in one topic and in all.
    let sizes = [1000, 1, 6000, 4999, 1, 3];
    let names: Vec<String> = (0..sizes.len()).map(|number| format!("topic-{number}")).collect();
    for (name, size) in names.iter().zip(sizes) {
        client.create_topic(name, size).await;
    }
    let asked = |name: &str| MetadataRequestTopic::default().with_name(Some(topic(name)));
    for reversed in [false, true] {
        let mut named: Vec<(&str, i32)> = names.iter().map(String::as_str).zip(sizes).collect();
        named.insert(3, ("nobody", 0));
        if reversed {
            named.reverse();
        }
        let topics = named.iter().map(|(name, _)| asked(name)).collect();
        let request = MetadataRequest::default()
            .with_topics(Some(topics))
            .with_allow_auto_topic_creation(false);
        let answer = described(client.call(12, &request).await);
        let answer: Vec<(&str, i32)> = answer.iter().map(|(name, size)| (&**name, *size)).collect();
        assert_eq!(answer, named);
    }
    let all = client.call(12, &MetadataRequest::default().with_topics(None)).await;
    let mut all = described(all);
    all.sort();
    let expected: Vec<(String, i32)> = names.into_iter().zip(sizes).collect();
    assert_eq!(all, expected);
}

/// The topics of an answer, each with the number of its partitions, which are in their order.
fn described(answer: MetadataResponse) -> Vec<(String, i32)> {
    let describe = |topic: MetadataResponseTopic| {
        let indexes: Vec<i32> = topic.partitions.iter().map(|it| it.partition_index).collect();
        let count = i32::try_from(indexes.len()).unwrap();
        assert_eq!(indexes, (0..count).collect::<Vec<_>>());
        (topic.name.unwrap().to_string(), count)
    };
    answer.topics.into_iter().map(describe).collect()
}
