//! Footers that entries leave the runs of their commits to, and how they are had.
//!
//! Whoever appends such an entry sends the footers along when it tells the others ([`packed`],
//! [`unpack`]). Who was not told reads them in the store ([`read`]), all that a page of the log
//! needs at once. What commits by footer mean is in `command::footer`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::time::sleep;

use crate::command::codec::encode_footer;
use crate::command::footer::{fill, lacking};
use crate::command::{Command, Entry, FooterRef, Proposal, Run};
use crate::object::ObjectKey;
use crate::port::PortError;
use crate::segment::SegmentId;

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
    let by_footer = |it: &&Proposal| matches!(it.command, Command::CommitByFooter { .. });
    let footers = entry.proposals.iter().filter(by_footer).map(|_| FOOTER_WEIGHT).sum::<u64>();
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
    let missing: BTreeMap<SegmentId, FooterRef> = entries
        .iter()
        .flat_map(|entry| lacking(&entry.proposals))
        .map(|footer| (footer.segment, *footer))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let reads = missing.into_values().map(|footer| read_one(footer, &get));
    let answers: Vec<_> = stream::iter(reads).buffer_unordered(READS_MAX).collect().await;
    let mut known: BTreeMap<SegmentId, (FooterRef, Vec<Run>)> = BTreeMap::new();
    let mut failed = Ok(());
    for answer in answers {
        match answer {
            Ok((footer, Some(runs))) => drop(known.insert(footer.segment, (footer, runs))),
            Ok((_, None)) => {}
            Err(error) => failed = Err(error),
        }
    }
    for entry in entries {
        fill(&mut entry.proposals, |footer| {
            let (named, runs) = known.get(&footer.segment)?;
            (named == footer).then(|| runs.clone())
        });
    }
    failed
}

async fn read_one<F>(
    footer: FooterRef,
    get: impl Fn(ObjectKey, Range<u64>) -> F,
) -> Result<(FooterRef, Option<Vec<Run>>), PortError>
where
    F: Future<Output = Result<Option<Bytes>, PortError>>,
{
    let Some(range) = footer.range() else { return Ok((footer, None)) };
    for _ in 0..READINGS {
        let bytes = get(footer.segment.key(), range.clone()).await?;
        let runs = bytes.and_then(|bytes| footer.open(bytes));
        if runs.is_some() {
            return Ok((footer, runs));
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
    let footers = proposals.iter().filter_map(|proposal| match &proposal.command {
        Command::CommitByFooter { footer, runs } => Some((footer, runs)),
        _ => None,
    });
    let pack = |(footer, runs): (&FooterRef, &Option<Vec<Run>>)| {
        let blocks_end = footer.range()?.start;
        let bytes = encode_footer(footer.segment, blocks_end, runs.as_ref()?.iter());
        zstd::bulk::compress(&bytes, ZSTD_LEVEL).ok().map(Bytes::from)
    };
    footers.map(pack).collect::<Option<_>>().unwrap_or_default()
}

/// Fills in what was sent along with proposals, as far as it is what they name.
pub(crate) fn unpack(proposals: &mut [Proposal], packed: &[Bytes]) {
    let mut frames = packed.iter();
    fill(proposals, |footer| {
        let length = usize::try_from(footer.bytes.min(FooterRef::BYTES_MAX)).ok()?;
        let bytes = zstd::bulk::decompress(frames.next()?, length).ok()?;
        footer.open(bytes.into())
    });
}

#[cfg(test)]
mod tests {
    use odradek_protocol::id::{TopicId, TopicPartition};
    use uuid::Uuid;

    use super::*;
    use crate::command::footer::lacking;
    use crate::command::{BatchSummary, CommandId, EntryHash, Incarnation};
    use crate::lsn::Lsn;
    use crate::segment::builder::{PendingBatch, SealedSegment, SegmentBuilder};

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

    fn without_runs(proposals: &[Proposal]) -> Vec<Proposal> {
        let mut proposals = proposals.to_vec();
        for proposal in &mut proposals {
            if let Command::CommitByFooter { runs, .. } = &mut proposal.command {
                *runs = None;
            }
        }
        proposals
    }

    #[test]
    fn the_footer_of_an_object_is_opened_by_its_name_and_nothing_else_is() {
        let (sealed, proposal) = segment(1, 50);
        let Command::CommitByFooter { footer, runs } = proposal.command else { panic!() };
        let range = footer.range().unwrap();
        let place = |at: u64| usize::try_from(at).unwrap();
        let bytes = sealed.bytes.slice(place(range.start)..place(range.end));
        assert_eq!(footer.open(bytes.clone()), runs);
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert_eq!(footer.open(damaged.into()), None, "{at}");
            assert_eq!(footer.open(bytes.slice(at + 1..)), None, "{at}");
        }
        let other = FooterRef { segment_bytes: footer.segment_bytes + 1, ..footer };
        assert_eq!(other.open(bytes), None);
        assert_eq!(FooterRef { segment_bytes: 100, bytes: 89, ..footer }.range(), None);
    }

    #[test]
    fn what_is_sent_along_is_filled_in_in_order_and_only_where_it_fits() {
        let [(_, one), (_, two)] = [segment(1, 50), segment(2, 500)];
        let heartbeat = Proposal { command: Command::Heartbeat, ..one.clone() };
        let proposals = [heartbeat, one, two];
        let sent = packed(&proposals);
        let mut read = without_runs(&proposals);
        unpack(&mut read, &sent);
        assert_eq!(read, proposals);
        // Some 40 bytes for each batch, said in much the same words.
        let bytes: usize = sent.iter().map(Bytes::len).sum();
        assert!(bytes < 550 * 20, "{bytes}");
        let swapped = [sent[1].clone(), sent[0].clone()];
        for wrong in [&swapped[..], &[], &[Bytes::from_static(b"no frame")]] {
            let mut read = without_runs(&proposals);
            unpack(&mut read, wrong);
            assert_eq!(lacking(&read).count(), 2);
        }
        assert_eq!(packed(&without_runs(&proposals)), Vec::<Bytes>::new());
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
            proposals: without_runs(&proposals),
        }];
        let answer = read(&mut entries, async |key, range: Range<u64>| {
            let at = all.iter().position(|(sealed, _)| sealed.id.key() == key).unwrap();
            match at {
                0 => Err(PortError::Indeterminate("no answer".into())),
                1 => Ok(None),
                _ => {
                    let place = |at: u64| usize::try_from(at).unwrap();
                    Ok(Some(all[at].0.bytes.slice(place(range.start)..place(range.end))))
                }
            }
        });
        assert!(answer.await.is_err());
        let filled: Vec<bool> = entries[0]
            .proposals
            .iter()
            .map(|it| lacking(std::slice::from_ref(it)).count() == 0)
            .collect();
        assert_eq!(filled, [false, false, true]);
        assert_eq!(entries[0].proposals[2], proposals[2]);
    }
}
