//! What a client says and is told in sessions.

use bytes::Bytes;
use odradek_protocol::StrBytes;
use odradek_protocol::messages::TopicName;

use super::*;

/// The sessions of a broker, and one connection to it.
#[derive(Default)]
struct House {
    sessions: FetchSessions,
    slot: SessionSlot,
}

/// A topic with these partitions, each to be read from its own number on.
fn topic(name: &'static str, partitions: &[i32]) -> FetchTopic {
    let partitions = partitions.iter().map(|it| {
        let partition = FetchPartition::default().with_partition(*it);
        partition.with_fetch_offset(i64::from(*it)).with_partition_max_bytes(100)
    });
    let name = TopicName::from(StrBytes::from_static_str(name));
    FetchTopic::default().with_topic(name).with_partitions(partitions.collect())
}

fn request(id: i32, epoch: i32, topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest::default().with_session_id(id).with_session_epoch(epoch).with_topics(topics)
}

fn forget(name: &'static str, partitions: &[i32]) -> ForgottenTopic {
    let name = TopicName::from(StrBytes::from_static_str(name));
    ForgottenTopic::default().with_topic(name).with_partitions(partitions.to_vec())
}

fn names(fetching: &Fetching) -> Vec<(String, i32)> {
    let asked = fetching.asked.iter();
    asked.map(|it| (it.topic.name.to_string(), it.partition)).collect()
}

fn of(name: &str, partitions: &[i32]) -> Vec<(String, i32)> {
    partitions.iter().map(|it| (name.to_owned(), *it)).collect()
}

fn at_end(index: i32, high_watermark: i64) -> FetchedPartition {
    FetchedPartition {
        error_code: 0,
        high_watermark,
        last_stable_offset: high_watermark,
        log_start_offset: 0,
        ..FetchedPartition::failed(index, 0)
    }
}

fn with_records(index: i32, high_watermark: i64) -> FetchedPartition {
    let records = vec![Bytes::from_static(b"records")];
    FetchedPartition { records, ..at_end(index, high_watermark) }
}

impl House {
    fn begin(&self, request: &FetchRequest) -> Result<Fetching, ResponseError> {
        self.sessions.begin(&self.slot, false, request)
    }

    /// Begins, and answers with what `answer` has for each partition.
    fn answer(
        &self,
        request: &FetchRequest,
        answer: impl Fn(i32) -> FetchedPartition,
    ) -> (i32, Vec<(String, i32)>) {
        let fetching = self.begin(request).unwrap();
        let id = fetching.session_id;
        let answers = fetching.asked.iter().map(|it| answer(it.partition)).collect();
        let told = fetching.told(&self.slot, answers);
        let told = told
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|it| (topic.name.clone(), it.index)));
        (id, told.collect())
    }

    fn held(&self) -> usize {
        self.sessions.partitions.load(Ordering::Relaxed)
    }
}

#[test]
fn who_wants_no_session_is_told_everything_in_its_order() {
    let house = House::default();
    for _ in 0..2 {
        let whole = request(0, EPOCH_FINAL, vec![topic("b", &[2, 0]), topic("a", &[1])]);
        let expected = [of("b", &[2, 0]), of("a", &[1])].concat();
        assert_eq!(house.answer(&whole, |it| at_end(it, 5)), (0, expected));
    }
    assert_eq!(house.held(), 0);
}

#[test]
fn in_a_session_only_what_has_changed_is_said_by_either() {
    let house = House::default();
    let whole = request(0, EPOCH_FIRST, vec![topic("b", &[2, 0]), topic("a", &[1])]);
    let expected = [of("b", &[2, 0]), of("a", &[1])].concat();
    let (id, told) = house.answer(&whole, |it| at_end(it, 5));
    assert!(id > 0);
    assert_eq!((told, house.held()), (expected, 3));

    let nothing = |epoch| request(id, epoch, Vec::new());
    assert_eq!(house.answer(&nothing(1), |it| at_end(it, 5)), (id, Vec::new()));
    let moved = |it| at_end(it, if it == 2 { 6 } else { 5 });
    assert_eq!(house.answer(&nothing(2), moved), (id, of("b", &[2])));
    assert_eq!(house.answer(&nothing(3), moved), (id, Vec::new()));
    // A failure is said as long as it lasts, and what comes after it also.
    let failing = |it| if it == 1 { FetchedPartition::failed(1, 3) } else { moved(it) };
    assert_eq!(house.answer(&nothing(4), failing), (id, of("a", &[1])));
    assert_eq!(house.answer(&nothing(5), failing), (id, of("a", &[1])));
    assert_eq!(house.answer(&nothing(6), moved), (id, of("a", &[1])));
    // What is nearer elsewhere.
    let nearer = |it| FetchedPartition { preferred_read_replica: 7, ..moved(it) };
    assert_eq!(house.answer(&nothing(7), nearer).1.len(), 3);

    let mut change = request(id, 8, vec![topic("b", &[0, 4])]);
    change.topics[0].partitions[0].fetch_offset = 9;
    change.forgotten_topics_data = vec![forget("b", &[2]), forget("c", &[0])];
    let fetching = house.begin(&change).unwrap();
    assert_eq!(names(&fetching), [of("a", &[1]), of("b", &[0, 4])].concat());
    let offsets: Vec<i64> = fetching.asked.iter().map(|it| it.offset).collect();
    assert_eq!((offsets, house.held()), (vec![1, 9, 4], 3));
    assert_eq!(house.answer(&nothing(9), moved), (id, of("b", &[4])));
}

