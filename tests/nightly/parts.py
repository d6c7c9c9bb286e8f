"""The parts of a nightly run: a command each, whose seeds follow from one number."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from tests.suite.seeds import SEED, SUITE

SEED_MAX = 1 << 31
NOT_BY_PYTEST = "mutant"
"""Tests that a part of their own selects, as the simulator has its seeds in two."""
APART = "interop or compat"
"""Tests with parts of their own."""


@dataclass(frozen=True, slots=True)
class Order:
    """How much of it."""

    seed: int
    """All others follow from it."""
    seeds: int = 2_000
    """The seeds of the simulator of groups, with 3 and with 5 nodes."""
    queue_seeds: int = 200
    """The seeds of whole queues: each takes ten times as long; of MQTT there are a fourth."""
    torture_s: int = 300
    abuse_s: int = 180
    processes: int = field(default_factory=lambda: os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Part:
    """A command that is a part of the night."""

    name: str
    about: str
    words: tuple[str, ...]
    """The words of the command, behind the interpreter."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The line that repeats it in a shell."""
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        return " ".join([*settings, "python", *(quoted(word) for word in self.words)])


def quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


def parts_of(order: Order) -> list[Part]:
    """All of a night, the quick ones first."""
    night = {SUITE: "night", SEED: str(order.seed), "HYPOTHESIS_PROFILE": "night"}
    jobs = str(order.processes)

    def tests(name: str, about: str, marks: str, *words: str) -> Part:
        shared = ("-n", jobs, "--dist", "loadfile", "--max-worker-restart", "0")
        pytest = ("-m", "pytest", "-q", f"--hypothesis-seed={order.seed}", "-m", marks)
        return Part(name, about, (*pytest, *shared, *words), night)

    drawn, torture, abuse = first_seeds(order, "drawn", "torture", "abuse")
    return [
        tests(
            "suite",
            "all tests, with new seeds of histories and state machines",
            f"not {NOT_BY_PYTEST} and not ({APART})",
        ),
        tests("clients", "clients of others", "interop"),
        tests(
            "rabbitmq",
            "what RabbitMQ says, asked again",
            f"not {NOT_BY_PYTEST}",
            "tests/compat",
            "--live",
        ),
        module("drawn", "drawn scenarios", f"tests.compat.drawn --seeds 100 --first {drawn}"),
        module("mutants", "every mutant", f"tests.mutants --jobs {jobs}"),
        *simulations(order, jobs),
        module(
            "torture",
            "three nodes under every fault",
            f"tests.torture fluffle --seconds {order.torture_s} --seed {torture}",
        ),
        module(
            "abuse",
            "clients that misbehave",
            f"tests.abuse --seconds {order.abuse_s} --seed {abuse}",
        ),
        coverage(jobs),
    ]


def module(name: str, about: str, words: str) -> Part:
    return Part(name, about, ("-m", *words.split()))


def first_seeds(order: Order, *names: str) -> list[int]:
    """The numbers from which the parts of these names count their seeds."""
    return [Random(f"{order.seed} {name}").randrange(SEED_MAX) for name in names]


def simulations(order: Order, jobs: str) -> list[Part]:
    """The parts of the simulator."""
    groups, queues, mqtt, formation = first_seeds(order, "groups", "queues", "mqtt", "formation")
    simulation = f"tests.simulation --nodes 3,5 --failures 20 --jobs {jobs}"
    return [
        module("groups", "the simulator", f"{simulation} --seeds {order.seeds} --first {groups}"),
        module(
            "queues",
            "the simulator with queues",
            f"{simulation} --queues --seeds {order.queue_seeds} --first {queues}",
        ),
        module(
            "mqtt",
            "the simulator with MQTT",
            f"{simulation} --mqtt --seeds {max(1, order.queue_seeds // 4)} --first {mqtt}",
        ),
        module(
            "formation",
            "clusters that are founded and grow",
            f"tests.simulation.formation {formation} {formation + order.seeds // 4}",
        ),
    ]


def coverage(jobs: str) -> Part:
    """The fast tests once more: what is measured is slower, and measures nothing else."""
    marks = f"not slow and not {NOT_BY_PYTEST} and not ({APART})"
    words = f"-m coverage run -m pytest -q -p no:cacheprovider -n {jobs} --dist loadfile -m"
    return Part("coverage", "lines and branches of the fast tests", (*words.split(), marks))


INTERPRETER = sys.executable
