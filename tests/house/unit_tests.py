"""Unit tests of the product's modules, found by their names and by what they import."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

from tests.house.source_tree import ROOT, Module, importers, imports_of, modules_in

NOT_BY_NAME = ("__init__.py", "__main__.py")
"""Files that have no test of their name."""


class ModuleTests(NamedTuple):
    """Where a module is tested, from the nearest to the farthest; paths of files."""

    named: list[str]
    """Test files that begin with its name, in the folder of its folder's name."""
    importing: list[str]
    """Other test files that import it."""
    through: list[str]
    """The nearest modules that import it, or import what does, and have tests of these kinds."""

    @property
    def are_none(self) -> bool:
        return not (self.named or self.importing or self.through)


def test_files() -> list[Module]:
    """All files of tests, without their helpers."""
    return modules_in("tests", files="test_*.py")


def tests_of(found: Sequence[Module], tests: Sequence[Module]) -> dict[str, ModuleTests]:
    """The tests of each of these modules among those files."""
    names = {module.name for module in found}
    by_product = importers([*found])
    by_tests: dict[str, list[str]] = {name: [] for name in names}
    for test in tests:
        for name in sorted({*imports_of(test, names)} & names):
            by_tests[name].append(path_of(test))
    named = named_tests(found, [path_of(test) for test in tests])
    files = {module.name: path_of(module) for module in found}
    tested = {name for name in names if named[name] or by_tests[name]}
    return {
        name: ModuleTests(
            named[name],
            [path for path in by_tests[name] if path not in named[name]],
            sorted(files[other] for other in nearest_tested(name, by_product, tested)),
        )
        for name in sorted(names)
        if PurePath(files[name]).name not in NOT_BY_NAME
    }


def nearest_tested(name: str, by: Mapping[str, set[str]], tested: set[str]) -> set[str]:
    """The importers that have tests, or theirs, if none of these has."""
    seen, step = {name}, {*by[name]}
    while step and not step & tested:
        seen |= step
        step = {far for near in step for far in by[near]} - seen
    return step & tested


def named_tests(found: Sequence[Module], paths: Sequence[str]) -> dict[str, list[str]]:
    """Test files by module: their names begin with that of the module, and with no longer one."""
    files, packages = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for path in paths:
        files[path.rpartition("/")[0]].append(path)
    for module in found:
        package, _, name = module.name.rpartition(".")
        packages[package].append(name)
    named = {}
    for module in found:
        package, _, name = module.name.rpartition(".")
        longer = [other for other in packages[package] if other.startswith(f"{name}_")]
        named[module.name] = [
            path
            for path in files[f"tests/{path_of(module).rpartition('/')[0]}"]
            if begins_with(path, name) and not any(begins_with(path, other) for other in longer)
        ]
    return named


def begins_with(path: str, name: str) -> bool:
    return f"{PurePath(path).stem}_".startswith(f"test_{name}_")


def path_of(module: Module) -> str:
    """Its path in the repository."""
    path = module.path
    return (path.relative_to(ROOT) if path.is_absolute() else path).as_posix()


def described(name: str, tests: Mapping[str, ModuleTests]) -> list[str]:
    """Lines that say where a module is tested, given its dotted name or its path.

    What imports it counts if no test does.
    """
    known = tests[name.removesuffix(".py").replace("/", ".").removeprefix("fluffle.")]
    near = [*known.named, *(f"{path} imports it" for path in known.importing)]
    return near or [f"through {path}" for path in known.through]
