//! What comes of the turns: a page for readers, and every turn for those who want to reckon anew.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use odradek_tests::process::how_built;
use serde_json::{Value, json};

use super::contestant::{Kind, Rival, Versions, kafka_libraries};
use super::load::{CONNECTIONS, REQUEST_BATCHES_MAX, WINDOW};
use super::machine::machine;
use super::ratios::{Ratio, median};
use super::{Row, TURN_BYTES};

/// A turn of one contestant.
pub(crate) struct Turn {
    pub(crate) gib: f64,
    pub(crate) seconds: f64,
    pub(crate) processor_seconds: f64,
    pub(crate) resident_mib: f64,
    /// Load of the machine before the turn.
    pub(crate) load: String,
    /// Share of all processors that a hypervisor took.
    pub(crate) steal: f64,
}

impl Turn {
    fn per_gib(&self) -> f64 {
        self.processor_seconds / self.gib
    }

    fn mib_per_second(&self) -> f64 {
        self.gib * 1024.0 / self.seconds
    }
}

/// All turns of a row.
pub(crate) struct Measured {
    pub(crate) row: Row,
    /// In the order of [`Kind::ALL`].
    pub(crate) rounds: Vec<[Turn; 4]>,
    /// Processor time of each from the first turn to the last, what it did between them included.
    pub(crate) processor_seconds: [f64; 4],
}

/// Which contestants are set against each other, and what there is to say of that.
const AGAINST: [(Kind, Kind, &str); 3] = [
    (Kind::OdradekMemory, Kind::RivalUnsynced, "neither syncs"),
    (Kind::OdradekFiles, Kind::RivalSynced, "both sync before they acknowledge"),
    (Kind::OdradekFiles, Kind::RivalUnsynced, "only the first syncs"),
];

fn place(kind: Kind) -> usize {
    Kind::ALL.iter().position(|it| *it == kind).unwrap()
}

impl Measured {
    fn ratio(&self, one: Kind, other: Kind, of: fn(&Turn) -> f64) -> Ratio {
        let (one, other) = (place(one), place(other));
        Ratio::of(self.rounds.iter().map(|round| (of(&round[one]), of(&round[other]))))
    }

    fn median(&self, kind: Kind, of: fn(&Turn) -> f64) -> f64 {
        let at = place(kind);
        median(self.rounds.iter().map(|round| of(&round[at])).collect())
    }

    /// Processor time for a GiB, what was done between the turns included.
    fn per_gib_in_all(&self, kind: Kind) -> f64 {
        let at = place(kind);
        self.processor_seconds[at] / self.rounds.iter().map(|round| round[at].gib).sum::<f64>()
    }

    /// One line, as soon as it is measured.
    pub(crate) fn line(&self, rival: &Rival) -> String {
        let figures = Kind::ALL.map(|kind| {
            let (cost, rate) =
                (self.median(kind, Turn::per_gib), self.median(kind, Turn::mib_per_second));
            format!("{}: {cost:.2} CPU-s/GiB at {rate:.0} MiB/s", rival.name(kind))
        });
        format!("{}: {}", self.row.name, figures.join("; "))
    }

    fn json(&self) -> String {
        let rounds = self.rounds.iter().map(|round| {
            let turns = round.iter().map(|turn| {
                let rounded = |it: f64| (it * 1e4).round() / 1e4;
                json!([
                    rounded(turn.gib),
                    rounded(turn.seconds),
                    rounded(turn.processor_seconds),
                    turn.resident_mib.round(),
                    turn.load,
                    rounded(turn.steal)
                ])
            });
            turns.collect::<Value>().to_string()
        });
        let rounds = rounds.collect::<Vec<_>>().join(",\n  ");
        format!("{}: [\n  {rounds}\n]", Value::from(self.row.name))
    }
}

/// The page, and the turns.
pub(crate) fn write_report(
    rows: &[Measured],
    rival: &Rival,
    versions: Versions,
    before: &str,
) -> (String, String) {
    let mut text = head(rows, rival, versions, before);
    ratios(&mut text, rows, rival);
    absolutes(&mut text, rows, rival);
    let machine = Value::from(said_machine(before));
    let columns = Kind::ALL.map(|kind| rival.name(kind));
    let each = ["GiB", "seconds", "CPU-seconds", "resident MiB", "load before", "steal"];
    let mut json = format!(
        "{{\n\"machine\": {machine},\n\"turns of a round\": {},\n\"figures of a turn\": {},\n",
        json!(columns),
        json!(each)
    );
    json.push_str(&rows.iter().map(Measured::json).collect::<Vec<_>>().join(",\n"));
    json.push_str("\n}\n");
    (text, json)
}

