use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

/// A batch of nothing that anybody opens here.
fn batch(base: i64, offsets: u32, bytes: usize) -> RecordBatch {
    let mut batch = BytesMut::new();
    batch.put_i64(base);
    batch.put_i32(i32::try_from(49 + bytes).unwrap());
    batch.put_bytes(0, 11);
    batch.put_i32(i32::try_from(offsets).unwrap() - 1);
    batch.put_bytes(0, 34);
    batch.put_bytes(0, bytes);
    let batch: Bytes = batch.freeze();
    RecordBatch::split_first(&batch).unwrap().0
}

fn holds(from: i64, to: i64, batches: &[RecordBatch]) -> Vec<Span> {
    let spans = pack(Offset(from), Offset(to), batches.to_vec());
    let mut at = Offset(from);
    let mut left = batches.iter();
    for span in &spans {
        assert!(span.offsets > 0);
        let end = at.advanced_by(span.offsets);
        for batch in &span.batches {
            assert_eq!(left.next(), Some(batch), "in order");
            let base = Offset(batch.base_offset());
            assert!(at <= base && base.advanced_by(batch.offsets()) <= end);
        }
        let bytes: usize = span.batches.iter().map(|it| it.bytes().len()).sum();
        assert!(bytes <= BLOCK_CONTENT_BYTES_MAX || span.batches.len() == 1);
        assert!(span.batches.len() <= BLOCK_BATCHES_MAX);
        at = end;
    }
    assert_eq!((at, left.next()), (Offset(to), None));
    spans
}

#[test]
fn a_range_of_nothing_is_one_gap() {
    assert_eq!(holds(5, 9, &[]), [Span::gap(4)]);
}

#[test]
fn holes_are_part_of_the_block_before_them() {
    let spans = holds(0, 100, &[batch(10, 5, 900_000), batch(60, 5, 900_000)]);
    assert_eq!(spans.iter().map(|it| it.offsets).collect::<Vec<_>>(), [60, 40]);
}

#[test]
fn holes_too_long_for_an_extent_become_gaps() {
    let far = 3 * i64::from(u32::MAX);
    let spans = holds(0, 2 * far, &[batch(1, 1, 9), batch(far, 1, 9)]);
    assert_eq!(spans.iter().filter(|it| it.batches.is_empty()).count(), 6);
}

proptest! {
    #[test]
    fn all_batches_stay_in_order_and_all_offsets_are_taken(
        parts in prop::collection::vec((0_u32..100, 1_u32..100, 0_usize..700_000), 0..20),
        front in 0_i64..100,
        tail in 0_i64..100,
    ) {
        let mut at = front;
        let mut batches = Vec::new();
        for (hole, offsets, bytes) in parts {
            at += i64::from(hole);
            batches.push(batch(at, offsets, bytes));
            at += i64::from(offsets);
        }
        if at + tail > 0 {
            let spans = holds(0, at + tail, &batches);
            prop_assert!(spans.len() <= batches.len().max(1));
        }
    }
}
