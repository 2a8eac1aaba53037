//! What a test knows of topics: who sent what, what was acknowledged, what may be gone by now.
//!
//! A branch is its own records behind a point, and below it those of its parent, deleted or not.

use std::collections::{BTreeMap, BTreeSet};

use odradek_protocol::id::TopicId;
use odradek_storage::key::ObjectKey;

use super::records::{Found, Record};

/// How long what is in a topic is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// For ever.
    Plain,
    /// For a week: only a wrong clock can make it old, and then little goes.
    Week,
    /// For a time.
    Timed,
    /// Up to a size.
    Sized,
    /// The latest of each key.
    Compacted,
}

/// All of them.
pub const KINDS: [Kind; 5] = [Kind::Plain, Kind::Week, Kind::Timed, Kind::Sized, Kind::Compacted];

/// `retention.ms` of timed topics.
pub const TIMED_MS: i64 = 30_000;

/// `retention.bytes` of sized topics.
pub const SIZED_BYTES: usize = 6000;

/// A week's retention under a wrong clock: a tenth an hour may go, of ten minutes or a little more,
/// and what the pieces are too large by.
const WEEK_GONE_PERCENT: i64 = 4;

impl Kind {
    /// The configs of such a topic.
    pub fn configs(self) -> BTreeMap<String, String> {
        let bytes = SIZED_BYTES.to_string();
        let configs: &[(&str, &str)] = match self {
            Self::Plain => &[("retention.ms", "-1")],
            Self::Week => &[],
            Self::Timed => &[("retention.ms", "30000")],
            Self::Sized => &[("retention.ms", "-1"), ("retention.bytes", &bytes)],
            Self::Compacted => &[("cleanup.policy", "compact"), ("delete.retention.ms", "5000")],
        };
        configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }
}

/// A topic, living or not.
#[derive(Clone, Debug)]
pub struct Topic {
    /// What it is called.
    pub name: String,
    /// How it is kept.
    pub kind: Kind,
    /// Whose records it shares below which offset, and how far that one went then.
    pub parent: Option<(TopicId, i64, i64)>,
    /// Names of records, by the offsets at which they were acknowledged.
    pub acknowledged: BTreeMap<i64, u64>,
    /// Names of records of which that is not known.
    pub unknown: BTreeSet<u64>,
    /// Where it began, if it is a branch.
    pub floor: i64,
    /// Records below were asked to be deleted.
    pub deleted_below: i64,
    /// Records below were deleted.
    pub surely_deleted_below: i64,
    /// The latest log start offset that was seen.
    pub log_start: i64,
    /// Offsets at which something was when all was last read, and how far that was.
    pub seen: (BTreeSet<i64>, i64),
    /// Whether it was not asked to be deleted.
    pub lives: bool,
}

/// What was read of a topic.
#[derive(Debug)]
pub struct View {
    /// The log start offset before the first read.
    pub log_start: i64,
    /// Where reading ended.
    pub end: i64,
    /// What was there.
    pub batches: Vec<Found>,
}

/// All that is known.
#[derive(Debug, Default)]
pub struct Model {
    /// Every record that was ever sent.
    pub sent: BTreeMap<u64, Record>,
    /// Every topic that ever was.
    pub topics: BTreeMap<TopicId, Topic>,
    /// Whether a clock is wrong.
    pub jumped: bool,
    /// Whether a broker was started that has known no better one: it takes records for old.
    pub is_misled: bool,
    /// Snapshots that were damaged.
    pub damaged: BTreeSet<ObjectKey>,
}

impl Topic {
    /// A new one.
    pub fn new(name: String, kind: Kind) -> Self {
        Self {
            name,
            kind,
            parent: None,
            acknowledged: BTreeMap::new(),
            unknown: BTreeSet::new(),
            floor: 0,
            deleted_below: 0,
            surely_deleted_below: 0,
            log_start: 0,
            seen: (BTreeSet::new(), 0),
            lives: true,
        }
    }
}

