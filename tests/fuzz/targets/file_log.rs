//! The log in files, damaged in any way: it opens or says why not, and what it gives is what was
//! appended.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use bytes::Bytes;
use odradek_storage::log::file::{FileLog, FileLogView};
use odradek_storage::log::{Append, Freshness, LogRead, MetadataLog};
use odradek_storage::lsn::Lsn;

use super::input::Input;

/// Small, so that a few entries fill more than one.
const CHUNK_BYTES: u64 = 1024;

/// Entries asked for at once.
const MANY: NonZeroUsize = NonZeroUsize::MAX;

/// Entries in the log before it is damaged.
const ENTRIES: u64 = 12;

/// The first byte says how: the rest is the bytes of the first chunk, or a list of damages.
pub(crate) fn run(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let folder = tempfile::tempdir_in(fastest()).unwrap();
    let mut input = Input::new(data);
    if input.u8() == 0 {
        let path = folder.path().join(format!("{:020}.log", Lsn::FIRST.get()));
        fs::write(path, input.rest()).unwrap();
        drop(FileLogView::open(folder.path()));
        runtime.block_on(open(folder.path(), |_, _| {}));
        return;
    }
    runtime.block_on(fill(folder.path()));
    while !input.is_empty() {
        damage(folder.path(), &mut input);
    }
    drop(FileLogView::open(folder.path()));
    let check = |lsn: Lsn, bytes: &Bytes| {
        assert_eq!(*bytes, entry(lsn.get()), "{lsn:?} is not what was appended");
    };
    runtime.block_on(open(folder.path(), check));
}

/// A folder in memory, where there is one.
fn fastest() -> &'static Path {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared } else { Path::new("/tmp") }
}

fn entry(number: u64) -> Bytes {
    let length = usize::try_from(number * 37 % 300).unwrap();
    let byte = u8::try_from(number % 3).unwrap();
    vec![byte; length].into()
}

async fn fill(folder: &Path) {
    let log = FileLog::open_with_chunks(folder, CHUNK_BYTES).unwrap();
    for number in 1..=ENTRIES {
        let appended = log.append(Lsn::new(number), entry(number)).await.unwrap();
        assert_eq!(appended, Append::Committed);
    }
}

/// Flips, zeroes, overwrites, cuts, removes or swaps.
fn damage(folder: &Path, input: &mut Input<'_>) {
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|item| item.unwrap().path()).collect();
    paths.sort();
    if paths.is_empty() {
        input.rest();
        return;
    }
    let (kind, at) = (input.u8(), usize::from(input.u8()));
    let path = &paths[at % paths.len()];
    let mut bytes = fs::read(path).unwrap();
    let at = usize::from(input.u16()) % (bytes.len() + 1);
    let end = (at + usize::from(input.u8())).min(bytes.len());
    match kind % 6 {
        0 => bytes[at..end].iter_mut().for_each(|byte| *byte ^= kind | 1),
        1 => bytes[at..end].fill(0),
        2 => {
            let put = input.bytes(end - at);
            bytes[at..at + put.len()].copy_from_slice(put);
        }
        3 => bytes.truncate(at),
        4 => return fs::remove_file(path).unwrap(),
        _ => {
            let from = bytes[at..end].to_vec();
            let to = usize::from(input.u16()) % (bytes.len() - from.len() + 1);
            bytes[to..to + from.len()].copy_from_slice(&from);
        }
    }
    fs::write(path, bytes).unwrap();
}

/// Opens what is there, reads all of it, and appends behind it.
async fn open(folder: &Path, check: impl Fn(Lsn, &Bytes)) {
    let Ok(log) = FileLog::open_with_chunks(folder, CHUNK_BYTES) else { return };
    let Ok(tail) = log.tail().await else { return };
    let mut next = Lsn::FIRST;
    while next < tail {
        match log.read(next, MANY, Freshness::Latest).await {
            Ok(LogRead::Entries { slots, .. }) if !slots.is_empty() => {
                for slot in slots {
                    assert_eq!(slot.lsn, next, "slots follow each other");
                    check(slot.lsn, &slot.bytes);
                    next = next.next();
                }
            }
            Ok(LogRead::Trimmed(floor)) if floor > next => next = floor,
            _ => return,
        }
    }
    let last = Bytes::from_static(b"behind all of it");
    if let Ok(Append::Committed) = log.append(tail, last.clone()).await {
        drop(log);
        let log = FileLog::open_with_chunks(folder, CHUNK_BYTES).expect("it opened before");
        let read = log.read(tail, MANY, Freshness::Latest).await.unwrap();
        let LogRead::Entries { slots, .. } = &read else { panic!("{read:?}") };
        assert_eq!(slots[0].bytes, last);
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let folder = tempfile::tempdir_in(fastest()).unwrap();
    runtime.block_on(fill(folder.path()));
    let chunk = fs::read(folder.path().join(format!("{:020}.log", Lsn::FIRST.get()))).unwrap();
    let mut seeds = vec![[&[0][..], &chunk].concat(), [&[0][..], &chunk[..200]].concat()];
    let places = [0, 4, 16, 28, 60, 500, 900];
    for kind in 0..6 {
        for place in places {
            let [high, low] = u16::to_be_bytes(place);
            seeds.push(vec![1, kind, kind, high, low, 9, 3, 1]);
        }
    }
    seeds
}
