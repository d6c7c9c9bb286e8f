"""Looks for mutants with the tests of their families, and says what became of them."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from itertools import groupby

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES
from tests.mutants.tags import ROOT
from tests.mutants.verdict import Verdict
from tests.simulation.mutation import SUBJECTS, hunt
from tests.suite.seeds import SUITE

Wanted = tuple[str, Mutant]
"""A family, and one that its tests must find."""

NO_MATTER = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""Options of pytest: this process has imported hypothesis, which none of these tests rewrites."""


def hunts(wanted: Sequence[Wanted], processors: int) -> Iterator[Verdict]:
    """Verdicts as they come: of each mutant alone where runs are simulated, else of a family."""
    simulated = [pair for pair in wanted if pair[0] in SUBJECTS]
    tested = [pair for pair in wanted if pair[0] not in SUBJECTS]
    with ProcessPoolExecutor(processors) as pool:
        parts: list[Future[list[Verdict]]] = []
        for family, pairs in groupby(tested, key=lambda pair: pair[0]):
            parts.append(pool.submit(by_tests, family, [mutant for _, mutant in pairs]))
        parts += [pool.submit(by_seeds, *pair) for pair in simulated]
        for part in as_completed(parts):
            yield from part.result()


def by_seeds(family: str, mutant: Mutant) -> list[Verdict]:
    return [hunt(family, mutant)]


def by_tests(family: str, mutants: Sequence[Mutant]) -> list[Verdict]:
    """Run the tests of a family that are about these."""
    taken = Taken(family, {mutant.number for mutant in mutants})
    with contextlib.redirect_stdout(io.StringIO()) as said, pytest.MonkeyPatch.context() as patch:
        patch.delenv(SUITE, raising=False)
        file = str(ROOT / FAMILIES[family].tests)
        pytest.main(["-q", "-p", "no:cacheprovider", *NO_MATTER, file], plugins=[taken])
    if missing := taken.numbers - {verdict.mutant.number for verdict in taken.verdicts}:
        raise LookupError(f"{family}: nothing looked for {sorted(missing)}\n{said.getvalue()}")
    return taken.verdicts


class Taken:
    """A plugin of pytest: keeps the tests of some mutants, and notes how these went."""

    def __init__(self, family: str, numbers: set[str]) -> None:
        self.family = family
        self.numbers = numbers
        self.verdicts: list[Verdict] = []
        self._known = {mutant.number for mutant in FAMILIES[family].mutants}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._is_wanted(item)]

    def _is_wanted(self, item: pytest.Item) -> bool:
        family = item.get_closest_marker("mutant")
        return (
            family is not None
            and family.args == (self.family,)
            and mutant_of(item).number in self.numbers
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        began, is_found = time.process_time(), False
        try:
            yield
            is_found = True
        finally:
            assert isinstance(item, pytest.Function)
            failure = item.originalname if is_found else None
            cpu_s = time.process_time() - began
            self.verdicts.append(Verdict(self.family, mutant_of(item), failure, cpu_s))


def mutant_of(item: pytest.Item) -> Mutant:
    """Mutant that a test with the marker `mutant` of a family is about."""
    assert isinstance(item, pytest.Function)
    mutant = item.callspec.params["mutant"]
    assert isinstance(mutant, Mutant)
    return mutant
