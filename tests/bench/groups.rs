//! The benchmark of groups: what heartbeats and commits cost a broker that coordinates a thousand
//! groups of ten members, against empty requests on the same connections in the same run.
//!
//! `cargo run --release -p odradek-tests --features benches --bin bench_groups`, with a broker
//! built before (`cargo build --release`, or named by `BROKER_BIN`). Writes
//! `tests/bench/groups.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark asks the clock")]

use std::fs;
use std::path::Path;
use std::time::Instant;

use futures::future::join_all;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    ApiVersionsRequest, GroupId, IncrementalAlterConfigsRequest, OffsetCommitResponse,
};
use kafka_protocol::protocol::Request;
use odradek_tests::client::Client;
use odradek_tests::process::{BrokerProcess, how_built};

mod crew;
mod log_bytes;
mod machine;

use crew::{Crew, MEMBERS, Member, TOPIC};
use log_bytes::log_bytes;
use machine::{load, machine};

const GROUPS: usize = 1000;

/// Groups that are busy at a time, each with a connection for every member.
const CREWS: usize = 40;

/// How often each member sends each kind of request.
const ROUNDS: usize = 10;

/// What a new group waits for more members, each time one came.
const DELAY_MS: u32 = 200;

/// Type of resource of `IncrementalAlterConfigs`.
const BROKERS: i8 = 4;

/// What was counted of one kind of request.
struct Measured {
    per_second: f64,
    processor_us: f64,
}

/// Measures the same request of all members, each connection sending one after the other. Nothing
/// may be refused.
async fn measure<R: Request>(
    broker: &BrokerProcess,
    crews: &mut [Crew],
    version: i16,
    request: impl Fn(&Member, i32) -> R + Copy,
    error: impl Fn(&R::Response) -> i16 + Copy,
) -> Measured {
    let (before, began) = (broker.process.processor_seconds(), Instant::now());
    let connections = crews.iter_mut().flat_map(|crew| {
        let groups = &crew.groups;
        crew.clients.iter_mut().zip(0..).map(move |(client, number)| async move {
            let position = usize::try_from(number).unwrap();
            for members in (0..ROUNDS).flat_map(|_| groups) {
                let request = request(&members[position], number);
                let response = client.call(version, &request).await;
                assert_eq!(error(&response), 0, "refused: request {}", R::KEY);
            }
        })
    });
    join_all(connections).await;
    let count = f64::from(u32::try_from(ROUNDS * GROUPS * MEMBERS).unwrap());
    Measured {
        per_second: count / began.elapsed().as_secs_f64(),
        processor_us: (broker.process.processor_seconds() - before) * 1e6 / count,
    }
}

impl Measured {
    fn row(&self, what: &str, empty: &Self) -> String {
        let ratio = self.processor_us / empty.processor_us;
        format!("| {what} | {:.0} | {:.1} | {ratio:.2} |\n", self.per_second, self.processor_us)
    }
}

async fn set_rebalance_delay(client: &mut Client) {
    let config = AlterableConfig::default()
        .with_name("group.initial.rebalance.delay.ms".into())
        .with_value(Some(DELAY_MS.to_string().into()));
    let brokers =
        AlterConfigsResource::default().with_resource_type(BROKERS).with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![brokers]);
    let response = client.call(0, &request).await;
    assert_eq!(response.responses[0].error_code, 0);
}

/// Has every crew form its share of the groups; the seconds it took.
async fn form(crews: &mut [Crew], kind: &str, form: impl AsyncFn(&mut Crew, GroupId)) -> f64 {
    let began = Instant::now();
    let form = &form;
    let forming = crews.iter_mut().enumerate().map(|(number, crew)| async move {
        for group in (number..GROUPS).step_by(CREWS) {
            form(crew, GroupId(format!("{kind}-{group}").into())).await;
        }
    });
    join_all(forming).await;
    began.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let before = load();
    let data = folder.path().join("data");
    let broker = BrokerProcess::in_folder(&data, &[]);
    let mut client = broker.client().await;
    set_rebalance_delay(&mut client).await;
    client.create_topic(TOPIC, i32::try_from(MEMBERS).unwrap()).await;
    let mut crews = Vec::new();
    for _ in 0..CREWS {
        crews.push(Crew::new(broker.address).await);
    }
    let (resident, log) = (broker.process.resident_mib(), log_bytes(&data));
    let formed = form(&mut crews, "classic", Crew::form_classic).await;
    let (with_groups, log_formed) = (broker.process.resident_mib(), log_bytes(&data));
    let nothing = |_: &Member, _| ApiVersionsRequest::default();
    let empty = measure(&broker, &mut crews, 0, nothing, |it| it.error_code).await;
    let heard = measure(&broker, &mut crews, 1, crew::heartbeat, |it| it.error_code).await;
    let log_heard = log_bytes(&data);
    let code = |it: &OffsetCommitResponse| it.topics[0].partitions[0].error_code;
    let committed = measure(&broker, &mut crews, 7, crew::commit, code).await;
    let log_committed = log_bytes(&data);
    crews.iter_mut().for_each(|crew| crew.groups.clear());
    let formed_consumer = form(&mut crews, "consumer", Crew::form_consumer).await;
    let with_all = broker.process.resident_mib();
    let consumer = crew::consumer_heartbeat;
    let heard_consumer = measure(&broker, &mut crews, 1, consumer, |it| it.error_code).await;
    let rows = [
        empty.row("ApiVersions", &empty),
        heard.row("Heartbeat", &empty),
        heard_consumer.row("ConsumerGroupHeartbeat, nothing new", &empty),
        committed.row("OffsetCommit, one partition", &empty),
    ];
    let text = format!(
        "# Results of the last run\n\n{}\n\n\
         {GROUPS} groups of {MEMBERS} members, first classic ones, then as many of the consumer\n\
         protocol; {} connections with one request in flight each. Files, synced before a commit\n\
         is answered. Client and broker share the cores, so figures are for comparing only.\n\n\
         | | a second | broker CPU us each | of an empty request |\n| --- | --- | --- | --- |\n{}\n\
         | | |\n| --- | --- |\n\
         | log bytes a commit | {} |\n\
         | log bytes a member of a classic generation | {} |\n\
         | classic groups formed, {CREWS} at a time (each waits {} ms, and again as members \
         came) | {formed:.1} s |\n\
         | consumer groups formed, {CREWS} at a time | {formed_consumer:.1} s |\n\
         | resident, with the connections only | {resident:.0} MiB |\n\
         | resident, with the classic groups | {with_groups:.0} MiB |\n\
         | resident, after the commits and with the consumer groups too | {with_all:.0} MiB |\n",
        machine(how_built(), &before),
        CREWS * MEMBERS,
        rows.concat(),
        (log_committed - log_heard) / (ROUNDS * GROUPS * MEMBERS),
        (log_formed - log) / (GROUPS * MEMBERS),
        DELAY_MS,
    );
    println!("{text}");
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/groups.md");
    fs::write(results, text).unwrap();
}
