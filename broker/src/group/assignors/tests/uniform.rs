//! What `uniform` promises.

use super::*;

fn uniform(members: &Members, partitions: &Partitions) -> Assignments {
    assign(Assignor::Uniform, members, partitions)
}

/// Checks that no member could take a partition from one that has two more.
fn check_no_gift_helps(members: &Members, assignments: &Assignments) {
    for (giver, given) in assignments {
        for (taker, taken) in assignments {
            let could_take = given.keys().any(|topic| members[taker].topics.contains(topic));
            let is_unfair = could_take && size(given) > size(taken) + 1;
            assert!(!is_unfair, "{taker} could take from {giver}: {assignments:?}");
        }
    }
}

/// Checks that nobody lost a partition of a topic and got another of it instead.
fn check_no_swaps(members: &Members, partitions: &Partitions, assignments: &Assignments) {
    for (id, assignment) in assignments {
        for (topic, now) in assignment {
            let there = indexes(partitions[topic]);
            let had = members[id].target.get(topic).into_iter().flatten();
            let had: BTreeSet<_> = had.copied().filter(|index| there.contains(index)).collect();
            let has_swapped = !had.is_subset(now) && !now.is_subset(&had);
            assert!(!has_swapped, "{id} had {had:?} of {topic}, has {now:?}");
        }
    }
}

/// How many partitions stay where they were.
fn kept(members: &Members, assignments: &Assignments) -> usize {
    let kept = assignments
        .iter()
        .map(|(id, assignment)| each(assignment).intersection(&each(&members[id].target)).count());
    kept.sum()
}

/// How many could stay at most, if all subscribe alike and sizes may differ by one: every way to
/// choose who gets one more is tried.
fn most_kept(members: &Members, partitions: &Partitions) -> usize {
    let mut had = Vec::new();
    let mut total = 0;
    for member in members.values() {
        let there: Assignment = partitions
            .iter()
            .filter(|(topic, _)| member.topics.contains(topic))
            .map(|(topic, count)| (*topic, indexes(*count).collect()))
            .collect();
        total = size(&there);
        had.push(each(&there).intersection(&each(&member.target)).count());
    }
    let (share, extra) = (total / had.len(), total % had.len());
    let choices =
        (0..1_u32 << had.len()).filter(|it| usize::try_from(it.count_ones()) == Ok(extra));
    let kept = choices.map(|choice| {
        let shares = (0..had.len()).map(|at| share + usize::from(choice >> at & 1 == 1));
        had.iter().zip(shares).map(|(had, share)| share.min(*had)).sum()
    });
    kept.max().unwrap()
}

/// What may happen to a group between two assignments.
#[derive(Clone, Debug)]
enum Event {
    Join(String, BTreeSet<TopicId>),
    Leave(prop::sample::Index),
    Subscribe(prop::sample::Index, BTreeSet<TopicId>),
    Resize(TopicId, u32),
    Delete(TopicId),
}

fn any_event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    let any_topic = || (0..TOPICS).prop_map(topic);
    prop_oneof![
        3 => ("[a-z]{1,2}", any_topics()).prop_map(|(id, topics)| Event::Join(id, topics)),
        2 => index().prop_map(Event::Leave),
        2 => (index(), any_topics()).prop_map(|(at, topics)| Event::Subscribe(at, topics)),
        2 => (any_topic(), 0..=3 * PARTITIONS_MAX).prop_map(|(id, to)| Event::Resize(id, to)),
        1 => any_topic().prop_map(Event::Delete),
    ]
}

