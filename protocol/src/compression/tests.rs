use std::io::Write;

use bytes::{BufMut, BytesMut};
use kafka_protocol::records::{
    Compression, Record as KafkaRecord, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use super::*;
use crate::record::HEADER_BYTES;

/// An uncompressed batch by an encoder that is not ours.
fn plain_batch() -> RecordBatch {
    let record = |n: i64| KafkaRecord {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: 1,
        producer_epoch: 0,
        timestamp_type: TimestampType::Creation,
        offset: n,
        sequence: i32::try_from(n).unwrap(),
        timestamp: 1_000 + n * 10,
        key: (n % 2 == 0).then(|| Bytes::from_static(b"key")),
        value: (n != 2).then(|| Bytes::from(vec![b'v'; 300])),
        headers: [("h".into(), Some(Bytes::from_static(b"1")))].into_iter().collect(),
    };
    let records: Vec<_> = (0..3).map(record).collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut bytes, records.iter(), &options).unwrap();
    RecordBatch::split_first(&bytes.freeze()).unwrap().0
}

/// The same header over other records and another codec.
fn repacked(plain: &RecordBatch, codec: u8, records: &[u8]) -> RecordBatch {
    let mut bytes = plain.bytes()[..HEADER_BYTES].to_vec();
    bytes[22] = codec;
    bytes.extend_from_slice(records);
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    RecordBatch::split_first(&bytes.into()).unwrap().0
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn lz4(content: &[u8]) -> Vec<u8> {
    let mut encoder = FrameEncoder::new(Vec::new());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(content, 1).unwrap()
}

fn snappy(content: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(content).unwrap()
}

fn xerial(content: &[u8]) -> Vec<u8> {
    let mut framed = XERIAL_MAGIC.to_vec();
    framed.put_i32(1);
    framed.put_i32(1);
    for block in content.chunks(1024) {
        let block = snappy(block);
        framed.put_i32(i32::try_from(block.len()).unwrap());
        framed.extend_from_slice(&block);
    }
    framed
}

type Pack = fn(&[u8]) -> Vec<u8>;
const CODECS: [(u8, Pack); 5] = [(1, gzip), (2, snappy), (2, xerial), (3, lz4), (4, zstd)];

#[test]
fn every_codec_opens_to_the_same_records() {
    let plain = plain_batch();
    let content = plain.records();
    let expected: Vec<Record> =
        Records::of(&plain, content.clone()).collect::<Result<_, _>>().unwrap();
    let facts = |r: &Record| (r.offset_delta, r.timestamp_delta, r.has_key, r.has_value);
    assert_eq!(
        expected.iter().map(facts).collect::<Vec<_>>(),
        [(0, 0, true, true), (1, 10, false, true), (2, 20, true, false)]
    );
    for (codec, pack) in CODECS {
        let batch = repacked(&plain, codec, &pack(&content));
        assert_eq!(unpack(&batch, 1 << 20).unwrap(), content, "codec {codec}");
    }
    // Several gzip members are one stream.
    let halves = [gzip(&content[..10]), gzip(&content[10..])].concat();
    assert_eq!(unpack(&repacked(&plain, 1, &halves), 1 << 20).unwrap(), content);
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let plain = plain_batch();
    let bomb = vec![0_u8; 64 << 20];
    for (codec, pack) in CODECS {
        let packed = pack(&bomb);
        assert!(packed.len() < bomb.len() / 10, "codec {codec}");
        let batch = repacked(&plain, codec, &packed);
        assert_eq!(unpack(&batch, 1 << 20), Err(OpenError::TooLong(1 << 20)), "codec {codec}");
    }
}

#[test]
fn nonsense_is_an_error_in_every_codec() {
    let plain = plain_batch();
    for codec in 1..=4 {
        for nonsense in [&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], b"", b"\x82SNAPPY\0\0"] {
            let batch = repacked(&plain, codec, nonsense);
            let opened = unpack(&batch, 1 << 20)
                .map(|content| Records::of(&batch, content).collect::<Result<Vec<_>, _>>());
            assert!(!matches!(opened, Ok(Ok(_))), "codec {codec} {nonsense:?}");
        }
    }
}

/// Found by fuzzing: 113 bytes made the decoder hold 16 MiB.
#[test]
fn the_old_form_of_lz4_frames_is_refused() {
    let plain = plain_batch();
    let block = lz4_flex::block::compress(&plain.records());
    let length = u32::try_from(block.len()).unwrap();
    let packed = [&0x184c_2102_u32.to_le_bytes()[..], &length.to_le_bytes(), &block].concat();
    let batch = repacked(&plain, 3, &packed);
    assert_eq!(unpack(&batch, 1 << 20), Err(OpenError::Codec("no LZ4 frame".to_owned())));
}

#[test]
fn records_that_do_not_add_up_are_an_error() {
    let plain = plain_batch();
    let content = plain.records();
    for end in 0..content.len() {
        let walked: Result<Vec<_>, _> = Records::of(&plain, content.slice(..end)).collect();
        assert_eq!(walked, Err(OpenError::Records), "cut at {end}");
    }
    let longer = Bytes::from([content.as_ref(), b"\0"].concat());
    let walked: Result<Vec<_>, _> = Records::of(&plain, longer).collect();
    assert_eq!(walked, Err(OpenError::Records));
}
