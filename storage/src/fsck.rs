//! Does the store hold what the state says, and nothing that the state does not explain?
//!
//! Compares both ways, from outside and while brokers run: every segment that is referred to has to
//! be there with its length, and every object has to be explained. With [`Options::deep`] every
//! segment that is referred to is read. Nothing is written. Brokers change things meanwhile, so
//! what looks wrong is looked at again, against a newer state and a newer listing, and only what is
//! wrong both times is a finding.
//!
//! Owns the questions and the report; the answers are in the files below: [`bucket`] (which objects
//! there are), [`invariants`] (what the state claims about itself), [`deep`] (what is in segments),
//! [`affected`] (whose records are concerned).

use std::fmt;

use odradek_protocol::id::{Offset, PartitionIndex, TopicId};
use uuid::Uuid;

use crate::key::ObjectKey;
use crate::look::{Look, LookError, SnapshotSeen};
use crate::lsn::Lsn;
use crate::object::ObjectMeta;
use crate::segment::{BlockError, FooterError, SegmentId};
use crate::state::State;

mod affected;
mod bucket;
mod deep;
mod invariants;

use affected::Index;
use bucket::{Bucket, Wrong};
pub(crate) use deep::segment_blocks;

/// How thorough to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether segments are read.
    pub deep: bool,
    /// How many segments are read at once.
    pub segments_inflight_max: usize,
    /// How many bytes of a segment are read at once, unless a block is longer.
    pub range_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { deep: false, segments_inflight_max: 8, range_bytes_max: 8 * 1024 * 1024 }
    }
}

/// Some objects: how many, and how much they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// What the state said, unless there was none to be had.
    pub cluster: Option<Cluster>,
    /// The snapshots, oldest first.
    pub snapshots: Vec<SnapshotSeen>,
    /// Objects that are referred to.
    pub referenced: Tally,
    /// Segments that are referred to and that the log itself holds.
    pub inline: Tally,
    /// Segments that nothing refers to any more, and that wait to be swept.
    pub waiting: Tally,
    /// Objects that were put and never committed.
    pub orphans: Orphans,
    /// Objects that are nothing of ours.
    pub unknown: Vec<ObjectMeta>,
    /// What was read, if segments were.
    pub read: Option<Read>,
    /// What is lost or damaged.
    pub findings: Vec<Finding>,
}

/// The cluster that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its id.
    pub cluster_id: Uuid,
    /// The id of its log.
    pub log_id: Uuid,
    /// How far the log was followed.
    pub applied: Lsn,
    /// Segments that were begun before this entry are not committed any more.
    pub horizon: Lsn,
    /// How many topics there are.
    pub topics: u64,
    /// How many were deleted and are not purged yet.
    pub deleted_topics: u64,
    /// How many partitions.
    pub partitions: u64,
    /// How many extents.
    pub extents: u64,
}

/// Segments that the state does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Those that were begun below the horizon: they are never committed any more, and will be
    /// swept.
    pub decided: Tally,
    /// Those that may still be committed: their brokers may be slow.
    pub undecided: Tally,
    /// The oldest of them.
    pub oldest: Option<SegmentId>,
}

/// What was read of the segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Segments.
    pub segments: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Record batches in those.
    pub batches: u64,
    /// Bytes of segments.
    pub bytes: u64,
}

impl std::ops::AddAssign for Read {
    fn add_assign(&mut self, other: Self) {
        self.segments += other.segments;
        self.blocks += other.blocks;
        self.batches += other.batches;
        self.bytes += other.bytes;
    }
}

/// Something that is lost or damaged, and whose records it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub damage: Damage,
    /// Which records can't be read because of it.
    pub affected: Vec<Affected>,
}

/// Records of one partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Affected {
    /// The topic's name.
    pub name: String,
    /// Whether the topic is deleted, and not purged yet.
    pub is_deleted: bool,
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last.
    pub to: Offset,
}

