"""Users of `amqp`: plain tests and coroutines, of every kind that pytest runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from fluffle.broker import ThreadedBroker
from fluffle.broker.testing import loop_thread
from fluffle.broker.testing.loop_thread import CrossThreadProxy
from tests.support.inner_pytest import SLOW_PLUGINS, run_pytest

pytest_plugins = ("pytester",)

QUEUE = {"queues": [{"name": "orders", "durable": True}]}
pytestmark = pytest.mark.amqp(definitions=QUEUE)


@pytest.fixture
async def order(amqp: CrossThreadProxy) -> AsyncIterator[str]:
    await amqp.publish("", "orders", b"first")
    yield "first"
    await amqp.expect("orders", count=0)


@pytest.fixture
def plain_order(amqp: Any) -> None:
    amqp.publish("", "orders", b"first")


def test_a_fixture_may_be_a_coroutine_and_the_test_plain(amqp: Any, order: str) -> None:
    amqp.expect("orders", count=1)
    assert amqp.consume("orders")[0].text() == order


@pytest.mark.usefixtures("plain_order")
async def test_a_fixture_may_be_plain_and_the_test_a_coroutine(amqp: CrossThreadProxy) -> None:
    await amqp.expect("orders", count=1)


class TestInAClass:
    @pytest.mark.parametrize("body", [b"1", b"2"])
    async def test_with_parameters(self, amqp: CrossThreadProxy, body: bytes) -> None:
        await amqp.publish("", "orders", body)
        assert [each.body for each in await amqp.consume("orders")] == [body]

    async def test_what_blocks_can_be_had_in_a_coroutine(self, amqp: Any) -> None:
        def helper() -> None:
            amqp.blocking.publish("", "orders", b"1")

        helper()
        await amqp.expect("orders", count=1)

    async def test_a_call_is_awaited_once(self, amqp: CrossThreadProxy) -> None:
        call = amqp.queues()
        assert "orders" in await call
        with pytest.raises(RuntimeError, match="already awaited"):
            await call

    async def test_a_call_may_be_a_task(self, amqp: CrossThreadProxy) -> None:
        coming = asyncio.create_task(amqp.expect("orders", ready=2))
        await asyncio.gather(*(amqp.publish("", "orders", body) for body in (b"1", b"2")))
        await coming

    def test_there_is_something_to_complete(self, amqp: Any) -> None:
        assert {"expect", "messages", "url", "blocking"} <= {*dir(amqp)}


async def test_nobody_waits_for_long_for_a_thread_that_does_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop_thread, "PATIENCE_S", 0.02)
    monkeypatch.setattr(loop_thread, "HUNG_PATIENCE_S", 0.01)
    stands, goes_on = threading.Event(), threading.Event()
    with ThreadedBroker() as broker:
        vhost = broker.vhost()
        broker.begin(partial(standing, stands, goes_on))
        stands.wait()
        try:
            with pytest.raises(TimeoutError, match=r"(?s)queues in 0\.02 s; .* in standing"):
                await vhost.awaited.queues()
            with pytest.raises(TimeoutError, match=r"in 0\.01 s"):
                await vhost.awaited.queues()
            with pytest.raises(TimeoutError, match=r"in 0\.01 s"):
                vhost.queues()
        finally:
            goes_on.set()
        monkeypatch.undo()
        assert "orders" not in await vhost.awaited.queues()


async def standing(stands: threading.Event, goes_on: threading.Event) -> None:
    stands.set()
    goes_on.wait()


SUITE = """
import pytest

pytestmark = [pytest.mark.{mark}, pytest.mark.amqp(definitions={queue!r})]

@{fixture}
async def order(amqp):
    await amqp.publish("", "orders", b"first")
    yield "first"
    await amqp.expect("orders", count=0)

async def test_it(amqp, order):
    assert (await amqp.get("orders")).ack() is None

class TestInAClass:
    @pytest.mark.parametrize("within", [0.001])
    async def test_it(self, amqp, within):
        with pytest.raises(AssertionError, match="gave 0 of 1"):
            await amqp.consume("orders", within=within)

@pytest.mark.amqp(definitions=None)
def test_plain(amqp):
    assert amqp.queues() == {{}}
"""


def test_pytest_asyncio_where_it_must_be_asked(pytester: pytest.Pytester) -> None:
    fixture = "__import__('pytest_asyncio').fixture"
    pytester.makepyfile(SUITE.format(mark="asyncio", fixture=fixture, queue=QUEUE))
    words = ("-q", "-o", "asyncio_mode=strict")
    run_pytest(pytester, *words).assert_outcomes(passed=3)


def test_anyio_with_asyncio_and_with_trio(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE.format(mark="anyio", fixture="pytest.fixture", queue=QUEUE))
    result = run_pytest(pytester, "-v", "-p", "no:asyncio")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines_random(["*test_it?trio*", "*test_it?asyncio*"])


def test_workers_of_xdist_have_a_broker_each_and_one_seed(pytester: pytest.Pytester) -> None:
    """The workers are processes, so one run serves for all that is shared or not."""
    pytester.makepyfile(
        """
        import os
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_it(amqp, amqp_broker, number):
            assert amqp.queues() == {}
            vhosts = amqp_broker.broker.node.catalogue.vhosts
            assert set(vhosts) == {"/", amqp.name}
            print("worker", os.environ["PYTEST_XDIST_WORKER"], amqp_broker.url)

        def test_seed(amqp):
            raise AssertionError(amqp.faults.in_effect)
        """
    )
    words = ("-n", "2", "-rP", "--dist", "each", "--amqp-unkind", *SLOW_PLUGINS)
    result = run_pytest(pytester, *words)
    result.assert_outcomes(passed=8, failed=2)
    said = {line for line in result.outlines if line.startswith("worker ")}
    assert len(said) == len({line.split()[1] for line in said}) == 2, said
    seeds = [line for line in result.outlines if "and is the same way again" in line]
    assert (len(seeds), len(set(seeds))) == (2, 1), seeds
