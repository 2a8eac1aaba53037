//! Tests of the assignors: what each promises, under groups of all shapes.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

mod large;
mod range;
mod uniform;

/// Topics that groups may subscribe to; some of them may not exist.
const TOPICS: usize = 5;

/// Most partitions of a topic.
const PARTITIONS_MAX: u32 = 7;

/// Most members of a group.
const MEMBERS_MAX: usize = 6;

type Members = BTreeMap<String, Subscriber>;
type Partitions = BTreeMap<TopicId, u32>;
type Assignments = BTreeMap<String, Assignment>;

fn topic(number: usize) -> TopicId {
    TopicId(Uuid::from_u128(u128::try_from(number).unwrap() + 1))
}

fn partitions(counts: &[u32]) -> Partitions {
    counts.iter().enumerate().map(|(number, count)| (topic(number), *count)).collect()
}

fn subscriber(topics: &[usize]) -> Subscriber {
    let topics = topics.iter().map(|number| topic(*number)).collect();
    Subscriber { topics, ..Subscriber::default() }
}

fn members<const N: usize>(members: [(&str, Subscriber); N]) -> Members {
    members.map(|(id, member)| (id.to_owned(), member)).into()
}

/// An assignment as it is written in a test: topics by number.
fn having<const N: usize>(assignment: [(usize, &[PartitionIndex]); N]) -> Assignment {
    assignment.map(|(number, indexes)| (topic(number), indexes.iter().copied().collect())).into()
}

fn size(assignment: &Assignment) -> usize {
    assignment.values().map(BTreeSet::len).sum()
}

/// The partitions of an assignment, one by one.
fn each(assignment: &Assignment) -> BTreeSet<(TopicId, PartitionIndex)> {
    let topics = assignment.iter();
    topics.flat_map(|(topic, indexes)| indexes.iter().map(|index| (*topic, *index))).collect()
}

/// Makes a target of an answer, as a coordinator does between two assignments.
fn settle(members: &mut Members, assignments: &Assignments) {
    for (id, member) in members {
        member.target = assignments.get(id).cloned().unwrap_or_default();
    }
}

/// Who has each partition; fails if somebody has what it did not ask for or what is not there, or
/// if two have the same.
fn owners(
    members: &Members,
    partitions: &Partitions,
    assignments: &Assignments,
) -> BTreeMap<(TopicId, PartitionIndex), String> {
    assert!(assignments.keys().eq(members.keys()), "members of {assignments:?}");
    let mut owners = BTreeMap::new();
    for (id, assignment) in assignments {
        assert!(assignment.values().all(|indexes| !indexes.is_empty()), "nothing is not named");
        for (topic, index) in each(assignment) {
            assert!(members[id].topics.contains(&topic), "{id} did not ask for {topic}");
            let count = partitions.get(&topic).copied().unwrap_or(0);
            assert!(u32::try_from(index).is_ok_and(|index| index < count), "no {topic}-{index}");
            let other = owners.insert((topic, index), id.clone());
            assert_eq!(other, None, "{topic}-{index} belongs to {id} as well");
        }
    }
    owners
}

/// Checks that every partition that somebody asked for is had by exactly one who did.
fn check_complete(members: &Members, partitions: &Partitions, assignments: &Assignments) {
    let wanted: BTreeSet<_> = members.values().flat_map(|member| &member.topics).collect();
    let wanted = partitions.iter().filter(|(topic, _)| wanted.contains(topic));
    let wanted: usize = wanted.map(|(_, count)| usize::try_from(*count).unwrap()).sum();
    assert_eq!(owners(members, partitions, assignments).len(), wanted, "of {assignments:?}");
}

fn any_partitions() -> impl Strategy<Value = Partitions> {
    // The last topic can be subscribed to, but never exists; others may have no partitions.
    prop::collection::vec(0..=PARTITIONS_MAX, 0..TOPICS).prop_map(|counts| partitions(&counts))
}

fn any_topics() -> impl Strategy<Value = BTreeSet<TopicId>> {
    prop::collection::btree_set((0..TOPICS).prop_map(topic), 0..=TOPICS)
}

