//! What a hundred thousand partitions cost a broker: memory, time to start, what it does when
//! nobody asks for anything, and how long others wait while it looks through all of them.
//!
//! Brokers that have a thousand partitions, ten thousand and a hundred thousand go through the same
//! steps, and the ratios between them are what to look at. Their data lies in a folder in memory:
//! no disk is measured. Each is idle at the same time as the others; under load they take turns, in
//! one order and then in the other.
//!
//! The load is open, as in `merging.rs`. How long others wait is seen by a trickle of batches, each
//! of which has a moment at which it is to be sent: alone; while one snapshot is written after the
//! other; while the merger looks for something to merge ten times a second and not every ten
//! seconds; and while somebody asks for the metadata of everything without end.
//!
//! ```text
//! cargo build --release
//! cargo run --release -p odradek-tests --features benches --bin scale [PARTITIONS...]
//! ```
//!
//! `SECONDS`, `IDLE_SECONDS`, `STARTS` and `KIB_PER_SECOND` in the environment change how much is
//! done. Writes `tests/bench/scale.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark asks the clock")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use figures::{Figures, table};
use kafka_protocol::messages::MetadataRequest;
use latencies::{Load, Tail, topic_name};
use machine::{load, machine};
use odradek_tests::batches::BatchSpec;
use odradek_tests::client::Client;
use odradek_tests::process::{BrokerProcess, built, how_built};
use settings::number;
use tokio::time::sleep;

mod figures;
#[expect(dead_code, reason = "nobody consumes here")]
mod latencies;
mod machine;
mod settings;

/// Partitions of the brokers.
const PARTITIONS: [i32; 3] = [1000, 10_000, 100_000];

/// Most partitions in a topic.
const TOPIC_PARTITIONS: i32 = 1000;

/// Where nothing is written to a disk.
const MEMORY: &str = "/dev/shm";

/// Time after the load in which what was written is merged.
const MERGING: Duration = Duration::from_secs(15);

/// How often the metadata of everything is asked for.
const ASKED: u32 = 20;

/// Batches of a kilobyte that are sent in a second to see how long others wait.
const TRICKLE: u32 = 100;

/// A broker, what it has, and what was measured of it.
struct Place {
    partitions: i32,
    data: PathBuf,
    broker: Option<BrokerProcess>,
    figures: Figures,
    tail: Tail,
    seconds_per_gib: Vec<f64>,
}

/// How much is done.
#[derive(Clone, Copy)]
struct Amount {
    seconds: u32,
    idle_seconds: u32,
    starts: u32,
    kib_per_second: u32,
}

/// How a broker ends.
#[derive(Clone, Copy)]
enum End {
    Stop,
    Kill,
}

/// Who else keeps the broker busy while the batches trickle in.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nobody,
    Snapshots,
    Merger,
    Metadata,
}

impl Place {
    fn new(folder: &Path, partitions: i32) -> Self {
        let data = folder.join(partitions.to_string());
        let (broker, figures) = (None, Figures::new(partitions.to_string()));
        let (tail, seconds_per_gib) = (Tail::default(), Vec::new());
        Self { partitions, data, broker, figures, tail, seconds_per_gib }
    }

    fn broker(&self) -> &BrokerProcess {
        self.broker.as_ref().unwrap()
    }

    fn start(&mut self, further: &[&str]) {
        self.broker = Some(BrokerProcess::in_folder(&self.data, further));
    }

    fn end(&mut self, end: End) {
        let broker = self.broker.take().unwrap();
        match end {
            End::Stop => broker.process.stop(),
            End::Kill => drop(broker),
        }
    }

    fn topics(&self) -> u32 {
        u32::try_from(self.partitions / self.topic_partitions()).unwrap()
    }

    fn topic_partitions(&self) -> i32 {
        self.partitions.min(TOPIC_PARTITIONS)
    }

    async fn create(&mut self) {
        self.start(&[]);
        let mut client = self.broker().client().await;
        let began = Instant::now();
        for topic in 0..self.topics() {
            // The records are of long ago.
            let kept = [("retention.ms", "-1")];
            client.create_topic_with(&topic_name(topic), self.topic_partitions(), &kept).await;
        }
        self.figures.note("created in, ms", began.elapsed().as_secs_f64() * 1000.0);
        self.note_memory("created").await;
        self.end(End::Stop);
        self.save().await;
    }

