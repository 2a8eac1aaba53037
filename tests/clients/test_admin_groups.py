"""kafka-consumer-groups and kafka-groups: groups of both protocols, with members and without, and those that
only have offsets: listed, described, deleted. For their offsets see test_admin_resets."""

import re
from types import SimpleNamespace

import pytest

from members import PROTOCOLS, Members
from tools import CONSUMER_GROUPS, GROUPS, TOPICS, eventually, rows

PARTITIONS = 3
TYPES = {"classic": "Classic", "consumer": "Consumer"}


@pytest.fixture(scope="module")
def topic(tool, fill):
    name = "admin-groups"
    tool(TOPICS, "--create", "--topic", name, "--partitions", PARTITIONS)
    fill(name, dict.fromkeys(range(PARTITIONS), 10))
    return name


@pytest.fixture(scope="module")
def all_groups(shared_broker, tool, topic):
    """A group with two members and one without for each protocol, and one that has only offsets."""
    told = SimpleNamespace(active={}, empty={}, simple="offsets-only", topic=topic)
    for protocol in PROTOCOLS:
        group = f"active-{protocol}"
        strategy = {"partition_assignment_strategy": "range"} if protocol == "classic" else {}
        members = Members(shared_broker.bootstrap, group, topic, protocol, count=2, **strategy)
        members.commit(4)
        told.active[protocol] = SimpleNamespace(name=group, members=members)
        told.empty[protocol] = f"empty-{protocol}"
        leaver = Members(shared_broker.bootstrap, told.empty[protocol], topic, protocol)
        leaver.commit(7)
        leaver.leave()
    tool(CONSUMER_GROUPS, "--reset-offsets", "--group", told.simple, "--topic", topic, "--to-earliest", "--execute")
    for protocol in PROTOCOLS:
        eventually(lambda name=told.active[protocol].name: state_of(tool, name), "Stable")
        eventually(lambda name=told.empty[protocol]: state_of(tool, name), "Empty")
    yield told
    for active in told.active.values():
        active.members.leave()


def state_of(tool, group):
    (row,) = rows(tool(CONSUMER_GROUPS, "--describe", "--group", group, "--state"))
    return row["STATE"]


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture
def active(all_groups, protocol):
    return all_groups.active[protocol]


@pytest.fixture
def empty(all_groups, protocol):
    return all_groups.empty[protocol]


@pytest.fixture
def describe(tool):
    """Describes a group; if `without_members`, the tool has to say so."""

    def run(group, *arguments, without_members=False):
        done = tool.run(CONSUMER_GROUPS, "--describe", "--group", group, *arguments)
        assert done.code == 0, done.printed
        assert "Error" not in done.printed
        assert (f"Consumer group '{group}' has no active members." in done.err) == without_members
        return rows(done.out)

    return run


# Lists -----------------------------------------------------------------------------------------------------


def test_groups_are_listed_by_state_and_type(tool, all_groups):
    active = {all_groups.active[protocol].name: (TYPES[protocol], "Stable") for protocol in PROTOCOLS}
    empty = {all_groups.empty[protocol]: (TYPES[protocol], "Empty") for protocol in PROTOCOLS}
    everything = {**active, **empty, all_groups.simple: ("Classic", "Empty")}
    listed = tool(CONSUMER_GROUPS, "--list").split()
    assert set(everything) <= set(listed)
    assert len(listed) == len(set(listed))

    def list_groups(*arguments):
        found = rows(tool(CONSUMER_GROUPS, "--list", *arguments))
        return {row.pop("GROUP"): row for row in found if row["GROUP"] in everything}

    both = {name: {"TYPE": kind, "STATE": state} for name, (kind, state) in everything.items()}
    assert list_groups("--state", "--type") == both
    assert list_groups("--state") == {name: {"STATE": told["STATE"]} for name, told in both.items()}
    assert list_groups("--type") == {name: {"TYPE": told["TYPE"]} for name, told in both.items()}
    for state in ("Stable", "Empty", "Dead", "stable,EMPTY", "PreparingRebalance,CompletingRebalance"):
        wanted = state.lower().split(",")
        expected = {name: {"STATE": told["STATE"]} for name, told in both.items() if told["STATE"].lower() in wanted}
        assert list_groups("--state", state) == expected
    for kind in ("classic", "consumer", "Classic,Consumer"):
        wanted = kind.lower().split(",")
        expected = {name: {"TYPE": told["TYPE"]} for name, told in both.items() if told["TYPE"].lower() in wanted}
        assert list_groups("--type", kind) == expected
    assert list_groups("--type", "consumer", "--state", "empty") == {
        all_groups.empty["consumer"]: {"TYPE": "Consumer", "STATE": "Empty"}
    }


