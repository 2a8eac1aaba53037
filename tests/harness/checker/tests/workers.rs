//! Clients of the small Kafka: one operation at a time, in several moments.

use std::collections::{BTreeMap, VecDeque};

use super::kafka::{INPUTS, Kafka, MEMBERS, State};
use crate::history::{Event, Isolation, Kind, Mop, Polled, Stage};

/// A step of an operation that is yet to be done.
#[derive(Clone, Copy, Debug)]
enum Todo {
    Send(usize, i64),
    Poll,
    /// Anything that takes effect at once.
    Effect,
    /// The end of a transaction.
    End,
}

/// A process.
pub(super) struct Worker {
    process: u64,
    role: Role,
    isolation: Isolation,
    ops: u64,
    todo: VecDeque<Todo>,
    /// What will be said when it is over.
    doing: Event,
    transaction: Option<usize>,
    /// Whether it is not to be learned what came of it.
    lost: bool,
    next: BTreeMap<usize, i64>,
    /// Where it was before the transaction.
    before: BTreeMap<usize, i64>,
    /// The generation that it was told.
    generation: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Sends, polls, transactions, questions.
    Mixed,
    /// Copies the first two keys to the last two.
    Pipeline,
    /// One of the group that is rebalanced.
    Member(usize),
}

impl Worker {
    pub(super) fn new(process: u64, kafka: &mut Kafka) -> Self {
        let role = match process {
            0..6 => Role::Mixed,
            6 => Role::Pipeline,
            member => Role::Member(usize::try_from(member - 7).unwrap()),
        };
        let isolation =
            if process == 1 { Isolation::ReadUncommitted } else { Isolation::ReadCommitted };
        let (idempotent, shown) = (Some(process != 2), Some(isolation));
        let tv = Some(if process == 3 { 1 } else { 2 });
        let f = Kind::Header;
        kafka.write(process, Event { f, idempotent, isolation: shown, tv, ..Event::default() });
        if process < 3 {
            kafka.write(99, Event { f: Kind::Started, broker: Some(process), ..Event::default() });
            kafka.write(99, Event { f: Kind::Serving, broker: Some(process), ..Event::default() });
        }
        Self {
            process,
            role,
            isolation,
            ops: 0,
            todo: VecDeque::new(),
            doing: Event::default(),
            transaction: None,
            lost: false,
            next: BTreeMap::new(),
            before: BTreeMap::new(),
            generation: -1,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.todo.is_empty()
    }

    pub(super) fn step(&mut self, kafka: &mut Kafka) {
        let Some(todo) = self.todo.pop_front() else {
            self.begin(kafka);
            return;
        };
        match todo {
            Todo::Send(key, value) => self.send(kafka, key, value),
            Todo::Poll => self.poll(kafka),
            Todo::Effect => self.effect(kafka),
            Todo::End => self.end(kafka),
        }
        if self.todo.is_empty() {
            self.complete(kafka);
        }
    }

    fn begin(&mut self, kafka: &mut Kafka) {
        self.lost = kafka.faulty && kafka.chance(0.3);
        self.before = self.next.clone();
        let draw = kafka.below(100);
        let event = match self.role {
            Role::Pipeline => self.plan_copies(kafka),
            Role::Member(member) => self.plan_member(kafka, member, draw),
            Role::Mixed if self.next.is_empty() || draw < 3 => self.plan_assign(kafka),
            Role::Mixed if draw < 35 => self.plan_send(kafka),
            Role::Mixed if draw < 65 => {
                self.todo.push_back(Todo::Poll);
                Event {
                    f: Kind::Poll,
                    mops: vec![Mop::Poll(Polled::default())],
                    ..Event::default()
                }
            }
            Role::Mixed if draw < 85 && self.isolation == Isolation::ReadCommitted => {
                self.plan_transaction(kafka)
            }
            Role::Mixed => self.plan_question(kafka, draw),
        };
        self.ops += 1;
        self.doing = Event { op: Some(self.ops), ..event };
        let mut asked = Event { stage: Stage::Invoke, ..self.doing.clone() };
        // What a pipeline has read already.
        self.doing.mops.retain(|mop| matches!(mop, Mop::Poll(polled) if !polled.0.is_empty()));
        for mop in &mut asked.mops {
            if let Mop::Poll(polled) = mop {
                *polled = Polled::default();
            }
        }
        kafka.write(self.process, asked);
        self.doing.copies.clear();
    }

    fn plan_assign(&mut self, kafka: &mut Kafka) -> Event {
        self.todo.push_back(Todo::Effect);
        let first = kafka.below(INPUTS - 1);
        let keys = [first, first + 1].map(|key| kafka.keys[key].clone());
        let offsets = keys.iter().map(|key| (key.clone(), 0)).collect();
        Event { f: Kind::Assign, keys: keys.to_vec(), offsets, ..Event::default() }
    }

    fn plan_sends(&mut self, kafka: &mut Kafka, from: usize, keys: usize) -> Mop {
        let (key, value) = (from + kafka.below(keys), kafka.value(self.process));
        self.todo.push_back(Todo::Send(key, value));
        Mop::Send { key: kafka.keys[key].clone(), value, offset: None }
    }

    fn plan_send(&mut self, kafka: &mut Kafka) -> Event {
        let sends = 1 + kafka.below(3);
        let mops = (0..sends).map(|_| self.plan_sends(kafka, 0, INPUTS)).collect();
        Event { f: Kind::Send, mops, ..Event::default() }
    }

    fn plan_transaction(&mut self, kafka: &mut Kafka) -> Event {
        let mut mops = Vec::new();
        for _ in 0..1 + kafka.below(4) {
            if kafka.chance(0.3) {
                self.todo.push_back(Todo::Poll);
                mops.push(Mop::Poll(Polled::default()));
            } else {
                mops.push(self.plan_sends(kafka, 0, INPUTS));
            }
        }
        self.todo.push_back(Todo::End);
        kafka.transactions.push(State::Open);
        self.transaction = Some(kafka.transactions.len() - 1);
        Event { f: Kind::Txn, mops, ..Event::default() }
    }

    /// What a pipeline reads it writes; where its group stands is where it begins the next time.
    fn plan_copies(&mut self, kafka: &mut Kafka) -> Event {
        let (mut mops, mut copies) = (Vec::new(), Vec::new());
        let (mut polled, mut offsets) = (Vec::new(), BTreeMap::new());
        for key in 0..2 {
            let name = kafka.keys[key].clone();
            let at = kafka.positions.get(&("copy".to_owned(), key)).copied().unwrap_or(0);
            let (values, next) = kafka.read(key, at, self.isolation, 3);
            for &(_, source) in &values {
                mops.push(self.plan_sends(kafka, INPUTS, 2));
                let Some(Mop::Send { value, .. }) = mops.last() else { continue };
                copies.push((source, *value));
            }
            offsets.insert(name.clone(), next);
            polled.push((name, values));
        }
        mops.insert(0, Mop::Poll(Polled(polled)));
        self.todo.push_back(Todo::End);
        kafka.transactions.push(State::Open);
        self.transaction = Some(kafka.transactions.len() - 1);
        let group = Some("copy".to_owned());
        Event { f: Kind::Txn, mops, copies, offsets, group, ..Event::default() }
    }

    fn plan_question(&mut self, kafka: &mut Kafka, draw: usize) -> Event {
        self.todo.push_back(Todo::Effect);
        let key = kafka.below(kafka.keys.len());
        let key = Some(kafka.keys[key].clone());
        if draw < 92 {
            return Event { f: Kind::ListOffsets, key, ..Event::default() };
        }
        if draw < 99 {
            let broker = Some(u64::try_from(kafka.below(3)).unwrap());
            return Event { f: Kind::Watermarks, key, broker, ..Event::default() };
        }
        // Of a key that no pipeline reads, and little.
        let key = 2 + kafka.below(2);
        let offset = Some(kafka.starts[key] + (kafka.stable(key) - kafka.starts[key]) / 4);
        let key = Some(kafka.keys[key].clone());
        Event { f: Kind::DeleteRecords, key, offset, ..Event::default() }
    }

    fn plan_member(&mut self, kafka: &mut Kafka, member: usize, draw: usize) -> Event {
        if self.generation != kafka.generation && kafka.chance(0.5) || draw < 5 {
            self.join(kafka, member, draw < 5);
        }
        self.todo.push_back(Todo::Effect);
        let key = 2 * member + kafka.below(2);
        let name = Some(kafka.keys[key].clone());
        let group = Some("g".to_owned());
        let asked = Event { group, member: Some(MEMBERS[member].to_owned()), ..Event::default() };
        let generation = Some(self.generation);
        match draw {
            0..40 => {
                let offset = kafka.positions.get(&("g".to_owned(), key)).copied().unwrap_or(0);
                let offset = Some(offset + i64::try_from(kafka.below(3)).unwrap());
                Event { f: Kind::Commit, key: name, generation, offset, ..asked }
            }
            40..70 => Event { f: Kind::Committed, key: name, ..asked },
            _ => Event { f: Kind::Heartbeat, generation, ..asked },
        }
    }

    /// Learns of the newest generation, after making one if `anew`.
    fn join(&mut self, kafka: &mut Kafka, member: usize, anew: bool) {
        kafka.generation += i64::from(anew);
        self.generation = kafka.generation;
        let keys = kafka.keys[2 * member..2 * member + 2].to_vec();
        let (group, member) = (Some("g".to_owned()), Some(MEMBERS[member].to_owned()));
        let generation = Some(self.generation);
        let f = Kind::Assigned;
        kafka.write(self.process, Event { f, keys, group, member, generation, ..Event::default() });
        kafka.time += 1;
    }

    fn send(&mut self, kafka: &mut Kafka, key: usize, value: i64) {
        let name = kafka.keys[key].clone();
        let outside = self.transaction.is_none();
        if outside && self.lost && kafka.chance(0.5) {
            if kafka.chance(0.5) {
                kafka.append_late(key, value);
            }
            self.doing.mops.push(Mop::Send { key: name, value, offset: None });
            return;
        }
        let offset = Some(kafka.append(key, Some(value), self.transaction));
        let offset = offset.filter(|_| !(outside && self.lost));
        self.doing.mops.push(Mop::Send { key: name, value, offset });
    }

    fn poll(&mut self, kafka: &mut Kafka) {
        let mut polled = Vec::new();
        for (&key, next) in &mut self.next {
            let most = 1 + kafka.below(5);
            let (values, after) = kafka.read(key, *next, self.isolation, most);
            *next = after;
            if !values.is_empty() {
                polled.push((kafka.keys[key].clone(), values));
            }
        }
        self.doing.mops.push(Mop::Poll(Polled(polled)));
    }

    fn end(&mut self, kafka: &mut Kafka) {
        let Some(transaction) = self.transaction.take() else { return };
        let aborts = kafka.chance(0.15);
        kafka.finish(transaction, if aborts { State::Aborted } else { State::Committed });
        if aborts {
            self.next = std::mem::take(&mut self.before);
            self.doing.aborted = Some(true);
        } else if let Some(group) = &self.doing.group {
            for (name, offset) in &self.doing.offsets {
                let key = kafka.keys.iter().position(|key| key == name).unwrap();
                kafka.positions.insert((group.clone(), key), *offset);
            }
        }
        self.doing.committed = Some(!aborts);
    }

    fn effect(&mut self, kafka: &mut Kafka) {
        let of = |name: &String| kafka.keys.iter().position(|key| key == name);
        let key = self.doing.key.as_ref().and_then(of).unwrap_or_default();
        let doing = &mut self.doing;
        match doing.f {
            Kind::Assign => {
                self.next = doing.keys.iter().map(|key| (of(key).unwrap(), 0)).collect()
            }
            Kind::ListOffsets if self.isolation == Isolation::ReadCommitted => {
                doing.end = Some(kafka.stable(key));
            }
            Kind::ListOffsets => doing.end = Some(kafka.end(key)),
            Kind::Watermarks => {
                doing.log_start = Some(kafka.starts[key]);
                (doing.stable, doing.high) = (Some(kafka.stable(key)), Some(kafka.end(key)));
            }
            Kind::DeleteRecords => {
                kafka.starts[key] = kafka.starts[key].max(doing.offset.unwrap());
            }
            Kind::Commit if doing.generation == Some(kafka.generation) => {
                kafka.positions.insert(("g".to_owned(), key), doing.offset.unwrap());
            }
            Kind::Committed => {
                let at = kafka.positions.get(&("g".to_owned(), key)).copied();
                doing.offset = Some(at.unwrap_or(-1));
            }
            Kind::Commit | Kind::Heartbeat if doing.generation != Some(kafka.generation) => {
                doing.error = Some("ILLEGAL_GENERATION".to_owned());
            }
            _ => {}
        }
    }

    fn complete(&mut self, kafka: &mut Kafka) {
        let refused = self.doing.error.is_some() || self.doing.aborted == Some(true);
        let polls = matches!(self.doing.f, Kind::Poll | Kind::Assign);
        let stage = match (refused, self.lost && !polls) {
            // What it was told is lost as well.
            (_, true) => Stage::Info,
            (true, false) => Stage::Fail,
            (false, false) => Stage::Ok,
        };
        let mut event = std::mem::take(&mut self.doing);
        if stage == Stage::Info {
            (event.committed, event.aborted, event.error) = (None, None, None);
            (event.end, event.log_start, event.stable, event.high) = (None, None, None, None);
            if event.f == Kind::Committed {
                event.offset = None;
            }
            self.next.clone_from(&self.before);
        }
        kafka.write(self.process, Event { stage, ..event });
    }
}
