//! Which topics members mean: names and regular expressions, resolved against what exists.

use std::collections::{BTreeMap, BTreeSet};

use odradek_protocol::id::TopicId;
use odradek_storage::command::groups::Subscription;
use odradek_storage::lsn::Lsn;
use odradek_storage::state::State;
use regex::{Regex, RegexBuilder};
use xxhash_rust::xxh3::Xxh3;

use crate::group::GroupError;

/// Most bytes that a compiled expression may take.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Longest expression, in bytes: what parsing it takes is a hundred times as much.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The topics that somebody in a group asks for, as far as they exist.
#[derive(Debug, Default)]
pub(super) struct Topics {
    by_name: BTreeMap<String, TopicId>,
    by_regex: BTreeMap<String, BTreeSet<TopicId>>,
    partitions: BTreeMap<TopicId, u32>,
}

/// Regular expressions that were compiled, and what each matches.
#[derive(Default)]
pub(super) struct Patterns {
    by_text: BTreeMap<String, Pattern>,
    /// The topics that all of them were tried on.
    tried_on: Option<Lsn>,
}

struct Pattern {
    compiled: Regex,
    topics: BTreeSet<TopicId>,
}

/// What a look at the state is for.
pub(super) struct Wanted {
    names: BTreeSet<String>,
    regexes: BTreeSet<String>,
}

impl Wanted {
    pub(super) fn by<'a>(subscriptions: impl Iterator<Item = &'a Subscription>) -> Self {
        let mut wanted = Self { names: BTreeSet::new(), regexes: BTreeSet::new() };
        for subscription in subscriptions {
            wanted.names.extend(subscription.topics.iter().cloned());
            wanted.regexes.extend(subscription.regex.clone());
        }
        wanted
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }
}

impl Topics {
    /// The partition count of every topic that is asked for.
    pub(super) fn partitions(&self) -> &BTreeMap<TopicId, u32> {
        &self.partitions
    }

    /// These topics and no others.
    #[cfg(test)]
    pub(super) fn only(topics: &[(&str, TopicId, u32)]) -> Self {
        Self {
            by_name: topics.iter().map(|(name, id, _)| ((*name).to_owned(), *id)).collect(),
            by_regex: BTreeMap::new(),
            partitions: topics.iter().map(|(_, id, partitions)| (*id, *partitions)).collect(),
        }
    }

    /// What a member asks for.
    pub(super) fn of(&self, subscription: &Subscription) -> BTreeSet<TopicId> {
        let named = subscription.topics.iter().filter_map(|name| self.by_name.get(name));
        let matched = subscription.regex.iter().filter_map(|regex| self.by_regex.get(regex));
        named.chain(matched.flatten()).copied().collect()
    }

    /// A number that changes with the topics and their partitions: the same on every broker.
    pub(super) fn hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        for (topic, partitions) in &self.partitions {
            hash.update(topic.as_bytes());
            hash.update(&partitions.to_le_bytes());
        }
        hash.digest()
    }
}

impl Patterns {
    /// Whether this is a regular expression that can be subscribed to.
    pub(super) fn check(&self, text: &str) -> Result<(), GroupError> {
        if self.by_text.contains_key(text) { Ok(()) } else { compile(text).map(drop) }
    }

