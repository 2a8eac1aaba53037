//! What befalls a call to a faulty port: whether it happens, and whether the caller is told.
//!
//! Owns the dice and the switches. What a call is, and what else can go wrong with it, is up to the
//! decorators (`object::faulty`, `log::faulty`). All chance comes from one seeded generator and all
//! delay from the clock of tokio, so that a run under a paused, current-thread runtime repeats.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::PortError;

mod oddities;

use oddities::OddDice;
pub use oddities::Oddities;

/// What becomes of one call. A call that happens is never reported as `Determinate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It happens, and the answer arrives.
    Answered,
    /// It does not happen, and the caller is told so: `Determinate`.
    Refused,
    /// It does not happen, and the caller can't know: `Indeterminate`.
    Lost,
    /// It happens, but the answer gets lost: `Indeterminate`.
    AnswerLost,
    /// `Indeterminate` now; it happens after this time, whatever the caller does meanwhile.
    Late(Duration),
}

/// How likely each fate of a call is, from 0 to 1. Default: every call is answered at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallFaults {
    /// Of [`Fate::Refused`].
    pub refused: f64,
    /// Of [`Fate::Lost`], among calls not refused.
    pub lost: f64,
    /// Of [`Fate::AnswerLost`], among the rest.
    pub answer_lost: f64,
    /// Of [`Fate::Late`], among the rest. A call without effect is lost instead.
    pub late: f64,
    /// Longest time that a late call is late.
    pub late_max: Duration,
    /// Of a delay: drawn once for the way to the backend and once for the way back.
    pub delayed: f64,
    /// Longest delay, each way.
    pub delay_max: Duration,
    /// Of a slow call, which takes longer on its way to the backend.
    pub slow: f64,
    /// How much longer, at most.
    pub slow_max: Duration,
    /// Of a burst that begins with this call: until it ends, every call is [`Fate::Refused`].
    pub throttled: f64,
    /// Longest burst.
    pub throttle_max: Duration,
    /// Of a read that may be a moment behind, and is.
    pub stale: f64,
}

/// What the dice gave for one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawn {
    fate: Fate,
    before: Duration,
    after: Duration,
}

impl Drawn {
    fn lengthen(&mut self, times: u32) {
        self.before *= times.max(1);
        self.after *= times.max(1);
    }
}

/// The switches of a faulty port, to be turned while it is in use. Clones turn the same ones.
pub struct Control<F> {
    shared: Arc<Mutex<Shared<F>>>,
    landed: Arc<Notify>,
}

struct Shared<F> {
    faults: F,
    rng: StdRng,
    weather: Weather,
    odd: OddDice,
    outage: bool,
    script: VecDeque<Fate>,
    late: usize,
}

/// What goes wrong for a while and not for one call. It has dice of its own, so that a storm leaves
/// the fates of the calls outside it as they were.
struct Weather {
    rng: StdRng,
    throttled_until: Option<Instant>,
}

