//! Which faults there are, and the dice that decide which request meets which.
//!
//! Draws only; what a fate does to a request is the matter of the proxy. Every operation has a
//! generator of its own, made of the seed and the name: the n-th `PutItem` meets the same fate
//! whatever other operations go on beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// How often a fault happens, and to whom. The default is never.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chance {
    /// From 0, never, to 1, to every request that the filter lets through.
    pub probability: f64,
    /// What the name of an operation must begin with: `Put`, `GetItem`, or empty for all.
    pub operations: String,
    /// How many requests it may happen to, counted from when the faults are set; `None` is any.
    pub times: Option<u32>,
}

impl Chance {
    /// Happens to this share of the operations whose names begin with `operations`.
    pub fn of(probability: f64, operations: &str) -> Self {
        Self { probability, operations: operations.to_owned(), times: None }
    }

    /// Happens to every operation whose name begins with `operations`.
    pub fn always(operations: &str) -> Self {
        Self::of(1.0, operations)
    }

    /// Happens to the next operation whose name begins with `operations`, and to no other.
    pub fn once(operations: &str) -> Self {
        Self { times: Some(1), ..Self::always(operations) }
    }

    /// Whether it happens to `operation`, which drew `drawn` out of `0..1`.
    fn strikes(&mut self, operation: &str, drawn: f64) -> bool {
        let strikes = drawn < self.probability
            && operation.starts_with(&self.operations)
            && self.times != Some(0);
        if strikes && let Some(times) = &mut self.times {
            *times -= 1;
        }
        strikes
    }
}

/// Everything that can go wrong between a client and its store. The default is nothing.
///
/// A request meets at most one of the faults and, unless it is late, perhaps a delay as well. Where
/// several strike, the first one in the order of the fields wins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Every connection is closed at once, and so is every new one as soon as it asks for
    /// something. What was on its way to the store goes on.
    pub outage: bool,
    /// Requests are read and held. They are delivered once this is off, even if their clients have
    /// given up by then, as a network does that has lost only the way back.
    pub black_hole: bool,
    /// A burst begins: this request and the ones that follow it are throttled.
    pub burst: Chance,
    /// Requests in a burst: 1 up to this many. Only those of the operation that it began with
    /// count.
    pub burst_max: u32,
    /// Told to slow down, without effect.
    pub throttled: Chance,
    /// Answered with status 500, without effect.
    pub error_before: Chance,
    /// Answered with status 500 although it took effect.
    pub error_after: Chance,
    /// Takes effect, and the connection is closed instead of a reply.
    pub reply_lost: Chance,
    /// The connection is closed at once, and the request takes effect up to `late_max` later.
    pub late: Chance,
    /// How late a late request may be.
    #[serde(rename = "late_max_ms", with = "milliseconds")]
    pub late_max: Duration,
    /// Delivered twice, one after the other; the first reply is the answer.
    pub duplicate: Chance,
    /// Delivered twice, as by a box on the way that tries again; the second reply is the answer,
    /// so that a condition fails by what the request itself did.
    pub second_reply: Chance,
    /// Told that another such request is on its way, with status 409 as S3 does, without effect.
    pub conflict: Chance,
    /// Told that there is no such object, without effect.
    pub not_found: Chance,
    /// Takes effect, and one bit of the reply's body is another.
    pub corrupted: Chance,
    /// Takes effect, and the connection is closed within the reply's body.
    pub truncated: Chance,
    /// Takes up to `delay_max` longer, part of it on the way there and the rest on the way back.
    pub delay: Chance,
    /// How long a delay may be.
    #[serde(rename = "delay_max_ms", with = "milliseconds")]
    pub delay_max: Duration,
}

impl Faults {
    /// Says what is wrong with them, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        let chances = [
            ("burst", &self.burst),
            ("throttled", &self.throttled),
            ("error_before", &self.error_before),
            ("error_after", &self.error_after),
            ("reply_lost", &self.reply_lost),
            ("late", &self.late),
            ("duplicate", &self.duplicate),
            ("second_reply", &self.second_reply),
            ("conflict", &self.conflict),
            ("not_found", &self.not_found),
            ("corrupted", &self.corrupted),
            ("truncated", &self.truncated),
            ("delay", &self.delay),
        ];
        for (name, chance) in chances {
            if !(0.0..=1.0).contains(&chance.probability) {
                return Err(format!("{name}: probability {} is not in 0..=1", chance.probability));
            }
        }
        for (name, chance, needs, is_zero) in [
            ("burst", &self.burst, "burst_max", self.burst_max == 0),
            ("late", &self.late, "late_max_ms", self.late_max.is_zero()),
            ("delay", &self.delay, "delay_max_ms", self.delay_max.is_zero()),
        ] {
            if chance.probability > 0.0 && is_zero {
                return Err(format!("{name}: has no effect while {needs} is 0"));
            }
        }
        Ok(())
    }
}

