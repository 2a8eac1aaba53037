//! Appending to a put-if-absent log that forgets what was deleted, while it is trimmed behind
//! snapshots by brokers that sleep, end and start again.

use super::{Protocol, explore};

/// Slots of the log. Two have to be filled to trim the first behind the second of two snapshots.
const SLOTS: usize = 3;

/// Broker and number of an entry; zero for none.
type Entry = u8;

/// What a broker has applied, by slot.
type Chain = [Entry; SLOTS];

/// What is wrong with the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    /// An answered append is believed without another look at the floor, however long it took.
    AppendIgnoresFloor,
    /// The same of an entry that was read.
    ReadIgnoresFloor,
    /// A slot that is empty is taken for the tail without another look at the floor.
    TailIgnoresFloor,
    /// Entries are deleted before the floor is raised.
    DeletesFirst,
    /// Entries are deleted while somebody may still trust what it read of the floor.
    DeletesAtOnce,
    /// The log is trimmed behind the newest snapshot.
    TrimsBehindNewest,
    /// Snapshots count that nobody has read back.
    TrimsUnverified,
    /// An append without an answer is tried in the next slot.
    MovesOn,
}

/// The brokers and what may happen to them.
struct Log {
    defect: Option<Defect>,
    /// Entries that each broker may append.
    appends: &'static [u8],
    /// Brokers that may be killed.
    crashes: u8,
    /// Snapshots that may be damaged when they are written,
    bad: u8,
    /// and later, after they were read back.
    damages: u8,
    /// Whether an append without an answer is sent again.
    repeats: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    /// It knows nothing and looks for a snapshot.
    Starting,
    Following,
    /// It has sent an append, perhaps twice.
    Sent {
        entry: Entry,
        again: bool,
    },
    /// The log has answered with what is in the slot now.
    Answered {
        found: Entry,
    },
    /// It has read the next slot; if that was empty, whether it never held anything.
    Read {
        found: Entry,
        is_free: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Broker {
    doing: Doing,
    applied: usize,
    chain: Chain,
    /// Whether it has read the floor so lately that nothing above it can have been deleted.
    is_fresh: bool,
    /// Entries that it may still append.
    left: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Snapshot {
    applied: usize,
    chain: Chain,
    is_good: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    /// What stands in the slots. Of what was deleted nothing is left.
    slots: Chain,
    /// What stood there first: what the cluster has agreed on.
    history: Chain,
    /// Slots below are trimmed (counted from zero),
    floor: usize,
    /// nobody trusts a lower floor than this any more,
    ripe: usize,
    /// and slots below this are deleted.
    deleted: usize,
    /// Puts on their way: slot and entry.
    underway: Vec<(usize, Entry)>,
    snapshots: Vec<Snapshot>,
    /// How far the log is about to be trimmed, by whomever; zero if it is not.
    trims: usize,
    brokers: Vec<Broker>,
    crashes: u8,
    bad: u8,
    damages: u8,
    /// Whether somebody took a slot for the tail that had been filled before.
    has_denied: bool,
}

/// The broker that does it, if one does.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "to be printed")]
enum Step {
    Start(usize),
    Append(usize),
    Repeat(usize),
    Land { entry: Entry, is_answered: bool },
    Read(usize),
    Believe(usize),
    Save { broker: usize, is_good: bool },
    ChooseFloor,
    RaiseFloor,
    ForgetSnapshots,
    Wait,
    Delete,
    Damage(usize),
    Crash(usize),
}

impl Log {
    fn is(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// The snapshots that count when the log is trimmed, newest first.
    fn counted<'a>(&self, state: &'a State) -> impl Iterator<Item = &'a Snapshot> {
        let all = self.is(Defect::TrimsUnverified);
        state.snapshots.iter().rev().filter(move |it| it.is_good || all)
    }

    /// How far the log may be trimmed.
    fn target(&self, state: &State) -> Option<usize> {
        let behind = usize::from(!self.is(Defect::TrimsBehindNewest));
        // As many slots as the snapshot holds: all up to its own.
        self.counted(state).nth(behind).map(|snapshot| snapshot.applied)
    }

    /// What a broker can do.
    fn moves(&self, state: &State, at: usize) -> Vec<(Step, State)> {
        let mut next = Vec::new();
        let mut can = |step: Step, change: &dyn Fn(&mut State, &mut Broker)| {
            let mut changed = state.clone();
            let mut broker = changed.brokers[at].clone();
            change(&mut changed, &mut broker);
            changed.brokers[at] = broker;
            changed.underway.sort_unstable();
            next.push((step, changed));
        };
        let broker = &state.brokers[at];
        let slot = broker.applied;
        match broker.doing {
            Doing::Starting => can(Step::Start(at), &|state, broker| {
                let newest = state.snapshots.iter().rev().find(|snapshot| snapshot.is_good);
                let (applied, chain) = newest.map_or((0, [0; SLOTS]), |it| (it.applied, it.chain));
                (broker.applied, broker.chain) = (applied, chain);
                (broker.doing, broker.is_fresh) = (Doing::Following, false);
            }),
            Doing::Following if slot < SLOTS => {
                if broker.left > 0 {
                    can(Step::Append(at), &|state, broker| {
                        let entry = u8::try_from(at * 16).unwrap() + broker.left;
                        broker.left -= 1;
                        broker.doing = Doing::Sent { entry, again: false };
                        state.underway.push((slot, entry));
                    });
                }
                can(Step::Read(at), &|state, broker| {
                    let (found, is_free) = (state.slots[slot], state.history[slot] == 0);
                    broker.doing = Doing::Read { found, is_free };
                });
            }
            Doing::Sent { entry, again: false } if self.repeats => {
                can(Step::Repeat(at), &|state, broker| {
                    broker.doing = Doing::Sent { entry, again: true };
                    let to = if self.is(Defect::MovesOn) { slot + 1 } else { slot };
                    if to < SLOTS {
                        state.underway.push((to, entry));
                    }
                })
            }
            Doing::Answered { .. } | Doing::Read { .. } => {
                can(Step::Believe(at), &|state, broker| self.believe(state, broker));
            }
            Doing::Following | Doing::Sent { .. } => {}
        }
        // A snapshot is written beside all that.
        let is_newer = state.snapshots.last().is_none_or(|it| it.applied < broker.applied);
        for is_good in [true, false] {
            if is_newer && broker.applied > 0 && (is_good || state.bad > 0) {
                can(Step::Save { broker: at, is_good }, &|state, broker| {
                    let (applied, chain) = (broker.applied, broker.chain);
                    state.snapshots.push(Snapshot { applied, chain, is_good });
                    state.bad -= u8::from(!is_good);
                });
            }
        }
        if state.crashes > 0 && broker.doing != Doing::Starting {
            can(Step::Crash(at), &|state, broker| {
                state.crashes -= 1;
                restart(broker);
            });
        }
        next
    }

    /// The log is trimmed behind snapshots.
    fn trims(&self, state: &State) -> Vec<(Step, State)> {
        let mut next = Vec::new();
        let mut can = |step: Step, change: &dyn Fn(&mut State)| {
            let mut changed = state.clone();
            change(&mut changed);
            next.push((step, changed));
        };
        let target = self.target(state).filter(|target| *target > state.floor && state.trims == 0);
        if let Some(target) = target {
            can(Step::ChooseFloor, &|state| state.trims = target);
        }
        if state.trims > 0 && (!self.is(Defect::DeletesFirst) || state.deleted >= state.trims) {
            can(Step::RaiseFloor, &|state| {
                state.floor = state.floor.max(state.trims);
                state.trims = 0;
            });
        }
        let oldest = self.counted(state).nth(1).map(|snapshot| snapshot.applied);
        if let Some(oldest) = oldest.filter(|oldest| state.snapshots[0].applied < *oldest) {
            can(Step::ForgetSnapshots, &|state| {
                state.snapshots.retain(|snapshot| snapshot.applied >= oldest);
            });
        }
        let is_first = self.is(Defect::DeletesFirst);
        let floor = if is_first { state.floor.max(state.trims) } else { state.floor };
        if state.ripe < floor {
            can(Step::Wait, &|state| {
                state.ripe = floor;
                state.brokers.iter_mut().for_each(|broker| broker.is_fresh = false);
            });
        }
        let ripe = if self.is(Defect::DeletesAtOnce) { floor } else { state.ripe };
        if state.deleted < ripe {
            can(Step::Delete, &|state| {
                state.slots[state.deleted] = 0;
                state.deleted += 1;
            });
        }
        next
    }

    /// A broker believes what it was told, perhaps after another look at the floor.
    fn believe(&self, state: &mut State, broker: &mut Broker) {
        let slot = broker.applied;
        let (found, ignores) = match broker.doing {
            Doing::Answered { found } => (found, Defect::AppendIgnoresFloor),
            Doing::Read { found: 0, .. } => (0, Defect::TailIgnoresFloor),
            Doing::Read { found, .. } => (found, Defect::ReadIgnoresFloor),
            Doing::Starting | Doing::Following | Doing::Sent { .. } => unreachable!("not told"),
        };
        if !self.is(ignores) && !broker.is_fresh {
            if slot < state.floor {
                // What it knows is too old: it stops, and begins again.
                restart(broker);
                return;
            }
            broker.is_fresh = true;
        }
        if let Doing::Read { found: 0, is_free } = broker.doing {
            state.has_denied |= !is_free;
        } else {
            broker.chain[slot] = found;
            broker.applied += 1;
        }
        broker.doing = Doing::Following;
    }

    /// What happens by itself.
    fn happenings(state: &State) -> Vec<(Step, State)> {
        let mut next = Vec::new();
        for (index, (slot, entry)) in state.underway.iter().copied().enumerate() {
            let mut landed = state.clone();
            landed.underway.remove(index);
            if landed.slots[slot] == 0 {
                landed.slots[slot] = entry;
            }
            let found = landed.slots[slot];
            if landed.history[slot] == 0 {
                landed.history[slot] = found;
            }
            next.push((Step::Land { entry, is_answered: false }, landed.clone()));
            let broker = &mut landed.brokers[usize::from(entry / 16)];
            let waits = matches!(broker.doing, Doing::Sent { entry: sent, .. } if sent == entry);
            if waits && broker.applied == slot {
                broker.doing = Doing::Answered { found };
                next.push((Step::Land { entry, is_answered: true }, landed));
            }
        }
        for (index, snapshot) in state.snapshots.iter().enumerate() {
            if state.damages > 0 && snapshot.is_good {
                let mut damaged = state.clone();
                damaged.damages -= 1;
                damaged.snapshots[index].is_good = false;
                next.push((Step::Damage(snapshot.applied), damaged));
            }
        }
        next
    }
}

fn restart(broker: &mut Broker) {
    let (doing, left) = (Doing::Starting, broker.left);
    *broker = Broker { doing, applied: 0, chain: [0; SLOTS], is_fresh: false, left };
}

impl Protocol for Log {
    type State = State;
    type Step = Step;

    fn begin(&self) -> State {
        let broker = |left: &u8| Broker {
            doing: Doing::Following,
            applied: 0,
            chain: [0; SLOTS],
            is_fresh: true,
            left: *left,
        };
        State {
            slots: [0; SLOTS],
            history: [0; SLOTS],
            floor: 0,
            ripe: 0,
            deleted: 0,
            underway: Vec::new(),
            snapshots: Vec::new(),
            trims: 0,
            brokers: self.appends.iter().map(broker).collect(),
            crashes: self.crashes,
            bad: self.bad,
            damages: self.damages,
            has_denied: false,
        }
    }

    fn next(&self, state: &State) -> Vec<(Step, State)> {
        let moves = (0..state.brokers.len()).flat_map(|at| self.moves(state, at));
        moves.chain(self.trims(state)).chain(Self::happenings(state)).collect()
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        let agrees =
            |broker: &Broker| broker.chain[..broker.applied] == state.history[..broker.applied];
        if !state.brokers.iter().all(agrees) {
            return Some("a broker has applied another entry than the others");
        }
        let tail = state.history.iter().take_while(|entry| **entry != 0).count();
        let is_twice = |at: usize| state.history[..at].contains(&state.history[at]);
        if (0..tail).any(is_twice) {
            return Some("an entry stands there twice");
        }
        if state.has_denied {
            return Some("a broker denies an entry that was acknowledged");
        }
        let good = state.snapshots.iter().rev().find(|snapshot| snapshot.is_good);
        let from = good.map_or(0, |snapshot| snapshot.applied);
        if state.floor > from
            || state.slots[from.min(tail)..tail] != state.history[from.min(tail)..tail]
        {
            return Some("nobody can start any more");
        }
        None
    }
}

/// One that appends one entry and may be slow, and one that fills the log meanwhile.
const PAIR: Log =
    Log { defect: None, appends: &[1, 2], crashes: 0, bad: 0, damages: 0, repeats: false };

/// All that is tried. `ODRADEK_MODEL=large` tries the last as well, which takes minutes.
fn protocols() -> Vec<Log> {
    let mut protocols = vec![
        Log { crashes: 1, ..PAIR },
        Log { repeats: true, ..PAIR },
        Log { bad: 1, damages: 1, ..PAIR },
        // A third that only reads.
        Log { appends: &[1, 2, 0], ..PAIR },
    ];
    if std::env::var("ODRADEK_MODEL").is_ok_and(|it| it == "large") {
        protocols.push(Log {
            appends: &[2, 2],
            crashes: 1,
            bad: 1,
            damages: 1,
            repeats: true,
            ..PAIR
        });
    }
    protocols
}

#[test]
fn no_order_of_appends_snapshots_and_trims_breaks_a_promise() {
    for protocol in protocols() {
        // What must be among the orders that were tried, or they show nothing.
        let mut landed_behind_trim = false;
        let mut rests_on_second = false;
        let explored = explore(&protocol, |state| {
            let is_behind = |at: usize| state.slots[at] != 0 && at < state.deleted;
            landed_behind_trim |= (0..SLOTS).any(is_behind);
            let newest_is_bad = state.snapshots.last().is_some_and(|newest| !newest.is_good);
            rests_on_second |= newest_is_bad && state.deleted > 0;
        });
        let Log { appends, crashes, damages, .. } = protocol;
        let states = explored.states;
        println!("appends {appends:?}, {crashes} crashes, {damages} damages: {states} states");
        assert_eq!(explored.broken.map(|it| format!("{it:?}")), None);
        assert!(states > 10_000, "{states} states");
        assert!(landed_behind_trim, "no put has landed behind a trim");
        assert!(rests_on_second || damages == 0, "the newest was never damaged");
    }
}

#[test]
fn each_defect_of_the_log_is_found() {
    let other = "a broker has applied another entry than the others";
    let denied = "a broker denies an entry that was acknowledged";
    let lost = "nobody can start any more";
    let pair = |defect| Log { defect: Some(defect), ..PAIR };
    let defects = [
        (pair(Defect::AppendIgnoresFloor), other),
        (Log { crashes: 1, ..pair(Defect::ReadIgnoresFloor) }, other),
        (pair(Defect::TailIgnoresFloor), denied),
        (pair(Defect::DeletesFirst), denied),
        (pair(Defect::DeletesAtOnce), denied),
        (Log { damages: 1, ..pair(Defect::TrimsBehindNewest) }, lost),
        (Log { bad: 1, damages: 1, ..pair(Defect::TrimsUnverified) }, lost),
        (Log { repeats: true, ..pair(Defect::MovesOn) }, "an entry stands there twice"),
    ];
    for (protocol, promise) in defects {
        let defect = protocol.defect;
        let explored = explore(&protocol, |_| {});
        let (found, steps) = explored.broken.expect("a defect that is not found");
        println!("{defect:?}: {found}, after {steps:?}");
        assert_eq!(found, promise, "{defect:?}: {steps:?}");
    }
}