impl Topic {
    /// What was gone once stays gone: whoever rewrites something must not bring back what another
    /// has taken out of it meanwhile.
    fn check_seen(&mut self, found: &BTreeMap<i64, u64>, end: i64) {
        let (seen, seen_end) = &self.seen;
        let back = found.range(..seen_end).find(|(offset, _)| !seen.contains(offset));
        assert!(back.is_none(), "{}: {back:?} is back, which was gone", self.name);
        self.seen = (found.keys().copied().collect(), end.max(*seen_end));
    }
}

impl Model {
    /// Topics of a kind that live.
    pub fn living(&self, kind: Option<Kind>) -> Vec<TopicId> {
        let living = self.topics.iter().filter(|(_, topic)| topic.lives);
        living.filter(|(_, it)| kind.is_none_or(|kind| it.kind == kind)).map(|it| *it.0).collect()
    }

    /// What is acknowledged in a topic, by offset: its own, and what it shares.
    pub fn acknowledged(&self, topic: TopicId) -> BTreeMap<i64, u64> {
        let (mut all, mut next, mut limit) = (BTreeMap::new(), Some(topic), i64::MAX);
        while let Some(topic) = next.map(|id| &self.topics[&id]) {
            all.extend(topic.acknowledged.range(..limit));
            next = topic.parent.map(|(parent, _, _)| parent);
            limit = topic.parent.map_or(limit, |(_, end, _)| limit.min(end));
        }
        all
    }

    /// The topic whose record lies at an offset.
    fn owner(&self, topic: TopicId, offset: i64) -> &Topic {
        let mut owner = &self.topics[&topic];
        while let Some((parent, end, _)) = owner.parent
            && offset < end
        {
            owner = &self.topics[&parent];
        }
        owner
    }

    /// Checks what was found in a topic. `required` was acknowledged before it was read, `now_ms`
    /// is a time after that.
    ///
    /// # Panics
    ///
    /// If it is not as it has to be.
    pub fn check(&mut self, id: TopicId, view: &View, required: &BTreeMap<i64, u64>, now_ms: i64) {
        let name = format!("{} ({:?})", self.topics[&id].name, self.topics[&id].kind);
        let found = self.check_found(id, view, &name);
        if let Some(topic) = self.topics.get_mut(&id) {
            topic.check_seen(&found, view.end);
        }
        let topic = &self.topics[&id];
        // How many bytes lie in batches behind that of an offset.
        let bytes_behind = |offset: i64| {
            let is_behind = |batch: &&Found| batch.records.first().is_some_and(|it| it.0 > offset);
            view.batches.iter().filter(is_behind).map(|batch| batch.bytes).sum::<usize>()
        };
        let floor = topic.floor.max(topic.deleted_below);
        let latest = self.latest(id, required);
        for (offset, record) in required.range(floor..) {
            let sent = &self.sent[record];
            let is_due = match topic.kind {
                Kind::Plain => false,
                Kind::Week => self.jumped && *offset * 100 < view.end * WEEK_GONE_PERCENT,
                Kind::Timed => self.is_misled || sent.timestamp < now_ms - TIMED_MS,
                Kind::Sized => bytes_behind(*offset) >= SIZED_BYTES,
                Kind::Compacted => self.is_superseded(id, *offset, sent, &latest, &found),
            };
            assert!(
                is_due || found.contains_key(offset),
                "{name}: {record} was acknowledged at {offset} and is gone; the log is from {} to \
                 {}, {sent:?}, {:?}",
                view.log_start,
                view.end,
                topic.parent,
            );
        }
        if topic.kind == Kind::Compacted {
            self.check_deleted_keys(required, floor, &found, &name);
        }
    }

