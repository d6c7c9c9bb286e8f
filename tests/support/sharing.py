"""How pytest-xdist shares the tests of a run among its processes, with `--dist loadfile`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdist.remote import Producer

TOGETHER = "tests/compat"
"""Folder whose files share one RabbitMQ, in their order, and one process that records its answers;
where it is not asked they are files like others."""

USUAL_S = 0.03
"""Time that an unmarked test takes."""
FOLDERS_S = {"tests/broker/testing": 0.8, "tests/broker/cluster": 0.4, "tests/broker/cli": 0.3}
"""Times that tests take in folders where they start nodes in their own process, or pytest."""
MARKED_S = {"slow": 3.0, "interop": 0.5, "compat": 0.5}
"""Times that tests with these marks take, unless they state their `seconds`."""


class Sharing(LoadFileScheduling):
    """A file goes to one process, and so does all that must stay together."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        # By how many tests there are in each, files with a few long ones would be begun last, and
        # one process would be busy with them when all others have nothing left to do.
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return share_of(nodeid, rabbitmq_is_asked=is_rabbitmq_asked(self.config))


def is_rabbitmq_asked(config: pytest.Config) -> bool:
    """True if it is asked for all that is recorded."""
    return bool(config.getoption("live") or config.getoption("record"))


def share_of(nodeid: str, *, rabbitmq_is_asked: bool) -> str:
    """Share of a test: all tests with the same one run in the same process."""
    if rabbitmq_is_asked and nodeid.startswith(f"{TOGETHER}/"):
        return TOGETHER
    return nodeid.partition("::")[0]


def seconds_of(item: pytest.Item) -> float:
    """About how long a test takes: what is shared out in order of that ends at one time."""
    for name, seconds in MARKED_S.items():
        if (mark := item.get_closest_marker(name)) is not None:
            return float(mark.kwargs.get("seconds", seconds))
    return usual_s(item.nodeid)


def usual_s(nodeid: str) -> float:
    """Seconds of a test without a mark, by its folder."""
    found = (seconds for folder, seconds in FOLDERS_S.items() if nodeid.startswith(f"{folder}/"))
    return next(found, USUAL_S)


def longest_first(items: Sequence[pytest.Item], config: pytest.Config) -> list[pytest.Item]:
    """The same tests, in the order in which they are to be shared out."""
    is_asked = is_rabbitmq_asked(config)
    shares = [share_of(item.nodeid, rabbitmq_is_asked=is_asked) for item in items]
    return [items[place] for place in order_of(shares, [*map(seconds_of, items)])]


def order_of(shares: Sequence[str], seconds: Sequence[float]) -> list[int]:
    """The places of tests, by their shares and how long they take: the share that takes longest
    comes first, and each keeps its own order."""
    sums = dict.fromkeys(shares, 0.0)
    for share, each_s in zip(shares, seconds, strict=True):
        sums[share] += each_s
    return sorted(range(len(shares)), key=lambda place: (-sums[shares[place]], shares[place]))
