//! What producers did in their transactions, and what readers saw of them.
//!
//! Every value says which transaction sent it. So what a reader sees is judged at once as far as it
//! can be; the rest is for [`super::rules`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use odradek_protocol::id::TopicPartition;
use tokio::time::Instant;

use super::consumer::Chunk;

/// A rule, and how it was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// What was seen.
    pub how: String,
}

/// What a producer knows of the end of its transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It never asked for a commit.
    #[default]
    Unasked,
    /// It asked for a commit, and does not know what came of it.
    Unknown,
    /// It was told that it is committed.
    Committed,
    /// It was told that it is aborted, or that it can't be committed.
    Aborted,
}

/// A transaction as its producer sees it.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// The transactional id, and which of those who use it.
    pub producer: (String, u64),
    /// Its records in the order in which they were sent.
    pub records: Vec<Sent>,
    /// What it has read.
    pub steps: Vec<Step>,
    /// How it ended.
    pub ending: Ending,
    /// Where readers were told, before it was to be committed, that nothing is open any more: right
    /// if it had been aborted by then.
    pub passed: Vec<String>,
}

/// A record of a transaction.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Where it was sent.
    pub partition: TopicPartition,
    /// Its value, which nobody else sends.
    pub value: Bytes,
    /// Where it was said to be.
    pub offset: Option<i64>,
}

/// Records that a transaction has read, and whose position it has staged.
#[derive(Clone, Debug)]
pub struct Step {
    /// For which group.
    pub group: String,
    /// From where.
    pub partition: TopicPartition,
    /// The offset at which it began to read.
    pub from: i64,
    /// The position it has staged.
    pub to: i64,
}

/// The ledger of a world. Clones are the same.
#[derive(Clone, Debug)]
pub struct Ledger {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    transactions: Vec<Transaction>,
    /// What stands at each offset, whoever was shown it.
    values: BTreeMap<TopicPartition, BTreeMap<i64, Bytes>>,
    /// Whether read_committed readers that came by an offset were shown it.
    shown: BTreeMap<TopicPartition, BTreeMap<i64, bool>>,
    /// The last stable offset of each broker.
    stable: BTreeMap<(u64, TopicPartition), i64>,
    /// The largest of all brokers.
    stable_max: BTreeMap<TopicPartition, i64>,
    /// Positions of groups whose commit was acknowledged.
    positions: BTreeMap<(String, TopicPartition), i64>,
    violations: Vec<Violation>,
    trace: Vec<String>,
}

