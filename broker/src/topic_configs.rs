//! The table of topic configs, after Kafka 4.
//!
//! What is accepted is honoured; what can't be honoured is refused with a sentence. Configs of
//! features that are still to come take their default and nothing else, so that tools which send
//! defaults work and nobody is deceived. Configs that only lay out Kafka's local files take what
//! Kafka takes: nothing that a client can see would follow from them.

use std::collections::BTreeMap;

use odradek_storage::state::State;
use odradek_storage::state::topics::Topic;

use crate::configs::{Check, ConfigType, Definition, only};

const FILES: &str = "records are in an object store, and no local files follow it";
const TIERED: &str = "all records are in the object store already";
const REPLICATION: &str = "the object store replicates; brokers do not";

/// A config that lays out Kafka's local files. It takes what Kafka takes, because programs set it
/// as a matter of course; there are no such files, and nothing that a client can see follows from
/// it.
const fn of_files(
    name: &'static str,
    kind: ConfigType,
    default: &'static str,
    (least, most): (i64, i64),
) -> Definition {
    Definition { name, kind, default, check: Check::Integer(least, most), documentation: FILES }
}

/// A config that is read when a topic is created, and only shown afterwards.
const fn at_creation(name: &'static str, documentation: &'static str) -> Definition {
    let (kind, default) = (ConfigType::Text, "");
    Definition { name, kind, default, check: Check::AtCreation, documentation }
}

/// The broker config that holds for topics which don't have this one, if there is such a one.
pub(crate) fn inherited_from(name: &str) -> Option<&'static str> {
    match name {
        "cleanup.policy" => Some("log.cleanup.policy"),
        "delete.retention.ms" => Some("log.cleaner.delete.retention.ms"),
        "max.compaction.lag.ms" => Some("log.cleaner.max.compaction.lag.ms"),
        "max.message.bytes" => Some("message.max.bytes"),
        "min.cleanable.dirty.ratio" => Some("log.cleaner.min.cleanable.ratio"),
        "min.compaction.lag.ms" => Some("log.cleaner.min.compaction.lag.ms"),
        "retention.bytes" => Some("log.retention.bytes"),
        "retention.ms" => Some("log.retention.ms"),
        "segment.bytes" => Some("log.segment.bytes"),
        _ => None,
    }
}

