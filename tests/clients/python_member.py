"""A member of a consumer group as a process of its own, which can be killed and stopped.

    python_member.py confluent|kafka-python BOOTSTRAP GROUP TOPIC [SETTINGS]

SETTINGS is JSON in the client's own words. It commits what it has read, batch by batch, before it reads
on, and tells all of it as JSON lines: the partitions that it is given (`owns`, with the generation),
the records (`read`: partition, offset, value), its commits (`committed`, `refused`). SIGTERM makes it
leave the group; its last words then are `closed`. kafkajs_member.js is its like."""

import json
import logging
import re
import signal
import sys

import confluent_kafka
import kafka
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

STRATEGIES = {it.name: it for it in (RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor)}

left = False


def tell(event, **about):
    print(json.dumps({"event": event, **about}), flush=True)


class Confluent:
    def __init__(self, bootstrap, group, topic, settings):
        self.generation, self.member, self.owned = -1, None, set()
        self.topic = topic
        log = logging.getLogger("confluent")
        log.setLevel(logging.DEBUG)
        log.propagate = False
        log.addFilter(self.hear)
        self.consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "debug": "cgrp",  # the only way to learn the generation
                **settings,
            },
            logger=log,
        )
        self.consumer.subscribe([topic], on_assign=self.on_assign, on_revoke=self.on_revoke)

    def hear(self, line):
        if found := re.search(
            r"GenerationId (-?\d+)|ConsumerGroupHeartbeat response .* epoch (-?\d+)", line.getMessage()
        ):
            self.generation = int(found[1] or found[2])
        return False

    def on_assign(self, consumer, gained):
        self.own(consumer, self.owned | {it.partition for it in gained})

    def on_revoke(self, consumer, gone):
        self.own(consumer, self.owned - {it.partition for it in gone})

    def own(self, consumer, partitions):
        self.owned = partitions
        self.member = consumer.memberid() or self.member  # while it leaves it has none any more
        tell("owns", generation=self.generation, member=self.member, partitions=sorted(partitions))

    def read(self):
        messages = self.consumer.consume(100, timeout=0.2)
        for message in messages:
            if message.error():
                raise confluent_kafka.KafkaException(message.error())
        return [(message.partition(), message.offset(), message.value().decode()) for message in messages]

    def commit(self, ends):
        offsets = [confluent_kafka.TopicPartition(self.topic, *end) for end in ends.items()]
        done = self.consumer.commit(offsets=offsets, asynchronous=False)
        for one in done:
            if one.error:
                raise confluent_kafka.KafkaException(one.error)

    def close(self):
        self.consumer.close()


class KafkaPython(kafka.ConsumerRebalanceListener):
    def __init__(self, bootstrap, group, topic, settings):
        self.topic = topic
        strategies = [STRATEGIES[name] for name in settings.pop("strategies", ["range"])]
        self.consumer = kafka.KafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy=strategies,
            **settings,
        )
        self.consumer.subscribe([topic], listener=self)

    @property
    def generation(self):
        return self.consumer.group_metadata().generation_id

    def on_partitions_revoked(self, _):
        # It still counts them among its own in here.
        tell("owns", generation=self.generation, member=self.consumer.group_metadata().member_id, partitions=[])

    def on_partitions_assigned(self, _):
        partitions = sorted(it.partition for it in self.consumer.assignment())
        tell("owns", generation=self.generation, member=self.consumer.group_metadata().member_id, partitions=partitions)

    def read(self):
        polled = self.consumer.poll(timeout_ms=200, max_records=100)
        return [(it.partition, it.offset, it.value.decode()) for records in polled.values() for it in records]

    def commit(self, ends):
        self.consumer.commit(
            {
                kafka.TopicPartition(self.topic, partition): kafka.OffsetAndMetadata(offset, "", -1)
                for partition, offset in ends.items()
            }
        )

    def close(self):
        self.consumer.close()


def leave(*_):
    global left
    left = True


def main(kind, bootstrap, group, topic, settings="{}"):
    signal.signal(signal.SIGTERM, leave)
    member = {"confluent": Confluent, "kafka-python": KafkaPython}[kind](bootstrap, group, topic, json.loads(settings))
    while not left:
        records = member.read()
        if not records:
            continue
        tell("read", records=records)
        ends = {partition: offset + 1 for partition, offset, _ in records}
        generation = member.generation
        try:
            member.commit(ends)
        except (confluent_kafka.KafkaException, kafka.errors.KafkaError) as error:
            tell("refused", generation=generation, error=repr(error))
        else:
            tell("committed", generation=generation, offsets=ends)
    member.close()
    tell("closed")


main(*sys.argv[1:])
