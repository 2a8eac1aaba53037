//! Fairness: how a broker that loses every race gets its proposals into the log all the same.
//!
//! With many brokers the one with the longest way to the log hardly ever finds a slot free:
//! measured with ten brokers, one whose way is four times as long commits nothing at all
//! (RELIABILITY E1). So after a few losses it hands its proposals to the broker that wins most, who
//! appends anyway, and looks on. Everybody sees the same winners, so under contention everybody
//! hands over to the same broker, which then wins even more: a sequencer that nobody appointed and
//! nothing depends on. Should both append them, the state drops what it has already applied.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{Driver, Stop};
use crate::command::{Endpoint, Entry, Incarnation, Proposal};
use crate::footers;
use crate::log::Freshness;
use crate::machine::told::TOLD_BYTES_MAX;
use crate::peer::{News, PeerMessage, SentEntry};

/// How many slots are looked back on to tell who usually wins.
pub(super) const WINNERS_REMEMBERED: usize = 64;

/// For how long a broker that was helped asks first.
const HELP_HABIT: Duration = Duration::from_secs(2);

impl Driver {
    /// Tells the others what a slot is filled with, so that they need not look for it.
    pub(super) fn tell_others(&self, entry: &Entry, bytes: &Bytes) {
        let others: Vec<(Incarnation, Endpoint)> = self.read(|state| {
            let others = state.brokers().values().filter(|it| it.incarnation != self.incarnation);
            others.map(|broker| (broker.incarnation, broker.address.peer_endpoint())).collect()
        });
        if others.is_empty() {
            return;
        }
        let sent = SentEntry { bytes: bytes.clone(), footers: footers::packed(&entry.proposals) };
        let sent = Some(sent).filter(|sent| sent.len() <= TOLD_BYTES_MAX);
        for (to, endpoint) in others {
            self.say(to, &endpoint, News::Filled { lsn: entry.lsn, entry: sent.clone() });
        }
    }

    /// Asks the broker that wins most to append these, and waits until our own are in the log or it
    /// takes too long. Says whether anybody was asked: then the proposals are out of our hands.
    pub(super) async fn ask_for_help(&mut self, proposals: &[Proposal]) -> Result<bool, Stop> {
        let Some((winner, endpoint)) = self.usual_winner() else { return Ok(false) };
        tracing::debug!(%winner, proposals = proposals.len(), "lost too many races");
        let footers = footers::packed(proposals);
        self.say(winner, &endpoint, News::Help { proposals: proposals.to_vec(), footers });
        let end = Instant::now() + self.config.help_max;
        let own = self.incarnation;
        let is_open = |driver: &Self| {
            let of_ours = proposals.iter().filter(|proposal| proposal.id.incarnation == own);
            of_ours.into_iter().any(|it| driver.pending.contains_key(&it.id.counter))
        };
        while self.registered && is_open(self) && Instant::now() < end {
            let pause = end.min(Instant::now() + self.config.poll_interval);
            // Told or not: look.
            drop(timeout_at(pause, self.filled.changed()).await);
            self.apply_told()?;
            if is_open(self) {
                self.follow(Freshness::Latest).await?;
            }
        }
        self.helped =
            match (is_open(self), self.helped.filter(|since| since.elapsed() < HELP_HABIT)) {
                (true, _) => None,
                (false, since) => since.or_else(|| Some(Instant::now())),
            };
        Ok(true)
    }

    /// Whether asking worked a moment ago: then it is asked for first, and not after a few losses.
    /// After a while it is not, to see whether the crowd is gone.
    pub(super) fn is_used_to_help(&self) -> bool {
        let is_recent = |helped: Instant| helped.elapsed() < HELP_HABIT;
        self.helped.is_some_and(is_recent) && self.usual_winner().is_some()
    }

    /// Remembers who won a slot.
    pub(super) fn note_winner(&mut self, winner: Incarnation) {
        if self.winners.len() == WINNERS_REMEMBERED {
            self.winners.pop_front();
        }
        self.winners.push_back(winner);
    }

    /// The broker that won most of the last slots, if it is another.
    fn usual_winner(&self) -> Option<(Incarnation, Endpoint)> {
        let mut wins: BTreeMap<Incarnation, usize> = BTreeMap::new();
        for winner in &self.winners {
            *wins.entry(*winner).or_default() += 1;
        }
        let (winner, endpoint) = self.read(|state| {
            let brokers = state.brokers().values();
            let best = brokers.max_by_key(|it| (wins.get(&it.incarnation), it.incarnation))?;
            Some((best.incarnation, best.address.peer_endpoint()))
        })?;
        (winner != self.incarnation).then_some((winner, endpoint))
    }

    fn say(&self, to: Incarnation, endpoint: &Endpoint, news: News) {
        let message = PeerMessage { to, from: self.incarnation, news };
        self.ports.peers.send(endpoint, message);
    }
}
