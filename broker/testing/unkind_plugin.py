"""`--amqp-unkind[=SEED]` and `@pytest.mark.amqp_unkind(seed)`: virtual hosts that are unkind.

A test that fails says which seed it had, and with it is treated the same again.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any

import pytest

OPTION = "--amqp-unkind"
MARK = "amqp_unkind"
ANY = -1
SEEDS = 1_000_000

SEED = pytest.StashKey[int]()
"""Of a test: the one that it was run with."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("fluffle", "brokers for tests").addoption(
        OPTION,
        metavar="SEED",
        nargs="?",
        type=seed,
        const=ANY,
        help="let the broker do to all tests with `amqp` what AMQP permits and naive code forgets",
    )


def seed(text: str) -> int:
    """Parse a seed, so that the name of a file behind the option is not taken for one.
    ValueError."""
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{MARK}(seed): let the broker do what naive code forgets; from any seed"
    )
    if config.getoption(OPTION) == ANY:
        config.option.amqp_unkind = getattr(config, "workerinput", {}).get(
            OPTION, random.randrange(SEEDS)
        )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Of pytest-xdist: all processes of a run have the seed of the first."""
    node.workerinput[OPTION] = node.config.getoption(OPTION)


def pytest_report_header(config: pytest.Config) -> str | None:
    chosen = config.getoption(OPTION)
    return f"{OPTION}={chosen}" if chosen is not None else None


def seed_of(item: pytest.Item) -> int | None:
    """Return what the mark of a test says, or the option; None if the broker is to be kind."""
    chosen: int | None = item.config.getoption(OPTION)
    mark = item.get_closest_marker(MARK)
    if mark is not None:
        given = [*mark.args, *mark.kwargs.values()]
        chosen = given[0] if given else chosen if chosen is not None else random.randrange(SEEDS)
    if chosen is not None:
        item.stash[SEED] = chosen
    return chosen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    chosen = item.stash.get(SEED, None)
    if report.failed and chosen is not None:
        text = f"the broker was unkind, and is the same way again with {OPTION}={chosen}"
        report.sections.append(("amqp", text))
    return report
