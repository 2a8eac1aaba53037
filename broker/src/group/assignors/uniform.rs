//! Uniform: balance first, then as few moves as balance allows.
//!
//! Topics with the same subscribers form a pool, in which one partition is as good as another; when
//! all members subscribe alike there is one pool. First only shares are found, how many partitions
//! of each pool every member gets: what it has, plus what nobody has, and then the ones with many
//! give to the ones with few until no gift would help. Which partitions make up a share is decided
//! last: everybody keeps of its own what its share holds.
//!
//! In one pool the sizes then differ by one at most, and no other assignment with that property
//! moves less. With several pools it is a local balance: no single gift would improve it, but a
//! chain of gifts through several pools might.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use odradek_protocol::id::{PartitionIndex, TopicId};

use super::{Assignment, Subscriber, indexes, subscribers};

/// A partition, in the order in which members keep theirs: what goes first, if something must go,
/// are the high indexes of all topics, not all of the last topic.
type Partition = (PartitionIndex, TopicId);

/// Topics that have the same subscribers.
struct Pool {
    subscribers: Vec<Share>,
    /// Partitions nobody had.
    free: BTreeSet<Partition>,
    /// Number of all its partitions.
    size: usize,
}

/// A member's share of a pool.
struct Share {
    /// The member's position in the group.
    member: usize,
    /// What it had, and may keep.
    had: Vec<Partition>,
    /// How many it gets.
    count: usize,
}

/// Divides everything at once; see [`super::assign`].
pub(super) fn assign(
    members: &BTreeMap<String, Subscriber>,
    partitions: &BTreeMap<TopicId, u32>,
) -> BTreeMap<String, Assignment> {
    let mut pools = pools(members, partitions);
    balance(&mut pools, members.len());

    let mut assignments = vec![Assignment::new(); members.len()];
    for pool in pools {
        pool.hand_out(&mut assignments);
    }
    members.keys().cloned().zip(assignments).collect()
}

/// Sorts the topics into pools, and what the members had into their shares.
fn pools(members: &BTreeMap<String, Subscriber>, partitions: &BTreeMap<TopicId, u32>) -> Vec<Pool> {
    let mut topics = BTreeMap::<Vec<usize>, Vec<TopicId>>::new();
    for (topic, subscribers) in subscribers(members.values(), partitions) {
        topics.entry(subscribers).or_default().push(topic);
    }

    let mut pools = Vec::with_capacity(topics.len());
    let mut pool_of = BTreeMap::new();
    for (subscribers, topics) in topics {
        pool_of.extend(topics.iter().map(|topic| (*topic, pools.len())));
        pools.push(Pool::new(subscribers, &topics, partitions));
    }
    for (member, subscriber) in members.values().enumerate() {
        for (topic, indexes) in &subscriber.target {
            if let Some(pool) = pool_of.get(topic) {
                pools[*pool].keep(member, *topic, indexes);
            }
        }
    }
    pools
}

/// Finds the shares.
fn balance(pools: &mut [Pool], members: usize) {
    let mut loads = vec![0; members];
    for share in pools.iter().flat_map(|pool| &pool.subscribers) {
        loads[share.member] += share.count;
    }
    // The more a pool gives each of its subscribers, the less the others can make up for it.
    pools.sort_by(|a, b| {
        let (a_each, b_each) = (a.size * b.subscribers.len(), b.size * a.subscribers.len());
        b_each.cmp(&a_each).then(a.subscribers.len().cmp(&b.subscribers.len()))
    });
    for pool in &mut *pools {
        pool.fill(&mut loads);
    }
    // A gift in one pool may call for another in a second one. Each makes the sum of the squared
    // loads smaller, so there is a last one.
    loop {
        let gifts: usize = pools.iter_mut().map(|pool| pool.level(&mut loads)).sum();
        if gifts == 0 {
            break;
        }
    }
}

impl Pool {
    fn new(
        subscribers: Vec<usize>,
        topics: &[TopicId],
        partitions: &BTreeMap<TopicId, u32>,
    ) -> Self {
        let free: BTreeSet<Partition> = topics
            .iter()
            .flat_map(|topic| indexes(partitions[topic]).map(|index| (index, *topic)))
            .collect();
        let size = free.len();
        let subscribers = subscribers
            .into_iter()
            .map(|member| Share { member, had: Vec::new(), count: 0 })
            .collect();
        Self { subscribers, free, size }
    }

