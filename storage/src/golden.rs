//! Golden samples: bytes that were stored once and must be readable for ever.
//!
//! `golden/NAME_vN.bin` is what a release that wrote version N of a format stored. Each sample is
//! read, compared with what went into it, and, as long as N is the version that is written, written
//! again to the same bytes. A test that fails here says that clusters which exist can't be read any
//! more: the code is wrong, never the sample.
//!
//! To add one (a new version, or a new command that no sample has): leave the old samples and their
//! tests as they are, give the new one a new name, and run the tests once with `GOLDEN=write`,
//! which writes samples that are missing and overwrites none.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use odradek_protocol::id::{NodeId, Offset, ProducerId, TopicId, TopicPartition};
use uuid::Uuid;

use crate::command::groups::{
    Assignment, ClassicMember, ConsumerChange, Current, MemberChange, MemberState, Subscription,
};
use crate::command::{
    BatchOutcome, BatchProducer, BatchSummary, BatchTransaction, BrokerAddress, Command, CommandId,
    CommittedOffset, Committer, ConfigChange, ConfigOperation, ConfigResource, Digest, Endpoint,
    Entry, EntryHash, GroupChange, Incarnation, Outcome, ProducerIdAndEpoch, Proposal, Run,
    RunOutcome, StagedOffsets, TransactionChange,
};
use crate::lsn::Lsn;
use crate::segment::builder::{PendingBatch, SealedSegment, SegmentBuilder};
use crate::segment::{SegmentId, open_block, read_footer};
use crate::state::State;

mod life;

const ORDERS: TopicId = TopicId(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
const AUDIT: TopicId = TopicId(Uuid::from_u128(0xaaaa_bbbb_cccc_dddd_eeee_ffff_0000_1111));
const BROKER: Incarnation = Incarnation(0xfeed_0000_0000_0001);
const OTHER: Incarnation = Incarnation(0xfeed_0000_0000_0002);
const THIRD: Incarnation = Incarnation(0xfeed_0000_0000_0003);
const LOG_ID: Uuid = Uuid::from_u128(0x1001);

/// The sample of that name; `fresh` is what is written today.
fn sample(name: &str, fresh: &Bytes) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var("GOLDEN").is_ok_and(|it| it == "write") && !path.exists() {
        fs::write(&path, fresh).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}")).into()
}

fn partition(topic: TopicId, index: i32) -> TopicPartition {
    TopicPartition { topic, partition: index }
}

fn segment(counter: u64) -> SegmentId {
    SegmentId { began: Lsn::new(3), incarnation: BROKER, counter }
}

fn batch(records: u32, producer: Option<(i64, i16, i32)>) -> BatchSummary {
    let producer = producer.map(|(id, epoch, base_sequence)| BatchProducer {
        id: ProducerId(id),
        epoch,
        base_sequence,
        transaction: BatchTransaction::None,
    });
    BatchSummary { bytes: 100 + records, records, max_timestamp: 1_700_000_000_123, producer }
}

fn run(partition: TopicPartition, position: u64, batches: Vec<BatchSummary>) -> Run {
    Run { partition, position, stored_bytes: 400, batches }
}

fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn alter(resource: ConfigResource, replace: bool, name: &str) -> Command {
    let set =
        ConfigChange { name: name.to_owned(), operation: ConfigOperation::Set("1".to_owned()) };
    let delete = ConfigChange { name: "gone".to_owned(), operation: ConfigOperation::Delete };
    Command::AlterConfigs { resource, replace, changes: vec![set, delete] }
}

fn create(topic: TopicId, name: &str, partitions: u32) -> Command {
    Command::CreateTopic {
        topic,
        name: name.to_owned(),
        partitions,
        replication_factor: 3,
        configs: configs(&[("cleanup.policy", "compact"), ("retention.ms", "-1")]),
    }
}

