//! Tidy: the architecture and the hygiene of the sources, checked as an ordinary test.
//!
//! Who may import whom is drawn in the README; every arrow that must not be is a line of
//! [`FORBIDDEN`].

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Production lines that a file may have.
const LINES_MAX: usize = 500;

/// Columns of a line.
const COLUMNS_MAX: usize = 100;

/// Sources below the first path must not contain the second text, because of the third.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("protocol/src", "odradek_storage", "protocol stands on nothing of ours"),
    ("protocol/src", "tokio", "protocol does no I/O"),
    ("protocol/src", "async fn", "protocol does not wait"),
    ("storage/src", "odradek_protocol::request", "storage never sees requests"),
    ("storage/src", "odradek_protocol::response", "storage never sees responses"),
    ("storage/src", "odradek_protocol::frame", "storage never sees frames"),
    ("storage/src", "odradek_protocol::messages", "storage never sees messages"),
    ("storage/src", "kafka_protocol", "storage never sees messages"),
    // Core: pure.
    ("storage/src/state", "tokio", "core does not wait"),
    ("storage/src/state", "async ", "core does not wait"),
    ("storage/src/state", "crate::clock", "time arrives in entries"),
    ("storage/src/state", "crate::log::", "core and ports do not know each other"),
    ("storage/src/state", "crate::object::", "core and ports do not know each other"),
    ("storage/src/state", "rand::", "core draws no numbers"),
    ("storage/src/command", "tokio", "core does not wait"),
    ("storage/src/command", "crate::log::", "core and ports do not know each other"),
    ("storage/src/command", "crate::object::", "core and ports do not know each other"),
    ("storage/src/segment", "tokio", "core does not wait"),
    ("storage/src/segment", "crate::object::", "core and ports do not know each other"),
    ("storage/src/snapshot", "tokio", "core does not wait"),
    // Ports: bytes only.
    ("storage/src/log", "odradek_protocol", "ports do not know Kafka"),
    ("storage/src/object", "odradek_protocol", "ports do not know Kafka"),
    ("storage/src/log", "crate::state", "ports and core do not know each other"),
    ("storage/src/object", "crate::state", "ports and core do not know each other"),
    ("storage/src/log", "crate::command", "ports and core do not know each other"),
    ("storage/src/object", "crate::command", "ports and core do not know each other"),
    ("storage/src/log", "crate::machine", "ports do not know the engine"),
    ("storage/src/object", "crate::machine", "ports do not know the engine"),
    // Broker.
    ("broker/src", "log::file", "backends are chosen in storage::location alone"),
    ("broker/src", "object::file", "backends are chosen in storage::location alone"),
    ("broker/src", "log::memory", "backends are chosen in storage::location alone"),
    ("broker/src", "object::memory", "backends are chosen in storage::location alone"),
    ("broker/src/handlers", "crate::handlers", "no handler calls another"),
    ("broker/src/handlers", "super::", "no handler calls another"),
];

/// Words that have a better one here (STYLE: one word per idea).
const BANNED: &[&str] = &["todo!", "unimplemented!", "FIXME", "XXX", "mod utils", "mod common"];

/// Every source of the workspace: its path from the root, and its text.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    let mut found = Vec::new();
    for folder in ["protocol", "storage", "broker", "tests"] {
        collect(&root, &root.join(folder), &mut found);
    }
    assert!(found.len() > 60, "{} sources", found.len());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
    let mut items: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|item| item.unwrap().path()).collect();
    items.sort();
    for path in items {
        if path.is_dir() && !path.ends_with("target") {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The part of a file that is shipped: everything before its tests; nothing of a file of tests.
fn production(name: &str, text: &str) -> String {
    let is_test =
        name.starts_with("tests/") || name.contains("/tests") || name.ends_with("golden.rs");
    if is_test {
        return String::new();
    }
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].to_owned()
}

/// Whether `text` has `what` in its code, and not only in what it says about it.
fn mentions(text: &str, what: &str) -> bool {
    text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(what))
}

#[test]
fn nobody_imports_what_is_not_below() {
    for (name, text) in sources() {
        let text = production(&name, &text);
        for (folder, what, why) in FORBIDDEN {
            let below = name.starts_with(&format!("{folder}/")) || name == format!("{folder}.rs");
            assert!(!(below && mentions(&text, what)), "{name} mentions {what}: {why}");
        }
    }
}

#[test]
fn one_file_maps_errors_to_kafka_codes() {
    // Facts of storage are translated in broker/src/error.rs; a handler that matches on one writes
    // a second table.
    for (name, text) in sources() {
        if name.starts_with("broker/src") && name != "broker/src/error.rs" {
            let text = production(&name, &text);
            assert!(!mentions(&text, "Rejection::"), "{name} translates rejections");
        }
    }
}

