"""Kafka Streams: its own word count, with the changelog that a lost state is restored from, the repartition topic
that it empties behind itself, and both of its guarantees, however often it is killed."""

import random
import shutil
import struct
import threading
from collections import Counter

import pytest
from confluent_kafka.admin import ConfigResource, ResourceType

import short_lives
from cloud import until
from conftest import create_topic
from ecosystem import PATIENCE, Application
from short_lives import Log

WORD_COUNT = "org.apache.kafka.streams.examples.wordcount.WordCountDemo"
INPUT, OUTPUT = "streams-plaintext-input", "streams-wordcount-output"
PARTITIONS = 2
AT_LEAST_ONCE, EXACTLY_ONCE = "at_least_once", "exactly_once_v2"
WORDS = "the quick brown fox jumps over the lazy dog and runs away from all of them".split()


class WordCount:
    """The application, on a broker of its own, for its topics have but one name; its state; and what is put in,
    with how often each word was in it."""

    def __init__(self, broker, directory, guarantee):
        self.broker, self.directory, self.guarantee = broker, directory, guarantee
        self.log = Log(broker.bootstrap)
        self.random, self.counts, self.running = random.Random(7), Counter(), []
        create_topic(self.log.admin, INPUT, PARTITIONS)
        create_topic(self.log.admin, OUTPUT, 1, {"cleanup.policy": "compact"})
        store = "word-count-KSTREAM-AGGREGATE-STATE-STORE-0000000003"
        self.changelog, self.repartition = f"{store}-changelog", f"{store}-repartition"

    def start(self, **settings):
        settings = {
            "application.id": "word-count",
            "bootstrap.servers": self.broker.bootstrap,
            "processing.guarantee": self.guarantee,
            "commit.interval.ms": 100,
            "repartition.purge.interval.ms": 200,
            "consumer.session.timeout.ms": 6000,
            "consumer.heartbeat.interval.ms": 500,
            **settings,
        }
        self.running.append(Application(self.directory, WORD_COUNT, f"{len(self.running)}", **settings).start())
        return self.running[-1]

    def close(self):
        for each in self.running:
            each.kill()

    def write(self, sentences=50):
        for partition in range(PARTITIONS):
            some = [" ".join(self.random.choices(WORDS, k=5)) for _ in range(sentences)]
            self.counts.update(word for sentence in some for word in sentence.split())
            self.log.send(INPUT, some, partition)

    def counted(self):
        """What the application says at last."""
        said = {it.key().decode(): it.value() for it in self.log.messages(OUTPUT)}
        return {word: struct.unpack(">q", count)[0] for word, count in said.items()}

    def is_counted(self):
        for each in self.running[-1:]:
            each.check_alive()
        counted = self.counted()
        if self.guarantee == AT_LEAST_ONCE:
            return set(counted) == set(self.counts) and all(counted[it] >= self.counts[it] for it in counted)
        assert all(count <= self.counts[word] for word, count in counted.items()), "some were counted twice"
        return counted == self.counts

    def wait(self):
        until(
            self.is_counted,
            lambda: f"{self.counted()}, not {dict(self.counts)}\n{self.running[-1].log_tail()}",
            PATIENCE,
        )

    def config(self, topic, name):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return self.log.admin.describe_configs([resource])[resource].result(30)[name].value


@pytest.fixture(params=[AT_LEAST_ONCE, EXACTLY_ONCE])
def word_count(request, start_broker, tmp_path):
    broker = short_lives.start(start_broker)
    word_count = WordCount(broker, tmp_path, request.param)
    yield word_count
    word_count.close()
    broker.stop()


def test_words_are_counted(word_count):
    word_count.start()
    for _ in range(3):
        word_count.write()
        word_count.wait()
    assert word_count.counted() == word_count.counts, "nobody was killed"


def test_the_topics_between_are_as_streams_made_them(word_count):
    word_count.start()
    word_count.write()
    word_count.wait()
    log = word_count.log
    topics = log.admin.list_topics(timeout=30).topics
    for topic in (word_count.changelog, word_count.repartition):
        assert len(topics[topic].partitions) == PARTITIONS
    assert word_count.config(word_count.changelog, "cleanup.policy") == "compact"
    assert word_count.config(word_count.repartition, "cleanup.policy") == "delete"
    assert word_count.config(word_count.repartition, "retention.ms") == "-1"

    def purged():
        spans = [log.span(word_count.repartition, n) for n in range(PARTITIONS)]
        return all(start > 0 for start, end in spans if end > 0)

    until(purged, "what was counted is deleted from the repartition topic", PATIENCE)


def test_a_lost_state_is_restored_from_the_changelog(word_count):
    word_count.start()
    word_count.write()
    word_count.wait()
    for n in range(2):
        word_count.running[-1].kill()
        shutil.rmtree(word_count.running[-1].directory / "state")
        word_count.write()
        word_count.start()
        word_count.wait()


def test_a_state_is_restored_from_a_changelog_that_was_compacted(word_count):
    log, changelog = word_count.log, word_count.changelog
    application = word_count.start(**{"topic.min.cleanable.dirty.ratio": 0.001, "topic.segment.ms": 100})
    word_count.write()
    word_count.wait()

    def left():
        return len([it for it in log.messages(changelog, range(PARTITIONS)) if it.key() is not None])

    def is_compacted():
        application.check_alive()
        word_count.write(10)
        return left() < sum(log.end(changelog, n) for n in range(PARTITIONS)) / 2

    until(is_compacted, lambda: f"{left()} records are left", PATIENCE)
    word_count.wait()
    application.kill()
    shutil.rmtree(application.directory / "state")
    word_count.write()
    word_count.start()
    word_count.wait()


def test_nothing_is_lost_when_an_application_is_killed_again_and_again(word_count):
    enough = threading.Event()

    def keep_writing():
        while not enough.wait(0.05):
            word_count.write(5)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for n in range(3):
            application = word_count.start()
            until(lambda n=n: sum(word_count.counted().values()) > 200 * n, application.log_tail, PATIENCE)
            application.kill()
    finally:
        enough.set()
        writer.join()
    word_count.start()
    word_count.wait()


def test_another_instance_takes_over(word_count):
    first, second = word_count.start(), word_count.start()
    word_count.write()
    word_count.wait()
    first.kill()
    word_count.write()
    word_count.wait()
    second.check_alive()
