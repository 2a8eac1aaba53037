//! The decorator does what it is told, and the contract holds behind it.

use std::time::Duration;

use super::*;
use crate::object::conformance;
use crate::object::memory::MemoryObjectStore;

fn faulty(seed: u64, faults: Faults) -> FaultyObjectStore {
    FaultyObjectStore::new(Arc::new(MemoryObjectStore::default()), seed, faults)
}

fn many_faults() -> Faults {
    let calls = CallFaults {
        refused: 0.1,
        lost: 0.1,
        answer_lost: 0.2,
        late: 0.2,
        late_max: Duration::from_secs(3600),
        delayed: 0.5,
        delay_max: Duration::from_secs(5),
        slow: 0.05,
        slow_max: Duration::from_secs(60),
        throttled: 0.05,
        throttle_max: Duration::from_secs(20),
        stale: 0.0,
    };
    Faults { calls, bit_flip: 0.1, truncated: 0.1, wrong_range: 0.1, not_found: 0.1 }
}

#[tokio::test(start_paused = true)]
async fn without_faults_it_is_the_store_behind_it() {
    conformance::check(|| faulty(1, Faults::default())).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_created_is_there_when_the_faults_are_over() {
    for seed in 0..50 {
        let store = faulty(seed, many_faults());
        let control = store.control();
        conformance::check_despite_faults(store, || async move { control.end_faults().await })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_put_lands_although_its_caller_was_told_of_an_error() {
    let store = faulty(1, Faults::default());
    let control = store.control();
    let key = ObjectKey::new("a").unwrap();
    control.script([Fate::Late(Duration::from_secs(3600))]);
    let put = store.put_if_absent(&key, Bytes::from_static(b"late")).await;
    assert!(matches!(put, Err(PortError::Indeterminate(_))), "{put:?}");
    assert_eq!(store.get_range(&key, 0..9).await.unwrap(), None);
    tokio::time::sleep(Duration::from_secs(3601)).await;
    assert_eq!(store.get_range(&key, 0..9).await.unwrap(), Some(Bytes::from_static(b"late")));
    assert_eq!(control.late(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_way_to_damage_a_read_shows() {
    let bytes = Bytes::from((0..=255).collect::<Vec<u8>>());
    let key = ObjectKey::new("a").unwrap();
    let store = faulty(1, Faults::default());
    let control = store.control();
    assert_eq!(store.put_if_absent(&key, bytes.clone()).await.unwrap(), Put::Created);
    for _ in 0..100 {
        control.set(Faults { bit_flip: 1.0, ..Faults::default() });
        let found = store.get_range(&key, 0..256).await.unwrap().unwrap();
        let wrong: u32 = found.iter().zip(&bytes).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((found.len(), wrong), (256, 1));
        control.set(Faults { truncated: 1.0, ..Faults::default() });
        let found = store.get_range(&key, 0..256).await.unwrap().unwrap();
        assert!(found.len() < 256 && bytes.starts_with(&found), "{}", found.len());
        control.set(Faults { wrong_range: 1.0, ..Faults::default() });
        let found = store.get_range(&key, 10..20).await.unwrap();
        assert_eq!(found, Some(bytes.slice(11..21)));
        control.set(Faults { not_found: 1.0, ..Faults::default() });
        assert_eq!(store.get_range(&key, 0..256).await.unwrap(), None);
    }
    control.end_faults().await;
    assert_eq!(store.get_range(&key, 0..256).await.unwrap(), Some(bytes));
}

#[tokio::test(start_paused = true)]
async fn a_put_may_be_in_conflict_and_a_hidden_attempt_hears_of_the_first() {
    let store = faulty(1, Faults::default());
    let key = ObjectKey::new("a").unwrap();
    store.control().set_oddities(Oddities { conflict: 1.0, ..Oddities::default() });
    let put = store.put_if_absent(&key, Bytes::from_static(b"a")).await;
    assert!(matches!(put, Err(PortError::Determinate(_))), "{put:?}");
    assert_eq!(store.get_range(&key, 0..9).await.unwrap(), None);
    store.control().set_oddities(Oddities { own_retry: 1.0, ..Oddities::default() });
    let put = store.put_if_absent(&key, Bytes::from_static(b"a")).await;
    assert_eq!(put.unwrap(), Put::Exists);
    assert_eq!(store.get_range(&key, 0..9).await.unwrap(), Some(Bytes::from_static(b"a")));
}

#[tokio::test(start_paused = true)]
async fn a_listing_may_take_long() {
    let store = faulty(1, Faults::default());
    let slow_list_max = Duration::from_secs(600);
    store.control().set_oddities(Oddities { slow_list: 1.0, slow_list_max, ..Oddities::default() });
    let began = tokio::time::Instant::now();
    assert_eq!(store.list("", None, NonZeroUsize::MIN).await.unwrap(), []);
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
}
