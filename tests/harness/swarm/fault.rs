//! What can go wrong: one variant for each kind of fault of the catalogue, which counts 48.
//!
//! The numbers are those of the catalogue. Not injected here are 35 (brokers of two releases: there
//! is one release to build), and those of a disk, 46 (writes that were never synced, and torn), 47
//! (a flipped bit) and 48 (full, or a sync that fails): the tests of the file log and of the file
//! store have disks that do so, and the suites `crash` and `disk_full` real ones. 25 and 26 must
//! stop brokers and have worlds of their own ([`super::ends`]).

use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 1: calls to the store take their time.
    StoreLatency,
    /// 2: few take very long.
    StoreSpike,
    /// 3: bursts of "slow down".
    StoreThrottle,
    /// 4: refusals.
    StoreRefusal,
    /// 5: connections reset before a call was heard.
    StoreReset,
    /// 6: answers that get lost.
    StoreReplyLost,
    /// 7: puts that land long after their caller gave up.
    StoreLatePut,
    /// 8: conflicts with puts that there were not.
    StoreConflict,
    /// 9: a hidden second attempt hears that the name is taken, by the first.
    StoreOwnRetry,
    /// 10: flipped bits in what is read.
    StoreBitFlip,
    /// 11: reads cut short.
    StoreTruncated,
    /// 12: reads of the wrong range.
    StoreWrongRange,
    /// 13: objects that are there and not found.
    StoreNotFound,
    /// 14: no call of anybody gets through.
    StoreOutage,
    /// 15: listings that take long.
    StoreSlowList,
    /// 16: calls to the log take their time.
    LogLatency,
    /// 17: they fail before they do anything.
    LogFailBefore,
    /// 18: they fail when they have done it.
    LogFailAfter,
    /// 19: appends that land long after their caller was told of an error.
    LogLateAppend,
    /// 20: appends that come twice.
    LogDoubled,
    /// 21: bursts of "slow down".
    LogThrottle,
    /// 22: reads that are a moment behind.
    LogStale,
    /// 23: pages cut short with more behind them. (Empty ones are none of the port: see its
    /// contract.)
    LogShortPage,
    /// 24: no call of anybody gets through.
    LogOutage,
    /// 25: the log is put back to where it was (a scenario).
    LogSwap,
    /// 26: an entry that no broker wrote (a scenario).
    LogGarbage,
    /// 27: one broker has four to twenty times the way to the store and to the log.
    SlowBroker,
    /// 28: a broker is killed.
    Kill,
    /// 29: it is killed while it writes a snapshot.
    KillInSnapshot,
    /// 30: its process is stopped for a moment.
    ShortPause,
    /// 31: it is stopped for long.
    LongPause,
    /// 32: a machine is copied while it runs: two brokers draw the same numbers.
    Clone,
    /// 33: one is killed and started again and again, or all are.
    RestartStorm,
    /// 34: one starts while store and log are out of reach.
    StartInOutage,
    /// 36: what a broker does for a client is dropped at whatever await: connections break in the
    /// middle of requests.
    TaskCancel,
    /// 37: a clock is wrong by seconds.
    ClockOffset,
    /// 38: by a year.
    ClockYear,
    /// 39: it jumps to and fro.
    ClockStrobe,
    /// 40: it stands still.
    ClockFrozen,
    /// 41: clients can't reach a broker, or do not hear it.
    ClientCut,
    /// 42: a broker is not heard by another.
    PeerCut,
    /// 43: one broker can't reach the store.
    StoreCut,
    /// 44: one broker can't reach the log.
    LogCut,
    /// 45: clients that read slowly, or not at all.
    SlowClient,
}

impl Fault {
    /// All that may happen at any time, in the order of the catalogue.
    pub const ANY_TIME: [Self; 42] = [
        Self::StoreLatency,
        Self::StoreSpike,
        Self::StoreThrottle,
        Self::StoreRefusal,
        Self::StoreReset,
        Self::StoreReplyLost,
        Self::StoreLatePut,
        Self::StoreConflict,
        Self::StoreOwnRetry,
        Self::StoreBitFlip,
        Self::StoreTruncated,
        Self::StoreWrongRange,
        Self::StoreNotFound,
        Self::StoreOutage,
        Self::StoreSlowList,
        Self::LogLatency,
        Self::LogFailBefore,
        Self::LogFailAfter,
        Self::LogLateAppend,
        Self::LogDoubled,
        Self::LogThrottle,
        Self::LogStale,
        Self::LogShortPage,
        Self::LogOutage,
        Self::SlowBroker,
        Self::Kill,
        Self::KillInSnapshot,
        Self::ShortPause,
        Self::LongPause,
        Self::Clone,
        Self::RestartStorm,
        Self::StartInOutage,
        Self::TaskCancel,
        Self::ClockOffset,
        Self::ClockYear,
        Self::ClockStrobe,
        Self::ClockFrozen,
        Self::ClientCut,
        Self::PeerCut,
        Self::StoreCut,
        Self::LogCut,
        Self::SlowClient,
    ];

    /// For how long it may last at a time.
    pub fn length_max(self) -> Duration {
        Duration::from_secs(match self {
            Self::ShortPause | Self::StartInOutage => 10,
            Self::StoreOutage | Self::LogOutage | Self::StoreCut | Self::LogCut => 12,
            _ => 20,
        })
    }

    /// Whether it concerns one broker and not all of them.
    pub fn is_of_one(self) -> bool {
        use Fault::{
            ClientCut, ClockFrozen, ClockOffset, ClockStrobe, ClockYear, LogCut, SlowBroker,
            StoreCut,
        };
        matches!(
            self,
            SlowBroker
                | ClockOffset
                | ClockYear
                | ClockStrobe
                | ClockFrozen
                | ClientCut
                | StoreCut
                | LogCut
        )
    }
}
