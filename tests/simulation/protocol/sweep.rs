//! Sweeping objects while brokers commit them: an object is put, then an entry refers to it, and in
//! between it looks like one that nobody will ever refer to (RELIABILITY C2).
//!
//! A commit by footer needs the object whenever it is applied. Whoever starts begins from the
//! newest snapshot, or from the one before it if that is damaged, and applies what comes behind.
//!
//! The log is one list here, that every broker applies in order and appends to only at its end:
//! that it is one is shown by [`super::log`].

use super::{Protocol, explore};

/// Most entries of the log.
const ENTRIES: usize = 4;

const BROKERS: usize = 2;

/// What is wrong with the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    /// Orphans are deleted without a horizon.
    NoHorizon,
    /// So is what was referred to once.
    NoHorizonForDropped,
    /// The horizon counts when its entry is sent.
    BeforeApplied,
    /// What nothing refers to is looked up before the horizon is applied, and deleted after.
    OldReferences,
    /// Commits of what was begun below the horizon are taken all the same.
    TakesLate,
    /// What was referred to once is deleted whatever the snapshots have.
    NoSnapshots,
    /// It is deleted when the newest snapshot has that nothing refers to it any more.
    OneSnapshot,
}

/// Everything that may happen, with a defect perhaps.
struct Sweep {
    defect: Option<Defect>,
    /// How often the object's commit may be appended: a commit of unknown outcome is repeated.
    commits: u8,
    /// Whether it leaves its runs to the footer of the object.
    by_footer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    /// Refers to the object.
    Commit,
    /// Takes the reference away.
    Drop,
    /// Segments begun below it are not committed any more.
    Raise(usize),
    /// Somebody writes something else.
    Other,
}

/// What a broker knows that has applied so many entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    is_referred_to: bool,
    was_referred_to: bool,
    /// How many entries there were when it was committed or let go for the last time.
    since: usize,
    horizon: usize,
}

/// The object that is put by the first broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    None,
    /// Its name is known, and says how far the log was applied then.
    Begun(usize),
    /// The put is answered, or lands without anybody being told.
    Stored(usize),
    Deleted(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    log: Vec<Entry>,
    /// How far each broker has applied it.
    applied: [usize; BROKERS],
    object: Object,
    /// Whether the put was answered.
    is_answered: bool,
    commits: u8,
    /// The horizon that a broker has sent and not applied yet.
    raises: [Option<usize>; BROKERS],
    /// Whether a broker has looked the object up, and is about to delete it.
    dooms: [bool; BROKERS],
    /// How much of the log is in the two newest snapshots, the newest last.
    snapshots: [usize; 2],
}

#[derive(Clone, Debug)]
#[expect(dead_code, reason = "to be printed")]
enum Step {
    Apply(usize),
    Begin,
    Put {
        is_answered: bool,
    },
    Commit,
    Drop(usize),
    Other(usize),
    /// Decides on a horizon, and sends it.
    Send(usize),
    /// It stands in the log.
    Raise(usize),
    LookUp(usize),
    Delete(usize),
    Snapshot(usize),
}

impl Sweep {
    fn is(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// What the first `applied` entries say.
    fn known(&self, state: &State, applied: usize) -> Known {
        let mut known = Known::default();
        for (at, entry) in state.log[..applied].iter().enumerate() {
            match entry {
                Entry::Commit => {
                    let is_late = state.began().is_none_or(|began| began < known.horizon);
                    if !is_late || self.is(Defect::TakesLate) {
                        (known.is_referred_to, known.was_referred_to) = (true, true);
                        known.since = at + 1;
                    }
                }
                Entry::Drop => (known.is_referred_to, known.since) = (false, at + 1),
                Entry::Raise(to) => known.horizon = known.horizon.max(*to),
                Entry::Other => {}
            }
        }
        known
    }

    /// What a broker may do to the object by what it knows.
    fn sweeps(&self, state: &State, at: usize) -> Vec<(Step, State)> {
        let mut next = Vec::new();
        let known = self.known(state, state.applied[at]);
        let Some(began) = state.began() else { return next };
        let sent = state.raises[at].filter(|_| self.is(Defect::BeforeApplied));
        let is_below = began < known.horizon.max(sent.unwrap_or(0))
            || self.is(Defect::NoHorizon)
            || (self.is(Defect::NoHorizonForDropped) && known.was_referred_to);
        let is_stored = matches!(state.object, Object::Stored(_));
        let looks_early = self.is(Defect::OldReferences);
        let [second, newest] = state.snapshots;
        let applied_for_good = if self.is(Defect::OneSnapshot) { newest } else { second };
        let is_kept = self.by_footer
            && known.was_referred_to
            && known.since > applied_for_good
            && !self.is(Defect::NoSnapshots);
        if is_stored
            && !known.is_referred_to
            && (is_below || looks_early)
            && !state.dooms[at]
            && !is_kept
        {
            let mut changed = state.clone();
            changed.dooms[at] = true;
            next.push((Step::LookUp(at), changed));
        }
        if is_stored && state.dooms[at] && is_below {
            let mut changed = state.clone();
            changed.object = Object::Deleted(began);
            next.push((Step::Delete(at), changed));
        }
        next
    }

    fn appends(&self, state: &State, at: usize) -> Vec<(Step, State)> {
        let mut next = Vec::new();
        let end = state.log.len();
        // Only at the end, and only a broker that has applied all before it.
        if state.applied[at] != end || end == ENTRIES {
            return next;
        }
        let mut append = |step: Step, entry: Entry, change: &dyn Fn(&mut State)| {
            let mut changed = state.clone();
            changed.log.push(entry);
            changed.applied[at] = end + 1;
            change(&mut changed);
            next.push((step, changed));
        };
        append(Step::Other(at), Entry::Other, &|_| {});
        if state.is_answered && state.commits < self.commits && at == 0 {
            append(Step::Commit, Entry::Commit, &|state| state.commits += 1);
        }
        if self.known(state, end).is_referred_to {
            append(Step::Drop(at), Entry::Drop, &|_| {});
        }
        if let Some(to) = state.raises[at] {
            append(Step::Raise(at), Entry::Raise(to), &|state| state.raises[at] = None);
        }
        next
    }
}

impl State {
    fn began(&self) -> Option<usize> {
        match self.object {
            Object::None => None,
            Object::Begun(began) | Object::Stored(began) | Object::Deleted(began) => Some(began),
        }
    }
}

impl Protocol for Sweep {
    type State = State;
    type Step = Step;

