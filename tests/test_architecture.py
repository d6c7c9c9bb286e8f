"""The house rules as tests: what CONTRIBUTING.md asks for and ruff and mypy do not see.

ruff has rules for parameters and nesting, too: they are previews, which change from release to
release, and its nesting does not count `match`.  An exception is an entry in `EXCEPTIONS` with its
reason; one that is no longer needed fails too.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.house.source_measures import SourceMeasures, measure
from tests.support.require import require, unavailable

ROOT = Path(__file__).parent.parent
PACKAGES = ("broker", "raft", "storage", "protocol")
LINES_PER_FILE_MAX = 800
LINES_PER_FUNCTION_MAX = 60
PUBLIC_METHODS_MAX = 12
POSITIONAL_PARAMETERS_MAX = 5
NESTING_MAX = 3

EXCEPTIONS: dict[str, str] = {
    "public-methods broker/cluster/queues/quorum_members.py:QuorumMembers": (
        "all of `GroupOwner`, and what is defined"
    ),
    "public-methods broker/queues/engine.py:Queue": "all that may be asked of a queue, once",
    "public-methods broker/protocols/mqtt/connection.py:Connection": (
        "what the core, its packets and its server ask of a connection"
    ),
    "public-methods broker/runtime/commits.py:Commits": "all that a node writes, and when",
    "public-methods raft/multiraft.py:MultiRaft": "all of consensus that a host calls",
    "public-methods broker/testing/cluster/process.py:ProcessLoop": "what nodes ask of asyncio",
}
"""`<rule> <folder/file.py>[:<function or class>]` -> why the rule does not serve there."""


def python_files(*folders: str) -> list[Path]:
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in found if "node_modules" not in path.parts)


SOURCES = python_files(*PACKAGES)
ALL_PYTHON = SOURCES + python_files("tests", "benchmarks")


@cache
def measured(path: Path) -> SourceMeasures:
    return measure((ROOT / path).read_text(encoding="utf-8"))


Sizes = Iterator[tuple[str, int]]
"""Name of what is too large if its size is above the limit; empty for the file itself."""


def file_length(source: SourceMeasures) -> Sizes:
    yield "", source.line_count


def function_lengths(source: SourceMeasures) -> Sizes:
    yield from ((each.name, each.line_count) for each in source.functions)


def nestings(source: SourceMeasures) -> Sizes:
    yield from ((each.name, each.nesting) for each in source.functions)


def positional_counts(source: SourceMeasures) -> Sizes:
    yield from ((each.name, each.positional_count) for each in source.functions)


def public_method_counts(source: SourceMeasures) -> Sizes:
    yield from ((each.name, each.public_method_count) for each in source.classes)


Limit = tuple[int, list[Path], Callable[[SourceMeasures], Sizes]]
LIMITS: dict[str, Limit] = {
    "lines-per-file": (LINES_PER_FILE_MAX, ALL_PYTHON, file_length),
    "lines-per-function": (LINES_PER_FUNCTION_MAX, ALL_PYTHON, function_lengths),
    "nesting": (NESTING_MAX, SOURCES, nestings),
    "positional-parameters": (POSITIONAL_PARAMETERS_MAX, SOURCES, positional_counts),
    "public-methods": (PUBLIC_METHODS_MAX, SOURCES, public_method_counts),
}


def too_large(rule: str, source: SourceMeasures) -> dict[str, int]:
    limit, _, sizes = LIMITS[rule]
    return {name: size for name, size in sizes(source) if size > limit}


@pytest.mark.parametrize("rule", LIMITS)
def test_code_stays_small(rule: str) -> None:
    over = {
        f"{rule} {path}:{name}".removesuffix(":"): size
        for path in LIMITS[rule][1]
        for name, size in too_large(rule, measured(path)).items()
    }
    excused = {key for key in EXCEPTIONS if key.startswith(f"{rule} ")}
    assert {key: size for key, size in over.items() if key not in excused} == {}
    assert excused - over.keys() == set(), "exceptions that are no longer needed"


def test_every_exception_names_a_rule_and_a_reason() -> None:
    assert {key for key, reason in EXCEPTIONS.items() if len(reason) < 20} == set()
    assert {key for key in EXCEPTIONS if key.split(" ")[0] not in LIMITS} == set()


def lines(count: int, line: str = "    pass") -> str:
    return "\n".join([line] * count)


DEEP = """
def deep(a):
    for b in a:
        match b:
            case 1:
                try:
                    pass
                except ValueError:
                    BLOCK