    /// Everything that was found was sent, is whole, and is where it was said to be, once.
    fn check_found(&self, id: TopicId, view: &View, name: &str) -> BTreeMap<i64, u64> {
        let mut found = BTreeMap::new();
        let mut places: BTreeMap<u64, i64> = BTreeMap::new();
        for (offset, record) in view.batches.iter().flat_map(|batch| &batch.records) {
            let owner = self.owner(id, *offset);
            let sent = self.sent.get(&record.name);
            assert_eq!(sent, Some(record), "{name}: at {offset} is what nobody sent");
            let acknowledged = owner.acknowledged.get(offset);
            assert!(
                acknowledged == Some(&record.name)
                    || acknowledged.is_none() && owner.unknown.contains(&record.name),
                "{name}: at {offset} is {} instead of {acknowledged:?} of {}",
                record.name,
                owner.name,
            );
            let other = places.insert(record.name, *offset);
            assert_eq!(other, None, "{name}: {} is there twice, at {offset} too", record.name);
            let last = found.last_key_value().map(|(offset, _)| *offset);
            assert!(last < Some(*offset), "{name}: {offset} comes behind {last:?}");
            found.insert(*offset, record.name);
        }
        found
    }

    /// The latest acknowledged offset of each key, as far as compaction could know of it: the
    /// parent's, up to when it was branched, too.
    fn latest(&self, id: TopicId, required: &BTreeMap<i64, u64>) -> BTreeMap<u8, i64> {
        let mut latest: BTreeMap<u8, i64> = BTreeMap::new();
        let mut note = |offset: i64, record: u64| {
            let Some(key) = self.sent[&record].key else { return };
            let at = latest.entry(key).or_insert(offset);
            *at = offset.max(*at);
        };
        required.iter().for_each(|(offset, record)| note(*offset, *record));
        let mut next = self.topics[&id].parent;
        while let Some((parent, end, seen)) = next {
            let shadows = self.acknowledged(parent);
            // Behind the branching point there are other records at these offsets: what counts is
            // only that there were some.
            shadows.range(end..seen.max(end)).for_each(|(_, record)| note(i64::MAX, *record));
            next = self.topics[&parent].parent;
        }
        latest
    }

    /// Whether a record need not be there, because a later one of its key is or was.
    fn is_superseded(
        &self,
        id: TopicId,
        offset: i64,
        sent: &Record,
        latest: &BTreeMap<u8, i64>,
        found: &BTreeMap<i64, u64>,
    ) -> bool {
        let key = sent.key;
        let is_later = key.and_then(|key| latest.get(&key)).is_some_and(|at| *at > offset);
        let is_tombstone = |name: &u64| {
            let sent = &self.sent[name];
            sent.key == key && sent.value.is_none()
        };
        is_later
            || sent.value.is_none()
            || found.range(offset + 1..).any(|(_, name)| self.sent[name].key == key)
            || self.lineage(id).any(|topic| {
                // A tombstone of which nothing is known may have come and gone, and so may a record
                // of the parent.
                topic.unknown.iter().any(&is_tombstone)
                    || (topic.parent.is_none() && self.is_branched_of_unknown(id, key))
            })
    }

    /// Whether a parent has records of the key that may lie behind where it was branched.
    fn is_branched_of_unknown(&self, id: TopicId, key: Option<u8>) -> bool {
        let parents = self.lineage(id).skip(1);
        parents.flat_map(|topic| &topic.unknown).any(|name| self.sent[name].key == key)
    }

    fn lineage(&self, id: TopicId) -> impl Iterator<Item = &Topic> {
        std::iter::successors(Some(&self.topics[&id]), |topic| {
            topic.parent.map(|(parent, _, _)| &self.topics[&parent])
        })
    }

    /// COMPACT-2: what a tombstone deleted does not come back when the tombstone goes.
    fn check_deleted_keys(
        &self,
        required: &BTreeMap<i64, u64>,
        floor: i64,
        found: &BTreeMap<i64, u64>,
        name: &str,
    ) {
        for (offset, record) in required.range(floor..) {
            let tombstone = &self.sent[record];
            if tombstone.value.is_some() || found.contains_key(offset) {
                continue;
            }
            let older = found.range(..offset).find(|it| self.sent[it.1].key == tombstone.key);
            // A tombstone that was superseded goes before what it deleted does, in the next pass.
            let newer = found.range(offset + 1..).any(|it| self.sent[it.1].key == tombstone.key);
            assert!(
                older.is_none() || newer,
                "{name}: {older:?} is back, the tombstone at {offset} is gone"
            );
        }
    }
}
