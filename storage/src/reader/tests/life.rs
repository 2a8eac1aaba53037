//! What was merged, compacted, shared with a branch or never put into the store is read like all
//! else.

use std::collections::BTreeMap;

use odradek_protocol::record::ControlBatch;

use super::*;
use crate::command::{Branch, NewExtent, ProducerIdAndEpoch, Replacement, TransactionChange};
use crate::segment::builder::SegmentSink;

const TRANSACTIONAL: i16 = 0x10;

fn topic(number: u128) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(number)), partition: 0 }
}

/// What an extent is to hold: batches with their offsets.
struct Tile {
    records: u32,
    max_timestamp: i64,
    batches: Vec<Bytes>,
}

fn gap(records: u32) -> Tile {
    Tile { records, max_timestamp: -1, batches: Vec::new() }
}

fn tile(records: u32, batches: &[Bytes]) -> Tile {
    let batches = batches.to_vec();
    let headers = batches.iter().map(|it| RecordBatch::split_first(it).unwrap().0);
    let times = headers.filter(|it| !it.is_control()).map(|it| it.max_timestamp());
    Tile { records, max_timestamp: times.max().unwrap_or(-1), batches }
}

fn at(base: i64, batch: &Bytes) -> Bytes {
    [&base.to_be_bytes(), &batch[8..]].concat().into()
}

