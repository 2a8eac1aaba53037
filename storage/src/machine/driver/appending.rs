//! Appending: from a group of proposals to an entry that stands in the log.
//!
//! - *taken*: read what stands there; if it is this very append, it won after all; if not, apply
//!   what others wrote and try the next slot with what is left.
//! - *unknown*: repeat the same bytes at the same slot until the log answers. Never another slot
//!   with an unanswered append behind.
//! - *refused*, and nothing unknown before: the proposals certainly did not happen, unless others
//!   were asked to append them ([`super::fairness`]).

use std::mem;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use tokio::time::{Instant, sleep, timeout};

use super::{BACKOFF_MAX, Driver, Stop, is_heartbeat, slept};
use crate::command::{Entry, Proposal};
use crate::log::{Append, ENTRY_BYTES_MAX, Freshness, LogRead, Slot};
use crate::lsn::Lsn;
use crate::machine::start::READ_ENTRIES_MAX;
use crate::machine::{HaltReason, ProposeError, Queued};
use crate::port::PortError;
use crate::state::FEATURE_LEVEL;

/// Pause before an append of unknown outcome is repeated: drawn from zero to this, doubled with
/// each repetition up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(10);

/// An append that took longer than this is believed only after the slot was read back: its broker
/// may have slept through a trim (RELIABILITY A6).
const APPEND_BELIEVED_MAX: Duration = Duration::from_secs(5);

/// Longest command, as part of an entry, in bytes: what every log takes, less what stands around.
const COMMAND_BYTES_MAX: usize = ENTRY_BYTES_MAX - 1024;

/// How an append ended.
enum Answer {
    Committed,
    Taken(Bytes),
    Refused(String),
    Trimmed,
    Broken(String),
}

impl Driver {
    /// Puts as many waiting proposals as fit into one entry and appends it.
    pub(super) async fn commit_group(&mut self) -> Result<(), Stop> {
        if self.tail_age() > self.config.tail_age_max && !self.follow(Freshness::Latest).await? {
            self.refuse_waiting("the tail of the log is out of reach");
            return Ok(());
        }
        if !self.registered {
            return self.register().await;
        }
        let mut proposals = Vec::new();
        let mut bytes = 0;
        // First what was asked as a favour: whoever asks has waited long.
        // No more than half an entry, or our own clients would wait for everybody else's.
        for proposal in mem::take(&mut self.favours) {
            let is_open = self.read(|state| !state.is_applied(proposal.id));
            let total = bytes + proposal.encoded_bytes();
            if is_open && total <= self.config.entry_bytes_max / 2 {
                bytes = total;
                proposals.push(proposal);
            }
        }
        while let Some(queued) = self.waiting.pop_front() {
            let proposal = Proposal { id: self.next_id(), command: queued.command.clone() };
            // No log would take it; and if others had been asked to append it as well, only the log
            // could tell that it will never stand there, which it can't.
            let length = proposal.encoded_bytes();
            if length > COMMAND_BYTES_MAX {
                self.counter -= 1;
                let cause = format!("command of {length} bytes, above {COMMAND_BYTES_MAX}");
                drop(queued.reply.send(Err(ProposeError::NotAppended(cause))));
                continue;
            }
            bytes += length;
            if bytes > self.config.entry_bytes_max && !proposals.is_empty() {
                self.counter -= 1;
                self.waiting.push_front(queued);
                break;
            }
            self.pending.insert(proposal.id.counter, queued);
            proposals.push(proposal);
        }
        self.append(proposals).await
    }

    /// Appends proposals until each has an outcome, or certainly will have none.
    pub(super) async fn append(&mut self, mut proposals: Vec<Proposal>) -> Result<(), Stop> {
        let began = self.ports.clock.uptime();
        // Favours alone may have been done by others long ago, and show nobody alive.
        let is_own = |proposal: &Proposal| proposal.id.incarnation == self.incarnation;
        let has_own = proposals.iter().any(is_own);
        let mut losses: u32 = 0;
        let mut is_exposed = false;
        loop {
            proposals.retain(|proposal| self.is_to_do(proposal, is_exposed));
            if proposals.is_empty() {
                if has_own && self.registered {
                    self.shared.lease.renew(began);
                }
                return Ok(());
            }
            if self.registered && !is_exposed && self.is_used_to_help() {
                is_exposed = self.ask_for_help(&proposals).await?;
                continue;
            }
            let entry = self.entry(proposals.clone());
            let bytes = entry.encode();
            match self.append_counted(entry.lsn, &bytes).await {
                Answer::Committed => {
                    self.tail_seen = self.ports.clock.uptime();
                    self.note_tail(self.tail_seen);
                    // That this broker lives is no reason for others to look.
                    if !is_heartbeat(&entry) {
                        self.tell_others(&entry, &bytes);
                    }
                    self.shared.lease.renew(began);
                    return self.apply(&entry, &bytes).map(drop);
                }
                Answer::Taken(found) if found == bytes => {
                    self.shared.lease.renew(began);
                    return self.apply(&entry, &bytes).map(drop);
                }
                Answer::Taken(found) => {
                    let registered = self.registered;
                    self.give_way_to(Slot { lsn: entry.lsn, bytes: found }).await?;
                    losses += 1;
                    if self.registered && losses.is_multiple_of(self.config.losses_max) {
                        is_exposed |= self.ask_for_help(&proposals).await?;
                    }
                    if registered && !self.registered {
                        self.reclaim(&proposals);
                        return Ok(());
                    }
                }
                // Whoever was asked for help may append them yet: only the log knows.
                Answer::Refused(cause) if is_exposed => {
                    tracing::warn!(lsn = %entry.lsn, cause, "log append refused, repeating");
                    sleep(BACKOFF_MAX).await;
                    self.follow(Freshness::Latest).await?;
                    if !self.registered {
                        self.reclaim(&proposals);
                        return Ok(());
                    }
                }
                Answer::Refused(cause) => {
                    for queued in self.take_back(&proposals) {
                        drop(queued.reply.send(Err(ProposeError::NotAppended(cause.clone()))));
                    }
                    return Ok(());
                }
                Answer::Trimmed => {
                    return Err(slept(&format!("slot {} is gone", entry.lsn)));
                }
                Answer::Broken(cause) => return Err(HaltReason(cause)),
            }
        }
    }

