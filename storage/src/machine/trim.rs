//! How far the log may be trimmed.
//!
//! An entry may go when both are true:
//!
//! - It lies below the second newest snapshot that was read back and found good
//!   ([`super::snapshots`]): should the newest be lost, the one before it and the log still hold
//!   everything.
//! - It is older than [`MachineConfig::log_kept`](super::MachineConfig::log_kept), so that nobody
//!   who was merely slow meets the floor: neither an appender between its read and its put
//!   (RELIABILITY A6) nor a follower. That a slot below the floor is never won again does not rest
//!   on this; the log keeps to it by itself (LOG-5).
//!
//! Age is how long ago this process had applied the entry: see [`crate::ages`]. A process that is
//! restarted more often than entries are kept trims nothing; any other that runs long enough does
//! it in its place.

use crate::lsn::Lsn;

/// The first entry to be kept: what is below it may go. `good` are the positions of the snapshots
/// that were found good, newest first.
pub(super) fn floor(mut good: impl Iterator<Item = Lsn>, old: Lsn) -> Option<Lsn> {
    // The entry of the snapshot itself is kept, to compare the chain with.
    let floor = good.nth(1)?.min(old);
    (floor > Lsn::FIRST).then_some(floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_kept_from_the_second_newest_snapshot_on() {
        let good = |positions: &[u64]| {
            let positions: Vec<Lsn> = positions.iter().copied().map(Lsn::new).collect();
            move |old: u64| floor(positions.clone().into_iter(), Lsn::new(old))
        };
        assert_eq!(good(&[])(100), None);
        assert_eq!(good(&[90])(100), None);
        assert_eq!(good(&[90, 50])(100), Some(Lsn::new(50)));
        assert_eq!(good(&[90, 50, 20])(100), Some(Lsn::new(50)));
        assert_eq!(good(&[90, 50])(30), Some(Lsn::new(30)));
        assert_eq!(good(&[90, 50])(0), None);
        assert_eq!(good(&[90, 1])(100), None);
    }
}
