"""The fixtures, as tests of others use them: nothing is imported, the plugin is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import aio_pika
import pika
import pytest

from fluffle.broker.testing.threaded import AwaitedVhost, BlockingVhost, ThreadedBroker
from tests.support.inner_pytest import run_pytest, run_pytest_process

pytest_plugins = ("pytester",)


def place_order(url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("orders")
        channel.basic_publish("", "orders", b'{"number": 7}')


@pytest.fixture
def connection(amqp: BlockingVhost) -> Iterator[pika.BlockingConnection]:
    """Closed after the test, which takes a client long that nobody answers."""
    connection = pika.BlockingConnection(pika.URLParameters(amqp.url))
    yield connection
    assert amqp.faults.in_effect == []
    connection.close()


@pytest.mark.parametrize("_time", range(2))
def test_each_plain_test_has_a_virtual_host_of_its_own(amqp: BlockingVhost, _time: int) -> None:
    assert amqp.queues() == {}
    place_order(amqp.url)
    amqp.expect("orders", count=1)
    assert amqp.messages("orders")[0].json() == {"number": 7}


@pytest.mark.parametrize("within", [None, -1])
def test_a_limit_is_a_number_of_seconds(amqp: BlockingVhost, within: Any) -> None:
    with pytest.raises(ValueError, match="within is a number of seconds, and not"):
        amqp.expect("orders", count=1, within=within)


async def test_a_coroutine_awaits_the_same(amqp: AwaitedVhost) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        await (await connection.channel()).declare_queue("orders")
        await amqp.publish("", "orders", b"first")
        await amqp.expect("orders", count=1)
        assert [each.body for each in await amqp.messages("orders")] == [b"first"]


def test_the_clock_is_that_of_the_broker(amqp_broker: ThreadedBroker, amqp: BlockingVhost) -> None:
    with pika.BlockingConnection(pika.URLParameters(amqp.url)) as connection:
        connection.channel().queue_declare("orders", arguments={"x-expires": 3_600_000})
        amqp_broker.clock.advance(hours=1)
        assert amqp.queues() == {}


def test_fixtures_end_without_the_faults_of_the_test(
    amqp_broker: ThreadedBroker, amqp: BlockingVhost, connection: pika.BlockingConnection
) -> None:
    amqp_broker.faults.block()
    amqp.clients.connections()[0].freeze()
    assert connection.is_open
    assert amqp.faults.in_effect


def test_a_test_that_leaves_its_connection_open_leaves_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pika

        def test_one(amqp):
            connection = pika.BlockingConnection(pika.URLParameters(amqp.url))
            connection.channel().queue_declare("orders")

        def test_two(amqp_broker, amqp):
            assert amqp.queues() == {}
            assert set(amqp_broker.broker.node.catalogue.vhosts) == {"/", amqp.name}
        """
    )
    result = run_pytest(pytester, "-q")
    result.assert_outcomes(passed=2)


def test_what_goes_wrong_with_the_broker_ends_with_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_one(amqp_broker):
            amqp_broker.faults.block()
            amqp_broker.vhost().faults.unkind(1)
            raise AssertionError("it fails")

        def test_two(amqp_broker):
            assert amqp_broker.faults.in_effect == []
            assert amqp_broker.vhost().faults.in_effect == []
            amqp_broker.faults.refuse_logins()  # nobody mends a broker that has gone
        """
    )
    result = run_pytest(pytester, "-q")
    result.assert_outcomes(passed=1, failed=1)


def test_who_forgets_to_await_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.asyncio
        async def test_it(amqp):
            amqp.expect("orders", count=1)
            await amqp.advance(minutes=1)
        """
    )
    result = run_pytest(pytester, "-q")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*not awaited, and so not done: amqp.expect"])


@pytest.mark.parametrize("words", ["def test_it(amqp):", "async def test_it(amqp):\n    await"])
def test_what_is_not_as_expected_is_told_at_the_line_of_the_test(
    pytester: pytest.Pytester, words: str
) -> None:
    pytester.makepyfile(f"{words} amqp.expect('orders', count=1, within=0.01)")
    result = run_pytest(pytester, "-q", "-o", "asyncio_mode=auto")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*.py:*: AssertionError"])
    result.stdout.no_fnmatch_line("*calls.py*")
    result.stdout.no_fnmatch_line("*vhost.py*")
    result.stdout.no_fnmatch_line("*concurrent*")


def test_a_run_without_a_broker_imports_none(pytester: pytest.Pytester) -> None:
    """In a process of its own: this one has imported the broker."""
    pytester.makepyfile(
        """
        import sys

        def test_it():
            loaded = {name for name in sys.modules if name.startswith("fluffle.broker.")}
            packages = {"fluffle.broker.testing", "fluffle.broker.testing.cluster"}
            assert {name for name in loaded if not name.endswith("plugin")} == packages
        """
    )
    run_pytest_process(pytester, "-q").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("external://127.0.0.1:1", "*GET http://127.0.0.1:1/api/whoami: *"),
        ("http://127.0.0.1", "*write amqp://USER:PASSWORD@HOST:PORT or amqps://*"),
    ],
)
def test_an_external_broker_that_is_not_there_ends_the_run(
    pytester: pytest.Pytester, url: str, told: str
) -> None:
    pytester.makepyfile("def test_it(amqp): pass")
    words = (f"--amqp-broker={url}", "--amqp-management=http://127.0.0.1:1")
    result = run_pytest(pytester, *words)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines([told])


def test_what_only_fluffle_does_to_whole_tests_is_skipped_with_an_external_broker(
    pytester: pytest.Pytester,
) -> None:
    """Before anybody asks for the broker, which is not there."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.amqp_strict
        def test_strict(amqp): pass

        @pytest.mark.amqp_unkind(7)
        def test_unkind(amqp): pass

        def test_cluster(amqp_cluster): pass

        def test_without_a_broker(): pass
        """
    )
    words = ("-rs", "--amqp-broker=external://127.0.0.1:1")
    result = run_pytest(pytester, *words)
    result.assert_outcomes(skipped=3, passed=1)
    needed = ("amqp_strict", "amqp_unkind", "amqp_cluster")
    result.stdout.fnmatch_lines_random([f"*needs fluffle: {name}" for name in needed])
    for option in ("--amqp-strict", "--amqp-unkind=7"):
        result = run_pytest(pytester, *words, option, "-k", "strict or unkind")
        result.assert_outcomes(skipped=2, deselected=2)
