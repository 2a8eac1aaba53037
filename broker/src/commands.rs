//! Commands that look at a cluster from outside: they register nowhere and write nothing.
//!
//! Owns how they come to what they look at, and the codes they end with. What is found is in
//! `odradek_storage`, what is said of it in the files below.

use std::io::Write;
use std::time::Duration;

use odradek_storage::location::{LocationError, look_at_log, look_at_object_store};
use odradek_storage::look::{Look, LookError};
use serde_json::Value;
use tokio::time::timeout;

use crate::config::Config;

pub mod fsck;
pub mod inspect;
mod text;

/// How long a store or a log may take to be reached.
const REACH_MAX: Duration = Duration::from_secs(60);

/// All is as it should be, or was shown.
const GOOD: u8 = 0;

/// Something is lost or damaged, or what was asked for is not there.
const BAD: u8 = 1;

/// It can't be told.
const UNKNOWN: u8 = 2;

/// Why there is nothing to say.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// A location that can't be used.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// A location that does not answer.
    #[error("{0} can't be reached")]
    Unreachable(String),
    /// What is there can't be read.
    #[error(transparent)]
    Look(#[from] LookError),
    /// What was asked for is not there: a sentence.
    #[error("{0}")]
    NotFound(String),
}

impl CommandError {
    fn code(&self) -> u8 {
        match self {
            Self::NotFound(_) => BAD,
            Self::Look(error) if error.is_damage() => BAD,
            Self::Location(_) | Self::Unreachable(_) | Self::Look(_) => UNKNOWN,
        }
    }
}

/// Opens what the settings name.
async fn open(config: &Config) -> Result<Look, CommandError> {
    let unreachable = |what: &String| CommandError::Unreachable(what.clone());
    let log = timeout(REACH_MAX, look_at_log(&config.log, &config.cluster)).await;
    let log = log.map_err(|_| unreachable(&config.log))??;
    let objects = timeout(REACH_MAX, look_at_object_store(&config.store)).await;
    let objects = objects.map_err(|_| unreachable(&config.store))??;
    Ok(Look::new(objects, log))
}

/// Writes to standard output. Whoever closes it has seen enough.
fn say(text: &str) {
    drop(std::io::stdout().write_all(text.as_bytes()));
}

fn say_json(document: &Value) {
    say(&format!("{document:#}\n"));
}

/// Says why there is nothing else to say, and returns the code to end with.
fn give_up(error: &CommandError) -> u8 {
    drop(writeln!(std::io::stderr(), "odradek: {error}"));
    error.code()
}
