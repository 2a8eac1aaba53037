//! Small histories: what each rule says at its edges, and what is malformed.

use super::*;

/// Lines of JSON as a history.
fn read(lines: &[&str]) -> Result<Verdict, Malformed> {
    let events = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    check(History { events, files: Vec::new() })
}

fn broken(lines: &[&str]) -> Vec<Rule> {
    read(lines).unwrap().broken().collect()
}

const SENT: [&str; 3] = [
    r#"{"time_us":1,"process":1,"stage":"ok","f":"header","idempotent":true}"#,
    r#"{"time_us":2,"process":1,"op":1,"stage":"invoke","f":"send","mops":[["send","a/0",11]]}"#,
    r#"{"time_us":3,"process":1,"op":1,"stage":"ok","f":"send","mops":[["send","a/0",[5,11]]]}"#,
];

#[test]
fn what_is_no_history_is_refused() {
    let twice = r#"{"time_us":4,"process":1,"op":1,"stage":"ok","f":"send"}"#;
    let again = r#"{"time_us":4,"process":1,"op":1,"stage":"invoke","f":"poll","mops":[["poll"]]}"#;
    let other = r#"{"time_us":4,"process":2,"op":1,"stage":"invoke","f":"send","mops":[["send",
            "a/0",11]]}"#;
    let never = r#"{"time_us":4,"process":2,"op":1,"stage":"ok","f":"poll"}"#;
    let fact = r#"{"time_us":4,"process":2,"stage":"info","f":"crash"}"#;
    let bare = r#"{"time_us":4,"process":2,"op":1,"stage":"invoke","f":"list_offsets"}"#;
    let nowhere = r#"{"time_us":4,"process":2,"op":1,"stage":"ok","f":"list_offsets","end":-1001}"#;
    for (line, what) in [
        (nowhere, "no end"),
        (twice, "completed twice"),
        (again, "invoked twice"),
        (other, "11 is sent twice"),
        (never, "never invoked"),
        (fact, "a fact whose stage is not ok"),
        (bare, "no key"),
    ] {
        let error = read(&[&SENT[..], &[line]].concat()).unwrap_err().to_string();
        assert!(error.ends_with(what), "{error}: {what}");
    }
}

#[test]
fn nothing_is_proven_by_little() {
    let verdict = read(&SENT).unwrap();
    assert!(verdict.is_good());
    let lacks = verdict.lacks(Enough::default()).unwrap();
    assert_eq!(lacks, "1 acknowledged values, at least 100 are needed");
    let one = Enough { acknowledged: 1, read: 0, finals: 0 };
    assert_eq!(verdict.lacks(one), None);
}

#[test]
fn a_value_may_stand_twice_only_without_idempotence() {
    let poll = [
        r#"{"time_us":4,"process":2,"op":1,"stage":"invoke","f":"poll","mops":[["poll"]]}"#,
        r#"{"time_us":5,"process":2,"op":1,"stage":"ok","f":"poll",
            "mops":[["poll",{"a/0":[[5,11],[6,11]]}]]}"#,
    ];
    assert_eq!(broken(&[&SENT[..], &poll].concat()), [Rule::R2, Rule::R16]);
    let verdict = read(&[&SENT[1..], &poll].concat()).unwrap();
    assert!(verdict.is_good(), "{verdict}");
    assert_eq!(verdict.count(Rule::R2NotIdempotent), 1);
}

#[test]
fn a_pipeline_copies_a_value_as_often_as_it_stands() {
    let once = r#"{"time_us":5,"process":2,"op":1,"stage":"ok","f":"poll",
            "mops":[["poll",{"a/0":[[5,11]]}]]}"#;
    let twice = once.replace("[[5,11]]", "[[5,11],[6,11]]");
    let poll = r#"{"time_us":4,"process":2,"op":1,"stage":"invoke","f":"poll","mops":[["poll"]]}"#;
    let copy = [
        r#"{"time_us":6,"process":2,"op":2,"stage":"invoke","f":"txn",
            "mops":[["send","b/0",21],["send","b/0",22]]}"#,
        r#"{"time_us":7,"process":2,"op":2,"stage":"ok","f":"txn",
            "mops":[["send","b/0",[1,21]],["send","b/0",[2,22]]],"group":"g",
            "copies":[[11,21],[11,22]],"offsets":{"a/0":7},"committed":true}"#,
    ];
    assert_eq!(broken(&[&SENT[1..], &[poll, once], &copy].concat()), [Rule::R15]);
    assert_eq!(broken(&[&SENT[1..], &[poll, twice.as_str()], &copy].concat()), []);
}

