//! Group coordination: what a group's coordinator keeps in mind.
//!
//! What matters is in the state: members, generations, assignments, positions. Here is what a crash
//! may forget: requests that wait for each other, member ids that were given and not yet used, and
//! the timers by which silent members are found. Every change is a command that rests on the
//! revision of the group and on the office that were seen, so a coordinator that lost its office,
//! or lost it and has it again, can do no harm; what it says from memory it says only while it has
//! its lease. One that takes office goes on from the state, with all timers set anew.
//!
//! [`classic`] is the protocol of generations (JoinGroup, SyncGroup, Heartbeat, LeaveGroup),
//! [`consumer`] that of KIP-848, [`assignors`] what the latter assigns by; positions are looked
//! after in `offsets`. Requests and responses of the wire are the handlers'.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex as Lock, PoisonError, Weak};
use std::time::Duration;

use odradek_protocol::id::NodeId;
use odradek_storage::command::{Command, GroupChange, Incarnation, Outcome};
use odradek_storage::lsn::Lsn;
use odradek_storage::machine::Machine;
use odradek_storage::state::State;
use odradek_storage::state::groups::{Group, Membership};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

pub mod assignors;
pub mod classic;
pub mod consumer;
mod error;
pub(crate) mod offsets;
mod settings;
#[cfg(test)]
pub(crate) mod town;

pub use error::GroupError;
pub use offsets::Staging;
pub use settings::GroupSettings;

/// Bytes of one change of a group: what is more is made in parts.
const CHANGE_BYTES_MAX: usize = 64 * 1024;

/// How long members are given at least, when a broker takes office: its predecessor, if it can't
/// reach the log, may not know yet, and tell them that all is well as long as it has its lease.
const TAKEOVER_MIN: Duration = Duration::from_secs(15);

/// Most bytes that are kept of what a member says, or is assigned.
const MEMBER_BYTES_MAX: usize = 256 * 1024;

/// How often a broker without a lease looks whether it has one.
const NO_LEASE_INTERVAL: Duration = Duration::from_millis(500);

/// How long a group that has nothing to wait for is looked after.
const UNUSED_MAX: Duration = Duration::from_secs(10);

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// Its name.
    pub name: String,
    /// Where it stands: Kafka's name.
    pub state: &'static str,
    /// What was asked.
    pub kind: T,
}

/// Finds the settings of a group.
type Settings = Arc<dyn Fn(&str) -> GroupSettings + Send + Sync>;

/// The groups that this broker coordinates.
#[derive(Clone)]
pub struct GroupCoordinator {
    shared: Arc<Shared>,
}

struct Shared {
    machine: Machine,
    settings: Settings,
    slots: Lock<BTreeMap<String, Arc<Slot>>>,
    office: Lock<Option<AbortHandle>>,
}

/// One group.
struct Slot {
    name: String,
    desk: Arc<Mutex<Desk>>,
    /// Something is due earlier than it was.
    hurry: Notify,
}

/// What is kept in mind of a group. Whoever holds it may change the group.
#[derive(Default)]
struct Desk {
    /// The revision of the group that all of this rests on.
    revision: u64,
    /// The entry in which the serving brokers last changed, as it was known then.
    office: Lsn,
    /// The life of this broker that it was kept in mind in.
    incarnation: Option<Incarnation>,
    /// When this broker found members that another had looked after.
    taken_over: Option<Instant>,
    classic: classic::Desk,
    consumer: consumer::Desk,
    /// Nobody looks after it any more: another has to be opened.
    is_closed: bool,
}

/// A group, and the exclusive right to change it.
struct Work {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    desk: OwnedMutexGuard<Desk>,
}