/// A batch that compaction has left these records of: how far behind its base, and when.
fn sparse(base: i64, offsets: u32, left: &[(u8, u8)]) -> Bytes {
    let latest = left.iter().map(|(_, time)| i64::from(*time)).max().unwrap();
    let count = u32::try_from(left.len()).unwrap();
    let mut bytes = at(base, &batch(0, &[0])).slice(..61).to_vec();
    bytes[8..12].copy_from_slice(&u32::to_be_bytes(49 + 7 * count));
    bytes[23..27].copy_from_slice(&(offsets - 1).to_be_bytes());
    bytes[35..43].copy_from_slice(&(BASE_MS + latest).to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    for (delta, time) in left {
        bytes.extend_from_slice(&[12, 0, 2 * time, 2 * delta, 1, 1, 0]);
    }
    bytes.into()
}

impl Shelf {
    fn fresh_segment(&mut self) -> SegmentId {
        self.segments += 1;
        SegmentId { began: Lsn::FIRST, incarnation: Incarnation(1), counter: self.segments }
    }

    /// Puts a segment with these extents and swaps them in.
    async fn rewrite(&mut self, of: TopicPartition, from: i64, to: i64, tiles: &[Tile]) {
        let id = self.fresh_segment();
        let mut sink = SegmentSink::new(id, 0, None);
        let mut base = Offset(from);
        let mut extents = Vec::new();
        for Tile { records, max_timestamp, batches } in tiles {
            let owner = self.machine.read(|state| state.partition(of).unwrap().owner(of, base));
            let pending = |bytes: &Bytes| {
                let (batch, _) = RecordBatch::split_first(bytes).unwrap();
                let summary = BatchSummary {
                    bytes: u32::try_from(bytes.len()).unwrap(),
                    records: batch.offsets(),
                    max_timestamp: batch.max_timestamp(),
                    producer: None,
                };
                PendingBatch { bytes: bytes.clone(), summary, compressed: false }
            };
            let block = (!batches.is_empty())
                .then(|| sink.put(owner, batches.iter().map(pending).collect()));
            let (records, max_timestamp) = (*records, *max_timestamp);
            extents.push(NewExtent { records, max_timestamp, block });
            base = base.advanced_by(records);
        }
        let object = sink.finish();
        let bytes = u64::try_from(object.len()).unwrap();
        assert_eq!(self.objects.put_if_absent(&id.key(), object).await.unwrap(), Put::Created);
        let (from, to) = (Offset(from), Offset(to));
        let hash = |state: &crate::state::State| state.partition(of)?.hash_between(from, to);
        let inputs = self.machine.read(hash).expect("extents begin and end there");
        let replacement = Replacement { partition: of, from, to, inputs, extents, cleaned: None };
        let replacements = vec![replacement];
        let command = Command::ReplaceExtents { segment: id, bytes, level: 1, replacements };
        let outcome = self.machine.propose(command).await;
        assert_eq!(outcome, Ok(Outcome::ExtentsReplaced(vec![Ok(())])));
    }

    async fn branch(&self, of: TopicPartition, number: u128, end: Option<i64>) -> TopicPartition {
        let to = topic(number);
        let command = Command::BranchTopic {
            topic: to.topic,
            name: format!("branch-{number}"),
            replication_factor: 1,
            configs: BTreeMap::new(),
            branch: Branch { of: of.topic, ends: vec![end.map(Offset)] },
        };
        assert_eq!(self.machine.propose(command).await, Ok(Outcome::Done));
        to
    }

    /// What a reader of a partition sees, whatever it asks for: batches from each offset on, with
    /// and without room for more than one, and where it finds each time.
    async fn all_of(&self, of: TopicPartition) -> Seen {
        let mut seen = Seen::default();
        let target = |offset, bytes_max| FetchTarget { partition: of, offset, bytes_max };
        let Watermarks { log_start, high_watermark, .. } = self.reader.watermarks(of).unwrap();
        for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
            for offset in log_start.0..=high_watermark.0 {
                for bytes_max in [1, usize::MAX] {
                    let target = target(Offset(offset), bytes_max);
                    let plan = self.reader.plan(&[target], bytes_max, isolation);
                    let fetched = self.reader.fetch(plan).await.remove(0).unwrap();
                    let batches = batches_of(&fetched);
                    let whole = batches.iter().map(|it| (it.base_offset(), it.bytes().clone()));
                    let aborted = fetched.aborted.into_iter().flatten();
                    let aborted = aborted.map(|it| (it.producer.0, it.first.0)).collect();
                    seen.batches.push((offset, bytes_max, whole.collect(), aborted));
                }
            }
            for time in 0..=31 {
                let time = BASE_MS + time;
                let found = self.reader.offset_for_timestamp(of, time, isolation).await;
                seen.times.push(found.unwrap());
            }
            seen.times.push(self.reader.offset_of_max_timestamp(of, isolation).await.unwrap());
        }
        seen
    }

    /// First offsets of the batches that a fetch gives.
    async fn bases(&self, of: TopicPartition, offset: i64, bytes_max: usize) -> Vec<i64> {
        let target = FetchTarget { partition: of, offset: Offset(offset), bytes_max };
        let plan = self.reader.plan(&[target], bytes_max, Isolation::ReadUncommitted);
        let fetched = self.reader.fetch(plan).await.remove(0).unwrap();
        batches_of(&fetched).iter().map(RecordBatch::base_offset).collect()
    }

    /// First offsets of the batches that a fetch from several offsets at once gives, with so many
    /// bytes of each, if its plan is cut to so many in all.
    async fn limited_bases(
        &self,
        offsets: &[i64],
        bytes_max: usize,
        in_all: usize,
    ) -> Vec<Vec<i64>> {
        let target = |offset| FetchTarget { partition: ORDERS, offset: Offset(offset), bytes_max };
        let targets: Vec<_> = offsets.iter().copied().map(target).collect();
        let mut plan = self.reader.plan(&targets, usize::MAX, Isolation::ReadUncommitted);
        plan.limit_to(in_all);
        let fetched = self.reader.fetch(plan).await;
        let bases = |it: &Fetched| batches_of(it).iter().map(RecordBatch::base_offset).collect();
        fetched.iter().map(|it| bases(it.as_ref().unwrap())).collect()
    }

    async fn time_in(&self, of: TopicPartition, time: u8) -> Option<(i64, u8)> {
        let time = BASE_MS + i64::from(time);
        let isolation = Isolation::ReadUncommitted;
        plain(self.reader.offset_for_timestamp(of, time, isolation).await.unwrap())
    }

    async fn latest_in(&self, of: TopicPartition) -> Option<(i64, u8)> {
        let isolation = Isolation::ReadUncommitted;
        plain(self.reader.offset_of_max_timestamp(of, isolation).await.unwrap())
    }

    async fn change(&self, change: TransactionChange) -> ProducerIdAndEpoch {
        let transactional_id = "t".to_owned();
        let command = Command::ChangeTransaction { transactional_id, change };
        match self.machine.propose(command).await {
            Ok(Outcome::Producer(producer)) => producer,
            outcome => panic!("{outcome:?}"),
        }
    }

    async fn end(&self, producer: ProducerIdAndEpoch, commits: bool) -> ProducerIdAndEpoch {
        let number =
            |state: &crate::state::State| state.transactions().get("t").unwrap().transaction;
        let transaction = self.machine.read(number);
        let end = TransactionChange::End { producer, transaction, commits, bumps_epoch: true };
        self.change(end).await
    }
}