/// Sends that take a second and a half, so long after a fault has ended.
fn slow_sends(seconds_after: u64) -> Vec<String> {
    let fault = |at: u64, on: bool| {
        format!(
            r#"{{"time_us":{at},"process":9,"stage":"ok","f":"fault","name":"island","on":{on}}}"#
        )
    };
    let (healed, second) = (2_000_000, 1_000_000);
    let mut lines = vec![fault(1, true), fault(healed, false)];
    for number in 1..=120 {
        let began = healed + seconds_after * second + number * 10_000;
        let op = format!(r#""process":1,"op":{number},"f":"send""#);
        lines.push(format!(
            r#"{{"time_us":{began},{op},"stage":"invoke","mops":[["send","a/0",{number}]]}}"#
        ));
        let ended = began + 3 * second / 2;
        lines.push(format!(
            r#"{{"time_us":{ended},{op},"stage":"ok","mops":[["send","a/0",[{number},{number}]]]}}"#
        ));
    }
    lines
}

#[test]
fn sends_may_be_slow_for_a_while_after_a_fault() {
    let found = |after| {
        let lines = slow_sends(after);
        broken(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(found(5), []);
    assert_eq!(found(11), [Rule::P1]);
}

#[test]
fn a_late_send_of_which_nobody_knew_may_come_after_later_ones() {
    let rest = [
        r#"{"time_us":4,"process":1,"op":2,"stage":"invoke","f":"send","mops":[["send",
            "a/0",12]]}"#,
        r#"{"time_us":5,"process":1,"op":2,"stage":"ok","f":"send","mops":[["send",
            "a/0",[4,12]]]}"#,
    ];
    assert_eq!(broken(&[&SENT[..], &rest].concat()), [Rule::R9]);
    let unknown = SENT[2].replace(r#""ok""#, r#""info""#);
    let lines = [&SENT[..2], &[unknown.as_str()], &rest].concat();
    assert_eq!(broken(&lines), []);
}

#[test]
fn a_copy_that_a_retry_left_behind_is_not_where_a_value_stands() {
    // Without idempotence 11 came to 5, and once more to 7, after 12; nobody was told where it is.
    let unknown = SENT[2].replace("[5,11]", "[null,11]");
    let rest = [
        r#"{"time_us":4,"process":1,"op":2,"stage":"invoke","f":"send",
            "mops":[["send","a/0",12]]}"#,
        r#"{"time_us":5,"process":1,"op":2,"stage":"ok","f":"send",
            "mops":[["send","a/0",[6,12]]]}"#,
        r#"{"time_us":6,"process":2,"op":1,"stage":"invoke","f":"poll","mops":[["poll"]]}"#,
        r#"{"time_us":7,"process":2,"op":1,"stage":"ok","f":"poll","mops":[["poll",
            {"a/0":[[6,12],[7,11]]}]]}"#,
        r#"{"time_us":8,"process":3,"op":1,"stage":"invoke","f":"poll","mops":[["poll"]]}"#,
        r#"{"time_us":9,"process":3,"op":1,"stage":"ok","f":"poll","mops":[["poll",
            {"a/0":[[5,11],[6,12],[7,11]]}]]}"#,
    ];
    let verdict = read(&[&[SENT[1], unknown.as_str()], &rest[..]].concat()).unwrap();
    assert!(verdict.is_good(), "{verdict}");
    assert_eq!(verdict.count(Rule::R2NotIdempotent), 1);
}

