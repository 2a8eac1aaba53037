//! A thousand members with ten thousand partitions.

use super::*;

const MEMBERS: usize = 1_000;
const TOPIC_COUNT: usize = 100;
const PARTITIONS_EACH: u32 = 100;

/// What the member in this place subscribes to.
type Taste = fn(usize) -> Vec<usize>;

#[test]
fn large_groups_are_assigned_completely() {
    let tastes: [Taste; 4] = [
        |_| (0..TOPIC_COUNT).collect(),
        |at| (0..TOPIC_COUNT).filter(|it| (it + at) % 3 > 0).collect(),
        |at| vec![at % TOPIC_COUNT, (at + 1) % TOPIC_COUNT],
        |at| (0..=at % 7).map(|it| (at * it + 1) % TOPIC_COUNT).collect(),
    ];
    let partitions = partitions(&[PARTITIONS_EACH; TOPIC_COUNT]);
    for name in Assignor::NAMES {
        let assignor = Assignor::from_name(name).unwrap();
        for topics in tastes {
            let mut members: Members =
                (0..MEMBERS).map(|at| (format!("{at:04}"), subscriber(&topics(at)))).collect();
            for round in ["first", "again", "some gone"] {
                let assignments = assign(assignor, &members, &partitions);
                check_complete(&members, &partitions, &assignments);
                settle(&mut members, &assignments);
                if round == "again" {
                    members.retain(|id, _| !id.ends_with("333"));
                }
            }
        }
    }
}
