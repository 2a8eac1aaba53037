//! The state machine, fed with entries that decode: whatever is in them, the state stays one that
//! its own rules allow, and everybody comes to the same.

use odradek_storage::command::{Command, CommandId, Entry, EntryHash};
use odradek_storage::lsn::Lsn;
use odradek_storage::snapshot::SNAPSHOT_FORMAT;
use odradek_storage::state::recount::recount;
use odradek_storage::state::{FEATURE_LEVEL, State};

use super::entries;
use super::oracle::bounded_with;
use super::samples::golden;

/// Entries of one input: each is checked against the whole state.
const ENTRIES_MAX: usize = 64;

/// What a payload ends with, and the next begins: bytes that end no field of a payload.
const BETWEEN: &[u8] = b"\xff\xff\xff\xff";

/// The input is payloads of entries, one behind the other. What an appender fills in (where the
/// entry stands, what is before it, who proposes for the how-manieth time) is filled in.
pub(crate) fn run(data: &[u8]) {
    let mut state = State::new();
    let mut log: Vec<(Entry, EntryHash)> = Vec::new();
    let mut counter = 0;
    for payload in split(data) {
        let Ok(entry) = entries::decode(payload) else { return };
        let entry = fit(entry, &state, &mut counter);
        let hash = EntryHash::of(&entry.encode());
        let before = state.clone();
        let applied = match state.apply(&entry, hash) {
            Ok(applied) => applied,
            Err(halt) => {
                // Raised by an entry before: a broker of this release stops here.
                let is_too_new = state.level() > FEATURE_LEVEL;
                assert!(is_too_new, "an entry that follows is applied, not {halt:?}");
                assert!(state == before, "an entry is applied whole or not at all");
                break;
            }
        };
        assert_eq!(applied.outcomes.len(), entry.proposals.len());
        recount(&before, &entry, &state);
        log.push((entry, hash));
    }
    let (snapshot, digest) = state.to_snapshot();
    let reloaded = State::from_snapshot(&snapshot).expect("what was written is read");
    assert!(reloaded == state && reloaded.digest() == digest, "a snapshot is the state");
    replay(&log, &state);
    apply_again(&log, state);
}

fn split(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(data);
    let payloads = std::iter::from_fn(move || {
        let payload = rest?;
        let found = payload.windows(BETWEEN.len()).position(|it| it == BETWEEN);
        rest = found.map(|at| &payload[at + BETWEEN.len()..]);
        Some(&payload[..found.unwrap_or(payload.len())])
    });
    payloads.take(ENTRIES_MAX)
}

fn fit(entry: Entry, state: &State, counter: &mut u64) -> Entry {
    let mut proposals = entry.proposals;
    for proposal in &mut proposals {
        // Zero asks for the next one; any other number may be new, repeated or stale.
        *counter += 1;
        if proposal.id.counter == 0 {
            proposal.id.counter = *counter;
        }
        fit_office(&mut proposal.command, state);
    }
    Entry {
        log_id: state.log_id(),
        lsn: state.applied().next(),
        previous: state.last_hash(),
        level: 1,
        digest: entry.digest.map(|_| state.digest()),
        proposals,
        ..entry
    }
}

/// An office of zero asks for the one that is held: no input would guess it.
fn fit_office(command: &mut Command, state: &State) {
    use odradek_storage::command::TransactionChange;
    let office = match command {
        Command::CommitOffsets { office, .. } | Command::ChangeGroup { office, .. } => office,
        Command::ChangeTransaction { change: TransactionChange::StageOffsets(staged), .. } => {
            &mut staged.office
        }
        _ => return,
    };
    if *office == Lsn::ZERO {
        *office = state.offices_changed();
    }
}

/// The same entries lead another broker to the same state: from the beginning, and from a snapshot
/// in the middle.
fn replay(log: &[(Entry, EntryHash)], state: &State) {
    let mut other = State::new();
    for (at, (entry, hash)) in log.iter().enumerate() {
        if at == log.len() / 2 {
            other = State::from_snapshot(&other.to_snapshot().0).unwrap();
        }
        let entry = Entry::decode(&entry.encode()).unwrap();
        other.apply(&entry, *hash).unwrap();
    }
    assert!(other == *state, "two brokers, one log, two states");
}

/// What stands in the log once more changes nothing but how far the log is applied.
fn apply_again(log: &[(Entry, EntryHash)], mut state: State) {
    let Some((last, _)) = log.last().filter(|_| state.level() <= FEATURE_LEVEL) else { return };
    let again = Entry {
        log_id: state.log_id(),
        lsn: state.applied().next(),
        previous: state.last_hash(),
        append_id: CommandId { counter: last.append_id.counter ^ 1, ..last.append_id },
        digest: Some(state.digest()),
        ..last.clone()
    };
    let before = state.clone();
    let hash = EntryHash::of(&again.encode());
    state.apply(&again, hash).unwrap();
    recount(&before, &again, &state);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    const HEADER_BYTES: usize = 16;
    let entry = Entry::decode(&golden("entry_v1.bin")).unwrap();
    let payload = |proposals: &[_]| {
        let entry = Entry { digest: None, proposals: proposals.to_vec(), ..entry.clone() };
        entry.encode()[HEADER_BYTES..].to_vec()
    };
    // Each command in an entry of its own, as they were made; and several at once.
    let alone: Vec<Vec<u8>> =
        entry.proposals.iter().map(|it| payload(std::slice::from_ref(it))).collect();
    let together: Vec<Vec<u8>> = entry.proposals.chunks(5).map(payload).collect();
    let first: Vec<Vec<u8>> = alone.iter().take(ENTRIES_MAX / 2).cloned().collect();
    let some: Vec<Vec<u8>> = alone.iter().take(12).cloned().collect();
    [alone, together, first, some].map(|payloads| payloads.join(BETWEEN)).to_vec()
}

/// Memory for each byte of a snapshot, besides the usual: it is read, and written again to compare.
const THING_BYTES: u64 = 400;

/// The input is the payload of a snapshot.
pub(crate) fn snapshot(data: &[u8]) {
    let sealed = SNAPSHOT_FORMAT.seal(data);
    let more = u64::try_from(data.len()).unwrap() * THING_BYTES;
    let Ok(state) = bounded_with(data.len(), more, || State::from_snapshot(&sealed)) else {
        return;
    };
    let (again, digest) = state.to_snapshot();
    assert_eq!(again, sealed, "a snapshot has one form");
    assert_eq!(State::from_snapshot(&again).unwrap().digest(), digest);
}

pub(crate) fn snapshot_seeds() -> Vec<Vec<u8>> {
    const HEADER_BYTES: usize = 16;
    let mut states = vec![State::new()];
    let entry = Entry::decode(&golden("entry_v1.bin")).unwrap();
    let mut state = State::new();
    for (number, proposal) in entry.proposals.iter().enumerate() {
        let entry = Entry {
            log_id: state.log_id(),
            lsn: state.applied().next(),
            previous: state.last_hash(),
            level: 1,
            digest: None,
            proposals: vec![proposal.clone()],
            ..entry.clone()
        };
        state.apply(&entry, EntryHash(7)).unwrap();
        if number % 8 == 0 {
            states.push(state.clone());
        }
    }
    let payload = |state: &State| state.to_snapshot().0[HEADER_BYTES..].to_vec();
    let mut seeds: Vec<Vec<u8>> = states.iter().map(payload).collect();
    seeds.push(golden("snapshot_v1.bin")[HEADER_BYTES..].to_vec());
    seeds
}
