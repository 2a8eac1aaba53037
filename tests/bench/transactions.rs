//! The benchmark of transactions: how many there are in a second, and what each costs the broker
//! and the log, against the same records without a transaction in the same run.
//!
//! `cargo run --release -p odradek-tests --features benches --bin bench_transactions`, with a
//! broker built before (`cargo build --release`, or named by `BROKER_BIN`). Writes
//! `tests/bench/transactions.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark asks the clock")]

use std::fs;
use std::path::Path;
use std::time::Instant;

use futures::future::join_all;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, ProduceRequest, ProducerId,
    TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::{Client, topic};
use odradek_tests::process::{BrokerProcess, how_built};

mod log_bytes;
mod machine;

use log_bytes::log_bytes;
use machine::{load, machine};

/// Producers, each with a connection and one request in flight.
const PRODUCERS: usize = 32;

/// Records written by each producer in each measurement, one in each partition of a transaction.
const RECORDS: usize = 2000;

/// Partitions that a transaction writes to.
const PARTITIONS: [i32; 3] = [1, 10, 100];

const TOPIC: &str = "topic";

/// How records are written.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// By an idempotent producer.
    Plain,
    /// In transactions whose partitions are added first.
    First,
    /// In transactions of the second protocol (KIP-890).
    Second,
}

struct Producer {
    client: Client,
    id: TransactionalId,
    producer: ProducerId,
    epoch: i16,
    sequence: i32,
}

/// What was measured of one mode.
struct Measured {
    per_second: f64,
    processor_us: f64,
    log_bytes: f64,
}

impl Producer {
    async fn new(broker: &BrokerProcess, mode: Mode, partitions: i32, number: usize) -> Self {
        let mut client = broker.client().await;
        let name = match mode {
            Mode::Plain => None,
            Mode::First => Some(format!("first-{partitions}-{number}")),
            Mode::Second => Some(format!("second-{partitions}-{number}")),
        };
        let id = name.map(|name| TransactionalId(StrBytes::from_string(name)));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(id.clone())
            .with_transaction_timeout_ms(600_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let given = client.call(4, &request).await;
        assert_eq!(given.error_code, 0);
        let (producer, epoch) = (given.producer_id, given.producer_epoch);
        Self { client, id: id.unwrap_or_default(), producer, epoch, sequence: 0 }
    }

    async fn write(&mut self, mode: Mode, partitions: i32) {
        if mode == Mode::First {
            let asked = AddPartitionsToTxnTopic::default()
                .with_name(topic(TOPIC))
                .with_partitions((0..partitions).collect());
            let request = AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(self.id.clone())
                .with_v3_and_below_producer_id(self.producer)
                .with_v3_and_below_producer_epoch(self.epoch)
                .with_v3_and_below_topics(vec![asked]);
            let added = self.client.call(3, &request).await;
            let results = &added.results_by_topic_v3_and_below[0].results_by_partition;
            assert!(results.iter().all(|it| it.partition_error_code == 0), "{added:?}");
        }
        self.produce(mode, partitions).await;
        let version = match mode {
            Mode::Plain => return,
            Mode::First => 4,
            Mode::Second => 5,
        };
        let request = EndTxnRequest::default()
            .with_transactional_id(self.id.clone())
            .with_producer_id(self.producer)
            .with_producer_epoch(self.epoch)
            .with_committed(true);
        let ended = self.client.call(version, &request).await;
        assert_eq!(ended.error_code, 0, "{ended:?}");
        if mode == Mode::Second {
            (self.producer, self.epoch) = (ended.producer_id, ended.producer_epoch);
            self.sequence = 0;
        }
    }

    async fn produce(&mut self, mode: Mode, partitions: i32) {
        let attributes = if mode == Mode::Plain { 0 } else { 0x10 };
        let batch = BatchSpec { attributes, ..BatchSpec::of([vec![b'x'; 100]]) };
        let records = batch.by(self.producer.0, self.epoch, self.sequence).encode();
        let data = (0..partitions).map(|index| {
            PartitionProduceData::default().with_index(index).with_records(Some(records.clone()))
        });
        let data =
            TopicProduceData::default().with_name(topic(TOPIC)).with_partition_data(data.collect());
        let request = ProduceRequest::default()
            .with_transactional_id((mode != Mode::Plain).then(|| self.id.clone()))
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![data]);
        let version = if mode == Mode::Second { 12 } else { 11 };
        let produced = self.client.call(version, &request).await;
        let results = &produced.responses[0].partition_responses;
        assert!(results.iter().all(|it| it.error_code == 0), "{produced:?}");
        self.sequence += 1;
    }
}

async fn measure(broker: &BrokerProcess, data: &Path, mode: Mode, partitions: i32) -> Measured {
    let producers = (0..PRODUCERS).map(|number| Producer::new(broker, mode, partitions, number));
    let mut producers = join_all(producers).await;
    let each = RECORDS / usize::try_from(partitions).unwrap();
    let (processor, log) = (broker.process.processor_seconds(), log_bytes(data));
    let began = Instant::now();
    let writing = producers.iter_mut().map(|producer| async move {
        for _ in 0..each {
            producer.write(mode, partitions).await;
        }
    });
    join_all(writing).await;
    let seconds = began.elapsed().as_secs_f64();
    let count = f64::from(u32::try_from(each * PRODUCERS).unwrap());
    let log_bytes = f64::from(u32::try_from(log_bytes(data) - log).unwrap());
    Measured {
        per_second: count / seconds,
        processor_us: (broker.process.processor_seconds() - processor) * 1e6 / count,
        log_bytes: log_bytes / count,
    }
}

impl Measured {
    fn row(&self, what: &str, plain: &Self) -> String {
        format!(
            "| {what} | {:.0} | {:.2} | {:.0} | {:.2} | {:.0} | {:+.0} |\n",
            self.per_second,
            self.per_second / plain.per_second,
            self.processor_us,
            self.processor_us / plain.processor_us,
            self.log_bytes,
            self.log_bytes - plain.log_bytes
        )
    }
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let before = load();
    let data = folder.path().join("data");
    let broker = BrokerProcess::in_folder(&data, &[]);
    broker.client().await.create_topic(TOPIC, *PARTITIONS.last().unwrap()).await;
    let mut rows = String::new();
    for partitions in PARTITIONS {
        let plain = measure(&broker, &data, Mode::Plain, partitions).await;
        let first = measure(&broker, &data, Mode::First, partitions).await;
        let second = measure(&broker, &data, Mode::Second, partitions).await;
        rows += &plain.row(&format!("{partitions}, no transaction"), &plain);
        rows += &first.row(&format!("{partitions}, first protocol"), &plain);
        rows += &second.row(&format!("{partitions}, second protocol"), &plain);
    }
    let text = format!(
        "# Results of the last run\n\n{}\n\n\
         {PRODUCERS} producers, each with one request in flight. Each writes a record of 100\n\
         bytes to so many partitions with one Produce request, again and again; in\n\
         transactions with one EndTxn each, and of the first protocol one\n\
         AddPartitionsToTxn. Files, synced before an answer. Client and broker share the\n\
         cores, so figures are for comparing only.\n\n\
         | partitions | a second | of none | broker CPU us each | of none | log bytes each \
         | more |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n{rows}\n\
         Resident at the end: {:.0} MiB.\n",
        machine(how_built(), &before),
        broker.process.resident_mib(),
    );
    println!("{text}");
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/transactions.md");
    fs::write(results, text).unwrap();
}
