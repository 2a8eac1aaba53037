//! How things go wrong: each kind of fault by itself, from numbers of its own, so that a world
//! without one of them is otherwise the same.
//!
//! Time is cut into windows. A quarter of them are quiet for everybody.

use std::sync::Arc;
use std::time::Duration;

use odradek_storage::object::ObjectStore;
use odradek_storage::snapshot::SNAPSHOT_PREFIX;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};

use super::World;
use super::conditions::Condition;
use super::fault::Fault;
use super::net::Cut;
use super::site::{Running, host};

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(8);

/// How likely a kind of fault acts in a window that is not quiet.
const ACTS: f64 = 0.6;

/// By how much a clock is wrong, in milliseconds.
const OFFSET_MS: i64 = 5000;

/// By how much one is wrong by a year.
const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;

/// Longest stop of a process that it need not notice.
const SHORT_MAX: Duration = Duration::from_secs(10);

/// Longest stop of all.
const LONG_MAX: Duration = Duration::from_secs(2 * 60 * 60);

/// How long a place may be without the broker that was killed there.
const AWAY_MAX: Duration = Duration::from_secs(10);

/// How long one waits for a snapshot to begin, to be killed in it.
const SNAPSHOT_MAX: Duration = Duration::from_secs(6);

impl World {
    /// Lets one kind of fault act until the end.
    pub(super) async fn inflict(self, fault: Fault) {
        let number = u64::try_from(fault_number(fault)).unwrap();
        let seed = self.plan.seed.wrapping_mul(131).wrapping_add(number);
        let mut random = StdRng::seed_from_u64(seed);
        let length = self.window();
        let mut window = Instant::now();
        while window < self.end {
            let acts = random.random_bool(ACTS) && !self.is_quiet(window);
            let delay = random.random_range(Duration::ZERO..length);
            sleep_until(self.end.min(window + delay)).await;
            if acts && Instant::now() < self.end {
                self.let_happen(fault, &mut random).await;
            }
            window = (window + length).max(Instant::now());
            sleep_until(self.end.min(window)).await;
        }
    }

    fn window(&self) -> Duration {
        self.plan.stretched(WINDOW)
    }

    /// Whether nothing begins to go wrong in the window at hand.
    fn is_quiet(&self, at: Instant) -> bool {
        let window = (at - self.began).as_secs() / self.window().as_secs();
        StdRng::seed_from_u64(self.plan.seed ^ window.rotate_left(32)).random_bool(0.25)
    }

    async fn let_happen(&self, fault: Fault, random: &mut StdRng) {
        match fault {
            Fault::Kill => self.kill_one(random).await,
            Fault::KillInSnapshot => self.kill_in_snapshot(random).await,
            Fault::ShortPause => {
                let length = random.random_range(Duration::from_millis(100)..SHORT_MAX);
                self.stop_one(length, random).await;
            }
            Fault::LongPause => {
                let most = (self.end - Instant::now()).clamp(SHORT_MAX * 2, LONG_MAX);
                let length = random.random_range(SHORT_MAX..most);
                self.stop_one(length, random).await;
            }
            Fault::Clone => self.clone_one(random).await,
            Fault::RestartStorm => self.storm(random).await,
            Fault::StartInOutage => self.start_in_outage(random).await,
            Fault::ClockStrobe => self.strobe(random).await,
            Fault::ClockOffset | Fault::ClockYear | Fault::ClockFrozen => {
                self.spoil_clock(fault, random).await;
            }
            Fault::ClientCut => self.cut_clients(random).await,
            Fault::PeerCut => self.cut_peers(random).await,
            Fault::TaskCancel | Fault::SlowClient => self.spoil_manners(fault, random).await,
            fault => self.hold(fault, random).await,
        }
    }

    /// Some time for which a fault of this kind lasts: until everything is healed at most.
    fn length(&self, fault: Fault, random: &mut StdRng) -> Duration {
        let most = self.plan.stretched(fault.length_max());
        random.random_range(Duration::from_secs(1)..most).min(self.end - Instant::now())
    }

    /// Lets something be wrong with calls to the store or the log for a while.
    async fn hold(&self, fault: Fault, random: &mut StdRng) {
        let place = fault.is_of_one().then(|| self.choose(random)).flatten();
        let strength = random.random_range(0.1..1.0);
        let length = self.length(fault, random);
        self.say(&format!("{fault:?} of {strength:.2} at {place:?} for {length:?}"));
        self.lock().conditions.push(Condition { fault, place, strength });
        self.befall_all();
        sleep(length).await;
        self.lock().conditions.retain(|it| it.fault != fault);
        self.befall_all();
    }

