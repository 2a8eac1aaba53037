//! What a disk, a crash and a flipped bit can do to the files of a log.

use super::*;
use crate::disk::failing::{FailingDisk, Fault};
use crate::log::conformance;

/// Small enough for several chunks, large enough for a few entries in each.
const SMALL: u64 = 256;

fn entry(number: u64) -> Bytes {
    Bytes::from(format!(
        "entry {number}, {}",
        "x".repeat(usize::try_from(number * 7 % 60).unwrap())
    ))
}

async fn fill(log: &FileLog, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let won = log.append(Lsn::new(number), entry(number)).await.unwrap();
        assert_eq!(won, Append::Committed);
    }
}

/// The entries from `from` on, or the floor above it.
async fn entries(log: &FileLog, from: u64) -> Result<Vec<Bytes>, Lsn> {
    match log.read(Lsn::new(from), NonZeroUsize::MAX, Freshness::Latest).await.unwrap() {
        LogRead::Entries { slots, .. } => Ok(slots.into_iter().map(|slot| slot.bytes).collect()),
        LogRead::Trimmed(floor) => Err(floor),
    }
}

fn expected(numbers: std::ops::RangeInclusive<u64>) -> Vec<Bytes> {
    numbers.map(entry).collect()
}

fn open(folder: &Path) -> Result<FileLog, OpenError> {
    FileLog::open_with_chunks(folder, SMALL)
}

fn chunk_paths(folder: &Path) -> Vec<PathBuf> {
    chunk::names(folder).unwrap().into_iter().map(|name| chunk::path(folder, name)).collect()
}

fn refusal(folder: &Path) -> String {
    let error = open(folder).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    error.to_string()
}

/// Where the last record of a folder is: its chunk, its first byte and the byte behind it.
fn last_record(log: &FileLog) -> (PathBuf, usize, usize) {
    let state = log.inner.state();
    let (_, place) = state.index.last_key_value().unwrap();
    let at = usize::try_from(place.at).unwrap();
    (state.chunks[&place.chunk].path.clone(), at, at + place.header.record_bytes())
}

/// Opens a log of a failing disk.
fn failing(folder: &Path) -> (FileLog, FailingDisk) {
    let disk = FailingDisk::default();
    (FileLog::open_with(folder, SMALL, Box::new(disk.clone())).unwrap(), disk)
}

