//! Operators: they create topics, write to them, delete records and topics, change configs, and
//! look whether the next broker knows.

use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest,
};
use odradek_protocol::ResponseError as Code;
use odradek_protocol::id::TopicId;
use odradek_storage::state::State;
use rand::Rng;
use tokio::time::Instant;

use super::World;
use super::asker::Asker;
use super::reader::{EARLIEST, list_offset};
use crate::batches::BatchSpec;
use crate::client::{produce_request, topic};

/// What IncrementalAlterConfigs calls a topic.
const TOPIC_RESOURCE: i8 = 2;

/// How often something is tried.
const ATTEMPTS_MAX: usize = 20;

/// An operator.
pub(super) struct Operator {
    pub(super) world: World,
    pub(super) asker: Asker,
}

/// A topic that was created.
#[derive(Clone, Copy)]
struct Created {
    /// None if somebody else was told.
    id: Option<TopicId>,
    /// Whether no other can come up later under its name: what was asked in vain may be done at any
    /// time, by a broker for one that was stopped and goes on.
    is_only_one: bool,
}

impl Operator {
    /// Works as long as things go wrong: one topic after the other.
    pub(super) async fn run(mut self) {
        for number in 0.. {
            if Instant::now() >= self.world.end {
                return;
            }
            let name = format!("scratch-{number}");
            self.live(&name).await;
            self.asker.rest(Duration::from_secs(1)).await;
        }
    }

    /// The life of a topic.
    async fn live(&mut self, name: &str) {
        let Some(created) = self.create(name).await else { return };
        self.world.say(&format!("{name} is created"));
        let mut start = 0;
        for _ in 0..self.asker.random.random_range(1..5) {
            self.produce(name).await;
            if self.asker.random.random_bool(0.5) {
                self.change_config(name).await;
            }
            if let Some(moved) = self.delete_records(name).await {
                start = moved.max(start);
            }
            self.check_start(name, start).await;
        }
        if self.delete(name).await {
            self.world.say(&format!("{name} is deleted"));
            self.check_gone(name, created).await;
        }
    }

    /// None if there is no topic, as far as anybody says.
    async fn create(&mut self, name: &str) -> Option<Created> {
        let new = CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(10_000);
        let mut is_only_one = true;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(host) = self.asker.any() {
                let told =
                    self.asker.ask(&host, 7, &request).await.map(|mut it| it.topics.remove(0));
                match told.map(|it| (Code::try_from_code(it.error_code), it.topic_id)) {
                    Some((None, id)) => {
                        return Some(Created { id: Some(TopicId(id)), is_only_one });
                    }
                    Some((Some(Code::TopicAlreadyExists), _)) => {
                        return Some(Created { id: None, is_only_one });
                    }
                    // Of what timed out at the broker it is not known either.
                    None | Some((Some(Code::RequestTimedOut), _)) => {
                        self.world.say(&format!("{name} may come up at {host} later"));
                        is_only_one = false;
                    }
                    Some(_) => {}
                }
            }
            self.asker.back_off().await;
        }
        None
    }

    async fn produce(&mut self, name: &str) {
        let batch = BatchSpec::of(["a", "b", "c"].map(str::as_bytes)).encode();
        let request = produce_request(name, 0, -1, batch);
        let Some(host) = self.asker.any() else { return };
        let Some(mut answer) = self.asker.ask(&host, 9, &request).await else { return };
        let told = answer.responses.remove(0).partition_responses.remove(0);
        if told.error_code == Code::UnknownTopicOrPartition.code() {
            self.world.accuse(format!("{name} is not known at {host}, and was created"));
        }
    }

    async fn change_config(&mut self, name: &str) {
        let config = AlterableConfig::default()
            .with_name("retention.bytes".into())
            .with_config_operation(0)
            .with_value(Some("1000000".into()));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(name.to_owned().into())
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        if let Some(host) = self.asker.any() {
            self.asker.ask(&host, 1, &request).await;
        }
    }

    /// Where the topic begins then, if that is known.
    async fn delete_records(&mut self, name: &str) -> Option<i64> {
        let all = DeleteRecordsPartition::default().with_partition_index(0).with_offset(-1);
        let asked = DeleteRecordsTopic::default().with_name(topic(name)).with_partitions(vec![all]);
        let request =
            DeleteRecordsRequest::default().with_topics(vec![asked]).with_timeout_ms(10_000);
        let host = self.asker.any()?;
        let answer = self.asker.ask(&host, 2, &request).await?;
        let told = &answer.topics[0].partitions[0];
        (told.error_code == 0).then_some(told.low_watermark)
    }

    async fn check_start(&mut self, name: &str, start: i64) {
        let Some(host) = self.asker.any() else { return };
        let told = list_offset(&mut self.asker, &host, name, 0, EARLIEST).await;
        if let Some(Ok(told)) = told
            && told < start
        {
            self.world.accuse(format!("{name} at {host} begins at {told}, was {start} before"));
        }
    }

    async fn delete(&mut self, name: &str) -> bool {
        let gone = DeleteTopicState::default().with_name(Some(topic(name)));
        let request =
            DeleteTopicsRequest::default().with_topics(vec![gone]).with_timeout_ms(10_000);
        for _ in 0..ATTEMPTS_MAX {
            if let Some(host) = self.asker.any()
                && let Some(answer) = self.asker.ask(&host, 6, &request).await
            {
                match Code::try_from_code(answer.responses[0].error_code) {
                    None | Some(Code::UnknownTopicOrPartition) => return true,
                    Some(_) => {}
                }
            }
            self.asker.back_off().await;
        }
        false
    }

    /// Nobody knows the topic any more who has followed the log, and whoever answers for it has to.
    /// Another of the same name may be there.
    async fn check_gone(&mut self, name: &str, created: Created) {
        let Some(host) = self.asker.any() else { return };
        let known = list_offset(&mut self.asker, &host, name, 0, super::reader::LATEST).await;
        let Some(Ok(_)) = known else { return };
        let engine = self.world.engine_at(&host);
        let named = |state: &State| state.topic_by_name(name).map(|topic| topic.id);
        let found = engine.and_then(|engine| engine.machine.read(named));
        if created.is_only_one || (found.is_some() && found == created.id) {
            self.world.accuse(format!("{name} is known at {host}, and was deleted"));
        }
        self.world.say(&format!("{name} at {host} is {found:?}, was {:?}", created.id));
    }
}