def test_kafka_groups_lists_them_by_type_and_protocol(tool, all_groups):
    everything = {all_groups.simple: ("Classic", "")}
    for protocol in PROTOCOLS:
        everything[all_groups.active[protocol].name] = (TYPES[protocol], "consumer")
        everything[all_groups.empty[protocol]] = (TYPES[protocol], "consumer")

    def list_groups(*arguments):
        found = rows(tool(GROUPS, "--list", *arguments))
        return {row["GROUP"]: (row["TYPE"], row["PROTOCOL"]) for row in found if row["GROUP"] in everything}

    assert list_groups() == list_groups("--consumer") == everything
    for kind in ("Classic", "Consumer"):
        expected = {name: told for name, told in everything.items() if told[0] == kind}
        assert list_groups("--group-type", kind.lower()) == expected
    with_protocol = {name: told for name, told in everything.items() if told[1]}
    assert list_groups("--protocol", "consumer") == with_protocol
    assert list_groups("--protocol", "connect") == list_groups("--share") == list_groups("--streams") == {}


# Descriptions ----------------------------------------------------------------------------------------------


def test_the_offsets_of_an_active_group_are_beside_their_owners(describe, all_groups, active):
    owner = {n: member for member, partitions in active.members.owners().items() for n in partitions}
    clients = {row["CONSUMER-ID"]: row["CLIENT-ID"] for row in describe(active.name, "--members")}
    assert set(clients.values()) == {f"{active.name}-0", f"{active.name}-1"}
    expected = [
        {
            "GROUP": active.name,
            "TOPIC": all_groups.topic,
            "PARTITION": str(n),
            "CURRENT-OFFSET": "4",
            "LOG-END-OFFSET": "10",
            "LAG": "6",
            "CONSUMER-ID": owner[n],
            "HOST": "/127.0.0.1",
            "CLIENT-ID": clients[owner[n]],
        }
        for n in range(PARTITIONS)
    ]
    assert describe(active.name) == describe(active.name, "--offsets") == expected
    # librdkafka commits no leader epoch for positions that it is given without one.
    assert describe(active.name, "--verbose") == [{**row, "LEADER-EPOCH": "-"} for row in expected]


def test_the_members_of_an_active_group_have_their_partitions(describe, active, protocol, all_groups):
    owners = active.members.owners()
    assert len(owners) == 2
    told = {row["CONSUMER-ID"]: row for row in describe(active.name, "--members")}
    assert {member: row["#PARTITIONS"] for member, row in told.items()} == {
        member: str(len(partitions)) for member, partitions in owners.items()
    }
    verbose = {row["CONSUMER-ID"]: row for row in describe(active.name, "--members", "--verbose")}
    epochs = set()
    for member, partitions in owners.items():
        assert told[member]["HOST"] == "/127.0.0.1"
        assignment = f"{all_groups.topic}:{','.join(map(str, partitions))}"
        row = verbose[member]
        assert {key: row[key] for key in told[member]} == told[member]
        assert row["CURRENT-ASSIGNMENT"] == assignment
        if protocol == "classic":
            assert row["CURRENT-EPOCH"] == row["TARGET-EPOCH"] == row["TARGET-ASSIGNMENT"] == "-"
        else:
            assert row["TARGET-ASSIGNMENT"] == assignment
            epochs |= {row["CURRENT-EPOCH"], row["TARGET-EPOCH"]}
    if protocol == "consumer":
        (epoch,) = epochs
        assert int(epoch) >= 2


