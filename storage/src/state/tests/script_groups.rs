//! The words of the scripts for groups.
//!
//! A command is about `group=`, at the revision that the group has unless `revision=` says
//! another. Its details are members (`m1 metadata=a instance=i1`, `m1 gone`), assignments
//! (`m1 assignment=a`), or what may change in a group of the consumer protocol (`epoch to=2`,
//! `member id=c1 topics=orders`, `gone id=c1`, `target id=c1 partitions=orders-0,orders-1`,
//! `target-epoch to=2`, `current id=c1 epoch=2 assigned=orders-0 revoking=orders-1`).

use std::fmt::Write as _;

use bytes::Bytes;
use odradek_protocol::id::{Offset, TopicPartition};

use super::script_text::{Words, partition};
use crate::command::groups::{
    Assignment, ClassicMember, ConsumerChange, Current, MemberChange, MemberState, Subscription,
};
use crate::command::{Command, CommittedOffset, Committer, GroupChange};
use crate::lsn::Lsn;
use crate::state::State;
use crate::state::groups::classic::ClassicGroup;
use crate::state::groups::consumer::ConsumerGroup;
use crate::state::groups::{Group, Membership};

/// The command that the words say; `None` if they are not about a group.
pub(super) fn command(state: &State, words: &Words, details: &[Words]) -> Option<Command> {
    let members = || details.iter().map(member_change).collect();
    let text = |key: &str| words.text(key).unwrap_or_default().to_owned();
    let change = match words.verb.as_str() {
        "commit-offsets" => return Some(commit_offsets(state, words, details)),
        "stage" => GroupChange::StageMembers { is_first: words.has("first"), members: members() },
        "begin" => GroupChange::BeginGeneration {
            protocol_type: words.text("type").unwrap_or("consumer").to_owned(),
            protocol: words.text("protocol").map(ToOwned::to_owned),
            leader: words.text("leader").map(ToOwned::to_owned),
            with_staged: words.has("with-staged"),
            members: members(),
        },
        "assign" => {
            let assignment = |it: &Words| (it.verb.clone(), bytes(it, "assignment"));
            let assignments = details.iter().map(assignment).collect();
            GroupChange::AssignGeneration { assignments, is_last: !words.has("more-follows") }
        }
        "replace" => GroupChange::ReplaceMember {
            old: text("old"),
            new: text("new"),
            member: classic_member(words),
        },
        "consumers" => {
            let changes = details.iter().map(|it| consumer_change(state, it)).collect();
            GroupChange::ChangeConsumers(changes)
        }
        "delete-offsets" => GroupChange::DeleteOffsets {
            partitions: details.iter().map(|it| partition(state, &it.verb)).collect(),
            expired_ms: words.has("expired").then(|| words.signed("expired", 0)),
        },
        "delete-group" => GroupChange::DeleteGroup,
        _ => return None,
    };
    let group = text("group");
    let found = state.groups().get(&group).map_or(0, |group| group.revision);
    let revision = words.number("revision", found);
    let office = office(state, words);
    Some(Command::ChangeGroup { group, office, revision, change })
}

fn commit_offsets(state: &State, words: &Words, details: &[Words]) -> Command {
    Command::CommitOffsets {
        group: words.text("group").unwrap().to_owned(),
        office: office(state, words),
        committer: committer(words),
        retention_ms: words.has("retention").then(|| words.signed("retention", 0)),
        offsets: committed_offsets(state, details),
    }
}

/// The member on whose behalf positions are committed.
pub(super) fn committer(words: &Words) -> Option<Committer> {
    words.text("member").map(|member| Committer {
        member: member.to_owned(),
        instance_id: words.text("instance").map(ToOwned::to_owned),
        generation: number(words, "generation", -1),
    })
}

/// Positions, one a line.
pub(super) fn committed_offsets(state: &State, details: &[Words]) -> Vec<CommittedOffset> {
    let offset = |line: &Words| CommittedOffset {
        partition: partition(state, &line.verb),
        offset: Offset(line.signed("offset", 0)),
        leader_epoch: number(line, "epoch", -1),
        metadata: line.text("metadata").unwrap_or_default().to_owned(),
    };
    details.iter().map(offset).collect()
}

/// The office that the coordinator has, or claims to have.
pub(super) fn office(state: &State, words: &Words) -> Lsn {
    Lsn::new(words.number("office", state.offices_changed().get()))
}

fn number(words: &Words, key: &str, default: i32) -> i32 {
    words.text(key).map_or(default, |it| it.parse().unwrap())
}

fn bytes(words: &Words, key: &str) -> Bytes {
    Bytes::from(words.text(key).unwrap_or_default().to_owned())
}

fn member_change(line: &Words) -> MemberChange {
    let id = line.verb.clone();
    if line.has("gone") {
        return MemberChange::Remove { id };
    }
    MemberChange::Put { id, member: classic_member(line) }
}

fn classic_member(line: &Words) -> ClassicMember {
    ClassicMember {
        instance_id: line.text("instance").map(ToOwned::to_owned),
        metadata: bytes(line, "metadata"),
        assignment: bytes(line, "assignment"),
        ..ClassicMember::default()
    }
}

