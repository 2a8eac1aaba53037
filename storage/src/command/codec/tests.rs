//! The stored form of entries: one for each entry, and nothing else is taken for one.

use std::collections::BTreeMap;

use bytes::Bytes;
use odradek_protocol::id::{Offset, ProducerId, TopicId, TopicPartition};
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;
use uuid::Uuid;

use super::{CodecError, ENTRY_FORMAT, wire};
use crate::command::{
    BatchProducer, BatchSummary, BatchTransaction, Branch, Command, CommandId, Digest, Entry,
    EntryHash, FooterRef, Incarnation, Proposal, Run,
};
use crate::log::ENTRY_BYTES_MAX;
use crate::lsn::Lsn;
use crate::segment::{BLOCK_BATCHES_MAX, SegmentId};
use crate::state::tests::strategies;

fn entry(command: Command) -> Entry {
    let id = CommandId { incarnation: Incarnation(u64::MAX / 3), counter: 70_000 };
    Entry {
        log_id: Uuid::from_u128(7),
        lsn: Lsn::new(1_000_000),
        previous: EntryHash(5),
        append_id: id,
        level: 1,
        time_ms: 1_700_000_000_000,
        digest: Some(Digest(9)),
        proposals: vec![Proposal { id, command }],
    }
}

/// The stored form of an entry with one proposal, which somebody else has made.
fn foreign(proposal: wire::Proposal) -> Bytes {
    let template = Entry::encode(&entry(Command::Heartbeat));
    let (_, payload) = ENTRY_FORMAT.open(&template).unwrap();
    let mut body = wire::Entry::decode(payload).unwrap();
    body.proposals = vec![proposal];
    ENTRY_FORMAT.seal(&body.encode_to_vec())
}

fn foreign_command(command: wire::Command) -> Bytes {
    let id = wire::CommandId { incarnation: 1, counter: 1 };
    foreign(wire::Proposal { id: Some(id), command: Some(command) })
}

