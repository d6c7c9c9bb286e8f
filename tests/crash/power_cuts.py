"""Power cuts of a cluster: of one node, and of all at once.

Three processes are recorded while clients work; a cut is a moment of that, and the nodes that it
strikes.  Their disks are what was synced by then, with none, some or all of the rest; the others
have all that they wrote.  On these disks a cluster is started, whole nodes in this process, and
must have what the clients knew at that moment.

`python -m tests.crash.power_cuts --cuts 100 --seed 7` tries many.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random, randrange
from typing import NamedTuple

from fluffle.broker.cluster.data_directory import NotACopy, accept_moved
from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.broker.torture.history import Event, Looked, RunEnded, Strange
from fluffle.broker.torture.online_checker import OnlineChecker
from fluffle.broker.torture.recording_client import RecordingClient
from fluffle.broker.torture.system import NodeAddress
from fluffle.protocol.wire import to_table
from fluffle.storage.environment import DATA_FILE, STORE_FOLDER
from tests.crash.recorded_run import (
    PATIENT,
    QUEUES,
    THINGS,
    Kind,
    RecordedRun,
    Recording,
    happen,
    recorded,
)
from tests.support.cluster_nodes import (
    SECRET,
    ClusterNode,
    ClusterNodes,
    cluster_at,
    ports_of_nodes,
    until,
)
from tests.support.daemon import Daemon
from tests.support.ports import LOOPBACK
from tests.support.powercut import PowerCut, recording_environment

QUORUM = Kind(
    to_table({"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}), persistent_share=1.0
)
"""Such queues keep all messages; and none may die of being given back often."""
SYNC_MS = 20
"""Time of a sync, so that an early reply is noticed."""
RECORDED = "recorded"
IMAGE = "image"


class Cut(NamedTuple):
    """The nodes lose power after this event."""

    moment: int
    struck: Collection[str]

    def __str__(self) -> str:
        return f"power of {', '.join(self.struck)} cut after event {self.moment}"


def record_cluster(folder: Path, ports: Mapping[str, int], seed: int, steps: int) -> Recording:
    """Have a story happen at three nodes, end them with SIGKILL, and read what was recorded."""
    peers = ",".join(f"{node}={LOOPBACK}:{port}" for node, port in ports.items())
    daemons, traces = [], {node: folder / f"trace of {node}" for node in ports}
    for node, port in ports.items():
        listening = ("--cluster-listen", f"{LOOPBACK}:{port}")
        environment = {
            **recording_environment(folder, traces[node]),
            "RECORDER_SOCKETS": "1",
            "RECORDER_SYNC_MS": str(SYNC_MS),
            "FLUFFLE_CLUSTER_SECRET": SECRET.decode(),
        }
        options = ("--node", node, "--peers", peers, *listening)
        daemons.append(Daemon(folder / RECORDED / node, *options, environment=environment))
    with ThreadPoolExecutor(len(daemons)) as threads:
        list(threads.map(Daemon.start, daemons))
        addresses = [
            NodeAddress(node, LOOPBACK, daemon.port)
            for node, daemon in zip(ports, daemons, strict=True)
        ]
        story = RecordedRun(addresses, Random(seed), QUORUM)

        def kill() -> None:
            list(threads.map(Daemon.kill, daemons))

        asyncio.run(happen(story, steps, kill))
    return recorded(story, traces)


def cuts(recording: Recording, nodes: Collection[str], count: int, random: Random) -> list[Cut]:
    """So many, in order: after answers to clients, and around commits; of one node and of all by
    turns."""
    answers, writes = [], []
    for moment, (_node, event) in enumerate(recording.events):
        if event.kind == b"N" and event.offset in recording.ports:
            answers.append(moment)
        elif answers and event.kind in b"DSW":
            writes.append(moment)
    chosen = random.sample(answers, count - count // 4) + random.sample(writes, count // 4)
    return [
        Cut(moment, [*nodes] if number % 2 else [random.choice([*nodes])])
        for number, moment in enumerate(sorted(chosen))
    ]


def findings(
    folder: Path, recording: Recording, ports: Mapping[str, int], chosen: list[Cut], random: Random
) -> Iterator[tuple[Cut, list[str]]]:
    """Faults found after each cut."""
    disks = {node: PowerCut() for node in ports}
    at = 0
    for cut in chosen:
        for node, event in recording.events[at : cut.moment + 1]:
            disks[node].replay(event)
        at = cut.moment + 1
        for node, disk in disks.items():
            image = random.choice(disk.images(random)) if node in cut.struck else disk.whole()
            lay(folder / IMAGE / node, image)
        try:
            found = asyncio.run(found_by_a_start(cluster_at(folder / IMAGE, ports)))
        except Exception as error:
            error.add_note(str(cut))
            raise
        checker = OnlineChecker()
        checker.read(event for moment, event in recording.history if moment <= cut.moment)
        checker.read([RunEnded(), *found])
        yield cut, [*checker.finish().sentences()]


def lay(directory: Path, image: bytearray) -> None:
    """Make a data directory with this disk."""
    shutil.rmtree(directory, ignore_errors=True)
    data = directory / STORE_FOLDER / DATA_FILE
    data.parent.mkdir(parents=True)
    data.write_bytes(image)
    with suppress(NotACopy):  # it was cut before it was anybody's
        accept_moved(directory)


async def found_by_a_start(nodes: ClusterNodes) -> list[Event]:
    """Messages that clients find when all nodes start, each through another; and whether all are
    well."""
    found: list[Event] = []
    await nodes.start()
    try:
        await nodes.agree()
        for node in nodes:
            found += await looked_for(node)
        for queue in QUEUES:
            for node in nodes:
                await drain(node, queue, found)
        await until(lambda: all(is_well(node) for node in nodes))
    finally:
        await nodes.stop()
    return found


async def looked_for(node: ClusterNode) -> list[Event]:
    """Exchanges, queues and bindings that a node knows."""
    there = {row["name"] async for row in node.listed("queues.list", vhost="/")}
    async for row in node.listed("exchanges.list", vhost="/"):
        if row["name"] and not row["name"].startswith("amq."):
            there.add(f"exchange {row['name']}")
    async for row in node.listed("bindings.list", vhost="/"):
        if row["source_name"]:
            there.add(f"binding {row['source_name']} {row['destination_name']}")
    looked: list[Event] = [Looked(thing, found=thing in there) for thing in THINGS]
    return looked + [Strange(f"{thing} is there") for thing in there - {*THINGS}]


async def drain(node: ClusterNode, queue: str, found: list[Event]) -> None:
    """Take all that is in a queue, if there is one, and keep it in hands until the end."""
    client = await RecordingClient.connect(
        NodeAddress(node.name, *node.amqp), f"{queue} at {node.name}", found.append, PATIENT
    )
    with client:
        if await client.is_there(queue):
            while (tag := await client.unacked.get(queue)) is not None:
                client.unacked.ack(tag)
            await client.unacked.make_sure()


def is_well(node: ClusterNode) -> bool:
    """True if the node has a member of every group, which knows its leader and does not doubt its
    log."""
    groups = node.cluster.running.host.groups
    queues = {queue.definition.id for queue in node.node.catalogue.vhosts["/"].queues.values()}
    return queues | {METADATA_GROUP} == {*groups} and all(
        group.status.leader is not None and not group.status.is_quarantined
        for group in groups.values()
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.power_cuts", description=__doc__)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=randrange(1_000_000))
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    random, ports = Random(options.seed), ports_of_nodes(3)
    logging.getLogger("fluffle").addHandler(logging.NullHandler())  # nodes in this process
    print(f"seed {options.seed}", flush=True)
    is_good = True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fluffle-cuts-")))
        recording = record_cluster(folder, ports, options.seed, options.steps)
        print(f"{len(recording.events):,} events, {len(recording.history):,} of clients")
        chosen = cuts(recording, ports, options.cuts, random)
        for cut, wrong in findings(folder, recording, ports, chosen, random):
            is_good &= not wrong
            for sentence in wrong:
                print(f"{cut}: {sentence}", flush=True)
    print(f"{options.cuts} cuts: {'good' if is_good else 'bad'}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
