//! The contestants: how each is started, and what its acknowledgement means.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, DeleteTopicsRequest, FetchRequest, ProduceRequest,
};
use kafka_protocol::protocol::Request;
use odradek_tests::client::{Client, topic};
use odradek_tests::process::{Process, built, free_address};

/// The versions that the load generator speaks: the last ones that name topics by their names.
const PRODUCE_MAX: i16 = 12;
const FETCH_MAX: i16 = 12;

/// Kafka's own start script: its heap is named in the report.
const JVM: [&str; 6] = [
    "-Xms1g",
    "-Xmx1g",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

/// Whom Odradek is compared with.
pub(crate) enum Rival {
    Kafka,
    /// Another build of Odradek.
    Build(PathBuf),
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    RivalUnsynced,
    OdradekMemory,
    RivalSynced,
    OdradekFiles,
}

impl Kind {
    /// In the order of a round: those whose acknowledgements mean the same are neighbours.
    pub(crate) const ALL: [Self; 4] =
        [Self::RivalUnsynced, Self::OdradekMemory, Self::RivalSynced, Self::OdradekFiles];
}

impl Rival {
    pub(crate) fn name(&self, kind: Kind) -> &'static str {
        match (self, kind) {
            (_, Kind::OdradekMemory) => "Odradek, memory",
            (_, Kind::OdradekFiles) => "Odradek, files",
            (Self::Kafka, Kind::RivalUnsynced) => "Kafka, page cache",
            (Self::Kafka, Kind::RivalSynced) => "Kafka, flush.messages=1",
            (Self::Build(_), Kind::RivalUnsynced) => "the other build, memory",
            (Self::Build(_), Kind::RivalSynced) => "the other build, files",
        }
    }

    /// What a producer with acks=all may rely on.
    pub(crate) fn acknowledged_means(&self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::Kafka, Kind::RivalUnsynced) => {
                "the one replica has written to the page cache; nothing synced"
            }
            (Self::Kafka, Kind::RivalSynced) => "the one replica has called fsync after the append",
            (_, Kind::RivalUnsynced | Kind::OdradekMemory) => {
                "in stores in the broker's own memory; nothing is kept"
            }
            (_, Kind::RivalSynced | Kind::OdradekFiles) => {
                "segment and log entry are synced to files"
            }
        }
    }
}

/// A broker that takes part.
pub(crate) struct Contestant {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

/// Versions of requests that all contestants and the load generator understand.
#[derive(Clone, Copy)]
pub(crate) struct Versions {
    pub(crate) produce: i16,
    pub(crate) fetch: i16,
}

impl Default for Versions {
    fn default() -> Self {
        Self { produce: PRODUCE_MAX, fetch: FETCH_MAX }
    }
}

impl Contestant {
    /// Starts it in a folder of its own, and waits until it answers.
    pub(crate) async fn start(kind: Kind, rival: &Rival, folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let address = free_address();
        let process = match (kind, rival) {
            (Kind::OdradekMemory, _) => odradek(&built(), None, address),
            (Kind::OdradekFiles, _) => odradek(&built(), Some(folder), address),
            (Kind::RivalUnsynced, Rival::Build(binary)) => odradek(binary, None, address),
            (Kind::RivalSynced, Rival::Build(binary)) => odradek(binary, Some(folder), address),
            (Kind::RivalUnsynced, Rival::Kafka) => kafka("", folder, address),
            (Kind::RivalSynced, Rival::Kafka) => {
                kafka("log.flush.interval.messages=1\n", folder, address)
            }
        };
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { process, address }
    }

    /// These versions, or the older ones that this broker knows.
    pub(crate) async fn agree(&self, versions: Versions) -> Versions {
        let mut client = Client::connect(self.address).await;
        let answer = client.call(0, &ApiVersionsRequest::default()).await;
        Versions {
            produce: versions.produce.min(newest::<ProduceRequest>(&answer)),
            fetch: versions.fetch.min(newest::<FetchRequest>(&answer)),
        }
    }

    /// Creates a topic.
    pub(crate) async fn create(&self, name: &str, partitions: i32) {
        let mut client = Client::connect(self.address).await;
        // The records are of long ago.
        client.create_topic_with(name, partitions, &[("retention.ms", "-1")]).await;
    }

    /// Deletes a topic.
    pub(crate) async fn delete(&self, name: &str) {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic(name)])
            .with_timeout_ms(9_000);
        let mut client = Client::connect(self.address).await;
        let answer = client.call(5, &request).await;
        assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    }
}

fn newest<R: Request>(answer: &ApiVersionsResponse) -> i16 {
    answer.api_keys.iter().find(|it| it.api_key == R::KEY).unwrap().max_version
}

/// A broker with its data in a folder, or in its memory.
fn odradek(binary: &Path, data: Option<&Path>, address: SocketAddr) -> Process {
    let mut command = Command::new(binary);
    command.args(["--listen", &address.to_string(), "--log-level", "warn"]);
    match data {
        Some(folder) => command.arg("--data").arg(folder),
        None => command.args(["--store", "memory:", "--log", "memory:"]),
    };
    let started = Process::start(command.stdout(Stdio::null()));
    started.unwrap_or_else(|_| {
        panic!("no broker at {}: build it with cargo build --release", binary.display())
    })
}

/// The jars of Apache Kafka: where the test steps keep them, or KAFKA_LIBS.
pub(crate) fn kafka_libraries() -> PathBuf {
    let fetched = || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(".tools/kafka");
    std::env::var_os("KAFKA_LIBS").map_or_else(fetched, PathBuf::from)
}

/// What is missing to start Apache Kafka, and how to get it.
pub(crate) fn missing() -> Option<String> {
    let libraries = kafka_libraries();
    if !libraries.join("kafka.xml").exists() {
        return Some(format!(
            "there are no jars of Apache Kafka in {}: tests/tools/kafka.sh {} copies them from \
             Maven Central (it needs mvn)",
            libraries.display(),
            libraries.display(),
        ));
    }
    let java = Command::new("java").arg("-version").stderr(Stdio::null()).status();
    let without = "there is no java: apt-get install openjdk-17-jre-headless";
    java.is_err().then(|| without.to_owned())
}

/// A node that is broker and controller, with the defaults of its distribution and these further
/// properties.
fn kafka(more: &str, folder: &Path, address: SocketAddr) -> Process {
    let controller = free_address();
    let properties = folder.join("server.properties");
    let text = format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@{controller}\n\
         listeners=PLAINTEXT://{address},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{address}\n\
         controller.listener.names=CONTROLLER\n\
         log.dirs={}\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         log.segment.delete.delay.ms=1000\n\
         {more}",
        folder.join("data").display(),
    );
    fs::write(&properties, text).unwrap();
    let classes = format!("{}/*", kafka_libraries().display());
    let output = File::create(folder.join("output")).unwrap();
    let java = |main: &str| {
        let mut command = Command::new("java");
        command.args(JVM).args(["-cp", &classes, main]).stdout(output.try_clone().unwrap());
        command.stderr(output.try_clone().unwrap());
        command
    };
    let format = ["format", "--cluster-id", "abcdefghijklmnopqrstuv", "--config"];
    let formatted = java("kafka.tools.StorageTool").args(format).arg(&properties).status().unwrap();
    assert!(formatted.success(), "see {}", folder.join("output").display());
    Process::start(java("kafka.Kafka").arg(&properties)).unwrap()
}