def test_the_state_of_an_active_group(describe, active, protocol, bootstrap, admin):
    (node,) = admin.list_topics(timeout=30).brokers
    (told,) = describe(active.name, "--state")
    assert told == {
        "GROUP": active.name,
        "COORDINATOR": bootstrap,
        "NODE": f"({node})",
        "ASSIGNMENT-STRATEGY": "range" if protocol == "classic" else "uniform",
        "STATE": "Stable",
        "#MEMBERS": "2",
    }
    (verbose,) = describe(active.name, "--state", "--verbose")
    assert {key: verbose[key] for key in told} == told
    if protocol == "classic":
        assert verbose["GROUP-EPOCH"] == verbose["TARGET-ASSIGNMENT-EPOCH"] == "-"
    else:
        assert verbose["GROUP-EPOCH"] == verbose["TARGET-ASSIGNMENT-EPOCH"]
        assert int(verbose["GROUP-EPOCH"]) >= 2


def test_a_group_without_members_keeps_its_offsets(describe, empty, protocol, all_groups):
    expected = [
        {
            "GROUP": empty,
            "TOPIC": all_groups.topic,
            "PARTITION": str(n),
            "CURRENT-OFFSET": "7",
            "LOG-END-OFFSET": "10",
            "LAG": "3",
            "CONSUMER-ID": "-",
            "HOST": "-",
            "CLIENT-ID": "-",
        }
        for n in range(PARTITIONS)
    ]
    assert describe(empty, without_members=True) == expected
    assert describe(empty, "--members", without_members=True) == []
    assert describe(empty, "--members", "--verbose", without_members=True) == []
    (told,) = describe(empty, "--state", without_members=True)
    assert (told["STATE"], told["#MEMBERS"]) == ("Empty", "0")
    assert told["ASSIGNMENT-STRATEGY"] == ("-" if protocol == "classic" else "uniform")
    (verbose,) = describe(empty, "--state", "--verbose", without_members=True)
    assert (verbose["GROUP-EPOCH"] == "-") == (protocol == "classic")


def test_a_group_that_has_only_offsets(describe, all_groups):
    told = describe(all_groups.simple, without_members=True)
    assert [(row["PARTITION"], row["CURRENT-OFFSET"], row["LAG"]) for row in told] == [
        (str(n), "0", "10") for n in range(PARTITIONS)
    ]
    (told,) = describe(all_groups.simple, "--state", without_members=True)
    assert (told["STATE"], told["ASSIGNMENT-STRATEGY"], told["#MEMBERS"]) == ("Empty", "-", "0")


def test_all_groups_are_described_at_once(tool, all_groups):
    active = {all_groups.active[protocol].name for protocol in PROTOCOLS}
    mine = active | set(all_groups.empty.values()) | {all_groups.simple}

    def describe(*arguments):
        found = rows(tool(CONSUMER_GROUPS, "--describe", "--all-groups", *arguments))
        return [row for row in found if row["GROUP"] in mine]

    states = {row["GROUP"]: (row["STATE"], row["#MEMBERS"]) for row in describe("--state")}
    assert states == {name: ("Stable", "2") if name in active else ("Empty", "0") for name in mine}
    assert sorted(row["GROUP"] for row in describe("--members")) == sorted(list(active) * 2)
    assert sorted(row["GROUP"] for row in describe()) == sorted(list(mine) * PARTITIONS)


def test_a_static_member_is_described_with_its_name(describe, topic, bootstrap, new_name, protocol):
    group = new_name()
    members = Members(bootstrap, group, topic, protocol, group_instance_id="the-first")
    eventually(lambda: [row["GROUP-INSTANCE-ID"] for row in describe(group, "--members")], ["the-first"])
    assert describe(group, "--members")[0]["#PARTITIONS"] == str(PARTITIONS)
    members.leave()  # a static member only seems to: it may be back before its session ends
    assert [row["GROUP-INSTANCE-ID"] for row in describe(group, "--members")] == ["the-first"]


def test_an_unknown_group_is_not_described(tool):
    for what in ((), ("--members",), ("--state",)):
        done = tool.run(CONSUMER_GROUPS, "--describe", "--group", "nobody-made-this", *what)
        assert "GroupIdNotFoundException: Group nobody-made-this not found." in done.out
        assert rows(done.out.split("not found.")[1]) == []


