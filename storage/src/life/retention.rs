//! Retention: lets go of records that are due by the retention of their topics, and gives up topics
//! that were deleted.
//!
//! What is due is a matter of the state (`state::retention`), and is judged again when the command
//! is applied. This says when it is proposed, by one broker, and it does not trust clocks
//! (RELIABILITY A13, C8):
//!
//! - A record is too old only if both say so: log time, which everybody's clock has a part in, and
//!   the clock that this broker had at its start, with the time that has passed since.
//! - A topic lets go of a limited part of itself an hour ([`breaker`]), the oldest first. What is
//!   too old by far and held back is said aloud.
//! - How long a topic is deleted is measured by how long this process has known it.
//!
//! Log time stands still while nothing is written. It is moved on, a step each round, as long as
//! there is something that is due by it then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use tokio::time::sleep;

use crate::ages::Ages;
use crate::clock::Clock;
use crate::command::{Command, Outcome};
use crate::counts::LifeCounts;
use crate::machine::Machine;
use crate::state::State;

mod breaker;
mod due;

use breaker::{Allowance, hourly_bytes};
use due::{Due, Held};

/// Partitions in one command.
const PARTITIONS_MAX: usize = 1000;

/// Partitions in one line of the log.
const PARTITIONS_TOLD_MAX: usize = 100;

/// Log time is not moved on for less.
const LOG_TIME_LAG_MS_MIN: i64 = 1000;

/// Time between two lines about a topic that is held back.
const WARNING_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How retention behaves.
#[derive(Clone, Debug)]
pub struct RetentionConfig {
    /// How often it looks what is due.
    pub interval: Duration,
    /// How long what was in a deleted topic is kept.
    pub deleted_kept: Duration,
    /// Whether whatever is due goes at once, however much it is: for an operator who knows that the
    /// clocks are right.
    pub at_once: bool,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            deleted_kept: Duration::from_secs(60 * 60),
            at_once: false,
        }
    }
}

/// The task.
pub(super) struct Retention {
    machine: Machine,
    clock: Arc<dyn Clock>,
    config: RetentionConfig,
    /// What time it was when this began, and the clock's uptime then.
    began_ms: i64,
    began: Duration,
    ages: Ages,
    counts: Arc<LifeCounts>,
    /// Topics that something was due of, or may be.
    topics: BTreeMap<TopicId, Kept>,
}

/// What is remembered of a topic.
struct Kept {
    allowance: Allowance,
    /// What a share is a share of: the bytes of the topic before the first was held back.
    total: u64,
    warned: Option<Duration>,
}

/// The log does not take a command now. There is another round.
#[derive(Debug, thiserror::Error)]
#[error("the log does not take it")]
struct Unfinished;

/// What goes from a topic in this round.
struct Going {
    name: String,
    /// The log start offsets now, and those to come.
    partitions: Vec<(TopicPartition, Offset, Offset)>,
}

impl Retention {
    pub(super) fn new(
        machine: Machine,
        clock: Arc<dyn Clock>,
        config: RetentionConfig,
        counts: Arc<LifeCounts>,
    ) -> Self {
        let (began_ms, began) = (clock.now_ms(), clock.uptime());
        let ages = Ages::new(config.deleted_kept);
        let topics = BTreeMap::new();
        Self { machine, clock, config, began_ms, began, ages, counts, topics }
    }

    pub(super) async fn run(mut self) {
        loop {
            sleep(self.config.interval).await;
            let now = self.clock.uptime();
            self.ages.note(now, self.machine.read(State::applied));
            if !self.is_ours() {
                // Whoever has the office begins with nothing saved up.
                self.topics.clear();
                continue;
            }
            if let Err(error) = self.round(now).await {
                tracing::warn!(%error, "retention is put off");
            }
        }
    }

    fn is_ours(&self) -> bool {
        self.machine.read(State::housekeeper) == Some(self.machine.node_id())
    }

    async fn round(&mut self, now: Duration) -> Result<(), Unfinished> {
        let own_ms = self.own_time_ms(now);
        let log_time_ms = self.machine.read(State::log_time_ms);
        let topics: Vec<TopicId> =
            self.machine.read(|state| state.topics().map(|topic| topic.id).collect());
        self.machine.read(|state| self.topics.retain(|topic, _| state.topic(*topic).is_some()));
        // Another entry would move log time on.
        let is_behind =
            own_ms.min(self.clock.now_ms()).saturating_sub(log_time_ms) >= LOG_TIME_LAG_MS_MIN;
        let mut is_late = false;
        let mut going = Vec::new();
        for topic in topics {
            // One at a time: nothing can be applied while the state is looked at.
            let due = |now_ms| self.machine.read(|state| Due::of(state, topic, now_ms));
            let Some(by_both) = due(own_ms.min(log_time_ms)) else { continue };
            is_late |= is_behind && due(own_ms).is_some_and(|own| own.bytes() > by_both.bytes());
            going.extend(self.admit(topic, by_both, now));
        }
        self.expire(going).await?;
        if is_late {
            self.propose(Command::Heartbeat).await?;
        }
        self.purge(now).await
    }

