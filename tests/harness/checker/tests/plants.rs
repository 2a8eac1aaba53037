//! Anomalies that are planted in histories which had none.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::kafka;
use crate::checker::Rule;
use crate::history::{Event, Isolation, Kind, Mop, Stage};

mod groups;
mod logs;
mod service;
mod values;

/// A history and what is planted in it.
pub(super) struct Field {
    pub(super) events: Vec<Event>,
    pub(super) random: StdRng,
}

/// An anomaly: its name, the rule that is to find it, and how to plant it; none where a history has
/// no place for it.
pub(super) struct Plant {
    pub(super) name: &'static str,
    pub(super) rule: Rule,
    pub(super) plant: fn(&mut Field) -> Option<()>,
}

/// All anomalies.
pub(super) fn all() -> impl Iterator<Item = &'static Plant> {
    values::PLANTS.iter().chain(logs::PLANTS).chain(groups::PLANTS).chain(service::PLANTS)
}

/// A value that was sent, as its sender was told.
#[derive(Clone, Debug)]
struct Sent {
    /// Its operation's completion.
    event: usize,
    mop: usize,
    key: String,
    value: i64,
    offset: Option<i64>,
}

/// A value that was read.
#[derive(Clone, Debug)]
struct Read {
    event: usize,
    mop: usize,
    /// Which of the keys of its poll, and which of the values of that key.
    list: usize,
    at: usize,
    key: String,
    offset: i64,
    value: i64,
}

impl Field {
    pub(super) fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(!seed);
        Self { events: kafka::history(seed).events, random }
    }

    /// One of `these`.
    fn any<T: Clone>(&mut self, these: &[T]) -> Option<T> {
        these.choose(&mut self.random).cloned()
    }

    /// Any number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    /// Completions of `f` at `stage`.
    fn completions(&self, f: Kind, stage: Stage) -> Vec<usize> {
        let its = |event: &Event| event.f == f && event.stage == stage;
        (0..self.events.len()).filter(|at| its(&self.events[*at])).collect()
    }

    /// The invocation of what completes at `event`.
    fn invocation(&self, event: usize) -> usize {
        let done = &self.events[event];
        let its = |asked: &Event| (asked.process, asked.op) == (done.process, done.op);
        self.events.iter().position(its).unwrap()
    }

    /// The isolation of a process, by its header.
    fn isolation(&self, process: u64) -> Option<Isolation> {
        self.header(process).and_then(|header| header.isolation)
    }

    fn header(&self, process: u64) -> Option<&Event> {
        self.events.iter().find(|event| event.f == Kind::Header && event.process == process)
    }

    /// Values of operations that ended at `stage`.
    fn sent(&self, stage: Stage) -> Vec<Sent> {
        let mut sent = Vec::new();
        for (event, its) in self.events.iter().enumerate().filter(|(_, it)| it.stage == stage) {
            for (mop, step) in its.mops.iter().enumerate() {
                if let Mop::Send { key, value, offset } = step {
                    sent.push(Sent {
                        event,
                        mop,
                        key: key.clone(),
                        value: *value,
                        offset: *offset,
                    });
                }
            }
        }
        sent
    }

    /// Values that were read by operations that ended well, in the order of time.
    fn read(&self) -> Vec<Read> {
        let mut read = Vec::new();
        for (event, its) in self.events.iter().enumerate().filter(|(_, it)| it.stage == Stage::Ok) {
            for (mop, step) in its.mops.iter().enumerate() {
                let Mop::Poll(polled) = step else { continue };
                for (list, (key, values)) in polled.0.iter().enumerate() {
                    for (at, &(offset, value)) in values.iter().enumerate() {
                        let key = key.clone();
                        read.push(Read { event, mop, list, at, key, offset, value });
                    }
                }
            }
        }
        read
    }

    /// What the last looks read.
    fn finally_read(&self) -> Vec<Read> {
        let mut read = self.read();
        read.retain(|read| self.events[read.event].process == 90);
        read
    }

    /// Reads of operations that ended otherwise, too.
    fn polls(&mut self) -> impl Iterator<Item = &mut Vec<(i64, i64)>> {
        let steps = self.events.iter_mut().flat_map(|event| &mut event.mops);
        let polls = steps.filter_map(|step| match step {
            Mop::Poll(polled) => Some(polled),
            Mop::Send { .. } => None,
        });
        polls.flat_map(|polled| polled.0.iter_mut().map(|(_, values)| values))
    }

    /// Nobody ever read it.
    fn unread(&mut self, value: i64) {
        self.polls().for_each(|values| values.retain(|(_, other)| *other != value));
    }

    /// The values of a read's key in its poll.
    fn list(&mut self, read: &Read) -> &mut Vec<(i64, i64)> {
        let Mop::Poll(polled) = &mut self.events[read.event].mops[read.mop] else {
            panic!("no poll: {read:?}")
        };
        &mut polled.0[read.list].1
    }

    /// The operation of `event` also read this, in a poll of its own.
    fn also_read(&mut self, event: usize, key: &str, offset: i64, value: i64) {
        let polled = vec![(key.to_owned(), vec![(offset, value)])];
        self.events[event].mops.push(Mop::Poll(crate::history::Polled(polled)));
    }

    /// A partition whose values never go: nobody deletes there.
    fn is_kept(key: &str) -> bool {
        !key.starts_with("b/")
    }

    /// The time of the last event.
    fn end(&self) -> u64 {
        self.events.iter().map(|event| event.time_us).max().unwrap_or_default()
    }

    /// Something that happens at `time`, in the right place among the others.
    fn add(&mut self, time_us: u64, process: u64, event: Event) {
        let at = self.events.partition_point(|other| other.time_us <= time_us);
        self.events.insert(at, Event { time_us, process, ..event });
    }

    /// An operation that takes from `began` to `ended`.
    fn operation(&mut self, (began, ended): (u64, u64), process: u64, done: Event) {
        let mops = done.mops.iter().map(|step| match step {
            Mop::Poll(_) => Mop::Poll(crate::history::Polled::default()),
            Mop::Send { key, value, .. } => {
                Mop::Send { key: key.clone(), value: *value, offset: None }
            }
        });
        let op = Some(1_000_000_000 + began);
        let asked = Event { stage: Stage::Invoke, op, mops: mops.collect(), ..done.clone() };
        self.add(began, process, asked);
        self.add(ended, process, Event { op, ..done });
    }
}
