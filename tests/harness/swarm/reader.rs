//! Readers: they fetch from wherever at whatever broker, and ask where partitions end.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest};
use odradek_protocol::ResponseError as Code;
use odradek_protocol::id::{Offset, TopicPartition};
use odradek_storage::reader::Watermarks;
use rand::Rng;
use tokio::time::Instant;

use super::World;
use super::asker::Asker;
use super::producer;
use crate::client::{fetch_request, topic};
use crate::transactions::consumer::{Chunk, look};

/// The version of Fetch that they speak.
const FETCH: i16 = 11;

/// The version of ListOffsets.
const LIST_OFFSETS: i16 = 7;

/// What ListOffsets calls the end of a partition.
pub(super) const LATEST: i64 = -1;

/// What it calls its beginning.
pub(super) const EARLIEST: i64 = -2;

/// A reader.
pub(super) struct Reader {
    pub(super) world: World,
    pub(super) asker: Asker,
    pub(super) name: String,
}

impl Reader {
    /// Reads as long as things go wrong.
    pub(super) async fn run(mut self) {
        let mut positions: BTreeMap<(String, i32), i64> = BTreeMap::new();
        let names = self.world.names();
        while Instant::now() < self.world.end {
            self.asker.rest(Duration::from_millis(150)).await;
            let name = names[self.asker.random.random_range(0..names.len())].clone();
            let partition = self.asker.random.random_range(0..self.world.plan.partitions);
            let Some(host) = self.asker.leader(&name, partition).await else { continue };
            if self.asker.random.random_bool(0.3) {
                self.ask_for_end(&host, &name, partition).await;
                continue;
            }
            let position = positions.entry((name.clone(), partition)).or_default();
            let is_committed = name != producer::TOPIC && self.asker.random.random_bool(0.7);
            let Some(number) = self.world.net.number(&host) else { continue };
            let at = (&*name, partition, *position);
            let Some(chunk) = fetch(&self.world, &mut self.asker, &host, at, is_committed).await
            else {
                continue;
            };
            let place = self.world.partition(&name, partition);
            self.world.ledger.show(&self.name, number, place, &chunk);
            self.world.know_end(place, chunk.next);
            *position = chunk.next;
            if self.asker.random.random_bool(0.05) {
                *position = self.asker.random.random_range(0..=chunk.next);
            }
        }
    }

    /// The end of a partition is never before what anybody knew when it was asked for.
    async fn ask_for_end(&mut self, host: &str, name: &str, partition: i32) {
        let place = self.world.partition(name, partition);
        let known = self.world.known_end(place);
        let Some(Ok(end)) = list_offset(&mut self.asker, host, name, partition, LATEST).await
        else {
            return;
        };
        if end < known {
            self.world.accuse(format!("{place} at {host}: it ends at {end}, was {known} before"));
        }
        self.world.know_end(place, end);
    }
}

/// Where a partition ends or begins, as a broker says; or its error.
pub(super) async fn list_offset(
    asker: &mut Asker,
    host: &str,
    name: &str,
    partition: i32,
    timestamp: i64,
) -> Option<Result<i64, Code>> {
    let asked =
        ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
    let asked = ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![asked]);
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
    let mut answer = asker.ask(host, LIST_OFFSETS, &request).await?;
    let told = answer.topics.remove(0).partitions.remove(0);
    Some(Code::try_from_code(told.error_code).map_or(Ok(told.offset), Err))
}

/// A part of a partition, as a broker shows it.
pub(super) async fn fetch(
    world: &World,
    asker: &mut Asker,
    host: &str,
    (name, partition, from): (&str, i32, i64),
    is_committed: bool,
) -> Option<Chunk> {
    let wait_ms = [0, 0, 200][asker.random.random_range(0..3)];
    let request = fetch_request(name, partition, from)
        .with_isolation_level(i8::from(is_committed))
        .with_max_bytes(asker.random.random_range(1..3000))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1);
    let mut answer = asker.ask(host, FETCH, &request).await?;
    let told = answer.responses.pop()?.partitions.pop()?;
    match Code::try_from_code(told.error_code) {
        None => {}
        Some(Code::KafkaStorageError | Code::NotLeaderOrFollower | Code::OffsetNotAvailable) => {
            return None;
        }
        Some(other) => {
            world.accuse(format!("{name}/{partition} at {host} from {from}: {other:?}"));
            return None;
        }
    }
    let begins = told.aborted_transactions.unwrap_or_default();
    let begins = begins.iter().map(|it| (it.first_offset, it.producer_id.0)).collect();
    let (next, records) = look(from, begins, told.records.unwrap_or_default());
    let watermarks = Watermarks {
        log_start: Offset(told.log_start_offset),
        last_stable_offset: Offset(told.last_stable_offset),
        high_watermark: Offset(told.high_watermark),
    };
    Some(Chunk { is_committed, from, next, records, watermarks })
}

/// A partition from its beginning to its end, as a broker shows it; waits until it does.
pub(super) async fn read_all(
    world: &World,
    asker: &mut Asker,
    host: &str,
    place: (&str, i32),
    is_committed: bool,
) -> Option<Chunk> {
    let mut all: Option<Chunk> = None;
    loop {
        let from = all.as_ref().map_or(0, |all| all.next);
        let limit = Instant::now() + super::CONVERGE_MAX;
        let chunk = loop {
            let at = (place.0, place.1, from);
            if let Some(chunk) = fetch(world, asker, host, at, is_committed).await {
                break chunk;
            }
            if Instant::now() > limit {
                world.accuse(format!("{place:?} at {host} can't be read from {from} on"));
                return None;
            }
            asker.back_off().await;
        };
        let (next, watermarks) = (chunk.next, chunk.watermarks);
        match &mut all {
            None => all = Some(chunk),
            Some(all) => {
                all.records.extend(chunk.records);
                (all.next, all.watermarks) = (next, watermarks);
            }
        }
        let end =
            if is_committed { watermarks.last_stable_offset } else { watermarks.high_watermark };
        if next >= end.0 {
            return all;
        }
    }
}

/// A partition of a topic of the world.
impl World {
    pub(super) fn partition(&self, name: &str, partition: i32) -> TopicPartition {
        TopicPartition { topic: self.topic(name), partition }
    }
}
