//! Which errors a response has: those of the whole, and those of each thing that was asked for.

use odradek_protocol::ResponseError;
use odradek_protocol::response::Response;

/// Hands every error code of a response on that is one.
#[expect(clippy::too_many_lines, reason = "one arm for each shape of response")]
pub(super) fn each(response: &Response, mut say: impl FnMut(i16)) {
    let mut say = |code: i16| {
        if code != 0 {
            say(code);
        }
    };
    /// The codes in fields of lists in lists.
    macro_rules! codes {
        ($from:expr, [$($list:ident).+].$code:ident) => {
            codes!(@ $from, $code, $($list)+)
        };
        (@ $from:expr, $code:ident, $list:ident) => {
            $from.$list.iter().for_each(|it| say(it.$code))
        };
        (@ $from:expr, $code:ident, $list:ident $($more:ident)+) => {
            $from.$list.iter().for_each(|it| codes!(@ it, $code, $($more)+))
        };
    }
    match response {
        Response::Produce(it) => codes!(it, [responses.partition_responses].error_code),
        Response::Fetch(it) => {
            say(it.error_code);
            codes!(it, [topics.partitions].error_code);
        }
        Response::ListOffsets(it) => codes!(it, [topics.partitions].error_code),
        Response::Metadata(it) => codes!(it, [topics].error_code),
        Response::OffsetCommit(it) => codes!(it, [topics.partitions].error_code),
        Response::OffsetFetch(it) => {
            say(it.error_code);
            codes!(it, [groups].error_code);
            codes!(it, [topics.partitions].error_code);
            codes!(it, [groups.topics.partitions].error_code);
        }
        Response::FindCoordinator(it) => {
            say(it.error_code);
            codes!(it, [coordinators].error_code);
        }
        Response::JoinGroup(it) => say(it.error_code),
        Response::Heartbeat(it) => say(it.error_code),
        Response::LeaveGroup(it) => {
            say(it.error_code);
            codes!(it, [members].error_code);
        }
        Response::SyncGroup(it) => say(it.error_code),
        Response::DescribeGroups(it) => codes!(it, [groups].error_code),
        Response::ListGroups(it) => say(it.error_code),
        Response::ApiVersions(it) => say(it.error_code),
        Response::CreateTopics(it) => codes!(it, [topics].error_code),
        Response::DeleteTopics(it) => codes!(it, [responses].error_code),
        Response::DeleteRecords(it) => codes!(it, [topics.partitions].error_code),
        Response::InitProducerId(it) => say(it.error_code),
        Response::OffsetForLeaderEpoch(it) => codes!(it, [topics.partitions].error_code),
        Response::AddPartitionsToTxn(it) => {
            say(it.error_code);
            codes!(it, [results_by_topic_v3_and_below.results_by_partition].partition_error_code);
        }
        Response::AddOffsetsToTxn(it) => say(it.error_code),
        Response::EndTxn(it) => say(it.error_code),
        Response::WriteTxnMarkers(it) => codes!(it, [markers.topics.partitions].error_code),
        Response::TxnOffsetCommit(it) => codes!(it, [topics.partitions].error_code),
        Response::DescribeAcls(it) => say(it.error_code),
        Response::CreateAcls(it) => codes!(it, [results].error_code),
        Response::DeleteAcls(it) => codes!(it, [filter_results].error_code),
        Response::DescribeConfigs(it) => codes!(it, [results].error_code),
        Response::AlterConfigs(it) => codes!(it, [responses].error_code),
        Response::DescribeLogDirs(it) => {
            say(it.error_code);
            codes!(it, [results].error_code);
        }
        Response::CreatePartitions(it) => codes!(it, [results].error_code),
        Response::DeleteGroups(it) => codes!(it, [results].error_code),
        Response::ElectLeaders(it) => {
            say(it.error_code);
            codes!(it, [replica_election_results.partition_result].error_code);
        }
        Response::IncrementalAlterConfigs(it) => codes!(it, [responses].error_code),
        Response::AlterPartitionReassignments(it) => {
            say(it.error_code);
            codes!(it, [responses.partitions].error_code);
        }
        Response::ListPartitionReassignments(it) => say(it.error_code),
        Response::OffsetDelete(it) => {
            say(it.error_code);
            codes!(it, [topics.partitions].error_code);
        }
        Response::DescribeClientQuotas(it) => say(it.error_code),
        Response::DescribeUserScramCredentials(it) => {
            say(it.error_code);
            codes!(it, [results].error_code);
        }
        Response::DescribeCluster(it) => say(it.error_code),
        Response::DescribeProducers(it) => codes!(it, [topics.partitions].error_code),
        Response::DescribeTransactions(it) => codes!(it, [transaction_states].error_code),
        Response::ListTransactions(it) => say(it.error_code),
        Response::ConsumerGroupHeartbeat(it) => say(it.error_code),
        Response::ConsumerGroupDescribe(it) => codes!(it, [groups].error_code),
        Response::ListConfigResources(it) => say(it.error_code),
        Response::DescribeTopicPartitions(it) => codes!(it, [topics].error_code),
    }
}

/// A code as Kafka's documentation writes it, such as `NOT_LEADER_OR_FOLLOWER`.
pub(super) fn name(code: i16) -> String {
    let error = match ResponseError::try_from_code(code) {
        None | Some(ResponseError::Unknown(_)) => return code.to_string(),
        Some(error) => error,
    };
    let mut name = String::new();
    for letter in format!("{error:?}").chars().take_while(|it| it.is_ascii_alphanumeric()) {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use odradek_protocol::messages::produce_response::{
        PartitionProduceResponse, TopicProduceResponse,
    };
    use odradek_protocol::messages::{HeartbeatResponse, ProduceResponse};

    use super::*;

    fn names(response: &Response) -> Vec<String> {
        let mut names = Vec::new();
        each(response, |code| names.push(name(code)));
        names
    }

    #[test]
    fn every_partition_that_failed_counts_and_none_that_did_not() {
        let partitions =
            [0, 3, 0, 6].map(|code| PartitionProduceResponse::default().with_error_code(code));
        let topic = TopicProduceResponse::default().with_partition_responses(partitions.into());
        let produce = ProduceResponse::default().with_responses(vec![topic]);
        let expected = ["UNKNOWN_TOPIC_OR_PARTITION", "NOT_LEADER_OR_FOLLOWER"];
        assert_eq!(names(&Response::Produce(produce)), expected);
        let heartbeat = |code| HeartbeatResponse::default().with_error_code(code);
        assert_eq!(names(&Response::Heartbeat(heartbeat(27))), ["REBALANCE_IN_PROGRESS"]);
        assert_eq!(names(&Response::Heartbeat(heartbeat(0))), Vec::<String>::new());
        assert_eq!(names(&Response::Heartbeat(heartbeat(-1))), ["UNKNOWN_SERVER_ERROR"]);
        assert_eq!(names(&Response::Heartbeat(heartbeat(9999))), ["9999"]);
    }
}
