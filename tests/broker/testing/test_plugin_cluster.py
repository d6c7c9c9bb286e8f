"""The fixture `amqp_cluster`, as tests of others use it."""

from __future__ import annotations

from collections.abc import Iterator

import aio_pika
import pika
import pytest

from fluffle.broker import ThreadedCluster
from tests.support.inner_pytest import run_pytest

pytest_plugins = ("pytester",)

QUORUM = {"x-queue-type": "quorum"}


@pytest.fixture
def connection(amqp_cluster: ThreadedCluster) -> Iterator[pika.BlockingConnection]:
    """Closed after the test, which takes a client long that nobody answers."""
    connection = pika.BlockingConnection(pika.URLParameters(amqp_cluster.url))
    yield connection
    assert [amqp_cluster[node].state.value for node in range(3)] == ["running", "running", "down"]
    assert amqp_cluster[0].faults.in_effect == []
    connection.close()


def test_fixtures_end_without_the_faults_of_the_test(
    amqp_cluster: ThreadedCluster, connection: pika.BlockingConnection
) -> None:
    amqp_cluster[0].clients.connections()[0].freeze()
    amqp_cluster[2].faults.block()
    amqp_cluster.pause(0, 1)
    amqp_cluster.kill(2)
    assert connection.is_open


def test_a_plain_test_has_three_nodes(amqp_cluster: ThreadedCluster) -> None:
    with pika.BlockingConnection(pika.URLParameters(amqp_cluster.urls[2])) as connection:
        connection.channel().queue_declare("orders", durable=True, arguments=QUORUM)
    leader = amqp_cluster.leader("orders")
    amqp_cluster.kill(leader)
    assert amqp_cluster.leader("orders") in {0, 1, 2} - {leader}
    assert amqp_cluster[leader].state.value == "down"


async def test_a_coroutine_awaits_the_same(amqp_cluster: ThreadedCluster) -> None:
    async with await aio_pika.connect(amqp_cluster.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("orders", durable=True, arguments={"x-queue-type": "quorum"})
        await amqp_cluster.vhost().publish("", "orders", b"first")
        await amqp_cluster.vhost().expect("orders", count=1)
        await amqp_cluster[1].disk.slow(ms=1)
        assert await amqp_cluster.members("orders") == {0, 1, 2}


@pytest.mark.amqp_cluster(nodes=1, users={"app": "secret"}, seed=7)
def test_a_mark_says_how_it_is_to_be(amqp_cluster: ThreadedCluster) -> None:
    assert [url.partition("@")[0] for url in amqp_cluster.urls] == ["amqp://app:secret"]
    assert amqp_cluster.net.seed == 7


def test_what_is_wrong_with_a_mark_is_said(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.amqp_cluster(5)
        def test_position(amqp_cluster):
            pass

        @pytest.mark.amqp_cluster(knots=5)
        def test_name(amqp_cluster):
            pass

        @pytest.mark.amqp_cluster(nodes=0)
        def test_value(amqp_cluster):
            pass
        """
    )
    result = run_pytest(pytester, "-q")
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(
        [
            "*arguments have names, unlike 5",
            "*there is no argument 'knots', but config, nodes, *",
            "*a cluster of 0 nodes is none",
        ]
    )


def test_a_failure_tells_of_the_nodes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pika
        import pytest

        @pytest.mark.amqp_cluster(nodes=2, seed=7)
        def test_it(amqp_cluster):
            with pika.BlockingConnection(pika.URLParameters(amqp_cluster.url)) as connection:
                connection.channel().queue_declare("first")
            amqp_cluster.kill(1)
            amqp_cluster.leader("orders", within=0.01)

        @pytest.mark.asyncio
        @pytest.mark.amqp_cluster(nodes=1)
        async def test_who_forgets_to_await(amqp_cluster):
            amqp_cluster.kill(0)
        """
    )
    result = run_pytest(pytester, "-q")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "not awaited, and so not done: amqp_cluster.kill",
            "E * TimeoutError: there is no queue 'orders' *",
            "node 0 is running, node 1 is down; what the network does is of seed=7",
            "*amqp timeline*",
            "* declares queue 'first'*",
        ]
    )
