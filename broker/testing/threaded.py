"""`ThreadedBroker`: a broker in a thread of its own, for code that blocks.

with ThreadedBroker() as broker:
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from datetime import timedelta
from functools import partial, wraps
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from fluffle.broker.config import DEFAULT_VHOST, Config
from fluffle.broker.testing.broker import Broker
from fluffle.broker.testing.clock import MovableClock
from fluffle.broker.testing.vhost import Vhost

T = TypeVar("T")

PATIENCE_S = 30.0
"""A call into the thread that takes longer will never end."""


class ThreadedBroker:
    """A `Broker` with the same arguments.  Used from one thread, which is not its own."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        data_dir: Path | None = None,
        users: Mapping[str, str] | None = None,
        vhosts: Sequence[str] = (DEFAULT_VHOST,),
        definitions: Path | None = None,
    ) -> None:
        self.broker = Broker(
            config, data_dir=data_dir, users=users, vhosts=vhosts, definitions=definitions
        )
        """Belongs to the thread: whatever is called there goes through `call`."""
        self._loop: asyncio.AbstractEventLoop
        self._thread = Thread(target=self._run, name="fluffle", daemon=True)
        self.clock = BlockingClock(self, lambda: self.broker.clock)
        self.clients_clock = BlockingClock(self, lambda: self.broker.clients_clock)

    def __enter__(self) -> Self:
        """Raises what a node raises that cannot start."""
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        try:
            self.call(self.broker.__aenter__)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        try:
            self.call(partial(self.broker.__aexit__, kind, error, where))
            self.call(closed)
        finally:
            self._end()

    @property
    def url(self) -> str:
        """For any client, of any language, in any process."""
        return self.broker.url

    def url_of(self, vhost: str) -> str:
        """The same, for another virtual host."""
        return self.broker.url_of(vhost)

    def vhost(self, name: str = "") -> BlockingVhost:
        """What is in a virtual host, by default the first one.  NotFound."""
        return BlockingVhost(self, self.broker.vhost(name))

    def add_vhost(self, name: str) -> BlockingVhost:
        """A new one, in which all users may do everything.  PreconditionFailed if it is there."""
        return BlockingVhost(self, self.call(lambda: self.broker.add_vhost(name)))

    def delete_vhost(self, name: str) -> None:
        """With all that is in it; its connections are closed.  NotFound."""
        self.call(lambda: self.broker.delete_vhost(name))

    def settle(self) -> None:
        """Return when there is nothing to do for the node until a client speaks or time passes."""
        self.call(self.broker.settle)

    def call(
        self, work: Callable[[], Coroutine[Any, Any, T]], *, patience_s: float = PATIENCE_S
    ) -> T:
        """What `work` gives, done in the broker's thread.

        TimeoutError when it is not done in time; it is given up then.
        """
        running = self.begin(work)
        try:
            return running.result(patience_s)
        except TooLate:
            if running.done():
                raise  # the work's own
            running.cancel()
            what = getattr(work, "__qualname__", work)
            raise TimeoutError(
                f"the broker's thread has not done {what} in {patience_s} s"
            ) from None

    def begin(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Have `work` done in the broker's thread."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            raise TimeoutError(f"the broker's thread has not ended in {PATIENCE_S} s")
        self._loop.close()


class BlockingVhost:
    """A `Vhost` for another thread: what is awaited there blocks here."""

    __slots__ = (
        "advance", "awaited", "expect", "explain", "messages", "name", "publish", "purge",
        "queues", "url",
    )  # fmt: skip

    def __init__(self, broker: ThreadedBroker, vhost: Vhost) -> None:
        self.name = vhost.name
        self.url = vhost.url
        self.advance = blocking(broker, vhost.advance)
        self.expect = blocking(broker, vhost.expect)
        self.explain = blocking(broker, vhost.explain)
        self.messages = blocking(broker, vhost.messages)
        self.publish = blocking(broker, vhost.publish)
        self.purge = blocking(broker, vhost.purge)
        self.queues = blocking(broker, vhost.queues)
        self.awaited = AwaitedVhost(broker, vhost)
        """The same for coroutines."""


class AwaitedVhost:
    """A `Vhost` for coroutines of a loop in another thread."""

    __slots__ = (
        "advance", "expect", "explain", "messages", "name", "publish", "purge", "queues",
        "unawaited", "url",
    )  # fmt: skip

    def __init__(self, broker: ThreadedBroker, vhost: Vhost) -> None:
        self.name = vhost.name
        self.url = vhost.url
        self.unawaited: dict[object, str] = {}
        """What was called and never awaited, and so has not been done: its names."""
        calls = Calls(broker, self.unawaited)
        self.advance = calls.of(vhost.advance)
        self.expect = calls.of(vhost.expect)
        self.explain = calls.of(vhost.explain)
        self.messages = calls.of(vhost.messages)
        self.publish = calls.of(vhost.publish)
        self.purge = calls.of(vhost.purge)
        self.queues = calls.of(vhost.queues)


P = ParamSpec("P")


def blocking(broker: ThreadedBroker, work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """`work` as a function."""

    def done(*positional: P.args, **named: P.kwargs) -> T:
        begun = wraps(work)(lambda: work(*positional, **named))
        own_limit_s = named.get("within", 0.0)
        assert isinstance(own_limit_s, int | float)
        return broker.call(begun, patience_s=PATIENCE_S + own_limit_s)

    return done


class Calls:
    """Calls from coroutines of another loop; each is made when it is awaited."""

    __slots__ = ("_broker", "_unawaited")

    def __init__(self, broker: ThreadedBroker, unawaited: dict[object, str]) -> None:
        self._broker = broker
        self._unawaited = unawaited

    def of(self, work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Awaitable[T]]:
        """`work` for the loop that awaits it."""

        def called(*positional: P.args, **named: P.kwargs) -> Awaitable[T]:
            call = Call(self, lambda: work(*positional, **named))
            self._unawaited[call] = work.__name__
            return call

        return called

    async def make(self, call: Call[T]) -> T:
        del self._unawaited[call]
        return await asyncio.wrap_future(self._broker.begin(call.work))


class Call(Generic[T]):
    """One of them, which is awaited once."""

    __slots__ = ("_calls", "work")

    def __init__(self, calls: Calls, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._calls = calls
        self.work = work

    def __await__(self) -> Generator[Any, None, T]:
        return self._calls.make(self).__await__()


async def closed() -> None:
    """What has been closed is gone with the round after the next."""
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
        """As `MovableClock.advance`; returns when everything has happened."""
        self._broker.call(lambda: self._clock().advance(by, **parts))
