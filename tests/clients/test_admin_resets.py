"""kafka-consumer-groups --reset-offsets in every mode, as a dry run and for good, to files and from them; and
kafka-streams-application-reset, which does the same for an application."""

import csv
import time
from datetime import datetime, timezone

import pytest

from members import PROTOCOLS, Members
from tools import CONSUMER_GROUPS, DELETE_RECORDS, STREAMS_RESET, TOPICS, eventually, rows

MINUTE = 60_000  # ms
RECORDS = {0: 10, 1: 4, 2: 0}
ENDS = RECORDS
STARTS = dict.fromkeys(RECORDS, 0)
NOBODY = "nobody-made-this"


@pytest.fixture(scope="module")
def began():
    """When the first record of each partition was written, in ms; the others follow every ten minutes."""
    return int(time.time() * 1000) - 120 * MINUTE


@pytest.fixture(scope="module")
def topic(tool, fill, began):
    name = "admin-resets"
    tool(TOPICS, "--create", "--topic", name, "--partitions", len(RECORDS))
    fill(name, RECORDS, first_timestamp=began, step=10 * MINUTE)
    return name


@pytest.fixture
def positions(tool):
    """The offsets of a group as described: `{partition: offset}` of one topic, or `{(topic, partition): offset}`."""

    def run(group, topic=None):
        found = rows(tool(CONSUMER_GROUPS, "--describe", "--group", group))
        found = {(row["TOPIC"], int(row["PARTITION"])): row["CURRENT-OFFSET"] for row in found}
        found = {where: int(offset) for where, offset in found.items() if offset != "-"}
        return found if topic is None else {n: offset for (name, n), offset in found.items() if name == topic}

    return run


@pytest.fixture
def reset(tool):
    """Resets a group; returns the table of new offsets as a dict."""

    def run(group, *how):
        done = tool.run(CONSUMER_GROUPS, "--reset-offsets", "--group", group, *how)
        assert done.code == 0, done.printed
        assert "Error" not in done.printed
        found = [row for row in rows(done.out) if "NEW-OFFSET" in row]
        assert {row["GROUP"] for row in found} <= {group}
        return {int(row["PARTITION"]): int(row["NEW-OFFSET"]) for row in found}

    return run


@pytest.fixture
def group(new_name, reset, topic, bootstrap, request):
    """An empty group at offset 3 of all partitions that have one. By default nobody was ever in it."""
    name = new_name()
    protocol = getattr(request, "param", None)
    if protocol:
        leaver = Members(bootstrap, name, topic, protocol)
        leaver.leave()
    reset(name, "--topic", topic, "--to-offset", 3, "--execute")
    return name


AT_THREE = {0: 3, 1: 3, 2: 0}


# Every mode ------------------------------------------------------------------------------------------------


