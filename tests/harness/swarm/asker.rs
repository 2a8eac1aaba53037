//! What all clients do: they find out whom to ask, ask, and wait for an answer for so long.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::{
    BrokerId, FindCoordinatorRequest, MetadataRequest, metadata_request::MetadataRequestTopic,
};
use kafka_protocol::protocol::Request;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::World;
use super::net::{Line, Net};
use crate::client::{frame, response, topic};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest that a client rests in a stretched world: members of groups are put out otherwise.
const REST_MAX: Duration = Duration::from_secs(20);

/// The longest that it waits there before the next attempt.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// What FindCoordinator calls a group.
pub(super) const GROUP: i8 = 0;

/// What it calls a transactional id.
pub(super) const TRANSACTION: i8 = 1;

/// A client's way to all brokers.
pub(super) struct Asker {
    pub(super) net: Net,
    /// Decides all that the client decides.
    pub(super) random: StdRng,
    /// Until when connections break on purpose.
    pub(super) end: Instant,
    /// How many times longer than usual it rests until then.
    pub(super) stretch: u32,
    /// Whether requests may arrive after the client has given them up: if brokers can tell.
    pub(super) lingers: bool,
    lines: BTreeMap<String, Line>,
}

impl Asker {
    pub(super) fn new(net: Net, seed: u64, end: Instant) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { net, random, end, stretch: 1, lingers: true, lines: BTreeMap::new() }
    }

    /// A client of the world, whatever number it has among them.
    pub(super) fn of(world: &World, number: u64) -> Self {
        let seed = world.plan.seed.wrapping_mul(7919).wrapping_add(number);
        Self { stretch: world.plan.stretch, ..Self::new(world.net.clone(), seed, world.end) }
    }

    /// Another hand of the same client, with connections of its own.
    pub(super) fn hand(&mut self) -> Self {
        let lingers = self.lingers;
        let hand = Self::new(self.net.clone(), self.random.random(), self.end);
        Self { lingers, ..hand }
    }

    /// Waits a moment before the next attempt.
    pub(super) async fn back_off(&mut self) {
        self.pause(Duration::from_millis(50), BACK_OFF_MAX).await;
    }

    /// Rests for so long, more or less, between two pieces of work.
    pub(super) async fn rest(&mut self, about: Duration) {
        self.pause(about, REST_MAX).await;
    }

    /// Waits; longer in a stretched world, as long as things go wrong in it.
    async fn pause(&mut self, about: Duration, stretched_max: Duration) {
        let length = self.random.random_range(about / 2..about * 2);
        let stretched = (length * self.stretch).min(stretched_max);
        sleep(stretched.min(self.end - Instant::now()).max(length)).await;
    }

    /// A host, whichever.
    pub(super) fn any(&mut self) -> Option<String> {
        let hosts = self.net.hosts();
        let place = self.random.random_range(0..hosts.len().max(1));
        hosts.get(place).cloned()
    }

    /// Asks a broker; none if no answer comes. Then it is not known what came of it.
    pub(super) async fn ask<R: Request>(
        &mut self,
        host: &str,
        version: i16,
        request: &R,
    ) -> Option<R::Response> {
        let mut line = match self.lines.remove(host) {
            Some(line) => line,
            None => self.net.connect(host, &mut self.random).await?,
        };
        let is_broken = Instant::now() < self.end && self.random.random_bool(self.net.breaks());
        let patience = match is_broken {
            true => self.random.random_range(Duration::ZERO..Duration::from_millis(80)),
            false => PATIENCE,
        };
        line.asked += 1;
        let asked = line.asked;
        let asking = async {
            line.pipe.write_all(&frame::<R>(version, asked, request)).await.ok()?;
            let length = usize::try_from(line.pipe.read_i32().await.ok()?).unwrap();
            let mut answer = vec![0; length];
            line.pipe.read_exact(&mut answer).await.ok()?;
            Some(response::<R>(version, asked, answer.into()))
        };
        match timeout(patience, asking).await.ok().flatten() {
            Some(answer) => {
                self.lines.insert(host.to_owned(), line);
                Some(answer)
            }
            None => {
                if !self.lingers {
                    line.reset();
                }
                None
            }
        }
    }

    /// The host that a group or a transactional id is to be asked for at, as any broker says.
    pub(super) async fn coordinator(&mut self, name: &str, kind: i8) -> Option<String> {
        let host = self.any()?;
        let request = FindCoordinatorRequest::default()
            .with_key_type(kind)
            .with_coordinator_keys(vec![name.to_owned().into()]);
        let answer = self.ask(&host, 4, &request).await?;
        let found = answer.coordinators.into_iter().next()?;
        (found.error_code == 0).then(|| found.host.as_str().to_owned())
    }

    /// The host that a partition is to be asked for at; now and then another, which must do too.
    pub(super) async fn leader(&mut self, name: &str, partition: i32) -> Option<String> {
        let host = self.any()?;
        if self.random.random_bool(0.7) {
            return Some(host);
        }
        let asked = MetadataRequestTopic::default().with_name(Some(topic(name)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let answer = self.ask(&host, 12, &request).await?;
        let found = answer.topics.first()?;
        let at = |id: BrokerId| answer.brokers.iter().find(|broker| broker.node_id == id);
        let leader = found.partitions.iter().find(|it| it.partition_index == partition)?.leader_id;
        Some(at(leader)?.host.as_str().to_owned())
    }
}
