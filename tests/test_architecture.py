"""The house rules as tests: what CONTRIBUTING.md asks for and ruff and mypy do not see.

An exception is an entry in `EXCEPTIONS` with its reason; one that is no longer needed fails too.
"""

import ast
import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.require import require, unavailable

ROOT = Path(__file__).parent.parent
PACKAGES = ("broker", "raft", "storage", "protocol")
LINES_PER_FILE_MAX = 800
LINES_PER_FUNCTION_MAX = 60
PUBLIC_METHODS_MAX = 12
POSITIONAL_PARAMETERS_MAX = 5
NESTING_MAX = 3

EXCEPTIONS: dict[str, str] = {
    "public-methods broker/queues/engine.py:Queue": "all that may be asked of a queue, once",
    "public-methods broker/testing/cluster/process.py:ProcessLoop": "what nodes ask of asyncio",
}
"""`<rule> <folder/file.py>[:<function or class>]` -> why the rule does not serve there."""


def python_files(*folders: str) -> list[Path]:
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in found if "node_modules" not in path.parts)


SOURCES = python_files(*PACKAGES)
ALL_PYTHON = SOURCES + python_files("tests", "benchmarks")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Loop = ast.For | ast.AsyncFor | ast.While
Block = Loop | ast.If | ast.With | ast.AsyncWith | ast.Try | ast.TryStar | ast.Match


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


@pytest.fixture(scope="module", autouse=True)
def parsed() -> Iterator[None]:
    """A million nodes are not kept for the rest of the run."""
    yield
    parse.cache_clear()


def children(node: ast.AST) -> Iterator[ast.AST]:
    """The statements in `node`, and what has some, as a handler has: expressions have none."""
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        yield from getattr(node, field, ())


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All below `node`, however deep."""
    for child in children(node):
        yield child
        yield from statements(child)


def functions(path: Path) -> Iterator[Function]:
    return (node for node in statements(parse(path)) if isinstance(node, Function))


def nesting(node: ast.AST) -> int:
    """How many blocks stand inside one another below `node`; `elif` is no deeper than its `if`."""
    deepest = 0
    for child in children(node):
        if isinstance(child, Function | ast.ClassDef):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, nesting(child) + (isinstance(child, Block) and not is_elif))
    return deepest


def positional_count(function: Function) -> int:
    names = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def public_methods(node: ast.ClassDef) -> list[str]:
    """What a user of the class may call: no properties, and no callbacks that asyncio calls."""
    methods = (item for item in node.body if isinstance(item, Function))
    named = [m.name for m in methods if not m.name.startswith("_") and not m.decorator_list]
    return [name for name in named if not hasattr(asyncio.Protocol, name)]


def file_lengths() -> Iterator[tuple[str, int]]:
    for path in ALL_PYTHON:
        yield str(path), len((ROOT / path).read_text(encoding="utf-8").splitlines())


def function_lengths() -> Iterator[tuple[str, int]]:
    for path in ALL_PYTHON:
        for function in functions(path):
            assert function.end_lineno is not None
            yield f"{path}:{function.name}", function.end_lineno - function.lineno + 1


def nestings() -> Iterator[tuple[str, int]]:
    for path in SOURCES:
        yield from ((f"{path}:{function.name}", nesting(function)) for function in functions(path))


def positional_counts() -> Iterator[tuple[str, int]]:
    for path in SOURCES:
        for function in functions(path):
            yield f"{path}:{function.name}", positional_count(function)


def public_method_counts() -> Iterator[tuple[str, int]]:
    for path in SOURCES:
        for node in statements(parse(path)):
            if isinstance(node, ast.ClassDef):
                yield f"{path}:{node.name}", len(public_methods(node))


LIMITS = {
    "lines-per-file": (LINES_PER_FILE_MAX, file_lengths),
    "lines-per-function": (LINES_PER_FUNCTION_MAX, function_lengths),
    "nesting": (NESTING_MAX, nestings),
    "positional-parameters": (POSITIONAL_PARAMETERS_MAX, positional_counts),
    "public-methods": (PUBLIC_METHODS_MAX, public_method_counts),
}


@pytest.mark.parametrize("rule", LIMITS)
def test_code_stays_small(rule: str) -> None:
    limit, measure = LIMITS[rule]
    over = {f"{rule} {where}": size for where, size in measure() if size > limit}
    excused = {key for key in EXCEPTIONS if key.startswith(f"{rule} ")}
    assert {key: size for key, size in over.items() if key not in excused} == {}
    assert excused - over.keys() == set(), "exceptions that are no longer needed"


def test_every_exception_names_a_rule_and_a_reason() -> None:
    assert {key for key, reason in EXCEPTIONS.items() if len(reason) < 20} == set()
    assert {key for key in EXCEPTIONS if key.split(" ")[0] not in LIMITS} == set()


def test_every_file_opens_with_a_docstring() -> None:
    modules = {str(path): parse(path) for path in ALL_PYTHON}
    silent = [path for path, tree in modules.items() if not ast.get_docstring(tree)]
    assert [path for path in silent if modules[path].body] == []


def test_layers_and_pure_floors() -> None:
    """The contracts are in pyproject.toml; a module without a place in them fails as well."""
    run = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    result = subprocess.run(
        [*run, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def import_roots(path: Path) -> Iterator[str]:
    for node in statements(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module.partition(".")[0]


def test_the_product_does_not_import_its_tests() -> None:
    """But plugins for pytest are some of pytest."""
    outside = {"tests", "benchmarks", "pytest", "hypothesis", "pika", "aio_pika"}
    found = {str(path): outside & set(import_roots(path)) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {
        "broker/testing/celery.py": {"pytest"},
        "broker/testing/cluster/plugin.py": {"pytest"},
        "broker/testing/plugin.py": {"pytest"},
        "broker/testing/timeline_plugin.py": {"pytest"},
        "broker/testing/unkind_plugin.py": {"pytest"},
    }


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


@pytest.mark.parametrize("what", FORBIDDEN)
def test_texts_do_not_hold(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = []
    for path in texts():
        lines = path.read_bytes().decode("utf-8", errors="replace").splitlines()
        hits = (number for number, line in enumerate(lines, 1) if pattern.search(line))
        found += [f"{path.relative_to(ROOT)}:{number}" for number in hits]
    assert found == []
