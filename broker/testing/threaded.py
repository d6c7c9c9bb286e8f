"""`ThreadedBroker`: a broker in a thread of its own, for code that blocks.

with ThreadedBroker() as broker:
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fluffle.broker.config.config import DEFAULT_VHOST, Config
from fluffle.broker.node import NodeFailed
from fluffle.broker.testing.arguments import NOTHING_SPECIAL, PathArgument, VhostRequirements
from fluffle.broker.testing.broker import Broker
from fluffle.broker.testing.clock import MovableClock
from fluffle.broker.testing.loop_thread import (
    PATIENCE_S,
    Callee,
    Calls,
    CrossThreadProxy,
    LoopThread,
    blocking,
    in_coroutine,
)

if TYPE_CHECKING:
    from fluffle.broker.testing.vhost import Vhost


T = TypeVar("T")


class ThreadedBroker:
    """A `Broker` with the same arguments.  Used from one thread, which is not its own."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        data_dir: PathArgument | None = None,
        users: Mapping[str, str] | None = None,
        vhosts: Sequence[str] = (DEFAULT_VHOST,),
        definitions: PathArgument | None = None,
        unkind: int | None = None,
        listen: PathArgument | None = None,
    ) -> None:
        self.broker = Broker(
            config, data_dir=data_dir, users=users, vhosts=vhosts, definitions=definitions,
            unkind=unkind, listen=listen,
        )  # fmt: skip
        """Belongs to the thread: whatever is called there goes through `call`."""
        self._thread = LoopThread("fluffle")
        self.clock = BlockingClock(self, lambda: self.broker.clock)
        self.clients_clock = BlockingClock(self, lambda: self.broker.clients_clock)

    def __enter__(self) -> Self:
        """Raises what a node raises that cannot start."""
        self._thread.start()
        try:
            self.call(self.broker.__aenter__)
        except BaseException:
            self._thread.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        try:
            self._thread.call(partial(self.broker.__aexit__, kind, error, where))
            self._thread.call(closed)
        finally:
            self._thread.end()

    @property
    def url(self) -> str:
        """URL for any client, of any language, in any process."""
        return self.broker.url

    def url_of(self, vhost: str) -> str:
        """Return the URL for another virtual host."""
        return self.broker.url_of(vhost)

    def vhost(self, name: str = "") -> BlockingVhost:
        """Return what is in a virtual host, by default the first one.  NotFound."""
        return BlockingVhost(self, self.broker.vhost(name))

    def add_vhost(self, name: str, wanted: VhostRequirements = NOTHING_SPECIAL) -> BlockingVhost:
        """Make a new virtual host, with what is wanted in it.  Raises as `Broker.add_vhost`."""
        return BlockingVhost(self, self.call(lambda: self.broker.add_vhost(name, wanted)))

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it; its connections are closed.  NotFound."""
        self.call(lambda: self.broker.delete_vhost(name))

    @property
    def faults(self) -> CrossThreadProxy:
        """`Faults` for all virtual hosts."""
        return CrossThreadProxy(self.broker.faults, partial(blocking, self))

    def mend(self) -> None:
        """End all faults, in one virtual host or in all."""
        self.call(self.broker.mend)

    @property
    def clients(self) -> CrossThreadProxy:
        """`Clients` of all virtual hosts."""
        return CrossThreadProxy(self.broker.clients, partial(blocking, self))

    def settle(self) -> None:
        """Return when there is nothing to do for the node until a client speaks or time passes."""
        self.call(self.broker.settle)

    def call(
        self, work: Callable[[], Coroutine[Any, Any, T]], *, patience_s: float = PATIENCE_S
    ) -> T:
        """Return what `work` gives, done in the broker's thread.

        TimeoutError when it is not done in time; it is given up then.  NodeFailed.
        """
        __tracebackhide__ = True
        self._check()
        return self._thread.call(work, patience_s=patience_s)

    def begin(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Have `work` done in the broker's thread.  NodeFailed."""
        self._check()
        return self._thread.begin(work)

    def patience_s(self, wanted_s: float) -> float:
        """Return the time to wait, as `LoopThread.patience_s`."""
        return self._thread.patience_s(wanted_s)

    def gave_up(self, work: object, patience_s: float) -> TimeoutError:
        """Return what to raise, as `LoopThread.gave_up`."""
        return self._thread.gave_up(work, patience_s)

    def _check(self) -> None:
        """Raise if the broker has ended: no call waits for one."""
        if self.broker.failure is not None:
            raise NodeFailed(f"the broker has failed: {self.broker.failure}")


