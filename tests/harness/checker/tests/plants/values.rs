//! Values that are lost, duplicated, swapped, torn, or shown to whom they should not be.

use super::{Field, Plant, Read, Sent};
use crate::checker::Rule;
use crate::history::{Isolation, Kind, Mop, Stage};

macro_rules! plants {
    ($($name:ident $rule:ident,)*) => {
        pub(super) const PLANTS: &[Plant] = &[$(
            Plant { name: stringify!($name), rule: Rule::$rule, plant: $name },
        )*];
    };
}

plants! {
    two_values_at_one_offset R1,
    neighbours_swapped_for_one_reader R1,
    value_at_two_offsets R2,
    value_lost R3,
    last_value_lost R4,
    aborted_value_read R5,
    failed_value_read R5,
    own_value_read R6,
    value_left_out_of_a_poll R7,
    poll_out_of_order R7,
    value_left_out_between_polls R8,
    value_read_again R8,
    sends_reordered R9,
    sends_reordered_within_an_operation R10,
    value_read_before_it_was_sent R12,
    transactions_read_each_other R12,
    committed_transaction_torn R14,
    unknown_transaction_torn R14,
    aborted_transaction_partly_visible R14,
    transaction_of_the_old_protocol_torn TV1,
    acknowledged_elsewhere R16,
    acknowledged_nowhere R16,
    offset_acknowledged_twice R16,
    read_in_another_partition I1,
    read_and_never_sent I1,
    says_that_it_belongs_elsewhere I1,
}

/// A value of the final polls that another reader saw as well, or of any if there is none.
fn seen_twice(field: &mut Field) -> Option<Read> {
    let read = field.read();
    let mut counts = std::collections::BTreeMap::new();
    read.iter().for_each(|read| *counts.entry(read.value).or_insert(0) += 1);
    let twice: Vec<Read> = read.into_iter().filter(|read| counts[&read.value] > 2).collect();
    field.any(&twice)
}

fn two_values_at_one_offset(field: &mut Field) -> Option<()> {
    let one = seen_twice(field)?;
    let others: Vec<Read> = field.read().into_iter().filter(|it| it.value != one.value).collect();
    let other = field.any(&others)?.value;
    field.list(&one)[one.at].1 = other;
    Some(())
}

fn neighbours_swapped_for_one_reader(field: &mut Field) -> Option<()> {
    let pairs: Vec<Read> = field.read().into_iter().filter(|read| read.at > 0).collect();
    let read = field.any(&pairs)?;
    let list = field.list(&read);
    (list[read.at].1, list[read.at - 1].1) = (list[read.at - 1].1, list[read.at].1);
    Some(())
}

fn value_at_two_offsets(field: &mut Field) -> Option<()> {
    let finals: Vec<Read> = field.finally_read();
    let idempotent: Vec<Read> =
        finals.iter().filter(|read| read.value / 1_000_000_000 != 2).cloned().collect();
    let read = field.any(&idempotent)?;
    let last = finals.iter().rfind(|other| other.key == read.key)?;
    field.also_read(last.event, &read.key, last.offset + 7, read.value);
    Some(())
}

fn value_lost(field: &mut Field) -> Option<()> {
    let sent = field.sent(Stage::Ok);
    let lost = field.finally_read().into_iter().collect::<Vec<_>>();
    let not_last = |read: &&Read| {
        lost.iter().any(|other| other.key == read.key && other.offset > read.offset)
            && sent.iter().any(|sent| sent.value == read.value)
            && Field::is_kept(&read.key)
    };
    let candidates: Vec<Read> = lost.iter().filter(not_last).cloned().collect();
    let value = field.any(&candidates)?.value;
    field.unread(value);
    Some(())
}

fn last_value_lost(field: &mut Field) -> Option<()> {
    let finals = field.finally_read();
    let sent = field.sent(Stage::Ok);
    let is_last = |read: &&Read| {
        let after = finals.iter().any(|other| other.key == read.key && other.offset > read.offset);
        !after && sent.iter().any(|sent| sent.value == read.value)
    };
    let lasts: Vec<Read> = finals.iter().filter(is_last).cloned().collect();
    let last = field.any(&lasts)?;
    // What is not committed may stand behind it, and be read by those who ask for everything.
    let behind: Vec<i64> = field
        .read()
        .iter()
        .filter(|it| it.key == last.key)
        .map(|it| if it.offset > last.offset { it.value } else { last.value })
        .collect();
    behind.into_iter().for_each(|value| field.unread(value));
    Some(())
}

/// A value that was not committed, with the operation that did not commit it.
fn aborted(field: &mut Field, tv: u8) -> Option<Sent> {
    let mut sent = field.sent(Stage::Fail);
    let old = |sent: &Sent| (field.events[sent.event].process == 3) == (tv == 1);
    sent.retain(|sent| field.events[sent.event].f == Kind::Txn && old(sent));
    field.any(&sent)
}

