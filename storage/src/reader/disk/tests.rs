//! What the disk gives back is what was put there, or nothing.

use std::fs::OpenOptions;
use std::path::Path;

use odradek_protocol::id::{TopicId, TopicPartition};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::command::{BatchSummary, Incarnation};
use crate::disk::failing::{FailingDisk, Fault};
use crate::lsn::Lsn;
use crate::object::memory::MemoryObjectStore;
use crate::object::{ObjectStore, Put};
use crate::peer::blocks::BlockAddress;
use crate::reader::{Blocks, ReaderConfig};
use crate::segment::SegmentId;
use crate::segment::builder::{PendingBatch, SegmentBuilder};

/// Slabs of 64 KiB.
const BYTES_MAX: u64 = 1024 * 1024;

/// Of a block's content.
const BLOCK_BYTES: usize = 20_000;

impl DiskCache {
    /// Waits until all is written that was put, and all is known that was found.
    pub(in crate::reader) fn settle(&self) {
        let Inner { shelf, queue, .. } = &*self.inner;
        shelf.queued.fetch_add(1, Ordering::Relaxed);
        queue.send(Parcel { length: 1, blocks: Vec::new() }).unwrap();
        while shelf.queued.load(Ordering::Relaxed) > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Segment {
    object: Bytes,
    blocks: Vec<Wanted>,
    contents: Vec<Bytes>,
}

/// A segment with so many blocks of a partition each, which look random.
fn segment(counter: u64, blocks: i32) -> Segment {
    let id = SegmentId { began: Lsn::FIRST, incarnation: Incarnation(7), counter };
    let mut builder = SegmentBuilder::default();
    let mut state = counter + 1;
    for partition in 0..blocks {
        let noise = (0..BLOCK_BYTES).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        let bytes: Bytes = noise.collect::<Vec<u8>>().into();
        let length = u32::try_from(bytes.len()).unwrap();
        let summary = BatchSummary { bytes: length, records: 1, max_timestamp: 0, producer: None };
        let partition = TopicPartition { topic: TopicId(Uuid::from_u128(5)), partition };
        builder.push(partition, PendingBatch { bytes, summary, compressed: false });
    }
    let sealed = builder.seal(id, None);
    let wanted = |run: &crate::command::Run| {
        Wanted::from(BlockAddress {
            segment: id,
            segment_bytes: u64::try_from(sealed.bytes.len()).unwrap(),
            position: run.position,
            stored_bytes: run.stored_bytes,
            owner: run.partition,
        })
    };
    let blocks = sealed.blocks.iter().map(|block| wanted(&block.run)).collect();
    let contents = sealed.blocks.iter().map(|block| block.content.clone()).collect();
    Segment { object: sealed.bytes, blocks, contents }
}

impl Segment {
    fn put_to(&self, cache: &DiskCache) {
        cache.put(&self.blocks, 0, &self.object, false);
        cache.settle();
    }

    /// How many of its blocks are given back; those that are, are right.
    async fn given_by(&self, cache: &DiskCache) -> usize {
        let given = cache.read(&self.blocks).await;
        for (block, content) in self.blocks.iter().zip(&self.contents) {
            if let Some(read) = given.get(&block.key) {
                assert_eq!(read.as_ref(), Ok(content));
            }
        }
        given.len()
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open_on(folder: &TempDir, bytes_max: u64, disk: Arc<dyn Disk>) -> DiskCache {
    let config = DiskCacheConfig { folder: folder.path().to_owned(), bytes_max };
    loop {
        match DiskCache::open_on(config.clone(), Arc::clone(&disk)) {
            // The thread of the one before is about to end.
            Err(DiskCacheError::Locked(_)) => thread::sleep(Duration::from_millis(1)),
            opened => {
                let cache = opened.unwrap();
                cache.settle();
                return cache;
            }
        }
    }
}

fn open(folder: &TempDir) -> DiskCache {
    open_on(folder, BYTES_MAX, Arc::new(RealDisk))
}

/// The slabs in a folder, and the length of all of them.
fn slabs(folder: &TempDir) -> (Vec<PathBuf>, u64) {
    let numbers = slab::list(folder.path()).unwrap();
    let paths: Vec<_> = numbers.iter().map(|it| folder.path().join(slab::name(*it))).collect();
    let bytes = paths.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    (paths, bytes)
}

fn file(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[tokio::test]
async fn a_block_is_given_back_to_who_asks_for_it_and_to_nobody_else() {
    let folder = folder();
    let cache = open(&folder);
    let (one, other) = (segment(1, 3), segment(2, 3));
    assert_eq!(one.given_by(&cache).await, 0);
    one.put_to(&cache);
    assert_eq!((one.given_by(&cache).await, other.given_by(&cache).await), (3, 0));
    let counts = cache.counts();
    assert_eq!((counts.hits.get(), counts.misses.get()), (3, 6));
    assert_eq!(counts.bytes_read.get(), counts.bytes_written.get());
    // Once there, it is not written again.
    one.put_to(&cache);
    assert_eq!(counts.bytes_read.get(), counts.bytes_written.get());
    // Parts of a range, as those cut it that hold on to little.
    let from = usize::try_from(other.blocks[1].key.position).unwrap();
    let start = other.blocks[1].key.position;
    cache.put(&other.blocks[1..2], start, &other.object.slice(from..), true);
    cache.settle();
    assert_eq!(other.given_by(&cache).await, 1);
    // Of another partition, or of another length.
    let mut foreign = one.blocks.clone();
    foreign[0].owner.partition = 77;
    foreign[1].stored_bytes -= 1;
    let given = cache.read(&foreign).await;
    assert_eq!(given.keys().collect::<Vec<_>>(), [&one.blocks[2].key]);
    assert_eq!(counts.damaged.get(), 1);
}

#[tokio::test]
async fn a_damaged_block_is_a_miss_and_is_kept_anew() {
    let folder = folder();
    let segment = segment(1, 1);
    segment.put_to(&open(&folder));
    let path = slabs(&folder).0.remove(0);
    let whole = fs::read(&path).unwrap();
    let mut cache = open(&folder);
    // Everything in the header of the block, and something in all of the rest.
    for at in (48..84).chain((84..whole.len()).step_by(977)) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, &damaged).unwrap();
        assert_eq!(segment.given_by(&cache).await, 0, "byte {at}");
        assert_eq!(cache.counts().damaged.get(), 1);
        fs::write(&path, &whole).unwrap();
        drop(cache);
        cache = open(&folder);
        assert_eq!(segment.given_by(&cache).await, 1);
    }
    file(&path).write_all_at(&[0; 100], 60).unwrap();
    assert_eq!(segment.given_by(&cache).await, 0);
    segment.put_to(&cache);
    assert_eq!(segment.given_by(&cache).await, 1);
}

#[tokio::test]
async fn what_is_cut_off_or_gone_or_another_block_is_a_miss() {
    let folder = folder();
    let cache = open(&folder);
    let segments = [segment(1, 3), segment(2, 3), segment(3, 3)];
    segments.iter().for_each(|segment| segment.put_to(&cache));
    let (paths, _) = slabs(&folder);
    assert_eq!(paths.len(), 3);
    // Two of its three blocks are left, and a part of the third.
    file(&paths[0]).set_len(48 + 2 * 20_076 + 5000).unwrap();
    assert_eq!(segments[0].given_by(&cache).await, 2);
    // The blocks of another segment, in the same places.
    fs::copy(&paths[2], &paths[1]).unwrap();
    assert_eq!(segments[1].given_by(&cache).await, 0);
    fs::remove_file(&paths[2]).unwrap();
    assert_eq!(segments[2].given_by(&cache).await, 0);
    let counts = cache.counts();
    assert_eq!((counts.damaged.get(), counts.read_errors.get()), (4, 3));
    // They are asked for no more.
    assert_eq!(segments[1].given_by(&cache).await, 0);
    assert_eq!(counts.damaged.get(), 4);
}

#[tokio::test]
async fn after_a_restart_everything_is_there_that_is_whole() {
    let folder = folder();
    let segments: Vec<_> = (0..5).map(|counter| segment(counter, 3)).collect();
    let cache = open(&folder);
    segments.iter().for_each(|segment| segment.put_to(&cache));
    drop(cache);
    let cache = open(&folder);
    for segment in &segments {
        assert_eq!(segment.given_by(&cache).await, 3);
    }
    let more = segment(9, 3);
    more.put_to(&cache);
    drop(cache);
    let (paths, _) = slabs(&folder);
    assert_eq!(paths.len(), 6);
    // A block that was cut, a header that was, one that is none, a slab of nothing, and a file of
    // somebody else.
    file(&paths[0]).set_len(48 + 20_076 + 5000).unwrap();
    file(&paths[1]).set_len(48 + 20_036 + 20).unwrap();
    file(&paths[2]).write_all_at(&[1], 8 + 20_076 + 3).unwrap();
    file(&paths[3]).set_len(0).unwrap();
    fs::write(folder.path().join("notes.txt"), "somebody's").unwrap();
    let cache = open(&folder);
    let mut given = Vec::new();
    for segment in segments.iter().chain([&more]) {
        given.push(segment.given_by(&cache).await);
    }
    assert_eq!(given, [1, 1, 1, 0, 3, 3]);
    assert_eq!(cache.counts().damaged.get(), 0);
    assert!(folder.path().join("notes.txt").exists());
    // Nothing is written over what is there.
    segments[0].put_to(&cache);
    assert_eq!(segments[0].given_by(&cache).await, 3);
    assert_eq!(segments[4].given_by(&cache).await, 3);
}

#[tokio::test]
async fn there_is_never_more_than_there_may_be_and_the_oldest_goes_first() {
    let folder = folder();
    let cache = open(&folder);
    let segments: Vec<_> = (0..60).map(|counter| segment(counter, 3)).collect();
    for segment in &segments {
        segment.put_to(&cache);
        let (_, bytes) = slabs(&folder);
        assert!(bytes <= cache.counts().held_bytes.get(), "{bytes}");
        assert!(cache.counts().held_bytes.get() <= BYTES_MAX);
        assert_eq!(segment.given_by(&cache).await, 3);
    }
    let mut given = Vec::new();
    for segment in &segments {
        given.push(segment.given_by(&cache).await);
    }
    let (gone, kept) = given.split_at(43);
    assert_eq!((gone, kept), (&[0; 43][..], &[3; 17][..]));
    drop(cache);
    // With less room the youngest stay.
    let cache = open_on(&folder, BYTES_MAX / 2, Arc::new(RealDisk));
    assert!(slabs(&folder).1 <= BYTES_MAX / 2);
    assert_eq!((segments[59].given_by(&cache).await, segments[46].given_by(&cache).await), (3, 0));
    // A block that is longer than a slab is none for this cache.
    drop(cache);
    let cache = open_on(&folder, 16 * 20_000, Arc::new(RealDisk));
    let long = segment(99, 1);
    long.put_to(&cache);
    assert_eq!((long.given_by(&cache).await, cache.counts().skipped.get()), (0, 1));
}

#[tokio::test]
async fn short_blocks_are_counted_as_if_they_were_longer() {
    let mut index = Index::default();
    index.begin(0);
    let key = |position| BlockKey::of(segment(1, 1).blocks[0].key.segment, position);
    for position in 0..4_u32 {
        index.add(key(position.into()), Place { slab: 0, at: 8 + position * 100, bytes: 60 });
    }
    assert_eq!(index.weight(), 8 + 4 * 16 * 1024);
    assert_eq!(index.empty_oldest(), Some(0));
    assert_eq!((index.get(&key(1)), index.weight()), (None, 8 + 4 * 16 * 1024));
    index.end_oldest();
    assert_eq!((index.weight(), index.empty_oldest()), (0, None));
}

#[tokio::test]
async fn on_a_full_disk_the_oldest_goes_and_what_comes_next_is_kept() {
    let folder = folder();
    let disk = FailingDisk::default();
    let cache = open_on(&folder, BYTES_MAX, Arc::new(disk.clone()));
    let segments: Vec<_> = (0..6).map(|counter| segment(counter, 3)).collect();
    segments[..3].iter().for_each(|segment| segment.put_to(&cache));
    for (at, fault) in [(3, Fault::Full), (4, Fault::ShortWrite)] {
        disk.fail_next(fault);
        segments[at].put_to(&cache);
        assert!(disk.has_failed());
    }
    segments[5].put_to(&cache);
    let mut given = Vec::new();
    for segment in &segments {
        given.push(segment.given_by(&cache).await);
    }
    assert_eq!(given, [0, 0, 3, 2, 2, 3]);
    assert_eq!((cache.counts().write_errors.get(), cache.counts().damaged.get()), (2, 0));
    drop(cache);
    let cache = open(&folder);
    assert_eq!(segments[5].given_by(&cache).await, 3);
    assert!(slabs(&folder).1 <= cache.counts().held_bytes.get());
}

#[tokio::test]
async fn a_folder_is_one_process_s_alone() {
    let folder = folder();
    let cache = open(&folder);
    let config = DiskCacheConfig { folder: folder.path().to_owned(), bytes_max: BYTES_MAX };
    let error = DiskCache::open(config).await.unwrap_err().to_string();
    assert_eq!(
        error,
        format!("disk cache {} is in use by another process", folder.path().display())
    );
    drop(cache);
    open(&folder);
}

#[tokio::test]
async fn a_folder_that_can_not_be_one_is_refused_by_name() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let config = DiskCacheConfig { folder: file.join("cache"), bytes_max: BYTES_MAX };
    let error = DiskCache::open(config).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("disk cache {}/cache: ", file.display())), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_on_disk_of_a_range_is_read_from_the_store() {
    for (lane, gather) in [(Lane::CatchUp, Duration::ZERO), (Lane::Tail, Duration::from_millis(3))]
    {
        let folder = folder();
        let cache = open(&folder);
        let mut segment = segment(1, 3);
        for block in &mut segment.blocks {
            (block.lane, block.may_be_packed) = (lane, true);
        }
        cache.put(&segment.blocks[1..2], 0, &segment.object, false);
        cache.settle();
        let config = || ReaderConfig {
            cache_bytes_max: 4096,
            gather,
            disk: Some(cache.clone()),
            ..ReaderConfig::default()
        };
        let (store, empty) = (MemoryObjectStore::default(), MemoryObjectStore::default());
        let key = segment.blocks[0].key.segment.key();
        assert_eq!(store.put_if_absent(&key, segment.object.clone()).await.unwrap(), Put::Created);
        for (store, hits, misses) in [(store, 1, 2), (empty, 4, 2)] {
            let read = Blocks::new(Arc::new(store), config()).load(segment.blocks.clone()).await;
            cache.settle();
            let contents: Vec<_> = read.into_values().map(Result::unwrap).collect();
            assert_eq!(contents, segment.contents);
            assert_eq!((cache.counts().hits.get(), cache.counts().misses.get()), (hits, misses));
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_answer_is_a_miss() {
    use rustix::fs::{CWD, Mode, mkfifoat};

    let folder = folder();
    let cache = open(&folder);
    let segment = segment(1, 3);
    segment.put_to(&cache);
    // Who opens a pipe to read it waits for somebody who writes.
    let path = slabs(&folder).0.remove(0);
    fs::remove_file(&path).unwrap();
    // No program makes it: until one has begun it holds whatever else is locked in this process.
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    assert_eq!(segment.given_by(&cache).await, 0);
    assert_eq!((cache.counts().slow.get(), cache.counts().read_errors.get()), (1, 0));
    assert!(cache.rests_until().is_some(), "it would be waited for again");
    drop(OpenOptions::new().write(true).open(&path).unwrap());
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_for_a_turn_does_not_take_the_disk_for_slow() {
    let folder = folder();
    let cache = open(&folder);
    let segment = segment(1, 3);
    segment.put_to(&cache);
    let turns = u32::try_from(TAIL_READS_MAX).unwrap();
    let all = Arc::clone(&cache.inner.tail).acquire_many_owned(turns).await.unwrap();
    assert_eq!(segment.given_by(&cache).await, 0);
    assert_eq!((cache.counts().slow.get(), cache.counts().misses.get()), (0, 3));
    drop(all);
    assert_eq!(segment.given_by(&cache).await, 3);
}

#[tokio::test]
async fn what_waits_to_be_written_is_bounded() {
    let folder = folder();
    let cache = open(&folder);
    let segment = segment(1, 3);
    cache.inner.shelf.queued.fetch_add(QUEUE_BYTES_MAX, Ordering::Relaxed);
    cache.put(&segment.blocks, 0, &segment.object, false);
    assert_eq!(cache.counts().skipped.get(), 3);
    cache.inner.shelf.queued.fetch_sub(QUEUE_BYTES_MAX, Ordering::Relaxed);
    segment.put_to(&cache);
    assert_eq!(segment.given_by(&cache).await, 3);
}

#[tokio::test]
async fn a_record_looks_as_it_always_did() {
    let segment = SegmentId {
        began: Lsn::new(7),
        incarnation: Incarnation(0x0102_0304_0506_0708),
        counter: 9,
    };
    let header = slab::record_header(&BlockKey::of(segment, 32), 0x0a0b);
    let text: String = header.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        text,
        "000000000000000701020304050607080000000000000009000000000000002000000a0bf510b5fc"
    );
    assert_eq!(slab::SLAB_HEADER, [0x4f, 0x44, 0x44, 0x43, 0, 1, 0, 0]);
}
