//! What was meant for one transaction and comes in the next: a broker holds it back while its
//! client goes on elsewhere (RELIABILITY A16).
//!
//! Clients of the first protocol keep their epoch, so it is not the epoch that tells; those of the
//! second have another by then.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use odradek::group::Staging;
use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use odradek_storage::command::{
    BatchProducer, BatchSummary, BatchTransaction, Command, CommittedOffset, Outcome,
    ProducerIdAndEpoch,
};
use odradek_storage::log::faulty::LogFaults;
use odradek_storage::segment::builder::PendingBatch;
use odradek_storage::state::transactions::Ongoing;
use odradek_tests::batches::BatchSpec;
use odradek_tests::groups::broker::{Broker, Site};
use odradek_tests::groups::paused;
use tokio::time::sleep;
use uuid::Uuid;

const ID: &str = "copier";

const FIRST: TopicPartition = partition(0);

const SECOND: TopicPartition = partition(1);

const fn partition(partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition }
}

/// Whether a client adds partitions and groups before it uses them, and keeps its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Explicit,
    Implicit,
}

const BOTH: [Protocol; 2] = [Protocol::Explicit, Protocol::Implicit];

/// A client with a transaction open in the first partition; a broker that knows of it, and is cut
/// off from the log from now on; another broker.
struct Held {
    protocol: Protocol,
    who: ProducerIdAndEpoch,
    old: Broker,
    new: Broker,
}

impl Held {
    async fn begin(protocol: Protocol) -> Self {
        let site = Site::new(1, 0.0);
        let old = Broker::start(&site, 1, 1, 1, LogFaults::default()).await;
        let new = Broker::start(&site, 2, 2, 2, LogFaults::default()).await;
        let create = Command::CreateTopic {
            topic: FIRST.topic,
            name: "topic".to_owned(),
            partitions: 2,
            replication_factor: 1,
            configs: BTreeMap::new(),
        };
        assert_eq!(new.engine.machine.propose(create).await, Ok(Outcome::Done));
        let who = new.transactions.init_producer(ID, 60_000, None).await.unwrap();
        let held = Self { protocol, who, old, new };
        held.write(FIRST, 0).await;
        held.old.engine.machine.barrier().await.unwrap();
        let cut_off = held.old.clone();
        tokio::spawn(async move { cut_off.lose_log(Duration::from_secs(8)).await });
        sleep(Duration::from_millis(100)).await;
        held
    }

    /// Writes to a partition, through the broker that is well.
    async fn write(&self, partition: TopicPartition, sequence: i32) {
        if self.protocol == Protocol::Explicit {
            let added = self.new.transactions.add(ID, self.who, vec![partition], Vec::new());
            added.await.unwrap();
        }
        append(self.new.clone(), partition, self.batch(sequence)).await.unwrap();
    }

    fn batch(&self, sequence: i32) -> PendingBatch {
        let ProducerIdAndEpoch { id, epoch } = self.who;
        let spec = BatchSpec::of([Bytes::from(format!("{epoch}/{sequence}"))]);
        let bytes = spec.by(id.0, epoch, sequence).transactional().encode();
        let transaction = match self.protocol {
            Protocol::Explicit => BatchTransaction::Added,
            Protocol::Implicit => BatchTransaction::Implicit,
        };
        let producer = BatchProducer { id, epoch, base_sequence: sequence, transaction };
        let summary = BatchSummary {
            bytes: u32::try_from(bytes.len()).unwrap(),
            records: 1,
            max_timestamp: 1_700_000_000_000,
            producer: Some(producer),
        };
        PendingBatch { bytes, summary, compressed: false }
    }

    /// Ends the transaction through the broker that is well, and begins the next one in the second
    /// partition.
    async fn go_on(&mut self, commits: bool) {
        let bumps_epoch = self.protocol == Protocol::Implicit;
        let ended = self.new.transactions.end(ID, self.who, commits, bumps_epoch).await;
        self.who = ended.unwrap();
        self.write(SECOND, 0).await;
    }

    /// The transaction that is open, when both brokers have followed the log to its tail.
    async fn ongoing(&self) -> Ongoing {
        self.old.engine.machine.barrier().await.unwrap();
        let look = |broker: &Broker| {
            let find = |state: &odradek_storage::state::State| {
                state.transactions().get(ID).and_then(|it| it.ongoing().cloned())
            };
            broker.engine.machine.read(find)
        };
        self.new.engine.machine.barrier().await.unwrap();
        assert_eq!(look(&self.old), look(&self.new));
        look(&self.new).expect("the next transaction is open")
    }

    /// The next transaction is as its client has made it, and can be committed.
    async fn check(&self, commits: bool) {
        let ongoing = self.ongoing().await;
        assert_eq!(ongoing.partitions, BTreeMap::from([(SECOND, Some(Offset(0)))]));
        assert!(ongoing.groups.values().all(BTreeMap::is_empty), "{ongoing:?}");
        let bumps_epoch = self.protocol == Protocol::Implicit;
        let ended = self.new.transactions.end(ID, self.who, commits, bumps_epoch).await;
        assert!(ended.is_ok(), "{ended:?}");
    }
}

