//! Parts of segments that were read in one piece at the tail, for those who ask a little later.
//!
//! Consumers that are woken by the same commit ask at once, and one request serves them all; those
//! who were still at work on what they had come some milliseconds later, one after the other, each
//! for other blocks of the same segment. After a few requests for parts of a segment the rest of it
//! is read in one ([`Spans::plan`]), and where that was the case of most segments lately, a segment
//! is read whole at once.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use futures::future::{BoxFuture, Shared};

use crate::segment::{HEADER_BYTES, SegmentId};

/// How many segments are remembered: what became of them is what is expected of the next.
const REMEMBERED: usize = 16;

/// After so many requests for parts of a segment the rest is read, however little was wanted. A
/// request costs as much as the processor time for some megabytes.
const REQUESTS_MAX: u32 = 4;

/// After two it is, if more than this part of the segment was wanted.
const WANTED_PART: u64 = 16;

/// Longer segments are never read whole: they were merged, and nobody at the tail wants all of one.
const WHOLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What was read of segments lately.
#[derive(Debug)]
pub(super) struct Spans {
    /// Bytes that are kept.
    bytes_max: u64,
    bytes: u64,
    kept: VecDeque<Span>,
    /// Segments that are being read whole.
    reading: BTreeMap<SegmentId, Reading>,
    asked: BTreeMap<SegmentId, Asked>,
    order: VecDeque<SegmentId>,
}

/// A segment that is being read, from which byte on.
pub(super) type Reading = Shared<BoxFuture<'static, Result<(u64, Bytes), String>>>;

#[derive(Debug)]
struct Span {
    segment: SegmentId,
    start: u64,
    bytes: Bytes,
}

/// What was asked for of a segment.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    times: u32,
    bytes: u64,
    /// Whether so much that reading it whole at first would have been the best.
    is_popular: bool,
}

/// How blocks of a segment are to be had.
#[derive(Debug)]
pub(super) enum Plan {
    /// They lie in these bytes, which begin at `start`.
    Kept { start: u64, bytes: Bytes },
    /// They are on their way.
    Join(Reading),
    /// By reading this part.
    Part(Range<u64>),
    /// By reading this, which is all there is; see [`Spans::begin`].
    Whole(Range<u64>),
}