    /// Has a snapshot written of all there is.
    async fn save(&mut self) {
        self.start(&["--snapshot-entries", "1"]);
        let mut client = self.broker().client().await;
        let all = self.broker().metrics().await.sum("odradek_log_position");
        loop {
            client.produce(&topic_name(0), 0, &BatchSpec::of(["x"])).await;
            let page = self.broker().metrics().await;
            if page.sum("odradek_snapshot_position") >= all {
                self.end(End::Stop);
                return self
                    .figures
                    .note("snapshot, KiB", page.sum("odradek_snapshot_bytes") / 1024.0);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn note_memory(&mut self, when: &str) {
        sleep(Duration::from_secs(1)).await;
        let process = &self.broker().process;
        let (now, most) = (process.resident_mib(), process.resident_mib_most());
        self.figures.note(&format!("resident, {when}, MiB"), now);
        self.figures.note(&format!("resident at most until then, {when}, MiB"), most);
    }

    /// Starts the broker again and again, and leaves it running.
    async fn restart(&mut self, starts: u32, holding: &str) {
        for (end, name) in [(End::Stop, "SIGTERM"), (End::Kill, "SIGKILL")] {
            let (mut took, mut computed) = (Vec::new(), Vec::new());
            for _ in 0..starts {
                if self.broker.is_some() {
                    self.end(end);
                }
                let began = Instant::now();
                self.start(&[]);
                let mut client = self.broker().client().await;
                client.produce(&topic_name(0), 0, &BatchSpec::of(["x"])).await;
                took.push(began.elapsed().as_secs_f64() * 1000.0);
                computed.push(self.broker().process.processor_seconds() * 1000.0);
            }
            let name = format!("{holding}: start after {name} to first acknowledged record");
            self.figures.note_median(&format!("{name}, ms"), took);
            self.figures.note_median(&format!("{name}, CPU-ms"), computed);
        }
        self.note_memory(&format!("{holding}, started again")).await;
    }

    /// Requests to the store and to the log so far.
    async fn requests(&self) -> f64 {
        let page = self.broker().metrics().await;
        page.sum("odradek_store_request_seconds_count")
            + page.sum("odradek_log_request_seconds_count")
    }

    /// A load of small batches to all partitions.
    fn load(&self, seconds: u32, kib_per_second: u32) -> Load {
        Load {
            batch: 1024,
            topics: self.topics(),
            partitions: self.topic_partitions(),
            consumers: 0,
            warming: Duration::from_secs(1),
            ..Load::new(seconds, kib_per_second)
        }
    }

    async fn be_active(&mut self, load: Load, amount: Amount) {
        let load = Load { began: load.began, ..self.load(amount.seconds, amount.kib_per_second) };
        let before = self.broker().process.processor_seconds();
        let phase = load.run(self.broker().address).await;
        let seconds = self.broker().process.processor_seconds() - before;
        let kib = (load.lasts + load.warming).as_secs_f64() * f64::from(load.kib_per_second);
        self.seconds_per_gib.push(seconds * 1024.0 * 1024.0 / kib);
        self.tail.add(phase);
    }

    fn note_active(&mut self) {
        let produce = self.tail.produce();
        let count = f64::from(u32::try_from(self.seconds_per_gib.len()).unwrap());
        let seconds = self.seconds_per_gib.iter().sum::<f64>() / count;
        self.figures.note("active: CPU-s a GiB", seconds);
        self.figures.note("active: produce p50, ms", produce.p50);
        self.figures.note("active: produce p99, ms", produce.p99);
        let process = &self.broker().process;
        let (now, most) = (process.resident_mib(), process.resident_mib_most());
        self.figures.note("resident, active, MiB", now);
        self.figures.note("resident at most until then, active, MiB", most);
    }

    async fn ask_for_metadata(&mut self) {
        let mut client = self.broker().client().await;
        let (mut took, mut bytes) = (Vec::new(), 0.0);
        let before = self.broker().process.processor_seconds();
        for _ in 0..ASKED {
            let began = Instant::now();
            bytes = metadata(&mut client).await;
            took.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        self.figures.note("metadata of everything, KiB", bytes / 1024.0);
        self.figures.note_median("metadata of everything, ms", took);
        let seconds = self.broker().process.processor_seconds() - before;
        self.figures.note("metadata of everything, CPU-ms", seconds * 1000.0 / f64::from(ASKED));
    }

    /// Sees how long others wait.
    async fn trickle(&mut self, seconds: u32, beside: Beside) {
        let (name, further): (_, &[&str]) = match beside {
            Beside::Nobody => ("nobody", &[]),
            Beside::Snapshots => ("snapshots", &["--snapshot-entries", "1"]),
            Beside::Merger => ("the merger", &["--merge-interval-ms", "100"]),
            Beside::Metadata => ("metadata", &[]),
        };
        self.end(End::Stop);
        self.start(further);
        let address = self.broker().address;
        drop(self.broker().client().await);
        let puts = "odradek_store_request_seconds_count{operation=\"put\"";
        let before = self.broker().metrics().await.sum(puts);
        let processor = self.broker().process.processor_seconds();
        let asking = (beside == Beside::Metadata).then(|| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                loop {
                    metadata(&mut client).await;
                }
            })
        });
        let load = self.load(seconds, TRICKLE);
        let mut tail = Tail::default();
        tail.add(load.run(address).await);
        if let Some(asking) = asking {
            asking.abort();
        }
        let processor = self.broker().process.processor_seconds() - processor;
        let produce = tail.produce();
        self.figures.note(&format!("trickle beside {name}: p50, ms"), produce.p50);
        self.figures.note(&format!("trickle beside {name}: p99, ms"), produce.p99);
        self.figures.note(&format!("trickle beside {name}: most, ms"), produce.most);
        if beside == Beside::Snapshots {
            // What trickles is too little for an object: nothing else is put.
            let snapshots = self.broker().metrics().await.sum(puts) - before;
            let lasted = (load.lasts + load.warming).as_secs_f64();
            self.figures.note("a snapshot, ms", lasted * 1000.0 / snapshots);
            self.figures.note("a snapshot, CPU-ms", processor * 1000.0 / snapshots);
        }
    }
}

/// Asks for everything; the bytes of the answer.
async fn metadata(client: &mut Client) -> f64 {
    let request = MetadataRequest::default().with_topics(None);
    client.send(12, &request).await;
    f64::from(u32::try_from(client.next_frame().await.unwrap().len()).unwrap())
}

/// All brokers do nothing for a while.
async fn be_idle(places: &mut [Place], seconds: u32, when: &str) {
    let mut requests = Vec::new();
    for place in &*places {
        requests.push(place.requests().await);
    }
    let used = |place: &Place| place.broker().process.processor_seconds();
    let before: Vec<f64> = places.iter().map(used).collect();
    sleep(Duration::from_secs(seconds.into())).await;
    let after: Vec<f64> = places.iter().map(used).collect();
    let minutes = f64::from(seconds) / 60.0;
    for (number, place) in places.iter_mut().enumerate() {
        let made = place.requests().await - requests[number];
        let ms = (after[number] - before[number]) * 1000.0;
        place.figures.note(&format!("idle, {when}: CPU-ms a minute"), ms / minutes);
        place
            .figures
            .note(&format!("idle, {when}: requests to store and log a minute"), made / minutes);
    }
}

/// Time that the program takes to say which it is, in milliseconds.
fn bare_start(times: u32) -> f64 {
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        assert!(Command::new(built()).arg("--version").output().unwrap().status.success());
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    took.sort_unstable_by(f64::total_cmp);
    took[took.len() / 2]
}

#[tokio::main]
async fn main() {
    let before = load();
    let asked: Vec<i32> = std::env::args().skip(1).map(|it| it.parse().unwrap()).collect();
    let partitions = if asked.is_empty() { PARTITIONS.to_vec() } else { asked };
    let amount = Amount {
        seconds: number("SECONDS", 10),
        idle_seconds: number("IDLE_SECONDS", 60),
        starts: number("STARTS", 5),
        kib_per_second: number("KIB_PER_SECOND", 4 * 1024),
    };
    let folder = tempfile::tempdir_in(MEMORY).unwrap();
    let mut places: Vec<_> = partitions.iter().map(|it| Place::new(folder.path(), *it)).collect();
    let bare = bare_start(amount.starts);
    for place in &mut places {
        place.create().await;
        place.restart(amount.starts, "new").await;
        place.ask_for_metadata().await;
    }
    be_idle(&mut places, amount.idle_seconds, "new").await;
    let load = Load::new(amount.seconds, amount.kib_per_second);
    for place in &mut places {
        place.be_active(load, amount).await;
    }
    for place in places.iter_mut().rev() {
        place.be_active(load, amount).await;
    }
    places.iter_mut().for_each(Place::note_active);
    sleep(MERGING).await;
    be_idle(&mut places, amount.idle_seconds, "written to").await;
    for beside in [Beside::Nobody, Beside::Snapshots, Beside::Merger, Beside::Metadata] {
        for place in &mut places {
            place.trickle(amount.seconds, beside).await;
        }
    }
    for place in &mut places {
        place.restart(amount.starts, "written to").await;
    }
    let report = report(&places, amount, bare, &before);
    print!("{report}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/scale.md");
    std::fs::write(path, report).unwrap();
}

fn report(places: &[Place], amount: Amount, bare: f64, before: &str) -> String {
    let mut report = String::new();
    let machine = machine(how_built(), before);
    let Amount { seconds, idle_seconds, starts, kib_per_second } = amount;
    writeln!(report, "# What a hundred thousand partitions cost\n\n{machine}\n").unwrap();
    writeln!(
        report,
        "One broker with files in {MEMORY}, so that no disk is measured; topics of \
         {TOPIC_PARTITIONS} partitions, first\nnew and empty, then written to: two times \
         {seconds} s of {kib_per_second} KiB/s in batches of 1 KiB to all partitions in\nturn, \
         each a request. Each start loads a snapshot of all there is ({starts} starts: median, \
         least and most); the\nsame program takes {bare:.1} ms to say its version. Idle for \
         {idle_seconds} s, all brokers at a time. A trickle\nof {TRICKLE} batches a second shows \
         how long others wait: beside snapshots that are written one after the\nother, beside a \
         merger that looks through all extents every 100 ms (and not every 10 s), beside one who\n\
         asks for the metadata of everything without end. `tests/bench/scale.rs` repeats it.\n",
    )
    .unwrap();
    let figures: Vec<&Figures> = places.iter().map(|it| &it.figures).collect();
    report + &table("partitions", &figures)
}
