//! The words of the scripts: arguments to commands, outcomes and state to text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use odradek_protocol::id::{NodeId, Offset, ProducerId, TopicId, TopicPartition};
use uuid::Uuid;

use super::{script_groups, script_life, script_transactions};
use crate::command::{
    BatchOutcome, BatchProducer, BatchSummary, BrokerAddress, Command, CommandId, ConfigChange,
    ConfigOperation, ConfigResource, Incarnation, Outcome, Run, RunOutcome,
};
use crate::lsn::Lsn;
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::brokers::Broker;
use crate::state::partition::Partition;

/// Bytes before the first block of every segment in a script, and of each of its blocks' headers.
pub(super) const BLOCK_OVERHEAD: u32 = 36;

/// A verb and its arguments: `key=value`, or a bare key.
pub(super) struct Words {
    pub(super) verb: String,
    arguments: BTreeMap<String, String>,
}

impl Words {
    pub(super) fn of(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default().to_owned();
        let argument = |word: &str| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            (key.to_owned(), value.to_owned())
        };
        Self { verb, arguments: words.map(argument).collect() }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.arguments.contains_key(key)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.arguments.get(key).map(String::as_str)
    }

    pub(super) fn signed(&self, key: &str, default: i64) -> i64 {
        self.text(key).map_or(default, |text| text.parse().expect(key))
    }

    pub(super) fn number(&self, key: &str, default: u64) -> u64 {
        self.text(key).map_or(default, |text| text.parse().expect(key))
    }

    pub(super) fn small(&self, key: &str, default: u32) -> u32 {
        self.text(key).map_or(default, |text| text.parse().expect(key))
    }

    pub(super) fn incarnation(&self, key: &str) -> Option<Incarnation> {
        self.text(key).map(incarnation)
    }
}

fn incarnation(text: &str) -> Incarnation {
    Incarnation(text.strip_prefix('b').and_then(|it| it.parse().ok()).expect("b and a number"))
}

/// What the script calls things.
#[derive(Default)]
pub(super) struct Names {
    topics: BTreeMap<TopicId, String>,
    counters: BTreeMap<Incarnation, u64>,
    /// Hashes of extents, as they were when the script looked.
    pub(super) seen: BTreeMap<String, u64>,
}

impl Names {
    /// `id=b2.7`, or the next of b1, or of the broker that `id=b2` names.
    pub(super) fn command_id(&mut self, words: &Words) -> CommandId {
        let text = words.text("id").unwrap_or("b1");
        let (broker, counter) =
            text.split_once('.').map_or((text, None), |(broker, it)| (broker, Some(it)));
        let incarnation = incarnation(broker);
        let last = self.counters.entry(incarnation).or_default();
        let counter = counter.map_or_else(|| *last + 1, |it| it.parse().expect("id"));
        *last = counter.max(*last);
        CommandId { incarnation, counter }
    }

    pub(super) fn command(&mut self, state: &State, words: &Words, details: &[Words]) -> Command {
        match words.verb.as_str() {
            "raise-level" => Command::RaiseLevel { level: words.small("level", 0) },
            "register" => {
                let (host, port) = words.text("host").unwrap().split_once(':').unwrap();
                Command::RegisterBroker(BrokerAddress {
                    host: host.to_owned(),
                    port: port.parse().unwrap(),
                    zone: words.text("zone").map(ToOwned::to_owned),
                    ..BrokerAddress::default()
                })
            }
            "drain" => Command::DrainBroker,
            "claim-store" => Command::ClaimStore,
            "expire" => Command::ExpireBroker {
                incarnation: words.incarnation("broker").unwrap(),
                seen: Lsn::new(words.number("seen", 0)),
            },
            "heartbeat" => Command::Heartbeat,
            "create-topic" => self.create_topic(words),
            "delete-topic" => Command::DeleteTopic { topic: topic(state, words.text("name")) },
            "create-partitions" => Command::CreatePartitions {
                topic: topic(state, words.text("name")),
                total: words.small("total", 0),
            },
            "alter-configs" => alter_configs(state, words, details),
            "commit" => {
                let runs = runs(state, details);
                let bytes = words.number("bytes", 10_000);
                Command::CommitSegment { segment: segment(words), bytes, runs }
            }
            "allocate-producer-ids" => {
                Command::AllocateProducerIds { count: words.small("count", 0) }
            }
            "delete-records" => Command::DeleteRecords {
                partition: partition(state, words.text("of").unwrap()),
                before: words.has("before").then(|| Offset(words.signed("before", 0))),
            },
            verb => script_life::command(self, state, words, details)
                .or_else(|| script_groups::command(state, words, details))
                .or_else(|| script_transactions::command(state, words, details))
                .unwrap_or_else(|| panic!("no verb {verb:?}")),
        }
    }

