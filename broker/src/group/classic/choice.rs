//! Which protocol a generation speaks: members vote.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// Protocols that a member speaks, in its order, with what it says under each.
pub(super) type Spoken = Vec<(String, Bytes)>;

/// What each member of a group speaks; the state knows only what was chosen.
#[derive(Default)]
pub(super) struct Protocols {
    by_member: BTreeMap<String, Spoken>,
    /// Some that every present and every coming member speaks. Perhaps not all: nobody looks again
    /// when a member leaves, because whoever of thousands joins would have to read the lists of all
    /// the others.
    known_common: BTreeSet<String>,
}

impl Protocols {
    pub(super) fn get(&self, member: &str) -> Option<&Spoken> {
        self.by_member.get(member)
    }

    pub(super) fn insert(&mut self, member: String, spoken: Spoken) {
        self.known_common.retain(|common| spoken.iter().any(|(name, _)| name == common));
        self.by_member.insert(member, spoken);
    }

    pub(super) fn remove(&mut self, member: &str) {
        self.by_member.remove(member);
    }

    /// Forgets all members but these.
    pub(super) fn retain(&mut self, is_there: impl Fn(&String) -> bool) {
        self.by_member.retain(|member, _| is_there(member));
    }

    /// Whether somebody who speaks this is known to fit in with all members.
    pub(super) fn are_known_to_fit(&self, spoken: &Spoken) -> bool {
        spoken.iter().any(|(name, _)| self.known_common.contains(name))
    }

    /// Keeps in mind what all of these speak, who have to be all members.
    pub(super) fn learn<'a>(&mut self, members: impl Iterator<Item = &'a Spoken>) {
        self.known_common = common(members).into_iter().map(str::to_owned).collect();
    }
}

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
    fn what_is_known_to_fit_fits_whoever_comes_and_leaves() {
        let (a, b, c) = (spoken(&["x", "y", "z"]), spoken(&["y", "z"]), spoken(&["z"]));
        let mut protocols = Protocols::default();
        protocols.insert("a".to_owned(), a.clone());
        assert!(!protocols.are_known_to_fit(&a), "nobody has looked");
        protocols.learn([&a].into_iter());
        assert!(protocols.are_known_to_fit(&spoken(&["q", "x"])));
        assert!(!protocols.are_known_to_fit(&spoken(&["q"])));
        protocols.insert("b".to_owned(), b);
        assert!(!protocols.are_known_to_fit(&spoken(&["x"])), "b speaks no x");
        assert!(protocols.are_known_to_fit(&spoken(&["y"])));
        protocols.remove("b");
        assert!(!protocols.are_known_to_fit(&spoken(&["x"])), "nobody has looked again");
        protocols.insert("a".to_owned(), c.clone());
        assert!(!protocols.are_known_to_fit(&spoken(&["y"])));
        assert!(protocols.are_known_to_fit(&c));
        protocols.insert("a".to_owned(), spoken(&["q"]));
        assert!(!protocols.are_known_to_fit(&c));
    }

    #[test]
    fn what_all_speak_is_in_everybodys_list() {
        let (a, b) = (spoken(&["x", "y"]), spoken(&["y"]));
        assert_eq!(common([&a, &b].into_iter()), BTreeSet::from(["y"]));
        assert!(common(std::iter::empty()).is_empty());
    }
}
