"""Starts a node, has clients at work, kills it at a random moment, and again.

What decides is one seed; when exactly the kill strikes is the machine's, and no two runs see the
same history.  So a failure prints the seed, and what broke a rule.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeAlias

from fluffle.broker.amqp_client import ConnectionEnded
from fluffle.broker.cli.client import NodeUnreachable
from fluffle.broker.torture.checker import Breach, Findings
from fluffle.broker.torture.history import Event, RunEnded, Strange
from fluffle.broker.torture.online_checker import OnlineChecker
from fluffle.broker.torture.recording_client import RecordingClient, Role
from fluffle.broker.torture.system import NodeAddress
from fluffle.storage.environment import open_environment
from fluffle.storage.heads import Heads
from fluffle.storage.store import InstantWriter, Store
from tests.crash import roles
from tests.crash.admin_operator import Operator
from tests.crash.roles import CHURNS, DURABLE, LEAKY, Q_STEADY, ROLES, STEADY, TRANSIENT
from tests.support.daemon import Daemon
from tests.support.mqtt_load import MqttLoad
from tests.support.store import raise_it

Play: TypeAlias = Callable[[Random], Awaitable[None]]
"""Function that plays a client until the node is gone."""

RUN_S = (0.02, 0.8)
"""How long clients work before the kill."""

WARM_SHARE = 0.7
"""Share of the kills that wait until a message of MQTT has been acknowledged."""
DOOMED_STARTS = 0.2
ORDERLY_STOPS = 0.1
"""How many of the kills strike a start, and how many ends are no kill at all."""


@dataclass(slots=True)
class Outcome:
    """Result of a number of kills."""

    seed: int
    report: Findings
    kills: int = 0
    doomed: int = 0
    """Number of kills of processes that were not ready yet."""
    stops: int = 0
    """Ends in order, in between."""
    starts_s: list[float] = field(default_factory=list)
    """How long each took that became ready."""
    mqtt: str = ""
    """Numbers of the MQTT clients."""

    def __str__(self) -> str:
        report = self.report
        lines = [
            f"{self.kills} kills, {self.doomed} of them during the start; {self.stops} stops;"
            f" seed {self.seed}",
            ", ".join(f"{name} {number}" for name, number in report.numbers().items()),
            self.mqtt,
            f"longest restart {max(self.starts_s, default=0):.2f} s",
            *report.sentences(),
        ]
        return "\n".join(lines)


class Driver:
    """Node and the clients around it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._random = Random(seed)
        self._daemon = Daemon(folder, "--mqtt", "127.0.0.1:0")
        self._judge = OnlineChecker(transient=[TRANSIENT], steady=[STEADY, Q_STEADY], leaky=[LEAKY])
        self.outcome = Outcome(seed, self._judge.report)
        self._history: list[Event] = []
        self._run = 0
        self._mqtt = MqttLoad(self._judge.report)

    def kill_again_and_again(self, kills: int, say: Callable[[str], None]) -> Outcome:
        """Do so many kills, then empty all queues and look whether they stay empty."""
        outcome, report = self.outcome, self._judge.report
        try:
            while outcome.kills < kills:
                if self._random.random() < DOOMED_STARTS:
                    self._start_in_vain()
                else:
                    self._work()
                say(f"{outcome.kills} kills, {report.breaches.total()} breaches")
            # At last in order: what MQTT's clients acknowledged need not have survived a kill.
            for act, end in (empty_all, self._daemon.kill), (look_whether_empty, self._daemon.stop):
                self._start()
                asyncio.run(self._with_witness(act.__name__, act))
                asyncio.run(self._mqtt.finish(self._daemon.addresses["mqtt"]))
                delete_vhosts(self._daemon, self._history.append)
                self._end(end)
            self._judge.finish()
            outcome.mqtt = str(self._mqtt)
            for left in what_is_left(self._daemon.data_dir):
                report.add(Breach.UNEXPECTED, left)
        except (ConnectionEnded, NodeUnreachable, OSError, RuntimeError) as error:
            report.add(Breach.UNEXPECTED, f"the node does not serve: {error!r}")
        finally:
            with suppress(RuntimeError):  # it is not running, which is as it should be
                self._daemon.kill()
        if report.refused:
            report.add(Breach.UNEXPECTED, f"{report.refused} messages were refused")
        for complaint in report.complaints:
            report.add(Breach.UNEXPECTED, f"the node said: {complaint}")
        if "Traceback" in self._daemon.log:
            report.add(Breach.UNEXPECTED, f"the log says:\n{self._daemon.log[-5_000:]}")
        return outcome

    def _start(self) -> None:
        began = time.monotonic()
        self._daemon.start()
        self.outcome.starts_s.append(time.monotonic() - began)

    def _start_in_vain(self) -> None:
        """Kill within the 300 ms after exec, or anywhere in what a start takes."""
        usual_s = self.outcome.starts_s[-1] if self.outcome.starts_s else 0.5
        limit_s = self._random.choice((0.3, usual_s))
        self._daemon.start_and_kill(self._random.uniform(0.0, limit_s))
        self.outcome.kills += 1
        self.outcome.doomed += 1

    def _work(self) -> None:
        """Run the process with clients."""
        self._start()
        asyncio.run(self._with_witness("setup", roles.set_up))
        asyncio.run(self._crowd())
        self._end(lambda: None)

    async def _crowd(self) -> None:
        """Clients at work, until the node is ended and they have noticed."""
        is_over, gone = asyncio.Event(), asyncio.Event()
        plays: dict[str, Play] = {
            name: partial(self._act_as, name, role) for name, role in ROLES.items()
        }
        plays |= self._mqtt.plays(self._daemon.addresses["mqtt"])
        plays["operator"] = self._administer
        async with asyncio.TaskGroup() as clients:
            for name, play in plays.items():
                clients.create_task(self._play(name, play, is_over, gone))
            with suppress(TimeoutError):
                if self._random.random() < WARM_SHARE:
                    await first_of(gone, self._mqtt.is_busy)
                async with asyncio.timeout(self._random.uniform(*RUN_S)):
                    await gone.wait()
            is_over.set()
            if self._random.random() < ORDERLY_STOPS:
                self.outcome.stops += 1
                await asyncio.to_thread(self._daemon.stop)
            else:
                self.outcome.kills += 1
                self._daemon.kill()

    def _end(self, how: Callable[[], object]) -> None:
        """End the process, then read what its clients wrote down."""
        how()
        self._history.append(RunEnded())
        self._judge.read(self._history)
        self._history.clear()
        self._run += 1

    async def _play(
        self, name: str, play: Play, is_over: asyncio.Event, gone: asyncio.Event
    ) -> None:
        """A client's task: it works until the node goes, and must not end before."""
        try:
            await play(Random(f"{self.outcome.seed} {self._run} {name}"))
        except (ConnectionEnded, NodeUnreachable, OSError) as error:
            if not is_over.is_set():
                self._history.append(Strange(f"{name} ended before the node: {error!r}"))
        except Exception as error:  # noqa: BLE001  the others go on, and the history is read
            self._history.append(Strange(f"{name} failed: {error!r}"))
        gone.set()

    async def _act_as(self, name: str, role: Role, random: Random) -> None:
        await self._with_witness(name, lambda client: role(client, random))

    async def _administer(self, random: Random) -> None:
        daemon = self._daemon
        operator = Operator(daemon.data_dir, daemon.port, self._history.append, random)
        await asyncio.to_thread(operator.work)

    async def _with_witness(
        self, name: str, act: Callable[[RecordingClient], Awaitable[None]]
    ) -> None:
        to = NodeAddress("node", "127.0.0.1", self._daemon.port)
        with await RecordingClient.connect(
            to, f"{self._run}.{name}", self._history.append
        ) as client:
            await act(client)


