"""Command line of the simulator; refusals say what is right."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.simulation.mqtt.mqtt_cluster import MqttCluster
from tests.simulation.queues.queue_cluster import QueueCluster
from tests.simulation.run import NAMES
from tests.simulation.seeds import Job
from tests.simulation.toy_client import ToyClient

ABOUT = """
Runs whole clusters in one thread, under faults that are drawn from a seed, on simulated time, and
checks the invariants of tests/simulation/README.md as it goes.  Prints each seed that fails, with
the command that repeats it, and ends with 1 if there was one; 2 is for wrong options.
"""
NODES_MIN = 2


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options that fit together.  What does not ends the process with 2 and a sentence."""
    parser = parser_of_all()
    options = parser.parse_args(arguments)
    if options.seed is None:
        for name in ("replay", "shrink", "without", "trace"):
            if getattr(options, name):
                parser.error(f"--{name} is about one run: name it with --seed")
    options.trace = options.trace or 60
    for job in jobs_of_one(options) if options.without else ():
        numbers = [fault.number for fault in replace(job, without=()).run().plan]
        strange = [number for number in job.without if number not in numbers]
        if strange:
            there_are = f"it has {_joined(numbers)}" if numbers else "it has none"
            run = f"seed {job.seed} with {job.nodes} nodes"
            parser.error(f"--without: {run} has no fault {_joined(strange)}; {there_are}")
    return options


def jobs_of_one(options: argparse.Namespace) -> list[Job]:
    """The runs of `--seed`: one with each number of nodes."""
    return [
        Job(options.seed, nodes, options.seconds, tuple(options.without), options.subject)
        for nodes in options.nodes
    ]


def parser_of_all() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=ABOUT)
    add, positive = parser.add_argument, at_least(1)
    what = parser.add_mutually_exclusive_group().add_argument
    what("--seeds", type=positive, default=100, help="how many seeds to run (%(default)s)")
    what("--seed", type=int, help="run this one only, and show the end of it if it fails")
    add(
        "--queues",
        action="store_const",
        dest="subject",
        const=QueueCluster,
        default=ToyClient,
        help="whole queues: definitions, members, leaderships, edges and clients",
    )
    add(
        "--mqtt",
        action="store_const",
        dest="subject",
        const=MqttCluster,
        help="sessions of MQTT: nodes with their servers, and clients that move",
    )
    add("--first", type=int, default=1, help="the first of --seeds (%(default)s)")
    sizes_help = (
        f"sizes of the cluster, {NODES_MIN} to {len(NAMES)}, each with every seed (%(default)s)"
    )
    add("--nodes", type=sizes, default="3,5", help=sizes_help)
    add("--seconds", type=positive, default=60, help="simulated time with faults (%(default)s)")
    add(
        "--jobs",
        type=positive,
        default=os.cpu_count() or 1,
        help="how many runs at once (%(default)s)",
    )
    add("--failures", type=positive, default=1, help="stop after so many (%(default)s)")
    add("--replay", action="store_true", help="with --seed, which does it by itself")
    trace_help = "with --seed: how many turns to show of a run that fails, 60 if not given"
    add("--trace", type=positive, help=trace_help)
    without_help = "with --seed: numbers of faults to leave out, as 3,8"
    add("--without", type=numbers, default=[], metavar="NUMBERS", help=without_help)
    add("--shrink", action="store_true", help="with --seed: find out which faults it needs to fail")
    return parser


def at_least(least: int) -> Callable[[str], int]:
    """A number that is not smaller."""

    def number(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"a number from {least} on is wanted, not {text!r}")
        return int(text)

    return number


def sizes(text: str) -> list[int]:
    """Numbers of nodes, separated by commas."""
    words = text.split(",")
    if not all(word.isdecimal() and NODES_MIN <= int(word) <= len(NAMES) for word in words):
        raise argparse.ArgumentTypeError(
            f"numbers from {NODES_MIN} to {len(NAMES)} are wanted, as 3 or 3,5, not {text!r}"
        )
    return [int(word) for word in words]


def numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"numbers of faults are wanted, as 3,8, not {text!r}")
    return [int(word) for word in words]


def _joined(things: Sequence[object]) -> str:
    return ", ".join(map(str, things))
