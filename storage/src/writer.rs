//! The writer: from batches to acknowledged offsets.
//!
//! Two tasks. The *collector* groups batches by partition until a segment is full, or its linger is
//! over, or putting one more object costs nothing; it then has the segment sealed and uploaded. The
//! *committer* takes the segments in the order in which they were sealed (WRITE-1), waits for each
//! upload, and proposes its commit; whoever waits hears what `apply` made of it. Data, then commit,
//! then visible, then acknowledged: never another order.
//!
//! Uploads run in parallel, commits follow the order of sealing, so what one connection sent stays
//! in its order. A segment that can't be uploaded fails its own batches, not the next ones; it may
//! stand in the store all the same, and is then an orphan.
//!
//! What is so small that an object would cost more than a longer entry travels in the entry of its
//! commit: no upload, one write.
//!
//! What is so much that its runs would make the entry long leaves them to the footer of the
//! segment: an entry is paid for by the kilobyte, and says no more than which footer it is.
//!
//! Objects are put as the batches came. Compressing them takes more of a processor than all else on
//! the path, and they are rewritten soon: merging compresses, off the path and in longer blocks.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicPartition};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::command::{FooterRef, Rejection, Run};
use crate::machine::Machine;
use crate::names::{Names, Task};
use crate::object::{ObjectStore, Put};
use crate::offload::off_the_workers;
use crate::port::PortError;
use crate::reader::Blocks;
use crate::segment::SegmentId;
use crate::segment::builder::{PendingBatch, SealedSegment, SegmentBuilder};

mod collector;
mod committer;

/// How the writer behaves.
#[derive(Clone, Debug)]
pub struct WriterConfig {
    /// A segment is sealed when it holds this many bytes of batches.
    pub segment_bytes_max: usize,
    /// A segment is sealed at the latest this long after its first batch came.
    pub linger_max: Duration,
    /// Puts a second that may be spent on sealing earlier than that; `None` where puts are free.
    pub puts_per_second: Option<u32>,
    /// How many segments may be sealed and not committed yet.
    pub uploads_inflight_max: usize,
    /// How many appends may wait to be collected.
    pub queue_max: usize,
    /// Level at which batches that came uncompressed are compressed when they travel in the log, or
    /// none: where an entry costs by the byte.
    pub inline_zstd_level: Option<i32>,
    /// How often a put is tried, and how long each try may take.
    pub put_attempts_max: u32,
    /// See `put_attempts_max`.
    pub put_attempt_max: Duration,
    /// Runs of more bytes than this are left to the footer of the segment, and the commit names
    /// that; `None` if they never are.
    pub footer_bytes_min: Option<u32>,
    /// Runs of one segment that are not left to it are committed in pieces of this many bytes.
    pub commit_bytes_max: usize,
    /// Up to this many bytes of batches travel in the log entry of their commit, in place of an
    /// object of their own; 0 for none.
    pub inline_bytes_max: usize,
    /// None do while the state holds this many bytes of such batches: merging is behind.
    pub inline_bytes_held_max: u64,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            segment_bytes_max: 8 * 1024 * 1024,
            linger_max: Duration::from_millis(250),
            puts_per_second: None,
            uploads_inflight_max: 8,
            queue_max: 1024,
            inline_zstd_level: None,
            put_attempts_max: 3,
            put_attempt_max: Duration::from_secs(5),
            footer_bytes_min: Some(FooterRef::LEFT_BYTES_MIN),
            commit_bytes_max: 96 * 1024,
            inline_bytes_max: 0,
            inline_bytes_held_max: 16 * 1024 * 1024,
        }
    }
}

/// Pause before the third attempt of a put, and so much longer before each further one.
const PUT_PAUSE: Duration = Duration::from_millis(500);

/// A handle on the writer. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Request>,
    wakes: Wakes,
}

/// How often the process was found to have been asleep. What was begun before the last time is not
/// gone on with.
#[derive(Clone, Debug, Default)]
struct Wakes(Arc<AtomicU64>);

