//! Writing and finding snapshots.
//!
//! A snapshot counts for something once it was read back and found good: it is of this log, it is
//! the state that its name says, and it is whole. When one is written is up to the driver, how far
//! the log may be trimmed behind it to [`super::trim`].

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use bytes::Bytes;
use uuid::Uuid;

use super::trim;
use crate::engine::Ports;
use crate::key::ObjectKey;
use crate::lsn::Lsn;
use crate::object::{ObjectMeta, ObjectStore, Put};
use crate::offload::off_the_workers;
use crate::port::PortError;
use crate::snapshot::{SNAPSHOT_PREFIX, snapshot_key, snapshot_lsn};
use crate::state::State;

/// How many snapshots behind the second newest good one are kept: for whoever wants to look back,
/// and for a starter that chose it a moment ago.
const OLDER_KEPT: usize = 1;

const LIST_MAX: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// The state in the newest snapshot that is whole, and its length in bytes; an empty one if there
/// is none.
///
/// A damaged snapshot is passed over with an alarm: the one before it and the log hold the same.
pub(super) async fn newest(ports: &Ports) -> Result<(State, u64), PortError> {
    for (_, object) in list(&*ports.objects).await?.iter().rev() {
        let ObjectMeta { key, size } = object;
        match load(&*ports.objects, key).await? {
            Loaded::Good(state) => return Ok((*state, *size)),
            // Deleted since it was listed: there are newer ones. If all are gone, so is the log
            // that went with them, and whoever reads that starts over.
            Loaded::Gone => {}
            Loaded::Damaged(cause) => {
                tracing::error!(%key, cause, "snapshot is damaged, trying an older one");
            }
        }
    }
    Ok((State::new(), 0))
}

/// The position of the newest snapshot, good or not; zero if there is none.
pub(super) async fn newest_position(ports: &Ports) -> Result<Lsn, PortError> {
    Ok(list(&*ports.objects).await?.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn))
}

/// The snapshots as this process knows them: what it has read back once is not read again.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    judged: BTreeMap<ObjectKey, bool>,
    pub(super) trimmed: Lsn,
}

/// The snapshot that there is now, since one was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    /// Its position: that of the state to be saved, or a later one than was known, because another
    /// broker has written one since, which will do.
    pub(super) lsn: Lsn,
    /// Its length in bytes.
    pub(super) bytes: u64,
}

impl Snapshots {
    /// Writes a snapshot, unless others have written one after `known`; then trims the log and
    /// deletes old snapshots as far as may be. Entries up to `old` are old enough to go.
    pub(super) async fn save(
        &mut self,
        ports: &Ports,
        state: State,
        known: Lsn,
        old: Lsn,
    ) -> Result<Saved, String> {
        let text = |error: PortError| error.to_string();
        let (lsn, log) = (state.applied(), state.log_id());
        let listed = list(&*ports.objects).await.map_err(text)?;
        let mut by_others = listed.iter().rev();
        let newest = by_others.find(|(at, _)| *at <= lsn).filter(|(at, _)| *at > known);
        if let Some((newer, object)) = newest {
            return Ok(Saved { lsn: *newer, bytes: object.size });
        }
        let (bytes, digest) = off_the_workers(move || state.to_snapshot()).await;
        let (key, length) = (snapshot_key(lsn, digest), bytes.len());
        match ports.objects.put_if_absent(&key, bytes).await.map_err(text)? {
            Put::Created | Put::Exists => {}
        }
        if !self.is_good(&*ports.objects, &key, log).await.map_err(text)? {
            return Err(format!("{key} could not be read back"));
        }
        tracing::info!(%lsn, bytes = length, "snapshot written");
        if let Err(error) = self.clear_behind(ports, log, old).await {
            // The next snapshot takes it along.
            tracing::warn!(%lsn, error, "what lies behind snapshots could not be cleared");
        }
        Ok(Saved { lsn, bytes: u64::try_from(length).unwrap_or(u64::MAX) })
    }

    /// Trims the log and deletes snapshots behind the second newest good one.
    async fn clear_behind(&mut self, ports: &Ports, log: Uuid, old: Lsn) -> Result<(), String> {
        let text = |error: PortError| error.to_string();
        let listed = list(&*ports.objects).await.map_err(text)?;
        self.forget_all_but(&listed);
        let twins = listed.windows(2).find(|pair| pair[0].0 == pair[1].0);
        if let Some([(lsn, one), (_, other)]) = twins {
            // The state is a function of the log: one of them was computed wrongly (C6).
            let (one, other) = (&one.key, &other.key);
            tracing::error!(%lsn, %one, %other, "two snapshots of an entry differ: not trimmed");
            return Ok(());
        }
        let good = self.newest_good(&*ports.objects, &listed, log).await.map_err(text)?;
        let positions = good.iter().map(|(_, lsn)| *lsn);
        if let Some(floor) = trim::floor(positions, old).filter(|it| *it > self.trimmed) {
            ports.log.trim(floor).await.map_err(text)?;
            self.trimmed = floor;
            tracing::info!(%floor, "log trimmed");
        }
        let Some((second, _)) = good.get(1) else { return Ok(()) };
        let stale = listed.iter().take(second.saturating_sub(OLDER_KEPT));
        let stale: Vec<ObjectKey> = stale.map(|(_, object)| object.key.clone()).collect();
        ports.objects.delete(&stale).await.map_err(text)
    }

