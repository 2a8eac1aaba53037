//! Entries to draw: likely ones, unlikely ones and nonsense, from a world so small that they meet.

use std::collections::BTreeMap;
use std::ops::Range;

use odradek_protocol::id::{NodeId, Offset, ProducerId, TopicId, TopicPartition};
use proptest::prelude::*;
use uuid::Uuid;

use crate::command::{
    BatchProducer, BatchSummary, BatchTransaction, BrokerAddress, Command, CommandId, ConfigChange,
    ConfigOperation, ConfigResource, Digest, Entry, EntryHash, FooterRef, Incarnation, Proposal,
    Run, TransactionChange,
};
use crate::lsn::Lsn;
use crate::segment::SegmentId;
use crate::state::State;

mod groups;
mod life;
mod transactions;

/// How a proposer numbers a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbering {
    /// With the next number, as it should be.
    Next,
    /// With the number it used that many commands ago.
    Again(u64),
    /// With any number at all.
    Exactly(u64),
}

/// What is to become an entry.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) by: Incarnation,
    pub(crate) passed_ms: i64,
    pub(crate) commands: Vec<(Incarnation, Numbering, Command)>,
    /// Whether its changes of groups and transactions are proposed as they should be.
    pub(crate) is_informed: bool,
    /// Whether it is one of [`life_steps`]: then what was drawn of topics and segments says which
    /// of those there are.
    pub(crate) is_of_life: bool,
}

impl Step {
    /// The step, with changes of groups by whoever coordinates them, of the group as it is, and
    /// what is done in transactions by those who have them. The last of `states` is the present
    /// one.
    pub(crate) fn informed_by(mut self, states: &[State]) -> Self {
        let Some(state) = states.last() else { return self };
        for (incarnation, _, command) in self.commands.iter_mut().filter(|_| self.is_informed) {
            if let Command::CommitOffsets { office, .. } = command {
                *office = state.offices_changed();
            }
            if self.is_of_life {
                life::inform(command, states);
            }
            transactions::inform(command, state);
            let Command::ChangeGroup { group, office, revision, .. } = command else { continue };
            *office = state.offices_changed();
            *revision = state.groups().get(group).map_or(0, |found| found.revision);
            let coordinator =
                state.coordinator_of(group).and_then(|node| state.brokers().get(&node));
            *incarnation = coordinator.map_or(*incarnation, |broker| broker.incarnation);
        }
        self
    }
}

/// Gives commands their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    used: BTreeMap<Incarnation, u64>,
}

impl Numbers {
    /// The proposals of a step.
    pub(crate) fn number(&mut self, step: &Step) -> Vec<Proposal> {
        let number = |(incarnation, numbering, command): &(_, _, Command)| {
            // Number 1 registered the broker.
            let last = self.used.entry(*incarnation).or_insert(1);
            let counter = match numbering {
                Numbering::Next => {
                    *last += 1;
                    *last
                }
                Numbering::Again(back) => last.saturating_sub(*back),
                Numbering::Exactly(counter) => *counter,
            };
            let id = CommandId { incarnation: *incarnation, counter };
            Proposal { id, command: command.clone() }
        };
        step.commands.iter().map(number).collect()
    }
}

/// Steps of a log that has begun.
pub(crate) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let numbering = prop_oneof![
        12 => Just(Numbering::Next),
        2 => (0..6_u64).prop_map(Numbering::Again),
        1 => (0..12_u64).prop_map(Numbering::Exactly),
        1 => any::<u64>().prop_map(Numbering::Exactly),
    ];
    steps_of((incarnation(), numbering, command()), 0..5, 0..most)
}

/// Steps that are about groups, most of them, in a log that has begun.
pub(crate) fn group_steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![
        12 => groups::commit_offsets(),
        24 => groups::change_group(),
        2 => topic_command(),
        1 => broker_command(),
    ];
    steps_of((incarnation(), Just(Numbering::Next), command), 0..5, 0..most)
}

