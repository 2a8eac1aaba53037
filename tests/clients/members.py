"""Members of consumer groups, for suites that look at groups from outside."""

import time

from confluent_kafka import Consumer

PROTOCOLS = ("classic", "consumer")
TIMEOUT = 60  # seconds; a bound for what hangs, not an expectation


class Members:
    """Consumers of one topic in one group, each with a share of its partitions. They stay in it without
    being polled, for the library sends their heartbeats."""

    def __init__(self, bootstrap, group, topic, protocol="classic", count=1, **settings):
        settings = {key.replace("_", "."): value for key, value in settings.items()}
        settings |= {"bootstrap.servers": bootstrap, "group.id": group, "group.protocol": protocol}
        settings |= {"auto.offset.reset": "earliest", "enable.auto.commit": False}
        self.topic = topic
        self.messages = []
        self.consumers = [Consumer({**settings, "client.id": f"{group}-{n}"}) for n in range(count)]
        for consumer in self.consumers:
            consumer.subscribe([topic])
        self.settle()

    def settle(self):
        """Polls until every partition has one owner and every member a partition."""
        partitions = len(self.consumers[0].list_topics(self.topic, timeout=TIMEOUT).topics[self.topic].partitions)
        deadline = time.monotonic() + TIMEOUT
        while not self.is_settled(partitions):
            assert time.monotonic() < deadline, f"no assignment, but {self.owners()}"
            self.poll()

    def poll(self):
        for consumer in self.consumers:
            message = consumer.poll(0.05)
            if message:
                assert not message.error(), message.error()
                self.messages.append(message)

    def read(self, count):
        """All messages since the members joined, as soon as there are so many."""
        deadline = time.monotonic() + TIMEOUT
        while len(self.messages) < count:
            assert time.monotonic() < deadline, f"only {len(self.messages)} of {count} messages came"
            self.poll()
        return self.messages

    def is_settled(self, partitions):
        shares = [self.partitions(consumer) for consumer in self.consumers]
        return all(shares) and sorted(sum(shares, [])) == list(range(partitions))

    def partitions(self, consumer):
        return sorted(it.partition for it in consumer.assignment() if it.topic == self.topic)

    def owners(self):
        """`{member id: its partitions}`."""
        return {consumer.memberid(): self.partitions(consumer) for consumer in self.consumers}

    def commit(self, offset):
        """Every member commits this offset of each of its partitions."""
        for consumer in self.consumers:
            positions = consumer.assignment()
            for position in positions:
                position.offset = offset
            consumer.commit(offsets=positions, asynchronous=False)

    def leave(self):
        for consumer in self.consumers:
            consumer.close()
