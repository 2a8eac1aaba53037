//! The protocol of appending, trimming, snapshots and sweeping as a small model, tried in every
//! order (RELIABILITY 3.0).
//!
//! The simulation runs the real engines in many orders; this runs all orders of something small
//! enough for that: [`log`] is the race for slots while the log is trimmed behind snapshots,
//! [`sweep`] the race between committers and the sweeper over a log that keeps what [`log`] shows.
//! Time is in neither: what waits may wait for ever, and what must have passed has. Each model can
//! be given a defect, and must then be found to break a promise; a model that finds nothing wrong
//! with a wrong protocol says nothing about the right one.

mod log;
mod sweep;

use std::collections::BTreeMap;
use std::fmt::Debug;

/// A protocol: where it begins, what can happen next, and what must never be.
pub(crate) trait Protocol {
    /// All there is to know at one moment.
    type State: Clone + Ord;
    /// Something that happens.
    type Step: Clone + Debug;

    /// How it begins.
    fn begin(&self) -> Self::State;

    /// All that can happen next.
    fn next(&self, state: &Self::State) -> Vec<(Self::Step, Self::State)>;

    /// The promise that is broken, if one is.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
}

/// What was found by trying everything.
#[derive(Debug)]
pub(crate) struct Explored<P: Protocol> {
    /// How many states can be reached, or were until a promise was broken.
    pub(crate) states: usize,
    /// The broken promise, and the shortest way to it.
    pub(crate) broken: Option<(&'static str, Vec<P::Step>)>,
}

/// Tries everything that can happen, in every order, breadth first.
pub(crate) fn explore<P: Protocol>(protocol: &P, mut look: impl FnMut(&P::State)) -> Explored<P> {
    let begin = protocol.begin();
    // The states in the order in which they were found, each with the one before it.
    let mut ways: Vec<(usize, Option<P::Step>)> = vec![(0, None)];
    let mut known = BTreeMap::from([(begin.clone(), 0)]);
    let mut edge = vec![(0, begin)];
    while !edge.is_empty() {
        let mut found = Vec::new();
        for (at, state) in edge {
            look(&state);
            if let Some(promise) = protocol.broken(&state) {
                return Explored { states: ways.len(), broken: Some((promise, way(&ways, at))) };
            }
            for (step, next) in protocol.next(&state) {
                if !known.contains_key(&next) {
                    known.insert(next.clone(), ways.len());
                    found.push((ways.len(), next));
                    ways.push((at, Some(step)));
                }
            }
        }
        edge = found;
    }
    Explored { states: ways.len(), broken: None }
}

fn way<S: Clone>(ways: &[(usize, Option<S>)], mut at: usize) -> Vec<S> {
    let mut steps = Vec::new();
    while let (before, Some(step)) = &ways[at] {
        steps.push(step.clone());
        at = *before;
    }
    steps.reverse();
    steps
}