#[test]
fn who_reads_in_a_transaction_is_not_waiting_for_what_it_read() {
    const SECOND: u64 = 1_000_000;
    let line = |time: u64, op: u64, stage: &str, rest: &str| {
        format!(r#"{{"time_us":{time},"process":2,"op":{op},"stage":"{stage}",{rest}}}"#)
    };
    let history = |f: &str, stage: &str, asked: &str, read: &str| {
        let mut lines: Vec<String> = SENT.map(str::to_owned).to_vec();
        let assign = r#""f":"assign","keys":["a/0"],"offsets":{"a/0":5}"#;
        lines.extend([line(4, 1, "invoke", assign), line(5, 1, "ok", r#""f":"assign""#)]);
        let does = |mops: &str| format!(r#""f":"{f}","mops":[{mops}]"#);
        lines.extend([line(6, 2, "invoke", &does(asked)), line(7, 2, stage, &does(read))]);
        for number in 1..14 {
            let (time, op) = (number * SECOND, number + 2);
            lines.push(line(time, op, "invoke", r#""f":"poll","mops":[["poll"]]"#));
            lines.push(line(time + 1, op, "ok", r#""f":"poll","mops":[["poll",{}]]"#));
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        broken(&lines)
    };
    let (asked, read) = (r#"["poll"]"#, r#"["poll",{"a/0":[[5,11]]}]"#);
    assert_eq!(history("poll", "ok", asked, read), []);
    assert_eq!(history("txn", "ok", asked, read), []);
    // Where it goes on from after one that failed, nobody knows.
    assert_eq!(history("txn", "fail", asked, r#"["poll",{}]"#), []);
    // One that has read nothing still waits.
    assert_eq!(history("txn", "ok", asked, r#"["poll",{}]"#), [Rule::L2]);
    assert_eq!(history("txn", "ok", "", ""), [Rule::L2]);
}

#[test]
fn subscribers_may_leave_out_what_went_elsewhere() {
    let line = |time: u64, op: u64, stage: &str, rest: &str| {
        format!(r#"{{"time_us":{time},"process":2,"op":{op},"stage":"{stage}",{rest}}}"#)
    };
    let lines = |how: &str| {
        let sends = r#""f":"send","mops":[["send","a/0",[5,21]],["send","a/0",[6,22]],["send",
            "a/0",[7,23]]]"#;
        let poll = |list: &str| format!(r#""f":"poll","mops":[["poll",{{"a/0":[{list}]}}]]"#);
        vec![
            line(1, 1, "invoke", &sends.replace("[5,21]", "21")),
            line(2, 1, "ok", sends),
            line(3, 2, "invoke", how),
            line(4, 2, "ok", how),
            line(5, 3, "invoke", &poll("")),
            line(6, 3, "ok", &poll("[5,21]")),
            line(7, 4, "invoke", &poll("")),
            line(8, 4, "ok", &poll("[7,23]")),
            line(9, 5, "invoke", &poll("")),
            line(9, 5, "info", &poll("[6,22]")),
        ]
    };
    let assigned = lines(r#""f":"assign","keys":["a/0"]"#);
    let assigned: Vec<&str> = assigned.iter().map(String::as_str).collect();
    assert_eq!(broken(&assigned), [Rule::R8]);
    let subscribed = lines(r#""f":"subscribe","topics":["a"]"#);
    let subscribed: Vec<&str> = subscribed.iter().map(String::as_str).collect();
    let verdict = read(&subscribed).unwrap();
    assert!(verdict.is_good(), "{verdict}");
    assert_eq!(verdict.count(Rule::R8Subscribed), 1);
    // A seek is where it goes on.
    let seek =
        r#"{"time_us":6,"process":2,"op":9,"stage":"STAGE","f":"seek","key":"a/0","offset":7}"#;
    let (asked, done) = (seek.replace("STAGE", "invoke"), seek.replace("STAGE", "ok"));
    let sought = [&assigned[..6], &[&asked, &done], &assigned[6..]].concat();
    assert_eq!(broken(&sought), []);
}

#[test]
fn a_member_of_the_consumer_protocol_may_be_behind_others() {
    let line = |time: u64, member: &str, epoch: i64, rest: &str| {
        format!(
            r#"{{"time_us":{time},"process":2,"f":"commit","group":"g","key":"a/0","offset":1,
            "protocol":"consumer","member":"{member}","generation":{epoch},{rest}}}"#
        )
    };
    let both = |time: u64, op: u64, member: &str, epoch: i64| {
        [
            line(time, member, epoch, &format!(r#""op":{op},"stage":"invoke""#)),
            line(time + 1, member, epoch, &format!(r#""op":{op},"stage":"ok""#)),
        ]
    };
    let lines = [both(1, 1, "a", 5), both(3, 2, "b", 6), both(5, 3, "a", 5)].concat();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(broken(&lines), []);
    let back = [both(1, 1, "a", 6), both(3, 2, "a", 5)].concat();
    let back: Vec<&str> = back.iter().map(String::as_str).collect();
    assert_eq!(broken(&back), [Rule::G3]);
}

#[test]
fn records_may_go_when_they_are_old() {
    let line = |time: u64, stage: &str, start: i64| {
        format!(
            r#"{{"time_us":{time},"process":3,"op":{time},"stage":"{stage}","f":"watermarks",
            "key":"a/0","broker":1,"log_start":{start},"high":9}}"#
        )
    };
    let topic =
        r#"{"time_us":1,"process":1,"stage":"ok","f":"topic","key":"a","retention_ms":60000}"#;
    let gone = |time: u64| {
        let ok = line(time, "ok", 6);
        let lines =
            [SENT[0], topic, SENT[1], SENT[2], &line(time, "invoke", 6), &ok].map(str::to_owned);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        broken(&lines)
    };
    assert_eq!(gone(30_000_000), [Rule::RT1]);
    assert_eq!(gone(60_000_002), []);
}

#[test]
fn an_export_has_the_shape_that_jepsen_reads() {
    let rest = [
        r#"{"time_us":4,"process":2,"op":1,"stage":"invoke","f":"txn","mops":[["poll"],["send",
            "a/1",12]]}"#,
        r#"{"time_us":5,"process":2,"op":1,"stage":"info","f":"txn","error":"a \"b\"",
            "mops":[["poll",{"a/0":[[5,11]]}],["send","a/1",12]]}"#,
        r#"{"time_us":6,"process":2,"op":2,"stage":"invoke","f":"assign","keys":["a/0","a/1"]}"#,
        r#"{"time_us":7,"process":2,"op":2,"stage":"ok","f":"assign"}"#,
        r#"{"time_us":8,"process":2,"stage":"ok","f":"crash"}"#,
        r#"{"time_us":9,"process":2,"op":3,"stage":"invoke","f":"subscribe","topics":["a"]}"#,
    ];
    let lines = [&SENT[..], &rest].concat();
    let events = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut text = Vec::new();
    edn::write(&History { events, files: Vec::new() }, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let wanted = [
        r#"{:index 0, :time 2000, :process 1, :type :invoke, :f :send, :value [[:send "a/0" 11]]}"#,
        r#"{:index 1, :time 3000, :process 1, :type :ok, :f :send, :value [[:send "a/0" [5 11]]]}"#,
        concat!(
            r#"{:index 2, :time 4000, :process 2, :type :invoke, :f :txn, :value [[:poll] [:send "#,
            r#""a/1" 12]]}"#,
        ),
        concat!(
            r#"{:index 3, :time 5000, :process 2, :type :info, :f :txn, :value [[:poll {"a/0" "#,
            r#"[[5 11]]}] [:send "a/1" 12]], :error "a \"b\""}"#,
        ),
        concat!(
            r#"{:index 4, :time 6000, :process 10002, :type :invoke, :f :assign, :value ["a/0" "#,
            r#""a/1"]}"#,
        ),
        r#"{:index 5, :time 7000, :process 10002, :type :ok, :f :assign, :value ["a/0" "a/1"]}"#,
        r#"{:index 6, :time 8000, :process 10002, :type :info, :f :crash, :value nil}"#,
        r#"{:index 7, :time 9000, :process 20002, :type :invoke, :f :subscribe, :value ["a"]}"#,
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), wanted);
}
