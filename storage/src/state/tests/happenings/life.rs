//! What is to happen to data in the course of its life.

use std::collections::BTreeSet;

use odradek_protocol::id::{Offset, TopicId};

use super::{Happened, of_steps};
use crate::command::{
    BatchOutcome, Branch, Command, Outcome, Proposal, Rejection, Replacement, RunOutcome,
};
use crate::segment::SegmentId;
use crate::state::State;
use crate::state::partition::{Content, Extent, Marker, Partition};
use crate::state::tests::strategies;
use crate::state::topics::Topic;
use crate::state::transactions::Transactional;

impl Happened {
    /// One proposal stands in an entry alone, so that it was `before` and is `after`.
    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    fn lived(&mut self, before: &State, proposal: &Proposal, outcome: &Outcome, after: &State) {
        match (&proposal.command, outcome) {
            (_, Outcome::Rejected(Rejection::BrokerFenced(_)) | Outcome::Repeated) => {}
            (
                Command::ReplaceExtents { replacements, .. }
                | Command::ReplaceByFooter { replacements: Some(replacements), .. },
                Outcome::ExtentsReplaced(outcomes),
            ) => {
                for (replacement, outcome) in replacements.iter().zip(outcomes) {
                    self.replaced(before, replacement, outcome.as_ref().err(), after);
                }
            }
            (Command::BranchTopic { topic, branch, .. }, outcome) => {
                self.branched(before, *topic, branch, outcome, after);
            }
            (Command::DeleteTopic { topic }, Outcome::Done) => self.deleted(before, *topic, after),
            (Command::PurgeTopics { .. }, _) => {
                let fewer = before.deleted_topics().len() > after.deleted_topics().len();
                let swept = after.segments().unreferenced().len();
                self.count("purged", fewer);
                self.count("purged, and a segment is to be swept", {
                    swept > before.segments().unreferenced().len()
                });
                self.count("purged, and another topic has its segments", {
                    fewer && after.segments().referenced() != before.segments().referenced()
                });
            }
            (Command::ExpireRecords { partitions }, _) => {
                for (at, until) in partitions {
                    let Some((old, new)) = before.partition(*at).zip(after.partition(*at)) else {
                        continue;
                    };
                    let topic = before.topic(at.topic).expect("it has a partition");
                    self.expired(before, topic, (old, new), *until);
                }
            }
            (Command::CommitInline { segment, runs, .. }, Outcome::SegmentCommitted(outcomes)) => {
                let taken = |it: &RunOutcome| match it {
                    RunOutcome::Judged { batches, .. } => {
                        batches.iter().any(|it| matches!(it, BatchOutcome::Appended(_)))
                    }
                    RunOutcome::Rejected(_) => false,
                };
                self.count("inline", after.segments().inline(*segment).is_some());
                let none = !runs.is_empty() && !outcomes.iter().any(taken);
                self.count("inline, and nothing of it taken", none);
            }
            (Command::CommitInline { .. }, Outcome::Rejected(_)) => {
                self.count("inline a second time", true);
            }
            (Command::ForgetSegments { segments }, _) => {
                let forgotten = |id: &SegmentId| {
                    before.segments().is_known(*id) && !after.segments().is_known(*id)
                };
                let known = |id: &&SegmentId| before.segments().is_known(**id);
                self.count("forgotten", segments.iter().any(forgotten));
                self.count("not forgotten", {
                    segments.iter().filter(known).any(|id| !forgotten(id))
                });
            }
            (Command::CommitSegment { segment, .. }, Outcome::Rejected(rejection)) => {
                let is_old = matches!(rejection, Rejection::SegmentTooOld { .. });
                let is_part = before.segments().is_known(*segment);
                self.count("a commit that is too old", is_old && !is_part);
                self.count("a second part that is too old", is_old && is_part);
            }
            (Command::CommitSegment { segment, .. }, _) => {
                self.count("a second part", before.segments().is_known(*segment));
            }
            (
                Command::ReplaceExtents { .. } | Command::ReplaceByFooter { .. },
                Outcome::Rejected(rejection),
            ) => {
                let is_old = matches!(rejection, Rejection::SegmentTooOld { .. });
                self.count("a merge that is too old", is_old);
            }
            (Command::DeleteRecords { partition, .. }, Outcome::RecordsDeleted(first)) => {
                let found = after.partition(*partition).expect("records were deleted there");
                let cut = found.extents().next().filter(|it| it.base < *first);
                let is_merged = |it: &Extent| matches!(it.content, Content::Merged(_));
                self.count("log start in what was merged", cut.is_some_and(is_merged));
            }
            _ => {}
        }
        let inline = |state: &State| state.segments().inline_bytes();
        self.count("inline bytes given back", inline(after) < inline(before));
    }