fn said_machine(before: &str) -> String {
    machine(how_built(), before)
}

fn kafka_version() -> String {
    let names = std::fs::read_dir(kafka_libraries()).unwrap();
    let mut names = names.map(|it| PathBuf::from(it.unwrap().file_name()));
    let server = names.find_map(|name| {
        Some(name.to_str()?.strip_prefix("kafka-server-")?.strip_suffix(".jar")?.to_owned())
            .filter(|version| version.starts_with(|it: char| it.is_ascii_digit()))
    });
    let java = Command::new("java").arg("-version").output().unwrap();
    let java = String::from_utf8(java.stderr).unwrap();
    let java = java.lines().next().unwrap_or_default().replace('"', "");
    format!("Apache Kafka {} on {java}", server.unwrap_or_default())
}

fn head(rows: &[Measured], rival: &Rival, versions: Versions, before: &str) -> String {
    let pairs = rows.first().map_or(0, |row| row.rounds.len());
    let steal = rows.iter().flat_map(|it| &it.rounds).flatten().map(|it| it.steal);
    let steal = median(steal.collect()) * 100.0;
    let mut text = format!(
        "# Side by side with Apache Kafka\n\n{}; {}; steal {steal:.1} % in the median turn\n\n\
         One node each (KRaft, one replica, heap 1 GiB), in turns on one machine, {pairs} rounds: \
         A B C D, then D C B A.\nThe load generator shares the cores with them: {CONNECTIONS} \
         connections, {WINDOW} requests in flight on each, in a request a\nbatch for each \
         partition, at most {REQUEST_BATCHES_MAX}; Produce {}, Fetch {}. Batches come \
         uncompressed and would compress\nto three quarters; a turn ends after its time or {} MiB, \
         and what it left to the disk is synced before the\nnext. Merging, cleaning and garbage \
         collection are on. `tests/bench/versus/main.rs` repeats it, and `versus.json`\n\
         has each turn.\n\nWhat acks=all means:\n\n",
        said_machine(before),
        match rival {
            Rival::Kafka => kafka_version(),
            Rival::Build(binary) => format!("the other build is {}", binary.display()),
        },
        versions.produce,
        versions.fetch,
        TURN_BYTES >> 20,
    );
    for kind in Kind::ALL {
        writeln!(text, "- {}: {}", rival.name(kind), rival.acknowledged_means(kind)).unwrap();
    }
    text
}

fn ratios(text: &mut String, rows: &[Measured], rival: &Rival) {
    for (one, other, what) in AGAINST {
        writeln!(
            text,
            "\n## {}, to {}: {what}\n\nMedian of the paired ratios, and the bootstrap interval of \
             95 %. Processor time: less is better.\n\n\
             | | CPU-s per GiB | MiB/s |\n| --- | --- | --- |",
            rival.name(one),
            rival.name(other),
        )
        .unwrap();
        for row in rows {
            let cost = row.ratio(one, other, Turn::per_gib);
            let rate = row.ratio(one, other, Turn::mib_per_second);
            writeln!(text, "| {} | {cost} | {rate} |", row.row.name).unwrap();
        }
    }
}

fn absolutes(text: &mut String, rows: &[Measured], rival: &Rival) {
    writeln!(
        text,
        "\n## What the ratios are made of\n\nMedians of the turns; good for this machine and hour \
         only. \"In all\" is processor time from the first turn of\na row to its last, what was \
         done in the turns of others included.\n\n| | | CPU-s per GiB | in all | MiB/s | resident, \
         MiB |\n| --- | --- | --- | --- | --- | --- |"
    )
    .unwrap();
    for row in rows {
        for kind in Kind::ALL {
            writeln!(
                text,
                "| {} | {} | {:.2} | {:.2} | {:.0} | {:.0} |",
                row.row.name,
                rival.name(kind),
                row.median(kind, Turn::per_gib),
                row.per_gib_in_all(kind),
                row.median(kind, Turn::mib_per_second),
                row.median(kind, |turn| turn.resident_mib),
            )
            .unwrap();
        }
    }
}
