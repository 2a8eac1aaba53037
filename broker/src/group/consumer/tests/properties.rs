//! Whatever members do, no partition is two members', and a group left alone comes to rest.

use odradek_storage::command::groups::MemberState;
use proptest::prelude::*;

use super::*;

/// Something that happens to a group of up to five members.
#[derive(Clone, Debug)]
enum Event {
    Join(usize, usize),
    Beat(usize, bool),
    Leave(usize),
    LeaveForAWhile(usize),
    Grow(u32),
}

const MEMBERS: [&str; 5] = ["a", "b", "c", "d", "e"];
const WISHES: [&[&str]; 3] = [&["foo"], &["bar"], &["foo", "bar"]];

fn event() -> impl Strategy<Value = Event> {
    let member = || 0..MEMBERS.len();
    prop_oneof![
        3 => (member(), 0..WISHES.len()).prop_map(|(member, wish)| Event::Join(member, wish)),
        6 => (member(), any::<bool>()).prop_map(|(member, says)| Event::Beat(member, says)),
        1 => member().prop_map(Event::Leave),
        1 => member().prop_map(Event::LeaveForAWhile),
        1 => (1..4_u32).prop_map(Event::Grow),
    ]
}

/// Members `a` and `b` are static.
fn as_itself(heartbeat: ConsumerHeartbeat) -> ConsumerHeartbeat {
    match heartbeat.member.as_str() {
        member @ ("a" | "b") => {
            let name = format!("instance-{member}");
            heartbeat.named(&name)
        }
        _ => heartbeat,
    }
}

fn happen(scene: &mut Scene, event: &Event) {
    let known = |scene: &Scene, member: usize| {
        scene.group.members().get(MEMBERS[member]).map(|it| it.current.clone())
    };
    let heartbeat = match event {
        Event::Join(member, wish) => join(MEMBERS[*member], WISHES[*wish]),
        Event::Beat(member, says) => {
            let Some(current) = known(scene, *member) else { return };
            let heartbeat = beat(MEMBERS[*member], current.epoch.max(1));
            if *says { heartbeat.owning(&current.assigned) } else { heartbeat }
        }
        Event::Leave(member) => beat(MEMBERS[*member], LEAVE_EPOCH),
        Event::LeaveForAWhile(member) => beat(MEMBERS[member % 2], STATIC_LEAVE_EPOCH),
        Event::Grow(by) => {
            scene.topics.entry("foo").and_modify(|(_, partitions)| *partitions += by);
            return;
        }
    };
    // A refusal leaves the group as it was; what is decided, the state takes.
    drop(scene.hear(as_itself(heartbeat)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_group_left_alone_comes_to_rest_with_everything_divided(
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut scene = Scene::new();
        for event in &events {
            happen(&mut scene, event);
        }
        for member in MEMBERS {
            if scene.group.members().get(member).is_some_and(|it| it.current.epoch < 0) {
                scene.hear(as_itself(join(member, WISHES[0]))).unwrap();
            }
        }
        scene.settle();
        for (topic, (id, count)) in &scene.topics {
            let wanted = scene.group.members().values().any(|member| {
                member.subscription.topics.contains(*topic)
            });
            for index in 0..i32::try_from(*count).unwrap() {
                prop_assert_eq!(scene.group.owner(*id, index).is_some(), wanted);
            }
        }
        for member in scene.group.members().values() {
            prop_assert_eq!(member.current.state, MemberState::Stable);
            prop_assert_eq!(&member.current.assigned, &member.target);
            prop_assert_eq!(member.current.epoch, scene.group.epoch);
        }
    }
}
