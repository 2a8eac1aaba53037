//! What consumers see of transactions: nothing behind the last stable offset, the ends of them, and
//! which were aborted.

use odradek_protocol::record::{ControlBatch, MARKER_BYTES};

use super::*;
use crate::command::{BatchTransaction, ProducerIdAndEpoch, TransactionChange};

const TRANSACTIONAL: i16 = 0x10;

/// A client and the first sequence number of its batch; nobody, outside of transactions.
type Writer = Option<(usize, i32)>;

/// The transactional ids of a shelf: each has one transaction after the other, with an epoch each.
struct Clients {
    shelf: Shelf,
    producers: Vec<ProducerIdAndEpoch>,
}

impl Clients {
    async fn new(count: usize) -> Self {
        let mut clients = Self { shelf: Shelf::new().await, producers: Vec::new() };
        for client in 0..count {
            let init = TransactionChange::InitProducer { timeout_ms: 60_000, expected: None };
            let producer = clients.change(client, init).await;
            clients.producers.push(producer);
        }
        clients
    }

    async fn change(&self, client: usize, change: TransactionChange) -> ProducerIdAndEpoch {
        let transactional_id = format!("client-{client}");
        let command = Command::ChangeTransaction { transactional_id, change };
        match self.shelf.machine.propose(command).await {
            Ok(Outcome::Producer(producer)) => producer,
            outcome => panic!("{outcome:?}"),
        }
    }

    /// One extent, of batches of these clients.
    async fn write(&mut self, batches: &[(Writer, &[u8])]) {
        let of = |client: usize, base_sequence: i32| {
            let ProducerIdAndEpoch { id, epoch } = self.producers[client];
            let transaction = BatchTransaction::Implicit;
            BatchProducer { id, epoch, base_sequence, transaction }
        };
        let batches: Vec<(Bytes, Option<BatchProducer>)> = batches
            .iter()
            .map(|(client, times)| match client {
                Some((client, sequence)) => {
                    (batch(TRANSACTIONAL, times), Some(of(*client, *sequence)))
                }
                None => (batch(0, times), None),
            })
            .collect();
        self.shelf.add_of(&batches).await;
    }

    /// Ends the transaction of a client, whose next one has another epoch. Returns the marker.
    async fn end(&mut self, client: usize, commits: bool) -> ControlBatch {
        let producer = self.producers[client];
        let id = format!("client-{client}");
        let number = |state: &crate::state::State| {
            let found = state.transactions().get(&id).unwrap();
            (found.transaction, state.high_watermark(ORDERS).unwrap())
        };
        let (transaction, at) = self.shelf.machine.read(number);
        let end = TransactionChange::End { producer, transaction, commits, bumps_epoch: true };
        self.producers[client] = self.change(client, end).await;
        ControlBatch {
            offset: at.0,
            timestamp_ms: self.shelf.machine.read(|state| state.log_time_ms()),
            producer_id: producer.id.0,
            producer_epoch: producer.epoch + 1,
            commits,
        }
    }

    /// First offsets of the batches that a fetch gives, and the aborted transactions: whose, and
    /// from where on.
    async fn read_committed(&self, offset: i64, bytes_max: usize) -> (Vec<i64>, Vec<(usize, i64)>) {
        let isolation = Isolation::ReadCommitted;
        let fetched = self.shelf.fetch_as(isolation, offset, bytes_max).await.unwrap();
        let batches = batches_of(&fetched).iter().map(RecordBatch::base_offset).collect();
        let whose = |id| self.producers.iter().position(|it| it.id == id).unwrap();
        let aborted = fetched.aborted.unwrap();
        (batches, aborted.iter().map(|it| (whose(it.producer), it.first.0)).collect())
    }

    async fn read_uncommitted(&self, offset: i64) -> Vec<i64> {
        let batches = self.shelf.fetch(offset).await.unwrap();
        batches.iter().map(RecordBatch::base_offset).collect()
    }

    fn stable(&self) -> (i64, i64) {
        let watermarks = self.shelf.reader.watermarks(ORDERS).unwrap();
        (watermarks.last_stable_offset.0, watermarks.high_watermark.0)
    }

    async fn at_time(&self, time: u8) -> Option<TimestampOffset> {
        let timestamp = BASE_MS + i64::from(time);
        let isolation = Isolation::ReadCommitted;
        self.shelf.reader.offset_for_timestamp(ORDERS, timestamp, isolation).await.unwrap()
    }