    fn create_topic(&mut self, words: &Words) -> Command {
        Command::CreateTopic {
            topic: self.new_topic(words),
            name: words.text("name").unwrap_or_default().to_owned(),
            partitions: words.small("partitions", 1),
            replication_factor: 1,
            configs: configs(words),
        }
    }

    /// The id of a topic that is to be. A name that was used before is called by its number too.
    pub(super) fn new_topic(&mut self, words: &Words) -> TopicId {
        let name = words.text("name").unwrap_or_default().to_owned();
        let next = self.topics.len() + 1;
        let number = words.number("topic-id", u64::try_from(next).unwrap());
        let topic = TopicId(Uuid::from_u128(u128::from(number)));
        let known = self.topics.values().filter(|it| it.split('#').next() == Some(&name)).count();
        let called = if known == 0 { name } else { format!("{name}#{}", known + 1) };
        self.topics.entry(topic).or_insert(called);
        topic
    }

    /// The topic that the script calls so, whether it lives or not.
    pub(super) fn topic_called(&self, name: &str) -> TopicId {
        let called = self.topics.iter().find(|(_, called)| *called == name);
        called.map_or(TopicId(Uuid::from_u128(0xdead)), |(id, _)| *id)
    }

    /// What a command came to.
    pub(super) fn outcome(&self, lsn: Lsn, command: &Command, outcome: &Outcome) -> String {
        let mut text = String::new();
        match outcome {
            Outcome::Done => writeln!(text, "lsn={lsn} done"),
            Outcome::BrokerRegistered(node) => writeln!(text, "lsn={lsn} node={node}"),
            Outcome::ProducerIds { first, count } => {
                writeln!(text, "lsn={lsn} producer-ids {first} and {} more", count - 1)
            }
            Outcome::GroupChanged(revision) => writeln!(text, "lsn={lsn} revision={revision}"),
            Outcome::Producer(it) => writeln!(text, "lsn={lsn} producer={}/{}", it.id, it.epoch),
            Outcome::RecordsDeleted(first) => writeln!(text, "lsn={lsn} log_start={first}"),
            Outcome::Rejected(rejection) => writeln!(text, "lsn={lsn} rejected: {rejection}"),
            Outcome::ExtentsReplaced(outcomes) => {
                outcomes.iter().for_each(|outcome| match outcome {
                    Ok(()) => writeln!(text, "lsn={lsn} replaced").unwrap(),
                    Err(rejection) => writeln!(text, "lsn={lsn} rejected: {rejection}").unwrap(),
                });
                Ok(())
            }
            Outcome::Repeated => writeln!(text, "lsn={lsn} repeated"),
            Outcome::SegmentCommitted(outcomes) => {
                let (Command::CommitSegment { runs, .. } | Command::CommitInline { runs, .. }) =
                    command
                else {
                    panic!("{command:?}")
                };
                if runs.is_empty() {
                    writeln!(text, "lsn={lsn} nothing in it").unwrap();
                }
                for (run, outcome) in runs.iter().zip(outcomes) {
                    write!(text, "lsn={lsn} {}", run.partition).unwrap();
                    run_outcome(&mut text, outcome);
                }
                Ok(())
            }
        }
        .unwrap();
        self.named(text)
    }

    pub(super) fn partitions(&self, what: &str, partitions: &[TopicPartition]) -> String {
        let mut text = what.to_owned();
        for partition in partitions {
            write!(text, " {partition}").unwrap();
        }
        self.named(text + "\n")
    }

    /// Topics by name instead of by id, brokers and segments as the script calls them.
    fn named(&self, mut text: String) -> String {
        for (id, name) in &self.topics {
            text = text.replace(&id.to_string(), name);
        }
        for number in 1..10 {
            text = text.replace(&Incarnation(number).to_string(), &format!("b{number}"));
        }
        text
    }