/// What several members may have had: no partition twice, but also such that they did not ask for
/// or that never were.
fn any_targets() -> impl Strategy<Value = Vec<Assignment>> {
    let count = TOPICS * (usize::try_from(PARTITIONS_MAX).unwrap() + 1);
    let owners = prop::collection::vec(prop::option::of(0..MEMBERS_MAX), count);
    // Members with much, members with nothing: all that one had may be another's.
    (owners, prop::collection::vec(0..MEMBERS_MAX, MEMBERS_MAX)).prop_map(|(owners, heirs)| {
        let mut targets = vec![Assignment::new(); MEMBERS_MAX];
        for (partition, owner) in owners.into_iter().enumerate() {
            let Some(owner) = owner else { continue };
            let index = PartitionIndex::try_from(partition / TOPICS).unwrap();
            let topic = topic(partition % TOPICS);
            targets[heirs[owner]].entry(topic).or_default().insert(index);
        }
        targets
    })
}

/// A group whose members subscribe to what they like.
fn any_group() -> impl Strategy<Value = Members> {
    let ids = prop::collection::vec("[a-z]{1,3}", MEMBERS_MAX);
    let instances = prop::collection::btree_set("[a-z]{1,2}", MEMBERS_MAX);
    let instances = instances.prop_map(Vec::from_iter).prop_shuffle();
    let statics = prop::collection::vec(any::<bool>(), MEMBERS_MAX);
    let topics = prop::collection::vec(any_topics(), 0..=MEMBERS_MAX);
    (ids, instances, statics, topics, any_targets()).prop_map(
        |(ids, instances, statics, topics, targets)| {
            let mut members = Members::new();
            for (at, topics) in topics.into_iter().enumerate() {
                let instance_id = statics[at].then(|| instances[at].clone());
                let target = targets[at].clone();
                members.insert(ids[at].clone(), Subscriber { topics, instance_id, target });
            }
            members
        },
    )
}

/// A group whose members subscribe to the same.
fn any_even_group() -> impl Strategy<Value = Members> {
    (any_group(), any_topics()).prop_map(|(mut members, topics)| {
        for member in members.values_mut() {
            member.topics.clone_from(&topics);
        }
        members
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_partition_goes_to_exactly_one_of_those_who_asked_for_its_topic(
        mut members in any_group(),
        partitions in any_partitions(),
        claims in any_targets(),
    ) {
        // Several may claim the same.
        for (member, claim) in members.values_mut().zip(claims) {
            for (topic, indexes) in claim {
                member.target.entry(topic).or_default().extend(indexes);
            }
        }
        for name in Assignor::NAMES {
            let assignor = Assignor::from_name(name).unwrap();
            let assignments = assign(assignor, &members, &partitions);
            check_complete(&members, &partitions, &assignments);
            prop_assert_eq!(assign(assignor, &members, &partitions), assignments);
        }
    }

    #[test]
    fn an_assignment_that_became_the_target_is_assigned_again(
        mut members in any_group(),
        partitions in any_partitions(),
    ) {
        for name in Assignor::NAMES {
            let assignor = Assignor::from_name(name).unwrap();
            let assignments = assign(assignor, &members, &partitions);
            settle(&mut members, &assignments);
            prop_assert_eq!(assign(assignor, &members, &partitions), assignments);
        }
    }
}

#[test]
fn assignors_go_by_the_names_kafka_gave_them() {
    assert_eq!(Assignor::NAMES, ["uniform", "range"]);
    assert_eq!(Assignor::from_name("uniform"), Some(Assignor::Uniform));
    assert_eq!(Assignor::from_name("range"), Some(Assignor::Range));
    assert_eq!(Assignor::from_name("Range"), None);
    assert_eq!(Assignor::from_name(""), None);
    assert_eq!(Assignor::DEFAULT.name(), Assignor::NAMES[0]);
}

#[test]
fn a_group_without_members_or_without_topics_gets_nothing() {
    for assignor in [Assignor::Uniform, Assignor::Range] {
        assert_eq!(assign(assignor, &Members::new(), &partitions(&[3])), Assignments::new());
        let idle = members([("a", subscriber(&[])), ("b", subscriber(&[4]))]);
        let nothing = ["a", "b"].map(|id| (id.to_owned(), having([]))).into();
        assert_eq!(assign(assignor, &idle, &partitions(&[3])), nothing);
    }
}