/// Steps that are about transactions, most of them, in a log that has begun.
pub(crate) fn transaction_steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![
        24 => transactions::change_transaction(),
        16 => transactions::commit(),
        2 => delete_records(),
        2 => groups::commit_offsets(),
        4 => groups::change_group(),
        1 => topic_command(),
        1 => broker_command(),
    ];
    steps_of((registered(), Just(Numbering::Next), command), 1..4, most / 2..most)
        .prop_map(|steps| [vec![first_step()], steps].concat())
}

/// Steps that are about the life of data, most of them, in a log that has begun.
pub(crate) fn life_steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![48 => life::command(), 1 => life::nonsense()];
    steps_of((registered(), Just(Numbering::Next), command), 1..4, most / 2..most).prop_map(
        |mut steps| {
            steps.iter_mut().for_each(|step| step.is_of_life = true);
            [vec![first_step()], steps].concat()
        },
    )
}

fn registered() -> impl Strategy<Value = Incarnation> {
    prop_oneof![16 => (1..3_u64).prop_map(Incarnation), 1 => incarnation()]
}

/// There are topics and transactional ids.
fn first_step() -> Step {
    let init = |number| {
        let transactional_id = transactions::name(number);
        let change = TransactionChange::InitProducer { timeout_ms: 60_000, expected: None };
        Command::ChangeTransaction { transactional_id, change }
    };
    let create = |number: u128| Command::CreateTopic {
        topic: TopicId(Uuid::from_u128(number)),
        name: format!("t{number}"),
        partitions: 2,
        replication_factor: 1,
        configs: BTreeMap::new(),
    };
    let commands = (1..3).map(create).chain((0..3).map(init));
    let commands = commands.map(|command| (Incarnation(1), Numbering::Next, command)).collect();
    let (is_informed, is_of_life) = (false, false);
    Step { by: Incarnation(1), passed_ms: 0, commands, is_informed, is_of_life }
}

fn steps_of(
    command: impl Strategy<Value = (Incarnation, Numbering, Command)>,
    commands: Range<usize>,
    steps: Range<usize>,
) -> impl Strategy<Value = Vec<Step>> {
    let passed_ms =
        prop_oneof![8 => 0..1000_i64, 1 => -1_000_000..1_000_000_i64, 1 => any::<i64>()];
    let commands = prop::collection::vec(command, commands);
    let step = (incarnation(), passed_ms, commands, prop::bool::weighted(0.9)).prop_map(
        |(by, passed_ms, commands, is_informed)| Step {
            by,
            passed_ms,
            commands,
            is_informed,
            is_of_life: false,
        },
    );
    prop::collection::vec(step, steps)
}

/// Entries that need not follow anything.
pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    let head = (any::<u128>(), any::<u64>(), any::<u64>(), command_id());
    let rest = (any::<u32>(), any::<i64>(), any::<Option<u64>>());
    let proposals = prop::collection::vec((command_id(), any_command()), 0..6);
    (head, rest, proposals).prop_map(|((log, lsn, previous, append_id), rest, proposals)| Entry {
        log_id: Uuid::from_u128(log),
        lsn: Lsn::new(lsn),
        previous: EntryHash(previous),
        append_id,
        level: rest.0,
        time_ms: rest.1,
        digest: rest.2.map(Digest),
        proposals: proposals.into_iter().map(|(id, command)| Proposal { id, command }).collect(),
    })
}

/// The entry as it is read from the log: without what stands in footers.
pub(crate) fn without_footers(mut entry: Entry) -> Entry {
    for proposal in &mut entry.proposals {
        match &mut proposal.command {
            Command::CommitByFooter { runs, .. } => *runs = None,
            Command::ReplaceByFooter { replacements, .. } => *replacements = None,
            _ => {}
        }
    }
    entry
}