/// Every topic config.
pub(crate) static TOPIC_CONFIGS: &[Definition] = &[
    Definition {
        name: "cleanup.policy",
        kind: ConfigType::List,
        default: "delete",
        check: Check::AnyOf(&["compact", "delete"]),
        documentation: "What goes: records that are too old or too many (delete), records with a \
            later one of the same key (compact), both, or none.",
    },
    only("compression.gzip.level", ConfigType::Int, "-1", "batches are kept as they come"),
    only("compression.lz4.level", ConfigType::Int, "9", "batches are kept as they come"),
    Definition {
        name: "compression.type",
        kind: ConfigType::Text,
        default: "producer",
        check: Check::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        documentation: "What producers are asked to use: batches are kept and sent as they come.",
    },
    only("compression.zstd.level", ConfigType::Int, "3", "batches are kept as they come"),
    Definition {
        name: "delete.retention.ms",
        kind: ConfigType::Long,
        default: "86400000",
        check: Check::Integer(0, i64::MAX),
        documentation: "How long tombstones stay once compaction has met them.",
    },
    of_files("file.delete.delay.ms", ConfigType::Long, "60000", (0, i64::MAX)),
    of_files("flush.messages", ConfigType::Long, "9223372036854775807", (1, i64::MAX)),
    of_files("flush.ms", ConfigType::Long, "9223372036854775807", (0, i64::MAX)),
    only("follower.replication.throttled.replicas", ConfigType::List, "", REPLICATION),
    of_files("index.interval.bytes", ConfigType::Int, "4096", (0, 2_147_483_647)),
    only("leader.replication.throttled.replicas", ConfigType::List, "", REPLICATION),
    only("local.retention.bytes", ConfigType::Long, "-2", TIERED),
    only("local.retention.ms", ConfigType::Long, "-2", TIERED),
    Definition {
        name: "max.compaction.lag.ms",
        kind: ConfigType::Long,
        default: "9223372036854775807",
        check: Check::Integer(1, i64::MAX),
        documentation: "After how long a record is compacted at the latest.",
    },
    Definition {
        name: "max.message.bytes",
        kind: ConfigType::Int,
        default: "1048588",
        check: Check::Integer(0, 64 * 1024 * 1024),
        documentation: "Longest record batch that is taken, in bytes as it was sent.",
    },
    Definition {
        name: "message.timestamp.after.max.ms",
        kind: ConfigType::Long,
        default: "3600000",
        check: Check::Integer(0, i64::MAX),
        documentation: "How far the largest timestamp of a batch may lie in the broker's future.",
    },
    Definition {
        name: "message.timestamp.before.max.ms",
        kind: ConfigType::Long,
        default: "9223372036854775807",
        check: Check::Integer(0, i64::MAX),
        documentation: "How far the largest timestamp of a batch may lie in the broker's past.",
    },
    Definition {
        name: "message.timestamp.type",
        kind: ConfigType::Text,
        default: "CreateTime",
        check: Check::OneOf(&["CreateTime", "LogAppendTime"]),
        documentation: "Whether records keep their producer's time or get the broker's.",
    },
    Definition {
        name: "min.cleanable.dirty.ratio",
        kind: ConfigType::Double,
        default: "0.5",
        check: Check::Fraction,
        documentation: "How much of a partition has not been compacted when it is its turn.",
    },
    Definition {
        name: "min.compaction.lag.ms",
        kind: ConfigType::Long,
        default: "0",
        check: Check::Integer(0, i64::MAX),
        documentation: "How long a record is not compacted.",
    },
    Definition {
        name: "min.insync.replicas",
        kind: ConfigType::Int,
        default: "1",
        check: Check::Integer(1, 32_767),
        documentation: "Satisfied whatever it is: the store has a batch before it is acknowledged.",
    },
    at_creation("odradek.branch.at", "Where it left its parent: now, an offset or a time."),
    at_creation("odradek.branch.of", "The topic that this one is a branch of, by name or id."),
    only("preallocate", ConfigType::Boolean, "false", FILES),
    only("remote.log.copy.disable", ConfigType::Boolean, "false", TIERED),
    only("remote.log.delete.on.disable", ConfigType::Boolean, "false", TIERED),
    only("remote.storage.enable", ConfigType::Boolean, "false", TIERED),
    Definition {
        name: "retention.bytes",
        kind: ConfigType::Long,
        default: "-1",
        check: Check::Integer(-1, i64::MAX),
        documentation: "Oldest records go while a partition has this many bytes without them; -1 \
            for no limit.",
    },
    Definition {
        name: "retention.ms",
        kind: ConfigType::Long,
        default: "604800000",
        check: Check::Integer(-1, i64::MAX),
        documentation: "Records with older timestamps go; -1 for no limit.",
    },
    of_files("segment.bytes", ConfigType::Int, "1073741824", (1_048_576, 2_147_483_647)),
    of_files("segment.index.bytes", ConfigType::Int, "10485760", (4, 2_147_483_647)),
    of_files("segment.jitter.ms", ConfigType::Long, "0", (0, i64::MAX)),
    of_files("segment.ms", ConfigType::Long, "604800000", (1, i64::MAX)),
    only("unclean.leader.election.enable", ConfigType::Boolean, "false", REPLICATION),
];

/// Whether the configs of a topic go together; if not, a sentence.
pub(crate) fn go_together(configs: &BTreeMap<String, String>) -> Result<(), String> {
    let number = |name: &str| configs.get(name).and_then(|value| value.parse::<i64>().ok());
    let (least, most) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
    match (number(least), number(most)) {
        (Some(before), Some(after)) if before > after => {
            Err(format!("{least} is {before}, more than {most}, which is {after}"))
        }
        _ => Ok(()),
    }
}

