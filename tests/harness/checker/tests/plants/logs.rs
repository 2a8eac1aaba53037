//! Bounds that are told wrongly, records that go too early, copies that are not exact.

use super::{Field, Plant};
use crate::checker::Rule;
use crate::history::{Event, Isolation, Kind, Stage};

macro_rules! plants {
    ($($name:ident $rule:ident,)*) => {
        pub(super) const PLANTS: &[Plant] = &[$(
            Plant { name: stringify!($name), rule: Rule::$rule, plant: $name },
        )*];
    };
}

plants! {
    stale_end R17,
    end_in_the_future R17,
    end_of_what_is_committed_goes_back R17,
    log_start_goes_back W1,
    stable_offset_above_the_high_watermark W1,
    read_past_the_stable_offset W1,
    record_gone_early RT1,
    value_copied_twice R15,
    value_not_copied R15,
}

/// Questions after the end of a key that were answered.
fn listed(field: &Field, isolation: Isolation) -> Vec<usize> {
    let mut listed = field.completions(Kind::ListOffsets, Stage::Ok);
    listed.retain(|at| field.isolation(field.events[*at].process) == Some(isolation));
    listed
}

/// The key that a completion is about.
fn key(field: &Field, at: usize) -> String {
    field.events[field.invocation(at)].key.clone().unwrap()
}

fn stale_end(field: &mut Field) -> Option<()> {
    let sent = field.sent(Stage::Ok);
    let mut stale = Vec::new();
    for at in listed(field, Isolation::ReadUncommitted) {
        let (key, began) = (key(field, at), field.events[field.invocation(at)].time_us);
        let before =
            |sent: &&super::Sent| sent.key == key && field.events[sent.event].time_us < began;
        stale.extend(sent.iter().filter(before).filter_map(|sent| Some((at, sent.offset?))));
    }
    let (at, offset) = field.any(&stale)?;
    field.events[at].end = Some(offset);
    Some(())
}

fn end_in_the_future(field: &mut Field) -> Option<()> {
    let sent = field.sent(Stage::Ok);
    let mut early = Vec::new();
    for at in field.completions(Kind::ListOffsets, Stage::Ok) {
        let (key, told) = (key(field, at), field.events[at].time_us);
        let after = |sent: &&super::Sent| {
            let asked = field.events[field.invocation(sent.event)].time_us;
            sent.key == key && asked > told && sent.offset.is_some()
        };
        early.extend(sent.iter().filter(after).filter_map(|sent| Some((at, sent.offset? + 1))));
    }
    let (at, end) = field.any(&early)?;
    field.events[at].end = Some(end);
    Some(())
}

fn end_of_what_is_committed_goes_back(field: &mut Field) -> Option<()> {
    let listed = listed(field, Isolation::ReadCommitted);
    let mut later = Vec::new();
    for &first in &listed {
        let (of, told) = (key(field, first), field.events[first].time_us);
        let after = |at: &&usize| {
            **at > first
                && key(field, **at) == of
                && field.events[field.invocation(**at)].time_us > told
        };
        let end = field.events[first].end.filter(|end| *end > 0);
        later.extend(listed.iter().filter(after).filter_map(|at| Some((*at, end? - 1))));
    }
    let (at, end) = field.any(&later)?;
    field.events[at].end = Some(end);
    Some(())
}

fn log_start_goes_back(field: &mut Field) -> Option<()> {
    let told = field.completions(Kind::Watermarks, Stage::Ok);
    let mut later = Vec::new();
    for &at in &told {
        let (of, began) = (key(field, at), field.events[field.invocation(at)].time_us);
        let before = |first: &usize| {
            field.events[*first].time_us < began
                && field.events[*first].broker == field.events[at].broker
                && key(field, *first) == of
        };
        later.extend(told.iter().copied().any(|first| before(&first)).then_some(at));
    }
    let at = field.any(&later)?;
    field.events[at].log_start = Some(-1);
    Some(())
}

fn stable_offset_above_the_high_watermark(field: &mut Field) -> Option<()> {
    let told = field.completions(Kind::Watermarks, Stage::Ok);
    let at = field.any(&told)?;
    field.events[at].stable = field.events[at].high.map(|high| high + 1);
    Some(())
}

fn read_past_the_stable_offset(field: &mut Field) -> Option<()> {
    let told = field.completions(Kind::Watermarks, Stage::Ok);
    let at = field.any(&told)?;
    let read: Vec<super::Read> = field.finally_read().into_iter().collect();
    let of = key(field, at);
    let last = read.into_iter().rfind(|read| read.key == of)?;
    let time = field.end() + 10;
    field.events[last.event].broker = Some(1);
    field.operation(
        (time, time + 1),
        4,
        Event {
            f: Kind::Watermarks,
            key: Some(of),
            broker: Some(1),
            log_start: Some(0),
            stable: Some(last.offset),
            high: Some(last.offset + 1),
            ..Event::default()
        },
    );
    Some(())
}

fn record_gone_early(field: &mut Field) -> Option<()> {
    let sent = field.sent(Stage::Ok);
    let mut early = Vec::new();
    for at in field.completions(Kind::Watermarks, Stage::Ok) {
        let (of, began) = (key(field, at), field.events[field.invocation(at)].time_us);
        let before = |sent: &&super::Sent| {
            sent.key == of && Field::is_kept(&of) && field.events[sent.event].time_us < began
        };
        early.extend(sent.iter().filter(before).filter_map(|sent| Some((at, sent.offset? + 1))));
    }
    let (at, start) = field.any(&early)?;
    field.events[at].log_start = Some(start);
    Some(())
}

/// Transactions of a pipeline that were committed and copied two values.
fn copying(field: &mut Field) -> Option<usize> {
    let mut copying = field.completions(Kind::Txn, Stage::Ok);
    copying.retain(|at| field.events[field.invocation(*at)].copies.len() > 1);
    let at = field.any(&copying)?;
    Some(field.invocation(at))
}

fn value_copied_twice(field: &mut Field) -> Option<()> {
    let at = copying(field)?;
    let copies = &mut field.events[at].copies;
    copies[1].0 = copies[0].0;
    Some(())
}

fn value_not_copied(field: &mut Field) -> Option<()> {
    let at = copying(field)?;
    let which = field.below(2);
    field.events[at].copies.remove(which);
    Some(())
}
