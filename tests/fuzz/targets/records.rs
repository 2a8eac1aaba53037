//! Record batches: their headers, their records, and the codecs that pack these.

use std::hint::black_box;

use bytes::{BufMut, Bytes};
use odradek_protocol::compression::{OpenError, Records, pack, unpack};
use odradek_protocol::record::{
    BatchError, Codec, ControlBatch, HEADER_BYTES, RecordBatch, RecordView, RecordViews,
};

use super::oracle::{bounded, bounded_with};

/// What a batch may unpack to here; a broker has its message limits.
const UNPACKED_MAX: usize = 64 * 1024;

/// The input is what a producer sends; then, with what guards it set right, the same again.
pub(crate) fn run(data: &[u8]) {
    let sent = Bytes::copy_from_slice(data);
    read_all(&sent);
    if data.len() < HEADER_BYTES {
        return;
    }
    let mut sealed = data.to_vec();
    sealed[..8].fill(0);
    let length = i32::try_from(data.len() - 12).unwrap();
    sealed[8..12].copy_from_slice(&length.to_be_bytes());
    let magic = i8::from_be_bytes([data[16]]);
    let crc = crc32c::crc32c(&sealed[21..]);
    sealed[17..21].copy_from_slice(&crc.to_be_bytes());
    let sealed = Bytes::from(sealed);
    match bounded(data.len(), || RecordBatch::from_producer(&sealed)) {
        Ok(batch) => {
            assert_eq!((magic, batch.bytes()), (2, &sealed));
            assert!(batch.is_whole() && batch.offsets() > 0 && !batch.is_control());
            open(&batch);
        }
        Err(BatchError::Magic(found)) => assert!(found == magic && magic != 2),
        Err(BatchError::Checksum { .. }) => panic!("the checksum was set right"),
        Err(_) => read_all(&sealed),
    }
}

/// Walks batches as a reader of stored bytes does.
fn read_all(bytes: &Bytes) {
    let mut rest = bytes.clone();
    while let Some((batch, behind)) = RecordBatch::split_first(&rest) {
        assert_eq!(batch.bytes().len() + behind.len(), rest.len());
        open(&batch);
        rest = behind;
    }
}

fn open(batch: &RecordBatch) {
    black_box((batch.control_type(), batch.delete_horizon()));
    assert_eq!(batch.with_base_offset(-1).base_offset(), -1);
    let timed = batch.with_log_append_time(5);
    assert!(timed.is_whole() && timed.max_timestamp() == 5);
    let packed = batch.bytes().len();
    // Only what decoders take for themselves, whatever the input: see `codec`.
    let Ok(unpacked) = bounded_with(packed, DECODER_BYTES, || unpack(batch, UNPACKED_MAX)) else {
        return;
    };
    assert!(unpacked.len() <= UNPACKED_MAX);
    let walk = || RecordViews::of(&unpacked, batch.record_count()).collect::<Result<Vec<_>, _>>();
    // A view of a record is larger than the shortest record.
    let views_bytes = 16 * u64::try_from(unpacked.len()).unwrap();
    let views = bounded_with(packed, 2 * views_bytes, walk);
    let records: Result<Vec<_>, OpenError> = Records::of(batch, unpacked.clone()).collect();
    assert_eq!(views.is_ok(), records.is_ok(), "two ways to walk the same records");
    let Ok(views) = views else { return };
    for (view, record) in views.iter().zip(records.unwrap()) {
        assert_eq!((view.offset_delta, view.has_value), (record.offset_delta, record.has_value));
        assert_eq!(view.timestamp_delta, record.timestamp_delta);
    }
    retain(batch, &views);
}

