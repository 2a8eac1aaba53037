"""kafka-configs of one entity: a topic, a broker, all brokers, a group."""

import re

import pytest

from tools import CONFIGS

# What a refused config is called: Kafka says "request" of brokers and "configuration" of the rest.
REFUSED = re.compile(r"Invalid(Request|Configuration)Exception: (.*)")


@pytest.fixture
def configs(tool):
    """`configs("--entity-type", "topics", "--entity-name", name)`."""

    class Configs:
        def __init__(self, *entity):
            self.entity = entity

        def lines(self, *arguments):
            return tool(CONFIGS, "--describe", *self.entity, *arguments).splitlines()

        def described(self, *arguments):
            """The heading, and the values and their synonyms by name."""
            heading, *lines = self.lines(*arguments)
            pattern = r"  (\S+)=(.*) sensitive=(?:true|false) synonyms={(.*)}"
            found = [re.fullmatch(pattern, line).groups() for line in lines]
            return heading, {name: (value, synonyms) for name, value, synonyms in found}

        def set(self, change):
            return tool(CONFIGS, "--alter", *self.entity, "--add-config", change)

        def delete(self, names):
            return tool(CONFIGS, "--alter", *self.entity, "--delete-config", names)

        def refusal(self, change):
            """The sentence with which a change is refused."""
            done = tool.run(CONFIGS, "--alter", *self.entity, "--add-config", change)
            assert done.code != 0, done.printed
            return REFUSED.search(done.err).group(2)

    return Configs