    /// Answers a question about the state; `None` if it is none.
    pub(super) fn show(&mut self, state: &State, verb: &str, words: &Words) -> Option<String> {
        let mut text = String::new();
        match verb {
            "show-partition" => {
                let at = partition(state, words.text("of")?);
                if let Some(it) = state.partition(at) {
                    show_partition(&mut text, at, it);
                }
            }
            "show-producers" => show_producers(&mut text, state, words.text("of")?),
            "show-topics" => {
                for topic in state.topics() {
                    let (name, count) = (&topic.name, topic.partitions.len());
                    writeln!(text, "{name} partitions={count} {:?}", topic.configs).unwrap();
                }
                writeln!(text, "{} in all", state.partitions_total()).unwrap();
            }
            "show-segments" => {
                for (id, refs) in state.segments().referenced() {
                    let references = refs.references;
                    write!(text, "s{} references={references}", id.counter).unwrap();
                    script_life::show_segment(&mut text, refs);
                    writeln!(text).unwrap();
                }
                for (id, waiting) in state.segments().unreferenced() {
                    let since = waiting.since;
                    writeln!(text, "s{} unreferenced since lsn={since}", id.counter).unwrap();
                }
            }
            "show-brokers" => {
                for (node, broker) in state.brokers() {
                    let Broker { incarnation, address, is_draining, .. } = broker;
                    let BrokerAddress { host, port, zone, .. } = address;
                    let heard = broker.last_heard;
                    let zone = zone.as_deref().unwrap_or("-");
                    let draining = if *is_draining { " draining" } else { "" };
                    writeln!(
                        text,
                        "node={node} {incarnation} {host}:{port} zone={zone} heard={heard}\
                         {draining}"
                    )
                    .unwrap();
                }
            }
            "show-configs" => {
                writeln!(text, "cluster {:?}", state.configs().cluster()).unwrap();
                for (node, configs) in &state.configs().brokers {
                    writeln!(text, "node={node} {configs:?}").unwrap();
                }
                for (group, configs) in state.configs().groups() {
                    writeln!(text, "group={group} {configs:?}").unwrap();
                }
                for (name, configs) in state.configs().client_metrics() {
                    writeln!(text, "metrics={name} {configs:?}").unwrap();
                }
            }
            "show-group" => {
                if let Some(group) = state.groups().get(words.text("group")?) {
                    script_groups::show(&mut text, group);
                }
            }
            "show-groups" => script_groups::show_all(&mut text, state),
            "show-log" => {
                let (cluster, log) = (state.cluster_id(), state.log_id());
                let (level, now) = (state.level(), state.log_time_ms());
                writeln!(text, "cluster={cluster} log={log} level={level} time={now}").unwrap();
            }
            _ => script_life::show(self, &mut text, state, words)
                .or_else(|| script_transactions::show(&mut text, state, words))?,
        }
        Some(self.named(if text.is_empty() { "nothing\n".to_owned() } else { text }))
    }
}

fn run_outcome(text: &mut String, outcome: &RunOutcome) {
    match outcome {
        RunOutcome::Rejected(rejection) => writeln!(text, " rejected: {rejection}"),
        RunOutcome::Judged { batches, .. } => {
            for (number, batch) in batches.iter().enumerate() {
                let gap = if number == 0 { "" } else { ";" };
                match batch {
                    BatchOutcome::Appended(base) => write!(text, "{gap} base={base}"),
                    BatchOutcome::Duplicate(base) => write!(text, "{gap} duplicate of base={base}"),
                    BatchOutcome::Rejected(rejection) => {
                        write!(text, "{gap} rejected: {rejection}")
                    }
                }
                .unwrap();
            }
            writeln!(text)
        }
    }
    .unwrap();
}

pub(super) fn show_partition(text: &mut String, own: TopicPartition, partition: &Partition) {
    let (start, end) = (partition.log_start, partition.high_watermark);
    write!(text, "log_start={start} high_watermark={end} bytes={}", partition.bytes()).unwrap();
    script_transactions::show_stable(text, partition);
    script_life::show_cleaned(text, partition);
    writeln!(text).unwrap();
    for extent in partition.extents() {
        let Some(at) = extent.location() else {
            script_transactions::show_marker(text, extent);
            script_life::show_gap(text, extent);
            continue;
        };
        let (first, end, time) = (extent.base, extent.end(), extent.max_timestamp);
        let (segment, block, stored) = (at.segment.counter, at.position, at.stored_bytes);
        let (from, to) = (at.skip, at.skip + at.bytes);
        write!(
            text,
            "{first}..{end} s{segment} block {block}+{stored} bytes {from}..{to} time={time}"
        )
        .unwrap();
        script_life::show_origin(text, own, partition, extent);
        writeln!(text).unwrap();
    }
}

