//! Locations: which backends a user means by `file:DIR` and the like.
//!
//! The only place that names a concrete backend.

use std::io::{self, ErrorKind};
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
    /// An option that the location does not take.
    #[error("{url}: there is no option {option:?}; {kind}: takes none")]
    Option {
        /// The location.
        url: String,
        /// Its kind.
        kind: &'static str,
        /// The option.
        option: String,
    },
    /// Too much or too little behind a location.
    #[error("{url}: {what}")]
    Malformed {
        /// The location.
        url: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A name that is no name of a folder.
    #[error("{0:?} can't be the name of a log: it has to be the name of a folder")]
    Name(String),
    /// The folder can't be used.
    #[error("{}: {}", .folder.display(), sentence(.folder, .cause))]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The log in the folder is in use or damaged.
    #[error(transparent)]
    Log(OpenError),
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
        Location::Folder(folder) => {
            Arc::new(FileLog::open(&folder.join(file_name(name)?)).map_err(refused)?)
        }
    };
    Ok(OpenLog { log, exclusive: true })
}

fn parse<'a>(url: &'a str, cloud: &str) -> Result<Location<'a>, LocationError> {
    let malformed = |what| Err(LocationError::Malformed { url: url.to_owned(), what });
    if url.starts_with(cloud) {
        return Err(LocationError::NotYet(url.to_owned()));
    }
    let (location, options) = url.split_once('?').map_or((url, None), |(at, it)| (at, Some(it)));
    let (kind, location) = match location.split_once(':') {
        Some(("memory", "")) => ("memory", Location::Memory),
        Some(("memory", _)) => return malformed("memory: takes nothing behind it"),
        Some(("file", "")) => return malformed("file: needs a folder behind it"),
        Some(("file", folder)) => ("file", Location::Folder(Path::new(folder))),
        _ => return Err(LocationError::Unknown(url.to_owned())),
    };
    match options {
        None => Ok(location),
        Some(options) => {
            let option = options.split(['=', '&']).next().unwrap_or_default().to_owned();
            Err(LocationError::Option { url: url.to_owned(), kind, option })
        }
    }
}

/// A log's folder is directly in the folder of its location.
fn file_name(name: &str) -> Result<&str, LocationError> {
    let is_name = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
    if is_name { Ok(name) } else { Err(LocationError::Name(name.to_owned())) }
}

fn refused(error: OpenError) -> LocationError {
    match error {
        OpenError::Io { path, cause } => LocationError::Folder { folder: path, cause },
        other => LocationError::Log(other),
    }
}

/// What the error of the operating system means to the user of a folder.
fn sentence(folder: &Path, cause: &io::Error) -> String {
    let file = folder.ancestors().find(|above| above.is_file());
    match (cause.kind(), file) {
        (ErrorKind::PermissionDenied, _) => "this user has no permission to use it".to_owned(),
        (ErrorKind::StorageFull, _) => "the disk is too full".to_owned(),
        (ErrorKind::ReadOnlyFilesystem, _) => "the disk can only be read".to_owned(),
        (ErrorKind::NotADirectory | ErrorKind::AlreadyExists, Some(file)) => {
            format!("{} is a file, where a folder is needed", file.display())
        }
        _ => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_location_is_refused_with_a_sentence() {
        let said_of = |url| open_log(url, "odradek").unwrap_err();
        let said = |url| said_of(url).to_string();
        assert_eq!(
            said("dynamodb://table"),
            "dynamodb://table is not supported by this release yet: use file:DIR or memory:"
        );
        assert_eq!(said("s3://bucket"), "s3://bucket is not a location: use file:DIR or memory:");
        assert_eq!(said("memory:x"), "memory:x: memory: takes nothing behind it");
        assert_eq!(said("file:"), "file:: file: needs a folder behind it");
        assert_eq!(
            said("file:dir?sync=no&x=y"),
            "file:dir?sync=no&x=y: there is no option \"sync\"; file: takes none"
        );
        assert!(matches!(said_of("memory:?x"), LocationError::Option { kind: "memory", .. }));
        assert!(matches!(
            open_object_store("s3://bucket").unwrap_err(),
            LocationError::NotYet(url) if url == "s3://bucket"
        ));
        assert_eq!(said("redis:"), "redis: is not a location: use file:DIR or memory:");
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        for below in [file.clone(), file.join("below/it")] {
            let url = format!("file:{}", below.display());
            let is_a_file = format!("{} is a file, where a folder is needed", file.display());
            let objects = open_object_store(&url).unwrap_err().to_string();
            assert!(objects.ends_with(&is_a_file), "{objects}");
            let log = open_log(&url, "odradek").unwrap_err().to_string();
            assert!(log.ends_with(&is_a_file), "{log}");
        }
        let url = format!("file:{}", folder.path().display());
        for name in ["", ".", "..", "a/b"] {
            assert!(matches!(open_log(&url, name), Err(LocationError::Name(_))), "{name:?}");
        }
        let denied = LocationError::Folder {
            folder: folder.path().to_owned(),
            cause: ErrorKind::PermissionDenied.into(),
        };
        assert!(denied.to_string().ends_with("this user has no permission to use it"), "{denied}");
    }

    #[test]
    fn a_log_in_use_or_damaged_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file:{}", folder.path().display());
        let open = open_log(&url, "odradek").unwrap();
        assert!(open.exclusive);
        let other = open_log(&url, "other").unwrap();
        let second = open_log(&url, "odradek").unwrap_err().to_string();
        assert!(second.ends_with("odradek is in use by another process"), "{second}");
        drop((open, other));
        std::fs::write(folder.path().join("odradek/floor"), b"1").unwrap();
        let damaged = open_log(&url, "odradek").unwrap_err().to_string();
        assert!(damaged.contains("odradek/floor is damaged at byte 0"), "{damaged}");
        drop(open_log(&url, "other").unwrap());
    }

    #[test]
    fn memory_is_a_location_of_its_own_each_time() {
        assert!(open_log("memory:", "odradek").unwrap().exclusive);
        assert!(open_object_store("memory:").is_ok());
    }
}
