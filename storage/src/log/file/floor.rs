//! The trim floor on disk: one line, replaced as a whole.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::{Disk, Lsn, OpenError};

const NAME: &str = "floor";

/// Reads the floor; `None` if none was ever written.
pub(super) fn read(folder: &Path) -> Result<Option<Lsn>, OpenError> {
    let path = folder.join(NAME);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(OpenError::Io { path, cause }),
    };
    let number = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    let floor = str::from_utf8(number).ok().and_then(|number| number.parse().ok());
    match floor.map(Lsn::new) {
        Some(floor) if floor >= Lsn::FIRST && line(floor).as_bytes() == text => Ok(Some(floor)),
        _ => Err(OpenError::Damaged { path, at: 0, what: "its checksum is wrong".to_owned() }),
    }
}

/// Replaces the floor, durably. The inner error means that nothing happened, the outer that nobody
/// knows.
pub(super) fn write(
    disk: &dyn Disk,
    folder: &Path,
    floor: Lsn,
) -> Result<io::Result<()>, io::Error> {
    let temporary = folder.join("floor.tmp");
    let prepared = File::create(&temporary).and_then(|file| {
        disk.write(&file, line(floor).as_bytes(), 0)?;
        disk.sync(&file)
    });
    if let Err(error) = prepared {
        // The next attempt gets a file of its own: what could not be synced is never believed.
        drop(fs::remove_file(&temporary));
        return Ok(Err(error));
    }
    fs::rename(&temporary, folder.join(NAME))?;
    disk.sync_folder(folder).map(Ok)
}

fn line(floor: Lsn) -> String {
    format!("{floor} crc32c {:08x}\n", crc32c::crc32c(floor.to_string().as_bytes()))
}
