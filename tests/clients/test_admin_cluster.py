"""The tools that ask what the cluster is, or have it move what Odradek does not have: kafka-cluster,
kafka-broker-api-versions, kafka-features, kafka-metadata-quorum, kafka-log-dirs, kafka-leader-election,
kafka-reassign-partitions, kafka-acls."""

import json
import re

import pytest

from conftest import AGAINST_KAFKA
from tools import (
    ACLS,
    API_VERSIONS,
    CLUSTER,
    FEATURES,
    LEADER_ELECTION,
    LOG_DIRS,
    METADATA_QUORUM,
    REASSIGN,
    TOPICS,
    rows,
)


@pytest.fixture
def node(admin):
    (broker_id,) = admin.list_topics(timeout=30).brokers
    return broker_id


# kafka-cluster, kafka-broker-api-versions, kafka-features, kafka-metadata-quorum ------------------------------


def test_the_cluster_has_an_id_and_endpoints(tool, bootstrap, node, admin):
    where = ("--bootstrap-server", bootstrap)
    cluster_id = admin.list_topics(timeout=30).cluster_id
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", cluster_id)
    assert tool(CLUSTER, "cluster-id", *where) == f"Cluster ID: {cluster_id}\n"

    host, port = bootstrap.split(":")
    endpoint = {"ID": str(node), "HOST": host, "PORT": port, "RACK": "null"}
    endpoint |= {"STATE": "unfenced", "ENDPOINT_TYPE": "broker"}
    assert rows(tool(CLUSTER, "list-endpoints", *where)) == [endpoint]
    assert rows(tool(CLUSTER, "list-endpoints", *where, "--include-fenced-brokers")) == [endpoint]


def test_all_apis_that_clients_need_are_offered(tool, bootstrap, node):
    broker, *lines, end = tool(API_VERSIONS).splitlines()
    assert broker == f"{bootstrap} (id: {node} rack: null isFenced: false) -> ("
    assert end == ")"
    offered = {}
    for line in lines:
        name, versions = re.fullmatch(r"\t(\w+)\(\d+\): (.*?),?", line).groups()
        offered[name] = versions
    usable = {
        "AlterPartitionReassignments": 0,
        "ConsumerGroupDescribe": 1,
        "ConsumerGroupHeartbeat": 1,
        "CreateTopics": 7,
        "DeleteGroups": 2,
        "DeleteRecords": 2,
        "DescribeCluster": 2,
        "DescribeConfigs": 4,
        "DescribeGroups": 6,
        "DescribeLogDirs": 4,
        "DescribeTopicPartitions": 0,
        "ElectLeaders": 2,
        "Fetch": 18,
        "FindCoordinator": 6,
        "IncrementalAlterConfigs": 1,
        "JoinGroup": 9,
        "ListConfigResources": 1,
        "ListGroups": 5,
        "ListOffsets": 10,
        "OffsetCommit": 9,
        "OffsetDelete": 0,
        "OffsetFetch": 9,
        "Produce": 13,
    }
    for name, version in usable.items():
        highest = int(re.search(r"\[usable: (\d+)\]", offered[name]).group(1))
        assert highest >= version, f"{name}: {offered[name]}"
    # What a broker without telemetry offers makes every client ask for subscriptions.
    assert offered["GetTelemetrySubscriptions"] == offered["PushTelemetry"] == "UNSUPPORTED"


def test_features_are_described(tool, bootstrap):
    lines = tool(FEATURES, "--bootstrap-server", bootstrap, "describe").splitlines()
    features = {}
    for line in lines:
        name, *fields = re.split(r"\s+(?=\w+: )", line.removeprefix("Feature: ").rstrip())
        features[name] = dict(field.split(": ") for field in fields)
    # Clients speak the consumer protocol of groups only if this says so.
    group = features["group.version"]
    assert (group["SupportedMinVersion"], group["SupportedMaxVersion"]) == ("0", "1")
    assert group["FinalizedVersionLevel"] == "1"


def test_the_controllers_quorum_is_refused_where_there_is_none(tool, bootstrap):
    for what in ("--status", "--replication"):
        describe = ("--bootstrap-server", bootstrap, "describe", what)
        if AGAINST_KAFKA:
            assert "Leader" in tool(METADATA_QUORUM, *describe)
        else:
            tool(METADATA_QUORUM, *describe, fails_with="UnsupportedVersionException")


def test_brokers_are_not_taken_off_and_features_not_raised_by_hand(tool, bootstrap):
    where = ("--bootstrap-server", bootstrap)
    if not AGAINST_KAFKA:  # no API for either: brokers come and go by themselves, and versions are negotiated
        printed = tool(CLUSTER, "unregister", *where, "--id", 77)
        assert printed == "The target cluster does not support the broker unregistration API.\n"
        refused = "The node does not support UPDATE_FEATURES"
        tool(FEATURES, *where, "upgrade", "--feature", "group.version=1", fails_with=refused)


# kafka-log-dirs --------------------------------------------------------------------------------------------