impl GroupCoordinator {
    /// Begins to coordinate the groups that `machine` says are this broker's.
    pub fn start(
        machine: Machine,
        settings: impl Fn(&str) -> GroupSettings + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            machine,
            settings: Arc::new(settings),
            slots: Lock::default(),
            office: Lock::default(),
        });
        let office = tokio::spawn(hold_office(Arc::downgrade(&shared))).abort_handle();
        *lock(&shared.office) = Some(office);
        Self { shared }
    }

    /// Forgets everything and coordinates no more, as a killed process would.
    pub fn kill(&self) {
        let office = lock(&self.shared.office).take();
        office.iter().for_each(AbortHandle::abort);
        self.forget();
    }

    /// Forgets what was kept in mind; whoever waits is told to look for the coordinator again. For
    /// a broker that was asleep.
    pub fn forget(&self) {
        let slots = std::mem::take(&mut *lock(&self.shared.slots));
        for slot in slots.into_values() {
            tokio::spawn(async move { slot.close().await });
        }
    }

    /// Whether this broker coordinates a group, and may say so.
    pub async fn check_office(&self, group: &str) -> Result<(), GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        if !self.shared.machine.has_lease().await {
            return Err(GroupError::NotAvailable);
        }
        self.shared.check_office(group)
    }

    /// The groups that this broker coordinates, each with what `look` makes of it.
    pub fn list<T>(&self, look: impl Fn(&Group) -> T) -> Vec<Listed<T>> {
        let node = Some(self.shared.machine.node_id());
        let mut listed = self.shared.machine.read(|state| {
            let ours = state.groups().iter().filter(|(name, _)| state.coordinator_of(name) == node);
            let ours = ours.map(|(name, group)| Listed {
                name: name.clone(),
                state: state_of(group),
                kind: look(group),
            });
            ours.collect::<Vec<_>>()
        });
        let slots: Vec<_> = lock(&self.shared.slots).values().map(Arc::clone).collect();
        for slot in slots {
            // Who works there has it in a moment; a list is not worth waiting for the log.
            if slot.desk.try_lock().is_ok_and(|desk| desk.classic.is_preparing())
                && let Ok(at) = listed.binary_search_by(|group| group.name.cmp(&slot.name))
            {
                listed[at].state = classic::Phase::Preparing.name();
            }
        }
        listed
    }

    /// Goes to a group's desk. Waits for whoever works there.
    async fn enter(&self, group: &str) -> Result<Work, GroupError> {
        self.check_office(group).await?;
        loop {
            let slot = self.shared.slot(group);
            let desk = Arc::clone(&slot.desk).lock_owned().await;
            if desk.is_closed {
                continue;
            }
            // The office may have been lost while others were at work.
            self.shared.check_office(group)?;
            let mut work = Work { shared: Arc::clone(&self.shared), slot, desk };
            work.catch_up();
            return Ok(work);
        }
    }
}

/// Where a group stands, as the state knows it: Kafka's name.
fn state_of(group: &Group) -> &'static str {
    match &group.membership {
        Membership::None => classic::Phase::Empty.name(),
        Membership::Classic(classic) => classic::Phase::of(classic).name(),
        Membership::Consumer(consumer) => consumer.phase(),
    }
}

impl fmt::Debug for GroupCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = lock(&self.shared.slots).len();
        f.debug_struct("GroupCoordinator").field("groups", &groups).finish()
    }
}

impl Shared {
    fn check_office(&self, group: &str) -> Result<(), GroupError> {
        let coordinator = self.machine.read(|state| state.coordinator_of(group));
        if coordinator == Some(self.machine.node_id()) {
            Ok(())
        } else {
            Err(GroupError::NotCoordinator)
        }
    }

    /// The group's slot; a new one is looked after from now on.
    fn slot(self: &Arc<Self>, group: &str) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get(group) {
            return Arc::clone(slot);
        }
        let slot =
            Arc::new(Slot { name: group.to_owned(), desk: Arc::default(), hurry: Notify::new() });
        slots.insert(group.to_owned(), Arc::clone(&slot));
        tokio::spawn(keep_time(Arc::downgrade(self), Arc::clone(&slot)));
        slot
    }

    fn remove(&self, slot: &Arc<Slot>) {
        let mut slots = lock(&self.slots);
        if slots.get(&slot.name).is_some_and(|it| Arc::ptr_eq(it, slot)) {
            slots.remove(&slot.name);
        }
    }
}

