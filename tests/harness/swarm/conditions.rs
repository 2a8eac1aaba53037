//! What is wrong just now, and what that means for the calls of one broker.

use std::time::Duration;

use odradek_storage::log::faulty::LogFaults;
use odradek_storage::object::faulty::{Faults, Oddities};

use super::fault::Fault;
use super::plan::Plan;

/// How long a late put may take at most: longer than a segment may wait for its commit.
const LATE_PUT_MAX: Duration = Duration::from_secs(60);

/// How late an append may land, and how late in a stretched world.
const LATE_APPEND_MAX: Duration = Duration::from_secs(30);
const STRETCHED_LATE_APPEND_MAX: Duration = Duration::from_secs(5 * 60);

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) fault: Fault,
    /// The broker it concerns; all of them otherwise.
    pub(super) place: Option<u64>,
    /// How bad it is, from 0 to 1.
    pub(super) strength: f64,
}

/// What befalls the calls of one broker.
#[derive(Clone, Debug, Default)]
pub(super) struct Befalls {
    pub(super) log: LogFaults,
    pub(super) log_oddities: Oddities,
    pub(super) log_is_out: bool,
    pub(super) objects: Faults,
    pub(super) object_oddities: Oddities,
    pub(super) objects_are_out: bool,
}

impl Befalls {
    /// What befalls the calls of the broker in this place. No call is ever done in no time.
    pub(super) fn of<'a>(
        plan: &Plan,
        conditions: impl Iterator<Item = &'a Condition>,
        place: u64,
    ) -> Self {
        let mut all = Self::default();
        all.log.delayed = 1.0;
        all.log.delay_max = Duration::from_millis(2);
        all.objects.calls = all.log.clone();
        for condition in conditions.filter(|it| it.place.is_none_or(|of| of == place)) {
            all.add(plan, condition.fault, condition.strength);
        }
        all
    }

    fn add(&mut self, plan: &Plan, fault: Fault, strength: f64) {
        self.add_to_store(plan, fault, strength);
        self.add_to_log(plan, fault, strength);
        if fault == Fault::SlowBroker {
            self.log_oddities.slowness = if strength < 0.5 { 4 } else { 20 };
            self.object_oddities.slowness = self.log_oddities.slowness;
        }
    }

    fn add_to_store(&mut self, plan: &Plan, fault: Fault, strength: f64) {
        let calls = &mut self.objects.calls;
        match fault {
            Fault::StoreLatency => calls.delay_max = Duration::from_millis(200).mul_f64(strength),
            Fault::StoreSpike => {
                calls.slow = 0.03 * strength;
                calls.slow_max = Duration::from_secs(30);
            }
            Fault::StoreThrottle => {
                calls.throttled = 0.05 * strength;
                calls.throttle_max = Duration::from_secs(3);
            }
            Fault::StoreRefusal => calls.refused = 0.2 * strength,
            Fault::StoreReset => calls.lost = 0.3 * strength,
            Fault::StoreReplyLost => calls.answer_lost = 0.3 * strength,
            Fault::StoreLatePut => {
                calls.late = 0.1 * strength;
                calls.late_max = plan.stretched(LATE_PUT_MAX);
            }
            Fault::StoreConflict => self.object_oddities.conflict = 0.2 * strength,
            Fault::StoreOwnRetry => self.object_oddities.own_retry = 0.2 * strength,
            Fault::StoreBitFlip => self.objects.bit_flip = 0.1 * strength,
            Fault::StoreTruncated => self.objects.truncated = 0.1 * strength,
            Fault::StoreWrongRange => self.objects.wrong_range = 0.1 * strength,
            Fault::StoreNotFound => self.objects.not_found = 0.05 * strength,
            Fault::StoreOutage | Fault::StoreCut => self.objects_are_out = true,
            Fault::StoreSlowList => {
                self.object_oddities.slow_list = 0.5;
                self.object_oddities.slow_list_max = Duration::from_secs(30).mul_f64(strength);
            }
            _ => {}
        }
    }

    fn add_to_log(&mut self, plan: &Plan, fault: Fault, strength: f64) {
        let late_max = plan.stretched(LATE_APPEND_MAX).min(STRETCHED_LATE_APPEND_MAX);
        match fault {
            Fault::LogLatency => self.log.delay_max = Duration::from_millis(60).mul_f64(strength),
            Fault::LogFailBefore => {
                self.log.refused = 0.1 * strength;
                self.log.lost = 0.1 * strength;
            }
            Fault::LogFailAfter => self.log.answer_lost = 0.3 * strength,
            Fault::LogLateAppend => {
                self.log.late = 0.1 * strength;
                self.log.late_max = late_max.mul_f64(strength);
            }
            Fault::LogDoubled => {
                self.log_oddities.doubled = 0.3 * strength;
                self.log_oddities.doubled_max = late_max.mul_f64(strength);
            }
            Fault::LogThrottle => {
                self.log.throttled = 0.03 * strength;
                self.log.throttle_max = Duration::from_secs(3);
            }
            Fault::LogStale => self.log.stale = 0.5 * strength,
            Fault::LogShortPage => self.log_oddities.short_page = 0.8 * strength,
            Fault::LogOutage | Fault::LogCut => self.log_is_out = true,
            _ => {}
        }
    }
}