impl Event {
    fn happen(self, members: &mut Members, partitions: &mut Partitions) {
        let at = |index: prop::sample::Index, members: &Members| {
            members.keys().nth(index.index(members.len().max(1))).cloned()
        };
        match self {
            Self::Join(id, topics) => members.entry(id).or_default().topics = topics,
            Self::Leave(index) => {
                at(index, members).and_then(|id| members.remove(&id));
            }
            Self::Subscribe(index, topics) => {
                if let Some(id) = at(index, members) {
                    members.entry(id).or_default().topics = topics;
                }
            }
            Self::Resize(topic, count) => {
                partitions.insert(topic, count);
            }
            Self::Delete(topic) => {
                partitions.remove(&topic);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_gift_would_balance_better(members in any_group(), partitions in any_partitions()) {
        let assignments = uniform(&members, &partitions);
        check_no_gift_helps(&members, &assignments);
        check_no_swaps(&members, &partitions, &assignments);
    }

    #[test]
    fn sizes_differ_by_one_and_moves_are_fewest_if_all_subscribe_to_the_same(
        members in any_even_group().prop_filter("no members", |members| !members.is_empty()),
        partitions in any_partitions(),
    ) {
        let assignments = uniform(&members, &partitions);
        let least = assignments.values().map(size).min().unwrap();
        let most = assignments.values().map(size).max().unwrap();
        prop_assert!(most <= least + 1, "{:?}", assignments);
        prop_assert_eq!(kept(&members, &assignments), most_kept(&members, &partitions));
    }

    #[test]
    fn whoever_stays_keeps_everything_when_others_leave_or_topics_grow(
        mut members in any_even_group(),
        mut partitions in any_partitions(),
        leavers in prop::collection::vec(any::<bool>(), MEMBERS_MAX),
        growth in prop::collection::vec(0..=PARTITIONS_MAX, TOPICS),
    ) {
        let before = uniform(&members, &partitions);
        settle(&mut members, &before);
        let mut leavers = leavers.into_iter();
        members.retain(|_, _| !leavers.next().unwrap_or_default());
        for (count, growth) in partitions.values_mut().zip(growth) {
            *count += growth;
        }
        for (id, assignment) in uniform(&members, &partitions) {
            prop_assert!(each(&assignment).is_superset(&each(&before[&id])), "{} lost some", id);
        }
    }

    #[test]
    fn nobody_but_newcomers_gets_anything_when_members_join(
        mut members in any_even_group(),
        partitions in any_partitions(),
        newcomers in prop::collection::btree_set("[a-z]{4}", 1..MEMBERS_MAX),
    ) {
        let before = uniform(&members, &partitions);
        settle(&mut members, &before);
        let Some(topics) = members.values().next().map(|member| member.topics.clone()) else {
            return Ok(());
        };
        for id in newcomers {
            members.insert(id, Subscriber { topics: topics.clone(), ..Subscriber::default() });
        }
        let after = uniform(&members, &partitions);
        for (id, before) in before {
            prop_assert!(each(&after[&id]).is_subset(&each(&before)), "{} got some", id);
        }
    }

    #[test]
    fn a_group_stays_whole_and_balanced_through_its_life(
        mut members in any_group(),
        mut partitions in any_partitions(),
        events in prop::collection::vec(any_event(), 1..20),
    ) {
        for event in events {
            event.happen(&mut members, &mut partitions);
            let assignments = uniform(&members, &partitions);
            check_complete(&members, &partitions, &assignments);
            check_no_gift_helps(&members, &assignments);
            check_no_swaps(&members, &partitions, &assignments);
            settle(&mut members, &assignments);
        }
    }
}

fn named<const N: usize>(assignments: [(&str, Assignment); N]) -> Assignments {
    assignments.map(|(id, assignment)| (id.to_owned(), assignment)).into()
}

#[test]
fn partitions_are_dealt_so_that_all_get_some_of_each_topic() {
    let members = members([("a", subscriber(&[0, 1])), ("b", subscriber(&[0, 1]))]);
    let expected =
        named([("a", having([(0, &[0, 2]), (1, &[1])])), ("b", having([(0, &[1]), (1, &[0, 2])]))]);
    assert_eq!(uniform(&members, &partitions(&[3, 3])), expected);
}

#[test]
fn those_who_have_more_give_of_every_topic_to_a_newcomer() {
    let had = |indexes| Subscriber {
        target: having([(0, indexes), (1, indexes)]),
        ..subscriber(&[0, 1])
    };
    let members =
        members([("a", had(&[0, 2, 4])), ("b", had(&[1, 3, 5])), ("c", subscriber(&[0, 1]))]);
    let expected = named([
        ("a", having([(0, &[0, 2]), (1, &[0, 2])])),
        ("b", having([(0, &[1, 3]), (1, &[1, 3])])),
        ("c", having([(0, &[4, 5]), (1, &[4, 5])])),
    ]);
    assert_eq!(uniform(&members, &partitions(&[6, 6])), expected);
}

#[test]
fn who_has_another_topic_leaves_more_of_the_shared_one_to_others() {
    let members = members([("a", subscriber(&[0])), ("b", subscriber(&[0, 1]))]);
    let expected =
        named([("a", having([(0, &[0, 2, 3])])), ("b", having([(0, &[1]), (1, &[0, 1])]))]);
    assert_eq!(uniform(&members, &partitions(&[4, 2])), expected);
}

#[test]
fn topics_with_much_for_each_subscriber_are_dealt_first() {
    let members =
        members([("a", subscriber(&[1])), ("b", subscriber(&[0, 1])), ("c", subscriber(&[0]))]);
    // The other way round, a would get two and c nothing, and no single gift could mend it.
    let expected =
        named([("a", having([(1, &[0])])), ("b", having([(1, &[1])])), ("c", having([(0, &[0])]))]);
    assert_eq!(uniform(&members, &partitions(&[1, 2])), expected);
}

#[test]
fn of_two_with_as_much_the_one_gives_that_has_it_only_now() {
    let had = Subscriber { target: having([(1, &[1, 2])]), ..subscriber(&[0, 1]) };
    let members = members([("a", subscriber(&[0, 1])), ("b", subscriber(&[1])), ("c", had)]);
    let expected = named([
        ("a", having([(0, &[0])])),
        ("b", having([(1, &[0])])),
        ("c", having([(1, &[1, 2])])),
    ]);
    assert_eq!(uniform(&members, &partitions(&[1, 3])), expected);
}

#[test]
fn a_partition_that_two_claim_stays_with_the_first() {
    let claims = || Subscriber { target: having([(0, &[0])]), ..subscriber(&[0]) };
    let members = members([("a", claims()), ("b", claims())]);
    let expected = named([("a", having([(0, &[0])])), ("b", having([(0, &[1])]))]);
    assert_eq!(uniform(&members, &partitions(&[2])), expected);
}
