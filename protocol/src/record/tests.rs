use bytes::BufMut;

use super::*;

/// A batch with `count` records of no content, as a producer would send it.
fn batch(attributes: i16, count: i32, producer: (i64, i16, i32), records: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_i64(0);
    bytes.put_i32(i32::try_from(HEADER_BYTES - LENGTH_OVERHEAD + records.len()).unwrap());
    bytes.put_i32(-1);
    bytes.put_i8(2);
    bytes.put_u32(0);
    bytes.put_i16(attributes);
    bytes.put_i32(count - 1);
    bytes.put_i64(1_000);
    bytes.put_i64(2_000);
    bytes.put_i64(producer.0);
    bytes.put_i16(producer.1);
    bytes.put_i32(producer.2);
    bytes.put_i32(count);
    bytes.extend_from_slice(records);
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut [u8]) {
    let crc = crc32c::crc32c(&bytes[CRC_START..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
}

const NOBODY: (i64, i16, i32) = (-1, -1, -1);

fn check(bytes: Vec<u8>) -> Result<RecordBatch, BatchError> {
    RecordBatch::from_producer(&bytes.into())
}

#[test]
fn a_good_batch_is_read_field_by_field() {
    let batch = check(batch(0x13, 3, (7, 1, 40), b"xyz")).unwrap();
    assert_eq!(batch.codec(), Ok(Codec::Lz4));
    assert!(batch.is_transactional());
    assert_eq!((batch.producer_id(), batch.producer_epoch(), batch.base_sequence()), (7, 1, 40));
    assert_eq!((batch.base_timestamp(), batch.max_timestamp()), (1_000, 2_000));
    assert_eq!((batch.record_count(), batch.last_offset_delta(), batch.offsets()), (3, 2, 3));
    assert_eq!(batch.records(), Bytes::from_static(b"xyz"));
}

#[test]
fn every_flaw_has_its_own_name() {
    assert_eq!(check(Vec::new()), Err(BatchError::Empty));
    assert_eq!(check(vec![0; 10]), Err(BatchError::Truncated));
    let good = batch(0, 1, NOBODY, b"x");
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        check(bytes)
    };
    assert_eq!(with(16, 1), Err(BatchError::Magic(1)));
    assert_eq!(with(7, 9), Err(BatchError::BaseOffset(9)));
    assert!(matches!(with(61, b'y'), Err(BatchError::Checksum { .. })));
    assert_eq!(with(11, 200), Err(BatchError::Truncated));
    assert_eq!(with(8, 0xff), Err(BatchError::Truncated));
    assert_eq!(check([good.clone(), good.clone()].concat()), Err(BatchError::Several));
    assert_eq!(check(batch(0x20, 1, NOBODY, b"")), Err(BatchError::Control));
    assert_eq!(check(batch(0x08, 1, NOBODY, b"")), Err(BatchError::TimestampType));
    assert_eq!(check(batch(0x40, 1, NOBODY, b"")), Err(BatchError::DeleteHorizon));
    assert_eq!(check(batch(0x05, 1, NOBODY, b"")), Err(BatchError::Codec(5)));
    let producer = BatchError::Producer { id: 7, epoch: 0, sequence: -1 };
    assert_eq!(check(batch(0, 1, (7, 0, -1), b"")), Err(producer));
    let count = BatchError::Count { count: 0, last_offset_delta: -1 };
    assert_eq!(check(batch(0, 0, NOBODY, b"")), Err(count));
    let mut bytes = good;
    bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    seal(&mut bytes);
    let count = BatchError::Count { count: i32::MAX, last_offset_delta: 0 };
    assert_eq!(check(bytes), Err(count));
}

#[test]
fn log_append_time_keeps_the_checksum_right() {
    let batch = check(batch(0, 2, NOBODY, b"records")).unwrap();
    let stamped = batch.with_log_append_time(9_999);
    assert!(stamped.has_log_append_time());
    assert_eq!(stamped.max_timestamp(), 9_999);
    assert_eq!(stamped.crc(), crc32c::crc32c(&stamped.bytes()[CRC_START..]));
    assert_eq!(stamped.records(), batch.records());
}
