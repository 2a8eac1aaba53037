//! What has to be true once all is healed: everything comes to the end in time, every broker works,
//! everything is where it was said to be, and the store holds that and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odradek_protocol::id::TopicPartition;
use odradek_storage::engine::Engine;
use odradek_storage::fsck;
use odradek_storage::look::Look;
use odradek_storage::reader::Isolation;
use odradek_storage::state::State;
use tokio::time::{Instant, sleep};

use super::asker::Asker;
use super::reader::read_all;
use super::transactor::{INPUT, OUTPUT, PIPELINES};
use super::{CONVERGE_MAX, POLL, World, producer};
use crate::batches::BatchSpec;
use crate::client::produce_request;
use crate::groups;
use crate::transactions::{consumer, rules};
use crate::world::{check, settle};

/// How long it may take until the store has nothing but what is referred to.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// The topic that is written to when all is over.
pub(super) const LAST: &str = "last";

impl World {
    /// Waits until nobody feeds them any more, pipelines have come to the end, and nothing is open
    /// or late.
    pub(super) async fn drain(&self) {
        let mut limit = Instant::now() + CONVERGE_MAX;
        loop {
            // What lands late is more to do, and nobody can hurry it.
            if self.late() > 0 {
                limit = Instant::now() + CONVERGE_MAX;
            }
            let left = self.left().await;
            match left {
                None => break,
                Some(left) if Instant::now() > limit => {
                    self.accuse(format!("still to be done after {CONVERGE_MAX:?}: {left}"));
                    break;
                }
                Some(_) => sleep(POLL).await,
            }
        }
        self.lock().is_drained = true;
    }

    /// Calls that have yet to land.
    fn late(&self) -> usize {
        self.lock().ports.iter().map(|(_, ports)| ports.late()).sum()
    }

    async fn left(&self) -> Option<String> {
        let late = self.late();
        if late > 0 {
            return Some(format!("{late} calls that land late"));
        }
        if self.lock().brokers.len() < usize::try_from(self.plan.brokers).unwrap() {
            return Some("brokers that have not started".to_owned());
        }
        // Between two transactions one has nothing open, and has yet to commit the next.
        if self.lock().feeders.iter().any(|it| !it.is_finished()) {
            return Some("feeders at work".to_owned());
        }
        let engine = self.engine();
        if engine.machine.barrier().await.is_err() {
            return Some("no broker reaches the log".to_owned());
        }
        let open =
            |state: &State| state.transactions().ongoing().next().map(|it| format!("{it:?}"));
        if let Some(open) = engine.machine.read(open) {
            return Some(open);
        }
        for place in self.copied() {
            let mut at = position(&engine, place);
            loop {
                let isolation = Isolation::ReadCommitted;
                let Ok(chunk) = consumer::fetch(&engine, (place, at), 10_000, isolation).await
                else {
                    return Some(format!("{place} can't be read"));
                };
                if !chunk.records.is_empty() {
                    return Some(format!("{place} is copied up to {at}"));
                }
                if chunk.next >= chunk.watermarks.last_stable_offset.0 {
                    break;
                }
                at = chunk.next;
            }
        }
        None
    }

    /// The partitions that pipelines read.
    fn copied(&self) -> impl Iterator<Item = TopicPartition> {
        (0..self.pipelines()).map(|number| self.partition(INPUT, number))
    }

    /// Any broker's engine.
    pub(super) fn engine(&self) -> Engine {
        self.lock().brokers[0].engine.clone()
    }