async fn is_broken(log: &FileLog) {
    let append = log.append(Lsn::new(99), Bytes::new()).await;
    assert!(matches!(append, Err(PortError::Broken(_))), "{append:?}");
    let read = log.read(Lsn::FIRST, NonZeroUsize::MIN, Freshness::Latest).await;
    assert!(matches!(read, Err(PortError::Broken(_))), "{read:?}");
    assert!(matches!(log.tail().await, Err(PortError::Broken(_))));
    let trim = log.trim(Lsn::FIRST).await.unwrap_err();
    assert!(trim.to_string().contains("restart"), "{trim}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn files_are_a_metadata_log_whatever_the_size_of_a_chunk() {
    for chunk_bytes in [0, SMALL, 1024 * 1024] {
        let folders = tempfile::tempdir().unwrap();
        let mut number = 0;
        let mut fresh = || {
            number += 1;
            FileLog::open_with_chunks(&folders.path().join(number.to_string()), chunk_bytes)
                .unwrap()
        };
        conformance::check_despite_faults(fresh()).await;
        conformance::check(fresh).await;
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_every_restart() {
    let folder = tempfile::tempdir().unwrap();
    for number in 1..=30 {
        let log = open(folder.path()).unwrap();
        assert_eq!(log.tail().await.unwrap(), Lsn::new(number));
        assert_eq!(entries(&log, 1).await, Ok(expected(1..=number - 1)));
        fill(&log, number..=number).await;
    }
    assert!(chunk_paths(folder.path()).len() > 5);
}

#[tokio::test]
async fn a_log_opens_once_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    let second = open(folder.path()).unwrap_err();
    assert_eq!(
        second.to_string(),
        format!("{} is in use by another process", folder.path().display())
    );
    let clone = log.clone();
    drop(log);
    assert!(matches!(open(folder.path()), Err(OpenError::Locked(_))));
    drop(clone);
    open(folder.path()).unwrap();
}

#[tokio::test]
async fn a_log_cut_off_anywhere_in_its_last_record_keeps_the_entries_before() {
    for count in [1, 3, 8] {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path()).unwrap();
        fill(&log, 1..=count).await;
        let (path, from, to) = last_record(&log);
        drop(log);
        let whole = fs::read(&path).unwrap();
        for cut in from..to {
            fs::write(&path, &whole[..cut]).unwrap();
            let log = open(folder.path()).unwrap();
            assert_eq!(entries(&log, 1).await, Ok(expected(1..=count - 1)), "cut at {cut}");
            fill(&log, count..=count + 9).await;
            drop(log);
            let log = open(folder.path()).unwrap();
            assert_eq!(entries(&log, 1).await, Ok(expected(1..=count + 9)), "cut at {cut}");
            drop(log);
            for later in chunk_paths(folder.path()).iter().filter(|later| **later > path) {
                fs::remove_file(later).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn an_append_of_which_some_sectors_did_not_reach_the_disk_is_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open_with_chunks(folder.path(), 8192).unwrap();
    fill(&log, 1..=5).await;
    // Zeros, so that only the mask tells what was written from what was not.
    let long = Bytes::from(vec![0; 3000]);
    assert_eq!(log.append(Lsn::new(6), long.clone()).await.unwrap(), Append::Committed);
    let (path, from, to) = last_record(&log);
    drop(log);
    let whole = fs::read(&path).unwrap();
    let sectors: Vec<_> = (from / 512..=(to - 1) / 512)
        .map(|sector| (sector * 512).max(from)..(sector * 512 + 512).min(to))
        .collect();
    assert!(sectors.len() > 5);
    for lost in 1..1_u32 << sectors.len() {
        let mut torn = whole.clone();
        for (bit, sector) in sectors.iter().enumerate() {
            if lost & (1 << bit) != 0 {
                torn[sector.clone()].fill(0);
            }
        }
        fs::write(&path, &torn).unwrap();
        let log = FileLog::open_with_chunks(folder.path(), 8192).unwrap();
        assert_eq!(entries(&log, 1).await, Ok(expected(1..=5)), "lost {lost:b}");
        drop(log);
        let cleared = fs::read(&path).unwrap();
        assert!(cleared[from..].iter().all(|byte| *byte == 0), "lost {lost:b}");
    }
    fs::write(&path, &whole).unwrap();
    let log = FileLog::open_with_chunks(folder.path(), 8192).unwrap();
    assert_eq!(entries(&log, 6).await, Ok(vec![long]));
}

#[tokio::test]
async fn a_flipped_bit_is_refused_or_harmless_never_a_silent_loss() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    fill(&log, 1..=4).await;
    // Entries that are almost zeros are the ones a flip could make look as if never written.
    // The long one reaches over several sectors.
    for (number, length, last) in [(5, 40, 0), (6, 1100, 1)] {
        let mut bytes = vec![0; length];
        bytes[length - 1] = last;
        assert_eq!(log.append(Lsn::new(number), bytes.into()).await.unwrap(), Append::Committed);
    }
    log.trim(Lsn::new(2)).await.unwrap();
    let before = entries(&log, 2).await;
    drop(log);
    let paths = chunk_paths(folder.path());
    assert!(paths.len() > 1);
    let (mut refused, mut harmless) = (0, 0);
    for path in paths.iter().chain([&folder.path().join("floor")]) {
        let whole = fs::read(path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(path, flipped).unwrap();
            match open(folder.path()) {
                Ok(log) => {
                    assert_eq!(entries(&log, 2).await, before, "bit {bit} of {path:?}");
                    assert_eq!(entries(&log, 1).await, Err(Lsn::new(2)), "bit {bit} of {path:?}");
                    assert_eq!(log.tail().await.unwrap(), Lsn::new(7), "bit {bit} of {path:?}");
                    harmless += 1;
                }
                Err(error) => {
                    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
                    refused += 1;
                }
            }
            fs::write(path, &whole).unwrap();
        }
    }
    assert!(refused > 0 && harmless > 0, "{refused} refused, {harmless} harmless");
    assert_eq!(entries(&open(folder.path()).unwrap(), 2).await, before);
}

#[tokio::test]
async fn an_entry_that_changes_while_the_log_is_open_is_not_given_out() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    fill(&log, 1..=3).await;
    let (path, _, to) = last_record(&log);
    let mut bytes = fs::read(&path).unwrap();
    bytes[to - 1] ^= 4;
    fs::write(&path, bytes).unwrap();
    let read = log.read(Lsn::new(3), NonZeroUsize::MIN, Freshness::Latest).await.unwrap_err();
    assert!(matches!(read, PortError::Broken(_)), "{read}");
    assert!(read.to_string().contains("entry 3"), "{read}");
    let taken = log.append(Lsn::new(3), Bytes::new()).await;
    assert!(matches!(taken, Err(PortError::Broken(_))), "{taken:?}");
}

#[tokio::test]
async fn a_write_or_sync_that_fails_breaks_the_log_until_it_is_opened_again() {
    for (fault, landed) in [(Fault::ShortWrite, false), (Fault::Full, false), (Fault::Sync, true)] {
        let folder = tempfile::tempdir().unwrap();
        let (log, disk) = failing(folder.path());
        fill(&log, 1..=2).await;
        disk.fail_next(fault);
        let append = log.append(Lsn::new(3), entry(3)).await;
        assert!(matches!(append, Err(PortError::Broken(_))), "{fault:?}: {append:?}");
        assert!(disk.has_failed());
        is_broken(&log).await;
        drop(log);
        let log = open(folder.path()).unwrap();
        let last = 2 + u64::from(landed);
        assert_eq!(entries(&log, 1).await, Ok(expected(1..=last)));
        fill(&log, last + 1..=9).await;
        drop(log);
        assert_eq!(entries(&open(folder.path()).unwrap(), 1).await, Ok(expected(1..=9)));
    }
}

#[tokio::test]
async fn a_last_record_that_cannot_be_written_again_keeps_the_log_closed() {
    for fault in [Fault::Full, Fault::Sync] {
        let folder = tempfile::tempdir().unwrap();
        let (log, disk) = failing(folder.path());
        fill(&log, 1..=2).await;
        drop(log);
        disk.fail_next(fault);
        let opened = FileLog::open_with(folder.path(), SMALL, Box::new(disk.clone()));
        assert!(matches!(opened, Err(OpenError::Io { .. })), "{fault:?}");
        assert_eq!(entries(&open(folder.path()).unwrap(), 1).await, Ok(expected(1..=2)));
    }
}

#[tokio::test]
async fn a_disk_too_full_for_another_chunk_refuses_the_append_and_nothing_more() {
    for fault in [Fault::Full, Fault::ShortWrite, Fault::Sync] {
        let folder = tempfile::tempdir().unwrap();
        let (log, disk) = failing(folder.path());
        let long = Bytes::from(vec![1; 200]);
        assert_eq!(log.append(Lsn::new(1), long.clone()).await.unwrap(), Append::Committed);
        disk.fail_next(fault);
        let refused = log.append(Lsn::new(2), long.clone()).await;
        assert!(matches!(refused, Err(PortError::Determinate(_))), "{fault:?}: {refused:?}");
        assert!(disk.has_failed());
        assert_eq!(chunk_paths(folder.path()).len(), 1);
        assert!(!folder.path().join("chunk.tmp").exists());
        assert_eq!(entries(&log, 1).await, Ok(vec![long.clone()]));
        assert_eq!(log.append(Lsn::new(2), long.clone()).await.unwrap(), Append::Committed);
        drop(log);
        assert_eq!(entries(&open(folder.path()).unwrap(), 1).await, Ok(vec![long.clone(), long]));
    }
}

#[tokio::test]
async fn a_chunk_whose_name_could_not_be_synced_breaks_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (log, disk) = failing(folder.path());
    let long = Bytes::from(vec![1; 200]);
    assert_eq!(log.append(Lsn::new(1), long.clone()).await.unwrap(), Append::Committed);
    disk.fail_next(Fault::SyncFolder);
    let append = log.append(Lsn::new(2), long.clone()).await;
    assert!(matches!(append, Err(PortError::Broken(_))), "{append:?}");
    is_broken(&log).await;
    drop(log);
    let log = open(folder.path()).unwrap();
    assert_eq!(log.append(Lsn::new(2), long.clone()).await.unwrap(), Append::Committed);
    drop(log);
    assert_eq!(entries(&open(folder.path()).unwrap(), 1).await, Ok(vec![long.clone(), long]));
}

#[tokio::test]
async fn a_log_without_one_of_its_chunks_does_not_open() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    fill(&log, 1..=30).await;
    drop(log);
    let paths = chunk_paths(folder.path());
    assert!(paths.len() > 3);
    for path in &paths {
        let bytes = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        assert!(refusal(folder.path()).contains("missing"));
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(entries(&open(folder.path()).unwrap(), 1).await, Ok(expected(1..=30)));
    paths.iter().for_each(|path| fs::remove_file(path).unwrap());
    assert!(refusal(folder.path()).contains("missing"));
}

#[tokio::test]
async fn the_trim_floor_survives_and_what_is_wholly_below_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    fill(&log, 1..=20).await;
    for floor in 2..=21 {
        log.trim(Lsn::new(floor)).await.unwrap();
        let names = chunk::names(folder.path()).unwrap();
        assert!(names.iter().filter(|name| name.get() <= floor).count() <= 1, "{names:?}");
    }
    drop(log);
    let log = open(folder.path()).unwrap();
    assert_eq!(entries(&log, 20).await, Err(Lsn::new(21)));
    assert_eq!(log.append(Lsn::new(20), Bytes::new()).await.unwrap(), Append::Trimmed);
    assert_eq!(log.tail().await.unwrap(), Lsn::new(21));
    fill(&log, 21..=25).await;
    drop(log);
    assert_eq!(entries(&open(folder.path()).unwrap(), 21).await, Ok(expected(21..=25)));
}

