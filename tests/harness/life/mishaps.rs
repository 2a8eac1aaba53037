//! What goes wrong with brokers, clocks and snapshots.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use odradek_storage::object::{ObjectStore, Put};
use odradek_storage::snapshot::SNAPSHOT_PREFIX;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::{ALL, Running, World};

/// By how much a clock is wrong.
const JUMP_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// For how long a broker is cut off from the log.
const CUT_MIN: Duration = Duration::from_secs(1);
const CUT_MAX: Duration = Duration::from_secs(7);

impl World {
    /// A broker dies, or all do, or a clock goes wrong.
    pub(super) async fn mishap(&self, random: &mut StdRng) {
        let interval = match self.plan.kill_interval {
            Duration::ZERO => self.plan.duration,
            interval => interval,
        };
        let pause = random.random_range(Duration::ZERO..=interval * 2);
        sleep(pause.min(self.end - Instant::now())).await;
        let is_half = self.end - Instant::now() < self.plan.duration / 2;
        let jumped = self.lock().model.jumped;
        if self.plan.jumps && is_half && !jumped {
            self.say("a clock jumps");
            self.lock().model.jumped = true;
            self.clocks[0].shift(JUMP_MS);
            return;
        }
        if Instant::now() >= self.end || self.plan.kill_interval.is_zero() {
            return;
        }
        let all = random.random_bool(if self.plan.loses_snapshot { 0.3 } else { 0.05 });
        let victims: Vec<Running> = {
            let mut shared = self.lock();
            let place = random.random_range(0..shared.brokers.len());
            let range = if all { 0..shared.brokers.len() } else { place..place + 1 };
            shared.brokers.drain(range).collect()
        };
        victims.iter().for_each(|victim| victim.engine.kill());
        self.say(&format!("{} brokers are killed", victims.len()));
        self.lock().report.kills += victims.len();
        if all && self.plan.loses_snapshot {
            self.damage_newest_snapshot().await;
        }
        for victim in victims {
            self.start_broker(victim.slot).await;
        }
    }

    /// Damages the newest snapshot, if there are two that are good.
    async fn damage_newest_snapshot(&self) {
        let listed = self.objects.list(SNAPSHOT_PREFIX, None, ALL).await.unwrap();
        let [.., _, newest] = &listed[..] else { return };
        self.say(&format!("{} is damaged", newest.key));
        let whole = self.objects.get_range(&newest.key, 0..u64::MAX).await.unwrap().unwrap();
        let mut damaged = whole.to_vec();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        self.objects.delete(std::slice::from_ref(&newest.key)).await.unwrap();
        let put = self.objects.put_if_absent(&newest.key, Bytes::from(damaged)).await;
        assert_eq!(put.unwrap(), Put::Created);
        self.lock().model.damaged.insert(newest.key.clone());
    }

    /// Now and then a broker can't reach the log, for longer than a segment may wait for its
    /// commit: what others do with it meanwhile is not known to it when it comes back.
    pub(super) async fn cut_off(self, mut random: StdRng) {
        while Instant::now() < self.end {
            let pause = random.random_range(Duration::ZERO..=self.plan.cut_interval * 2);
            sleep(pause.min(self.end - Instant::now())).await;
            let victim = {
                let shared = self.lock();
                let place = random.random_range(0..shared.brokers.len().max(1));
                shared.brokers.get(place).cloned()
            };
            let Some(victim) = victim.filter(|_| Instant::now() < self.end) else { continue };
            let length = random.random_range(CUT_MIN..CUT_MAX);
            self.say(&format!("broker {} is cut off for {length:?}", victim.slot));
            self.lock().report.cut_off += 1;
            victim.log.control().outage(true);
            sleep(length).await;
            victim.log.control().outage(false);
            self.replace_if_halted(victim).await;
        }
    }

    /// A broker that slept through a trim stops, and whoever supervises it starts it again.
    async fn replace_if_halted(&self, victim: Running) {
        // It is only found out when it looks.
        let _reached = victim.engine.machine.barrier().await;
        let Some(reason) = victim.engine.machine.halted().now_or_never() else { return };
        let node = victim.engine.machine.node_id();
        let was_there = {
            let mut shared = self.lock();
            let before = shared.brokers.len();
            shared.brokers.retain(|broker| broker.engine.machine.node_id() != node);
            shared.brokers.len() < before
        };
        if was_there {
            self.say(&format!("broker {} is started again: {reason}", victim.slot));
            victim.engine.kill();
            self.start_broker(victim.slot).await;
        }
    }
}
