//! Promises of the format.

use super::*;

fn event(line: &str) -> Event {
    serde_json::from_str(line).unwrap()
}

#[test]
fn steps_are_read_before_and_after_they_are_done() {
    let line = r#"{"time_us":1,"process":3,"op":7,"stage":"ok","f":"txn","committed":true,"tv":2,
        "mops":[["send","a/0",[5,31]],["send","a/0",[null,32]],["send","a/1",33],["poll"],
        ["poll",{"a/0":[[4,21],[5,31]],"b/0":[]}]]}"#;
    let read = event(line);
    let send = |key: &str, value, offset| Mop::Send { key: key.to_owned(), value, offset };
    assert_eq!(read.mops[0], send("a/0", 31, Some(5)));
    assert_eq!(read.mops[1], send("a/0", 32, None));
    assert_eq!(read.mops[2], send("a/1", 33, None));
    assert_eq!(read.mops[3], Mop::Poll(Polled::default()));
    let Mop::Poll(polled) = &read.mops[4] else { panic!("{:?}", read.mops) };
    assert_eq!(polled.0[0], ("a/0".to_owned(), vec![(4, 21), (5, 31)]));
    assert_eq!((read.committed, read.tv, read.f), (Some(true), Some(2), Kind::Txn));
}

#[test]
fn what_is_written_is_read_again() {
    let line =
        r#"{"time_us":1,"process":3,"op":7,"stage":"invoke","f":"list_offsets","key":"a/0"}"#;
    assert_eq!(serde_json::to_string(&event(line)).unwrap(), line);
    let line = concat!(
        r#"{"time_us":1,"process":3,"op":7,"stage":"info","f":"txn","#,
        r#""mops":[["send","a/0",[5,31]],["poll"],["poll",{"a/0":[[4,21]]}]],"#,
        r#""offsets":{"a/0":5},"group":"g"}"#
    );
    assert_eq!(serde_json::to_string(&event(line)).unwrap(), line);
}

#[test]
fn a_line_that_is_no_event_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("3.jsonl");
    let good = r#"{"time_us":1,"process":3,"stage":"ok","f":"crash"}"#;
    for bad in [
        r#"{"time_us":1,"process":3,"stage":"ok","f":"crush"}"#,
        r#"{"time_us":1,"process":3,"stage":"ok","f":"crash","colour":1}"#,
        r#"{"time_us":1,"process":3,"stage":"ok","f":"send","mops":[["sent","a/0",1]]}"#,
        r#"{"time_us":1,"process":3,"stage":"ok","f":"send","mops":[["send","a/0",1,2]]}"#,
        r#"{"time_us":-1,"process":3,"stage":"ok","f":"crash"}"#,
        "[]",
    ] {
        fs::write(&path, format!("{good}\n{bad}\n{good}\n")).unwrap();
        let error = History::read(&[folder.path().to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}:2: ", path.display())), "{error}");
    }
}

#[test]
fn files_are_merged_by_time_and_a_torn_last_line_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let line = |time: u64, process: u64| {
        format!(r#"{{"time_us":{time},"process":{process},"stage":"ok","f":"crash"}}"#)
    };
    fs::write(folder.path().join("a.jsonl"), format!("{}\n{}\n{{\"ti", line(1, 1), line(5, 1)))
        .unwrap();
    fs::write(folder.path().join("b.jsonl"), format!("{}\n\n{}", line(3, 2), line(7, 2))).unwrap();
    fs::write(folder.path().join("notes.txt"), "no history").unwrap();
    let history = History::read(&[folder.path().to_owned()]).unwrap();
    let times: Vec<u64> = history.events.iter().map(|event| event.time_us).collect();
    assert_eq!(times, [1, 3, 5, 7]);
    assert_eq!(history.events[1].place, Place { file: 1, line: 1 });
}

#[test]
fn no_history_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = History::read(&[folder.path().to_owned()]).unwrap_err();
    assert!(matches!(error, Malformed::Empty(0)), "{error}");
    let missing = folder.path().join("missing.jsonl");
    let error = History::read(&[missing]).unwrap_err();
    assert!(matches!(error, Malformed::Unreadable { .. }), "{error}");
}
