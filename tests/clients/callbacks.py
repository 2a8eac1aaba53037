"""Calls of confluent-kafka, in programs that go on after fatal errors."""

import contextlib
import os
import threading

from confluent_kafka import KafkaException

HANGS = 45  # seconds after which a call whose limit is much shorter does not come back
HUNG = 75  # with this a program ends then


def served(call):
    """Makes a call that serves callbacks. The binding raises a fatal error of librdkafka in the middle of it, and
    a delivery report that is served after that is taken for the culprit."""
    try:
        return call()
    except SystemError as raised:
        cause = raised
        while cause and not isinstance(cause, KafkaException):
            cause = cause.__cause__
        raise cause or raised from None


@contextlib.contextmanager
def watched():
    """Ends the program if what it does hangs. send_offsets_to_transaction() of librdkafka (2.16) keeps no limit: if it
    waits for a coordinator that leaves the cluster and comes back, it waits for the one that has left, for good."""
    watch = threading.Timer(HANGS, os._exit, [HUNG])
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
