//! What `range` promises.

use super::*;

fn range(members: &Members, partitions: &Partitions) -> Assignments {
    assign(Assignor::Range, members, partitions)
}

/// The definition, one partition at a time: subscribers in line, static members by instance id in
/// front of the others by member id; as many partitions for each as it would get if they were
/// dealt like cards; taken from the topic one run after another.
fn by_definition(members: &Members, partitions: &Partitions) -> Assignments {
    let mut assignments: Assignments =
        members.keys().map(|id| (id.clone(), Assignment::new())).collect();
    for (topic, count) in partitions {
        let mut line = Vec::new();
        for is_static in [true, false] {
            let mut part: Vec<(&str, &str)> = members
                .iter()
                .filter(|(_, member)| member.topics.contains(topic))
                .filter(|(_, member)| member.instance_id.is_some() == is_static)
                .map(|(id, member)| (member.instance_id.as_deref().unwrap_or(id), id.as_str()))
                .collect();
            part.sort_unstable();
            line.extend(part.into_iter().map(|(_, id)| id));
        }
        let places = (0..*count).map(|card| usize::try_from(card).unwrap() % line.len().max(1));
        let mut places: Vec<usize> = places.collect();
        places.sort_unstable();
        for (index, place) in (0..).zip(places) {
            let Some(id) = line.get(place) else { continue };
            assignments.get_mut(*id).unwrap().entry(*topic).or_default().insert(index);
        }
    }
    assignments
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn ranges_are_those_of_the_definition(
        members in any_group(),
        partitions in any_partitions(),
    ) {
        prop_assert_eq!(range(&members, &partitions), by_definition(&members, &partitions));
    }

    #[test]
    fn topics_of_one_size_are_divided_alike_if_all_subscribe_to_the_same(
        members in any_even_group(),
        count in 1..=PARTITIONS_MAX,
    ) {
        let partitions = partitions(&[count; TOPICS]);
        for (id, assignment) in range(&members, &partitions) {
            let ranges: BTreeSet<_> = assignment.values().collect();
            prop_assert!(ranges.len() <= 1, "{} got {:?}", id, assignment);
            let topics = if ranges.is_empty() { 0 } else { members[&id].topics.len() };
            prop_assert_eq!(assignment.len(), topics);
        }
    }

    #[test]
    fn static_members_keep_their_ranges_when_they_come_back_under_other_member_ids(
        members in any_group(),
        partitions in any_partitions(),
    ) {
        let by_instance = |members: &Members| -> BTreeMap<String, Assignment> {
            let assignments = range(members, &partitions);
            let statics = members.iter().filter_map(|(id, member)| {
                Some((member.instance_id.clone()?, assignments[id].clone()))
            });
            statics.collect()
        };
        let renamed: Members = members.iter().rev().zip(0..).map(|((id, member), number)| {
            let id = if member.instance_id.is_some() { format!("{number}") } else { id.clone() };
            (id, member.clone())
        }).collect();
        prop_assert_eq!(by_instance(&renamed), by_instance(&members));
    }
}

#[test]
fn the_first_in_line_get_the_odd_partitions() {
    let members = members([
        ("a", subscriber(&[0, 1])),
        ("b", subscriber(&[0, 1])),
        ("c", Subscriber { instance_id: Some("z".to_owned()), ..subscriber(&[0]) }),
    ]);
    let expected = [
        ("a", having([(0, &[2, 3]), (1, &[0, 1, 2])])),
        ("b", having([(0, &[4]), (1, &[3, 4])])),
        ("c", having([(0, &[0, 1])])),
    ];
    let expected = expected.map(|(id, assignment)| (id.to_owned(), assignment)).into();
    assert_eq!(range(&members, &partitions(&[5, 5])), expected);
}
