//! Groups whose coordinator forgets, or listens to whom it should not.

use super::super::kafka::MEMBERS;
use super::{Field, Plant};
use crate::checker::Rule;
use crate::history::{Event, Kind, Stage};

macro_rules! plants {
    ($($name:ident $rule:ident,)*) => {
        pub(super) const PLANTS: &[Plant] = &[$(
            Plant { name: stringify!($name), rule: Rule::$rule, plant: $name },
        )*];
    };
}

plants! {
    commit_forgotten R18,
    commit_goes_back R18,
    two_owners G1,
    old_generation_lives G2,
    zombie_commits G3,
}

/// Answers to where a group stands after a commit for which that is no less than `least`.
fn answered(field: &Field, least: i64) -> Vec<usize> {
    let commits = field.completions(Kind::Commit, Stage::Ok);
    let mut answers = field.completions(Kind::Committed, Stage::Ok);
    answers.retain(|at| {
        let asked = &field.events[field.invocation(*at)];
        let before = |commit: &usize| {
            let invocation = &field.events[field.invocation(*commit)];
            invocation.key == asked.key
                && invocation.offset >= Some(least)
                && field.events[*commit].time_us < asked.time_us
        };
        commits.iter().any(before)
    });
    answers
}

fn commit_forgotten(field: &mut Field) -> Option<()> {
    let answers = answered(field, 0);
    let at = field.any(&answers)?;
    field.events[at].offset = Some(-1);
    Some(())
}

fn commit_goes_back(field: &mut Field) -> Option<()> {
    // Those of this group only go forward; where it stood at first is less than all that follows.
    let mut answers = answered(field, 1);
    // One of which nobody knows may still arrive.
    let unknown = field.completions(Kind::Commit, Stage::Info);
    let unknown: Vec<&Event> = unknown.iter().map(|at| &field.events[*at]).collect();
    let arrives = |key: &Option<String>| {
        unknown.iter().any(|commit| commit.key == *key && commit.offset == Some(0))
    };
    answers.retain(|at| !arrives(&field.events[*at].key));
    let at = field.any(&answers)?;
    field.events[at].offset = Some(0);
    Some(())
}

fn two_owners(field: &mut Field) -> Option<()> {
    let mut assigned = field.completions(Kind::Assigned, Stage::Ok);
    assigned.retain(|at| {
        let event = &field.events[*at];
        let same = |other: &Event| {
            other.f == Kind::Assigned
                && other.generation == event.generation
                && other.member != event.member
        };
        field.events.iter().any(same)
    });
    let at = field.any(&assigned)?;
    let second = field.events[at].member.as_deref() == Some(MEMBERS[1]);
    let other = if second { "a/0" } else { "b/0" };
    field.events[at].keys.push(other.to_owned());
    Some(())
}

/// An operation of `kind` that went well is now one of an older generation.
fn age(field: &mut Field, kind: Kind) -> Option<()> {
    let mut done = field.completions(kind, Stage::Ok);
    done.retain(|at| field.events[*at].generation > Some(0));
    let at = field.any(&done)?;
    let old = field.events[at].generation.map(|generation| generation - 1);
    let asked = field.invocation(at);
    (field.events[at].generation, field.events[asked].generation) = (old, old);
    Some(())
}

fn old_generation_lives(field: &mut Field) -> Option<()> {
    age(field, Kind::Heartbeat)
}

fn zombie_commits(field: &mut Field) -> Option<()> {
    age(field, Kind::Commit)
}
