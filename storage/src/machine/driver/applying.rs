//! Applying: from the bytes of an entry to answers for those who proposed it.
//!
//! What an entry leaves to footers is had first: from our own proposals, from whoever told of the
//! entry, or from the store. Where a footer is not to be had the entry waits, and all behind it. If
//! it is gone for good, this broker has slept too long: it is kept for whoever begins from one of
//! the two newest snapshots (`life::sweeper`).

use std::sync::PoisonError;

use bytes::Bytes;
use tokio::time::timeout;

use super::{Driver, Stop, is_heartbeat, slept};
use crate::check;
use crate::command::{Entry, EntryHash, Outcome, Rejection};
use crate::footers;
use crate::invariant::InvariantId;
use crate::log::Slot;
use crate::lsn::Lsn;
use crate::machine::{HaltReason, snapshots};
use crate::port::PortError;
use crate::state::Halt;

/// How often in a row a footer must be missing before it is believed to be gone.
const MISSES_MAX: u32 = 4;

impl Driver {
    /// Applies entries as they stand in the log. `false` if one can't be applied now, because a
    /// footer that it needs is out of reach.
    pub(super) async fn apply_slots(&mut self, slots: &[Slot]) -> Result<bool, Stop> {
        let mut entries = Vec::with_capacity(slots.len());
        for Slot { lsn, bytes } in slots {
            let mut entry = Entry::decode(bytes)
                .map_err(|error| HaltReason(format!("entry {lsn} can't be read: {error}")))?;
            if !entry.is_whole() {
                let told = self.shared.told.take(*lsn).unwrap_or_default();
                self.fill(&mut entry, &told.footers);
            }
            entries.push(entry);
        }
        let attempt_max = self.config.append_attempt_max;
        let (objects, counts) = (&self.ports.objects, &self.shared.counts);
        let read = footers::read(&mut entries, |key, range| async move {
            counts.footers_read.add(1);
            let answer = timeout(attempt_max, objects.get_range(&key, range)).await;
            answer.unwrap_or_else(|_| Err(PortError::Indeterminate("no answer in time".into())))
        });
        let read = read.await;
        for (entry, slot) in entries.iter().zip(slots) {
            // What was read is applied: the next page need not begin where this one did.
            if let (false, Err(error)) = (entry.is_whole(), &read) {
                if self.complaints.is_due() {
                    tracing::warn!(%error, "a footer that the log names can't be read");
                }
                return Ok(false);
            }
            if !self.apply(entry, &slot.bytes)? {
                self.note_missing(slot.lsn).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Applies what others have sent along, as far as it is what comes next.
    ///
    /// An entry names the hash of the one before it, and so of all before: what does is of this log
    /// and stands there. Anything else is left for the log to say, and stops nobody.
    pub(super) fn apply_told(&mut self) -> Result<(), Stop> {
        while let Some(told) = self.shared.told.take(self.applied().next()) {
            let entry = Entry::decode(&told.bytes).ok().filter(|entry| {
                self.read(|state| {
                    entry.log_id == state.log_id()
                        && entry.lsn == state.applied().next()
                        && entry.previous == state.last_hash()
                })
            });
            let Some(mut entry) = entry else { return Ok(()) };
            self.fill(&mut entry, &told.footers);
            if !entry.is_whole() {
                return Ok(());
            }
            self.shared.counts.told.add(1);
            self.apply(&entry, &told.bytes)?;
        }
        Ok(())
    }

    /// Fills in what is known without asking the store: what was sent along, and what we wrote.
    fn fill(&self, entry: &mut Entry, sent: &[Bytes]) {
        footers::unpack(&mut entry.proposals, sent);
        let ours = entry.proposals.iter_mut().filter(|it| it.id.incarnation == self.incarnation);
        for proposal in ours.filter(|it| it.command.footer().is_some()) {
            if let Some(queued) = self.pending.get(&proposal.id.counter) {
                proposal.command.fill_from(&queued.command);
            }
        }
    }

    /// A footer is not there that the entry at `lsn` needs. Is it no longer?
    async fn note_missing(&mut self, lsn: Lsn) -> Result<(), Stop> {
        self.misses += 1;
        if self.misses.is_multiple_of(MISSES_MAX)
            && snapshots::newest_position(&self.ports).await.is_ok_and(|newest| newest >= lsn)
        {
            return Err(slept(&format!("the footers of entry {lsn} are gone")));
        }
        if self.complaints.is_due() {
            tracing::error!(%lsn, "a footer that the log names is not there");
        }
        Ok(())
    }

    /// Applies an entry, whoever wrote it, and answers those of our proposals that are in it.
    /// `false` if it needs a footer that was not read: then nothing was applied.
    pub(super) fn apply(&mut self, entry: &Entry, bytes: &Bytes) -> Result<bool, Stop> {
        let (applied, listed) = {
            let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            let applied = state.apply(entry, EntryHash::of(bytes));
            (applied, state.is_registered(self.incarnation))
        };
        let applied = match applied {
            Ok(applied) => applied,
            Err(Halt::NoFooter { .. }) => return Ok(false),
            Err(halt) => return Err(HaltReason(halt.to_string())),
        };
        self.misses = 0;
        self.note_winner(entry.append_id.incarnation);
        if !is_heartbeat(entry) {
            self.news = entry.lsn;
        }
        // Somebody thought this broker dead.
        self.registered &= listed;
        let mut fenced = Vec::new();
        for (proposal, outcome) in entry.proposals.iter().zip(applied.outcomes) {
            if proposal.id.incarnation != self.incarnation {
                continue;
            }
            let Some(queued) = self.pending.remove(&proposal.id.counter) else { continue };
            // A machine that was copied while it ran numbers its commands as its original does:
            // whoever waits for ours must not hear what became of the other's.
            if proposal.command != queued.command {
                let copied = "another process runs with this one's random numbers";
                return Err(HaltReason(format!("command {} is not ours: {copied}", proposal.id)));
            }
            if outcome == Outcome::Rejected(Rejection::BrokerFenced(self.incarnation)) {
                fenced.push(queued);
                continue;
            }
            check!(
                InvariantId::Mach1,
                outcome != Outcome::Repeated,
                "command {} was applied before, and its proposer was not told",
                proposal.id
            );
            drop(queued.reply.send(Ok(outcome)));
        }
        if !fenced.is_empty() {
            // Expired while alive: certainly not applied, so they are proposed again by a new self.
            fenced.into_iter().rev().for_each(|queued| self.waiting.push_front(queued));
        }
        self.shared.watchers.wake(&applied.touched);
        self.shared.applied.send_replace(entry.lsn);
        self.saving.count(footers::weight(entry, bytes.len()));
        Ok(true)
    }
}