proptest! {
    #[test]
    fn an_entry_is_read_as_it_was_written_and_written_as_it_was_read(
        entry in strategies::entry(),
    ) {
        let bytes = entry.encode();
        let read_back = Entry::decode(&bytes);
        let entry = strategies::without_footers(entry);
        prop_assert_eq!(read_back.as_ref(), Ok(&entry));
        prop_assert_eq!(read_back.unwrap().encode(), bytes);
    }

    #[test]
    fn a_flipped_bit_or_a_cut_is_never_an_entry(
        entry in strategies::entry(),
        at in any::<Index>(),
        bit in 0..8_u8,
    ) {
        let mut bytes = entry.encode().to_vec();
        let at = at.index(bytes.len());
        prop_assert!(Entry::decode(&Bytes::copy_from_slice(&bytes[..at])).is_err());
        bytes[at] ^= 1 << bit;
        prop_assert!(Entry::decode(&bytes.into()).is_err());
    }

    /// Under a checksum that fits: whatever a mistaken broker may write is an entry or an error.
    #[test]
    fn no_payload_makes_decoding_panic(
        entry in strategies::entry(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (_, payload) = ENTRY_FORMAT.open(&entry.encode()).unwrap();
        let mut payload = payload.to_vec();
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        for payload in [payload, noise.clone()] {
            if let Ok(read) = Entry::decode(&ENTRY_FORMAT.seal(&payload)) {
                prop_assert_eq!(Entry::decode(&read.encode()), Ok(read));
            }
        }
        prop_assert!(Entry::decode(&noise.into()).is_err());
    }

    #[test]
    fn a_proposal_takes_no_more_room_than_it_says(entry in strategies::entry()) {
        let empty = Entry { proposals: Vec::new(), ..entry.clone() };
        let said: usize = entry.proposals.iter().map(Proposal::encoded_bytes).sum();
        prop_assert!(entry.encode().len() <= empty.encode().len() + said);
    }
}

#[test]
fn a_command_of_a_later_release_is_an_error_and_not_skipped() {
    let mut later = Vec::new();
    let id = wire::CommandId { incarnation: 1, counter: 1 };
    wire::Proposal { id: Some(id), command: None }.encode(&mut later).unwrap();
    // Tag 20, a message of no bytes.
    later.extend_from_slice(&[0xa2, 0x01, 0x00]);
    let template = ENTRY_FORMAT.open(&foreign(wire::Proposal::default())).unwrap().1;
    let mut body = wire::Entry::decode(template).unwrap();
    body.proposals.clear();
    let mut payload = body.encode_to_vec();
    payload.push(0x42);
    payload.push(u8::try_from(later.len()).unwrap());
    payload.extend_from_slice(&later);
    assert_eq!(Entry::decode(&ENTRY_FORMAT.seal(&payload)), Err(CodecError::UnknownCommand));
}

#[test]
fn a_field_of_a_later_release_is_skipped() {
    let entry = entry(Command::Heartbeat);
    let mut payload = ENTRY_FORMAT.open(&entry.encode()).unwrap().1.to_vec();
    // Tag 100, the number 1.
    payload.extend_from_slice(&[0xa0, 0x06, 0x01]);
    assert_eq!(Entry::decode(&ENTRY_FORMAT.seal(&payload)), Ok(entry));
}

#[test]
fn fields_out_of_their_range_are_errors() {
    let register = |port| {
        wire::Command::RegisterBroker(wire::RegisterBroker {
            host: "h".to_owned(),
            port,
            ..wire::RegisterBroker::default()
        })
    };
    assert!(Entry::decode(&foreign_command(register(65_535))).is_ok());
    let refused = |command| Entry::decode(&foreign_command(command)).unwrap_err();
    assert_eq!(refused(register(65_536)), CodecError::Field("port"));
    let create =
        wire::CreateTopic { topic: vec![1; 16], replication_factor: 65_536, ..Default::default() };
    assert_eq!(
        refused(wire::Command::CreateTopic(create)),
        CodecError::Field("replication_factor")
    );
    let delete = wire::DeleteTopic { topic: vec![1; 15] };
    assert_eq!(refused(wire::Command::DeleteTopic(delete)), CodecError::Field("topic"));
    let alter = wire::AlterConfigs::default();
    assert_eq!(refused(wire::Command::AlterConfigs(alter)), CodecError::Field("resource"));
    let commit = wire::CommitSegment::default();
    assert_eq!(refused(wire::Command::CommitSegment(commit)), CodecError::Field("segment"));
    let producer = wire::Producer { id: 1, epoch: 32_768, base_sequence: 0, transaction: 0 };
    let batch = wire::Batch { producer: Some(producer), ..Default::default() };
    let run = wire::Run { topic: vec![1; 16], batches: vec![batch], ..Default::default() };
    let commit = wire::CommitSegment {
        segment: Some(wire::SegmentId::default()),
        bytes: 0,
        runs: vec![run],
    };
    assert_eq!(refused(wire::Command::CommitSegment(commit)), CodecError::Field("epoch"));
    let producer = wire::Producer { id: 1, epoch: 0, base_sequence: 0, transaction: 3 };
    let batch = wire::Batch { producer: Some(producer), ..Default::default() };
    let run = wire::Run { topic: vec![1; 16], batches: vec![batch], ..Default::default() };
    let segment = Some(wire::SegmentId::default());
    let commit = wire::CommitSegment { segment, bytes: 0, runs: vec![run] };
    assert_eq!(refused(wire::Command::CommitSegment(commit)), CodecError::Field("transaction"));
    let change = |change| {
        let change = wire::ChangeGroup { group: "g".to_owned(), office: 1, revision: 1, change };
        refused(wire::Command::ChangeGroup(change))
    };
    let replace = wire::ReplaceMember { old: "a".to_owned(), new: "b".to_owned(), member: None };
    let replace = wire::GroupChange::ReplaceMember(replace);
    assert_eq!(change(Some(replace)), CodecError::Field("member"));
    let consumers = |kind| {
        let changes = vec![wire::ConsumerChange { kind }];
        change(Some(wire::GroupChange::ChangeConsumers(wire::ChangeConsumers { changes })))
    };
    let current = |current| {
        let set = wire::SetCurrent { id: "a".to_owned(), current };
        consumers(Some(wire::ConsumerChangeKind::SetCurrent(set)))
    };
    assert_eq!(current(None), CodecError::Field("current"));
    let unheard = wire::Current { state: 3, ..wire::Current::default() };
    assert_eq!(current(Some(unheard)), CodecError::Field("state"));
    let put = wire::PutMember { id: "a".to_owned(), subscription: None };
    let put = consumers(Some(wire::ConsumerChangeKind::PutMember(put)));
    assert_eq!(put, CodecError::Field("subscription"));
    // Of a later release.
    assert_eq!(change(None), CodecError::UnknownCommand);
    assert_eq!(consumers(None), CodecError::UnknownCommand);
    let nameless =
        wire::Proposal { id: None, command: Some(wire::Command::Heartbeat(wire::Heartbeat {})) };
    assert_eq!(Entry::decode(&foreign(nameless)), Err(CodecError::Field("id")));
}

#[test]
fn fields_of_transactions_out_of_their_range_are_errors() {
    let decoded = |change| {
        let transactional_id = "t".to_owned();
        let change = wire::ChangeTransaction { transactional_id, change };
        Entry::decode(&foreign_command(wire::Command::ChangeTransaction(change)))
    };
    let refused = |change| decoded(Some(change)).unwrap_err();
    let producer = |epoch| Some(wire::ProducerIdAndEpoch { id: 1, epoch });
    let init = |expected| {
        let init = wire::InitProducer { timeout_ms: 1, expected };
        wire::TransactionChange::InitProducer(init)
    };
    assert!(decoded(Some(init(producer(i32::from(i16::MAX))))).is_ok());
    assert!(decoded(Some(init(producer(-1)))).is_ok());
    assert!(decoded(Some(init(None))).is_ok());
    for epoch in [32_768, -32_769, i32::MIN] {
        assert_eq!(refused(init(producer(epoch))), CodecError::Field("epoch"));
    }
    let add = wire::AddToTransaction { producer: producer(1), ..Default::default() };
    let end = wire::EndTransaction { producer: producer(1), ..Default::default() };
    let stage = wire::StageOffsets { producer: producer(1), ..Default::default() };
    let each = |producer| {
        [
            wire::TransactionChange::Add(wire::AddToTransaction { producer, ..add.clone() }),
            wire::TransactionChange::End(wire::EndTransaction { producer, ..end.clone() }),
            wire::TransactionChange::StageOffsets(wire::StageOffsets { producer, ..stage.clone() }),
        ]
    };
    assert!(each(producer(1)).into_iter().all(|change| decoded(Some(change)).is_ok()));
    for change in each(producer(40_000)) {
        assert_eq!(refused(change), CodecError::Field("epoch"));
    }
    for change in each(None) {
        assert_eq!(refused(change), CodecError::Field("producer"));
    }
    let topic = wire::TopicPartitions { topic: vec![1; 15], ..Default::default() };
    let add = wire::AddToTransaction { partitions: vec![topic], ..add };
    assert_eq!(refused(wire::TransactionChange::Add(add)), CodecError::Field("topic"));
    let offset = wire::CommittedOffset { topic: vec![1; 17], ..Default::default() };
    let stage = wire::StageOffsets { offsets: vec![offset], ..stage };
    assert_eq!(refused(wire::TransactionChange::StageOffsets(stage)), CodecError::Field("topic"));
    // Of a later release.
    assert_eq!(decoded(None), Err(CodecError::UnknownCommand));
}

#[test]
fn fields_of_the_life_of_data_out_of_their_range_are_errors() {
    let decoded = |command| Entry::decode(&foreign_command(command));
    let refused = |command| decoded(command).unwrap_err();
    let segment = Some(wire::SegmentId::default());
    let id = || vec![1; 16];
    let branch = wire::BranchTopic { topic: id(), of: id(), ..Default::default() };
    assert!(decoded(wire::Command::BranchTopic(branch.clone())).is_ok());
    let nameless = wire::BranchTopic { topic: vec![1; 15], ..branch.clone() };
    assert_eq!(refused(wire::Command::BranchTopic(nameless)), CodecError::Field("topic"));
    let orphan = wire::BranchTopic { of: vec![1; 17], ..branch.clone() };
    assert_eq!(refused(wire::Command::BranchTopic(orphan)), CodecError::Field("topic"));
    let wide = wire::BranchTopic { replication_factor: 65_536, ..branch };
    assert_eq!(refused(wire::Command::BranchTopic(wide)), CodecError::Field("replication_factor"));
    let purge = wire::PurgeTopics { topics: vec![id(), vec![]] };
    assert_eq!(refused(wire::Command::PurgeTopics(purge)), CodecError::Field("topic"));
    let inline = wire::CommitInline::default();
    assert_eq!(refused(wire::Command::CommitInline(inline)), CodecError::Field("segment"));
    let replacement = wire::Replacement { topic: id(), ..Default::default() };
    let replace = |segment, level, topic: Vec<u8>| {
        let replacements = vec![wire::Replacement { topic, ..replacement.clone() }];
        let replace = wire::ReplaceExtents { segment, bytes: 1, level, replacements };
        decoded(wire::Command::ReplaceExtents(replace))
    };
    assert!(replace(segment, 255, id()).is_ok());
    assert_eq!(replace(None, 0, id()), Err(CodecError::Field("segment")));
    assert_eq!(replace(segment, 256, id()), Err(CodecError::Field("level")));
    assert_eq!(replace(segment, 0, vec![1; 4]), Err(CodecError::Field("topic")));
    let expire = |topic, before| {
        let partitions = vec![wire::DeleteRecords { topic, partition: 0, before }];
        decoded(wire::Command::ExpireRecords(wire::ExpireRecords { partitions }))
    };
    assert!(expire(id(), Some(0)).is_ok());
    assert_eq!(expire(id(), None), Err(CodecError::Field("before")));
    assert_eq!(expire(vec![], Some(0)), Err(CodecError::Field("topic")));
}

/// A branch that ends nowhere in particular is another one than one that ends before the beginning,
/// which is turned away.
#[test]
fn where_a_branch_ends_is_read_as_it_was_written() {
    let of = TopicId(Uuid::from_u128(2));
    let ends = [None, Some(-1), Some(0), Some(i64::MIN), Some(i64::MAX), None];
    let ends = ends.map(|end| end.map(Offset)).to_vec();
    let written = entry(Command::BranchTopic {
        topic: TopicId(Uuid::from_u128(1)),
        name: "branch".to_owned(),
        replication_factor: 1,
        configs: BTreeMap::new(),
        branch: Branch { of, ends },
    });
    assert_eq!(Entry::decode(&written.encode()), Ok(written));
}

/// A commit with one batch in each of so many partitions, of a busy cluster: numbers as they are
/// after some months.
fn wide_commit(partitions: u64, idempotent: bool) -> Command {
    let run = |number: u64| {
        let topic = TopicId(Uuid::from_u128(u128::MAX / 3 + u128::from(number / 50)));
        let producer = BatchProducer {
            id: ProducerId(2_000_000 + i64::try_from(number).unwrap()),
            epoch: 0,
            base_sequence: 1_000_000,
            transaction: if number.is_multiple_of(2) {
                BatchTransaction::None
            } else {
                BatchTransaction::Implicit
            },
        };
        let batch = BatchSummary {
            bytes: 12_000,
            records: 40,
            max_timestamp: 1_700_000_000_000,
            producer: idempotent.then_some(producer),
        };
        let partition = i32::try_from(number % 50).unwrap();
        Run {
            partition: TopicPartition { topic, partition },
            position: 32 + number * 4_000,
            stored_bytes: 4_000,
            batches: vec![batch],
        }
    };
    let segment = SegmentId {
        began: Lsn::new(1_000_000),
        incarnation: Incarnation(u64::MAX / 3),
        counter: 70_000,
    };
    let runs = (0..partitions).map(run).collect();
    Command::CommitSegment { segment, bytes: 40_000_000, runs }
}

#[test]
fn the_longest_run_fits_into_an_entry() {
    let producer = BatchProducer {
        id: ProducerId(i64::MAX),
        epoch: i16::MAX,
        base_sequence: i32::MAX,
        transaction: BatchTransaction::Implicit,
    };
    let batch = BatchSummary {
        bytes: u32::MAX,
        records: u32::MAX,
        max_timestamp: i64::MIN,
        producer: Some(producer),
    };
    let Command::CommitSegment { segment, bytes, mut runs } = wide_commit(1, true) else {
        panic!()
    };
    runs[0].batches = vec![batch; BLOCK_BATCHES_MAX];
    let bytes = entry(Command::CommitSegment { segment, bytes, runs }).encode().len();
    println!("{} bytes for {BLOCK_BATCHES_MAX} batches in one run", bytes);
    assert!(bytes <= ENTRY_BYTES_MAX / 3, "{bytes} bytes, and as much again for others");
}

/// The figure by which a flush is cut into commits: see `ENTRY_BYTES_MAX`.
#[test]
fn a_run_takes_at_most_64_bytes_of_an_entry() {
    let mut taken = BTreeMap::new();
    for idempotent in [false, true] {
        let bytes = entry(wide_commit(10_000, idempotent)).encode().len();
        taken.insert(idempotent, bytes);
        assert!(bytes <= 10_000 * 64, "{bytes} bytes");
        let fits = ENTRY_BYTES_MAX * 10_000 / bytes;
        let cut = entry(wide_commit(u64::try_from(fits - 10).unwrap(), idempotent));
        assert!(cut.encode().len() <= ENTRY_BYTES_MAX);
        println!("idempotent={idempotent}: {bytes} bytes, {fits} runs fit into an entry");
    }
    assert!(taken[&false] < taken[&true]);
}

/// The stored form is for ever. What stands in the footer is no part of it.
#[test]
fn commands_by_footer_are_these_bytes() {
    let segment = SegmentId { began: Lsn::new(300), incarnation: Incarnation(8), counter: 9 };
    let (segment_bytes, position) = (8_000_000, 7_900_000);
    let footer = FooterRef { segment, segment_bytes, position, bytes: 30_000, hash: 7 };
    let commit = |runs| Command::CommitByFooter { footer, runs };
    let replace = |replacements| Command::ReplaceByFooter { footer, level: 2, replacements };
    let named = "0a0e08ac0211080000000000000018091080a4e80318b0ea0121070000000000000028e096e203";
    let both = [
        (commit(Some(Vec::new())), commit(None), format!("920227{named}")),
        (replace(Some(Vec::new())), replace(None), format!("9a022b0a27{named}1002")),
    ];
    for (command, read, expected) in both {
        let stored = wire::Proposal { id: None, command: Some((&command).into()) }.encode_to_vec();
        let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
        let entry = Entry::decode(&foreign_command((&command).into())).unwrap();
        assert_eq!(entry.proposals[0].command, read);
    }
    let long = FooterRef { bytes: FooterRef::BYTES_MAX + 1, ..footer };
    let too_long = wire::ReplaceByFooter { footer: Some(long.into()), level: 1 };
    let nameless = wire::ReplaceByFooter { footer: None, level: 1 };
    let too_often = wire::ReplaceByFooter { footer: Some(footer.into()), level: 256 };
    for (command, field) in [
        (wire::Command::CommitByFooter(long.into()), "bytes"),
        (wire::Command::ReplaceByFooter(too_long), "bytes"),
        (wire::Command::ReplaceByFooter(nameless), "footer"),
        (wire::Command::ReplaceByFooter(too_often), "level"),
    ] {
        assert_eq!(Entry::decode(&foreign_command(command)), Err(CodecError::Field(field)));
    }
}
