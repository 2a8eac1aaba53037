//! How much there is in the log of a broker that keeps it in files.

use std::fs;
use std::path::Path;

/// Bytes of the log in this folder of a broker's that are in use: its files are filled with zeros
/// beforehand, and a record has no run of them.
pub(crate) fn log_bytes(data: &Path) -> usize {
    used_bytes(&data.join("log"))
}

fn used_bytes(path: &Path) -> usize {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().map(|it| used_bytes(&it.unwrap().path())).sum();
    }
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}