impl Spans {
    /// Keeps up to so many bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            kept: VecDeque::new(),
            reading: BTreeMap::new(),
            asked: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// How to read blocks that lie in `range` and have `wanted` bytes together, in a segment of
    /// `segment_bytes`.
    pub(super) fn plan(
        &mut self,
        segment: SegmentId,
        segment_bytes: u64,
        range: Range<u64>,
        wanted: u64,
    ) -> Plan {
        let is_read_whole = self.note(segment, segment_bytes, wanted);
        let covers = |span: &&Span| {
            span.segment == segment
                && span.start <= range.start
                && range.end - span.start <= length(&span.bytes)
        };
        if let Some(Span { start, bytes, .. }) = self.kept.iter().find(covers) {
            return Plan::Kept { start: *start, bytes: bytes.clone() };
        }
        let first = u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX);
        let is_inside = first <= range.start && range.end <= segment_bytes;
        match self.reading.get(&segment) {
            Some(reading) if is_inside => Plan::Join(reading.clone()),
            None if is_inside && is_read_whole => Plan::Whole(first..segment_bytes),
            _ => Plan::Part(range),
        }
    }

    /// Notes that a segment is being read whole, until [`Self::end`].
    pub(super) fn begin(&mut self, segment: SegmentId, reading: Reading) {
        self.reading.insert(segment, reading);
    }

    /// Notes that it no longer is.
    pub(super) fn end(&mut self, segment: SegmentId) {
        self.reading.remove(&segment);
    }

    /// Keeps what was read.
    pub(super) fn keep(&mut self, segment: SegmentId, start: u64, bytes: Bytes) {
        self.bytes += length(&bytes);
        self.kept.push_back(Span { segment, start, bytes });
        while self.bytes > self.bytes_max
            && let Some(gone) = self.kept.pop_front()
        {
            self.bytes -= length(&gone.bytes);
        }
    }

    /// Gives up what was kept of a segment: it may be damaged.
    pub(super) fn forget(&mut self, segment: SegmentId) {
        self.kept.retain(|span| span.segment != segment);
        self.bytes = self.kept.iter().map(|span| length(&span.bytes)).sum();
    }

    /// Notes that something is wanted, and says whether the segment is to be read whole.
    fn note(&mut self, segment: SegmentId, segment_bytes: u64, wanted: u64) -> bool {
        let is_usual = self.asked.values().filter(|it| it.is_popular).count() * 2 > REMEMBERED;
        if !self.asked.contains_key(&segment) {
            self.order.push_back(segment);
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.asked.remove(&oldest);
            }
        }
        let asked = self.asked.entry(segment).or_default();
        asked.times += 1;
        asked.bytes += wanted;
        let is_much = asked.bytes >= segment_bytes / WANTED_PART;
        asked.is_popular |= asked.times >= REQUESTS_MAX || (asked.times >= 2 && is_much);
        let is_read_whole = asked.is_popular || (asked.times == 1 && is_usual);
        is_read_whole && segment_bytes <= WHOLE_BYTES_MAX
    }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::command::Incarnation;
    use crate::lsn::Lsn;

    const SEGMENT_BYTES: u64 = 16_000;

    /// All but the header.
    const WHOLE: Range<u64> = 32..SEGMENT_BYTES;

    fn segment(counter: u64) -> SegmentId {
        SegmentId { began: Lsn::FIRST, incarnation: Incarnation(1), counter }
    }

    fn plan(spans: &mut Spans, counter: u64, range: Range<u64>) -> Plan {
        let wanted = range.end - range.start;
        spans.plan(segment(counter), SEGMENT_BYTES, range, wanted)
    }

    /// Reads it, if it has to be read.
    fn read(spans: &mut Spans, counter: u64, range: Range<u64>) -> Option<Range<u64>> {
        match plan(spans, counter, range) {
            Plan::Kept { .. } => None,
            Plan::Part(range) | Plan::Whole(range) => {
                let bytes = vec![7; usize::try_from(range.end - range.start).unwrap()];
                spans.keep(segment(counter), range.start, bytes.into());
                Some(range)
            }
            Plan::Join(_) => panic!("nothing is on its way"),
        }
    }

    #[test]
    fn who_asks_for_a_few_blocks_gets_those_and_after_some_all_is_read() {
        let mut spans = Spans::new(1_000_000);
        assert_eq!(read(&mut spans, 1, 100..200), Some(100..200));
        assert_eq!(read(&mut spans, 1, 150..200), None);
        assert_eq!(read(&mut spans, 1, 300..400), Some(300..400));
        assert_eq!(read(&mut spans, 1, 500..600), Some(WHOLE));
        assert_eq!(read(&mut spans, 1, 15_000..16_000), None);
        let kept = plan(&mut spans, 1, 120..130);
        assert!(matches!(kept, Plan::Kept { start: 100, bytes } if bytes.len() == 100));
        // With much of it wanted, the second time.
        assert_eq!(read(&mut spans, 2, 100..3000), Some(100..3000));
        assert_eq!(read(&mut spans, 2, 5000..5100), Some(WHOLE));
        // What lies outside is read as it is asked for, and fails there.
        assert_eq!(read(&mut spans, 2, 15_000..17_000), Some(15_000..17_000));
    }

    #[test]
    fn where_most_segments_are_wanted_by_many_they_are_read_whole_at_once() {
        let mut spans = Spans::new(1_000_000);
        for counter in 0..100 {
            let reads =
                (0..20).filter_map(|at| read(&mut spans, counter, at * 800 + 32..at * 800 + 800));
            let count = reads.count();
            assert_eq!(count, if counter < 9 { 2 } else { 1 }, "{counter}");
        }
        // Until that is no longer so: a few more are read in vain.
        let mut in_vain = 0;
        for counter in 100..200 {
            in_vain += u32::from(read(&mut spans, counter, 100..200) == Some(WHOLE));
        }
        assert_eq!(in_vain, 8);
    }

    #[test]
    fn while_all_of_a_segment_is_on_its_way_nobody_reads_a_part() {
        let mut spans = Spans::new(1_000_000);
        assert_eq!(read(&mut spans, 1, 100..3000), Some(100..3000));
        assert!(matches!(plan(&mut spans, 1, 5000..5100), Plan::Whole(WHOLE)));
        let reading = async { Ok((32, Bytes::new())) }.boxed().shared();
        spans.begin(segment(1), reading);
        assert!(matches!(plan(&mut spans, 1, 6000..6100), Plan::Join(_)));
        assert!(matches!(plan(&mut spans, 1, 0..32), Plan::Part(_)));
        assert!(matches!(plan(&mut spans, 2, 6000..6100), Plan::Part(_)));
        spans.end(segment(1));
        assert!(matches!(plan(&mut spans, 1, 6000..6100), Plan::Whole(WHOLE)));
    }

    #[test]
    fn only_so_much_is_kept() {
        let mut spans = Spans::new(50_000);
        for counter in 0..10 {
            spans.keep(segment(counter), 32, vec![7; 16_000].into());
            assert!(spans.bytes <= 50_000);
        }
        let kept: Vec<_> = spans.kept.iter().map(|span| span.segment.counter).collect();
        assert_eq!(kept, [7, 8, 9]);
        spans.forget(segment(8));
        assert_eq!((spans.bytes, spans.kept.len()), (32_000, 2));
        assert_eq!(read(&mut spans, 8, 40..50), Some(40..50));
        // What is longer than all that is kept, is not.
        spans.keep(segment(11), 32, vec![7; 60_000].into());
        assert_eq!((spans.bytes, spans.kept.len()), (0, 0));
    }
}
