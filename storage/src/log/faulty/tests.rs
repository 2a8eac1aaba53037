//! The decorator does what it is told, and the contract holds behind it.

use std::time::Duration;

use super::*;
use crate::log::memory::MemoryLog;
use crate::log::{Freshness, Slot, conformance};

fn faulty(seed: u64, faults: LogFaults) -> FaultyLog {
    FaultyLog::new(Arc::new(MemoryLog::default()), seed, faults)
}

fn many_faults() -> LogFaults {
    LogFaults {
        refused: 0.1,
        lost: 0.1,
        answer_lost: 0.2,
        late: 0.2,
        late_max: Duration::from_secs(600),
        delayed: 0.5,
        delay_max: Duration::from_secs(5),
        slow: 0.05,
        slow_max: Duration::from_secs(60),
        throttled: 0.05,
        throttle_max: Duration::from_secs(20),
        stale: 0.3,
    }
}

#[tokio::test(start_paused = true)]
async fn without_faults_it_is_the_log_behind_it() {
    conformance::check(|| faulty(1, LogFaults::default())).await;
}

#[tokio::test(start_paused = true)]
async fn writers_that_repeat_what_was_not_answered_lose_and_repeat_nothing() {
    for seed in 0..50 {
        conformance::check_despite_faults(faulty(seed, many_faults())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_run() {
    async fn run(seed: u64) -> Vec<String> {
        let log = faulty(seed, many_faults());
        let begin = tokio::time::Instant::now();
        let mut answers = Vec::new();
        for _ in 0..200 {
            let at = log.tail().await.unwrap_or(Lsn::FIRST);
            let answer = log.append(at, Bytes::from(answers.len().to_string())).await;
            answers.push(format!("{:?} {answer:?}", begin.elapsed()));
        }
        answers
    }
    assert_eq!(run(7).await, run(7).await);
    assert_ne!(run(7).await, run(8).await);
}

#[tokio::test(start_paused = true)]
async fn a_script_decides_whether_an_append_happens_and_what_is_told() {
    let log = faulty(1, LogFaults::default());
    let control = log.control();
    let late = Duration::from_secs(60);
    let entry = Bytes::from_static(b"entry");
    control.script([Fate::Refused, Fate::Lost, Fate::AnswerLost, Fate::Late(late)]);
    let first = Lsn::FIRST;
    let refused = log.append(first, entry.clone()).await;
    assert!(matches!(refused, Err(PortError::Determinate(_))), "{refused:?}");
    let lost = log.append(first, entry.clone()).await;
    assert!(matches!(lost, Err(PortError::Indeterminate(_))), "{lost:?}");
    assert_eq!(log.tail().await.unwrap(), first);
    let lost = log.append(first, entry.clone()).await;
    assert!(matches!(lost, Err(PortError::Indeterminate(_))), "{lost:?}");
    assert_eq!(log.tail().await.unwrap(), first.next());
    let held_up = log.append(first.next(), entry.clone()).await;
    assert!(matches!(held_up, Err(PortError::Indeterminate(_))), "{held_up:?}");
    assert_eq!((control.scripted(), control.late()), (0, 1));
    assert_eq!(log.tail().await.unwrap(), first.next());
    control.end_faults().await;
    assert_eq!(log.tail().await.unwrap(), first.next().next());
    let taken = log.append(first.next(), Bytes::new()).await.unwrap();
    assert_eq!(taken, Append::Taken(entry));
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_nothing_happens_and_nobody_can_tell() {
    let log = faulty(1, LogFaults::default());
    let control = log.control();
    control.outage(true);
    let append = log.append(Lsn::FIRST, Bytes::new()).await;
    assert!(matches!(append, Err(PortError::Indeterminate(_))), "{append:?}");
    assert!(matches!(log.tail().await, Err(PortError::Indeterminate(_))));
    assert!(matches!(log.trim(Lsn::FIRST).await, Err(PortError::Indeterminate(_))));
    control.outage(false);
    assert_eq!(log.append(Lsn::FIRST, Bytes::new()).await.unwrap(), Append::Committed);
}

#[tokio::test(start_paused = true)]
async fn a_burst_refuses_every_call_until_it_is_over() {
    let throttle_max = Duration::from_secs(10);
    let faults = LogFaults { throttled: 0.01, throttle_max, ..LogFaults::default() };
    let log = faulty(1, faults.clone());
    let mut refused = Vec::new();
    for _ in 0..10_000 {
        match log.tail().await {
            Ok(_) => refused.push(false),
            Err(PortError::Determinate(_)) => refused.push(true),
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let runs: Vec<_> = refused.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
    let longest = |what| runs.iter().filter(|run| run.0 == what).map(|run| run.1).max();
    assert!(longest(true) > Some(500), "{runs:?}");
    assert!(longest(false) > Some(100), "{runs:?}");
    let control = log.control();
    control.set(LogFaults { throttled: 1.0, ..faults });
    assert!(log.append(Lsn::FIRST, Bytes::new()).await.is_err());
    control.end_faults().await;
    assert_eq!(log.append(Lsn::FIRST, Bytes::new()).await.unwrap(), Append::Committed);
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_answered_in_the_end() {
    let slow_max = Duration::from_secs(30);
    let log = faulty(1, LogFaults { slow: 1.0, slow_max, ..LogFaults::default() });
    let begin = tokio::time::Instant::now();
    assert_eq!(log.append(Lsn::FIRST, Bytes::new()).await.unwrap(), Append::Committed);
    assert!(!begin.elapsed().is_zero() && begin.elapsed() <= slow_max, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_append_held_up_until_its_slot_is_trimmed_changes_nothing() {
    let log = faulty(1, LogFaults::default());
    let control = log.control();
    let late = [Fate::Late(Duration::from_secs(60)), Fate::Late(Duration::from_secs(90))];
    control.script(late);
    for _ in late {
        let held_up = log.append(Lsn::FIRST, Bytes::from_static(b"late")).await;
        assert!(matches!(held_up, Err(PortError::Indeterminate(_))), "{held_up:?}");
    }
    for number in 1..=3 {
        let append = log.append(Lsn::new(number), Bytes::from_static(b"early")).await;
        assert_eq!(append.unwrap(), Append::Committed);
    }
    log.trim(Lsn::new(3)).await.unwrap();
    control.end_faults().await;
    let floor = log.read(Lsn::FIRST, NonZeroUsize::MIN, Freshness::Latest).await.unwrap();
    assert_eq!(floor, LogRead::Trimmed(Lsn::new(3)), "LOG-5");
    let LogRead::Entries { slots: left, .. } =
        log.read(Lsn::new(3), NonZeroUsize::MAX, Freshness::Latest).await.unwrap()
    else {
        panic!("3 is not trimmed")
    };
    assert_eq!(left, [Slot { lsn: Lsn::new(3), bytes: Bytes::from_static(b"early") }]);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_comes_twice_finds_itself() {
    let memory = MemoryLog::default();
    let log = FaultyLog::new(Arc::new(memory.clone()), 1, LogFaults::default());
    let doubled_max = Duration::from_secs(60);
    let odd = Oddities { doubled: 1.0, doubled_max, ..Oddities::default() };
    log.control().set_oddities(odd);
    let first = Lsn::ZERO.next();
    let entry = Bytes::from_static(b"one");
    assert_eq!(log.append(first, entry.clone()).await.unwrap(), Append::Committed);
    assert_eq!(log.control().late(), 1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(log.control().late(), 0);
    assert_eq!(memory.tail().await.unwrap(), first.next());
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_cut_short_says_that_there_is_more() {
    let memory = MemoryLog::default();
    let mut at = Lsn::ZERO.next();
    for _ in 0..10 {
        assert_eq!(memory.append(at, Bytes::new()).await.unwrap(), Append::Committed);
        at = at.next();
    }
    let log = FaultyLog::new(Arc::new(memory), 1, LogFaults::default());
    log.control().set_oddities(Oddities { short_page: 1.0, ..Oddities::default() });
    let read = log.read(Lsn::ZERO.next(), NonZeroUsize::MAX, Freshness::Latest).await.unwrap();
    let LogRead::Entries { slots, at_tail } = read else { panic!("{read:?}") };
    assert!((1..=SHORT_PAGE_MAX).contains(&slots.len()), "{slots:?}");
    assert!(!at_tail);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_slow_has_a_longer_way() {
    let faults =
        LogFaults { delayed: 1.0, delay_max: Duration::from_secs(1), ..LogFaults::default() };
    let took = |slowness| {
        let log = FaultyLog::new(Arc::new(MemoryLog::default()), 1, faults.clone());
        log.control().set_oddities(Oddities { slowness, ..Oddities::default() });
        async move {
            let began = tokio::time::Instant::now();
            log.tail().await.unwrap();
            began.elapsed().as_millis()
        }
    };
    let (usual, slow) = (took(0).await, took(20).await);
    assert!(slow.abs_diff(usual * 20) <= 40, "{usual} and {slow}");
}