#[test]
fn those_that_come_after_who_was_served_come_first() {
    let house = House::default();
    let topics = vec![topic("a", &[0, 1]), topic("b", &[0, 1, 2]), topic("c", &[0])];
    let (id, _) = house.answer(&request(0, EPOCH_FIRST, topics), |it| at_end(it, 0));
    let nothing = |epoch| request(id, epoch, Vec::new());
    // As if there were room for the first alone.
    let mut order = Vec::new();
    for epoch in 1..=7 {
        let fetching = house.begin(&nothing(epoch)).unwrap();
        let asked = names(&fetching);
        let rest = asked[1..].iter().map(|(_, it)| at_end(*it, 0));
        let answers = std::iter::once(with_records(asked[0].1, 0)).chain(rest).collect();
        assert_eq!(fetching.told(&house.slot, answers).len(), 1);
        order.push(asked[0].clone());
    }
    let once = [of("a", &[0, 1]), of("b", &[0, 1, 2]), of("c", &[0])].concat();
    assert_eq!(order, [once, of("a", &[0])].concat());
    // Each topic is named once, wherever the turn is.
    for epoch in 8..20 {
        let fetching = house.begin(&nothing(epoch)).unwrap();
        let asked = names(&fetching);
        let answers = asked.iter().enumerate().map(|(place, (_, it))| {
            if place == 2 { with_records(*it, 0) } else { at_end(*it, i64::from(epoch)) }
        });
        let told = fetching.told(&house.slot, answers.collect());
        let mut topics: Vec<_> = told.iter().map(|topic| topic.name.clone()).collect();
        topics.sort();
        assert_eq!(topics, ["a", "b", "c"]);
    }
}

#[test]
fn who_is_out_of_step_is_told_so_and_can_begin_again() {
    let house = House::default();
    let whole = |id| request(id, EPOCH_FIRST, vec![topic("a", &[0])]);
    let refused = |request: FetchRequest| house.begin(&request).unwrap_err();
    let not_found = ResponseError::FetchSessionIdNotFound;
    assert_eq!(refused(request(0, 1, Vec::new())), not_found);
    assert_eq!(refused(request(5, 1, Vec::new())), not_found);
    let (id, _) = house.answer(&whole(0), |it| at_end(it, 0));
    assert_eq!(refused(request(id + 1, 1, Vec::new())), not_found);
    let epoch = ResponseError::InvalidFetchSessionEpoch;
    assert_eq!(refused(request(id, 2, Vec::new())), epoch);
    let by_id = house.sessions.begin(&house.slot, true, &request(id, 1, Vec::new()));
    assert_eq!(by_id.unwrap_err(), ResponseError::FetchSessionTopicIdError);
    assert!(house.begin(&request(id, 1, Vec::new())).is_ok());
    assert_eq!(refused(request(id, 1, Vec::new())), epoch);
    // Another one instead, with or without naming the one before.
    for before in [id, 0] {
        let (next, _) = house.answer(&whole(before), |it| at_end(it, 0));
        assert!(next > 0 && next != id);
        assert_eq!(refused(request(id, 2, Vec::new())), not_found);
        assert_eq!(house.held(), 1);
    }
    // Another connection knows nothing of it.
    let other = House { slot: SessionSlot::default(), sessions: house.sessions };
    assert_eq!(other.begin(&request(id, 2, Vec::new())).unwrap_err(), not_found);
    assert_eq!(other.held(), 1);
}

#[test]
fn a_session_ends_when_its_client_or_its_connection_does() {
    let house = House::default();
    let (id, _) =
        house.answer(&request(0, EPOCH_FIRST, vec![topic("a", &[0])]), |it| at_end(it, 0));
    let last = request(id, EPOCH_FINAL, vec![topic("a", &[0])]);
    assert_eq!(house.answer(&last, |it| at_end(it, 0)), (0, of("a", &[0])));
    assert_eq!(house.held(), 0);
    let House { sessions, slot } = house;
    assert!(sessions.begin(&slot, false, &request(0, EPOCH_FIRST, vec![topic("a", &[0])])).is_ok());
    assert_eq!(sessions.partitions.load(Ordering::Relaxed), 1);
    drop(slot);
    assert_eq!(sessions.partitions.load(Ordering::Relaxed), 0);
}

#[test]
fn where_too_many_partitions_are_in_sessions_nobody_gets_another() {
    let house = House::default();
    let most: Vec<i32> = (0..i32::try_from(PARTITIONS_MAX).unwrap()).collect();
    let (id, told) =
        house.answer(&request(0, EPOCH_FIRST, vec![topic("a", &most)]), |it| at_end(it, 0));
    assert!(id > 0 && told.len() == PARTITIONS_MAX);
    let other = SessionSlot::default();
    let one = request(0, EPOCH_FIRST, vec![topic("b", &[0])]);
    assert_eq!(house.sessions.begin(&other, false, &one).unwrap().session_id, 0);
    assert_eq!(house.held(), PARTITIONS_MAX);
    // One that grows beyond that ends.
    let grown = house.begin(&request(id, 1, vec![topic("b", &[0])]));
    assert_eq!(grown.unwrap_err(), ResponseError::FetchSessionIdNotFound);
    assert_eq!(house.held(), 0);
    assert!(house.sessions.begin(&other, false, &one).unwrap().session_id > 0);
}
