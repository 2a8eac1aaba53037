//! What the members of a group are subscribed to, as far as a broker can know.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};
use odradek_protocol::id::TopicId;
use odradek_storage::state::State;
use odradek_storage::state::groups::{Group, Membership};

/// The protocol type of consumers; all others keep their metadata to themselves.
const CONSUMER: &str = "consumer";

/// Topics that somebody in a group reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subscribed {
    /// These.
    To(BTreeSet<TopicId>),
    /// Perhaps all: the members do not say, or not in a way that a broker understands.
    Unknowable,
}

impl Subscribed {
    /// What the members of this group are subscribed to.
    pub(super) fn of(state: &State, group: &Group) -> Self {
        let mut topics = BTreeSet::new();
        let id = |name: &String| state.topic_by_name(name).map(|topic| topic.id);
        match &group.membership {
            Membership::None => {}
            Membership::Classic(classic) if classic.protocol_type != CONSUMER => {
                return Self::Unknowable;
            }
            Membership::Classic(classic) => {
                for member in classic.members.values() {
                    match topics_of(member.metadata.clone()) {
                        Some(names) => topics.extend(names.iter().filter_map(id)),
                        None => return Self::Unknowable,
                    }
                }
            }
            Membership::Consumer(consumer) => {
                for member in consumer.members().values() {
                    topics.extend(member.subscription.topics.iter().filter_map(id));
                    topics.extend(member.target.keys());
                }
            }
        }
        Self::To(topics)
    }

    /// Whether somebody may read this topic.
    pub(super) fn contains(&self, topic: TopicId) -> bool {
        match self {
            Self::To(topics) => topics.contains(&topic),
            Self::Unknowable => true,
        }
    }
}

/// Topics in a ConsumerProtocolSubscription: a version, then an array of strings, then what is of
/// no interest here. None if it is no such thing.
pub(crate) fn topics_of(mut metadata: Bytes) -> Option<Vec<String>> {
    let _version = metadata.try_get_i16().ok()?;
    let count = metadata.try_get_i32().ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(metadata.try_get_i16().ok()?).ok()?;
        if metadata.remaining() < length {
            return None;
        }
        topics.push(String::from_utf8(metadata.split_to(length).to_vec()).ok()?);
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_found_in_what_consumers_say_of_themselves() {
        let said = Bytes::from_static(b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff");
        assert_eq!(topics_of(said), Some(vec!["a".to_owned(), "bc".to_owned()]));
        assert_eq!(topics_of(Bytes::from_static(b"\0\0\0\0\0\0")), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_subscription_is_not_believed_to_be_one() {
        for said in [&b""[..], b"\0\0", b"\0\0\x7f\xff\xff\xff", b"\0\0\0\0\0\x01\0\x05a"] {
            assert_eq!(topics_of(Bytes::copy_from_slice(said)), None, "{said:?}");
        }
    }
}
