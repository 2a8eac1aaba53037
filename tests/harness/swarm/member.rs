//! Members of a group that are told what they have (KIP-848): they speak, read, commit positions,
//! and come back after they were put out.

use std::time::Duration;

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, GroupId, OffsetCommitRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use odradek_protocol::ResponseError as Code;
use rand::Rng;

use super::World;
use super::asker::{Asker, GROUP};
use super::producer::TOPIC;
use super::transactor::committed;
use crate::client::topic;
use crate::groups::history::{Call, What};

/// The group.
pub(super) const NAME: &str = "members";

/// How often a member says that it lives.
const INTERVAL: Duration = Duration::from_secs(2);

/// A member.
pub(super) struct Member {
    pub(super) world: World,
    pub(super) asker: Asker,
    /// Its id, which it chooses itself.
    id: String,
    /// Its epoch; zero before it is in.
    epoch: i32,
    owned: Vec<i32>,
    /// What it will commit next in each of its partitions, once it knows where the group stands.
    next: Vec<Option<i64>>,
    /// Whether the coordinator has to hear all.
    has_news: bool,
}

impl Member {
    pub(super) fn new(world: World, mut asker: Asker) -> Self {
        let id = new_id(&mut asker);
        let (owned, next) = (Vec::new(), Vec::new());
        Self { world, asker, id, epoch: 0, owned, next, has_news: true }
    }

    /// Lives as long as things go wrong, and longer: until the group has come to rest.
    pub(super) async fn run(mut self) {
        while !self.world.lock().is_drained {
            self.asker.rest(INTERVAL / 2).await;
            let Some(host) = self.asker.coordinator(NAME, GROUP).await else { continue };
            self.speak(&host).await;
            for at in 0..self.owned.len() {
                let Some(offset) = self.next[at] else {
                    self.next[at] = self.read(&host, self.owned[at]).await;
                    continue;
                };
                if !self.commit(&host, at, offset).await {
                    self.begin_anew();
                    break;
                }
            }
        }
    }

    fn note(&self, began: u64, is_done: bool, what: What) {
        let (group, member) = (NAME.to_owned(), self.id.clone());
        let call = Call { group, member, instance: None, began, ended: 0, is_done, what };
        self.world.calls.add(call);
    }

    async fn speak(&mut self, host: &str) {
        let began = self.world.calls.moment();
        let (said, owned) = (self.epoch, self.owned.clone());
        let says_all = said == 0 || self.has_news || self.asker.random.random_bool(0.2);
        let has = TopicPartitions::default()
            .with_topic_id(self.world.topic(TOPIC).0)
            .with_partitions(owned.clone());
        let has = if owned.is_empty() { vec![] } else { vec![has] };
        let names: Vec<TopicName> = vec![topic(TOPIC)];
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str(NAME)))
            .with_member_id(self.id.clone().into())
            .with_member_epoch(said)
            .with_rebalance_timeout_ms(if says_all { 8000 } else { -1 })
            .with_subscribed_topic_names(says_all.then_some(names))
            .with_topic_partitions(says_all.then_some(has));
        let answer = self.asker.ask(host, 1, &request).await;
        let failed = |this: &mut Self| {
            this.has_news = true;
            let partitions = owned.clone();
            this.note(
                began,
                false,
                What::Turn { said, epoch: said, owned: owned.clone(), partitions },
            );
        };
        let Some(answer) = answer else { return failed(self) };
        match Code::try_from_code(answer.error_code) {
            None => {}
            Some(Code::UnknownMemberId | Code::FencedMemberEpoch) => {
                failed(self);
                return self.begin_anew();
            }
            Some(
                Code::NotCoordinator
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress,
            ) => return failed(self),
            Some(other) => panic!("a member that does nothing wrong is told: {other:?}"),
        }
        let told = answer.assignment.map(|it| {
            let parts = it.topic_partitions.into_iter().flat_map(|it| it.partitions);
            let mut parts: Vec<i32> = parts.collect();
            parts.sort_unstable();
            parts
        });
        let partitions = told.unwrap_or_else(|| owned.clone());
        let epoch = answer.member_epoch;
        self.note(
            began,
            true,
            What::Turn { said, epoch, owned: owned.clone(), partitions: partitions.clone() },
        );
        self.has_news = partitions != owned;
        self.epoch = epoch;
        if partitions != owned {
            self.next = vec![None; partitions.len()];
            self.owned = partitions;
        }
    }

    /// Becomes somebody new, who has nothing: it was put out, or does not know what has become of
    /// its commit, which may yet come after others of the same epoch.
    fn begin_anew(&mut self) {
        self.id = new_id(&mut self.asker);
        self.epoch = 0;
        self.owned.clear();
        self.next.clear();
    }

    /// Where to go on in a partition.
    async fn read(&mut self, host: &str, partition: i32) -> Option<i64> {
        let began = self.world.calls.moment();
        let position = committed(&mut self.asker, host, NAME, (TOPIC, partition)).await?;
        self.note(began, true, What::Read { partition, position: position.clone() });
        Some(position.map_or(0, |(offset, _)| offset) + 1)
    }

    /// Commits a position; whether it is known what came of it.
    async fn commit(&mut self, host: &str, at: usize, offset: i64) -> bool {
        let partition = self.owned[at];
        let metadata = format!("{:08x}", self.asker.random.random::<u32>());
        let committed = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(metadata.clone().into()));
        let committed = OffsetCommitRequestTopic::default()
            .with_name(topic(TOPIC))
            .with_partitions(vec![committed]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str(NAME)))
            .with_member_id(self.id.clone().into())
            .with_generation_id_or_member_epoch(self.epoch)
            .with_topics(vec![committed]);
        let began = self.world.calls.moment();
        let answer = self.asker.ask(host, 9, &request).await;
        let code = answer.map(|it| it.topics[0].partitions[0].error_code);
        let is_done = code == Some(0);
        let generation = self.epoch;
        self.note(began, is_done, What::Commit { generation, partition, offset, metadata });
        if is_done {
            self.next[at] = Some(offset + 1);
        }
        let is_unknown = [Code::CoordinatorNotAvailable, Code::RequestTimedOut].map(|it| it.code());
        code.is_some_and(|code| !is_unknown.contains(&code))
    }
}

fn new_id(asker: &mut Asker) -> String {
    format!("member-{:08x}", asker.random.random::<u32>())
}
