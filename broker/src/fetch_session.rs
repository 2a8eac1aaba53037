//! Fetch sessions (KIP-227): a consumer says once what it reads, from then on only what changes,
//! and is told only what has changed.
//!
//! A session belongs to a connection and goes with it. A client that comes back by another one, or
//! to another broker, hears that there is no such session and says everything again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use odradek_protocol::ResponseError;
use odradek_protocol::fetch_response::{FetchedPartition, FetchedTopic};
use odradek_protocol::messages::FetchRequest;
use odradek_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use uuid::Uuid;

/// Partitions in the sessions of all connections. Beyond that a client gets no session, and says
/// everything each time. One takes about 130 bytes.
const PARTITIONS_MAX: usize = 200_000;

/// The session id of those who have none.
const NO_SESSION: i32 = 0;

/// The epoch of a request that says everything and wants a session.
const EPOCH_FIRST: i32 = 0;

/// The epoch of a request that says everything and wants no session any more.
const EPOCH_FINAL: i32 = -1;

/// What all sessions of a broker have in common.
#[derive(Debug, Default)]
pub(crate) struct FetchSessions {
    /// How many sessions there were.
    opened: AtomicI32,
    /// How many partitions are in those that are open.
    partitions: Arc<AtomicUsize>,
}

/// Where a connection keeps its session. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionSlot(Arc<Mutex<Option<FetchSession>>>);

/// A topic as requests name it: by name, or by id from version 13 on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TopicKey {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
}

/// A partition that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) topic: TopicKey,
    pub(crate) partition: i32,
    /// The offset to read from.
    pub(crate) offset: i64,
    /// About how many bytes.
    pub(crate) bytes_max: i32,
}

/// What a request asks for, all of it.
#[derive(Debug)]
pub(crate) struct Fetching {
    /// The session that it is in, 0 if in none.
    pub(crate) session_id: i32,
    /// The partitions, in the order in which they are to be served.
    pub(crate) asked: Vec<Asked>,
    /// Whether only what has changed is answered.
    is_incremental: bool,
}

#[derive(Debug)]
struct FetchSession {
    id: i32,
    /// The epoch of the next request.
    epoch: i32,
    /// Whether topics are named by id.
    by_id: bool,
    partitions: BTreeMap<(TopicKey, i32), Held>,
    /// The last that was given records: those after it come first next time, or those that come
    /// late in the order would get nothing while others fill the response.
    served: Option<(TopicKey, i32)>,
    share: Share,
}

/// What is known of a partition in a session.
#[derive(Clone, Copy, Debug)]
struct Held {
    offset: i64,
    bytes_max: i32,
    /// High watermark and log start offset as the client was last told.
    told: Option<(i64, i64)>,
}

/// So many of all partitions in sessions, given back in the end.
#[derive(Debug)]
struct Share {
    all: Arc<AtomicUsize>,
    count: usize,
}

impl FetchSessions {
    /// What a request asks for, in the session that it is in or opens.
    pub(crate) fn begin(
        &self,
        slot: &SessionSlot,
        by_id: bool,
        request: &FetchRequest,
    ) -> Result<Fetching, ResponseError> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        let mut open = slot.lock();
        if epoch != EPOCH_FIRST && epoch != EPOCH_FINAL {
            let session = open.as_mut().filter(|session| session.id == id);
            let session = session.ok_or(ResponseError::FetchSessionIdNotFound)?;
            let fetching = session.go_on(by_id, request);
            if matches!(fetching, Err(ResponseError::FetchSessionIdNotFound)) {
                *open = None;
            }
            return fetching;
        }
        let asked = all_of(&request.topics);
        if id != NO_SESSION && open.as_ref().is_some_and(|session| session.id == id) {
            *open = None;
        }
        let mut session_id = NO_SESSION;
        if epoch == EPOCH_FIRST
            && let Some(session) = self.open(by_id, &asked)
        {
            session_id = session.id;
            *open = Some(session);
        }
        Ok(Fetching { session_id, asked, is_incremental: false })
    }

    fn open(&self, by_id: bool, asked: &[Asked]) -> Option<FetchSession> {
        let share = Share { all: Arc::clone(&self.partitions), count: 0 };
        let partitions = BTreeMap::new();
        let mut session = FetchSession { id: 0, epoch: 1, by_id, partitions, served: None, share };
        session.add(asked.to_vec());
        if !session.is_within_bounds() {
            return None;
        }
        let opened = self.opened.fetch_add(1, Ordering::Relaxed);
        session.id = (opened.wrapping_add(1) & i32::MAX).max(1);
        Some(session)
    }
}