    /// Finds the topics that are wanted. `read` looks at the state: twice at most, and only
    /// briefly, as matching may take long.
    pub(super) fn resolve(
        &mut self,
        wanted: Wanted,
        read: impl Fn(&mut dyn FnMut(&State)),
    ) -> (Topics, Lsn) {
        let mut changed = Lsn::ZERO;
        let mut all = Vec::new();
        read(&mut |state| {
            changed = state.topics_changed();
            if !self.is_ready(&wanted, changed) {
                all = state.topics().map(|topic| (topic.name.clone(), topic.id)).collect();
            }
        });
        if !self.is_ready(&wanted, changed) {
            self.try_on(&wanted, &all, changed);
        }
        let mut topics = Topics::default();
        for regex in wanted.regexes {
            let found = self.by_text.get(&regex).map(|pattern| pattern.topics.clone());
            topics.by_regex.insert(regex, found.unwrap_or_default());
        }
        read(&mut |state| {
            let named = wanted.names.iter().filter_map(|name| state.topic_by_name(name));
            topics.by_name = named.map(|topic| (topic.name.clone(), topic.id)).collect();
            let named = topics.by_name.values().copied();
            let matched = topics.by_regex.values().flatten().copied();
            let ids: BTreeSet<TopicId> = named.chain(matched).collect();
            let found = ids.into_iter().filter_map(|id| state.topic(id));
            let counted = found
                .map(|topic| (topic.id, u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX)));
            topics.partitions = counted.collect();
        });
        (topics, changed)
    }

    fn is_ready(&self, wanted: &Wanted, changed: Lsn) -> bool {
        let is_known = |regex: &String| self.by_text.contains_key(regex);
        wanted.regexes.is_empty()
            || (self.tried_on == Some(changed) && wanted.regexes.iter().all(is_known))
    }

    fn try_on(&mut self, wanted: &Wanted, all: &[(String, TopicId)], changed: Lsn) {
        self.by_text.retain(|text, _| wanted.regexes.contains(text));
        for text in &wanted.regexes {
            let known = self.by_text.remove(text).map(|pattern| pattern.compiled);
            // What can't be compiled matches nothing: a later release took it in.
            let Some(compiled) = known.or_else(|| compile(text).ok()) else { continue };
            let matching = all.iter().filter(|(name, _)| compiled.is_match(name));
            let topics = matching.map(|(_, id)| *id).collect();
            self.by_text.insert(text.clone(), Pattern { compiled, topics });
        }
        self.tried_on = Some(changed);
    }
}

/// Whether an expression can be compiled; if not, why.
#[cfg(feature = "test-util")]
pub(crate) fn check_regex(text: &str) -> Result<(), String> {
    compile(text).map(drop).map_err(|error| error.to_string())
}

/// Compiles an expression that matches whole names.
fn compile(text: &str) -> Result<Regex, GroupError> {
    let build = |text: &str| RegexBuilder::new(text).size_limit(COMPILED_BYTES_MAX).build();
    if text.len() > TEXT_BYTES_MAX {
        let why = format!("{} bytes long, at most {TEXT_BYTES_MAX} are taken", text.len());
        return Err(GroupError::InvalidRegex(why));
    }
    if has_foreign_repetition(text) {
        return Err(GroupError::InvalidRegex("a repetition that RE2 does not know".to_owned()));
    }
    let translated = from_re2(text);
    // First alone: parentheses that do not match could otherwise meet ours.
    build(&translated)
        .and_then(|_| build(&format!(r"\A(?:{translated})\z")))
        .map_err(|error| GroupError::InvalidRegex(last_line(&error.to_string())))
}

/// Whether something is repeated in a way that RE2 refuses and this compiler does not: a repetition
/// of a repetition (`x**`), or more than a thousand times.
fn has_foreign_repetition(text: &str) -> bool {
    const TIMES_MAX: u32 = 1000;
    let mut rest = text;
    let mut in_class = false;
    // How many signs of repetition stand here in a row, a lazy one counted as part of the first.
    let mut repeated = false;
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        let counted = rest.strip_prefix('{').and_then(|it| it.split_once('}'));
        let counted = counted.filter(|(times, _)| is_count(times));
        let (is_repetition, mut after) = match (next, counted) {
            _ if in_class => (false, after),
            ('\\', _) => (false, after.chars().next().map_or("", |it| &after[it.len_utf8()..])),
            ('*' | '+' | '?', _) => (true, after),
            ('{', Some((times, after))) => {
                let numbers = times.split(',').filter_map(|it| it.parse::<u32>().ok());
                if numbers.max() > Some(TIMES_MAX) {
                    return true;
                }
                (true, after)
            }
            _ => (false, after),
        };
        in_class = if in_class { next != ']' } else { next == '[' };
        if is_repetition {
            if repeated {
                return true;
            }
            after = after.strip_prefix('?').unwrap_or(after);
        }
        repeated = is_repetition;
        rest = after;
    }
    false
}

