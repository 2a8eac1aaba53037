//! Items: their keys, and reading them.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use bytes::Bytes;

use super::{BATCH_MAX, CALL_MAX, Inner, KEYS_MAX};
use crate::aws::{Failure, Pauses, unthrottled};
use crate::clock::uptime;
use crate::log::{Freshness, Lsn, Slot};
use crate::port::PortError;

/// The hash key of the table.
pub(super) const SLOT: &str = "slot";
/// The bytes of an entry.
pub(super) const ENTRY: &str = "entry";
/// The first slot that is not trimmed.
pub(super) const FLOOR: &str = "floor";
/// The first slot that may still be there.
pub(super) const DELETED: &str = "deleted";

/// The key of a slot, in an order that people can read.
pub(super) fn key(log: &str, at: Lsn) -> String {
    format!("{log}/{:020}", at.get())
}

/// The key of the floor.
pub(super) fn floor_key(log: &str) -> String {
    format!("{log}/floor")
}

fn lsn_of(key: &str) -> Option<Lsn> {
    key.rsplit_once('/').and_then(|(_, number)| number.parse().ok()).map(Lsn::new)
}

#[expect(clippy::disallowed_types, reason = "the SDK's type of an item, never iterated")]
type Item = std::collections::HashMap<String, AttributeValue>;

/// The entry in an item.
pub(super) fn entry(item: &Item) -> Option<Bytes> {
    let blob = item.get(ENTRY)?.as_b().ok()?;
    Some(Bytes::copy_from_slice(blob.as_ref()))
}

/// A position in an item.
pub(super) fn position(item: &Item, attribute: &str) -> Option<Lsn> {
    item.get(attribute)?.as_n().ok()?.parse().ok().map(Lsn::new)
}

impl Inner {
    /// The filled slots among the `window` from `from` on, up to the first that is free.
    pub(super) async fn entries(
        &self,
        from: Lsn,
        window: usize,
        freshness: Freshness,
    ) -> Result<Vec<Slot>, PortError> {
        let end = from.get().saturating_add(u64::try_from(window).unwrap_or(u64::MAX));
        let slots = (from.get()..end).map(Lsn::new);
        let mut items = self.items(slots.clone(), freshness, &[SLOT, ENTRY]).await?;
        let dense = slots.map_while(|lsn| {
            let bytes = items.remove(&lsn).as_ref().and_then(entry)?;
            Some(Slot { lsn, bytes })
        });
        Ok(dense.collect())
    }

    /// The floor; remembers it.
    pub(super) async fn read_floor(&self) -> Result<Lsn, PortError> {
        Ok(self.read_floor_item().await?.0)
    }

    /// The floor, and the first slot below it that may still be there.
    pub(super) async fn read_floor_item(&self) -> Result<(Lsn, Lsn), PortError> {
        let asked = uptime();
        let get = self
            .client
            .get_item()
            .table_name(&self.location.table)
            .key(SLOT, AttributeValue::S(floor_key(&self.location.name)))
            .consistent_read(true);
        let reply = unthrottled(CALL_MAX, || get.clone().send()).await?;
        let reply = reply.map_err(|error| Failure::of(&error))?;
        let at = |attribute| reply.item().and_then(|item| position(item, attribute));
        let floor = at(FLOOR).unwrap_or(Lsn::FIRST);
        let deleted = at(DELETED).unwrap_or(Lsn::FIRST);
        let mut known = self.known();
        known.floor = known.floor.max(floor);
        known.floor_read = known.floor_read.max(Some(asked));
        Ok((floor, deleted))
    }

    /// The first free slot at or behind the floor.
    ///
    /// Slots are dense, so it lies between any filled slot and any free one behind it. Steps that
    /// double find such a pair at once; each further question cuts what is between by a hundred.
    pub(super) async fn find_tail(&self, floor: Lsn) -> Result<Lsn, PortError> {
        let steps = (0..40).map(|power| 1_u64 << power);
        let probes = steps.map(|step| floor.get().saturating_add(step - 1)).collect();
        let (mut filled, mut free) = self.probe(floor.get(), probes).await?;
        while free > filled {
            let step = (free - filled).div_ceil(probes_max()).max(1);
            let probes: Vec<u64> = (1..=probes_max())
                .map(|number| filled + number * step - 1)
                .take_while(|probe| *probe < free)
                .collect();
            if probes.is_empty() {
                break;
            }
            let (later, sooner) = self.probe(filled, probes).await?;
            (filled, free) = (later, sooner.min(free));
        }
        Ok(Lsn::new(filled))
    }

    /// Looks which of some rising slots are filled. Gives the slot behind the last filled one (or
    /// `least`) and the first free one.
    async fn probe(&self, least: u64, slots: Vec<u64>) -> Result<(u64, u64), PortError> {
        let asked = slots.iter().copied().map(Lsn::new);
        let items = self.items(asked, Freshness::Latest, &[SLOT]).await?;
        let is_filled = |slot: &&u64| items.contains_key(&Lsn::new(**slot));
        let filled = slots.iter().take_while(is_filled).last().map_or(least, |slot| slot + 1);
        let free = slots.iter().find(|slot| !is_filled(slot)).copied();
        Ok((filled, free.unwrap_or(u64::MAX)))
    }

    /// The items of some slots, as far as they are there.
    async fn items(
        &self,
        slots: impl Iterator<Item = Lsn>,
        freshness: Freshness,
        attributes: &[&str],
    ) -> Result<BTreeMap<Lsn, Item>, PortError> {
        let keys: Vec<_> = slots
            .take(KEYS_MAX)
            .map(|at| {
                let key = AttributeValue::S(key(&self.location.name, at));
                [(SLOT.to_owned(), key)].into()
            })
            .collect();
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut wanted = KeysAndAttributes::builder()
            .set_keys(Some(keys))
            .projection_expression(attributes.join(", "))
            .consistent_read(freshness == Freshness::Latest)
            .build()
            .map_err(PortError::determinate)?;
        let mut found = BTreeMap::new();
        let mut pauses = Pauses::default();
        loop {
            let get =
                self.client.batch_get_item().request_items(&self.location.table, wanted.clone());
            let reply = unthrottled(BATCH_MAX, || get.clone().send()).await?;
            let mut reply = reply.map_err(|error| Failure::of(&error))?;
            let tables = reply.responses.iter_mut();
            let items = tables.flat_map(|table| table.remove(&self.location.table));
            for item in items.flatten() {
                let at = item.get(SLOT).and_then(|slot| lsn_of(slot.as_s().ok()?));
                found.extend(at.map(|at| (at, item)));
            }
            let mut rest = reply.unprocessed_keys.unwrap_or_default();
            match rest.remove(&self.location.table) {
                Some(rest) if !rest.keys().is_empty() => wanted = rest,
                _ => return Ok(found),
            }
            pauses.pause().await;
        }
    }
}

fn probes_max() -> u64 {
    u64::try_from(KEYS_MAX).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_and_read_back() {
        assert_eq!(key("a", Lsn::new(42)), "a/00000000000000000042");
        assert_eq!(lsn_of("a-b/00000000000000000042"), Some(Lsn::new(42)));
        assert_eq!(lsn_of(&floor_key("a")), None);
    }
}
