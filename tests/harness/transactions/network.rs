//! The way from clients to brokers.
//!
//! Requests get lost, and so do answers; some come twice, some come late. A broker goes on with
//! what it has begun when its client no longer waits.
//!
//! What is outside the model: clients of the first protocol keep their epoch from one transaction
//! to the next, so that a request which no broker has looked at before its client went on can't be
//! told from one of the next transaction, by Kafka's brokers neither (KIP-890 says so and is the
//! remedy). Here such a request does not arrive: its client has closed the connection. What a
//! broker has begun to serve stays there, for however long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use odradek_storage::state::State;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, timeout};

use crate::groups::broker::Broker;
use crate::groups::client::Brokers;

/// How long a broker is at a request, at most.
const SERVING_MAX: Duration = Duration::from_secs(600);

/// Longest time a message takes, if it does not come late.
const DELAY_MAX: Duration = Duration::from_millis(4);

/// How late a message comes, at most.
const LATE_MAX: Duration = Duration::from_secs(20);

/// What goes wrong between clients and brokers, and with clients.
#[derive(Clone, Debug, Default)]
pub struct Mischief {
    /// How long a client waits for an answer.
    pub patience: Duration,
    /// How likely a request, or its answer, gets lost.
    pub lost: f64,
    /// How likely a request comes twice.
    pub doubled: f64,
    /// How likely it comes late, or its double does.
    pub late: f64,
    /// How likely it goes to a broker that is not the one to be asked.
    pub astray: f64,
    /// How likely a client stands still before a request.
    pub hangs: f64,
    /// For how long, at most.
    pub hang_max: Duration,
}

/// A client's end of the network.
#[derive(Debug)]
pub struct Network {
    /// All brokers.
    pub brokers: Brokers,
    /// Decides all that the client decides.
    pub random: StdRng,
    /// What goes wrong.
    pub mischief: Mischief,
    /// Until when.
    pub end: Instant,
    /// Whether requests may come after the client went on: if brokers can tell.
    pub may_be_late: bool,
}

/// What a client has heard.
#[derive(Debug)]
pub struct Heard<T> {
    /// The answer, if one came.
    pub answer: Option<T>,
    /// Whether the request may still do something, or may have done it twice.
    pub has_echo: bool,
}

impl Network {
    fn happens(&mut self, likelihood: f64) -> bool {
        Instant::now() < self.end && self.random.random_bool(likelihood)
    }

    /// Some time, up to this.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        self.random.random_range(Duration::ZERO..=most)
    }

    /// Waits a moment before the next attempt.
    pub async fn back_off(&mut self) {
        let pause = self.random.random_range(Duration::from_millis(20)..Duration::from_millis(100));
        sleep(pause).await;
    }

    /// A broker, whichever.
    pub fn any_broker(&mut self) -> Option<Broker> {
        let brokers = self.brokers.lock().unwrap();
        let place = self.random.random_range(0..brokers.len().max(1));
        brokers.get(place).cloned()
    }

    /// The broker to be asked about a group or a transactional id, as any broker says; or another.
    pub async fn coordinator(&mut self, name: &str) -> Broker {
        loop {
            if let Some(broker) = self.any_broker() {
                let node = broker.engine.machine.read(|state: &State| state.coordinator_of(name));
                let brokers = self.brokers.lock().unwrap().clone();
                let found = brokers.into_iter().find(|it| Some(it.node()) == node);
                if self.happens(self.mischief.astray) {
                    return broker;
                }
                if let Some(found) = found {
                    return found;
                }
            }
            self.back_off().await;
        }
    }

    /// Stands still, now and then.
    pub async fn hang(&mut self) {
        if self.happens(self.mischief.hangs) {
            let length = self.up_to(self.mischief.hang_max);
            sleep(length).await;
        }
    }

    /// Asks a broker.
    pub async fn ask<T: Send + 'static>(
        &mut self,
        broker: &Broker,
        request: impl Fn(Broker) -> futures::future::BoxFuture<'static, T>,
    ) -> Heard<T> {
        self.hang().await;
        let delay = self.up_to(DELAY_MAX);
        sleep(delay).await;
        if self.happens(self.mischief.lost) {
            let wait = self.up_to(Duration::from_secs(1));
            sleep(wait).await;
            return Heard { answer: None, has_echo: false };
        }
        let is_late = self.may_be_late && self.happens(self.mischief.late);
        let late = if is_late { self.up_to(LATE_MAX) } else { Duration::ZERO };
        let mut has_echo = is_late;
        if self.happens(self.mischief.doubled) && !broker.is_stopped() {
            has_echo = true;
            self.send_double(broker, &request);
        }
        let is_begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&is_begun);
        let (at, call) = (broker.clone(), request(broker.clone()));
        let serving = tokio::spawn(async move {
            sleep(late).await;
            let call = async move {
                begins.store(true, Ordering::Relaxed);
                call.await
            };
            at.serve(SERVING_MAX, call).await
        });
        let stop = serving.abort_handle();
        let answer = timeout(self.mischief.patience, serving).await.ok();
        if answer.is_none() {
            has_echo = true;
            if !self.may_be_late && !is_begun.load(Ordering::Relaxed) {
                stop.abort();
                has_echo = false;
            }
        }
        let answer = answer.and_then(|served| served.ok().flatten());
        has_echo |= answer.is_none();
        let delay = self.up_to(DELAY_MAX);
        sleep(delay).await;
        if self.happens(self.mischief.lost) {
            return Heard { answer: None, has_echo: true };
        }
        Heard { answer, has_echo }
    }

    /// The same request comes once more, there or elsewhere: late, if that may be, else at once.
    fn send_double<T: Send + 'static>(
        &mut self,
        broker: &Broker,
        request: &impl Fn(Broker) -> futures::future::BoxFuture<'static, T>,
    ) {
        let elsewhere = self.random.random_bool(0.5);
        let other = self.any_broker().filter(|it| elsewhere && !it.is_stopped());
        let to = other.unwrap_or_else(|| broker.clone());
        let most = if self.may_be_late { LATE_MAX } else { Duration::ZERO };
        let late = self.up_to(most);
        let call = request(to.clone());
        tokio::spawn(async move {
            sleep(late).await;
            to.serve(SERVING_MAX, call).await
        });
    }
}
