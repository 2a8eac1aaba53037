//! Readers that look at everything all the time, at whatever broker, from wherever.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use odradek_protocol::id::TopicPartition;
use odradek_storage::reader::Isolation;
use odradek_storage::state::State;
use rand::Rng;
use rand::seq::IndexedRandom;
use tokio::time::sleep;

use super::consumer::fetch;
use super::ledger::Ledger;
use super::network::Network;
use crate::groups::client::Brokers;

/// A reader.
#[derive(Debug)]
pub struct Reader {
    /// Its way to the brokers.
    pub network: Network,
    /// Where it writes down what it is shown.
    pub ledger: Ledger,
    /// What it is called.
    pub name: String,
    /// What it wants to see.
    pub isolation: Isolation,
    /// All partitions.
    pub partitions: Vec<TopicPartition>,
}

impl Reader {
    /// Reads for ever.
    pub async fn work(mut self) {
        let mut positions: BTreeMap<TopicPartition, i64> = BTreeMap::new();
        loop {
            let pause = self.network.up_to(Duration::from_millis(150));
            sleep(pause).await;
            let partition = *self.partitions.choose(&mut self.network.random).unwrap();
            let position = *positions.entry(partition).or_default();
            let Some(broker) = self.network.any_broker() else { continue };
            let bytes_max = self.network.random.random_range(1..2000);
            let isolation = self.isolation;
            let heard = self.network.ask(&broker, move |broker| {
                let at = (partition, position);
                async move { fetch(&broker.engine, at, bytes_max, isolation).await }.boxed()
            });
            let Some(Ok(chunk)) = heard.await.answer else { continue };
            self.ledger.show(&self.name, broker.number, partition, &chunk);
            positions.insert(partition, chunk.next);
            if self.network.random.random_bool(0.05) {
                let anywhere = self.network.random.random_range(0..=chunk.next);
                positions.insert(partition, anywhere);
            }
        }
    }
}

/// Looks at all brokers for ever: what they say is stable stays so, and nothing in it is open.
pub async fn watch(brokers: Brokers, ledger: Ledger, partitions: Vec<TopicPartition>) {
    loop {
        sleep(Duration::from_millis(50)).await;
        for broker in brokers.lock().unwrap().iter() {
            broker
                .engine
                .machine
                .read(|state| watch_one(broker.number, state, &ledger, &partitions));
        }
    }
}

/// Looks at one broker's state, as it is now.
pub(crate) fn watch_one(
    broker: u64,
    state: &State,
    ledger: &Ledger,
    partitions: &[TopicPartition],
) {
    for partition in partitions {
        let Some(found) = state.partition(*partition) else { continue };
        let ongoing = state.transactions().ongoing();
        let firsts = ongoing
            .filter_map(|(_, it)| it.ongoing()?.partitions.get(partition).copied().flatten());
        let open = firsts.min().map_or(i64::MAX, |it| it.0);
        let (stable, end) = (found.last_stable_offset().0, found.high_watermark.0);
        ledger.watch(broker, *partition, (stable, end), open);
    }
}
