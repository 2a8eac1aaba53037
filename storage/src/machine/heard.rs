//! What a machine hears from other brokers.

use std::sync::atomic::Ordering;

use super::{Machine, Request};
use crate::command::{Incarnation, Proposal, footer};
use crate::footers;
use crate::peer::{News, PeerMessage};

impl Machine {
    /// This life of the broker.
    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation(self.shared.incarnation.load(Ordering::Relaxed))
    }

    /// Whether a message is for this incarnation, and from a broker that is registered.
    pub fn concerns(&self, message: &PeerMessage) -> bool {
        self.incarnation() == message.to && self.read(|state| state.is_registered(message.from))
    }

    /// Takes a message from another broker. What is not for this incarnation, or not from a broker
    /// that is registered, is dropped; so is a question, which the reader answers.
    pub fn receive(&self, message: PeerMessage) {
        if !self.concerns(&message) {
            return;
        }
        let PeerMessage { to, news, .. } = message;
        match news {
            News::Filled { lsn, entry } => {
                let is_news = lsn > *self.shared.applied.borrow();
                if let Some(entry) = entry.filter(|_| is_news) {
                    self.shared.told.put(lsn, entry);
                }
                self.shared.filled.send_if_modified(|filled| {
                    let news = lsn > *filled;
                    *filled = lsn.max(*filled);
                    news
                });
            }
            News::Help { mut proposals, footers } => {
                footers::unpack(&mut proposals, &footers);
                // Nobody else may speak for this broker, and what it appends it applies at once.
                // Whoever asks asks again, or another, if the queue is full.
                let is_own = |proposal: &Proposal| proposal.id.incarnation == to;
                let is_whole = footer::lacking(&proposals).next().is_none();
                if is_whole && !proposals.iter().any(is_own) {
                    drop(self.queue.try_send(Request::Help(proposals)));
                }
            }
            News::Ask(_) => {}
        }
    }
}
