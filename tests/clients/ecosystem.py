"""Kafka's programs that keep their state in topics, as processes: workers of Connect, and applications of
Streams. They can be killed and started again, as often as one likes."""

import json
import subprocess
import urllib.error
import urllib.request

from cloud import until
from servers import ECOSYSTEM_LIBS, free_port, java

PATIENCE = 120  # seconds; a bound for what hangs, not an expectation
RETRY = {404, 409, 500, 503}  # codes of Connect while it rebalances, or before it has heard of its own change


class Program:
    """A process that writes a log of its own. Subclasses say how it is started."""

    def __init__(self, directory, name):
        self.directory = directory / name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log = self.directory / "log"
        self.process = None

    def command(self):
        raise NotImplementedError

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.directory)
        return self

    def properties(self, settings):
        path = self.directory / "properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return path

    def check_alive(self):
        code = self.process.poll()
        assert code is None, f"ended with {code}:\n{self.log_tail()}"

    def log_tail(self, lines=40):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def kill(self):
        """kill -9."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self):
        """SIGTERM."""
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE)


class Worker(Program):
    """A worker of a Connect cluster called `cluster`, which keeps its state in the topics `CLUSTER-configs`,
    `CLUSTER-offsets` and `CLUSTER-status`."""

    def __init__(self, directory, bootstrap, cluster, name="worker", **settings):
        super().__init__(directory, name)
        self.port = free_port()
        text = "org.apache.kafka.connect.storage.StringConverter"
        self.settings = {
            "bootstrap.servers": bootstrap,
            "group.id": cluster,
            "listeners": f"http://127.0.0.1:{self.port}",
            "key.converter": text,
            "value.converter": text,
            "config.storage.topic": f"{cluster}-configs",
            "offset.storage.topic": f"{cluster}-offsets",
            "status.storage.topic": f"{cluster}-status",
            "config.storage.replication.factor": 1,
            "offset.storage.replication.factor": 1,
            "status.storage.replication.factor": 1,
            "offset.storage.partitions": 3,
            "status.storage.partitions": 2,
            "offset.flush.interval.ms": 200,
            "scheduled.rebalance.max.delay.ms": 0,
            "session.timeout.ms": 6000,
            "consumer.session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
            "plugin.discovery": "service_load",
            "connector.client.config.override.policy": "All",
            **{key.replace("_", "."): value for key, value in settings.items()},
        }

    def command(self):
        path = self.properties(self.settings)
        main = "org.apache.kafka.connect.cli.ConnectDistributed"
        return java(main, path, libraries=ECOSYSTEM_LIBS)

    def start(self):
        super().start()

        def answers():
            self.check_alive()
            return self.ask("GET", "/connectors", retry=()) is not None

        until(answers, self.log_tail, PATIENCE)
        return self

    def ask(self, method, path, body=None, retry=RETRY):
        """The answer; None if there is none to be had now."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            told = error.read().decode()
            assert error.code in retry or not retry, f"{method} {path}: {error.code} {told}"
            return None
        except OSError:  # it is not listening yet
            return None

    def tell(self, method, path, body=None):
        """Until it is taken."""

        def taken():
            self.check_alive()
            answer = self.ask(method, path, body)
            return None if answer is None else (answer,)

        return until(taken, self.log_tail, PATIENCE)[0]

    def connect(self, name, connector, **config):
        """Makes a connector, or gives one another config; waits until it and its tasks run."""
        config = {key.replace("_", "."): str(value) for key, value in config.items()}
        self.tell("PUT", f"/connectors/{name}/config", {"connector.class": connector, **config})
        self.wait(name, "RUNNING")

    def config(self, name):
        return self.tell("GET", f"/connectors/{name}/config")

    def states(self, name):
        """Of the connector, and of its tasks; where there are none yet, of the connector alone."""
        status = self.ask("GET", f"/connectors/{name}/status")
        if status is None:
            return None
        return [status["connector"]["state"], *(task["state"] for task in status["tasks"])]

    def wait(self, name, state):
        def is_so():
            self.check_alive()
            states = self.states(name)
            return states and len(states) > 1 and set(states) == {state}

        until(is_so, lambda: f"{self.states(name)}\n{self.log_tail()}", PATIENCE)

    def owners(self, *connectors):
        """The addresses of the workers that have their tasks."""
        found = set()
        for name in connectors:
            status = self.tell("GET", f"/connectors/{name}/status")
            found |= {task["worker_id"] for task in status["tasks"]}
        return found


class Application(Program):
    """One of the examples of Streams."""

    def __init__(self, directory, main, name="application", **settings):
        super().__init__(directory, name)
        self.main = main
        self.settings = {
            "state.dir": self.directory / "state",
            **{key.replace("_", "."): value for key, value in settings.items()},
        }

    def command(self):
        return java(self.main, self.properties(self.settings), libraries=ECOSYSTEM_LIBS)