/// Whether this stands between braces that mean a number of times.
fn is_count(text: &str) -> bool {
    let mut numbers = text.split(',');
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let first = numbers.next().is_some_and(is_number);
    let second = numbers.next().is_none_or(|it| it.is_empty() || is_number(it));
    first && second && numbers.next().is_none()
}

/// Errors of the compiler draw the expression over several lines; the last says what is wrong.
fn last_line(message: &str) -> String {
    message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Clients write the expressions of RE2/J. Of what can match a topic's name, two things mean
/// something else here: text between `\Q` and `\E`, and signs within brackets that would nest or
/// combine classes.
fn from_re2(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_class = false;
    while let Some(next) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix(r"\Q") {
            let (literal, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            out.push_str(&regex::escape(literal));
            rest = after;
            continue;
        }
        let is_posix = in_class && rest.starts_with("[:") && rest.contains(":]");
        let taken = match next {
            '\\' => rest.chars().take(2).map(char::len_utf8).sum(),
            '[' if is_posix => rest.find(":]").map_or(1, |at| at + 2),
            _ => next.len_utf8(),
        };
        let (token, after) = rest.split_at(taken);
        if in_class && matches!(token, "[" | "&" | "~") {
            out.push('\\');
        }
        out.push_str(token);
        rest = after;
        match token {
            "[" if !in_class => {
                in_class = true;
                // A bracket that closes nothing, as the first of its class, is one of it.
                let negated = rest.strip_prefix('^');
                if negated.is_some() {
                    out.push('^');
                }
                rest = negated.unwrap_or(rest);
                if let Some(after) = rest.strip_prefix(']') {
                    out.push_str(r"\]");
                    rest = after;
                }
            }
            "]" => in_class = false,
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, name: &str) -> bool {
        compile(text).unwrap().is_match(name)
    }

    #[test]
    fn an_expression_matches_whole_names() {
        assert!(matches("foo.*", "foobar"));
        assert!(!matches("foo", "foobar") && !matches("^bar", "foobar"));
        assert!(matches("foo|bar", "bar") && !matches("foo|bar", "foobar"));
        assert!(matches("^foo-[0-9]+$", "foo-12"));
        assert!(matches("(?i)FOO", "foo") && matches(r"\w+", "foo_1"));
    }

    #[test]
    fn the_dialect_is_the_clients() {
        assert!(matches(r"\Qa.b\E.*", "a.b-1") && !matches(r"\Qa.b\E", "axb"));
        assert!(matches(r"\Qa.b", "a.b"));
        assert!(matches("[[:alpha:]_]+", "a_b") && !matches("[[:alpha:]]+", "a1"));
        assert!(matches("[[a]", "a") && !matches("[[a]", "b"));
        assert!(matches("[a&&b]", "b") && matches("[]a]", "a") && matches("[^]a]", "b"));
        assert!(matches(r"[\]a]+", "a") && matches(r"a\.b", "a.b"));
    }

    #[test]
    fn what_is_no_expression_is_refused_with_a_reason() {
        for text in ["(", "a)|(b", "[", "*", r"\", "(?<"] {
            let Err(GroupError::InvalidRegex(why)) = compile(text) else { panic!("{text}") };
            assert!(!why.is_empty() && !why.contains('\n'), "{text}: {why}");
        }
        assert!(compile("((((a{100}){100}){100}){100})").is_err(), "it would take all memory");
        assert!(compile(&"a".repeat(TEXT_BYTES_MAX + 1)).is_err(), "so would this, if longer");
        assert!(compile(&"a".repeat(TEXT_BYTES_MAX)).is_ok());
    }

    #[test]
    fn what_re2_would_not_repeat_is_refused() {
        for text in ["x**", "x*+", "x{2}{3}", "x{1001}", "x{1,2000}", "(x)+?*"] {
            assert!(matches!(compile(text), Err(GroupError::InvalidRegex(_))), "{text}");
        }
        for text in ["x*?", "x+?y*", "[*+]*", r"\*+", "x{1000}", "x{2}?", "x{,}y"] {
            assert!(!has_foreign_repetition(text), "{text}");
        }
    }
}
