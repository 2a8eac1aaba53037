//! The words of the scripts for the life of data.
//!
//! `branch-topic name=b of=a ends=7,-` branches topic a, which may have been deleted, at these
//! offsets, or where it ends. `commit-inline segment=s1 bytes=500` is followed by batches like
//! `commit`. `look of=a-0 from=0 to=6 as=x` remembers what lies there; `rewrite segment=s2 level=1`
//! is followed by lines `a-0 from=0 to=6 with=4,gap:2 seen=x cleaned=6`: how many offsets each of
//! the extents takes that come in place of those, which are as they are if nothing was `seen`.
//! `expire-records` is followed by partitions and offsets `before=`; `purge-topics` by topics, as
//! the script calls them; `forget segments=s1,s2` and `raise-horizon to=4` say it all.

use std::fmt::Write as _;

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicPartition};

use super::script_text::{
    BLOCK_OVERHEAD, Names, Words, configs, partition, runs, segment, segment_called, show_partition,
};
use crate::command::{Branch, Command, NewBlock, NewExtent, Replacement};
use crate::lsn::Lsn;
use crate::state::State;
use crate::state::partition::{Content, Extent, Partition};
use crate::state::segments::SegmentRefs;

/// What of a block in these scripts its batches take.
const CONTENT_BYTES: u32 = 100;

/// The command that the words say; `None` if they are not about the life of data.
pub(super) fn command(
    names: &mut Names,
    state: &State,
    words: &Words,
    details: &[Words],
) -> Option<Command> {
    Some(match words.verb.as_str() {
        "branch-topic" => {
            let end = |it: &str| (it != "-").then(|| Offset(it.parse().expect("an offset")));
            let ends = words.text("ends").into_iter().flat_map(|it| it.split(',')).map(end);
            let of = names.topic_called(words.text("of").unwrap_or_default());
            Command::BranchTopic {
                topic: names.new_topic(words),
                name: words.text("name").unwrap_or_default().to_owned(),
                replication_factor: 1,
                configs: configs(words),
                branch: Branch { of, ends: ends.collect() },
            }
        }
        "purge-topics" => Command::PurgeTopics {
            topics: details.iter().map(|line| names.topic_called(&line.verb)).collect(),
        },
        "commit-inline" => {
            let bytes = usize::try_from(words.number("bytes", 500)).unwrap();
            let (content, runs) = (Bytes::from(vec![1; bytes]), runs(state, details));
            Command::CommitInline { segment: segment(words), content, runs }
        }
        "rewrite" => {
            let mut position = 32;
            let replacement = |line: &Words| replacement(names, state, line, &mut position);
            let replacements = details.iter().map(replacement).collect();
            let level = u8::try_from(words.number("level", 1)).unwrap();
            let bytes = words.number("bytes", 10_000);
            Command::ReplaceExtents { segment: segment(words), bytes, level, replacements }
        }
        "raise-horizon" => Command::RaiseHorizon { to: Lsn::new(words.number("to", 0)) },
        "forget" => {
            let all = words.text("segments").into_iter().flat_map(|it| it.split(','));
            let began = words.number("began", 1);
            let segments = all.map(|name| segment_called(name, began)).collect();
            Command::ForgetSegments { segments }
        }
        "expire-records" => {
            let one = |line: &Words| {
                let before = Offset(line.signed("before", i64::MAX));
                (partition(state, &line.verb), before)
            };
            Command::ExpireRecords { partitions: details.iter().map(one).collect() }
        }
        _ => return None,
    })
}

fn replacement(names: &Names, state: &State, line: &Words, position: &mut u64) -> Replacement {
    let at = partition(state, &line.verb);
    let (from, to) = (Offset(line.signed("from", 0)), Offset(line.signed("to", 0)));
    let found = state.partition(at).and_then(|it| it.hash_between(from, to)).unwrap_or(0);
    let inputs = line.text("seen").map_or(found, |name| names.seen[name]);
    let mut extents = Vec::new();
    for word in line.text("with").into_iter().flat_map(|it| it.split(',')) {
        let (word, is_gap) = word.strip_prefix("gap:").map_or((word, false), |it| (it, true));
        let stored_bytes = CONTENT_BYTES + BLOCK_OVERHEAD;
        let block = NewBlock { position: *position, stored_bytes, bytes: CONTENT_BYTES };
        *position += if is_gap { 0 } else { u64::from(stored_bytes) };
        extents.push(NewExtent {
            records: word.parse().expect("a number of records"),
            max_timestamp: if is_gap { -1 } else { line.signed("timestamp", 0) },
            block: (!is_gap).then_some(block),
        });
    }
    let cleaned = line.has("cleaned").then(|| Offset(line.signed("cleaned", 0)));
    Replacement { partition: at, from, to, inputs, extents, cleaned }
}

/// Answers a question about the life of data; `None` if it is none.
pub(super) fn show(
    names: &mut Names,
    text: &mut String,
    state: &State,
    words: &Words,
) -> Option<()> {
    match words.verb.as_str() {
        "look" => {
            let (from, to) = (Offset(words.signed("from", 0)), Offset(words.signed("to", 0)));
            let found = state.partition(partition(state, words.text("of")?))?;
            let hash = found.hash_between(from, to);
            let seen = if hash.is_some() { "seen" } else { "no extent begins or ends there" };
            writeln!(text, "{seen}").unwrap();
            names.seen.insert(words.text("as")?.to_owned(), hash.unwrap_or(0));
        }
        "show-deleted" => {
            for (topic, deleted) in state.deleted_topics() {
                let (since, since_ms, name) =
                    (deleted.since, deleted.since_ms, &deleted.topic.name);
                writeln!(text, "{topic} name={name} since lsn={since} time={since_ms}").unwrap();
                for (index, partition) in (0..).zip(&deleted.topic.partitions) {
                    let own = TopicPartition { topic: *topic, partition: index };
                    show_partition(text, own, partition);
                }
            }
        }
        "show-horizon" => {
            let segments = state.segments();
            let (horizon, inline) = (segments.horizon(), segments.inline_bytes());
            writeln!(text, "horizon={horizon} inline={inline}").unwrap();
        }
        _ => return None,
    }
    Some(())
}

/// How far a partition is compacted, if it is at all.
pub(super) fn show_cleaned(text: &mut String, partition: &Partition) {
    if partition.cleaned() > Offset(0) {
        write!(text, " cleaned={}", partition.cleaned()).unwrap();
    }
}

/// What of a segment is not so of most.
pub(super) fn show_segment(text: &mut String, refs: &SegmentRefs) {
    if refs.level > 0 {
        write!(text, " level={}", refs.level).unwrap();
    }
    if let Some(inline) = &refs.inline {
        write!(text, " inline={}", inline.len()).unwrap();
    }
}

/// An extent of which nothing is left.
pub(super) fn show_gap(text: &mut String, extent: &Extent) {
    if extent.content == Content::Gap {
        writeln!(text, "{}..{} gap time={}", extent.base, extent.end(), extent.max_timestamp)
            .unwrap();
    }
}

/// Whether an extent was merged, and whose it was, if it was another topic's.
pub(super) fn show_origin(
    text: &mut String,
    own: TopicPartition,
    partition: &Partition,
    extent: &Extent,
) {
    if let Content::Merged(_) = extent.content {
        write!(text, " merged").unwrap();
    }
    let owner = partition.owner(own, extent.base);
    if owner != own {
        write!(text, " of={}", owner.topic).unwrap();
    }
}