fn register(host: &str, zone: Option<&str>) -> Command {
    Command::RegisterBroker(BrokerAddress {
        host: host.to_owned(),
        port: 9092,
        zone: zone.map(ToOwned::to_owned),
        peer: zone.map(|_| Endpoint { host: "10.0.0.1".to_owned(), port: 9192 }),
        zone_listeners: zone
            .map(|zone| (zone.to_owned(), Endpoint { host: host.to_owned(), port: 9193 }))
            .into_iter()
            .collect(),
    })
}

fn position(partition: TopicPartition, offset: i64, metadata: &str) -> CommittedOffset {
    let offset = Offset(offset);
    CommittedOffset { partition, offset, leader_epoch: -1, metadata: metadata.to_owned() }
}

/// Every command of feature level 1, in an order that makes sense.
fn level_1_commands() -> Vec<(Incarnation, Command)> {
    let run_of_orders = vec![batch(3, Some((0, 0, 0))), batch(2, None), batch(1, Some((0, 0, 3)))];
    let with_rejected = vec![batch(1, None), batch(4, Some((0, 0, 0))), batch(2, None)];
    vec![
        (BROKER, Command::Genesis { cluster_id: Uuid::from_u128(0xc1), log_id: LOG_ID, level: 1 }),
        (BROKER, register("broker-1.example", Some("eu-1a"))),
        (OTHER, register("broker-2.example", None)),
        (THIRD, register("broker-3.example", Some("eu-1b"))),
        (BROKER, create(ORDERS, "orders", 2)),
        (BROKER, create(AUDIT, "audit", 1)),
        (BROKER, Command::CreatePartitions { topic: AUDIT, total: 2 }),
        (BROKER, Command::AllocateProducerIds { count: 1000 }),
        (BROKER, alter(ConfigResource::Topic(ORDERS), false, "segment.ms")),
        (BROKER, alter(ConfigResource::Broker(NodeId(1)), true, "log.level")),
        (BROKER, alter(ConfigResource::Cluster, false, "message.max.bytes")),
        (
            BROKER,
            Command::CommitSegment {
                segment: segment(1),
                bytes: 4096,
                runs: vec![
                    run(partition(ORDERS, 0), 32, run_of_orders),
                    run(partition(ORDERS, 1), 432, with_rejected),
                    run(partition(AUDIT, 0), 832, vec![batch(7, Some((5, 2, i32::MAX - 3)))]),
                    run(partition(AUDIT, 7), 1232, vec![batch(1, None)]),
                ],
            },
        ),
        (
            OTHER,
            Command::CommitSegment {
                segment: segment(2),
                bytes: 2048,
                runs: vec![run(partition(ORDERS, 0), 32, vec![batch(3, Some((0, 0, 0)))])],
            },
        ),
        (
            OTHER,
            Command::CommitOffsets {
                group: "billing".to_owned(),
                office: Lsn::ZERO,
                committer: None,
                retention_ms: None,
                offsets: vec![
                    position(partition(ORDERS, 0), 4, "here"),
                    position(partition(ORDERS, 1), 0, ""),
                ],
            },
        ),
        (OTHER, Command::Heartbeat),
        (THIRD, Command::DrainBroker),
        (BROKER, Command::ClaimStore),
        (BROKER, Command::ExpireBroker { incarnation: OTHER, seen: Lsn::new(1_000) }),
        (BROKER, create(TopicId(Uuid::from_u128(9)), "short-lived", 1)),
        (BROKER, Command::DeleteTopic { topic: TopicId(Uuid::from_u128(9)) }),
        (BROKER, Command::RaiseLevel { level: 1 }),
        (BROKER, alter(ConfigResource::Group("orders".to_owned()), false, "session.timeout.ms")),
        (BROKER, alter(ConfigResource::ClientMetrics("all".to_owned()), false, "metrics")),
        (BROKER, delete_records(partition(ORDERS, 0), Some(Offset(4)))),
        (BROKER, delete_records(partition(AUDIT, 0), None)),
    ]
}

