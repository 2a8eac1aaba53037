//! A block gives back what was put in, to whoever asks for the right one, and to nobody else.

use bytes::{BufMut, Bytes, BytesMut};
use odradek_protocol::id::{TopicId, TopicPartition};
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use super::builder::{PendingBatch, SealedBlock, SealedSegment, SegmentBuilder};
use super::{
    BLOCK_BATCHES_MAX, BLOCK_CONTENT_BYTES_MAX, BLOCK_HEADER_BYTES, BlockError, FooterError,
    HEADER_BYTES, SegmentId, block_checksum, open_block, read_footer,
};
use crate::command::{BatchSummary, Incarnation};
use crate::key::ObjectKey;
use crate::lsn::Lsn;

const ID: SegmentId = SegmentId { began: Lsn::new(7), incarnation: Incarnation(8), counter: 9 };

fn partition(index: i32) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(5)), partition: index }
}

fn pending(bytes: impl Into<Bytes>, compressed: bool) -> PendingBatch {
    let bytes = bytes.into();
    let length = u32::try_from(bytes.len()).unwrap();
    let summary = BatchSummary { bytes: length, records: 1, max_timestamp: 0, producer: None };
    PendingBatch { bytes, summary, compressed }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_u32;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn sealed(batches: Vec<PendingBatch>, zstd_level: Option<i32>) -> SealedSegment {
    let mut builder = SegmentBuilder::default();
    for batch in batches {
        builder.push(partition(0), batch);
    }
    builder.seal(ID, zstd_level)
}

fn stored(segment: &SealedSegment, block: &SealedBlock) -> Bytes {
    let start = usize::try_from(block.run.position).unwrap();
    segment.bytes.slice(start..start + usize::try_from(block.run.stored_bytes).unwrap())
}

fn open(segment: &SealedSegment, block: &SealedBlock) -> Result<Bytes, BlockError> {
    let run = &block.run;
    open_block(segment.id, run.partition, run.position, &stored(segment, block))
}

fn is_compressed(segment: &SealedSegment) -> bool {
    assert_eq!(segment.blocks.len(), 1);
    let block = &segment.blocks[0];
    assert_eq!(open(segment, block).as_ref(), Ok(&block.content));
    stored(segment, block).len() != BLOCK_HEADER_BYTES + block.content.len()
}

prop_compose! {
    fn any_batch()(
        length in prop_oneof![
            8 => 61..4000_usize,
            1 => 300_000..700_000_usize,
            1 => Just(1_200_000)
        ],
        compressed in any::<bool>(),
        compressible in any::<bool>(),
        index in -1..3_i32,
    ) -> (TopicPartition, PendingBatch) {
        let bytes = if compressible { vec![7; length] } else { noise(length) };
        (partition(index), pending(bytes, compressed))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_block_gives_back_what_was_put_in(
        batches in prop::collection::vec(any_batch(), 0..12),
        zstd_level in prop::option::of(1..4_i32),
    ) {
        let mut builder = SegmentBuilder::default();
        for (partition, batch) in &batches {
            builder.push(*partition, batch.clone());
        }
        prop_assert_eq!(builder.is_empty(), batches.is_empty());
        let bytes: usize = batches.iter().map(|it| it.1.bytes.len()).sum();
        prop_assert_eq!(builder.content_bytes(), bytes);
        let segment = builder.seal(ID, zstd_level);
        let mut end = u64::try_from(HEADER_BYTES).unwrap();
        let mut order = Vec::new();
        for index in -1..3 {
            let mut expected = batches.iter().filter(|it| it.0 == partition(index));
            for block in segment.blocks.iter().filter(|it| it.run.partition == partition(index)) {
                let opened = open(&segment, block);
                prop_assert_eq!(opened.as_ref(), Ok(&block.content));
                let of_block: Vec<_> = expected.by_ref().take(block.run.batches.len()).collect();
                let content: Vec<u8> = of_block.iter().flat_map(|it| it.1.bytes.clone()).collect();
                prop_assert_eq!(&block.content, &content);
                let summaries: Vec<_> = of_block.iter().map(|it| it.1.summary).collect();
                prop_assert_eq!(&block.run.batches, &summaries);
                prop_assert!(content.len() <= BLOCK_CONTENT_BYTES_MAX || of_block.len() == 1);
                prop_assert!(!of_block.is_empty());
                prop_assert_eq!(block.run.position, end);
                end += u64::from(block.run.stored_bytes);
                order.push(block.run.clone());
            }
            prop_assert!(expected.next().is_none());
        }
        prop_assert_eq!(read_footer(ID, &segment.bytes), Ok(order));
    }

    #[test]
    fn no_bytes_make_opening_panic(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        codec in 0..4_u8,
        content_bytes in prop_oneof![0..200_u32, any::<u32>()],
    ) {
        let noise = Bytes::from(noise);
        prop_assert!(open_block(ID, partition(0), 32, &noise).is_err());
        prop_assert!(read_footer(ID, &noise).is_err());
        // The same under a header and a checksum that fit.
        let block = block_of(codec, content_bytes, &noise);
        if let Ok(content) = open_block(ID, partition(0), 32, &block) {
            prop_assert_eq!(u32::try_from(content.len()), Ok(content_bytes));
            prop_assert!(codec == 1 || content == noise);
        }
    }

    #[test]
    fn a_damaged_segment_never_names_other_runs(at in any::<Index>(), change in 1..=255_u8) {
        let segment = two_blocks();
        let runs: Vec<_> = segment.blocks.iter().map(|block| block.run.clone()).collect();
        let mut bytes = segment.bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        // Damage to a block is for `open_block` to find.
        match read_footer(ID, &bytes.into()) {
            Ok(found) => {
                prop_assert_eq!(found, runs);
                let last = &segment.blocks[1].run;
                let end = last.position + u64::from(last.stored_bytes);
                prop_assert!((HEADER_BYTES..usize::try_from(end).unwrap()).contains(&at));
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

fn block_of(codec: u8, content_bytes: u32, payload: &[u8]) -> Bytes {
    let mut block = BytesMut::new();
    block.put_slice(b"OB");
    block.put_u8(codec);
    block.put_u8(0);
    block.put_slice(partition(0).topic.as_bytes());
    block.put_i32(0);
    block.put_u32(content_bytes);
    block.put_u32(u32::try_from(payload.len()).unwrap());
    let checksum = block_checksum(ID, 32, &block, payload);
    block.put_u32(checksum);
    block.put_slice(payload);
    block.freeze()
}

/// Two blocks of one partition, as long as each other.
fn two_blocks() -> SealedSegment {
    let long = BLOCK_CONTENT_BYTES_MAX * 3 / 4;
    let segment = sealed(vec![pending(vec![1; long], true), pending(vec![2; long], true)], None);
    assert_eq!(segment.blocks.len(), 2);
    segment
}

#[test]
fn bytes_between_the_blocks_and_the_footer_are_noticed() {
    let segment = two_blocks();
    let last = &segment.blocks[1].run;
    let end = usize::try_from(last.position + u64::from(last.stored_bytes)).unwrap();
    let longer = [&segment.bytes[..end], &[0], &segment.bytes[end..]].concat();
    assert_eq!(read_footer(ID, &longer.into()), Err(FooterError::Shape));
    let shorter = [&segment.bytes[..end - 1], &segment.bytes[end..]].concat();
    assert_eq!(read_footer(ID, &shorter.into()), Err(FooterError::Shape));
}

#[test]
fn batches_are_split_where_a_block_is_full() {
    let half = BLOCK_CONTENT_BYTES_MAX / 2;
    let lengths = |batches: &[usize]| -> Vec<usize> {
        let batches = batches.iter().map(|length| pending(vec![0; *length], true)).collect();
        sealed(batches, None).blocks.iter().map(|block| block.run.batches.len()).collect()
    };
    assert_eq!(lengths(&[half, half]), [2]);
    assert_eq!(lengths(&[half, half + 1]), [1, 1]);
    assert_eq!(lengths(&[half, half, 100, half]), [2, 2]);
    assert_eq!(lengths(&[3 * half, 100, 3 * half]), [1, 1, 1]);
    assert_eq!(lengths(&[]), []);
    let many = BLOCK_BATCHES_MAX;
    assert_eq!(lengths(&vec![61; 2 * many + 1]), [many, many, 1]);
}

#[test]
fn only_what_came_uncompressed_is_compressed_and_only_if_it_pays() {
    let text = || pending(vec![b'x'; 5000], false);
    assert!(is_compressed(&sealed(vec![text(), text()], Some(1))));
    assert!(!is_compressed(&sealed(vec![text(), text()], None)));
    assert!(is_compressed(&sealed(vec![pending(vec![b'x'; 500_000], false)], Some(1))));
    let came_compressed = pending(vec![b'x'; 5000], true);
    assert!(!is_compressed(&sealed(vec![came_compressed.clone()], Some(1))));
    assert!(!is_compressed(&sealed(vec![text(), came_compressed], Some(1))));
    assert!(!is_compressed(&sealed(vec![pending(vec![b'x'; 100], false)], Some(1))));
    for length in [5000, 500_000] {
        assert!(!is_compressed(&sealed(vec![pending(noise(length), false)], Some(1))));
    }
    // An eighth is the least that pays.
    let mut partly = noise(10_000);
    partly.extend(vec![0; 800]);
    assert!(!is_compressed(&sealed(vec![pending(partly.clone(), false)], Some(1))));
    partly.extend(vec![0; 1500]);
    assert!(is_compressed(&sealed(vec![pending(partly, false)], Some(1))));
}

#[test]
fn a_block_is_opened_only_by_who_asks_for_it() {
    let segment = two_blocks();
    let [first, second] = &segment.blocks[..] else { panic!() };
    let position = first.run.position;
    let block = stored(&segment, first);
    assert_eq!(open_block(ID, partition(0), position, &block).as_ref(), Ok(&first.content));
    // Another segment, in any part of its name.
    let others = [
        SegmentId { began: Lsn::new(6), ..ID },
        SegmentId { incarnation: Incarnation(9), ..ID },
        SegmentId { counter: 8, ..ID },
    ];
    for other in others {
        let refused = open_block(other, partition(0), position, &block);
        assert!(matches!(refused, Err(BlockError::Checksum { .. })));
        assert_eq!(read_footer(other, &segment.bytes), Err(FooterError::OtherSegment(ID)));
    }
    // Another partition.
    let refused = open_block(ID, partition(1), position, &block);
    assert_eq!(refused, Err(BlockError::OtherPartition(partition(0))));
    let other = TopicPartition { topic: TopicId(Uuid::from_u128(6)), partition: 0 };
    let refused = open_block(ID, other, position, &block);
    assert_eq!(refused, Err(BlockError::OtherPartition(partition(0))));
    // A whole block of the same partition, as long as the right one, from another place.
    assert_eq!(first.run.stored_bytes, second.run.stored_bytes);
    let refused = open_block(ID, partition(0), position, &stored(&segment, second));
    assert!(matches!(refused, Err(BlockError::Checksum { .. })));
    // A range that begins or ends elsewhere.
    let start = usize::try_from(position).unwrap();
    for (from, to) in [(0, 1), (1, 0), (1, 1), (-1, 0), (-1, -1), (0, -1)] {
        let start = start.checked_add_signed(from).unwrap();
        let end = (start + block.len()).checked_add_signed(to).unwrap();
        assert!(open_block(ID, partition(0), position, &segment.bytes.slice(start..end)).is_err());
    }
    assert!(open_block(ID, partition(0), position, &Bytes::new()).is_err());
}

#[test]
fn every_flipped_bit_of_a_block_is_noticed() {
    for zstd_level in [None, Some(1)] {
        let segment = sealed(vec![pending(vec![b'x'; 700], false)], zstd_level);
        assert_eq!(is_compressed(&segment), zstd_level.is_some());
        let block = stored(&segment, &segment.blocks[0]);
        for at in 0..block.len() {
            for bit in 0..8 {
                let mut damaged = block.to_vec();
                damaged[at] ^= 1 << bit;
                let opened = open_block(ID, partition(0), 32, &damaged.into());
                assert!(opened.is_err(), "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn content_that_is_not_what_the_header_says_is_refused() {
    let packed = zstd::bulk::compress(&[b'x'; 700], 1).unwrap();
    let open = |block: &Bytes| open_block(ID, partition(0), 32, block);
    assert_eq!(open(&block_of(1, 700, &packed)).unwrap(), vec![b'x'; 700]);
    for block in [
        block_of(1, 699, &packed),
        block_of(1, 701, &packed),
        block_of(1, u32::MAX, &packed),
        block_of(1, 700, b"no frame"),
        block_of(0, 3, b"ab"),
        block_of(2, 2, b"ab"),
    ] {
        assert_eq!(open(&block), Err(BlockError::Content));
    }
    assert_eq!(open(&block_of(0, 2, b"ab")), Ok(Bytes::from_static(b"ab")));
}

#[test]
fn a_segment_is_found_by_its_name_and_nothing_else_is_taken_for_one() {
    for id in [
        ID,
        SegmentId { began: Lsn::ZERO, incarnation: Incarnation(0), counter: 0 },
        SegmentId {
            began: Lsn::new(u64::MAX),
            incarnation: Incarnation(u64::MAX),
            counter: u64::MAX,
        },
    ] {
        assert_eq!(SegmentId::from_key(&id.key()), Some(id));
    }
    let key = ID.key().as_str().to_owned();
    let name = key.strip_prefix(SegmentId::PREFIX).unwrap();
    for other in [
        name.to_owned(),
        format!("{key}-0"),
        format!("{key}0"),
        format!("{}{}", SegmentId::PREFIX, &name[3..]),
        key.replace("/", "/0"),
        format!("{key}/1"),
    ] {
        assert_eq!(SegmentId::from_key(&ObjectKey::new(other).unwrap()), None);
    }
}
