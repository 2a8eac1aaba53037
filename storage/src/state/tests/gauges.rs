//! How much there is of everything, counted where it is known how much there is.

use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::{TopicId, TopicPartition};
use uuid::Uuid;

use super::chain::{begun, create_topic, propose};
use crate::command::{BatchSummary, Command, Incarnation, Outcome, Run};
use crate::lsn::Lsn;
use crate::segment::SegmentId;
use crate::state::gauges::{Gauges, Sum};

const ORDERS: TopicPartition = TopicPartition { topic: TopicId(Uuid::from_u128(1)), partition: 0 };

fn runs() -> Vec<Run> {
    let batch = BatchSummary { bytes: 100, records: 3, max_timestamp: 0, producer: None };
    vec![Run { partition: ORDERS, position: 0, stored_bytes: 100, batches: vec![batch] }]
}

fn segment(counter: u64) -> SegmentId {
    SegmentId { began: Lsn::FIRST, incarnation: Incarnation(1), counter }
}

#[test]
fn what_is_written_is_counted_and_waits_when_it_was_given_up() {
    let (mut chain, mut state, _) = begun();
    let nothing = Gauges {
        brokers: 2,
        segments: [0, 1, 2].map(|level| (level, Sum::default())).into(),
        ..Gauges::default()
    };
    assert_eq!(state.gauges(), nothing);
    let commands = [
        create_topic(ORDERS, 4),
        Command::CommitSegment { segment: segment(1), bytes: 2000, runs: runs() },
        Command::CommitSegment { segment: segment(2), bytes: 3000, runs: runs() },
        Command::CommitInline {
            segment: segment(3),
            content: Bytes::from(vec![0; 100]),
            runs: runs(),
        },
    ];
    for (command, counter) in commands.into_iter().zip(2..) {
        let applied = chain.apply(&mut state, propose(1, counter, command)).unwrap();
        assert!(!matches!(applied.outcomes[0], Outcome::Rejected(_)), "{applied:?}");
    }
    let written = Sum { count: 2, bytes: 5000 };
    let full = Gauges {
        topics: 1,
        partitions: 4,
        extents: 3,
        segments: [(0, written), (1, Sum::default()), (2, Sum::default())].into(),
        inline: Sum { count: 1, bytes: 100 },
        ..nothing.clone()
    };
    assert_eq!(state.gauges(), full);

    let delete = Command::DeleteTopic { topic: ORDERS.topic };
    chain.apply(&mut state, propose(1, 10, delete)).unwrap();
    let deleted = Gauges { topics: 0, partitions: 0, extents: 0, deleted_topics: 1, ..full };
    assert_eq!(state.gauges(), deleted);

    // A heartbeat of a broker whose clock says that a minute has gone by.
    let time_ms = state.log_time_ms() + 60_000;
    let beat = vec![propose(1, 11, Command::Heartbeat)];
    let (entry, hash) = chain.write(Incarnation(1), time_ms, beat);
    state.apply(&entry, hash).unwrap();
    let age = Duration::from_secs(60);
    assert_eq!(state.gauges(), Gauges { deleted_topics_age: age, ..deleted });

    let purge = Command::PurgeTopics { topics: vec![ORDERS.topic] };
    chain.apply(&mut state, propose(1, 12, purge)).unwrap();
    assert_eq!(state.gauges(), Gauges { waiting: written, ..nothing });
}
