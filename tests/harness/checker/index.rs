//! A history as rules need it: operations with both their ends, keys and values with numbers, and
//! where each value was seen.

use std::collections::BTreeMap;
use std::mem;

use super::floor::Floor;
use crate::history::{Event, History, Isolation, Kind, Malformed, Mop, Place, Stage};

/// An operation.
#[derive(Clone, Debug)]
pub(super) struct Op {
    /// What its completion says, or its invocation if there is none. Without steps.
    pub(super) event: Event,
    /// When it was invoked, in microseconds.
    pub(super) began: u64,
    /// When it completed; none if it never did.
    pub(super) ended: Option<u64>,
    /// Never `Invoke`: what never completed may have happened.
    pub(super) outcome: Stage,
    /// What it sends, in order.
    pub(super) sends: Vec<Sent>,
    /// What it read, in order.
    pub(super) reads: Vec<Read>,
    /// Whether its producer is idempotent.
    pub(super) idempotent: bool,
    /// What its reader is shown.
    pub(super) isolation: Isolation,
    /// Its invocation.
    pub(super) place: Place,
}

/// A value that is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) key: usize,
    /// Index into [`Index::values`].
    pub(super) value: usize,
    /// As acknowledged.
    pub(super) offset: Option<i64>,
}

/// A value that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) key: usize,
    pub(super) offset: i64,
    /// The value itself.
    pub(super) number: i64,
    /// Index into [`Index::values`]; none if nobody sent it.
    pub(super) value: Option<usize>,
}

/// A value that somebody sent.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) number: i64,
    pub(super) key: usize,
    /// Index into [`Index::ops`].
    pub(super) op: usize,
    /// Where it stands in its key: as acknowledged, else as first read.
    pub(super) offset: Option<i64>,
    /// Whether anybody read it.
    pub(super) read: bool,
    /// Whether anybody read it who is shown only what is committed.
    pub(super) read_committed: bool,
    /// Whether it is surely there for all to see.
    pub(super) stands: bool,
}

/// All of a history.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// By the time of their invocations.
    pub(super) ops: Vec<Op>,
    /// By time.
    pub(super) facts: Vec<Event>,
    /// By number.
    pub(super) values: Vec<Value>,
    /// Names of keys.
    pub(super) keys: Vec<String>,
    /// By key: values that stand at a known offset and may not be gone, by offset.
    pub(super) required: Vec<Vec<(i64, usize)>>,
    /// By key: deletions that were asked for, by when they were.
    pub(super) deletions: Vec<Floor>,
    /// By key: what its topic keeps.
    kept: Vec<Kept>,
    /// The time of the last event.
    pub(super) end: u64,
    names: BTreeMap<String, usize>,
}

/// How long records are kept.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    us: Option<u64>,
    compacted: bool,
}

/// How much earlier a record may go: clocks differ by that.
const SKEW_US: u64 = 5_000_000;

impl Index {
    /// Puts a history together.
    ///
    /// # Errors
    /// Completions without invocations, values that are sent twice, operations that lack what the
    /// rules are about.
    pub(super) fn new(mut history: History) -> Result<Self, Malformed> {
        let mut index = Self::default();
        let mut open: BTreeMap<(u64, u64), usize> = BTreeMap::new();
        let mut headers: BTreeMap<u64, Event> = BTreeMap::new();
        for event in mem::take(&mut history.events) {
            index.end = index.end.max(event.time_us);
            check_shape(&event).map_err(|what| history.malformed(event.place, what))?;
            let Some(op) = event.op.filter(|_| event.f.is_operation()) else {
                if event.f == Kind::Header {
                    headers.insert(event.process, event.clone());
                }
                index.facts.push(event);
                continue;
            };
            let known = open.get(&(event.process, op)).copied();
            match (event.stage, known) {
                (Stage::Invoke, None) => {
                    open.insert((event.process, op), index.ops.len());
                    index.begin(event, &headers);
                }
                (Stage::Invoke, Some(_)) => {
                    return Err(history.malformed(event.place, "invoked twice"));
                }
                (_, None) => return Err(history.malformed(event.place, "never invoked")),
                (_, Some(at)) => {
                    let place = event.place;
                    index.complete(at, event).map_err(|what| history.malformed(place, what))?;
                }
            }
        }
        index.name_all();
        index.number(&history)?;
        index.keep();
        index.sight();
        Ok(index)
    }

