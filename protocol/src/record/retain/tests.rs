use bytes::Bytes;
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use super::*;
use crate::record::{Codec, RecordViews};

/// A batch by an encoder that is not ours: some keys, a tombstone, headers, uneven times.
fn plain() -> RecordBatch {
    let record = |n: i64| Record {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: 9,
        producer_epoch: 2,
        timestamp_type: TimestampType::Creation,
        offset: 100 + n,
        sequence: 40 + i32::try_from(n).unwrap(),
        timestamp: 1_000_000 + (n - 2) * (n - 2) * -777,
        key: Some(Bytes::from(format!("key {n}"))),
        value: (n != 3).then(|| Bytes::from(vec![b'v'; 200])),
        headers: [("h".into(), Some(Bytes::from_static(b"1"))), ("none".into(), None)]
            .into_iter()
            .collect(),
    };
    let records: Vec<_> = (0..6).map(record).collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut bytes, records.iter(), &options).unwrap();
    let batch = RecordBatch::split_first(&bytes.freeze()).unwrap().0;
    batch.with_base_offset(100)
}

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// The batch with its records in another codec, of which that encoder knows none.
fn batch(codec: Codec) -> RecordBatch {
    let plain = plain();
    let records = compression::pack(codec, plain.records().to_vec()).unwrap();
    let number = i16::try_from(CODECS.iter().position(|it| *it == codec).unwrap()).unwrap();
    let times = (plain.base_timestamp(), plain.max_timestamp());
    plain.rebuilt(plain.attributes() | number, times, plain.record_count(), &records)
}

/// What a decoder that is not ours, and that knows no codec, finds in it.
fn decoded(batch: &RecordBatch) -> Vec<Record> {
    let records = compression::unpack(batch, 1 << 20).unwrap();
    let times = (batch.base_timestamp(), batch.max_timestamp());
    let attributes = batch.attributes() & !CODEC_BITS;
    let plain = batch.rebuilt(attributes, times, batch.record_count(), &records);
    RecordBatchDecoder::decode(&mut plain.bytes().clone()).unwrap().records
}

fn keeping(batch: &RecordBatch, deltas: &[i32], horizon_ms: Option<i64>) -> RecordBatch {
    let unpacked = compression::unpack(batch, 1 << 20).unwrap();
    let views: Result<Vec<_>, _> = RecordViews::of(&unpacked, batch.record_count()).collect();
    let mut views = views.unwrap();
    views.retain(|view| deltas.contains(&view.offset_delta));
    batch.retaining(&views, horizon_ms).unwrap()
}

#[test]
fn records_that_stay_keep_all_that_is_in_them_in_every_codec() {
    for codec in CODECS {
        let whole = batch(codec);
        let part = keeping(&whole, &[1, 3, 4], None);
        assert_eq!(part.codec(), Ok(codec));
        assert_eq!((part.base_offset(), part.last_offset_delta()), (100, 5), "{codec:?}");
        assert_eq!(part.bytes()[43..57], whole.bytes()[43..57], "producer and sequence");
        assert_eq!((part.record_count(), part.offsets()), (3, 6));
        assert_eq!(part.crc(), crc32c::crc32c(&part.bytes()[CRC_START..]));
        let (before, after) = (decoded(&whole), decoded(&part));
        assert_eq!(after, [before[1].clone(), before[3].clone(), before[4].clone()], "{codec:?}");
        assert_eq!(part.max_timestamp(), 1_000_000 - 777, "of what stays");
    }
}

#[test]
fn a_delete_horizon_moves_the_base_timestamp_and_no_time() {
    for codec in CODECS {
        let whole = batch(codec);
        assert_eq!(whole.delete_horizon(), None);
        let part = keeping(&whole, &[0, 3, 5], Some(5_000_000_000));
        assert_eq!(part.delete_horizon(), Some(5_000_000_000), "{codec:?}");
        let (before, after) = (decoded(&whole), decoded(&part));
        for (new, old) in after.iter().zip([&before[0], &before[3], &before[5]]) {
            assert!(new.delete_horizon);
            assert_eq!(Record { delete_horizon: false, ..new.clone() }, *old, "{codec:?}");
        }
        let later = keeping(&part, &[3], Some(6_000_000_000));
        assert_eq!(later.delete_horizon(), Some(5_000_000_000), "the first one counts");
        assert_eq!(decoded(&later)[0].timestamp, before[3].timestamp);
    }
}

#[test]
fn records_keep_their_bytes_without_a_new_horizon() {
    let whole = batch(Codec::None);
    let part = keeping(&whole, &[0, 1, 2, 3, 4, 5], None);
    assert_eq!(part, whole);
}

#[test]
fn a_batch_of_nothing_is_a_header_that_keeps_its_place() {
    let empty = keeping(&batch(Codec::Zstd), &[], Some(1));
    assert_eq!(empty.bytes().len(), HEADER_BYTES);
    assert_eq!((empty.base_offset(), empty.offsets(), empty.record_count()), (100, 6, 0));
    assert_eq!((empty.codec(), empty.delete_horizon()), (Ok(Codec::None), None));
    assert!(empty.is_transactional());
    assert_eq!((empty.producer_id(), empty.base_sequence()), (9, 40));
    assert_eq!(decoded(&empty), []);
}

#[test]
fn the_time_of_the_log_stays_the_time_of_all_records() {
    let whole = batch(Codec::None).with_log_append_time(7_777_777);
    let part = keeping(&whole, &[1], Some(9_000_000));
    assert!(part.has_log_append_time());
    assert_eq!(part.max_timestamp(), 7_777_777);
    let unpacked = part.records();
    let (record, _) = RecordView::split_first(&unpacked).unwrap();
    assert_eq!(part.timestamp_of(&record), 7_777_777);
}

#[test]
fn attributes_that_nobody_knows_stay() {
    let mut bytes = BytesMut::from(&batch(Codec::None).bytes()[..]);
    bytes[21] |= 0x40;
    let whole = RecordBatch::split_first(&bytes.freeze()).unwrap().0;
    for kept in [&[1, 2][..], &[]] {
        let attributes = keeping(&whole, kept, Some(1)).attributes();
        assert_eq!(attributes & 0x4000, 0x4000);
    }
}

#[test]
fn nothing_is_lost_at_the_edges_of_time() {
    let whole = batch(Codec::None);
    for horizon in [i64::MIN, i64::MAX, 0] {
        let part = keeping(&whole, &[0, 5], Some(horizon));
        let unpacked = part.records();
        let times: Vec<_> =
            RecordViews::of(&unpacked, 2).map(|view| part.timestamp_of(&view.unwrap())).collect();
        assert_eq!(times, [1_000_000 - 4 * 777, 1_000_000 - 9 * 777], "{horizon}");
    }
}
