"""A broker for tests of transactions: Odradek as it is, and Kafka with few partitions of its own to load and
a short time between its looks at transactions that take too long."""

import wire
from cloud import until
from conftest import AGAINST_KAFKA
from transaction_wire import READ_COMMITTED, Connection, add_offsets, describe, described, init, list_offsets, listed

PROPERTIES = """
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
transaction.abort.timed.out.transaction.cleanup.interval.ms=100
"""
FIND_COORDINATOR = 10
ENDED = ("Empty", "CompleteCommit", "CompleteAbort")  # states of transactions


def start_for_transactions(start_broker, *flags, properties=""):
    broker = start_broker(*flags, properties=PROPERTIES + properties)
    if AGAINST_KAFKA:
        wait_for_coordinators(broker.bootstrap)
    else:
        wire.set_config_of_all_brokers(broker.bootstrap, "group.initial.rebalance.delay.ms", 0)
    return broker


def wait_for_coordinators(bootstrap):
    """Kafka makes its topics of transactions and of groups when a coordinator is first looked for."""
    with Connection(bootstrap) as connection:

        def is_there():
            for kind in (b"\0", b"\1"):
                connection.send_raw(FIND_COORDINATOR, 1, wire.text("nobody") + kind)
                wire.receive_response(connection.socket)
            given = connection.ask(init(5, "nobody"))
            who = given.producer_id, given.producer_epoch
            return not given.error_code and not connection.ask(add_offsets(4, "nobody", *who, "nobody")).error_code

        until(is_there, "coordinators")


def wait_for_leaders(bootstrap, topic, partitions):
    """Kafka's brokers lead the partitions of a topic a moment after they know of it."""
    with Connection(bootstrap) as connection:

        def are_led():
            asked = (list_offsets(5, topic, -1, READ_COMMITTED, partition) for partition in range(partitions))
            return all(listed(connection.ask(each)) == (0, 0) for each in asked)

        until(are_led, "leaders")


def wait_for_end(bootstrap, name):
    """Kafka answers when it has resolved to end a transaction, and ends it thereafter."""
    if AGAINST_KAFKA:
        with Connection(bootstrap) as connection:

            def state():
                return described(connection.ask(describe(name)))[name].transaction_state

            until(lambda: state() in ENDED, state)