impl Wakes {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

enum Request {
    Append(Waiter, Vec<(TopicPartition, PendingBatch)>),
    Stop(oneshot::Sender<()>),
}

/// Somebody who waits for batches to be acknowledged.
type Waiter = oneshot::Sender<Vec<Result<Appended, AppendError>>>;

/// A batch that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record; of the first time, if it was sent twice.
    pub base_offset: Offset,
    /// The oldest offset that can be read.
    pub log_start: Offset,
}

/// A batch of which that can't be said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The state turned it away.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The store or the log failed; it is certainly not in the log.
    #[error("not stored: {0}")]
    NotStored(String),
    /// It may be in the log, or may yet be.
    #[error("outcome unknown")]
    Unknown,
    /// The broker is stopping.
    #[error("stopping")]
    Stopped,
}

/// Batches on their way: resolves to one answer each, in order.
#[derive(Debug)]
pub struct Appending {
    reply: oneshot::Receiver<Vec<Result<Appended, AppendError>>>,
    batches: usize,
}

impl Future for Appending {
    type Output = Vec<Result<Appended, AppendError>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let batches = self.batches;
        Pin::new(&mut self.reply)
            .poll(cx)
            .map(|reply| reply.unwrap_or_else(|_| vec![Err(AppendError::Unknown); batches]))
    }
}

impl Writer {
    /// Starts the two tasks.
    pub fn start(
        machine: Machine,
        objects: Arc<dyn ObjectStore>,
        blocks: Blocks,
        config: WriterConfig,
    ) -> Self {
        let (queue, requests) = mpsc::channel(config.queue_max);
        let (sealed, uploads) = mpsc::channel(config.uploads_inflight_max);
        let names = Names::new(machine.clone(), Task::WRITING);
        let uploading = Arc::new(Uploading::default());
        let wakes = Wakes::default();
        let upload =
            Upload { objects, blocks, config: config.clone(), uploading, wakes: wakes.clone() };
        let committer = committer::Committer::new(config, machine.clone(), uploads, wakes.clone());
        let committer = tokio::spawn(committer.run());
        let collector =
            collector::Collector::new(machine, upload, names, requests, sealed, committer);
        tokio::spawn(collector.run());
        Self { queue, wakes }
    }

    /// Fails what is not proposed yet: whoever waits for it hears that it certainly is not in the
    /// log.
    pub(crate) fn forget(&self) {
        self.wakes.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Queues batches. What is queued first is committed first.
    ///
    /// Waits while the queue is full, which is what slows a producer down that is too quick.
    pub async fn append(
        &self,
        batches: Vec<(TopicPartition, PendingBatch)>,
    ) -> Result<Appending, AppendError> {
        let (reply, acknowledged) = oneshot::channel();
        let count = batches.len();
        if count == 0 {
            // Nothing to wait for: no segment will ever carry the answer.
            reply.send(Vec::new()).unwrap_or(());
            return Ok(Appending { reply: acknowledged, batches: count });
        }
        let request = Request::Append(reply, batches);
        self.queue.send(request).await.map_err(|_| AppendError::Stopped)?;
        Ok(Appending { reply: acknowledged, batches: count })
    }

    /// Commits what was queued and takes no more.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.queue.send(Request::Stop(done)).await.is_ok() {
            // An error means that the tasks are gone, which is what was asked for.
            drop(stopped.await);
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// How many segments are on their way: to the store, or without one to the log.
#[derive(Debug, Default)]
struct Uploading {
    count: AtomicUsize,
    done: Notify,
}

/// One of them.
#[derive(Debug)]
struct UnderWay(Arc<Uploading>);

impl UnderWay {
    fn new(uploading: &Arc<Uploading>) -> Self {
        uploading.count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(uploading))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        self.0.done.notify_one();
    }
}

/// A segment on its way to the store, and who waits for it.
struct Flush {
    id: SegmentId,
    /// How often the process had been asleep when the first batch came.
    wakes: u64,
    /// Whether it travels in the log.
    is_inline: bool,
    builder: SegmentBuilder,
    waiters: Vec<Waiting>,
}

/// A waiter, and where its batches went: the n-th batch of a partition in this segment.
struct Waiting {
    waiter: Waiter,
    places: Vec<(TopicPartition, usize)>,
}

/// A segment that is in the store, or needs none, or could not be put there.
struct Uploaded {
    wakes: u64,
    waiters: Vec<Waiting>,
    result: Result<Stored, AppendError>,
}

/// What there is to commit.
struct Stored {
    id: SegmentId,
    bytes: u64,
    footer: FooterRef,
    runs: Vec<Run>,
    inline: Option<Inline>,
}

/// A segment that is in no store. It is on its way until it is committed: what comes meanwhile is
/// collected, and follows in one commit.
struct Inline {
    content: Bytes,
    under_way: UnderWay,
}

/// Seals and uploads segments.
#[derive(Clone)]
struct Upload {
    objects: Arc<dyn ObjectStore>,
    blocks: Blocks,
    config: WriterConfig,
    uploading: Arc<Uploading>,
    wakes: Wakes,
}

impl Upload {
    fn start(&self, flush: Flush) -> JoinHandle<Uploaded> {
        let upload = self.clone();
        let under_way = UnderWay::new(&self.uploading);
        tokio::spawn(async move { upload.run(flush, under_way).await })
    }

