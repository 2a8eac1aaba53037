//! What is stored in the log and said between brokers: envelopes, entries, messages.

use bytes::Bytes;
use odradek_protocol::frame::LENGTH_BYTES;
use odradek_protocol::id::{TopicId, TopicPartition};
use odradek_storage::command::codec::ENTRY_FORMAT;
use odradek_storage::command::{Command, CommandId, Entry, Incarnation, Proposal};
use odradek_storage::envelope::Format;
use odradek_storage::lsn::Lsn;
use odradek_storage::peer::blocks::{ANSWER_PREFIX_BYTES, BlockAddress, BlockAnswer, GivenBlock};
use odradek_storage::peer::{News, PeerMessage, SentEntry};
use odradek_storage::segment::SegmentId;
use uuid::Uuid;

use super::oracle::{bounded, bounded_with};
use super::samples::golden;

/// As `peer` says it; a message that is sealed by another hand is refused like any other.
const PEER_FORMAT: Format = Format { magic: *b"ODRH", version: 1 };

/// As `peer::blocks` says it.
const ANSWER_FORMAT: Format = Format { magic: *b"ODRB", version: 1 };

/// Bytes before the payload of an envelope.
const HEADER_BYTES: usize = 16;

/// A segment that brokers speak of.
const SEGMENT: SegmentId =
    SegmentId { began: Lsn::new(5), incarnation: Incarnation(8), counter: 2 };

/// Memory for each byte besides the usual: commands are wide, and the shortest take two bytes.
/// An entry has at most 384 KiB.
const COMMAND_BYTES: u64 = 400;

pub(crate) fn envelope(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok((version, payload)) = ENTRY_FORMAT.open(&bytes) {
        assert_eq!(Format { version, ..ENTRY_FORMAT }.seal(&payload), bytes);
    }
    let sealed = ENTRY_FORMAT.seal(data);
    assert_eq!(ENTRY_FORMAT.open(&sealed), Ok((ENTRY_FORMAT.version, bytes)));
    let cut = sealed.len() / 2;
    assert!(ENTRY_FORMAT.open(&sealed.slice(..cut)).is_err());
}

pub(crate) fn envelope_seeds() -> Vec<Vec<u8>> {
    vec![golden("entry_v1.bin").slice(..64).to_vec(), ENTRY_FORMAT.seal(b"payload").to_vec()]
}

/// The input is the payload of an entry.
pub(crate) fn run(data: &[u8]) {
    let Ok(entry) = decode(data) else { return };
    let encoded = entry.encode();
    assert_eq!(Entry::decode(&encoded).as_ref(), Ok(&entry));
    for proposal in &entry.proposals {
        let alone = Entry { proposals: vec![proposal.clone()], ..entry.clone() };
        let none = Entry { proposals: Vec::new(), ..entry.clone() };
        let takes = alone.encode().len() - none.encode().len();
        assert!(takes <= proposal.encoded_bytes(), "{takes} > {}", proposal.encoded_bytes());
    }
}

/// Reads the payload of an entry.
pub(crate) fn decode(payload: &[u8]) -> Result<Entry, impl std::fmt::Debug> {
    let sealed = ENTRY_FORMAT.seal(payload);
    let more = u64::try_from(payload.len()).unwrap() * COMMAND_BYTES;
    bounded_with(payload.len(), more, || Entry::decode(&sealed))
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let whole = golden("entry_v1.bin");
    let entry = Entry::decode(&whole).unwrap();
    let alone = |proposal: &Proposal| {
        Entry { proposals: vec![proposal.clone()], ..entry.clone() }.encode()[HEADER_BYTES..]
            .to_vec()
    };
    let mut seeds: Vec<Vec<u8>> = entry.proposals.iter().map(alone).collect();
    seeds.push(whole[HEADER_BYTES..].to_vec());
    seeds
}

/// The input is the payload of a message from another broker.
pub(crate) fn peer_message(data: &[u8]) {
    let sealed = PEER_FORMAT.seal(data);
    let more = u64::try_from(data.len()).unwrap() * COMMAND_BYTES;
    let Ok(message) = bounded_with(data.len(), more, || PeerMessage::decode(&sealed)) else {
        return;
    };
    assert_eq!(PeerMessage::decode(&message.encode()), Ok(message));
}

pub(crate) fn peer_message_seeds() -> Vec<Vec<u8>> {
    peer_messages().iter().map(|message| message[HEADER_BYTES..].to_vec()).collect()
}

/// Messages as brokers send them.
pub(crate) fn peer_messages() -> Vec<Bytes> {
    let heartbeat = Proposal {
        id: CommandId { incarnation: Incarnation(1), counter: 9 },
        command: Command::Heartbeat,
    };
    let mut help = Entry::decode(&golden("entry_v1.bin")).unwrap().proposals;
    help.truncate(9);
    let address = BlockAddress {
        segment: SEGMENT,
        segment_bytes: 4000,
        position: 900,
        stored_bytes: 77,
        owner: TopicPartition { topic: TopicId(Uuid::from_u128(3)), partition: 12 },
    };
    let filled = |entry| News::Filled { lsn: Lsn::new(77), entry };
    let footers = vec![Bytes::from_static(b"a footer"), Bytes::from_static(b"another")];
    let bytes = golden("entry_v1.bin");
    let alone = SentEntry { bytes: bytes.clone(), footers: Vec::new() };
    let with_footers = SentEntry { bytes, footers: footers.clone() };
    let news = [
        filled(None),
        filled(Some(alone)),
        filled(Some(with_footers)),
        News::Help { proposals: vec![heartbeat], footers: Vec::new() },
        News::Help { proposals: help, footers },
        News::Ask(vec![address, BlockAddress { position: 977, ..address }]),
    ];
    let message = |news| PeerMessage { to: Incarnation(1), from: Incarnation(2), news };
    news.into_iter().map(|news| message(news).encode()).collect()
}

/// The input is the head of an answer to a question for blocks, after a byte that says how much of
/// it is content.
pub(crate) fn peer_answer(data: &[u8]) {
    let Some((content_bytes, data)) = data.split_first() else { return };
    let (head, contents) = data.split_at(data.len().saturating_sub((*content_bytes).into()));
    let head = ANSWER_FORMAT.seal(head);
    let length = u32::try_from(head.len()).unwrap().to_be_bytes();
    let bytes = Bytes::from([&length, &head[..], contents].concat());
    let decoded = bounded(data.len(), || BlockAnswer::decode(bytes));
    let Ok(answer) = decoded else { return };
    let encoded = Bytes::from(answer.clone().encode().concat());
    assert_eq!(BlockAnswer::decode(encoded.slice(LENGTH_BYTES..)), Ok(answer));
}

pub(crate) fn peer_answer_seeds() -> Vec<Vec<u8>> {
    let block = |position, content: &'static [u8]| GivenBlock {
        segment: SEGMENT,
        position,
        content: Bytes::from_static(content),
    };
    let few = vec![block(0, b"some content"), block(12, b""), block(12, b"more")];
    let many = (0..200).map(|position| block(position, b"x")).collect();
    let seed = |blocks| {
        let answer = BlockAnswer { blocks };
        let content_bytes = u8::try_from(answer.content_bytes()).unwrap();
        let encoded = answer.encode().concat();
        [&[content_bytes], &encoded[ANSWER_PREFIX_BYTES + HEADER_BYTES..]].concat()
    };
    [Vec::new(), few, many].map(seed).to_vec()
}
