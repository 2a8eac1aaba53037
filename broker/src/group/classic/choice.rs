//! Which protocol a generation speaks: members vote.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// Protocols that a member speaks, in its order, with what it says under each.
pub(super) type Spoken = Vec<(String, Bytes)>;

/// Protocols that all speak.
pub(super) fn common<'a>(members: impl Iterator<Item = &'a Spoken>) -> BTreeSet<&'a str> {
    let mut common: Option<BTreeSet<&str>> = None;
    for spoken in members {
        let names = || spoken.iter().map(|(name, _)| name.as_str());
        common = Some(match common {
            None => names().collect(),
            Some(common) => names().filter(|name| common.contains(name)).collect(),
        });
    }
    common.unwrap_or_default()
}

/// The protocol that most members like best among those that all speak. Between equals, the one
/// that comes first in the first member's list.
pub(super) fn choose(members: &[&Spoken]) -> Option<String> {
    let common = common(members.iter().copied());
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for spoken in members {
        let first = spoken.iter().map(|(name, _)| name.as_str()).find(|it| common.contains(it))?;
        *votes.entry(first).or_default() += 1;
    }
    let preference = |name: &str| members.first()?.iter().position(|(it, _)| it == name);
    let best = votes.into_iter().max_by(|(a, votes_a), (b, votes_b)| {
        votes_a.cmp(votes_b).then_with(|| preference(b).cmp(&preference(a)))
    });
    best.map(|(name, _)| name.to_owned())
}

/// What a member says under a protocol.
pub(super) fn metadata(spoken: &Spoken, protocol: &str) -> Option<Bytes> {
    spoken.iter().find(|(name, _)| name == protocol).map(|(_, metadata)| metadata.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(names: &[&str]) -> Spoken {
        names.iter().map(|name| ((*name).to_owned(), Bytes::new())).collect()
    }

    #[test]
    fn the_majority_chooses_among_what_all_speak() {
        let (a, b, c) = (spoken(&["x", "y", "z"]), spoken(&["y", "z"]), spoken(&["z", "y"]));
        assert_eq!(choose(&[&a, &b, &c]).as_deref(), Some("y"));
        assert_eq!(choose(&[&a, &c, &c]).as_deref(), Some("z"));
        assert_eq!(choose(&[&b, &c]).as_deref(), Some("y"), "the first member's taste decides");
        assert_eq!(choose(&[&c, &b]).as_deref(), Some("z"));
        assert_eq!(choose(&[&a, &spoken(&["q"])]), None);
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn what_all_speak_is_in_everybodys_list() {
        let (a, b) = (spoken(&["x", "y"]), spoken(&["y"]));
        assert_eq!(common([&a, &b].into_iter()), BTreeSet::from(["y"]));
        assert!(common(std::iter::empty()).is_empty());
    }
}