fn aborted_value_read(field: &mut Field) -> Option<()> {
    let sent = aborted(field, 2)?;
    let finals = field.finally_read();
    let reader = finals.last()?.event;
    field.also_read(reader, &sent.key, sent.offset?, sent.value);
    Some(())
}

fn failed_value_read(field: &mut Field) -> Option<()> {
    let sends: Vec<Sent> = field
        .sent(Stage::Ok)
        .into_iter()
        .filter(|sent| field.events[sent.event].f == Kind::Send)
        .collect();
    let sent = field.any(&sends)?;
    let event = &mut field.events[sent.event];
    event.stage = Stage::Fail;
    Some(())
}

fn own_value_read(field: &mut Field) -> Option<()> {
    let mut sent = field.sent(Stage::Ok);
    sent.retain(|sent| field.events[sent.event].f == Kind::Txn);
    let sent = field.any(&sent)?;
    field.also_read(sent.event, &sent.key, sent.offset?, sent.value);
    Some(())
}

fn value_left_out_of_a_poll(field: &mut Field) -> Option<()> {
    let finals = field.finally_read();
    let inside = |read: &&Read| {
        let next = |other: &Read| {
            (other.event, other.mop, other.list, other.at)
                == (read.event, read.mop, read.list, read.at + 1)
        };
        read.at > 0 && Field::is_kept(&read.key) && finals.iter().any(next)
    };
    let inside: Vec<Read> = finals.iter().filter(inside).cloned().collect();
    let read = field.any(&inside)?;
    field.list(&read).remove(read.at);
    Some(())
}

fn poll_out_of_order(field: &mut Field) -> Option<()> {
    let pairs: Vec<Read> = field.read().into_iter().filter(|read| read.at > 0).collect();
    let read = field.any(&pairs)?;
    field.list(&read).swap(read.at, read.at - 1);
    Some(())
}

/// The first value of a key in a poll of a final reader, after another poll of that key.
fn first_of_poll(field: &mut Field) -> Option<(Read, Read)> {
    let finals = field.finally_read();
    let mut pairs = Vec::new();
    for read in finals.iter().filter(|read| read.at == 0 && Field::is_kept(&read.key)) {
        let before = |other: &&Read| other.key == read.key && other.event < read.event;
        let after = |other: &Read| other.key == read.key && other.offset > read.offset;
        if let Some(before) = finals.iter().rfind(before)
            && finals.iter().any(after)
        {
            pairs.push((before.clone(), read.clone()));
        }
    }
    field.any(&pairs)
}

fn value_left_out_between_polls(field: &mut Field) -> Option<()> {
    let (_, read) = first_of_poll(field)?;
    field.list(&read).remove(0);
    Some(())
}

fn value_read_again(field: &mut Field) -> Option<()> {
    let (before, read) = first_of_poll(field)?;
    field.list(&read).insert(0, (before.offset, before.value));
    Some(())
}

/// As if two values had come to each other's offset.
fn exchange(field: &mut Field, one: &Sent, two: &Sent) {
    for (sent, offset) in [(one, two.offset), (two, one.offset)] {
        let Mop::Send { offset: told, .. } = &mut field.events[sent.event].mops[sent.mop] else {
            panic!("no send: {sent:?}")
        };
        *told = offset;
    }
    for (_, value) in field.polls().flatten() {
        if *value == one.value {
            *value = two.value;
        } else if *value == two.value {
            *value = one.value;
        }
    }
}

fn sends_reordered(field: &mut Field) -> Option<()> {
    let mut sent = field.sent(Stage::Ok);
    sent.retain(|sent| sent.offset.is_some() && Field::is_kept(&sent.key));
    let one = field.any(&sent)?;
    let began = |field: &Field, sent: &Sent| field.events[field.invocation(sent.event)].time_us;
    let ended = field.events[one.event].time_us;
    sent.retain(|two| two.key == one.key && began(field, two) > ended);
    let two = field.any(&sent)?;
    exchange(field, &one, &two);
    Some(())
}

fn sends_reordered_within_an_operation(field: &mut Field) -> Option<()> {
    let mut sent = field.sent(Stage::Ok);
    sent.retain(|sent| sent.offset.is_some() && field.events[sent.event].process != 2);
    let mut pairs = Vec::new();
    for one in &sent {
        let beside =
            |two: &&Sent| two.event == one.event && two.key == one.key && two.mop > one.mop;
        pairs.extend(sent.iter().filter(beside).map(|two| (one.clone(), two.clone())));
    }
    let (one, two) = field.any(&pairs)?;
    exchange(field, &one, &two);
    Some(())
}

