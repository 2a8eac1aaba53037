//! What happens to the brokers of a world.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::time::{Instant, sleep};

use super::World;
use super::broker::Broker;

/// What happens to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// It is killed; another comes in its place, to the same address, or another.
    Killed,
    /// It is stopped in good order, and replaced.
    Retired,
    /// Another comes for a while.
    Joined,
    /// Its process stands still for less time than it would notice.
    ShortPause,
    /// Its process stands still for so long that it notices.
    LongPause,
    /// It can't reach the log for a while.
    LogLost,
    /// The same, and just then another comes that takes over a part of its groups.
    Overtaken,
}

impl World {
    /// Takes one out of the list who is not stopped just now.
    fn choose(&mut self) -> Option<Broker> {
        let brokers = self.brokers.lock().unwrap();
        let awake: Vec<&Broker> = brokers.iter().filter(|it| !it.is_stopped()).collect();
        awake.choose(&mut self.random).map(|broker| (*broker).clone())
    }

    pub(super) fn remove(&self, broker: &Broker) {
        self.brokers.lock().unwrap().retain(|it| it.number != broker.number);
    }

    pub(crate) async fn let_something_happen(&mut self) {
        let interval = self.plan.mishap_interval;
        let Some(mishap) = self.plan.mishaps.choose(&mut self.random).copied() else {
            sleep(self.end - Instant::now()).await;
            return;
        };
        let wait = self.random.random_range(Duration::ZERO..=interval * 2);
        sleep(wait.min(self.end - Instant::now())).await;
        let Some(broker) = self.choose() else { return };
        self.mishaps += 1;
        self.history.say(format!("broker {}: {mishap:?}", broker.number));
        let seconds = |random: &mut StdRng, from: u64, to: u64| {
            random.random_range(Duration::from_secs(from)..Duration::from_secs(to))
        };
        match mishap {
            Mishap::Killed => {
                self.remove(&broker);
                broker.kill();
                self.replace(&broker).await;
            }
            Mishap::Retired => {
                broker.retire().await;
                self.remove(&broker);
                self.replace(&broker).await;
            }
            Mishap::Joined | Mishap::Overtaken => {
                if mishap == Mishap::Overtaken {
                    tokio::spawn(async move { broker.lose_log(Duration::from_secs(11)).await });
                }
                self.start_broker(self.started + 100).await;
                sleep(seconds(&mut self.random, 1, 30)).await;
                if let Some(broker) = self.choose() {
                    self.remove(&broker);
                    broker.kill();
                    self.history.say(format!("broker {} is killed", broker.number));
                }
            }
            Mishap::ShortPause => {
                let length = seconds(&mut self.random, 0, 5);
                self.spawn_pause(broker, length, None);
            }
            Mishap::LongPause => {
                let length = seconds(&mut self.random, 5, 60);
                let notices = self.random.random_range(Duration::ZERO..Duration::from_millis(20));
                self.spawn_pause(broker, length, Some(notices));
            }
            Mishap::LogLost => {
                let is_long = self.random.random_bool(0.5);
                let (from, to) = if is_long { (30, 60) } else { (1, 15) };
                let length = seconds(&mut self.random, from, to);
                tokio::spawn(async move { broker.lose_log(length).await });
            }
        }
    }

    fn spawn_pause(&self, broker: Broker, length: Duration, notices: Option<Duration>) {
        let history = self.history.clone();
        tokio::spawn(async move {
            broker.pause(length, notices).await;
            history.say(format!("broker {} was stopped for {length:?}", broker.number));
        });
    }

    /// Starts a broker in the place of another, sooner or later, or elsewhere.
    async fn replace(&mut self, gone: &Broker) {
        if self.random.random_bool(0.7) {
            sleep(self.random.random_range(Duration::ZERO..Duration::from_secs(20))).await;
        }
        let stays = self.random.random_bool(0.5);
        self.start_broker(if stays { gone.place } else { self.started + 100 }).await;
    }

    /// Has as many brokers as there are to be, all awake.
    pub(crate) async fn complete(&mut self) {
        while self.brokers.lock().unwrap().len() < self.plan.brokers {
            self.start_broker(self.started + 100).await;
        }
    }
}