fn any_command() -> impl Strategy<Value = Command> {
    let genesis = (any::<u128>(), any::<u128>(), any::<u32>()).prop_map(|(cluster, log, level)| {
        let (cluster_id, log_id) = (Uuid::from_u128(cluster), Uuid::from_u128(log));
        Command::Genesis { cluster_id, log_id, level }
    });
    prop_oneof![1 => genesis, 12 => command()]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => topic_command(),
        1 => config_command(),
        2 => broker_command(),
        12 => commit(),
        1 => prop_oneof![Just(0), 1..5_u32, any::<u32>()]
            .prop_map(|count| Command::AllocateProducerIds { count }),
        3 => groups::commit_offsets(),
        6 => groups::change_group(),
        4 => transactions::change_transaction(),
        2 => transactions::commit(),
        2 => delete_records(),
        4 => life::nonsense(),
        1 => (0..2_u32).prop_map(|level| Command::RaiseLevel { level }),
        1 => Just(Command::Genesis {
            cluster_id: Uuid::from_u128(7),
            log_id: Uuid::from_u128(8),
            level: 1,
        }),
    ]
}

fn topic_command() -> impl Strategy<Value = Command> {
    let partitions = || prop_oneof![12 => 0..4_u32, 1 => Just(1_000_001), 1 => Just(u32::MAX)];
    let create = (topic_id(), 0..4_u8, partitions(), any::<u16>(), configs()).prop_map(
        |(topic, name, partitions, replication_factor, configs)| Command::CreateTopic {
            topic,
            name: if name == 0 { String::new() } else { format!("t{name}") },
            partitions,
            replication_factor,
            configs,
        },
    );
    let grow = (topic_id(), partitions())
        .prop_map(|(topic, total)| Command::CreatePartitions { topic, total });
    let delete = topic_id().prop_map(|topic| Command::DeleteTopic { topic });
    prop_oneof![4 => create, 1 => grow, 1 => delete]
}

fn configs() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[a-c]", "[x-z]{0,2}", 0..3)
}

fn config_command() -> impl Strategy<Value = Command> {
    let resource = prop_oneof![
        topic_id().prop_map(ConfigResource::Topic),
        prop_oneof![0..4_i32, any::<i32>()].prop_map(|node| ConfigResource::Broker(NodeId(node))),
        Just(ConfigResource::Cluster),
        "[gh]".prop_map(ConfigResource::Group),
        "[gh]".prop_map(ConfigResource::ClientMetrics),
    ];
    let operation = prop_oneof![
        2 => "[x-z]{0,2}".prop_map(ConfigOperation::Set),
        1 => Just(ConfigOperation::Delete),
    ];
    let change =
        ("[a-c]", operation).prop_map(|(name, operation)| ConfigChange { name, operation });
    (resource, any::<bool>(), prop::collection::vec(change, 0..4)).prop_map(
        |(resource, replace, changes)| Command::AlterConfigs { resource, replace, changes },
    )
}

fn broker_command() -> impl Strategy<Value = Command> {
    let zone = prop::option::of("[ab]");
    let register = (1..4_u8, zone).prop_map(|(host, zone)| {
        let address =
            BrokerAddress { host: format!("h{host}"), port: 9092, zone, ..Default::default() };
        Command::RegisterBroker(address)
    });
    let seen = prop_oneof![2 => 0..20_u64, 1 => any::<u64>()];
    let expire = (incarnation(), seen).prop_map(|(incarnation, seen)| Command::ExpireBroker {
        incarnation,
        seen: Lsn::new(seen),
    });
    prop_oneof![
        3 => register,
        1 => expire,
        1 => Just(Command::Heartbeat),
        1 => Just(Command::DrainBroker),
        1 => Just(Command::ClaimStore),
    ]
}

fn commit() -> impl Strategy<Value = Command> {
    let bytes = prop_oneof![12 => Just(5000_u64), 1 => 0..5000_u64, 1 => any::<u64>()];
    (segment_id(), bytes, prop::collection::vec(run(), 0..4), prop::bool::weighted(0.3)).prop_map(
        |(segment, bytes, runs, is_by_footer)| {
            if is_by_footer {
                let footer = footer_of(segment, bytes);
                Command::CommitByFooter { footer, runs: Some(runs) }
            } else {
                Command::CommitSegment { segment, bytes, runs }
            }
        },
    )
}