    /// The number of a key.
    pub(super) fn key(&mut self, name: &str) -> usize {
        if let Some(&key) = self.names.get(name) {
            return key;
        }
        let key = self.keys.len();
        self.keys.push(name.to_owned());
        self.names.insert(name.to_owned(), key);
        key
    }

    /// The number of a key that is mentioned anywhere.
    pub(super) fn find_key(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// The value of that number.
    pub(super) fn find_value(&self, number: i64) -> Option<usize> {
        self.values.binary_search_by_key(&number, |value| value.number).ok()
    }

    /// Values of `key` that everybody sees, from offset `first` until before `last`.
    pub(super) fn skipped(&self, key: usize, first: i64, last: i64) -> impl Iterator<Item = usize> {
        let values = &self.required[key];
        let from = values.partition_point(|(offset, _)| *offset < first);
        let values = values[from..].iter().take_while(move |(offset, _)| *offset < last);
        values.map(|(_, value)| *value)
    }

    /// Operations that ended well.
    pub(super) fn ok(&self) -> impl Iterator<Item = (usize, &Op)> {
        self.ops.iter().enumerate().filter(|(_, op)| op.outcome == Stage::Ok)
    }

    /// Whether what stands at `offset` of `key`, sent at `sent`, may be gone at `time`.
    pub(super) fn may_be_gone(&self, key: usize, offset: i64, sent: u64, time: u64) -> bool {
        let kept = self.kept[key];
        let old = kept.us.is_some_and(|us| time >= sent + us.saturating_sub(SKEW_US));
        let deleted = self.deletions[key].before(time).is_some_and(|(first, _)| first > offset);
        kept.compacted || old || deleted
    }

    fn begin(&mut self, mut event: Event, headers: &BTreeMap<u64, Event>) {
        let header = headers.get(&event.process);
        let isolation = event.isolation.or_else(|| header.and_then(|it| it.isolation));
        let default =
            if event.f == Kind::Txn { Isolation::ReadCommitted } else { Isolation::default() };
        let idempotent = header.is_some_and(|it| it.idempotent == Some(true));
        event.tv = event.tv.or_else(|| header.and_then(|it| it.tv));
        self.ops.push(Op {
            began: event.time_us,
            ended: None,
            outcome: Stage::Info,
            sends: Vec::new(),
            reads: Vec::new(),
            idempotent: idempotent || event.f == Kind::Txn,
            isolation: isolation.unwrap_or(default),
            place: event.place,
            event,
        });
    }

    fn complete(&mut self, at: usize, mut event: Event) -> Result<(), &'static str> {
        let op = &mut self.ops[at];
        if op.ended.is_some() {
            return Err("completed twice");
        }
        if op.event.f != event.f {
            return Err("completes as something else than it was invoked as");
        }
        let asked = &mut op.event;
        if event.mops.is_empty() {
            event.mops = mem::take(&mut asked.mops);
        }
        if event.copies.is_empty() {
            event.copies = mem::take(&mut asked.copies);
        }
        if event.offsets.is_empty() {
            event.offsets = mem::take(&mut asked.offsets);
        }
        for (new, old) in
            [(&mut event.keys, &mut asked.keys), (&mut event.topics, &mut asked.topics)]
        {
            if new.is_empty() {
                *new = mem::take(old);
            }
        }
        for (new, old) in [
            (&mut event.key, &mut asked.key),
            (&mut event.group, &mut asked.group),
            (&mut event.member, &mut asked.member),
            (&mut event.instance, &mut asked.instance),
        ] {
            *new = new.take().or_else(|| old.take());
        }
        event.generation = event.generation.or(asked.generation);
        event.broker = event.broker.or(asked.broker);
        event.protocol = event.protocol.or(asked.protocol);
        event.tv = event.tv.or(asked.tv);
        if !matches!(event.f, Kind::Committed) {
            event.offset = event.offset.or(asked.offset);
        }
        op.ended = Some(event.time_us);
        op.outcome = event.stage;
        if event.f == Kind::Txn && event.stage == Stage::Ok && event.committed == Some(false) {
            op.outcome = Stage::Fail;
        }
        op.isolation = event.isolation.unwrap_or(op.isolation);
        op.event = event;
        Ok(())
    }

