//! Locations: which backends a user means by `file:DIR` and the like.
//!
//! The only place that names a concrete backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::log::MetadataLog;
use crate::log::file::{FileLog, OpenError};
use crate::log::memory::MemoryLog;
use crate::object::ObjectStore;
use crate::object::file::FileObjectStore;
use crate::object::memory::MemoryObjectStore;

/// Why a location can't be used; each is a sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// No such kind of location.
    #[error("{0} is not a location: use file:DIR or memory:")]
    Unknown(String),
    /// Known, and to come.
    #[error("{0} is not supported by this release yet: use file:DIR or memory:")]
    NotYet(String),
    /// Something behind a location that takes nothing.
    #[error("{url}: {what}")]
    Malformed {
        /// The location.
        url: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The folder can't be used.
    #[error("{}: {cause}", .folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The log in the folder can't be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
}

/// A log, and whether this process has it to itself.
#[derive(Debug)]
pub struct OpenLog {
    /// The log.
    pub log: Arc<dyn MetadataLog>,
    /// Whether the backend keeps every other process out.
    pub exclusive: bool,
}

enum Location<'a> {
    Memory,
    Folder(&'a Path),
}

/// Opens the object store at `url`.
pub fn open_object_store(url: &str) -> Result<Arc<dyn ObjectStore>, LocationError> {
    match parse(url, "s3://")? {
        Location::Memory => Ok(Arc::new(MemoryObjectStore::default())),
        Location::Folder(folder) => match FileObjectStore::open(folder) {
            Ok(store) => Ok(Arc::new(store)),
            Err(cause) => Err(LocationError::Folder { folder: folder.to_owned(), cause }),
        },
    }
}

/// Opens the log called `name` at `url`.
pub fn open_log(url: &str, name: &str) -> Result<OpenLog, LocationError> {
    let log: Arc<dyn MetadataLog> = match parse(url, "dynamodb://")? {
        Location::Memory => Arc::new(MemoryLog::default()),
        Location::Folder(folder) => Arc::new(FileLog::open(&folder.join(name))?),
    };
    Ok(OpenLog { log, exclusive: true })
}

fn parse<'a>(url: &'a str, cloud: &str) -> Result<Location<'a>, LocationError> {
    let malformed = |what| Err(LocationError::Malformed { url: url.to_owned(), what });
    if url.starts_with(cloud) {
        return Err(LocationError::NotYet(url.to_owned()));
    }
    match url.split_once(':') {
        Some(("memory", "")) => Ok(Location::Memory),
        Some(("memory", _)) => malformed("memory: takes nothing behind it"),
        Some(("file", "")) => malformed("file: needs a folder behind it"),
        Some(("file", folder)) if folder.contains('?') => malformed("file: takes no options"),
        Some(("file", folder)) => Ok(Location::Folder(Path::new(folder))),
        _ => Err(LocationError::Unknown(url.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_location_is_refused_with_a_sentence() {
        let said = |url| open_log(url, "odradek").unwrap_err().to_string();
        assert_eq!(
            said("dynamodb://table"),
            "dynamodb://table is not supported by this release yet: use file:DIR or memory:"
        );
        assert_eq!(said("s3://bucket"), "s3://bucket is not a location: use file:DIR or memory:");
        assert_eq!(said("memory:x"), "memory:x: memory: takes nothing behind it");
        assert_eq!(said("file:"), "file:: file: needs a folder behind it");
        assert_eq!(said("file:dir?sync=no"), "file:dir?sync=no: file: takes no options");
        assert_eq!(said("redis:"), "redis: is not a location: use file:DIR or memory:");
    }
}
