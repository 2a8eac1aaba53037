//! The cache on disk, as settings ask for it.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use odradek_storage::reader::DiskCacheConfig;

use super::ConfigError;

/// Bytes of a cache whose size is not given.
const BYTES_DEFAULT: u64 = 10 << 30;

/// Bytes that one may have: the longest usual block is to fit into a sixteenth of it.
const BYTES: RangeInclusive<u64> = 64 << 20..=1 << 50;

pub(super) fn disk_cache(
    folder: Option<PathBuf>,
    bytes: Option<u64>,
) -> Result<Option<DiskCacheConfig>, ConfigError> {
    let Some(folder) = folder else {
        return match bytes {
            Some(_) => Err(ConfigError("disk-cache-bytes is given, disk-cache is not".to_owned())),
            None => Ok(None),
        };
    };
    let bytes_max = bytes.unwrap_or(BYTES_DEFAULT);
    if !BYTES.contains(&bytes_max) {
        let (least, most) = (BYTES.start(), BYTES.end());
        return Err(ConfigError(format!(
            "disk-cache-bytes is {bytes_max}, not from {least} to {most}"
        )));
    }
    Ok(Some(DiskCacheConfig { folder, bytes_max }))
}