    fn replaced(
        &mut self,
        before: &State,
        replacement: &Replacement,
        rejection: Option<&Rejection>,
        after: &State,
    ) {
        let Replacement { partition: at, from, to, .. } = *replacement;
        let Some(old) = before.partition(at) else {
            self.count("replaced too late: the topic is gone", rejection.is_some());
            return;
        };
        let lay = old.extents().filter(|it| it.base >= from && it.end() <= to);
        let lay: Vec<&Extent> = lay.collect();
        match rejection {
            Some(Rejection::ExtentsChanged { .. }) => {
                let is_gone = old.extents().next().is_some_and(|it| it.base > from);
                self.count("replaced too late: the log start has moved", is_gone);
                let is_again = lay.iter().any(|it| matches!(it.content, Content::Merged(_)));
                self.count("replaced too late: it was replaced", !is_gone && is_again);
            }
            Some(Rejection::Malformed(_)) => self.count("replaced by nonsense", true),
            Some(_) => {}
            None if replacement.extents.is_empty() => {
                let new = after.partition(at).expect("nothing was deleted");
                self.count("cleaned, and nothing replaced", new.cleaned() > old.cleaned());
            }
            None => {
                let new = after.partition(at).expect("nothing was deleted");
                self.count("one by several", lay.len() == 1 && replacement.extents.len() > 1);
                self.count("several by one", lay.len() > 1 && replacement.extents.len() == 1);
                let has_gap = replacement.extents.iter().any(|it| it.block.is_none());
                self.count("replaced by a gap", has_gap);
                let is_cut = old.log_start > from;
                self.count("replaced where the log start lies", is_cut);
                let mut end = from;
                let ends = replacement.extents.iter().map(|it| {
                    end = end.advanced_by(it.records);
                    end
                });
                let below = ends.filter(|end| *end <= old.log_start).count();
                self.count("what lies below the log start did not come", below > 0);
                let is_marker = |it: &&Extent| matches!(it.content, Content::Marker(_));
                let aborts = |it: &&Extent| {
                    matches!(it.content, Content::Marker(Marker { commits: false, .. }))
                };
                self.count("a marker replaced", lay.iter().copied().any(|it| is_marker(&it)));
                self.count("an abort marker replaced", lay.iter().copied().any(|it| aborts(&it)));
                let is_gap = |it: &&Extent| it.content == Content::Gap;
                self.count("a gap replaced", lay.iter().copied().any(|it| is_gap(&it)));
                let inline = |it: &Extent| {
                    it.segment().is_some_and(|it| before.segments().inline(it).is_some())
                };
                self.count("inline replaced", lay.iter().any(|it| inline(it)));
                let is_foreign = |it: &Extent| old.owner(at, it.base) != at;
                let foreign = lay.iter().filter(|it| is_foreign(it)).count();
                self.count("shared records replaced", foreign > 0);
                self.count("replaced across an origin", foreign > 0 && foreign < lay.len());
                self.count("cleaned", new.cleaned() > old.cleaned());
                self.count("open behind what was replaced", !old.open_transactions().is_empty());
            }
        }
    }

    fn branched(
        &mut self,
        before: &State,
        topic: TopicId,
        branch: &Branch,
        outcome: &Outcome,
        after: &State,
    ) {
        let what = match outcome {
            Outcome::Rejected(Rejection::UnknownTopic(_)) => "a branch of nothing",
            Outcome::Rejected(Rejection::OffsetOutOfRange { .. }) => "a branch out of range",
            Outcome::Rejected(Rejection::TopicExists { .. }) => "a branch whose name is taken",
            Outcome::Rejected(Rejection::TopicIdInUse(_)) => "a branch whose id is taken",
            Outcome::Rejected(Rejection::Malformed(_)) => "a branch with other partitions",
            Outcome::Done if before.topic(branch.of).is_some() => "a branch",
            Outcome::Done => "a deletion undone",
            other => panic!("{other:?}"),
        };
        self.count(what, true);
        let Some(new) = after.topic(topic).filter(|_| *outcome == Outcome::Done) else { return };
        let deleted = before.deleted_topics().get(&branch.of).map(|it| &it.topic);
        let parent = before.topic(branch.of).or(deleted).expect("it was branched");
        for (old, new) in parent.partitions.iter().zip(&new.partitions) {
            let shares = new.extents().any(|it| it.segment().is_some());
            self.count("shared", shares);
            self.count("a branch of a branch", shares && new.origins.len() > 1);
            self.count("shared to a point", shares && new.high_watermark < old.high_watermark);
            let last = new.extents().filter(|it| it.location().is_some()).last();
            let is_cut = |last: &Extent| {
                old.extents().any(|it| it.end() > last.end() && it.base == last.base)
            };
            self.count("an extent cut", last.is_some_and(is_cut));
            let is_merged = |it: &Extent| matches!(it.content, Content::Merged(_));
            self.count("merged extents shared", new.extents().any(is_merged));
            let ended =
                |it: &Extent| it.max_timestamp == -1 && matches!(it.content, Content::Marker(_));
            let ends = new.extents().filter(|it| ended(it)).count();
            self.count("an aborted transaction torn", ends > 0);
            self.count("several torn", ends > 1);
            let open = old.open_transactions().keys().next();
            let is_beside = open.is_some_and(|_| shares);
            self.count("a branch below an open transaction", is_beside);
            let cleaned = old.cleaned() > new.high_watermark;
            self.count("a branch of what was cleaned", cleaned);
        }
    }

