//! The task that owns the state and the position in the log.
//!
//! It takes turns: gather what is asked for, append it ([`appending`]), look for what others wrote
//! and apply it ([`applying`]), tend the membership ([`membership`]) and the snapshots
//! ([`saving`]). At most one append is in flight; while it flies, the next group of proposals
//! gathers in the queue.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::start::READ_ENTRIES_MAX;
use super::{
    HaltReason, MachineConfig, ProposeError, Queued, Request, Shared, random_incarnation,
    random_uuid,
};
use crate::command::{BrokerAddress, Command, CommandId, Entry, Incarnation, Outcome, Proposal};
use crate::counts;
use crate::engine::Ports;
use crate::log::{Freshness, LogRead};
use crate::lsn::Lsn;
use crate::state::{FEATURE_LEVEL, State};

mod appending;
mod applying;
mod fairness;
mod membership;
mod saving;

pub(in crate::machine) use saving::Saving;

/// Time between two lines about a log that does not answer.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

/// Longest pause before something is tried again.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Why the driver can't go on.
type Stop = HaltReason;

pub(super) struct Driver {
    config: MachineConfig,
    address: BrokerAddress,
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
    /// Proposals that others asked to have appended.
    favours: Vec<Proposal>,
    /// The last entry that said more than that somebody lives.
    news: Lsn,
    /// Who won the last slots.
    winners: VecDeque<Incarnation>,
    /// What is said of a log that does not answer.
    complaints: Complaints,
    /// Since when asking another to append for this broker has worked.
    helped: Option<Instant>,
    stopping: Option<oneshot::Sender<()>>,
    /// When the tail was last seen, by the clock that counts sleep.
    tail_seen: Duration,
    /// When the tail was last looked for, and how long after that it is again.
    polled: Instant,
    /// Whether the log could be read then.
    is_readable: bool,
    /// How often in a row a footer was not there that the next entry needs.
    misses: u32,
    poll_interval: Duration,
    /// How far others say the log is filled.
    filled: watch::Receiver<Lsn>,
    /// When this broker last appended.
    spoke: Instant,
    /// When each other broker was last seen to have moved.
    heard: BTreeMap<Incarnation, (Lsn, Instant)>,
    saving: Saving,
}

impl Driver {
    pub(super) fn new(
        config: MachineConfig,
        address: BrokerAddress,
        ports: Ports,
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
        saving: Saving,
    ) -> Self {
        let seed = shared.random.lock().unwrap_or_else(PoisonError::into_inner).next_u64();
        let mut random = StdRng::seed_from_u64(seed);
        let now = Instant::now();
        let tail_seen = ports.clock.uptime();
        let poll_interval = config.poll_interval;
        let filled = shared.filled.subscribe();
        Self {
            incarnation: random_incarnation(&mut random),
            config,
            address,
            ports,
            shared,
            requests,
            random,
            counter: 0,
            registered: false,
            waiting: VecDeque::new(),
            pending: BTreeMap::new(),
            barriers: Vec::new(),
            favours: Vec::new(),
            news: Lsn::ZERO,
            winners: VecDeque::new(),
            complaints: Complaints::default(),
            helped: None,
            stopping: None,
            tail_seen,
            polled: now,
            is_readable: true,
            misses: 0,
            poll_interval,
            filled,
            spoke: now,
            heard: BTreeMap::new(),
            saving,
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
                // Never an error: the sender lives in what we share.
                Ok(()) = self.filled.changed() => {}
                () = self.saving.ended() => {}
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
            Request::Propose(queued) => self.waiting.push_back(*queued),
            Request::Barrier(reply) => self.barriers.push(reply),
            Request::Help(proposals) => self.favours.extend(proposals),
            Request::Wake(awake) => {
                self.refuse_waiting("the broker was asleep");
                self.favours.clear();
                self.heard.clear();
                self.registered = false;
                self.barriers.push(awake);
            }
            Request::Stop(done) => self.stopping = Some(done),
        }
    }

    fn next_wake(&self) -> Instant {
        let look = if self.config.exclusive {
            Instant::now() + Duration::from_secs(3600)
        } else {
            self.polled + self.poll_interval
        };
        self.next_snapshot().map_or(look, |due| due.min(look))
    }

