//! Transactional producers that speak the protocol of KIP-890, and pipelines: what is committed in
//! one topic is copied to another in transactions that take the positions of a group with them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    EndTxnRequest, GroupId, InitProducerIdRequest, OffsetFetchRequest, ProducerId, TransactionalId,
    TxnOffsetCommitRequest,
};
use odradek_protocol::ResponseError as Code;
use odradek_protocol::id::TopicPartition;
use rand::Rng;
use tokio::time::Instant;

use super::World;
use super::asker::{Asker, GROUP, TRANSACTION};
use super::reader::fetch;
use crate::batches::BatchSpec;
use crate::client::{produce_request, topic};
use crate::transactions::ledger::{Ending, Step, origin, value};
use crate::transactions::pipeline::{copied, targets};

/// What feeders write to and pipelines read.
pub(super) const INPUT: &str = "input";

/// What pipelines write to.
pub(super) const OUTPUT: &str = "output";

/// The group of all pipelines.
pub(super) const PIPELINES: &str = "pipelines";

/// The version of Produce with which a transaction begins by being used.
const PRODUCE: i16 = 12;

/// The same of TxnOffsetCommit.
const STAGE: i16 = 5;

/// The version of EndTxn that gives a new epoch.
const END: i16 = 5;

/// How long a transaction may last.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// How long somebody goes on trying.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a transaction can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It has to be aborted.
    Abort,
    /// Only a new epoch tells what has become of it.
    Anew,
}

/// What a client does.
pub(super) enum Work {
    /// Writes to the input.
    Feed,
    /// Copies one partition of it.
    Copy { partition: i32 },
}

/// A transactional producer.
pub(super) struct Transactor {
    pub(super) world: World,
    pub(super) asker: Asker,
    pub(super) id: String,
    pub(super) work: Work,
    /// How often it began anew.
    lives: u64,
    identity: Option<(i64, i16)>,
    sequences: BTreeMap<TopicPartition, i32>,
    /// Where it reads on, once it knows.
    position: Option<i64>,
    fed: usize,
}

impl Transactor {
    pub(super) fn new(world: World, asker: Asker, id: String, work: Work) -> Self {
        let (identity, position) = (None, None);
        let sequences = BTreeMap::new();
        Self { world, asker, id, work, lives: 0, identity, sequences, position, fed: 0 }
    }