#[tokio::test]
async fn a_trim_cut_short_between_the_floor_and_its_files_is_finished_when_the_log_opens() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    fill(&log, 1..=20).await;
    let paths = chunk_paths(folder.path());
    let contents: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    log.trim(Lsn::new(20)).await.unwrap();
    drop(log);
    // Deleted names may come back in any order.
    for (path, bytes) in paths.iter().zip(contents).step_by(2) {
        fs::write(path, bytes).unwrap();
    }
    let log = open(folder.path()).unwrap();
    assert_eq!(entries(&log, 20).await, Ok(expected(20..=20)));
    assert_eq!(entries(&log, 19).await, Err(Lsn::new(20)));
    assert_eq!(chunk_paths(folder.path()).len(), 1);
}

#[tokio::test]
async fn a_floor_that_could_not_be_prepared_refuses_the_trim_and_nothing_more() {
    for fault in [Fault::Full, Fault::ShortWrite, Fault::Sync] {
        let folder = tempfile::tempdir().unwrap();
        let (log, disk) = failing(folder.path());
        fill(&log, 1..=20).await;
        let paths = chunk_paths(folder.path());
        disk.fail_next(fault);
        let trim = log.trim(Lsn::new(20)).await;
        assert!(matches!(trim, Err(PortError::Determinate(_))), "{fault:?}: {trim:?}");
        assert!(disk.has_failed());
        assert_eq!(chunk_paths(folder.path()), paths);
        assert_eq!(entries(&log, 1).await, Ok(expected(1..=20)));
        log.trim(Lsn::new(20)).await.unwrap();
        fill(&log, 21..=21).await;
        drop(log);
        assert_eq!(entries(&open(folder.path()).unwrap(), 19).await, Err(Lsn::new(20)));
    }
}

