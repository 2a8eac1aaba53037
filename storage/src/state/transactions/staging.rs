//! Positions of groups that depend on transactions (KIP-447).

use odradek_protocol::id::{ProducerId, TopicPartition};

use super::Transactions;
use crate::command::{Rejection, StagedOffsets};
use crate::state::State;

impl Transactions {
    /// Whether a position of a group depends on a transaction that is open (KIP-447).
    pub fn is_staged(&self, group: &str, partition: TopicPartition) -> bool {
        let open = self.staged.get(group).into_iter().flatten();
        open.filter_map(|producer| self.of_producer(*producer)?.1.ongoing())
            .any(|it| it.groups.get(group).is_some_and(|staged| staged.contains_key(&partition)))
    }

    /// Nothing is staged in a group any more: it is gone.
    pub(crate) fn forget_group(&mut self, group: &str) {
        for producer in self.staged.remove(group).into_iter().flatten() {
            if let Some(ongoing) = self.ongoing_mut(producer)
                && let Some(staged) = ongoing.groups.get_mut(group)
            {
                staged.clear();
            }
        }
    }

    /// A position is committed to a partition without a transaction: what is staged for it is
    /// older.
    pub(crate) fn supersede(&mut self, group: &str, partition: TopicPartition) {
        for producer in self.staged.get(group).cloned().into_iter().flatten() {
            let Some(ongoing) = self.ongoing_mut(producer) else { continue };
            let Some(staged) = ongoing.groups.get_mut(group) else { continue };
            staged.remove(&partition);
            if staged.is_empty() {
                self.unstage(group, producer);
            }
        }
    }

    pub(super) fn unstage(&mut self, group: &str, producer: ProducerId) {
        if let Some(producers) = self.staged.get_mut(group) {
            producers.remove(&producer);
            if producers.is_empty() {
                self.staged.remove(group);
            }
        }
    }
}

impl State {
    pub(super) fn stage_offsets(
        &mut self,
        id: &str,
        staged: &StagedOffsets,
    ) -> Result<(), Rejection> {
        let found = self.transactions.by_id.get(id).ok_or(Rejection::UnknownProducer)?;
        found.check(staged.producer)?;
        let group = &staged.group;
        let is_in = found.ongoing().is_some_and(|it| it.groups.contains_key(group));
        if !staged.is_implicit && !is_in {
            return Err(Rejection::NotInTransaction);
        }
        found.check_number(staged.transaction)?;
        // Clients that don't say who they are rely on their epoch alone.
        if staged.committer.is_some() {
            self.groups.admit(group, staged.committer.as_ref())?;
        }
        let known =
            staged.offsets.iter().filter(|it| self.topics.partition(it.partition).is_some());
        let offsets: Vec<_> = known.map(|it| (it.partition, it.clone())).collect();
        if !offsets.is_empty() {
            let producers = self.transactions.staged.entry(group.clone()).or_default();
            producers.insert(staged.producer.id);
        }
        if let Some(ongoing) = self.transactions.begin(id, self.log_time_ms) {
            ongoing.groups.entry(group.clone()).or_default().extend(offsets);
        }
        Ok(())
    }
}