impl<F: Clone> Control<F> {
    pub(crate) fn new(seed: u64, faults: F) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let weather = Weather { rng: StdRng::seed_from_u64(!seed), throttled_until: None };
        let script = VecDeque::new();
        let odd = OddDice::new(seed);
        let shared = Shared { faults, rng, weather, odd, outage: false, script, late: 0 };
        Self { shared: Arc::new(Mutex::new(shared)), landed: Arc::default() }
    }

    /// Replaces the likelihoods, and ends a burst of refusals.
    pub fn set(&self, faults: F) {
        let mut shared = self.lock();
        shared.faults = faults;
        shared.weather.throttled_until = None;
    }

    /// Replaces the likelihoods of what befalls some calls only.
    pub fn set_oddities(&self, oddities: Oddities) {
        self.lock().odd.oddities = oddities;
    }

    /// Begins or ends an outage, during which every call is [`Fate::Lost`]. What is late still
    /// lands.
    pub fn outage(&self, on: bool) {
        self.lock().outage = on;
    }

    /// Decides the next calls with an effect, one each, before the dice decide again. An outage
    /// comes first.
    pub fn script(&self, fates: impl IntoIterator<Item = Fate>) {
        self.lock().script.extend(fates);
    }

    /// How many decisions of the script no call has used yet.
    pub fn scripted(&self) -> usize {
        self.lock().script.len()
    }

    /// How many late calls have yet to happen.
    pub fn late(&self) -> usize {
        self.lock().late
    }

    /// Ends all faults, and waits until what is late has happened.
    pub async fn end_faults(&self)
    where
        F: Default,
    {
        self.set(F::default());
        self.set_oddities(Oddities::default());
        self.outage(false);
        self.lock().script.clear();
        loop {
            let landed = self.landed.notified();
            if self.late() == 0 {
                return;
            }
            landed.await;
        }
    }

    /// Draws for a call that has an effect.
    pub(crate) fn draw(&self, calls: impl FnOnce(&F) -> &CallFaults) -> Drawn {
        let mut guard = self.lock();
        let shared = &mut *guard;
        let faults = calls(&shared.faults);
        let mut drawn = shared.weather.befall(faults, faults.draw(&mut shared.rng));
        drawn.lengthen(shared.odd.oddities.slowness);
        if shared.outage {
            drawn.fate = Fate::Lost;
        } else if let Some(fate) = shared.script.pop_front() {
            drawn.fate = fate;
        }
        drawn
    }

    /// Draws for a call without an effect, which no script decides, and whatever else its decorator
    /// needs.
    pub(crate) fn draw_read<T>(
        &self,
        calls: impl FnOnce(&F) -> &CallFaults,
        more: impl FnOnce(&F, &mut StdRng) -> T,
    ) -> (Drawn, T) {
        let mut guard = self.lock();
        let shared = &mut *guard;
        let faults = calls(&shared.faults);
        let mut drawn = shared.weather.befall(faults, faults.draw(&mut shared.rng));
        drawn.lengthen(shared.odd.oddities.slowness);
        if shared.outage || matches!(drawn.fate, Fate::Late(_)) {
            drawn.fate = Fate::Lost;
        }
        (drawn, more(&shared.faults, &mut shared.rng))
    }

    /// Draws from the dice for what befalls some calls only.
    pub(crate) fn odd<T>(&self, draw: impl FnOnce(&Oddities, &mut OddDice) -> T) -> T {
        let odd = &mut self.lock().odd;
        let oddities = odd.oddities.clone();
        draw(&oddities, odd)
    }

    /// Now and then carries a call out once more, later: one of which its caller can't say that it
    /// did not happen.
    pub(crate) fn repeat<T, C>(&self, answer: &Result<T, PortError>, call: C)
    where
        F: Send + 'static,
        C: Future<Output = ()> + Send + 'static,
    {
        let after = self.odd(|odd, dice| dice.after(odd.doubled, odd.doubled_max));
        let Some(after) = after else { return };
        if matches!(answer, Err(PortError::Determinate(_))) {
            return;
        }
        self.lock().late += 1;
        let control = self.clone();
        tokio::spawn(async move {
            pass(after).await;
            call.await;
            control.lock().late -= 1;
            control.landed.notify_waiters();
        });
    }

    /// Lets a call meet its fate.
    pub(crate) async fn meet<T, C>(&self, drawn: Drawn, call: C) -> Result<T, PortError>
    where
        F: Send + 'static,
        T: Send,
        C: Future<Output = Result<T, PortError>> + Send + 'static,
    {
        pass(drawn.before).await;
        let answer = match drawn.fate {
            Fate::Answered => call.await,
            Fate::Refused => Err(PortError::determinate("refused, on purpose")),
            Fate::Lost => Err(PortError::indeterminate("lost on the way there, on purpose")),
            Fate::AnswerLost => {
                drop(call.await);
                Err(PortError::indeterminate("lost on the way back, on purpose"))
            }
            Fate::Late(by) => {
                self.lock().late += 1;
                let control = self.clone();
                tokio::spawn(async move {
                    pass(by).await;
                    drop(call.await);
                    control.lock().late -= 1;
                    control.landed.notify_waiters();
                });
                Err(PortError::indeterminate("held up, on purpose"))
            }
        };
        pass(drawn.after).await;
        answer
    }
}

impl<F> Control<F> {
    fn lock(&self) -> MutexGuard<'_, Shared<F>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Weather {
    fn befall(&mut self, faults: &CallFaults, mut drawn: Drawn) -> Drawn {
        let slow = self.rng.random_bool(faults.slow);
        let begins = self.rng.random_bool(faults.throttled);
        let (longer, burst) = (self.rng.random::<f64>(), self.rng.random::<f64>());
        if slow {
            drawn.before += faults.slow_max.mul_f64(longer);
        }
        let now = Instant::now();
        let mut throttled = self.throttled_until.is_some_and(|until| now < until);
        if begins && !throttled {
            self.throttled_until = Some(now + faults.throttle_max.mul_f64(burst));
            throttled = true;
        }
        if throttled {
            drawn.fate = Fate::Refused;
        }
        drawn
    }
}

impl CallFaults {
    /// Always takes the same number of draws, so that turning one fault leaves the others where
    /// they were.
    fn draw(&self, rng: &mut StdRng) -> Drawn {
        let mut chance = |likelihood| rng.random_bool(likelihood);
        let (refused, lost) = (chance(self.refused), chance(self.lost));
        let (answer_lost, late) = (chance(self.answer_lost), chance(self.late));
        let (before, after) = (chance(self.delayed), chance(self.delayed));
        let mut up_to = |max: Duration| max.mul_f64(rng.random::<f64>());
        let by = up_to(self.late_max);
        let (way_there, way_back) = (up_to(self.delay_max), up_to(self.delay_max));
        let fate = match () {
            () if refused => Fate::Refused,
            () if lost => Fate::Lost,
            () if answer_lost => Fate::AnswerLost,
            () if late => Fate::Late(by),
            () => Fate::Answered,
        };
        Drawn {
            fate,
            before: if before { way_there } else { Duration::ZERO },
            after: if after { way_back } else { Duration::ZERO },
        }
    }
}

/// Waits, unless there is nothing to wait for.
async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

impl<F> Clone for Control<F> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), landed: Arc::clone(&self.landed) }
    }
}

impl<F: fmt::Debug> fmt::Debug for Control<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.lock();
        f.debug_struct("Control")
            .field("faults", &shared.faults)
            .field("outage", &shared.outage)
            .field("late", &shared.late)
            .finish_non_exhaustive()
    }
}