    async fn run(&self, flush: Flush, under_way: UnderWay) -> Uploaded {
        let Flush { id, wakes, is_inline, builder, waiters } = flush;
        if wakes != self.wakes.count() {
            return Uploaded { wakes, waiters, result: Err(asleep()) };
        }
        let level = self.config.inline_zstd_level.filter(|_| is_inline);
        let sealed = off_the_workers(move || builder.seal(id, level)).await;
        if is_inline {
            let content = sealed.without_footer();
            let stored = self.stored(sealed, Some(Inline { content, under_way }));
            return Uploaded { wakes, waiters, result: Ok(stored) };
        }
        let result = self.put(&sealed).await.map(|()| self.stored(sealed, None));
        Uploaded { wakes, waiters, result }
    }

    /// The content goes into the cache before the commit: it can be found there only through the
    /// state, which does not know of it yet.
    fn stored(&self, sealed: SealedSegment, inline: Option<Inline>) -> Stored {
        let SealedSegment { id, bytes, footer, blocks } = sealed;
        let bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut runs = Vec::with_capacity(blocks.len());
        for block in blocks {
            self.blocks.insert(id, block.run.position, block.content);
            runs.push(block.run);
        }
        Stored { id, bytes, footer, runs, inline }
    }

    /// SUBTLE: the same bytes go to the same name on each try, and no one else has that name, so
    /// `Exists` after an attempt without an answer is that attempt's success. `Exists` on the first
    /// attempt is a name used twice: somebody runs with our random numbers, and nothing of theirs
    /// may be committed as ours.
    async fn put(&self, sealed: &SealedSegment) -> Result<(), AppendError> {
        let key = sealed.id.key();
        let mut unanswered = false;
        let mut failure = String::new();
        for number in 0..self.config.put_attempts_max {
            // At once the first time: most failures are of one connection.
            sleep(PUT_PAUSE * number.saturating_sub(1)).await;
            let attempt = self.objects.put_if_absent(&key, sealed.bytes.clone());
            match timeout(self.config.put_attempt_max, attempt).await {
                Ok(Ok(Put::Created)) => return Ok(()),
                Ok(Ok(Put::Exists)) if unanswered => return Ok(()),
                Ok(Ok(Put::Exists)) => {
                    tracing::error!(%key, "a segment's name is taken: is this machine a clone?");
                    return Err(AppendError::NotStored("segment name taken".to_owned()));
                }
                Ok(Err(error @ PortError::Determinate(_))) => {
                    tracing::warn!(%key, %error, "segment not stored");
                    return Err(AppendError::NotStored(error.to_string()));
                }
                Ok(Err(error)) => failure = error.to_string(),
                Err(_) => failure = "the object store takes too long".to_owned(),
            }
            unanswered = true;
            tracing::debug!(%key, failure, "segment upload unanswered");
        }
        tracing::warn!(%key, failure, "segment not stored");
        Err(AppendError::NotStored(failure))
    }
}

fn asleep() -> AppendError {
    AppendError::NotStored("the broker was asleep".to_owned())
}