    /// The place of a broker, whichever.
    fn choose(&self, random: &mut StdRng) -> Option<u64> {
        let places: Vec<u64> = self.lock().brokers.iter().map(|it| it.place).collect();
        places.choose(random).copied()
    }

    /// Takes a broker out who is not stopped just now.
    fn take_one(&self, random: &mut StdRng) -> Option<Running> {
        let awake: Vec<u64> = {
            let shared = self.lock();
            let awake = shared.brokers.iter().filter(|it| !it.door.state().is_stopped);
            awake.map(|it| it.number).collect()
        };
        self.take(*awake.choose(random)?)
    }

    fn kill(&self, broker: Running) -> u64 {
        self.say(&format!("broker {} is killed", broker.number));
        self.lock().kills += 1;
        let place = broker.place;
        broker.kill();
        place
    }

    /// Another comes sooner or later, to the same place or another.
    async fn replace(&self, place: u64, random: &mut StdRng) {
        let away = random.random_range(Duration::ZERO..self.plan.stretched(AWAY_MAX));
        let away = away.min(self.end - Instant::now());
        let stays = random.random_bool(0.5);
        sleep(if random.random_bool(0.5) { away } else { Duration::ZERO }).await;
        let place = if stays { place } else { self.new_place() };
        self.spawn_broker(place, None);
    }

    pub(super) fn new_place(&self) -> u64 {
        let mut shared = self.lock();
        shared.places += 1;
        shared.places
    }

    async fn kill_one(&self, random: &mut StdRng) {
        let Some(broker) = self.take_one(random) else { return };
        let place = self.kill(broker);
        self.replace(place, random).await;
    }

    /// Kills the broker that writes a snapshot next, or some broker just when a snapshot is there.
    async fn kill_in_snapshot(&self, random: &mut StdRng) {
        let before = self.snapshots().await;
        let limit = Instant::now() + SNAPSHOT_MAX;
        while Instant::now() < limit {
            sleep(Duration::from_millis(1)).await;
            let writer = {
                let shared = self.lock();
                let is_writing = |it: &&Running| it.is_writing_snapshot();
                shared.brokers.iter().find(is_writing).map(|it| it.number)
            };
            if let Some(broker) = writer.and_then(|number| self.take(number)) {
                self.say("it is writing a snapshot");
                let place = self.kill(broker);
                return self.replace(place, random).await;
            }
            if self.snapshots().await != before {
                return self.kill_one(random).await;
            }
        }
    }

    async fn snapshots(&self) -> usize {
        self.objects.list(SNAPSHOT_PREFIX, None, super::ALL).await.unwrap().len()
    }

    async fn stop_one(&self, length: Duration, random: &mut StdRng) {
        let Some(place) = self.choose(random) else { return };
        let number = self.with_one(place, |it| {
            it.doze(true);
            it.number
        });
        let Some(number) = number else { return };
        self.say(&format!("broker {number} is stopped for {length:?}"));
        sleep(length.min(self.end - Instant::now().min(self.end))).await;
        self.with_one(place, |it| it.doze(false));
        self.say(&format!("broker {number} goes on"));
    }

    pub(super) fn with_one<T>(&self, place: u64, then: impl FnOnce(&Running) -> T) -> Option<T> {
        let shared = self.lock();
        shared.brokers.iter().find(|it| it.place == place).map(then)
    }

    /// A machine is copied: another broker begins with the same numbers, elsewhere.
    async fn clone_one(&self, random: &mut StdRng) {
        let Some(place) = self.choose(random) else { return };
        let Some(seed) = self.with_one(place, |it| it.seed) else { return };
        let copy = self.new_place();
        self.say(&format!("the broker at {place} is copied to {copy}"));
        // Copied while it had yet to draw its numbers: both are started with them.
        if let Some(number) = self.with_one(place, |it| it.number)
            && let Some(original) = self.take(number)
        {
            self.kill(original);
            self.spawn_broker(place, Some(seed));
        }
        self.start_broker(copy, Some(seed)).await;
        sleep(self.length(Fault::Clone, random)).await;
        if let Some(number) = self.with_one(copy, |it| it.number)
            && let Some(broker) = self.take(number)
        {
            self.kill(broker);
        }
    }

    async fn storm(&self, random: &mut StdRng) {
        let all = random.random_bool(0.3);
        let times = random.random_range(2..6);
        for _ in 0..times {
            let count = if all { self.lock().brokers.len() } else { 1 };
            for _ in 0..count {
                let Some(broker) = self.take_one(random) else { break };
                let place = self.kill(broker);
                self.spawn_broker(place, None);
            }
            sleep(random.random_range(Duration::ZERO..Duration::from_secs(2))).await;
        }
    }

