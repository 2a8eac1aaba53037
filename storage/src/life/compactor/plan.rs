//! Which partitions are to be compacted, and up to where: one look at the state.

use odradek_protocol::id::{NodeId, Offset, TopicPartition};

use super::keys::Aborted;
use crate::reader::Located;
use crate::state::State;
use crate::state::partition::{Extent, Partition};
use crate::state::topics::Topic;

/// The configs by which a topic is compacted, or those of all topics.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Configs {
    /// `min.cleanable.dirty.ratio`.
    dirty_ratio_min: f64,
    /// `min.compaction.lag.ms`.
    lag_ms_min: i64,
    /// `max.compaction.lag.ms`.
    lag_ms_max: i64,
    /// `delete.retention.ms`.
    delete_retention_ms: i64,
}

/// A partition whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Due {
    pub(super) partition: TopicPartition,
    /// How much of it is dirty.
    ratio: f64,
}

/// What a pass over a partition is about.
pub(super) struct Work {
    pub(super) partition: TopicPartition,
    /// All that can be compacted, from the log start offset on.
    pub(super) extents: Vec<Placed>,
    pub(super) aborted: Aborted,
    /// Where the dirty part begins.
    pub(super) cleaned: Offset,
    pub(super) now_ms: i64,
    pub(super) delete_retention_ms: i64,
}

/// An extent, with whose name is to stand in its block.
#[derive(Clone)]
pub(super) struct Placed {
    pub(super) located: Located,
    pub(super) owner: TopicPartition,
}

impl Configs {
    fn of(state: &State, topic: &Topic) -> Self {
        let config = |name: &str, cluster: &str| {
            let own = topic.configs.get(name);
            own.or_else(|| state.configs().cluster().get(cluster)).map(String::as_str)
        };
        let ms = |name: &str, cluster: &str, default: i64| {
            config(name, cluster).and_then(|value| value.parse().ok()).unwrap_or(default)
        };
        let ratio = config("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio");
        Self {
            dirty_ratio_min: ratio.and_then(|value| value.parse().ok()).unwrap_or(0.5),
            lag_ms_min: ms("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", 0),
            lag_ms_max: ms("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", i64::MAX),
            delete_retention_ms: ms(
                "delete.retention.ms",
                "log.cleaner.delete.retention.ms",
                24 * 60 * 60 * 1000,
            ),
        }
    }
}

/// The partitions that are due and this broker's to compact, the dirtiest first.
pub(super) fn due(state: &State, node: NodeId) -> Vec<Due> {
    let mut due = Vec::new();
    for topic in state.topics().filter(|topic| state.is_compacted(topic)) {
        let configs = Configs::of(state, topic);
        for (index, partition) in (0..).zip(&topic.partitions) {
            let at = TopicPartition { topic: topic.id, partition: index };
            let ratio = dirty_ratio(partition, &configs, state.log_time_ms());
            if let Some(ratio) = ratio
                && state.coordinator_of(&at.to_string()) == Some(node)
            {
                due.push(Due { partition: at, ratio });
            }
        }
    }
    due.sort_by(|one, other| other.ratio.total_cmp(&one.ratio));
    due
}

/// The extents of a partition that may be compacted: what is stable and old enough.
fn cleanable<'a>(
    partition: &'a Partition,
    configs: &Configs,
    now_ms: i64,
) -> impl Iterator<Item = &'a Extent> {
    let stable = partition.last_stable_offset();
    let (lag, latest) = (configs.lag_ms_min, now_ms.saturating_sub(configs.lag_ms_min));
    partition
        .extents()
        .take_while(move |it| it.end() <= stable && (lag <= 0 || it.max_timestamp <= latest))
}

/// How much of what may be compacted is dirty, if that is enough, or has been for long enough.
fn dirty_ratio(partition: &Partition, configs: &Configs, now_ms: i64) -> Option<f64> {
    let cleaned = partition.cleaned();
    let (mut clean, mut dirty) = (0_u64, 0_u64);
    let mut oldest_ms = None;
    for extent in cleanable(partition, configs, now_ms) {
        if extent.end() <= cleaned {
            clean += u64::from(extent.bytes());
        } else {
            dirty += u64::from(extent.bytes());
            oldest_ms = oldest_ms.or_else(|| Some(extent.max_timestamp).filter(|ms| *ms >= 0));
        }
    }
    if dirty == 0 {
        return None;
    }
    let ratio = fraction(dirty, clean + dirty);
    let is_overdue = oldest_ms.is_some_and(|ms| ms < now_ms.saturating_sub(configs.lag_ms_max));
    (is_overdue || ratio > configs.dirty_ratio_min).then_some(ratio)
}

/// By thousandths, because no more is asked for.
fn fraction(part: u64, whole: u64) -> f64 {
    let thousandths = u128::from(part) * 1000 / u128::from(whole.max(1));
    f64::from(u32::try_from(thousandths).unwrap_or(u32::MAX)) / 1000.0
}

/// What there is to do in a partition; `None` if there is nothing any more.
pub(super) fn work(state: &State, at: TopicPartition) -> Option<Work> {
    let topic = state.topic(at.topic).filter(|topic| state.is_compacted(topic))?;
    let partition = state.partition(at)?;
    let (configs, now_ms) = (Configs::of(state, topic), state.log_time_ms());
    let place = |extent: &Extent| Placed {
        located: Located::of(state, at, partition, extent),
        owner: partition.owner(at, extent.base),
    };
    let extents: Vec<_> = cleanable(partition, &configs, now_ms).map(place).collect();
    let end = extents.last()?.located.extent.end();
    let cleaned = partition.cleaned();
    (end > cleaned).then(|| Work {
        partition: at,
        extents,
        aborted: Aborted::of(partition.aborted_between(partition.log_start, end)),
        cleaned,
        now_ms,
        delete_retention_ms: configs.delete_retention_ms,
    })
}