/// What the produce path needs to know of a topic's configs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProduceRules {
    /// Longest batch, in bytes.
    pub(crate) max_message_bytes: usize,
    /// Whether batches get the broker's time.
    pub(crate) log_append_time: bool,
    /// Whether every record needs a key.
    pub(crate) needs_keys: bool,
    /// How far a timestamp may lie in the past, in milliseconds.
    pub(crate) before_max_ms: i64,
    /// How far it may lie in the future.
    pub(crate) after_max_ms: i64,
}

impl ProduceRules {
    /// The rules of a topic, where the broker's `message.max.bytes` is the default.
    pub(crate) fn of(state: &State, topic: &Topic, message_max_bytes: usize) -> Self {
        let configs = &topic.configs;
        let number = |name: &str| configs.get(name).and_then(|value| value.trim().parse().ok());
        let time_type = configs.get("message.timestamp.type").map(|value| value.trim());
        Self {
            max_message_bytes: configs
                .get("max.message.bytes")
                .and_then(|value| value.trim().parse().ok())
                .unwrap_or(message_max_bytes),
            needs_keys: state.is_compacted(topic),
            log_append_time: time_type == Some("LogAppendTime"),
            before_max_ms: number("message.timestamp.before.max.ms").unwrap_or(i64::MAX),
            after_max_ms: number("message.timestamp.after.max.ms").unwrap_or(3_600_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configs::validate;

    #[test]
    fn every_default_is_accepted() {
        let all = TOPIC_CONFIGS.iter().filter(|it| !matches!(it.check, Check::AtCreation));
        for definition in all {
            assert_eq!(
                definition.understand(definition.default).as_deref(),
                Ok(definition.default),
                "{}",
                definition.name
            );
        }
    }

    #[test]
    fn what_can_not_be_honoured_is_refused_with_a_reason() {
        let refused = |name, value| validate(TOPIC_CONFIGS, name, Some(value)).unwrap_err();
        assert!(refused("odradek.branch.of", "other").contains("when the topic is created"));
        for policy in ["shred", "compact,shred", "COMPACT", "delete,"] {
            assert!(refused("cleanup.policy", policy).contains("compact, delete"));
        }
        for ratio in ["-0.1", "1.1", "half", "NaN"] {
            assert!(refused("min.cleanable.dirty.ratio", ratio).contains("from 0 to 1"));
        }
        assert!(refused("local.retention.ms", "1").contains("object store"));
        let kept = validate(TOPIC_CONFIGS, "segment.bytes", Some(" 1048576 "));
        assert_eq!(kept.as_deref(), Ok("1048576"));
        assert!(refused("max.message.bytes", "-1").contains("whole number"));
        assert!(refused("message.timestamp.type", "Sometimes").contains("LogAppendTime"));
        assert!(refused("no.such.config", "1").contains("not a config"));
        assert!(validate(TOPIC_CONFIGS, "max.message.bytes", None).is_err());
    }

    #[test]
    fn a_value_is_kept_as_it_was_understood() {
        for (name, given, understood) in [
            ("cleanup.policy", " compact , delete ", "compact,delete"),
            ("cleanup.policy", "delete,delete", "delete"),
            ("cleanup.policy", "", ""),
            ("min.cleanable.dirty.ratio", "5e-1", "0.5"),
            ("min.cleanable.dirty.ratio", "1", "1.0"),
            ("delete.retention.ms", " +5 ", "5"),
        ] {
            let value = validate(TOPIC_CONFIGS, name, Some(given));
            assert_eq!(value, Ok(understood.to_owned()), "{name} = {given:?}");
        }
    }

    #[test]
    fn a_record_may_not_have_to_be_compacted_before_it_may_be() {
        let configs = |least: &str, most: &str| {
            let pairs = [("min.compaction.lag.ms", least), ("max.compaction.lag.ms", most)];
            BTreeMap::from(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())))
        };
        assert_eq!(go_together(&configs("5", "5")), Ok(()));
        assert!(go_together(&configs("6", "5")).unwrap_err().contains("max.compaction.lag.ms"));
    }
}
