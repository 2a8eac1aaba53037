//! The thread that writes the disk cache, and alone changes what is in its folder.
//!
//! It first finds what a former process has left, the youngest first, and then writes what comes.
//! When there is no room for another slab the oldest goes. The same if a write fails: on a full
//! disk the cache gets smaller, until what is written fits.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use super::index::{Place, weight};
use super::slab::{self, SLAB_HEADER, SLAB_HEADER_BYTES};
use super::{Parcel, Shelf, Stored};
use crate::disk::Disk;

/// What a slab weighs at most. Smaller caches have smaller ones.
const SLAB_WEIGHT_MAX: u64 = 64 * 1024 * 1024;

/// How many slabs there are at least.
const SLABS_MIN: u64 = 16;

/// Who writes.
pub(super) struct Shelver {
    shelf: Arc<Shelf>,
    disk: Arc<dyn Disk>,
    bytes_max: u64,
    slab_weight: u64,
    /// The slab that is written.
    open: Option<Open>,
    /// The number of the next one.
    next: u64,
}

struct Open {
    number: u64,
    file: File,
    /// Where it ends.
    end: u64,
    weight: u64,
}

impl Shelver {
    pub(super) fn new(shelf: Arc<Shelf>, disk: Arc<dyn Disk>, bytes_max: u64) -> Self {
        let slab_weight = (bytes_max / SLABS_MIN).min(SLAB_WEIGHT_MAX);
        Self { shelf, disk, bytes_max, slab_weight, open: None, next: 0 }
    }

    /// Takes over these slabs, oldest first, and writes what comes until nothing more can come.
    pub(super) fn run(mut self, found: Vec<u64>, queue: &Receiver<Parcel>) {
        self.next = found.last().map_or(0, |last| last.saturating_add(1));
        for slab in found.into_iter().rev() {
            self.take_over(slab);
        }
        for Parcel { length, blocks } in queue {
            for block in &blocks {
                self.keep(block);
            }
            drop(blocks);
            self.shelf.queued.fetch_sub(length, Ordering::Relaxed);
        }
    }

    /// Finds what is in a slab of a former process, or deletes it if there is no room for it.
    fn take_over(&mut self, slab: u64) {
        let path = self.shelf.path(slab);
        let scanned = slab::scan(&path, slab);
        let (length, records) = scanned.unwrap_or_else(|error| {
            self.shelf.complain(&error);
            (0, Vec::new())
        });
        let is_of_use = !records.is_empty();
        let mut index = self.shelf.index();
        index.add_old(slab, length, records);
        let fits = index.weight() <= self.bytes_max;
        drop(index);
        if !(is_of_use && fits) {
            self.delete_oldest();
        }
        self.show_bytes();
    }

    /// Writes a block, unless it is there.
    fn keep(&mut self, block: &Stored) {
        let Ok(bytes) = u32::try_from(block.bytes.len()) else { return };
        let weight = weight(bytes);
        if self.shelf.index().get(&block.key).is_some() {
            return;
        }
        if weight + SLAB_HEADER_BYTES > self.slab_weight {
            self.shelf.counts.skipped.add(1);
            return;
        }
        if let Err(error) = self.write(block, bytes, weight) {
            self.shelf.complain(&error);
            self.delete_oldest();
        }
        self.show_bytes();
    }

    fn write(&mut self, block: &Stored, bytes: u32, weight: u64) -> io::Result<()> {
        let full = |open: &Open| open.weight + weight > self.slab_weight;
        if self.open.as_ref().is_none_or(full) {
            self.begin()?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut record = slab::record_header(&block.key, bytes);
        let at = open.end + slab::RECORD_HEADER_BYTES;
        record.extend_from_slice(&block.bytes);
        self.disk.write(&open.file, &record, open.end).inspect_err(|_| {
            // So that the file is no longer than is known. If that fails too, it goes all the same.
            drop(open.file.set_len(open.end));
        })?;
        open.end = at + u64::from(bytes);
        open.weight += weight;
        let at = u32::try_from(at).map_err(io::Error::other)?;
        self.shelf.index().add(block.key, Place { slab: open.number, at, bytes });
        self.shelf.counts.bytes_written.add(bytes.into());
        Ok(())
    }

    /// Begins another slab.
    fn begin(&mut self) -> io::Result<()> {
        self.open = None;
        while self.shelf.index().weight() + self.slab_weight > self.bytes_max {
            if !self.delete_oldest() {
                return Err(io::Error::other("there is no room, and nothing can be deleted"));
            }
        }
        let number = self.next;
        self.next += 1;
        let file = File::options().write(true).create_new(true).open(self.shelf.path(number))?;
        self.shelf.index().begin(number);
        self.open = Some(Open { number, file, end: SLAB_HEADER_BYTES, weight: SLAB_HEADER_BYTES });
        let Some(open) = &self.open else { return Ok(()) };
        let written = self.disk.write(&open.file, &SLAB_HEADER, 0);
        if written.is_err() {
            self.open = None;
        }
        written
    }

    /// Deletes the oldest slab, and says whether there is more room now.
    fn delete_oldest(&mut self) -> bool {
        let Some(slab) = self.shelf.index().empty_oldest() else { return false };
        if self.open.as_ref().is_some_and(|open| open.number == slab) {
            self.open = None;
        }
        match fs::remove_file(self.shelf.path(slab)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                self.shelf.complain(&error);
                return false;
            }
            _ => {}
        }
        self.shelf.index().end_oldest();
        true
    }

    fn show_bytes(&self) {
        self.shelf.counts.held_bytes.set(self.shelf.index().weight());
    }
}
