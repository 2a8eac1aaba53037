//! Names of objects: what ports, core and engine share of the object store.

use std::fmt;

/// Name of an object: one or more parts of `[a-z0-9._-]`, joined by `/`, at most 512 bytes.
///
/// The alphabet is small on purpose: a key is a legal file name, a legal S3 key and legal in a URL
/// without escaping.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

/// A name that no backend would accept.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an object key")]
pub struct InvalidKey(String);

impl ObjectKey {
    /// Longest key, in bytes.
    pub const BYTES_MAX: usize = 512;

    /// Checks `key` against the alphabet; `.` and `..` are no parts.
    pub fn new(key: impl Into<String>) -> Result<Self, InvalidKey> {
        let key = key.into();
        let legal =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let good = key.len() <= Self::BYTES_MAX
            && key.split('/').all(|part| {
                !part.is_empty() && part != "." && part != ".." && part.bytes().all(legal)
            });
        if good { Ok(Self(key)) } else { Err(InvalidKey(key)) }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