    /// Takes note of what a member had of a topic, as far as it may keep it.
    fn keep(&mut self, member: usize, topic: TopicId, indexes: &BTreeSet<PartitionIndex>) {
        let Ok(at) = self.subscribers.binary_search_by_key(&member, |share| share.member) else {
            return;
        };
        let share = &mut self.subscribers[at];
        let partitions = indexes.iter().map(|index| (*index, topic));
        share.had.extend(partitions.filter(|partition| self.free.remove(partition)));
        share.count = share.had.len();
    }

    /// Gives what nobody had to those who have least.
    fn fill(&mut self, loads: &mut [usize]) {
        let ranks = self.subscribers.iter().enumerate();
        let mut ranks: BinaryHeap<Reverse<(usize, usize)>> =
            ranks.map(|(at, share)| Reverse((loads[share.member], at))).collect();
        for _ in &self.free {
            let mut least = ranks.peek_mut().expect("a pool has subscribers");
            let Reverse((load, at)) = &mut *least;
            let share = &mut self.subscribers[*at];
            share.count += 1;
            loads[share.member] += 1;
            *load += 1;
        }
    }

    /// Lets those who have most give to those who have least, as long as that helps. Returns the
    /// number of gifts.
    fn level(&mut self, loads: &mut [usize]) -> usize {
        let givers = self.subscribers.iter().filter(|share| share.count > 0);
        let most = givers.map(|share| loads[share.member]).max().unwrap_or(0);
        let least = self.subscribers.iter().map(|share| loads[share.member]).min().unwrap_or(0);
        if most <= least + 1 {
            return 0;
        }

        let everybody = 0..self.subscribers.len();
        let mut givers: BTreeSet<_> =
            everybody.clone().filter_map(|at| self.giver(at, loads)).collect();
        let mut takers: BTreeSet<_> = everybody.map(|at| self.taker(at, loads)).collect();
        let mut gifts = 0;
        while let (Some((most, _, from)), Some((least, to))) =
            (givers.last().copied(), takers.first().copied())
            && most > least + 1
        {
            for at in [from, to] {
                takers.remove(&self.taker(at, loads));
                if let Some(giver) = self.giver(at, loads) {
                    givers.remove(&giver);
                }
            }
            self.subscribers[from].count -= 1;
            loads[self.subscribers[from].member] -= 1;
            self.subscribers[to].count += 1;
            loads[self.subscribers[to].member] += 1;
            takers.extend([from, to].map(|at| self.taker(at, loads)));
            givers.extend([from, to].into_iter().filter_map(|at| self.giver(at, loads)));
            gifts += 1;
        }
        gifts
    }

    /// A subscriber among those who can give, in ascending order: its load, whether it has more of
    /// the pool than it had, so that it gives nothing of its own, and its position.
    fn giver(&self, at: usize, loads: &[usize]) -> Option<(usize, bool, usize)> {
        let share = &self.subscribers[at];
        (share.count > 0).then(|| (loads[share.member], share.count > share.had.len(), at))
    }

    /// A subscriber among those who can take: its load and its position.
    fn taker(&self, at: usize, loads: &[usize]) -> (usize, usize) {
        (loads[self.subscribers[at].member], at)
    }

    /// Makes partitions of the shares. The ones that change hands go round, so that a topic does
    /// not end with one member.
    fn hand_out(self, assignments: &mut [Assignment]) {
        let mut loose: Vec<Partition> = self.free.into_iter().collect();
        let mut takers = VecDeque::new();
        for mut share in self.subscribers {
            share.had.sort_unstable();
            loose.extend(share.had.drain(share.count.min(share.had.len())..));
            if share.count > share.had.len() {
                takers.push_back((share.member, share.count - share.had.len()));
            }
            for (index, topic) in share.had {
                assignments[share.member].entry(topic).or_default().insert(index);
            }
        }
        loose.sort_unstable_by_key(|(index, topic)| (*topic, *index));
        for (index, topic) in loose {
            let (member, room) = takers.pop_front().expect("the shares add up to the pool");
            assignments[member].entry(topic).or_default().insert(index);
            if room > 1 {
                takers.push_back((member, room - 1));
            }
        }
    }
}
