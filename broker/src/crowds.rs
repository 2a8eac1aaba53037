//! How many connections there are from each address (`max.connections.per.ip`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts them. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowds {
    counts: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// One connection, as long as it is there.
#[derive(Debug)]
pub(crate) struct Visit {
    crowds: Crowds,
    from: IpAddr,
}

impl Crowds {
    /// Counts a connection in, unless there are as many as may be from its address.
    pub(crate) fn enter(&self, from: IpAddr, most: usize) -> Option<Visit> {
        let mut counts = self.lock();
        let count = counts.entry(from).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Visit { crowds: self.clone(), from })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut counts = self.crowds.lock();
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let crowds = Crowds::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = crowds.enter(one, 2);
        let second = crowds.enter(one, 2);
        assert!(first.is_some() && second.is_some());
        assert!(crowds.enter(one, 2).is_none());
        assert!(crowds.enter(other, 2).is_some());
        drop(first);
        assert!(crowds.enter(one, 2).is_some(), "and gives it back at once");
        drop(second);
        assert!(crowds.lock().is_empty(), "addresses without connections are forgotten");
    }
}
