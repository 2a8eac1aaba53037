//! What every object store must keep, whatever it is made of.
//!
//! Owns the promises OBJ-1 to OBJ-4 as tests; each panics at the first one broken. `check` asks for
//! a store that answers every call; `check_despite_faults` asserts only what no fault excuses.

#![expect(clippy::unwrap_used, reason = "a suite panics at the first broken promise")]

use std::num::NonZeroUsize;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{ObjectKey, ObjectMeta, ObjectStore, Put};
use crate::port::PortError;

const RACERS: u8 = 16;
const ROUNDS: u8 = 20;

/// Calls of [`check_despite_faults`] that are repeated before it gives up.
const ATTEMPTS: usize = 1000;

/// Checks stores that answer every call.
///
/// `fresh` makes an empty store; clones of a store are handles on the same objects.
pub async fn check<S: ObjectStore + Clone + 'static>(mut fresh: impl FnMut() -> S) {
    an_object_is_whole_and_stays_as_it_is(&fresh()).await;
    ranges_are_cut_at_the_end(&fresh()).await;
    listings_are_in_order_and_in_pages(&fresh()).await;
    deleting_is_idempotent(&fresh()).await;
    one_put_wins_a_name(&fresh()).await;
}

/// Checks a store whose calls may fail, late and ambiguously, until its faults are over: what was
/// `Created` is there, what is there is whole, and no name was won twice.
///
/// `end_faults` ends the faults and comes back when what is late has landed.
pub async fn check_despite_faults<S, F>(store: S, end_faults: impl FnOnce() -> F)
where
    S: ObjectStore + Clone + 'static,
    F: Future<Output = ()>,
{
    let mut created = Vec::new();
    for round in 0..ROUNDS {
        let won = race(&store, &key(&format!("race/{round}")), |racer| vec![racer; 700]).await;
        assert!(won.len() <= 1, "OBJ-2: {won:?} all created race/{round}");
        created.push((round, won.first().copied()));
    }
    end_faults().await;
    for (round, winner) in created {
        let key = key(&format!("race/{round}"));
        let found = get(&store, &key).await;
        match (found, winner) {
            (None, None) => {}
            (None, Some(racer)) => panic!("OBJ-3: {key} created by {racer} is gone"),
            (Some(bytes), winner) => {
                let racer = winner.unwrap_or(bytes[0]);
                assert_eq!(bytes, vec![racer; 700], "OBJ-1, OBJ-2: {key}");
            }
        }
    }
}

async fn an_object_is_whole_and_stays_as_it_is<S: ObjectStore + Clone>(store: &S) {
    let other = store.clone();
    for (name, bytes) in [("a", vec![]), ("b/c", vec![1; 5]), ("b/d", vec![2; 300_000])] {
        let key = key(name);
        assert_eq!(get(store, &key).await, None);
        assert_eq!(store.put_if_absent(&key, bytes.clone().into()).await.unwrap(), Put::Created);
        assert_eq!(get(&other, &key).await, Some(Bytes::from(bytes.clone())), "OBJ-4: {key}");
        let again = other.put_if_absent(&key, Bytes::from_static(b"other")).await.unwrap();
        assert_eq!(again, Put::Exists, "OBJ-2: {key}");
        assert_eq!(get(store, &key).await, Some(Bytes::from(bytes)), "OBJ-2: {key}");
    }
}

async fn ranges_are_cut_at_the_end<S: ObjectStore>(store: &S) {
    let key = key("object");
    assert_eq!(store.get_range(&key, 0..0).await.unwrap(), None);
    let bytes = Bytes::from_static(b"0123456789");
    assert_eq!(store.put_if_absent(&key, bytes.clone()).await.unwrap(), Put::Created);
    for start in 0..13 {
        for end in (start..13).chain([u64::MAX]) {
            let cut = |at| usize::try_from(at).map_or(bytes.len(), |at: usize| at.min(bytes.len()));
            let expected = bytes.slice(cut(start)..cut(end));
            let found = store.get_range(&key, start..end).await.unwrap();
            assert_eq!(found, Some(expected), "{start}..{end}");
        }
    }
    assert_eq!(store.get_range(&key, u64::MAX..u64::MAX).await.unwrap(), Some(Bytes::new()));
}

