"""The command line: `python -m tests.compat.drawn --seeds 100 --first 1 --shrink`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.compat.drawn.runner import both
from tests.compat.drawn.seed_verdict import Finding, examine


def main() -> int:
    """Draw, compare, say what differs; 1 if something does whenever it is played."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat.drawn", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--shrink", action="store_true", help="leave out what is not needed for it")
    options = parser.parse_args()
    found, began_s = dict.fromkeys(Finding, 0), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fluffle-drawn-") as folder, both(Path(folder)) as pair:
        for seed in range(options.first, options.first + options.seeds):
            finding, said = examine(seed, pair, shrinks=options.shrink)
            found[finding] += 1
            if said:
                print(f"seed {seed}: {finding.value}\n{said}", flush=True)
    counts = ", ".join(f"{count} {finding.value}" for finding, count in found.items())
    print(f"{options.seeds} seeds in {time.monotonic() - began_s:.0f} s: {counts}")
    return 1 if found[Finding.DIFFERS] else 0


if __name__ == "__main__":
    sys.exit(main())
