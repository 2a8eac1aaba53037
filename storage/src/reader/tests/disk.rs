//! What was read once is on disk, and is read from the store again only if it is not right there.

use std::fs;

use tempfile::TempDir;

use super::lanes::{Archive, BATCH_BYTES, EXTENTS};
use super::*;
use crate::reader::{DiskCache, DiskCacheConfig};

/// Up to where is read: far behind the end.
const END: i64 = EXTENTS - 8;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn config(disk: &DiskCache) -> ReaderConfig {
    ReaderConfig { cache_bytes_max: 4096, disk: Some(disk.clone()), ..ReaderConfig::default() }
}

/// An archive whose reader has a cache in a folder, and next to no memory.
async fn archive(folder: &TempDir) -> (Archive, DiskCache) {
    let cache = DiskCacheConfig { folder: folder.path().to_owned(), bytes_max: 64 << 20 };
    let disk = DiskCache::open(cache).await.unwrap();
    (Archive::new(config(&disk)).await, disk)
}

/// Reads everything up to [`END`], and says how many ranges were read from the store for it.
async fn reads(archive: &Archive, disk: &DiskCache) -> i64 {
    archive.store.gets();
    archive.read_through(0, END).await;
    disk.settle();
    i64::try_from(archive.store.gets().len()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_was_read_is_read_from_disk_after_that() {
    let folder = folder();
    let (mut archive, disk) = archive(&folder).await;
    assert_eq!(reads(&archive, &disk).await, END);
    assert_eq!(reads(&archive, &disk).await, 0);
    // By another reader as well, and when the store gives nothing.
    let (machine, store) = (archive.shelf.machine.clone(), Arc::new(archive.store.clone()));
    archive.reader = Reader::new(machine, store, Arc::new(NoPeers), config(&disk));
    archive.store.lose_everything();
    assert_eq!(reads(&archive, &disk).await, 0);
    assert_eq!(disk.counts().hits.get(), 2 * END.unsigned_abs());
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_on_disk_is_read_from_the_store() {
    let folder = folder();
    let (archive, disk) = archive(&folder).await;
    assert_eq!(reads(&archive, &disk).await, END);
    for item in fs::read_dir(folder.path()).unwrap() {
        let path = item.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().step_by(BATCH_BYTES / 2).for_each(|byte| *byte ^= 4);
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(reads(&archive, &disk).await, END);
    assert_eq!(disk.counts().damaged.get(), END.unsigned_abs());
    assert_eq!(reads(&archive, &disk).await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_read_at_the_tail_before_it_is_merged_is_not_kept() {
    let folder = folder();
    let (archive, disk) = archive(&folder).await;
    assert_eq!(archive.fetch(END, 8).await, 8);
    disk.settle();
    assert_eq!(disk.counts().bytes_written.get(), 0);
    assert_eq!(reads(&archive, &disk).await, END);
    assert!(disk.counts().bytes_written.get() > 0);
}
