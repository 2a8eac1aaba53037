//! The benchmark of consumer groups: what heartbeats and commits cost a broker that coordinates a
//! thousand groups of ten members, against empty requests on the same connections in the same run.
//!
//! `cargo run --release -p odradek-tests --bin bench_groups`, with a broker built before (`cargo
//! build --release`, or named by `BROKER_BIN`). Writes `tests/bench/groups.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark asks the clock")]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    ApiVersionsRequest, GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest,
    JoinGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};
use odradek_tests::client::{Client, topic};

const GROUPS: usize = 1000;
const MEMBERS: usize = 10;

/// Groups that are busy at a time, each with a connection for every member.
const CREWS: usize = 40;

/// How often each member says that it lives.
const HEARTBEATS: usize = 10;

/// How often each member commits a position.
const COMMITS: usize = 3;

const BROKERS: i8 = 4;
const TOPIC: &str = "topic";

/// A member and the generation it is in.
#[derive(Clone)]
struct Member {
    group: GroupId,
    id: kafka_protocol::protocol::StrBytes,
    generation: i32,
}

/// Connections that serve several groups, one after the other: member `n` of each on connection
/// `n`.
struct Crew {
    clients: Vec<Client>,
    members: Vec<Vec<Member>>,
}

/// A broker process, ended with this value.
struct Broker {
    child: Child,
    address: SocketAddr,
    data: PathBuf,
}

/// What was counted of one kind of request.
struct Measured {
    per_second: f64,
    processor_us: f64,
}

impl Broker {
    fn start(data: PathBuf) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let built = || root.join("target/release/odradek");
        let binary = std::env::var_os("BROKER_BIN").map_or_else(built, PathBuf::from);
        let child = Command::new(binary)
            .args(["--listen", &address.to_string(), "--log-level", "warn", "--data"])
            .arg(&data)
            .stdout(Stdio::null())
            .spawn()
            .expect("a broker: build it with cargo build --release");
        Self { child, address, data }
    }

    async fn client(&self) -> Client {
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Client::connect(self.address).await
    }

    fn processor_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11..13].iter().map(|it| it.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    fn resident_mib(&self) -> f64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 256.0
    }

    /// Bytes of the log that are in use: its files are filled with zeros beforehand.
    fn log_bytes(&self) -> usize {
        used_bytes(&self.data.join("log"))
    }
}

fn used_bytes(path: &Path) -> usize {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().map(|it| used_bytes(&it.unwrap().path())).sum();
    }
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Crew {
    async fn new(broker: &Broker) -> Self {
        let connections = (0..MEMBERS).map(|_| broker.client());
        Self { clients: join_all(connections).await, members: Vec::new() }
    }

    /// Forms a group: all join, and the leader gives everybody something.
    async fn form(&mut self, group: GroupId) {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name("range".into())
            .with_metadata(Bytes::from_static(b"\0\0\0\0\0\x01\0\x05topic\0\0\0\0"));
        let request = JoinGroupRequest::default()
            .with_group_id(group.clone())
            .with_session_timeout_ms(600_000)
            .with_rebalance_timeout_ms(600_000)
            .with_protocol_type("consumer".into())
            .with_protocols(vec![protocol]);
        let joins = self.clients.iter_mut().map(|client| client.call(3, &request));
        let joined = join_all(joins).await;
        let syncs = self.clients.iter_mut().zip(&joined).map(|(client, joined)| {
            assert_eq!(joined.error_code, 0, "{joined:?}");
            let request = SyncGroupRequest::default()
                .with_group_id(group.clone())
                .with_member_id(joined.member_id.clone())
                .with_generation_id(joined.generation_id);
            async move { client.call(1, &request).await }
        });
        join_all(syncs).await.iter().for_each(|synced| assert_eq!(synced.error_code, 0));
        let member = |joined: &kafka_protocol::messages::JoinGroupResponse| Member {
            group: group.clone(),
            id: joined.member_id.clone(),
            generation: joined.generation_id,
        };
        self.members.push(joined.iter().map(member).collect());
    }

    /// Whether the first group is taken seriously.
    async fn check(&mut self) {
        let member = &self.members[0][0];
        let heard = self.clients[0].call(1, &heartbeat(member, 0)).await;
        assert_eq!(heard.error_code, 0);
        let committed = self.clients[0].call(7, &commit(member, 0)).await;
        assert_eq!(committed.topics[0].partitions[0].error_code, 0);
    }

    /// Sends one request for every member, each connection one after the other.
    async fn speak<R>(&mut self, version: i16, request: impl Fn(&Member, usize) -> R + Copy)
    where
        R: kafka_protocol::protocol::Request,
    {
        let groups = &self.members;
        let connections = self.clients.iter_mut().enumerate();
        let all = connections.map(|(number, client)| async move {
            for members in groups {
                client.call(version, &request(&members[number], number)).await;
            }
        });
        join_all(all).await;
    }
}

