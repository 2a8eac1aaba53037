//! Service that does not come back, is slow, or shows old things.

use super::{Field, Plant};
use crate::checker::Rule;
use crate::history::{Event, Kind, Mop, Stage};

macro_rules! plants {
    ($($name:ident $rule:ident,)*) => {
        pub(super) const PLANTS: &[Plant] = &[$(
            Plant { name: stringify!($name), rule: Rule::$rule, plant: $name },
        )*];
    };
}

plants! {
    no_service_after_healing L1,
    slow_after_healing L1,
    broker_ends_by_itself L1,
    value_not_shown L2,
    broker_does_not_come_up L3,
    slow_broker_slows_others P1,
}

const SECOND: u64 = 1_000_000;

/// A fault that comes and goes after everything else: when it is gone.
fn heal(field: &mut Field) -> u64 {
    let end = field.end() + SECOND;
    for (time, on) in [(end, true), (end + SECOND, false)] {
        let name = Some("store_down".to_owned());
        field.add(time, 99, Event { f: Kind::Fault, name, on: Some(on), ..Event::default() });
    }
    end + SECOND
}

/// Something at the end, so that time has gone by.
fn last(field: &mut Field, time: u64) {
    field.add(time, 4, Event { f: Kind::Note, ..Event::default() });
}

fn send(value: i64, offset: i64) -> Event {
    let mops = vec![Mop::Send { key: "c/0".to_owned(), value, offset: Some(offset) }];
    Event { f: Kind::Send, mops, ..Event::default() }
}

/// `count` sends one after the other from `from` on, each of which takes so long.
fn sends(field: &mut Field, from: u64, count: i64, took: u64) {
    let mut time = from;
    for number in 0..count {
        let offset = i64::try_from(from).unwrap() + number;
        field.operation((time, time + took), 5, send(5_500_000_000 + offset, offset));
        time += took + 1;
    }
}

fn no_service_after_healing(field: &mut Field) -> Option<()> {
    let healed = heal(field);
    for number in 0..5 {
        let began = healed + 1 + u64::try_from(number).unwrap() * SECOND;
        let lost = Event { stage: Stage::Info, ..send(5_900_000_000 + number, number) };
        field.operation((began, began + 2 * SECOND), 5, lost);
    }
    last(field, healed + 40 * SECOND);
    Some(())
}

fn slow_after_healing(field: &mut Field) -> Option<()> {
    // The first phase has to be long enough to know what is fast.
    field.events.iter_mut().for_each(|event| event.time_us += 10 * SECOND);
    sends(field, 1, 150, 1000);
    let healed = heal(field);
    sends(field, healed + 61 * SECOND, 120, 5 * SECOND);
    last(field, healed + 700 * SECOND);
    Some(())
}

fn broker_ends_by_itself(field: &mut Field) -> Option<()> {
    let time = field.end() / 2;
    field.add(time, 99, Event { f: Kind::Exited, broker: Some(1), ..Event::default() });
    Some(())
}

fn value_not_shown(field: &mut Field) -> Option<()> {
    let healed = heal(field);
    let offsets = [("c/0".to_owned(), 7)].into();
    let keys = vec!["c/0".to_owned()];
    let assign = Event { f: Kind::Assign, keys, offsets, ..Event::default() };
    field.operation((healed + 1, healed + 2), 4, assign);
    field.operation((healed + 3, healed + 4), 5, send(5_900_000_000, 7));
    for second in 1..13 {
        let began = healed + second * SECOND;
        let mops = vec![Mop::Poll(crate::history::Polled::default())];
        field.operation((began, began + 10), 4, Event { f: Kind::Poll, mops, ..Event::default() });
    }
    Some(())
}

fn broker_does_not_come_up(field: &mut Field) -> Option<()> {
    let healed = heal(field);
    let started = healed - SECOND / 2;
    field.add(started, 99, Event { f: Kind::Started, broker: Some(2), ..Event::default() });
    last(field, healed + 40 * SECOND);
    Some(())
}

fn slow_broker_slows_others(field: &mut Field) -> Option<()> {
    let from = field.end() + SECOND;
    let (f, name) = (Kind::Fault, Some("slow_broker".to_owned()));
    let slow = Event { f, name, broker: Some(2), on: Some(true), ..Event::default() };
    field.add(from, 99, slow);
    for number in 0..120 {
        let began = from + 1 + u64::try_from(number).unwrap() * 2 * SECOND;
        let event = Event { broker: Some(0), ..send(5_900_000_000 + number, number) };
        field.operation((began, began + 3 * SECOND / 2), 5, event);
    }
    Some(())
}