    /// What time it is by the clock that was here at the start.
    fn own_time_ms(&self, now: Duration) -> i64 {
        let passed = now.saturating_sub(self.began).as_millis();
        self.began_ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }

    /// How much of what is due may go now.
    fn admit(&mut self, topic: TopicId, mut due: Due, now: Duration) -> Option<Going> {
        if let Some(retention_ms) = due.retention_ms {
            let new = || Kept { allowance: Allowance::new(now), total: 0, warned: None };
            let kept = self.topics.entry(topic).or_insert_with(new);
            kept.allowance.save(now, retention_ms);
            kept.total = kept.total.max(due.total);
            if !self.config.at_once {
                let total = kept.total;
                match due.hold_back(|bytes| kept.allowance.take(bytes, total)) {
                    None => kept.rest(retention_ms),
                    Some(held) => kept.warn(&due.name, held, retention_ms, now),
                }
            }
        }
        let partitions = due.going(topic);
        (!partitions.is_empty()).then_some(Going { name: due.name, partitions })
    }

    async fn expire(&self, going: Vec<Going>) -> Result<(), Unfinished> {
        let all = going.iter().flat_map(|topic| &topic.partitions);
        let all: Vec<_> = all.map(|(partition, _, before)| (*partition, *before)).collect();
        for partitions in all.chunks(PARTITIONS_MAX) {
            self.propose(Command::ExpireRecords { partitions: partitions.to_vec() }).await?;
        }
        for topic in going {
            self.tell(&topic);
        }
        Ok(())
    }

    /// One line for each topic that has let go of something; more if it has very many partitions.
    fn tell(&self, topic: &Going) {
        let start_of = |partition| {
            self.machine.read(|state| state.partition(partition).map(|it| it.log_start))
        };
        let name = &topic.name;
        for partitions in topic.partitions.chunks(PARTITIONS_TOLD_MAX) {
            let mut records = 0;
            let mut starts = Vec::new();
            for (partition, before, _) in partitions {
                let start = start_of(*partition).filter(|start| start > before);
                let Some(start) = start else { continue };
                records += u64::try_from(start.0 - before.0).unwrap_or(0);
                starts.push(format!("{}: {} to {}", partition.partition, before.0, start.0));
            }
            if !starts.is_empty() {
                self.counts.records_expired.add(records);
                let starts = starts.join(", ");
                tracing::info!(topic = name, records, starts, "records expired");
            }
        }
    }

    /// Gives up topics that were deleted long ago.
    async fn purge(&self, now: Duration) -> Result<(), Unfinished> {
        let old = self.ages.old(now);
        let (topics, names): (Vec<_>, Vec<_>) = self.machine.read(|state| {
            let deleted = state.deleted_topics().iter().filter(|(_, it)| it.since <= old);
            deleted.map(|(id, it)| (*id, it.topic.name.clone())).unzip()
        });
        if topics.is_empty() {
            return Ok(());
        }
        self.propose(Command::PurgeTopics { topics }).await?;
        self.counts.topics_purged.add_len(names.len());
        for topic in names {
            tracing::info!(topic, "a deleted topic is given up");
        }
        Ok(())
    }

    async fn propose(&self, command: Command) -> Result<(), Unfinished> {
        match self.machine.propose(command).await {
            Ok(Outcome::Done) => Ok(()),
            _ => Err(Unfinished),
        }
    }
}

impl Kept {
    /// Nothing is held back.
    fn rest(&mut self, retention_ms: i64) {
        self.allowance.cap(retention_ms);
        self.total = 0;
    }

    /// Says that much of a topic is held back, if it is not just that it is in few pieces.
    fn warn(&mut self, topic: &str, held: Held, retention_ms: i64, now: Duration) {
        let is_far = held.overdue_ms > (retention_ms / 10).max(60 * 60 * 1000);
        let is_recent = |warned| now.saturating_sub(warned) < WARNING_INTERVAL;
        if !is_far || self.warned.is_some_and(is_recent) {
            return;
        }
        self.warned = Some(now);
        tracing::warn!(
            topic,
            bytes = held.bytes,
            hourly = hourly_bytes(self.total, retention_ms),
            "much of a topic has become too old at once: is a clock wrong? it goes by a tenth an \
             hour, unless what is due is to expire at once"
        );
    }
}

#[cfg(test)]
mod tests;