fn delete_records(partition: TopicPartition, before: Option<Offset>) -> Command {
    Command::DeleteRecords { partition, before }
}

/// Every change of a group of feature level 1. The groups are coordinated by the broker that is
/// left: in the state each of them is at the revision that the command names.
fn level_1_changes() -> Vec<(Incarnation, Command)> {
    let change = |group: &str, revision, change| {
        (
            BROKER,
            Command::ChangeGroup { group: group.to_owned(), office: Lsn::ZERO, revision, change },
        )
    };
    let put = |id: &str, instance_id: Option<&str>| MemberChange::Put {
        id: id.to_owned(),
        member: classic_member(instance_id),
    };
    let remove = |id: &str| MemberChange::Remove { id: id.to_owned() };
    let begin = |leader: &str, with_staged, members| GroupChange::BeginGeneration {
        protocol_type: "consumer".to_owned(),
        protocol: Some("range".to_owned()),
        leader: Some(leader.to_owned()),
        with_staged,
        members,
    };
    let stage = |is_first, members| GroupChange::StageMembers { is_first, members };
    let expired_ms = Some(1_800_000_000_000);
    let commit = |member: &str, retention_ms| {
        let committer = Committer {
            member: member.to_owned(),
            instance_id: Some("one".to_owned()),
            generation: 1,
        };
        let offsets = vec![position(partition(ORDERS, 1), 1, "there")];
        let (group, committer) = ("classic".to_owned(), Some(committer));
        let office = Lsn::ZERO;
        (BROKER, Command::CommitOffsets { group, office, committer, retention_ms, offsets })
    };
    let drop_offsets = |partition, expired_ms| GroupChange::DeleteOffsets {
        partitions: vec![partition],
        expired_ms,
    };
    vec![
        change("classic", 0, stage(true, vec![put("m1", Some("one"))])),
        change("classic", 1, begin("m1", true, vec![put("m2", None), remove("m0")])),
        change("classic", 2, assign(&[("m1", "all"), ("m2", "nothing")])),
        commit("m1", None),
        change("classic", 3, replace("m1", "m3", Some("one"))),
        commit("m3", Some(60_000)),
        change("classic", 4, stage(false, vec![put("m4", None), remove("m2")])),
        change("consumer", 0, GroupChange::ChangeConsumers(consumer_changes())),
        change("short-lived", 0, begin("m1", false, vec![put("m1", None)])),
        change("short-lived", 7, empty_generation("m1")),
        change("short-lived", 8, GroupChange::DeleteGroup),
        change("billing", 0, drop_offsets(partition(ORDERS, 1), None)),
        change("classic", 5, drop_offsets(partition(ORDERS, 0), expired_ms)),
    ]
}

