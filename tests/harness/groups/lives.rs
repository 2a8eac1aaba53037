//! The lives of a member: it comes, goes, crashes, sleeps, and another comes in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep, timeout_at};

use super::client::Client;
use super::{GroupPlan, Protocol, classic, consumer};

/// Longest time after which another comes for a member that went.
const AWAY_MAX: Duration = Duration::from_secs(15);

/// Longest time a member is stopped for: longer than it may be silent.
const STOP_MAX: Duration = Duration::from_secs(25);

/// Longest time for which a static member lives on beside the one that replaces it.
const GHOST_MAX: Duration = Duration::from_secs(30);

/// A member's place in its group, and who takes it in turn.
#[derive(Debug)]
pub(super) struct Lives {
    pub(super) client: Client,
    pub(super) place: usize,
    pub(super) instance: Option<String>,
    pub(super) plan: GroupPlan,
    /// How long a life lasts on average; zero for ever.
    pub(super) life: Duration,
    /// When nothing goes wrong any more: who lives then goes on living.
    pub(super) end: Instant,
}

impl Lives {
    pub(super) async fn run(mut self) {
        sleep(self.client.random.random_range(Duration::ZERO..Duration::from_secs(5))).await;
        while !self.life.is_zero() && Instant::now() < self.end {
            self.live_once().await;
            let (group, place) = (self.client.group.clone(), self.place);
            self.client.history.set_view(&group, place, None);
            let away = self.client.random.random_range(Duration::ZERO..AWAY_MAX);
            sleep(away).await;
        }
        let client = self.client.hand();
        self.member(client).live(None).await;
    }

    /// One life, that may go on for ever.
    async fn live_once(&mut self) {
        let dies_at = Instant::now() + self.up_to(self.life * 2);
        let stops_at = Instant::now() + self.up_to(self.life * 2);
        let stops = Some((stops_at, self.up_to(STOP_MAX))).filter(|(at, _)| *at < self.end);
        let is_replaced: Arc<AtomicBool> = Arc::default();
        let client = Client { stops, is_replaced: Arc::clone(&is_replaced), ..self.client.hand() };
        let mut member = self.member(client);
        if dies_at >= self.end {
            member.live(None).await;
            return;
        }
        if self.client.random.random_bool(0.5) {
            member.live(Some(dies_at)).await;
            return;
        }
        let mut life = Box::pin(async move { member.live(None).await });
        if timeout_at(dies_at, &mut life).await.is_ok() {
            return;
        }
        if self.instance.is_some() && self.client.random.random_bool(0.4) {
            self.client.history.say(format!("{}: a client is replaced", self.client.group));
            is_replaced.store(true, Ordering::Relaxed);
            let until = self.end.min(Instant::now() + GHOST_MAX);
            tokio::spawn(timeout_at(until, life));
        } else {
            self.client.history.say(format!("{}: a client crashes", self.client.group));
        }
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        self.client.random.random_range(Duration::ZERO..=most)
    }

    fn member(&self, client: Client) -> Member {
        let instance = self.instance.clone();
        match self.plan.protocol {
            Protocol::Classic => {
                Member::Classic(classic::Member::new(client, instance, &self.plan, self.place))
            }
            Protocol::Consumer => {
                Member::Consumer(consumer::Member::new(client, instance, &self.plan, self.place))
            }
        }
    }
}

/// A member of either protocol.
enum Member {
    Classic(classic::Member),
    Consumer(consumer::Member),
}

impl Member {
    async fn live(&mut self, leaves_at: Option<Instant>) {
        match self {
            Self::Classic(member) => member.live(leaves_at).await,
            Self::Consumer(member) => member.live(leaves_at).await,
        }
    }
}
