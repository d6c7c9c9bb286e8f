"""`python -m tests.fuzz --seconds 60 [TARGET …]`: atheris, one target after the other.

What it finds is left in build/fuzz/TARGET, and becomes a seed of the next run; a crash is a file
`crash-…` there.  atheris has wheels for some interpreters only; without one this says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import subprocess
import sys
from pathlib import Path

CORPUS = Path("build/fuzz")
INPUT_BYTES_MAX = 4096
INPUT_S_MAX = 10
"""Time for one input: longer is a bug, too."""
MEMORY_MB_MAX = 1024

WITHOUT = (
    "atheris is not installed: it has no wheel for this interpreter, or was not asked for.  "
    "Without it: HYPOTHESIS_PROFILE=deep python -m pytest tests/fuzz"
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="all, if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print(WITHOUT)
        return 1
    if asked.alone:
        fuzz(asked.targets[0], asked.seconds)
        return 0
    from tests.fuzz.targets import TARGETS

    failed = [name for name in asked.targets or TARGETS if not fuzzed(name, asked.seconds)]
    print(f"found something in: {', '.join(failed)}" if failed else "found nothing")
    return int(bool(failed))


def fuzzed(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own, which libFuzzer ends; whether nothing was found."""
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(seconds), "--alone"]
    return subprocess.run(command, check=False).returncode == 0


def fuzz(name: str, seconds: int) -> None:
    """Does not return."""
    import atheris

    with atheris.instrument_imports(include=["fluffle"]):
        from tests.fuzz.targets import TARGETS
    logging.disable()  # a connection that is closed for an error is no news here
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (folder / f"seed-{number}").write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "max_len": INPUT_BYTES_MAX,
        "timeout": INPUT_S_MAX,
        "rss_limit_mb": MEMORY_MB_MAX,
        "artifact_prefix": f"{folder}/",
        "verbosity": 0,
        "print_final_stats": 1,
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(folder)], TARGETS[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