/// From which offset on, with how much room: the batches, and which transactions were aborted.
type Batches = (i64, usize, Vec<(i64, Bytes)>, Vec<(i64, i64)>);

#[derive(Debug, Default, PartialEq)]
struct Seen {
    batches: Vec<Batches>,
    times: Vec<Option<TimestampOffset>>,
}

fn plain(found: Option<TimestampOffset>) -> Option<(i64, u8)> {
    found.map(|it| (it.offset.0, u8::try_from(it.timestamp_ms - BASE_MS).unwrap()))
}

/// Three extents and two markers, of which the second ends what was aborted.
async fn with_transactions() -> (Shelf, Vec<Bytes>) {
    let mut shelf = Shelf::new().await;
    let init = TransactionChange::InitProducer { timeout_ms: 60_000, expected: None };
    let mut producer = shelf.change(init).await;
    let mut whole = Vec::new();
    let mut end = 0;
    for (commits, times) in [(true, [3, 9]), (false, [12, 5])] {
        let ProducerIdAndEpoch { id, epoch } = producer;
        let transaction = crate::command::BatchTransaction::Implicit;
        let of = BatchProducer { id, epoch, base_sequence: 0, transaction };
        let batches = [batch(0, &[7]), batch(TRANSACTIONAL, &times), batch(0, &[2])];
        let [first, second, third] = batches.clone();
        shelf.add_of(&[(first, None), (second, Some(of)), (third, None)]).await;
        producer = shelf.end(producer, commits).await;
        for batch in &batches {
            whole.push(at(end, batch));
            end += i64::from(RecordBatch::split_first(batch).unwrap().0.offsets());
        }
        let marker = ControlBatch {
            offset: end,
            timestamp_ms: shelf.machine.read(|state| state.log_time_ms()),
            producer_id: id.0,
            producer_epoch: epoch + 1,
            commits,
        };
        whole.push(marker.to_bytes());
        end += 1;
    }
    shelf.add(&[batch(0, &[1, 30])]).await;
    whole.push(at(end, &batch(0, &[1, 30])));
    (shelf, whole)
}

#[tokio::test(start_paused = true)]
async fn what_was_merged_is_read_as_it_was_with_the_ends_of_transactions() {
    let (mut shelf, batches) = with_transactions().await;
    let before = shelf.all_of(ORDERS).await;
    assert_eq!(before.batches[1].2.len(), batches.len());
    // A part of it: from the first marker to the second.
    shelf.rewrite(ORDERS, 4, 10, &[tile(6, &batches[3..8])]).await;
    assert_eq!(shelf.all_of(ORDERS).await, before);
    // All of it, also what was merged already.
    shelf.rewrite(ORDERS, 0, 12, &[tile(12, &batches)]).await;
    assert_eq!(shelf.all_of(ORDERS).await, before);
    // And into several, one of which holds a marker and no record.
    let tiles = [tile(4, &batches[..3]), tile(1, &batches[3..4]), tile(7, &batches[4..])];
    shelf.rewrite(ORDERS, 0, 12, &tiles).await;
    assert_eq!(shelf.all_of(ORDERS).await, before);
    // What is gone is gone, wherever in it the log starts.
    let (twin, _) = with_transactions().await;
    for log_start in 1..=12 {
        shelf.delete(log_start).await;
        twin.delete(log_start).await;
        assert_eq!(shelf.all_of(ORDERS).await, twin.all_of(ORDERS).await, "from {log_start} on");
    }
}