    /// Judges everything. A broker that has seen nothing yet is one of those asked.
    pub(super) async fn judge(&self) {
        let place = self.new_place();
        self.start_broker(place, None).await;
        let mut asker = Asker::new(self.net.clone(), self.plan.seed ^ 99, self.began);
        let hosts = self.net.hosts();
        for host in &hosts {
            self.commits(&mut asker, host).await;
        }
        let fresh = super::site::host(place);
        let engine = self.with_one(place, |it| it.engine.clone()).unwrap();
        self.judge_plain(&mut asker, &fresh).await;
        self.judge_transactions(&mut asker, &hosts, &engine).await;
        let broken = groups::rules::check(&self.calls.calls());
        broken.into_iter().for_each(|it| self.accuse(format!("{}: {}", it.rule, it.how)));
        self.ledger.violations().into_iter().for_each(|it| {
            self.lock().violations.push(format!("{}: {}", it.rule, it.how));
        });
        settle(self.plan.seed, &self.objects, &engine, self.plan.stretched(SETTLE_MAX)).await;
        self.examine().await;
    }

    /// Every broker takes a record at once, with nothing wrong any more.
    async fn commits(&self, asker: &mut Asker, host: &str) {
        let batch = BatchSpec::of(["last"].map(str::as_bytes)).encode();
        let request = produce_request(LAST, 0, -1, batch);
        let began = Instant::now();
        let mut told = None;
        // The first may meet a connection that a waking broker closes.
        for _ in 0..2 {
            told = asker.ask(host, 9, &request).await;
            if told.is_some() {
                break;
            }
        }
        let code =
            told.map(|mut it| it.responses.remove(0).partition_responses.remove(0).error_code);
        if code != Some(0) {
            self.accuse(format!("{host} takes nothing after {:?}: {code:?}", began.elapsed()));
        }
    }

    async fn judge_plain(&self, asker: &mut Asker, host: &str) {
        let mut found: BTreeMap<TopicPartition, Vec<(i64, Bytes)>> = BTreeMap::new();
        for partition in 0..self.plan.partitions {
            let place = (producer::TOPIC, partition);
            let Some(all) = read_all(self, asker, host, place, false).await else { return };
            found.insert(self.partition(producer::TOPIC, partition), all.records);
        }
        let sent: Vec<_> = self.lock().sent.iter().flatten().cloned().collect();
        check(self.plan.seed, &sent, &found);
    }

    async fn judge_transactions(&self, asker: &mut Asker, hosts: &[String], engine: &Engine) {
        let mut outcome = rules::Outcome::default();
        let all = [INPUT, OUTPUT].map(|name| (0..self.plan.partitions).map(move |it| (name, it)));
        let all: Vec<(&str, i32)> = all.into_iter().flatten().collect();
        for host in hosts {
            let mut shown = BTreeMap::new();
            for place in &all {
                let Some(chunk) = read_all(self, asker, host, *place, true).await else { return };
                shown.insert(self.partition(place.0, place.1), chunk);
            }
            outcome.shown.push(shown);
        }
        for (name, partition) in &all {
            let place = self.partition(name, *partition);
            outcome.log.insert(place, consumer::log(engine, place).await);
        }
        let input: BTreeMap<_, _> = self.copied().map(|it| (it, position(engine, it))).collect();
        if !input.is_empty() {
            let output = (0..self.plan.partitions).map(|it| self.partition(OUTPUT, it)).collect();
            outcome.groups.push(rules::Copying { group: PIPELINES.to_owned(), input, output });
        }
        rules::check(&self.ledger, &outcome);
    }

    /// As an operator does.
    async fn examine(&self) {
        let look = Look::new(Arc::new(self.objects.clone()), Arc::new(self.log.clone()));
        let options = fsck::Options { deep: true, ..fsck::Options::default() };
        match fsck::run(&look, &options).await {
            Ok(report) if report.findings.is_empty() && report.unknown.is_empty() => {}
            Ok(report) => self.accuse(format!("{:?} {:?}", report.findings, report.unknown)),
            Err(error) => self.accuse(format!("nothing to be seen: {error}")),
        }
    }
}

/// Where pipelines stand in a partition.
fn position(engine: &Engine, place: TopicPartition) -> i64 {
    engine.machine.read(|state| {
        let positions = state.groups().positions(PIPELINES);
        positions.and_then(|it| it.get(&place)).map_or(0, |it| it.offset.0)
    })
}
