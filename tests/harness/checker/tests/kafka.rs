//! A small Kafka that keeps its promises, with clients that write histories of it.
//!
//! Operations begin, take effect and end at different moments, so they overlap; while a fault is
//! on, clients may not learn what came of them, and a send may arrive long after its client gave
//! up.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::workers::Worker;
use crate::history::{Event, History, Isolation, Kind, Mop, Place, Polled, Stage};

/// What stands at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// None for a marker.
    pub(super) value: Option<i64>,
    /// Index into [`Kafka::transactions`].
    pub(super) transaction: Option<usize>,
}

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Committed,
    Aborted,
}

/// Logs and groups, and all that happened.
pub(super) struct Kafka {
    pub(super) random: StdRng,
    pub(super) time: u64,
    /// Most microseconds between two moments.
    pace: u64,
    pub(super) keys: Vec<String>,
    logs: Vec<Vec<Slot>>,
    pub(super) starts: Vec<i64>,
    pub(super) transactions: Vec<State>,
    /// Where groups stand.
    pub(super) positions: BTreeMap<(String, usize), i64>,
    /// Generation of the group that is rebalanced.
    pub(super) generation: i64,
    /// Sends that are still on their way.
    late: Vec<(usize, i64)>,
    /// Whether a fault is on.
    pub(super) faulty: bool,
    pub(super) events: Vec<Event>,
    lines: BTreeMap<u64, u32>,
    values: i64,
}

/// Partitions that transactions and sends write to; two more are the output of a pipeline.
pub(super) const INPUTS: usize = 4;

/// The names of members of the group that is rebalanced.
pub(super) const MEMBERS: [&str; 2] = ["m0", "m1"];

impl Kafka {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let pace = if random.random_bool(0.5) { 2_000 } else { 20_000 };
        let keys = ["a/0", "a/1", "b/0", "b/1", "out/0", "out/1"].map(str::to_owned).to_vec();
        Self {
            random,
            time: 1,
            pace,
            logs: vec![Vec::new(); keys.len()],
            starts: vec![0; keys.len()],
            keys,
            transactions: Vec::new(),
            positions: BTreeMap::new(),
            generation: 0,
            late: Vec::new(),
            faulty: false,
            events: Vec::new(),
            lines: BTreeMap::new(),
            values: 0,
        }
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    pub(super) fn write(&mut self, process: u64, event: Event) {
        let line = self.lines.entry(process).or_default();
        *line += 1;
        let place = Place { file: u32::try_from(process).unwrap(), line: *line };
        self.events.push(Event { time_us: self.time, process, place, ..event });
    }

    pub(super) fn fact(&mut self, process: u64, f: Kind) {
        self.write(process, Event { f, ..Event::default() });
    }

    /// A value that nobody has sent.
    pub(super) fn value(&mut self, process: u64) -> i64 {
        self.values += 1;
        i64::try_from(process).unwrap() * 1_000_000_000 + self.values
    }

    pub(super) fn append(&mut self, key: usize, value: Option<i64>, of: Option<usize>) -> i64 {
        self.logs[key].push(Slot { value, transaction: of });
        self.end(key) - 1
    }

    /// Appends it at some later time.
    pub(super) fn append_late(&mut self, key: usize, value: i64) {
        self.late.push((key, value));
    }

    pub(super) fn finish(&mut self, transaction: usize, state: State) {
        self.transactions[transaction] = state;
        for key in 0..self.keys.len() {
            if self.logs[key].iter().any(|slot| slot.transaction == Some(transaction)) {
                self.append(key, None, Some(transaction));
            }
        }
    }

    pub(super) fn end(&self, key: usize) -> i64 {
        i64::try_from(self.logs[key].len()).unwrap()
    }

    /// The last stable offset.
    pub(super) fn stable(&self, key: usize) -> i64 {
        let open =
            |slot: &Slot| slot.transaction.is_some_and(|of| self.transactions[of] == State::Open);
        let first = self.logs[key].iter().position(open).map(|at| i64::try_from(at).unwrap());
        first.unwrap_or_else(|| self.end(key))
    }

