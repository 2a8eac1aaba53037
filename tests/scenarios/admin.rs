//! Topics and configs, over several brokers.

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, MetadataRequest,
};
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{Client, topic};
use odradek_tests::cluster::Cluster;
use uuid::Uuid;

async fn two_brokers() -> (Cluster, Client, Client) {
    let cluster = Cluster::in_memory(2).await;
    let first = Client::connect(cluster.address(0)).await;
    let second = Client::connect(cluster.address(1)).await;
    (cluster, first, second)
}

async fn topic_id(client: &mut Client, name: &str) -> (i16, Uuid) {
    let asked = MetadataRequestTopic::default().with_name(Some(topic(name)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![asked]))
        .with_allow_auto_topic_creation(false);
    let response = client.call(12, &request).await;
    (response.topics[0].error_code, response.topics[0].topic_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_known_to_every_broker_as_soon_as_one_has_said_so() {
    let (_cluster, mut first, mut second) = two_brokers().await;
    for n in 0..10 {
        let name = format!("topic-{n}");
        first.create_topic(&name, 3).await;
        let (code, id) = topic_id(&mut second, &name).await;
        assert_eq!(code, 0);
        second.produce(&name, 2, &BatchSpec::of(["x"])).await;
        let names = vec![topic(&name)];
        let request = DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(1000);
        assert_eq!(second.call(5, &request).await.responses[0].error_code, 0);
        // Created again at once: the same name, another topic.
        second.create_topic(&name, 1).await;
        assert_eq!(first.list_offset(7, &name, 0, -1).await.offset, 0);
        let (code, again) = topic_id(&mut first, &name).await;
        assert!(code == 0 && again != id);
        assert_eq!(first.list_offset(7, &name, 2, -1).await.error_code, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_asked_for_is_created_if_the_client_and_the_cluster_want_it() {
    let (_cluster, mut first, mut second) = two_brokers().await;
    assert_eq!(topic_id(&mut first, "wanted").await.0, 3);
    let asked = MetadataRequestTopic::default().with_name(Some(topic("wanted")));
    let wish = MetadataRequest::default().with_topics(Some(vec![asked]));
    let created = first.call(9, &wish.clone().with_allow_auto_topic_creation(true)).await;
    assert_eq!((created.topics[0].error_code, created.topics[0].partitions.len()), (0, 1));
    // Switched off for all brokers, on one of them.
    let off = alter("", 4, "auto.create.topics.enable", "false");
    assert_eq!(first.call(1, &off).await.responses[0].error_code, 0);
    let asked = MetadataRequestTopic::default().with_name(Some(topic("unwanted")));
    let wish = MetadataRequest::default().with_topics(Some(vec![asked]));
    let refused = second.call(9, &wish.with_allow_auto_topic_creation(true)).await;
    assert_eq!(refused.topics[0].error_code, 3);
}

fn alter(name: &str, kind: i8, config: &str, value: &str) -> IncrementalAlterConfigsRequest {
    let config = AlterableConfig::default()
        .with_name(config.to_owned().into())
        .with_value(Some(value.to_owned().into()));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(name.to_owned().into())
        .with_configs(vec![config]);
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_set_on_one_broker_holds_on_the_other() {
    let (_cluster, mut first, mut second) = two_brokers().await;
    first.create_topic("t", 1).await;
    let batch = BatchSpec::of([vec![0_u8; 2000]]);
    second.produce("t", 0, &batch).await;
    let altered = first.call(1, &alter("t", 2, "max.message.bytes", "1000")).await;
    assert_eq!(altered.responses[0].error_code, 0);
    // A look at the other broker's log first: configs are not negative answers.
    second.list_offset(7, "t", 0, -1).await;
    assert_eq!(second.produce_raw("t", 0, batch.encode()).await.error_code, 10);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name("t".into())
        .with_configuration_keys(Some(vec!["max.message.bytes".into()]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let described = second.call(4, &request).await;
    let config = &described.results[0].configs[0];
    assert_eq!((config.value.as_deref(), config.config_source), (Some("1000"), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_honoured_is_refused_with_a_sentence() {
    let (_cluster, mut first, _) = two_brokers().await;
    first.create_topic("t", 1).await;
    let refused = first.call(1, &alter("t", 2, "local.retention.ms", "1000")).await;
    assert_eq!(refused.responses[0].error_code, 40);
    assert!(refused.responses[0].error_message.as_ref().unwrap().contains("object store"));
    let new = |name: &str, partitions: i32, replicas: i16, config: Option<(&str, &str)>| {
        let config = config.map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(name.to_owned().into())
                .with_value(Some(value.to_owned().into()))
        });
        CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
            .with_configs(config.into_iter().collect())
    };
    let topics = vec![
        new("t", 1, 1, None),
        new("a/b", 1, 1, None),
        new("zero", 0, 1, None),
        new("replicas", 1, 0, None),
        new("tiered", 1, 1, Some(("remote.storage.enable", "true"))),
        new("unknown", 1, 1, Some(("no.such.config", "1"))),
        new("twice", 1, 1, None),
        new("twice", 1, 1, None),
        new("good.one", 1, 3, None),
        new("good_one", 1, 3, None),
    ];
    let request = CreateTopicsRequest::default().with_topics(topics);
    let response = first.call(7, &request).await;
    let codes: Vec<i16> = response.topics.iter().map(|it| it.error_code).collect();
    assert_eq!(codes, [36, 17, 37, 38, 40, 40, 42, 42, 0, 17]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_one_request_are_created_as_if_one_after_the_other() {
    let (_cluster, mut client, _) = two_brokers().await;
    let new = |name: &str| {
        CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(1)
            .with_replication_factor(1)
    };
    let branch_of = CreatableTopicConfig::default()
        .with_name("odradek.branch.of".into())
        .with_value(Some("orders".into()));
    let topics = vec![
        new("a.b"),
        new("orders"),
        new("a_b"),
        new("copy").with_num_partitions(-1).with_configs(vec![branch_of]),
        new("twice"),
        new("last"),
        new("twice"),
    ];
    let response = client.call(5, &CreateTopicsRequest::default().with_topics(topics)).await;
    let answers: Vec<_> =
        response.topics.iter().map(|it| (it.name.as_str(), it.error_code)).collect();
    let (collides, is_repeated) = (17, 42);
    assert_eq!(
        answers,
        [
            ("a.b", 0),
            ("orders", 0),
            ("a_b", collides),
            ("copy", 0),
            ("twice", is_repeated),
            ("last", 0),
            ("twice", is_repeated),
        ]
    );
    let (code, _) = topic_id(&mut client, "a_b").await;
    assert_eq!(code, 3);
}
