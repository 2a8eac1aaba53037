//! A number that only grows, as known at each moment.

/// Values with the times from which they are known.
///
/// Whatever begins after a value was known must agree with it: that is all that is needed to judge
/// a register that only grows (end of a log, generation of a group), without any search.
#[derive(Clone, Debug, Default)]
pub(super) struct Floor {
    /// Time, the greatest value up to then, whose it is.
    known: Vec<(u64, i64, usize)>,
}

impl Floor {
    /// `value` is known from `time` on, by `whom`.
    pub(super) fn push(&mut self, time: u64, value: i64, whom: usize) {
        self.known.push((time, value, whom));
    }

    /// Must be called after the last [`Self::push`] and before questions.
    pub(super) fn seal(&mut self) {
        self.known.sort_unstable();
        let mut greatest: Option<(i64, usize)> = None;
        for (_, value, whom) in &mut self.known {
            match greatest {
                Some((most, its)) if most >= *value => (*value, *whom) = (most, its),
                _ => greatest = Some((*value, *whom)),
            }
        }
    }

    /// The greatest value known before `time`, and whose it is.
    pub(super) fn before(&self, time: u64) -> Option<(i64, usize)> {
        let at = self.known.partition_point(|(known, ..)| *known < time);
        at.checked_sub(1).map(|last| (self.known[last].1, self.known[last].2))
    }
}