async fn append(
    broker: Broker,
    partition: TopicPartition,
    batch: PendingBatch,
) -> Result<Offset, String> {
    let appending = broker.engine.writer.append(vec![(partition, batch)]).await;
    let answer = appending.map_err(|error| error.to_string())?.await.remove(0);
    answer.map(|it| it.base_offset).map_err(|error| error.to_string())
}

/// For each protocol and for each end of the transaction that the message was meant for.
fn each(scenario: impl AsyncFn(Held, bool)) {
    for protocol in BOTH {
        for commits in [true, false] {
            paused(async { scenario(Held::begin(protocol).await, commits).await });
        }
    }
}

#[test]
fn a_late_commit_does_not_commit_the_next_transaction() {
    each(async |mut held, commits| {
        let (old, who) = (held.old.clone(), held.who);
        let bumps_epoch = held.protocol == Protocol::Implicit;
        let late =
            tokio::spawn(async move { old.transactions.end(ID, who, true, bumps_epoch).await });
        sleep(Duration::from_secs(1)).await;
        assert!(!late.is_finished(), "the broker holds it back");
        held.go_on(commits).await;
        assert!(late.await.unwrap().is_err(), "{:?}", held.protocol);
        held.check(false).await;
    });
}

#[test]
fn a_late_abort_does_not_abort_the_next_transaction() {
    each(async |mut held, commits| {
        let (old, who) = (held.old.clone(), held.who);
        let bumps_epoch = held.protocol == Protocol::Implicit;
        let late =
            tokio::spawn(async move { old.transactions.end(ID, who, false, bumps_epoch).await });
        sleep(Duration::from_secs(1)).await;
        assert!(!late.is_finished(), "the broker holds it back");
        held.go_on(commits).await;
        assert!(late.await.unwrap().is_err(), "{:?}", held.protocol);
        held.check(true).await;
    });
}

#[test]
fn what_is_added_late_is_no_part_of_the_next_transaction() {
    each(async |mut held, commits| {
        let (old, who) = (held.old.clone(), held.who);
        let add = async move { old.transactions.add(ID, who, vec![FIRST], vec!["g".into()]).await };
        let late = tokio::spawn(add);
        sleep(Duration::from_secs(1)).await;
        assert!(!late.is_finished(), "the broker holds it back");
        held.go_on(commits).await;
        assert!(late.await.unwrap().is_err(), "{:?}", held.protocol);
        held.check(true).await;
    });
}

#[test]
fn positions_that_are_staged_late_are_not_committed_with_the_next_transaction() {
    each(async |mut held, commits| {
        let staging = Staging {
            transactional_id: ID.to_owned(),
            producer: held.who,
            is_implicit: held.protocol == Protocol::Implicit,
        };
        let position = CommittedOffset {
            partition: FIRST,
            offset: Offset(5),
            leader_epoch: 0,
            metadata: String::new(),
        };
        // Of a group that the broker coordinates which holds it back.
        let (old, name) = (held.old.clone(), group_of(&held.old));
        if held.protocol == Protocol::Explicit {
            let add = held.new.transactions.add(ID, held.who, Vec::new(), vec![name.clone()]);
            add.await.unwrap();
        }
        let late = tokio::spawn(async move {
            old.groups.stage_offsets(&name, staging, None, vec![position]).await
        });
        sleep(Duration::from_secs(1)).await;
        assert!(!late.is_finished(), "the broker holds it back");
        held.go_on(commits).await;
        if held.protocol == Protocol::Explicit {
            // The group is a part of the next one as well.
            let name = group_of(&held.old);
            let add = held.new.transactions.add(ID, held.who, Vec::new(), vec![name]);
            add.await.unwrap();
        }
        assert!(late.await.unwrap().is_err(), "{:?}", held.protocol);
        held.check(true).await;
        let name = group_of(&held.old);
        let positions = held.new.engine.machine.read(|state| {
            state.groups().positions(&name).is_some_and(|positions| !positions.is_empty())
        });
        assert!(!positions, "nobody has committed any");
    });
}

/// A group that this broker coordinates.
fn group_of(broker: &Broker) -> String {
    let node = Some(broker.node());
    let mut names = (0..).map(|number| format!("group-{number}"));
    let is_its = |name: &String| broker.engine.machine.read(|it| it.coordinator_of(name)) == node;
    names.find(is_its).unwrap()
}

/// Its client has given it up: it aborts, and asks for a new epoch if it has none (KIP-360).
#[test]
fn a_batch_that_comes_late_is_no_part_of_the_next_transaction() {
    for protocol in BOTH {
        paused(async {
            let mut held = Held::begin(protocol).await;
            let late = tokio::spawn(append(held.old.clone(), FIRST, held.batch(1)));
            sleep(Duration::from_secs(1)).await;
            assert!(!late.is_finished(), "the broker holds it back");
            let bumps_epoch = protocol == Protocol::Implicit;
            let ended = held.new.transactions.end(ID, held.who, false, bumps_epoch).await;
            held.who = ended.unwrap();
            if protocol == Protocol::Explicit {
                let next = held.new.transactions.init_producer(ID, 60_000, Some(held.who)).await;
                held.who = next.unwrap();
            }
            held.write(SECOND, 0).await;
            assert!(late.await.unwrap().is_err(), "{protocol:?}");
            held.check(true).await;
        });
    }
}