#[tokio::test]
async fn a_floor_that_could_not_be_made_durable_breaks_the_log_and_deletes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (log, disk) = failing(folder.path());
    fill(&log, 1..=20).await;
    let paths = chunk_paths(folder.path());
    disk.fail_next(Fault::SyncFolder);
    let trim = log.trim(Lsn::new(20)).await;
    assert!(matches!(trim, Err(PortError::Broken(_))), "{trim:?}");
    is_broken(&log).await;
    assert_eq!(chunk_paths(folder.path()), paths);
    drop(log);
    // Nothing is deleted because of a floor that is not known to be on the disk.
    disk.fail_next(Fault::SyncFolder);
    let opened = FileLog::open_with(folder.path(), SMALL, Box::new(disk.clone()));
    assert!(matches!(opened, Err(OpenError::Io { .. })));
    assert_eq!(chunk_paths(folder.path()), paths);
    assert_eq!(entries(&open(folder.path()).unwrap(), 20).await, Ok(expected(20..=20)));
}

#[tokio::test]
async fn a_chunk_begun_before_a_crash_is_missed_should_it_get_lost_later() {
    let folder = tempfile::tempdir().unwrap();
    let (log, disk) = failing(folder.path());
    let long = Bytes::from(vec![1; 200]);
    assert_eq!(log.append(Lsn::new(1), long.clone()).await.unwrap(), Append::Committed);
    disk.fail_next(Fault::SyncFolder);
    let append = log.append(Lsn::new(2), long.clone()).await;
    assert!(matches!(append, Err(PortError::Broken(_))), "{append:?}");
    drop(log);
    let paths = chunk_paths(folder.path());
    let [first, second] = paths.as_slice() else { panic!("{paths:?}") };
    let unsealed = fs::read(first).unwrap();
    let log = open(folder.path()).unwrap();
    assert_eq!(log.append(Lsn::new(2), long.clone()).await.unwrap(), Append::Committed);
    drop(log);
    let sealed = fs::read(first).unwrap();
    // A seal of which nothing, or a part before the end of the file, reached the disk.
    let end = sealed.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for begun in [unsealed, sealed[..end - 1].to_vec(), sealed[..end - 30].to_vec()] {
        fs::write(first, begun).unwrap();
        let log = open(folder.path()).unwrap();
        assert_eq!(entries(&log, 1).await, Ok(vec![long.clone(), long.clone()]));
    }
    fs::write(first, &sealed).unwrap();
    fs::remove_file(second).unwrap();
    assert!(refusal(folder.path()).contains("entry 2 is missing"));
}

