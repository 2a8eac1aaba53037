//! Membership: how a broker enters the cluster, stays in it, and leaves; and how it tells that
//! others have left without a word.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::{BACKOFF_MAX, Driver, Stop};
use crate::check;
use crate::command::{Command, Incarnation, Outcome};
use crate::invariant::InvariantId;
use crate::lsn::Lsn;
use crate::machine::{Queued, random_incarnation};

/// How long deregistration may take when the machine is stopped.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

impl Driver {
    pub(super) async fn register(&mut self) -> Result<(), Stop> {
        loop {
            self.incarnation = random_incarnation(&mut self.random);
            self.shared.incarnation.store(self.incarnation.0, Ordering::Relaxed);
            self.counter = 0;
            // Commands of the incarnation before are in no entry any more.
            check!(InvariantId::Mach1, self.pending.is_empty(), "proposals without an entry");
            let register = Command::RegisterBroker(self.address.clone());
            let outcome = self.propose_own(register).await?;
            if let Some(Outcome::BrokerRegistered(node)) = outcome {
                tracing::info!(%node, incarnation = %self.incarnation, "registered");
                self.registered = true;
                if self.config.exclusive {
                    self.expire_all_others().await?;
                }
                self.shared.node.send_replace(Some(node));
                return Ok(());
            }
            tracing::warn!(?outcome, "registration was not accepted, trying again");
            sleep(BACKOFF_MAX).await;
        }
    }

    /// Speaks if silent for long, and proposes the expiry of others who are. Nobody's clock is
    /// compared with anybody else's: what counts is for how long *this* broker has seen no entry.
    pub(super) fn tend_brokers(&mut self) {
        let now = Instant::now();
        let own = self.incarnation;
        let others: Vec<(Incarnation, Lsn)> = self.read(|state| {
            let others = state.brokers().values().filter(|broker| broker.incarnation != own);
            others.map(|broker| (broker.incarnation, broker.last_heard)).collect()
        });
        self.heard.retain(|known, _| others.iter().any(|(other, _)| other == known));
        for (other, last_heard) in &others {
            let (lsn, since) = self.heard.entry(*other).or_insert((*last_heard, now));
            if lsn != last_heard {
                (*lsn, *since) = (*last_heard, now);
            } else if since.elapsed() > self.config.silence_max {
                // Asked again only after as long a silence: the answer is in the log.
                *since = now;
                tracing::warn!(incarnation = %other, "broker is silent, proposing its expiry");
                let expire = Command::ExpireBroker { incarnation: *other, seen: *last_heard };
                self.waiting.push_back(unattended(expire));
            }
        }
        let silent = self.spoke.elapsed() > self.config.heartbeat_interval;
        if !others.is_empty() && silent && self.waiting.is_empty() {
            self.waiting.push_back(unattended(Command::Heartbeat));
        }
    }

    /// Brokers found in a log that is this process's alone are dead, however short their silence.
    async fn expire_all_others(&mut self) -> Result<(), Stop> {
        let own = self.incarnation;
        let seen = self.applied();
        let others: Vec<Incarnation> = self.read(|state| {
            state.brokers().values().map(|it| it.incarnation).filter(|it| *it != own).collect()
        });
        for incarnation in others {
            self.propose_own(Command::ExpireBroker { incarnation, seen }).await?;
        }
        Ok(())
    }

    /// Tells the others. A broker that is alone tells nobody, and finds its node id again when it
    /// comes back to the same address.
    pub(super) async fn say_farewell(&mut self) -> Result<(), Stop> {
        if self.config.exclusive {
            return Ok(());
        }
        let expire =
            Command::ExpireBroker { incarnation: self.incarnation, seen: Lsn::new(u64::MAX) };
        if let Ok(outcome) = timeout(FAREWELL_MAX, self.propose_own(expire)).await {
            outcome?;
        }
        Ok(())
    }
}

/// A command whose outcome interests nobody.
fn unattended(command: Command) -> Queued {
    Queued { command, reply: oneshot::channel().0 }
}
