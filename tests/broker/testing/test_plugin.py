"""The fixtures, as tests of others use them: nothing is imported, the plugin is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import aio_pika
import pika
import pytest

from fluffle.broker.testing.loop_thread import CrossThreadProxy
from fluffle.broker.testing.threaded import BlockingVhost, ThreadedBroker
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


async def test_a_coroutine_awaits_the_same(amqp: CrossThreadProxy) -> None:
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
def test_what_is_not_as_expected_is_reported_at_the_line_of_the_test(
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
            assert loaded == {"fluffle.broker.testing", "fluffle.broker.testing.plugin"}
        """
    )
    run_pytest_process(pytester, "-q").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("url", "reported"),
    [
        ("external://127.0.0.1:1", "*GET http://127.0.0.1:1/api/whoami: *"),
        ("http://127.0.0.1", "*write amqp://USER:PASSWORD@HOST:PORT or amqps://*"),
    ],
)
def test_an_external_broker_that_is_not_there_ends_the_run(
    pytester: pytest.Pytester, url: str, reported: str
) -> None:
    pytester.makepyfile("def test_it(amqp): pass")
    words = (f"--amqp-broker={url}", "--amqp-management=http://127.0.0.1:1")
    result = run_pytest(pytester, *words)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines([reported])


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
                amqp_broker.wait_until_idle()  # which does not take half a minute
            finally:
                over.set()
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TimeoutError: the broker's thread has not done *in 1.0 s*"])


TESTS = """
import pytest

def test_plain(amqp):
    raise AssertionError(amqp.faults.in_effect)

@pytest.mark.amqp_unkind(5)
def test_marked(amqp):
    raise AssertionError(amqp.faults.in_effect)

@pytest.mark.amqp_unkind
def test_from_any_seed(amqp):
    assert amqp.faults.in_effect[0].startswith("the broker is unkind, with seed ")
"""


def test_a_mark_makes_the_broker_unkind(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = run_pytest(pytester, "-q")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: []",
            "*AssertionError: ?'the broker is unkind, with seed 5'?",
            "*the broker was unkind, and is the same way again with --amqp-unkind=5",
        ]
    )


def test_the_option_makes_it_so_for_all(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = run_pytest(pytester, "--amqp-unkind=9", "-k", "plain or seed")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["--amqp-unkind=9", "*with seed 9*", "*again with --amqp-unkind=9"])
    result = run_pytest(pytester, "-k", "plain", "--amqp-unkind")
    result.stdout.re_match_lines([r"--amqp-unkind=\d+", r".*again with --amqp-unkind=\d+"])


def test_a_file_is_no_seed(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(TESTS)
    result = run_pytest(pytester, "--amqp-unkind", str(path))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*invalid seed value*"])
