"""The checker of test_cluster_transactions finds what it is there for: each of these plants one error in
a history without any."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from callbacks import HUNG
from pipeline import CONFLUENT, JAVA, unexpected
from transaction_ledger import (
    ABORT,
    ABORTED,
    COMMIT,
    COMMITTED,
    OUTPUTS,
    PLAIN,
    SPREAD,
    Attempt,
    Ledger,
    Offsets,
    Record,
)

PARTITIONS, SIZE, ATTEMPTS = 3, 4, 6
INPUTS = range(SIZE * ATTEMPTS)


def history():
    """What two writers in turn make of the inputs."""
    records, ends = [], {}
    for number in INPUTS:
        turn = number // SIZE
        attempt = Attempt(f"writer-{turn % 2}", turn)
        for topic in OUTPUTS:
            partition = number % PARTITIONS if topic == PLAIN else number // PARTITIONS % PARTITIONS
            ends[topic, partition] = offset = ends.get((topic, partition), -1) + 1
            records.append(Record(topic, partition, offset, number, attempt, number % SIZE, SIZE, COMMIT))
    return records


def told_of(records):
    return {record.attempt: COMMITTED for record in records}


def findings(records, told):
    ledger = Ledger(told)
    for record in records:
        ledger.add(record)
    return list(ledger.finish(INPUTS, PARTITIONS))


def the_rules(records, told):
    return {finding.split(":")[0] for finding in findings(records, told)}


def renumbered(records):
    """With the offsets that they would have had from the start."""
    ends, changed = {}, []
    for record in records:
        key = record.topic, record.partition
        ends[key] = ends.get(key, -1) + 1
        changed.append(dataclasses.replace(record, offset=ends[key]))
    return changed


def test_a_history_without_errors_has_no_findings():
    assert findings(history(), told_of(history())) == []


def test_a_value_is_read_as_it_is_written():
    record = Record.parse(SPREAD, 2, 70, "1042 java-0.1 17 3 20 commit")
    assert record == Record(SPREAD, 2, 70, 1042, Attempt("java-0.1", 17), 3, 20, COMMIT)


@pytest.mark.parametrize("topic", OUTPUTS)
def test_a_transaction_of_which_one_record_is_missing_is_torn(topic):
    records = history()
    records.remove(next(it for it in records if it.topic == topic and it.attempt.number == 3))
    assert the_rules(renumbered(records), {}) == {"R14", "R15"}


def test_a_transaction_of_which_one_topic_is_missing_is_torn():
    records = [it for it in history() if it.attempt.number != 3 or it.topic == PLAIN]
    assert the_rules(renumbered(records), {}) == {"R14", "R15"}


def test_a_torn_attempt_is_found_even_if_all_its_inputs_are_there_by_another():
    records = history()
    zombie = dataclasses.replace(records[0], attempt=Attempt("zombie", 1), number=INPUTS[-1] + 1)
    assert any(it.startswith("R14: zombie#1 (unknown) is torn") for it in findings([*records, zombie], {}))


def test_a_transaction_that_was_acknowledged_must_be_there():
    told = told_of(history()) | {Attempt("writer-9", 1): COMMITTED}
    assert the_rules(history(), told) == {"R14"}


def test_a_record_that_was_to_be_aborted_is_an_aborted_read():
    records = history()
    records[5] = dataclasses.replace(records[5], fate=ABORT)
    assert the_rules(records, told_of(records)) == {"G1a"}


def test_a_record_of_a_transaction_that_was_told_to_be_aborted_is_an_aborted_read():
    told = told_of(history()) | {Attempt("writer-1", 3): ABORTED}
    assert the_rules(history(), told) == {"G1a"}


def test_an_aborted_read_is_found_as_it_comes():
    ledger = Ledger({})
    ledger.add(dataclasses.replace(history()[0], fate=ABORT))
    assert ledger.problems


def test_a_doubled_transaction_is_not_exactly_once():
    records = history()
    again = [
        dataclasses.replace(it, attempt=Attempt("writer-1", 100), offset=it.offset + 100)
        for it in records
        if it.attempt.number == ATTEMPTS - 1
    ]
    assert the_rules([*records, *again], {}) == {"R15", "order"}


def test_an_input_that_was_skipped_is_not_exactly_once():
    records = [it for it in history() if it.attempt.number != 2]
    assert the_rules(renumbered(records), {}) == {"R15"}


def test_records_of_one_writer_that_change_places_are_found():
    records = history()
    one, other = [n for n, it in enumerate(records) if it.topic == SPREAD and it.partition == 0][:2]
    assert records[one].attempt == records[other].attempt
    records[one], records[other] = records[other], records[one]
    assert the_rules(renumbered(records), told_of(records)) == {"order"}


def test_records_of_two_writers_that_change_places_are_found_where_the_input_has_an_order():
    records = history()
    here = [n for n, it in enumerate(records) if it.topic == PLAIN and it.partition == 0]
    one, other = next(it for it in zip(here, here[1:]) if records[it[0]].attempt != records[it[1]].attempt)
    records[one], records[other] = records[other], records[one]
    assert the_rules(renumbered(records), told_of(records)) == {"order"}


def test_offsets_that_do_not_rise_are_found():
    records = history()
    records[-1] = dataclasses.replace(records[-1], offset=0)
    assert the_rules(records, told_of(records)) == {"offsets"}


def test_committed_offsets_may_not_fall():
    offsets = Offsets()
    offsets.told({0: 5, 1: 7})
    before = offsets.known()
    offsets.told({0: 6})
    offsets.answered("one", {0: 5, 1: 7}, before)  # the question may have been faster than the last commit
    assert not offsets.problems
    offsets.answered("one", {0: 5, 1: 7}, offsets.known())
    assert len(offsets.problems) == 1
    offsets.answered("one", {0: 6}, offsets.known())
    assert len(offsets.problems) == 2


# What clients say ------------------------------------------------------------------------------------------


def trouble(when, name, attempt=17, **more):
    about = {"when": when, "attempt": attempt, "name": name, "errors": [f"of a broker: {name}"]}
    return {"event": "trouble", **about, **more}


def test_a_transaction_that_never_began_may_be_refused_when_it_is_aborted_and_for_that_be_given_up():
    refused = "INVALID_TXN_STATE"
    aborted, given_up = trouble("abort", refused), trouble("transaction", refused)
    committed = {"event": "committed", "attempt": 16, "offsets": {"4": 175}}
    assert list(unexpected(CONFLUENT, [committed, aborted])) == []
    assert list(unexpected(CONFLUENT, [committed, aborted, given_up])) == []
    # Not without the abort, nor for that of another attempt, nor to a client that knows better.
    assert list(unexpected(CONFLUENT, [committed, given_up])) == [1]
    assert list(unexpected(CONFLUENT, [aborted, trouble("transaction", refused, attempt=18)])) == [1]
    assert list(unexpected(CONFLUENT, [aborted, trouble("transaction", "UNKNOWN_PRODUCER_ID")])) == [1]
    assert list(unexpected(JAVA, [aborted, given_up])) == [0, 1]
    assert list(unexpected(CONFLUENT, [trouble("commit", "_TIMED_OUT"), trouble("poll", "NOT_CONTROLLER")])) == [1]


def test_a_commit_that_comes_after_the_timeout_may_be_refused_and_one_before_may_not():
    refused = trouble("transaction", "InvalidTxnStateException", outlived=True)
    assert list(unexpected(JAVA, [refused, refused | {"when": "abort"}])) == []
    assert list(unexpected(JAVA, [refused | {"outlived": False}])) == [0]
    assert list(unexpected(CONFLUENT, [refused])) == [0]


def test_a_program_whose_library_hangs_ends_and_says_so():
    program = "import callbacks, time; callbacks.HANGS = 0.1\nwith callbacks.watched(): time.sleep({})\ntime.sleep(1)"
    for seconds, code in ((0, 0), (60, HUNG)):
        ended = subprocess.run([sys.executable, "-c", program.format(seconds)], cwd=Path(__file__).parent, timeout=30)
        assert ended.returncode == code
