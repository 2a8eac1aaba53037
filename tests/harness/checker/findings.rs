//! What was found: violations with what shows them, and how often each rule could have failed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::index::Index;
use super::{Enough, Rule, Standing, Summary};
use crate::history::Place;

/// Violations of a rule that are kept; the others are only counted.
const EXAMPLES_MAX: usize = 5;

/// A rule that was broken, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// What was seen.
    pub how: String,
    /// The events that show it.
    pub events: Vec<Place>,
}

/// All violations of a rule.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Finding {
    /// How often it was looked at: a rule that was never is not judged.
    pub judged: u64,
    /// How often it was broken.
    pub violations: u64,
    /// The first of them.
    pub examples: Vec<Violation>,
}

/// What a history shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// What was done in it.
    pub summary: Summary,
    /// Each rule.
    pub rules: BTreeMap<Rule, Finding>,
    /// Files of the history, by the number in [`Place`].
    pub files: Vec<PathBuf>,
}

/// Collects violations.
#[derive(Debug, Default)]
pub(super) struct Findings {
    rules: BTreeMap<Rule, Finding>,
}

impl Findings {
    /// `rule` was looked at `times` more.
    pub(super) fn judge(&mut self, rule: Rule, times: usize) {
        self.rules.entry(rule).or_default().judged += u64::try_from(times).unwrap();
    }

    /// `rule` was broken.
    pub(super) fn add(&mut self, rule: Rule, events: &[Place], how: impl FnOnce() -> String) {
        let finding = self.rules.entry(rule).or_default();
        finding.violations += 1;
        if finding.examples.len() < EXAMPLES_MAX {
            let events = events.to_vec();
            finding.examples.push(Violation { rule, how: how(), events });
        }
    }

    /// `rule` was broken by these operations.
    pub(super) fn blame(
        &mut self,
        rule: Rule,
        index: &Index,
        ops: &[usize],
        how: impl FnOnce() -> String,
    ) {
        let mut places = Vec::with_capacity(2 * ops.len());
        for &op in ops {
            let op = &index.ops[op];
            places.push(op.place);
            if op.event.place != op.place {
                places.push(op.event.place);
            }
        }
        self.add(rule, &places, how);
    }

    pub(super) fn into_verdict(mut self, summary: Summary, files: Vec<PathBuf>) -> Verdict {
        for rule in Rule::ALL {
            self.rules.entry(*rule).or_default();
        }
        Verdict { summary, rules: self.rules, files }
    }
}

impl Verdict {
    /// Whether no rule is broken that must not be.
    pub fn is_good(&self) -> bool {
        self.broken().next().is_none()
    }

    /// Rules that are broken and must not be.
    pub fn broken(&self) -> impl Iterator<Item = Rule> {
        let broken = |rule: &Rule| rule.standing() == Standing::Never && self.count(*rule) > 0;
        Rule::ALL.iter().copied().filter(broken)
    }

    /// How often `rule` was broken.
    pub fn count(&self, rule: Rule) -> u64 {
        self.rules.get(&rule).map_or(0, |finding| finding.violations)
    }

    /// What this history lacks to prove anything, or none.
    pub fn lacks(&self, enough: Enough) -> Option<String> {
        let Summary { acknowledged, read, finals, .. } = self.summary;
        let wanted = [
            ("acknowledged values", acknowledged, enough.acknowledged),
            ("values read", read, enough.read),
            ("final polls", finals, enough.finals),
        ];
        let lacking = wanted.iter().find(|(_, are, must)| are < must)?;
        Some(format!("{} {}, at least {} are needed", lacking.1, lacking.0, lacking.2))
    }

    /// Torn transactions of the old protocol for each million of its transactions.
    pub fn torn_per_million(&self) -> u64 {
        let torn = self.count(Rule::TV1).saturating_mul(1_000_000);
        torn / u64::try_from(self.summary.transactions_v1).unwrap().max(1)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.summary)?;
        let unjudged: Vec<String> = Rule::ALL
            .iter()
            .filter(|rule| self.rules.get(rule).is_none_or(|finding| finding.judged == 0))
            .map(|rule| format!("{rule:?}"))
            .collect();
        if !unjudged.is_empty() {
            writeln!(
                formatter,
                "not judged, for want of what they are about: {}",
                unjudged.join(" ")
            )?;
        }
        for rule in Rule::ALL {
            let Some(finding) = self.rules.get(rule).filter(|it| it.violations > 0) else {
                continue;
            };
            let standing = match rule.standing() {
                Standing::Never => "BROKEN",
                Standing::Known => "known",
                Standing::Allowed => "allowed",
            };
            let (times, judged) = (finding.violations, finding.judged);
            writeln!(formatter, "{standing} {rule:?}: {} ({times} of {judged})", rule.text())?;
            for example in &finding.examples {
                writeln!(formatter, "    {}", example.how)?;
                for place in &example.events {
                    let file = usize::try_from(place.file).ok().and_then(|at| self.files.get(at));
                    let file = file.map(|it| it.display().to_string()).unwrap_or_default();
                    writeln!(formatter, "        {file}:{}", place.line)?;
                }
            }
        }
        Ok(())
    }
}
