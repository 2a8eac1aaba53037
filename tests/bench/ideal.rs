//! How long producers would wait for a writer that loses no time: simulated, with the same delays.
//!
//! A batch opens a segment, or joins the one that is open. A segment is put when its linger is
//! over, beside those before it; segments are committed in their order, with one write of the log
//! at a time for all that are there. Nothing but the linger, the store and the log takes any time.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::delayed::Delays;

/// Such a writer, and its load.
pub(crate) struct Ideal {
    /// How long a segment is open.
    pub(crate) linger: Duration,
    /// How long a put takes; none if batches travel in the log.
    pub(crate) put: Option<Delays>,
    /// How long a write of the log takes.
    pub(crate) commit: Delays,
    /// Bytes of a batch, and the time between two.
    pub(crate) batch: usize,
    pub(crate) pace: Duration,
}

/// Batches that are committed together.
struct Segment {
    came: Vec<Duration>,
    /// When it is in the store, and so are all before it.
    ready: Duration,
}

impl Ideal {
    /// The latencies of so many batches, in microseconds, in order.
    pub(crate) fn latencies(&self, batches: u32, seed: u64) -> Vec<u64> {
        let mut random = StdRng::seed_from_u64(seed);
        let segments = self.segments(batches, &mut random);
        let mut latencies = Vec::new();
        let (mut free, mut rest) = (Duration::ZERO, segments.as_slice());
        while let Some(first) = rest.first() {
            let begins = first.ready.max(free);
            let (together, later) = rest.split_at(rest.partition_point(|it| it.ready <= begins));
            free = begins + self.commit.draw(0, &mut random);
            let came = together.iter().flat_map(|segment| &segment.came);
            latencies.extend(came.map(|at| u64::try_from((free - *at).as_micros()).unwrap()));
            rest = later;
        }
        latencies.sort_unstable();
        latencies
    }

    fn segments(&self, batches: u32, random: &mut StdRng) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        let arrivals: Vec<Duration> = (0..batches).map(|number| self.pace * number).collect();
        let mut rest = arrivals.as_slice();
        while let Some(first) = rest.first() {
            let closes = *first + self.linger;
            let (came, later) = rest.split_at(rest.partition_point(|at| *at <= closes));
            let put = self.put.map(|put| put.draw(came.len() * self.batch, random));
            let before = segments.last().map_or(Duration::ZERO, |segment| segment.ready);
            let ready = (closes + put.unwrap_or_default()).max(before);
            segments.push(Segment { came: came.to_vec(), ready });
            rest = later;
        }
        segments
    }
}