    async fn latest(&self) -> Option<TimestampOffset> {
        let isolation = Isolation::ReadCommitted;
        self.shelf.reader.offset_of_max_timestamp(ORDERS, isolation).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_stable_is_not_read_wherever_in_an_extent_it_begins() {
    let mut clients = Clients::new(1).await;
    clients.write(&[(None, &[1, 1]), (Some((0, 0)), &[1, 1]), (None, &[1])]).await;
    assert_eq!(clients.stable(), (2, 5));
    for offset in 0..2 {
        assert_eq!(clients.read_committed(offset, usize::MAX).await, (vec![0], vec![]));
    }
    for offset in 2..=5 {
        assert_eq!(clients.read_committed(offset, usize::MAX).await, (vec![], vec![]));
        let target =
            FetchTarget { partition: ORDERS, offset: Offset(offset), bytes_max: usize::MAX };
        let plan = clients.shelf.reader.plan(&[target], usize::MAX, Isolation::ReadCommitted);
        assert_eq!(
            plan.available_bytes(),
            0,
            "a consumer that waits for something goes on waiting"
        );
    }
    assert_eq!(clients.read_uncommitted(0).await, [0, 2, 4]);
    let watermarks = clients.shelf.reader.watermarks(ORDERS).unwrap();
    let beyond = clients.shelf.fetch_as(Isolation::ReadCommitted, 6, usize::MAX).await;
    assert_eq!(beyond.unwrap_err(), FetchError::OutOfRange { offset: Offset(6), watermarks });
    clients.write(&[(None, &[1])]).await;
    assert_eq!(clients.read_committed(0, usize::MAX).await, (vec![0], vec![]));
    clients.end(0, true).await;
    assert_eq!(clients.stable(), (7, 7));
    assert_eq!(clients.read_committed(0, usize::MAX).await, (vec![0, 2, 4, 5, 6], vec![]));
    assert_eq!(clients.read_committed(3, usize::MAX).await, (vec![2, 4, 5, 6], vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_ends_of_transactions_are_read_as_control_batches() {
    let mut clients = Clients::new(2).await;
    clients.write(&[(Some((0, 0)), &[1]), (Some((1, 0)), &[1, 1])]).await;
    let mut markers = vec![clients.end(1, false).await, clients.end(0, true).await];
    clients.write(&[(Some((0, 0)), &[1])]).await;
    markers.push(clients.end(0, false).await);
    assert_eq!(markers.iter().map(|it| it.offset).collect::<Vec<_>>(), [3, 4, 6]);
    for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
        let all = clients.shelf.fetch_as(isolation, 0, usize::MAX).await.unwrap();
        let all = batches_of(&all);
        let offsets: Vec<i64> = all.iter().map(RecordBatch::base_offset).collect();
        assert_eq!(offsets, [0, 1, 3, 4, 5, 6]);
        for marker in &markers {
            let batch = all.iter().find(|it| it.base_offset() == marker.offset).unwrap();
            assert_eq!(batch.bytes(), &marker.to_bytes());
            let bytes_max = usize::try_from(MARKER_BYTES).unwrap();
            let one = clients.shelf.fetch_as(isolation, marker.offset, bytes_max).await.unwrap();
            assert_eq!(batches_of(&one), std::slice::from_ref(batch));
        }
    }
    // They stay with what is left of the log.
    clients.shelf.delete(4).await;
    assert_eq!(clients.read_committed(4, usize::MAX).await, (vec![4, 5, 6], vec![(0, 5)]));
    clients.shelf.delete(6).await;
    assert_eq!(clients.read_committed(6, usize::MAX).await, (vec![6], vec![(0, 5)]));
    clients.shelf.delete(7).await;
    assert_eq!(clients.read_committed(7, usize::MAX).await, (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_is_told_of_the_aborted_transactions_in_what_it_gets() {
    let mut clients = Clients::new(3).await;
    let (a, b, c) = (0, 1, 2);
    // Offsets 0 to 5 in one extent, then three ends, then one more transaction.
    clients
        .write(&[
            (None, &[1]),
            (Some((a, 0)), &[1]),
            (Some((b, 0)), &[1]),
            (Some((c, 0)), &[1]),
            (Some((a, 1)), &[1]),
            (None, &[1]),
        ])
        .await;
    clients.end(b, false).await;
    assert_eq!(
        clients.read_committed(0, usize::MAX).await,
        (vec![0], vec![]),
        "none that is unseen"
    );
    clients.end(c, true).await;
    clients.end(a, false).await;
    clients.write(&[(Some((b, 0)), &[1])]).await;
    clients.end(b, false).await;
    let all = (0..=10).collect::<Vec<i64>>();
    let aborted = vec![(b, 2), (a, 1), (b, 9)];
    assert_eq!(clients.read_committed(0, usize::MAX).await, (all.clone(), aborted.clone()));
    for from in 0..=10_i64 {
        let (batches, told) = clients.read_committed(from, usize::MAX).await;
        assert_eq!(batches, all[usize::try_from(from).unwrap()..]);
        let ends = [6, 8, 10];
        let reach: Vec<_> = aborted.iter().copied().zip(ends).filter(|it| it.1 >= from).collect();
        assert_eq!(told, reach.iter().map(|it| it.0).collect::<Vec<_>>(), "from {from}");
        // As many as fit: a batch is 68 bytes, a marker 78.
        let (one, told) = clients.read_committed(from, 1).await;
        assert_eq!(one, [from], "at least one, however small the limit");
        let begun: Vec<_> = reach.iter().map(|it| it.0).filter(|it| it.1 <= from).collect();
        assert_eq!(told, begun, "only {from}");
    }
    assert_eq!(clients.read_committed(0, 3 * 68).await, (vec![0, 1, 2], vec![(b, 2), (a, 1)]));
    // Where the log begins in the middle of one, it is known as long as its end is there.
    clients.shelf.delete(3).await;
    let expected = (all[3..].to_vec(), aborted.clone());
    assert_eq!(clients.read_committed(3, usize::MAX).await, expected);
    clients.shelf.delete(7).await;
    let expected = (all[7..].to_vec(), aborted[1..].to_vec());
    assert_eq!(clients.read_committed(7, usize::MAX).await, expected);
}

#[tokio::test(start_paused = true)]
async fn where_the_log_begins_in_an_open_transaction_nothing_is_stable() {
    let mut clients = Clients::new(1).await;
    clients.write(&[(Some((0, 0)), &[1, 1, 1]), (None, &[1])]).await;
    for log_start in 1..=4 {
        clients.shelf.delete(log_start).await;
        assert_eq!(clients.stable(), (log_start, 4));
        assert_eq!(clients.read_committed(log_start, usize::MAX).await, (vec![], vec![]));
    }
    clients.end(0, false).await;
    assert_eq!(clients.read_committed(4, usize::MAX).await, (vec![4], vec![(0, 0)]));
}

#[tokio::test(start_paused = true)]
async fn a_marker_is_no_record_that_is_looked_for_by_its_time() {
    let mut clients = Clients::new(1).await;
    clients.write(&[(Some((0, 0)), &[3])]).await;
    let marker = clients.end(0, true).await;
    assert!(marker.timestamp_ms > BASE_MS + 31, "it is later than all records");
    clients.write(&[(None, &[5, 9]), (Some((0, 0)), &[4])]).await;
    clients.end(0, false).await;
    for time in 0..=3 {
        assert_eq!(clients.at_time(time).await, found(Some(&(0, 3))));
    }
    assert_eq!(clients.at_time(4).await, found(Some(&(2, 5))));
    assert_eq!(clients.at_time(10).await, None);
    assert_eq!(clients.latest().await, found(Some(&(3, 9))));
    assert_eq!(clients.shelf.at_time(10).await, None);
    assert_eq!(clients.shelf.latest().await, found(Some(&(3, 9))));
    // Only the marker is left.
    clients.shelf.delete(5).await;
    assert_eq!(clients.stable(), (6, 6));
    assert_eq!((clients.at_time(0).await, clients.latest().await), (None, None));
    assert_eq!((clients.shelf.at_time(0).await, clients.shelf.latest().await), (None, None));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_stable_is_not_found_by_its_time_either() {
    let mut clients = Clients::new(1).await;
    clients.write(&[(None, &[3, 5]), (Some((0, 0)), &[20]), (None, &[9])]).await;
    clients.write(&[(None, &[30])]).await;
    assert_eq!(clients.stable(), (2, 5));
    // In order: the time asked for, what all see, what is stable.
    let expected = [(0, (0, 3), Some((0, 3))), (4, (1, 5), Some((1, 5))), (6, (2, 20), None)];
    for (time, all, stable) in expected {
        assert_eq!(clients.shelf.at_time(time).await, found(Some(&all)));
        assert_eq!(clients.at_time(time).await, found(stable.as_ref()), "{time}");
    }
    assert_eq!(clients.at_time(30).await, None);
    assert_eq!(clients.shelf.latest().await, found(Some(&(4, 30))));
    assert_eq!(clients.latest().await, found(Some(&(1, 5))));
    clients.shelf.delete(1).await;
    assert_eq!(clients.at_time(0).await, found(Some(&(1, 5))));
    assert_eq!(clients.latest().await, found(Some(&(1, 5))));
    clients.shelf.delete(2).await;
    assert_eq!((clients.at_time(0).await, clients.latest().await), (None, None));
    clients.end(0, true).await;
    assert_eq!(clients.at_time(6).await, found(Some(&(2, 20))));
    assert_eq!(clients.latest().await, found(Some(&(4, 30))));
}
