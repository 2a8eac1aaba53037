//! The dice and the names that they go by.

use std::time::Duration;

use super::super::Chance;
use super::super::faults::{Dice, Fate, Throw};
use super::super::operation::{Operation, Service};
use super::*;

fn chaos() -> Faults {
    Faults {
        throttled: Chance::of(0.1, ""),
        error_before: Chance::of(0.1, ""),
        error_after: Chance::of(0.1, ""),
        reply_lost: Chance::of(0.1, ""),
        late: Chance::of(0.1, ""),
        late_max: Duration::from_secs(9),
        duplicate: Chance::of(0.1, ""),
        delay: Chance::of(0.5, ""),
        delay_max: Duration::from_secs(5),
        ..Faults::default()
    }
}

fn thrown(seed: u64, faults: Faults, operation: &str, times: usize) -> Vec<Throw> {
    let mut dice = Dice::new(seed);
    dice.load(faults);
    (0..times).map(|_| dice.throw(operation)).collect()
}

#[test]
fn a_seed_decides_every_fate_of_an_operation_whatever_goes_on_beside_it() {
    let alone = thrown(3, chaos(), "PutItem", 1000);
    let mut dice = Dice::new(3);
    dice.load(chaos());
    let beside: Vec<Throw> = (0..1000)
        .map(|number| {
            for _ in 0..number % 3 {
                dice.throw("GetItem");
            }
            dice.throw("PutItem")
        })
        .collect();
    assert_eq!(alone, beside);
    assert_ne!(alone, thrown(4, chaos(), "PutItem", 1000));
    assert_ne!(alone, thrown(3, chaos(), "GetItem", 1000));
}

#[test]
fn every_fault_happens_about_as_often_as_it_should_and_within_its_extent() {
    let throws = thrown(5, chaos(), "PutItem", 10_000);
    let share = |fate: fn(&Fate) -> bool| throws.iter().filter(|throw| fate(&throw.fate)).count();
    // Each strikes with 0.1, unless one before it did.
    for (index, found) in [
        share(|fate| *fate == Fate::Throttled),
        share(|fate| *fate == Fate::ErrorBefore),
        share(|fate| *fate == Fate::ErrorAfter),
        share(|fate| *fate == Fate::ReplyLost),
        share(|fate| matches!(fate, Fate::Late(_))),
        share(|fate| *fate == Fate::Duplicate),
    ]
    .into_iter()
    .enumerate()
    {
        let expected = 1000.0 * 0.9_f64.powi(i32::try_from(index).unwrap());
        let off = f64::from(u32::try_from(found).unwrap()) - expected;
        assert!(off.abs() < 120.0, "fault {index}: {found}, not {expected}");
    }
    let lates: Vec<Duration> = throws
        .iter()
        .filter_map(|throw| match throw.fate {
            Fate::Late(after) => Some(after),
            _ => None,
        })
        .collect();
    assert!(lates.iter().all(|late| *late <= Duration::from_secs(9)));
    assert!(lates.iter().any(|late| *late > Duration::from_secs(8)));
    assert!(lates.iter().any(|late| *late < Duration::from_secs(1)));
    let prompt = |throw: &Throw| throw.there.is_zero() && throw.back.is_zero();
    assert!(throws.iter().all(|throw| !matches!(throw.fate, Fate::Late(_)) || prompt(throw)));
    let delayed: Vec<&Throw> = throws.iter().filter(|throw| !throw.there.is_zero()).collect();
    assert!((4400..5000).contains(&delayed.len()), "{}", delayed.len());
    assert!(delayed.iter().all(|throw| throw.there + throw.back <= Duration::from_secs(5)));
    assert!(delayed.iter().any(|throw| throw.back > throw.there));
}

#[test]
fn a_fault_spares_those_whose_names_begin_otherwise() {
    let faults = Faults { throttled: Chance::always("Put"), ..Faults::default() };
    let mut dice = Dice::new(1);
    dice.load(faults);
    for (operation, fate) in [
        ("PutItem", Fate::Throttled),
        ("PutObject", Fate::Throttled),
        ("GetItem", Fate::Delivered),
        ("Pu", Fate::Delivered),
        ("BatchPut", Fate::Delivered),
    ] {
        assert_eq!(dice.throw(operation).fate, fate, "{operation}");
    }
}