/// Durations in JSON.
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    /// Nothing out of the ordinary.
    Delivered,
    /// See [`Faults::throttled`] and [`Faults::burst`].
    Throttled,
    /// See [`Faults::error_before`].
    ErrorBefore,
    /// See [`Faults::error_after`].
    ErrorAfter,
    /// See [`Faults::reply_lost`].
    ReplyLost,
    /// See [`Faults::late`].
    Late(Duration),
    /// See [`Faults::duplicate`].
    Duplicate,
    /// See [`Faults::second_reply`].
    SecondReply,
    /// See [`Faults::conflict`].
    Conflict,
    /// See [`Faults::not_found`].
    NotFound,
    /// See [`Faults::corrupted`]: where in the body, out of `0..1`.
    Corrupted(f64),
    /// See [`Faults::truncated`]: the share of the body that arrives, out of `0..1`.
    Truncated(f64),
}

/// One throw: a fate, and how much longer each way takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Throw {
    /// What becomes of the request.
    pub(super) fate: Fate,
    /// Passes before the request is delivered.
    pub(super) there: Duration,
    /// Passes before the reply is.
    pub(super) back: Duration,
}

/// What an operation draws from.
#[derive(Debug)]
struct Source {
    generator: StdRng,
    /// Requests of a burst that are still to come.
    burst: u32,
}

/// Decides the fate of requests.
#[derive(Debug)]
pub(super) struct Dice {
    seed: u64,
    faults: Faults,
    sources: BTreeMap<String, Source>,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, faults: Faults::default(), sources: BTreeMap::new() }
    }

    /// Decides by `faults` from now on. Bursts end; the generators go on.
    pub(super) fn load(&mut self, faults: Faults) {
        self.faults = faults;
        self.sources.values_mut().for_each(|source| source.burst = 0);
    }

    /// Decides what becomes of the next request for `operation`.
    pub(super) fn throw(&mut self, operation: &str) -> Throw {
        let seed = self.seed;
        let source = self
            .sources
            .entry(operation.to_owned())
            .or_insert_with(|| Source { generator: generator(seed, operation), burst: 0 });
        // NB: every throw draws the same amount, so that a fault switched on or off leaves the
        // draws of all others as they were.
        let draws: [f64; 11] = source.generator.random();
        let [burst, throttled, before, after, lost, late, duplicate, delay, length, span, split] =
            draws;
        let more: [f64; 5] = source.generator.random();
        let [second, conflict, not_found, corrupted, truncated] = more;
        let faults = &mut self.faults;

        if source.burst == 0 && faults.burst.strikes(operation, burst) {
            source.burst = 1 + scaled(faults.burst_max - 1, length);
        }
        let fate = if source.burst > 0 {
            source.burst -= 1;
            Fate::Throttled
        } else if faults.throttled.strikes(operation, throttled) {
            Fate::Throttled
        } else if faults.error_before.strikes(operation, before) {
            Fate::ErrorBefore
        } else if faults.error_after.strikes(operation, after) {
            Fate::ErrorAfter
        } else if faults.reply_lost.strikes(operation, lost) {
            Fate::ReplyLost
        } else if faults.late.strikes(operation, late) {
            Fate::Late(faults.late_max.mul_f64(length))
        } else if faults.duplicate.strikes(operation, duplicate) {
            Fate::Duplicate
        } else if faults.second_reply.strikes(operation, second) {
            Fate::SecondReply
        } else if faults.conflict.strikes(operation, conflict) {
            Fate::Conflict
        } else if faults.not_found.strikes(operation, not_found) {
            Fate::NotFound
        } else if faults.corrupted.strikes(operation, corrupted) {
            Fate::Corrupted(length)
        } else if faults.truncated.strikes(operation, truncated) {
            Fate::Truncated(length)
        } else {
            Fate::Delivered
        };
        // A late request is late enough, and its client learns at once that it is alone.
        let is_late = matches!(fate, Fate::Late(_));
        let delay = match !is_late && faults.delay.strikes(operation, delay) {
            true => faults.delay_max.mul_f64(span),
            false => Duration::ZERO,
        };
        let there = delay.mul_f64(split);
        Throw { fate, there, back: delay.saturating_sub(there) }
    }
}

/// The generator of one operation.
fn generator(seed: u64, operation: &str) -> StdRng {
    let mut key = [0; 32];
    let (of_seed, of_name) = key.split_at_mut(8);
    of_seed.copy_from_slice(&seed.to_le_bytes());
    let length = operation.len().min(of_name.len());
    of_name[..length].copy_from_slice(&operation.as_bytes()[..length]);
    StdRng::from_seed(key)
}

/// A number in `0..=max`, for a draw out of `0..1`.
fn scaled(max: u32, drawn: f64) -> u32 {
    #[expect(clippy::as_conversions, reason = "a float below 2^32 has no other conversion")]
    let number = ((f64::from(max) + 1.0) * drawn) as u32;
    number.min(max)
}