    async fn start_in_outage(&self, random: &mut StdRng) {
        let place = self.new_place();
        for fault in [Fault::StoreCut, Fault::LogCut] {
            let condition = Condition { fault, place: Some(place), strength: 1.0 };
            self.lock().conditions.push(condition);
        }
        self.say(&format!("a broker is to start at {place}, which reaches nothing"));
        self.spawn_broker(place, None);
        sleep(self.length(Fault::StartInOutage, random)).await;
        self.lock().conditions.retain(|it| it.place != Some(place));
        self.befall_all();
        sleep(self.length(Fault::StartInOutage, random)).await;
        if let Some(number) = self.with_one(place, |it| it.number)
            && let Some(broker) = self.take(number)
        {
            self.kill(broker);
        }
    }

    async fn spoil_clock(&self, fault: Fault, random: &mut StdRng) {
        let Some(place) = self.choose(random) else { return };
        let Some(clock) = self.with_one(place, |it| Arc::clone(&it.clock)) else { return };
        let by_ms = match fault {
            Fault::ClockYear => YEAR_MS,
            _ => random.random_range(1..=OFFSET_MS),
        };
        let by_ms = if random.random_bool(0.5) { by_ms } else { -by_ms };
        let length = self.length(fault, random);
        self.say(&format!("{fault:?} at {place}: {by_ms} for {length:?}"));
        if fault == Fault::ClockFrozen {
            clock.freeze(true);
            sleep(length).await;
            clock.freeze(false);
        } else {
            clock.shift(by_ms);
            sleep(length).await;
            clock.shift(-by_ms);
        }
    }

    async fn strobe(&self, random: &mut StdRng) {
        let Some(place) = self.choose(random) else { return };
        let Some(clock) = self.with_one(place, |it| Arc::clone(&it.clock)) else { return };
        self.say(&format!("the clock at {place} jumps to and fro"));
        for _ in 0..random.random_range(5..60) {
            let by_ms = random.random_range(-OFFSET_MS..=OFFSET_MS);
            clock.shift(by_ms);
            sleep(Duration::from_millis(random.random_range(10..200))).await;
            clock.shift(-by_ms);
        }
    }

    async fn cut_clients(&self, random: &mut StdRng) {
        let Some(place) = self.choose(random) else { return };
        let (one, other) = [(true, true), (true, false), (false, true)][random.random_range(0..3)];
        let cut = Cut { to_broker: one, from_broker: other };
        let length = self.length(Fault::ClientCut, random);
        self.say(&format!("clients and {place}: {cut:?} for {length:?}"));
        self.net.cut(&host(place), cut);
        sleep(length).await;
        self.net.cut(&host(place), Cut::default());
    }

    async fn cut_peers(&self, random: &mut StdRng) {
        let (Some(from), Some(to)) = (self.choose(random), self.choose(random)) else { return };
        let length = self.length(Fault::PeerCut, random);
        self.say(&format!("{to} does not hear {from} for {length:?}"));
        self.peers.cut(&host(from), &host(to), true);
        sleep(length).await;
        self.peers.cut(&host(from), &host(to), false);
    }

    async fn spoil_manners(&self, fault: Fault, random: &mut StdRng) {
        let strength = random.random_range(0.05..0.5);
        let length = self.length(fault, random);
        self.say(&format!("{fault:?} of {strength:.2} for {length:?}"));
        self.set_manner(fault, strength);
        sleep(length).await;
        self.set_manner(fault, 0.0);
    }

    fn set_manner(&self, fault: Fault, strength: f64) {
        let (slow, breaks) = {
            let mut shared = self.lock();
            if fault == Fault::SlowClient {
                shared.slow = strength;
            } else {
                shared.breaks = strength;
            }
            (shared.slow, shared.breaks)
        };
        self.net.set_manners(slow, breaks);
    }

    /// Ends everything that is wrong, at once; what is late still lands.
    pub(super) fn heal(&self) {
        let (places, brokers): (Vec<u64>, Vec<u64>) = {
            let mut shared = self.lock();
            shared.conditions.clear();
            (shared.slow, shared.breaks) = (0.0, 0.0);
            shared.brokers.iter().for_each(|it| it.doze(false));
            let all = shared.clocks.keys().copied().collect();
            (all, shared.brokers.iter().map(|it| it.place).collect())
        };
        self.befall_all();
        self.net.heal();
        for place in &places {
            for other in &places {
                self.peers.cut(&host(*place), &host(*other), false);
            }
        }
        self.say(&format!("all is healed, with brokers at {brokers:?}"));
    }
}

fn fault_number(fault: Fault) -> usize {
    Fault::ANY_TIME.iter().position(|it| *it == fault).unwrap()
}