impl Default for Ledger {
    fn default() -> Self {
        let shared = Shared {
            began: Instant::now(),
            transactions: Vec::new(),
            values: BTreeMap::new(),
            shown: BTreeMap::new(),
            stable: BTreeMap::new(),
            stable_max: BTreeMap::new(),
            positions: BTreeMap::new(),
            violations: Vec::new(),
            trace: Vec::new(),
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }
}

/// Which transaction a value comes from, and what it says without that.
pub fn origin(value: &Bytes) -> (&str, usize) {
    let text = str::from_utf8(value).unwrap();
    let (payload, transaction) = text.rsplit_once('#').unwrap();
    (payload, transaction.parse().unwrap())
}

/// A value that says which transaction it comes from.
pub fn value(payload: &str, transaction: usize) -> Bytes {
    Bytes::from(format!("{payload}#{transaction}"))
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// Adds a line to the story.
    pub fn say(&self, what: &str) {
        self.lock().say(what);
    }

    /// Adds a violation.
    pub fn accuse(&self, rule: &'static str, how: String) {
        self.lock().accuse(rule, how);
    }

    /// A transaction begins. Returns its number.
    pub fn begin(&self, id: &str, instance: u64) -> usize {
        let mut shared = self.lock();
        let producer = (id.to_owned(), instance);
        shared.transactions.push(Transaction { producer, ..Transaction::default() });
        shared.transactions.len() - 1
    }

    /// A record is about to be sent. Returns its place in the transaction.
    pub fn send(&self, number: usize, partition: TopicPartition, value: Bytes) -> usize {
        let mut shared = self.lock();
        let records = &mut shared.transactions[number].records;
        records.push(Sent { partition, value, offset: None });
        records.len() - 1
    }

    /// A record was acknowledged.
    pub fn acknowledge(&self, number: usize, place: usize, offset: i64) {
        let mut shared = self.lock();
        shared.transactions[number].records[place].offset = Some(offset);
    }

    /// A position was staged.
    pub fn stage(&self, number: usize, step: Step) {
        self.lock().transactions[number].steps.push(step);
    }

    /// A commit is about to be asked for.
    pub fn ask(&self, number: usize) {
        let mut shared = self.lock();
        shared.transactions[number].ending = Ending::Unknown;
        let Shared { transactions, stable_max, .. } = &mut *shared;
        let Transaction { records, passed, .. } = &mut transactions[number];
        for Sent { partition, offset, .. } in records {
            let stable = stable_max.get(partition).copied().unwrap_or(0);
            if let Some(offset) = offset.filter(|offset| stable > *offset) {
                passed.push(format!("stable up to {stable}, a record at {offset} of {partition}"));
            }
        }
    }

    /// A transaction has ended.
    pub fn end(&self, number: usize, ending: Ending) {
        let mut shared = self.lock();
        let transaction = &mut shared.transactions[number];
        transaction.ending = ending;
        let Transaction { producer: (id, instance), records, steps, .. } = transaction.clone();
        shared.say(&format!("{id}/{instance}: #{number} {ending:?}, {} records", records.len()));
        if ending == Ending::Committed {
            for Step { group, partition, to, .. } in steps {
                let position = shared.positions.entry((group, partition)).or_default();
                *position = to.max(*position);
            }
        }
    }

    /// A position that a group has for sure.
    pub fn position(&self, group: &str, partition: TopicPartition) -> i64 {
        self.lock().positions.get(&(group.to_owned(), partition)).copied().unwrap_or(0)
    }

    /// A reader was shown a part of a partition.
    pub fn show(&self, reader: &str, broker: u64, partition: TopicPartition, chunk: &Chunk) {
        let mut shared = self.lock();
        let at = format!("{reader} at broker {broker}, {partition}");
        for (offset, value) in &chunk.records {
            let values = shared.values.entry(partition).or_default();
            let known = values.entry(*offset).or_insert_with(|| value.clone()).clone();
            if known != *value {
                shared.accuse("R1", format!("{at}: {value:?} at {offset}, it was {known:?}"));
            }
        }
        if chunk.is_committed {
            shared.judge_committed(&at, partition, chunk);
        }
    }

    /// A broker says that nothing below `stable` is open, in a partition that ends at `end`, while
    /// `open` is the first offset of a transaction that is.
    pub fn watch(
        &self,
        broker: u64,
        partition: TopicPartition,
        (stable, end): (i64, i64),
        open: i64,
    ) {
        let mut shared = self.lock();
        let before = shared.stable.insert((broker, partition), stable).unwrap_or(0);
        if before > stable || stable > end.min(open) {
            let how = format!("broker {broker}, {partition}: {stable} of {end} after {before}");
            shared.accuse("W1", format!("{how}, open from {open} on"));
        }
        let stable_max = shared.stable_max.entry(partition).or_default();
        *stable_max = stable.max(*stable_max);
    }

    /// What has been shown at read_committed, by offset: whether there was something to see.
    pub fn shown(&self) -> BTreeMap<TopicPartition, BTreeMap<i64, bool>> {
        self.lock().shown.clone()
    }

    /// All transactions so far, by number.
    pub fn transactions(&self) -> Vec<Transaction> {
        self.lock().transactions.clone()
    }

    /// What went wrong so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.lock().violations.clone()
    }

    /// The story so far.
    pub fn trace(&self) -> Vec<String> {
        self.lock().trace.clone()
    }
}

impl Shared {
    fn say(&mut self, what: &str) {
        let at = self.began.elapsed().as_millis();
        self.trace.push(format!("{at:>8} {what}"));
    }

    fn accuse(&mut self, rule: &'static str, how: String) {
        self.say(&format!("{rule} IS BROKEN: {how}"));
        self.violations.push(Violation { rule, how });
    }

    fn judge_committed(&mut self, at: &str, partition: TopicPartition, chunk: &Chunk) {
        for (offset, value) in &chunk.records {
            let ending = self.transactions[origin(value).1].ending;
            if matches!(ending, Ending::Unasked | Ending::Aborted) {
                self.accuse("G1a", format!("{at}: {value:?} at {offset} is {ending:?}"));
            }
        }
        let mut visible = chunk.records.iter().map(|(offset, _)| *offset).peekable();
        let mut differs = Vec::new();
        let shown = self.shown.entry(partition).or_default();
        for offset in chunk.from..chunk.next {
            let is_visible = visible.next_if_eq(&offset).is_some();
            if *shown.entry(offset).or_insert(is_visible) != is_visible {
                differs.push((offset, is_visible));
            }
        }
        if !differs.is_empty() {
            self.accuse("R14", format!("{at}: shown to some and not to others: {differs:?}"));
        }
        if chunk.next > chunk.watermarks.last_stable_offset.0.max(chunk.from) {
            let watermarks = chunk.watermarks;
            self.accuse("W1", format!("{at}: read up to {} in {watermarks:?}", chunk.next));
        }
    }
}