impl fmt::Display for Affected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, partition, from, to, .. } = self;
        let deleted = if self.is_deleted { "deleted topic " } else { "" };
        write!(f, "{deleted}{name}-{partition} offsets {from} to {}", to.0.saturating_sub(1))
    }
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The log, or all that one could begin to read it from.
    #[error("{0}")]
    Log(String),
    /// A snapshot is not what it was.
    #[error("snapshot {key} is damaged: {cause}")]
    Snapshot {
        /// The object.
        key: ObjectKey,
        /// What is wrong with it.
        cause: String,
    },
    /// The object that says whose the store is is gone.
    #[error("object {0} is missing: no broker will start on this store")]
    Claim(ObjectKey),
    /// The state contradicts itself.
    #[error("the state is wrong: {0}")]
    State(String),
    /// An object is gone.
    #[error("segment {} is missing", .0.key())]
    Missing(SegmentId),
    /// An object has another length.
    #[error("segment {} has {found} bytes, not {expected}", .segment.key())]
    Length {
        /// The segment.
        segment: SegmentId,
        /// Its length, in bytes.
        found: u64,
        /// The length it was committed with.
        expected: u64,
    },
    /// The header or the footer is damaged.
    #[error("segment {}: {cause}", .segment.key())]
    Footer {
        /// The segment.
        segment: SegmentId,
        /// What is wrong with it.
        cause: FooterError,
    },
    /// A block is damaged.
    #[error("segment {} at byte {position}: {cause}", .segment.key())]
    Block {
        /// The segment.
        segment: SegmentId,
        /// Where the block begins.
        position: u64,
        /// What is wrong with it.
        cause: BlockError,
    },
    /// A block is whole, and does not hold what it should.
    #[error("segment {} at byte {position}: {what}", .segment.key())]
    Content {
        /// The segment.
        segment: SegmentId,
        /// Where the block begins.
        position: u64,
        /// What does not fit.
        what: String,
    },
    /// The store gives an object in the listing and not when it is asked for it.
    #[error("segment {} can't be read: {cause}", .segment.key())]
    Unreadable {
        /// The segment.
        segment: SegmentId,
        /// Why.
        cause: String,
    },
}

impl Damage {
    /// The segment it is about.
    pub fn segment(&self) -> Option<SegmentId> {
        match self {
            Self::Missing(segment)
            | Self::Length { segment, .. }
            | Self::Footer { segment, .. }
            | Self::Block { segment, .. }
            | Self::Content { segment, .. }
            | Self::Unreadable { segment, .. } => Some(*segment),
            Self::Log(_) | Self::Snapshot { .. } | Self::Claim(_) | Self::State(_) => None,
        }
    }