    async fn take_turn(&mut self) -> Result<(), Stop> {
        self.apply_told()?;
        if !self.waiting.is_empty() || !self.favours.is_empty() {
            self.commit_group().await?;
        }
        let filled = *self.filled.borrow_and_update();
        // A log that refuses at once is not asked without end, however much there is in it.
        let may_look = self.is_readable || self.polled.elapsed() >= self.config.poll_interval;
        let is_behind = filled > self.applied() && may_look;
        let due = !self.config.exclusive && self.polled.elapsed() >= self.poll_interval;
        if due || is_behind || !self.barriers.is_empty() {
            self.look(is_behind).await?;
            self.tend_brokers();
        }
        if !self.registered {
            self.register().await?;
        }
        self.tend_snapshots();
        Ok(())
    }

    /// Looks for what others wrote, and answers barriers.
    async fn look(&mut self, is_behind: bool) -> Result<(), Stop> {
        let barriers = mem::take(&mut self.barriers);
        let must_know = is_behind || !barriers.is_empty();
        let freshness = if must_know { Freshness::Latest } else { Freshness::Recent };
        let before = self.news;
        if self.follow(freshness).await? {
            if must_know {
                // Whoever said that there is more was wrong.
                let applied = self.applied();
                self.shared.filled.send_if_modified(|filled| {
                    *filled = applied.min(*filled);
                    false
                });
            }
            barriers.into_iter().for_each(|barrier| barrier.send(()).unwrap_or(()));
        }
        // Whatever is found without having been told of is a reason to look more often.
        self.poll_interval = if self.news > before && !is_behind {
            self.config.poll_interval
        } else {
            (self.poll_interval * 2).min(self.config.poll_interval_max)
        };
        Ok(())
    }

    /// Reads and applies until the tail; `false` if the log can't be read now.
    async fn follow(&mut self, freshness: Freshness) -> Result<bool, Stop> {
        loop {
            let asked = self.ports.clock.uptime();
            self.polled = Instant::now();
            let from = self.applied().next();
            match self.ports.log.read(from, READ_ENTRIES_MAX, freshness).await {
                Ok(LogRead::Entries { slots, at_tail }) => {
                    self.is_readable = true;
                    if !self.apply_slots(&slots).await? {
                        self.is_readable = false;
                        return Ok(false);
                    }
                    if !at_tail {
                        continue;
                    }
                    self.note_tail(asked);
                    if freshness == Freshness::Latest {
                        self.tail_seen = asked;
                        if self.registered && self.read(|state| state.brokers().len() == 1) {
                            self.shared.lease.renew(asked);
                        }
                    }
                    return Ok(true);
                }
                Ok(LogRead::Trimmed(floor)) => {
                    return Err(slept(&format!("the log begins at {floor}, entry {from} is gone")));
                }
                Err(error) => {
                    self.is_readable = false;
                    // Nobody can be heard meanwhile, so nobody's silence means anything.
                    self.heard.clear();
                    if self.complaints.is_due() {
                        tracing::warn!(%error, "log can't be followed");
                    }
                    return Ok(false);
                }
            }
        }
    }

    fn next_id(&mut self) -> CommandId {
        self.counter += 1;
        CommandId { incarnation: self.incarnation, counter: self.counter }
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts that there was nothing behind what is applied, at a moment from `asked` on.
    fn note_tail(&self, asked: Duration) {
        self.shared.counts.followed_at.raise(counts::micros(asked));
    }

    fn tail_age(&self) -> Duration {
        self.ports.clock.uptime().saturating_sub(self.tail_seen)
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
        match outcome.try_recv() {
            Ok(Ok(outcome)) => Ok(Some(outcome)),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the log refuses this broker");
                Ok(None)
            }
            Err(_) => Ok(None),
        }
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

/// The log was trimmed past this broker.
fn slept(what: &str) -> Stop {
    let next = "started again, this broker begins from a snapshot";
    HaltReason(format!("slept too long: {what}; {next}"))
}

/// What goes on for minutes is said now and then.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
}

impl Complaints {
    /// Whether it is time to say it again.
    fn is_due(&mut self) -> bool {
        let is_due = self.last.is_none_or(|last| last.elapsed() > COMPLAINT_INTERVAL);
        if is_due {
            self.last = Some(Instant::now());
        }
        is_due
    }
}

/// Whether an entry says only that somebody lives.
fn is_heartbeat(entry: &Entry) -> bool {
    entry.proposals.iter().all(|proposal| proposal.command == Command::Heartbeat)
}
