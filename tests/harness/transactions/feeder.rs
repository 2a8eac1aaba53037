//! Producers of what pipelines read: transactions over several partitions, some of them aborted.

use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::{TopicId, TopicPartition};
use rand::Rng;
use tokio::time::{Instant, sleep};

use super::ledger::value;
use super::producer::Producer;
use super::verdict::Trouble;

/// A producer at work.
#[derive(Debug)]
pub struct Feeder {
    /// The producer.
    pub producer: Producer,
    /// Where it writes to, and how many partitions there are in each.
    pub topics: Vec<(TopicId, u32)>,
    /// Longest time between two transactions.
    pub pause_max: Duration,
    /// Begins what it sends.
    pub name: String,
    /// Until when.
    pub end: Instant,
}

impl Feeder {
    /// Sends until it is time, or until there has to be another producer.
    pub async fn work(mut self) {
        if self.producer.init(false).await.is_err() {
            return;
        }
        let mut count = 0;
        while Instant::now() < self.end {
            if let Err(trouble) = self.transact(&mut count).await
                && self.producer.recover(trouble).await.is_err()
            {
                return;
            }
            let pause = self.producer.network.up_to(self.pause_max);
            sleep(pause).await;
        }
    }

    async fn transact(&mut self, count: &mut u64) -> Result<(), Trouble> {
        let number = self.producer.begin();
        for _ in 0..self.producer.network.random.random_range(1..=3) {
            let batches = self.batches(number, count);
            self.producer.send(batches).await?;
        }
        if self.producer.network.random.random_bool(0.15) {
            return Err(Trouble::Abort);
        }
        self.producer.commit().await
    }

    fn batches(&mut self, number: usize, count: &mut u64) -> Vec<(TopicPartition, Vec<Bytes>)> {
        let random = &mut self.producer.network.random;
        let mut batches = Vec::new();
        for _ in 0..random.random_range(1..=3) {
            let (topic, partitions) = self.topics[random.random_range(0..self.topics.len())];
            let partition = i32::try_from(random.random_range(0..partitions)).unwrap();
            let values = (0..random.random_range(1..=3)).map(|_| {
                *count += 1;
                value(&format!("{}-{count}", self.name), number)
            });
            batches.push((TopicPartition { topic, partition }, values.collect()));
        }
        batches
    }
}
