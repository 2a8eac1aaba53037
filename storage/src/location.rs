//! Locations: which backends a user means by `file:DIR` and the like.
//!
//! The only place that names a concrete backend.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::log::MetadataLog;
#[cfg(feature = "test-util")]
use crate::log::dynamodb::Patience;
use crate::log::dynamodb::{DynamoDbLocation, DynamoDbLog, OpenDynamoDbError};
use crate::log::file::{FileLog, FileLogView, OpenError};
use crate::log::memory::MemoryLog;
use crate::object::ObjectStore;
use crate::object::file::FileObjectStore;
use crate::object::memory::MemoryObjectStore;
use crate::object::s3::{OpenS3Error, S3Location, S3ObjectStore};

mod cloud;

/// Why a location can't be used; each is a sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// No such kind of location.
    #[error("{url} is not a location {what}: use {use_instead}, file:DIR or memory:")]
    Unknown {
        /// The location.
        url: String,
        /// What was to be kept there.
        what: &'static str,
        /// Which cloud location there is for it.
        use_instead: &'static str,
    },
    /// An option that the location does not take, or a value that the option does not take.
    #[error("{url}: there is no option {option:?}; {kind} takes {takes}")]
    Option {
        /// The location.
        url: String,
        /// Its kind.
        kind: &'static str,
        /// The option.
        option: String,
        /// Which options there are.
        takes: &'static str,
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
    /// The bucket can't be used.
    #[error(transparent)]
    S3(#[from] OpenS3Error),
    /// The table can't be used.
    #[error(transparent)]
    DynamoDb(#[from] OpenDynamoDbError),
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

/// Opens the object store at `url`. Waits, and says so, as long as a store elsewhere can't be
/// reached.
pub async fn open_object_store(url: &str) -> Result<Arc<dyn ObjectStore>, LocationError> {
    if let Some(location) = cloud::s3(url)? {
        return Ok(Arc::new(S3ObjectStore::open(location).await?));
    }
    match parse(url, "for records", "s3://BUCKET")? {
        Location::Memory => Ok(Arc::new(MemoryObjectStore::default())),
        Location::Folder(folder) => match FileObjectStore::open(folder) {
            Ok(store) => Ok(Arc::new(store)),
            Err(cause) => Err(LocationError::Folder { folder: folder.to_owned(), cause }),
        },
    }
}

/// Opens the object store at `url` to look at what is in it: nothing is made, nothing can be put,
/// and a broker that uses it is not disturbed.
pub async fn look_at_object_store(url: &str) -> Result<Arc<dyn ObjectStore>, LocationError> {
    if let Some(location) = cloud::s3(url)? {
        let location = S3Location { create: false, ..location };
        return Ok(Arc::new(S3ObjectStore::open(location).await?));
    }
    let folder = folder_to_look_at(url, "for records", "s3://BUCKET")?;
    match FileObjectStore::open_to_look(folder) {
        Ok(store) => Ok(Arc::new(store)),
        Err(cause) => Err(LocationError::Folder { folder: folder.to_owned(), cause }),
    }
}

/// Opens the log called `name` at `url` to look at what is in it: nothing is made, nothing can be
/// appended, and a broker that uses it is not disturbed.
pub async fn look_at_log(url: &str, name: &str) -> Result<Arc<dyn MetadataLog>, LocationError> {
    if let Some(location) = cloud::dynamodb(url, name)? {
        let location = DynamoDbLocation { create: false, ..location };
        return Ok(Arc::new(DynamoDbLog::open(location).await?));
    }
    let folder = folder_to_look_at(url, "for their order", "dynamodb://TABLE")?;
    Ok(Arc::new(FileLogView::open(&folder.join(file_name(name)?)).map_err(refused)?))
}

fn folder_to_look_at<'a>(
    url: &'a str,
    what: &'static str,
    use_instead: &'static str,
) -> Result<&'a Path, LocationError> {
    match parse(url, what, use_instead)? {
        Location::Folder(folder) => Ok(folder),
        Location::Memory => {
            let what = "memory: is seen by its own process alone";
            Err(LocationError::Malformed { url: url.to_owned(), what })
        }
    }
}

/// Whether each put at `url` costs money.
pub fn puts_are_charged(url: &str) -> bool {
    url.starts_with("s3://")
}

/// Opens the log called `name` at `url`. Waits, and says so, as long as a log elsewhere can't be
/// reached.
pub async fn open_log(url: &str, name: &str) -> Result<OpenLog, LocationError> {
    if let Some(location) = cloud::dynamodb(url, name)? {
        let log = Arc::new(DynamoDbLog::open(location).await?);
        return Ok(OpenLog { log, exclusive: false });
    }
    let log: Arc<dyn MetadataLog> = match parse(url, "for their order", "dynamodb://TABLE")? {
        Location::Memory => Arc::new(MemoryLog::default()),
        Location::Folder(folder) => {
            Arc::new(FileLog::open(&folder.join(file_name(name)?)).map_err(refused)?)
        }
    };
    Ok(OpenLog { log, exclusive: true })
}

/// Opens a bucket for a conformance suite.
#[cfg(feature = "test-util")]
pub async fn open_s3(url: &str) -> Result<S3ObjectStore, LocationError> {
    let location = cloud::s3(url)?.expect("a suite names a bucket");
    Ok(S3ObjectStore::open(location).await?)
}

/// Opens a table for a conformance suite: a log that does not wait before it deletes what was
/// trimmed, and asks for the floor at each append.
#[cfg(feature = "test-util")]
pub async fn open_dynamodb(url: &str, name: &str) -> Result<DynamoDbLog, LocationError> {
    let location = cloud::dynamodb(url, name)?.expect("a suite names a table");
    Ok(DynamoDbLog::open_with(location, Patience::NONE).await?)
}

fn parse<'a>(
    url: &'a str,
    what: &'static str,
    use_instead: &'static str,
) -> Result<Location<'a>, LocationError> {
    let malformed = |what| Err(LocationError::Malformed { url: url.to_owned(), what });
    let (location, options) = url.split_once('?').map_or((url, None), |(at, it)| (at, Some(it)));
    let (kind, location) = match location.split_once(':') {
        Some(("memory", "")) => ("memory:", Location::Memory),
        Some(("memory", _)) => return malformed("memory: takes nothing behind it"),
        Some(("file", "")) => return malformed("file: needs a folder behind it"),
        Some(("file", folder)) => ("file:", Location::Folder(Path::new(folder))),
        _ => return Err(LocationError::Unknown { url: url.to_owned(), what, use_instead }),
    };
    match options {
        None => Ok(location),
        Some(options) => {
            let option = options.split(['=', '&']).next().unwrap_or_default().to_owned();
            Err(LocationError::Option { url: url.to_owned(), kind, option, takes: "none" })
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
mod tests;
