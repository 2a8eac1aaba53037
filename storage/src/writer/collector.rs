//! The task that collects batches and decides when a segment is full.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::Ordering;
use std::time::Duration;

use odradek_protocol::id::TopicPartition;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::{AppendError, Flush, Request, Upload, Uploaded, Waiter, Waiting, WriterConfig};
use crate::machine::Machine;
use crate::names::Names;
use crate::segment::builder::{PendingBatch, SegmentBuilder};

pub(super) struct Collector {
    config: WriterConfig,
    machine: Machine,
    upload: Upload,
    names: Names,
    requests: mpsc::Receiver<Request>,
    sealed: mpsc::Sender<JoinHandle<Uploaded>>,
    committer: JoinHandle<()>,
    builder: SegmentBuilder,
    waiters: Vec<Waiting>,
    /// How many batches of each partition the segment holds.
    places: BTreeMap<TopicPartition, usize>,
    /// When the segment's linger is over; set by its first batch.
    deadline: Instant,
    budget: PutBudget,
    stopping: Option<oneshot::Sender<()>>,
    /// How often the process had been asleep when the segment's first batch came.
    wakes: u64,
}

impl Collector {
    pub(super) fn new(
        machine: Machine,
        upload: Upload,
        names: Names,
        requests: mpsc::Receiver<Request>,
        sealed: mpsc::Sender<JoinHandle<Uploaded>>,
        committer: JoinHandle<()>,
    ) -> Self {
        let now = Instant::now();
        let config = upload.config.clone();
        let budget = PutBudget::new(config.puts_per_second, now);
        Self {
            config,
            machine,
            upload,
            names,
            requests,
            sealed,
            committer,
            builder: SegmentBuilder::default(),
            waiters: Vec::new(),
            places: BTreeMap::new(),
            deadline: now,
            budget,
            stopping: None,
            wakes: 0,
        }
    }

    pub(super) async fn run(mut self) {
        while let Some(request) = self.next_request().await {
            self.accept(request);
            self.take_what_is_queued();
            if self.stopping.is_some() {
                break;
            }
            if self.is_due() {
                self.flush().await;
            }
        }
        self.flush().await;
        self.refuse_the_rest();
        let Self { sealed, committer, stopping, .. } = self;
        drop(sealed);
        // A committer that panicked has taken its waiters with it; they hear "unknown".
        drop(committer.await);
        if let Some(stopped) = stopping {
            stopped.send(()).unwrap_or(());
        }
    }

    /// Waits for the next request; flushes meanwhile what becomes due.
    async fn next_request(&mut self) -> Option<Request> {
        loop {
            if self.builder.is_empty() {
                return self.requests.recv().await;
            }
            let wake = self.next_wake();
            tokio::select! {
                biased;
                request = self.requests.recv() => return request,
                () = self.upload.uploading.done.notified() => {}
                () = sleep_until(wake) => {}
            }
            if self.is_due() {
                self.flush().await;
            }
        }
    }

    fn accept(&mut self, request: Request) {
        let (waiter, batches) = match request {
            Request::Append(waiter, batches) => (waiter, batches),
            Request::Stop(done) => {
                self.stopping = Some(done);
                return;
            }
        };
        if self.builder.is_empty() {
            self.deadline = Instant::now() + self.config.linger_max;
            self.wakes = self.upload.wakes.count();
        }
        self.collect(waiter, batches);
    }

    fn collect(&mut self, waiter: Waiter, batches: Vec<(TopicPartition, PendingBatch)>) {
        let mut places = Vec::with_capacity(batches.len());
        for (partition, batch) in batches {
            let place = self.places.entry(partition).or_default();
            places.push((partition, *place));
            *place += 1;
            self.builder.push(partition, batch);
        }
        self.waiters.push(Waiting { waiter, places });
    }

    fn take_what_is_queued(&mut self) {
        while self.stopping.is_none()
            && self.builder.content_bytes() < self.config.segment_bytes_max
        {
            match self.requests.try_recv() {
                Ok(request) => self.accept(request),
                Err(_) => return,
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.upload.uploading.count.load(Ordering::Relaxed) == 0
    }

    /// Full, or its time is over, or nothing is gained by waiting: no upload is under way, and one
    /// more put is within the budget.
    fn is_due(&self) -> bool {
        let now = Instant::now();
        !self.builder.is_empty()
            && (self.builder.content_bytes() >= self.config.segment_bytes_max
                || now >= self.deadline
                || (self.is_idle() && self.budget.next_put() <= now))
    }

    fn next_wake(&self) -> Instant {
        if self.is_idle() { self.deadline.min(self.budget.next_put()) } else { self.deadline }
    }

    async fn flush(&mut self) {
        if self.builder.is_empty() {
            return;
        }
        let is_inline = self.is_inline();
        let cost = if is_inline { self.inline_cost() } else { PUT_COST };
        self.budget.spend(Instant::now(), cost);
        self.places.clear();
        let flush = Flush {
            id: self.names.next(),
            wakes: self.wakes,
            is_inline,
            builder: mem::take(&mut self.builder),
            waiters: mem::take(&mut self.waiters),
        };
        // Waits while too many segments are under way. Without a committer there is nobody to
        // commit: the waiters hear "unknown".
        if let Ok(place) = self.sealed.reserve().await {
            place.send(self.upload.start(flush));
        }
    }

    /// Whether what was collected is to travel in the log.
    fn is_inline(&self) -> bool {
        let bytes = self.builder.content_bytes();
        let held = || self.machine.read(|state| state.segments().inline_bytes());
        // A partition takes a run of some dozens of bytes, and a block header.
        bytes + self.places.len() * INLINE_RUN_BYTES <= self.config.inline_bytes_max
            && held() < self.config.inline_bytes_held_max
    }

    /// What the longer entry costs.
    fn inline_cost(&self) -> u32 {
        let kilobytes = self.builder.content_bytes() / 1024 + 1;
        u32::try_from(kilobytes).unwrap_or(PUT_COST).min(PUT_COST)
    }

    fn refuse_the_rest(&mut self) {
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            if let Request::Append(waiter, batches) = request {
                drop(waiter.send(vec![Err(AppendError::Stopped); batches.len()]));
            }
        }
    }
}

/// What a put costs, in writes of a kilobyte to the log: $5.00 a million of one, $0.625 a million
/// of the other.
const PUT_COST: u32 = 8;

/// What each partition adds to an entry besides its batches, about.
const INLINE_RUN_BYTES: usize = 100;

/// How often a segment may be sealed before it is full or its linger is over.
struct PutBudget {
    /// Time that one put takes from the budget; zero where puts are free.
    interval: Duration,
    next: Instant,
}

impl PutBudget {
    fn new(puts_per_second: Option<u32>, now: Instant) -> Self {
        let interval =
            puts_per_second.map_or(Duration::ZERO, |puts| Duration::from_secs(1) / puts.max(1));
        Self { interval, next: now }
    }

    fn next_put(&self) -> Instant {
        self.next
    }

    /// Spends what a put costs, or some [`PUT_COST`]ths of it.
    fn spend(&mut self, now: Instant, cost: u32) {
        self.next = now.max(self.next) + self.interval * cost / PUT_COST;
    }
}