fn heartbeat(member: &Member, _: usize) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(member.group.clone())
        .with_member_id(member.id.clone())
        .with_generation_id(member.generation)
}

fn commit(member: &Member, number: usize) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(i32::try_from(number).unwrap())
        .with_committed_offset(1_000_000);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic(TOPIC))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(member.group.clone())
        .with_member_id(member.id.clone())
        .with_generation_id_or_member_epoch(member.generation)
        .with_topics(vec![topic])
}

/// Runs `rounds` of requests of all members and measures them together.
async fn measure<R>(
    broker: &Broker,
    crews: &mut [Crew],
    rounds: usize,
    version: i16,
    request: impl Fn(&Member, usize) -> R + Copy,
) -> Measured
where
    R: kafka_protocol::protocol::Request,
{
    let (before, began) = (broker.processor_seconds(), Instant::now());
    for _ in 0..rounds {
        join_all(crews.iter_mut().map(|crew| crew.speak(version, request))).await;
    }
    let count = f64::from(u32::try_from(rounds * GROUPS * MEMBERS).unwrap());
    Measured {
        per_second: count / began.elapsed().as_secs_f64(),
        processor_us: (broker.processor_seconds() - before) * 1e6 / count,
    }
}

async fn set_rebalance_delay(client: &mut Client, ms: &str) {
    let config = AlterableConfig::default()
        .with_name("group.initial.rebalance.delay.ms".into())
        .with_value(Some(ms.to_owned().into()));
    let brokers =
        AlterConfigsResource::default().with_resource_type(BROKERS).with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![brokers]);
    let response = client.call(0, &request).await;
    assert_eq!(response.responses[0].error_code, 0);
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path().join("data"));
    let mut client = broker.client().await;
    set_rebalance_delay(&mut client, "200").await;
    client.create_topic(TOPIC, i32::try_from(MEMBERS).unwrap()).await;
    let mut crews = join_all((0..CREWS).map(|_| Crew::new(&broker))).await;
    let (resident, log) = (broker.resident_mib(), broker.log_bytes());
    let began = Instant::now();
    let forming = crews.iter_mut().enumerate().map(|(number, crew)| async move {
        for group in (number..GROUPS).step_by(CREWS) {
            crew.form(GroupId(format!("group-{group}").into())).await;
        }
    });
    join_all(forming).await;
    let formed = began.elapsed().as_secs_f64();
    let (resident_after, log_formed) = (broker.resident_mib(), broker.log_bytes());
    join_all(crews.iter_mut().map(Crew::check)).await;
    let empty = measure(&broker, &mut crews, HEARTBEATS, 0, |_, _| ApiVersionsRequest::default());
    let empty = empty.await;
    let heard = measure(&broker, &mut crews, HEARTBEATS, 1, heartbeat).await;
    let log_before = broker.log_bytes();
    let committed = measure(&broker, &mut crews, COMMITS, 7, commit).await;
    let bytes = |bytes: usize, count: usize| bytes / count;
    let text = format!(
        "# Results of the last run\n\n{} on {}, {} cores, odradek {}; 1,000 groups of 10 members, \
         {} connections with one request in flight each; files, synced before each answer; client \
         and broker share the cores, so figures are for comparing only.\n\n\
         | | a second | broker CPU us each | of an empty request |\n| --- | --- | --- | --- |\n\
         | ApiVersions | {:.0} | {:.1} | 1 |\n\
         | Heartbeat | {:.0} | {:.1} | {:.2} |\n\
         | OffsetCommit, one partition | {:.0} | {:.1} | {:.2} |\n\n\
         | | |\n| --- | --- |\n\
         | log bytes a commit | {} |\n\
         | log bytes for each member of a generation | {} |\n\
         | all groups formed in (200 ms of it waiting in each) | {formed:.1} s |\n\
         | resident, before and with the groups | {resident:.0}, {resident_after:.0} MiB |\n",
        said("date", &["-u", "+%Y-%m-%d"]),
        said("uname", &["-sr"]),
        said("nproc", &[]),
        env!("CARGO_PKG_VERSION"),
        CREWS * MEMBERS,
        empty.per_second,
        empty.processor_us,
        heard.per_second,
        heard.processor_us,
        heard.processor_us / empty.processor_us,
        committed.per_second,
        committed.processor_us,
        committed.processor_us / empty.processor_us,
        bytes(broker.log_bytes() - log_before, COMMITS * GROUPS * MEMBERS),
        bytes(log_formed - log, GROUPS * MEMBERS),
    );
    println!("{text}");
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/groups.md");
    fs::write(results, text).unwrap();
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output
        .map_or_else(|_| "?".to_owned(), |it| String::from_utf8_lossy(&it.stdout).trim().to_owned())
}
