//! Operations a client may do, where it asks (KIP-430): all there are, as long as nobody can be
//! forbidden anything.

/// Stands for "not asked for".
const NOT_ASKED: i32 = i32::MIN;

// Numbers of operations, of which each answer is a set of bits.
const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const CREATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 6;
const ALTER: i32 = 1 << 7;
const DESCRIBE: i32 = 1 << 8;
const CLUSTER_ACTION: i32 = 1 << 9;
const DESCRIBE_CONFIGS: i32 = 1 << 10;
const ALTER_CONFIGS: i32 = 1 << 11;
const IDEMPOTENT_WRITE: i32 = 1 << 12;

/// What may be done to the cluster.
pub(crate) fn of_cluster(is_asked: bool) -> i32 {
    let all = CREATE
        | ALTER
        | DESCRIBE
        | CLUSTER_ACTION
        | DESCRIBE_CONFIGS
        | ALTER_CONFIGS
        | IDEMPOTENT_WRITE;
    if is_asked { all } else { NOT_ASKED }
}

/// What may be done to a topic.
pub(crate) fn of_topic(is_asked: bool) -> i32 {
    let all = READ | WRITE | CREATE | DELETE | ALTER | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;
    if is_asked { all } else { NOT_ASKED }
}

/// What may be done to a group.
pub(crate) fn of_group(is_asked: bool) -> i32 {
    let all = READ | DELETE | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;
    if is_asked { all } else { NOT_ASKED }
}
