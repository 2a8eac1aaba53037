//! Who catches up is given things before it asks for them, and is in nobody's way.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::*;
use crate::object::{ObjectKey, ObjectMeta};
use crate::port::PortError;

/// Bytes of a batch here, of which each has an extent of its own.
pub(super) const BATCH_BYTES: usize = 64 * 1024;

pub(super) const EXTENTS: i64 = 128;

/// How long the store takes for everything.
const FAR: Duration = Duration::from_millis(30);

/// A store that is far away, and some objects that it never gives.
#[derive(Clone, Debug, Default)]
pub(super) struct FarStore {
    objects: MemoryObjectStore,
    gets: Arc<Mutex<Vec<ObjectKey>>>,
    lost: Arc<Mutex<BTreeSet<ObjectKey>>>,
}

impl FarStore {
    /// What was asked for since this was last called.
    pub(super) fn gets(&self) -> Vec<ObjectKey> {
        std::mem::take(&mut *self.gets.lock().unwrap())
    }

    /// Never gives anything from now on.
    pub(super) fn lose_everything(&self) {
        self.lost.lock().unwrap().extend((0..EXTENTS).map(Archive::segment));
    }
}

#[async_trait]
impl ObjectStore for FarStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: Bytes) -> Result<Put, PortError> {
        self.objects.put_if_absent(key, bytes).await
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, PortError> {
        self.gets.lock().unwrap().push(key.clone());
        let is_lost = self.lost.lock().unwrap().contains(key);
        sleep(if is_lost { Duration::MAX } else { FAR }).await;
        self.objects.get_range(key, range).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: NonZeroUsize,
    ) -> Result<Vec<ObjectMeta>, PortError> {
        self.objects.list(prefix, after, limit).await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), PortError> {
        self.objects.delete(keys).await
    }
}

/// A shelf with [`EXTENTS`] batches of a record each, and a reader that is far away from it.
pub(super) struct Archive {
    pub(super) shelf: Shelf,
    pub(super) store: FarStore,
    pub(super) reader: Reader,
}

impl Archive {
    pub(super) async fn new(config: ReaderConfig) -> Self {
        let mut shelf = Shelf::new().await;
        for _ in 0..EXTENTS {
            let mut large = batch(0, &[1]).to_vec();
            large.resize(BATCH_BYTES, 0);
            let length = u32::try_from(BATCH_BYTES - 12).unwrap();
            large[8..12].copy_from_slice(&length.to_be_bytes());
            shelf.add(&[large.into()]).await;
        }
        let objects = MemoryObjectStore::clone(&shelf.objects);
        let store = FarStore { objects, ..FarStore::default() };
        let reader =
            Reader::new(shelf.machine.clone(), Arc::new(store.clone()), Arc::new(NoPeers), config);
        Self { shelf, store, reader }
    }

    pub(super) fn segment(offset: i64) -> ObjectKey {
        let counter = u64::try_from(offset).unwrap() + 1;
        SegmentId { began: Lsn::FIRST, incarnation: Incarnation(1), counter }.key()
    }

    /// Fetches about so many batches, and says how many came.
    pub(super) async fn fetch(&self, offset: i64, batches: usize) -> i64 {
        let bytes_max = batches * BATCH_BYTES;
        let target = FetchTarget { partition: ORDERS, offset: Offset(offset), bytes_max };
        let plan = self.reader.plan(&[target], bytes_max, Isolation::ReadUncommitted);
        let fetched = self.reader.fetch(plan).await.remove(0).unwrap();
        i64::try_from(batches_of(&fetched).len()).unwrap()
    }

    /// Reads on up to `end` and says how often the store was waited for.
    pub(super) async fn read_through(&self, from: i64, end: i64) -> usize {
        let (mut offset, mut waits) = (from, 0);
        while offset < end {
            let asked = Instant::now();
            offset += self.fetch(offset, 4).await;
            waits += usize::from(Instant::now() > asked);
        }
        waits
    }
}