def iso(ms):
    return datetime.fromtimestamp(ms / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


MODES = {
    "to earliest": (lambda began: ["--to-earliest"], STARTS),
    "to latest": (lambda began: ["--to-latest"], ENDS),
    "to current": (lambda began: ["--to-current"], AT_THREE),
    "to offset": (lambda began: ["--to-offset", 2], {0: 2, 1: 2, 2: 0}),
    "to an offset beyond the end": (lambda began: ["--to-offset", 5], {0: 5, 1: 4, 2: 0}),
    "forward": (lambda began: ["--shift-by", 1], {0: 4, 1: 4, 2: 0}),
    "forward beyond the end": (lambda began: ["--shift-by", 5], {0: 8, 1: 4, 2: 0}),
    "back": (lambda began: ["--shift-by", -2], {0: 1, 1: 1, 2: 0}),
    "back beyond the start": (lambda began: ["--shift-by", -50], STARTS),
    "to a time": (lambda began: ["--to-datetime", iso(began + 25 * MINUTE)], {0: 3, 1: 3, 2: 0}),
    "to a time that some partitions do not reach": (
        lambda began: ["--to-datetime", iso(began + 35 * MINUTE)],
        {0: 4, 1: 4, 2: 0},
    ),
    "to a time before everything": (lambda began: ["--to-datetime", iso(began - MINUTE)], STARTS),
    "to a time to come": (lambda began: ["--to-datetime", iso(began + 500 * MINUTE)], ENDS),
    "by a duration": (lambda began: ["--by-duration", "PT75M"], {0: 5, 1: 4, 2: 0}),
    "by a long duration": (lambda began: ["--by-duration", "P2D"], STARTS),
    "by no duration": (lambda began: ["--by-duration", "PT0S"], ENDS),
}


@pytest.mark.parametrize("mode", MODES)
def test_offsets_are_reset(reset, positions, group, topic, began, mode):
    how, expected = MODES[mode]
    what = ("--topic", topic, *how(began))
    assert positions(group, topic) == AT_THREE
    assert reset(group, *what, "--dry-run") == expected
    assert positions(group, topic) == AT_THREE, "a dry run changes nothing"
    assert reset(group, *what) == expected, "as does one that does not say what it is"
    assert positions(group, topic) == AT_THREE
    assert reset(group, *what, "--execute") == expected
    assert positions(group, topic) == expected


@pytest.mark.parametrize("group", PROTOCOLS, indirect=True)
def test_groups_that_had_members_are_reset(reset, positions, group, topic):
    assert reset(group, "--topic", topic, "--to-latest", "--execute") == ENDS
    assert positions(group, topic) == ENDS


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_members_resume_where_the_group_was_reset_to(reset, group, topic, bootstrap, protocol):
    reset(group, "--topic", topic, "--to-offset", 2, "--execute")
    members = Members(bootstrap, group, topic, protocol)
    seen = members.read(10)
    members.leave()
    expected = [*((0, n) for n in range(2, 10)), (1, 2), (1, 3)]
    assert sorted((message.partition(), message.offset()) for message in seen) == expected


def test_only_the_partitions_that_are_named_are_reset(reset, positions, group, topic):
    assert reset(group, "--topic", f"{topic}:0,2", "--to-latest", "--execute") == {0: 10, 2: 0}
    assert positions(group, topic) == {0: 10, 1: 3, 2: 0}


def test_all_topics_are_those_that_the_group_has_offsets_of(reset, positions, group, topic, new_topic, fill):
    other = new_topic(2)
    fill(other, {0: 6, 1: 6})
    reset(group, "--topic", f"{other}:1", "--to-earliest", "--execute")
    reset(group, "--all-topics", "--to-latest", "--execute")
    assert positions(group) == {**{(topic, n): end for n, end in ENDS.items()}, (other, 1): 6}


def test_a_group_that_is_not_there_is_made_by_its_reset_only(reset, positions, tool, new_name, topic):
    group = new_name()
    assert reset(group, "--topic", topic, "--to-current", "--dry-run") == ENDS, "without an offset the end counts"
    assert group not in tool(CONSUMER_GROUPS, "--list").split()
    assert reset(group, "--topic", topic, "--to-earliest", "--execute") == STARTS
    assert group in tool(CONSUMER_GROUPS, "--list").split()
    assert positions(group, topic) == STARTS


def test_offsets_of_deleted_records_are_no_aim(reset, positions, new_topic, fill, tool, new_name, tmp_path):
    topic, group = new_topic(), new_name()
    fill(topic, {0: 10})
    path = tmp_path / "offsets.json"
    path.write_text(f'{{"version": 1, "partitions": [{{"topic": "{topic}", "partition": 0, "offset": 6}}]}}')
    tool(DELETE_RECORDS, "--offset-json-file", path)
    aims = {("--to-earliest",): 6, ("--to-offset", 2): 6, ("--shift-by", -1): 6, ("--to-offset", 8): 8}
    for how, expected in aims.items():
        assert reset(group, "--topic", topic, *how, "--execute") == {0: expected}
        assert positions(group, topic) == {0: expected}


# Files -----------------------------------------------------------------------------------------------------


def fields(exported):
    """The lines of a file of offsets, sorted."""
    return sorted(line for line in csv.reader(exported.splitlines()) if line)


def test_a_groups_offsets_are_exported_and_imported(tool, reset, positions, group, topic, tmp_path):
    export = ("--reset-offsets", "--group", group, "--topic", topic, "--to-current", "--export", "--dry-run")
    exported = tool(CONSUMER_GROUPS, *export)
    assert fields(exported) == [[topic, str(n), str(offset)] for n, offset in AT_THREE.items()]

    path = tmp_path / "offsets.csv"
    path.write_text(exported)
    reset(group, "--topic", topic, "--to-latest", "--execute")
    assert reset(group, "--from-file", path, "--dry-run") == AT_THREE
    assert positions(group, topic) == ENDS
    assert reset(group, "--from-file", path, "--execute") == AT_THREE
    assert positions(group, topic) == AT_THREE

    path.write_text(f"{topic},0,7\n{topic},1,1000\n")
    assert reset(group, "--from-file", path, "--execute") == {0: 7, 1: 4}
    assert positions(group, topic) == {0: 7, 1: 4, 2: 0}


def test_several_groups_are_exported_and_imported_together(tool, reset, positions, group, new_name, topic, tmp_path):
    other = new_name()
    reset(other, "--topic", f"{topic}:0", "--to-offset", 8, "--execute")
    both = ("--reset-offsets", "--group", group, "--group", other)
    exported = tool(CONSUMER_GROUPS, *both, "--all-topics", "--to-current", "--export", "--dry-run")
    expected = [[group, topic, str(n), str(offset)] for n, offset in AT_THREE.items()]
    assert fields(exported) == sorted([*expected, [other, topic, "0", "8"]])

    path = tmp_path / "offsets.csv"
    path.write_text(exported)
    for name in (group, other):
        reset(name, "--all-topics", "--to-latest", "--execute")
    imported = rows(tool(CONSUMER_GROUPS, *both, "--from-file", path, "--execute"))
    assert sorted((row["GROUP"], row["PARTITION"], row["NEW-OFFSET"]) for row in imported) == sorted(
        [*((group, str(n), str(offset)) for n, offset in AT_THREE.items()), (other, "0", "8")]
    )
    assert positions(group, topic) == AT_THREE
    assert positions(other, topic) == {0: 8}


# Refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_group_with_members_is_not_reset(tool, reset, positions, topic, bootstrap, new_name, protocol):
    group = new_name()
    members = Members(bootstrap, group, topic, protocol)
    members.commit(1)
    for mode in ("--dry-run", "--execute"):
        how = ("--topic", topic, "--to-latest", mode)
        printed = tool(CONSUMER_GROUPS, "--reset-offsets", "--group", group, *how)
        error = f"Error: Assignments can only be reset if the group '{group}' is inactive, but the current state is "
        assert error in printed
        assert "Empty" not in printed
        assert [row for row in rows(printed) if "NEW-OFFSET" in row] == []
    assert positions(group, topic) == dict.fromkeys(RECORDS, 1)
    members.leave()
    how = ("--topic", topic, "--to-latest", "--execute")
    eventually(lambda: "is inactive" in tool(CONSUMER_GROUPS, "--reset-offsets", "--group", group, *how), False)
    assert positions(group, topic) == ENDS


def test_offsets_of_unknown_topics_and_partitions_are_not_reset(tool, group, topic, positions):
    for what in (NOBODY, f"{topic}:9"):
        how = ("--group", group, "--topic", what, "--to-earliest", "--execute")
        done = tool.run(CONSUMER_GROUPS, "--reset-offsets", *how)
        assert "Error: Executing consumer group command failed" in done.out
        assert "UnknownTopicOrPartitionException" in done.err
    assert positions(group) == {(topic, n): offset for n, offset in AT_THREE.items()}


# kafka-streams-application-reset ---------------------------------------------------------------------------


def test_an_application_is_reset_with_its_topics(tool, reset, positions, topic, new_name):
    application = new_name()
    internal = [f"{application}-store-changelog", f"{application}-by-key-repartition"]
    for name in internal:
        tool(TOPICS, "--create", "--topic", name)
    reset(application, "--topic", topic, "--to-latest", "--execute")

    how = ("--application-id", application, "--input-topics", topic)
    told = [f"Topic: {topic} Partition: {n} Offset: 0" for n in RECORDS]
    printed = tool(STREAMS_RESET, *how, "--dry-run").splitlines()
    assert printed[0].startswith("----Dry run")
    assert [line for line in printed if line.startswith("Topic: ")] == told
    assert positions(application, topic) == ENDS
    assert set(internal) <= set(tool(TOPICS, "--list").splitlines())

    printed = tool(STREAMS_RESET, *how, "--to-offset", 1).splitlines()
    (deleted,) = [line for line in printed if line.startswith("Deleting inferred internal topics [")]
    assert all(name in deleted for name in internal)
    assert positions(application, topic) == {0: 1, 1: 1, 2: 0}
    assert not set(internal) & set(tool(TOPICS, "--list").splitlines())


def test_an_application_that_runs_is_not_reset(tool, topic, bootstrap, new_name, positions):
    application = new_name()
    members = Members(bootstrap, application, topic)
    members.commit(1)
    how = ("--application-id", application, "--input-topics", topic)
    tool(STREAMS_RESET, *how, fails_with=f"Consumer group '{application}' is still active")
    assert positions(application, topic) == dict.fromkeys(RECORDS, 1)
    # Told to, it throws the members out (LeaveGroup by an administrator).
    tool(STREAMS_RESET, *how, "--force")
    assert positions(application, topic) == STARTS
    members.leave()