    fn deleted(&mut self, before: &State, topic: TopicId, after: &State) {
        let old = before.topic(topic).expect("it was deleted");
        let kept = after.deleted_topics().get(&topic);
        self.count("deleted and kept", kept.is_some());
        self.count("deleted, and there was nothing in it", kept.is_none());
        let ongoing = |it: &Transactional| {
            it.ongoing().is_some_and(|it| {
                it.partitions.iter().any(|(at, first)| at.topic == topic && first.is_some())
            })
        };
        let is_open = before.transactions().iter().any(|(_, it)| ongoing(it));
        self.count("deleted with an open transaction", kept.is_some() && is_open);
        let fewer = |state: &State| state.segments().referenced().len();
        self.count("deleted, and what was open is let go", fewer(after) < fewer(before));
        let has_origin = |it: &Partition| !it.origins.is_empty();
        self.count("a branch deleted", kept.is_some() && old.partitions.iter().any(has_origin));
    }

    fn expired(
        &mut self,
        before: &State,
        topic: &Topic,
        (old, new): (&Partition, &Partition),
        until: Offset,
    ) {
        let retention = before.retention(topic);
        let gone = new.log_start > old.log_start;
        let bytes = crate::state::retention::Retention { ms: None, ..retention };
        let time = crate::state::retention::Retention { bytes: None, ..retention };
        // The entry may have moved log time: by that more may be due.
        let now_ms = before.log_time_ms();
        let by = |it| old.due_before(it, now_ms) > old.log_start;
        self.count("expired by bytes", gone && by(&bytes) && !by(&time));
        self.count("expired by time", gone && by(&time) && !by(&bytes));
        self.count("expired as far as was asked for", gone && new.log_start == until);
        let holds = old.extents().next().is_some();
        self.count("not due", !gone && holds && until > old.log_start);
        let stable = old.last_stable_offset();
        let is_held = holds && stable < old.high_watermark && by(&retention);
        self.count("expired below an open transaction", gone && is_held);
        let due = |it: &Extent| it.end() > stable && it.max_timestamp < now_ms - 3000;
        let kept = retention.ms.is_some_and(|ms| ms <= 3000) && old.extents().any(due);
        self.count("old, and open", kept && until == Offset(i64::MAX));
        let is_timeless = |it: &Extent| it.max_timestamp < 0 && it.end() <= new.log_start;
        self.count("what has no time expired", gone && old.extents().any(is_timeless));
    }

    fn living(&mut self, state: &State) {
        let mut users: BTreeSet<(SegmentId, TopicId)> = BTreeSet::new();
        for topic in state.topics() {
            let extents = topic.partitions.iter().flat_map(Partition::extents);
            users.extend(extents.filter_map(|it| Some((it.segment()?, topic.id))));
        }
        let mut last = None;
        let mut shared = 0;
        for (segment, _) in users {
            shared += usize::from(last == Some(segment));
            last = Some(segment);
        }
        self.count("a segment that topics share", shared > 0);
    }
}

#[test]
fn the_lives_that_are_drawn_meet_all_there_is_to_meet() {
    let mut happened = Happened::default();
    of_steps(200, strategies::life_steps(50), |before, proposal, outcome, after| {
        happened.lived(before, proposal, outcome, after);
        happened.living(after);
    });
    happened.expect(&[
        "one by several",
        "several by one",
        "replaced by a gap",
        "a gap replaced",
        "a marker replaced",
        "an abort marker replaced",
        "inline replaced",
        "shared records replaced",
        "replaced across an origin",
        "replaced where the log start lies",
        "what lies below the log start did not come",
        "open behind what was replaced",
        "cleaned",
        "cleaned, and nothing replaced",
        "replaced too late: the topic is gone",
        "replaced too late: the log start has moved",
        "replaced too late: it was replaced",
        "replaced by nonsense",
        "log start in what was merged",
        "a branch",
        "a branch of a branch",
        "a deletion undone",
        "a branch of nothing",
        "a branch out of range",
        "a branch whose name is taken",
        "a branch whose id is taken",
        "a branch with other partitions",
        "a branch below an open transaction",
        "a branch of what was cleaned",
        "shared",
        "shared to a point",
        "an extent cut",
        "merged extents shared",
        "an aborted transaction torn",
        "a segment that topics share",
        "deleted and kept",
        "deleted, and there was nothing in it",
        "deleted with an open transaction",
        "deleted, and what was open is let go",
        "a branch deleted",
        "purged",
        "purged, and a segment is to be swept",
        "purged, and another topic has its segments",
        "expired by bytes",
        "expired by time",
        "expired as far as was asked for",
        "expired below an open transaction",
        "what has no time expired",
        "not due",
        "old, and open",
        "inline",
        "inline, and nothing of it taken",
        "inline a second time",
        "inline bytes given back",
        "forgotten",
        "not forgotten",
        "a commit that is too old",
        "a second part",
        "a second part that is too old",
        "a merge that is too old",
    ]);
}