async def first_of(*events: asyncio.Event) -> None:
    """Wait for one of these events."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def empty_all(client: RecordingClient) -> None:
    """Receive all there is, in order, and acknowledge it."""
    for queue in (*DURABLE, *CHURNS):
        if not await client.is_there(queue):
            continue
        left = await client.ready_count(queue)
        await client.unacked.consume(queue, prefetch=200)
        while left:
            tags = await client.unacked.await_held(min(left, 100))
            left -= len(tags)
            client.unacked.ack_up_to(tags[-1])
        await client.reopen_channel()
    await look_whether_empty(client)


def delete_vhosts(daemon: Daemon, note: Callable[[Event], None]) -> None:
    """Delete the operator's virtual hosts, with all that is in them."""
    Operator(daemon.data_dir, daemon.port, note, Random(0)).clear()


async def look_whether_empty(client: RecordingClient) -> None:
    """All queues are there and hold nothing."""
    for queue in (*DURABLE, *CHURNS):
        if await client.is_there(queue) and (count := await client.ready_count(queue)):
            client.connection.note(Strange(f"{queue} holds {count} messages and should hold none"))


def what_is_left(data_dir: Path) -> list[str]:
    """Logs on the disk of a node whose queues are empty: there should be none.

    But for the logs of Raft groups, where what is above the snapshot stays for a while.
    """
    environment = open_environment(data_dir)
    try:
        store = Store(environment, InstantWriter, on_fatal=raise_it)
        of_raft = {log for _, log in Heads(environment).owned()}
        logs = set(store.log.groups()) - of_raft
        left = {log: len(list(store.log.entries(log))) for log in logs}
        return [f"log {log} has {count} entries left" for log, count in left.items() if count]
    finally:
        environment.close()