/// What takes milliseconds of computing is not done on the thread that serves others.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_large_block_is_unpacked_where_nobody_waits_for_it() {
    const BYTES: usize = 64 * 1024 * 1024;
    let mut shelf = Shelf::new().await;
    let mut large = batch(0, &[1]).to_vec();
    large.resize(BYTES, 0);
    large[8..12].copy_from_slice(&u32::try_from(BYTES - 12).unwrap().to_be_bytes());
    shelf.add(&[large.into()]).await;
    let objects = Arc::<MemoryObjectStore>::clone(&shelf.objects);
    let reader =
        Reader::new(shelf.machine.clone(), objects, Arc::new(NoPeers), ReaderConfig::default());
    let target = FetchTarget { partition: ORDERS, offset: Offset(0), bytes_max: BYTES };
    let plan = reader.plan(&[target], BYTES, Isolation::ReadUncommitted);
    // Nobody but this test can do anything, until it says so.
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let (begin, began) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        begin.send(()).unwrap();
        assert!(wait.recv().is_err(), "nothing is sent");
    });
    began.await.unwrap();
    let mut fetching = Box::pin(reader.fetch(plan));
    assert!(futures::poll!(&mut fetching).is_pending(), "unpacked by whoever asked for it");
    drop(go_on);
    assert_eq!(batches_of(&fetching.await.remove(0).unwrap()).len(), 1);
}

fn large() -> ReaderConfig {
    ReaderConfig { cache_bytes_max: 64 * 1024 * 1024, ..ReaderConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn who_reads_on_seldom_waits_for_the_store_and_reads_everything_once() {
    let archive = Archive::new(large()).await;
    let waits = archive.read_through(0, EXTENTS).await;
    // Sixteen are read at once: eight times would be all that the store needs.
    assert!(waits <= 12, "{waits} of {} fetches waited", EXTENTS / 4);
    let gets = archive.store.gets();
    let segments: BTreeSet<&ObjectKey> = gets.iter().collect();
    assert_eq!((gets.len(), segments.len()), (128, 128));
}

#[tokio::test(start_paused = true)]
async fn who_has_little_room_has_as_much_on_its_way_as_there_is_room_for() {
    // For three batches ahead.
    let bytes = u64::try_from(16 * BATCH_BYTES).unwrap();
    let archive = Archive::new(ReaderConfig { cache_bytes_max: bytes, ..large() }).await;
    for offset in 0..EXTENTS - 4 {
        assert_eq!(archive.fetch(offset, 1).await, 1);
        sleep(FAR).await;
        let gets = archive.store.gets();
        assert!(offset < 2 || gets == [Archive::segment(offset + 3)], "{offset}: {gets:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_here_and_there_is_given_nothing_ahead() {
    let archive = Archive::new(large()).await;
    for offset in (0..EXTENTS - 8).rev().step_by(8) {
        assert_eq!(archive.fetch(offset, 4).await, 4);
        let expected: Vec<_> = (offset..offset + 4).map(Archive::segment).collect();
        let gets: BTreeSet<_> = archive.store.gets().into_iter().collect();
        assert_eq!(gets, expected.into_iter().collect());
    }
}

#[tokio::test(start_paused = true)]
async fn however_much_is_read_from_long_ago_the_tail_stays_in_memory() {
    let bytes = u64::try_from(32 * BATCH_BYTES).unwrap();
    let archive = Archive::new(ReaderConfig { cache_bytes_max: bytes, ..large() }).await;
    let tail = EXTENTS - 16;
    assert_eq!(archive.fetch(tail, 16).await, 16);
    assert_eq!(archive.store.gets().len(), 16);
    archive.read_through(0, EXTENTS).await;
    archive.store.gets();
    assert_eq!(archive.fetch(tail, 16).await, 16);
    assert_eq!(archive.store.gets(), []);
    // What was read from long ago is no longer there.
    assert_eq!(archive.fetch(0, 1).await, 1);
    assert_eq!(archive.store.gets(), [Archive::segment(0)]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_what_is_far_away_keeps_nobody_at_the_tail_waiting() {
    let config = ReaderConfig {
        gets_inflight_max: 1,
        catch_up_gets_inflight_max: 1,
        get_attempt_max: Duration::MAX,
        ..large()
    };
    let archive = Arc::new(Archive::new(config).await);
    archive.store.lost.lock().unwrap().insert(Archive::segment(0));
    let behind = Arc::clone(&archive);
    let waits = tokio::spawn(async move { behind.fetch(0, 1).await });
    sleep(FAR).await;
    assert_eq!(archive.fetch(EXTENTS - 1, 1).await, 1);
    assert!(!waits.is_finished());
    // It does not answer with what it has not got, and others who catch up wait behind it.
    let other = Arc::clone(&archive);
    let waits_too = tokio::spawn(async move { other.fetch(9, 1).await });
    sleep(10 * FAR).await;
    assert!(!waits.is_finished() && !waits_too.is_finished());
    assert_eq!(archive.shelf.reader.watermarks(ORDERS).unwrap().high_watermark, Offset(EXTENTS));
}
