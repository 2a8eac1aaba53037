//! Outages that everybody sees and that last for long: a world that works, is cut off, and must be
//! back at once, with no broker ended or started again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::asker::{Asker, GROUP};
use super::conditions::Condition;
use super::fault::Fault;
use super::plan::{Clients, Plan};
use super::transactor::committed;
use super::{POLL, Report, World, judge, member, producer};
use crate::batches::BatchSpec;
use crate::client::produce_request;
use crate::groups::paused;

/// How long everything works before.
const BEFORE: Duration = Duration::from_secs(20);

/// What is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// No call to the store gets through.
    Store,
    /// No call to the log.
    Log,
    /// Neither.
    Both,
    /// Most calls to both are told to slow down, or only get through when they have waited.
    Storm,
}

impl Outage {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Store, Self::Log, Self::Both, Self::Storm];

    fn conditions(self) -> Vec<Condition> {
        let (faults, strength): (&[Fault], f64) = match self {
            Self::Store => (&[Fault::StoreOutage], 1.0),
            Self::Log => (&[Fault::LogOutage], 1.0),
            Self::Both => (&[Fault::StoreOutage, Fault::LogOutage], 1.0),
            Self::Storm => (&[Fault::StoreThrottle, Fault::LogThrottle], 15.0),
        };
        faults.iter().map(|fault| Condition { fault: *fault, place: None, strength }).collect()
    }
}

/// What came of an outage.
#[derive(Debug)]
pub struct Outlived {
    /// How long after its end every broker took records and knew the groups again.
    pub served_after: Duration,
    /// Bytes that requests in flight took at most while it lasted, and those that they may.
    pub request_bytes: (usize, usize),
    /// Brokers that were started: those of the beginning, one that was started in the outage, and
    /// the one that looks at what is left.
    pub started: u64,
    /// The rest.
    pub report: Report,
}

/// Lets a world without other faults live through an outage of this length, in the middle of which
/// a broker more is started.
pub fn outlive(seed: u64, outage: Outage, length: Duration) -> Outlived {
    paused(async move {
        let plan = Plan {
            faults: Default::default(),
            brokers: 3,
            // Or clients do nothing but try again.
            stretch: 20,
            // Clients do not stop before it is over.
            duration: BEFORE * 3 + length,
            clients: Clients { producers: 2, readers: 1, members: 2, ..Clients::default() },
            ..Plan::of(seed)
        };
        let world = World::new(plan);
        world.begin().await;
        let clients = world.clients();
        let watching = tokio::spawn(world.clone().watch());
        sleep(BEFORE).await;

        world.say(&format!("{outage:?} for {length:?}"));
        world.lock().conditions = outage.conditions();
        world.befall_all();
        let began = Instant::now();
        let latecomer = world.new_place();
        let mut request_bytes = (0, 0);
        let mut is_started = false;
        while began.elapsed() < length {
            if began.elapsed() > length / 2 && !is_started {
                world.spawn_broker(latecomer, None);
                is_started = true;
            }
            for broker in &world.lock().brokers {
                request_bytes = request_bytes.max(broker.request_bytes());
            }
            sleep(POLL).await;
        }
        let ended = Instant::now();
        world.heal();
        world.serve(4).await;
        let served_after = ended.elapsed();

        sleep(world.end - Instant::now()).await;
        let report = world.finish(clients, watching).await;
        Outlived { served_after, request_bytes, started: report.started, report }
    })
}

impl World {
    /// Waits until so many brokers take records and know the groups.
    async fn serve(&self, brokers: usize) {
        while self.net.hosts().len() < brokers {
            sleep(POLL).await;
        }
        for host in self.net.hosts() {
            let mut asker = Asker::new(self.net.clone(), self.plan.seed ^ 55, self.began);
            while !self.takes(&mut asker, &host).await || !self.coordinates(&mut asker).await {
                sleep(POLL).await;
            }
        }
    }

    async fn takes(&self, asker: &mut Asker, host: &str) -> bool {
        let batch = BatchSpec::of(["after"].map(str::as_bytes)).encode();
        let request = produce_request(judge::LAST, 0, -1, batch);
        let told = asker.ask(host, 9, &request).await;
        told.is_some_and(|it| it.responses[0].partition_responses[0].error_code == 0)
    }

    /// Whether somebody knows what a group has committed.
    async fn coordinates(&self, asker: &mut Asker) -> bool {
        let Some(host) = asker.coordinator(member::NAME, GROUP).await else { return false };
        committed(asker, &host, member::NAME, (producer::TOPIC, 0)).await.is_some()
    }
}