fn classic_member(instance_id: Option<&str>) -> ClassicMember {
    ClassicMember {
        instance_id: instance_id.map(ToOwned::to_owned),
        client_id: "client".to_owned(),
        client_host: "/10.0.0.9".to_owned(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        metadata: Bytes::from_static(b"subscription"),
        assignment: Bytes::new(),
    }
}

fn assign(assignments: &[(&str, &'static str)]) -> GroupChange {
    let assignments = assignments.iter();
    GroupChange::AssignGeneration {
        assignments: assignments.map(|(id, what)| ((*id).to_owned(), Bytes::from(*what))).collect(),
        is_last: true,
    }
}

fn replace(old: &str, new: &str, instance_id: Option<&str>) -> GroupChange {
    let member = classic_member(instance_id);
    GroupChange::ReplaceMember { old: old.to_owned(), new: new.to_owned(), member }
}

/// Its last member is gone.
fn empty_generation(last: &str) -> GroupChange {
    GroupChange::BeginGeneration {
        protocol_type: "consumer".to_owned(),
        protocol: None,
        leader: None,
        with_staged: false,
        members: vec![MemberChange::Remove { id: last.to_owned() }],
    }
}

fn consumer_changes() -> Vec<ConsumerChange> {
    let assignment =
        |topic, indexes: &[i32]| Assignment::from([(topic, indexes.iter().copied().collect())]);
    let subscription = |instance_id: Option<&str>| Subscription {
        instance_id: instance_id.map(ToOwned::to_owned),
        rack_id: instance_id.map(|_| "eu-1a".to_owned()),
        client_id: "client".to_owned(),
        client_host: "/10.0.0.9".to_owned(),
        rebalance_timeout_ms: 300_000,
        topics: ["orders", "audit"].map(ToOwned::to_owned).into(),
        regex: instance_id.map(|_| "aud.*".to_owned()),
        assignor: instance_id.map(|_| "uniform".to_owned()),
    };
    let put = |id: &str, instance_id| ConsumerChange::PutMember {
        id: id.to_owned(),
        subscription: subscription(instance_id),
    };
    let current = |id: &str, state, assigned, revoking| ConsumerChange::SetCurrent {
        id: id.to_owned(),
        current: Current { epoch: 4, previous_epoch: -2, assigned, revoking, state },
    };
    let target = |id: &str, target| ConsumerChange::SetTarget { id: id.to_owned(), target };
    let nothing = Assignment::new;
    vec![
        put("c1", Some("one")),
        put("c2", None),
        put("c3", None),
        put("c4", None),
        ConsumerChange::SetEpoch { epoch: 5, metadata_hash: u64::MAX - 1 },
        target("c1", assignment(ORDERS, &[0])),
        target("c2", assignment(ORDERS, &[1])),
        ConsumerChange::SetTargetEpoch { epoch: 5 },
        current(
            "c1",
            MemberState::UnrevokedPartitions,
            assignment(ORDERS, &[0]),
            assignment(ORDERS, &[1]),
        ),
        current("c2", MemberState::UnreleasedPartitions, nothing(), nothing()),
        current("c3", MemberState::Stable, assignment(AUDIT, &[0, 1]), nothing()),
        ConsumerChange::RemoveMember { id: "c4".to_owned() },
    ]
}

/// Every change of a transaction of feature level 1, by the broker that is left. In the state one
/// transaction is open, one was committed, one aborted, and one id has not begun any.
fn level_1_transactions() -> Vec<(Incarnation, Command)> {
    let change = |id: &str, change| {
        (BROKER, Command::ChangeTransaction { transactional_id: id.to_owned(), change })
    };
    let init = |timeout_ms, expected| TransactionChange::InitProducer { timeout_ms, expected };
    let add = |producer, transaction, groups: &[&str]| TransactionChange::Add {
        producer,
        transaction,
        partitions: [(ORDERS, [0, 1].into()), (AUDIT, [1].into())].into(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    let end = |producer, transaction, commits, bumps_epoch| TransactionChange::End {
        producer,
        transaction,
        commits,
        bumps_epoch,
    };
    vec![
        change("open", init(60_000, None)),
        change("done", init(900_000, None)),
        change("gone", init(1, None)),
        change("fresh", init(u32::MAX, None)),
        change("open", add(producer(1000, 0), 1, &["billing", "classic"])),
        change("done", add(producer(1001, 0), 2, &[])),
        transactional_segment(),
        change("open", stage(producer(1000, 0), 1, "classic", Some("m3"), 3)),
        change("open", stage(producer(1000, 0), 1, "consumer", None, 5)),
        change("done", stage(producer(1001, 0), 2, "billing", None, 7)),
        change("done", end(producer(1001, 0), 2, true, true)),
        change("gone", TransactionChange::Abort { transaction: 3 }),
        change("gone", init(2, Some(producer(1002, 0)))),
        change("done", init(900_001, Some(producer(1001, 1)))),
        change("done", add(producer(1001, 2), 8, &["billing"])),
        change("done", end(producer(1001, 2), 8, true, false)),
    ]
}

fn producer(id: i64, epoch: i16) -> ProducerIdAndEpoch {
    ProducerIdAndEpoch { id: ProducerId(id), epoch }
}

fn stage(
    producer: ProducerIdAndEpoch,
    transaction: u64,
    group: &str,
    member: Option<&str>,
    offset: i64,
) -> TransactionChange {
    TransactionChange::StageOffsets(StagedOffsets {
        producer,
        transaction,
        is_implicit: group != "classic",
        group: group.to_owned(),
        office: Lsn::ZERO,
        committer: member.map(|member| Committer {
            member: member.to_owned(),
            instance_id: Some("one".to_owned()),
            generation: 1,
        }),
        offsets: vec![position(partition(AUDIT, 1), offset, "staged")],
    })
}

/// Of three transactions: one that added its partitions, one that will be aborted, and one that
/// brings its partition with it.
fn transactional_segment() -> (Incarnation, Command) {
    let of = |records, id, transaction| {
        let plain = batch(records, Some((id, 0, 0)));
        let producer = plain.producer.map(|it| BatchProducer { transaction, ..it });
        BatchSummary { producer, ..plain }
    };
    let (added, implicit) = (BatchTransaction::Added, BatchTransaction::Implicit);
    let orders = vec![of(2, 1001, added), of(1, 1000, added), of(1, 1002, implicit)];
    let runs = vec![
        run(partition(ORDERS, 0), 32, orders),
        run(partition(AUDIT, 1), 432, vec![of(4, 1000, added)]),
    ];
    (BROKER, Command::CommitSegment { segment: segment(3), bytes: 4096, runs })
}

fn proposals() -> Vec<Proposal> {
    // Each stands in an entry of its own, so that its number is the entry's.
    let mut offices_changed = Lsn::ZERO;
    let commands = level_1_commands().into_iter().chain(level_1_changes());
    let commands = commands.chain(level_1_transactions()).chain(life::level_1_lives());
    let commands = (1..).zip(commands);
    let propose = |(counter, (incarnation, mut command))| {
        match &mut command {
            Command::RegisterBroker(_) | Command::DrainBroker | Command::ExpireBroker { .. } => {
                offices_changed = Lsn::new(counter);
            }
            Command::CommitOffsets { office, .. } | Command::ChangeGroup { office, .. } => {
                *office = offices_changed;
            }
            Command::ChangeTransaction {
                change: TransactionChange::StageOffsets(staged), ..
            } => staged.office = offices_changed,
            _ => {}
        }
        Proposal { id: CommandId { incarnation, counter }, command }
    };
    commands.map(propose).collect()
}

fn full_entry() -> Entry {
    Entry {
        log_id: LOG_ID,
        lsn: Lsn::new(77),
        previous: EntryHash(0x0102_0304_0506_0708),
        append_id: CommandId { incarnation: BROKER, counter: 12 },
        level: 1,
        time_ms: 1_700_000_000_000,
        digest: Some(Digest(0x1112_1314_1516_1718)),
        proposals: proposals(),
    }
}

/// A state with something in every corner of it.
pub(crate) fn full_state() -> State {
    let mut state = State::new();
    let mut outcomes = Vec::new();
    for (number, proposal) in (1..).zip(proposals()) {
        let entry = Entry {
            log_id: state.log_id(),
            lsn: state.applied().next(),
            previous: state.last_hash(),
            append_id: CommandId { incarnation: proposal.id.incarnation, counter: number },
            level: 1,
            time_ms: 1_700_000_000_000 + i64::try_from(number).unwrap(),
            digest: None,
            proposals: vec![proposal],
        };
        outcomes.extend(state.apply(&entry, EntryHash(number)).unwrap().outcomes);
    }
    for outcome in &outcomes {
        let Outcome::ExtentsReplaced(outcomes) = outcome else { continue };
        assert!(outcomes.iter().all(Result::is_ok), "all that is replaced is: {outcomes:?}");
    }
    let rejected = outcomes.iter().filter(|it| matches!(it, Outcome::Rejected(_))).count();
    assert_eq!(rejected, 1, "the level does not rise; all else does something: {outcomes:?}");
    let runs = outcomes.iter().filter_map(|it| match it {
        Outcome::SegmentCommitted(runs) => Some(runs),
        _ => None,
    });
    for run in runs.skip(2).flatten() {
        let RunOutcome::Judged { batches, .. } = run else { panic!("{run:?}") };
        let mut appended = batches.iter().map(|it| matches!(it, BatchOutcome::Appended(_)));
        assert!(appended.all(|it| it), "all of transactions is taken: {batches:?}");
    }
    state
}

/// Two partitions, one of them with two blocks, the first of which compresses.
fn full_segment(zstd_level: Option<i32>) -> SealedSegment {
    let mut builder = SegmentBuilder::default();
    let mut push = |partition, text: &str, times: usize, producer| {
        let bytes = Bytes::from(text.repeat(times));
        let length = u32::try_from(bytes.len()).unwrap();
        let summary = BatchSummary { bytes: length, ..batch(2, producer) };
        builder.push(partition, PendingBatch { bytes, summary, compressed: times == 1 });
    };
    push(partition(ORDERS, 1), "first batch, ", 100, Some((4, 1, 9)));
    push(partition(ORDERS, 1), "second batch, ", 50, None);
    push(partition(AUDIT, 0), "of another topic", 1, None);
    builder.seal(segment(1), zstd_level)
}

#[test]
fn entries_of_version_1() {
    let entry = full_entry();
    let bytes = sample("entry_v1.bin", &entry.encode());
    assert_eq!(Entry::decode(&bytes).as_ref(), Ok(&entry));
    assert_eq!(entry.encode(), bytes);
    assert_eq!(EntryHash::of(&bytes), EntryHash(ENTRY_V1_HASH));
}

#[test]
fn snapshots_of_version_1() {
    let state = full_state();
    let bytes = sample("snapshot_v1.bin", &state.to_snapshot().0);
    let read_back = State::from_snapshot(&bytes).unwrap();
    assert_eq!(read_back, state, "and applying the same commands leads to the same state");
    assert_eq!(read_back.to_snapshot(), (bytes, Digest(SNAPSHOT_V1_DIGEST)));
}

#[test]
fn segments_of_version_1() {
    let built = full_segment(None);
    let bytes = sample("segment_v1.bin", &built.bytes);
    read_segment(&bytes, &built);
    assert_eq!(built.bytes, bytes);
    let key = "segment/46/0000000000000003-feed000000000001-00000001";
    assert_eq!(built.id.key().as_str(), key);
}

/// Compressed blocks are read for ever, and may be packed otherwise by the next release of zstd.
#[test]
fn segments_of_version_1_with_compressed_blocks() {
    let built = full_segment(Some(3));
    let bytes = sample("segment_zstd_v1.bin", &built.bytes);
    assert!(bytes.len() < full_segment(None).bytes.len(), "something is compressed");
    read_segment(&bytes, &built);
}

fn read_segment(bytes: &Bytes, built: &SealedSegment) {
    let runs = read_footer(built.id, bytes).unwrap();
    assert_eq!(runs.len(), built.blocks.len());
    for (run, block) in runs.iter().zip(&built.blocks) {
        assert_eq!(run.partition, block.run.partition);
        assert_eq!(run.batches, block.run.batches);
        let start = usize::try_from(run.position).unwrap();
        let stored = bytes.slice(start..start + usize::try_from(run.stored_bytes).unwrap());
        let content = open_block(built.id, run.partition, run.position, &stored);
        assert_eq!(content.as_ref(), Ok(&block.content));
    }
}

/// The hashes by which brokers of all releases chain entries and compare states.
const ENTRY_V1_HASH: u64 = 0x9b9b_34c3_d4bf_bb10;
const SNAPSHOT_V1_DIGEST: u64 = 0x5e5b_1b66_de8f_947e;