    /// Up to `most` values of `key` from `next` on, and where to read next.
    pub(super) fn read(
        &self,
        key: usize,
        next: i64,
        isolation: Isolation,
        most: usize,
    ) -> (Vec<(i64, i64)>, i64) {
        let committed = isolation == Isolation::ReadCommitted;
        let end = if committed { self.stable(key) } else { self.end(key) };
        let mut next = next.max(self.starts[key]);
        let mut values = Vec::new();
        while next < end && values.len() < most {
            let slot = self.logs[key][usize::try_from(next).unwrap()];
            let aborted =
                slot.transaction.is_some_and(|of| self.transactions[of] == State::Aborted);
            if let Some(value) = slot.value.filter(|_| !(committed && aborted)) {
                values.push((next, value));
            }
            next += 1;
        }
        (values, next)
    }

    fn step(&mut self) {
        self.time += self.random.random_range(1..self.pace);
        if !self.late.is_empty() && self.chance(0.05) {
            let at = self.below(self.late.len());
            let (key, value) = self.late.swap_remove(at);
            self.append(key, Some(value), None);
        }
        if self.chance(0.005) {
            self.faulty = !self.faulty;
            let (name, on) = (Some("late_replies".to_owned()), Some(self.faulty));
            self.write(99, Event { f: Kind::Fault, name, on, ..Event::default() });
        }
    }

    /// Ends faults, restarts a broker, lets everything arrive, and reads everything.
    fn heal(&mut self) {
        if self.faulty {
            let name = Some("late_replies".to_owned());
            self.write(99, Event { f: Kind::Fault, name, on: Some(false), ..Event::default() });
        }
        for (key, value) in std::mem::take(&mut self.late) {
            self.append(key, Some(value), None);
        }
        for (f, asked, took) in [
            (Kind::Exited, Some(true), 10_000),
            (Kind::Started, None, 2_000_000),
            (Kind::Serving, None, 40_000_000),
        ] {
            self.write(99, Event { f, asked, broker: Some(0), ..Event::default() });
            self.time += took;
        }
        for process in [90, 91] {
            self.time += self.pace;
            let isolation = Isolation::ReadCommitted;
            let shown = Some(isolation);
            self.write(process, Event { f: Kind::Header, isolation: shown, ..Event::default() });
            self.fact(process, Kind::Final);
            let offsets = self.keys.iter().map(|key| (key.clone(), 0)).collect();
            let keys = self.keys.clone();
            self.operation(
                process,
                1,
                Event { f: Kind::Assign, keys, offsets, ..Event::default() },
            );
            let mut next = vec![0; self.keys.len()];
            for op in 2.. {
                let mut polled = Vec::new();
                for (key, next) in next.iter_mut().enumerate() {
                    let most = self.random.random_range(3..9);
                    let (values, after) = self.read(key, *next, isolation, most);
                    *next = after;
                    if !values.is_empty() {
                        polled.push((self.keys[key].clone(), values));
                    }
                }
                let over = polled.is_empty();
                let mops = vec![Mop::Poll(Polled(polled))];
                self.operation(process, op, Event { f: Kind::Poll, mops, ..Event::default() });
                if over {
                    break;
                }
            }
        }
    }

    /// An operation that is over at once.
    fn operation(&mut self, process: u64, op: u64, event: Event) {
        let mops = event.mops.iter().map(|_| Mop::Poll(Polled::default())).collect();
        let asked = Event { stage: Stage::Invoke, op: Some(op), mops, ..event.clone() };
        self.write(process, asked);
        self.time += self.random.random_range(1..1000);
        self.write(process, Event { stage: Stage::Ok, op: Some(op), ..event });
        self.time += 1;
    }
}

/// A history that keeps all rules.
pub(super) fn history(seed: u64) -> History {
    history_of(seed, 2_500)
}

/// The same with that many moments.
pub(super) fn history_of(seed: u64, moments: usize) -> History {
    let mut kafka = Kafka::new(seed);
    let mut workers: Vec<Worker> = (0..9).map(|process| Worker::new(process, &mut kafka)).collect();
    for _ in 0..moments {
        kafka.step();
        let worker = kafka.below(workers.len());
        workers[worker].step(&mut kafka);
    }
    while workers.iter().any(Worker::is_busy) {
        for worker in workers.iter_mut().filter(|worker| worker.is_busy()) {
            kafka.time += 1;
            worker.step(&mut kafka);
        }
    }
    kafka.heal();
    History { events: kafka.events, files: Vec::new() }
}