/// Batches at 2..5, 7..8 and 15..17, nothing else; the extents end at 12, 15 and 17.
async fn compacted() -> Shelf {
    let mut shelf = Shelf::new().await;
    shelf.add(&[batch(0, &[1; 9]), batch(0, &[1; 3])]).await;
    shelf.add(&[batch(0, &[31; 3])]).await;
    shelf.add(&[batch(0, &[10, 6])]).await;
    let left = [sparse(2, 3, &[(0, 4), (2, 20)]), sparse(7, 1, &[(0, 8)])];
    shelf.rewrite(ORDERS, 0, 15, &[tile(12, &left), gap(3)]).await;
    shelf
}

#[tokio::test(start_paused = true)]
async fn where_compaction_has_left_nothing_the_next_batch_is_read() {
    let shelf = compacted().await;
    for offset in 0..17 {
        let ends = [(2, 5), (7, 8), (15, 17)];
        let left = ends.iter().filter(|(_, end)| *end > offset).map(|(base, _)| *base);
        let left: Vec<i64> = left.collect();
        assert_eq!(shelf.bases(ORDERS, offset, usize::MAX).await, left, "from {offset} on");
        // However little there is room for, or a consumer would stay in a hole for ever.
        for bytes_max in [0, 1, 68, 100, 150] {
            let first = shelf.limited_bases(&[offset], usize::MAX, bytes_max).await.remove(0);
            assert_eq!(first.first(), left.first(), "from {offset} on, cut to {bytes_max} bytes");
            if bytes_max > 0 {
                let first = shelf.bases(ORDERS, offset, bytes_max).await;
                assert_eq!(first.first(), left.first(), "from {offset} on, {bytes_max} bytes");
            }
        }
    }
    assert_eq!(shelf.bases(ORDERS, 17, usize::MAX).await, [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_is_cut_short_counts_no_more_than_is_left_of_what_was_merged() {
    let mut shelf = Shelf::new().await;
    let batches = [0, 8].map(|base| at(base, &batch(0, &[1; 8])));
    shelf.add(&batches).await;
    shelf.rewrite(ORDERS, 0, 16, &[tile(16, &batches)]).await;
    shelf.add(&[batch(0, &[1; 8])]).await;
    // Half of the first extent is left, and there is room for that and for the other.
    let bytes = batches[0].len();
    assert_eq!(shelf.limited_bases(&[8, 16], bytes, 2 * bytes).await, [[8], [16]]);
    assert_eq!(shelf.limited_bases(&[8, 16], bytes, 2 * bytes - 1).await, [vec![8], vec![]]);
}

#[tokio::test(start_paused = true)]
async fn what_compaction_has_left_is_found_by_its_time() {
    let shelf = compacted().await;
    let records = [(2, 4), (4, 20), (7, 8), (15, 10), (16, 6)];
    for log_start in 0..=17 {
        shelf.delete(log_start).await;
        let left = records.iter().filter(|(offset, _)| *offset >= log_start);
        for time in 0..=31 {
            let first = left.clone().find(|(_, it)| *it >= time);
            assert_eq!(shelf.at_time(time).await, found(first), "{time} from {log_start} on");
        }
        let most = left.clone().map(|(_, time)| *time).max();
        let latest = left.clone().find(|(_, time)| Some(*time) == most);
        assert_eq!(shelf.latest().await, found(latest), "from {log_start} on");
    }
}

/// Commits these batches, which come with their commit.
async fn add_inline(shelf: &mut Shelf, batches: &[Bytes]) -> SegmentId {
    let id = shelf.fresh_segment();
    let mut builder = SegmentBuilder::default();
    for bytes in batches {
        let (batch, _) = RecordBatch::split_first(bytes).unwrap();
        let summary = BatchSummary {
            bytes: u32::try_from(bytes.len()).unwrap(),
            records: batch.offsets(),
            max_timestamp: batch.max_timestamp(),
            producer: None,
        };
        builder.push(ORDERS, PendingBatch { bytes: bytes.clone(), summary, compressed: false });
    }
    let sealed = builder.seal(id, None);
    let content = sealed.without_footer();
    let runs = sealed.blocks.into_iter().map(|block| block.run).collect();
    let commit = Command::CommitInline { segment: id, content, runs };
    let outcome = shelf.machine.propose(commit).await.unwrap();
    assert!(matches!(outcome, Outcome::SegmentCommitted(_)), "{outcome:?}");
    id
}

#[tokio::test(start_paused = true)]
async fn what_was_never_put_into_the_store_is_read_from_the_state() {
    let mut shelf = Shelf::new().await;
    let mut twin = Shelf::new().await;
    let extents = [[batch(0, &[3, 9]), batch(0, &[5])], [batch(0, &[12]), batch(0, &[1, 1])]];
    for batches in &extents {
        let id = add_inline(&mut shelf, batches).await;
        assert_eq!(shelf.objects.get_range(&id.key(), 0..1).await.unwrap(), None);
        twin.add(batches).await;
    }
    let before = twin.all_of(ORDERS).await;
    assert_eq!(shelf.all_of(ORDERS).await, before);
    // What was planned is read although the state has let it go meanwhile.
    let target = FetchTarget { partition: ORDERS, offset: Offset(0), bytes_max: usize::MAX };
    let plan = shelf.reader.plan(&[target], usize::MAX, Isolation::ReadUncommitted);
    let whole = [
        at(0, &extents[0][0]),
        at(2, &extents[0][1]),
        at(3, &extents[1][0]),
        at(4, &extents[1][1]),
    ];
    shelf.rewrite(ORDERS, 0, 6, &[tile(6, &whole)]).await;
    assert_eq!(shelf.machine.read(|state| state.segments().inline_bytes()), 0);
    let fetched = shelf.reader.fetch(plan).await.remove(0).unwrap();
    let bases: Vec<i64> = batches_of(&fetched).iter().map(RecordBatch::base_offset).collect();
    assert_eq!(bases, [0, 2, 3, 4]);
    assert_eq!(shelf.all_of(ORDERS).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_branch_reads_what_it_shares_and_nothing_behind_it() {
    let mut shelf = Shelf::new().await;
    shelf.add(&[batch(0, &[4]), batch(0, &[2, 3]), batch(0, &[25])]).await;
    shelf.add(&[batch(0, &[5]), batch(0, &[30])]).await;
    // One ends in the middle of the first extent, its own branch in the middle of that.
    let branch = shelf.branch(ORDERS, 2, Some(3)).await;
    let twig = shelf.branch(branch, 3, Some(1)).await;
    let whole = shelf.branch(ORDERS, 4, None).await;
    assert_eq!(shelf.all_of(whole).await, shelf.all_of(ORDERS).await);
    assert_eq!(shelf.bases(branch, 0, usize::MAX).await, [0, 1]);
    assert_eq!(shelf.bases(branch, 2, 1).await, [1]);
    assert_eq!(shelf.bases(twig, 0, usize::MAX).await, [0]);
    // The latest is in what is cut off.
    assert_eq!(shelf.latest_in(branch).await, Some((0, 4)));
    assert_eq!(shelf.time_in(branch, 5).await, None);
    assert_eq!(shelf.time_in(twig, 4).await, Some((0, 4)));
    // The parent may go: what is shared stays.
    let delete = Command::DeleteTopic { topic: ORDERS.topic };
    assert_eq!(shelf.machine.propose(delete).await, Ok(Outcome::Done));
    let before = shelf.all_of(branch).await;
    let purge = Command::PurgeTopics { topics: vec![ORDERS.topic] };
    assert_eq!(shelf.machine.propose(purge).await, Ok(Outcome::Done));
    assert_eq!(shelf.all_of(branch).await, before);
    // Written anew, it lies in a block of the parent's name; a branch of it reads that too.
    shelf
        .rewrite(branch, 0, 3, &[tile(3, &[at(0, &batch(0, &[4])), at(1, &batch(0, &[2, 3]))])])
        .await;
    assert_eq!(shelf.all_of(branch).await, before);
    let again = shelf.branch(branch, 5, Some(1)).await;
    assert_eq!(shelf.bases(again, 0, usize::MAX).await, [0]);
    assert_eq!(shelf.latest_in(again).await, Some((0, 4)));
}

/// Writes to another topic than ORDERS.
async fn add_to(shelf: &mut Shelf, of: TopicPartition, times: &[u8]) {
    let id = shelf.fresh_segment();
    let bytes = batch(0, times);
    let summary = BatchSummary {
        bytes: u32::try_from(bytes.len()).unwrap(),
        records: u32::try_from(times.len()).unwrap(),
        max_timestamp: BASE_MS + i64::from(*times.iter().max().unwrap()),
        producer: None,
    };
    let mut builder = SegmentBuilder::default();
    builder.push(of, PendingBatch { bytes, summary, compressed: false });
    let sealed = builder.seal(id, None);
    let length = u64::try_from(sealed.bytes.len()).unwrap();
    assert_eq!(shelf.objects.put_if_absent(&id.key(), sealed.bytes).await.unwrap(), Put::Created);
    let runs = sealed.blocks.into_iter().map(|block| block.run).collect();
    let commit = Command::CommitSegment { segment: id, bytes: length, runs };
    let outcome = shelf.machine.propose(commit).await.unwrap();
    assert!(matches!(outcome, Outcome::SegmentCommitted(_)), "{outcome:?}");
}

/// Of an extent that a branch has cut the latest record may be missing, as of one that the log
/// starts in: behind several of those a later one must be found all the same.
#[tokio::test(start_paused = true)]
async fn records_behind_what_branches_have_cut_off_are_found_by_their_time() {
    let mut shelf = Shelf::new().await;
    shelf.add(&[batch(0, &[20]), batch(0, &[1]), batch(0, &[1])]).await;
    shelf.add(&[batch(0, &[2]), batch(0, &[20])]).await;
    let branch = shelf.branch(ORDERS, 2, Some(4)).await;
    add_to(&mut shelf, branch, &[3]).await;
    add_to(&mut shelf, branch, &[4, 21]).await;
    let twig = shelf.branch(branch, 3, Some(5)).await;
    add_to(&mut shelf, twig, &[5, 5]).await;
    let leaf = shelf.branch(twig, 4, Some(7)).await;
    add_to(&mut shelf, leaf, &[6, 18, 7]).await;
    let delete = Command::DeleteRecords { partition: leaf, before: Some(Offset(1)) };
    let deleted = shelf.machine.propose(delete).await;
    assert_eq!(deleted, Ok(Outcome::RecordsDeleted(Offset(1))));
    let times = [1, 1, 2, 3, 5, 5, 6, 18, 7];
    let records: Vec<(i64, u8)> = (1..).zip(times).collect();
    assert_eq!(shelf.bases(leaf, 1, usize::MAX).await, [1, 2, 3, 4, 5, 7]);
    for time in 0..=21 {
        let first = records.iter().find(|(_, it)| *it >= time).copied();
        assert_eq!(shelf.time_in(leaf, time).await, first, "{time}");
    }
    assert_eq!(shelf.latest_in(leaf).await, Some((8, 18)));
    assert_eq!(shelf.latest_in(branch).await, Some((6, 21)));
}

#[tokio::test(start_paused = true)]
async fn a_branch_may_end_where_compaction_has_left_nothing() {
    let shelf = compacted().await;
    // Where no batch goes on: (2, 5) and (15, 17) do.
    for end in [1, 2, 5, 6, 7, 8, 9, 12, 14, 15, 17] {
        let branch = shelf.branch(ORDERS, 100 + u128::try_from(end).unwrap(), Some(end)).await;
        let left: Vec<i64> = [2, 7, 15].into_iter().filter(|base| *base < end).collect();
        // Where nothing at all is left, a batch says so.
        let left = if left.is_empty() { vec![0] } else { left };
        assert_eq!(shelf.bases(branch, 0, usize::MAX).await, left, "to {end}");
    }
}
