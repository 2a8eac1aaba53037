"""Packets that get lost: a network of its own for a run of the black box, with nothing in it but `lo`, and
rules of nftables by which the kernel drops packets there or answers them with a reset. Unlike a relay, which
takes what comes and acknowledges it, these leave TCP itself without an answer: connections of which only one
end knows, connections that are never made, and what is sent again and again, more and more slowly."""

import contextlib
import ctypes
import functools
import json
import os
import shutil
import socket
import subprocess

CLONE_NEWNET = 0x40000000
TABLE = "blackbox"
HOME = "127.0.0.1"
# Connections from here are left alone, so that who makes faults can end them.
APART = "127.0.0.2"
# The kernel counts the packets that meet each of these.
LOST, TO, FROM, RESET = COUNTERS = "packets_lost", "packets_one_way_to", "packets_one_way_from", "packets_reset"


@contextlib.contextmanager
def namespace():
    """Takes this thread, with all threads and processes that it starts meanwhile, into a network where there is
    nobody else. Afterwards the thread is where it was; those that it has started stay."""
    with open("/proc/thread-self/ns/net") as former:
        call("unshare", CLONE_NEWNET)
        try:
            command("ip", "link", "set", "lo", "up")
            yield
        finally:
            call("setns", former.fileno(), CLONE_NEWNET)


def call(name, *arguments):
    """A system call, which Python has names for only since 3.12."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def command(*words, given=""):
    done = subprocess.run(words, input=given, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Packets:
    """What is wrong with the packets of each of several servers, in the network of whoever calls this."""

    def __init__(self):
        self.is_used = False

    def set(self, name, listens, asks, lost=0.0, to=False, from_=False, reset=0.0):
        """Replaces, at one blow, what is wrong with all connections to the ports on which a server `listens` and
        to those that it alone `asks`: `lost`, the share of packets that do not arrive; `to` and `from_`, whether
        any arrives at it or comes from it; `reset`, the share that is answered with a reset."""
        there = f"tcp dport {ports(listens)}", f"tcp sport {ports(asks)}"
        back = f"tcp sport {ports(listens)}", f"tcp dport {ports(asks)}"
        rules = [f"{way} {then(TO, 'drop')}" for way in there if to]
        rules += [f"{way} {then(FROM, 'drop')}" for way in back if from_]
        rules += [f"{way} {some(lost)} {then(LOST, 'drop')}" for way in there + back if lost]
        # The reset has to pass, which comes from the kernel of whoever would have had the packet.
        resets = f"tcp flags ! rst {some(reset)} {then(RESET, 'reject with tcp reset')}"
        rules += [f"{way} {resets}" for way in there + back if reset]
        chain = f"ip {TABLE} {name}"
        lines = [
            f"add table ip {TABLE}",
            *(f"add counter ip {TABLE} {fault}" for fault in COUNTERS),
            f"add chain {chain} {{ type filter hook input priority filter; }}",
            f"flush chain {chain}",
            *(f"add rule {chain} iif lo ip saddr {HOME} ip daddr {HOME} {rule}" for rule in rules),
        ]
        command("nft", "-f", "-", given="\n".join(lines) + "\n")
        self.is_used = True

    def counts(self):
        """How many packets have met each fault."""
        if not self.is_used:
            return {}
        listed = json.loads(command("nft", "-j", "list", "counters", "table", "ip", TABLE))["nftables"]
        return {each["counter"]["name"]: each["counter"]["packets"] for each in listed if "counter" in each}


def ports(numbers):
    return f"{{ {', '.join(map(str, numbers))} }}"


def some(share):
    return f"numgen random mod 1000 <= {round(1000 * share) - 1}"


def then(counter, verdict):
    return f"counter name {counter} {verdict}"


@functools.cache
def obstacle():
    """Why packets can't get lost on this machine; None if they can. Tried, once: a kernel may lack anything."""
    missing = [name for name in ("ip", "nft") if not shutil.which(name)]
    if missing:
        return f"there is no {' and no '.join(missing)}"
    try:
        with namespace(), socket.create_server((HOME, 0)) as server:
            packets, address = Packets(), server.getsockname()
            tries = [({"reset": 1}, ConnectionRefusedError), ({"to": True}, TimeoutError), ({"lost": 1}, TimeoutError)]
            for faults, error in tries:
                packets.set("tried", address[1:], address[1:], **faults)
                with contextlib.suppress(error):
                    socket.create_connection(address, timeout=0.1).close()
                    return f"packets arrive in spite of {faults}"
    except OSError as error:
        return str(error)
    return None