impl Slot {
    /// Tells all who wait to look elsewhere.
    async fn close(&self) {
        let mut desk = self.desk.lock().await;
        desk.clear(&GroupError::NotCoordinator);
        desk.is_closed = true;
        self.hurry.notify_one();
    }
}

impl Desk {
    fn clear(&mut self, error: &GroupError) {
        std::mem::take(&mut self.classic).refuse(error);
        self.consumer = consumer::Desk::default();
    }

    fn next_deadline(&self) -> Option<Instant> {
        [self.classic.next_deadline(), self.consumer.next_deadline()].into_iter().flatten().min()
    }
}

impl Work {
    fn settings(&self) -> GroupSettings {
        (self.shared.settings)(&self.slot.name)
    }

    /// Looks at the group in the state.
    fn read<T>(&self, look: impl FnOnce(Option<&Group>) -> T) -> T {
        self.shared.machine.read(|state| look(state.groups().get(&self.slot.name)))
    }

    /// Looks at the group and at all else.
    fn read_with<T>(&self, look: impl FnOnce(&State, Option<&Group>) -> T) -> T {
        self.shared.machine.read(|state| look(state, state.groups().get(&self.slot.name)))
    }

    /// Forgets what rests on an older revision, and sets timers for members that have none.
    fn catch_up(&mut self) {
        let node = self.shared.machine.node_id();
        let (revision, office, incarnation) = self.read_with(|state, group| {
            let revision = group.map_or(0, |group| group.revision);
            let incarnation = state.brokers().get(&node).map(|broker| broker.incarnation);
            (revision, state.offices_changed(), incarnation)
        });
        let is_another = revision != self.desk.revision || incarnation != self.desk.incarnation;
        if is_another {
            self.desk.clear(&GroupError::NotAvailable);
        }
        // Another may have held the office for a moment, and heard of members.
        if is_another || office != self.desk.office {
            self.desk.revision = revision;
            self.desk.office = office;
            self.desk.incarnation = incarnation;
            self.desk.taken_over = Some(Instant::now());
            self.set_classic_sessions(TAKEOVER_MIN);
            self.set_consumer_sessions();
            self.slot.hurry.notify_one();
        }
    }

    /// How long from now a rebalance that takes `wait` lasts at least, if this broker has taken
    /// office only lately: see [`TAKEOVER_MIN`].
    fn at_least_after_takeover(&self, wait: Duration) -> Duration {
        let since = self.desk.taken_over.map_or(TAKEOVER_MIN, |taken| taken.elapsed());
        wait.max(TAKEOVER_MIN.saturating_sub(since))
    }

    /// Makes a change. If it fails, all that was kept in mind is forgotten with it: what is true is
    /// in the state.
    async fn change(&mut self, change: GroupChange) -> Result<(), GroupError> {
        let command = Command::ChangeGroup {
            group: self.slot.name.clone(),
            office: self.desk.office,
            revision: self.desk.revision,
            change,
        };
        let error = match self.shared.machine.propose(command).await {
            Ok(Outcome::GroupChanged(revision)) => {
                self.desk.revision = revision;
                return Ok(());
            }
            Ok(Outcome::Rejected(rejection)) => rejection.into(),
            Ok(_) => GroupError::Unknown,
            Err(error) => error.into(),
        };
        self.desk.clear(&error);
        // Not a revision of any group: the next one who comes here catches up.
        self.desk.revision = u64::MAX;
        self.slot.hurry.notify_one();
        Err(error)
    }

    async fn tick(&mut self) {
        self.tick_classic().await;
        self.tick_consumer().await;
    }
}