/// What compaction leaves of a batch is a batch with the records that were kept.
fn retain(batch: &RecordBatch, views: &[RecordView<'_>]) {
    let kept: Vec<_> = views.iter().step_by(2).copied().collect();
    for horizon in [None, Some(1_000)] {
        let Ok(left) = batch.retaining(&kept, horizon) else { continue };
        assert!(left.is_whole() && left.base_offset() == batch.base_offset());
        assert_eq!(left.last_offset_delta(), batch.last_offset_delta());
        let unpacked = unpack(&left, 2 * UNPACKED_MAX).unwrap();
        let again: Result<Vec<_>, _> = RecordViews::of(&unpacked, left.record_count()).collect();
        let again = again.unwrap();
        assert_eq!(again.len(), kept.len());
        for (before, after) in kept.iter().zip(&again) {
            assert_eq!((before.key, before.has_value), (after.key, after.has_value));
            assert_eq!(before.offset_delta, after.offset_delta);
            assert_eq!(batch.timestamp_of(before), left.timestamp_of(after));
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let marker = |commits| {
        let marker = ControlBatch {
            offset: 3,
            timestamp_ms: 1_700_000_000_000,
            producer_id: 7,
            producer_epoch: 1,
            commits,
        };
        marker.to_bytes().to_vec()
    };
    let mut seeds = vec![marker(true), marker(false), RecordBatch::empty(5, 9).to_vec()];
    for (bits, codec) in (0..).zip(CODECS) {
        let packed = pack(codec, some_records()).unwrap();
        seeds.push(batch(bits, 3, &packed));
        seeds.push(batch(bits | 0x10, 3, &packed));
    }
    let old = [&[0; 16][..], &[1], &[0; 50]].concat();
    seeds.push(old);
    // The count of headers of one record says 2^31.
    let mut record = vec![0, 0, 0, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x10];
    record.insert(0, u8::try_from(record.len() * 2).unwrap());
    seeds.push(batch(0, 1, &record));
    seeds.push(batch(0, i32::MAX, &some_records()));
    seeds.push([batch(0, 3, &some_records()), batch(4, 3, &[])].concat());
    seeds
}

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// Three records: with a key, without a value, with a header.
fn some_records() -> Vec<u8> {
    let record = |body: &[u8]| [&[u8::try_from(body.len() * 2).unwrap()], body].concat();
    [
        record(&[0, 0, 0, 6, b'k', b'e', b'y', 10, b'v', b'a', b'l', b'u', b'e', 0]),
        record(&[0, 2, 2, 6, b'k', b'e', b'y', 1, 0]),
        record(&[0, 0xd0, 0x0f, 4, 1, 2, b'v', 2, 2, b'h', 1]),
    ]
    .concat()
}

/// A batch around records, right in all that is not in doubt.
pub(crate) fn batch(attributes: i16, count: i32, records: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + records.len());
    bytes.put_i64(0);
    bytes.put_i32(i32::try_from(HEADER_BYTES - 12 + records.len()).unwrap());
    bytes.put_i32(-1);
    bytes.put_i8(2);
    bytes.put_u32(0);
    bytes.put_i16(attributes);
    bytes.put_i32(count.wrapping_sub(1));
    bytes.put_i64(1_700_000_000_000);
    bytes.put_i64(1_700_000_001_000);
    bytes.put_i64(-1);
    bytes.put_i16(-1);
    bytes.put_i32(-1);
    bytes.put_i32(count);
    bytes.put_slice(records);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// What a decoder holds of itself: an LZ4 frame has blocks of up to 4 MiB, packed and unpacked, and
/// looks back over a window; output grows by doubling.
const DECODER_BYTES: u64 = 12 << 20;

/// Unpacks an input with one codec, within a limit that the input can't move.
fn codec(codec: Codec, data: &[u8]) {
    let bits = (0..).zip(CODECS).find(|(_, it)| *it == codec).unwrap().0;
    let batch = RecordBatch::split_first(&batch(bits, 1, data).into()).unwrap().0;
    for limit in [0, 1_000, UNPACKED_MAX] {
        let unpacked = bounded_with(data.len(), DECODER_BYTES, || unpack(&batch, limit));
        let Ok(unpacked) = unpacked else { continue };
        assert!(unpacked.len() <= limit, "{} bytes of at most {limit}", unpacked.len());
        let packed = pack(codec, unpacked.to_vec()).unwrap();
        let again = RecordBatch::split_first(&self::batch(bits, 1, &packed).into()).unwrap().0;
        assert_eq!(unpack(&again, limit), Ok(unpacked));
    }
}

fn codec_seeds(codec: Codec) -> Vec<Vec<u8>> {
    let contents = [Vec::new(), some_records(), vec![7; 1_000], some_records().repeat(2_000)];
    let mut seeds: Vec<Vec<u8>> =
        contents.into_iter().map(|it| pack(codec, it).unwrap().to_vec()).collect();
    // What unpacks to a thousand times its length.
    seeds.push(pack(codec, vec![0; 1 << 20]).unwrap().to_vec());
    seeds
}

pub(crate) fn gzip(data: &[u8]) {
    codec(Codec::Gzip, data);
}

pub(crate) fn gzip_seeds() -> Vec<Vec<u8>> {
    codec_seeds(Codec::Gzip)
}

pub(crate) fn snappy(data: &[u8]) {
    codec(Codec::Snappy, data);
}

pub(crate) fn snappy_seeds() -> Vec<Vec<u8>> {
    let mut seeds = codec_seeds(Codec::Snappy);
    // Without xerial's frame: literals, a copy, and a block that claims to be 4 GiB long.
    seeds.push(b"\x06\x14abcdef".to_vec());
    seeds.push(b"\x0c\x08abc\x15\x03".to_vec());
    seeds.push(vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x61]);
    seeds
}

pub(crate) fn lz4(data: &[u8]) {
    codec(Codec::Lz4, data);
}

pub(crate) fn lz4_seeds() -> Vec<Vec<u8>> {
    codec_seeds(Codec::Lz4)
}

pub(crate) fn zstd(data: &[u8]) {
    codec(Codec::Zstd, data);
}

pub(crate) fn zstd_seeds() -> Vec<Vec<u8>> {
    let mut seeds = codec_seeds(Codec::Zstd);
    // A window of 2 GiB (2^31), and a frame of zeros in one run.
    seeds.push(vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x0b, 0, 0, 0]);
    seeds.push(vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0x03, 0x00, 0x10, 0x00]);
    seeds
}