    /// Works: a feeder until nothing goes wrong any more, a pipeline until everything is copied.
    pub(super) async fn run(mut self) {
        while !self.is_done() {
            self.asker.rest(Duration::from_millis(100)).await;
            if self.identity.is_none() {
                self.init().await;
                continue;
            }
            if let Err(trouble) = self.work_once().await {
                self.position = None;
                let aborts = trouble == Trouble::Abort && self.end(false).await.is_ok();
                if !aborts {
                    self.identity = None;
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        match self.work {
            Work::Feed => Instant::now() >= self.world.end,
            Work::Copy { .. } => self.world.lock().is_drained,
        }
    }

    /// Takes the transactional id, from whoever had it.
    async fn init(&mut self) {
        let Some(host) = self.asker.coordinator(&self.id.clone(), TRANSACTION).await else {
            return;
        };
        let timeout = i32::try_from(TIMEOUT.as_millis()).unwrap();
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(self.id.clone().into())))
            .with_transaction_timeout_ms(timeout)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let Some(answer) = self.asker.ask(&host, 5, &request).await else { return };
        if answer.error_code == 0 {
            self.lives += 1;
            self.be((answer.producer_id.0, answer.producer_epoch));
            self.world.say(&format!("{}/{} is {:?}", self.id, self.lives, self.identity));
        }
    }

    fn be(&mut self, identity: (i64, i16)) {
        if self.identity != Some(identity) {
            self.sequences.clear();
        }
        self.identity = Some(identity);
    }

    async fn work_once(&mut self) -> Result<(), Trouble> {
        match self.work {
            Work::Feed => {
                let number = self.world.ledger.begin(&self.id, self.lives);
                for _ in 0..self.asker.random.random_range(1..4) {
                    let partition = self.asker.random.random_range(0..self.world.plan.partitions);
                    let values = (0..self.asker.random.random_range(1..4))
                        .map(|_| {
                            self.fed += 1;
                            value(&format!("{}:{}", self.id, self.fed), number)
                        })
                        .collect();
                    self.send(number, (INPUT, partition), values).await?;
                }
                self.finish(number).await
            }
            Work::Copy { partition } => self.copy(partition).await,
        }
    }

    async fn finish(&mut self, number: usize) -> Result<(), Trouble> {
        if self.asker.random.random_bool(0.1) {
            return Err(Trouble::Abort);
        }
        self.world.ledger.ask(number);
        self.end(true).await?;
        self.world.ledger.end(number, Ending::Committed);
        Ok(())
    }

    /// Copies what there is, if there is anything.
    async fn copy(&mut self, partition: i32) -> Result<(), Trouble> {
        let group = PIPELINES.to_owned();
        let place = self.world.partition(INPUT, partition);
        let from = match self.position {
            Some(position) => position,
            None => match self.committed(&group, place).await {
                Some(position) => position,
                None => return Ok(()),
            },
        };
        self.position = Some(from);
        let Some(host) = self.asker.leader(INPUT, partition).await else { return Ok(()) };
        let Some(reader) = self.world.net.number(&host) else { return Ok(()) };
        let at = (INPUT, partition, from);
        let Some(chunk) = fetch(&self.world, &mut self.asker, &host, at, true).await else {
            return Ok(());
        };
        self.world.ledger.show(&self.id, reader, place, &chunk);
        self.position = Some(chunk.next);
        if chunk.records.is_empty() {
            return Ok(());
        }
        let number = self.world.ledger.begin(&self.id, self.lives);
        let step = Step { group: group.clone(), partition: place, from, to: chunk.next };
        let mut batches: BTreeMap<i32, Vec<Bytes>> = BTreeMap::new();
        for (_, record) in &chunk.records {
            let (payload, _) = origin(record);
            for to in targets(payload, u32::try_from(self.world.plan.partitions).unwrap()) {
                batches.entry(to).or_default().push(value(&copied(payload, to), number));
            }
        }
        let stages_first = self.asker.random.random_bool(0.5);
        if stages_first {
            self.stage(number, &step).await?;
        }
        for (to, values) in batches {
            self.send(number, (OUTPUT, to), values).await?;
        }
        if !stages_first {
            self.stage(number, &step).await?;
        }
        self.finish(number).await
    }

    /// Sends a batch to a partition until it is there.
    async fn send(
        &mut self,
        number: usize,
        (name, partition): (&str, i32),
        values: Vec<Bytes>,
    ) -> Result<(), Trouble> {
        let place = self.world.partition(name, partition);
        let ledger = self.world.ledger.clone();
        let places: Vec<usize> =
            values.iter().map(|value| ledger.send(number, place, value.clone())).collect();
        let (id, epoch) = self.identity.unwrap();
        let sequence = self.sequences.entry(place).or_default();
        let batch = BatchSpec::of(values).by(id, epoch, *sequence).transactional().encode();
        *sequence += i32::try_from(places.len()).unwrap();
        let request = produce_request(name, partition, -1, batch)
            .with_transactional_id(Some(TransactionalId(self.id.clone().into())));
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(host) = self.asker.leader(name, partition).await
                && let Some(mut answer) = self.asker.ask(&host, PRODUCE, &request).await
            {
                let told = answer.responses.remove(0).partition_responses.remove(0);
                match Code::try_from_code(told.error_code) {
                    None => {
                        for (place_in, at) in places.iter().zip(told.base_offset..) {
                            ledger.acknowledge(number, *place_in, at);
                        }
                        let count = i64::try_from(places.len()).unwrap();
                        self.world.know_end(place, told.base_offset + count);
                        return Ok(());
                    }
                    Some(code) => self.unless_again("produce", code)?,
                }
            }
            self.spend(limit).await?;
        }
    }

