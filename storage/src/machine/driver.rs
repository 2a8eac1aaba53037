//! The task that owns the state and the position in the log.
//!
//! At most one append is in flight; while it flies, the next group of proposals gathers in the
//! queue. The rules of an append:
//!
//! - *taken*: read what stands there; if it is this very append, it won after all; if not, apply
//!   what others wrote and try the next slot with what is left.
//! - *unknown*: repeat the same bytes at the same slot until the log answers. Never another slot
//!   with an unanswered append behind.
//! - *refused*, and nothing unknown before: the proposals certainly did not happen.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::start::READ_ENTRIES_MAX;
use super::{
    HaltReason, Identity, MachineConfig, ProposeError, Queued, Request, Shared, random_incarnation,
    random_uuid, snapshots,
};
use crate::check;
use crate::command::{
    Command, CommandId, Entry, EntryHash, Incarnation, Outcome, Proposal, Rejection,
};
use crate::engine::Ports;
use crate::invariant::InvariantId;
use crate::log::{Append, LogRead, Slot};
use crate::lsn::Lsn;
use crate::port::PortError;
use crate::state::{FEATURE_LEVEL, State};

mod membership;

/// Pause before an append of unknown outcome is repeated: drawn from zero to this, doubled with
/// each repetition up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// An append that took longer than this is believed only after the slot was read back: its broker
/// may have slept through a trim (RELIABILITY A6).
const APPEND_BELIEVED_MAX: Duration = Duration::from_secs(5);

/// Why the driver can't go on.
type Stop = HaltReason;

pub(super) struct Driver {
    config: MachineConfig,
    identity: Identity,
    ports: Ports,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    random: StdRng,
    incarnation: Incarnation,
    /// The last number given to a command or an append of this incarnation.
    counter: u64,
    registered: bool,
    /// Proposals that are not in an entry yet.
    waiting: VecDeque<Queued>,
    /// Proposals in the entry that is being appended, by their numbers.
    pending: BTreeMap<u64, Queued>,
    /// Barriers to be answered at the tail.
    barriers: Vec<oneshot::Sender<()>>,
    stopping: Option<oneshot::Sender<()>>,
    /// When the tail was last seen.
    tail_seen: Instant,
    /// When the tail was last looked for.
    polled: Instant,
    /// When this broker last appended.
    spoke: Instant,
    /// When each other broker was last seen to have moved.
    heard: BTreeMap<Incarnation, (Lsn, Instant)>,
}

/// How an append ended.
enum Answer {
    Committed,
    Taken(Bytes),
    Refused(String),
    Trimmed,
    Broken(String),
}

