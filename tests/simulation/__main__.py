"""The command line of the simulator: `python -m tests.simulation --help`."""

import argparse
import os
import sys
import time

from tests.simulation.clockwork import SECOND_US
from tests.simulation.run import Run
from tests.simulation.seeds import Failure, Job, Summary, attempt, outcomes, shrink
from tests.simulation.telling import line_of


def main() -> int:
    options = arguments().parse_args()
    nodes = [int(count) for count in options.nodes.split(",")]
    without = tuple(int(number) for number in options.without.split(",") if number)
    if options.mutants:
        from tests.simulation.mutation import report

        return report(options.mutants, options.jobs)
    if options.seed is not None:
        jobs = [Job(options.seed, count, options.seconds, without) for count in nodes]
        if options.shrink:
            return max(show_shrunk(job) for job in jobs)
        return max(replay(job, options.trace) for job in jobs)
    jobs = [
        Job(seed, count, options.seconds)
        for seed in range(options.first, options.first + options.seeds)
        for count in nodes
    ]
    return run_all(jobs, options.jobs, options.failures)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    add = parser.add_argument
    add("--seeds", type=int, default=100, help="how many seeds to run")
    add("--first", type=int, default=1, help="the first of them")
    add("--nodes", default="3,5", help="sizes of the cluster, each with every seed")
    add("--seconds", type=int, default=60, help="simulated time with faults")
    add("--jobs", type=int, default=os.cpu_count(), help="how many runs at once")
    add("--failures", type=int, default=1, help="stop after so many")
    add("--seed", type=int, help="run this one only, and show the end of it if it fails")
    add("--replay", action="store_true", help="as --seed does by itself")
    add("--trace", type=int, default=60, help="how many turns to show of a run that fails")
    add("--without", default="", help="numbers of faults to leave out")
    add("--shrink", action="store_true", help="find out which faults a failing seed needs")
    add("--mutants", nargs="?", const="all", help="see whether mutants are found: all, or names")
    return parser


def run_all(jobs: list[Job], processors: int, failures_max: int) -> int:
    summary, began = Summary(), time.perf_counter()
    for found in outcomes(jobs, processors):
        summary.add(found)
        if isinstance(found, Failure):
            show(found)
            if summary.failures >= failures_max:
                break
    print(summary.line(time.perf_counter() - began, processors))
    return 1 if summary.failures else 0


def show(failure: Failure) -> None:
    job = failure.job
    print(f"seed {job.seed} with {job.nodes} nodes: {failure.text}")
    print(
        f"  python -m tests.simulation --seed {job.seed} --nodes {job.nodes} --replay", flush=True
    )


def replay(job: Job, trace: int) -> int:
    found, run = attempt(job, trace=trace)
    describe(run)
    if not isinstance(found, Failure):
        print(found)
        return 0
    for when_us, node, output in run.trace or ():
        line = line_of(when_us, node, output)
        if line is not None:
            print(line)
    print(found.detail)
    show(found)
    return 1


def describe(run: Run) -> None:
    print(run.profile)
    for fault in run.plan:
        print(f"{fault.at_us / SECOND_US:10.6f} {fault}")


def show_shrunk(job: Job) -> int:
    found = attempt(job)[0]
    if not isinstance(found, Failure):
        print(f"seed {job.seed} with {job.nodes} nodes does not fail")
        return 0
    small = shrink(job, print)
    without = ",".join(map(str, small.without))
    print(f"  python -m tests.simulation --seed {job.seed} --nodes {job.nodes} --without {without}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
