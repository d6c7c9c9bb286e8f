"""The command line of the simulator: `python -m tests.simulation --help`.

What was found goes to the standard output, what is under way to the standard error.
"""

import sys
import time
from collections.abc import Sequence

from tests.simulation.mqtt.mqtt_cluster import MqttCluster
from tests.simulation.options import jobs_of_one, parsed
from tests.simulation.output_text import line_of
from tests.simulation.queues.queue_cluster import QueueCluster
from tests.simulation.run import Account, Run
from tests.simulation.seeds import Failure, Job, Summary, attempt, outcomes, shrink
from tests.simulation.virtual_time import SECOND_US

RUNS_A_LINE = 50
SUBJECT_OPTIONS: dict[object, str] = {QueueCluster: " --queues", MqttCluster: " --mqtt"}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    if options.seed is not None:
        if options.shrink:
            return max(show_shrunk(job) for job in jobs_of_one(options))
        return max(replay(job, options.trace) for job in jobs_of_one(options))
    jobs = [
        Job(seed, count, options.seconds, subject=options.subject)
        for seed in range(options.first, options.first + options.seeds)
        for count in options.nodes
    ]
    return run_all(jobs, options.jobs, options.failures)


def run_all(jobs: list[Job], processors: int, failures_max: int) -> int:
    summary, began = Summary(), time.perf_counter()
    for found in outcomes(jobs, processors):
        summary.add(found)
        if isinstance(found, Failure):
            show(found)
            if summary.failures >= failures_max:
                break
        if summary.runs % RUNS_A_LINE == 0 and summary.runs < len(jobs):
            took_s = time.perf_counter() - began
            progress = f"{summary.runs} of {len(jobs)} runs, {summary.failures} failed"
            print(f"{progress}, after {took_s:.0f} s", file=sys.stderr, flush=True)
    print(summary.faults_line())
    print(summary.line(time.perf_counter() - began, processors))
    return 1 if summary.failures else 0


def show(failure: Failure) -> None:
    job = failure.job
    print(f"seed {job.seed} with {job.nodes} nodes: {failure.text}")
    print(f"  {command_of(job)} --replay", flush=True)


def command_of(job: Job) -> str:
    """Command that runs this job again."""
    command = f"python -m tests.simulation --seed {job.seed} --nodes {job.nodes}"
    command += SUBJECT_OPTIONS.get(job.subject, "")
    if job.seconds != Job.SECONDS:
        command += f" --seconds {job.seconds}"
    if job.without:
        command += f" --without {','.join(map(str, job.without))}"
    return command


def replay(job: Job, trace: int) -> int:
    found, run = attempt(job, trace=trace)
    describe(run)
    if not isinstance(found, Failure):
        print(passed(found))
        return 0
    for when_us, node, output in run.trace or ():
        line = line_of(when_us, node, output)
        if line is not None:
            print(line)
    print(found.detail)
    show(found)
    return 1


def passed(account: Account) -> str:
    """The digest is the same whenever this seed is run."""
    return (
        f"seed {account.seed} with {account.nodes} nodes passed: {account.events} events, "
        f"{account.commits} commits, {account.elections} elections, settled after "
        f"{account.settled_after_s:.1f} of {account.simulated_s:.1f} simulated s, "
        f"{account.cpu_s:.2f} s of processor time, digest {account.digest}"
    )


def describe(run: Run) -> None:
    print(run.profile)
    for fault in run.plan:
        print(f"{fault.at_us / SECOND_US:10.6f} {fault}")


def show_shrunk(job: Job) -> int:
    found = attempt(job)[0]
    if not isinstance(found, Failure):
        print(f"seed {job.seed} with {job.nodes} nodes does not fail")
        return 0
    print(f"  {command_of(shrink(job, print))}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