fn show_producers(text: &mut String, state: &State, of: &str) {
    let Some(partition) = state.partition(partition(state, of)) else {
        return;
    };
    let count = partition.producers.by_id().len();
    for (id, producer) in partition.producers.by_id().iter().take(5) {
        write!(text, "producer={id}/{} last={}", producer.epoch, producer.last_ms).unwrap();
        for batch in &producer.batches {
            write!(text, " {}..={}@{}", batch.first, batch.last, batch.base).unwrap();
        }
        writeln!(text).unwrap();
    }
    writeln!(text, "{count} in all").unwrap();
}

fn topic(state: &State, name: Option<&str>) -> TopicId {
    let unknown = TopicId(Uuid::from_u128(0xdead));
    name.and_then(|name| state.topic_by_name(name)).map_or(unknown, |topic| topic.id)
}

/// `orders-0`, by the names that are in force.
pub(super) fn partition(state: &State, text: &str) -> TopicPartition {
    let (name, index) = text.split_once('-').expect("a topic, a dash, a partition");
    TopicPartition { topic: topic(state, Some(name)), partition: index.parse().unwrap() }
}

fn alter_configs(state: &State, words: &Words, details: &[Words]) -> Command {
    let resource = if let Some(name) = words.text("topic") {
        ConfigResource::Topic(topic(state, Some(name)))
    } else if let Some(node) = words.text("node") {
        ConfigResource::Broker(NodeId(node.parse().unwrap()))
    } else if let Some(name) = words.text("group") {
        ConfigResource::Group(name.to_owned())
    } else if let Some(name) = words.text("metrics") {
        ConfigResource::ClientMetrics(name.to_owned())
    } else {
        ConfigResource::Cluster
    };
    let change = |detail: &Words| {
        let (name, value) = detail.arguments.first_key_value().expect("a config");
        let operation = match detail.verb.as_str() {
            "set" => ConfigOperation::Set(value.clone()),
            "delete" => ConfigOperation::Delete,
            verb => panic!("no change {verb:?}"),
        };
        ConfigChange { name: name.clone(), operation }
    };
    let changes = details.iter().map(change).collect();
    Command::AlterConfigs { resource, replace: words.has("replace"), changes }
}

pub(super) fn configs(words: &Words) -> BTreeMap<String, String> {
    let configs = words.text("configs").into_iter().flat_map(|it| it.split(','));
    let pair = |it: &str| it.split_once(':').map(|(k, v)| (k.to_owned(), v.to_owned()));
    configs.filter_map(pair).collect()
}

/// `segment=s1`, which was begun at the first entry, unless `began=` says another.
pub(super) fn segment(words: &Words) -> SegmentId {
    segment_called(words.text("segment").unwrap_or_default(), words.number("began", 1))
}

pub(super) fn segment_called(name: &str, began: u64) -> SegmentId {
    let counter = name.strip_prefix('s').and_then(|it| it.parse().ok()).expect("s and a number");
    SegmentId { began: Lsn::new(began), incarnation: Incarnation(1), counter }
}

/// Each line is a batch; lines of one partition that follow each other are one run, unless a line
/// says `block`.
pub(super) fn runs(state: &State, details: &[Words]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for line in details {
        let partition = partition(state, &line.verb);
        let batch = batch(line);
        let joins = |run: &&mut Run| run.partition == partition && !line.has("block");
        if let Some(run) = runs.last_mut().filter(joins) {
            run.stored_bytes = run.stored_bytes.saturating_add(batch.bytes);
            run.batches.push(batch);
        } else {
            let follows = runs.last().map_or(32, |it| it.position + u64::from(it.stored_bytes));
            let position = line.number("at", follows);
            let stored_bytes = batch.bytes.saturating_add(BLOCK_OVERHEAD);
            let batches = if line.has("empty") { Vec::new() } else { vec![batch] };
            runs.push(Run { partition, position, stored_bytes, batches });
        }
    }
    runs
}

fn batch(line: &Words) -> BatchSummary {
    let producer = line.text("producer").map(|text| {
        let (id, epoch) = text.split_once('/').expect("an id, a slash, an epoch");
        BatchProducer {
            id: ProducerId(id.parse().unwrap()),
            epoch: epoch.parse().unwrap(),
            base_sequence: line.text("sequence").map_or(0, |it| it.parse().unwrap()),
            transaction: script_transactions::in_transaction(line),
        }
    });
    BatchSummary {
        bytes: line.small("bytes", 100),
        records: line.small("count", 1),
        max_timestamp: line.signed("timestamp", 0),
        producer,
    }
}
