//! Runs the scripts of `tests/state`: what happens, a line, what it must come to.
//!
//! A script is a list of cases, with blank lines between them. A case begins with a verb and its
//! arguments (`create-topic name=orders partitions=2`); lines below it are its details, or further
//! commands of the same entry when they begin with `also`. After `----` follows what must come out.
//! Lines that begin with `#` are for the reader. A script starts behind the entry that began the
//! log and registered broker b1 as node 1, unless it says `nothing-yet`.
//!
//! Arguments of every command: `id=b1.7` (by default the next of b1), `by=b2` who appends the
//! entry, `time=+500` milliseconds after the last one, and for entries that do not fit `lsn=`,
//! `previous=`, `log=`, `level-needed=`, `digest=`. `touched` asks for the partitions that were.
//!
//! After every entry the state is recounted and goes through a snapshot, so every script is a test
//! of those too. `REWRITE=1` writes what came out into the scripts: for new ones, and to be read
//! before it is believed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::chain::{CLUSTER_ID, Chain, LOG_ID, START_MS};
use super::script_text::{Names, Words};
use crate::command::{Command, Digest, Entry, EntryHash, Incarnation, Proposal};
use crate::lsn::Lsn;
use crate::state::State;
use crate::state::recount::recount;

#[test]
fn every_script_comes_out_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state");
    let mut scripts: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(scripts.len() > 10, "the scripts are there");
    let wrong: Vec<String> = scripts.iter().flat_map(|path| run_script(path)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One case of a script.
struct Case {
    /// Its first line, from 1.
    line: usize,
    comments: String,
    input: Vec<String>,
    expected: String,
}

fn run_script(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let cases = parse(&text);
    let mut scene = Scene::begun();
    let mut wrong = Vec::new();
    let mut rewritten = String::new();
    for case in &cases {
        let found = if case.input.is_empty() { String::new() } else { scene.play(&case.input) };
        let name = path.file_name().unwrap().to_string_lossy();
        if found.trim_end() != case.expected.trim_end() {
            let Case { line, expected, .. } = case;
            wrong.push(format!("{name}:{line}\nexpected\n{expected}\nfound\n{found}"));
        }
        let gap = if rewritten.is_empty() { "" } else { "\n" };
        let input = case.input.join("\n");
        match input.as_str() {
            "" => write!(rewritten, "{gap}{}", case.comments).unwrap(),
            _ => write!(rewritten, "{gap}{}{input}\n----\n{found}", case.comments).unwrap(),
        }
    }
    if std::env::var_os("REWRITE").is_some() && rewritten != text {
        fs::write(path, rewritten).unwrap();
    }
    wrong
}

fn parse(text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    let mut start = 0;
    for block in lines.split(|line| line.is_empty()) {
        let (comments, rest): (Vec<&str>, Vec<&str>) =
            block.iter().partition(|line| line.starts_with('#'));
        let mut halves = rest.splitn(2, |line| *line == "----");
        let input: Vec<String> =
            halves.next().into_iter().flatten().map(|line| (*line).to_owned()).collect();
        let expected = halves.next().into_iter().flatten().copied().collect::<Vec<_>>().join("\n");
        let comments: String = comments.iter().flat_map(|line| [line, "\n"]).collect();
        if !block.is_empty() {
            cases.push(Case { line: start + 1, comments, input, expected });
        }
        start += block.len() + 1;
    }
    cases
}

/// A log, the state it has come to, and the names the script gave to things.
struct Scene {
    chain: Chain,
    state: State,
    time_ms: i64,
    names: Names,
}

impl Scene {
    fn begun() -> Self {
        let mut scene = Self::empty();
        let found =
            scene.play(&["genesis id=b1.0".to_owned(), "also register host=h1:9092".to_owned()]);
        assert_eq!(found, "lsn=1 done\nlsn=1 node=1\n");
        scene
    }

    fn empty() -> Self {
        let names = Names::default();
        Self { chain: Chain::default(), state: State::new(), time_ms: START_MS, names }
    }

    fn play(&mut self, input: &[String]) -> String {
        let first = Words::of(&input[0]);
        match first.verb.as_str() {
            "nothing-yet" => {
                *self = Self::empty();
                String::new()
            }
            "many" => self.many(&input[1..], &first),
            verb => match self.names.show(&self.state, verb, &first) {
                Some(shown) => shown,
                None => self.entry(input),
            },
        }
    }

    /// Repeats a command `times=` often, with `%` for the number of the repetition, and shows how
    /// the last one came out.
    fn many(&mut self, template: &[String], words: &Words) -> String {
        let mut last = String::new();
        for number in 1..=words.number("times", 1) {
            let number = number.to_string();
            let lines: Vec<String> =
                template.iter().map(|line| line.replace('%', &number)).collect();
            last = self.entry(&lines);
        }
        last
    }

    fn entry(&mut self, input: &[String]) -> String {
        let words = Words::of(&input[0]);
        let proposals = self.proposals(input);
        self.time_ms = self.time_ms.saturating_add(words.signed("time", 0));
        let by = words.incarnation("by").unwrap_or(Incarnation(1));
        let (before, before_chain) = (self.state.clone(), self.chain.clone());
        let mut entry = self.chain.draft(by, self.time_ms, proposals);
        self.bend(&mut entry, &words);
        let bytes = entry.encode();
        assert_eq!(Entry::decode(&bytes).as_ref(), Ok(&entry));
        match self.state.apply(&entry, EntryHash::of(&bytes)) {
            Ok(applied) => {
                self.chain.take(&entry);
                recount(&before, &entry, &self.state);
                let (snapshot, digest) = self.state.to_snapshot();
                let read_back = State::from_snapshot(&snapshot).unwrap();
                assert_eq!(read_back, self.state);
                assert_eq!(read_back.to_snapshot(), (snapshot, digest));
                self.state = read_back;
                let mut shown = String::new();
                for (proposal, outcome) in entry.proposals.iter().zip(&applied.outcomes) {
                    shown += &self.names.outcome(entry.lsn, &proposal.command, outcome);
                }
                if words.has("touched") {
                    shown += &self.names.partitions("touched", &applied.touched);
                }
                shown
            }
            Err(halt) => {
                self.chain = before_chain;
                assert_eq!(self.state, before, "a halt leaves the state as it was");
                let digest = self.state.digest().to_string();
                format!("halt: {halt}\n").replace(&digest, "(that of this state)")
            }
        }
    }

    fn proposals(&mut self, input: &[String]) -> Vec<Proposal> {
        let mut commands: Vec<(Words, Vec<Words>)> = Vec::new();
        for (number, line) in input.iter().enumerate() {
            let command =
                if number == 0 { Some(line.as_str()) } else { line.strip_prefix("also ") };
            match command {
                Some(command) => commands.push((Words::of(command), Vec::new())),
                None => commands.last_mut().unwrap().1.push(Words::of(line)),
            }
        }
        let mut proposals = Vec::new();
        for (words, details) in commands {
            let command = match words.verb.as_str() {
                "genesis" => Command::Genesis {
                    cluster_id: CLUSTER_ID,
                    log_id: if words.has("nil") { Uuid::nil() } else { LOG_ID },
                    level: words.small("level", 1),
                },
                _ => self.names.command(&self.state, &words, &details),
            };
            let id = self.names.command_id(&words);
            proposals.push(Proposal { id, command });
        }
        proposals
    }

    /// Makes an entry one that does not fit, if the script wants that.
    fn bend(&self, entry: &mut Entry, words: &Words) {
        if words.has("lsn") {
            entry.lsn = Lsn::new(words.number("lsn", 0));
        }
        if words.has("previous") {
            entry.previous = EntryHash(words.number("previous", 0));
        }
        if words.has("log") {
            entry.log_id = Uuid::from_u128(u128::from(words.number("log", 0)));
        }
        entry.level = words.small("level-needed", entry.level);
        entry.digest = match words.text("digest") {
            Some("right") => Some(self.state.digest()),
            Some(_) => Some(Digest(words.number("digest", 0))),
            None => None,
        };
    }
}
