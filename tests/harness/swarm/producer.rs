//! Producers outside of transactions: plain ones, and idempotent ones as Kafka's clients are.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use odradek_protocol::ResponseError as Code;
use odradek_protocol::id::TopicPartition;
use rand::Rng;
use tokio::time::Instant;

use super::World;
use super::asker::Asker;
use crate::batches::BatchSpec;
use crate::client::produce_request;
use crate::world::Sent;

/// The topic that they write to.
pub(super) const TOPIC: &str = "plain";

/// The version of Produce that they speak.
const PRODUCE: i16 = 9;

/// Batches on their way at a time.
const WINDOW: usize = 5;

/// What came of a batch.
enum Came {
    /// It stands at this offset.
    Stored(i64),
    /// It certainly is not there, and never will be.
    Refused,
    /// Nobody knows.
    Unknown,
    /// What was sent before it has to be sent again first.
    OutOfOrder,
}

/// A producer.
pub(super) struct Producer {
    pub(super) world: World,
    pub(super) asker: Asker,
    pub(super) number: usize,
    sent: usize,
}

impl Producer {
    pub(super) fn new(world: World, asker: Asker, number: usize) -> Self {
        Self { world, asker, number, sent: 0 }
    }

    /// Produces until nothing goes wrong any more, and until all is known then.
    pub(super) async fn run(mut self) {
        while Instant::now() < self.world.end {
            if self.number.is_multiple_of(2) {
                self.live_idempotent().await;
            } else {
                self.send_several().await;
                self.asker.rest(Duration::from_millis(300)).await;
            }
        }
    }

    fn value(&mut self, life: usize) -> Bytes {
        self.sent += 1;
        Bytes::from(format!("{}.{life}/{}", self.number, self.sent))
    }

    /// Notes that something is sent, in the order of sending; its place among all that is.
    fn send(&self, partition: i32, value: &Bytes, idempotent: bool) -> usize {
        let partition = TopicPartition { topic: self.world.topic(TOPIC), partition };
        let sent =
            Sent { partition, value: value.clone(), acknowledged: None, only_once: idempotent };
        let sents = &mut self.world.lock().sent;
        sents.push(Some(sent));
        sents.len() - 1
    }

    fn note(&self, place: usize, came: &Came) {
        let sent = self.world.lock().sent[place].clone().unwrap();
        let text = str::from_utf8(&sent.value).unwrap();
        match came {
            Came::Stored(at) => {
                self.world.say(&format!("{text} -> {at} of {}", sent.partition.partition));
                self.world.know_end(sent.partition, at + 1);
                let acknowledged = Some(*at);
                self.world.lock().sent[place] = Some(Sent { acknowledged, ..sent });
            }
            // As if it had never been sent.
            Came::Refused if !sent.only_once => self.world.lock().sent[place] = None,
            Came::Refused | Came::Unknown | Came::OutOfOrder => {}
        }
    }

    fn partition(&mut self) -> i32 {
        self.asker.random.random_range(0..self.world.plan.partitions)
    }

    /// Without idempotence each batch is sent once.
    async fn send_several(&mut self) {
        let partition = self.partition();
        let Some(host) = self.asker.leader(TOPIC, partition).await else { return };
        for _ in 0..3 {
            let value = self.value(0);
            let batch = BatchSpec::of([value.clone()]).encode();
            let place = self.send(partition, &value, false);
            let came = produce(&mut self.asker, &host, partition, batch).await;
            self.note(place, &came);
        }
    }

    /// As one producer id: the same batches again and again, on whatever broker, until all are
    /// there; several at a time, over a connection each, so that they overtake each other.
    async fn live_idempotent(&mut self) {
        let Some(id) = self.init().await else {
            self.asker.back_off().await;
            return;
        };
        let (partition, life) = (self.partition(), self.sent);
        let mut sequence = 0;
        for _ in 0..self.asker.random.random_range(1..10) {
            let mut left: Vec<(usize, Bytes)> = Vec::new();
            // Nobody may overtake the first: a partition takes whatever a producer begins with that
            // it doesn't know, as in Kafka, and what comes before that is too old then.
            let most = if sequence == 0 { 1 } else { WINDOW };
            for _ in 0..self.asker.random.random_range(1..=most) {
                let value = self.value(life);
                let spec = BatchSpec::of([value.clone()]).by(id, 0, sequence);
                left.push((self.send(partition, &value, true), spec.encode()));
                sequence += 1;
            }
            while !left.is_empty() {
                left = self.send_window(partition, left).await;
                self.asker.rest(Duration::from_millis(100)).await;
            }
        }
    }

    async fn init(&mut self) -> Option<i64> {
        let host = self.asker.any()?;
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let answer = self.asker.ask(&host, 4, &request).await?;
        (answer.error_code == 0).then_some(answer.producer_id.0)
    }

    /// What has to be sent again.
    async fn send_window(
        &mut self,
        partition: i32,
        left: Vec<(usize, Bytes)>,
    ) -> Vec<(usize, Bytes)> {
        let Some(host) = self.asker.leader(TOPIC, partition).await else { return left };
        let together = self.asker.random.random_bool(0.5);
        let hands: Vec<(Asker, Bytes)> =
            left.iter().map(|(_, batch)| (self.asker.hand(), batch.clone())).collect();
        let sending = hands.into_iter().map(|(mut hand, batch)| {
            let host = host.clone();
            async move { produce(&mut hand, &host, partition, batch).await }
        });
        let came = if together {
            join_all(sending).await
        } else {
            let mut came = Vec::new();
            for sending in sending {
                came.push(sending.await);
            }
            came
        };
        let mut again = Vec::new();
        for ((place, batch), came) in left.into_iter().zip(came) {
            self.note(place, &came);
            if !matches!(came, Came::Stored(_)) {
                again.push((place, batch));
            }
        }
        again
    }
}

async fn produce(asker: &mut Asker, host: &str, partition: i32, batch: Bytes) -> Came {
    let request = produce_request(TOPIC, partition, -1, batch);
    let Some(mut answer) = asker.ask(host, PRODUCE, &request).await else { return Came::Unknown };
    let told = answer.responses.remove(0).partition_responses.remove(0);
    match Code::try_from_code(told.error_code) {
        None => Came::Stored(told.base_offset),
        Some(Code::RequestTimedOut) => Came::Unknown,
        Some(Code::OutOfOrderSequenceNumber) => Came::OutOfOrder,
        Some(
            Code::KafkaStorageError
            | Code::NotLeaderOrFollower
            | Code::UnknownTopicOrPartition
            | Code::LeaderNotAvailable
            // Of a broker whose clock is a year behind.
            | Code::InvalidTimestamp,
        ) => Came::Refused,
        Some(other) => panic!("a producer that does nothing wrong is told: {other:?}"),
    }
}
