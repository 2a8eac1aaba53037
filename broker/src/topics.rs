//! Topics as clients name them: which names are legal, who is meant, and how one is made.

use std::collections::BTreeMap;

use odradek_protocol::ResponseError;
use odradek_protocol::id::{PartitionIndex, TopicId};
use odradek_storage::command::{Command, Outcome};
use odradek_storage::machine::{Machine, Unreachable};
use odradek_storage::state::State;

use crate::branches::{self, BRANCH_AT, BRANCH_OF};
use crate::configs::validate;
use crate::context::Context;
use crate::error;
use crate::topic_configs::{TOPIC_CONFIGS, go_together};

/// Longest name of a topic.
const NAME_CHARS_MAX: usize = 249;

/// Most partitions that one request may ask for.
pub(crate) const PARTITIONS_MAX: u32 = 100_000;

/// An error code and what to say with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The code.
    pub(crate) code: ResponseError,
    /// The sentence.
    pub(crate) message: String,
}

impl Refusal {
    /// A refusal with these.
    pub(crate) fn new(code: ResponseError, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What a topic is to be like.
#[derive(Clone, Debug)]
pub(crate) struct NewTopic {
    /// Its name.
    pub(crate) name: String,
    /// How many partitions.
    pub(crate) partitions: u32,
    /// Whether it was said how many.
    pub(crate) is_counted: bool,
    /// What is shown as its replication factor.
    pub(crate) replication_factor: u16,
    /// Configs that differ from the defaults.
    pub(crate) configs: BTreeMap<String, String>,
}

/// Whether a name is legal: Kafka's rule.
pub(crate) fn is_legal_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_' || c == '-';
    !name.is_empty()
        && name.len() <= NAME_CHARS_MAX
        && name != "."
        && name != ".."
        && name.chars().all(legal)
}

/// Looks something up in the state; if it is not there, follows the log to its tail and looks
/// again. Only then is the answer "no": another broker may have acknowledged it already.
pub(crate) async fn look_twice<T>(
    machine: &Machine,
    look: impl Fn(&State) -> Option<T>,
) -> Result<Option<T>, Unreachable> {
    if let Some(found) = machine.read(&look) {
        return Ok(Some(found));
    }
    machine.barrier().await?;
    Ok(machine.read(&look))
}

/// Follows the log to its tail unless all that a request names is there already. What is not there
/// then does not exist.
pub(crate) async fn catch_up_unless(
    machine: &Machine,
    is_all_there: impl Fn(&State) -> bool,
) -> Result<(), Unreachable> {
    look_twice(machine, |state| is_all_there(state).then_some(())).await.map(|_| ())
}

/// Whether a topic of this name has this partition.
pub(crate) fn has_partition(state: &State, topic: &str, partition: PartitionIndex) -> bool {
    let partitions = state.topic_by_name(topic).map_or(0, |topic| topic.partitions.len());
    usize::try_from(partition).is_ok_and(|index| index < partitions)
}

/// What a topic is called in names of metrics, which can't tell `.` from `_`.
pub(crate) fn metric_name(topic: &str) -> impl Iterator<Item = char> {
    topic.chars().map(|it| if it == '.' { '_' } else { it })
}

/// Whether a config says what a topic is a branch of.
pub(crate) fn is_branch_config(name: &str) -> bool {
    [BRANCH_OF, BRANCH_AT].contains(&name)
}

/// Checks what can be checked before the log decides.
pub(crate) fn check(state: &State, topic: &NewTopic) -> Result<(), Refusal> {
    if !is_legal_name(&topic.name) {
        let message = format!("{:?} is no name for a topic", topic.name);
        return Err(Refusal::new(ResponseError::InvalidTopicException, message));
    }
    if topic.partitions == 0 || topic.partitions > PARTITIONS_MAX {
        let message = format!("a topic has 1 to {PARTITIONS_MAX} partitions");
        return Err(Refusal::new(ResponseError::InvalidPartitions, message));
    }
    if topic.replication_factor == 0 {
        let message = "the replication factor is at least 1";
        return Err(Refusal::new(ResponseError::InvalidReplicationFactor, message));
    }
    if state.topic_by_name(&topic.name).is_some() {
        let message = format!("topic {} exists", topic.name);
        return Err(Refusal::new(ResponseError::TopicAlreadyExists, message));
    }
    // Two topics with one metric name: Kafka refuses this, too.
    let collides = |other: &str| metric_name(other).eq(metric_name(&topic.name));
    if topic.name.contains(['.', '_'])
        && let Some(other) = state.topics().find(|it| collides(&it.name))
    {
        let message = format!("topic {} collides with {}", topic.name, other.name);
        return Err(Refusal::new(ResponseError::InvalidTopicException, message));
    }
    Ok(())
}

/// Checks configs that a topic is to be created with, and writes them as they are kept.
fn understand(configs: &mut BTreeMap<String, String>) -> Result<(), Refusal> {
    let invalid = |message| Refusal::new(ResponseError::InvalidConfig, message);
    for (name, value) in configs.iter_mut() {
        if is_branch_config(name) {
            continue;
        }
        *value = validate(TOPIC_CONFIGS, name, Some(value)).map_err(invalid)?;
    }
    go_together(configs).map_err(invalid)
}

/// Creates a topic, unless it is only to be checked. Completes what was asked for.
pub(crate) async fn create(
    context: &Context,
    topic: &mut NewTopic,
    validate_only: bool,
) -> Result<TopicId, Refusal> {
    let machine = context.machine();
    understand(&mut topic.configs)?;
    let branch = branches::resolve(context, topic).await?;
    machine.read(|state| check(state, topic))?;
    if validate_only {
        return Ok(TopicId::NIL);
    }
    let id = machine.new_topic_id();
    let NewTopic { name, partitions, replication_factor, configs, .. } = topic.clone();
    let command = match branch {
        Some(branch) => {
            Command::BranchTopic { topic: id, name, replication_factor, configs, branch }
        }
        None => Command::CreateTopic { topic: id, name, partitions, replication_factor, configs },
    };
    propose(machine, command).await.map(|()| id)
}

/// Proposes a command whose outcome is "done" or "rejected".
pub(crate) async fn propose(machine: &Machine, command: Command) -> Result<(), Refusal> {
    match machine.propose(command).await {
        Ok(Outcome::Rejected(rejection)) => {
            Err(Refusal::new(error::of_rejection(&rejection), rejection.to_string()))
        }
        Ok(_) => Ok(()),
        Err(failure) => Err(Refusal::new(error::of_proposal(&failure), failure.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_by_the_rule_of_kafka() {
        for name in ["a", "A.b_c-9", &"x".repeat(249)] {
            assert!(is_legal_name(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "\u{e9}", "a\0", &"x".repeat(250)] {
            assert!(!is_legal_name(name), "{name}");
        }
    }
}