/// Does what is due in a group, as long as it has anything to wait for.
async fn keep_time(broker: Weak<Shared>, slot: Arc<Slot>) {
    let mut is_unused = false;
    loop {
        let Some(shared) = broker.upgrade() else { return };
        let has_lease = shared.machine.has_lease().await;
        let due = {
            let desk = Arc::clone(&slot.desk).lock_owned().await;
            if desk.is_closed {
                return;
            }
            let mut work = Work { shared, slot: Arc::clone(&slot), desk };
            if has_lease {
                work.catch_up();
                work.tick().await;
            } else {
                // Members can't be heard, and others may look after them: when this broker has
                // its office again, all have time anew.
                work.desk.office = Lsn::ZERO;
            }
            match work.desk.next_deadline() {
                Some(due) => {
                    is_unused = false;
                    if has_lease { due } else { Instant::now() + NO_LEASE_INTERVAL }
                }
                None if !is_unused => {
                    is_unused = true;
                    Instant::now() + UNUSED_MAX
                }
                None => {
                    // Whoever holds the slot already finds it closed, and opens another.
                    work.desk.is_closed = true;
                    work.shared.remove(&slot);
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = sleep_until(due) => {}
            () = slot.hurry.notified() => {}
        }
    }
}

/// Takes office in groups that became this broker's, and leaves it in those that are no more.
async fn hold_office(shared: Weak<Shared>) {
    let Some(mut applied) = shared.upgrade().map(|shared| shared.machine.applied()) else { return };
    let mut before: Vec<(NodeId, Incarnation)> = Vec::new();
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let now: Vec<_> = shared.machine.read(|state| {
            state.serving_brokers().map(|(node, broker)| (node, broker.incarnation)).collect()
        });
        if now != before {
            before = now;
            change_office(&shared);
        }
        drop(shared);
        if applied.changed().await.is_err() {
            return;
        }
    }
}

fn change_office(shared: &Arc<Shared>) {
    let node = shared.machine.node_id();
    let slots: Vec<_> = lock(&shared.slots).values().map(Arc::clone).collect();
    for slot in slots {
        if shared.check_office(&slot.name).is_err() {
            shared.remove(&slot);
            tokio::spawn(async move { slot.close().await });
        }
    }
    let ours: Vec<String> = shared.machine.read(|state| {
        let with_members = state.groups().iter().filter(|(_, group)| group.has_members());
        let ours = with_members.filter(|(name, _)| state.coordinator_of(name) == Some(node));
        ours.map(|(name, _)| name.clone()).collect()
    });
    // A slot that is made sets the timers of the members that it finds.
    ours.iter().for_each(|group| drop(shared.slot(group)));
}

/// Whether what a member says, or is assigned, can be kept.
fn check_size(group: &str, member: &str, bytes: usize) -> Result<(), GroupError> {
    if bytes <= MEMBER_BYTES_MAX {
        return Ok(());
    }
    tracing::warn!(group, member, bytes, most = MEMBER_BYTES_MAX, "a member is too large");
    Err(GroupError::TooLarge(bytes))
}

/// Cuts a list into parts that each fit into a change; at least one, which may be empty.
fn parts<T>(items: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut parts = vec![Vec::new()];
    let mut total = 0;
    for item in items {
        let more = bytes(&item);
        if total > 0 && total + more > CHANGE_BYTES_MAX {
            parts.push(Vec::new());
            total = 0;
        }
        total += more;
        if let Some(part) = parts.last_mut() {
            part.push(item);
        }
    }
    parts
}

/// Carries work through even if whoever asked for it goes away: what was begun in the log and what
/// is kept in mind must not part.
async fn unbroken<T: Send + 'static>(
    work: impl Future<Output = Result<T, GroupError>> + Send + 'static,
) -> Result<T, GroupError> {
    tokio::spawn(work).await.unwrap_or(Err(GroupError::Unknown))
}

fn lock<T>(lock: &Lock<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_for_one_change_is_cut() {
        let sizes = |parts: Vec<Vec<usize>>| parts.iter().map(Vec::len).collect::<Vec<_>>();
        let third = CHANGE_BYTES_MAX / 3;
        assert_eq!(sizes(parts(vec![third; 7], |it| *it)), [3, 3, 1]);
        assert_eq!(sizes(parts(Vec::new(), |it| *it)), [0]);
        assert_eq!(sizes(parts(vec![CHANGE_BYTES_MAX * 2; 2], |it| *it)), [1, 1]);
    }
}