def test_the_size_of_each_partition_is_told(tool, new_topic, fill, node):
    topic, other = new_topic(3), new_topic()
    fill(topic, {0: 1000, 1: 10})

    def sizes(*arguments):
        printed = tool(LOG_DIRS, "--describe", *arguments).splitlines()
        assert printed[0] == "Querying brokers for log directories information"
        assert printed[1] == f"Received log directory information from brokers {node}"
        (broker,) = json.loads(printed[2])["brokers"]
        assert broker["broker"] == node
        (directory,) = broker["logDirs"]
        assert directory["error"] is None
        assert directory["logDir"]
        assert all(it["offsetLag"] == 0 and it["isFuture"] is False for it in directory["partitions"])
        return {it["partition"]: it["size"] for it in directory["partitions"]}

    told = sizes("--topic-list", topic)
    assert set(told) == {f"{topic}-{n}" for n in range(3)}
    assert told[f"{topic}-2"] == 0
    assert told[f"{topic}-0"] > told[f"{topic}-1"] > 60  # a batch's header alone has 61 bytes
    everything = sizes()
    assert everything.items() >= told.items()
    assert everything[f"{other}-0"] == 0
    assert sizes("--topic-list", topic, "--broker-list", node) == told
    assert sizes("--topic-list", "nobody-made-this") == {}
    tool(LOG_DIRS, "--describe", "--broker-list", node + 1, fails_with="The given brokers do not exist")


# kafka-leader-election -------------------------------------------------------------------------------------


def test_leaders_need_no_election(tool, new_topic, tmp_path):
    topic = new_topic(2)
    path = tmp_path / "partitions.json"
    path.write_text(json.dumps({"partitions": [{"topic": topic, "partition": n} for n in range(2)]}))

    for election in ("preferred", "unclean"):
        elect = ("--election-type", election)
        printed = tool(LEADER_ELECTION, *elect, "--topic", topic, "--partition", 1)
        assert printed == f"Valid replica already elected for partitions {topic}-1\n"
        printed = tool(LEADER_ELECTION, *elect, "--path-to-json-file", path)
        assert re.match(r"Valid replica already elected for partitions \S+, \S+\n", printed)
        assert f"{topic}-0" in printed
        assert f"{topic}-1" in printed
        assert tool(LEADER_ELECTION, *elect, "--all-topic-partitions") == ""


def test_there_are_no_leaders_of_what_does_not_exist(tool, topic):
    for unknown, partition in (("nobody-made-this", 0), (topic, 9)):
        elect = ("--election-type", "preferred", "--topic", unknown, "--partition", partition)
        refused = tool.run(LEADER_ELECTION, *elect)
        assert refused.code == 1
        failure = f"Error completing leader election (PREFERRED) for partition: {unknown}-{partition}: "
        assert refused.out.startswith(f"{failure}org.apache.kafka.common.errors.UnknownTopicOrPartitionException")
        assert "1 replica(s) could not be elected" in refused.err


# kafka-reassign-partitions ---------------------------------------------------------------------------------


@pytest.fixture
def plan(tmp_path):
    """Writes a file for kafka-reassign-partitions."""

    def write(**content):
        path = tmp_path / "plan.json"
        path.write_text(json.dumps({"version": 1, **content}))
        return path

    return write


def test_a_reassignment_is_generated_executed_verified_and_can_not_be_cancelled(tool, new_topic, node, plan):
    topic = new_topic(2)
    generate = ("--topics-to-move-json-file", plan(topics=[{"topic": topic}]), "--broker-list", node, "--generate")
    heading, current, blank, proposal, proposed = tool(REASSIGN, *generate).splitlines()
    assert heading == "Current partition replica assignment"
    assert proposal == "Proposed partition reassignment configuration"
    assert blank == ""
    for assignment in (current, proposed):
        partitions = json.loads(assignment)["partitions"]
        told = [(it["topic"], it["partition"], it["replicas"]) for it in partitions]
        assert told == [(topic, 0, [node]), (topic, 1, [node])]

    partitions = [{"topic": topic, "partition": n, "replicas": [node]} for n in range(2)]
    moves = ("--reassignment-json-file", plan(partitions=partitions))
    executed = tool(REASSIGN, *moves, "--execute").splitlines()
    assert executed[0] == "Current partition replica assignment"
    assert json.loads(executed[2]) == json.loads(current)
    assert executed[-1] == f"Successfully started partition reassignments for {topic}-0,{topic}-1"

    verified = tool(REASSIGN, *moves, "--verify").splitlines()
    assert verified[:3] == [
        "Status of partition reassignment:",
        f"Reassignment of partition {topic}-0 is completed.",
        f"Reassignment of partition {topic}-1 is completed.",
    ]
    assert f"Clearing broker-level throttles on broker {node}" in verified
    assert f"Clearing topic-level throttles on topic {topic}" in verified

    assert tool(REASSIGN, "--list") == "No partition reassignments found.\n"
    assert tool(REASSIGN, *moves, "--cancel").startswith("None of the specified partition reassignments are active.\n")


def test_nothing_is_moved_that_is_not_there_nor_to_brokers_that_are_not(tool, topic, node, plan):
    for unknown, replica, failure in (
        (topic, node + 1, f"Unknown broker id {node + 1}"),
        ("nobody-made-this", node, "UnknownTopicOrPartitionException"),
    ):
        moves = plan(partitions=[{"topic": unknown, "partition": 0, "replicas": [replica]}])
        tool(REASSIGN, "--reassignment-json-file", moves, "--execute", fails_with=failure)
    assert f"Leader: {node}\tReplicas: {node}" in tool(TOPICS, "--describe", "--topic", topic)


# kafka-acls ------------------------------------------------------------------------------------------------


def test_access_rules_are_refused_without_an_authorizer(tool):
    rule = ("--allow-principal", "User:x", "--operation", "Read", "--topic", "t")
    for action in (("--list",), ("--add", *rule), ("--remove", "--force", *rule)):
        tool(ACLS, *action, fails_with="SecurityDisabledException")
