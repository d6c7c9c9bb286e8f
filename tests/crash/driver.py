"""Starts a node, has clients at work, kills it at a random moment, and again.

What decides is one seed; when exactly the kill strikes is the machine's, and no two runs see the
same history.  So a failure prints the seed, and what broke a rule.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from threading import Event as Flag
from threading import Thread
from typing import TypeAlias

from fluffle.broker.commands.client import Unreachable
from fluffle.storage.environment import open_environment
from fluffle.storage.store import Store
from tests.crash import roles
from tests.crash.administering import Operator
from tests.crash.checker import Checker, Report
from tests.crash.history import Event, RunEnded, Strange
from tests.crash.roles import CHURN, DURABLE, LEAKY, ROLES, STEADY, TRANSIENT, Role
from tests.crash.witness import Ended, Witness
from tests.support.daemon import Daemon
from tests.support.store import InstantWriter, raise_it

Play: TypeAlias = Callable[[Random], None]
"""What a thread does until the node is gone."""

RUN_S = (0.02, 0.8)
"""How long clients work before the kill."""

DOOMED_STARTS = 0.2
ORDERLY_STOPS = 0.1
"""How many of the kills strike a start, and how many ends are no kill at all."""


@dataclass(slots=True)
class Outcome:
    """What a number of kills has shown."""

    seed: int
    report: Report
    kills: int = 0
    doomed: int = 0
    """Of the kills: of processes that were not ready yet."""
    stops: int = 0
    """Ends in order, in between."""
    starts_s: list[float] = field(default_factory=list)
    """How long each took that became ready."""

    def __str__(self) -> str:
        report = self.report
        lines = [
            f"{self.kills} kills, {self.doomed} of them during the start; {self.stops} stops;"
            f" seed {self.seed}",
            f"attempted {report.attempted}, confirmed {report.confirmed},"
            f" received {report.received}, lost {len(report.lost)},"
            f" duplicated {report.duplicated}, unexpected {len(report.unexpected)},"
            f" recovered {report.recovered}",
            f"longest restart {max(self.starts_s, default=0):.2f} s",
            *report.lost[:20],
            *report.unexpected[:20],
        ]
        return "\n".join(lines)


class Driver:
    """One node and the clients around it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._random = Random(seed)
        self._daemon = Daemon(folder)
        self._checker = Checker(transient=[TRANSIENT], steady=[STEADY], leaky=[LEAKY])
        self.outcome = Outcome(seed, self._checker.report)
        self._history: list[Event] = []
        self._run = 0

    def kill_again_and_again(self, kills: int, say: Callable[[str], None]) -> Outcome:
        """Do so many kills, then empty all queues and look whether they stay empty."""
        outcome = self.outcome
        try:
            while outcome.kills < kills:
                if self._random.random() < DOOMED_STARTS:
                    self._start_in_vain()
                else:
                    self._work()
                say(f"{outcome.kills} kills, {len(outcome.report.unexpected)} unexpected")
            for act in (empty_all, look_whether_empty):
                self._start()
                self._with_witness(act.__name__, act)
                delete_vhosts(self._daemon, self._history.append)
                self._end(self._daemon.kill)
            self._checker.finish()
            outcome.report.unexpected += what_is_left(self._daemon.data_dir)
        except (Ended, Unreachable, OSError, RuntimeError) as error:
            outcome.report.unexpected.append(f"the node does not serve: {error!r}")
        finally:
            with suppress(RuntimeError):  # it is not running, which is as it should be
                self._daemon.kill()
        if "Traceback" in self._daemon.log:
            outcome.report.unexpected.append(f"the log says:\n{self._daemon.log[-5_000:]}")
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
        """One life of the process, with clients."""
        self._start()
        self._with_witness("setup", roles.set_up)
        is_over, gone = Flag(), Flag()
        plays: dict[str, Play] = {
            name: partial(self._act_as, name, role) for name, role in ROLES.items()
        }
        plays["operator"] = self._administer
        threads = [
            Thread(target=self._play, args=(name, play, is_over, gone))
            for name, play in plays.items()
        ]
        for thread in threads:
            thread.start()
        gone.wait(self._random.uniform(*RUN_S))
        is_over.set()
        if self._random.random() < ORDERLY_STOPS:
            self.outcome.stops += 1
            self._end(self._daemon.stop, threads)
        else:
            self.outcome.kills += 1
            self._end(self._daemon.kill, threads)

    def _end(self, how: Callable[[], object], threads: list[Thread] | None = None) -> None:
        """End the process and see the clients go; then read what they wrote down."""
        how()
        for thread in threads or []:
            thread.join()
        self._history.append(RunEnded())
        self._checker.read(self._history)
        self._history.clear()
        self._run += 1

    def _play(self, name: str, play: Play, is_over: Flag, gone: Flag) -> None:
        """A client's thread: it works until the node goes, and must not end before."""
        try:
            play(Random(f"{self.outcome.seed} {self._run} {name}"))
        except (Ended, Unreachable, OSError) as error:
            if not is_over.is_set():
                self._history.append(Strange(f"{name} ended before the node: {error!r}"))
        except Exception as error:  # noqa: BLE001  a thread has nobody to tell but the history
            self._history.append(Strange(f"{name} failed: {error!r}"))
        gone.set()

    def _act_as(self, name: str, role: Role, random: Random) -> None:
        self._with_witness(name, lambda witness: role(witness, random))

    def _administer(self, random: Random) -> None:
        daemon = self._daemon
        Operator(daemon.data_dir, daemon.port, self._history.append, random).work()

    def _with_witness(self, name: str, act: Callable[[Witness], None]) -> None:
        witness = Witness(self._daemon.port, f"{self._run}.{name}", self._history.append)
        try:
            act(witness)
        finally:
            witness.close()


def empty_all(witness: Witness) -> None:
    """Receive all there is, in order, and acknowledge it."""
    for queue in (*DURABLE, CHURN):
        if not witness.is_there(queue):
            continue
        left = witness.ready_count(queue)
        witness.consume(queue, prefetch=200)
        while left:
            tags = witness.await_held(min(left, 100))
            left -= len(tags)
            witness.ack_up_to(tags[-1])
        witness.reopen_channel()
    look_whether_empty(witness)


def delete_vhosts(daemon: Daemon, note: Callable[[Event], None]) -> None:
    """Those of the operator, with all that is in them."""
    Operator(daemon.data_dir, daemon.port, note, Random(0)).clear()


def look_whether_empty(witness: Witness) -> None:
    """All queues are there and hold nothing."""
    for queue in (*DURABLE, CHURN):
        if witness.is_there(queue) and (count := witness.ready_count(queue)):
            witness.note(Strange(f"{queue} holds {count} messages and should hold none"))


def what_is_left(data_dir: Path) -> list[str]:
    """What is on the disk of a node whose queues are empty: it should be nothing."""
    environment = open_environment(data_dir)
    try:
        store = Store(environment, InstantWriter, on_fatal=raise_it)
        left = {group: len(list(store.log.entries(group))) for group in store.log.groups()}
        return [f"group {group} has {count} entries left" for group, count in left.items() if count]
    finally:
        environment.close()
