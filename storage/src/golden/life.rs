//! The samples' commands about the life of data.

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicId, TopicPartition};
use uuid::Uuid;

use super::{BROKER, ORDERS, alter, batch, configs, create, partition, run, segment};
use crate::command::{
    Branch, Command, ConfigResource, Incarnation, NewBlock, NewExtent, Replacement,
};
use crate::lsn::Lsn;
use crate::segment::SegmentId;

/// Every command of feature level 1 about the life of data. In the state a topic was deleted and is
/// kept, another is a branch of a branch, extents were merged, and nothing is left of some;
/// segments are of every level, one of them is held by the state itself, and one waits to be swept.
#[expect(clippy::too_many_lines, reason = "one sample after the other")]
pub(super) fn level_1_lives() -> Vec<(Incarnation, Command)> {
    let [branch, twig, kept, purged] = [1, 2, 3, 4].map(|id| TopicId(Uuid::from_u128(!id)));
    let extent = |records, block| NewExtent { records, max_timestamp: 1_700_000_000_456, block };
    let block = |position| Some(NewBlock { position, stored_bytes: 300, bytes: 250 });
    let replace = |segment: SegmentId, level, replacements| Command::ReplaceExtents {
        segment,
        bytes: 4096,
        level,
        replacements,
    };
    let of = |partition: TopicPartition, from, to, inputs, extents, cleaned| Replacement {
        partition,
        from: Offset(from),
        to: Offset(to),
        inputs,
        extents,
        cleaned: Some(Offset(cleaned)),
    };
    let plain = |records| vec![batch(records, None)];
    let inline = |segment, runs| Command::CommitInline {
        segment,
        content: Bytes::from_static(&[7; 1000]),
        runs,
    };
    let merged = vec![extent(2, block(32)), NewExtent { max_timestamp: -1, ..extent(5, None) }];
    vec![
        (BROKER, branch_of(ORDERS, branch, "branch", &[Some(7), None])),
        (BROKER, create(kept, "kept", 1)),
        (
            BROKER,
            Command::CommitSegment {
                segment: segment(4),
                bytes: 1000,
                runs: vec![
                    run(partition(branch, 0), 32, plain(3)),
                    run(partition(kept, 0), 432, plain(6)),
                ],
            },
        ),
        (BROKER, branch_of(branch, twig, "twig", &[None, Some(1)])),
        (BROKER, inline(segment(5), vec![run(partition(twig, 1), 32, plain(4))])),
        (BROKER, inline(segment(6), vec![run(partition(twig, 1), 32, plain(2))])),
        (
            BROKER,
            replace(
                segment(7),
                1,
                vec![
                    of(partition(kept, 0), 0, 6, MERGED[0], vec![extent(6, block(400))], 6),
                    of(partition(twig, 1), 1, 5, MERGED[1], vec![extent(4, block(32))], 0),
                ],
            ),
        ),
        (
            BROKER,
            replace(segment(8), 2, vec![of(partition(ORDERS, 1), 0, 7, MERGED[2], merged, 5)]),
        ),
        (BROKER, Command::DeleteTopic { topic: kept }),
        (BROKER, create(purged, "purged", 1)),
        (
            BROKER,
            Command::CommitSegment {
                segment: segment(9),
                bytes: 1000,
                runs: vec![run(partition(purged, 0), 32, plain(1))],
            },
        ),
        (BROKER, Command::DeleteTopic { topic: purged }),
        (BROKER, Command::PurgeTopics { topics: vec![purged] }),
        (BROKER, alter(ConfigResource::Topic(branch), true, "retention.bytes")),
        (
            BROKER,
            Command::ExpireRecords {
                partitions: vec![
                    (partition(branch, 0), Offset(6)),
                    (partition(ORDERS, 0), Offset(1)),
                ],
            },
        ),
        (BROKER, Command::RaiseHorizon { to: Lsn::new(4) }),
        (BROKER, Command::ForgetSegments { segments: vec![segment(9), segment(1)] }),
    ]
}

fn branch_of(of: TopicId, topic: TopicId, name: &str, ends: &[Option<i64>]) -> Command {
    let ends = ends.iter().map(|end| end.map(Offset)).collect();
    Command::BranchTopic {
        topic,
        name: name.to_owned(),
        replication_factor: 1,
        configs: configs(&[("cleanup.policy", "delete")]),
        branch: Branch { of, ends },
    }
}

/// The hashes of the extents that are replaced: they are compared by brokers of all releases.
const MERGED: [u64; 3] = [0x4e56_f7e2_2f67_d75b, 0x5ea4_0862_548e_4e1f, 0x7ba6_8082_1ab5_5872];
