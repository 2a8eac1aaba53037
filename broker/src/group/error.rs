//! Why a group does not do what it is asked.

use odradek_storage::command::Rejection;

/// Why a group does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The group has no name.
    #[error("a group has a name")]
    InvalidGroupId,
    /// Another broker coordinates it.
    #[error("another broker coordinates the group")]
    NotCoordinator,
    /// Nobody can say who does, or the log is out of reach.
    #[error("the coordinator can't act now")]
    NotAvailable,
    /// It is not known whether the change was made.
    #[error("the outcome is not known")]
    Unknown,
    /// No such group.
    #[error("there is no group {0}")]
    UnknownGroup(String),
    /// The group has no such member.
    #[error("the group has no such member")]
    UnknownMember,
    /// The generation is not the group's.
    #[error("this is not the group's generation")]
    IllegalGeneration,
    /// A rebalance is under way.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// The protocol type, or all of the protocols, are not those of the other members.
    #[error("the group speaks another protocol")]
    InconsistentProtocol,
    /// A session timeout that is not allowed.
    #[error("the session timeout is out of range")]
    InvalidSessionTimeout,
    /// The instance id belongs to another member now (KIP-345).
    #[error("the instance id belongs to another member")]
    FencedInstance,
    /// A member must say its id, and this is one for it (KIP-394).
    #[error("join again as {0}")]
    MemberIdRequired(String),
    /// The group has as many members as it may.
    #[error("the group is full")]
    GroupFull,
    /// The group has members.
    #[error("the group has members")]
    GroupNotEmpty,
    /// Somebody is subscribed to the topic.
    #[error("members are subscribed to the topic")]
    SubscribedToTopic,
    /// The member epoch is not the member's (KIP-848).
    #[error("the member's epoch is {0}")]
    FencedMemberEpoch(i32),
    /// A commit with a member epoch that is not the member's (KIP-848).
    #[error("the member's epoch has moved")]
    StaleMemberEpoch,
    /// The instance id is still in use (KIP-848).
    #[error("instance id {0} is in use")]
    UnreleasedInstance(String),
    /// No such assignor.
    #[error("there is no assignor {0}; there are uniform and range")]
    UnsupportedAssignor(String),
    /// A regular expression that is none.
    #[error("not a regular expression: {0}")]
    InvalidRegex(String),
    /// A request that contradicts itself.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// What a member says of itself, or is assigned, is more than can be kept.
    #[error("a member with {0} bytes is more than can be kept")]
    TooLarge(usize),
    /// Something that can't be.
    #[error("rejected: {0}")]
    Rejected(Rejection),
}
