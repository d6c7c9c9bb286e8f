"""`amqp_cluster`, and `@pytest.mark.amqp_cluster(nodes=5)`: a cluster for one test.

    def test_orders_outlive_a_leader(amqp_cluster):
        place_order(amqp_cluster.url)
        amqp_cluster.kill(amqp_cluster.leader("orders"))

It is loaded with pytest, used or not; so it imports nothing of the broker until it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from fluffle.broker.testing.cluster.threaded import ThreadedCluster

MARK = "amqp_cluster"

CLUSTER = pytest.StashKey["ThreadedCluster"]()
"""Of a test: the one that it has."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{MARK}(nodes, users, vhosts, definitions, seed): as for `ThreadedCluster`"
    )


@pytest.fixture
def amqp_cluster(request: pytest.FixtureRequest) -> Iterator[ThreadedCluster]:
    """A cluster of three nodes, if no mark says otherwise: it is started for the test.

    In a coroutine all that it does is awaited.
    """
    from fluffle.broker.testing.cluster.threaded import (  # noqa: PLC0415
        ClusterByCaller,
        ThreadedCluster,
    )

    marks = request.node.iter_markers(MARK)
    try:
        made = ThreadedCluster(**arguments_of([*marks], ThreadedCluster))
    except (TypeError, ValueError) as error:
        pytest.fail(f"@pytest.mark.{MARK}: {error}", pytrace=False)
    with made as cluster:
        request.node.stash[CLUSTER] = cluster
        yield cast("ThreadedCluster", ClusterByCaller(cluster))
        if forgotten := cluster.unawaited:
            called = ", ".join(f"amqp_cluster.{name}" for name in forgotten.values())
            pytest.fail(f"not awaited, and so not done: {called}", pytrace=False)


def arguments_of(marks: list[pytest.Mark], of: type) -> Mapping[str, Any]:
    """Merge the arguments of several marks; what the first one says counts.  TypeError."""
    known, given = inspect.signature(of).parameters, dict[str, Any]()
    for mark in marks:
        if mark.args:
            raise TypeError(f"arguments have names, unlike {mark.args[0]!r}")
        for name, value in mark.kwargs.items():
            if name not in known:
                raise TypeError(f"there is no argument '{name}', but {', '.join(known)}")
            given.setdefault(name, value)
    return given


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """What goes wrong ends with the test, before its fixtures say goodbye to the cluster."""
    try:
        if (cluster := item.stash.get(CLUSTER, None)) is not None:
            cluster.call(cluster.cluster.mend)
    finally:
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    threaded = item.stash.get(CLUSTER, None)
    if report.failed and threaded is not None:
        cluster = threaded.cluster
        text = f"{cluster.nodes.shown()}; what the network does is of seed={cluster.net.seed}"
        report.sections.append((MARK, text))
        report.sections += [("amqp timeline", each) for each in timelines_of(threaded)]
    return report


def timelines_of(threaded: ThreadedCluster) -> list[str]:
    """Return the timelines of the virtual hosts in which something has happened."""
    cluster, found = threaded.cluster, []
    for name in cluster.seen_vhosts:
        try:
            found.append(threaded.call(cluster.vhost(name).timeline))
        except Exception as error:  # noqa: BLE001 - of nodes that are not well
            found.append(f"the cluster does not tell of '{name}': {error}")
    return found