async fn listings_are_in_order_and_in_pages<S: ObjectStore>(store: &S) {
    // `.` and `-` sort before `/`, and `/` before the letters: folders are no order of their own.
    let names = ["a-b", "a.b", "a/a", "a/b/c", "a/b0", "a0", "b", "b-/x", "c/1", "c/10", "c/2"];
    for (size, name) in names.iter().enumerate().rev() {
        let bytes = vec![0; size];
        assert_eq!(store.put_if_absent(&key(name), bytes.into()).await.unwrap(), Put::Created);
    }
    let all: Vec<ObjectMeta> =
        (0..).zip(names).map(|(size, name)| ObjectMeta { key: key(name), size }).collect();
    for prefix in ["", "a", "a/", "a/b", "a/b/", "b", "c/1", "c/10", "c/100", "x"] {
        let expected: Vec<&ObjectMeta> =
            all.iter().filter(|meta| meta.key.as_str().starts_with(prefix)).collect();
        for limit in 1..=all.len() + 1 {
            let mut found: Vec<ObjectMeta> = Vec::new();
            loop {
                let after = found.last().map(|meta| meta.key.clone());
                let limit = NonZeroUsize::new(limit).expect("limits begin with one");
                let page = store.list(prefix, after.as_ref(), limit).await.unwrap();
                assert!(page.len() <= limit.get(), "{page:?}");
                let is_last = page.len() < limit.get();
                found.extend(page);
                if is_last {
                    break;
                }
            }
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{prefix:?} by {limit}");
        }
    }
    let after = key("a/zzz");
    let page = store.list("", Some(&after), NonZeroUsize::MIN).await.unwrap();
    assert_eq!(page, all[5..6], "a listing goes on after a key that is not there");
}

async fn deleting_is_idempotent<S: ObjectStore>(store: &S) {
    store.delete(&[]).await.unwrap();
    let (gone, kept) = (key("x/gone"), key("x/kept"));
    for key in [&gone, &kept] {
        assert_eq!(store.put_if_absent(key, Bytes::new()).await.unwrap(), Put::Created);
    }
    for _ in 0..2 {
        store.delete(&[gone.clone(), key("never/there"), key("x/kept/no")]).await.unwrap();
        assert_eq!(get(store, &gone).await, None);
        let listed = store.list("", None, NonZeroUsize::MAX).await.unwrap();
        assert_eq!(listed, [ObjectMeta { key: kept.clone(), size: 0 }]);
    }
}

async fn one_put_wins_a_name<S: ObjectStore + Clone + 'static>(store: &S) {
    for round in 0..ROUNDS {
        let key = key(&format!("race/{round}"));
        let won = race(store, &key, |racer| vec![racer; 10_000]).await;
        assert_eq!(won.len(), 1, "OBJ-2: {won:?} created {key}");
        assert_eq!(get(store, &key).await, Some(vec![won[0]; 10_000].into()), "OBJ-1: {key}");
    }
}

/// Puts from many tasks under one key; gives those who created it.
async fn race<S: ObjectStore + Clone + 'static>(
    store: &S,
    key: &ObjectKey,
    bytes: fn(u8) -> Vec<u8>,
) -> Vec<u8> {
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let (store, key) = (store.clone(), key.clone());
        racers.spawn(async move {
            let put = store.put_if_absent(&key, bytes(racer).into()).await;
            matches!(put, Ok(Put::Created)).then_some(racer)
        });
    }
    racers.join_all().await.into_iter().flatten().collect()
}

/// Reads an object, as often as it takes.
async fn get<S: ObjectStore>(store: &S, key: &ObjectKey) -> Option<Bytes> {
    let mut last: Option<PortError> = None;
    for _ in 0..ATTEMPTS {
        match store.get_range(key, 0..u64::MAX).await {
            Ok(found) => return found,
            Err(error) => last = Some(error),
        }
    }
    panic!("{key} can't be read: {last:?}");
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("keys of the suite are legal")
}