    /// Turns steps into what is sent and read.
    fn name_all(&mut self) {
        let mut ops = mem::take(&mut self.ops);
        for op in &mut ops {
            for mop in mem::take(&mut op.event.mops) {
                match mop {
                    Mop::Send { key, value, offset } => {
                        let key = self.key(&key);
                        let number = value;
                        self.values.push(Value {
                            number,
                            key,
                            op: 0,
                            offset: None,
                            read: false,
                            read_committed: false,
                            stands: false,
                        });
                        // Its index is known once all values are.
                        op.sends.push(Sent { key, value: self.values.len() - 1, offset });
                    }
                    Mop::Poll(polled) => {
                        for (key, values) in polled.0 {
                            let key = self.key(&key);
                            op.reads.extend(values.into_iter().map(|(offset, number)| Read {
                                key,
                                offset,
                                number,
                                value: None,
                            }));
                        }
                    }
                }
            }
            for name in op.event.keys.iter().chain(&op.event.key).chain(op.event.offsets.keys()) {
                self.key(name);
            }
        }
        self.ops = ops;
        let facts = mem::take(&mut self.facts);
        for fact in facts.iter().filter(|fact| fact.f != Kind::Topic) {
            for name in fact.keys.iter().chain(&fact.key) {
                self.key(name);
            }
        }
        self.facts = facts;
    }

    /// Sorts values, and says of each who sent it and of each read what it is.
    fn number(&mut self, history: &History) -> Result<(), Malformed> {
        let unsorted: Vec<i64> = self.values.iter().map(|value| value.number).collect();
        self.values.sort_by_key(|value| value.number);
        let mut ops = mem::take(&mut self.ops);
        for (at, op) in ops.iter_mut().enumerate() {
            for sent in &mut op.sends {
                let number = unsorted[sent.value];
                let value = self.find_value(number).unwrap_or_default();
                let twice = |next: Option<&Value>| next.is_some_and(|it| it.number == number);
                if twice(self.values.get(value + 1))
                    || value > 0 && twice(self.values.get(value - 1))
                {
                    return Err(history.malformed(op.place, format!("{number} is sent twice")));
                }
                sent.value = value;
                self.values[value].op = at;
                self.values[value].offset = sent.offset;
            }
        }
        for read in ops.iter_mut().flat_map(|op| &mut op.reads) {
            read.value = self.find_value(read.number);
        }
        self.ops = ops;
        Ok(())
    }

    /// Which records may be gone when.
    fn keep(&mut self) {
        self.kept = vec![Kept::default(); self.keys.len()];
        for fact in self.facts.iter().filter(|fact| fact.f == Kind::Topic) {
            let topic = fact.key.as_deref().unwrap_or_default();
            for (key, name) in self.keys.iter().enumerate() {
                if name.rsplit_once('/').is_some_and(|(of, _)| of == topic) {
                    let us = fact.retention_ms.map(|ms| ms.saturating_mul(1000));
                    self.kept[key] = Kept { us, compacted: fact.compacted == Some(true) };
                }
            }
        }
        self.deletions = vec![Floor::default(); self.keys.len()];
        for (at, op) in self.ops.iter().enumerate() {
            if op.event.f == Kind::DeleteRecords && op.outcome != Stage::Fail {
                let key = op.event.key.as_deref().and_then(|name| self.find_key(name));
                if let (Some(key), Some(offset)) = (key, op.event.offset) {
                    // -1 stands for everything there is.
                    let offset = if offset < 0 { i64::MAX } else { offset };
                    self.deletions[key].push(op.began, offset, at);
                }
            }
        }
        self.deletions.iter_mut().for_each(Floor::seal);
    }