"""
INNER = """def inner():
                        if a: pass
                        elif b: pass"""
METHODS = "\n".join(f"    async def m{n}(self): ..." for n in range(PUBLIC_METHODS_MAX))
TOO_LARGE = {
    "lines-per-file": (lines(801, "pass"), {"": 801}),
    "lines-per-function": (f"class A:\n  async def long():\n{lines(60)}", {"long": 61}),
    "nesting": (DEEP.replace("BLOCK", "if a: pass"), {"deep": 4}),
    "positional-parameters": ("class A:\n def six(self, a, b, c, d, e, /, f): ...", {"six": 6}),
    "public-methods": (f"class A:\n{METHODS}\n    def one_more(self): ...", {"A": 13}),
}
"""A file just above each limit, and what is found there."""

NOT_TOO_LARGE = {
    "lines-per-file": lines(800, "pass"),
    "lines-per-function": f"class A:\n  async def long():\n{lines(59)}",
    "nesting": DEEP.replace("BLOCK", INNER),
    "positional-parameters": "class A:\n def six(self, a, b, c, d, e, *f, g, h): ...",
    "public-methods": f"class A:\n{METHODS}\n    def data_received(self): ...\n"
    "    def _own(self): ...\n    @property\n    def size(self): ...",
}


@pytest.mark.parametrize("rule", LIMITS)
def test_what_is_too_large_is_found(rule: str) -> None:
    text, found = TOO_LARGE[rule]
    assert too_large(rule, measure(text)) == found
    assert too_large(rule, measure(NOT_TOO_LARGE[rule])) == {}


RUFF_FINDS = {
    "D100": ("a.py", "x = 1\n"),
    "D104": ("a/__init__.py", "x = 1\n"),
    "FBT001": ("a.py", "def f(a: bool): ...\n"),
    "TID251 of a package": ("a.py", "import raft.log\n"),
    "TID251 of a function": ("a.py", "import gc\ngc.unfreeze()\n"),
    "TID252": ("a.py", "from . import b\n"),
    "PLR0912": ("a.py", "def f(a):\n" + "".join(f" if a == {n}: a()\n" for n in range(16))),
    "BLE001": ("a.py", "try:\n x()\nexcept Exception:\n x = 1\n"),
    "T201": ("a.py", "print()\n"),
    "N801": ("a.py", "class a_b: ...\n"),
    "ASYNC210": ("a.py", "import requests\nasync def f(): requests.get('a')\n"),
}
"""House rules that ruff has to see: a name of a file in broker/, and text that breaks the rule."""


@pytest.mark.parametrize("what", RUFF_FINDS)
def test_ruff_finds(what: str) -> None:
    name, text = RUFF_FINDS[what]
    ruff = [str(Path(sys.executable).with_name("ruff")), "check", "--no-cache"]
    result = subprocess.run(
        [*ruff, "--output-format=json", "--stdin-filename", str(ROOT / "broker" / name), "-"],
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert what.partition(" ")[0] in {found["code"] for found in json.loads(result.stdout)}


def test_layers_and_pure_floors() -> None:
    """The contracts are in pyproject.toml; a module without a place in them fails as well."""
    run = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    result = subprocess.run(
        [*run, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


OUTSIDE = {"tests", "benchmarks", "pytest", "hypothesis", "pika", "aio_pika"}


def test_the_product_does_not_import_its_tests() -> None:
    """But plugins for pytest are some of pytest."""
    found = {str(path): OUTSIDE & measured(path).imported for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {
        "broker/testing/celery.py": {"pytest"},
        "broker/testing/plugin.py": {"pytest"},
    }


def test_imports_are_found_wherever_they_stand() -> None:
    text = "def f():\n try:\n  import pika.spec, os\n except E:\n  from tests.support import x"
    assert OUTSIDE & measure(text).imported == {"pika", "tests"}


SLOW_WITHOUT_REASON = r"mark\.slow\b(?!\(\s*\"\w+ \w+)"


def test_what_is_slow_says_why() -> None:
    """Beside its mark: `@pytest.mark.slow("seven nodes start as processes")`."""
    found = {
        str(path): numbers
        for path in python_files("tests")
        if (numbers := line_numbers(SLOW_WITHOUT_REASON, (ROOT / path).read_text()))
    }
    assert found == {}


@pytest.mark.parametrize("mark", ["@pytest.mark.slo~w", 'marks=pytest.mark.slo~w("")'])
def test_a_mark_without_a_reason_is_found(mark: str) -> None:
    assert line_numbers(SLOW_WITHOUT_REASON, f"\n{mark.replace('~', '')}\n") == [2]


FORBIDDEN = {
    "a path of somebody's machine": r"(?<![\w./-])/(?:home|root|Users|mnt|work)/\w",
    "the registry behind a lock file": r'"resolved"\s*:',
    "work left for later": r"\b(?:[T]ODO|[F]IXME|[X]XX)\b",
}
"""The repository speaks of the project alone, and of what is there."""


def texts() -> list[Path]:
    """Every file that is, or is about to be, in the repository."""
    git = [require("git"), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        unavailable("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def line_numbers(pattern: str, text: str) -> list[int]:
    return [text.count("\n", 0, hit.start()) + 1 for hit in re.finditer(pattern, text)]


@cache
def forbidden_places() -> dict[str, list[str]]:
    """Files for each of `FORBIDDEN`, with the number of the line; each file is read once."""
    found: dict[str, list[str]] = {what: [] for what in FORBIDDEN}
    for path in texts():
        text = path.read_bytes().decode("utf-8", errors="replace")
        for what, pattern in FORBIDDEN.items():
            places = (f"{path.relative_to(ROOT)}:{n}" for n in line_numbers(pattern, text))
            found[what] += places
    return found


@pytest.mark.parametrize("what", FORBIDDEN)
def test_texts_do_not_hold(what: str) -> None:
    assert forbidden_places()[what] == []


SAMPLES = {
    "a path of somebody's machine": "read /ho~me/me/notes",
    "the registry behind a lock file": '{"resol~ved": "https://example.org"}',
    "work left for later": "# TO~DO: more",
}
"""Texts that hold what they may not, once the `~` is out."""


@pytest.mark.parametrize("what", FORBIDDEN)
def test_forbidden_texts_are_found(what: str) -> None:
    sample = SAMPLES[what].replace("~", "")
    assert line_numbers(FORBIDDEN[what], f"first\n{sample}\nthird {sample}") == [2, 3]
    assert line_numbers(FORBIDDEN[what], "at /homely, ~/home, unresolved: TODOS") == []