    fn begin(&self) -> State {
        State {
            log: Vec::new(),
            applied: [0; BROKERS],
            object: Object::None,
            is_answered: false,
            commits: 0,
            raises: [None; BROKERS],
            dooms: [false; BROKERS],
            snapshots: [0; 2],
        }
    }

    fn next(&self, state: &State) -> Vec<(Step, State)> {
        let mut next = Vec::new();
        let mut can = |step: Step, change: &dyn Fn(&mut State)| {
            let mut changed = state.clone();
            change(&mut changed);
            next.push((step, changed));
        };
        for at in 0..BROKERS {
            let applied = state.applied[at];
            if applied < state.log.len() {
                can(Step::Apply(at), &|state| state.applied[at] += 1);
            }
            if self.by_footer && applied > state.snapshots[1] {
                can(Step::Snapshot(at), &|state| {
                    state.snapshots = [state.snapshots[1], state.applied[at]];
                });
            }
            let known = self.known(state, applied);
            if state.raises[at].is_none() && applied > known.horizon {
                can(Step::Send(at), &|state| state.raises[at] = Some(applied));
            }
        }
        match state.object {
            Object::None => {
                can(Step::Begin, &|state| state.object = Object::Begun(state.applied[0]));
            }
            Object::Begun(began) => {
                // Whoever is not told may be gone: then nobody commits it.
                for is_answered in [true, false] {
                    can(Step::Put { is_answered }, &|state| {
                        state.object = Object::Stored(began);
                        state.is_answered = is_answered;
                    });
                }
            }
            Object::Stored(_) | Object::Deleted(_) => {}
        }
        for at in 0..BROKERS {
            next.extend(self.appends(state, at));
            next.extend(self.sweeps(state, at));
        }
        next
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        let is_gone = matches!(state.object, Object::Deleted(_));
        if !is_gone {
            return None;
        }
        if self.known(state, state.log.len()).is_referred_to {
            return Some("an object is gone that the log refers to");
        }
        let is_taken = |at: usize| self.known(state, at + 1).since == at + 1;
        let is_read = |at: usize| state.log[at] == Entry::Commit && is_taken(at);
        let is_missed = self.by_footer && (state.snapshots[0]..state.log.len()).any(is_read);
        is_missed.then_some("an object is gone whose footer a start needs")
    }
}

const ALL: Sweep = Sweep { defect: None, commits: 2, by_footer: false };

const BY_FOOTER: Sweep = Sweep { by_footer: true, ..ALL };

#[test]
fn no_order_of_commits_and_sweeps_loses_an_object() {
    let mut swept_orphan = false;
    let mut swept_dropped = false;
    let mut refused = false;
    let explored = explore(&ALL, |state| {
        let known = ALL.known(state, state.log.len());
        let is_gone = matches!(state.object, Object::Deleted(_));
        swept_orphan |= is_gone && !known.was_referred_to;
        swept_dropped |= is_gone && known.was_referred_to;
        refused |= is_gone && state.commits > 0 && !known.was_referred_to;
    });
    println!("{} states", explored.states);
    assert_eq!(explored.broken.map(|it| format!("{it:?}")), None);
    assert!(explored.states > 10_000, "{} states", explored.states);
    assert!(swept_orphan && swept_dropped && refused);
}

#[test]
fn no_order_of_snapshots_and_sweeps_loses_a_footer_that_is_needed() {
    let mut swept_dropped = false;
    let explored = explore(&BY_FOOTER, |state| {
        let known = BY_FOOTER.known(state, state.log.len());
        swept_dropped |= matches!(state.object, Object::Deleted(_)) && known.was_referred_to;
    });
    println!("{} states", explored.states);
    assert_eq!(explored.broken.map(|it| format!("{it:?}")), None);
    assert!(explored.states > 10_000, "{} states", explored.states);
    assert!(swept_dropped);
}

#[test]
fn each_defect_of_the_sweep_is_found() {
    let defects = [
        (Defect::NoHorizon, ALL),
        (Defect::NoHorizonForDropped, ALL),
        (Defect::BeforeApplied, ALL),
        (Defect::OldReferences, ALL),
        (Defect::TakesLate, ALL),
        (Defect::NoSnapshots, BY_FOOTER),
        (Defect::OneSnapshot, BY_FOOTER),
    ];
    for (defect, protocol) in defects {
        let explored = explore(&Sweep { defect: Some(defect), ..protocol }, |_| {});
        let (promise, steps) = explored.broken.expect("a defect that is not found");
        println!("{defect:?}: {promise}, after {steps:?}");
    }
}
