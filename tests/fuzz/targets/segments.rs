//! Segments: footers and blocks, sealed anew so that they are looked into.

use bytes::{BufMut, Bytes};
use odradek_protocol::id::{TopicId, TopicPartition};
use odradek_storage::command::Incarnation;
use odradek_storage::lsn::Lsn;
use odradek_storage::segment::{
    BLOCK_HEADER_BYTES, HEADER_BYTES, SegmentId, footer_bytes, open_block, open_footer, read_footer,
};

use super::oracle::{bounded, bounded_with};
use super::samples::golden;

/// The one of the samples.
const SEGMENT: SegmentId =
    SegmentId { began: Lsn::new(3), incarnation: Incarnation(0xfeed_0000_0000_0001), counter: 1 };

/// Bytes behind a footer.
const TRAILER_BYTES: usize = 12;

/// Memory for each byte of a footer, besides the usual: a batch takes two bytes at least.
const BATCH_BYTES: u64 = 100;

/// The input is an object; then, with a trailer that fits, the part of one from its footer on.
pub(crate) fn footer(data: &[u8]) {
    let object = Bytes::copy_from_slice(data);
    drop(bounded(data.len(), || read_footer(SEGMENT, &object)));
    if let Some(bytes) = footer_bytes(data) {
        assert!(bytes >= TRAILER_BYTES);
    }
    let golden = golden("segment_v1.bin");
    let mut sealed = golden[..footer_begins(&golden)].to_vec();
    sealed.put_slice(data);
    sealed.put_u32(u32::try_from(data.len()).unwrap());
    sealed.put_u32(crc32c::crc32c(data));
    sealed.put_slice(b"ODRF");
    let sealed = Bytes::from(sealed);
    let more = u64::try_from(data.len()).unwrap() * BATCH_BYTES;
    let whole = bounded_with(sealed.len(), more, || read_footer(SEGMENT, &sealed));
    let end = sealed.slice(HEADER_BYTES..);
    let length = u64::try_from(sealed.len()).unwrap();
    assert_eq!(open_footer(SEGMENT, length, &sealed, &end), whole, "read in part or whole");
}

fn footer_begins(object: &Bytes) -> usize {
    object.len() - footer_bytes(object).unwrap()
}

pub(crate) fn footer_seeds() -> Vec<Vec<u8>> {
    ["segment_v1.bin", "segment_zstd_v1.bin"]
        .map(golden)
        .iter()
        .flat_map(|it| {
            let footer = it.slice(footer_begins(it)..it.len() - TRAILER_BYTES);
            [it.to_vec(), footer.to_vec()]
        })
        .collect()
}

/// The input is a block, whose checksum is set right.
pub(crate) fn block(data: &[u8]) {
    let mut block = data.to_vec();
    let read = |block: Vec<u8>| {
        let block = Bytes::from(block);
        let topic: [u8; 16] = block.get(4..20).map_or([0; 16], |it| it.try_into().unwrap());
        let index: [u8; 4] = block.get(20..24).map_or([0; 4], |it| it.try_into().unwrap());
        let topic = TopicId(uuid::Uuid::from_bytes(topic));
        let owner = TopicPartition { topic, partition: i32::from_be_bytes(index) };
        let says: [u8; 4] = block.get(24..28).map_or([0; 4], |it| it.try_into().unwrap());
        // Room for what it says it unpacks to: whoever wrote it could seal it.
        let more = u64::from(u32::from_be_bytes(says));
        (owner, bounded_with(block.len(), more, || open_block(SEGMENT, owner, POSITION, &block)))
    };
    drop(read(block.clone()));
    if block.len() < BLOCK_HEADER_BYTES {
        return;
    }
    let payload = u32::try_from(block.len() - BLOCK_HEADER_BYTES).unwrap();
    block[28..32].copy_from_slice(&payload.to_be_bytes());
    // Content of which the fuzzer would only learn to ask for much.
    if block[24] != 0 {
        return;
    }
    let crc = checksum(&block);
    block[32..36].copy_from_slice(&crc.to_be_bytes());
    let (owner, content) = read(block.clone());
    if let Ok(content) = content {
        assert_eq!(u32::try_from(content.len()).unwrap().to_be_bytes(), block[24..28]);
        let block = Bytes::from(block);
        let other = TopicPartition { partition: owner.partition ^ 1, ..owner };
        assert!(open_block(SEGMENT, other, POSITION, &block).is_err());
        assert!(open_block(SEGMENT, owner, POSITION + 1, &block).is_err());
        let counter = SEGMENT.counter + 1;
        let elsewhere = SegmentId { counter, ..SEGMENT };
        assert!(open_block(elsewhere, owner, POSITION, &block).is_err());
    }
}

/// Where the block lies: behind the header of its segment.
const POSITION: u64 = 32;

/// As the layout says: segment id, position, header without the checksum, payload.
fn checksum(block: &[u8]) -> u32 {
    let mut place = Vec::new();
    place.put_u64(SEGMENT.began.get());
    place.put_u64(SEGMENT.incarnation.0);
    place.put_u64(SEGMENT.counter);
    place.put_u64(POSITION);
    place.put_slice(&block[..BLOCK_HEADER_BYTES - 4]);
    place.put_slice(&block[BLOCK_HEADER_BYTES..]);
    crc32c::crc32c(&place)
}

pub(crate) fn block_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for object in ["segment_v1.bin", "segment_zstd_v1.bin"].map(golden) {
        for run in read_footer(SEGMENT, &object).unwrap() {
            let start = usize::try_from(run.position).unwrap();
            let end = start + usize::try_from(run.stored_bytes).unwrap();
            seeds.push(object[start..end].to_vec());
        }
    }
    seeds
}
