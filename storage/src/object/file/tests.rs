//! What only files can do wrong.

use super::*;
use crate::disk::failing::{FailingDisk, Fault};
use crate::object::conformance;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn left_overs(folder: &Path) -> usize {
    fs::read_dir(folder.join(TEMPORARY)).unwrap().count()
}

#[tokio::test]
async fn a_folder_is_an_object_store() {
    let folders = tempfile::tempdir().unwrap();
    let mut number = 0;
    conformance::check(|| {
        number += 1;
        FileObjectStore::open(&folders.path().join(number.to_string())).unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_put_that_finds_the_disk_full_leaves_nothing_and_can_be_repeated() {
    for fault in [Fault::Full, Fault::ShortWrite, Fault::Sync] {
        let folder = tempfile::tempdir().unwrap();
        let disk = FailingDisk::default();
        let store = FileObjectStore::open_with(folder.path(), Box::new(disk.clone())).unwrap();
        disk.fail_next(fault);
        let put = store.put_if_absent(&key("a/b"), Bytes::from_static(b"bytes")).await;
        assert!(matches!(put, Err(PortError::Determinate(_))), "{fault:?}: {put:?}");
        assert!(disk.has_failed());
        assert_eq!(store.get_range(&key("a/b"), 0..9).await.unwrap(), None);
        assert_eq!(left_overs(folder.path()), 0);
        let put = store.put_if_absent(&key("a/b"), Bytes::from_static(b"bytes")).await;
        assert_eq!(put.unwrap(), Put::Created);
    }
}

#[tokio::test]
async fn a_name_that_could_not_be_synced_is_not_acknowledged_by_asking_again() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FailingDisk::default();
    let store = FileObjectStore::open_with(folder.path(), Box::new(disk.clone())).unwrap();
    let first = store.put_if_absent(&key("a/first"), Bytes::new()).await;
    assert_eq!(first.unwrap(), Put::Created);
    disk.fail_next(Fault::SyncFolder);
    let put = store.put_if_absent(&key("a/b"), Bytes::new()).await;
    assert!(matches!(put, Err(PortError::Indeterminate(_))), "{put:?}");
    for name in ["a/b", "a/c"] {
        let again = store.put_if_absent(&key(name), Bytes::new()).await;
        assert!(matches!(again, Err(PortError::Broken(_))), "{again:?}");
    }
    let reopened = FileObjectStore::open(folder.path()).unwrap();
    assert_eq!(reopened.put_if_absent(&key("a/b"), Bytes::new()).await.unwrap(), Put::Exists);
}

#[tokio::test]
async fn what_a_crash_left_under_a_temporary_name_is_removed_and_never_listed() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileObjectStore::open(folder.path()).unwrap();
    assert_eq!(store.put_if_absent(&key("a"), Bytes::new()).await.unwrap(), Put::Created);
    fs::write(folder.path().join(TEMPORARY).join("1-1"), b"half an obj").unwrap();
    fs::create_dir(folder.path().join("lost+found")).unwrap();
    fs::write(folder.path().join("lost+found").join("a"), b"not ours").unwrap();
    let limit = NonZeroUsize::new(9).unwrap();
    let listed = store.list("", None, limit).await.unwrap();
    assert_eq!(listed, [ObjectMeta { key: key("a"), size: 0 }]);
    let reopened = FileObjectStore::open(folder.path()).unwrap();
    assert_eq!(left_overs(folder.path()), 0);
    assert_eq!(reopened.list("", None, limit).await.unwrap(), listed);
}

#[tokio::test]
async fn an_object_and_a_folder_of_one_name_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileObjectStore::open(folder.path()).unwrap();
    assert_eq!(store.put_if_absent(&key("a/b"), Bytes::new()).await.unwrap(), Put::Created);
    assert_eq!(store.get_range(&key("a"), 0..9).await.unwrap(), None);
    assert_eq!(store.get_range(&key("a/b/c"), 0..9).await.unwrap(), None);
    for name in ["a", "a/b/c"] {
        let put = store.put_if_absent(&key(name), Bytes::new()).await;
        assert!(matches!(put, Err(PortError::Determinate(_))), "{put:?}");
    }
    store.delete(&[key("a"), key("a/b/c")]).await.unwrap();
    assert!(store.get_range(&key("a/b"), 0..9).await.unwrap().is_some());
}
