//! The command line: which flags there are with which command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::Settings;
use crate::commands::fsck::FsckOptions;
use crate::commands::inspect::InspectOptions;

/// A broker that speaks the Kafka protocol and owns nothing.
///
/// Without arguments: a broker on 127.0.0.1:9092 that keeps its data in ./odradek-data.
#[derive(Debug, Parser)]
#[command(name = "odradek", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    settings: Settings,
}

const AFTER_HELP: &str = "\
Every option can also be given in the environment (ODRADEK_LISTEN for --listen, and so on) or as a
key of the file named by --config (listen = \"127.0.0.1:9092\"). A flag wins over the environment,
the environment over the file. Unknown keys are refused.

Examples:
  odradek                                     one machine, nothing else installed
  odradek --data /var/lib/odradek             the same, with its data elsewhere
  odradek --listen 0.0.0.0:9092 --advertise kafka.example.com:9092
                                              reachable from other machines
  odradek --store memory: --log memory:       nothing outlives the process
  odradek fsck --deep                         reads all that is stored, and says what is wrong
  odradek inspect topic greetings             where the records of a topic lie
  odradek --store s3://my-bucket/kafka --log dynamodb://my-table --zone eu-central-1a \
          --listen 0.0.0.0:9092 --advertise broker-1.internal:9092
                                              one of any number of brokers on AWS

Try it:
  echo hello | kcat -b 127.0.0.1:9092 -P -t greetings
  kcat -b 127.0.0.1:9092 -C -t greetings -e";

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Runs a broker (the default).
    Serve(Box<Settings>),
    /// Compares the store with what the log says should be in it. Writes nothing, and can be run
    /// while brokers are.
    ///
    /// Ends with 0 if nothing is lost or damaged, with 1 if something is, and with 2 if that can't
    /// be told.
    Fsck {
        #[command(flatten)]
        options: FsckOptions,
        #[command(flatten)]
        places: Places,
    },
    /// Shows what is in the log and in the store. Writes nothing, and can be run while brokers are.
    Inspect {
        #[command(flatten)]
        options: InspectOptions,
        #[command(flatten)]
        places: Places,
    },
}

/// What of the settings says where a cluster is.
#[derive(Args, Clone, Debug)]
struct Places {
    /// The cluster [default: odradek].
    #[arg(long, value_name = "NAME", global = true)]
    cluster: Option<String>,
    /// Where records are kept: s3://BUCKET/PREFIX or file:DIR [default: file: in the data folder].
    #[arg(long, value_name = "URL", global = true)]
    store: Option<String>,
    /// Where their order is kept: dynamodb://TABLE or file:DIR [default: file: in the data folder].
    #[arg(long, value_name = "URL", global = true)]
    log: Option<String>,
    /// Folder for both [default: ./odradek-data].
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// What is logged to standard error [default: warn].
    #[arg(long, value_name = "FILTER", global = true)]
    log_level: Option<String>,
    /// File with settings, in TOML: the brokers' own.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

impl Places {
    fn settings(self) -> Settings {
        let Self { cluster, store, log, data, log_level, config } = self;
        // What brokers are to log is not for a command whose output is read.
        let log_level = log_level.or_else(|| Some("warn".to_owned()));
        Settings { cluster, store, log, data, log_level, config, ..Settings::default() }
    }
}

/// What the process is to do.
#[derive(Clone, Debug)]
pub enum Task {
    /// To be a broker.
    Serve,
    /// To look for what is lost or damaged.
    Fsck(FsckOptions),
    /// To show what there is.
    Inspect(InspectOptions),
}

/// Reads the arguments of the process. Ends it for `--help`, `--version` and what makes no sense.
pub(super) fn parse() -> (Task, Settings) {
    Cli::parse().task()
}

/// Reads arguments, the first of which is the name of the program.
#[cfg(test)]
pub(super) fn parse_from(arguments: &[&str]) -> Result<(Task, Settings), clap::Error> {
    Cli::try_parse_from(arguments).map(Cli::task)
}

impl Cli {
    fn task(self) -> (Task, Settings) {
        match self.command {
            Some(Subcommands::Serve(settings)) => (Task::Serve, settings.over(self.settings)),
            Some(Subcommands::Fsck { options, places }) => {
                (Task::Fsck(options), places.settings().over(self.settings))
            }
            Some(Subcommands::Inspect { options, places }) => {
                (Task::Inspect(options), places.settings().over(self.settings))
            }
            None => (Task::Serve, self.settings),
        }
    }
}
