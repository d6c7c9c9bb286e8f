"""The process that abuses: storms of attacks, chosen by chance, from several threads.

A process of its own, so that what it does slows nobody down who measures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from random import Random

from tests.abuse.kinds import KINDS
from tests.abuse.target import AttackContext, AttackCounts, Target, UnexpectedAnswer
from tests.support.client import Closed

LOOK_PERIOD_S = 0.25

Report = dict[str, AttackCounts]
"""Counts by kind of abuse."""


@dataclass(frozen=True, slots=True)
class Order:
    """Length, strength and kinds of one storm."""

    seconds: float
    threads: int
    seed: str
    kinds: Sequence[str] = tuple(KINDS)
    least: int = 0
    """How many attacks each thread makes, however long they take."""


def serve(pipe: Pipe, target: Target) -> None:
    """Carry out the orders that come through `pipe`, and report of each, until None comes."""
    while (order := pipe.recv()) is not None:
        pipe.send(storm(target, order))


def storm(target: Target, order: Order) -> Report:
    """Attack for so long; afterwards nothing is left open here."""
    until_s = time.monotonic() + order.seconds
    grounds = {name: AttackContext(target, time.monotonic) for name in order.kinds}
    crew = [
        threading.Thread(
            target=attack, args=(grounds, Random(f"{order.seed}/{number}"), until_s, order.least)
        )
        for number in range(order.threads)
    ]
    for thread in crew:
        thread.start()
    while any(thread.is_alive() for thread in crew):
        crew[-1].join(LOOK_PERIOD_S)
        for context in grounds.values():
            context.look()
    for context in grounds.values():
        context.clear()
    return {name: context.tally for name, context in grounds.items()}


def attack(grounds: dict[str, AttackContext], chance: Random, until_s: float, least: int) -> None:
    """Attack again and again."""
    names, count = list(grounds), 0
    while time.monotonic() < until_s or count < least:
        name, count = chance.choice(names), count + 1
        attack_once(name, grounds[name], chance)


def attack_once(name: str, context: AttackContext, chance: Random) -> None:
    """Attack once; an unexpected end counts as a surprise."""
    context.tally.attacks += 1
    try:
        KINDS[name](context, chance)
    except UnexpectedAnswer as surprise:
        context.surprise(str(surprise))
    except (Closed, OSError, AssertionError) as error:
        context.surprise(f"{type(error).__name__}: {error}")
