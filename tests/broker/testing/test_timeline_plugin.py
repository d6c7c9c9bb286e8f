"""What a test that fails reports, and what a strict one leaves: as tests of others see it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.inner_pytest import run_pytest, run_pytest_process

pytest_plugins = ("pytester",)

CLIENT = """
import pika
import pytest

@pytest.fixture
def channel(amqp):
    with pika.BlockingConnection(pika.URLParameters(amqp.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("orders")
        yield channel
"""


Run = Callable[..., pytest.RunResult]


def run(
    pytester: pytest.Pytester, tests: str, *options: str, runner: Run = run_pytest
) -> pytest.RunResult:
    pytester.makeconftest(CLIENT)
    pytester.makepyfile(tests)
    return runner(pytester, "-q", *options)


def run_leaky(pytester: pytest.Pytester, more: str, *options: str) -> pytest.RunResult:
    """Result of tests one of which leaks a connection, which only the end of a process closes."""
    return run(pytester, STRICT + more, *options, runner=run_pytest_process)


def test_a_failing_test_shows_what_happened(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_it(amqp, channel):
            channel.basic_publish("", "orders", b"first")
            channel.basic_publish("", "order", b"lost")
            channel.basic_get("orders")
            amqp.expect("orders", ready=1, within=0.01)
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- amqp timeline -*",
            "*: declares queue 'orders' (classic)",
            "*: publishes b'lost' to exchange '' with key 'order': it goes nowhere and is dropped",
            "*: gets b'first' of queue 'orders', delivery tag 1",
            "left in queue 'orders': 0 ready, 1 unacknowledged",
            "left unacknowledged:",
            "unroutable:",
            "open:",
        ]
    )


def test_a_coroutine_reports_the_same_and_who_passes_nothing(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest

        @pytest.mark.asyncio
        async def test_fails(amqp, channel):
            await amqp.publish("", "orders", b"first")
            assert await amqp.queues() == {}

        def test_passes(amqp, channel):
            amqp.publish("", "orders", b"second")
        """,
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*the test: publishes b'first' *: it goes to 'orders'"])
    result.stdout.no_fnmatch_line("*b'second'*")


def test_what_a_broker_of_the_session_saw_is_reported_and_logged(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pika
        import pytest

        def test_it(amqp_broker):
            with pika.BlockingConnection(pika.URLParameters(amqp_broker.url)) as connection:
                connection.channel().basic_publish("missing", "", b"")
                with pytest.raises(pika.exceptions.ChannelClosedByBroker):
                    connection.channel().queue_declare("missing", passive=True)
                assert False
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*the channel is closed: 404 NOT_FOUND - no exchange 'missing' in vhost '/'",
            "*- fluffle log -*",
            "* error channel_error *no exchange 'missing'*",
        ]
    )


STRICT = """
import pika

def test_loses(amqp, channel):
    channel.basic_publish("", "order", b"lost")

def test_holds(amqp, channel):
    amqp.publish("", "orders", b"held")
    channel.basic_get("orders")

def test_leaks(amqp):
    global leaked
    leaked = pika.BlockingConnection(pika.URLParameters(amqp.url))

def test_cleans_up(amqp, channel):
    amqp.publish("", "orders", b"first")
    channel.basic_ack(channel.basic_get("orders")[0].delivery_tag)

def test_fails_anyhow(amqp, channel):
    channel.basic_publish("", "order", b"lost")
    assert False
"""


MARKED = """
import pytest

@pytest.mark.amqp_strict
def test_may_not(amqp, channel):
    channel.basic_publish("", "order", b"lost")
"""


def test_who_is_not_strict_may_leave_what_he_wants(pytester: pytest.Pytester) -> None:
    run_leaky(pytester, MARKED).assert_outcomes(passed=5, failed=1, errors=1)


@pytest.mark.parametrize("way", ["option", "setting"])
def test_who_is_strict_fails_with_what_was_left(pytester: pytest.Pytester, way: str) -> None:
    if way == "setting":
        pytester.makeini("[pytest]\namqp_strict = true")
    result = run_leaky(pytester, "", *(["--amqp-strict"] if way == "option" else []))
    result.assert_outcomes(passed=4, failed=1, errors=3)
    for left in (
        ["1 unroutable:", "  b'lost' to exchange '', key 'order' by *, dropped"],
        ["1 not acknowledged:", "  <b'held' *abandoned by *"],
        ["1 not closed:", "  connection 127.0.0.1:*"],
    ):
        result.stdout.fnmatch_lines(["the test is strict (amqp_strict), and leaves", *left])
    result.stdout.fnmatch_lines(["*- amqp timeline -*"])


def test_a_mark_counts_more(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest

        @pytest.mark.amqp_strict(False)
        def test_may(amqp, channel):
            channel.basic_publish("", "order", b"lost")

        def test_may_not(amqp, channel):
            channel.basic_publish("", "order", b"lost")
        """,
        "--amqp-strict",
    )
    result.assert_outcomes(passed=2, errors=1)


def test_a_broker_that_dies_takes_its_test_with_it(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def die(broker):
            async def die():
                broker.broker.node.fail(OSError("the disk is gone"))
            broker.call(die)

        def test_it(amqp, amqp_broker):
            die(amqp_broker)

        def test_the_next(amqp):
            pass
        """,
    )
    result.assert_outcomes(failed=1, errors=3)
    result.stdout.fnmatch_lines(
        ["the broker has failed: the disk is gone", "*- fluffle log -*", "* critical fatal *gone*"]
    )
    result.stdout.fnmatch_lines(["*NodeFailed: the broker has failed: the disk is gone"])


def test_a_broker_that_hangs_says_where_and_holds_up_nobody(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import threading
        import pytest
        from fluffle.broker.testing import loop_thread

        over = threading.Event()

        def test_it(amqp, amqp_broker):
            async def hang_here():
                over.wait()
            amqp_broker.begin(hang_here)
            with pytest.raises(TimeoutError, match="in hang_here"):
                amqp_broker.call(hang_here, patience_s=0.1)
            try:
                amqp_broker.settle()  # which does not take half a minute
            finally:
                over.set()
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TimeoutError: the broker's thread has not done *in 1.0 s*"])