fn consumer_change(state: &State, line: &Words) -> ConsumerChange {
    let id = line.text("id").unwrap_or_default().to_owned();
    let epoch = number(line, "to", 0);
    match line.verb.as_str() {
        "epoch" => ConsumerChange::SetEpoch { epoch, metadata_hash: line.number("hash", 0) },
        "target-epoch" => ConsumerChange::SetTargetEpoch { epoch },
        "member" => ConsumerChange::PutMember {
            id,
            subscription: Subscription {
                instance_id: line.text("instance").map(ToOwned::to_owned),
                topics: list(line, "topics").map(ToOwned::to_owned).collect(),
                ..Subscription::default()
            },
        },
        "gone" => ConsumerChange::RemoveMember { id },
        "target" => ConsumerChange::SetTarget { id, target: assignment(state, line, "partitions") },
        "current" => {
            let current = Current {
                epoch: number(line, "epoch", 0),
                previous_epoch: number(line, "previous", 0),
                assigned: assignment(state, line, "assigned"),
                revoking: assignment(state, line, "revoking"),
                state: match (line.has("unrevoked"), line.has("unreleased")) {
                    (true, _) => MemberState::UnrevokedPartitions,
                    (_, true) => MemberState::UnreleasedPartitions,
                    _ => MemberState::Stable,
                },
            };
            ConsumerChange::SetCurrent { id, current }
        }
        verb => panic!("no change {verb:?}"),
    }
}

/// What stands between commas.
pub(super) fn list<'a>(line: &'a Words, key: &str) -> impl Iterator<Item = &'a str> {
    line.text(key).into_iter().flat_map(|it| it.split(','))
}

/// Partitions between commas.
pub(super) fn assignment(state: &State, line: &Words, key: &str) -> Assignment {
    let mut assignment = Assignment::new();
    for TopicPartition { topic, partition } in list(line, key).map(|it| partition(state, it)) {
        assignment.entry(topic).or_default().insert(partition);
    }
    assignment
}

/// Which groups there are, and who coordinates them.
pub(super) fn show_all(text: &mut String, state: &State) {
    for (name, group) in state.groups().iter() {
        let node = state.coordinator_of(name).map_or(0, |node| node.0);
        let (revision, positions) = (group.revision, group.positions.len());
        writeln!(text, "{name} revision={revision} positions={positions} coordinator={node}")
            .unwrap();
    }
}

/// Who is in a group, and how far it has come.
pub(super) fn show(text: &mut String, group: &Group) {
    let (revision, since) = (group.revision, group.empty_since_ms);
    match &group.membership {
        Membership::None => {}
        Membership::Classic(classic) => {
            write!(text, "revision={revision} ").unwrap();
            show_classic(text, classic);
        }
        Membership::Consumer(consumer) => {
            write!(text, "revision={revision} ").unwrap();
            show_consumer(text, consumer);
        }
    }
    if group.membership != Membership::None && !group.has_members() {
        writeln!(text, "empty since {since}").unwrap();
    }
    for (partition, it) in &group.positions {
        let (offset, epoch) = (it.offset, it.leader_epoch);
        let (metadata, at) = (&it.metadata, it.committed_ms);
        write!(text, "{partition} offset={offset} epoch={epoch} {metadata:?} at {at}").unwrap();
        if let Some(expires_ms) = it.expires_ms {
            write!(text, " until {expires_ms}").unwrap();
        }
        writeln!(text).unwrap();
    }
}

fn show_classic(text: &mut String, classic: &ClassicGroup) {
    let ClassicGroup { protocol_type, generation, .. } = classic;
    let protocol = classic.protocol.as_deref().unwrap_or("-");
    let leader = classic.leader.as_deref().unwrap_or("-");
    let phase = match (classic.members.is_empty(), classic.is_assigned) {
        (true, _) => "empty",
        (false, false) => "completing",
        (false, true) => "stable",
    };
    writeln!(
        text,
        "classic {protocol_type:?} generation={generation} {phase} protocol={protocol} \
         leader={leader}"
    )
    .unwrap();
    let show = |text: &mut String, id: &str, member: &ClassicMember| {
        let instance = member.instance_id.as_deref().unwrap_or("-");
        let metadata = String::from_utf8_lossy(&member.metadata);
        let assignment = String::from_utf8_lossy(&member.assignment);
        writeln!(
            text,
            "  {id} instance={instance} metadata={metadata:?} assignment={assignment:?}"
        )
        .unwrap();
    };
    for (id, member) in &classic.members {
        show(text, id, member);
    }
    for (id, member) in &classic.staged {
        match member {
            Some(member) => show(text, &format!("staged {id}"), member),
            None => writeln!(text, "  staged {id} gone").unwrap(),
        }
    }
}

fn show_consumer(text: &mut String, consumer: &ConsumerGroup) {
    let ConsumerGroup { epoch, metadata_hash, target_epoch, .. } = consumer;
    writeln!(text, "consumer epoch={epoch} hash={metadata_hash} target-epoch={target_epoch}")
        .unwrap();
    for (id, member) in consumer.members() {
        let Current { epoch, previous_epoch, assigned, revoking, state } = &member.current;
        let instance = member.subscription.instance_id.as_deref().unwrap_or("-");
        let topics = &member.subscription.topics;
        let (assigned, revoking) = (partitions(assigned), partitions(revoking));
        let target = partitions(&member.target);
        writeln!(text, "  {id} instance={instance} topics={topics:?} target={target}").unwrap();
        writeln!(
            text,
            "    {state:?} epoch={epoch} previous={previous_epoch} assigned={assigned} \
             revoking={revoking}"
        )
        .unwrap();
    }
}

fn partitions(assignment: &Assignment) -> String {
    let topics = assignment.iter();
    let partitions = topics.flat_map(|(topic, indexes)| {
        indexes.iter().map(move |partition| format!("{topic}-{partition}"))
    });
    let partitions: Vec<String> = partitions.collect();
    if partitions.is_empty() { "-".to_owned() } else { partitions.join(",") }
}