/// Some footer of a segment of so many bytes.
fn footer_of(segment: SegmentId, segment_bytes: u64) -> FooterRef {
    FooterRef { segment, segment_bytes, position: 40, bytes: 9, hash: 7 }
}

fn run() -> impl Strategy<Value = Run> {
    let position = prop_oneof![12 => 0..4000_u64, 1 => any::<u64>()];
    let stored_bytes = prop_oneof![12 => 37..1000_u32, 1 => any::<u32>()];
    let batches = prop::collection::vec(batch(), 0..5);
    (partition(), position, stored_bytes, batches).prop_map(
        |(partition, position, stored_bytes, batches)| Run {
            partition,
            position,
            stored_bytes,
            batches,
        },
    )
}

fn batch() -> impl Strategy<Value = BatchSummary> {
    let bytes = prop_oneof![24 => 61..200_u32, 1 => Just(0), 1 => any::<u32>()];
    let records = prop_oneof![24 => 1..4_u32, 1 => Just(0), 1 => any::<u32>()];
    let max_timestamp = prop_oneof![8 => 0..100_i64, 1 => any::<i64>()];
    let id = prop_oneof![24 => 0..3_i64, 1 => Just(-1), 1 => Just(i64::MAX)];
    let epoch = prop_oneof![16 => 0..2_i16, 1 => Just(-1), 1 => Just(i16::MAX)];
    let sequence = prop_oneof![
        16 => 0..12_i32,
        2 => i32::MAX - 2..=i32::MAX,
        1 => any::<i32>(),
    ];
    let transaction =
        prop_oneof![6 => Just(BatchTransaction::None), 1 => transactions::in_transaction(1)];
    let producer =
        (id, epoch, sequence, transaction).prop_map(|(id, epoch, base_sequence, transaction)| {
            BatchProducer { id: ProducerId(id), epoch, base_sequence, transaction }
        });
    (bytes, records, max_timestamp, prop::option::weighted(0.7, producer)).prop_map(
        |(bytes, records, max_timestamp, producer)| BatchSummary {
            bytes,
            records,
            max_timestamp,
            producer,
        },
    )
}

fn delete_records() -> impl Strategy<Value = Command> {
    let before = prop_oneof![8 => 0..30_i64, 1 => any::<i64>()].prop_map(Offset);
    (partition(), prop::option::weighted(0.8, before))
        .prop_map(|(partition, before)| Command::DeleteRecords { partition, before })
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    prop_oneof![6 => Just(1_u64), 3 => Just(2), 1 => 3..6_u64, 1 => any::<u64>()]
        .prop_map(Incarnation)
}

fn command_id() -> impl Strategy<Value = CommandId> {
    (incarnation(), any::<u64>())
        .prop_map(|(incarnation, counter)| CommandId { incarnation, counter })
}

fn topic_id() -> impl Strategy<Value = TopicId> {
    prop_oneof![16 => 1..3_u128, 2 => Just(3), 1 => Just(0), 1 => any::<u128>()]
        .prop_map(|id| TopicId(Uuid::from_u128(id)))
}

fn partition() -> impl Strategy<Value = TopicPartition> {
    (topic_id(), prop_oneof![16 => 0..2_i32, 1 => Just(-1), 1 => any::<i32>()])
        .prop_map(|(topic, partition)| TopicPartition { topic, partition })
}

fn segment_id() -> impl Strategy<Value = SegmentId> {
    let counter = prop_oneof![16 => 1..6_u64, 1 => any::<u64>()];
    (prop_oneof![16 => Just(1_u64), 1 => any::<u64>()], 1..3_u64, counter).prop_map(
        |(began, incarnation, counter)| SegmentId {
            began: Lsn::new(began),
            incarnation: Incarnation(incarnation),
            counter,
        },
    )
}
