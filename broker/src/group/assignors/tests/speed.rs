//! How long the assignors take, for people to look at.

use tokio::time::Instant;

use super::*;

const MEMBERS: usize = 1_000;
const TOPIC_COUNT: usize = 100;
const PARTITIONS_EACH: u32 = 100;

/// What the member in this place subscribes to.
type Taste = fn(usize) -> Vec<usize>;

#[test]
#[ignore = "prints times, checks nothing that other tests do not"]
fn large_groups_are_assigned_in_the_times_printed_here() {
    let tastes: [(&str, Taste); 4] = [
        ("all topics", |_| (0..TOPIC_COUNT).collect()),
        ("two in three topics", |at| (0..TOPIC_COUNT).filter(|it| (it + at) % 3 > 0).collect()),
        ("a topic and its neighbour", |at| vec![at % TOPIC_COUNT, (at + 1) % TOPIC_COUNT]),
        ("one to seven topics", |at| (0..=at % 7).map(|it| (at * it + 1) % TOPIC_COUNT).collect()),
    ];
    let partitions = partitions(&[PARTITIONS_EACH; TOPIC_COUNT]);
    for name in Assignor::NAMES {
        let assignor = Assignor::from_name(name).unwrap();
        for (taste, topics) in tastes {
            let mut members: Members =
                (0..MEMBERS).map(|at| (format!("{at:04}"), subscriber(&topics(at)))).collect();
            for step in ["first", "again", "three gone"] {
                let begun = Instant::now();
                let assignments = assign(assignor, &members, &partitions);
                println!("{name}, {taste}, {step}: {:?}", begun.elapsed());
                check_complete(&members, &partitions, &assignments);
                settle(&mut members, &assignments);
                if step == "again" {
                    members.retain(|id, _| !id.ends_with("333"));
                }
            }
        }
    }
}
