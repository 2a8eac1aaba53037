//! Footers that entries leave their commits and replacements to, and how they are had.
//!
//! Whoever appends such an entry sends the footers along when it tells the others ([`packed`],
//! [`unpack`]). Who was not told reads them in the store ([`read`]), all that a page of the log
//! needs at once. What is left to footers is in `command::footer`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::time::sleep;

use crate::command::footer::{fill, lacking};
use crate::command::{Entry, FooterRef, Proposal};
use crate::object::ObjectKey;
use crate::port::PortError;

/// How many footers are read at once.
const READS_MAX: usize = 32;

/// How often one must be gone or damaged to be taken for it: perhaps it was the way here.
const READINGS: u32 = 4;

/// How often one is asked for that the store refuses ([`insist`]), with pauses of this, doubled
/// each time: three seconds in all.
const ATTEMPTS_MAX: u32 = 6;
const PAUSE: Duration = Duration::from_millis(50);

/// See [`weight`]. With the settings that are the default a start has a thousand footers to read at
/// most.
const FOOTER_WEIGHT: u64 = 64 * 1024;

/// Level at which footers are compressed on their way: they are said again and again in much the
/// same words, and between zones each byte is paid for.
const ZSTD_LEVEL: i32 = 1;

/// How much work an entry of so many bytes is for whoever starts, in bytes of entries: a footer
/// takes a request, and that as long as reading so much of the log.
pub(crate) fn weight(entry: &Entry, bytes: usize) -> u64 {
    let footers = entry.proposals.iter().filter_map(|it| it.command.footer());
    let footers = footers.map(|_| FOOTER_WEIGHT).sum::<u64>();
    footers.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// Reads the footers that entries need. What is not there, or is not what the entry names, is left
/// out: `State::apply` tells whether it is needed.
///
/// An error is one of the store, which may have the rest a moment later; what could be read was
/// filled in.
pub(crate) async fn read<F>(
    entries: &mut [Entry],
    get: impl Fn(ObjectKey, Range<u64>) -> F,
) -> Result<(), PortError>
where
    F: Future<Output = Result<Option<Bytes>, PortError>>,
{
    let missing: BTreeSet<FooterRef> =
        entries.iter().flat_map(|entry| lacking(&entry.proposals)).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let reads = missing.into_iter().map(|footer| read_one(footer, &get));
    let answers: Vec<_> = stream::iter(reads).buffer_unordered(READS_MAX).collect().await;
    let mut known = BTreeMap::new();
    let mut failed = Ok(());
    for answer in answers {
        match answer {
            Ok((footer, Some(bytes))) => drop(known.insert(footer, bytes)),
            Ok((_, None)) => {}
            Err(error) => failed = Err(error),
        }
    }
    for entry in entries {
        fill(&mut entry.proposals, |footer| known.get(footer).cloned());
    }
    failed
}

async fn read_one<F>(
    footer: FooterRef,
    get: impl Fn(ObjectKey, Range<u64>) -> F,
) -> Result<(FooterRef, Option<Bytes>), PortError>
where
    F: Future<Output = Result<Option<Bytes>, PortError>>,
{
    let Some(range) = footer.range() else { return Ok((footer, None)) };
    for _ in 0..READINGS {
        let bytes = get(footer.segment.key(), range.clone()).await?;
        if let Some(bytes) = bytes.filter(|bytes| footer.names(bytes)) {
            return Ok((footer, Some(bytes)));
        }
    }
    tracing::debug!(segment = %footer.segment, "footer is gone or damaged");
    Ok((footer, None))
}

/// Repeats a read that is refused, ever more slowly: whoever starts may need hundreds, and a store
/// that turns some away because they are too many would have all of them read again.
pub(crate) async fn insist<T, F>(mut read: impl FnMut() -> F) -> Result<T, PortError>
where
    F: Future<Output = Result<T, PortError>>,
{
    let mut attempts = 1;
    loop {
        match read().await {
            Err(PortError::Determinate(_)) if attempts < ATTEMPTS_MAX => {
                sleep(PAUSE * 2_u32.pow(attempts)).await;
                attempts += 1;
            }
            answer => return answer,
        }
    }
}

/// The footers that proposals name, in order, each in a zstd frame; nothing if one is not known.
pub(crate) fn packed(proposals: &[Proposal]) -> Vec<Bytes> {
    let by_footer = proposals.iter().filter(|it| it.command.footer().is_some());
    let pack = |proposal: &Proposal| {
        let bytes = proposal.command.write_footer()?;
        zstd::bulk::compress(&bytes, ZSTD_LEVEL).ok().map(Bytes::from)
    };
    by_footer.map(pack).collect::<Option<_>>().unwrap_or_default()
}

/// Fills in what was sent along with proposals, as far as it is what they name.
pub(crate) fn unpack(proposals: &mut [Proposal], packed: &[Bytes]) {
    let mut frames = packed.iter();
    fill(proposals, |footer| {
        let length = usize::try_from(footer.bytes.min(FooterRef::BYTES_MAX)).ok()?;
        zstd::bulk::decompress(frames.next()?, length).ok().map(Bytes::from)
    });
}

#[cfg(test)]
mod tests {
    use std::slice;

    use odradek_protocol::id::{Offset, TopicId, TopicPartition};
    use uuid::Uuid;

    use super::*;
    use crate::command::codec::encode_replacements;
    use crate::command::{
        BatchSummary, Command, CommandId, EntryHash, Incarnation, NewBlock, NewExtent, Replacement,
    };
    use crate::lsn::Lsn;
    use crate::segment::builder::{
        PendingBatch, SealedBlock, SealedSegment, SegmentBuilder, SegmentSink,
    };
    use crate::segment::{SegmentId, read_footer};

    /// A segment with a batch of each of so many partitions, and its commit.
    fn segment(counter: u64, partitions: i32) -> (SealedSegment, Proposal) {
        let mut builder = SegmentBuilder::default();
        for partition in 0..partitions {
            let topic = TopicId(Uuid::from_u128(5));
            let summary = BatchSummary { bytes: 9, records: 1, max_timestamp: 0, producer: None };
            let bytes = Bytes::from_static(b"some bytes").slice(..9);
            let batch = PendingBatch { bytes, summary, compressed: false };
            builder.push(TopicPartition { topic, partition }, batch);
        }
        let id = SegmentId { began: Lsn::FIRST, incarnation: Incarnation(8), counter };
        let sealed = builder.seal(id, None);
        let runs = sealed.blocks.iter().map(|block| block.run.clone()).collect();
        let command = Command::CommitByFooter { footer: sealed.footer, runs: Some(runs) };
        let id = CommandId { incarnation: Incarnation(8), counter };
        (sealed, Proposal { id, command })
    }

    /// A segment that others were rewritten to, with two footers that say so.
    fn rewritten(counter: u64, each: i64) -> (Bytes, [Proposal; 2]) {
        let replacements = |first: i64| {
            let replacement = |at: i64| {
                let block = Some(NewBlock { position: 32, stored_bytes: 45, bytes: 9 });
                let extents = vec![NewExtent { records: 1, max_timestamp: at, block }];
                let partition = TopicPartition { topic: TopicId(Uuid::from_u128(5)), partition: 0 };
                let (from, to) = (Offset(at), Offset(at + 1));
                let inputs = at.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15);
                Replacement { partition, from, to, inputs, extents, cleaned: None }
            };
            (first..first + each).map(replacement).collect::<Vec<_>>()
        };
        let id = SegmentId { began: Lsn::FIRST, incarnation: Incarnation(9), counter };
        let mut sink = SegmentSink::new(id, 0, None);
        let (sealed, _) = segment(counter, 1);
        let SealedBlock { run, content } = &sealed.blocks[0];
        let batch =
            PendingBatch { bytes: content.clone(), summary: run.batches[0], compressed: false };
        sink.put(run.partition, vec![batch]);
        let said = [replacements(0), replacements(each)];
        let (object, named) = sink.finish_with(&said.clone().map(|it| encode_replacements(&it)));
        assert_eq!(read_footer(id, &object).unwrap().len(), 1);
        let mut named = named.into_iter();
        let proposals = said.map(|replacements| {
            let (footer, replacements) = (named.next().unwrap(), Some(replacements));
            let command = Command::ReplaceByFooter { footer, level: 1, replacements };
            Proposal { id: CommandId { incarnation: Incarnation(9), counter }, command }
        });
        (object, proposals)
    }

    fn without_footers(proposals: &[Proposal]) -> Vec<Proposal> {
        let mut proposals = proposals.to_vec();
        for proposal in &mut proposals {
            match &mut proposal.command {
                Command::CommitByFooter { runs, .. } => *runs = None,
                Command::ReplaceByFooter { replacements, .. } => *replacements = None,
                _ => {}
            }
        }
        proposals
    }

    fn part(object: &Bytes, range: Range<u64>) -> Bytes {
        let place = |at: u64| usize::try_from(at).unwrap();
        object.slice(place(range.start)..place(range.end))
    }

    #[test]
    fn a_footer_of_an_object_is_opened_by_its_name_and_nothing_else_is() {
        let (sealed, commit) = segment(1, 50);
        let (object, replaces) = rewritten(2, 30);
        let [first, second] = &replaces;
        for (object, whole) in [(&sealed.bytes, &commit), (&object, first), (&object, second)] {
            let opened = |bytes: Bytes| {
                let mut read = without_footers(slice::from_ref(whole));
                fill(&mut read, |_| Some(bytes.clone()));
                (read[0] == *whole).then_some(())
            };
            let bytes = part(object, whole.command.footer().unwrap().range().unwrap());
            assert_eq!(opened(bytes.clone()), Some(()));
            for at in 0..bytes.len() {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 1;
                assert_eq!(opened(damaged.into()), None, "{at}");
                assert_eq!(opened(bytes.slice(at + 1..)), None, "{at}");
            }
        }
        // The footer that lies elsewhere is another one.
        let moved = FooterRef { position: sealed.footer.position + 1, ..sealed.footer };
        let mut read = Command::CommitByFooter { footer: moved, runs: None };
        read.read_footer(part(&sealed.bytes, sealed.footer.range().unwrap()));
        assert_eq!(read, Command::CommitByFooter { footer: moved, runs: None });
        let outside = FooterRef { segment_bytes: 100, position: 12, bytes: 89, ..sealed.footer };
        assert_eq!(outside.range(), None);
        assert_eq!(FooterRef { position: u64::MAX, ..outside }.range(), None);
    }

    #[test]
    fn what_is_sent_along_is_filled_in_in_order_and_only_where_it_fits() {
        let [(_, one), (_, two)] = [segment(1, 50), segment(2, 500)];
        let (_, [three, _]) = rewritten(3, 20);
        let heartbeat = Proposal { command: Command::Heartbeat, ..one.clone() };
        let proposals = [heartbeat, one, two, three];
        let sent = packed(&proposals);
        let mut read = without_footers(&proposals);
        unpack(&mut read, &sent);
        assert_eq!(read, proposals);
        // Some 40 bytes for each batch, said in much the same words.
        let bytes: usize = sent[..2].iter().map(Bytes::len).sum();
        assert!(bytes < 550 * 20, "{bytes}");
        let swapped = [sent[1].clone(), sent[0].clone()];
        for wrong in [&swapped[..], &[], &[Bytes::from_static(b"no frame")]] {
            let mut read = without_footers(&proposals);
            unpack(&mut read, wrong);
            assert_eq!(lacking(&read).count(), 3);
        }
        assert_eq!(packed(&without_footers(&proposals)), Vec::<Bytes>::new());
    }

    #[tokio::test]
    async fn those_that_can_be_read_are_filled_in_though_others_can_not() {
        let all = [segment(1, 1), segment(2, 2), segment(3, 3)];
        let proposals: Vec<Proposal> = all.iter().map(|(_, it)| it.clone()).collect();
        let mut entries = [Entry {
            log_id: Uuid::from_u128(1),
            lsn: Lsn::FIRST,
            previous: EntryHash(0),
            append_id: proposals[0].id,
            level: 1,
            time_ms: 0,
            digest: None,
            proposals: without_footers(&proposals),
        }];
        let answer = read(&mut entries, async |key, range: Range<u64>| {
            let at = all.iter().position(|(sealed, _)| sealed.id.key() == key).unwrap();
            match at {
                0 => Err(PortError::Indeterminate("no answer".into())),
                1 => Ok(None),
                _ => Ok(Some(part(&all[at].0.bytes, range))),
            }
        });
        assert!(answer.await.is_err());
        let filled: Vec<bool> = entries[0]
            .proposals
            .iter()
            .map(|it| lacking(slice::from_ref(it)).count() == 0)
            .collect();
        assert_eq!(filled, [false, false, true]);
        assert_eq!(entries[0].proposals[2], proposals[2]);
    }
}