class BlockingVhost:
    """A `Vhost` for another thread: what is awaited there blocks here."""

    __slots__ = (
        "advance", "assert_no_leaked_channels", "assert_no_unacked", "assert_no_unroutable",
        "awaited", "clients", "consume", "expect", "explain", "faults", "get", "history",
        "messages", "name", "publish", "purge", "queues", "timeline", "url", "urls",
    )  # fmt: skip

    def __init__(self, broker: Callee, vhost: Vhost) -> None:
        self.name = vhost.name
        self.url = vhost.url
        self.urls = vhost.urls
        self.advance = blocking(broker, vhost.advance)
        self.consume = blocking(broker, vhost.consume)
        self.expect = blocking(broker, vhost.expect)
        self.explain = blocking(broker, vhost.explain)
        self.get = blocking(broker, vhost.get)
        self.messages = blocking(broker, vhost.messages)
        self.publish = blocking(broker, vhost.publish)
        self.purge = blocking(broker, vhost.purge)
        self.history = blocking(broker, vhost.history)
        self.timeline = blocking(broker, vhost.timeline)
        self.assert_no_unacked = blocking(broker, vhost.assert_no_unacked)
        self.assert_no_unroutable = blocking(broker, vhost.assert_no_unroutable)
        self.assert_no_leaked_channels = blocking(broker, vhost.assert_no_leaked_channels)
        self.queues = blocking(broker, vhost.queues)
        self.clients = CrossThreadProxy(vhost.clients, partial(blocking, broker))
        self.faults = CrossThreadProxy(vhost.faults, partial(blocking, broker))
        self.awaited = AwaitedVhost(broker, vhost)
        """The same for coroutines."""


class AwaitedVhost:
    """A `Vhost` for coroutines of a loop in another thread."""

    __slots__ = (
        "advance", "assert_no_leaked_channels", "assert_no_unacked", "assert_no_unroutable",
        "clients", "consume", "expect", "explain", "faults", "get", "history", "messages", "name",
        "publish", "purge", "queues", "timeline", "unawaited", "url", "urls",
    )  # fmt: skip

    def __init__(self, broker: Callee, vhost: Vhost) -> None:
        self.name = vhost.name
        self.url = vhost.url
        self.urls = vhost.urls
        self.unawaited: dict[object, str] = {}
        """What was called and never awaited, and so has not been done: its names."""
        calls = Calls(broker, self.unawaited)
        self.advance = calls.of(vhost.advance)
        self.consume = calls.of(vhost.consume)
        self.expect = calls.of(vhost.expect)
        self.explain = calls.of(vhost.explain)
        self.get = calls.of(vhost.get)
        self.messages = calls.of(vhost.messages)
        self.publish = calls.of(vhost.publish)
        self.purge = calls.of(vhost.purge)
        self.history = calls.of(vhost.history)
        self.timeline = calls.of(vhost.timeline)
        self.assert_no_unacked = calls.of(vhost.assert_no_unacked)
        self.assert_no_unroutable = calls.of(vhost.assert_no_unroutable)
        self.assert_no_leaked_channels = calls.of(vhost.assert_no_leaked_channels)
        self.queues = calls.of(vhost.queues)
        self.clients = CrossThreadProxy(vhost.clients, calls.of)
        self.faults = CrossThreadProxy(vhost.faults, calls.of)


async def closed() -> None:
    """Wait until what has been closed is gone, with the round after the next."""
    for _ in range(2):
        await asyncio.sleep(0)


class BlockingClock:
    """A `MovableClock` for another thread."""

    __slots__ = ("_broker", "_clock")

    def __init__(self, broker: ThreadedBroker, clock: Callable[[], MovableClock]) -> None:
        self._broker = broker
        self._clock = clock

    def now_ms(self) -> int:
        return self._clock().now_ms()

    def advance(self, by: timedelta = timedelta(0), **parts: float) -> None:
        """Advance as `MovableClock.advance` does; returns when everything has happened."""
        self._broker.call(lambda: self._clock().advance(by, **parts))


class ByCaller:
    """Virtual host that blocks in plain code and is awaited in coroutines.

    Plain tests, fixtures and helpers get what blocks, coroutines what is awaited: which one is
    seen at each use, since one test may have both.
    """

    __slots__ = ("awaited", "blocking")

    def __init__(self, vhost: BlockingVhost) -> None:
        self.blocking: BlockingVhost = vhost
        """In plain code and in coroutines alike."""
        self.awaited: AwaitedVhost = vhost.awaited

    def __getattr__(self, name: str) -> Any:
        __tracebackhide__ = True
        return getattr(self.awaited if in_coroutine() else self.blocking, name)

    def __dir__(self) -> list[str]:
        return [*AwaitedVhost.__slots__, *ByCaller.__slots__]
