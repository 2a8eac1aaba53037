"""Relays of TCP connections that can be cut, held in one direction, slowed down, sliced and reset: the way
from clients to a broker, and from one broker to another."""

import asyncio
import random
import threading

CHUNK = 1 << 16


class Relays:
    """The thread in which all relays run."""

    def __init__(self, seed=0):
        self.dice = random.Random(seed)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="relays", daemon=True)
        self.thread.start()

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def relay(self, port):
        """A relay before this port of 127.0.0.1."""
        relay = Relay(port, self.dice)
        self.run(relay.listen())
        return relay

    def set(self, relay, **faults):
        """Replaces what is wrong with a relay: `cut`, `hold_to`, `hold_from` (the server), `delay_ms` of each
        piece, `slice` (bytes of a piece at most), `reset` (the share of pieces that end their connection)."""
        self.loop.call_soon_threadsafe(relay.set, faults)

    def close(self):
        self.run(self.end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def end(self):
        connections = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


class Relay:
    def __init__(self, target, dice):
        self.target, self.dice = target, dice
        self.faults = {}
        self.changed = asyncio.Event()
        self.connections = set()
        self.port = None

    async def listen(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    def set(self, faults):
        self.faults = faults
        self.changed.set()
        self.changed = asyncio.Event()
        if faults.get("cut"):
            for writer in list(self.connections):
                writer.transport.abort()

    async def serve(self, reader, writer):
        if self.faults.get("cut"):
            writer.transport.abort()
            return
        pair = [writer]
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.target)
            pair.append(upstream)
            self.connections.update(pair)
            if self.faults.get("cut"):
                return  # since it was let in
            await asyncio.gather(
                self.pump(reader, upstream, "hold_to"),
                self.pump(upstream_reader, writer, "hold_from"),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in pair:
                end.transport.abort()
                self.connections.discard(end)

    async def pump(self, reader, writer, hold):
        while data := await reader.read(CHUNK):
            piece = self.faults.get("slice") or len(data)
            for at in range(0, len(data), piece):
                while self.faults.get(hold):
                    await self.changed.wait()
                if delay := self.faults.get("delay_ms"):
                    await asyncio.sleep(self.dice.uniform(0, 2 * delay) / 1000)
                if self.dice.random() < self.faults.get("reset", 0):
                    raise ConnectionResetError
                writer.write(data[at : at + piece])
                await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
