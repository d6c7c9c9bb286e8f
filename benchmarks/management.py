"""`python -m benchmarks.management`: the management API with many queues, beside RabbitMQ's.

How long it takes, and how long it keeps the loop of the node from everything else.  The node of
fluffle runs in this process, so that what each turn of its loop costs can be seen; the client is a
process of its own, one request after the other.
"""

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.daemon.daemon import tune_interpreter
from fluffle.broker.node import Node
from tests.compat.oracle import RabbitMQ, free_port

PATHS = (
    "queues?page=1&page_size=100",
    "queues?page=1&page_size=100&sort=messages&sort_reverse=true",
    "queues?page=1&page_size=100&sort=message_stats.publish",
    "queues?page=2&page_size=100&name=9&use_regex=true",
    "queues?page=1&page_size=100&columns=name,messages",
    "queues?columns=name,messages",
    "queues/%2F/q77",
    "queues",
)
BINDINGS = 60_000
"""Number of bindings of an import: 9 MB.  RabbitMQ 4.0.5 takes ten at most."""
HERE = ListenAddress("127.0.0.1", 0)

CLIENT = """
import base64, json, sys, time, urllib.request
base, reps, *paths = sys.argv[1:]
login = {"authorization": "Basic " + base64.b64encode(b"guest:guest").decode()}
for path in paths:
    taken = []
    for _ in range(int(reps)):
        began = time.perf_counter()
        request = urllib.request.Request(f"{base}/api/{path}", headers=login)
        with urllib.request.urlopen(request) as response:
            response.read()
        taken.append(time.perf_counter() - began)
    print(json.dumps(taken), flush=True)
"""


def bindings(count: int) -> dict[str, object]:
    """So many, of a few queues; 150 bytes each."""
    kept = {"durable": False, "auto_delete": False, "internal": False, "arguments": {}}
    exchange = {"vhost": "/", "name": "x", "type": "direct", **kept}
    found = [
        {
            "vhost": "/",
            "source": "x",
            "destination": f"q{number % 100}",
            "destination_type": "queue",
            "routing_key": f"region.{number}.orders.created",
            "arguments": {},
        }
        for number in range(count)
    ]
    return {"exchanges": [exchange], **definitions(100), "bindings": found}


def definitions(count: int) -> dict[str, object]:
    """So many queues that do not outlive the node."""
    queues = [
        {"vhost": "/", "name": f"q{number}", "durable": False, "auto_delete": False}
        for number in range(count)
    ]
    return {"queues": [{**queue, "arguments": {}} for queue in queues]}


class Turns:
    """CPU time of the longest turn of the loop: other processes do not count."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            self.longest_s = max(self.longest_s, time.thread_time() - began)

    def stop(self) -> None:
        self._task.cancel()


async def taken(base: str, reps: int, path: str) -> list[float]:
    """Seconds, of each request."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, base, str(reps), path, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await client.communicate()
    found: list[float] = json.loads(output)
    return found


def put_definitions(base: str) -> list[str]:
    """A command that imports definitions."""
    send = (
        "import base64, sys, urllib.request\n"
        "login = 'Basic ' + base64.b64encode(b'guest:guest').decode()\n"
        "headers = {'authorization': login, 'content-type': 'application/json'}\n"
        "urllib.request.urlopen(urllib.request.Request(sys.argv[1], method='POST',"
        " headers=headers, data=sys.stdin.buffer.read()))\n"
    )
    return [sys.executable, "-c", send, f"{base}/api/definitions"]


async def fill(base: str, content: dict[str, object]) -> float:
    """How long it took to import that, in seconds."""
    body = json.dumps(content).encode()
    client = await asyncio.create_subprocess_exec(
        *put_definitions(base), stdin=asyncio.subprocess.PIPE
    )
    began = time.perf_counter()
    await client.communicate(body)
    assert client.returncode == 0
    return time.perf_counter() - began


@asynccontextmanager
async def fluffle(folder: Path) -> AsyncIterator[str]:
    """Where its API is."""
    node = Node(Config(data_dir=folder, listen=HERE, management_listen=HERE))
    await node.start()
    try:
        host, port = node.addresses["management"]
        yield f"http://{host}:{port}"
    finally:
        await node.stop("it is measured")


@asynccontextmanager
async def rabbitmq(folder: Path) -> AsyncIterator[str]:
    port = free_port()
    config = f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}"
    broker = RabbitMQ(folder, config, "rabbitmq_management")
    await asyncio.to_thread(broker.__enter__)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await asyncio.to_thread(broker.__exit__, None, None, None)


BROKERS = {"fluffle": fluffle, "RabbitMQ": rabbitmq}


async def measure(name: str, count: int, reps: int) -> None:
    """Print a row for each path."""
    with tempfile.TemporaryDirectory() as folder:
        async with BROKERS[name](Path(folder)) as base:
            await fill(base, definitions(count))
            gc.freeze()  # as in the daemon, once it has started
            for path in PATHS:
                await taken(base, 1, path)
                turns = Turns()
                say(name, f"`{path}`", await taken(base, reps, path), turns)
            content = bindings(BINDINGS)
            turns = Turns()
            times = [await fill(base, content)]
            say(name, f"import of {BINDINGS} bindings", times, turns)


def say(name: str, what: str, times: Sequence[float], turns: Turns) -> None:
    turns.stop()
    held = f"{turns.longest_s * 1000:.1f}" if name == "fluffle" else ""
    figures = f"{median(times) * 1000:.1f} | {max(times) * 1000:.1f} | {held}"
    print(f"| {name} | {what} | {figures} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queues", type=int, default=10_000)
    parser.add_argument("--reps", type=int, default=10)
    parser.add_argument("--only", choices=BROKERS, action="append")
    asked = parser.parse_args()
    tune_interpreter()
    print("| broker | what | median, ms | longest, ms | longest turn, ms of CPU |")
    print("|---|---|---:|---:|---:|")
    for name in asked.only or BROKERS:
        asyncio.run(measure(name, asked.queues, asked.reps))


if __name__ == "__main__":
    main()
