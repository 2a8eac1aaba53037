//! Ending transactions: on request, by a timeout, by a successor.

use odradek_protocol::id::TopicPartition;

use super::{Ongoing, Phase};
use crate::command::{ProducerIdAndEpoch, Rejection};
use crate::state::State;
use crate::state::partition::Marker;

/// How a transaction ends.
#[derive(Clone, Copy)]
pub(super) struct Ending {
    /// Whether it is committed; else it is aborted.
    pub(super) commits: bool,
    /// Whether its client's epoch ends with it: then its markers have the next one (KIP-890).
    pub(super) raises_epoch: bool,
}

impl Ending {
    /// Aborted, and its client is fenced, or goes on with another epoch.
    pub(super) const ABORT: Self = Self { commits: false, raises_epoch: true };
}

impl State {
    /// What EndTxn does: `commits` or aborts, and `bumps_epoch` if the client goes on with a new
    /// one. A request may be a repeated one, whose first answer was lost: that is known by the
    /// epoch before the present one, or, of clients that keep their epoch, can't be told from one
    /// that ends nothing.
    pub(super) fn end_transaction(
        &mut self,
        id: &str,
        producer: ProducerIdAndEpoch,
        transaction: u64,
        (commits, bumps_epoch): (bool, bool),
        touched: &mut Vec<TopicPartition>,
    ) -> Result<ProducerIdAndEpoch, Rejection> {
        let found = self.transactions.by_id.get(id).ok_or(Rejection::UnknownProducer)?;
        let current = found.producer;
        let is_open = found.ongoing().is_some();
        let is_repeated = bumps_epoch && !is_open && found.previous == Some(producer);
        if !is_repeated {
            found.check(producer)?;
        }
        if is_open {
            found.check_number(transaction)?;
            if bumps_epoch {
                self.check_epochs(found)?;
            }
            self.finish(id, Ending { commits, raises_epoch: bumps_epoch }, touched);
            return if bumps_epoch { self.go_on(id, producer) } else { Ok(current) };
        }
        let is_what_was_done = match found.phase {
            Phase::Committed => commits,
            Phase::Aborted => !commits,
            Phase::Empty | Phase::Ongoing(_) => false,
        };
        match found.phase {
            Phase::Empty if is_repeated && !commits => {
                let (epoch, current) = (producer.epoch, current.epoch);
                Err(Rejection::ProducerFenced { epoch, current })
            }
            _ if is_what_was_done && (is_repeated || !bumps_epoch) => Ok(current),
            // There is nothing to abort; the client counts on its new epoch all the same (KIP-890).
            _ if !commits && bumps_epoch && !is_repeated => {
                self.check_epochs(found)?;
                self.finish(id, Ending::ABORT, touched);
                self.go_on(id, producer)
            }
            _ => Err(Rejection::InvalidTransactionState),
        }
    }

    /// Aborts an open transaction, and fences its client.
    pub(super) fn abort_transaction(
        &mut self,
        id: &str,
        transaction: u64,
        touched: &mut Vec<TopicPartition>,
    ) -> Result<(), Rejection> {
        let found = self.transactions.by_id.get(id).ok_or(Rejection::UnknownProducer)?;
        found.check_number(transaction)?;
        if found.ongoing().is_none() {
            return Err(Rejection::InvalidTransactionState);
        }
        let producer = found.producer;
        self.check_epochs(found)?;
        self.finish(id, Ending::ABORT, touched);
        // A client that aborts in its turn, and then has a new epoch, may go on.
        self.go_on(id, producer).map(|_| ())
    }

    /// The next epoch, for the client that had `producer`.
    fn go_on(
        &mut self,
        id: &str,
        producer: ProducerIdAndEpoch,
    ) -> Result<ProducerIdAndEpoch, Rejection> {
        let next = self.bump_epoch(id)?;
        if let Some(transactional) = self.transactions.by_id.get_mut(id) {
            transactional.previous = Some(producer);
        }
        Ok(next)
    }

    /// Ends whatever is open, everywhere at once.
    pub(super) fn finish(&mut self, id: &str, ending: Ending, touched: &mut Vec<TopicPartition>) {
        let Ending { commits, raises_epoch } = ending;
        let transaction = self.transactions.next_number();
        let now_ms = self.log_time_ms;
        let Some(transactional) = self.transactions.by_id.get_mut(id) else { return };
        let producer = transactional.producer;
        let phase = if commits { Phase::Committed } else { Phase::Aborted };
        transactional.transaction = transaction;
        transactional.last_ms = now_ms;
        let Phase::Ongoing(ongoing) = std::mem::replace(&mut transactional.phase, phase) else {
            return;
        };
        self.transactions.ongoing.remove(&producer.id);
        let Ongoing { partitions, groups, .. } = ongoing;
        let mut marker = Marker { producer, commits };
        if raises_epoch {
            marker.producer.epoch = producer.epoch.saturating_add(1);
        }
        for (at, first) in partitions {
            // Without a record there is nothing that a marker could speak of.
            let Some(first) = first else { continue };
            let Ok(partition) = self.topics.partition_mut(at) else { continue };
            partition.end_transaction(first, marker, now_ms);
            touched.push(at);
        }
        for (group, offsets) in groups {
            self.transactions.unstage(&group, producer.id);
            if commits {
                for offset in offsets.values() {
                    self.groups.commit(&group, offset, None, now_ms);
                }
            }
        }
    }
}