fn value_read_before_it_was_sent(field: &mut Field) -> Option<()> {
    let finals: Vec<Read> = field.finally_read();
    let read = field.any(&finals)?;
    let writers = |event: &crate::history::Event| {
        let is_it = |mop: &Mop| matches!(mop, Mop::Send { value, .. } if *value == read.value);
        event.stage == Stage::Invoke && event.mops.iter().any(is_it)
    };
    let sent = field.events.iter().position(writers)?;
    let time = field.events[sent].time_us;
    let mut polls = field.completions(Kind::Poll, Stage::Ok);
    polls.retain(|poll| {
        let event = &field.events[*poll];
        event.time_us < time && field.isolation(event.process) == Some(Isolation::ReadCommitted)
    });
    let poll = field.any(&polls)?;
    field.also_read(poll, &read.key, read.offset, read.value);
    Some(())
}

fn transactions_read_each_other(field: &mut Field) -> Option<()> {
    let mut sent = field.sent(Stage::Ok);
    sent.retain(|it| field.events[it.event].f == Kind::Txn && it.offset.is_some());
    let mut pairs = Vec::new();
    for one in &sent {
        for two in sent.iter().filter(|two| two.event > one.event) {
            let overlap =
                field.events[field.invocation(two.event)].time_us < field.events[one.event].time_us;
            if !overlap {
                break;
            }
            pairs.push((one.clone(), two.clone()));
        }
    }
    let (one, two) = field.any(&pairs)?;
    field.also_read(one.event, &two.key, two.offset?, two.value);
    field.also_read(two.event, &one.key, one.offset?, one.value);
    Some(())
}

/// A transaction that ended at `stage`, of which nothing but one of two values is read.
fn tear(field: &mut Field, stage: Stage, old: bool) -> Option<()> {
    let finals: Vec<i64> = field.finally_read().iter().map(|read| read.value).collect();
    let mut sent = field.sent(stage);
    sent.retain(|it| {
        let event = &field.events[it.event];
        let visible = finals.contains(&it.value) && Field::is_kept(&it.key);
        event.f == Kind::Txn && (event.process == 3) == old && visible
    });
    let mut torn = Vec::new();
    for one in &sent {
        let beside = sent.iter().any(|two| two.event == one.event && two.value != one.value);
        if beside {
            torn.push(one.value);
        }
    }
    let value = field.any(&torn)?;
    field.unread(value);
    Some(())
}

fn committed_transaction_torn(field: &mut Field) -> Option<()> {
    tear(field, Stage::Ok, false)
}

fn unknown_transaction_torn(field: &mut Field) -> Option<()> {
    tear(field, Stage::Info, false)
}

fn transaction_of_the_old_protocol_torn(field: &mut Field) -> Option<()> {
    tear(field, Stage::Ok, true)
}

fn aborted_transaction_partly_visible(field: &mut Field) -> Option<()> {
    aborted_value_read(field)
}

fn told(field: &mut Field, sent: &Sent, offset: i64) {
    let Mop::Send { offset: told, .. } = &mut field.events[sent.event].mops[sent.mop] else {
        panic!("no send: {sent:?}")
    };
    *told = Some(offset);
}

/// A value of an idempotent producer that was acknowledged and is read in the end.
fn acknowledged(field: &mut Field) -> Option<Sent> {
    let finals: Vec<i64> = field.finally_read().iter().map(|read| read.value).collect();
    let mut sent = field.sent(Stage::Ok);
    sent.retain(|it| finals.contains(&it.value) && field.events[it.event].process != 2);
    field.any(&sent)
}

fn acknowledged_elsewhere(field: &mut Field) -> Option<()> {
    let sent = acknowledged(field)?;
    told(field, &sent, sent.offset? + 1_000_000);
    Some(())
}

fn acknowledged_nowhere(field: &mut Field) -> Option<()> {
    let sent = acknowledged(field)?;
    told(field, &sent, -1);
    Some(())
}

fn offset_acknowledged_twice(field: &mut Field) -> Option<()> {
    let sent = acknowledged(field)?;
    let mut others = field.sent(Stage::Ok);
    others.retain(|other| other.key == sent.key && other.value != sent.value);
    let other = field.any(&others)?;
    told(field, &sent, other.offset?);
    Some(())
}

fn read_in_another_partition(field: &mut Field) -> Option<()> {
    let read = field.read();
    let read = field.any(&read)?;
    let others = ["a/0", "a/1", "b/0", "b/1"].map(str::to_owned);
    let others: Vec<String> = others.into_iter().filter(|key| *key != read.key).collect();
    let other = field.any(&others)?;
    field.also_read(read.event, &other, 1_000_000, read.value);
    Some(())
}

fn read_and_never_sent(field: &mut Field) -> Option<()> {
    let read = field.read();
    let read = field.any(&read)?;
    field.list(&read)[read.at].1 = -77;
    Some(())
}

fn says_that_it_belongs_elsewhere(field: &mut Field) -> Option<()> {
    let (time, key) = (field.end() / 2, Some("a/0".to_owned()));
    let offset = i64::try_from(field.below(100)).ok();
    field.add(
        time,
        4,
        crate::history::Event {
            f: Kind::Misplaced,
            key,
            offset,
            ..crate::history::Event::default()
        },
    );
    Some(())
}