impl SessionSlot {
    fn lock(&self) -> MutexGuard<'_, Option<FetchSession>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FetchSession {
    fn go_on(&mut self, by_id: bool, request: &FetchRequest) -> Result<Fetching, ResponseError> {
        if request.session_epoch != self.epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if by_id != self.by_id {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        for key in forgotten(&request.forgotten_topics_data) {
            self.partitions.remove(&key);
        }
        self.add(all_of(&request.topics));
        if !self.is_within_bounds() {
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        Ok(Fetching { session_id: self.id, asked: self.in_turn(), is_incremental: true })
    }

    fn add(&mut self, all: Vec<Asked>) {
        for Asked { topic, partition, offset, bytes_max } in all {
            let new = Held { offset, bytes_max, told: None };
            let held = self.partitions.entry((topic, partition)).or_insert(new);
            *held = Held { told: held.told, ..new };
        }
    }

    /// Counts its partitions, if there are not too many.
    fn is_within_bounds(&mut self) -> bool {
        let count = self.partitions.len();
        let others = self.share.all.fetch_sub(self.share.count, Ordering::Relaxed);
        let others = others - self.share.count;
        self.share.all.fetch_add(count, Ordering::Relaxed);
        self.share.count = count;
        others + count <= PARTITIONS_MAX
    }

    /// All its partitions, the one after that which was last given records first.
    fn in_turn(&self) -> Vec<Asked> {
        let asked = |((topic, partition), held): (&(TopicKey, i32), &Held)| Asked {
            topic: topic.clone(),
            partition: *partition,
            offset: held.offset,
            bytes_max: held.bytes_max,
        };
        let Some(served) = &self.served else {
            return self.partitions.iter().map(asked).collect();
        };
        let after = (Bound::Excluded(served), Bound::Unbounded);
        let up_to = (Bound::Unbounded, Bound::Included(served));
        let turn = self.partitions.range(after).chain(self.partitions.range(up_to));
        turn.map(asked).collect()
    }
}

impl Fetching {
    /// What of the answers, one for each partition that is asked for, the client is to be told.
    pub(crate) fn told(
        self,
        slot: &SessionSlot,
        answers: Vec<FetchedPartition>,
    ) -> Vec<FetchedTopic> {
        let mut open = slot.lock();
        let mut session = open.as_mut().filter(|session| session.id == self.session_id);
        let mut topics: Vec<FetchedTopic> = Vec::new();
        for (asked, answer) in self.asked.into_iter().zip(answers) {
            let topic = asked.topic.clone();
            let has_changed = session.as_mut().is_none_or(|session| session.tell(asked, &answer));
            if !has_changed && self.is_incremental {
                continue;
            }
            // The topic whose turn is in its middle comes first and last.
            let is_same = |it: &FetchedTopic| *it.name == *topic.name && it.id == topic.id;
            let ends = [topics.len().checked_sub(1), self.is_incremental.then_some(0)];
            let known = ends.into_iter().flatten().find(|at| topics.get(*at).is_some_and(is_same));
            match known {
                Some(at) => topics[at].partitions.push(answer),
                None => topics.push(FetchedTopic {
                    name: topic.name.to_string(),
                    id: topic.id,
                    partitions: vec![answer],
                }),
            }
        }
        topics
    }
}

impl FetchSession {
    /// Notes what the client is told of a partition, and whether that is news.
    fn tell(&mut self, asked: Asked, answer: &FetchedPartition) -> bool {
        let key = (asked.topic, asked.partition);
        let Some(held) = self.partitions.get_mut(&key) else { return true };
        let now = (answer.high_watermark, answer.log_start_offset);
        let is_failure = answer.error_code != 0;
        let has_records = !answer.records.is_empty();
        let is_news = has_records
            || is_failure
            || answer.preferred_read_replica >= 0
            || held.told != Some(now);
        // After a failure all is said again.
        held.told = (!is_failure).then_some(now);
        if has_records {
            self.served = Some(key);
        }
        is_news
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// The partitions that a request names.
fn all_of(topics: &[FetchTopic]) -> Vec<Asked> {
    let of_topic = |topic: &FetchTopic| {
        // Not a part of the request's frame, which would stay as long as the session.
        let key = TopicKey { name: topic.topic.as_str().into(), id: topic.topic_id };
        let asked = move |it: &FetchPartition| Asked {
            topic: key.clone(),
            partition: it.partition,
            offset: it.fetch_offset,
            bytes_max: it.partition_max_bytes,
        };
        topic.partitions.iter().map(asked).collect::<Vec<_>>()
    };
    topics.iter().flat_map(of_topic).collect()
}

fn forgotten(topics: &[ForgottenTopic]) -> impl Iterator<Item = (TopicKey, i32)> {
    topics.iter().flat_map(|topic| {
        let key = TopicKey { name: topic.topic.as_str().into(), id: topic.topic_id };
        topic.partitions.iter().map(move |partition| (key.clone(), *partition))
    })
}

#[cfg(test)]
mod tests;