impl Driver {
    pub(super) fn new(
        config: MachineConfig,
        identity: Identity,
        ports: Ports,
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
        mut random: StdRng,
    ) -> Self {
        let now = Instant::now();
        Self {
            incarnation: random_incarnation(&mut random),
            config,
            identity,
            ports,
            shared,
            requests,
            random,
            counter: 0,
            registered: false,
            waiting: VecDeque::new(),
            pending: BTreeMap::new(),
            barriers: Vec::new(),
            stopping: None,
            tail_seen: now,
            polled: now,
            spoke: now,
            heard: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        if let Err(reason) = self.drive().await {
            tracing::error!(%reason, "the machine halts");
            self.shared.halt.send_replace(Some(reason));
        }
        if let Some(stopped) = self.stopping.take() {
            // Nobody waits any more: fine.
            stopped.send(()).unwrap_or(());
        }
    }

    async fn drive(&mut self) -> Result<(), Stop> {
        self.begin_log().await?;
        self.register().await?;
        while self.stopping.is_none() {
            self.gather().await;
            self.take_turn().await?;
        }
        // What was queued before the stop is still carried out.
        while !self.waiting.is_empty() {
            self.take_turn().await?;
        }
        self.say_farewell().await
    }

    /// Waits until there is something to do, and takes all that is queued.
    async fn gather(&mut self) {
        if self.waiting.is_empty() {
            let wake = self.next_wake();
            tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    Some(request) => self.accept(request),
                    None => self.stopping = Some(oneshot::channel().0),
                },
                () = sleep_until(wake) => {}
            }
        }
        while self.waiting.len() < self.config.queue_max {
            match self.requests.try_recv() {
                Ok(request) => self.accept(request),
                Err(_) => return,
            }
        }
    }

    fn accept(&mut self, request: Request) {
        match request {
            Request::Propose(queued) => self.waiting.push_back(queued),
            Request::Barrier(reply) => self.barriers.push(reply),
            Request::Stop(done) => self.stopping = Some(done),
        }
    }

    fn next_wake(&self) -> Instant {
        if self.config.exclusive {
            Instant::now() + Duration::from_secs(3600)
        } else {
            self.polled + self.config.poll_interval
        }
    }

    async fn take_turn(&mut self) -> Result<(), Stop> {
        if !self.waiting.is_empty() {
            self.commit_group().await?;
        }
        let due = !self.config.exclusive && self.polled.elapsed() >= self.config.poll_interval;
        if due || !self.barriers.is_empty() {
            let barriers = mem::take(&mut self.barriers);
            if self.follow().await? {
                barriers.into_iter().for_each(|barrier| barrier.send(()).unwrap_or(()));
            }
            self.tend_brokers();
        }
        if !self.registered {
            self.register().await?;
        }
        Ok(())
    }

    /// Reads and applies until the tail; `false` if the log can't be read now.
    async fn follow(&mut self) -> Result<bool, Stop> {
        loop {
            self.polled = Instant::now();
            let from = self.applied().next();
            match self.ports.log.read(from, READ_ENTRIES_MAX).await {
                Ok(LogRead::Entries(entries)) if entries.is_empty() => {
                    self.tail_seen = self.polled;
                    return Ok(true);
                }
                Ok(LogRead::Entries(entries)) => {
                    for slot in &entries {
                        self.apply_slot(slot)?;
                    }
                }
                Ok(LogRead::Trimmed(floor)) => {
                    return Err(HaltReason(format!(
                        "slept too long: the log begins at {floor}, entry {from} is gone"
                    )));
                }
                Err(error) => {
                    tracing::warn!(%error, "log can't be followed");
                    return Ok(false);
                }
            }
        }
    }

    fn apply_slot(&mut self, slot: &Slot) -> Result<(), Stop> {
        let entry = Entry::decode(&slot.bytes)
            .map_err(|error| HaltReason(format!("entry {} can't be read: {error}", slot.lsn)))?;
        self.apply(&entry, &slot.bytes)
    }

    /// Applies an entry, whoever wrote it, and answers those of our proposals that are in it.
    fn apply(&mut self, entry: &Entry, bytes: &Bytes) -> Result<(), Stop> {
        let (applied, listed) = {
            let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            let applied = state.apply(entry, EntryHash::of(bytes));
            (applied, state.is_registered(self.incarnation))
        };
        let applied = applied.map_err(|halt| HaltReason(halt.to_string()))?;
        // Somebody thought this broker dead.
        self.registered &= listed;
        let mut fenced = Vec::new();
        for (proposal, outcome) in entry.proposals.iter().zip(applied.outcomes) {
            if proposal.id.incarnation != self.incarnation {
                continue;
            }
            let Some(queued) = self.pending.remove(&proposal.id.counter) else { continue };
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
        let ours = entry.append_id.incarnation == self.incarnation;
        if ours && entry.lsn.get().is_multiple_of(self.config.snapshot_entries) {
            self.write_snapshot(entry.lsn);
        }
        Ok(())
    }

    fn write_snapshot(&self, lsn: Lsn) {
        let (bytes, digest) = self.read(|state| state.to_snapshot());
        let ports = self.ports.clone();
        tokio::spawn(async move {
            match snapshots::write(&ports, lsn, digest, bytes).await {
                Ok(()) => tracing::info!(%lsn, "snapshot written"),
                // The next one will do; the log is not trimmed for want of it.
                Err(error) => tracing::warn!(%lsn, error, "snapshot could not be written"),
            }
        });
    }

    /// Puts as many waiting proposals as fit into one entry and appends it.
    async fn commit_group(&mut self) -> Result<(), Stop> {
        if self.tail_seen.elapsed() > self.config.tail_age_max && !self.follow().await? {
            self.refuse_waiting("the tail of the log is out of reach");
            return Ok(());
        }
        if !self.registered {
            return self.register().await;
        }
        let mut proposals = Vec::new();
        let mut bytes = 0;
        while let Some(queued) = self.waiting.pop_front() {
            let proposal = Proposal { id: self.next_id(), command: queued.command.clone() };
            bytes += proposal.encoded_bytes();
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
    async fn append(&mut self, mut proposals: Vec<Proposal>) -> Result<(), Stop> {
        loop {
            // Others may have included some of them.
            let open = |proposal: &Proposal| self.pending.contains_key(&proposal.id.counter);
            proposals.retain(open);
            if proposals.is_empty() {
                return Ok(());
            }
            let entry = self.entry(proposals.clone());
            let bytes = entry.encode();
            match self.append_until_answered(entry.lsn, &bytes).await {
                Answer::Committed => {
                    self.tail_seen = Instant::now();
                    return self.apply(&entry, &bytes);
                }
                Answer::Taken(found) if found == bytes => return self.apply(&entry, &bytes),
                Answer::Taken(found) => {
                    let registered = self.registered;
                    self.apply_slot(&Slot { lsn: entry.lsn, bytes: found })?;
                    self.follow().await?;
                    if registered && !self.registered {
                        self.reclaim(&proposals);
                        return Ok(());
                    }
                }
                Answer::Refused(cause) => {
                    for proposal in proposals {
                        if let Some(queued) = self.pending.remove(&proposal.id.counter) {
                            drop(queued.reply.send(Err(ProposeError::NotAppended(cause.clone()))));
                        }
                    }
                    return Ok(());
                }
                Answer::Trimmed => {
                    return Err(HaltReason(format!("slept too long: slot {} is gone", entry.lsn)));
                }
                Answer::Broken(cause) => return Err(HaltReason(cause)),
            }
        }
    }

    /// Takes proposals back that are in no entry, for an incarnation that is to come.
    fn reclaim(&mut self, proposals: &[Proposal]) {
        for proposal in proposals.iter().rev() {
            if let Some(queued) = self.pending.remove(&proposal.id.counter) {
                self.waiting.push_front(queued);
            }
        }
    }

    /// SUBTLE: once one attempt went unanswered, a later refusal proves nothing, because the first
    /// may have landed or may land yet. Only `Committed` and `Taken` end the uncertainty.
    async fn append_until_answered(&mut self, at: Lsn, bytes: &Bytes) -> Answer {
        let began = Instant::now();
        let mut unknown = false;
        let mut backoff = BACKOFF_MIN;
        loop {
            let attempt = self.ports.log.append(at, bytes.clone());
            match timeout(self.config.append_attempt_max, attempt).await {
                Ok(Ok(Append::Committed)) if began.elapsed() > APPEND_BELIEVED_MAX => {
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
                    tracing::warn!(lsn = %at, %error, "log append unanswered, repeating");
                }
                Err(_) => {
                    unknown = true;
                    tracing::warn!(lsn = %at, "log append takes too long, repeating");
                }
            }
            sleep(self.random.random_range(Duration::ZERO..=backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Whether a slot that was won late still stands.
    async fn read_back(&self, at: Lsn) -> Option<Answer> {
        let read = self.ports.log.read(at, READ_ENTRIES_MAX);
        match timeout(self.config.append_attempt_max, read).await {
            Ok(Ok(LogRead::Trimmed(_))) => Some(Answer::Trimmed),
            Ok(Ok(LogRead::Entries(entries))) if !entries.is_empty() => Some(Answer::Committed),
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

    fn next_id(&mut self) -> CommandId {
        self.counter += 1;
        CommandId { incarnation: self.incarnation, counter: self.counter }
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn applied(&self) -> Lsn {
        self.read(State::applied)
    }

    fn refuse_waiting(&mut self, why: &str) {
        for queued in self.waiting.drain(..) {
            drop(queued.reply.send(Err(ProposeError::NotAppended(why.to_owned()))));
        }
    }

    /// Proposes a command of the driver's own and returns its outcome; `None` if it was refused.
    async fn propose_own(&mut self, command: Command) -> Result<Option<Outcome>, Stop> {
        let (reply, mut outcome) = oneshot::channel();
        let proposal = Proposal { id: self.next_id(), command: command.clone() };
        self.pending.insert(proposal.id.counter, Queued { command, reply });
        self.append(vec![proposal]).await?;
        Ok(outcome.try_recv().ok().and_then(Result::ok))
    }

    /// Writes the first entry of an empty log. Another broker may be quicker; then theirs counts.
    async fn begin_log(&mut self) -> Result<(), Stop> {
        while self.read(|state| state.log_id() == Uuid::nil()) {
            let genesis = Command::Genesis {
                cluster_id: random_uuid(&mut self.random),
                log_id: random_uuid(&mut self.random),
                level: FEATURE_LEVEL,
            };
            if self.propose_own(genesis).await?.is_none() {
                sleep(BACKOFF_MAX).await;
            }
        }
        Ok(())
    }
}
