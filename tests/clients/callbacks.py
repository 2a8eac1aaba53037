"""Callbacks of confluent-kafka, in programs that go on after fatal errors."""

from confluent_kafka import KafkaException


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