#[test]
fn a_fault_set_anew_leaves_the_draws_of_the_others_as_they_were() {
    let without = thrown(6, Faults { delay: Chance::default(), ..chaos() }, "PutItem", 500);
    let with = thrown(6, chaos(), "PutItem", 500);
    let fates = |throws: &[Throw]| throws.iter().map(|throw| throw.fate).collect::<Vec<_>>();
    assert_eq!(fates(&without), fates(&with));
}

#[test]
fn a_fault_with_a_number_of_times_strikes_so_often_and_again_when_set_again() {
    let faults = Faults {
        reply_lost: Chance { times: Some(3), ..Chance::of(0.5, "") },
        ..Faults::default()
    };
    let mut dice = Dice::new(8);
    for _ in 0..2 {
        dice.load(faults.clone());
        let lost = (0..100).filter(|_| dice.throw("PutItem").fate == Fate::ReplyLost).count();
        assert_eq!(lost, 3);
    }
}

#[test]
fn a_burst_throttles_one_operation_for_as_long_as_it_lasts() {
    let faults = Faults { burst: Chance::of(0.02, ""), burst_max: 20, ..Faults::default() };
    let throws = thrown(9, faults.clone(), "PutItem", 5000);
    let mut bursts = Vec::new();
    for run in throws.chunk_by(|one, next| one.fate == next.fate) {
        if run[0].fate == Fate::Throttled {
            bursts.push(run.len());
        }
    }
    assert!((50..110).contains(&bursts.len()), "{bursts:?}");
    assert!(bursts.iter().any(|length| *length >= 15), "{bursts:?}");
    assert!(bursts.iter().any(|length| *length <= 3), "{bursts:?}");

    let mut dice = Dice::new(9);
    dice.load(Faults { burst: Chance::once("Put"), burst_max: 20, ..Faults::default() });
    let mut length = 0;
    while dice.throw("PutItem").fate == Fate::Throttled {
        assert_eq!(dice.throw("GetItem").fate, Fate::Delivered);
        length += 1;
    }
    assert!((1..=20).contains(&length), "{length}");
}

#[test]
fn an_operation_has_the_name_that_its_service_gives_it() {
    for (method, path, name) in [
        ("PUT", "/b/k", "PutObject"),
        ("PUT", "/b/segment/1?x-id=PutObject", "PutObject"),
        ("GET", "/b/k/k?x-id=GetObject", "GetObject"),
        ("HEAD", "/b/k", "HeadObject"),
        ("DELETE", "/b/k?x-id=DeleteObject", "DeleteObject"),
        ("POST", "/b?delete", "DeleteObjects"),
        ("POST", "/b/?delete=", "DeleteObjects"),
        ("GET", "/b?list-type=2&prefix=k%2F", "ListObjectsV2"),
        ("GET", "/b/?prefix=k&list-type=2", "ListObjectsV2"),
        ("HEAD", "/b", "HeadBucket"),
        ("HEAD", "/b/", "HeadBucket"),
        ("PUT", "/b", "CreateBucket"),
        ("PUT", "/b/", "CreateBucket"),
        ("PUT", "/b?versioning", "Other"),
        ("GET", "/b?location", "Other"),
        ("GET", "/", "ListBuckets"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", "UploadPart"),
        ("POST", "/b/k?uploads", "CreateMultipartUpload"),
        ("POST", "/b/k?uploadId=u", "CompleteMultipartUpload"),
        ("DELETE", "/b/k?uploadId=u", "AbortMultipartUpload"),
    ] {
        let (head, _) = request(method.parse().unwrap(), path, "").into_parts();
        let operation = Operation::of(&head);
        assert_eq!((operation.service, &*operation.name), (Service::S3, name), "{method} {path}");
    }
    let (head, _) = dynamodb("BatchGetItem", &Value::Null).into_parts();
    let operation = Operation::of(&head);
    assert_eq!((operation.service, &*operation.name), (Service::DynamoDb, "BatchGetItem"));
}