    /// What kind it is, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Log(_) => "log",
            Self::Snapshot { .. } => "snapshot",
            Self::Claim(_) => "claim",
            Self::State(_) => "state",
            Self::Missing(_) => "missing",
            Self::Length { .. } => "length",
            Self::Footer { .. } => "footer",
            Self::Block { .. } => "block",
            Self::Content { .. } => "content",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

/// Looks at everything. An error means that there was nothing to be seen, not that something is
/// wrong.
pub async fn run(look: &Look, options: &Options) -> Result<Report, LookError> {
    let mut report = Report::new(look.snapshots().await?);
    let mut state = match look.state().await {
        Ok(state) => state,
        Err(error) if error.is_damage() => {
            report.add(Damage::Log(error.to_string()));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    check_claim(look, &state, &mut report).await?;
    let first = Bucket::list(look).await?;
    let mut wrong = first.compare(&state);
    let mut bucket = first;
    if !wrong.is_empty() {
        look.advance(&mut state).await?;
        bucket = Bucket::list(look).await?;
        wrong = wrong.and(bucket.compare(&state));
    }
    for violation in invariants::audit(&state) {
        report.add(Damage::State(violation));
    }
    report.take(&state, bucket, &wrong);
    if options.deep {
        read(look, &mut state, &wrong, options, &mut report).await?;
    }
    Ok(report)
}

/// Reads all segments but those of which it is clear already that something is wrong with them.
async fn read(
    look: &Look,
    state: &mut State,
    wrong: &Wrong,
    options: &Options,
    report: &mut Report,
) -> Result<(), LookError> {
    let segments: Vec<SegmentId> = state.segments().referenced().keys().copied().collect();
    let whole = segments.into_iter().filter(|segment| !wrong.concerns(*segment));
    let mut total = Read::default();
    let suspects = deep::check(look, state, whole.collect(), options, &mut total).await?;
    report.read = Some(total);
    if suspects.is_empty() {
        return Ok(());
    }
    look.advance(state).await?;
    let referenced = state.segments().referenced();
    let suspects: std::collections::BTreeSet<SegmentId> =
        suspects.iter().filter_map(|finding| finding.damage.segment()).collect();
    let still = suspects.into_iter().filter(|segment| referenced.contains_key(segment)).collect();
    report.findings.extend(deep::check(look, state, still, options, &mut Read::default()).await?);
    Ok(())
}

async fn check_claim(look: &Look, state: &State, report: &mut Report) -> Result<(), LookError> {
    match look.claimant().await? {
        Some(found) if found.contains(&state.log_id().to_string()) => {}
        Some(found) => return Err(LookError::Foreign { found }),
        None if state.has_claimed_store() => {
            report.add(Damage::Claim(crate::machine::claim::key()));
        }
        None => {}
    }
    Ok(())
}

impl Report {
    fn new(snapshots: Vec<SnapshotSeen>) -> Self {
        let damaged = |seen: &SnapshotSeen| {
            let (key, cause) = (seen.key.clone(), seen.judged.as_ref().err()?.clone());
            Some(Finding { damage: Damage::Snapshot { key, cause }, affected: Vec::new() })
        };
        Self {
            cluster: None,
            findings: snapshots.iter().filter_map(damaged).collect(),
            snapshots,
            referenced: Tally::default(),
            inline: Tally::default(),
            waiting: Tally::default(),
            orphans: Orphans::default(),
            unknown: Vec::new(),
            read: None,
        }
    }

    fn add(&mut self, damage: Damage) {
        self.findings.push(Finding { damage, affected: Vec::new() });
    }

    fn take(&mut self, state: &State, bucket: Bucket, wrong: &Wrong) {
        let partitions = affected::topics(state).flat_map(|(topic, _)| &topic.partitions);
        let extents: usize = partitions.map(|partition| partition.extents().count()).sum();
        self.cluster = Some(Cluster {
            cluster_id: state.cluster_id(),
            log_id: state.log_id(),
            applied: state.applied(),
            horizon: state.segments().horizon(),
            topics: count(state.topics().count()),
            deleted_topics: count(state.deleted_topics().len()),
            partitions: state.partitions_total(),
            extents: count(extents),
        });
        let segments = state.segments();
        let of = |is_inline| {
            let all = segments.referenced().values();
            tally(all.filter(|it| it.inline.is_some() == is_inline).map(|it| it.bytes))
        };
        (self.referenced, self.inline) = (of(false), of(true));
        self.waiting = tally(segments.unreferenced().values().map(|waits| waits.bytes));
        self.orphans = wrong.orphans(segments.horizon());
        let index = Index::of(state, &wrong.segments());
        for damage in wrong.damages() {
            let affected = damage.segment().map(|segment| index.affected(segment, |_| true));
            self.findings.push(Finding { damage, affected: affected.unwrap_or_default() });
        }
        self.unknown = bucket.unknown;
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn tally(bytes: impl Iterator<Item = u64>) -> Tally {
    bytes.fold(Tally::default(), |tally, bytes| Tally {
        objects: tally.objects + 1,
        bytes: tally.bytes.saturating_add(bytes),
    })
}

#[cfg(test)]
mod tests;