    async fn stage(&mut self, number: usize, step: &Step) -> Result<(), Trouble> {
        self.world.ledger.stage(number, step.clone());
        let (id, epoch) = self.identity.unwrap();
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(step.partition.partition)
            .with_committed_offset(step.to)
            .with_committed_leader_epoch(-1);
        let staged = TxnOffsetCommitRequestTopic::default()
            .with_name(topic(INPUT))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(TransactionalId(self.id.clone().into()))
            .with_group_id(GroupId(step.group.clone().into()))
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch)
            .with_generation_id(-1)
            .with_topics(vec![staged]);
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(host) = self.asker.coordinator(&step.group, GROUP).await
                && let Some(answer) = self.asker.ask(&host, STAGE, &request).await
            {
                match Code::try_from_code(answer.topics[0].partitions[0].error_code) {
                    None => return Ok(()),
                    Some(code) => self.unless_again("stage", code)?,
                }
            }
            self.spend(limit).await?;
        }
    }

    async fn end(&mut self, commits: bool) -> Result<(), Trouble> {
        let Some((id, epoch)) = self.identity else { return Err(Trouble::Anew) };
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(self.id.clone().into()))
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch)
            .with_committed(commits);
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(host) = self.asker.coordinator(&self.id.clone(), TRANSACTION).await
                && let Some(answer) = self.asker.ask(&host, END, &request).await
            {
                match Code::try_from_code(answer.error_code) {
                    None => {
                        self.be((answer.producer_id.0, answer.producer_epoch));
                        return Ok(());
                    }
                    // Of a commit that was asked for only a new epoch tells.
                    Some(code) => {
                        self.unless_again("end", code).map_err(|_| Trouble::Anew)?;
                    }
                }
            }
            self.spend(limit).await.map_err(|_| Trouble::Anew)?;
        }
    }

    async fn spend(&mut self, limit: Instant) -> Result<(), Trouble> {
        if Instant::now() >= limit {
            return Err(Trouble::Abort);
        }
        self.asker.back_off().await;
        Ok(())
    }

    /// Whether the same may be asked again.
    fn unless_again(&self, what: &str, code: Code) -> Result<(), Trouble> {
        match code {
            Code::RequestTimedOut
            | Code::KafkaStorageError
            | Code::NotLeaderOrFollower
            | Code::UnknownTopicOrPartition
            // Of a broker whose clock is a year behind.
            | Code::InvalidTimestamp
            | Code::ConcurrentTransactions
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator => Ok(()),
            Code::InvalidProducerEpoch | Code::ProducerFenced | Code::InvalidProducerIdMapping => {
                self.world.say(&format!("{}: {what}: {code:?}", self.id));
                Err(Trouble::Anew)
            }
            Code::TransactionAbortable | Code::InvalidTxnState | Code::OutOfOrderSequenceNumber => {
                self.world.say(&format!("{}: {what}: {code:?}", self.id));
                Err(Trouble::Abort)
            }
            other => panic!("a producer that does nothing wrong is told: {other:?}"),
        }
    }

    /// Where the group stands: nothing while a transaction is open that may change it.
    async fn committed(&mut self, group: &str, place: TopicPartition) -> Option<i64> {
        let least = self.world.ledger.position(group, place);
        let host = self.asker.coordinator(group, GROUP).await?;
        let found = committed(&mut self.asker, &host, group, (INPUT, place.partition)).await?;
        let found = found.map_or(0, |(offset, _)| offset);
        if found < least {
            let how = format!("{group} {place}: {found}, {least} was committed");
            self.world.ledger.accuse("R18", how);
        }
        Some(found)
    }
}

/// The position of a group that is not about to change, and what was kept with it.
pub(super) async fn committed(
    asker: &mut Asker,
    host: &str,
    group: &str,
    (name, partition): (&str, i32),
) -> Option<Option<(i64, String)>> {
    let asked = OffsetFetchRequestTopics::default()
        .with_name(topic(name))
        .with_partition_indexes(vec![partition]);
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(group.to_owned().into()))
        .with_member_epoch(-1)
        .with_topics(Some(vec![asked]));
    let request = OffsetFetchRequest::default().with_groups(vec![asked]).with_require_stable(true);
    let mut answer = asker.ask(host, 9, &request).await?;
    let told = answer.groups.remove(0);
    if told.error_code != 0 {
        return None;
    }
    let told = told.topics.into_iter().next()?.partitions.into_iter().next()?;
    if told.error_code != 0 {
        return None;
    }
    let text = told.metadata.map(|it| it.as_str().to_owned()).unwrap_or_default();
    Some((told.committed_offset >= 0).then_some((told.committed_offset, text)))
}