# Deletion --------------------------------------------------------------------------------------------------


@pytest.fixture
def make_empty(bootstrap, topic, new_name):
    """Makes a group that has offsets of all partitions, and no members any more."""

    def make(protocol):
        group = new_name()
        leaver = Members(bootstrap, group, topic, protocol)
        leaver.commit(5)
        leaver.leave()
        return group

    return make


def test_an_empty_group_is_deleted_with_its_offsets(tool, make_empty, protocol):
    group = make_empty(protocol)
    eventually(lambda: state_of(tool, group), "Empty")
    printed = tool(CONSUMER_GROUPS, "--delete", "--group", group)
    assert printed == f"Deletion of requested consumer groups ('{group}') was successful.\n"
    assert group not in tool(CONSUMER_GROUPS, "--list").split()
    assert "GroupIdNotFoundException" in tool(CONSUMER_GROUPS, "--describe", "--group", group)


def test_groups_that_are_active_or_unknown_are_not_deleted(tool, make_empty, active, protocol):
    group = make_empty(protocol)
    eventually(lambda: state_of(tool, group), "Empty")
    names = (group, active.name, "nobody-made-this")
    printed = tool(CONSUMER_GROUPS, "--delete", *(part for name in names for part in ("--group", name)))
    error = "could not be deleted due to: org.apache.kafka.common.errors."
    assert "Error: Deletion of some consumer groups failed:" in printed
    assert f"* Group '{active.name}' {error}GroupNotEmptyException: The group is not empty." in printed
    assert f"* Group 'nobody-made-this' {error}GroupIdNotFoundException: The group id does not exist." in printed
    assert f"These consumer groups were deleted successfully: '{group}'" in printed
    assert state_of(tool, active.name) == "Stable"


@pytest.fixture
def delete_offsets(tool):
    """Deletes offsets of a group; returns what was printed above the table, and `{(topic, partition): status}`."""

    def run(group, *topics):
        wanted = [part for topic in topics for part in ("--topic", topic)]
        printed = tool(CONSUMER_GROUPS, "--delete-offsets", "--group", group, *wanted)
        said, table = re.split(r"(?=^TOPIC)", printed, flags=re.MULTILINE)
        found = [line.split(maxsplit=2) for line in table.splitlines()[1:]]
        return said.strip(), {(topic, n): status.strip() for topic, n, status in found}

    return run


def test_offsets_are_deleted_by_partition_and_topic(describe, delete_offsets, make_empty, topic, protocol):
    group = make_empty(protocol)
    assert delete_offsets(group, f"{topic}:1") == (
        f"Request succeeded for deleting offsets from group {group}.",
        {(topic, "1"): "Successful"},
    )
    assert [row["PARTITION"] for row in describe(group, without_members=True)] == ["0", "2"]
    said, outcomes = delete_offsets(group, f"{topic}:0,9")
    assert said == "Error: Encountered some partition-level error, see the follow-up details."
    assert outcomes[topic, "0"] == "Successful"
    assert "UnknownTopicOrPartitionException" in outcomes[topic, "9"]
    _, outcomes = delete_offsets(group, topic)
    assert outcomes == {(topic, str(n)): "Successful" for n in range(PARTITIONS)}
    assert describe(group, without_members=True) == []


def test_offsets_of_a_topic_that_is_read_are_not_deleted(delete_offsets, describe, active, topic, new_topic):
    said, outcomes = delete_offsets(active.name, topic)
    assert said == "Error: Encountered some partition-level error, see the follow-up details."
    assert set(outcomes) == {(topic, str(n)) for n in range(PARTITIONS)}
    assert all("GroupSubscribedToTopicException" in status for status in outcomes.values())
    assert [row["CURRENT-OFFSET"] for row in describe(active.name)] == ["4"] * PARTITIONS
    other = new_topic()
    assert delete_offsets(active.name, other)[1] == {(other, "0"): "Successful"}


def test_an_unknown_group_has_no_offsets_to_delete(delete_offsets, topic):
    said, outcomes = delete_offsets("nobody-made-this", f"{topic}:0")
    assert said == "Error: The group id does not exist."
    assert "GroupIdNotFoundException" in outcomes[topic, "0"]