#[test]
fn every_file_says_what_it_is_for_and_can_be_held_in_the_head() {
    for (name, text) in sources() {
        let begins_well =
            text.starts_with("//!") || name.contains("/tests") || name.ends_with("tests.rs");
        assert!(begins_well, "{name} does not begin with its page");
        let lines = production(&name, &text).lines().count();
        assert!(lines <= LINES_MAX, "{name} has {lines} lines");
        for (at, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            assert!(columns <= COLUMNS_MAX, "{name}:{} has {columns} columns", at + 1);
        }
        assert!(!name.ends_with("/mod.rs"), "{name}: write foo.rs and foo/");
    }
}

#[test]
fn nothing_is_left_to_do_without_a_number() {
    for (name, text) in sources() {
        if name == "tests/tidy.rs" {
            continue;
        }
        for word in BANNED {
            assert!(!text.contains(word), "{name} contains {word}");
        }
    }
}

/// The bank of defects ages with the sources: what does not apply any more would be found by
/// nothing.
#[test]
fn every_defect_can_be_planted_and_says_what_finds_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = root.join("tests/defects");
    let mut patches: Vec<PathBuf> =
        fs::read_dir(&folder).unwrap().map(|item| item.unwrap().path()).collect();
    patches.retain(|path| path.extension().is_some_and(|it| it == "patch"));
    assert!(patches.len() >= 21, "{} defects", patches.len());
    let sources = sources();
    // A test, or a module of them: one that was renamed is run by no filter, and finds nothing.
    let is_there = |filter: &str| {
        let name = filter.rsplit("::").find(|part| !part.is_empty()).unwrap_or(filter);
        let (test, module) = (format!("fn {name}("), format!("mod {name};"));
        sources.iter().any(|(_, text)| text.contains(&test) || text.contains(&module))
    };
    for patch in patches {
        let name = patch.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&patch).unwrap();
        let header = text.split("\n\n").next().unwrap();
        let line = |field: &str| header.lines().find_map(|line| line.strip_prefix(field));
        assert!(line("Breaks: ").is_some(), "{name} does not say what it breaks");
        assert!(line("Found-by: ").is_some(), "{name} does not say what finds it");
        for found_by in header.lines().filter_map(|line| line.strip_prefix("Found-by: ")) {
            let filter = found_by.split(' ').next_back().unwrap();
            assert!(is_there(filter), "{name} is to be found by {filter}, which is not there");
        }
        let seeds: u64 = line("Seeds: ").and_then(|it| it.parse().ok()).unwrap_or(0);
        assert!((1..=200).contains(&seeds), "{name} says in no number of seeds up to 200");
        let mut git = std::process::Command::new("git");
        let checked = git.args(["apply", "--check"]).arg(&patch).current_dir(root).output();
        let checked = checked.expect("git is there");
        let error = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{name} does not apply: {error}");
    }
}

/// What was run is read from where it was written down, and not from what somebody remembers.
/// `REWRITE=1` writes the page anew.
#[test]
fn the_page_of_proof_is_as_its_program_writes_it() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut program = std::process::Command::new("python3");
    let printed = program.arg("-B").arg(tests.join("proof/page.py")).output();
    let printed = printed.expect("python3 is there");
    let error = String::from_utf8_lossy(&printed.stderr);
    assert!(printed.status.success(), "{error}");
    let page = tests.join("proof.md");
    if std::env::var_os("REWRITE").is_some() {
        fs::write(&page, &printed.stdout).unwrap();
    }
    let is_same = fs::read(&page).unwrap() == printed.stdout;
    assert!(is_same, "tests/proof.md is old; with REWRITE=1 this test writes it anew");
}

/// The fuzzer is a workspace of its own, which the normal build does not touch: its lock would be
/// refused by the next who wants to fuzz.
#[test]
fn the_lock_of_the_fuzzer_has_what_its_crates_need_in_the_versions_of_the_workspace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let (ours, its) = (read("Cargo.lock"), read("tests/fuzz/Cargo.lock"));
    for (name, folder) in
        [("odradek", "broker"), ("odradek-protocol", "protocol"), ("odradek-storage", "storage")]
    {
        let manifest = read(&format!("{folder}/Cargo.toml"));
        let needed = manifest.split("[dependencies]\n").nth(1).unwrap().lines();
        let needed = needed.take_while(|line| !line.is_empty());
        let begin = format!("name = \"{name}\"\n");
        let locked = its.split("\n\n").find(|package| package.contains(&begin)).unwrap();
        for line in needed {
            let needed = line.split(['.', ' ']).next().unwrap();
            // With its version behind it if there are two.
            let is_locked = locked.contains(&format!("\n \"{needed}\""))
                || locked.contains(&format!("\n \"{needed} "));
            assert!(is_locked, "tests/fuzz/Cargo.lock: {name} without {needed}");
        }
    }
    for package in its.split("\n\n").filter(|package| package.contains("source = ")) {
        let named: Vec<&str> = package.lines().skip_while(|it| *it != "[[package]]").collect();
        let named = named[..3].join("\n");
        let is_its_own = ["arbitrary", "libfuzzer-sys"].iter().any(|own| named.contains(own));
        assert!(is_its_own || ours.contains(&named), "tests/fuzz/Cargo.lock: {named}");
    }
}
