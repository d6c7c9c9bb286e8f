"""The command line: `python -m tests.torture lone --seconds 60 --seed 1`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import randrange

from fluffle.broker.torture.faults import possible
from fluffle.broker.torture.online_checker import HistoryWriter
from fluffle.broker.torture.run import RunOptions
from tests.torture.systems import SYSTEMS, torture


async def run(options: argparse.Namespace, folder: Path) -> int:
    with ExitStack() as stack:
        file = options.history
        kept = stack.enter_context(file.open("w", encoding="utf-8")) if file else None
        async with SYSTEMS[options.system](folder) as system:
            history_writer = HistoryWriter(time.monotonic_ns, kept)
            kinds = tuple(options.faults.split(",")) if options.faults else possible(system)
            if options.queue_type:
                system = replace(system, queue_type=options.queue_type)
            order = RunOptions(options.seconds, options.seed, tuple(kinds), options.rate)
            return await torture(
                system, order, history_writer, lambda line: print(line, flush=True)
            )


SECONDS = "how long: at least 120, for about ten faults; all kinds take an hour"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--seconds", type=float, default=300.0, help=SECONDS)
    parser.add_argument("--seed", type=int, default=randrange(1_000_000))
    parser.add_argument("--rate", type=float, default=300.0, help="messages a second")
    parser.add_argument("--faults", metavar="KIND,…", help="only these")
    parser.add_argument("--queue-type", choices=("quorum", "classic", "both"))
    parser.add_argument("--history", type=Path, help="write down everything")
    parser.add_argument("--folder", type=Path, help="where nodes keep everything; it stays")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="fluffle-torture-"))
        )
        return asyncio.run(run(options, folder))


if __name__ == "__main__":
    sys.exit(main())