    /// What was seen, what is proven by it, and what must be there.
    fn sight(&mut self) {
        // Where what was not acknowledged stands: the first place, should there be several.
        let mut places: Vec<Option<i64>> = vec![None; self.values.len()];
        for op in &self.ops {
            for read in &op.reads {
                let Some(at) = read.value else { continue };
                let value = &mut self.values[at];
                if value.key == read.key {
                    places[at] = Some(places[at].unwrap_or(i64::MAX).min(read.offset));
                    value.read = true;
                    value.read_committed |= op.isolation == Isolation::ReadCommitted;
                }
            }
        }
        for (value, place) in self.values.iter_mut().zip(places) {
            value.offset = value.offset.or(place);
        }
        for op in &self.ops {
            let seen = |sent: &Sent| self.values[sent.value].read_committed;
            let proven = op.event.f == Kind::Txn && op.sends.iter().any(seen);
            for sent in &op.sends {
                let value = &mut self.values[sent.value];
                value.stands = match op.outcome {
                    Stage::Ok => true,
                    Stage::Fail => false,
                    Stage::Invoke | Stage::Info => proven || op.event.f == Kind::Send && value.read,
                };
            }
        }
        let mut required = vec![Vec::new(); self.keys.len()];
        for (at, value) in self.values.iter().enumerate().filter(|(_, value)| value.stands) {
            let Some(offset) = value.offset else { continue };
            if !self.may_be_gone(value.key, offset, self.ops[value.op].began, self.end) {
                required[value.key].push((offset, at));
            }
        }
        required.iter_mut().for_each(|values| values.sort_unstable());
        self.required = required;
    }
}

/// Whether an event has what its kind must have.
fn check_shape(event: &Event) -> Result<(), &'static str> {
    use Kind::{Commit, Committed, DeleteRecords, ListOffsets, Poll, Seek, Send, Txn, Watermarks};
    let done = event.stage == Stage::Ok;
    if event.f.is_operation() {
        if event.op.is_none() {
            return Err("an operation without op");
        }
    } else if event.stage != Stage::Ok {
        return Err("a fact whose stage is not ok");
    }
    let invoked = event.stage == Stage::Invoke;
    match event.f {
        Send | Poll if invoked && event.mops.is_empty() => Err("no mops"),
        Send if event.mops.iter().any(|mop| !matches!(mop, Mop::Send { .. })) => {
            Err("a send that polls")
        }
        Poll if event.mops.iter().any(|mop| !matches!(mop, Mop::Poll(_))) => {
            Err("a poll that sends")
        }
        Seek | ListOffsets | Commit | Committed | Watermarks | DeleteRecords
            if invoked && event.key.is_none() =>
        {
            Err("no key")
        }
        Commit | Committed if invoked && event.group.is_none() => Err("no group"),
        Txn if invoked && !event.offsets.is_empty() && event.group.is_none() => Err("no group"),
        ListOffsets if done && event.end.is_none_or(|end| end < 0) => Err("no end"),
        Committed if done && event.offset.is_none() => Err("no offset"),
        Commit | Seek if invoked && event.offset.is_none() => Err("no offset"),
        Kind::Assigned if event.group.is_none() || event.generation.is_none() => {
            Err("no group or generation")
        }
        Kind::Fault if event.name.is_none() || event.on.is_none() => Err("no name or on"),
        Kind::Topic if event.key.is_none() => Err("no key"),
        _ => Ok(()),
    }
}