#[tokio::test]
async fn a_damaged_end_of_a_chunk_with_another_behind_it_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    fill(&log, 1..=30).await;
    drop(log);
    let first = &chunk_paths(folder.path())[0];
    let whole = fs::read(first).unwrap();
    // Looks like a torn append by itself: the end of its record is gone, and all behind it.
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for cut in [end - 40, end / 2, 10] {
        for rest in [0, whole.len() - cut] {
            let mut damaged = whole[..cut].to_vec();
            damaged.resize(cut + rest, 0);
            fs::write(first, &damaged).unwrap();
            refusal(folder.path());
            assert_eq!(fs::read(first).unwrap(), damaged, "cut at {cut}");
        }
    }
    fs::write(first, whole).unwrap();
    assert_eq!(entries(&open(folder.path()).unwrap(), 1).await, Ok(expected(1..=30)));
}

#[tokio::test]
async fn records_of_a_later_form_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    fill(&log, 1..=1).await;
    let (path, at, _) = last_record(&log);
    drop(log);
    let mut bytes = fs::read(&path).unwrap();
    bytes[at + 5] = 2;
    let crc = crc32c::crc32c(&bytes[at..at + 24]);
    bytes[at + 24..at + 28].copy_from_slice(&crc.to_be_bytes());
    fs::write(&path, bytes).unwrap();
    assert!(refusal(folder.path()).contains("form 2 of records"));
}

#[tokio::test]
async fn a_record_with_a_later_one_behind_it_was_acknowledged_and_is_never_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open_with_chunks(folder.path(), 8192).unwrap();
    for number in 1..=3 {
        let won = log.append(Lsn::new(number), vec![7; 1500].into()).await.unwrap();
        assert_eq!(won, Append::Committed);
    }
    let (path, ..) = last_record(&log);
    drop(log);
    let whole = fs::read(&path).unwrap();
    // Each looks like a torn append by itself: its header, a sector in its middle, all of it.
    for lost in [0..512, 512..1024, 0..1528, 2048..2560, 1528..3056] {
        let mut bytes = whole.clone();
        bytes[lost.clone()].fill(0);
        fs::write(&path, &bytes).unwrap();
        let refusal = refusal(folder.path());
        assert!(refusal.contains("but entry"), "{lost:?}: {refusal}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "what is damaged is left as it is");
    }
    fs::write(&path, whole).unwrap();
    let log = FileLog::open_with_chunks(folder.path(), 8192).unwrap();
    assert_eq!(log.tail().await.unwrap(), Lsn::new(4));
}