    /// Applies what stands where we wanted to append, and what came behind it.
    async fn give_way_to(&mut self, slot: Slot) -> Result<(), Stop> {
        if !self.apply_slots(&[slot]).await? {
            sleep(BACKOFF_MAX).await;
        }
        self.follow(Freshness::Latest).await.map(drop)
    }

    /// Others may have included it. Favours that were handed on are not ours.
    fn is_to_do(&self, proposal: &Proposal, is_exposed: bool) -> bool {
        if proposal.id.incarnation == self.incarnation {
            return self.pending.contains_key(&proposal.id.counter);
        }
        !is_exposed && self.read(|state| !state.is_applied(proposal.id))
    }

    /// Takes proposals back that are in no entry, for an incarnation that is to come.
    fn reclaim(&mut self, proposals: &[Proposal]) {
        let taken_back = self.take_back(proposals);
        taken_back.into_iter().rev().for_each(|queued| self.waiting.push_front(queued));
    }

    /// Those of the proposals that are our own and have no outcome yet.
    fn take_back(&mut self, proposals: &[Proposal]) -> Vec<Queued> {
        let own = self.incarnation;
        let of_ours = proposals.iter().filter(|proposal| proposal.id.incarnation == own);
        of_ours.filter_map(|proposal| self.pending.remove(&proposal.id.counter)).collect()
    }

    async fn append_counted(&mut self, at: Lsn, bytes: &Bytes) -> Answer {
        let answer = self.append_until_answered(at, bytes).await;
        let counts = &self.shared.counts;
        match &answer {
            Answer::Committed => counts.appended.add(1),
            Answer::Taken(found) if found == bytes => counts.appended.add(1),
            Answer::Taken(_) => counts.lost.add(1),
            Answer::Refused(_) => counts.refused.add(1),
            Answer::Trimmed | Answer::Broken(_) => {}
        }
        answer
    }

    /// SUBTLE: once one attempt went unanswered, a later refusal proves nothing, because the first
    /// may have landed or may land yet. Only `Committed` and `Taken` end the uncertainty.
    async fn append_until_answered(&mut self, at: Lsn, bytes: &Bytes) -> Answer {
        let began = self.ports.clock.uptime();
        let mut unknown = false;
        let mut backoff = BACKOFF_MIN;
        loop {
            let attempt = self.ports.log.append(at, bytes.clone());
            match timeout(self.config.append_attempt_max, attempt).await {
                Ok(Ok(Append::Committed))
                    if self.ports.clock.uptime().saturating_sub(began) > APPEND_BELIEVED_MAX =>
                {
                    // Asks the log again: below a trim floor the same append is `Trimmed`.
                    unknown = true;
                    if let Some(answer) = self.read_back(at).await {
                        return answer;
                    }
                }
                Ok(Ok(Append::Committed)) => return Answer::Committed,
                Ok(Ok(Append::Taken(found))) => return Answer::Taken(found),
                Ok(Ok(Append::Trimmed)) => return Answer::Trimmed,
                Ok(Err(PortError::Determinate(cause))) if !unknown => {
                    return Answer::Refused(cause.to_string());
                }
                Ok(Err(PortError::Broken(cause))) => return Answer::Broken(cause.to_string()),
                Ok(Err(error)) => {
                    unknown = true;
                    if self.complaints.is_due() {
                        tracing::warn!(lsn = %at, %error, "log append unanswered, repeating");
                    }
                }
                Err(_) => {
                    unknown = true;
                    if self.complaints.is_due() {
                        tracing::warn!(lsn = %at, "log append takes too long, repeating");
                    }
                }
            }
            self.shared.counts.unknown.add(1);
            // Nobody can be heard meanwhile, so nobody's silence means anything.
            self.heard.clear();
            sleep(self.random.random_range(Duration::ZERO..=backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Whether a slot that was won late still stands.
    async fn read_back(&self, at: Lsn) -> Option<Answer> {
        let read = self.ports.log.read(at, READ_ENTRIES_MAX, Freshness::Latest);
        match timeout(self.config.append_attempt_max, read).await {
            Ok(Ok(LogRead::Trimmed(_))) => Some(Answer::Trimmed),
            Ok(Ok(LogRead::Entries { slots, .. })) if !slots.is_empty() => Some(Answer::Committed),
            _ => None,
        }
    }

    fn entry(&mut self, proposals: Vec<Proposal>) -> Entry {
        self.spoke = Instant::now();
        let append_id = self.next_id();
        let digest_entries = self.config.digest_entries;
        let time_ms = self.ports.clock.now_ms();
        self.read(|state| {
            let lsn = state.applied().next();
            let digest = lsn.get().is_multiple_of(digest_entries).then(|| state.digest());
            Entry {
                log_id: state.log_id(),
                lsn,
                previous: state.last_hash(),
                append_id,
                level: state.level().min(FEATURE_LEVEL),
                time_ms,
                digest,
                proposals,
            }
        })
    }
}
