//! A switch that many wait for: whether a broker is stopping, leaving, or lets nobody in.
//!
//! Who waits goes on in the order in which they came. A `watch` of tokio's wakes in a random one,
//! and a simulation that is run again would be another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// On or off. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switch {
    shared: Arc<(AtomicBool, Notify)>,
}

impl Switch {
    /// Turns it.
    pub(crate) fn turn(&self, on: bool) {
        let (is_on, changed) = &*self.shared;
        is_on.store(on, Ordering::SeqCst);
        changed.notify_waiters();
    }

    /// Whether it is on.
    pub(crate) fn is_on(&self) -> bool {
        self.shared.0.load(Ordering::SeqCst)
    }

    /// Waits until it is on, or off.
    pub(crate) async fn wait_for(&self, on: bool) {
        loop {
            // Before the look, so that nothing is missed between the two.
            let changed = self.shared.1.notified();
            if self.is_on() == on {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_goes_on_in_the_order_in_which_they_came() {
        let switch = Switch::default();
        let (sender, mut order) = tokio::sync::mpsc::channel(100);
        for number in 0..20 {
            let (switch, sender) = (switch.clone(), sender.clone());
            tokio::spawn(async move {
                switch.wait_for(true).await;
                sender.send(number).await.unwrap();
            });
        }
        tokio::task::yield_now().await;
        switch.turn(true);
        for number in 0..20 {
            assert_eq!(order.recv().await, Some(number));
        }
        switch.wait_for(true).await;
    }
}
