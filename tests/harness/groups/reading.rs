//! How a member reads its partitions, as far as its group is concerned: positions and commits.

use std::collections::BTreeMap;
use std::time::Duration;

use odradek::group::GroupError;
use rand::Rng;

use super::broker::Broker;
use super::client::{Client, Committing, Identity};

/// How often a member is asked that has others read for it.
const HARDLY_EVER: Duration = Duration::from_secs(60);

/// What a member reads.
#[derive(Debug, Default)]
pub struct Reading {
    /// Its partitions.
    assigned: Vec<i32>,
    /// Where it goes on in each, once it has asked.
    positions: BTreeMap<i32, i64>,
    /// The last commit, as long as nobody has asked what came of it.
    committing: Option<Committing>,
}

impl Reading {
    /// Its partitions.
    pub fn assigned(&self) -> &[i32] {
        &self.assigned
    }

    /// Gives it other partitions. Where to go on in those that are new has to be asked.
    pub fn assign(&mut self, partitions: Vec<i32>, keeps_positions: bool) {
        self.positions.retain(|partition, _| keeps_positions && partitions.contains(partition));
        self.assigned = partitions;
    }

    /// Finds out where to go on, or goes on; gives the time until it does so again, at most that
    /// long. Does nothing if that is zero.
    pub async fn work(
        &mut self,
        client: &mut Client,
        who: &Identity,
        coordinator: &Broker,
        interval_max: Duration,
    ) -> Duration {
        if interval_max.is_zero() {
            return HARDLY_EVER;
        }
        let asks_again = client.random.random_bool(0.1);
        if self.positions.len() < self.assigned.len() || asks_again {
            if self.committing.is_some() {
                // In the same generation its own commit may yet come after what it reads.
                return Duration::from_millis(100);
            }
            let Some(found) = client.read(who, &self.assigned).await else {
                return Duration::from_millis(300);
            };
            for (partition, offset) in found {
                let position = self.positions.entry(partition).or_default();
                *position = offset.max(*position);
            }
        }
        self.commit(client, who, coordinator);
        client.random.random_range(Duration::from_millis(300)..interval_max)
    }

    /// Commits a position further on in one of its partitions, unless it still waits for another
    /// commit.
    fn commit(&mut self, client: &mut Client, who: &Identity, coordinator: &Broker) {
        if self.committing.is_some() || self.positions.is_empty() {
            return;
        }
        let place = client.random.random_range(0..self.positions.len());
        let more = client.random.random_range(1..100);
        let Some((partition, offset)) = self.positions.iter_mut().nth(place) else { return };
        *offset += more;
        let (partition, offset) = (*partition, *offset);
        self.committing = Some(client.commit(coordinator.clone(), who, partition, offset));
    }

    /// What came of the last commit, if it is known and was not good.
    pub async fn failure(&mut self) -> Option<Option<GroupError>> {
        let committing = self.committing.take_if(|it| it.is_finished())?;
        match committing.await.unwrap() {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(Some(error)),
            None => Some(None),
        }
    }

    /// Gives its partitions back, as a client does that has to: it commits once more, or not, and
    /// waits for what comes of it, or not.
    pub async fn end(&mut self, client: &mut Client, who: &Identity, coordinator: &Broker) {
        if client.random.random_bool(0.5) {
            self.commit(client, who, coordinator);
        }
        if client.random.random_bool(0.5)
            && let Some(committing) = self.committing.take()
        {
            drop(committing.await.unwrap());
        }
    }
}