    /// The position of the second newest snapshot that was read back and found good, from where
    /// anybody may have to follow the log; zero if there are not two.
    pub(crate) async fn second(
        &mut self,
        objects: &dyn ObjectStore,
        log: Uuid,
    ) -> Result<Lsn, PortError> {
        let listed = list(objects).await?;
        self.forget_all_but(&listed);
        let good = self.newest_good(objects, &listed, log).await?;
        // Two of one entry that differ are no better than one.
        let second = good.get(1).filter(|(_, lsn)| *lsn < good[0].1);
        Ok(second.map_or(Lsn::ZERO, |(_, lsn)| *lsn))
    }

    /// The two newest that are good, newest first: where in the list they are, and their positions.
    async fn newest_good(
        &mut self,
        objects: &dyn ObjectStore,
        listed: &[(Lsn, ObjectMeta)],
        log: Uuid,
    ) -> Result<Vec<(usize, Lsn)>, PortError> {
        let mut good = Vec::new();
        for (at, (lsn, object)) in listed.iter().enumerate().rev() {
            if self.is_good(objects, &object.key, log).await? {
                good.push((at, *lsn));
            }
            if good.len() == 2 {
                break;
            }
        }
        Ok(good)
    }

    fn forget_all_but(&mut self, listed: &[(Lsn, ObjectMeta)]) {
        self.judged.retain(|key, _| listed.iter().any(|(_, listed)| listed.key == *key));
    }

    /// Whether a snapshot was read back and found good, by this process.
    async fn is_good(
        &mut self,
        objects: &dyn ObjectStore,
        key: &ObjectKey,
        log: Uuid,
    ) -> Result<bool, PortError> {
        if let Some(good) = self.judged.get(key) {
            return Ok(*good);
        }
        let good = match load(objects, key).await? {
            Loaded::Good(state) => state.log_id() == log,
            Loaded::Gone => return Ok(false),
            Loaded::Damaged(cause) => {
                tracing::error!(%key, cause, "snapshot is damaged");
                false
            }
        };
        self.judged.insert(key.clone(), good);
        Ok(good)
    }
}

/// All snapshots with their positions, oldest first.
async fn list(objects: &dyn ObjectStore) -> Result<Vec<(Lsn, ObjectMeta)>, PortError> {
    let mut found: Vec<ObjectMeta> = Vec::new();
    loop {
        let after = found.last().map(|object| &object.key);
        let page = objects.list(SNAPSHOT_PREFIX, after, LIST_MAX).await?;
        let last = page.len() < LIST_MAX.get();
        found.extend(page);
        if last {
            let position = |it: ObjectMeta| snapshot_lsn(&it.key).map(|lsn| (lsn, it));
            return Ok(found.into_iter().filter_map(position).collect());
        }
    }
}

/// What a snapshot turned out to be.
enum Loaded {
    Good(Box<State>),
    Gone,
    Damaged(String),
}

async fn load(objects: &dyn ObjectStore, key: &ObjectKey) -> Result<Loaded, PortError> {
    match load_once(objects, key).await? {
        // Perhaps it was the way here that did it.
        Loaded::Damaged(_) => load_once(objects, key).await,
        loaded => Ok(loaded),
    }
}

async fn load_once(objects: &dyn ObjectStore, key: &ObjectKey) -> Result<Loaded, PortError> {
    let Some(bytes) = objects.get_range(key, 0..u64::MAX).await? else {
        return Ok(Loaded::Gone);
    };
    let name = key.clone();
    Ok(off_the_workers(move || read(&bytes, &name)).await)
}

fn read(bytes: &Bytes, key: &ObjectKey) -> Loaded {
    match open(key, bytes) {
        Ok(state) => Loaded::Good(Box::new(state)),
        Err(cause) => Loaded::Damaged(cause),
    }
}

/// The state in a snapshot; or what is wrong with it.
pub(crate) fn open(key: &ObjectKey, bytes: &Bytes) -> Result<State, String> {
    match State::from_snapshot(bytes) {
        Ok(state) if snapshot_key(state.applied(), state.digest()) == *key => Ok(state),
        Ok(_) => Err("it is not the state that its name says".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
